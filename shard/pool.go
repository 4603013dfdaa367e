package shard

import (
	"context"
	"sync"

	"github.com/nolaproject/nola/shard/core"
)

// pool is the goroutines that do what no caller waits for. Its queue is bounded
// by the limits of the shards: one task per activation with a turn, stream,
// load or tick. Turns do not queue here but for a run token, and a goroutine that
// runs one is no longer one of the workers: long turns keep no other work waiting.
type pool struct {
	m      *Manager
	max    int
	mu     sync.Mutex // guards the fields below
	queue  []task
	active int // workers, not parked
	turns  int // that run or wait for a token
	closed bool
	quiet  chan struct{} // poked when nothing is left to do
	wg     sync.WaitGroup
}

// task is one of: an input to be stepped, a turn to be run, a load to be filled,
// a delivery to be brought to another shard.
type task struct {
	box      *box
	input    core.Input
	turn     *core.Turn
	load     *core.Load
	delivery *core.Delivery
}

func (p *pool) init(m *Manager, workers int) {
	p.m, p.max = m, workers
	p.quiet = make(chan struct{}, 1)
}

// submit queues t, and starts a goroutine for it if there are few.
func (p *pool) submit(t task) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.m.work.begin()
	if t.turn == nil {
		p.queue = append(p.queue, t)
		p.staff()
		p.mu.Unlock()
		return
	}
	p.turns++
	p.mu.Unlock()
	if h, ok := p.m.tokens.claim(t.turn.Act.Ref().Namespace, false, &claim{task: t}); ok {
		p.start(t, h)
	}
}

// start runs a turn that has got a token.
func (p *pool) start(t task, h hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.wg.Go(func() {
		r := p.m.runner()
		r.pooled, r.turning = true, true
		r.token, r.holds, r.namespace = h, true, t.turn.Act.Ref().Namespace
		r.turn(t.box, t.turn)
		r.drive(t.box, t.turn, nil, false)
		r.release()
		r.pooled, r.turning = false, false
		runners.Put(r)
		p.m.work.end()
		p.mu.Lock()
		p.turns--
		p.rest()
		p.mu.Unlock()
	})
}

// mayTurn reports whether r, for whom nobody waits, may run t itself: a token is
// free. A worker leaves its place then, for a turn may be long.
func (r *runner) mayTurn(t *core.Turn) bool {
	if r.holds && r.m.tokens.waiting.Load() > 0 {
		r.release()
	}
	if !r.holds {
		h, ok := r.m.tokens.try()
		if !ok {
			return false
		}
		r.token, r.holds, r.namespace, r.steps = h, true, t.Act.Ref().Namespace, 0
	}
	if r.pooled && !r.turning {
		p := &r.m.pool
		p.mu.Lock()
		r.turning = true
		p.turns++
		p.active--
		p.staff()
		p.mu.Unlock()
	}
	return true
}

// rest tells who waits that nothing is left to do. The mutex is held.
func (p *pool) rest() {
	if p.active > 0 || p.turns > 0 || len(p.queue) > 0 {
		return
	}
	select {
	case p.quiet <- struct{}{}:
	default:
	}
}

// staff starts goroutines while there is work and room. The mutex is held.
func (p *pool) staff() {
	if p.active < p.max && len(p.queue) > 0 {
		p.active++
		p.wg.Go(p.work)
	}
}

// work does tasks until there are none.
func (p *pool) work() {
	r := &runner{m: p.m, pooled: true}
	for {
		p.mu.Lock()
		if r.turning {
			r.turning = false
			p.turns--
			p.active++
		}
		if len(p.queue) == 0 || p.active > p.max {
			p.active--
			p.rest()
			p.mu.Unlock()
			return
		}
		t := p.queue[0]
		p.queue[0] = task{}
		p.queue = p.queue[1:]
		p.mu.Unlock()
		r.do(t)
		r.release()
		p.m.work.end()
	}
}

// park tells that a goroutine of the pool waits for others; another one may do
// its work meanwhile. The function it answers is called when it goes on.
func (p *pool) park() (unpark func()) {
	p.mu.Lock()
	p.active--
	p.staff()
	p.mu.Unlock()
	return func() {
		p.mu.Lock()
		p.active++
		p.mu.Unlock()
	}
}

// drain waits until nothing is queued or at work.
func (p *pool) drain(ctx context.Context) error {
	for {
		p.mu.Lock()
		quiet := p.active == 0 && p.turns == 0 && len(p.queue) == 0
		p.mu.Unlock()
		if quiet {
			return nil
		}
		select {
		case <-p.quiet:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close drops what is queued and waits for the goroutines.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.queue = nil
	p.mu.Unlock()
	p.wg.Wait()
}

func (r *runner) do(t task) {
	switch {
	case t.load != nil:
		r.m.fill(t.box, t.load)
		r.drive(t.box, t.load, nil, false)
	case t.delivery != nil:
		r.deliver(t.box, t.delivery)
	default:
		r.drive(t.box, t.input, nil, false)
	}
}

// deliver brings casts from one shard of this node to another, and the answer
// back.
func (r *runner) deliver(from *box, d *core.Delivery) {
	to := r.m.boxes[d.To]
	w := r.m.newWaiter()
	d.Shell = w
	r.drive(to, d, w, false)
	unpark := r.m.pool.park()
	r.await(r.m.ctx, to, w, nil, false)
	unpark()
	if !w.done {
		return // the node stops; the sender's rows are still there
	}
	r.drive(from, &core.Delivered{Delivery: d}, nil, false)
}
