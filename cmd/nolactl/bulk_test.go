package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// many gives the fake more schedules: one to so many, of which the odd ones
// have the label half=odd.
func (f *fake) many(n int) {
	for i := 1; i <= n; i++ {
		s := proto.CloneOf(f.schedules["default/tick"])
		s.ScheduleId, s.Labels = fmt.Sprintf("s%d", i), map[string]string{"half": []string{"even", "odd"}[i%2]}
		f.schedules["default/"+s.ScheduleId] = s
	}
}

func (f *fake) where(passes func(id string) bool) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(f.schedules)) {
		if id := strings.TrimPrefix(key, "default/"); passes(id) {
			all = append(all, id)
		}
	}
	return strings.Join(all, " ")
}

func TestBulk(t *testing.T) {
	for name, tt := range map[string]struct {
		line         string
		person       bool
		answer       string
		code         int
		paused, left string // the schedules that are paused, and all there are
		out, err     string // parts of what is printed
	}{
		"pause":             {line: "pause --label half=odd --yes", paused: "s1 s3", left: "all", out: "2 schedules paused"},
		"pause all":         {line: "pause --all --yes -o name", paused: "nightly s1 s2 s3 s4 tick", left: "all", out: "s1\ns2\n"},
		"pause, dry run":    {line: "pause --label half=odd --dry-run", left: "all", out: "counter/alice inc", err: "dry run: 2 schedules would be paused"},
		"pause, unanswered": {line: "pause --label half=odd", left: "all", code: exitUsage, err: "--yes"},
		"asked, yes":        {line: "pause --label half=odd", person: true, answer: "y\n", paused: "s1 s3", left: "all", err: "this will pause 2 schedules: s1, s3; go on?"},
		"asked, no":         {line: "delete --label half=odd", person: true, answer: "n\n", left: "all", code: exitFailure, err: "this will delete 2 schedules with their history: s1, s3; go on?"},
		"asked for many":    {line: "delete --all", person: true, answer: "n\n", left: "all", code: exitFailure, err: "nightly, s1, s2, s3, s4 and 1 more"},
		"delete":            {line: "delete --label half=odd --yes", left: "nightly s2 s4 tick", out: "2 schedules deleted"},
		"delete, dry run":   {line: "delete --all --dry-run --yes", left: "all", err: "dry run: 6 schedules would be deleted"},
		"none":              {line: "delete --label half=none --yes", left: "all", err: "no schedules"},
		"nothing chosen":    {line: "delete --yes", left: "all", code: exitUsage, err: "--all"},
		"id and flags":      {line: "delete tick --all --yes", left: "all", code: exitUsage, err: "not both"},
		"id and dry run":    {line: "pause tick --dry-run", left: "all", code: exitUsage, err: "schedule describe tick"},
		"one by its id":     {line: "pause s1", paused: "s1", left: "all"},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			f.many(4)
			if tt.left == "all" {
				tt.left = "nightly s1 s2 s3 s4 tick"
			}
			res := session{server: url, person: tt.person, in: tt.answer}.run(t, strings.Fields("schedule "+tt.line)...)
			if res.code != tt.code || !strings.Contains(res.out, tt.out) || !strings.Contains(res.err, tt.err) {
				t.Errorf("code %d, want %d, with %q and %q in\n%s%s", res.code, tt.code, tt.out, tt.err, res.out, res.err)
			}
			if got := f.where(func(id string) bool { return f.schedules["default/"+id].State.Paused }); got != tt.paused {
				t.Errorf("paused are %q, want %q", got, tt.paused)
			}
			if got := f.where(func(string) bool { return true }); got != tt.left {
				t.Errorf("left are %q, want %q", got, tt.left)
			}
		})
	}
}

func TestBulkUnpause(t *testing.T) {
	f, url := newFake(t)
	f.many(4)
	for _, id := range []string{"s1", "s2"} {
		f.schedules["default/"+id].State.Paused = true
	}
	res := session{server: url}.run(t, "schedule", "unpause", "--paused", "--yes")
	if got := f.where(func(id string) bool { return f.schedules["default/"+id].State.Paused }); res.code != exitOK || got != "" || !strings.Contains(res.out, "2 schedules unpaused") {
		t.Errorf("code %d, %q still paused\n%s%s", res.code, got, res.out, res.err)
	}
}

func TestBulkReadsAllPages(t *testing.T) {
	f, url := newFake(t)
	f.many(2*pageMax + 1)
	res := session{server: url}.run(t, "schedule", "delete", "--all", "--yes")
	if len(f.schedules) != 0 || !strings.Contains(res.out, fmt.Sprintf("%d schedules deleted", 2*pageMax+3)) {
		t.Errorf("code %d, %d schedules are left\n%s%s", res.code, len(f.schedules), res.out, res.err)
	}
}

func TestBulkIsBounded(t *testing.T) {
	f, url := newFake(t)
	f.many(bulkMax)
	res := session{server: url}.run(t, "schedule", "delete", "--all", "--yes")
	if len(f.schedules) != bulkMax+2 || res.code != exitUsage || !strings.Contains(res.err, "choose fewer") {
		t.Errorf("code %d, %d schedules are left\n%s", res.code, len(f.schedules), res.err)
	}
}

func TestBulkMeetsOtherChanges(t *testing.T) {
	f, url := newFake(t)
	f.many(4)
	f.listed = func() {
		delete(f.schedules, "default/s1")
		f.schedules["default/s3"].Etag = "2"
	}
	res := session{server: url}.run(t, "schedule", "delete", "--label", "half=odd", "--yes")
	if got := f.where(func(string) bool { return true }); got != "nightly s2 s3 s4 tick" || res.code != exitConflict || !strings.Contains(res.err, "1 schedule changed after") {
		t.Errorf("left are %q, code %d\n%s%s", got, res.code, res.out, res.err)
	}

	f, url = newFake(t)
	f.many(4)
	f.listed = func() { delete(f.schedules, "default/s1") }
	res = session{server: url}.run(t, "schedule", "pause", "--label", "half=odd", "--yes")
	if res.code != exitOK || !f.schedules["default/s3"].State.Paused || !strings.Contains(res.out, "1 schedule paused") {
		t.Errorf("code %d\n%s%s", res.code, res.out, res.err)
	}
}

func TestBulkStopsAtAnError(t *testing.T) {
	f, url := newFake(t)
	f.many(4)
	f.moving = "s3"
	res := session{server: url}.run(t, "schedule", "pause", "--label", "half=odd", "--yes")
	if res.code != exitUnavailable || !strings.Contains(res.err, "stopped at schedule s3, with 1 of 2 paused") || !strings.Contains(res.err, "run the command again") || !f.schedules["default/s1"].State.Paused {
		t.Errorf("code %d\n%s%s", res.code, res.out, res.err)
	}
}
