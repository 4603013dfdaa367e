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

func TestMembersShareADisk(t *testing.T) {
	disk := memstore.NewDisk(facts)
	var members []*memstore.Member
	for range 2 {
		m, err := disk.Join()
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	acquire := func(m *memstore.Member) persistence.Head {
		t.Helper()
		heads, err := m.Acquire(t.Context(), []nola.ShardID{1})
		if err != nil {
			t.Fatal(err)
		}
		return heads[0]
	}
	commit := func(m *memstore.Member, head persistence.Head) error {
		b := new(persistence.Batch)
		b.Reset(1, head.Epoch, head.Seq+1)
		return m.Commit([]*persistence.Batch{b})[0]
	}
	first := acquire(members[0])
	if err := commit(members[0], first); err != nil {
		t.Fatal(err)
	}
	second := acquire(members[1])
	if second.Epoch != first.Epoch+1 || second.Seq != first.Seq+1 {
		t.Errorf("acquired at epoch %d, seq %d after epoch %d, seq %d and a commit", second.Epoch, second.Seq, first.Epoch, first.Seq)
	}
	first.Seq++
	if err := commit(members[0], first); !errors.Is(err, persistence.ErrFenced) {
		t.Errorf("commit of the member before: %v", err)
	}
	if err := members[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := commit(members[0], second); !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("commit of a closed member: %v", err)
	}
	if err := commit(members[1], second); err != nil {
		t.Errorf("commit after another member was closed: %v", err)
	}
}
