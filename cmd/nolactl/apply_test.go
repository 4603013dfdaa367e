package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// tickSays is schedule tick of the fake as a file says it.
const tickSays = "scheduleId: tick\ntarget: {actor: {type: counter, id: alice}, operation: inc}\nspec: {interval: [{every: 1s}]}\n"

func TestApply(t *testing.T) {
	f, url := newFake(t)
	other := strings.NewReplacer("tick", "new", "1s", "90s").Replace(tickSays)
	run := func(text string, args ...string) result {
		t.Helper()
		return session{server: url, in: text}.run(t, append([]string{"schedule", "apply", "-f", "-"}, args...)...)
	}

	before := proto.CloneOf(f.schedules["default/tick"])
	changed := strings.Replace(tickSays, "every: 1s", "every: 2s", 1) + "labels: {team: core}\n"
	res := run(changed+"---\n"+other, "--dry-run")
	for _, want := range []string{"schedule tick would be changed", "- every: 1s", "+     - every: 2s", "+   team: core", "schedule new would be created"} {
		if !strings.Contains(strings.ReplaceAll(res.out, "-     - every", "- every"), want) {
			t.Errorf("the dry run does not say %q:\n%s", want, res.out)
		}
	}
	if !strings.Contains(res.err, "dry run: 1 created, 1 changed, 0 unchanged") || res.code != exitOK || len(f.schedules) != 2 || !proto.Equal(f.schedules["default/tick"], before) {
		t.Errorf("dry run: code %d, %d schedules, tick is %v\n%s", res.code, len(f.schedules), f.schedules["default/tick"], res.err)
	}

	res = run(changed + "---\n" + other)
	if res.code != exitOK || !strings.Contains(res.out, "schedule tick changed") || !strings.Contains(res.out, "schedule new created") || !strings.HasSuffix(res.out, "1 created, 1 changed, 0 unchanged\n") {
		t.Errorf("code %d\n%s%s", res.code, res.out, res.err)
	}
	tick := f.schedules["default/tick"]
	if tick.Spec.Interval[0].Every.AsDuration() != 2*time.Second || tick.Labels["team"] != "core" || f.schedules["default/new"].GetSpec().GetInterval()[0].Every.AsDuration() != 90*time.Second {
		t.Errorf("tick is %v, new is %v", tick, f.schedules["default/new"])
	}
	if res = run(changed + "---\n" + other); res.out != "0 created, 0 changed, 2 unchanged\n" {
		t.Errorf("again: code %d\n%s%s", res.code, res.out, res.err)
	}
	if res = run(tickSays); res.code != exitOK || len(f.schedules["default/tick"].Labels) != 0 {
		t.Errorf("labels that the file leaves out are %v\n%s", f.schedules["default/tick"].Labels, res.err)
	}
}

