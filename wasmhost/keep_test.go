package wasmhost_test

import (
	"bytes"
	le "encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

var memoryMode = nola.Manifest{Mode: nola.ModeMemory}

// kept is an actor in memory mode, as its owner holds it.
type kept struct {
	module   nola.Module
	memory   *nola.Memory
	instance nola.Keeper // nil: it sleeps
	writes   int         // turns that changed its memory
	steps    uint64      // of the turn before
}

func (k *kept) wake(t testing.TB) {
	t.Helper()
	if k.instance != nil {
		return
	}
	i, err := k.module.Instantiate(nola.ActorRef{Namespace: "default", Type: "test", ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	k.instance = i.(nola.Keeper)
	if k.memory != nil {
		if err := k.instance.Restore(k.memory); err != nil {
			t.Fatal(err)
		}
	}
}

func (k *kept) sleep() {
	if k.instance != nil {
		k.instance.Close()
		k.instance = nil
	}
}

// turn runs one turn, and has the memory of one that failed be as before.
func (k *kept) turn(t testing.TB, w *world, c call) (string, error) {
	t.Helper()
	k.wake(t)
	turn := &nola.Turn{Operation: c.op, Payload: []byte(c.payload), Deadline: time.Now().Add(10 * time.Second)}
	reply, err := k.instance.Invoke(turn, w)
	if k.steps = turn.Steps; err != nil {
		k.sleep()
		return "", err
	}
	if change := k.instance.Keep(k.memory); change != nil {
		k.writes++
		// Through a copy, as it comes back from a store.
		for n := range change.Pages {
			change.Pages[n].Difference = bytes.Clone(change.Pages[n].Difference)
		}
		k.memory = k.memory.Apply(change)
	}
	return string(reply), nil
}

// keepLife takes an actor through its life; asleep says after which calls it
// sleeps.
func keepLife(t *testing.T, m nola.Module, calls []call, asleep func(n int) bool) (o outcome) {
	t.Helper()
	k, w := kept{module: m}, newWorld()
	defer k.sleep()
	for n, c := range calls {
		reply, err := k.turn(t, w, c)
		if err != nil {
			reply = failed + errorText(err, c.op)
		}
		o.answers = append(o.answers, reply)
		o.steps = append(o.steps, k.steps)
		if asleep(n) {
			k.sleep()
		}
	}
	k.wake(t)
	o.memory, o.state, o.logs = wasmhost.CopyMemory(k.instance), w.state, w.logs
	return o
}

// TestConformanceInMemoryMode runs the guest of each language with its memory
// kept: restored before each turn, now and then, and after failures only. All
// must answer as the raw guest does under the protocol's reference host, and
// leave equal memories.
func TestConformanceInMemoryMode(t *testing.T) {
	for name, code := range conformanceGuests(t) {
		t.Run(name, func(t *testing.T) {
			raw := runReference(t, code, calls())
			for memory, config := range memories {
				r := newRuntime(t, config)
				m := prepare(t, r, code, memoryMode)
				warm := keepLife(t, m, calls(), func(int) bool { return false })
				for how, asleep := range map[string]func(int) bool{
					"always":    func(int) bool { return true },
					"sometimes": func(n int) bool { return n%3 == 1 },
					"never":     func(int) bool { return false },
				} {
					t.Run(memory+"/asleep "+how, func(t *testing.T) {
						// Others use the slots in between.
						live(t, m, []call{{"remember", ""}, {"echo", "other"}, {"inc", "3"}})
						got := keepLife(t, m, calls(), asleep)
						got.check(t)
						if !slices.Equal(got.answers, raw.answers) {
							t.Errorf("the answers are %.500q, under the reference %.500q", got.answers, raw.answers)
						}
						if !maps.EqualFunc(got.state, raw.state, bytes.Equal) {
							t.Errorf("the state is %.200q, under the reference %.200q", got.state, raw.state)
						}
						got.checkMemory(t, warm.memory)
						if !slices.Equal(got.steps, warm.steps) {
							t.Errorf("the turns took %d steps, awake %d", got.steps, warm.steps)
						}
					})
				}
			}
		})
	}
}

// TestKeptMemoryIsTheWholeState takes the larger Go guest, which draws random
// numbers and reads clocks, through a life awake and one with a sleep after each
// turn: answers and steps must be the same.
func TestKeptMemoryIsTheWholeState(t *testing.T) {
	var list []call
	for n := range 60 {
		list = append(list, call{"remember", strconv.Itoa(n)}, call{"dice", ""}, call{"clock", ""}, call{"echo", strings.Repeat("x", n*50)})
	}
	for memory, config := range memories {
		t.Run(memory, func(t *testing.T) {
			m := prepare(t, newRuntime(t, config), kitchen(t), memoryMode)
			awake := keepLife(t, m, list, func(int) bool { return false })
			got := keepLife(t, m, list, func(int) bool { return true })
			for n := range list {
				if got.answers[n] != awake.answers[n] {
					t.Fatalf("turn %d, %s: %q, awake %q", n, list[n].op, got.answers[n], awake.answers[n])
				}
			}
			got.checkMemory(t, awake.memory)
			if !slices.Equal(got.steps, awake.steps) {
				t.Errorf("the turns took %d steps, awake %d", got.steps, awake.steps)
			}
		})
	}
}

// diary is a guest that keeps what it is sent in memory and in a global: it
// answers the first 4 KiB of its memory and the global behind them, then writes
// the payload's first 32 bytes at 64 and 3000 and its first word to the global.
// With an empty payload it changes nothing. With operation "grow" it has a page
// more and writes into it; with "trap" it traps after all that.
func diary() []byte {
	return guestOf([][]byte{importOf("wapc", "__guest_request", typeI32s), importOf("wapc", "__guest_response", typeI32s)}, []byte{
		0x20, 1, 0x45, 0x04, 0x40, // if the payload is empty
		0x41, 0, 0x41, 0x80, 0x20, 0x10, 1, 0x41, 1, 0x0f, 0x0b, // response 0, 4096; return 1
		0x41, 0x80, 0xe0, 0, 0x41, 0xc0, 0, 0x10, 0, // request 12288, 64
		0x41, 0x80, 0xe0, 0, 0x41, 0, 0x41, 8, 0xfc, 11, 0, // memory.fill 12288: the operation is not kept
		0x41, 0xb8, 0x17, 0x41, 0xc0, 0, 0x41, 32, 0xfc, 10, 0, 0, // memory.copy 3000, 64, 32
		0x41, 0xc0, 0, 0x29, 3, 0, 0x24, 0, // global = i64.load 64
		0x41, 8, 0x23, 0, 0x37, 3, 0, // i64.store 8 (global 0)
		0x20, 0, 0x41, 4, 0x46, 0x04, 0x40, // if the operation has 4 bytes
		0x41, 1, 0x40, 0, 0x1a, // memory.grow 1
		0x3f, 0, 0x41, 16, 0x74, 0x41, 0xe4, 0, 0x6b, 0x41, 7, 0x36, 2, 0, // i32.store (size*65536-100) 7
		0x0b,
		0x20, 0, 0x41, 6, 0x46, 0x04, 0x40, 0x00, 0x0b, // if it has 6 bytes: unreachable
		0x41, 0, 0x41, 0x80, 0x20, 0x10, 1, 0x41, 1,
	}).with(6, vector([]byte{0x7e, 1, 0x42, 7, 0x0b})).bytes()
}

// sleeper is a guest that sleeps for an hour if it has a payload, and answers its
// monotonic clock.
func sleeper() []byte {
	subscription := make([]byte, 48)
	le.LittleEndian.PutUint32(subscription[16:], 1) // the monotonic clock
	le.LittleEndian.PutUint64(subscription[24:], uint64(time.Hour))
	return guestOf([][]byte{
		importOf("wapc", "__guest_response", typeI32s),
		importOf("wasi_snapshot_preview1", "poll_oneoff", 6),
		importOf("wasi_snapshot_preview1", "clock_time_get", 7),
	}, []byte{
		0x20, 1, 0x04, 0x40, 0x41, 0xc0, 0, 0x41, 0x80, 1, 0x41, 1, 0x41, 0xc0, 1, 0x10, 1, 0x1a, 0x0b, // poll_oneoff 64, 128, 1, 192
		0x41, 1, 0x42, 0, 0x41, 8, 0x10, 2, 0x1a, // clock_time_get 1, 0, 8
		0x41, 8, 0x41, 8, 0x10, 0, // response 8, 8
		0x41, 1,
	}).with(1, vector(
		[]byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 0, 0}, []byte{0x60, 2, 0x7f, 0x7f, 0}, []byte{0x60, 0, 0}, []byte{0x60, 0, 0}, []byte{0x60, 0, 0},
		[]byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 3, 0x7f, 0x7e, 0x7f, 1, 0x7f})).
		with(11, vector(slices.Concat([]byte{0, 0x41, 0xc0, 0, 0x0b, 48}, subscription))).bytes()
}

// TestKeptClockGoesOn demands that the monotonic clock, which sleeping moves ahead
// of the time, does not run back because an actor was restored.
func TestKeptClockGoesOn(t *testing.T) {
	m := prepare(t, newRuntime(t, wasmhost.Config{}), sleeper(), memoryMode)
	k, w := kept{module: m}, newWorld()
	defer k.sleep()
	read := func(payload string) time.Duration {
		t.Helper()
		reply, err := k.turn(t, w, call{"now", payload})
		if err != nil {
			t.Fatal(err)
		}
		k.sleep()
		return time.Unix(0, int64(le.LittleEndian.Uint64([]byte(reply)))).Sub(w.now)
	}
	for n, want := range []time.Duration{0, time.Hour, time.Hour} {
		if got := read([]string{"", "sleep", ""}[n]); got != want {
			t.Errorf("turn %d: the clock is %s ahead, want %s", n, got, want)
		}
	}
	w.now = w.now.Add(90 * time.Minute)
	if got := read(""); got != 0 {
		t.Errorf("90 min later the clock is %s ahead", got)
	}
}

func mark(n int) string { return fmt.Sprintf("%032d", n) }

// TestKeep pins down what is kept and when nothing is.
func TestKeep(t *testing.T) {
	for memory, config := range memories {
		t.Run(memory, func(t *testing.T) {
			r := newRuntime(t, config)
			k := kept{module: prepare(t, r, diary(), memoryMode)}
			defer k.sleep()
			w := newWorld()
			must := func(op, payload string) string {
				t.Helper()
				reply, err := k.turn(t, w, call{op, payload})
				if err != nil {
					t.Fatal(err)
				}
				return reply
			}
			blank := must("get", "")
			if k.memory != nil {
				t.Fatalf("a turn that changes nothing keeps %+v", k.memory)
			}
			one := must("set", mark(1))
			if len(k.memory.Pages) != 1 || len(k.memory.Globals) == 0 || k.memory.Bytes != 1<<16 || k.writes != 1 {
				t.Fatalf("kept: %+v", k.memory)
			}
			k.sleep()
			if got := must("get", ""); got != one {
				t.Errorf("after a sleep: %q, want %q", got, one)
			}
			if k.writes != 1 {
				t.Error("a turn that reads keeps something")
			}
			must("set", mark(1))
			if k.writes != 1 {
				t.Error("a turn that writes the same again keeps something")
			}
			if _, err := k.turn(t, w, call{"trap!!", mark(2)}); err == nil {
				t.Fatal("it did not trap")
			}
			if got := must("get", ""); got != one {
				t.Errorf("after a trap: %q, want %q", got, one)
			}
			must("grow", mark(3))
			if k.memory.Bytes != 2<<16 || len(k.memory.Pages) != 2 {
				t.Errorf("after it grew: %+v", k.memory)
			}
			k.sleep()
			three := must("get", "")
			if grown := wasmhost.CopyMemory(k.instance); len(grown) != 2<<16 || grown[2<<16-100] != 7 {
				t.Errorf("%d bytes came back, %d at their end", len(grown), grown[len(grown)-100])
			}
			if !strings.Contains(three, mark(3)) || three == blank {
				t.Errorf("after it grew: %q", three)
			}
			// Written back to what the image has, a page is kept no longer.
			must("set", strings.Repeat("\x00", 32))
			must("set", strings.Repeat("\x00", 32))
			if d := k.memory.Pages[0]; len(d) > 20 {
				t.Errorf("of page 0 %x is kept, it has at most one word", d)
			}
		})
	}
}

// TestRestoreRefuses gives instances memories that are not theirs.
func TestRestoreRefuses(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	k := kept{module: prepare(t, r, diary(), memoryMode)}
	if _, err := k.turn(t, newWorld(), call{"set", mark(1)}); err != nil {
		t.Fatal(err)
	}
	k.sleep()
	small := prepare(t, r, diary(), nola.Manifest{Mode: nola.ModeMemory, Limits: nola.Limits{MemoryBytes: 1 << 16}})
	other := guestOf(nil, []byte{0x41, 1}).bytes()
	with := func(change func(m *nola.Memory)) *nola.Memory {
		m := *k.memory
		m.Pages = maps.Clone(m.Pages)
		change(&m)
		return &m
	}
	for name, tt := range map[string]struct {
		module nola.Module
		memory *nola.Memory
		reason nola.Reason
	}{
		"as it was":              {k.module, k.memory, ""},
		"other code":             {prepare(t, r, other, memoryMode), k.memory, nola.ReasonInternal},
		"the same in less":       {small, k.memory, ""},
		"more than there may be": {small, with(func(m *nola.Memory) { m.Bytes = 2 << 16 }), nola.ReasonMemoryLimit},
		"less than the image":    {k.module, with(func(m *nola.Memory) { m.Bytes = 0 }), nola.ReasonInternal},
		"no whole pages":         {k.module, with(func(m *nola.Memory) { m.Bytes++ }), nola.ReasonInternal},
		"a page beyond":          {k.module, with(func(m *nola.Memory) { m.Pages[16] = m.Pages[0] }), nola.ReasonInternal},
		"a torn page":            {k.module, with(func(m *nola.Memory) { m.Pages[0] = m.Pages[0][:5] }), nola.ReasonInternal},
		"a global too many":      {k.module, with(func(m *nola.Memory) { m.Globals = append([]byte{9}, make([]byte, 8)...) }), nola.ReasonInternal},
		"a torn global":          {k.module, with(func(m *nola.Memory) { m.Globals = []byte{0, 1} }), nola.ReasonInternal},
	} {
		i := instantiate(t, tt.module).(nola.Keeper)
		err := i.Restore(tt.memory)
		if tt.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, &nola.Error{Reason: tt.reason}) {
			t.Errorf("%s: %v, want %s", name, err, tt.reason)
		}
		if _, err := invoke(i, newWorld(), "get", ""); err == nil {
			t.Errorf("%s: it goes on", name)
		}
	}
	i := instantiate(t, k.module).(nola.Keeper)
	mustInvoke(t, i, newWorld(), "get", "")
	if err := i.Restore(k.memory); err == nil {
		t.Error("a used instance was restored")
	}
}

