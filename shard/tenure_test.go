package shard_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
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

// pair is two nodes on one store, which reach each other without a network.
type pair struct {
	t      *testing.T
	shards int
	nodes  [2]*world
	reach  [2]*shard.Manager // for the nodes themselves, which end one after the other
	// untrusted says whose lease is over.
	untrusted [2]atomic.Bool
}

// owner is the node that serves the shard, the first if none does.
func (p *pair) owner(id nola.ShardID) *shard.Manager {
	if p.reach[1].Serving(id) != 0 {
		return p.reach[1]
	}
	return p.reach[0]
}

// peer is the way that one of the pair has to shards it does not serve.
type peer struct {
	p  *pair
	me int
}

func (x peer) Trusted() bool { return !x.p.untrusted[x.me].Load() }

func (x peer) Invoke(ctx context.Context, inv *nola.Invocation) (nola.Result, error) {
	return x.p.owner(nola.ShardOf(inv.Target, x.p.shards)).Invoke(ctx, inv)
}

func (x peer) Deliver(ctx context.Context, d *core.Delivery) error {
	there := core.Delivery{From: d.From, To: d.To, Epoch: d.Epoch, Rows: d.Rows}
	err := x.p.owner(d.To).Deliver(ctx, &there)
	d.Taken = there.Taken
	return err
}

func newPair(t *testing.T, shards int, change ...func(int, *world)) *pair {
	p := &pair{t: t, shards: shards}
	disk := memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: shards, Secret: [32]byte{2}})
	code := newModule()
	for i := range p.nodes {
		p.nodes[i] = newWorld(t, shards, func(w *world) {
			w.disk, w.code = disk, code
			w.open = func() (persistence.Store, error) { return disk.Join() }
			w.cfg.Peers = peer{p, i}
			w.cfg.Limits = core.Limits{BackoffMin: 10 * time.Millisecond}
			for _, f := range change {
				f(i, w)
			}
		})
		p.reach[i] = p.nodes[i].m
	}
	return p
}

