package shard_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
)

// TestReviewCancelledTimerWhileItsCommitEnds cancels a timer in a turn that
// began before the commit that set it, and ends after.
func TestReviewCancelledTimerWhileItsCommitEnds(t *testing.T) {
	var armed atomic.Bool
	release := make(chan struct{})
	w := newWorld(t, 1, func(w *world) {
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{Delay: func(int) {
				if armed.Load() {
					<-release
				}
			}})
		}
	})
	w.must("a", "inc", "")
	before := w.code.turns.Load()
	armed.Store(true)
	set, cancelled := make(chan error, 1), make(chan error, 1)
	go func() { _, err := w.invoke("a", "timer", "x|inc|3600000"); set <- err }()
	eventually(t, "the timer is set", func() bool { return w.code.turns.Load() >= before+1 })
	go func() { _, err := w.invoke("a", "waituntimer", "g|x"); cancelled <- err }()
	eventually(t, "the second turn runs", func() bool { return w.code.turns.Load() >= before+2 })
	armed.Store(false)
	close(release)
	// What is durable of the first turn can be seen in the store: it has ended
	// when the next commit of another actor has.
	w.must("b", "inc", "")
	close(w.code.gate("g"))
	if err := <-cancelled; err != nil {
		t.Fatal(err)
	}
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	rows, err := persistence.Reader{Store: w.store}.Due(0, persistence.DueRow{}, time.Now().Add(24*time.Hour), 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		t.Errorf("the cancelled timer %q still stands in the due index at %s", row.Name, row.Due)
	}
}

// TestReviewCloseWhileActorsLeave closes the node while a guest's SHUTDOWN runs.
func TestReviewCloseWhileActorsLeave(t *testing.T) {
	w := newWorld(t, 1)
	var shutting atomic.Bool
	w.code.shutdown = func() error {
		shutting.Store(true)
		<-w.code.gate("shutdown")
		return nil
	}
	w.must("a", "inc", "")
	passivated := make(chan error, 1)
	go func() { _, err := w.m.PassivateActor(context.Background(), ref("a")); passivated <- err }()
	eventually(t, "SHUTDOWN runs", shutting.Load)
	closed := make(chan struct{})
	m := w.m
	go func() { _ = m.Close(); close(closed) }()
	eventually(t, "the shard is closed", func() bool { return m.Shards()[0].Activations == 0 })
	close(w.code.gate("shutdown"))
	<-closed
	<-passivated
}

