package wasmhost_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// hostile is a module of testdata/hostile and what must come of it; see
// tools/hostile.
type hostile struct {
	Name, File, At, Reason, Limit, Text string
	Steps                               uint64
	HostCalls                           int
	MemoryBytes                         int64
}

func hostileCorpus(t testing.TB) []hostile {
	t.Helper()
	var corpus []hostile
	if err := json.Unmarshal(readFile(t, "../testdata/hostile/corpus.json"), &corpus); err != nil {
		t.Fatal(err)
	}
	return corpus
}

func (h hostile) code(t testing.TB) []byte {
	t.Helper()
	code := readFile(t, "../testdata/hostile/"+h.File)
	if !strings.HasSuffix(h.File, ".gz") {
		return code
	}
	r, err := gzip.NewReader(bytes.NewReader(code))
	if err == nil {
		code, err = io.ReadAll(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (h hostile) manifest() nola.Manifest {
	return nola.Manifest{Limits: nola.Limits{Steps: h.Steps, HostCalls: h.HostCalls, MemoryBytes: h.MemoryBytes}}
}

// check compares an error with the one that must come.
func (h hostile) check(t *testing.T, err error) {
	t.Helper()
	if h.Reason == "" {
		if err != nil {
			t.Errorf("it ended with %v, want an answer", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("it succeeded, want %s", h.Reason)
	}
	if reason, limit := reasonOf(t, err); string(reason) != h.Reason || limit != h.Limit || !strings.Contains(err.Error(), h.Text) {
		t.Errorf("it ended with %s, limit %q: %v\nwant %s, limit %q, a text with %q", reason, limit, err, h.Reason, h.Limit, h.Text)
	}
}

// checkCompileBomb demands of a module that was refused that it is so for its shape,
// or for the time that compiling it takes.
func (h hostile) checkCompileBomb(t *testing.T, err error) {
	t.Helper()
	if reason, limit := reasonOf(t, err); reason != nola.ReasonInvalidModule && (reason != nola.ReasonDeadlineExceeded || limit != "compile_timeout") {
		t.Errorf("it was refused with %v, want for its shape or for the time it takes", err)
	}
}

// TestCompileBombsEndInTime gives the compiler a moment for each module that is dear
// to compile. Prepare comes back then, whatever the compiler is at, and what else
// there is goes on.
func TestCompileBombsEndInTime(t *testing.T) {
	const (
		patience = time.Second
		// grace is for the machine to get round to the caller.
		grace = 2 * time.Second * hostSlowdown
	)
	neighbour := instantiate(t, prepare(t, newRuntime(t, wasmhost.Config{}), smallGuest(t), nola.Manifest{}))
	bombs := 0
	for _, h := range hostileCorpus(t) {
		if h.At != "compile" {
			continue
		}
		bombs++
		t.Run(h.Name, func(t *testing.T) {
			r := newRuntime(t, wasmhost.Config{CompileTimeout: patience})
			code := h.code(t)
			start := time.Now()
			m, err := r.Prepare(context.Background(), code, nola.Manifest{})
			took := time.Since(start)
			t.Logf("%s: %v", took, err)
			if took > patience+grace {
				t.Errorf("it took %s, %s are allowed", took, patience)
			}
			if err != nil {
				h.checkCompileBomb(t, err)
			} else {
				_ = m.Close()
			}
			if got := mustInvoke(t, neighbour, newWorld(), "echo", "still here"); got != "still here" {
				t.Errorf("the neighbour answers %q", got)
			}
		})
	}
	if bombs < 5 {
		t.Errorf("the corpus has %d modules that are dear to compile", bombs)
	}
}

// What the corpus is held to.
const (
	hostileDeadline = 100 * time.Millisecond
	// hostileOverrun is how long after its deadline a turn may end.
	hostileOverrun = 50 * time.Millisecond * hostSlowdown
	hostileTries   = 5
	// hostileBudget is the memory that the node gives to all instances together; a
	// misdeed may not cost the process more beyond what was there.
	hostileBudget = 64 << 20
)

// TestHostileCorpus demands of each module that it ends where and as it must,
// in time, and that what comes next works.
func TestHostileCorpus(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{InstancesBytesMax: hostileBudget})
	neighbour := instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{}))
	self := nola.ActorRef{Namespace: "default", Type: "test", ID: "a"}
	for _, h := range hostileCorpus(t) {
		t.Run(h.Name, func(t *testing.T) {
			defer func() {
				if got := mustInvoke(t, neighbour, newWorld(), "echo", "still here"); got != "still here" {
					t.Errorf("the neighbour answers %q", got)
				}
			}()
			m, err := r.Prepare(context.Background(), h.code(t), h.manifest())
			if h.At == "push" {
				h.check(t, err)
				return
			}
			if h.At == "compile" && err != nil {
				h.checkCompileBomb(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			i, err := m.Instantiate(self)
			if h.At == "start" {
				h.check(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			if got := mustInvoke(t, i, newWorld(), "op", ""); got != "ok" {
				t.Errorf("before the misdeed it answers %q", got)
			}
			if h.At == "compile" {
				return
			}
			h.check(t, h.misbehave(t, m))
			if held := r.Bytes(); held > hostileBudget {
				t.Errorf("instances hold %d MiB", held>>20)
			}
			next := instantiate(t, m)
			if got := mustInvoke(t, next, newWorld(), "op", ""); got != "ok" {
				t.Errorf("after the misdeed it answers %q", got)
			}
		})
	}
}

// misbehave runs the misdeed and demands that it ends in time and takes no more
// memory than it may. Others may keep a turn from its processor: the median of
// some tries counts.
func (h hostile) misbehave(t *testing.T, m nola.Module) (err error) {
	t.Helper()
	if h.Reason != string(nola.ReasonDeadlineExceeded) {
		_, err = h.turn(t, m, 10*time.Second) // it ends by another limit
		return err
	}
	var late []time.Duration
	for range hostileTries {
		var over time.Duration
		over, err = h.turn(t, m, hostileDeadline)
		late = append(late, over)
		slices.Sort(late)
		if len(late) > hostileTries/2 && late[hostileTries/2] <= hostileOverrun {
			return err // the rest does not change the median
		}
	}
	t.Errorf("half of the time it outlived its deadline by %s or more, at most %s are allowed: %s", late[hostileTries/2], hostileOverrun, late)
	return err
}

// turn runs the misdeed once, and answers how long after its deadline it ended.
func (h hostile) turn(t *testing.T, m nola.Module, limit time.Duration) (over time.Duration, err error) {
	t.Helper()
	i := instantiate(t, m)
	defer i.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	_, err = i.Invoke(&nola.Turn{Operation: "op", Payload: bytes.Repeat([]byte("p"), 64<<10), Deadline: start.Add(limit)}, newWorld())
	over = time.Since(start) - limit
	runtime.ReadMemStats(&after)
	if more := int64(after.HeapSys) - int64(before.HeapSys); more > hostileBudget {
		t.Errorf("it took %d MiB of memory", more>>20)
	}
	return over, err
}

// TestHostileGuestsEndAtTheirDeadline takes the budgets off those that end by one,
// so that they go on until another limit ends them, or their deadline.
func TestHostileGuestsEndAtTheirDeadline(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{InstancesBytesMax: hostileBudget})
	spun := 0
	for _, h := range hostileCorpus(t) {
		if h.At != "turn" || h.Limit != "steps" && h.Limit != "host_calls" {
			continue
		}
		t.Run(h.Name, func(t *testing.T) {
			h.Reason, h.Steps, h.HostCalls = string(nola.ReasonDeadlineExceeded), 1<<62, 10_000_000
			m := prepare(t, r, h.code(t), h.manifest())
			err := h.misbehave(t, m)
			if reason, limit := reasonOf(t, err); reason == nola.ReasonDeadlineExceeded {
				spun++
			} else {
				t.Logf("it ends by %s %s: %v", reason, limit, err)
			}
		})
	}
	if spun < 5 {
		t.Errorf("only %d modules spin", spun)
	}
}

// TestCollectionBesideHostileGuests collects garbage, which stops all goroutines for
// a moment, while a guest misbehaves over and over. A collection takes as long as it
// may, or not much longer than beside a loop of Go: on a busy machine that takes longer
// too. With no way to stop the guest it would last until the guest's turn ends.
func TestCollectionBesideHostileGuests(t *testing.T) {
	const (
		collectionMax = 20 * time.Millisecond * hostSlowdown
		besideGoMax   = 3 // times
		tries         = 3
		deadline      = 2 * time.Second * hostSlowdown
	)
	enough := nola.Errorf(nola.ReasonCanceled, "enough")
	r := newRuntime(t, wasmhost.Config{InstancesBytesMax: hostileBudget})
	worst, worstName := time.Duration(0), ""
	for _, h := range hostileCorpus(t) {
		if h.At != "turn" {
			continue
		}
		t.Run(h.Name, func(t *testing.T) {
			m := prepare(t, r, h.code(t), h.manifest())
			var current atomic.Pointer[nola.Instance]
			misbehave := func() {
				i, err := m.Instantiate(nola.ActorRef{})
				if err != nil {
					t.Error(err)
					return
				}
				defer i.Close()
				current.Store(&i)
				_, _ = i.Invoke(&nola.Turn{Operation: "op", Payload: []byte("p"), Deadline: time.Now().Add(deadline)}, newWorld()) // TestHostileCorpus says how it ends
			}
			interrupt := func() {
				if i := current.Load(); i != nil {
					(*i).Interrupt(enough)
				}
			}
			var beside, besideGo, most time.Duration
			for range tries {
				if beside, most = collectionBeside(misbehave, interrupt), collectionMax; beside <= most {
					break
				}
				besideGo = collectionBeside(func() {}, func() {})
				if most = max(collectionMax, besideGo*besideGoMax); beside <= most {
					break
				}
			}
			if beside > worst {
				worst, worstName = beside, h.Name
			}
			if beside > most {
				t.Errorf("half of the collections beside it took %s or more, at most %s are allowed; beside a loop of Go %s", beside, most, besideGo)
			}
		})
	}
	t.Logf("the slowest half took %s or more, beside %s", worst, worstName)
}

// collectionBeside is the median of what some collections take while another goroutine
// does something over and over; interrupt has it end early.
func collectionBeside(something, interrupt func()) time.Duration {
	const collections = 9
	var stop atomic.Bool
	begun, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		close(begun)
		for !stop.Load() {
			something()
		}
	}()
	<-begun
	var took []time.Duration
	for range collections {
		start := time.Now()
		runtime.GC()
		took = append(took, time.Since(start))
	}
	stop.Store(true)
	for {
		interrupt() // until it is heard: a turn may not have begun
		select {
		case <-done:
			slices.Sort(took)
			return took[collections/2]
		default:
			runtime.Gosched()
		}
	}
}

// TestThirdGuestGetsItsShare spins two guests on two processors and counts the
// steps of a third beside theirs.
func TestThirdGuestGetsItsShare(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	const (
		turns      = 50
		shareOf    = 8 // the third gets at least this part of what a spinning one gets
		turnBudget = 2_000_000
	)
	r := newRuntime(t, wasmhost.Config{})
	var code []byte
	for _, h := range hostileCorpus(t) {
		if h.Name == "loop-to-deadline" {
			code = h.code(t)
		}
	}
	endless := prepare(t, r, code, nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}})
	bounded := prepare(t, r, code, nola.Manifest{Limits: nola.Limits{Steps: turnBudget}})
	enough := nola.Errorf(nola.ReasonCanceled, "enough")
	spin := func(i nola.Instance) (uint64, error) {
		turn := &nola.Turn{Operation: "op", Payload: []byte("p")}
		_, err := i.Invoke(turn, newWorld())
		return turn.Steps, err
	}
	type end struct {
		steps uint64
		err   error
	}
	ends := make(chan end, 2)
	var spinners []nola.Instance
	for range cap(ends) {
		i := instantiate(t, endless)
		spinners = append(spinners, i)
		go func() {
			steps, err := spin(i)
			ends <- end{steps, err}
		}()
	}
	third := uint64(0)
	for range turns {
		steps, err := spin(instantiate(t, bounded))
		if reason, limit := reasonOf(t, err); reason != nola.ReasonCPUBudget || limit != "steps" {
			t.Errorf("the third ended with %v", err)
		}
		third += steps
	}
	for n := 0; n < len(spinners); {
		for _, i := range spinners {
			i.Interrupt(enough) // until it is heard: a turn may not have begun
		}
		select {
		case e := <-ends:
			n++
			t.Logf("the third took %d steps, a spinning guest %d", third, e.steps)
			if e.err != enough {
				t.Errorf("a spinning guest ended with %v", e.err)
			}
			if third < e.steps/shareOf {
				t.Errorf("the third took %d steps beside %d of a spinning guest, want a part of 1/%d at least", third, e.steps, shareOf)
			}
		default:
			runtime.Gosched()
		}
	}
}
