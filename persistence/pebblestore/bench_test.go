package pebblestore_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/persistence/storetest"
)

func BenchmarkCommit(b *testing.B) {
	for _, bb := range []struct {
		name         string
		batches, ops int
	}{{"Alone", 1, 1}, {"64x2", 64, 2}} {
		b.Run(bb.name, func(b *testing.B) {
			store := open(b, b.TempDir(), pebblestore.Options{})
			shards := make([]nola.ShardID, bb.batches)
			for i := range shards {
				shards[i] = nola.ShardID(i)
			}
			heads := must(store.Acquire(b.Context(), shards))(b)
			batches := make([]*persistence.Batch, len(heads))
			for i := range batches {
				batches[i] = new(persistence.Batch)
			}
			value := make([]byte, 100)
			key := nola.Key{Session: nola.SessionID{1}, FirstAttempt: time.Unix(1_800_000_000, 0)}
			outcome := persistence.OutcomeRecord{Time: time.Unix(1_800_000_000, 0), State: persistence.StateSucceeded, Reply: value[:20]}
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				n++
				binary.BigEndian.PutUint64(value, n)
				for i, batch := range batches {
					batch.Reset(heads[i].Shard, heads[i].Epoch, nola.Seq(n))
					batch.PutState(storetest.Actor, "k", value)
					if bb.ops > 1 {
						key.Seq = n
						batch.PutSession(storetest.Actor, key, outcome)
					}
				}
				for _, err := range store.Commit(batches) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(n)*float64(bb.batches*bb.ops)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkState(b *testing.B) {
	store := open(b, b.TempDir(), pebblestore.Options{})
	const rows = 200_000 // more than one table, so that filters matter
	keys := make([]string, rows)
	head := must(store.Acquire(b.Context(), []nola.ShardID{1}))(b)[0]
	batch := new(persistence.Batch)
	for i := 0; i < rows; {
		head.Seq++
		batch.Reset(1, head.Epoch, head.Seq)
		for range 1000 {
			keys[i] = string(binary.BigEndian.AppendUint32(nil, uint32(i)*2654435761))
			batch.PutState(storetest.Actor, keys[i], make([]byte, 100))
			i++
		}
		ok(b, store.Commit([]*persistence.Batch{batch})[0])
	}
	r := persistence.Reader{Store: store}
	for name, suffix := range map[string]string{"Hit": "", "Miss": "x"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, found, err := r.State(1, storetest.Actor, keys[i*7919%rows]+suffix)
				if err != nil || found != (suffix == "") {
					b.Fatal(found, err)
				}
			}
		})
	}
}
