package shard_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// BenchmarkInvoke calls counters in the process, over the store in memory: what
// the shell itself costs.
func BenchmarkInvoke(b *testing.B) {
	for _, shards := range []int{1, 16, 256} {
		for _, actors := range []int{1, 1000} {
			b.Run(fmt.Sprintf("shards=%d/actors=%d", shards, actors), func(b *testing.B) {
				benchmarkCalls(b, newWorld(b, shards), actors, "inc")
			})
		}
	}
}

func benchmarkCalls(b *testing.B, w *world, actors int, op string) {
	ids := make([]string, actors)
	for n := range ids {
		ids[n] = fmt.Sprint(n)
		w.must(ids[n], op, "")
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		at := rand.IntN(actors)
		for pb.Next() {
			if _, err := w.invoke(ids[at], op, ""); err != nil {
				b.Error(err)
				return
			}
			if at++; at == actors {
				at = 0
			}
			n.Add(1)
		}
	})
	b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "calls/s")
}

// smallGuest is the conformance guest in C under wasmhost.
func smallGuest(b testing.TB) nola.Module {
	b.Helper()
	code, err := os.ReadFile("../testdata/guests/small/small.wasm")
	if err != nil {
		b.Fatal(err)
	}
	r, err := wasmhost.New(context.Background(), wasmhost.Config{InstancesBytesMax: 2 << 30})
	if err != nil {
		b.Fatal(err)
	}
	m, err := r.Prepare(context.Background(), code, nola.Manifest{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Close(); err != nil {
			b.Error(err)
		}
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	return m
}

// BenchmarkInvokeGuest calls a guest in WebAssembly through everything but a
// server: mailbox, meter, and for inc a store in memory; noop writes nothing.
func BenchmarkInvokeGuest(b *testing.B) {
	for _, op := range []string{"noop", "inc"} {
		for _, actors := range []int{1, 1000} {
			b.Run(fmt.Sprintf("op=%s/actors=%d", op, actors), func(b *testing.B) {
				m := smallGuest(b)
				benchmarkCalls(b, newWorld(b, 256, func(w *world) { w.current = m }), actors, op)
			})
		}
	}
}

// BenchmarkDormant calls actors of a guest at random, of which a small part fits
// into memory, so that nearly each call wakes one and has another one leave. The
// answers are checked. B/actor is all that the process took for an actor, with
// its rows in the store in memory; what it logs is the part of it that ends with the
// manager, those that are awake included.
func BenchmarkDormant(b *testing.B) {
	actors := 20_000
	if os.Getenv("NOLA_SLOW") != "" {
		actors = 1_000_000
	}
	before := residentBytes(b)
	m := smallGuest(b)
	w := newWorld(b, 256, func(w *world) {
		w.current = m
		w.cfg.InstanceBytesMax = 128 << 20
	})
	counts := make([]atomic.Uint32, actors)
	var asleep sync.WaitGroup
	const callers = 16
	for c := range callers {
		asleep.Go(func() {
			for n := c; n < actors; n += callers {
				counts[n].Add(1)
				if got, err := w.invoke(strconv.Itoa(n), "inc", ""); got != "1" || err != nil {
					b.Errorf("actor %d answers %q, %v", n, got, err)
				}
			}
		})
	}
	asleep.Wait()
	bytes := residentBytes(b) - before
	b.Run("uniform", func(b *testing.B) {
		var calling sync.WaitGroup
		for c := range callers {
			calling.Go(func() {
				random := rand.New(rand.NewPCG(uint64(b.N), uint64(c)))
				for range b.N / callers {
					n := random.IntN(actors/callers)*callers + c
					want := strconv.Itoa(int(counts[n].Add(1)))
					if got, err := w.invoke(strconv.Itoa(n), "inc", ""); got != want || err != nil {
						b.Errorf("actor %d answers %q, %v; want %s", n, got, err, want)
						return
					}
				}
			})
		}
		calling.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		b.ReportMetric(float64(bytes)/float64(actors), "B/actor")
	})
	with := residentBytes(b)
	if err := w.m.Close(); err != nil {
		b.Error(err)
	}
	w.m = nil
	b.Logf("%.1f bytes for each of %d actors end with the manager", float64(with-residentBytes(b))/float64(actors), actors)
	runtime.KeepAlive(w)
	if err := w.store.Close(); err != nil {
		b.Error(err)
	}
}

// residentBytes is the memory that this process uses, without what was collected.
func residentBytes(b *testing.B) int64 {
	b.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Skip("this system does not tell how much memory a process uses")
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib << 10
}