// TestApplyPrunes deletes what the file does not name: after a question, in the
// namespaces of the file, and with a label those alone that have it.
func TestApplyPrunes(t *testing.T) {
	for name, tt := range map[string]struct {
		args string
		text string
		code int
		left string // of the default namespace
		says string
	}{
		"a dry run":             {"--prune --dry-run", tickSays, exitOK, "extra nightly tick", "schedule nightly would be deleted"},
		"nobody says yes":       {"--prune", tickSays, exitUsage, "extra nightly tick", "delete 2 schedules that it does not name"},
		"all":                   {"--prune --yes", tickSays, exitOK, "tick", "0 created, 0 changed, 1 unchanged, 2 deleted"},
		"by label":              {"--prune --prune-label owner=ops --yes", tickSays, exitOK, "extra tick", "schedule nightly deleted"},
		"nothing left over":     {"--prune --prune-label owner=nobody", tickSays, exitOK, "extra nightly tick", "1 unchanged"},
		"without --prune":       {"", tickSays, exitOK, "extra nightly tick", "1 unchanged"},
		"a label alone":         {"--prune-label owner=ops", tickSays, exitUsage, "extra nightly tick", "add --prune"},
		"a file of nothing":     {"--prune --yes", "schedules: []", exitUsage, "extra nightly tick", "names no schedule"},
		"a fault comes before":  {"--prune --yes", tickSays + "policy: {bufferLimit: 5000}", exitUsage, "extra nightly tick", "nothing was changed"},
		"other namespaces stay": {"-n staging --prune --yes", tickSays, exitOK, "extra nightly tick", "1 created"},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			extra := proto.CloneOf(f.schedules["default/tick"])
			extra.ScheduleId = "extra"
			f.schedules["default/extra"] = extra
			res := session{server: url, in: tt.text}.run(t, append([]string{"schedule", "apply", "-f", "-"}, strings.Fields(tt.args)...)...)
			var left []string
			for _, id := range []string{"extra", "nightly", "tick"} {
				if f.schedules["default/"+id] != nil {
					left = append(left, id)
				}
			}
			if res.code != tt.code || strings.Join(left, " ") != tt.left || !strings.Contains(res.out+res.err, tt.says) {
				t.Errorf("code %d, want %d; left are %v, want %s; and %q in\n%s%s", res.code, tt.code, left, tt.left, tt.says, res.out, res.err)
			}
		})
	}
}

// TestPruneLeavesWhatChanged: a schedule that somebody changes after it was chosen
// is not deleted.
func TestPruneLeavesWhatChanged(t *testing.T) {
	f, url := newFake(t)
	f.listed = func() { f.schedules["default/nightly"].Etag = "2" }
	res := session{server: url, in: tickSays}.run(t, "schedule", "apply", "-f", "-", "--prune", "--yes")
	if f.schedules["default/nightly"] == nil || res.code != exitConflict || !strings.Contains(res.err, "stopped at schedule nightly") {
		t.Errorf("code %d, nightly is %v\n%s%s", res.code, f.schedules["default/nightly"], res.out, res.err)
	}
}

func TestApplyLeavesTheStateToOperators(t *testing.T) {
	f, url := newFake(t)
	f.schedules["default/tick"].State = &nolav1.ScheduleState{Paused: true, Note: "repair"}
	text := tickSays + "state: {note: from the file}\n"
	res := session{server: url, in: text}.run(t, "schedule", "apply", "-f", "-")
	if s := f.schedules["default/tick"].State; !s.Paused || s.Note != "repair" || !strings.Contains(res.err, "--state") || !strings.Contains(res.out, "1 unchanged") {
		t.Errorf("state is %v\n%s%s", s, res.out, res.err)
	}
	res = session{server: url, in: text}.run(t, "schedule", "apply", "-f", "-", "--state")
	if s := f.schedules["default/tick"].State; s.Paused || s.Note != "from the file" || !strings.Contains(res.out, "1 changed") {
		t.Errorf("with --state it is %v\n%s%s", s, res.out, res.err)
	}
}