// TestMemoryModeNeedsAnImage refuses a module whose state cannot be read.
func TestMemoryModeNeedsAnImage(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	code := guestOf(nil, []byte{0x41, 1}).with(11, vector([]byte{1, 1, 'x'})).bytes() // a passive segment
	if _, err := r.Prepare(t.Context(), code, memoryMode); !errors.Is(err, &nola.Error{Reason: nola.ReasonInvalidModule}) || !strings.Contains(err.Error(), "passive segments") {
		t.Errorf("a module with passive segments: %v", err)
	}
	m, err := r.Prepare(t.Context(), code, nola.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
}

// TestImagesAreStable pins down the images of the guests that the repository
// holds as binaries. What actors in memory mode have stored is bound to them:
// if one changes, those actors cannot wake after an update of the server.
func TestImagesAreStable(t *testing.T) {
	var got strings.Builder
	for _, name := range []string{"assemblyscript", "rust", "small", "tinygo", "wat"} {
		m := prepare(t, newRuntime(t, wasmhost.Config{}), builtGuest(t, name), memoryMode)
		image := instantiate(t, m).(nola.Keeper).Image()
		fmt.Fprintf(&got, "%s %s\n", name, hex.EncodeToString(image[:]))
	}
	path := filepath.Join("testdata", "images.golden")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("images have changed; if a guest's binary did not, actors that keep their memory are lost\n got %s\nwant %s", got.String(), want)
	}
}

