package memstore_test

import (
	"errors"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/storetest"
)

var facts = persistence.ClusterInfo{ID: [16]byte{1}, Shards: storetest.Shards, Secret: [32]byte{2}}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
		disk := memstore.NewDisk(facts)
		open := func(t *testing.T) persistence.Store {
			store, err := disk.Open()
			if err != nil {
				t.Fatal(err)
			}
			return store
		}
		return open(t), open
	})
}

func TestOpenEndsTheStoreBefore(t *testing.T) {
	disk := memstore.NewDisk(facts)
	old, err := disk.Open()
	if err != nil {
		t.Fatal(err)
	}
	heads, err := old.Acquire(t.Context(), []nola.ShardID{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Open(); err != nil {
		t.Fatal(err)
	}
	b := new(persistence.Batch)
	b.Reset(1, heads[0].Epoch, heads[0].Seq+1)
	if err := old.Commit([]*persistence.Batch{b})[0]; !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("commit on the store before: %v", err)
	}
}
