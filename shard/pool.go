package shard

import (
	"context"
	"sync"
	"time"

	"github.com/nolaproject/nola/shard/core"
)

// pool is the goroutines that do what no caller waits for. Its queues are bounded
// by the limits of the shards: one task per activation with a turn, stream,
// load or tick.
//
// What nobody asked for just now (what is due, and idle actors on their way out
// of memory) has a queue of its own. While others call it gets some of the
// processors only, so that a herd that is due at one instant does not stand in
// front of them; it always gets one, so that it is not starved either.
type pool struct {
	m        *Manager
	max      int           // goroutines at work
	laterMax int           // of these, on what nobody asked for, while others call
	quiet    chan struct{} // poked when nothing is left to do
	wg       sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	queue     []task
	leaving   []task // before later ones: they make room
	later     []task
	active    int // at work, not parked
	laterBusy int // of these, with a share of laterMax
	closed    bool
}

// laterPatience is how long such a task counts against laterMax: one that
// takes longer, such as a guest that loops, holds up no other.
const laterPatience = 10 * time.Millisecond

const (
	laterSlice   = time.Millisecond // of work on later tasks, before a rest as long
	laterRestMax = 5 * time.Millisecond
)

// task is one of: an input to be stepped, a turn to be run, a load to be filled,
// a delivery to be brought to another shard.
type task struct {
	box      *box
	input    core.Input
	turn     *core.Turn
	load     *core.Load
	delivery *core.Delivery
}

// later reports whether nobody asked for the task.
func (t *task) later() bool {
	if t.turn != nil {
		return t.turn.Unasked()
	}
	_, tick := t.input.(*core.Tick)
	return tick
}

func (p *pool) init(m *Manager, workers, tokens int) {
	p.m, p.max, p.laterMax = m, workers, max(1, tokens/2)
	p.quiet = make(chan struct{}, 1)
}

// submit queues t, and starts a goroutine for it if there are few.
func (p *pool) submit(t task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.m.work.begin()
	switch {
	case !t.later():
		p.queue = append(p.queue, t)
	case t.turn != nil && t.turn.Shutdown != "":
		p.leaving = append(p.leaving, t)
	default:
		p.later = append(p.later, t)
	}
	p.staff()
}

// some reports whether there is a task that may be begun. The mutex is held.
func (p *pool) some() bool {
	return len(p.queue) > 0 || len(p.leaving)+len(p.later) > 0 && (p.laterBusy < p.laterMax || !p.m.called())
}

// staff starts goroutines while there is work and room. The mutex is held.
func (p *pool) staff() {
	if p.active < p.max && p.some() {
		p.active++
		p.wg.Go(p.work)
	}
}

// take answers the next task. The mutex is held, and there is one.
func (p *pool) take() (t task, later bool) {
	from := &p.queue
	if later = len(p.queue) == 0; later {
		if from = &p.leaving; len(p.leaving) == 0 {
			from = &p.later
		}
	}
	t = (*from)[0]
	(*from)[0] = task{}
	*from = (*from)[1:]
	return t, later
}

// work does tasks until there are none.
func (p *pool) work() {
	r := &runner{m: p.m, pooled: true}
	patience := time.AfterFunc(laterPatience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.yield(r)
		p.staff()
	})
	defer patience.Stop()
	var spent time.Duration // on later tasks, since the last rest
	for {
		p.mu.Lock()
		p.yield(r)
		if !p.some() || p.active > p.max {
			p.active--
			if p.active == 0 && len(p.queue)+len(p.leaving)+len(p.later) == 0 {
				select {
				case p.quiet <- struct{}{}:
				default:
				}
			}
			p.mu.Unlock()
			return
		}
		var t task
		if t, r.later = p.take(); r.later {
			r.shares = true
			p.laterBusy++
			patience.Reset(laterPatience)
		}
		p.staff()
		p.mu.Unlock()
		began := time.Now()
		r.do(t)
		r.release()
		p.m.work.end()
		if !r.later {
			continue
		}
		if spent += time.Since(began); spent >= laterSlice {
			patience.Stop()
			p.rest(min(spent, laterRestMax))
			spent = 0
		}
	}
}

// rest lets others have the processor, and the goroutine's place in the pool, if
// somebody calls. What nobody asked for waits meanwhile.
func (p *pool) rest(d time.Duration) {
	if !p.m.called() {
		return
	}
	p.mu.Lock()
	p.active--
	p.staff()
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.m.ctx.Done():
	}
	p.mu.Lock()
	p.active++
	p.mu.Unlock()
}

// yield gives back r's share of laterMax, if it has one. The mutex is held.
func (p *pool) yield(r *runner) {
	if r.shares {
		r.shares = false
		p.laterBusy--
	}
}

// park tells that r, a goroutine of the pool, waits for others; another one may do
// its work meanwhile. The function it answers is called when it goes on.
func (p *pool) park(r *runner) (unpark func()) {
	p.mu.Lock()
	p.active--
	p.yield(r)
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
		quiet := p.active == 0 && len(p.queue)+len(p.leaving)+len(p.later) == 0
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
	p.queue, p.leaving, p.later = nil, nil, nil
	p.mu.Unlock()
	p.wg.Wait()
}

func (r *runner) do(t task) {
	switch {
	case t.turn != nil:
		r.hold()
		r.turn(t.box, t.turn)
		r.drive(t.box, t.turn, nil, false)
	case t.load != nil:
		r.m.fill(t.box, t.load)
		r.drive(t.box, t.load, nil, false)
	case t.delivery != nil:
		r.deliver(t.box, t.delivery)
	default:
		r.drive(t.box, t.input, nil, false)
	}
}

// deliver brings casts from a shard of this node to another, and the answer back.
func (r *runner) deliver(from *box, d *core.Delivery) {
	to := r.m.boxes[d.To]
	if r.m.cfg.Peers != nil && to.epoch.Load() == 0 {
		unpark := r.m.pool.park(r)
		d.Err = r.m.cfg.Peers.Deliver(r.m.ctx, d)
		unpark()
		r.drive(from, &core.Delivered{Delivery: d}, nil, false)
		return
	}
	w := r.m.newWaiter()
	d.Shell = w
	r.drive(to, d, w, false)
	unpark := r.m.pool.park(r)
	r.await(r.m.ctx, to, w, nil, false)
	unpark()
	if !w.done {
		return // the node stops; the sender's rows are still there
	}
	r.drive(from, &core.Delivered{Delivery: d}, nil, false)
}
