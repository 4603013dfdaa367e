package shard

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// committer sees to it that one commit at a time carries the ready groups of all
// shards.
type committer struct {
	mu    sync.Mutex // guards the fields below
	ready []*box
	busy  bool // somebody commits, or has promised to
	kick  chan struct{}
	work  *work // a share is held while busy

	// running is held from taking batches until their verdicts are stepped, taking
	// while they are taken.
	running, taking sync.Mutex
	closed          bool // guarded by taking: nothing is committed any more
	// Used by whoever commits.
	boxes   []*box
	batches []*persistence.Batch
	out     core.Output
}

func (c *committer) init(w *work) { c.kick, c.work = make(chan struct{}, 1), w }

// request lists b for a commit. It reports whether the caller is the one who
// must see to it.
func (c *committer) request(b *box) (lead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.ready {
		b.ready = true
		c.ready = append(c.ready, b)
	}
	if lead = !c.busy; lead {
		c.work.begin()
	}
	c.busy = true
	return lead
}

// close lets no commit begin any more.
func (c *committer) close() {
	c.taking.Lock()
	defer c.taking.Unlock()
	c.closed = true
}

// wait waits for the commit that is under way.
func (c *committer) wait() {
	c.running.Lock()
	defer c.running.Unlock()
}

// handOver leaves the commit to the committer goroutine.
func (c *committer) handOver() { c.kick <- struct{}{} }

// commitLoop is the committer goroutine. It ends with the manager.
func (m *Manager) commitLoop() {
	for {
		select {
		case <-m.commit.kick:
			for m.commitReady() {
			}
		case <-m.ctx.Done():
			return
		}
	}
}

// commitReady makes what is ready durable and lets the answers go. It reports
// whether more has gathered; then the caller has to see to that as well.
func (m *Manager) commitReady() (more bool) {
	c := &m.commit
	// Callers that are about to end their turns may come along. It waits for
	// nothing: on an idle node there are none.
	runtime.Gosched()
	c.running.Lock()
	defer c.running.Unlock()
	bytes, open := m.take()
	if !open {
		return false
	}
	if len(c.batches) > 0 {
		began := time.Now()
		verdicts := m.cfg.Store.Commit(c.batches)
		if f := m.cfg.Events.Commit; f != nil {
			f(len(c.batches), bytes, time.Since(began))
		}
		for i, b := range c.boxes {
			m.concluded(b, c.batches[i], verdicts[i])
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy = len(c.ready) > 0; !c.busy {
		c.work.end()
	}
	return c.busy
}

// take takes the batches of the boxes that are ready, and answers their bytes. It
// is false if nothing is committed any more.
func (m *Manager) take() (bytes int, open bool) {
	c := &m.commit
	c.taking.Lock()
	defer c.taking.Unlock()
	if c.closed {
		return 0, false
	}
	c.mu.Lock()
	ready := append(c.boxes[:0], c.ready...)
	c.ready = c.ready[:0]
	for _, b := range ready {
		b.ready = false
	}
	c.mu.Unlock()
	c.boxes, c.batches = ready[:0], c.batches[:0]
	for _, b := range ready {
		b.mu.Lock()
		if batch := b.core.TakeBatch(); batch != nil {
			c.batches = append(c.batches, batch)
			c.boxes = append(c.boxes, b)
			bytes += batch.Bytes()
			b.written.Add(uint64(batch.Bytes()))
		}
		b.mu.Unlock()
	}
	return bytes, true
}

// concluded steps the verdict on b's batch.
func (m *Manager) concluded(b *box, batch *persistence.Batch, verdict error) {
	out := &m.commit.out
	out.Reset()
	if verdict != nil && !errors.Is(verdict, persistence.ErrFenced) {
		verdict = m.cfg.Store.Resolve(m.ctx, []*persistence.Batch{batch})[0]
	}
	if verdict == nil {
		m.step(b, &core.Committed{}, out)
	} else {
		m.step(b, &core.Fenced{Unknown: !errors.Is(verdict, persistence.ErrFenced)}, out)
	}
	m.answer(out)
	m.closeAll(out)
	m.leave(b, out)
	if verdict != nil {
		m.fenced(b, verdict)
	}
}
