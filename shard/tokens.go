package shard

import (
	"container/heap"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nolaproject/nola"
)

const (
	// tokenPatience is how long waiting turns see no run token change hands before
	// one of a few extra ones is lent: whoever holds the others is stuck.
	tokenPatience  = 10 * time.Millisecond
	extraTokensMax = 64 // extra tokens at once
	// begunMax is how many turns of a namespace may wait in their midst for a token
	// before they go ahead of those that have not begun.
	begunMax = 256
	// holdWork is what holding a token weighs besides the work done.
	holdWork = 1000
	// heldMax bounds the time that is charged from one yield to the next: a turn that
	// took longer was kept from its processor.
	heldMax = time.Millisecond
	// savedWorkMax is what a namespace that waits may be behind the others: it may
	// have been kept from the line for a moment. It is several times heldMax, so that
	// who waits while long slices end loses nothing by it.
	savedWorkMax = 5_000_000
	// sharesMin is how many shares are kept before idle ones are forgotten.
	sharesMin = 64
)

// tokens are the rights to run a guest: as many turns run at once as there are
// tokens. While turns wait, they go round by namespace: the one whose turns have
// done the least work is next, and turns of one namespace go first come, first
// served. A turn in its midst hands its token over when it yields to others.
//
// Work is steps, or nanoseconds where the steps took longer.
//
// What a namespace took while nobody waited is not held against it, and of what it
// did not take no more than some milliseconds' work is saved up for it.
type tokens struct {
	// waiting is how many wait, lent how many tokens there are too many: running turns
	// look at them without the mutex.
	waiting, lent atomic.Int64
	// start begins a turn that no goroutine waits with.
	start func(t task, token hold)

	mu       sync.Mutex // guards the fields below
	free     []int      // the numbers of tokens that nobody holds
	extra    []int      // the numbers of those that may be lent
	lentAt   uint64     // grants when the last one was lent
	grants   uint64     // tokens given to who had waited
	claims   uint64     // that had to wait
	shares   map[string]*share
	sweepAt  int // number of shares at which idle ones are dropped
	line     line
	clock    uint64        // work of the share that was served last, when it was
	patience time.Duration // how long the line may stand still
	timer    *time.Timer
	seen     uint64 // grants when the timer was set
	closed   bool
}

// share is what a namespace takes of the tokens.
type share struct {
	work    uint64   // done while others waited; at least the clock when it comes to wait
	begun   []*claim // turns in their midst
	fresh   []*claim // others
	waiting int      // claims that are not gone
	at      int      // place in the line; -1 if nobody of it waits
}

// claim is a wish for a token: of a goroutine, or of a turn that needs one.
type claim struct {
	share   *share
	number  uint64 // in the order of arrival
	begun   bool
	granted bool      // its token is on the way
	gone    bool      // nobody waits any more
	token   chan hold // of a goroutine: holds one
	task    task      // instead
}

// hold is a token in somebody's hand.
type hold struct {
	number int
	since  uint64 // grants when it was taken
}

// line is the shares with claims, by work.
type line []*share

func (l line) Len() int           { return len(l) }
func (l line) Less(i, j int) bool { return l[i].work < l[j].work }
func (l line) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

func (l *line) Push(x any) {
	s := x.(*share)
	s.at = len(*l)
	*l = append(*l, s)
}

func (l *line) Pop() any {
	s := (*l)[len(*l)-1]
	(*l)[len(*l)-1] = nil
	*l = (*l)[:len(*l)-1]
	s.at = -1
	return s
}

func (t *tokens) init(n int, patience time.Duration, start func(task, hold)) {
	t.start, t.patience = start, patience
	t.shares, t.sweepAt = make(map[string]*share), sharesMin
	for i := range n {
		t.free = append(t.free, n-1-i)
	}
	for i := range extraTokensMax {
		t.extra = append(t.extra, n+extraTokensMax-1-i)
	}
}

// try takes a token if one is free that nobody waits for.
func (t *tokens) try() (h hold, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.take()
}

// take is try. The mutex is held.
func (t *tokens) take() (h hold, ok bool) {
	n := len(t.free)
	if n == 0 || t.closed {
		return hold{}, false
	}
	h = hold{t.free[n-1], t.grants}
	t.free = t.free[:n-1]
	return h, true
}

// claim takes a token, or has c wait for one: ok tells which. begun says that the
// turn is in its midst.
func (t *tokens) claim(namespace string, begun bool, c *claim) (h hold, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h, ok = t.take(); !ok {
		t.wait(namespace, begun, c)
	}
	return h, ok
}

