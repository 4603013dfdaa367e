package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func TestPolicyFlags(t *testing.T) {
	for name, tt := range map[string]struct {
		lines []string // one after another, against schedule tick
		want  string   // the policy that tick has then
	}{
		"all of them": {
			[]string{"set tick --overlap buffer-all --buffer-limit 20 --max-concurrent 3 --pause-after-failures 4 --retry 2h,5s..10m,20 --catchup all,1d,50 --catchup-spacing 10s"},
			`overlap: OVERLAP_POLICY_BUFFER_ALL buffer_limit: 20 max_concurrent: 3 pause_after_failures: 4
			 retry { deadline { seconds: 7200 } backoff_min { seconds: 5 } backoff_max { seconds: 600 } max_attempts: 20 }
			 catchup { mode: CATCHUP_MODE_ALL window { seconds: 86400 } max: 50 spacing { seconds: 10 } }`,
		},
		"under the name update": {[]string{"update tick --buffer-limit 20"}, `buffer_limit: 20`},
		"one leaves the others": {
			[]string{"set tick --buffer-limit 20 --retry 2h", "set tick --max-concurrent 3"},
			`buffer_limit: 20 max_concurrent: 3 retry { deadline { seconds: 7200 } }`,
		},
		"the mode leaves the spacing": {
			[]string{"set tick --catchup all,2h --catchup-spacing 10s", "set tick --catchup first"},
			`catchup { mode: CATCHUP_MODE_FIRST spacing { seconds: 10 } }`,
		},
		"the spacing leaves the mode": {
			[]string{"set tick --catchup all,2h", "set tick --catchup-spacing 10s"},
			`catchup { mode: CATCHUP_MODE_ALL window { seconds: 7200 } spacing { seconds: 10 } }`,
		},
		"taken back": {
			[]string{"set tick --buffer-limit 20 --max-concurrent 3 --pause-after-failures 4 --retry 2h", "set tick --buffer-limit 0 --max-concurrent 0 --pause-after-failures 0 --retry="},
			``,
		},
		"deadline alone": {[]string{"set tick --retry 90s"}, `retry { deadline { seconds: 90 } }`},
		"attempts alone": {[]string{"set tick --retry 90s,3"}, `retry { deadline { seconds: 90 } max_attempts: 3 }`},
		"only the least": {[]string{"set tick --retry 90s,2s.."}, `retry { deadline { seconds: 90 } backoff_min { seconds: 2 } }`},
		"only the most":  {[]string{"set tick --retry 90s,..4s"}, `retry { deadline { seconds: 90 } backoff_max { seconds: 4 } }`},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			for _, line := range tt.lines {
				if res := (session{server: url}).run(t, strings.Fields("schedule "+line)...); res.code != exitOK {
					t.Fatalf("nolactl schedule %s: code %d\n%s", line, res.code, res.err)
				}
			}
			want := &nolav1.SchedulePolicy{}
			if err := prototext.Unmarshal([]byte(tt.want), want); err != nil {
				t.Fatal(err)
			}
			got := f.schedules["default/tick"].Policy
			if got.Catchup != nil && proto.Equal(got.Catchup, &nolav1.CatchupPolicy{}) {
				got.Catchup = nil
			}
			if !proto.Equal(got, want) {
				t.Errorf("the policy is now\n%v\nwant\n%v", got, want)
			}
		})
	}
}

func TestPolicyFlagsOnCreate(t *testing.T) {
	f, url := newFake(t)
	res := session{server: url}.run(t, "schedule", "create", "new", "--target", "counter/alice", "--op", "inc", "--calendar", "hour=9", "--retry", "1h", "--buffer-limit", "7")
	if res.code != exitOK {
		t.Fatalf("code %d\n%s", res.code, res.err)
	}
	got := f.schedules["default/new"]
	if got.Policy.GetRetry().GetDeadline().GetSeconds() != 3600 || got.Policy.GetBufferLimit() != 7 || len(got.Spec.GetCalendar()) != 1 {
		t.Errorf("made %v, want a retry deadline of 1h, a buffer limit of 7 and one calendar entry", got)
	}
}

func TestBadPolicyFlagsSayWhatIsLegal(t *testing.T) {
	_, url := newFake(t)
	for line, want := range map[string]string{
		"--retry soon":             "1h30m",
		"--retry ,1s..2s":          "DEADLINE",
		"--retry 1h,many":          "MIN..MAX",
		"--retry 1h,3,4":           "one too many",
		"--retry 1h,1s..2s,1s..2s": "one too many",
		"--retry 1h,x..2s":         `"x" is no duration`,
		"--catchup-spacing 10":     "90s",
		"--buffer-limit -1":        "buffer-limit",
		"--buffer-limit 1001":      "buffer_limit",
		"--max-concurrent 101":     "max_concurrent",
	} {
		if res := (session{server: url}).run(t, strings.Fields("schedule set tick "+line)...); res.code != exitUsage || !strings.Contains(res.err, want) {
			t.Errorf("nolactl schedule set tick %s: code %d, want %d with %q in\n%s", line, res.code, exitUsage, want, res.err)
		}
	}
}

func TestDescribeShowsThePolicyInForce(t *testing.T) {
	f, url := newFake(t)
	p := f.schedules["default/tick"].Policy
	if err := prototext.Unmarshal([]byte(`overlap: OVERLAP_POLICY_ALLOW_ALL buffer_limit: 20 pause_after_failures: 4
		retry { deadline { seconds: 7200 } backoff_min { seconds: 5 } max_attempts: 20 }
		catchup { mode: CATCHUP_MODE_ALL spacing { seconds: 10 } }`), p); err != nil {
		t.Fatal(err)
	}
	f.schedules["default/tick"].Info.DeadLetters, f.schedules["default/tick"].Info.Failures = 2, 3
	f.schedules["default/tick"].State.PauseReason = "4 firings failed"
	f.schedules["default/tick"].State.PausedBy = "alice"
	res := session{server: url}.run(t, "schedule", "describe", "tick")
	for _, want := range []string{
		"Overlap: allow-all", "Running at once: 100 (default)", "Waiting at most: 20", "Pause after: 4 failures in a row",
		"Catch-up: all, window 365d (default), at most 1000 (default), 10s apart",
		"Retry: until 2h after the first attempt, 5s to 1m (default) apart, at most 20 attempts",
		"Failed in a row: 3", "Dead letters: 2, see `nolactl schedule letters tick`", "Paused itself: 4 firings failed", "Paused by: alice",
	} {
		if !strings.Contains(strings.Join(strings.Fields(res.out), " "), want) {
			t.Errorf("describe does not say %q:\n%s", want, res.out)
		}
	}
}
