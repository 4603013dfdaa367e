package faultstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// ErrInjected is what Commit answers for batches of unknown outcome.
var ErrInjected = errors.New("faultstore: injected fault, the outcome is unknown")

// Fault is what happens to one batch, or to a whole Commit.
type Fault uint8

// The faults.
const (
	None        Fault = iota
	ErrorBefore       // ErrInjected, and nothing was committed
	ErrorAfter        // ErrInjected, and everything was committed
	FenceNow          // a newer epoch comes before the batch: it is refused as ErrFenced
)

// String names the fault.
func (f Fault) String() string {
	switch f {
	case None:
		return "none"
	case ErrorBefore:
		return "error before"
	case ErrorAfter:
		return "error after"
	case FenceNow:
		return "fence now"
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// Plan says what goes wrong. Its functions are called in the order of commits,
// by one goroutine at a time; nil ones do nothing.
type Plan struct {
	// Commit says what happens to a batch. call numbers the calls of Commit from
	// 1, index the batch in it from 0.
	Commit func(call, index int, b *persistence.Batch) Fault
	// Delay is called at the start of each Commit, before anything is decided; the
	// commit waits for its return.
	Delay func(call int)
}

// Script is a Plan's Commit function that lets the batches numbered in faults,
// from 1 over all calls, go wrong.
func Script(faults map[int]Fault) func(call, index int, b *persistence.Batch) Fault {
	n := 0
	return func(int, int, *persistence.Batch) Fault {
		n++
		return faults[n]
	}
}

// Store is a store whose Commit follows a Plan. All else is the wrapped store's.
type Store struct {
	persistence.Store
	plan Plan

	mu    sync.Mutex // guards the fields below
	calls int
	// open are batches whose outcome has been told to nobody: true if they were
	// committed.
	open map[batchID]bool
}

type batchID struct {
	shard nola.ShardID
	epoch nola.Epoch
	seq   nola.Seq
}

// New wraps store.
func New(store persistence.Store, plan Plan) *Store {
	return &Store{Store: store, plan: plan, open: make(map[batchID]bool)}
}

// Commit implements persistence.Store.
func (s *Store) Commit(batches []*persistence.Batch) []error {
	s.mu.Lock()
	s.calls++
	call := s.calls
	s.mu.Unlock()
	if s.plan.Delay != nil {
		s.plan.Delay(call)
	}
	verdicts := make([]error, len(batches))
	faults := make([]Fault, len(batches))
	var through []*persistence.Batch
	for i, b := range batches {
		if s.plan.Commit != nil {
			faults[i] = s.plan.Commit(call, i, b)
		}
		if faults[i] == FenceNow {
			if _, err := s.Acquire(context.Background(), []nola.ShardID{b.Shard}); err != nil {
				verdicts[i] = err
				faults[i] = ErrorBefore
			}
		}
		if faults[i] != ErrorBefore {
			through = append(through, b)
		}
	}
	answers := s.Store.Commit(through)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range batches {
		id := batchID{b.Shard, b.Epoch, b.Seq}
		if faults[i] == ErrorBefore {
			s.open[id] = false
			if verdicts[i] == nil {
				verdicts[i] = ErrInjected
			}
			continue
		}
		verdicts[i], answers = answers[0], answers[1:]
		if faults[i] == ErrorAfter && verdicts[i] == nil {
			s.open[id] = true
			verdicts[i] = ErrInjected
		}
	}
	return verdicts
}

// Resolve implements persistence.Store. It checks that the wrapped store tells
// what really happened, and panics if it does not.
func (s *Store) Resolve(ctx context.Context, batches []*persistence.Batch) []error {
	verdicts := s.Store.Resolve(ctx, batches)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range batches {
		id := batchID{b.Shard, b.Epoch, b.Seq}
		done, known := s.open[id]
		definite := verdicts[i] == nil || errors.Is(verdicts[i], persistence.ErrFenced)
		if known && definite {
			if done != (verdicts[i] == nil) {
				panic(fmt.Sprintf("faultstore: batch %+v: committed %v, but Resolve says %v", id, done, verdicts[i]))
			}
			delete(s.open, id)
		}
	}
	return verdicts
}
