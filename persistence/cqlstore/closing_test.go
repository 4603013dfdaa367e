package cqlstore

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// TestClosingEntryCountsNothingBehindIt has an entry without batches and one with a
// batch behind it committed by one look at the head. The first has nothing to apply;
// the second does, and whoever recovers the lane must find it.
func TestClosingEntryCountsNothingBehindIt(t *testing.T) {
	w, out := lane.NewWriter(lane.ID{1}, lane.Head{Node: "n", Mode: lane.ModeQuorum, RingSize: 8})
	w.Step(lane.Answer{To: out.Send[0], Outcome: lane.Done})
	own := &ownLane{w: w, ring: 8}
	s := &Store{
		cfg: Config{Now: time.Now, Log: slog.New(slog.DiscardHandler)}, ctx: t.Context(), own: own,
		shards: make([]atomic.Pointer[memory], 1), tenures: make([]tenures, 1),
	}
	s.changed = sync.NewCond(&s.mu)
	m := newMemory(0, &s.cached)
	s.shards[0].Store(m)
	owner := &tenure{epoch: 1, own: own, m: m, pending: 1}

	closing, first, err := w.Append(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := new(persistence.Batch)
	b.Reset(0, 1, 1)
	b.PutState(nola.ActorRef{Namespace: "n", Type: "t", ID: "i"}, "k", []byte("v"))
	batches := []*persistence.Batch{b}
	behind, second, err := w.Append(1, batches)
	if err != nil {
		t.Fatal(err)
	}
	effects, err := entryIn(second).EffectsOf(lane.EncodeBody(batches))
	if err != nil {
		t.Fatal(err)
	}
	own.sent = []*sentEntry{{n: closing}, {n: behind, shards: []*tenure{owner}, effects: effects}}

	s.mu.Lock()
	defer s.mu.Unlock()
	w.Step(lane.Answer{To: second.Send[0], Outcome: lane.Done})
	look := w.Step(lane.Answer{To: first.Send[0], Outcome: lane.Done})
	w.Step(lane.Answer{To: look.Send[0], Outcome: lane.Done, Found: true})
	if w.Committed() != behind {
		t.Fatalf("entry %d is committed, want %d", w.Committed(), behind)
	}
	s.progress(own)
	if own.appliedTo != closing {
		t.Errorf("all up to entry %d counts as applied, want up to %d: the effects of entry %d are in memory alone", own.appliedTo, closing, behind)
	}
}
