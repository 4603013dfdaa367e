package main

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestUsageSince takes two answers of a node apart.
func TestUsageSince(t *testing.T) {
	of := func(id string, turns, steps, over uint64, ran time.Duration) *nolav1.Usage {
		return &nolav1.Usage{Namespace: "default", Type: "t", Id: id, Turns: turns, Steps: steps, StepsError: over, RunTime: durationpb.New(ran)}
	}
	before := &nolav1.GetUsageResponse{
		NodeId: "n", ServerTime: timestamppb.New(start), Total: of("", 100, 10_000, 0, time.Minute),
		Usage: []*nolav1.Usage{of("idle", 9, 5_000, 0, time.Second), of("busy", 5, 1_000, 0, time.Second), of("replaced", 3, 900, 100, time.Second), of("gone", 1, 50, 0, time.Second)},
	}
	after := &nolav1.GetUsageResponse{
		NodeId: "n", ServerTime: timestamppb.New(start.Add(time.Second)), Total: of("", 120, 14_000, 0, 2*time.Minute),
		Usage: []*nolav1.Usage{of("idle", 9, 5_000, 0, time.Second), of("busy", 15, 3_000, 0, 3*time.Second), of("replaced", 2, 1_200, 950, time.Millisecond), of("new", 8, 1_000, 0, time.Second)},
	}
	for sort, want := range map[string][]string{"steps": {"busy", "new"}, "time": {"busy", "new"}, "turns": {"busy", "new"}} {
		got := usageSince(before, after, top{sort: sort, limit: 2})
		var ids []string
		for _, u := range got.Usage {
			ids = append(ids, u.Id)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("by %s: %v, want %v", sort, ids, want)
		}
		if got.Total.Turns != 20 || got.Total.Steps != 4_000 || got.Total.RunTime.AsDuration() != time.Minute {
			t.Errorf("in all %v", got.Total)
		}
	}
	for _, u := range usageSince(before, after, top{sort: "steps", limit: 9}).Usage {
		want := map[string]*nolav1.Usage{
			"busy": of("busy", 10, 2_000, 0, 2*time.Second), "new": of("new", 8, 1_000, 0, time.Second),
			"replaced": of("replaced", 2, 250, 0, time.Millisecond), // what is sure of it
		}[u.Id]
		if want == nil || u.Turns != want.Turns || u.Steps != want.Steps || u.RunTime.AsDuration() != want.RunTime.AsDuration() {
			t.Errorf("got %v, want %v", u, want)
		}
	}
}

// TestTopRefuses asks for what there is not.
func TestTopRefuses(t *testing.T) {
	_, url := newFake(t)
	s := session{server: url}
	for _, args := range [][]string{
		{"top", "shard"}, {"top", "--sort", "name"}, {"top", "--limit", "0"}, {"top", "--interval", "1ms"}, {"top", "--watch", "-o", "json"},
	} {
		if got := s.run(t, args...); got.code != 2 || got.out != "" {
			t.Errorf("%q: code %d, %s%s", args, got.code, got.out, got.err)
		}
	}
}

// TestTopWatches looks until its time is over.
func TestTopWatches(t *testing.T) {
	_, url := newFake(t)
	s := session{server: url}
	if got := s.run(t, "top", "--watch", "--interval", "100ms", "--timeout", "500ms"); got.code != 0 {
		t.Errorf("code %d, %s%s", got.code, got.out, got.err)
	}
}
