package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// selection chooses schedules by what they are and by what has become of them.
// All that was given must hold.
type selection struct {
	filter, words, actor, kind, calendar, missedSince string
	labels                                            []string
	paused, failing, late, neverRan                   bool
}

// selectionFlags are the flags of a selection.
var selectionFlags = []string{"filter", "text", "actor", "type", "calendar", "label", "paused", "failing", "late", "never-ran", "missed-since"}

func (s *selection) register(c *cli, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&s.filter, "filter", "", "terms that must all hold, in the filter language of the API")
	fs.StringVar(&s.words, "text", "", "with this text in the id, target, operation, note, labels, expressions or comments")
	fs.StringVar(&s.actor, "actor", "", "that call this actor, TYPE/ID")
	fs.StringVar(&s.kind, "type", "", "that call actors of this type")
	fs.StringVar(&s.calendar, "calendar", "", "whose specs use this named calendar")
	fs.StringArrayVar(&s.labels, "label", nil, "with the label key=value, key=prefix* or any value of key; may be repeated")
	fs.BoolVar(&s.paused, "paused", false, "that are paused; --paused=false: that are not")
	fs.BoolVar(&s.failing, "failing", false, "whose newest firing failed, or is tried again after a failure")
	fs.BoolVar(&s.late, "late", false, "that have a time waiting that should have fired more than a second ago")
	fs.BoolVar(&s.neverRan, "never-ran", false, "of which no firing has ever started")
	fs.StringVar(&s.missedSince, "missed-since", "", "with a time at or after this one that should have fired and never will, for example -24h or 2026-12-24")
	complete(cmd, "actor", c.completeRef)
	complete(cmd, "calendar", c.completeCalendarFlag)
}

// given reports whether any of the flags was.
func (s *selection) given(flags *pflag.FlagSet) bool {
	for _, name := range selectionFlags {
		if flags.Changed(name) {
			return true
		}
	}
	return false
}

// text is the selection in the filter language, with ids that begin with prefix
// unless that is empty.
func (s *selection) text(c *cli, flags *pflag.FlagSet, prefix string) (string, error) {
	terms := []string{s.filter}
	add := func(key, value string) { terms = append(terms, key+"="+value) }
	truth := func(flag, key string, value bool) {
		if flags.Changed(flag) {
			add(key, strconv.FormatBool(value))
		}
	}
	if prefix != "" {
		add("id", filterValue(prefix)+"*")
	}
	if flags.Changed("text") {
		add("text", filterValue(s.words))
	}
	if flags.Changed("actor") {
		ref, err := c.parseRef(s.actor)
		if err != nil {
			return "", err
		}
		if ref.Namespace != c.namespace {
			return "", usage("name its namespace with -n", "--actor: %s lies in another namespace than %q, and a schedule lives in that of its target", refName(ref), c.namespace)
		}
		add("actor", filterValue(ref.Type+"/"+ref.Id))
	}
	if flags.Changed("type") {
		add("type", filterValue(s.kind))
	}
	if flags.Changed("calendar") {
		add("calendar", filterValue(s.calendar))
	}
	for _, label := range s.labels {
		key, value, ok := strings.Cut(label, "=")
		if key == "" {
			return "", usage("", "--label: %q is no label; write key=value, key=prefix* or key", label)
		}
		value, isPrefix := strings.CutSuffix(value, "*")
		value = filterValue(value)
		if isPrefix || !ok {
			value += "*"
		}
		add("label."+key, value)
	}
	truth("paused", "paused", s.paused)
	truth("failing", "failing", s.failing)
	truth("late", "late", s.late)
	truth("never-ran", "ran", !s.neverRan)
	since, err := c.timeArg("missed-since", s.missedSince, c.local)
	if err != nil {
		return "", err
	}
	if since != nil {
		add("missed_since", since.AsTime().Format(time.RFC3339Nano))
	}
	return strings.TrimSpace(strings.Join(terms, " ")), nil
}

// filterValue puts a value into quotes where the filter needs them.
func filterValue(s string) string {
	if strings.ContainsAny(s, " \t\r\n\"\\") {
		return strconv.Quote(s)
	}
	return s
}

// recentMax is how many outcomes of each schedule a list may show.
const recentMax = 10

func (c *cli) scheduleListCommand() *cobra.Command {
	var limit, recent int
	var chosen selection
	var order string
	cmd := leaf("list [PREFIX]", "List the schedules of a namespace",
		`List schedules: all, or those whose ids begin with a prefix, and those alone for which
all flags hold. They come in the order of their ids, or with --sort next-due in the
order of their next times; the server looks at all schedules of the namespace for
that, at 100,000 at most.

A --filter is a list of terms that must all hold: text=WORDS, id=NAME, id=PREFIX*,
actor=TYPE/ID, type=TYPE, calendar=NAME, label.KEY=VALUE, label.KEY=PREFIX*,
missed_since=TIME, and paused, failing, late or ran with =true or =false. Values with
spaces stand in double quotes.`,
		`nolactl schedule list
nolactl schedule list --failing --label owner=ops --recent 5
nolactl schedule list --missed-since -24h --paused=false
nolactl schedule list ni --sort next-due --limit 20
nolactl schedule list --filter 'type=counter ran=false' -o jsonl`,
		func(cmd *cobra.Command, args []string) error {
			if recent < 0 || recent > recentMax {
				return usage("see all with `nolactl schedule history ID`", "--recent is %d, it must lie between 0 and %d", recent, recentMax)
			}
			sorted, err := enumArg[nolav1.ScheduleOrder]("sort", order)
			if err != nil {
				return err
			}
			filter, err := chosen.text(c, cmd.Flags(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return c.listSchedules(cmd.Context(), &nolav1.ListSchedulesRequest{Namespace: c.namespace, Filter: filter, Order: sorted, Recent: int32(recent)}, limit)
		})
	chosen.register(c, cmd)
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.Flags().IntVar(&recent, "recent", 1, "so many of the newest outcomes of each, at most "+strconv.Itoa(recentMax))
	cmd.Flags().StringVar(&order, "sort", "", "the order: "+strings.Join(words(nolav1.ScheduleOrder(0)), ", ")+" (default id)")
	completeWords(cmd, "sort", words(nolav1.ScheduleOrder(0)))
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}