func TestApplyRefusesBeforeItChangesAnything(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		args string
		code int
		want string
	}{
		"a faulty expression": {strings.NewReplacer("tick", "bad", "interval: [{every: 1s}]", `cron: [{expression: "0 25 * * *"}]`).Replace(tickSays), "", exitUsage, "schedule bad: "},
		"another target":      {strings.NewReplacer("tick", "nightly", "alice", "bob").Replace(tickSays), "", exitConflict, "schedule delete nightly"},
		"no id":               {strings.Replace(tickSays, "scheduleId: tick\n", "", 1), "", exitUsage, "the schedule has no id"},
		"no operation":        {strings.Replace(tickSays, ", operation: inc", "", 1), "", exitUsage, "no operation"},
		"no times":            {"scheduleId: x\ntarget: {actor: {type: counter, id: a}, operation: inc}\n", "", exitUsage, "spec.cron, spec.calendar, spec.interval"},
		"no time left":        {strings.NewReplacer("tick", "x", "interval: [{every: 1s}]", `at: ["2001-01-01"]`).Replace(tickSays), "", exitUsage, "no time left"},
		"twice the same":      {tickSays, "", exitUsage, "twice"},
		"a faulty policy":     {strings.NewReplacer("tick", "bad").Replace(tickSays) + "policy: {bufferLimit: 5000}\n", "", exitUsage, "schedule bad: "},
		"a policy alone":      {strings.NewReplacer("tick", "nightly", "interval: [{every: 1s}]", `cron: [{expression: "0 3 * * *"}], timeZone: Europe/Berlin`).Replace(tickSays) + "labels: {owner: ops}\npolicy: {bufferLimit: 5000}\n", "", exitUsage, "schedule nightly: "},
		"a field unknown":     {tickSays + "colour: red\n", "", exitUsage, `no field "colour"`},
		"another namespace":   {tickSays + "namespace: staging\n", "-n default", exitUsage, "-n says"},
		"empty":               {"# nothing\n", "", exitUsage, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			text := tt.text
			if name != "empty" {
				text = strings.Replace(tickSays, "every: 1s", "every: 2s", 1) + "---\n" + text
			}
			res := session{server: url, in: text}.run(t, append([]string{"schedule", "apply", "-f", "-"}, strings.Fields(tt.args)...)...)
			if res.code != tt.code || !strings.Contains(res.err, tt.want) {
				t.Errorf("code %d, want %d with %q in\n%s", res.code, tt.code, tt.want, res.err)
			}
			if every := f.schedules["default/tick"].Spec.Interval[0].Every.AsDuration(); every != time.Second || len(f.schedules) != 2 {
				t.Errorf("%d schedules, tick fires every %s: something was changed", len(f.schedules), every)
			}
		})
	}
	if res := (session{server: "http://127.0.0.1:1"}).run(t, "schedule", "apply"); res.code != exitUsage || !strings.Contains(res.err, "-f FILE") {
		t.Errorf("without a file: code %d\n%s", res.code, res.err)
	}
}

// TestApplyAsksItsOwnNamespace: the calendars that a spec names are those of the
// schedule's namespace, and so are those by which it is checked.
func TestApplyAsksItsOwnNamespace(t *testing.T) {
	f, url := newFake(t)
	uses := strings.NewReplacer("tick", "pay", "interval: [{every: 1s}]", `cron: [{expression: "0 9 LB * *"}], holidayCalendar: bank`).Replace(tickSays)
	text := strings.Replace(tickSays, "tick", "first", 1) + "---\n" + uses
	res := session{server: url, in: text}.run(t, "-n", "staging", "schedule", "apply", "-f", "-")
	if res.code != exitUsage || !strings.Contains(res.err, "schedule pay: ") || !strings.Contains(res.err, "nothing was changed") || f.schedules["staging/first"] != nil {
		t.Errorf("without the calendar: code %d\n%s%s", res.code, res.out, res.err)
	}
	f.calendars["staging/closed"] = &nolav1.Calendar{Namespace: "staging", Name: "closed"}
	text = strings.ReplaceAll(text, "bank", "closed")
	if res := (session{server: url, in: text}).run(t, "-n", "staging", "schedule", "apply", "-f", "-"); !strings.HasSuffix(res.out, "2 created, 0 changed, 0 unchanged\n") {
		t.Errorf("with a calendar that only this namespace has: code %d\n%s%s", res.code, res.out, res.err)
	}
}

// TestDryRunShowsWhatIsMade: an H of an expression depends on the schedule's id.
func TestDryRunShowsWhatIsMade(t *testing.T) {
	f, url := newFake(t)
	line := []string{"schedule", "create", "hashed", "--target", "counter/a", "--op", "inc", "--cron", "H H * * *", "--tz", "UTC"}
	dry := session{server: url}.run(t, append(line, "--dry-run", "-o", "json")...)
	if res := (session{server: url}).run(t, line...); dry.code != exitOK || res.code != exitOK {
		t.Fatalf("codes %d and %d\n%s%s", dry.code, res.code, dry.err, res.err)
	}
	next := f.schedules["default/hashed"].Info.NextTimes[0].AsTime().Format(time.RFC3339)
	if !strings.Contains(dry.out, next) {
		t.Errorf("it fires at %s, the dry run says\n%s", next, dry.out)
	}
}

