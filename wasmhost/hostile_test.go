package wasmhost_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// reasonOf is the reason of a turn's error, and the limit it names.
func reasonOf(t testing.TB, err error) (nola.Reason, string) {
	t.Helper()
	var e *nola.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want a *nola.Error", err, err)
	}
	return e.Reason, e.Metadata["limit"]
}

// TestHostileGuests demands of each misdeed that it ends in time and for the
// right reason, and that the next instance works.
func TestHostileGuests(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	m := prepare(t, r, kitchen(t), nola.Manifest{Limits: nola.Limits{HostCalls: 1000}})
	tight := prepare(t, r, kitchen(t), nola.Manifest{Limits: nola.Limits{Steps: 1_000_000, ReplyBytes: 100, Casts: 2}})
	for _, tt := range []struct {
		name, op, payload string
		module            nola.Module
		deadline          time.Duration
		reason            nola.Reason
		limit, text       string
	}{
		{name: "loop to the deadline", op: "loop", deadline: 50 * time.Millisecond, reason: nola.ReasonDeadlineExceeded},
		{name: "loop to the budget", op: "loop", module: tight, reason: nola.ReasonCPUBudget, limit: "steps"},
		{name: "recurse", op: "recurse"}, // by depth or by memory, see below
		{name: "grow", op: "grow", reason: nola.ReasonMemoryLimit, limit: "memory_bytes", text: "16777216 bytes"},
		{name: "exit", op: "exit", payload: "3", reason: nola.ReasonGuestTrap, text: "exit code 3"},
		{name: "exit with 0", op: "exit", payload: "0", reason: nola.ReasonGuestTrap, text: "exit code 0"},
		{name: "panic", op: "putThenTrap", reason: nola.ReasonGuestTrap, text: "panic: planned trap"},
		{name: "block for ever", op: "block", reason: nola.ReasonGuestTrap, text: "deadlock"},
		{name: "huge reply", op: "reply", payload: "101", module: tight, reason: nola.ReasonLimitExceeded, limit: "reply_bytes"},
		{name: "too many casts", op: "cast", payload: `{"id":"b","operation":"x","count":3}`, module: tight, reason: nola.ReasonLimitExceeded, limit: "casts"},
		{name: "too many host calls", op: "fill", payload: "1001", reason: nola.ReasonLimitExceeded, limit: "host_calls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			module := m
			if tt.module != nil {
				module = tt.module
			}
			if tt.deadline == 0 {
				tt.deadline = 10 * time.Second
			}
			i := instantiate(t, module)
			start := time.Now()
			turn := &nola.Turn{Operation: tt.op, Payload: []byte(tt.payload), Deadline: start.Add(tt.deadline)}
			_, err := i.Invoke(turn, newWorld())
			took := time.Since(start)
			t.Logf("%s, %d steps: %v", took, turn.Steps, err)
			if err == nil {
				t.Fatal("it answered")
			}
			if took > tt.deadline+500*time.Millisecond {
				t.Errorf("it took %s, the deadline was %s", took, tt.deadline)
			}
			reason, limit := reasonOf(t, err)
			if tt.reason != "" && (reason != tt.reason || limit != tt.limit) {
				t.Errorf("reason %s, limit %q, want %s, %q", reason, limit, tt.reason, tt.limit)
			}
			var e *nola.Error
			if errors.As(err, &e); tt.reason == nola.ReasonDeadlineExceeded && e.Metadata["where"] != "turn" {
				t.Errorf("metadata %v, want where=turn", e.Metadata)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("the text is %q, want it to contain %q", err, tt.text)
			}
			if got := mustInvoke(t, instantiate(t, m), newWorld(), "echo", "next"); got != "next" {
				t.Errorf("the next instance answers %q", got)
			}
		})
	}
}

func TestRecursionIsBounded(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	for _, limits := range []nola.Limits{{}, {MemoryBytes: 1 << 30}, {MemoryBytes: 1 << 30, CallDepth: 100_000}} {
		t.Run(fmt.Sprintf("%d bytes %d frames", limits.MemoryBytes, limits.CallDepth), func(t *testing.T) {
			i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{Limits: limits}))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := invoke(i, newWorld(), "recurse", "")
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			more := (int64(after.Sys) - int64(before.Sys)) >> 20
			t.Logf("%s, %d MiB more of the system: %v", took, more, err)
			reason, limit := reasonOf(t, err)
			if more > 400 {
				t.Errorf("it took %d MiB of memory", more)
			}
			if limits.CallDepth == 0 && (reason != nola.ReasonLimitExceeded || limit != "call_depth") {
				t.Errorf("reason %s, limit %q", reason, limit)
			}
		})
	}
}

