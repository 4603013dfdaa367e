package persistence_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/storetest"
)

// TestMemory reads memories in both of their forms, and demands that one of which
// a part is missing is not taken for a whole one.
func TestMemory(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{Shards: storetest.Shards})
	if err != nil {
		t.Fatal(err)
	}
	heads, err := store.Acquire(t.Context(), []nola.ShardID{storetest.Shard})
	if err != nil {
		t.Fatal(err)
	}
	seq := heads[0].Seq
	commit := func(write func(b *persistence.Batch)) {
		t.Helper()
		seq++
		b := new(persistence.Batch)
		b.Reset(storetest.Shard, heads[0].Epoch, seq)
		write(b)
		if err := store.Commit([]*persistence.Batch{b})[0]; err != nil {
			t.Fatal(err)
		}
	}
	r := persistence.Reader{Store: store}
	inline, spread := storetest.Memory(), storetest.Memory()
	spread.Inline = false
	commit(func(b *persistence.Batch) { b.PutMemory(storetest.Actor, inline) })
	if got, found, err := r.Memory(storetest.Shard, storetest.Actor); err != nil || !found || !reflect.DeepEqual(got, inline) {
		t.Errorf("inline: %+v, %t, %v", got, found, err)
	}
	commit(func(b *persistence.Batch) {
		b.PutMemory(storetest.Actor, spread)
		b.PutMemoryPage(storetest.Actor, 7, spread.Pages[7])
	})
	if got, found, err := r.Memory(storetest.Shard, storetest.Actor); err == nil || found || !strings.Contains(err.Error(), "2 of 22 were written") {
		t.Errorf("with a page missing: %+v, %t, %v", got, found, err)
	}
	commit(func(b *persistence.Batch) { b.PutMemoryPage(storetest.Actor, 258, spread.Pages[258]) })
	if got, found, err := r.Memory(storetest.Shard, storetest.Actor); err != nil || !found || !reflect.DeepEqual(got, spread) {
		t.Errorf("in rows: %+v, %t, %v", got, found, err)
	}
	commit(func(b *persistence.Batch) { b.DeleteMemory(storetest.Actor) })
	if got, found, err := r.Memory(storetest.Shard, storetest.Actor); err != nil || found {
		t.Errorf("deleted: %+v, %t, %v", got, found, err)
	}
	commit(func(b *persistence.Batch) { b.PutMemoryPage(storetest.Actor, 1, []byte{1}) })
	if got, found, err := r.Memory(storetest.Shard, storetest.Actor); err == nil || found {
		t.Errorf("a page without a head: %+v, %t", got, found)
	}
}