// wait puts c into the line. The mutex is held.
func (t *tokens) wait(namespace string, begun bool, c *claim) {
	s := t.shareOf(namespace)
	t.claims++
	c.share, c.number, c.begun, c.granted, c.gone = s, t.claims, begun, false, false
	if begun {
		s.begun = append(s.begun, c)
	} else {
		s.fresh = append(s.fresh, c)
	}
	if s.waiting++; s.waiting == 1 {
		s.work = t.floor(s.work)
		heap.Push(&t.line, s)
	}
	if t.waiting.Add(1) == 1 && !t.closed {
		t.watch()
	}
}

// shareOf finds the share of a namespace, or makes one. The mutex is held.
func (t *tokens) shareOf(namespace string) *share {
	s := t.shares[namespace]
	if s != nil {
		return s
	}
	if len(t.shares) >= t.sweepAt {
		for name, idle := range t.shares {
			if idle.waiting == 0 {
				delete(t.shares, name) // what it has taken is forgiven
			}
		}
		t.sweepAt = max(sharesMin, 2*len(t.shares))
	}
	s = &share{work: t.clock, at: -1}
	t.shares[namespace] = s
	return s
}

// charge counts work that a namespace has done. The mutex is held.
func (t *tokens) charge(namespace string, work uint64) *share {
	s := t.shareOf(namespace)
	s.work = t.floor(s.work) + work
	if s.at >= 0 {
		heap.Fix(&t.line, s.at)
	}
	return s
}

// floor is work, or more: how far back a share may be. The mutex is held.
func (t *tokens) floor(work uint64) uint64 {
	return max(work, t.clock-min(t.clock, savedWorkMax))
}

// giveBack ends a hold, after work that was done since the last yield. If a
// task is next it answers that, which the caller has to run with the token.
func (t *tokens) giveBack(h hold, namespace string, work uint64) (next task, with hold, some bool) {
	t.mu.Lock()
	if len(t.line) > 0 {
		t.charge(namespace, work+holdWork)
	}
	c, h := t.pass(h)
	t.mu.Unlock()
	switch {
	case c == nil:
	case c.token == nil:
		return c.task, h, true
	default:
		c.token <- h
	}
	return task{}, hold{}, false
}

// yield has a turn hand its token over if others are before it, or if another one was
// lent because this one seemed stuck, after work that was done since the last yield. It
// reports whether the turn keeps the token; if not, c waits for one.
func (t *tokens) yield(h hold, namespace string, work uint64, c *claim) (kept bool) {
	t.mu.Lock()
	tooMany := t.lent.Load() > 0 && h.since <= t.lentAt
	if len(t.line) == 0 && !tooMany {
		t.mu.Unlock()
		return true
	}
	if s := t.charge(namespace, work); !tooMany && t.line[0].work > s.work {
		t.mu.Unlock()
		return true
	}
	next, h := t.pass(h)
	t.wait(namespace, true, c)
	t.mu.Unlock()
	t.grant(next, h)
	return false
}

// pass gives h to the first in the line. Without one it becomes free; one that was
// lent, or that another was lent for, is taken back. Nobody gets any more once
// the tokens are closed. The mutex is held.
func (t *tokens) pass(h hold) (*claim, hold) {
	switch {
	case t.closed:
	case t.lent.Load() > 0 && (len(t.line) == 0 || h.since <= t.lentAt):
		t.lent.Add(-1)
		t.extra = append(t.extra, h.number)
	case len(t.line) == 0:
		t.free = append(t.free, h.number)
	default:
		return t.next(h.number)
	}
	return nil, h
}

// next takes the first claim out of the line, for the token of that number. The
// mutex is held; somebody waits.
func (t *tokens) next(number int) (*claim, hold) {
	s := t.line[0]
	t.clock = max(t.clock, s.work)
	s.begun, s.fresh = present(s.begun), present(s.fresh)
	queue := &s.fresh
	if len(s.begun) > 0 && (len(s.fresh) == 0 || len(s.begun) > begunMax || s.begun[0].number < s.fresh[0].number) {
		queue = &s.begun
	}
	c := (*queue)[0]
	(*queue)[0] = nil
	*queue = (*queue)[1:]
	c.granted = true
	t.leave(s)
	t.grants++
	return c, hold{number, t.grants}
}