// take makes a node serve a shard, whoever served it before.
func (p *pair) take(node int, id nola.ShardID) {
	p.t.Helper()
	heads, err := p.nodes[node].store.Acquire(p.t.Context(), []nola.ShardID{id})
	if err == nil {
		err = p.nodes[node].m.OpenShard(heads[0])
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// give moves a shard from its node to the other one.
func (p *pair) give(id nola.ShardID) {
	p.t.Helper()
	from := 0
	if p.nodes[0].m.Serving(id) == 0 {
		from = 1
	}
	ctx, stop := context.WithTimeout(p.t.Context(), 50*time.Millisecond)
	defer stop()
	p.nodes[from].m.CloseShard(ctx, id)
	p.take(1-from, id)
}

// TestCloseWaitsForNoOthersCommit closes a shard that has nothing left to commit while a
// commit of another one takes long. What that commits stands.
func TestCloseWaitsForNoOthersCommit(t *testing.T) {
	const shards = 16
	if nola.ShardOf(ref("x"), shards) == nola.ShardOf(ref("y"), shards) {
		t.Fatal("x and y must live in different shards")
	}
	held := heldCommits{goOn: make(chan struct{})}
	w := newWorld(t, shards, held.wrap)
	w.must("x", "inc", "")
	w.must("y", "inc", "")
	held.armed.Store(true)
	goOn := sync.OnceFunc(func() { close(held.goOn) })
	defer goOn()
	answered := make(chan error, 1)
	go func() { _, err := w.invoke("x", "inc", ""); answered <- err }()
	eventually(t, "x is being committed", held.committing.Load)
	closed := make(chan struct{})
	go func() { w.m.CloseShard(t.Context(), nola.ShardOf(ref("y"), shards)); close(closed) }()
	eventually(t, "the shard of y is closed", func() bool {
		select {
		case <-closed:
			return true
		default:
			return false
		}
	})
	goOn()
	if err := <-answered; err != nil {
		t.Errorf("the call whose commit went through answers %v", err)
	}
}

// invoke asks whoever serves the shard, under one key, until it has an outcome.
func (p *pair) invoke(id, op, payload string) (string, error) {
	key := nola.Key{FirstAttempt: time.Now()}
	_, _ = rand.Read(key.Session[:])
	deadline := time.Now().Add(20 * time.Second)
	for try := 0; ; try++ {
		r, err := p.nodes[try%2].keyed(id, op, payload, key)
		if err == nil || time.Now().After(deadline) || reason(err) != nola.ReasonShardMoving && reason(err) != nola.ReasonOutcomeUnknown {
			return string(r.Payload), err
		}
		if try%2 == 1 {
			<-time.After(time.Millisecond) // between rounds, as a client does
		}
	}
}

// Shards move to and fro while actors are called, call each other and cast: what
// is acknowledged happened once, and no call fails.
func TestHandOff(t *testing.T) {
	const shards, actors, each = 4, 12, 60
	p := newPair(t, shards)
	for s := range nola.ShardID(shards) {
		p.take(int(s)%2, s)
	}
	var callers, mover sync.WaitGroup
	done := make(chan struct{})
	mover.Go(func() {
		for s := 0; ; s++ {
			select {
			case <-done:
				return
			default:
				p.give(nola.ShardID(s % shards))
			}
		}
	})
	for i := range actors {
		callers.Go(func() {
			me := fmt.Sprint("a", i)
			for n := range each {
				var err error
				switch n % 3 {
				case 0:
					_, err = p.invoke(me, "inc", "")
				case 1:
					_, err = p.invoke(me, "call", fmt.Sprintf("a%d|inc", (i+1)%actors))
				default:
					_, err = p.invoke(me, "cast", fmt.Sprintf("a%d|inc", (i+5)%actors))
				}
				if err != nil {
					t.Errorf("call %d of %s: %v", n, me, err)
				}
			}
		})
	}
	callers.Wait()
	close(done)
	mover.Wait()
	eventually(t, "every cast has arrived", func() bool {
		sum := 0
		for i := range actors {
			text, err := p.invoke(fmt.Sprint("a", i), "get", "n")
			if err != nil {
				t.Fatal(err)
			}
			n, _ := strconv.Atoi(text)
			sum += n
		}
		if sum > actors*each {
			t.Fatalf("%d increments were made, %d were asked for", sum, actors*each)
		}
		return sum == actors*each
	})
}

// A timer fires at the node that has the shard by then.
func TestTimerMovesWithItsShard(t *testing.T) {
	p := newPair(t, 1)
	p.take(0, 0)
	if _, err := p.invoke("a", "timer", "t|inc|50"); err != nil {
		t.Fatal(err)
	}
	p.give(0)
	eventually(t, "the timer has fired", func() bool {
		n, err := p.invoke("a", "get", "n")
		return err == nil && n == "1"
	})
	if n := p.nodes[0].m.Serving(0); n != 0 {
		t.Errorf("the node before serves it under epoch %d", n)
	}
}

// A shard is not held up by a turn that takes longer than it may: that one is
// rolled back and its caller told so.
func TestHandOffDoesNotWaitForever(t *testing.T) {
	p := newPair(t, 1)
	p.take(0, 0)
	answer := make(chan error, 1)
	go func() {
		_, err := p.nodes[0].invoke("a", "waitinc", "gate")
		answer <- err
	}()
	eventually(t, "the turn runs", func() bool { return p.nodes[0].code.turns.Load() > 1 })
	ctx, stop := context.WithCancel(t.Context())
	stop()
	p.nodes[0].m.CloseShard(ctx, 0)
	if err := <-answer; reason(err) != nola.ReasonShardMoving {
		t.Errorf("the call answered %v", err)
	}
	p.take(1, 0)
	close(p.nodes[0].code.gate("gate"))
	if n, err := p.invoke("a", "get", "n"); err != nil || n != "" {
		t.Errorf("the turn has left %q, %v", n, err)
	}
}

// A node whose lease is over answers nothing from memory; what it commits the
// store decides.
func TestUntrustedNodeDoesNotAnswerReads(t *testing.T) {
	p := newPair(t, 1)
	p.take(0, 0)
	if _, err := p.nodes[0].invoke("a", "inc", ""); err != nil {
		t.Fatal(err)
	}
	p.untrusted[0].Store(true)
	if got, err := p.nodes[0].invoke("a", "get", "n"); reason(err) != nola.ReasonShardMoving {
		t.Errorf("a read answered %q, %v", got, err)
	}
	if _, err := p.nodes[0].m.DescribeActor(t.Context(), ref("a")); reason(err) != nola.ReasonShardMoving {
		t.Errorf("a description answered %v", err)
	}
	if _, err := p.nodes[0].m.GetInvocation(t.Context(), ref("a"), nola.InvocationID{}, nola.Key{User: "k"}); reason(err) != nola.ReasonShardMoving {
		t.Errorf("GetInvocation answered %v", err)
	}
	if got, err := p.nodes[0].invoke("a", "inc", ""); err != nil || got != "2" {
		t.Errorf("a write that was committed answered %q, %v", got, err)
	}
	if _, err := p.nodes[1].store.Acquire(t.Context(), []nola.ShardID{0}); err != nil { // as if it were taken
		t.Fatal(err)
	}
	if _, err := p.nodes[0].invoke("a", "inc", ""); reason(err) != nola.ReasonShardMoving {
		t.Errorf("a write that was fenced answered %v", err)
	}
	if n := p.nodes[0].m.Serving(0); n != 0 {
		t.Errorf("a fenced shard is served under epoch %d", n)
	}
}

// fenced is a store that looks whether its shards are still its own.
type fenced struct {
	persistence.Store
	asked atomic.Int64
	err   error
}

func (f *fenced) Fence(context.Context) error {
	f.asked.Add(1)
	return f.err
}

// With strict reads what was not written is answered after a look into the store,
// whatever the lease says; what was written needs none.
func TestStrictReads(t *testing.T) {
	store := new(fenced)
	w := newWorld(t, 1, func(w *world) {
		w.cfg.Strict = true
		w.wrap = func(s persistence.Store) persistence.Store { store.Store = s; return store }
	})
	if _, err := w.invoke("a", "inc", ""); err != nil {
		t.Fatal(err)
	}
	if n := store.asked.Load(); n != 0 {
		t.Errorf("a write has looked %d times", n)
	}
	reads := map[string]func() error{
		"get":      func() error { _, err := w.invoke("a", "get", "n"); return err },
		"describe": func() error { _, err := w.m.DescribeActor(t.Context(), ref("a")); return err },
		"outcome": func() error {
			_, err := w.m.GetInvocation(t.Context(), ref("a"), nola.InvocationID{}, nola.Key{User: "k"})
			return err
		},
	}
	for name, read := range reads {
		before := store.asked.Load()
		if err := read(); err != nil || store.asked.Load() == before {
			t.Errorf("%s: %v, looked %d times", name, err, store.asked.Load()-before)
		}
	}
	for _, tt := range []struct {
		err  error
		want nola.Reason
	}{
		{persistence.ErrFenced, nola.ReasonShardMoving},
		{errors.New("the store is away"), nola.ReasonUnavailable},
	} {
		store.err = tt.err
		for name, read := range reads {
			if err := read(); reason(err) != tt.want {
				t.Errorf("%s, when the look ends with %v: %v", name, tt.err, err)
			}
		}
	}
}

// whileReading is a store that has something happen when a row is read.
type whileReading struct {
	persistence.Store
	happens func()
}

func (s whileReading) Get(row persistence.Row) ([]byte, bool, error) {
	s.happens()
	return s.Store.Get(row)
}

// What was read while the lease ended, or the shard left, is not answered: another
// node may have recorded an outcome since.
func TestGetInvocationIsOfThePresent(t *testing.T) {
	var next atomic.Pointer[func()]
	happens := func(f func()) { next.Store(&f) }
	p := newPair(t, 1, func(i int, w *world) {
		if i == 0 {
			w.wrap = func(s persistence.Store) persistence.Store {
				return whileReading{s, func() {
					if f := next.Swap(nil); f != nil {
						(*f)()
					}
				}}
			}
		}
	})
	ask := func() error {
		_, err := p.nodes[0].m.GetInvocation(t.Context(), ref("a"), nola.InvocationID{}, nola.Key{User: "k"})
		return err
	}
	p.take(0, 0)
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	happens(func() { p.untrusted[0].Store(true) })
	if err := ask(); reason(err) != nola.ReasonShardMoving {
		t.Errorf("when the lease had ended it answered %v", err)
	}
	p.untrusted[0].Store(false)
	happens(func() { p.give(0) })
	if err := ask(); reason(err) != nola.ReasonShardMoving {
		t.Errorf("when the shard was given away it answered %v", err)
	}
}

// A turn whose nested call reaches nobody is rolled back as SHARD_MOVING, also if
// its guest would make something else of it.
func TestNestedCallThatReachesNobody(t *testing.T) {
	p := newPair(t, 8)
	here := nola.ShardOf(ref("a"), 8)
	p.take(0, here)
	other := ""
	for i := range 100 {
		if id := fmt.Sprint("b", i); nola.ShardOf(ref(id), 8) != here {
			other = id
			break
		}
	}
	_, err := p.nodes[0].m.Invoke(t.Context(), &nola.Invocation{
		Target: ref("a"), Operation: "callor", Payload: []byte(other + "|inc"), Deadline: time.Now().Add(100 * time.Millisecond),
	})
	if !errors.Is(err, &nola.Error{Reason: nola.ReasonShardMoving}) {
		t.Errorf("answered %v", err)
	}
	if n, err := p.nodes[0].invoke("a", "get", "n"); err != nil || n != "" {
		t.Errorf("the turn has left %q, %v", n, err)
	}
}

// leased is a store whose lease is over when the test says so.
type leased struct {
	persistence.Store
	held *atomic.Bool
}

func (s leased) Held() bool { return s.held.Load() }

// A node that is alone answers nothing from memory either once its store says that
// the lease is over: another server may have been started in its place.
func TestLoneNodeGoesByTheLeaseOfItsStore(t *testing.T) {
	var held atomic.Bool
	held.Store(true)
	w := newWorld(t, 1, func(w *world) {
		w.wrap = func(s persistence.Store) persistence.Store { return leased{s, &held} }
	})
	w.must("a", "inc", "")
	if got := w.must("a", "get", "n"); got != "1" {
		t.Errorf("read %q", got)
	}
	held.Store(false)
	if got, err := w.invoke("a", "get", "n"); reason(err) != nola.ReasonShardMoving {
		t.Errorf("a read answered %q, %v", got, err)
	}
	if got, err := w.invoke("a", "inc", ""); err != nil || got != "2" {
		t.Errorf("a write that was committed answered %q, %v", got, err)
	}
}
