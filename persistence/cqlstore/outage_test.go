package cqlstore_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

// TestOutageBeyondTheLease takes the server away for longer than the lease while each of
// several shards commits: some of the entries that are under way have been executed, some
// have not, and some will be once the server is back. Each commit has one verdict, all
// that was acknowledged is there once, and the shards go on.
func TestOutageBeyondTheLease(t *testing.T) {
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run(string(mode), func(t *testing.T) { outage(t, mode) })
	}
}

func outage(t *testing.T, mode cqlstore.Mode) {
	s, c := fakeServer(t, cqlfake.Config{})
	c.Mode, c.Timeout, c.Lease, c.CommitTimeout, c.ApplyAge, c.RingSize = mode, 200*time.Millisecond, time.Second, 500*time.Millisecond, 20*time.Millisecond, 16
	store := open(t, c)
	heads := acquireAll(t, store, nil)
	var committing, done, fenced atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range heads {
		wg.Go(func() {
			for h := &heads[i]; !stop.Load() && t.Context().Err() == nil; {
				b := new(persistence.Batch)
				b.Reset(h.Shard, h.Epoch, h.Seq+1)
				numbered(b)
				committing.Add(1)
				v := store.Commit([]*persistence.Batch{b})[0]
				if v != nil && !errors.Is(v, persistence.ErrFenced) {
					v = store.Resolve(t.Context(), []*persistence.Batch{b})[0]
				}
				committing.Add(-1)
				switch {
				case v == nil:
					h.Seq = b.Seq
					done.Add(1)
				case errors.Is(v, persistence.ErrFenced):
					fenced.Add(1)
					if !acquireAgain(t, store, h) {
						return
					}
				default:
					t.Errorf("no verdict on batch %d of shard %d: %v", b.Seq, h.Shard, v)
					return
				}
			}
		})
	}
	defer wg.Wait() // runs after the flag is set
	defer stop.Store(true)
	waits := func(what string, holds func() bool) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); !holds(); <-tick.C {
			if time.Now().After(deadline) || t.Failed() {
				t.Fatalf("%s: it is not so", what)
			}
		}
	}

	waits("commits are made", func() bool { return done.Load() > 5*int64(len(heads)) })
	entries := newSentEntries(t)
	var hit atomic.Int64
	s.Inject(func(q cqlfake.Request) cqlfake.Fault {
		entries.look(q)
		if !writesEntry(q.Statements[len(q.Statements)-1]) {
			return cqlfake.None
		}
		return []cqlfake.Fault{cqlfake.DoneThenSilence, cqlfake.LateThenSilence, cqlfake.LostThenTimeout}[(hit.Add(1)-1)%3]
	})
	waits("entries are under way", func() bool { return hit.Load() >= 3 })
	s.Down(true)
	away := time.Now()
	waits("each shard has a commit under way", func() bool { return committing.Load() == int64(len(heads)) })
	waits("answers from before have been taken in", func() bool { return time.Since(away) > c.Lease/4 })
	before := done.Load()
	waits("the lease is over", func() bool { return !store.Held() && time.Since(away) > 2*c.Lease })
	if n := done.Load(); n != before {
		t.Errorf("%d commits were acknowledged while the server was away", n-before)
	}
	s.Inject(func(q cqlfake.Request) cqlfake.Fault {
		entries.look(q)
		return cqlfake.None
	})
	s.Down(false)
	s.Release()
	waits("the shards go on", func() bool { return done.Load() > before+5*int64(len(heads)) })
	stop.Store(true)
	wg.Wait()
	t.Logf("%d commits, of which %d after the outage; %d were fenced, %d entries sent again", done.Load(), done.Load()-before, fenced.Load(), entries.repeats())

	for _, h := range heads {
		if h.Epoch < 2 {
			t.Errorf("shard %d is still served under the lease of before the outage: %+v", h.Shard, h)
		}
		checkHistory(t, store, h.Shard, h.Seq)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	c.Name = "another"
	next := open(t, c)
	for i, h := range acquireAll(t, next, nil) {
		if h.Seq != heads[i].Seq || h.Epoch <= heads[i].Epoch {
			t.Errorf("shard %d: taken over at %+v, before it was %+v", i, h, heads[i])
		}
		checkHistory(t, next, h.Shard, h.Seq)
	}
}

// acquireAgain acquires a shard whose lane was lost, as often as it takes, and wants it to
// stand where its last acknowledged batch has left it.
func acquireAgain(t *testing.T, store *cqlstore.Store, h *persistence.Head) bool {
	for {
		got, err := store.Acquire(t.Context(), []nola.ShardID{h.Shard})
		switch {
		case err == nil && (got[0].Epoch <= h.Epoch || got[0].Seq != h.Seq):
			t.Errorf("acquired again at %+v, before it was %+v", got[0], *h)
			return false
		case err == nil:
			*h = got[0]
			return true
		case t.Context().Err() != nil:
			return false
		}
	}
}
