package shard_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/persistence/pebblestore/powercut"
	"github.com/nolaproject/nola/shard/core"
)

const (
	powerShards = 4
	powerOps    = 500 // of the workload
	powerActors = 8
	powerSample = 23 // one in so many file operations, unless NOLA_SLOW=1
)

// powerCut is what a disk may hold after the power went, and what had been
// acknowledged by then.
type powerCut struct {
	op, percent int
	what        string
	disk        *vfs.MemFS
	counts      [powerActors]int // acknowledged increments
	casts       int              // acknowledged casts to "log"
	pairs       int              // acknowledged turns that write two keys
	timers      int              // acknowledged timers
}

func (c powerCut) String() string {
	return fmt.Sprintf("power cut before file operation %d (%s), %d %% of what was not synced survives", c.op, c.what, c.percent)
}

// TestCrashPowerCut takes the power away before the file operations of a fixed
// workload of calls, casts and timers over Pebble, with nothing, half or all of
// what was not synced left, and looks at what a new node finds: everything
// acknowledged, no half turn, nothing twice.
func TestCrashPowerCut(t *testing.T) {
	cuts, ops := powerRun(t)
	t.Logf("%d file operations, %d power cuts", ops, len(cuts))
	if ops < 500 {
		t.Errorf("the workload makes %d file operations, too few to show anything", ops)
	}
	for _, c := range cuts {
		if powerCheck(t, c); t.Failed() {
			t.Fatal(c)
		}
	}
}

func powerOptions(fs vfs.FS) pebblestore.Options {
	return pebblestore.Options{FS: fs, Shards: powerShards, MemTableBytes: 64 << 10}
}

// powerRun runs the workload once and copies the disk before its operations.
func powerRun(t *testing.T) (cuts []powerCut, ops int) {
	every := powerSample
	if os.Getenv("NOLA_SLOW") != "" {
		every = 1
	}
	var mu sync.Mutex // guards what follows; the engine works in the background as well
	var acked powerCut
	fs := powercut.NewDisk(func(cut powercut.Point) {
		mu.Lock()
		defer mu.Unlock()
		if ops = cut.Op; ops%every != 0 {
			return
		}
		for _, percent := range []int{0, 50, 100} {
			c := acked
			c.op, c.percent, c.what = ops, percent, cut.What
			c.disk = cut.Survivors(percent, 1)
			cuts = append(cuts, c)
		}
	})
	w := newWorld(t, powerShards, func(w *world) {
		w.open = func() (persistence.Store, error) { return pebblestore.Open("data", powerOptions(fs)) }
	})
	note := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	for i := range powerOps {
		id := i % powerActors
		switch i % 5 {
		case 0, 1:
			w.must(fmt.Sprint("a", id), "inc", "")
			note(func() { acked.counts[id]++ })
		case 2:
			w.must("pair", "pair", strconv.Itoa(i))
			note(func() { acked.pairs = i })
		case 3:
			if _, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("log"), Operation: "append", Payload: []byte(strconv.Itoa(i))}, time.Time{}); err != nil {
				t.Fatal(err)
			}
			note(func() { acked.casts++ })
		case 4:
			w.must("timed", "timer", fmt.Sprintf("t%d|inc|%d", i, i%3))
			note(func() { acked.timers++ })
		}
	}
	w.close()
	mu.Lock()
	defer mu.Unlock()
	return cuts, ops
}

func powerCheck(t *testing.T, c powerCut) {
	w := newWorld(t, powerShards, func(w *world) {
		w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond}
		w.open = func() (persistence.Store, error) { return pebblestore.Open("data", powerOptions(c.disk)) }
	})
	defer w.close()
	for i, want := range c.counts {
		// One more may have been made durable and not acknowledged.
		got, _ := strconv.Atoi(w.must(fmt.Sprint("a", i), "get", ""))
		if got != want && got != want+1 {
			t.Errorf("a%d counts %d, %d were acknowledged", i, got, want)
		}
	}
	first, second := w.must("pair", "get", "first"), w.must("pair", "get", "second")
	if n, _ := strconv.Atoi(first); first != second || n < c.pairs {
		t.Errorf("the pair is %q and %q, %d was acknowledged", first, second, c.pairs)
	}
	eventually(t, c.String()+": all casts have run", func() bool {
		return len(strings.Fields(w.must("log", "get", "log"))) >= c.casts
	})
	for i, x := range strings.Fields(w.must("log", "get", "log")) {
		if want := strconv.Itoa(5*i + 3); x != want {
			t.Errorf("cast %d is %s, want %s: none lost, none twice, in order", i, x, want)
		}
	}
	eventually(t, c.String()+": all timers have fired", func() bool {
		n, _ := strconv.Atoi(w.must("timed", "get", ""))
		return n >= c.timers && w.must("timed", "timers", "") == ""
	})
	if n, _ := strconv.Atoi(w.must("timed", "get", "")); n > c.timers+1 {
		t.Errorf("timers fired %d times, %d were set", n, c.timers)
	}
}
