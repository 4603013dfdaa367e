package cluster

import (
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
)

// A request is never sent to an owner of whom something newer is known.
func TestRouteKnowsTheNewest(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{Shards: 4})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Directory: noDirectory{}, Store: store, Name: "n", Peer: "127.0.0.1:1", Token: "only for tests, 27 bytes"})
	if err != nil {
		t.Fatal(err)
	}
	const id = nola.ShardID(2)
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"read", func() { m.route(id, route{5, "b"}, true) }, "b"},
		{"an older row", func() { m.route(id, route{4, "a"}, true) }, "b"},
		{"an older hint", func() { m.learn(id, &peerv1.Owner{Node: "a", Epoch: 4}) }, "b"},
		{"a hint of the same epoch", func() { m.learn(id, &peerv1.Owner{Node: "a", Epoch: 5}) }, "b"},
		{"no hint", func() { m.learn(id, nil) }, "b"},
		{"released, in the same epoch", func() { m.route(id, route{5, "c"}, true) }, "c"},
		{"a newer hint", func() { m.learn(id, &peerv1.Owner{Node: "d", Epoch: 6}) }, "d"},
		{"the row that the hint has overtaken", func() { m.route(id, route{5, "c"}, true) }, "d"},
	} {
		step.do()
		if got := m.routes[id].Load(); got == nil || got.node != step.want {
			t.Fatalf("after %s the shard is looked for at %+v, want %s", step.what, got, step.want)
		}
	}
}

// noDirectory is one that nobody asks.
type noDirectory struct{ Directory }
