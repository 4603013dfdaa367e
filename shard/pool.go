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
// What is due has a queue of its own, and so has SHUTDOWN of actors that nobody asks
// for. While others call, the two get some of the processors only, so that a herd
// that is due at one instant does not stand in front of calls; they always get one, so
// that they are not starved either.
//
// Other turns do not queue here but for a run token. Whoever is at one task for long
// is no longer one of the workers: long turns keep no other work waiting.
type pool struct {
	m      *Manager
	max    int           // goroutines at work
	dueMax int           // of these, on what is due while others call
	quiet  chan struct{} // poked when nothing is left to do
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	queue   fifo[task]
	due     rounds
	ends    endings
	active  int // workers, not parked
	dueBusy int // of these, with a share of dueMax
	endNext bool
	turns   int // that run, or wait for a token
	closed  bool
}

// taskPatience is how long a task counts against the workers, and against dueMax: one
// that takes longer, such as a guest that loops, holds up no other.
const taskPatience = 10 * time.Millisecond

const (
	dueSlice   = time.Millisecond // of work on what is due, before a rest as long
	dueRestMax = 5 * time.Millisecond
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

// namespace is whose turn the task is; empty if it is not a turn.
func (t *task) namespace() string {
	if t.turn == nil {
		return ""
	}
	return t.turn.Act.Ref().Namespace
}

// due reports whether the task is about what became due, and nobody waits for it.
func (t *task) due() bool {
	if t.turn != nil {
		return t.turn.WasDue()
	}
	_, tick := t.input.(*core.Tick)
	return tick
}

func (p *pool) init(m *Manager, workers, tokens int) {
	p.m, p.max, p.dueMax = m, workers, max(1, tokens/2)
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
	switch {
	case t.due():
		p.due.push(t)
	case t.turn != nil:
		p.turns++
		p.mu.Unlock()
		p.line(t)
		return
	default:
		p.queue.push(t)
	}
	p.staff()
	p.mu.Unlock()
}

// submitEnd queues the SHUTDOWN of an actor that nobody asks for.
func (p *pool) submitEnd(b *box, t *core.Turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.m.work.begin()
	p.ends.push(task{box: b, turn: t})
	p.staff()
}

// hurry has a SHUTDOWN that is queued get into the line for a run token, as what
// callers wait for does.
func (p *pool) hurry(turn *core.Turn) {
	p.mu.Lock()
	t, ok := p.ends.remove(turn)
	if !ok || p.closed {
		p.mu.Unlock()
		return
	}
	p.turns++
	p.mu.Unlock()
	p.line(t)
}

// line starts a turn, or puts it into the line for a run token.
func (p *pool) line(t task) {
	if h, ok := p.m.tokens.claim(t.namespace(), false, &claim{task: t}); ok {
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
	p.wg.Go(func() { p.run(t, h) })
}

// run runs a turn that has got a token, and then those that wait for that token
// and have no goroutine of their own.
func (p *pool) run(t task, h hold) {
	r := &runner{m: p.m, pooled: true, turning: true, token: h, holds: true}
	for some := true; some; {
		r.namespace = t.namespace()
		r.do(t)
		t, some = r.pass()
		p.m.work.end()
		p.mu.Lock()
		p.turns--
		p.tell()
		some = some && !p.closed
		p.mu.Unlock()
	}
	r.release()
}

// mayTurn reports whether r, for whom nobody waits, may run a turn of a namespace
// itself: it has a token that nobody waits for.
func (r *runner) mayTurn(namespace string) bool {
	if r.holds && r.m.tokens.waiting.Load() > 0 {
		return false // the turn gets into the line
	}
	if !r.holds {
		r.token, r.holds = r.m.tokens.try()
		r.steps = 0
	}
	r.namespace = namespace
	return r.holds
}

// leave takes r from among the workers, for its task takes long. The mutex is held.
func (p *pool) leave(r *runner) {
	if !r.turning {
		r.turning = true
		p.turns++
		p.active--
	}
}

// tell wakes who waits until nothing is left to do. The mutex is held.
func (p *pool) tell() {
	if !p.idle() {
		return
	}
	select {
	case p.quiet <- struct{}{}:
	default:
	}
}

// idle reports whether nothing is left to do. The mutex is held.
func (p *pool) idle() bool {
	return p.active == 0 && p.turns == 0 && p.queue.len() == 0 && !p.later()
}

// later reports whether there is something of what leaves room for calls. The mutex
// is held.
func (p *pool) later() bool { return p.due.n > 0 || p.ends.n > 0 }

// some reports whether there is a task that may be begun. The mutex is held.
func (p *pool) some() bool {
	return p.queue.len() > 0 || p.later() && p.dueBusy < p.dueRoom()
}

// dueRoom is how many workers may be at what is due: more would only wait for
// tokens.
func (p *pool) dueRoom() int {
	if p.m.called() {
		return p.dueMax
	}
	return 2 * p.dueMax
}

// staff starts goroutines while there is work and room. The mutex is held.
func (p *pool) staff() {
	if p.active < p.max && p.some() {
		p.active++
		p.wg.Go(p.work)
	}
}

// take answers the next task, and whether it is of what leaves room for calls. The
// mutex is held, and there is one.
func (p *pool) take() (t task, later bool) {
	if p.queue.len() == 0 {
		if p.endNext = !p.endNext; p.ends.n > 0 && (p.endNext || p.due.n == 0) {
			return p.ends.pop(), true
		}
		return p.due.pop(), true
	}
	return p.queue.pop(), false
}

// fifo is a queue that uses its memory again.
type fifo[T any] struct {
	items []T
	head  int // those before it are gone
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(t T) {
	if len(q.items) == cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, t)
}

// pop answers the first; there is one.
func (q *fifo[T]) pop() (t T) {
	t, q.items[q.head] = q.items[q.head], t
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return t
}

// rounds is a queue of tasks in which namespaces take turns.
type rounds struct {
	n     int
	queue map[string]*fifo[task]
	order fifo[string] // of namespaces with tasks, the next one first
}

func (q *rounds) push(t task) {
	namespace := t.namespace()
	tasks := q.queue[namespace]
	if tasks == nil {
		if q.queue == nil {
			q.queue = make(map[string]*fifo[task])
		}
		tasks = new(fifo[task])
		q.queue[namespace] = tasks
		q.order.push(namespace)
	}
	tasks.push(t)
	q.n++
}

// pop answers the next task; there is one.
func (q *rounds) pop() task {
	namespace := q.order.pop()
	tasks := q.queue[namespace]
	t := tasks.pop()
	if tasks.len() > 0 {
		q.order.push(namespace)
	} else {
		delete(q.queue, namespace)
	}
	q.n--
	return t
}

// endings is a queue of SHUTDOWN turns, first come, first served, out of which
// single ones may be taken.
type endings struct {
	n     int // that are not gone
	queue fifo[*task]
	of    map[*core.Turn]*task
}

func (q *endings) push(t task) {
	if q.of == nil {
		q.of = make(map[*core.Turn]*task)
	}
	q.of[t.turn] = &t
	q.queue.push(&t)
	q.n++
}

// remove takes the turn out, if it is there.
func (q *endings) remove(turn *core.Turn) (t task, ok bool) {
	e := q.of[turn]
	if e == nil {
		return task{}, false
	}
	t, *e = *e, task{} // its place in the queue is passed over
	delete(q.of, turn)
	if q.n--; q.n == 0 {
		q.queue = fifo[*task]{}
	}
	return t, true
}

// pop answers the next task; there is one.
func (q *endings) pop() task {
	for {
		e := q.queue.pop()
		if e.turn != nil {
			t, _ := q.remove(e.turn)
			return t
		}
	}
}

// work does tasks until there are none.
func (p *pool) work() {
	r := &runner{m: p.m, pooled: true}
	patience := time.AfterFunc(taskPatience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.busy {
			p.yield(r)
			p.leave(r)
			p.staff()
		}
	})
	defer patience.Stop()
	var spent time.Duration // on what was due, since the last rest
	for {
		p.mu.Lock()
		p.yield(r)
		if !p.some() || p.active > p.max {
			p.active--
			p.tell()
			p.mu.Unlock()
			return
		}
		t, due := p.take()
		if due {
			r.shares = true
			p.dueBusy++
		}
		r.busy = true
		patience.Reset(taskPatience)
		p.staff()
		p.mu.Unlock()
		began := time.Now()
		r.do(t)
		r.release()
		p.m.work.end()
		patience.Stop()
		p.mu.Lock()
		r.busy = false
		if r.turning {
			r.turning = false
			p.turns--
			p.active++
		}
		p.mu.Unlock()
		if !due {
			continue
		}
		if spent += time.Since(began); spent >= dueSlice {
			p.rest(min(spent, dueRestMax))
			spent = 0
		}
	}
}

// rest lets others have the processor, and the goroutine's place in the pool, if
// somebody calls. What is due waits meanwhile.
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

// yield gives back r's share of dueMax, if it has one. The mutex is held.
func (p *pool) yield(r *runner) {
	if r.shares {
		r.shares = false
		p.dueBusy--
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
		quiet := p.idle()
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
	p.queue, p.due, p.ends = fifo[task]{}, rounds{}, endings{}
	p.mu.Unlock()
	p.wg.Wait()
}

func (r *runner) do(t task) {
	switch {
	case t.turn != nil:
		r.turn(t.box, t.turn)
		r.drive(t.box, t.turn, nil, false)
	case t.load != nil:
		r.m.fill(t.box, t.load)
		r.drive(t.box, t.load, nil, false)
	case t.delivery != nil:
		r.deliver(t.box, t.delivery)
	default:
		if _, tick := t.input.(*core.Tick); tick {
			t.box.ticking.Store(false) // what is noted from here on brings another
		}
		r.drive(t.box, t.input, nil, false)
		if in, ok := t.input.(*core.Shed); ok {
			r.m.room.asked.Add(-in.Bytes)
		}
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
