package shard

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nolaproject/nola/shard/core"
)

// clock wakes shards when their time has come.
type clock struct {
	next atomic.Int64 // Unix nanoseconds of the earliest wake-up known
	poke chan struct{}
	scan sync.Mutex // held from seeing that a shard is due until its tick is brought
}

// clockGlance is how long the clock sleeps at most: how late it notices that
// the wall clock was set forward.
const clockGlance = time.Second

func (c *clock) init() {
	c.poke = make(chan struct{}, 1)
	c.next.Store(math.MaxInt64)
}

// note remembers when b wants to be woken; the zero time means never.
func (c *clock) note(b *box, wake time.Time) {
	at := int64(math.MaxInt64)
	if !wake.IsZero() {
		at = wake.UnixNano()
	}
	if b.wake.Load() != at {
		b.wake.Store(at)
	}
	if at < c.next.Load() {
		select {
		case c.poke <- struct{}{}:
		default:
		}
	}
}

// tick brings a tick to b, unless one is on its way: ticks leave room for calls, and
// whatever else is stepped meanwhile notes that the shard wants to be woken.
func (m *Manager) tick(b *box) {
	if b.ticking.CompareAndSwap(false, true) {
		m.bring(b, &core.Tick{})
	}
}

// clockLoop brings ticks to the shards that are due. It ends with the manager.
func (m *Manager) clockLoop() {
	c := &m.clock
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-c.poke:
		case <-timer.C:
		}
		now := m.cfg.Now()
		next := now.Add(clockGlance).UnixNano()
		c.next.Store(math.MinInt64) // who notes from here on pokes only if it must
		c.scan.Lock()
		for _, b := range m.boxes {
			at := b.wake.Load()
			if m.draining.Load() {
				continue // nothing is due any more
			}
			if at <= now.UnixNano() {
				// Until the tick notes anew, the shard sleeps.
				b.wake.CompareAndSwap(at, math.MaxInt64)
				m.tick(b)
				continue
			}
			next = min(next, at)
		}
		c.scan.Unlock()
		c.next.Store(next)
		// A wake-up noted during the scan may have been passed over.
		for _, b := range m.boxes {
			if !m.draining.Load() {
				next = min(next, b.wake.Load())
			}
		}
		m.shed()
		wait := time.Duration(max(0, next-now.UnixNano()))
		if wait > 0 && m.cfg.Virtual != nil {
			wait = clockGlance // time moves by itself to nothing; Advance looks itself
		}
		timer.Reset(wait)
	}
}