func TestApplyStopsAtAnError(t *testing.T) {
	f, url := newFake(t)
	text := strings.Replace(tickSays, "tick", "a", 1) + "---\n" + strings.Replace(tickSays, "tick", "b", 1)
	f.full = "b"
	res := session{server: url, in: text}.run(t, "schedule", "apply", "-f", "-")
	if f.schedules["default/a"] == nil || res.code != exitUnavailable || !strings.Contains(res.err, "stopped at schedule b") || !strings.Contains(res.err, "1 created") {
		t.Errorf("code %d\n%s%s", res.code, res.out, res.err)
	}
}

// TestExportIsWhatApplyReads: what one namespace exports makes the same schedules
// in another, and changes nothing where it came from, in every format.
func TestExportIsWhatApplyReads(t *testing.T) {
	for _, format := range []string{"table", "yaml", "json", "jsonl"} {
		t.Run(format, func(t *testing.T) {
			f, url := newFake(t)
			f.schedules["default/tick"].State = &nolav1.ScheduleState{Paused: true, Note: "soon", PauseReason: "it failed", PausedBy: "alice"}
			f.schedules["default/tick"].Target.Payload = []byte{0xff, 1}
			out := session{server: url}.run(t, "schedule", "export", "-o", format)
			for _, word := range []string{"etag", "info", "namespace", "it failed", "pausedBy"} {
				if strings.Contains(out.out, word) {
					t.Errorf("the export has %q in it:\n%s", word, out.out)
				}
			}
			if res := (session{server: url, in: out.out}).run(t, "schedule", "apply", "-f", "-", "--state"); res.out != "0 created, 0 changed, 2 unchanged\n" {
				t.Errorf("applied where it came from: code %d\n%s%s", res.code, res.out, res.err)
			}
			if res := (session{server: url, in: out.out}).run(t, "-n", "staging", "schedule", "apply", "-f", "-"); !strings.HasSuffix(res.out, "2 created, 0 changed, 0 unchanged\n") {
				t.Fatalf("applied elsewhere: code %d\n%s%s", res.code, res.out, res.err)
			}
			for _, id := range []string{"tick", "nightly"} {
				if here, there := definition(f.schedules["default/"+id]), definition(f.schedules["staging/"+id]); !proto.Equal(here, there) {
					t.Errorf("%s is\n%v\nhere and\n%v\nelsewhere", id, here, there)
				}
			}
		})
	}
}

// TestNothingExportedIsApplied: a prefix that nothing has is no error on either side.
func TestNothingExportedIsApplied(t *testing.T) {
	for _, format := range []string{"table", "yaml", "json"} {
		_, url := newFake(t)
		out := session{server: url}.run(t, "schedule", "export", "none", "-o", format)
		res := session{server: url, in: out.out}.run(t, "schedule", "apply", "-f", "-")
		if res.code != exitOK || res.out != "0 created, 0 changed, 0 unchanged\n" {
			t.Errorf("%s: %q exported, then code %d\n%s%s", format, out.out, res.code, res.out, res.err)
		}
	}
}

func TestExportChooses(t *testing.T) {
	_, url := newFake(t)
	res := session{server: url}.run(t, "schedule", "export", "--label", "owner=ops")
	if res.code != exitOK || !strings.Contains(res.out, "nightly") || strings.Contains(res.out, "tick") {
		t.Errorf("code %d\n%s%s", res.code, res.out, res.err)
	}
}

