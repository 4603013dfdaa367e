package cluster_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

const (
	callers  = 16
	counters = 200
	// callEvery is how often a caller calls at most: three Cassandras and three
	// servers share the machine.
	callEvery = 8 * time.Millisecond
	// attemptTime is how long a caller with a key of its own waits for one server
	// before it asks the next one under the same key.
	attemptTime = 2 * time.Second
	patience    = time.Minute
)

// counter is what callers know of an actor that counts.
type counter struct {
	ref nola.ActorRef

	mu     sync.Mutex // guards the fields below
	begun  int        // increments that were begun
	acked  int        // increments that were answered
	top    int        // greatest number that an answer had
	values map[int]string
}

// load is increments and reads by many callers, by way of all servers. Each answer
// is held against what was answered before the call began.
type load struct {
	t        *testing.T
	clients  []*client.Client // one for each server
	counters []*counter
	stop     context.CancelFunc
	ctx      context.Context // ends when no new calls are to begin
	wg       sync.WaitGroup
	acked    atomic.Int64
	reads    atomic.Int64
	unknown  atomic.Int64
	failed   atomic.Int64 // increments of the default client that ended with an error
	last     atomic.Pointer[error]
}

// newLoad begins to call. Its actors are named after the stage.
func newLoad(t *testing.T, clients []*client.Client, stage string) *load {
	t.Helper()
	l := &load{t: t, clients: clients}
	l.ctx, l.stop = context.WithCancel(t.Context())
	for i := range counters {
		l.counters = append(l.counters, &counter{ref: actor("small", fmt.Sprint(stage, "-", i)), values: map[int]string{}})
	}
	for i := range callers {
		l.wg.Go(func() { l.call(i, stage) })
	}
	t.Cleanup(func() { // of a stage that has failed
		l.stop()
		l.wg.Wait()
	})
	return l
}

// call is one caller: those of even numbers are the default client's, each of which
// stays with one server, the others go from server to server with a key.
func (l *load) call(number int, stage string) {
	rng := rand.New(rand.NewPCG(uint64(number), 1))
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for i := 0; l.ctx.Err() == nil; i++ {
		<-tick.C
		c, via, wait := l.counters[rng.IntN(counters)], rng.IntN(len(l.clients)), attemptTime
		if number%2 == 0 {
			via, wait = number/2%len(l.clients), patience
		}
		switch {
		case rng.IntN(4) == 0:
			_ = l.get(c, via, wait) // an error tells nothing
		case number%2 == 0:
			l.increment(c, via)
		default:
			l.keyed(c, fmt.Sprintf("%s-%d-%d", stage, number, i), via)
		}
	}
}

// begin answers the greatest number that was answered so far.
func (c *counter) begin(increments int) (floor int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun += increments
	return c.top
}

// reply takes an increment's answer.
func (l *load) reply(c *counter, what string, floor int, payload []byte) {
	n, err := strconv.Atoi(string(payload))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		l.t.Errorf("%s: %s was answered %q", c.ref, what, payload)
		return
	case c.values[n] != "":
		l.t.Errorf("%s: %s and %s were both answered %d", c.ref, c.values[n], what, n)
	case n <= floor:
		l.t.Errorf("%s: %s was answered %d, and %d had been answered before it began", c.ref, what, n, floor)
	case n > c.begun:
		l.t.Errorf("%s: %s was answered %d, and %d increments were begun", c.ref, what, n, c.begun)
	}
	c.values[n] = what
	c.acked++
	c.top = max(c.top, n)
	l.acked.Add(1)
}

// get reads, and looks that the answer is not older than the question.
func (l *load) get(c *counter, via int, wait time.Duration) error {
	floor := c.begin(0)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), wait)
	defer cancel()
	res, err := l.clients[via].Invoke(ctx, c.ref, "get", nil)
	if err != nil {
		return err // nobody was told anything
	}
	n, err := strconv.Atoi(string(res.Payload))
	c.mu.Lock()
	defer c.mu.Unlock()
	if begun := c.begun; err != nil || n < floor || n > begun {
		l.t.Errorf("%s: a read by way of server %d was answered %q, and %d had been answered before it began, of %d that were begun", c.ref, via+1, res.Payload, floor, begun)
	}
	l.reads.Add(1)
	return nil
}

