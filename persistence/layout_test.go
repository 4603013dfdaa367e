package persistence_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/storetest"
)

// recorder is a SortedMap that is always empty but for what load needs, and
// tells what was written into it.
type recorder struct{ out strings.Builder }

func (r *recorder) Get([]byte) ([]byte, bool, error)                               { return nil, false, nil }
func (r *recorder) Scan(_, _ []byte, _ bool, _ func(key, value []byte) bool) error { return nil }
func (r *recorder) NewWrite() persistence.SortedWrite                              { return r }
func (r *recorder) Close() error                                                   { return nil }
func (r *recorder) Put(key, value []byte)                                          { fmt.Fprintf(&r.out, "put %x\n    %x\n", key, value) }

func (r *recorder) Delete(key []byte) { fmt.Fprintf(&r.out, "delete %x\n", key) }

func (r *recorder) DeleteRange(from, to []byte) {
	fmt.Fprintf(&r.out, "delete %x\n    to %x\n", from, to)
}
func (r *recorder) Commit() error { return nil }
func (r *recorder) Stage() error  { return nil }

// TestLayout pins down the keys of a SortedMap.
func TestLayout(t *testing.T) {
	r := new(recorder)
	part := func(name string) { fmt.Fprintf(&r.out, "# %s\n", name) }
	part("cluster")
	s, err := persistence.OpenSorted(r, persistence.ClusterInfo{ID: [16]byte{1, 15: 2}, Shards: 256, Secret: [32]byte{3, 31: 4}})
	if err != nil {
		t.Fatal(err)
	}
	part("acquire")
	if _, err := s.Acquire(t.Context(), []nola.ShardID{storetest.Shard, 255}); err != nil {
		t.Fatal(err)
	}
	part("commit")
	b := new(persistence.Batch)
	b.Reset(storetest.Shard, 1, 1)
	b.PutMeta(storetest.Actor, persistence.Meta{})
	b.PutState(storetest.Actor, "k", []byte("v"))
	b.PutUserKeys(storetest.Actor, persistence.UserKeys{Count: 1})
	b.PutFloors(persistence.Floors{})
	b.DeleteOutbox(7, 8)
	b.DeleteSchedule(storetest.Actor, false, "s")
	b.ListActor(storetest.Actor)
	b.DeleteActor(storetest.Actor)
	if err := s.Commit([]*persistence.Batch{b})[0]; err != nil {
		t.Fatal(err)
	}
	part("catalogue")
	if _, err := s.CatalogPut(t.Context(), persistence.SpaceModule, "shop\x00cart", 0, []byte("v")); err != nil {
		t.Fatal(err)
	}
	part("object")
	if err := s.PutObject(t.Context(), sha256.Sum256([]byte("code")), []byte("code")); err != nil {
		t.Fatal(err)
	}
	golden(t, "layout.golden", r.out.String())
}
