package shard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/shard"
	"github.com/nolaproject/nola/shard/core"
)

// world is a node whose guests are Go functions, over a store in memory that
// outlives the node.
type world struct {
	t     testing.TB
	disk  *memstore.Disk
	store persistence.Store
	m     *shard.Manager
	code  *module
	wrap  func(persistence.Store) persistence.Store
	open  func() (persistence.Store, error)
	cfg   shard.Config
	// current, if set, is what Module answers in place of code.
	current nola.Module
	// versions, if there are some, are those of the module, from 1 on; the last one
	// is what Module answers.
	versions []nola.Module
	// types, if there are some, are the modules of actors of other types.
	types map[string]nola.Module
}

func newWorld(t testing.TB, shards int, change ...func(*world)) *world {
	t.Helper()
	w := &world{
		t:    t,
		disk: memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: shards, Secret: [32]byte{2}}),
		code: newModule(),
	}
	for _, f := range change {
		f(w)
	}
	w.start()
	t.Cleanup(w.close)
	return w
}

func (w *world) start() {
	w.t.Helper()
	if w.open == nil {
		w.open = func() (persistence.Store, error) { return w.disk.Open() }
	}
	store, err := w.open()
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = store
	if w.wrap != nil {
		w.store = w.wrap(store)
	}
	cfg := w.cfg
	cfg.Store, cfg.Modules = w.store, w
	cfg.Logger = slog.New(slog.DiscardHandler)
	w.m, err = shard.Open(context.Background(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	if w.m != nil {
		_ = w.m.Close()
		_ = w.store.Close()
		w.m, w.store = nil, nil // a test may have thousands of worlds
	}
}

// crash ends the node without a word and starts it again on what is durable.
func (w *world) crash() {
	w.t.Helper()
	w.close()
	w.start()
}

func (w *world) Module(namespace, name string) (nola.Module, uint64, error) {
	if name == "missing" {
		return nil, 0, nola.Errorf(nola.ReasonModuleNotFound, "no module %s", name)
	}
	if m := w.types[name]; m != nil {
		return m, 1, nil
	}
	if n := len(w.versions); n > 0 {
		return w.versions[n-1], uint64(n), nil
	}
	if w.current != nil {
		return w.current, 1, nil
	}
	return w.code, 1, nil
}

func (w *world) ModuleVersion(_, name string, version uint64) (nola.Module, error) {
	if version == 0 || version > uint64(len(w.versions)) || w.versions[version-1] == nil {
		return nil, nola.Errorf(nola.ReasonVersionNotFound, "no version %d of module %s", version, name)
	}
	return w.versions[version-1], nil
}

func ref(id string) nola.ActorRef { return nola.ActorRef{Namespace: "default", Type: "t", ID: id} }

func (w *world) invoke(id, op, payload string) (string, error) {
	r, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref(id), Operation: op, Payload: []byte(payload)})
	return string(r.Payload), err
}

func (w *world) must(id, op, payload string) string {
	w.t.Helper()
	got, err := w.invoke(id, op, payload)
	if err != nil {
		w.t.Fatalf("%s %s %q: %v", id, op, payload, err)
	}
	return got
}

func (w *world) keyed(id, op, payload string, key nola.Key) (nola.Result, error) {
	return w.m.Invoke(context.Background(), &nola.Invocation{Target: ref(id), Operation: op, Payload: []byte(payload), Key: key})
}

