package wasmhost_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	randv2 "math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/wapc/wapc-go"
	reference "github.com/wapc/wapc-go/engines/wazero"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// The benchmarks of this file are the rows of docs/benchmarks.md: the
// conformance guest of each language under our host, beside wapc-go wherever
// that can do the same at all. `make bench-wasm` runs them.

// guests is the conformance guest of each language, in the order of the table.
var guests = []string{"small", "rust", "wat", "assemblyscript", "tinygo", "go"}

// languages is what the table calls them.
var languages = map[string]string{"small": "C", "rust": "Rust", "wat": "WAT", "assemblyscript": "AssemblyScript", "tinygo": "TinyGo", "go": "Go"}

const (
	hostNola = "nola"
	hostWapc = "wapc-go"
)

// benchmarkHosts runs ours and theirs for the guest of each language.
func benchmarkHosts(b *testing.B, ours, theirs func(*testing.B, string)) {
	for _, guest := range guests {
		b.Run("guest="+languages[guest]+"/host="+hostNola, func(b *testing.B) { ours(b, guest) })
		b.Run("guest="+languages[guest]+"/host="+hostWapc, func(b *testing.B) { theirs(b, guest) })
	}
}

// once makes modules once for all benchmarks, which run many times: to compile
// one takes seconds. They are held until the program ends.
var once sync.Map // of func() (any, error), by guest and how it is run

func makeOnce[M any](b *testing.B, guest, how string, make func(code []byte) (M, error)) M {
	b.Helper()
	f, _ := once.LoadOrStore(guest+" "+how, sync.OnceValues(func() (any, error) { return make(conformanceGuests(b)[guest]) }))
	m, err := f.(func() (any, error))()
	if err != nil {
		b.Fatal(err)
	}
	return m.(M)
}

// nolaModule prepares a guest under our host. The SDK of AssemblyScript frees
// nothing, so an actor that is called all day is allowed all day's memory.
func nolaModule(b *testing.B, guest, how string, config wasmhost.Config) nola.Module {
	b.Helper()
	return makeOnce(b, guest, how, func(code []byte) (nola.Module, error) {
		r, err := wasmhost.New(context.Background(), config)
		if err != nil {
			return nil, err
		}
		manifest := nola.Manifest{}
		if guest == "assemblyscript" {
			manifest.Limits.MemoryBytes = 1 << 30
		}
		return r.Prepare(context.Background(), code, manifest)
	})
}

// wapcModule prepares a guest under wapc-go, set up as the guests need it. Their
// host calls are answered with eight bytes.
func wapcModule(b *testing.B, guest string) wapc.Module {
	b.Helper()
	return makeOnce(b, guest, hostWapc, func(code []byte) (wapc.Module, error) {
		now := make([]byte, 8)
		return newWapcModule(code, func(context.Context, string, string, string, []byte) ([]byte, error) { return now, nil })
	})
}

func newWapcModule(code []byte, host wapc.HostCallHandler) (wapc.Module, error) {
	m, err := reference.Engine().New(context.Background(), host, code, &wapc.ModuleConfig{})
	if err != nil {
		return nil, err
	}
	m.(*reference.Module).WithConfig(func(c wazero.ModuleConfig) wazero.ModuleConfig {
		return c.WithStartFunctions("_initialize").WithRandSource(rand.Reader)
	})
	return m, nil
}

