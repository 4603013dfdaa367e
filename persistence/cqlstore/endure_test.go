package cqlstore_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

var faultSeed = flag.Uint64("seed", 0, "seed of TestEndures: 0 draws one, and says which when it fails")

// TestEndures commits through a server whose requests go wrong in every way, and
// wants a right verdict on each batch: done ones are all there, once and in
// order, and no other is. What is sent again is the same, with the same timestamp.
func TestEndures(t *testing.T) {
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		for _, flavour := range []cqlfake.Flavour{cqlfake.Cassandra, cqlfake.Scylla} {
			t.Run(fmt.Sprintf("%s on %d", mode, flavour), func(t *testing.T) {
				defer func() {
					if t.Failed() {
						t.Logf("-seed %d", seed)
					}
				}()
				endure(t, seed, mode, flavour)
			})
		}
	}
}

func endure(t *testing.T, seed uint64, mode cqlstore.Mode, flavour cqlfake.Flavour) {
	server, c := fakeServer(t, cqlfake.Config{Flavour: flavour})
	c.Mode, c.Timeout, c.ApplyAge, c.RingSize = mode, 60*time.Millisecond, 10*time.Millisecond, 8
	store := open(t, c)
	var mu sync.Mutex // guards r and on
	r := rand.New(rand.NewPCG(seed, uint64(len(mode))+uint64(flavour)))
	on := true
	entries := newSentEntries(t)
	server.Inject(func(q cqlfake.Request) cqlfake.Fault {
		entries.look(q)
		mu.Lock()
		defer mu.Unlock()
		entry, rate := writesEntry(q.Statements[len(q.Statements)-1]), 12
		if entry { // of which there are few
			rate = 3
		}
		if !on || r.IntN(rate) > 0 {
			return cqlfake.None
		}
		if entry && r.IntN(12) == 0 {
			return cqlfake.Refused // an entry that can never be written: the lane is lost
		}
		f := faults[r.IntN(len(faults))]
		if f == cqlfake.DoneThenDenied && !q.Conditional {
			return cqlfake.None
		}
		return f
	})
	heads := acquireAll(t, store, nil)
	fenced := 0
	for range 40 {
		batches, verdicts := round(store, heads)
		server.Release()
		var again []nola.ShardID
		for i, err := range verdicts {
			if err != nil && !errors.Is(err, persistence.ErrFenced) {
				err = store.Resolve(t.Context(), batches[i:i+1])[0]
			}
			switch {
			case err == nil:
				heads[i].Seq = batches[i].Seq
			case errors.Is(err, persistence.ErrFenced):
				again = append(again, batches[i].Shard)
			default:
				t.Fatalf("no verdict on batch %d of shard %d: %v", batches[i].Seq, batches[i].Shard, err)
			}
		}
		if len(again) > 0 {
			fenced++
			for _, h := range acquireAll(t, store, again) {
				if h.Epoch <= heads[h.Shard].Epoch || h.Seq != heads[h.Shard].Seq {
					t.Fatalf("shard %d: acquired again at %+v, before it was %+v", h.Shard, h, heads[h.Shard])
				}
				heads[h.Shard] = h
			}
		}
	}
	server.Release()
	mu.Lock()
	on = false
	mu.Unlock()
	for _, h := range heads {
		checkHistory(t, store, h.Shard, h.Seq)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	server.Release()
	again := open(t, c)
	for i, h := range acquireAll(t, again, nil) {
		if h.Seq != heads[i].Seq || h.Epoch <= heads[i].Epoch {
			t.Errorf("shard %d: opened again at %+v, before it was %+v", i, h, heads[i])
		}
		checkHistory(t, again, h.Shard, h.Seq)
	}
	repeats := entries.repeats()
	if repeats == 0 {
		t.Error("no entry was sent again")
	}
	t.Logf("fenced %d times, %d entries sent again", fenced, repeats)
}

// acquireAll acquires shards (nil: all), as often as it takes.
func acquireAll(t *testing.T, store persistence.Store, shards []nola.ShardID) []persistence.Head {
	t.Helper()
	if shards == nil {
		shards = all(crashShards)
	}
	slices.Sort(shards)
	for {
		heads, err := store.Acquire(t.Context(), shards)
		if err == nil {
			return heads
		}
		var held *cqlstore.HeldError
		if t.Context().Err() != nil || errors.As(err, &held) {
			t.Fatal(err)
		}
	}
}
