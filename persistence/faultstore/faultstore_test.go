package faultstore_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/storetest"
)

func TestWithoutFaults(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
		disk := memstore.NewDisk(persistence.ClusterInfo{Shards: storetest.Shards})
		open := func(t *testing.T) persistence.Store {
			store, err := disk.Open()
			if err != nil {
				t.Fatal(err)
			}
			return faultstore.New(store, faultstore.Plan{})
		}
		return open(t), open
	})
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault             faultstore.Fault
		verdict, resolved error
		applied           bool
	}{
		{faultstore.None, nil, nil, true},
		{faultstore.ErrorBefore, faultstore.ErrInjected, persistence.ErrFenced, false},
		{faultstore.ErrorAfter, faultstore.ErrInjected, nil, true},
		{faultstore.FenceNow, persistence.ErrFenced, persistence.ErrFenced, false},
	} {
		t.Run(tt.fault.String(), func(t *testing.T) {
			inner, err := memstore.New(persistence.ClusterInfo{Shards: 4})
			if err != nil {
				t.Fatal(err)
			}
			var delayed []int
			store := faultstore.New(inner, faultstore.Plan{
				Commit: faultstore.Script(map[int]faultstore.Fault{2: tt.fault}),
				Delay:  func(call int) { delayed = append(delayed, call) },
			})
			heads, err := store.Acquire(t.Context(), []nola.ShardID{0, 1})
			if err != nil {
				t.Fatal(err)
			}
			var batches []*persistence.Batch
			for _, h := range heads {
				b := new(persistence.Batch)
				b.Reset(h.Shard, h.Epoch, h.Seq+1)
				b.PutState(storetest.Actor, "k", nil)
				batches = append(batches, b)
			}
			verdicts := store.Commit(batches)
			if verdicts[0] != nil || !errors.Is(verdicts[1], tt.verdict) {
				t.Errorf("verdicts %v", verdicts)
			}
			if err := store.Resolve(t.Context(), batches[1:])[0]; !errors.Is(err, tt.resolved) {
				t.Errorf("resolved as %v", err)
			}
			_, found, err := persistence.Reader{Store: store}.State(1, storetest.Actor, "k")
			if found != tt.applied || err != nil {
				t.Errorf("applied %v, %v", found, err)
			}
			if !slices.Equal(delayed, []int{1}) {
				t.Errorf("delayed calls %v", delayed)
			}
		})
	}
}
