package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func clockless() *cli {
	return &cli{namespace: "default", now: func() time.Time { return start }, local: time.FixedZone("CET", 3600)}
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]string{
		"counter/alice":          "default counter alice",
		"counter/a/b:c":          "default counter a/b:c",
		"staging:counter/a":      "staging counter a",
		"counter/{order-17}/x y": "default counter {order-17}/x y",
		"counter":                "",
		"counter/":               "",
		"/alice":                 "",
		":counter/alice":         "",
		"a:b:counter/alice":      "",
		"Counter/alice":          "",
		"counter/a\x00":          "",
	} {
		ref, err := clockless().parseRef(in)
		got := strings.Join([]string{ref.GetNamespace(), ref.GetType(), ref.GetId()}, " ")
		if want == "" && err == nil || want != "" && got != want {
			t.Errorf("parseRef(%q) = %q, %v; want %q", in, got, err, want)
		}
		if want != "" && err == nil {
			if again, err := clockless().parseRef(refName(ref)); err != nil || !proto.Equal(again, ref) {
				t.Errorf("%q is shown as %q, which reads as %v, %v", in, refName(ref), again, err)
			}
		}
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "2d12h": 60 * time.Hour, "1w": 7 * day, "1w1d1s": 8*day + time.Second,
		"": -1, "5": -1, "1x": -1, "d": -1, "1d1w": -1, "1d-1h": -1, "99999d99999d": -1, "1.5d": -1, "9999999d": -1,
	} {
		got, err := parseDuration(in)
		if want == -1 && err == nil || want != -1 && (got != want || err != nil) {
			t.Errorf("parseDuration(%q) = %s, %v; want %s", in, got, err, want)
		}
		if want > 0 {
			if again, err := parseDuration(exactly(want)); again != want {
				t.Errorf("%s is shown as %s, which reads as %s, %v", want, exactly(want), again, err)
			}
		}
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]string{
		"2026-12-24T18:00:00+01:00": "2026-12-24T17:00:00Z",
		"2026-12-24 18:00":          "2026-12-24T17:00:00Z",
		"2026-12-24T18:00:05":       "2026-12-24T17:00:05Z",
		"2026-12-24":                "2026-12-23T23:00:00Z",
		"now":                       "2026-11-24T12:00:00Z",
		"+1d":                       "2026-11-25T12:00:00Z",
		"24.12.2026":                "",
		"+soon":                     "",
		"":                          "",
	} {
		c := clockless()
		got, err := c.parseTime(in, c.local)
		if want == "" && err == nil || want != "" && got.UTC().Format(time.RFC3339) != want {
			t.Errorf("parseTime(%q) = %s, %v; want %q", in, got.UTC().Format(time.RFC3339), err, want)
		}
	}
}

func TestRelative(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "now", 3 * time.Second: "in 3s", -3 * time.Second: "3s ago", 89 * time.Second: "in 89s", 5 * time.Minute: "in 5m",
		-2 * time.Hour: "2h ago", 48 * time.Hour: "in 2d", 3 * 365 * 24 * time.Hour: "in 3y",
	} {
		if got := clockless().relative(start.Add(d)); got != want {
			t.Errorf("%s off is shown as %q, want %q", d, got, want)
		}
	}
}

func TestParseCatchup(t *testing.T) {
	for in, want := range map[string]string{
		"last":          "mode: CATCHUP_MODE_LAST",
		"ALL,2h":        "mode: CATCHUP_MODE_ALL window: {seconds: 7200}",
		"all,2h,100":    "mode: CATCHUP_MODE_ALL window: {seconds: 7200} max: 100",
		"first,100":     "mode: CATCHUP_MODE_FIRST max: 100",
		"some":          "",
		"all,x":         "",
		"all,1h,2h":     "",
		"all,1h,100,5m": "",
	} {
		got, err := parseCatchup(in)
		if want == "" {
			if err == nil {
				t.Errorf("parseCatchup(%q) = %v, want an error", in, got)
			}
			continue
		}
		p := &nolav1.CatchupPolicy{}
		if err := prototext.Unmarshal([]byte(want), p); err != nil {
			t.Fatal(err)
		}
		if err != nil || !proto.Equal(got, p) {
			t.Errorf("parseCatchup(%q) = %v, %v; want %v", in, got, err, p)
		}
	}
}

