package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary the echo server too, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == echoCommand {
		if err := serveEcho(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestLimits(t *testing.T) {
	l, err := newMachineLimits(t.Context(), t.TempDir(), 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	found, err := l.measure(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, name := range limitNames {
		if found[name] <= 0 {
			t.Errorf("%s = %v, want more than 0", name, found[name])
		}
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	select {
	case <-l.echo.ended:
	default:
		t.Error("the echo server is still there after close")
	}
	if _, err := l.measure(t.Context(), "L9"); err == nil {
		t.Error("a limit that does not exist was measured")
	}
}

func TestReadyTellsWhatTheChildSaid(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := spawn("child", "127.0.0.1:1", self, echoCommand, "no address")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ready(t.Context(), "/"); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("ready = %v, want the child's own words", err)
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop of a child that has ended: %v", err)
	}
}

// fixed is an experiment whose row has the same value in every round.
func fixed(name string, value float64, targets ...target) experiment {
	return experiment{rows: []row{{name, perSecond, echoMany, targets}}, run: func(context.Context, *bench) (map[string]sample, error) {
		return map[string]sample{name: {Value: value}}, nil
	}}
}

func TestVoid(t *testing.T) {
	for name, tt := range map[string]struct {
		first, last float64
		void        bool
	}{
		"quiet":       {1000, 1100, false},
		"at the edge": {1000, 1200, false},
		"faster":      {1000, 1210, true},
		"slower":      {1210, 1000, true},
		"between":     {1000, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := collector{block: block{name: "b", experiments: []experiment{fixed("r", 500)}}, limits: []bounds{{echoMany: tt.first}, {echoMany: 5000}, {echoMany: tt.last}}}
			c.add(map[string]sample{"r": {Value: 500}}, mean(c.limits[0], c.limits[1]))
			if r := c.result(); (r.Void != "") != tt.void {
				t.Errorf("from %v to %v: void is %q, want void %v", tt.first, tt.last, r.Void, tt.void)
			}
		})
	}
}

func TestCollector(t *testing.T) {
	e := fixed("r", 0, shareOfLimit(echoMany, 0.5), p99AtMost(20), shareOfRow("other", "the other", 2), shareOfRow("absent", "nothing", 2))
	c := collector{block: block{name: "b", experiments: []experiment{e}}, limits: []bounds{{echoMany: 1000}, {echoMany: 1000}}}
	for _, v := range []float64{400, 600, 550} {
		c.add(map[string]sample{"r": {Value: v, Latency: &latency{P50: 1, P99: v / 20, P999: 30, Max: v}}, "other": {Value: 100}}, bounds{echoMany: 1000})
	}
	r := c.result().Rows[0]
	if want := (spread{550, 400, 600}); r.Value != want {
		t.Errorf("value %v, want %v", r.Value, want)
	}
	if want := (spread{0.55, 0.4, 0.6}); *r.Share != want {
		t.Errorf("share %v, want %v", *r.Share, want)
	}
	if want := (latency{1, 27.5, 30, 600}); *r.Latency != want {
		t.Errorf("latency %v, want %v", *r.Latency, want)
	}
	for i, want := range []verdict{pass, missed, pass, notMeasured} {
		if got := r.Targets[i]; got.Verdict != want {
			t.Errorf("target %q with %v to %v: %s, want %s", got.Text, got.Actual, got.Bound, got.Verdict, want)
		}
	}
	failing := r
	failing.Errors = 1
	if got := failing.verdict(blockResult{Void: "busy"}, r.Targets[0]); got != failed {
		t.Errorf("a row with an error: %s, want %s", got, failed)
	}
	if got := r.verdict(blockResult{Void: "busy"}, r.Targets[0]); got != void {
		t.Errorf("a row of a void block: %s, want %s", got, void)
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{3, 1}, spread{2, 1, 3}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
	} {
		if got := spreadOf(tt.in); got != tt.want {
			t.Errorf("spreadOf(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestBlocksAreWhole(t *testing.T) {
	seen := map[string]bool{}
	p := &process{address: "127.0.0.1:1"}
	for _, b := range []block{callsBlock(), schedulesBlock(), serverBlock(), peersBlock(p)} {
		limits := b.limits()
		for _, e := range b.experiments {
			for _, r := range e.rows {
				if seen[r.name] {
					t.Errorf("two rows are called %q: compare could not tell them apart", r.name)
				}
				seen[r.name] = true
				if r.unit == "" {
					t.Errorf("row %q has no unit", r.name)
				}
			}
		}
		for _, l := range limits {
			if limitUnits[l] == "" {
				t.Errorf("limit %q has no unit", l)
			}
		}
	}
}

func TestFlags(t *testing.T) {
	for name, args := range map[string][]string{
		"no command":      {},
		"unknown command": {"measure"},
		"unknown flag":    {"run", "-x"},
		"too short":       {"run", "-d", "1ms"},
		"too long":        {"limits", "-d", "2h"},
		"no round":        {"run", "-rounds", "0"},
		"bad expression":  {"run", "-rows", "("},
		"one file":        {"compare", "a.json"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := dispatch(t.Context(), args); !errors.Is(err, errUsage) {
				t.Errorf("bench %q = %v, want a usage error", args, err)
			}
		})
	}
	if err := dispatch(t.Context(), []string{"run", "-nolad", "absent"}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without a server: %v, want what to do", err)
	}
}