// TestConcurrentCanaryInMemoryMode has actors that keep their memory write marks
// into it, over and over in each other's slots, waking and sleeping, and demands
// that each sees its own and never another's.
func TestConcurrentCanaryInMemoryMode(t *testing.T) {
	turns := 20_000
	if os.Getenv("NOLA_SLOW") != "" {
		turns = 2_000_000 / hostSlowdown
	}
	for name, config := range memories {
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t, config)
			m := prepare(t, r, hoarder(hoardPages), memoryMode)
			plain := prepare(t, r, hoarder(hoardPages), nola.Manifest{}) // uses the same slots, and keeps nothing
			const actors, workers = 16, 4
			var wg sync.WaitGroup
			for worker := range workers {
				wg.Go(func() {
					random := rand.New(rand.NewPCG(2, uint64(worker)))
					w := newWorld()
					own := make([]kept, actors)
					last := make([][]byte, actors)
					for n := 0; n < turns/workers; n++ {
						a := random.IntN(actors)
						k := &own[a]
						k.module = m
						sent := make([]byte, 32)
						for at := range sent {
							sent[at] = byte(random.Uint32())
						}
						if random.IntN(8) == 0 { // what a turn does that is not kept never happened
							k.wake(t)
							operation := []string{"mark", hoardFail, hoardTrap}[random.IntN(3)]
							if _, err := invoke(k.instance, w, operation, string(sent)); (err == nil) != (operation == "mark") {
								t.Errorf("%s ends with %v", operation, err)
							}
							k.sleep()
							continue
						}
						reply, err := k.turn(t, w, call{"mark", string(sent)})
						if err != nil || !bytes.Equal([]byte(reply), hoarded(hoardPages, last[a])) {
							t.Errorf("worker %d (seed 2, %d), turn %d of actor %d: %v; the memory is not as its own turns left it", worker, worker, n, a, err)
							return
						}
						last[a] = sent
						if random.IntN(2) == 0 {
							k.sleep()
						}
						if random.IntN(4) == 0 {
							i, err := plain.Instantiate(nola.ActorRef{})
							if err != nil {
								t.Error(err)
								return
							}
							reply, err := invoke(i, w, "mark", string(sent))
							if err != nil || !bytes.Equal([]byte(reply), hoarded(hoardPages, nil)) {
								t.Errorf("worker %d (seed 2, %d), turn %d: %v; an actor that keeps nothing sees something", worker, worker, n, err)
							}
							i.Close()
						}
					}
					for a := range own {
						own[a].sleep()
					}
				})
			}
			wg.Wait()
			if s := r.Stats(); s.SlotsReused < uint64(turns/8) {
				t.Errorf("slots were not used again: %+v", s)
			}
		})
	}
}

// BenchmarkKeep is a turn of an actor in memory mode: awake, and with a sleep
// after each.
func BenchmarkKeep(b *testing.B) {
	for name, code := range map[string][]byte{"small": smallGuest(b), "tinygo": builtGuest(b, "tinygo"), "go": kitchen(b)} {
		for memory, config := range memories {
			for _, how := range []string{"awake", "asleep"} {
				b.Run(name+"/"+memory+"/"+how, func(b *testing.B) {
					k := kept{module: prepare(b, newRuntime(b, config), code, memoryMode)}
					defer k.sleep()
					w := newWorld()
					b.ReportAllocs()
					for b.Loop() {
						if _, err := k.turn(b, w, call{"echo", "0123456789abcdef"}); err != nil {
							b.Fatal(err)
						}
						if how == "asleep" {
							k.sleep()
						}
					}
					b.ReportMetric(float64(k.memory.Size()), "kept-B")
				})
			}
		}
	}
}