// present is queue from the first claim on that is not gone.
func present(queue []*claim) []*claim {
	for len(queue) > 0 && queue[0].gone {
		queue[0] = nil
		queue = queue[1:]
	}
	return queue
}

// leave notes that one claim fewer of s waits. The mutex is held.
func (t *tokens) leave(s *share) {
	if s.waiting--; s.waiting == 0 {
		heap.Remove(&t.line, s.at)
		s.begun, s.fresh = nil, nil
	}
	t.waiting.Add(-1)
}

// grant gives a token to who waited for it. The mutex is not held.
func (t *tokens) grant(c *claim, h hold) {
	switch {
	case c == nil:
	case c.token == nil:
		t.start(c.task, h)
	default:
		c.token <- h
	}
}

// abandon takes a claim back. It reports false if that has got a token already.
func (t *tokens) abandon(c *claim) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.granted {
		return false
	}
	c.gone = true
	t.leave(c.share)
	return true
}

// watch looks again after a while whether tokens change hands. The mutex is held.
func (t *tokens) watch() {
	t.seen = t.grants
	if t.timer == nil {
		t.timer = time.AfterFunc(t.patience, t.lend)
		return
	}
	t.timer.Reset(t.patience)
}

// lend gives out an extra token if none has changed hands for a while.
func (t *tokens) lend() {
	t.mu.Lock()
	var c *claim
	var h hold
	if n := len(t.extra); len(t.line) > 0 && !t.closed && t.grants == t.seen && n > 0 {
		t.lent.Add(1)
		t.lentAt = t.grants
		c, h = t.next(t.extra[n-1])
		t.extra = t.extra[:n-1]
	}
	if len(t.line) > 0 && !t.closed {
		t.watch()
	}
	t.mu.Unlock()
	t.grant(c, h)
}

// close has nobody get a token any more; who waits has to leave by itself.
func (t *tokens) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// hold has r hold a token for the turn of h, which is about to begin; nested says
// that it does so in the midst of another one on this goroutine.
func (r *runner) hold(h *host, nested bool) error {
	namespace := h.t.Act.Ref().Namespace
	// A goroutine of the pool has got its token for this turn, by mayTurn or in the line.
	waited := r.pooled // what the pool does has stood in a line, perhaps
	defer func() {
		if waited {
			h.waited = max(0, r.m.cfg.Now().Sub(h.t.Now))
		}
		r.since = h.t.Now.Add(h.waited)
	}()
	if r.holds && (r.pooled && !nested || r.m.tokens.waiting.Load() == 0) {
		r.namespace, r.steps = namespace, 0
		return nil
	}
	r.release()
	r.namespace = namespace
	var deadline time.Time
	if h.t.Call != nil && !h.t.Unawaited() {
		deadline = h.t.Call.Inv.Deadline
	}
	had, err := r.claim(nested, deadline, h.g)
	waited = waited || had
	return err
}

// resume has r hold a token again for the turn in whose midst it is. Without one
// the turn ends when it yields next.
func (r *runner) resume() {
	if h := r.current; !r.holds && h != nil {
		_, _ = r.claim(true, h.until(), h.g)
		r.since = r.m.cfg.Now()
	}
}

// release gives the token back, if r holds one.
func (r *runner) release() {
	if t, some := r.pass(); some {
		r.holds = false
		r.m.pool.start(t, r.token)
	}
}

// pass is release, but if a turn is next that no goroutine waits with, r has its
// token then and has to run it.
func (r *runner) pass() (next task, some bool) {
	if r.holds {
		var work uint64
		if r.m.tokens.waiting.Load() > 0 {
			work = r.work(r.m.cfg.Now())
		}
		next, r.token, r.holds = r.m.tokens.giveBack(r.token, r.namespace, work)
		r.steps = 0
	}
	return next, r.holds
}

// work is what is to be charged for the token by now.
func (r *runner) work(now time.Time) uint64 {
	return max(r.steps, uint64(min(max(0, now.Sub(r.since)), heldMax)))
}

// claim waits for a token, and tells if it had to.
func (r *runner) claim(begun bool, deadline time.Time, g *guest) (waited bool, err error) {
	if r.token, r.holds = r.m.tokens.try(); r.holds {
		return false, nil
	}
	c := r.newClaim()
	if r.token, r.holds = r.m.tokens.claim(r.namespace, begun, c); r.holds {
		return false, nil
	}
	return true, r.receive(c, deadline, g)
}

func (r *runner) newClaim() *claim {
	if c := r.spare; c != nil {
		r.spare = nil
		return c
	}
	return &claim{token: make(chan hold, 1)}
}

