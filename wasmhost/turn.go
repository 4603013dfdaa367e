package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/nolaproject/nola"
)

const (
	// A guest takes at most sliceSteps between two visits to the host, which take from
	// 20 us, in a small loop, to 10 ms, in one of divisions: a step stands for up to 256
	// instructions. A collection waits for the end of a slice, and so does who wants the
	// processor, so slices become smaller while they take longer than sliceTime. A turn
	// begins with sliceFirst.
	sliceSteps = 25_000
	sliceFirst = 1_000
	sliceMin   = 500
	sliceTime  = 200 * time.Microsecond
	// nearSteps is how near its budget a turn may come before each step counts at
	// once: more than it can take from one visit to the next.
	nearSteps = 3 * sliceSteps
	// restSteps is how many steps initialisers take before they rest for restTime,
	// each time.
	restSteps = 10_000_000
	restTime  = time.Millisecond
	// crossingSteps is what a function of the host weighs besides the bytes it
	// moves.
	crossingSteps = 8
	// hostCallsPerClock is how many host calls share one look at the clock, unless
	// their requests are of largeRequest bytes or more.
	hostCallsPerClock = 16
	largeRequest      = 4 << 10
	// keptBytesMax is what an instance keeps of a buffer between turns.
	keptBytesMax = 64 << 10
)

// turn is what an instance knows of the call that runs. There is one for each
// instance, used again and again. It is the context handed to the engine, so
// that a host function finds it by one type assertion.
type turn struct {
	context.Context // answers the engine's own questions
	slot            *slot
	instance        *instance // whose turn it is
	limits          *nola.Limits
	meter           api.MutableGlobal // nil until the instance stands

	turn     *nola.Turn // nil while the initialisers run
	host     nola.Host  // the same
	deadline time.Time
	by       string // the limit that set the deadline, empty if the caller did
	readonly bool

	// The meter: all steps granted and all charged by the host itself.
	granted, charged uint64
	slice            uint64    // steps between two visits to the host
	visited          time.Time // when the last one ended; zero before the first
	near             bool      // the budget ends soon
	rest             uint64    // steps at which initialisers rest
	unchecked        uint64    // of what was charged, since the last check

	// What the guest said.
	reply     []byte
	failure   []byte // its error text
	exited    bool
	exitCode  uint32
	ended     error // why the host ended the turn
	hostReply []byte
	hostError error // of the last host call
	hostText  string

	hostCalls, casts, timers int
	clock                    clock
	random                   *rand.ChaCha8 // of the initialisers; nil until they draw
	drawn                    bool          // the turn's random stream was begun
	log                      log
}

// interruption is why a turn is to end: the one that runs, or the next one. The
// address of running alone says that one runs; nil that there is none.
type interruption struct{ err error }

var running interruption

func (t *turn) init(s *slot) {
	t.Context = experimental.WithMemoryAllocator(context.Background(), experimental.MemoryAllocatorFunc(func(uint64, uint64) experimental.LinearMemory { return &s.memory }))
	t.slot = s
}

// enter makes the turn one of i's.
func (t *turn) enter(i *instance) {
	t.instance = i
	t.limits = &i.module.manifest.Limits
}

// forget leaves nothing of an activation.
func (t *turn) forget() {
	t.instance, t.limits = nil, nil
	t.failure, t.hostText, t.by = nil, "", ""
	clear(t.hostReply[:cap(t.hostReply)])
	t.log.forget()
}

// begin starts a turn.
func (t *turn) begin(i *instance, turn *nola.Turn, host nola.Host) {
	t.enter(i)
	t.turn, t.host = turn, host
	t.deadline, t.by = turn.Deadline, ""
	if l := t.limits.TurnTimeout; l < nola.CallTimeoutMax {
		if d := t.now().Add(l); t.deadline.IsZero() || d.Before(t.deadline) {
			t.deadline, t.by = d, "turn_timeout"
		}
	}
	t.readonly = false
	if ro := t.instance.module.readonly; len(ro) > 0 {
		_, t.readonly = ro[turn.Operation]
	}
	t.reset()
	t.clock.begin(host.Now().UnixNano())
	t.grant(0)
	if !i.begun {
		i.begun = true
		if g := t.slot.generators; len(g) > 0 {
			seedGenerators(t.slot.memory.bytes, g, t.draw())
		}
	}
}

