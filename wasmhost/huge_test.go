package wasmhost_test

import (
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// visited is a world that knows how many steps the turn had taken at its latest
// visit, and the most that it took from one visit to the next.
type visited struct {
	*world
	steps atomic.Uint64
	most  uint64
}

func (v *visited) Yield(steps uint64) error {
	v.most = max(v.most, steps-v.steps.Swap(steps))
	return v.world.Yield(steps)
}

// TestHugeBulkOperationsLeaveToTheHost has guests fill and copy half a gigabyte
// with one instruction, over and over: they come to the host as often as any
// other, so that they end in time and the collector need not wait for them.
func TestHugeBulkOperationsLeaveToTheHost(t *testing.T) {
	const (
		size        = 512 << 20
		stepsMax    = 120_000 // a slice and a piece
		collections = 10
		// A collection may last this much of the guest's work, the best of them; each
		// stops the process twice, and would last two operations of 8 million.
		collectionSteps = 10_000_000
	)
	for name, tt := range map[string]struct {
		operation []byte
		config    wasmhost.Config
	}{
		"fill":          {slices.Concat(signed(0), signed(7), signed(size), []byte{0xfc, 11, 0}), wasmhost.Config{}},
		"copy":          {slices.Concat(signed(0), signed(1), signed(size-1), []byte{0xfc, 10, 0, 0}), wasmhost.Config{}},
		"fill the heap": {slices.Concat(signed(0), signed(7), signed(size), []byte{0xfc, 11, 0}), wasmhost.Config{HeapMemory: true}},
	} {
		t.Run(name, func(t *testing.T) {
			grow := slices.Concat(signed(size>>16), []byte{0x40, 0, 0x1a})
			code := guestOf(nil, slices.Concat(grow, []byte{0x03, 0x40}, tt.operation, []byte{0x0c, 0, 0x0b, 0x41, 1})).bytes()
			limits := nola.Limits{Steps: 1 << 62, MemoryBytes: 1 << 30}
			m := prepare(t, newRuntime(t, tt.config), code, nola.Manifest{Limits: limits})

			w, done := &visited{world: newWorld()}, make(chan error, 1)
			i := instantiate(t, m)
			go func() {
				_, err := i.Invoke(&nola.Turn{Operation: "op"}, w)
				done <- err
			}()
			for w.steps.Load() < size>>6 { // the memory is there
				runtime.Gosched()
			}
			fewest := uint64(math.MaxUint64)
			for range collections {
				before := w.steps.Load()
				runtime.GC()
				fewest = min(fewest, w.steps.Load()-before)
			}
			enough := nola.Errorf(nola.ReasonCanceled, "enough")
			i.Interrupt(enough)
			if err := <-done; err != enough {
				t.Errorf("the guest ended with %v", err)
			}
			i.Close()
			t.Logf("at most %d steps between two visits; of %d collections the quickest lasted %d steps", w.most, collections, fewest)
			if w.most > stepsMax {
				t.Errorf("the guest took %d steps without a visit to the host, %d are allowed", w.most, stepsMax)
			}
			if fewest > collectionSteps {
				t.Errorf("each collection lasted %d steps of the guest or more, want %d at most", fewest, collectionSteps)
			}

			best := time.Duration(math.MaxInt64)
			for try := 0; try < hostileTries && best > hostileOverrun; try++ {
				i := instantiate(t, m)
				start := time.Now()
				_, err := i.Invoke(&nola.Turn{Operation: "op", Deadline: start.Add(hostileDeadline)}, newWorld())
				best = min(best, time.Since(start)-hostileDeadline)
				if reason, _ := reasonOf(t, err); reason != nola.ReasonDeadlineExceeded {
					t.Errorf("it ended with %v", err)
				}
				i.Close()
			}
			if best > hostileOverrun {
				t.Errorf("it outlived its deadline by %s, at most %s are allowed", best, hostileOverrun)
			}
		})
	}
}

// signed is i32.const n.
func signed(n int) []byte {
	b := []byte{0x41}
	for ; n < -64 || n > 63; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n)&0x7f)
}
