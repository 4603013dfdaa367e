package persistence_test

import (
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/storetest"
)

// TestCarryOfOlderRecords reads the form of a carry that had no lengths, times
// and reasons: a result and an error, whose lengths are what is there.
func TestCarryOfOlderRecords(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{Shards: storetest.Shards})
	if err != nil {
		t.Fatal(err)
	}
	heads, err := store.Acquire(t.Context(), []nola.ShardID{storetest.Shard})
	if err != nil {
		t.Fatal(err)
	}
	b := new(persistence.Batch)
	b.Reset(storetest.Shard, heads[0].Epoch, heads[0].Seq+1)
	b.PutSchedule(storetest.Actor, &nola.Schedule{ID: "s", Target: storetest.Actor})
	b.PutProgress(storetest.Actor, false, "s", &nola.Progress{Carry: nola.Carry{Result: []byte("done"), Failure: "no"}}, 0)
	if err := store.Commit([]*persistence.Batch{b})[0]; err != nil {
		t.Fatal(err)
	}
	row, found, err := persistence.Reader{Store: store}.Schedule(storetest.Shard, storetest.Actor, false, "s")
	if err != nil || !found {
		t.Fatalf("found %v, %v", found, err)
	}
	c := row.Progress.Carry
	if string(c.Result) != "done" || c.ResultBytes != 4 || c.Failure != "no" || c.FailureBytes != 2 || c.IsZero() {
		t.Errorf("the carry is %+v", c)
	}
}