func TestLogFloodIsCut(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{}))
	w := newWorld()
	mustInvoke(t, i, w, "logFlood", "10000")
	size := 0
	for _, l := range w.logs {
		size += len(l)
	}
	if size > 70<<10 || len(w.logs) < 1000 {
		t.Errorf("%d messages of %d bytes were logged", len(w.logs), size)
	}
	if last := w.logs[len(w.logs)-1]; !strings.Contains(last, "log messages dropped") {
		t.Errorf("the last message is %q", last)
	}
}

func TestSleepTakesNoTime(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{}))
	start := time.Now()
	for range 3 {
		if got := mustInvoke(t, i, newWorld(), "sleep", "3600000"); got != "3600000" {
			t.Errorf("an hour's sleep took the guest %s ms", got)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestInterrupt(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	m := prepare(t, r, kitchen(t), nola.Manifest{})
	i := instantiate(t, m)
	want := nola.Errorf(nola.ReasonShardMoving, "the shard is moving")
	w := newWorld()
	i.Interrupt(want) // no turn runs, so it is the next one's
	if _, err := invoke(i, w, "put", "\x02nvalue"); err != want || len(w.state) != 0 {
		t.Errorf("interrupted before it began: %v, state %q", err, w.state)
	}
	i = instantiate(t, m)
	w.answer = func(nola.OutCall) ([]byte, error) { // while the turn runs
		i.Interrupt(want)
		return nil, nil
	}
	if _, err := invoke(i, w, "call", `{"id":"b","operation":"x"}`); err != want {
		t.Errorf("interrupted in a host call: %v", err)
	}

	i = instantiate(t, m)
	running := make(chan struct{})
	w = newWorld()
	w.answer = func(nola.OutCall) ([]byte, error) { return nil, nil }
	done := make(chan error, 1)
	go func() {
		close(running)
		_, err := invoke(i, w, "loop", "")
		done <- err
	}()
	<-running
	for {
		i.Interrupt(want) // until it is heard: the turn may not have begun
		select {
		case err := <-done:
			if err != want {
				t.Errorf("interrupted in a loop: %v", err)
			}
			return
		default:
			runtime.Gosched()
		}
	}
}

// watched is a world that knows how many steps the turn had taken when it last
// came to the host.
type watched struct {
	*world
	steps atomic.Uint64
}

func (w *watched) Yield(steps uint64) error {
	w.steps.Store(steps)
	return w.world.Yield(steps)
}

// TestSpinningGuestLetsTheProcessLive collects garbage, which stops all
// goroutines for a moment, while a guest spins. Time says little on a busy machine,
// so what counts is the guest's work: at least one of the collections took no
// longer than some milliseconds of it. With no way to stop the guest each would
// last until its deadline.
func TestSpinningGuestLetsTheProcessLive(t *testing.T) {
	const collections, stepsMax = 30, 10_000_000
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}}))
	w, done := &watched{world: newWorld()}, make(chan error, 1)
	go func() {
		_, err := i.Invoke(&nola.Turn{Operation: "loop", Deadline: time.Now().Add(10 * time.Second)}, w)
		done <- err
	}()
	for w.steps.Load() == 0 {
		runtime.Gosched()
	}
	fewest := uint64(math.MaxUint64)
	for range collections {
		before := w.steps.Load()
		runtime.GC()
		fewest = min(fewest, w.steps.Load()-before)
		select {
		case err := <-done:
			t.Fatalf("the guest ended before the collections, with %v", err)
		default:
		}
	}
	t.Logf("of %d collections the quickest lasted %d steps of the guest", collections, fewest)
	if fewest > stepsMax {
		t.Errorf("each collection lasted %d steps of the guest or more, want %d at most", fewest, stepsMax)
	}
	enough := nola.Errorf(nola.ReasonCanceled, "enough")
	i.Interrupt(enough)
	if err := <-done; err != enough {
		t.Errorf("the guest ended with %v", err)
	}
}
