package persistence_test

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/storetest"
)

// BenchmarkWrite measures the typed writes of the hot path.
func BenchmarkWrite(b *testing.B) {
	key := nola.Key{Session: nola.SessionID{1}, Seq: 7, FirstAttempt: time.Unix(1_800_000_000, 0)}
	outcome := persistence.OutcomeRecord{ID: nola.InvocationID{1}, Time: time.Unix(1_800_000_000, 5), State: persistence.StateSucceeded, Reply: make([]byte, 20), Attempts: 1}
	inv := storetest.Invocation()
	progress := storetest.Progress()
	for _, bb := range []struct {
		name  string
		write func(batch *persistence.Batch)
	}{
		{"State", func(batch *persistence.Batch) { batch.PutState(storetest.Actor, "key", outcome.Reply) }},
		{"Session", func(batch *persistence.Batch) { batch.PutSession(storetest.Actor, key, outcome) }},
		{"Backlog", func(batch *persistence.Batch) {
			batch.PutBacklog(storetest.Actor, persistence.BacklogRow{Number: 1, Invocation: inv})
		}},
		{"Due", func(batch *persistence.Batch) {
			batch.PutDue(persistence.DueRow{Due: inv.Due, Target: storetest.Actor, Kind: persistence.DueTimer, Name: "wake", Invocation: inv})
		}},
		{"Progress", func(batch *persistence.Batch) { batch.PutProgress(storetest.Actor, false, "s", &progress, 7) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			batch := new(persistence.Batch)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%100 == 0 {
					batch.Reset(1, 1, 1)
				}
				bb.write(batch)
			}
		})
	}
}
