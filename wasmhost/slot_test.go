package wasmhost_test

import (
	"bytes"
	encoding "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// memories are the ways to make slots and to set them back.
var memories = map[string]wasmhost.Config{"views": {}, "heap": {HeapMemory: true}, "plain": {HeapMemory: true, PlainEngine: true}}

// Where a hoarder hides things: a global goes to hoardGlobal, the payload to two
// places, of which one ends a page and one begins the next.
const (
	hoardGlobal = 4040
	hoardFirst  = 4064
	hoardSecond = 4096
	hoardBytes  = 32
	// With these, longer operations than others, the turn hides what it should, and then
	// fails or traps.
	hoardFail, hoardTrap = "fail-then", "trap-after-it"
)

// part is a part of a guest's memory.
type part struct{ from, bytes int }

// What hoarders answer: two pages, or no more than what they write to.
var (
	hoardPages = part{0, 8192}
	hoardMarks = part{4032, 128}
)

// hoarder is a guest that keeps what it is sent: it answers a part of its memory
// as the turn found it, with a global in it, and then writes the payload to two places
// and its first word to the global.
func hoarder(answers part) []byte {
	constant := func(n int) []byte {
		b := []byte{0x41}
		for ; n > 63; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		return append(b, byte(n))
	}
	return guestOf([][]byte{importOf("wapc", "__guest_request", typeI32s), importOf("wapc", "__guest_response", typeI32s)}, slices.Concat(
		constant(hoardGlobal), []byte{0x23, 0, 0x37, 3, 0}, // i64.store hoardGlobal (global 0)
		constant(answers.from), constant(answers.bytes), []byte{0x10, 1}, // response
		constant(12288), constant(hoardFirst), []byte{0x10, 0}, // request
		constant(hoardSecond), constant(hoardFirst), constant(hoardBytes), []byte{0xfc, 10, 0, 0}, // memory.copy
		constant(hoardFirst), []byte{0x29, 3, 0, 0x24, 0}, // global = i64.load hoardFirst
		[]byte{0x20, 0}, constant(len(hoardTrap)-1), []byte{0x4b, 0x04, 0x40, 0x00, 0x0b}, // if the operation is longer, unreachable
		[]byte{0x20, 0}, constant(len(hoardFail)), []byte{0x47}, // success, if it is of another length
	)).with(6, vector([]byte{0x7e, 1, 0x42, 7, 0x0b})).bytes()
}

// hoarded is what a hoarder answers that was sent payload before, or nothing.
func hoarded(answers part, payload []byte) []byte {
	want := make([]byte, answers.bytes)
	want[hoardGlobal-answers.from] = 7
	if payload != nil {
		copy(want[hoardGlobal-answers.from:], payload[:8])
		copy(want[hoardFirst-answers.from:], payload)
		copy(want[hoardSecond-answers.from:], payload)
	}
	return want
}

// TestConcurrentCanary has actors of one module write marks of their own into
// memory and globals, over and over in each other's slots, and demands that
// none ever sees another's, nor its own of a turn that failed or trapped. Under the race detector,
// which looks at each byte of an answer, guests answer with less, and all turns
// are taken with the memory that servers have.
func TestConcurrentCanary(t *testing.T) {
	for name, config := range memories {
		t.Run(name, func(t *testing.T) {
			turns, answers := 40_000, hoardPages
			if os.Getenv("NOLA_SLOW") != "" {
				turns = 10_000_000
			}
			if hostSlowdown > 1 {
				answers = hoardMarks
				if name != "views" {
					turns /= hostSlowdown
				}
			}
			r := newRuntime(t, config)
			m := prepare(t, r, hoarder(answers), nola.Manifest{})
			const actors = 4
			var failed, trapped atomic.Int64
			var wg sync.WaitGroup
			for a := range actors {
				wg.Go(func() {
					random := rand.New(rand.NewPCG(1, uint64(a)))
					self := nola.ActorRef{Namespace: "default", Type: "test", ID: strconv.Itoa(a)}
					w := newWorld()
					mark := make([]byte, hoardBytes)
					turn := &nola.Turn{Operation: "mark" + self.ID, Payload: mark}
					failures := []struct {
						turn   *nola.Turn
						reason nola.Reason
					}{
						{&nola.Turn{Operation: hoardFail, Payload: mark}, nola.ReasonGuestError},
						{&nola.Turn{Operation: hoardTrap, Payload: mark}, nola.ReasonGuestTrap},
					}
					for n := 0; n < turns/actors; {
						i, err := m.Instantiate(self)
						if err != nil {
							t.Error(err)
							return
						}
						var before []byte
						for range 1 + random.IntN(3) {
							for at := range mark {
								mark[at] = byte(random.Uint32())
							}
							n++
							if random.IntN(32) == 0 {
								f := failures[random.IntN(len(failures))]
								if _, err := i.Invoke(f.turn, w); !errors.Is(err, &nola.Error{Reason: f.reason}) {
									t.Errorf("actor %d, turn %d: %v, want %s", a, n, err, f.reason)
								}
								failed.Add(1)
								if f.reason == nola.ReasonGuestTrap {
									trapped.Add(1)
								}
								break // nobody uses the activation again
							}
							reply, err := i.Invoke(turn, w)
							if err != nil || !bytes.Equal(reply, hoarded(answers, before)) {
								t.Errorf("actor %d, turn %d: %v; the memory is not as its own turns left it", a, n, err)
								i.Close()
								return
							}
							before = append(before[:0], mark...)
							runtime.Gosched() // others take their slots in the midst of this life
						}
						i.Close()
					}
				})
			}
			wg.Wait()
			s := r.Stats()
			t.Logf("%d turns, %d of them failed; %+v", turns, failed.Load(), s)
			if s.SlotsDropped != uint64(trapped.Load()) {
				t.Errorf("%d slots were dropped after %d turns that trapped", s.SlotsDropped, trapped.Load())
			}
			if s.SlotsReused < uint64(turns/8) || s.SlotsMade-s.SlotsDropped > 2*actors {
				t.Errorf("slots were not used again: %+v", s)
			}
		})
	}
}

// TestSlotsAreReset takes guests through whole lives in slots that others have
// used, and demands what instances of their own answer.
func TestSlotsAreReset(t *testing.T) {
	calls := []call{
		{"echo", strings.Repeat("0123456789abcdef", 20000)},
		{"echo", ""},
		{"inc", ""},
		{"inc", "x"},
		{"put", "\x02kvalue"},
		{"host", "KV-GET\x00n"},
		{"nope", "x"},
		{"fly", ""},
		{"remember", "one"},
		{"remember", "two"},
		{"dice", ""},
		{"dice", ""},
		{"clock", ""},
	}
	guests := conformanceGuests(t)
	guests["kitchen"] = kitchen(t)
	for name, config := range memories {
		for guest, code := range guests {
			t.Run(name+"/"+guest, func(t *testing.T) {
				life := func(r *wasmhost.Runtime, m nola.Module, upTo int) (answers []string) {
					i, err := m.Instantiate(nola.ActorRef{Namespace: "default", Type: "test", ID: "a"})
					if err != nil {
						t.Fatal(err)
					}
					defer i.Close()
					w := newWorld()
					for _, c := range calls[:upTo] {
						turn := &nola.Turn{Operation: c.op, Payload: []byte(c.payload)}
						reply, err := i.Invoke(turn, w)
						answers = append(answers, fmt.Sprintf("%s(%.20q) = %.60q, %v, %d steps", c.op, c.payload, reply, err, turn.Steps))
					}
					return answers
				}
				fresh := newRuntime(t, config)
				want := life(fresh, prepare(t, fresh, code, nola.Manifest{}), len(calls))
				r := newRuntime(t, config)
				m := prepare(t, r, code, nola.Manifest{})
				for n := range 3 * len(calls) {
					upTo := 1 + n*7%len(calls)
					for at, got := range life(r, m, upTo) {
						if got != want[at] {
							t.Fatalf("life %d: %s\nwant %s", n, got, want[at])
						}
					}
				}
				if s := r.Stats(); s.SlotsReused == 0 && s.SlotsDropped < uint64(3*len(calls)) {
					t.Errorf("no slot was used again: %+v", s)
				}
			})
		}
	}
}

// TestActorsShareNoRandomStream draws from the generator that a Go program has
// from its start, which is before there is an actor.
func TestActorsShareNoRandomStream(t *testing.T) {
	for name, code := range map[string][]byte{"from an image": kitchen(t), "without": withPassiveData(kitchen(t))} {
		t.Run(name, func(t *testing.T) {
			m := prepare(t, newRuntime(t, wasmhost.Config{}), code, nola.Manifest{})
			if image, _ := wasmhost.HasImage(m); image != (name == "from an image") {
				t.Fatalf("it has an image: %t", image)
			}
			testRandomStreams(t, m, true)
		})
	}
	t.Run("searched in each instance", func(t *testing.T) {
		m, err := newRuntime(t, wasmhost.Config{}).PrepareWhole(t.Context(), kitchen(t), nola.Manifest{})
		if err != nil {
			t.Fatal(err)
		}
		testRandomStreams(t, m, false)
	})
}

// withPassiveData returns code with a segment that is not placed when it begins,
// so that its instances cannot begin as an image.
func withPassiveData(code []byte) []byte {
	out := bytes.Clone(code[:8])
	for rest := code[8:]; len(rest) > 0; {
		id := rest[0]
		size, n := encoding.Uvarint(rest[1:])
		section := rest[1+n:][:size]
		rest = rest[1+n+int(size):]
		if id == 11 {
			segments, n := encoding.Uvarint(section)
			section = append(append(number(int(segments)+1), section[n:]...), 1, 1, 'x')
		}
		out = append(append(append(out, id), number(len(section))...), section...)
	}
	return out
}

// testRandomStreams draws for two actors. A generator that the guest seeds itself
// draws the same for both, if constant.
func testRandomStreams(t *testing.T, m nola.Module, constant bool) {
	t.Helper()
	draw := func(id string, seed byte) (own, fixed []string) {
		w := newWorld()
		w.random = rand.NewChaCha8([32]byte{seed})
		w.inv.Target.ID = id
		i := instantiate(t, m)
		for range 40 { // more than one block of the generator
			a, b, _ := strings.Cut(mustInvoke(t, i, w, "dice", ""), " ")
			own, fixed = append(own, a), append(fixed, b)
		}
		return own, fixed
	}
	a, fixedA := draw("a", 1)
	b, fixedB := draw("b", 2)
	again, _ := draw("a", 1)
	seen := map[string]bool{}
	for n := range a {
		if seen[a[n]] || seen[b[n]] || a[n] == b[n] {
			t.Fatalf("draw %d: %s and %s were drawn before, or by both", n, a[n], b[n])
		}
		seen[a[n]], seen[b[n]] = true, true
		if a[n] != again[n] {
			t.Errorf("draw %d of the same turn again: %s, then %s", n, a[n], again[n])
		}
		if constant && fixedA[n] != fixedB[n] {
			t.Errorf("draw %d of a generator that the guest seeds itself: %s and %s", n, fixedA[n], fixedB[n])
		}
	}

	// What the host hands out does not depend on the age of the activation.
	w := newWorld()
	first := mustInvoke(t, instantiate(t, m), w, "host", "RANDOM\x00\x00\x00\x00\x10")
	i := instantiate(t, m)
	mustInvoke(t, i, newWorld(), "echo", "")
	if later := mustInvoke(t, i, newWorld(), "host", "RANDOM\x00\x00\x00\x00\x10"); later != first {
		t.Errorf("RANDOM in the first turn: %x, the same in a later one: %x", first, later)
	}
}

// TestConcurrentRandomStreams has many actors of one image draw in each other's
// slots, each from a stream of its own of the host, and demands that no number is
// drawn twice: from the generator that the image holds, and from the host.
func TestConcurrentRandomStreams(t *testing.T) {
	lives := 8_000 / hostSlowdown
	if os.Getenv("NOLA_SLOW") != "" {
		lives = 200_000 / hostSlowdown
	}
	const (
		actors = 4
		turns  = 3 // of a life
	)
	r := newRuntime(t, wasmhost.Config{})
	m := prepare(t, r, kitchen(t), nola.Manifest{})
	drawn := make([][]string, actors)
	var wg sync.WaitGroup
	for a := range actors {
		wg.Go(func() {
			w := newWorld()
			for life := range lives / actors {
				i, err := m.Instantiate(nola.ActorRef{Namespace: "default", Type: "test", ID: strconv.Itoa(a)})
				if err != nil {
					t.Error(err)
					return
				}
				for n := range turns {
					w.random = rand.NewChaCha8([32]byte{byte(a), byte(n), byte(life), byte(life >> 8), byte(life >> 16)})
					own, err := invoke(i, w, "dice", "")
					if err != nil {
						t.Error(err)
						break
					}
					own, _, _ = strings.Cut(own, " ")
					host, err := invoke(i, w, "host", "RANDOM\x00\x00\x00\x00\x08")
					if err != nil {
						t.Error(err)
						break
					}
					drawn[a] = append(drawn[a], own, host)
				}
				i.Close()
			}
		})
	}
	wg.Wait()
	all := slices.Concat(drawn...)
	if want := 2 * turns * (lives / actors) * actors; len(all) != want {
		t.Errorf("%d numbers were drawn, want %d", len(all), want)
	}
	slices.Sort(all)
	for n := range all[1:] {
		if all[n] == all[n+1] {
			t.Fatalf("%q was drawn twice", all[n])
		}
	}
	if s := r.Stats(); s.SlotsReused < uint64(lives/2) {
		t.Errorf("slots were not used again: %+v", s)
	}
}

func TestClockGoesOn(t *testing.T) {
	m := prepare(t, newRuntime(t, wasmhost.Config{}), kitchen(t), nola.Manifest{})
	w := newWorld()
	for range 3 {
		i := instantiate(t, m)
		for range 2 {
			w.now = w.now.Add(time.Hour)
			if got, want := mustInvoke(t, i, w, "clock", ""), fmt.Sprintf("%d 0", w.now.UnixNano()); got != want {
				t.Errorf("the guest's clock says %s, want %s", got, want)
			}
		}
		i.Close()
		i.Close() // a second time does nothing
	}
}

// TestLateInterrupt interrupts an activation that is over, while another one
// runs in its slot.
func TestLateInterrupt(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	m := prepare(t, r, smallGuest(t), nola.Manifest{})
	first := instantiate(t, m)
	mustInvoke(t, first, newWorld(), "inc", "")
	first.Close()
	second := instantiate(t, m)
	if s := r.Stats(); s.SlotsReused != 1 {
		t.Fatalf("the second activation did not get the slot of the first: %+v", s)
	}
	w := newWorld()
	w.answer = func(nola.OutCall) ([]byte, error) {
		first.Interrupt(errors.New("too late"))
		return []byte("fine"), nil
	}
	if got, err := invoke(second, w, "host", `INVOKE-ACTOR`+"\x00"+`{"actor_id":"b","operation":"x"}`); err != nil || got != "fine" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := invoke(first, w, "inc", ""); err == nil {
		t.Error("a closed instance answers")
	}
}

// TestNodeBudgetIsHard demands that neither idle slots nor guests that grow
// take more than the node has.
func TestNodeBudgetIsHard(t *testing.T) {
	const budget = 2 << 20
	for name, config := range memories {
		t.Run(name, func(t *testing.T) {
			config.InstancesBytesMax = budget
			r := newRuntime(t, config)
			m := prepare(t, r, smallGuest(t), nola.Manifest{})
			other := prepare(t, r, hoarder(hoardPages), nola.Manifest{})
			var open []nola.Instance
			for {
				i, err := m.Instantiate(nola.ActorRef{})
				if err != nil {
					break
				}
				open = append(open, i)
			}
			if len(open) < 10 {
				t.Fatalf("only %d instances fit", len(open))
			}
			_, err := invoke(open[0], newWorld(), "echo", strings.Repeat("x", 100_000)) // it has to grow
			if reason, limit := reasonOf(t, err); reason != nola.ReasonNodeOverloaded || limit != "instances_bytes" {
				t.Errorf("growing beyond the node's budget: %s, %s, %v", reason, limit, err)
			}
			for _, i := range open {
				if _, err := invoke(i, newWorld(), "echo", "x"); err != nil && i != open[0] {
					t.Error(err)
				}
				i.Close()
			}
			s := r.Stats()
			if s.Bytes != s.IdleBytes || s.IdleBytes > budget/4 || s.SlotsEvicted == 0 {
				t.Errorf("after all were closed: %+v", s)
			}
			// Idle slots of one module give way to activations of another.
			open = open[:0]
			for range 15 {
				i, err := other.Instantiate(nola.ActorRef{})
				if err != nil {
					t.Fatalf("after %d: %v", len(open), err)
				}
				open = append(open, i)
			}
			if s := r.Stats(); s.Bytes > budget {
				t.Errorf("%d bytes are held, the budget is %d", s.Bytes, budget)
			}
			for _, i := range open {
				i.Close()
			}
		})
	}
}

// TestCodeEndsWithItsLastInstance closes modules under their instances, as a
// push does.
func TestCodeEndsWithItsLastInstance(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	m, err := r.Prepare(t.Context(), smallGuest(t), nola.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	i, j := instantiate(t, m), instantiate(t, m)
	j.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := mustInvoke(t, i, newWorld(), "echo", "still here"); got != "still here" {
		t.Errorf("after its module was closed an instance answers %q", got)
	}
	i.Close()
	if s := r.Stats(); s.Modules != 0 || s.Bytes != 0 {
		t.Errorf("after the last instance: %+v", s)
	}
	if _, err := m.Instantiate(nola.ActorRef{}); err == nil {
		t.Error("a closed module makes instances")
	} else if reason, _ := reasonOf(t, err); reason != nola.ReasonUnavailable {
		t.Errorf("a closed module: %s %v", reason, err)
	}
}

// TestIdleSlotsEnd lets time pass over idle slots: each release closes one that
// was idle for too long.
func TestIdleSlotsEnd(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRuntime(t, wasmhost.Config{IdleAfter: time.Minute, Now: func() time.Time { return now }})
	m := prepare(t, r, smallGuest(t), nola.Manifest{})
	release := func(n int) {
		var open []nola.Instance
		for range n {
			open = append(open, instantiate(t, m))
		}
		for _, i := range open {
			i.Close()
		}
	}
	release(5)
	one := r.Stats().IdleBytes / 5
	now = now.Add(time.Minute)
	for _, left := range []int64{5, 5} {
		release(1)
		if got := r.Stats().IdleBytes / one; got != left {
			t.Fatalf("%d slots are idle after a minute, want %d", got, left)
		}
	}
	now = now.Add(time.Second) // over the minute for all but the newest
	for _, left := range []int64{4, 3, 2, 1, 1} {
		release(1)
		if got := r.Stats().IdleBytes / one; got != left {
			t.Errorf("%d slots are idle after another release, want %d", got, left)
		}
	}
	if s := r.Stats(); s.SlotsEvicted != 4 {
		t.Errorf("%d slots were evicted, want 4", s.SlotsEvicted)
	}
}
