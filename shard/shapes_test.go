package shard_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/shard/core"
	"github.com/nolaproject/nola/wasmhost"
)

// BenchmarkShape calls a real guest over Pebble in the process, so that shapes
// of the shell can be compared without the network: "shape of the shell" in
// RATIONALE.md has the figures. One operation is one durable call; beside it
// stand the latencies. The data lie in TMPDIR.
func BenchmarkShape(b *testing.B) {
	binary, err := os.ReadFile("../testdata/guests/small/small.wasm")
	if err != nil {
		b.Fatal(err)
	}
	runtime, err := wasmhost.New(b.Context(), wasmhost.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = runtime.Close() }()
	module, err := runtime.Prepare(b.Context(), binary, nola.Manifest{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = module.Close() }()
	for _, shards := range []int{1, 16, 256} {
		for _, load := range []struct {
			name            string
			callers, actors int
		}{{"many", 256, 10_000}, {"hot", 256, 1}, {"one", 1, 1}} {
			b.Run(fmt.Sprintf("%s/shards=%d", load.name, shards), func(b *testing.B) {
				dir := b.TempDir()
				w := newWorld(b, shards, func(w *world) {
					w.current = module
					w.cfg.Limits = core.Limits{MailboxMax: 2 * 256}
					w.open = func() (persistence.Store, error) {
						return pebblestore.Open(dir, pebblestore.Options{Shards: shards})
					}
				})
				for i := range load.actors {
					w.must(fmt.Sprint(i), "inc", "")
				}
				took := make([][]time.Duration, load.callers)
				var next atomic.Int64
				var callers sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for c := range load.callers {
					callers.Go(func() {
						for {
							n := next.Add(1)
							if n > int64(b.N) {
								return
							}
							began := time.Now()
							id := fmt.Sprint(n * 7919 % int64(load.actors))
							if _, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref(id), Operation: "inc"}); err != nil {
								b.Error(err)
								return
							}
							took[c] = append(took[c], time.Since(began))
						}
					})
				}
				callers.Wait()
				b.StopTimer()
				all := slices.Concat(took...)
				slices.Sort(all)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
				w.close()
			})
		}
	}
}