// increment is a call of the default client, which is made again where that cannot
// tell its outcome.
func (l *load) increment(c *counter, via int) {
	floor := c.begin(1)
	res, err := l.clients[via].Invoke(context.WithoutCancel(l.ctx), c.ref, "inc", nil)
	var e *nola.Error
	switch {
	case err == nil:
		l.reply(c, fmt.Sprint("a call by way of server ", via+1), floor, res.Payload)
		return
	case errors.As(err, &e) && e.Reason == nola.ReasonOutcomeUnknown:
		l.unknown.Add(1)
		l.resolve(c, floor, e, via)
	}
	l.failed.Add(1) // it never ran, or says so
	l.last.Store(&err)
}

// keyed asks one server after the other under one key, until one answers.
func (l *load) keyed(c *counter, key string, via int) {
	floor := c.begin(1)
	l.until(key, via, func(ctx context.Context, s *client.Client) error {
		res, err := s.Invoke(ctx, c.ref, "inc", nil, client.WithIdempotencyKey(key))
		if err == nil {
			l.reply(c, key, floor, res.Payload)
		}
		return err
	})
}

// until asks one server after the other, for as long as patience lasts.
func (l *load) until(what string, via int, ask func(context.Context, *client.Client) error) {
	all, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), patience)
	defer cancel()
	var err error
	for ; all.Err() == nil; via++ {
		ctx, cancel := context.WithTimeout(all, attemptTime)
		err = ask(ctx, l.clients[via%len(l.clients)])
		cancel()
		if err == nil {
			return
		}
		var e *nola.Error
		if errors.As(err, &e) && slices.Contains([]nola.Reason{nola.ReasonKeyReused, nola.ReasonGuestError, nola.ReasonGuestTrap, nola.ReasonInternal, nola.ReasonInvalidArgument}, e.Reason) {
			if wire := (*connect.Error)(nil); !errors.As(err, &wire) || connect.IsWireError(err) {
				break
			}
		}
	}
	l.t.Errorf("%s was never answered: %v", what, err)
}

// resolve makes a call again under its key, at any server, until it is answered:
// what is still on its way to the owner is recognised when it arrives.
func (l *load) resolve(c *counter, floor int, e *nola.Error, via int) {
	id, err1 := hex.DecodeString(e.Metadata["session"])
	seq, err2 := strconv.ParseUint(e.Metadata["seq"], 10, 64)
	first, err3 := time.Parse(time.RFC3339Nano, e.Metadata["first_attempt"])
	if err := errors.Join(err1, err2, err3); err != nil {
		l.t.Errorf("%s: the key in %v: %v", c.ref, e.Metadata, err)
		return
	}
	l.until(fmt.Sprint("a call to ", c.ref, " of unknown outcome"), via, func(ctx context.Context, s *client.Client) error {
		res, err := s.Actors.Invoke(ctx, connect.NewRequest(&nolav1.InvokeRequest{
			Actor: &nolav1.ActorRef{Type: c.ref.Type, Id: c.ref.ID}, Operation: "inc",
			Session: &nolav1.SessionKey{Id: id, Seq: seq, FirstAttempt: timestamppb.New(first)},
		}))
		if err == nil {
			l.reply(c, "a call of unknown outcome", floor, res.Msg.GetPayload())
		}
		return err
	})
}

// more waits until so many further increments are answered.
func (l *load) more(n int64) {
	l.t.Helper()
	want := l.acked.Load() + n
	eventually(l.t, fmt.Sprintf("%d further increments are answered", n), func() bool { return l.acked.Load() >= want })
}

// end stops calling and compares each counter with what was answered: it is the
// number of increments that were acknowledged.
func (l *load) end() {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	var wg sync.WaitGroup
	for via := range l.clients {
		wg.Go(func() {
			for i := via; i < len(l.counters); i += len(l.clients) {
				c := l.counters[i]
				ctx, cancel := context.WithTimeout(l.t.Context(), patience)
				res, err := l.clients[via].Invoke(ctx, c.ref, "get", nil)
				cancel()
				if n := strconv.Itoa(c.acked); err != nil || string(res.Payload) != n {
					l.t.Errorf("%s is %q (error %v) at the end, and %s increments were acknowledged", c.ref, res.Payload, err, n)
				}
			}
		})
	}
	wg.Wait()
	l.t.Logf("%d increments and %d reads answered; of the default client %d of unknown outcome at first, %d ended with an error", l.acked.Load(), l.reads.Load(), l.unknown.Load(), l.failed.Load())
}

func actor(typ, id string) nola.ActorRef {
	return nola.ActorRef{Namespace: nola.DefaultNamespace, Type: typ, ID: id}
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
