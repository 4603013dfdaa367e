package wasmhost_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// world is a nola.Host in memory. What it was asked stands in its fields.
type world struct {
	inv       *nola.Invocation
	now       time.Time
	random    *rand.ChaCha8
	state     map[string][]byte
	logs      []string
	calls     []nola.OutCall
	casts     []nola.OutCall
	timers    map[string]nola.Timer
	reminders map[string]nola.Reminder
	deferred  []time.Duration
	completed []nola.Completion
	answer    func(nola.OutCall) ([]byte, error)
}

var _ nola.Host = (*world)(nil)

func newWorld() *world {
	return &world{
		inv: &nola.Invocation{
			ID: nola.InvocationID{1, 2, 3}, Kind: nola.KindCall,
			Target: nola.ActorRef{Namespace: "default", Type: "test", ID: "a"},
		},
		now:       time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC),
		random:    rand.NewChaCha8([32]byte{1}),
		state:     map[string][]byte{},
		timers:    map[string]nola.Timer{},
		reminders: map[string]nola.Reminder{},
	}
}

func (w *world) Invocation() *nola.Invocation { return w.inv }
func (w *world) Now() time.Time               { return w.now }
func (w *world) Yield(uint64) error           { runtime.Gosched(); return nil }
func (w *world) Random(b []byte)              { _, _ = w.random.Read(b) }
func (w *world) Log(level, message string)    { w.logs = append(w.logs, level+": "+message) }

func (w *world) Get(key []byte) ([]byte, bool, error) {
	v, ok := w.state[string(key)]
	return v, ok, nil
}

func (w *world) Put(key, value []byte) error {
	if len(key) == 0 || len(key) > nola.KeyBytesMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "key_bytes", nola.KeyBytesMax, "a key of %d bytes", len(key))
	}
	w.state[string(key)] = bytes.Clone(value)
	return nil
}

func (w *world) Delete(key []byte) (bool, error) {
	_, ok := w.state[string(key)]
	delete(w.state, string(key))
	return ok, nil
}

func (w *world) List(q nola.ListQuery) ([]nola.KeyValue, bool, error) {
	var found []nola.KeyValue
	for k, v := range w.state {
		if strings.HasPrefix(k, string(q.Prefix)) && k >= string(q.Start) {
			found = append(found, nola.KeyValue{Key: []byte(k), Value: v})
		}
	}
	slices.SortFunc(found, func(a, b nola.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	if q.Reverse {
		slices.Reverse(found)
	}
	limit := q.Limit
	if limit == 0 {
		limit = nola.ListLimitDefault
	}
	if len(found) > limit {
		return found[:limit], true, nil
	}
	return found, false, nil
}

func (w *world) Call(c nola.OutCall) ([]byte, error) {
	c.Payload = bytes.Clone(c.Payload)
	w.calls = append(w.calls, c)
	if w.answer == nil {
		return nil, nil
	}
	return w.answer(c)
}

func (w *world) Cast(c nola.OutCall) (nola.InvocationID, error) {
	c.Payload = bytes.Clone(c.Payload)
	w.casts = append(w.casts, c)
	return nola.InvocationID{9, byte(len(w.casts))}, nil
}

func (w *world) SetTimer(t nola.Timer) error {
	w.timers[t.Name] = t
	return nil
}

func (w *world) CancelTimer(name string) (bool, error) {
	_, ok := w.timers[name]
	delete(w.timers, name)
	return ok, nil
}

func (w *world) ListTimers(prefix string, limit int) ([]nola.Timer, error) {
	var found []nola.Timer
	for _, t := range w.timers {
		if strings.HasPrefix(t.Name, prefix) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b nola.Timer) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

func (w *world) SetReminder(r nola.Reminder) error {
	w.reminders[r.Name] = r
	return nil
}

func (w *world) CancelReminder(name string) (bool, error) {
	_, ok := w.reminders[name]
	delete(w.reminders, name)
	return ok, nil
}

func (w *world) Defer(timeout time.Duration) (nola.Token, error) {
	w.deferred = append(w.deferred, timeout)
	return nola.Token{7, 8, 9}, nil
}

func (w *world) Complete(c nola.Completion) (bool, error) {
	c.Payload = bytes.Clone(c.Payload)
	w.completed = append(w.completed, c)
	return c.Token == nola.Token{7, 8, 9}, nil
}

// Guests.

// builtGuest is a guest whose binary the repository holds.
func builtGuest(t testing.TB, name string) []byte {
	return readFile(t, "../testdata/guests/"+name+"/"+name+".wasm")
}

func smallGuest(t testing.TB) []byte { return builtGuest(t, "small") }

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var goGuests sync.Map // package directory -> func() ([]byte, error)

// goGuest builds a guest with the Go toolchain, once per test binary.
func goGuest(t testing.TB, dir string) []byte {
	t.Helper()
	build, _ := goGuests.LoadOrStore(dir, sync.OnceValues(func() ([]byte, error) {
		out, err := os.MkdirTemp("", "guest")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(out)
		file := filepath.Join(out, "guest.wasm")
		cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", dir, err, text)
		}
		return os.ReadFile(file)
	}))
	code, err := build.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func kitchen(t testing.TB) []byte { return goGuest(t, "../testdata/guests/kitchen") }

// Runtimes.

// compiledDir is where runtimes of tests find what others compiled, where that takes long.
var compiledDir string

func TestMain(m *testing.M) {
	if compilesSlowly {
		dir, err := os.MkdirTemp("", "compiled")
		if err != nil {
			panic(err)
		}
		compiledDir = dir
	}
	code := m.Run()
	if err := os.RemoveAll(compiledDir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

func newRuntime(t testing.TB, c wasmhost.Config) *wasmhost.Runtime {
	t.Helper()
	if c.CacheDir == "" {
		c.CacheDir = compiledDir
	}
	r, err := wasmhost.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func prepare(t testing.TB, r *wasmhost.Runtime, code []byte, m nola.Manifest) nola.Module {
	t.Helper()
	mod, err := r.Prepare(context.Background(), code, m)
	if err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	t.Cleanup(func() {
		if err := mod.Close(); err != nil {
			t.Error(err)
		}
	})
	return mod
}

func instantiate(t testing.TB, m nola.Module) nola.Instance {
	t.Helper()
	i, err := m.Instantiate(nola.ActorRef{Namespace: "default", Type: "test", ID: "a"})
	if err != nil {
		t.Fatalf("Instantiate: %v", err)
	}
	t.Cleanup(i.Close)
	return i
}

// invoke runs op and returns what it answered, as text.
func invoke(i nola.Instance, h nola.Host, op, payload string) (string, error) {
	reply, err := i.Invoke(&nola.Turn{Operation: op, Payload: []byte(payload), Deadline: time.Now().Add(10 * time.Second)}, h)
	return string(reply), err
}

func mustInvoke(t testing.TB, i nola.Instance, h nola.Host, op, payload string) string {
	t.Helper()
	reply, err := invoke(i, h, op, payload)
	if err != nil {
		t.Fatalf("%s(%q): %v", op, payload, err)
	}
	return reply
}