// initEpoch is what the initialisers take for the time.
var initEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// beginInit starts the run of the initialisers, which have no host.
func (t *turn) beginInit(i *instance) {
	t.enter(i)
	t.turn, t.host, t.meter = nil, nil, nil
	t.deadline, t.by = t.now().Add(initTimeout), "init_timeout"
	t.reset()
	t.rest = restSteps
	t.clock.begin(initEpoch.UnixNano())
}

func (t *turn) reset() {
	t.granted, t.charged, t.unchecked = 0, 0, 0
	t.slice, t.visited = sliceFirst, time.Time{}
	t.reply, t.failure, t.exited, t.exitCode, t.ended = nil, nil, false, 0, nil
	t.hostReply, t.hostError, t.hostText = t.hostReply[:0], nil, ""
	t.hostCalls, t.casts, t.timers = 0, 0, 0
	t.drawn = false
	t.slot.memory.refused, t.slot.memory.crowded = false, false
	t.log.reset()
}

// finish lets go of what belongs to the turn's owner.
func (t *turn) finish() {
	t.instance.signal.CompareAndSwap(&running, nil)
	t.log.close(t)
	t.turn, t.host, t.random = nil, nil, nil
	t.reply, t.failure, t.hostError, t.ended = nil, nil, nil, nil
	if cap(t.hostReply) > keptBytesMax {
		t.hostReply = nil
	}
}

func (t *turn) now() time.Time { return t.slot.code.runtime.config.Now() }

// end leaves the guest for good. It does not return.
func (t *turn) end(err error) {
	t.ended = err
	panic(errEnded)
}

var errEnded = errors.New("the host ended the turn")

// trap ends the turn for a guest that broke the protocol.
func (t *turn) trap(format string, args ...any) {
	e := nola.Errorf(nola.ReasonGuestTrap, "guest trap: "+format, args...)
	e.Metadata = map[string]string{"trap": "protocol"}
	t.end(e)
}

// grant sets the meter to another slice, or to what is left of the budget.
// left is where it stands.
func (t *turn) grant(left int64) {
	remaining := t.limits.Steps - t.used(left)
	t.near = remaining <= nearSteps
	slice := min(t.slice, remaining)
	t.granted += slice - uint64(left)
	t.meter.Set(slice)
}

// used is the number of steps taken, given where the meter stands.
func (t *turn) used(left int64) uint64 { return t.granted - uint64(left) + t.charged }

// steps is the number of steps taken so far.
func (t *turn) steps() uint64 { return t.used(int64(t.meter.Get())) }

// charge adds the work of moving n bytes. The guest's own countdown does not
// see it, so each slice of it is checked here, and all of it near the end of the
// budget: where a turn ends must not depend on when it visited the host.
func (t *turn) charge(n int) {
	steps := uint64(n)/bytesPerStep + crossingSteps
	t.charged += steps
	switch t.unchecked += steps; {
	case t.unchecked >= t.slice:
		t.pace()
		t.visit()
	case t.near && t.meter != nil:
		left := int64(t.meter.Get())
		t.spent(left)
		t.narrow(left)
	}
}

// narrow leaves the guest no more steps than its budget has. left is where the meter
// stands.
func (t *turn) narrow(left int64) {
	remaining := t.limits.Steps - t.used(left)
	if t.near = remaining <= nearSteps; t.near && int64(remaining) < left {
		t.granted -= uint64(left) - remaining
		t.meter.Set(remaining)
	}
}

// look looks at the clock between two host calls.
func (t *turn) look() {
	now := t.now()
	if t.visited.IsZero() {
		t.visited = now
	}
	if t.overdue(now); now.Sub(t.visited) >= sliceTime {
		t.visit()
	}
}

// visit is a visit to the host from within one of its functions, without which a
// guest that calls many of them would make others wait.
func (t *turn) visit() {
	if t.meter == nil {
		return
	}
	left := int64(t.meter.Get())
	t.giveWay(t.used(left))
	t.check(left)
	t.narrow(left)
}

// check ends the turn if it is interrupted, overdue or over its budget. left is
// where the meter stands.
func (t *turn) check(left int64) {
	t.unchecked = 0
	t.interrupted()
	t.visited = t.now()
	t.overdue(t.visited)
	t.spent(left)
}

