package shard_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// TestTurnsCostTheSame demands that a turn is charged the same number of steps on
// its actor's first activation and after it slept, on a node that has just begun
// and on one that serves others, in both modes.
func TestTurnsCostTheSame(t *testing.T) {
	ops := []string{"inc", "echo", "get", "nope", "remember", "inc"}
	for _, guest := range []string{"small/small", "tinygo/tinygo", "rust/rust", "assemblyscript/assemblyscript", "wat/wat", "go"} {
		for _, mode := range []string{nola.ModeKV, nola.ModeMemory} {
			t.Run(fmt.Sprintf("%s/%s", guest, mode), func(t *testing.T) {
				code, err := os.ReadFile("../testdata/guests/" + guest + ".wasm")
				if err != nil {
					t.Fatal(err)
				}
				r, err := wasmhost.New(t.Context(), wasmhost.Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				m, err := r.Prepare(t.Context(), code, nola.Manifest{Mode: mode})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				var mu sync.Mutex
				costs := map[string][]uint64{} // by actor
				w := newWorld(t, 4, func(w *world) {
					w.current = m
					w.cfg.Events.Turn = func(_ nola.Kind, ref nola.ActorRef, _ time.Duration, steps uint64, _ error) {
						mu.Lock()
						defer mu.Unlock()
						costs[ref.ID] = append(costs[ref.ID], steps)
					}
				})
				defer w.close()
				live := func(id string, between func()) {
					for _, op := range ops {
						_, _ = w.invoke(id, op, "")
						between()
					}
				}
				sleep := func(id string) func() {
					return func() {
						if _, err := w.m.PassivateActor(context.Background(), ref(id)); err != nil {
							t.Error(err)
						}
					}
				}
				live("a", func() {}) // on a node that has just begun
				live("b", func() {})
				live("c", func() { live("other", sleep("other")) })
				live("d", sleep("d"))
				live("e", sleep("e"))
				mu.Lock()
				defer mu.Unlock()
				same := func(what string, got, want []uint64) {
					t.Helper()
					if len(want) != len(ops) || slices.Contains(want, 0) || !slices.Equal(got, want) {
						t.Errorf("%s: turns of %v cost %d steps, want %d", what, ops, got, want)
					}
				}
				same("on a node that has served before", costs["b"], costs["a"])
				same("beside others", costs["c"], costs["a"])
				same("asleep before each turn", costs["e"], costs["d"])
				if mode == nola.ModeMemory { // what it remembers is not lost by sleeping
					same("asleep or awake", costs["d"], costs["a"])
				}
			})
		}
	}
}
