package core

import (
	"slices"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Activation is an actor in memory, under one epoch.
type Activation struct {
	// Shell belongs to the owner of the shard: the instance, and what it keeps
	// with it. It is used by whoever runs the actor's turn.
	Shell any

	ref     nola.ActorRef
	loading bool
	due     int     // calls that are due and wait until it is loaded
	held    int     // by so many deliveries
	waiting []Input // arrived while loading
	exists  bool
	meta    persistence.Meta

	// The overlay: what the store does not have yet, and some of what it has.
	cells     map[string]cell
	cellBytes int
	timers    map[string]timerCell
	// timerCount is how many timers there are, once a turn has counted them.
	timerCount    int
	timersCounted bool

	// reminders are those changed in groups that are not committed: whether there
	// is one of that name now.
	reminders map[string]reminderCell

	deferred        map[nola.Token]deferral
	deferredCount   int // how many there are, once a turn has counted them
	deferredCounted bool
	awaited         int // of them with a caller that waits here

	// memory is what the actor keeps of its instance's memory; nil if nothing.
	memory *nola.Memory

	keys         map[keyID]*keyEntry
	userKeys     persistence.UserKeys
	userKeysRead bool

	// queue holds what waits in memory; casts is the start of the backlog, whose
	// numbers run from head (the next to run) over loaded (the next to read) to
	// tail (the next to be given).
	queue              callList
	casts              callList
	head, loaded, tail uint64
	headTotal, total   uint64
	paging             bool
	firing             map[string]*Call // timers that are due, by name

	running   bool
	order     *Control // the deletion that reads what there is to delete
	turn      Turn
	dep       nola.Seq // the last group with effects of this actor
	inGroup   nola.Seq // the last group that lists this actor
	deleting  nola.Seq // the group that deletes the actor, 0 if none
	stopping  bool     // passivated as soon as everything is durable
	isStalled bool
	fresh     bool // the instance must be replaced before the next turn
	// wokenOnce says that it holds an instance for the one turn it has had, which
	// nobody waited for. Most who are woken so go back to sleep for long, often many
	// at one instant: each would get an instance of its own, and take it from actors
	// that are called. Who has another turn soon keeps its instance from then on.
	wokenOnce bool
	hurried   bool // somebody waits for the end of its SHUTDOWN
	asleep    bool // it has no instance, which was given back before anybody asked for it

	used         time.Time
	number       uint64 // of the next turn; the first one has 1, so that 0 is before it
	turns, steps uint64
	bytes        int64
	prev, next   *Activation
	list         *actList // idle or asleep; nil if it has something to do
}

// Ref names the actor.
func (a *Activation) Ref() nola.ActorRef { return a.ref }

// InitPayload is what the actor was created with.
func (a *Activation) InitPayload() []byte { return a.meta.InitPayload }

// Memory is what the actor keeps of its memory, as all turns before left it; nil
// if it keeps none. It may be read by the actor's turn while that runs.
func (a *Activation) Memory() *nola.Memory { return a.memory }

type cell struct {
	value   []byte
	deleted bool
	seq     nola.Seq
}

type timerCell struct {
	due       time.Time // zero: there is none
	operation string
	payload   []byte
	seq       nola.Seq
}

type reminderCell struct {
	exists bool
	seq    nola.Seq
}

// Lookup reads the overlay: known is false if only the store can tell. It may
// be used by the actor's turn while that runs, and so may OverlayRange.
func (a *Activation) Lookup(key string) (value []byte, found, known bool) {
	c, ok := a.cells[key]
	return c.value, ok && !c.deleted, ok || !a.exists // without the actor there is no state
}

// OverlayRange answers what the overlay knows of the keys that start with
// prefix, in ascending order; Deleted ones hide what the store has.
func (a *Activation) OverlayRange(prefix string) []nola.Write {
	var out []nola.Write
	for k, c := range a.cells {
		if strings.HasPrefix(k, prefix) {
			out = append(out, nola.Write{Key: k, Value: c.value, Deleted: c.deleted})
		}
	}
	slices.SortFunc(out, func(x, y nola.Write) int { return strings.Compare(x.Key, y.Key) })
	return out
}

// LookupTimer reads the overlay of timers: known is false if only the store can
// tell; due is zero if there is no such timer.
func (a *Activation) LookupTimer(name string) (due time.Time, known bool) {
	t, ok := a.timers[name]
	return t.due, ok
}

// TimerOf is a timer that the overlay knows, which must be due.
func (a *Activation) TimerOf(name string) nola.Timer {
	t := a.timers[name]
	return nola.Timer{Name: name, Operation: t.operation, Payload: t.payload, Due: t.due}
}

// OverlayReminders calls fn with the reminders that the overlay knows to be
// there, or not to be.
func (a *Activation) OverlayReminders(fn func(name string, exists bool)) {
	for name, r := range a.reminders {
		fn(name, r.exists)
	}
}

// TimerCount answers how many timers the actor has, if that is known.
func (a *Activation) TimerCount() (n int, known bool) { return a.timerCount, a.timersCounted }

// OverlayTimers answers the names of the timers that the overlay knows, sorted.
func (a *Activation) OverlayTimers() []string {
	names := make([]string, 0, len(a.timers))
	for name := range a.timers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Call is one invocation on its way through the shard. Whoever brings it in
// sets Inv, and leaves the rest alone until it is answered.
type Call struct {
	Ticket
	Inv *nola.Invocation
	// Hash is nola.RequestHash of the request; needed for keyed calls.
	Hash [16]byte
	// Early marks a nested call from an actor of the same shard: it is answered
	// at the end of its turn, before the commit, and Dep tells which group the
	// answer rests on. On the way in By is the turn that calls, and Dep what it
	// has read.
	Early  bool
	By     *Turn
	Dep    nola.Seq
	Result nola.Result
	// Unwritten says that nothing was committed for the answer: it rests on what
	// is in memory alone.
	Unwritten bool

	// Where it came from, if nobody waits for it.
	origin origin
	number uint64 // in the backlog
	total  uint64
	due    persistence.DueRow
	sched  *schedule
	run    nola.Running

	control *Control // set: this is not an invocation but a demand of this kind
	order   *Order   // set: this is not an invocation but an order

	act      *Activation
	after    uint64 // casts below this number run first
	entry    *keyEntry
	asked    *Activation // for which the key is being looked up
	seen     *Load       // what came of it before the actor was loaded
	admitted bool
	queued   bool
	started  bool // markStarted has been folded
	flies    bool // counted among those that the due index brought about
	next     *Call
}

type origin uint8

const (
	fromCaller  origin = iota // somebody waits for the answer
	fromBacklog               // a cast
	fromDue                   // a timer, or a delayed or retried cast
	fromSchedule
)

// callList is a FIFO of calls; a call is in one list at a time.
type callList struct {
	head, tail *Call
	n          int
}

func (l *callList) push(c *Call) {
	c.next, c.queued = nil, true
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
	l.n++
}

func (l *callList) pop() *Call {
	c := l.head
	if c == nil {
		return nil
	}
	if l.head = c.next; l.head == nil {
		l.tail = nil
	}
	c.next, c.queued = nil, false
	l.n--
	return c
}

func (l *callList) remove(c *Call) {
	var before *Call
	for x := l.head; x != nil; before, x = x, x.next {
		if x != c {
			continue
		}
		if before == nil {
			l.head = x.next
		} else {
			before.next = x.next
		}
		if l.tail == x {
			l.tail = before
		}
		x.next, x.queued = nil, false
		l.n--
		return
	}
}

// activation answers the actor in memory, and starts to load it if it is not.
func (s *Shard) activation(ref nola.ActorRef, out *Output) *Activation {
	if a := s.acts[ref]; a != nil {
		return a
	}
	a := &Activation{ref: ref, loading: true, used: s.now, number: 1}
	s.acts[ref] = a
	// An actor leaves memory without a backlog, so only one from an earlier
	// tenure can have one.
	s.ask(out, Load{Kind: LoadActor, Ref: ref, Behind: s.behind[ref], act: a})
	return a
}

// loaded takes in what the store has of an actor.
func (s *Shard) loadedActor(l *Load, out *Output) {
	a := l.act
	s.due.reads(a.ref.Namespace, -a.due)
	a.due = 0
	if s.acts[a.ref] != a {
		return
	}
	waiting := a.waiting
	a.waiting, a.loading = nil, false
	if l.Err != nil {
		delete(s.acts, a.ref)
		err := nola.Errorf(nola.ReasonUnavailable, "cannot read %s from the store: %v", a.ref, l.Err)
		again := s.now.Add(ioRetry)
		for _, in := range waiting {
			switch in := in.(type) {
			case *Call:
				if in.origin != fromCaller {
					s.due.after(again, &localDue{call: in})
					continue
				}
				s.release(in)
			case *expire:
				s.due.after(again, &localDue{row: in.row()})
				continue
			case *Order:
				if in.Expires() {
					s.due.after(again, &localDue{row: in.row})
					continue
				}
			}
			s.refuseInput(in, err, out)
		}
		if l.Behind {
			s.due.after(again, &localDue{wake: a.ref})
		}
		return
	}
	delete(s.behind, a.ref)
	a.exists, a.meta, a.memory = l.Found, l.Meta, l.Memory
	s.setBytes(a, 0)
	a.userKeys, a.userKeysRead = l.UserKeys, true
	if l.Last.Invocation != nil {
		a.head, a.loaded, a.tail = l.First.Number, l.First.Number, l.Last.Number+1
		a.total = l.Last.Total
		a.headTotal = l.First.Total - castBytes(l.First.Invocation)
	}
	for i, in := range waiting {
		a.waiting = waiting[i+1:] // it stays for those
		in.step(s, out)
	}
	a.waiting = nil // what was stepped is not held any longer
	s.runNext(a, out)
}

func castBytes(inv *nola.Invocation) uint64 {
	const overhead = 64
	return uint64(len(inv.Payload) + len(inv.Operation) + overhead)
}

func (c *Call) step(s *Shard, out *Output) {
	if s.fenced != nil || c.By != nil && c.By.epoch != s.epoch {
		s.release(c)
		s.refuse(&c.Ticket, errMoving(s.id), out)
		return
	}
	if !c.admitted && c.origin == fromCaller {
		if s.leaving != nil && !c.Early {
			s.refuse(&c.Ticket, errMoving(s.id), out)
			return
		}
		if err := s.admit(s.acts[c.Inv.Target], c); err != nil {
			s.refuse(&c.Ticket, err, out)
			return
		}
	}
	a := s.activation(c.Inv.Target, out)
	c.act = a
	if c.origin == fromDue && c.due.Kind == persistence.DueTimer {
		if a.firing == nil {
			a.firing = make(map[string]*Call)
		}
		a.firing[c.due.Name] = c
	}
	if a.loading {
		a.waiting = append(a.waiting, c)
		if len(a.waiting) == 1 && c.keyed() && !c.Inv.Key.IsUser() {
			// Now, while the actor is read: afterwards it would take as long again. A
			// user's key comes with the actor's rows.
			s.lookUp(a, c, out)
		}
		if c.wasDue() {
			a.due++
			s.due.reads(a.ref.Namespace, 1)
		}
		return
	}
	s.touch(a)
	if c.keyed() {
		s.recognise(a, c, out)
	} else {
		s.enter(a, c, out)
	}
	s.runNext(a, out)
}

// keyed reports whether c has a key that was not recognised yet.
func (c *Call) keyed() bool {
	return !c.Inv.Key.IsZero() && c.entry == nil && c.origin == fromCaller
}

// admit counts c in, or refuses it. a is nil while the actor is not in memory.
func (s *Shard) admit(a *Activation, c *Call) error {
	switch {
	case a != nil && len(a.waiting) >= s.limits.MailboxMax,
		a != nil && a.queue.n >= s.limits.MailboxMax && c.Inv.Kind == nola.KindCall:
		return errMailboxFull(a.ref, s.limits.MailboxMax)
	case s.calls >= s.limits.CallsMax:
		return errOverloaded(s.id, int64(s.limits.CallsMax), "calls")
	case s.callBytes+int64(len(c.Inv.Payload)) > s.limits.CallBytesMax && s.calls > 0:
		return errOverloaded(s.id, s.limits.CallBytesMax, "bytes")
	}
	c.admitted = true
	s.calls++
	s.callBytes += int64(len(c.Inv.Payload))
	return nil
}

// release counts c out. It may be called again.
func (s *Shard) release(c *Call) {
	if c.admitted {
		c.admitted = false
		s.calls--
		s.callBytes -= int64(len(c.Inv.Payload))
	}
}

// enter puts an admitted, recognised call where it waits for its turn; a cast
// from outside becomes durable here.
func (s *Shard) enter(a *Activation, c *Call, out *Output) {
	if c.Inv.Kind == nola.KindCast && c.origin == fromCaller {
		s.acceptCast(a, c, out)
		return
	}
	c.after = a.tail
	a.queue.push(c)
	if c.origin == fromCaller {
		a.hurry(out)
	}
}

// hurry asks for the SHUTDOWN of a to be run soon, if that is what the call that
// has just come must wait for.
func (a *Activation) hurry(out *Output) {
	if a.running && a.turn.Shutdown != "" && !a.hurried {
		a.hurried = true
		out.Hurry = append(out.Hurry, &a.turn)
	}
}

// Cancel takes a call back whose caller waits no longer, if its turn has not
// started; its answer is Err then. If it has, nothing happens.
type Cancel struct {
	Call *Call
	Err  error
}

func (in *Cancel) step(s *Shard, out *Output) {
	c := in.Call
	a := c.act
	if c.decided || a == nil || s.acts[a.ref] != a {
		return
	}
	switch {
	case c.queued:
		a.queue.remove(c)
	case a.loading:
		a.waiting = slices.DeleteFunc(a.waiting, func(w Input) bool { return w == Input(c) })
	case c.entry != nil && c.entry.call != c:
		c.entry.waiters = slices.DeleteFunc(c.entry.waiters, func(w *Call) bool { return w == c })
		if e := c.entry; e.call == nil && len(e.waiters) == 0 && e.seq == 0 && a.keys[e.id] == e {
			delete(a.keys, e.id) // it was deferred in another activation
		}
	case c.entry != nil && c.entry.looking:
		c.entry.cancelled = true
	default:
		return
	}
	s.release(c)
	s.refuse(&c.Ticket, in.Err, out)
	if c.entry != nil && c.entry.call == c && !c.entry.looking {
		s.succeed(a, c.entry, out)
	}
	s.runNext(a, out)
}

// runNext starts the next turn of a, if it may have one.
func (s *Shard) runNext(a *Activation, out *Output) {
	if a.running || a.loading || a.deleting != 0 || s.fenced != nil || s.acts[a.ref] != a {
		return
	}
	if s.leaving != nil && a.queue.head == nil {
		return
	}
	if s.pending > s.limits.PendingBytesMax {
		if !a.isStalled {
			a.isStalled = true
			s.stalled = append(s.stalled, a)
		}
		return
	}
	c := s.pick(a, out)
	if c == nil {
		s.rest(a, out)
		return
	}
	a.stopping, a.asleep = false, false
	a.unlist()
	a.running = true
	s.turns++
	if c.order != nil {
		a.turn = Turn{Act: a, Number: a.number, Order: c.order, Now: s.now, epoch: s.epoch, dep: a.dep}
		out.Turns = append(out.Turns, &a.turn)
		return
	}
	inv := c.Inv
	if c.origin != fromCaller {
		// Nobody waits, so the deadline is that of this attempt.
		if c.origin != fromSchedule { // a firing made its own; others are in the index or the backlog too
			d := *inv
			inv = &d
			c.Inv = inv
		}
		inv.Deadline = s.now.Add(nola.TurnTimeoutDefault)
	}
	a.turn = Turn{Act: a, Number: a.number, Call: c, Now: s.now, Fresh: a.fresh, epoch: s.epoch, dep: max(a.dep, c.Dep)}
	a.fresh = false
	if c.origin == fromSchedule {
		c.sched.carry(&a.turn)
	}
	s.due.turned(&a.turn, 1)
	out.Turns = append(out.Turns, &a.turn)
}

// restart lets activations go on that waited for groups to be committed.
func (s *Shard) restart(out *Output) {
	for len(s.stalled) > 0 && s.pending <= s.limits.PendingBytesMax {
		a := s.stalled[0]
		s.stalled = s.stalled[1:]
		a.isStalled = false
		s.runNext(a, out)
	}
}

// pick takes the call whose turn it is out of the mailbox.
func (s *Shard) pick(a *Activation, out *Output) *Call {
	for {
		c := a.queue.head
		if c != nil && c.after <= a.head {
			a.queue.pop()
			if c.order != nil {
				return c
			}
			if c.control != nil {
				if s.obey(a, c, out) {
					continue
				}
				return nil
			}
			if c.origin == fromSchedule && (s.gone(c.sched) || s.withdrawn(c)) {
				s.land(c)
				continue
			}
			if c.origin == fromDue && c.due.Kind == persistence.DueTimer {
				// For its own turn the timer is gone already.
				delete(a.firing, c.due.Name)
				a.setTimer(c.due.Name, timerCell{seq: s.openSeq()})
				a.timerCount--
			}
			if c.origin == fromCaller && !c.Inv.Deadline.IsZero() && !s.now.Before(c.Inv.Deadline) {
				s.release(c)
				s.refuse(&c.Ticket, ErrExpired(c.Inv), out)
				if c.entry != nil {
					s.succeed(a, c.entry, out)
				}
				continue
			}
			if c.Inv.Create && a.exists {
				s.release(c)
				err := nola.Errorf(nola.ReasonAlreadyExists, "actor %s exists already", a.ref)
				if c.entry != nil {
					s.forget(a, c.entry, err, out)
				}
				c.Err = err
				s.answerAt(c, a.dep, out)
				continue
			}
			return c
		}
		if c := a.casts.pop(); c != nil {
			a.head = c.number + 1
			a.headTotal = c.total
			s.refill(a, out)
			return c
		}
		if a.head < a.tail {
			s.refill(a, out)
			return nil
		}
		return nil
	}
}

// answerAt answers c with what it holds once everything up to seq is durable,
// or at once if its caller is a turn of this shard.
func (s *Shard) answerAt(c *Call, seq nola.Seq, out *Output) {
	if c.Early {
		c.Dep = seq
		s.decide(&c.Ticket, out)
		return
	}
	s.park(&c.Ticket, seq, out)
}

// refill reads the next page of a backlog that is not all in memory.
func (s *Shard) refill(a *Activation, out *Output) {
	const low = 64
	if a.paging || a.loaded >= a.tail || a.casts.n >= low {
		return
	}
	a.paging = true
	s.ask(out, Load{Kind: LoadBacklog, Ref: a.ref, Number: a.loaded, Limit: s.limits.MailboxMax / 4, Bytes: 4 << 20, act: a})
}

func (s *Shard) loadedBacklog(l *Load, out *Output) {
	a := l.act
	if s.acts[a.ref] != a {
		return
	}
	a.paging = false
	for _, row := range l.Backlog {
		if row.Number != a.loaded {
			continue // taken meanwhile
		}
		a.casts.push(backlogCall(a, row))
		a.loaded++
	}
	// Rows that are not committed yet cannot be read: settled asks again.
	if len(l.Backlog) > 0 || a.casts.n > 0 {
		s.runNext(a, out)
	} else if l.Err != nil || a.dep <= s.committed {
		s.due.after(s.now.Add(ioRetry), &localDue{act: a})
	}
}

const ioRetry = time.Second // before a failed read is tried again

func backlogCall(a *Activation, row persistence.BacklogRow) *Call {
	return &Call{Inv: row.Invocation, origin: fromBacklog, number: row.Number, total: row.Total, act: a}
}

// rest looks after an activation that has nothing to run.
func (s *Shard) rest(a *Activation, out *Output) {
	if a.running || s.acts[a.ref] != a { // an order was carried out
		return
	}
	if a.head < a.tail || a.queue.n > 0 || len(a.keys) > 0 || a.awaited > 0 || a.held > 0 {
		return
	}
	if a.Shell == nil && len(a.waiting) > 0 {
		return // they are stepped next
	}
	if !a.stopping && a.asleep {
		s.asleep.add(a)
		for s.asleep.n > s.limits.AsleepMax {
			first := s.asleep.first()
			first.unlist()
			s.stop(first, out)
		}
		return
	}
	// What never had a turn, because it was only asked for, holds nothing that is
	// worth its memory.
	if a.stopping || a.Shell == nil {
		s.stop(a, out)
		return
	}
	if a.wokenOnce {
		s.shutdown(a, "idle", out)
		return
	}
	s.idle.add(a)
}

// sleep follows the end of an instance that was given back early: the activation
// stays for a while, so that it is known who has another turn soon, with as little
// as can be.
func (s *Shard) sleep(a *Activation) {
	a.asleep = true
	a.Shell = nil
}

func (s *Shard) touch(a *Activation) {
	a.used = s.now
	a.unlist()
}

// settled follows the commit of a group with effects of a.
func (s *Shard) settled(a *Activation, out *Output) {
	if s.acts[a.ref] != a {
		return
	}
	if a.deleting != 0 && a.deleting <= s.committed {
		s.deleted(a)
	}
	if !a.running {
		s.prune(a)
	}
	for id, k := range a.keys {
		if k.seq != 0 && k.seq <= s.committed {
			delete(a.keys, id)
		}
	}
	if a.casts.n == 0 && a.loaded < a.tail {
		s.refill(a, out)
	}
	s.runNext(a, out)
}

// prune drops from the overlay what the store has, beyond what is worth
// keeping. No turn of a runs.
func (s *Shard) prune(a *Activation) {
	for name, t := range a.timers {
		if t.seq <= s.committed {
			delete(a.timers, name)
		}
	}
	for name, r := range a.reminders {
		if r.seq <= s.committed {
			delete(a.reminders, name)
		}
	}
	for token, d := range a.deferred {
		if d.seq <= s.committed && d.call == nil {
			delete(a.deferred, token)
		}
	}
	if a.cellBytes <= s.limits.CacheBytesMax && !a.asleep {
		return
	}
	for k, c := range a.cells {
		if c.seq <= s.committed {
			a.cellBytes -= cellBytes(k, c)
			delete(a.cells, k)
		}
	}
	if len(a.cells) == 0 {
		a.cells = nil
	}
}

func cellBytes(key string, c cell) int {
	const overhead = 96
	return len(key) + len(c.value) + overhead
}

func (a *Activation) setCell(key string, c cell) {
	if a.cells == nil {
		a.cells = make(map[string]cell)
	}
	if old, ok := a.cells[key]; ok {
		a.cellBytes -= cellBytes(key, old)
	}
	a.cells[key] = c
	a.cellBytes += cellBytes(key, c)
}

// passivateIdle ends activations that were not used for long.
func (s *Shard) passivateIdle(out *Output) {
	s.passivateOld(&s.asleep, out)
	s.passivateOld(&s.idle, out)
}

func (s *Shard) passivateOld(l *actList, out *Output) {
	for a := l.first(); a != nil; {
		next := a.next
		switch age := s.now.Sub(a.used); {
		case age < 0: // the clock was set back
			a.used = s.now
			return
		case age < s.limits.IdleAfter:
			return
		}
		s.passivate(a, "idle", out)
		a = next
	}
}

// passivate ends an idle activation: the guest is told, what it still does is
// committed, then the memory goes.
func (s *Shard) passivate(a *Activation, reason string, out *Output) {
	a.unlist()
	a.stopping = true
	s.setBytes(a, 0) // they are as good as free
	if a.Shell == nil || a.fresh {
		s.stop(a, out)
		return
	}
	s.shutdown(a, reason, out)
}

// shutdown has the guest of an idle activation told, and its instance ended.
func (s *Shard) shutdown(a *Activation, reason string, out *Output) {
	a.running = true
	s.turns++
	a.turn = Turn{Act: a, Number: a.number, Shutdown: reason, Now: s.now, epoch: s.epoch, dep: a.dep}
	a.hurried = false
	out.Ends = append(out.Ends, &a.turn)
}

// stop ends a if nothing of it is undecided, and nobody holds it; otherwise settled, or
// who lets it go, comes back.
func (s *Shard) stop(a *Activation, out *Output) {
	if a.dep > s.committed || a.queue.n > 0 || a.head < a.tail || len(a.keys) > 0 || a.awaited > 0 || a.held > 0 {
		return
	}
	a.memory = nil
	s.setBytes(a, 0)
	delete(s.acts, a.ref)
	a.unlist()
	out.Closed = append(out.Closed, a)
}

// setBytes notes that a's instance holds n bytes. What a keeps comes on top.
func (s *Shard) setBytes(a *Activation, n int64) {
	n += int64(a.memory.Size())
	s.bytes += n - a.bytes
	a.bytes = n
}

// actList is a list of activations in the order in which they came into it. An
// activation is in one list at a time.
type actList struct {
	head, tail *Activation
	n          int
}

func (l *actList) first() *Activation { return l.head }

func (l *actList) add(a *Activation) {
	if a.list != nil {
		return
	}
	a.list, a.prev, a.next = l, l.tail, nil
	if l.tail == nil {
		l.head = a
	} else {
		l.tail.next = a
	}
	l.tail = a
	l.n++
}

// unlist takes a out of the list in which it is, if it is in one.
func (a *Activation) unlist() {
	l := a.list
	if l == nil {
		return
	}
	if a.prev == nil {
		l.head = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		l.tail = a.prev
	} else {
		a.next.prev = a.prev
	}
	l.n--
	a.list, a.prev, a.next = nil, nil, nil
}