// receive waits for the token that c is for, until the turn has to end: by its
// deadline, or because g is told so, or because the node stops.
func (r *runner) receive(c *claim, deadline time.Time, g *guest) (err error) {
	var expired <-chan time.Time
	// Virtual time stands still as long as anybody is at work.
	if !deadline.IsZero() && r.m.cfg.Virtual == nil {
		t := time.NewTimer(deadline.Sub(r.m.cfg.Now()))
		defer t.Stop()
		expired = t.C
	}
	poked := g.poked()
	for err = g.stopped(); err == nil; err = g.stopped() {
		select {
		case r.token = <-c.token:
			r.holds, r.spare = true, c
			return nil
		case <-poked:
			continue
		case <-expired:
			err = errNoToken()
		case <-r.m.ctx.Done():
			err = nola.Errorf(nola.ReasonUnavailable, "the node is stopping; the turn was rolled back, try again")
		}
		break
	}
	if !r.m.tokens.abandon(c) {
		r.token = <-c.token
		r.holds, r.spare = true, c
	}
	return err
}

func errNoToken() *nola.Error {
	return nola.Errorf(nola.ReasonDeadlineExceeded, "the deadline passed while the turn waited for a processor; nothing of it stands. The node is busy: try again later, or give it more time")
}

// Yield hands the run token over if others are before this turn, and waits until
// it is its turn again.
func (h *host) Yield(steps uint64) error {
	r, t := h.r, &h.r.m.tokens
	now := r.m.cfg.Now()
	h.worked += now.Sub(r.since)
	r.steps += steps - h.yielded
	h.yielded = steps
	parked := false
	switch {
	case !r.holds: // when it last wanted to have one, it had to end
		_, err := r.claim(true, h.deadline(), h.g)
		r.since = r.m.cfg.Now()
		return err
	case t.waiting.Load() > 0 || t.lent.Load() > 0:
		c := r.newClaim()
		if t.yield(r.token, r.namespace, r.work(now), c) {
			r.spare = c
			break
		}
		r.holds, r.steps = false, 0
		if err := r.receive(c, h.deadline(), h.g); err != nil {
			return err
		}
		parked, now = true, r.m.cfg.Now()
	}
	r.steps, r.since = 0, now
	if d := h.restTime(steps, now); d > 0 {
		return h.rest(d)
	}
	if !parked {
		runtime.Gosched() // for the collector, which the scheduler by itself would make wait for 10 ms
	}
	return nil
}

const (
	// A turn takes longSteps, some 150 us of a small loop, or longTime if its steps
	// take longer, before it rests if others have begun meanwhile: for restMin, or
	// restShare times as long as it worked, but for no longer than restMax. On the way of
	// a call through client, network and server it may meet such a stretch several times.
	// What is done in one piece, such as parsing megabytes of JSON, takes some 20 ms.
	longSteps = 200_000
	longTime  = 200 * time.Microsecond
	restMin   = time.Millisecond
	restShare = 6
	restMax   = 64 * time.Millisecond
	// aloneTime is after how much rest, with none begun meanwhile, a turn is alone:
	// before, others may just have been kept from beginning by the processor that it has.
	aloneTime = 64 * time.Millisecond
)

// restTime is for how long the turn is to rest now: it has taken many steps, or much
// time, while others begin, or did a moment ago. Alone it runs at full speed, without
// rest. It rests no longer than it may run.
func (h *host) restTime(steps uint64, now time.Time) time.Duration {
	if steps-h.rested < longSteps && h.worked < longTime {
		return 0
	}
	d := min(max(restMin, restShare*h.worked), restMax, h.deadline().Sub(now))
	h.rested, h.worked = steps, 0
	if begun := h.r.m.begun.Load(); begun != h.others {
		h.others, h.alone = begun, 0
	} else if h.alone >= aloneTime {
		return 0
	}
	return d
}

// rest leaves the token to others, and the processor: as long as a turn is always
// ready, that never looks at the network nor takes work off the others.
func (h *host) rest(d time.Duration) error {
	r, m := h.r, h.r.m
	r.release()
	time.Sleep(d) //nolint:forbidigo // nothing is waited for: the processor is left to others
	h.alone += d
	if f := m.cfg.Events.Rested; f != nil {
		f(h.t.Act.Ref())
	}
	_, err := r.claim(true, h.deadline(), h.g)
	r.since = m.cfg.Now()
	return err
}