func reason(err error) nola.Reason {
	var e *nola.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// eventually waits until ok answers true; what it waits for happens on other
// goroutines by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(2 * time.Millisecond); ; {
		if ok() {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// spinSlice is how many steps a guest that spins takes between two yields.
const spinSlice = 100_000

// module is guest code in Go.
type module struct {
	manifest nola.Manifest
	live     atomic.Int64
	turns    atomic.Int64
	spinning atomic.Int64 // turns of operation "spin" that have begun
	slices   sync.Map     // *atomic.Int64 that operation "spin" took, by namespace
	mu       sync.Mutex
	gates    map[string]chan struct{} // operation "wait" waits for them
	shutdown func() error             // the SHUTDOWN operation, if there is one
	bye      func(nola.Host) error    // another one, that uses its host
}

func newModule() *module {
	return &module{manifest: nola.Manifest{}.WithDefaults(), gates: make(map[string]chan struct{})}
}

func (m *module) gate(name string) chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gates[name] == nil {
		m.gates[name] = make(chan struct{})
	}
	return m.gates[name]
}

func (m *module) spun(namespace string) *atomic.Int64 {
	n, _ := m.slices.LoadOrStore(namespace, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (m *module) Manifest() *nola.Manifest { return &m.manifest }
func (m *module) Close() error             { return nil }

func (m *module) Instantiate(nola.ActorRef) (nola.Instance, error) {
	m.live.Add(1)
	return &instance{m: m, stop: make(chan error, 1)}, nil
}

type instance struct {
	m      *module
	memory int
	stop   chan error
	closed bool
}

func (in *instance) Bytes() int64 { return 1 << 16 }

func (in *instance) Close() {
	if in.closed {
		panic("closed twice")
	}
	in.closed = true
	in.m.live.Add(-1)
}

func (in *instance) Interrupt(err error) {
	select {
	case in.stop <- err:
	default:
	}
}

func (in *instance) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	if in.closed {
		panic("used after close")
	}
	in.m.turns.Add(1)
	in.memory++
	reply, err := in.run(t.Operation, string(t.Payload), h)
	var e *nola.Error
	if err != nil && !errors.As(err, &e) {
		err = &nola.Error{Reason: nola.ReasonGuestError, Message: err.Error()}
	}
	return []byte(reply), err
}

// run knows a small language: operations, some of which take "a|b|c".
func (in *instance) run(op, arg string, h nola.Host) (string, error) {
	args := strings.Split(arg, "|")
	at := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch op {
	case "inc":
		v, _, err := h.Get([]byte("n"))
		if err != nil {
			return "", err
		}
		n, _ := strconv.Atoi(string(v))
		n++
		return strconv.Itoa(n), h.Put([]byte("n"), []byte(strconv.Itoa(n)))
	case "get":
		v, _, err := h.Get([]byte(or(arg, "n")))
		return string(v), err
	case "put":
		return "", h.Put([]byte(at(0)), []byte(at(1)))
	case "del":
		found, err := h.Delete([]byte(at(0)))
		return fmt.Sprint(found), err
	case "own": // written|deleted|new: fails with what it reads of what it did
		if err := errors.Join(h.Put([]byte(at(0)), []byte("own")), h.Put([]byte(at(2)), []byte("new"))); err != nil {
			return "", err
		}
		if _, err := h.Delete([]byte(at(1))); err != nil {
			return "", err
		}
		var b strings.Builder
		for _, key := range args {
			v, _, err := h.Get([]byte(key))
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%s=%s ", key, v)
		}
		list, err := in.run("list", "k|9", h)
		return "", errors.Join(err, errors.New(b.String()+list))
	case "pair": // two keys that are always equal
		if err := h.Put([]byte("first"), []byte(arg)); err != nil {
			return "", err
		}
		return "", h.Put([]byte("second"), []byte(arg))
	case "append": // to the list in key "log"
		v, _, err := h.Get([]byte("log"))
		if err != nil {
			return "", err
		}
		return "", h.Put([]byte("log"), append(append([]byte{}, v...), (arg+" ")...))
	case "list":
		limit, _ := strconv.Atoi(at(1))
		kvs, more, err := h.List(nola.ListQuery{Prefix: []byte(at(0)), Limit: limit, Start: []byte(at(2)), Reverse: at(3) == "r"})
		var b strings.Builder
		for _, kv := range kvs {
			fmt.Fprintf(&b, "%s=%s ", kv.Key, kv.Value)
		}
		fmt.Fprint(&b, more)
		return b.String(), err
	case "memory":
		return strconv.Itoa(in.memory), nil
	case "spin": // slices of work, each followed by a yield; empty means without end
		n, _ := strconv.Atoi(arg)
		in.m.spinning.Add(1)
		spun := in.m.spun(h.Invocation().Target.Namespace)
		for i := 0; arg == "" || i < n; i++ {
			for range spinSlice {
				in.memory++
			}
			spun.Add(1)
			if err := h.Yield(uint64(i+1) * spinSlice); err != nil {
				return "", err
			}
			select {
			case err := <-in.stop:
				return "", err
			default:
			}
		}
		return "", nil
	case "work": // slices of work, another actor called before so many of them
		slices, calls, _ := strings.Cut(arg, " ")
		n, _ := strconv.Atoi(slices)
		called, _ := strconv.Atoi(calls)
		for i := range n {
			if i < called {
				if _, err := h.Call(nola.OutCall{ID: "other", Operation: "get"}); err != nil {
					return "", err
				}
			}
			if err := h.Yield(uint64(i+1) * spinSlice); err != nil {
				return "", err
			}
		}
		return "", nil
	case "fail": // does everything and fails
		for _, f := range []func() error{
			func() error { return h.Put([]byte("n"), []byte("999")) },
			func() error {
				return h.SetTimer(nola.Timer{Name: "f", Operation: "inc", Due: h.Now().Add(time.Millisecond)})
			},
			func() error { _, err := h.Cast(nola.OutCall{ID: "other", Operation: "inc"}); return err },
		} {
			if err := f(); err != nil {
				return "", err
			}
		}
		if arg == "trap" {
			return "", &nola.Error{Reason: nola.ReasonGuestTrap, Message: "unreachable"}
		}
		return "", errors.New("as asked")
	case "call": // id|op|arg...
		reply, err := h.Call(nola.OutCall{ID: at(0), Operation: at(1), Payload: []byte(strings.Join(args[2:], "|"))})
		return string(reply), err
	case "inccall": // increments itself, then calls, and answers both
		if _, err := in.run("inc", "", h); err != nil {
			return "", err
		}
		return in.run("call", arg, h)
	case "callwait": // id|op|gate: calls, then waits
		reply, err := in.run("call", at(0)+"|"+at(1), h)
		if err != nil {
			return "", err
		}
		if _, err := in.run("wait", at(2), h); err != nil {
			return "", err
		}
		return reply, h.Put([]byte("got"), []byte(reply))
	case "calltwo": // id|op|id|op: one after the other
		if _, err := in.run("call", at(0)+"|"+at(1), h); err != nil {
			return "", err
		}
		return in.run("call", at(2)+"|"+at(3), h)
	case "callor": // calls, and increments itself whatever came of it
		_, _ = in.run("call", arg, h)
		return in.run("inc", "", h)
	case "callthentrap": // calls, then traps on its first attempts
		reply, err := h.Call(nola.OutCall{ID: at(0), Operation: at(1)})
		if err != nil {
			return "", err
		}
		if h.Invocation().Attempt < 1 && at(2) != "keyed" {
			return "", &nola.Error{Reason: nola.ReasonGuestTrap, Message: "first attempt"}
		}
		if at(2) == "keyed" {
			select {
			case <-in.m.gate("keyed"):
			default:
				return "", &nola.Error{Reason: nola.ReasonGuestTrap, Message: "gate is closed"}
			}
		}
		return string(reply), h.Put([]byte("got"), reply)
	case "cast": // id|op|arg...
		_, err := h.Cast(nola.OutCall{ID: at(0), Operation: at(1), Payload: []byte(strings.Join(args[2:], "|"))})
		return "", err
	case "castmany": // id|n: numbers 0..n-1 to append
		n, _ := strconv.Atoi(at(1))
		for i := range n {
			if _, err := h.Cast(nola.OutCall{ID: at(0), Operation: "append", Payload: []byte(strconv.Itoa(i))}); err != nil {
				return "", err
			}
		}
		return "", nil
	case "timer": // name|op|millis
		ms, _ := strconv.Atoi(at(2))
		return "", h.SetTimer(nola.Timer{Name: at(0), Operation: at(1), Due: h.Now().Add(time.Duration(ms) * time.Millisecond)})
	case "waituntimer": // gate|name
		<-in.m.gate(at(0))
		return in.run("untimer", at(1), h)
	case "waitcall": // gate|id|op|arg..., however it is interrupted meanwhile
		<-in.m.gate(at(0))
		return in.run("call", strings.Join(args[1:], "|"), h)
	case "waitremind": // gate|name|op|millis, pins first
		if _, err := h.CancelReminder("none"); err != nil {
			return "", err
		}
		<-in.m.gate(at(0))
		return in.run("remind", strings.Join(args[1:], "|"), h)
	case "untimer":
		found, err := h.CancelTimer(at(0))
		return fmt.Sprint(found), err
	case "timers":
		list, err := h.ListTimers("", 0)
		var b strings.Builder
		for _, t := range list {
			fmt.Fprintf(&b, "%s:%s ", t.Name, t.Operation)
		}
		return b.String(), err
	case "timermany": // first|n
		first, _ := strconv.Atoi(at(0))
		n, _ := strconv.Atoi(at(1))
		for i := first; i < first+n; i++ {
			if err := h.SetTimer(nola.Timer{Name: fmt.Sprint("t", i), Operation: "inc", Due: h.Now().Add(time.Hour)}); err != nil {
				return "", err
			}
		}
		return "", nil
	case "swaptimer": // old|new|op|millis
		if _, err := in.run("untimer", at(0), h); err != nil {
			return "", err
		}
		return in.run("timer", strings.Join(args[1:], "|"), h)
	case "payloads":
		list, err := h.ListTimers("", 0)
		var b strings.Builder
		for _, t := range list {
			fmt.Fprintf(&b, "%s:%s ", t.Name, t.Payload)
		}
		return b.String(), err
	case "swapremind": // old|new|op|millis
		if _, err := in.run("unremind", at(0), h); err != nil {
			return "", err
		}
		return in.run("remind", strings.Join(args[1:], "|"), h)
	case "remind": // name|op|millis
		ms, _ := strconv.Atoi(at(2))
		return "", h.SetReminder(nola.Reminder{Name: at(0), Operation: at(1), Spec: nola.Spec{Interval: []nola.Interval{{Every: time.Duration(ms) * time.Millisecond}}}})
	case "unremind":
		found, err := h.CancelReminder(at(0))
		return fmt.Sprint(found), err
	case "defer": // millis: writes down its token and defers
		ms, _ := strconv.Atoi(at(0))
		token, err := h.Defer(time.Duration(ms) * time.Millisecond)
		if err != nil {
			return "", err
		}
		if _, err := in.run("inc", "", h); err != nil {
			return "", err
		}
		return "dropped", h.Put([]byte("token"), []byte(token.String()))
	case "complete": // token|payload|error
		token, err := nola.ParseToken(at(0))
		if err != nil {
			return "", err
		}
		c := nola.Completion{Token: token, Payload: []byte(at(1))}
		if at(2) != "" {
			c.Err = &nola.Error{Reason: nola.ReasonGuestError, Message: at(2)}
		}
		found, err := h.Complete(c)
		return fmt.Sprint(found), err
	case "nominal": // appends the nominal time
		return in.run("append", strconv.FormatInt(h.Invocation().Caller.Nominal.UnixMilli(), 10), h)
	case "gated": // a firing that waits
		select {
		case <-in.m.gate("firing"):
		case err := <-in.stop:
			return "", err
		}
		return in.run("nominal", "", h)
	case "busy": // for so many microseconds, then increments itself
		us, _ := strconv.Atoi(arg)
		select {
		case <-time.After(time.Duration(us) * time.Microsecond):
		case err := <-in.stop:
			return "", err
		}
		return in.run("inc", "", h)
	case "wait150":
		select {
		case <-time.After(150 * time.Millisecond):
		case err := <-in.stop:
			return "", err
		}
		return "", nil
	case "random":
		b := make([]byte, 8)
		h.Random(b)
		return fmt.Sprintf("%x", b), nil
	case "wait":
		select {
		case <-in.m.gate(arg):
			return "", nil
		case err := <-in.stop:
			return "", err
		}
	case "waitinc":
		select {
		case <-in.m.gate(arg):
		case err := <-in.stop:
			return "", err
		}
		return in.run("inc", "", h)
	case "trap":
		return "", &nola.Error{Reason: nola.ReasonGuestTrap, Message: "unreachable"}
	case "log":
		h.Log("info", arg)
		return "", nil
	case "flaky": // fails with a trap until attempt arg
		n, _ := strconv.Atoi(arg)
		if h.Invocation().Attempt < n {
			return "", &nola.Error{Reason: nola.ReasonGuestTrap, Message: "not yet"}
		}
		return in.run("inc", "", h)
	case nola.OperationStartup, nola.OperationShutdown:
		if op == nola.OperationShutdown && in.m.bye != nil {
			return "", in.m.bye(h)
		}
		if op == nola.OperationShutdown && in.m.shutdown != nil {
			return "", in.m.shutdown()
		}
		return "", &nola.Error{Reason: nola.ReasonOperationNotFound, Message: "none"}
	}
	return "", &nola.Error{Reason: nola.ReasonOperationNotFound, Message: "no operation " + op}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

var _ = core.Limits{}
