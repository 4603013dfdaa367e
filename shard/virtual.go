package shard

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/nolaproject/nola"
)

const (
	// virtualDueWindow is how far ahead the due index is read in virtual time. One
	// reading covers what people advance by, so that no shard has to be woken
	// every minute of it.
	virtualDueWindow = 50 * 365 * 24 * time.Hour
	// virtualYearMax is the last year that virtual time can reach.
	virtualYearMax = 2199
)

// VirtualClock is a clock that stands still until Manager.Advance moves it. Its
// methods may be called at once. It may outlive the manager, and go on with the
// next one.
type VirtualClock struct {
	mu     sync.Mutex // guards the fields below
	now    time.Time
	timers map[*virtualTimer]struct{}
}

// NewVirtualClock makes a clock that shows start.
func NewVirtualClock(start time.Time) *VirtualClock {
	return &VirtualClock{now: start, timers: make(map[*virtualTimer]struct{})}
}

// Now is the time that the clock shows.
func (c *VirtualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// virtualTimer brings one value when the clock reaches its time.
type virtualTimer struct {
	c  chan time.Time
	at time.Time
}

// timer ends when the clock shows at. began is called if that is so already.
func (c *VirtualClock) timer(at time.Time, began func()) *virtualTimer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &virtualTimer{c: make(chan time.Time, 1), at: at}
	if at.After(c.now) {
		c.timers[t] = struct{}{}
	} else {
		began()
		t.c <- c.now
	}
	return t
}

func (c *VirtualClock) stop(t *virtualTimer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.timers, t)
}

// next is when the earliest timer ends, as Unix nanoseconds.
func (c *VirtualClock) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := int64(math.MaxInt64)
	for t := range c.timers {
		next = min(next, t.at.UnixNano())
	}
	return next
}

// set moves the clock. began is called for each timer that ends.
func (c *VirtualClock) set(now time.Time, began func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
	for t := range c.timers {
		if !t.at.After(now) {
			delete(c.timers, t)
			began()
			t.c <- now
		}
	}
}

// stopTimer takes back the timer of a waiter, and the share of the work that it
// may have brought unseen.
func (m *Manager) stopTimer(v *VirtualClock, t *virtualTimer) {
	v.stop(t)
	select {
	case <-t.c:
		m.work.end()
	default:
	}
}

// work counts what is going on in virtual time: whoever runs holds a share, and
// so does what is on its way to a goroutine. Who waits for others holds none, for
// it may have to wait until time moves. In real time nobody counts.
type work struct {
	virtual bool
	mu      sync.Mutex // guards the fields below
	shares  int
	quiet   chan struct{} // closed when shares falls to zero; nil if nobody waits
}

func (w *work) begin() {
	if !w.virtual {
		return
	}
	w.mu.Lock()
	w.shares++
	w.mu.Unlock()
}

func (w *work) end() {
	if !w.virtual {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shares--; w.shares < 0 {
		panic(fmt.Sprintf("shard: %d shares of work are held", w.shares))
	}
	if w.shares == 0 && w.quiet != nil {
		close(w.quiet)
		w.quiet = nil
	}
}

// settle waits until nothing is going on, or ctx ends.
func (w *work) settle(ctx context.Context) error {
	for {
		w.mu.Lock()
		if w.shares == 0 {
			w.mu.Unlock()
			return ctx.Err()
		}
		if w.quiet == nil {
			w.quiet = make(chan struct{})
		}
		quiet := w.quiet
		w.mu.Unlock()
		select {
		case <-quiet:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Advance moves virtual time to a later time, from one event to the next: each
// timer, firing, retry and deadline on the way comes at its own time, and what it
// causes has ended before time moves on. When Advance returns without an error,
// all that is due by then has fired and settled. If ctx ends first it stops where
// it is; ask again to go on. It answers the time that was reached. With a real
// clock it answers TIME_NOT_VIRTUAL.
func (m *Manager) Advance(ctx context.Context, to time.Time) (time.Time, error) {
	v := m.cfg.Virtual
	if v == nil {
		return m.cfg.Now(), nola.Errorf(nola.ReasonTimeNotVirtual, "the server lives in real time; start it with `nolad dev --time=virtual` to move its time")
	}
	select {
	case m.advancing <- struct{}{}:
	case <-ctx.Done():
		return v.Now(), errAdvanceStopped(v.Now(), ctx.Err())
	}
	defer func() { <-m.advancing }()
	if now := v.Now(); to.Before(now) || to.UTC().Year() > virtualYearMax {
		return now, nola.Errorf(nola.ReasonInvalidArgument, "time cannot move to %s: it is %s, and it moves forward only, until the end of %d", to.UTC().Format(time.RFC3339Nano), now.UTC().Format(time.RFC3339Nano), virtualYearMax)
	}
	for {
		if err := m.work.settle(ctx); err != nil {
			return v.Now(), errAdvanceStopped(v.Now(), err)
		}
		if m.draining.Load() {
			return v.Now(), nola.Errorf(nola.ReasonUnavailable, "the node is shutting down; time stands at %s", v.Now().UTC().Format(time.RFC3339Nano))
		}
		now := v.Now()
		next, some := m.bringDue(now)
		switch next = min(next, v.next()); {
		case some:
		case next <= to.UnixNano():
			v.set(time.Unix(0, next).UTC(), m.work.begin)
		case now.Before(to):
			v.set(to, m.work.begin)
		default:
			return now, nil
		}
	}
}

func errAdvanceStopped(at time.Time, err error) error {
	return nola.Errorf(nola.ReasonDeadlineExceeded, "the wait for what is due ended (%v) when time stood at %s; advance again to go on", err, at.UTC().Format(time.RFC3339Nano))
}

// bringDue brings ticks to the shards that are due, and answers when the next one
// is. some tells whether there were any.
func (m *Manager) bringDue(now time.Time) (next int64, some bool) {
	m.clock.scan.Lock()
	defer m.clock.scan.Unlock()
	next = math.MaxInt64
	for _, b := range m.boxes {
		switch at := b.wake.Load(); {
		case at > now.UnixNano():
			next = min(next, at)
		case b.wake.CompareAndSwap(at, math.MaxInt64):
			m.tick(b)
			some = true
		default:
			some = true // noted anew just now: look again
		}
	}
	return next, some
}