// spent ends the turn if it is over its budget.
func (t *turn) spent(left int64) {
	if t.used(left) > t.limits.Steps {
		n := t.limits.Steps
		t.end(nola.LimitError(nola.ReasonCPUBudget, "steps", int64(n), "the turn took more than %d steps (limits.steps of the manifest); do less in one turn, or raise the limit", n))
	}
}

// yield is where a guest comes when its slice is used up.
func (t *turn) yield(m api.Module, reason uint32) {
	if reason == reasonDepth {
		n := t.limits.CallDepth
		t.end(nola.LimitError(nola.ReasonLimitExceeded, "call_depth", int64(n), "the guest's functions were nested deeper than %d frames (limits.call_depth of the manifest); is there a recursion without end?", n))
	}
	if t.meter == nil {
		t.meter = m.ExportedGlobal(meterExport).(api.MutableGlobal)
	}
	left := int64(t.meter.Get())
	t.pace()
	t.giveWay(t.used(left))
	t.check(left)
	t.grant(left)
}

// pace fits the next slice to how long the last one took.
func (t *turn) pace() {
	if t.visited.IsZero() {
		return
	}
	switch took := t.now().Sub(t.visited); {
	case took > sliceTime:
		t.slice = max(sliceMin, t.slice*uint64(sliceTime)/uint64(took))
	case took < sliceTime/4:
		t.slice = min(sliceSteps, 4*t.slice)
	}
}

// giveWay lets others go first: whoever shares the processors out knows them.
// Initialisers, which nobody shares out, are ready all the time for long at most
// once in restSteps: a processor that always has work never looks at the network.
func (t *turn) giveWay(used uint64) {
	switch {
	case t.host != nil:
		if err := t.host.Yield(used); err != nil {
			t.end(err)
		}
	case used < t.rest:
		runtime.Gosched()
	default:
		t.rest = used + restSteps
		time.Sleep(restTime) //nolint:forbidigo // nothing is waited for: the processor is left to others
	}
}

func (t *turn) interrupted() {
	if s := t.instance.signal.Load(); s != nil && s != &running {
		t.end(s.err)
	}
}

// overdue ends the turn if its deadline has passed. The clock is read here, by
// the turn itself, once in each slice of steps, and not by a watchdog: it costs
// nothing beside a slice, and there is no goroutine to own.
func (t *turn) overdue(now time.Time) {
	if t.deadline.IsZero() || now.Before(t.deadline) {
		return
	}
	e := nola.Errorf(nola.ReasonDeadlineExceeded, "the turn was stopped at its deadline")
	e.Metadata = make(map[string]string)
	switch t.by {
	case "turn_timeout":
		e = nola.LimitError(nola.ReasonDeadlineExceeded, t.by, int64(t.limits.TurnTimeout), "the turn was stopped after %s (limits.turn_timeout of the manifest)", t.limits.TurnTimeout)
	case "init_timeout":
		e = nola.LimitError(nola.ReasonDeadlineExceeded, t.by, int64(initTimeout), "the module's initialisers were stopped after %s", initTimeout)
	}
	e.Metadata["where"] = "turn"
	t.end(e)
}

// result is the answer of a guest that returned ok.
func (t *turn) result(ok uint32) ([]byte, error) {
	if len(t.failure) == 0 && ok == 1 {
		return t.reply, nil
	}
	if s := t.instance.signal.Load(); s != nil && s != &running {
		return nil, s.err
	}
	op, text := t.turn.Operation, string(t.failure)
	switch {
	case text == "":
		text = fmt.Sprintf("call to %q was unsuccessful", op)
	case t.hostError != nil && strings.TrimPrefix(text, "Host error: ") == t.hostText:
		return nil, t.hostError
	case saysUnknown(text, op):
		e := nola.Errorf(nola.ReasonOperationNotFound, "operation %q is not known to the module", op)
		if ops := t.instance.module.manifest.Operations; len(ops) > 0 {
			e.Message += "; it declares " + strings.Join(ops, ", ")
			e.Metadata = map[string]string{"operations": strings.Join(ops, ",")}
		}
		return nil, e
	}
	return nil, nola.Errorf(nola.ReasonGuestError, "%s", text)
}