func TestCreateFromAFileOfSeveral(t *testing.T) {
	_, url := newFake(t)
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("schedules:\n- "+strings.ReplaceAll(strings.TrimSpace(strings.Replace(tickSays, "tick", "new", 1)), "\n", "\n  ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if res := (session{server: url}).run(t, "schedule", "create", "-f", file); res.code != exitOK || !strings.Contains(res.out, "schedule new created") {
		t.Errorf("one in a list: code %d\n%s%s", res.code, res.out, res.err)
	}
	if res := (session{server: url, in: tickSays + "---\n" + tickSays}).run(t, "schedule", "create", "-f", "-"); res.code != exitUsage || !strings.Contains(res.err, "schedule apply -f") {
		t.Errorf("two: code %d\n%s", res.code, res.err)
	}
}

// TestDefinition: what a server answers and what a person wrote mean the same.
func TestDefinition(t *testing.T) {
	answered, written, other := &nolav1.Schedule{}, &nolav1.Schedule{}, &nolav1.Schedule{}
	for text, m := range map[string]*nolav1.Schedule{
		`namespace: "default" schedule_id: "a" etag: "7" target { actor { namespace: "default" type: "t" id: "1" } operation: "o" }
		 spec { cron { expression: "@daily" dialect: CRON_DIALECT_AUTO } dst_gap: DST_GAP_SKIP dst_overlap: DST_OVERLAP_BOTH jitter {}
		        start_time {} calendar_interval { every: 1 unit: CALENDAR_UNIT_DAY at {} } exclude { calendar {} } }
		 policy { overlap: OVERLAP_POLICY_SKIP catchup { mode: CATCHUP_MODE_LAST } } state {} info { failures: 3 }`: answered,
		`schedule_id: "a" target { actor { type: "t" id: "1" } operation: "o" }
		 spec { cron { expression: "@daily" } start_time {} calendar_interval { every: 1 unit: CALENDAR_UNIT_DAY } exclude { calendar {} } }`: written,
		`schedule_id: "a" target { actor { type: "t" id: "1" } operation: "o" }
		 spec { cron { expression: "@daily" } start_time {} calendar_interval { every: 1 unit: CALENDAR_UNIT_DAY } exclude { dates {} } }`: other,
	} {
		if err := prototext.Unmarshal([]byte(text), m); err != nil {
			t.Fatal(err)
		}
	}
	if !proto.Equal(definition(answered), definition(written)) {
		t.Errorf("answered\n%v\nand written\n%v\ndiffer", definition(answered), definition(written))
	}
	if proto.Equal(definition(other), definition(written)) {
		t.Errorf("%v is the same as another spec", definition(other))
	}
	for part, change := range map[string]func(*nolav1.Schedule){
		"spec":   func(s *nolav1.Schedule) { s.Spec.DstGap = nolav1.DstGap_DST_GAP_FIRST_AFTER },
		"policy": func(s *nolav1.Schedule) { s.Policy.Catchup.Spacing = durationpb.New(time.Second) },
	} {
		s := proto.CloneOf(answered)
		change(s)
		if got := strings.Join(changedParts(definition(answered), definition(s)), " "); got != part {
			t.Errorf("changed is %q, want %s", got, part)
		}
	}
}

func TestLineDiff(t *testing.T) {
	for _, tt := range []struct{ before, after, want string }{
		{"a\nb\nc\n", "a\nb\nc\n", ""},
		{"a\nb\nc\n", "a\nB\nc\n", "  a|- b|+ B|  c"},
		{"a\n", "a\nb\n", "  a|+ b"},
		{"a\nb\n", "b\n", "- a|  b"},
		{"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1x\n2\n3\n4\n5\n6\n7\n8\n9x\n", "- 1|+ 1x|  2|  3|  …|  7|  8|- 9|+ 9x"},
	} {
		if got := strings.Join(lineDiff(tt.before, tt.after), "|"); got != tt.want {
			t.Errorf("from %q to %q: %s, want %s", tt.before, tt.after, got, tt.want)
		}
	}
	long := strings.Repeat("x\n", 2_100)
	if got := lineDiff(long, long+"y\n"); len(got) != 2*2_100+1 {
		t.Errorf("long texts come to %d lines, want both whole", len(got))
	}
}