func TestDecodeSchedule(t *testing.T) {
	const whole = `
schedule_id: x
target: {actor: {type: counter, id: a}, operation: inc, payload: eyJieSI6NX0=}
spec:
  cron:
    - {expression: "0 3 * * *", day_match: and}
  interval:
    - every: 1d12h
      phase: 250ms
  at: ["2026-12-24 18:00", 2026-12-25T00:00:00Z]
  dstGap: first-after
policy: {overlap: ALLOW_ALL, catchup: {mode: CATCHUP_MODE_ALL, window: 2h, max: 5}}
labels: {team: core}
`
	want := &nolav1.Schedule{}
	if err := prototext.Unmarshal([]byte(`
		schedule_id: "x"
		target { actor { type: "counter" id: "a" } operation: "inc" payload: "{\"by\":5}" }
		spec {
			cron { expression: "0 3 * * *" day_match: DAY_MATCH_AND }
			interval { every { seconds: 129600 } phase { nanos: 250000000 } }
			at { seconds: 1798131600 } at { seconds: 1798156800 }
			dst_gap: DST_GAP_FIRST_AFTER
		}
		policy { overlap: OVERLAP_POLICY_ALLOW_ALL catchup { mode: CATCHUP_MODE_ALL window { seconds: 7200 } max: 5 } }
		labels { key: "team" value: "core" }`), want); err != nil {
		t.Fatal(err)
	}
	got := &nolav1.Schedule{}
	if err := clockless().decode("x.yaml", []byte(whole), got); err != nil || !proto.Equal(got, want) {
		t.Fatalf("decoded to %v, %v; want %v", got, err, want)
	}
	// What is shown reads as what it was.
	for _, f := range []format{formatYAML, formatJSON, formatJSONL} {
		text, err := encode(got, f)
		if err != nil {
			t.Fatal(err)
		}
		again := &nolav1.Schedule{}
		if err := clockless().decode("again", text, again); err != nil || !proto.Equal(again, want) {
			t.Errorf("%s reads as %v, %v\n%s", f, again, err, text)
		}
	}
	for text, complaint := range map[string]string{
		"spce: {}":                       `there is no field "spce"`,
		"spec: {interval: [{evry: 1s}]}": `spec.interval[0]: there is no field "evry"`,
		"spec: {interval: [{every: 5}]}": "spec.interval[0].every: want a duration with its unit",
		"spec: {interval: {every: 5s}}":  "spec.interval: want a list",
		"policy: {overlap: never}":       "policy.overlap: \"never\" is not known; want skip, buffer-one, buffer-all, cancel-other, terminate-other, allow-all",
		"spec: {at: [tomorrow]}":         "spec.at[0]",
		"state: {paused: maybe}":         "maybe",
		"just words":                     "want fields",
		"":                               "is empty",
		"a: [":                           "x.yaml: ",
		"spec: 7":                        "spec: want fields",
	} {
		err := clockless().decode("x.yaml", []byte(text), &nolav1.Schedule{})
		if err == nil || !strings.Contains(err.Error(), complaint) || !strings.HasPrefix(err.Error(), "x.yaml") {
			t.Errorf("decode(%q) = %v, want x.yaml with %q", text, err, complaint)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("spec: {interval: [{every: 1h}]}"))
	f.Add([]byte(`{"state":{"remainingActions":"9223372036854775807"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := &nolav1.Schedule{}
		if clockless().decode("x", text, s) != nil {
			return
		}
		shown, err := encode(s, formatYAML)
		if err != nil {
			t.Skip("times out of range have no text")
		}
		again := &nolav1.Schedule{}
		if err := clockless().decode("again", shown, again); err != nil || !proto.Equal(again, s) {
			t.Errorf("%q decodes to %v, is shown as\n%s\nand reads as %v, %v", text, s, shown, again, err)
		}
	})
}

func TestCleanTakesControlFromText(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode": "plain ünïcode", "a\x1b[31mb": "a�[31mb", "a\tb": "a b", "a\u202eb": "a�b", "a\rb": "a�b", "a\nb": "a\nb",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