// saysUnknown reports whether a guest's error text says that it has no operation
// op. The protocol has no sign for that, so it is told by the texts of its SDKs:
// for Go and AssemblyScript, for Rust, and for Zig.
func saysUnknown(text, op string) bool {
	return text == `Could not find function "`+op+`"` ||
		text == "No handler registered for function "+op ||
		text == "Could not find function "+op
}

func (t *turn) replyTooLarge(n int) error {
	return nola.LimitError(nola.ReasonLimitExceeded, "reply_bytes", int64(t.limits.ReplyBytes), "the reply has %d bytes, limits.reply_bytes of the manifest allows %d", n, t.limits.ReplyBytes)
}

// stackBytesMax bounds the guest stack in an error.
const stackBytesMax = 4 << 10

// startFault is how the engine begins to say that making the memory failed: in
// the start section, or by a segment that does not fit.
var startFault = regexp.MustCompile(`^(start function\[\d+\] failed: (wasm error: )?|data\[\d+\]: )`)

// classify says why a call ended in err of the engine.
func (t *turn) classify(err error) error {
	var kind, stack string
	switch text := err.Error(); {
	case t.exited:
		kind = fmt.Sprintf("exit code %d", t.exitCode)
	case t.ended != nil:
		return t.ended
	default:
		var ok bool
		kind, stack, _ = strings.Cut(text, "\nwasm stack trace:\n")
		if t.turn == nil {
			kind = startFault.ReplaceAllString(kind, "wasm error: ")
		}
		if kind, ok = strings.CutPrefix(kind, "wasm error: "); !ok && kind != "stack overflow" {
			t.instance.module.runtime.config.Logger.Error("guest call failed in the host", "actor", t.instance.self.String(), "error", text)
			return nola.Errorf(nola.ReasonInternal, "%s: running the guest failed: %s", t.instance.self, kind)
		}
	}
	t.flush(1)
	last := t.log.last
	if t.slot.memory.crowded {
		return t.slot.code.runtime.overloaded(pageBytes)
	}
	if t.slot.memory.refused {
		n := t.slot.memory.max
		return nola.LimitError(nola.ReasonMemoryLimit, "memory_bytes", int64(n), "the guest asked for more than its %d bytes of memory and failed (%s); hold less in memory, or raise limits.memory_bytes of the manifest and the module's own maximum", n, kind)
	}
	e := nola.Errorf(nola.ReasonGuestTrap, "guest trap: %s", kind)
	e.Metadata = map[string]string{"trap": kind}
	if last != "" {
		e.Message += ": " + last
	}
	if stack = strings.TrimSpace(strings.ReplaceAll(stack, "\n\t", "\n")); stack != "" {
		e.Metadata["stack"] = stack[:min(len(stack), stackBytesMax)]
	}
	return e
}

// fill fills b from the turn's random stream.
func (t *turn) fill(b []byte) {
	if t.host == nil {
		if t.random == nil {
			t.random = rand.NewChaCha8(t.instance.module.compiled.key.digest)
		}
		_, _ = t.random.Read(b) // never fails
		return
	}
	if !t.drawn && len(t.slot.generators) > 0 {
		t.draw()
	}
	t.host.Random(b)
}

// draw takes the head of the turn's random stream, with which the generators of
// a new activation are seeded. Turns of older ones leave it out, so that what
// they draw does not depend on the age of the activation.
func (t *turn) draw() (seed [32]byte) {
	t.drawn = true
	t.host.Random(seed[:])
	return seed
}

// clock is the time that a guest's WASI sees: the turn's time and what the
// guest slept in it. Sleeping takes no time, it moves the clock.
type clock struct {
	wall, monotonic int64 // Unix nanoseconds
}

func (c *clock) begin(now int64) {
	c.wall = now
	c.monotonic = max(c.monotonic, now) // it never runs back
}

// sleptMax bounds how far one turn can move its clock.
const sleptMax = int64(1) << 60

func (c *clock) sleep(d int64) {
	if d > 0 && d < sleptMax && c.wall < sleptMax*6 && c.monotonic < sleptMax*6 {
		c.wall += d
		c.monotonic += d
	}
}