func wapcInstance(b *testing.B, m wapc.Module) wapc.Instance {
	b.Helper()
	i, err := m.Instantiate(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return i
}

// repeat has an instance do op n times.
type repeat func(n int, op string, payload []byte)

func repeatOurs(b *testing.B, guest string) repeat {
	i := instantiate(b, nolaModule(b, guest, "", wasmhost.Config{}))
	w := newWorld()
	turn := &nola.Turn{Deadline: time.Now().Add(time.Hour)}
	return func(n int, op string, payload []byte) {
		turn.Operation, turn.Payload = op, payload
		for range n {
			if _, err := i.Invoke(turn, w); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func repeatTheirs(b *testing.B, guest string) repeat {
	ctx := context.Background()
	i := wapcInstance(b, wapcModule(b, guest))
	return func(n int, op string, payload []byte) {
		for range n {
			if _, err := i.Invoke(ctx, op, payload); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// warmUp brings a guest's own collector and memory to where they stay.
const warmUp = 1000

// BenchmarkWarm is a call of an actor in memory that does nothing.
func BenchmarkWarm(b *testing.B) { benchmarkRepeat(b, "noop", nil) }

// BenchmarkWarmEcho is the same with 16 bytes in and out.
func BenchmarkWarmEcho(b *testing.B) { benchmarkRepeat(b, "echo", []byte("0123456789abcdef")) }

func benchmarkRepeat(b *testing.B, op string, payload []byte) {
	run := func(start func(*testing.B, string) repeat) func(*testing.B, string) {
		return func(b *testing.B, guest string) {
			do := start(b, guest)
			do(warmUp, op, payload)
			b.ReportAllocs()
			b.ResetTimer()
			do(b.N, op, payload)
		}
	}
	benchmarkHosts(b, run(repeatOurs), run(repeatTheirs))
}

// BenchmarkHostCall is what a call of the host adds to a turn: the guest asks
// for the time, reads 8 bytes of answer and replies with them. A turn that does
// nothing is measured too and taken off.
func BenchmarkHostCall(b *testing.B) {
	run := func(start func(*testing.B, string) repeat) func(*testing.B, string) {
		return func(b *testing.B, guest string) {
			do := start(b, guest)
			call, noop := []byte("NOW\x00"), []byte(nil)
			do(warmUp, "host", call)
			do(warmUp, "noop", noop)
			b.ResetTimer()
			began := time.Now()
			do(b.N, "host", call)
			with := time.Since(began)
			began = time.Now()
			do(b.N, "noop", noop)
			without := time.Since(began)
			b.ReportMetric(float64(with-without)/float64(b.N), "ns/op")
		}
	}
	benchmarkHosts(b, run(repeatOurs), run(repeatTheirs))
}

// caller is a guest that asks the host a thousand times for the time, each time
// how long the answer is, and for the answer itself.
func caller() []byte {
	return guestOf([][]byte{importOf("wapc", "__host_call", typeHost), importOf("wapc", "__host_response_len", typeLen), importOf("wapc", "__host_response", typeOne)}, []byte{
		0x41, 0xe8, 0x07, 0x21, 0, // 1000
		0x03, 0x40,
		0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x41, 3, 0x41, 0, 0x41, 0, 0x10, 0, 0x1a,
		0x10, 1, 0x1a,
		0x41, 16, 0x10, 2,
		0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0,
		0x0b,
		0x41, 1,
	}).with(11, vector(append([]byte{0, 0x41, 0, 0x0b}, name("NOW")...))).bytes()
}

// BenchmarkCrossing is a call of the host alone, of a guest that does nothing
// besides: three crossings between guest and host.
func BenchmarkCrossing(b *testing.B) {
	const calls = 1000
	b.Run("guest=loop/host="+hostNola, func(b *testing.B) {
		i := instantiate(b, prepare(b, newRuntime(b, wasmhost.Config{}), caller(), nola.Manifest{}))
		w, turn := newWorld(), &nola.Turn{Operation: "call"}
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N/calls + 1 {
			if _, err := i.Invoke(turn, w); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("guest=loop/host="+hostWapc, func(b *testing.B) {
		now := make([]byte, 8)
		m, err := newWapcModule(caller(), func(context.Context, string, string, string, []byte) ([]byte, error) { return now, nil })
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close(context.Background())
		i := wapcInstance(b, m)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N/calls + 1 {
			if _, err := i.Invoke(b.Context(), "call", nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSlot makes what an actor needs to run, and drops it: a slot of ours
// that no other actor has left behind, an instance under wapc-go.
func BenchmarkSlot(b *testing.B) {
	benchmarkHosts(b, func(b *testing.B, guest string) {
		m := nolaModule(b, guest, "unkept", wasmhost.Config{IdleBytesMax: 1})
		b.ReportAllocs()
		for b.Loop() {
			i, err := m.Instantiate(nola.ActorRef{})
			if err != nil {
				b.Fatal(err)
			}
			i.Close()
		}
	}, func(b *testing.B, guest string) {
		m := wapcModule(b, guest)
		b.ReportAllocs()
		for b.Loop() {
			wapcInstance(b, m).Close(b.Context())
		}
	})
}

// BenchmarkWake is a dormant actor's call: into memory, one turn, and out again.
// Under wapc-go an actor that sleeps has no instance, so it is an instance made,
// called and closed.
func BenchmarkWake(b *testing.B) {
	payload := []byte("0123456789abcdef")
	wake := func(how string, config wasmhost.Config) func(b *testing.B, guest string) {
		return func(b *testing.B, guest string) {
			m := nolaModule(b, guest, how, config)
			w := newWorld()
			turn := &nola.Turn{Operation: "echo", Payload: payload}
			b.ReportAllocs()
			for b.Loop() {
				i, err := m.Instantiate(w.inv.Target)
				if err == nil {
					_, err = i.Invoke(turn, w)
				}
				if err != nil {
					b.Fatal(err)
				}
				i.Close()
			}
		}
	}
	benchmarkHosts(b, wake("", wasmhost.Config{}), func(b *testing.B, guest string) {
		m := wapcModule(b, guest)
		b.ReportAllocs()
		for b.Loop() {
			i := wapcInstance(b, m)
			if _, err := i.Invoke(b.Context(), "echo", payload); err != nil {
				b.Fatal(err)
			}
			i.Close(b.Context())
		}
	})
	for _, guest := range guests { // the same where the system has no views
		b.Run("guest="+languages[guest]+"/host="+hostNola+"-heap", func(b *testing.B) { wake("heap", memories["heap"])(b, guest) })
	}
}

// resident is the memory that this process uses, without what was collected: its
// own pages, and its part of those that it shares.
func resident(b *testing.B) int64 {
	b.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Skip("this system does not tell how much memory a process uses")
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	rest, _, _ = strings.Cut(rest, "kB")
	kilobytes, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes << 10
}

// BenchmarkInstanceBytes is the memory that an actor takes of the process while
// it is in memory, after one call. It is a figure and no time: it is taken once,
// however often it is asked for.
func BenchmarkInstanceBytes(b *testing.B) {
	const actors = 300
	benchmarkHosts(b, func(b *testing.B, guest string) {
		m := nolaModule(b, guest, "unkept", wasmhost.Config{IdleBytesMax: 1})
		w := newWorld()
		before := resident(b)
		for range actors {
			mustInvoke(b, instantiate(b, m), w, "inc", "")
		}
		report(b, float64(resident(b)-before)/actors, "B/actor")
	}, func(b *testing.B, guest string) {
		m := wapcModule(b, guest)
		before := resident(b)
		for range actors {
			i := wapcInstance(b, m)
			defer i.Close(b.Context())
			if _, err := i.Invoke(b.Context(), "noop", nil); err != nil {
				b.Fatal(err)
			}
		}
		report(b, float64(resident(b)-before)/actors, "B/actor")
	})
}

// report gives a benchmark's only figure.
func report(b *testing.B, value float64, unit string) {
	b.ReportMetric(value, unit)
	b.ReportMetric(0, "ns/op") // leaves it out
}

// dormantActors is how many actors BenchmarkDormant has, all asleep.
const dormantActors = 1_000_000

// shelf keeps the state of dormant actors in place of a store: the counter of
// each, as the guest writes it. It is the host of one worker.
type shelf struct {
	*world
	counters []counter
	current  *counter
}

// counter is a short value in place.
type counter struct {
	length uint8
	text   [15]byte
}

func (s *shelf) Get([]byte) ([]byte, bool, error) {
	return s.current.text[:s.current.length], s.current.length > 0, nil
}

func (s *shelf) Put(_, value []byte) error {
	s.current.length = uint8(copy(s.current.text[:], value))
	return nil
}

// BenchmarkDormant calls actors that all sleep, a million of them: two workers,
// each with its half, take one at random, wake it, have it count, put it to
// sleep, and check what it answered. B/actor is what the process took for the
// million, states included.
func BenchmarkDormant(b *testing.B) {
	for _, guest := range guests {
		b.Run("guest="+languages[guest], func(b *testing.B) {
			const workers = 2
			m := nolaModule(b, guest, "", wasmhost.Config{})
			before := resident(b)
			var shelves [workers]shelf
			counts := make([]uint32, dormantActors)
			for i := range shelves {
				shelves[i] = shelf{world: newWorld(), counters: make([]counter, dormantActors/workers)}
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			for n := range shelves {
				wg.Go(func() {
					s, mine := &shelves[n], counts[n*dormantActors/workers:][:dormantActors/workers]
					random := randv2.New(randv2.NewPCG(1, uint64(n)))
					turn := &nola.Turn{Operation: "inc"}
					var want []byte
					for range b.N / workers {
						at := random.IntN(len(mine))
						s.current = &s.counters[at]
						mine[at]++
						i, err := m.Instantiate(s.inv.Target)
						if err != nil {
							b.Error(err)
							return
						}
						reply, err := i.Invoke(turn, s)
						i.Close()
						if want = strconv.AppendUint(want[:0], uint64(mine[at]), 10); err != nil || !bytes.Equal(reply, want) {
							b.Errorf("actor %d answers %q, %v; want %s", at, reply, err, want)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			if b.N >= dormantActors {
				b.ReportMetric(float64(resident(b)-before)/dormantActors, "B/actor")
			}
			runtime.KeepAlive(counts)
			runtime.KeepAlive(&shelves)
		})
	}
}

// spinner is a guest that asks the host for something, so that it is known to
// run, and then counts down from 2^n without a word.
func spinner(n int) []byte {
	count := []byte{0x41, 1, 0x41, byte(n), 0x74, 0x21, 0}
	return guestOf([][]byte{importOf("wapc", "__host_call", typeHost)}, append([]byte{
		0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x41, 3, 0x41, 0, 0x41, 0, 0x10, 0, 0x1a, // host call of the name at 0
	}, append(count,
		0x03, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b,
		0x41, 1)...)).
		with(11, vector(append([]byte{0, 0x41, 0, 0x0b}, name("NOW")...))).bytes()
}

// telling is a world that tells when the guest asks for the time.
type telling struct {
	*world
	asked chan struct{}
	times int
}

func (t *telling) Now() time.Time {
	if t.times++; t.times == 2 { // the first is the turn's own
		t.asked <- struct{}{}
	}
	return t.now
}

// BenchmarkRunaway is how long after its deadline a guest that spins is stopped.
// Under wapc-go, as it comes, nothing stops it.
func BenchmarkRunaway(b *testing.B) {
	m := prepare(b, newRuntime(b, wasmhost.Config{}), spinner(31), nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}})
	w := newWorld()
	var late, longest time.Duration
	for range b.N {
		i := instantiate(b, m)
		deadline := time.Now().Add(5 * time.Millisecond)
		_, err := i.Invoke(&nola.Turn{Operation: "spin", Deadline: deadline}, w)
		over := time.Since(deadline)
		if reason, _ := reasonOf(b, err); reason != nola.ReasonDeadlineExceeded {
			b.Fatal(err)
		}
		i.Close()
		late += over
		longest = max(longest, over)
	}
	b.ReportMetric(float64(late)/float64(b.N), "ns/op")
	b.ReportMetric(float64(longest), "longest-ns/op")
}

// BenchmarkCollection is how long a collection of garbage takes, for which all
// goroutines must stop for a moment, while a guest spins for some 100 ms.
func BenchmarkCollection(b *testing.B) {
	const spin = 28
	run := func(b *testing.B, begin func() (done chan error)) {
		var all, longest time.Duration
		for range b.N { // the benchmark's own timer would stop all goroutines itself
			done := begin()
			for began := time.Now(); time.Since(began) < 2*time.Millisecond; { // until it spins for certain
				runtime.Gosched()
			}
			began := time.Now()
			runtime.GC()
			took := time.Since(began)
			all += took
			longest = max(longest, took)
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(all)/float64(b.N), "ns/op")
		b.ReportMetric(float64(longest), "longest-ns/op")
	}
	b.Run("guest=spinner/host="+hostNola, func(b *testing.B) {
		i := instantiate(b, prepare(b, newRuntime(b, wasmhost.Config{}), spinner(spin), nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}}))
		run(b, func() chan error {
			w, done := &telling{world: newWorld(), asked: make(chan struct{})}, make(chan error, 1)
			go func() {
				_, err := i.Invoke(&nola.Turn{Operation: "spin", Deadline: time.Now().Add(time.Minute)}, w)
				done <- err
			}()
			<-w.asked
			return done
		})
	})
	b.Run("guest=spinner/host="+hostWapc, func(b *testing.B) {
		asked := make(chan struct{})
		m, err := newWapcModule(spinner(spin), func(context.Context, string, string, string, []byte) ([]byte, error) {
			asked <- struct{}{}
			return nil, nil
		})
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close(context.Background())
		i := wapcInstance(b, m)
		run(b, func() chan error {
			done := make(chan error, 1)
			go func() {
				_, err := i.Invoke(context.Background(), "spin", nil)
				if err != nil {
					err = fmt.Errorf("wapc-go: %w", err)
				}
				done <- err
			}()
			<-asked
			return done
		})
	})
}
