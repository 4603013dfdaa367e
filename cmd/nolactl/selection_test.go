package main

import (
	"strings"
	"testing"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func TestScheduleListFlags(t *testing.T) {
	for line, want := range map[string]string{
		"list":                               "",
		"list ni":                            "id=ni*",
		"list a|b":                           `id="a b"*`,
		"list --text disk":                   "text=disk",
		"list --text full|disk*":             `text="full disk*"`,
		"list --actor counter/a|b":           `actor="counter/a b"`,
		"list --actor default:counter/alice": "actor=counter/alice",
		"list --type counter":                "type=counter",
		"list --label a=b --label c=d* --label e":  "label.a=b label.c=d* label.e=*",
		"list --label a=":                          "label.a=",
		"list --label a=the|shop*":                 `label.a="the shop"*`,
		"list --paused --failing --late":           "paused=true failing=true late=true",
		"list --paused=false --failing=false":      "paused=false failing=false",
		"list --never-ran":                         "ran=false",
		"list --never-ran=false":                   "ran=true",
		"list --missed-since 2026-11-23T12:00:00Z": "missed_since=2026-11-23T12:00:00Z",
		"list --missed-since 2026-11-24":           "missed_since=2026-11-23T23:00:00Z", // on this machine's clock
		"list ni --filter type=a --paused":         "type=a id=ni* paused=true",
		"list --calendar bank":                     "calendar=bank",
	} {
		t.Run(line, func(t *testing.T) {
			f, url := newFake(t)
			var args []string
			for word := range strings.FieldsSeq("schedule " + line) {
				args = append(args, strings.ReplaceAll(word, "|", " "))
			}
			if res := (session{server: url}).run(t, args...); res.code != exitOK {
				t.Fatalf("code %d\n%s", res.code, res.err)
			}
			if got := f.lists[0]; got.Filter != want || got.Namespace != "default" || got.Recent != 1 || got.Order != 0 {
				t.Errorf("asked %v, want the filter %s", got, want)
			}
		})
	}
	for line, want := range map[string]string{
		"list --label =x":             "key=prefix*",
		"list --actor counter":        "TYPE/ID",
		"list --actor staging:cart/a": "-n",
		"list --missed-since -soon":   "90s",
		"list --sort size":            "id, next-due",
		"list --recent 11":            "schedule history",
		"list --paused=maybe":         "paused",
	} {
		_, url := newFake(t)
		if res := (session{server: url}).run(t, strings.Fields("schedule "+line)...); res.code != exitUsage || !strings.Contains(res.err, want) {
			t.Errorf("nolactl schedule %s: code %d, want %d with %q in\n%s", line, res.code, exitUsage, want, res.err)
		}
	}
}

func TestScheduleListShowsOutcomesAndOrder(t *testing.T) {
	f, url := newFake(t)
	res := session{server: url}.run(t, "schedule", "list", "tick", "--recent", "3", "--sort", "next-due")
	if want := "fired, skipped-overlap, failed 1s ago"; res.code != exitOK || !strings.Contains(res.out, want) {
		t.Errorf("code %d, want %q in\n%s%s", res.code, want, res.out, res.err)
	}
	if got := f.lists[0]; got.Order != nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE || got.Recent != 3 {
		t.Errorf("asked %v, want 3 outcomes by next due time", got)
	}
}
