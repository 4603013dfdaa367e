package cqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/lane"
	"github.com/nolaproject/nola/persistence/storetest"
)

// TestCommitStaysInItsLane has the lane be lost, and another one be opened, while a
// commit of two entries writes what goes before the first of them. Neither may go
// into the other lane: whoever takes the shards over looks for it in the lane that
// their rows name.
func TestCommitStaysInItsLane(t *testing.T) {
	s, c := fakeServer(t, cqlfake.Config{})
	store := open(t, c)
	shards := []nola.ShardID{1, 2}
	heads, err := store.Acquire(t.Context(), shards)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	var once sync.Once
	s.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if strings.Contains(r.Statements[0], "INSERT INTO nola.lane_chunks") {
			once.Do(func() { close(asked) })
			return cqlfake.LateThenSilence
		}
		return cqlfake.None
	})
	var batches []*persistence.Batch
	for i, h := range heads {
		b := new(persistence.Batch)
		b.Reset(shards[i], h.Epoch, h.Seq+1)
		b.PutState(storetest.Actor, "k", bytes.Repeat([]byte("v"), 2*lane.ValueBytesMax)) // each in an entry of its own
		batches = append(batches, b)
	}
	verdicts := make(chan []error, 1)
	go func() { verdicts <- store.Commit(batches) }()
	<-asked
	store.Renounce()
	if _, err := store.Acquire(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.Inject(nil)
	s.Release()
	got := <-verdicts
	if _, err := store.Acquire(t.Context(), shards); err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if v != nil && !errors.Is(v, persistence.ErrFenced) {
			t.Errorf("shard %d: verdict %v", shards[i], v)
		}
		if _, found, err := (persistence.Reader{Store: store}).State(shards[i], storetest.Actor, "k"); err != nil || found != (v == nil) {
			t.Errorf("shard %d: the verdict was %v, and the row is found %v (error %v)", shards[i], v, found, err)
		}
	}
}

// TestRefusedReleaseAfterALostOne has a release go out whose answer never comes, and
// the cluster refuse the next one. The first may be executed yet, so the shard is not
// served again.
func TestRefusedReleaseAfterALostOne(t *testing.T) {
	s, c := fakeServer(t, cqlfake.Config{})
	store := open(t, c)
	heads, err := store.Acquire(t.Context(), []nola.ShardID{1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	s.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if !strings.Contains(r.Statements[0], "UPDATE nola.shards") {
			return cqlfake.None
		}
		leave()
		return cqlfake.LateThenSilence
	})
	if err := store.Release(ctx, 1, heads[0].Epoch, ""); err == nil {
		t.Fatal("a release without an answer is said to be done")
	}
	s.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if strings.Contains(r.Statements[0], "UPDATE nola.shards") {
			return cqlfake.Refused
		}
		return cqlfake.None
	})
	if err := store.Release(t.Context(), 1, heads[0].Epoch, ""); err == nil {
		t.Fatal("a refused release is said to be done")
	}
	b := new(persistence.Batch)
	b.Reset(1, heads[0].Epoch, heads[0].Seq+1)
	b.PutState(storetest.Actor, "k", []byte("v"))
	if v := store.Commit([]*persistence.Batch{b})[0]; !errors.Is(v, persistence.ErrFenced) {
		t.Errorf("a commit after a release that may be executed yet: %v", v)
	}
	s.Inject(nil)
	s.Release()
}

// TestLeaseIsHeld wants the lease to be held from Acquire on, and no longer than the
// cluster takes beats: others take the shards then, whatever is still in memory.
func TestLeaseIsHeld(t *testing.T) {
	s, c := fakeServer(t, cqlfake.Config{})
	c.Lease = time.Second
	store := open(t, c)
	if store.Held() {
		t.Error("a lease is held before there is a lane")
	}
	if _, err := store.Acquire(t.Context(), []nola.ShardID{1}); err != nil {
		t.Fatal(err)
	}
	if !store.Held() {
		t.Error("no lease is held with a shard that was acquired")
	}
	s.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if strings.Contains(r.Statements[0], "INSERT INTO nola.nodes") {
			return cqlfake.LostThenTimeout
		}
		return cqlfake.None
	})
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; store.Held(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the lease is held though the cluster takes no beats")
		}
	}
	s.Inject(nil)
	// The lane is given up a moment later; an Acquire before that finds the old one.
	for ; !store.Held(); <-tick.C {
		if _, err := store.Acquire(t.Context(), []nola.ShardID{1}); time.Now().After(deadline) {
			t.Fatalf("no other lease is held, error %v", err)
		}
	}
	store.Renounce()
	if store.Held() {
		t.Error("the lease is held after it was given up")
	}
}