// TestReviewFencedAnswersOrders loses the shard while orders wait behind a turn.
func TestReviewFencedAnswersOrders(t *testing.T) {
	w := newWorld(t, 1)
	go func() { _, _ = w.invoke("a", "wait", "g") }()
	eventually(t, "the turn runs", func() bool { return w.code.turns.Load() >= 1 })
	ordered := make(chan error, 2)
	go func() { _, err := w.m.PassivateActor(context.Background(), ref("a")); ordered <- err }()
	go func() { ordered <- w.m.DeleteActor(context.Background(), ref("a")) }()
	eventually(t, "the orders wait", func() bool {
		info, err := w.m.DescribeActor(context.Background(), ref("a"))
		return err == nil && info.Mailbox == 3
	})
	w.close()
	for range 2 {
		select {
		case err := <-ordered:
			if reason(err) != nola.ReasonShardMoving {
				t.Errorf("%v, want SHARD_MOVING", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("an order that waited was never answered")
		}
	}
}

// heldCommits are commits that wait, once armed, until goOn is closed.
type heldCommits struct {
	armed, committing atomic.Bool
	goOn              chan struct{}
}

func (c *heldCommits) wrap(w *world) {
	w.wrap = func(s persistence.Store) persistence.Store {
		return faultstore.New(s, faultstore.Plan{Delay: func(int) {
			if c.armed.Load() {
				c.committing.Store(true)
				<-c.goOn
			}
		}})
	}
}

// TestReviewCloseDuringCommit closes the node while a batch is being committed.
func TestReviewCloseDuringCommit(t *testing.T) {
	held := heldCommits{goOn: make(chan struct{})}
	w := newWorld(t, 1, held.wrap)
	w.must("a", "inc", "")
	held.armed.Store(true)
	answered := make(chan error, 1)
	go func() { _, err := w.invoke("a", "inc", ""); answered <- err }()
	eventually(t, "the batch is being committed", held.committing.Load)
	m := w.m
	closed := make(chan struct{})
	go func() { _ = m.Close(); close(closed) }()
	eventually(t, "the node closes", func() bool {
		left, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := w.m.Invoke(left, &nola.Invocation{Target: ref("b"), Operation: "get"})
		return reason(err) == nola.ReasonUnavailable
	})
	close(held.goOn)
	<-closed
	if err := <-answered; err != nil {
		t.Errorf("the call whose commit went through answers %v", err)
	}
}

// TestReviewNestedCallRunsNoOthersTurn lets x call y, while a call waits at y
// that calls x: the goroutine of x's turn must not run it, as it would wait for
// itself.
func TestReviewNestedCallRunsNoOthersTurn(t *testing.T) {
	const shards = 16
	w := newWorld(t, shards)
	if nola.ShardOf(ref("x"), shards) == nola.ShardOf(ref("y"), shards) {
		t.Fatal("x and y must live in different shards")
	}
	w.must("x", "inc", "")
	w.must("y", "inc", "")
	for i := range 20 {
		before := w.code.turns.Load()
		gate := "g" + string(rune('a'+i))
		results := make(chan error, 3)
		go func() { _, err := w.invoke("y", "wait", gate); results <- err }()
		eventually(t, "y is busy", func() bool { return w.code.turns.Load() == before+1 })
		go func() { _, err := w.invoke("x", "call", "y|inc"); results <- err }()
		queued := func(n int) func() bool {
			return func() bool {
				info, err := w.m.DescribeActor(context.Background(), ref("y"))
				return err == nil && info.Mailbox == n
			}
		}
		eventually(t, "x waits for y", queued(2))
		go func() { _, err := w.invoke("y", "call", "x|inc"); results <- err }()
		eventually(t, "another call waits at y", queued(3))
		close(w.code.gate(gate))
		for range 3 {
			select {
			case err := <-results:
				if err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("round %d: the turns wait for one another on one goroutine", i)
			}
		}
	}
}

// TestReviewRetryOutlivesTheFirst lets the first call under a key leave the
// queue while a retry waits for it: the retry runs in its place.
func TestReviewRetryOutlivesTheFirst(t *testing.T) {
	w := newWorld(t, 1)
	go func() { _, _ = w.invoke("a", "wait", "g") }()
	eventually(t, "the actor is busy", func() bool { return w.code.turns.Load() >= 1 })
	mailbox := func() int {
		info, _ := w.m.DescribeActor(context.Background(), ref("a"))
		return info.Mailbox
	}
	key := nola.Key{User: "k"}
	ctx, leave := context.WithCancel(context.Background())
	first, retry := make(chan error, 1), make(chan error, 1)
	call := func(ctx context.Context, answer chan error) {
		_, err := w.m.Invoke(ctx, &nola.Invocation{Target: ref("a"), Operation: "inc", Key: key})
		answer <- err
	}
	go call(ctx, first)
	eventually(t, "the first waits", func() bool { return mailbox() == 2 })
	go call(context.Background(), retry)
	eventually(t, "the retry waits", func() bool { return w.m.Shards()[0].Unanswered == 3 })
	leave()
	if err := <-first; reason(err) != nola.ReasonCanceled {
		t.Errorf("the first answers %v", err)
	}
	close(w.code.gate("g"))
	if err := <-retry; err != nil {
		t.Errorf("the retry, whose caller still waits, answers %v", err)
	}
	if got := w.must("a", "get", ""); got != "1" {
		t.Errorf("n = %q, want 1", got)
	}
}

// slowKeys is a store whose reads of user keys wait.
type slowKeys struct {
	persistence.Store
	reading, release chan struct{}
}

func (s *slowKeys) Get(row persistence.Row) ([]byte, bool, error) {
	if row.Table == persistence.TableUserKey && len(row.Key) > 0 {
		s.reading <- struct{}{}
		<-s.release
	}
	return s.Store.Get(row)
}

// TestReviewPassivationWaitsForKeys passivates an actor while the key of a call
// is being looked up: the call must still be answered.
func TestReviewPassivationWaitsForKeys(t *testing.T) {
	slow := &slowKeys{reading: make(chan struct{}, 1), release: make(chan struct{})}
	w := newWorld(t, 1, func(w *world) {
		w.wrap = func(s persistence.Store) persistence.Store { slow.Store = s; return slow }
	})
	answer := make(chan error, 1)
	go func() { _, err := w.keyed("a", "inc", "", nola.Key{User: "k"}); answer <- err }()
	<-slow.reading
	if _, err := w.m.PassivateActor(context.Background(), ref("a")); err != nil {
		t.Error(err)
	}
	close(slow.release)
	select {
	case err := <-answer:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the call was never answered")
	}
}

// TestAnswerDoesNotWaitForTheNextTurn demands that a call is answered once it is
// durable, while the call behind it in the mailbox runs.
func TestAnswerDoesNotWaitForTheNextTurn(t *testing.T) {
	w := newWorld(t, 1)
	first := make(chan error, 1)
	go func() {
		_, err := w.invoke("a", "waitinc", "one")
		first <- err
	}()
	eventually(t, "the first turn runs", func() bool { return w.code.turns.Load() >= 1 })
	second := make(chan error, 1)
	if err := w.m.Begin(t.Context(), &nola.Invocation{Target: ref("a"), Operation: "wait", Payload: []byte("two")}, func(_ nola.Result, err error) { second <- err }); err != nil {
		t.Fatal(err)
	}
	close(w.code.gate("one"))
	select {
	case err := <-first:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the first call waits for the turn of the second")
	}
	close(w.code.gate("two"))
	if err := <-second; err != nil {
		t.Error(err)
	}
}
