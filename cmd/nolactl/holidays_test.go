package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestCalendarPut puts a calendar as people write it, then as get writes it.
func TestCalendarPut(t *testing.T) {
	f, url := newFake(t)
	file := filepath.Join(t.TempDir(), "calendar.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(code int, args ...string) result {
		t.Helper()
		res := session{server: url}.run(t, args...)
		if res.code != code {
			t.Fatalf("nolactl %s: code %d, want %d\n%s", strings.Join(args, " "), res.code, code, res.err)
		}
		return res
	}
	write("comment: closed\ndates: [2026-12-24, 2026-12-27..2026-12-31, {from: 2027-01-01, to: 2027-01-02}]\nrules: [{easter: western, offset: -2}]\n")
	want := &nolav1.Calendar{}
	if err := prototext.Unmarshal([]byte(`
		namespace: "default" name: "new" comment: "closed" version: 1
		dates { from: "2026-12-24" } dates { from: "2026-12-27" to: "2026-12-31" } dates { from: "2027-01-01" to: "2027-01-02" }
		rules { easter: EASTER_WESTERN offset: -2 }`), want); err != nil {
		t.Fatal(err)
	}
	res := run(exitOK, "calendar", "put", "new", "-f", file)
	if got := f.calendars["default/new"]; !proto.Equal(got, want) {
		t.Errorf("put %v, want %v", got, want)
	}
	for _, part := range []string{"version 1; 2 schedules use it", "nightly", "2026-11-26"} {
		if !strings.Contains(res.out, part) {
			t.Errorf("put says %q, and not %q", res.out, part)
		}
	}
	res = run(exitOK, "calendar", "put", "new", "-f", file, "--dry-run")
	if !strings.Contains(res.out, "would change") || f.calendars["default/new"].Version != 1 {
		t.Errorf("a dry run says %q, and leaves version %d", res.out, f.calendars["default/new"].Version)
	}

	// What get writes is what put takes, under the etag that it had.
	text := run(exitOK, "calendar", "get", "bank", "-o", "yaml").out
	write(text)
	before := proto.CloneOf(f.calendars["default/bank"])
	run(exitOK, "calendar", "put", "bank", "-f", file)
	after := f.calendars["default/bank"]
	if len(after.Dates) != len(before.Dates) || len(after.Rules) != len(before.Rules) || after.Version != before.Version+1 {
		t.Errorf("put %v back as %v", before, after)
	}
	write(strings.ReplaceAll(text, before.Etag, "1-z"))
	run(exitConflict, "calendar", "put", "bank", "-f", file)
	run(exitUsage, "calendar", "put", "other", "-f", file)
	run(exitUsage, "calendar", "put", "bank")
	write("{}\n")
	run(exitUsage, "calendar", "put", "bank", "-f", file)
	if len(f.calendars["default/bank"].Dates) == 0 {
		t.Error("a file that says nothing has emptied the calendar")
	}
	run(exitOK, "calendar", "put", "bank", "-f", file, "--empty")
	if len(f.calendars["default/bank"].Dates) != 0 {
		t.Error("--empty has left dates in the calendar")
	}
	write("dates: [2026-02-30]\n")
	run(exitUsage, "calendar", "days", "-f", file)
	write("rules: [{month: \"13\"}]\n")
	run(exitUsage, "calendar", "days", "-f", file)
	run(exitUsage, "calendar", "days")
	run(exitConflict, "calendar", "delete", "bank", "--yes")
	run(exitNotFound, "calendar", "get", "nowhere")
}

// TestSetExcludesAlone changes nothing of a schedule but what it leaves out.
func TestSetExcludesAlone(t *testing.T) {
	f, url := newFake(t)
	for _, tt := range []struct{ args, want string }{
		{"--exclude-calendar bank", `exclude { holiday_calendar: "bank" }`},
		{"--exclude 2026-12-24", `exclude { dates { from: "2026-12-24" } }`},
		{"--holidays bank", `exclude { dates { from: "2026-12-24" } } holiday_calendar: "bank"`},
		{"--holidays= --exclude-calendar old", `exclude { holiday_calendar: "old" }`},
	} {
		args := append([]string{"schedule", "set", "nightly"}, strings.Fields(tt.args)...)
		if res := (session{server: url}).run(t, args...); res.code != exitOK {
			t.Fatalf("%s: code %d\n%s", tt.args, res.code, res.err)
		}
		want := &nolav1.ScheduleSpec{}
		if err := prototext.Unmarshal([]byte(`cron { expression: "0 3 * * *" } time_zone: "Europe/Berlin" `+tt.want), want); err != nil {
			t.Fatal(err)
		}
		if got := f.schedules["default/nightly"].Spec; !proto.Equal(got, want) {
			t.Errorf("%s: the spec is %v, want %v", tt.args, got, want)
		}
	}
}
