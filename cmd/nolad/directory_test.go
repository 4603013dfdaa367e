package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/server/cluster"
)

// A directory claims what it has read, under the ID of the process that joined; a
// process whose lane another one has ended beats no more, and comes back as another.
func TestDirectory(t *testing.T) {
	fake, err := cqlfake.Start(cqlfake.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fake.Close() })
	if _, err := cqlstore.SetupSchema(t.Context(), cqlstore.Config{Hosts: []string{fake.Address()}}, cqlstore.Schema{Replicas: 1, Shards: 4}); err != nil {
		t.Fatal(err)
	}
	join := func(name string) (*directory, string) {
		t.Helper()
		store, err := cqlstore.Open(t.Context(), cqlstore.Config{Hosts: []string{fake.Address()}, Name: name, External: true, Lease: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		d := &directory{store: store}
		id, err := d.Join(t.Context())
		if err != nil || id == "" {
			t.Fatalf("join as %s: %q, %v", name, id, err)
		}
		return d, id
	}
	row := func(d *directory, id nola.ShardID) cluster.ShardRow {
		t.Helper()
		rows, err := d.Shards(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return rows[id]
	}
	a, idA := join("a")
	b, idB := join("b")

	said := cluster.NodeRow{
		ID: idA, Name: "a", Address: "a:1", Peer: "a:2", Version: "v", Weight: 7, Leaving: true, Labels: map[string]string{"zone": "eu"}, Rules: 9,
		Work: cluster.Work{
			Steady: true, Load: 12, Heavy: []cluster.ShardCost{{Shard: 3, Cost: 5}}, Placed: []cluster.Placed{{Shard: 2, Node: "b"}},
		},
		Started: time.UnixMilli(1000), Beat: 1, Lease: 2 * time.Second,
	}
	if err := a.Beat(t.Context(), said); err != nil {
		t.Fatal(err)
	}
	nodes, err := b.Nodes(t.Context())
	if err != nil || len(nodes) != 1 {
		t.Fatalf("nodes %+v, %v", nodes, err)
	}
	n := nodes[0]
	if n.ID != idA || n.Peer != "a:2" || n.Weight != 7 || !n.Leaving || len(n.Labels) != 1 || n.Labels["zone"] != "eu" || n.Rules != 9 ||
		!n.Work.Steady || n.Work.Load != 12 || !slices.Equal(n.Work.Heavy, said.Work.Heavy) || !slices.Equal(n.Work.Placed, said.Work.Placed) || !n.Started.Equal(said.Started) || n.Lease != said.Lease {
		t.Errorf("a node said %+v, and is read as %+v", said, n)
	}

	free := row(a, 1)
	head, err := a.Claim(t.Context(), idA, free)
	if err != nil || head.Epoch != free.Epoch+1 {
		t.Fatalf("claim: %+v, %v", head, err)
	}
	if _, err := b.Claim(t.Context(), idB, free); !errors.Is(err, cluster.ErrMoved) {
		t.Errorf("a claim of a row that was never read: %v", err)
	}
	row(b, 1)
	if _, err := b.Claim(t.Context(), idB, free); !errors.Is(err, cluster.ErrMoved) {
		t.Errorf("a claim of a row that has changed: %v", err)
	}
	if _, err := b.Claim(t.Context(), idA, row(b, 1)); !errors.Is(err, cluster.ErrMoved) {
		t.Errorf("a claim for another node: %v", err)
	}
	if p, err := a.Release(t.Context(), 1, head.Epoch, idB); err != nil || p.Epoch != 0 {
		t.Fatal(err)
	}
	if _, err := b.Claim(t.Context(), idB, row(b, 1)); err != nil {
		t.Fatalf("claim of a shard that was released: %v", err)
	}

	// b counts as dead, and a takes its shard.
	if _, err := a.Claim(t.Context(), idA, row(a, 1)); err != nil {
		t.Fatalf("claim from a node that is dead: %v", err)
	}
	var batch persistence.Batch
	batch.Reset(1, head.Epoch+1, head.Seq+1)
	if verdicts := b.store.Commit([]*persistence.Batch{&batch}); !errors.Is(verdicts[0], persistence.ErrFenced) {
		t.Errorf("a commit of the node that is dead: %v", verdicts[0])
	}
	if err := b.Beat(t.Context(), cluster.NodeRow{ID: idB, Name: "b", Beat: 1}); !errors.Is(err, errLaneLost) {
		t.Errorf("a beat of a node without a lane: %v", err)
	}
	again, err := b.Join(t.Context())
	if err != nil || again == idB {
		t.Fatalf("joined again as %q, %v", again, err)
	}
	if err := b.Beat(t.Context(), cluster.NodeRow{ID: again, Name: "b", Beat: 1}); err != nil {
		t.Error(err)
	}
	if _, err := b.Claim(t.Context(), again, row(b, 2)); err != nil {
		t.Errorf("claim after it has joined again: %v", err)
	}

	// a has told its lane: what b gives to it is passed on, and taken up once.
	if _, err := b.Nodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := row(b, 2)
	p, err := b.Release(t.Context(), 2, before.Epoch, idA)
	if now := row(a, 2); err != nil || p.Epoch != before.Epoch+1 || now != (cluster.ShardRow{Shard: 2, Epoch: p.Epoch, Node: idA}) {
		t.Fatalf("passed on: %+v, %v; the row is %+v", p, err, now)
	}
	if _, err := a.TakeUp(t.Context(), idA, 2, []byte("{}")); err == nil {
		t.Error("a word that says nothing was understood")
	}
	if head, err := a.TakeUp(t.Context(), idA, 2, p.Word); err != nil || head.Epoch != p.Epoch {
		t.Errorf("taken up at %+v, %v", head, err)
	}
	if _, err := a.TakeUp(t.Context(), idA, 2, p.Word); !errors.Is(err, cluster.ErrMoved) {
		t.Errorf("taken up again: %v", err)
	}
}
