package core

import (
	"fmt"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Shard is the state machine of one shard under one epoch. It is used by one
// goroutine at a time.
type Shard struct {
	id     nola.ShardID
	epoch  nola.Epoch
	limits Limits
	shards int
	now    time.Time

	acts map[nola.ActorRef]*Activation
	idle actList // activations without a turn and without work, longest idle first
	// asleep are such activations without an instance: a few are kept, to see who has
	// another turn soon.
	asleep actList

	// groups are what is not committed yet, oldest first. The last one is open.
	groups    []*group
	spare     []*group
	committed nola.Seq
	inFlight  bool // the first group is being committed
	pending   int  // bytes in groups
	stalled   []*Activation
	fenced    error
	leaving   *Leave // set: nothing new is taken in

	calls     int   // admitted and not answered
	callBytes int64 // their payloads
	bytes     int64 // memory of the instances, as last reported
	turns     int   // that run
	awaited   int   // deferred calls whose callers wait here

	due       dueIndex
	schedules map[nola.ScheduleRef]*schedule
	lingering []*schedule
	serial    uint32
	loads     []*Load // to be used again
	streams   streams
	sweep     sweep
	starting  []nola.ActorRef        // have a backlog from an earlier tenure, to be woken
	behind    map[nola.ActorRef]bool // have such a backlog and were not loaded since
}

// Opened is what a shard must know to start: where its store stands.
type Opened struct {
	Head    persistence.Head
	Inbox   []persistence.InboxRow
	Outbox  []persistence.OutboxBounds
	Backlog []nola.ActorRef // actors with casts waiting
	Floors  persistence.Floors
}

// New makes the shard's core. shards is the number of shards of the cluster.
func New(opened Opened, shards int, limits Limits) *Shard {
	s := &Shard{
		id:        opened.Head.Shard,
		epoch:     opened.Head.Epoch,
		committed: opened.Head.Seq,
		limits:    limits.WithDefaults(),
		shards:    shards,
		acts:      make(map[nola.ActorRef]*Activation),
		schedules: make(map[nola.ScheduleRef]*schedule),
		starting:  opened.Backlog,
		behind:    make(map[nola.ActorRef]bool, len(opened.Backlog)),
	}
	for _, ref := range opened.Backlog {
		s.behind[ref] = true
	}
	s.due.init(s.limits)
	s.streams.init(opened)
	s.sweep.init(opened.Floors)
	s.openGroup()
	return s
}

// ID is the shard's number.
func (s *Shard) ID() nola.ShardID { return s.id }

// Epoch is the tenure's number.
func (s *Shard) Epoch() nola.Epoch { return s.epoch }

// Step takes in what happened at now and appends to out what must happen next.
// Nothing in out refers to an earlier step but through the values it names.
func (s *Shard) Step(now time.Time, in Input, out *Output) {
	s.now = now
	in.step(s, out)
	s.restart(out)
	s.spillDue()
	s.watchDue()
	out.Commit = out.Commit || s.wantsCommit()
	if s.leaving != nil {
		s.leave(out)
	}
}

// unique makes a number that the shard has never made before.
func (s *Shard) unique() uint64 {
	s.serial++
	return uint64(s.epoch)<<32 | uint64(s.serial)
}

// wantsCommit reports whether a group with something in it waits for a commit
// and none is under way.
func (s *Shard) wantsCommit() bool {
	return !s.inFlight && s.fenced == nil && !s.groups[0].empty()
}

// Wake is when Tick is due next; the zero time means never.
func (s *Shard) Wake() time.Time {
	if s.fenced != nil || s.leaving != nil {
		return time.Time{}
	}
	var wake time.Time
	if o, _, ok := s.due.first(s.dueFull()); ok {
		wake = o.at.time()
	}
	earlier := func(t time.Time) {
		if !t.IsZero() && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	for _, l := range []*actList{&s.idle, &s.asleep} {
		if a := l.first(); a != nil {
			earlier(a.used.Add(s.limits.IdleAfter))
		}
	}
	earlier(s.sweep.at)
	if len(s.starting) > 0 {
		earlier(s.now)
	}
	return wake
}

// Info describes the shard.
func (s *Shard) Info() nola.ShardInfo {
	return nola.ShardInfo{Shard: s.id, Epoch: s.epoch, Seq: s.committed, Activations: len(s.acts), Unanswered: s.calls, Due: s.due.len()}
}

// Bytes is the memory of the shard's instances, as their turns last told it,
// without those that are leaving.
func (s *Shard) Bytes() int64 { return s.bytes }

// Tick says that time has passed: due entries fire, idle activations are
// passivated, old keys are forgotten.
type Tick struct{}

func (*Tick) step(s *Shard, out *Output) {
	if s.fenced != nil || s.leaving != nil {
		return
	}
	s.startBacklogs(out)
	s.popDue(out)
	s.passivateIdle(out)
	s.sweepOld()
}

// startBacklogs wakes actors that have casts waiting from an earlier tenure, a
// few at a time.
func (s *Shard) startBacklogs(out *Output) {
	const atOnce = 64
	n := min(atOnce, len(s.starting))
	for _, ref := range s.starting[:n] {
		s.activation(ref, out)
	}
	s.starting = s.starting[n:]
}

// Shed asks for idle activations to be passivated until about Bytes of
// instance memory are free again.
type Shed struct{ Bytes int64 }

func (in *Shed) step(s *Shard, out *Output) {
	want := s.bytes - in.Bytes
	for _, l := range []*actList{&s.asleep, &s.idle} {
		for a := l.first(); a != nil && s.bytes > want; {
			next := a.next
			s.passivate(a, ShutdownMemory, out)
			a = next
		}
	}
}

// group is what is committed in one step, and what waits for it.
type group struct {
	batch   persistence.Batch
	parked  []*Ticket     // to be answered
	acts    []*Activation // have effects in it
	sends   []*outStream  // have new envelopes in it
	scheds  []*schedule   // have progress in it
	firings []Firing
}

func (g *group) empty() bool {
	return g.batch.Len() == 0 && len(g.parked) == 0
}

func (s *Shard) openGroup() {
	var g *group
	if n := len(s.spare); n > 0 {
		g, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		g = new(group)
	}
	g.batch.Reset(s.id, s.epoch, s.committed+nola.Seq(len(s.groups))+1)
	s.groups = append(s.groups, g)
}

// open is the group into which effects fold now.
func (s *Shard) open() *group { return s.groups[len(s.groups)-1] }

// openSeq is the number that the open group will have.
func (s *Shard) openSeq() nola.Seq { return s.open().batch.Seq }

// folded accounts for what was just written into the open group, and closes the
// group when it is full. Callers write all effects of one turn first.
func (s *Shard) folded(before int) {
	g := s.open()
	s.pending += g.batch.Bytes() - before
	if g.batch.Bytes() >= persistence.BatchBytesMax {
		s.openGroup()
	}
}

// TakeBatch hands out the oldest group for its commit. It answers nil if there
// is none, or one is under way already. The caller steps Committed or Fenced
// afterwards.
func (s *Shard) TakeBatch() *persistence.Batch {
	if !s.wantsCommit() {
		return nil
	}
	s.inFlight = true
	if len(s.groups) == 1 {
		s.openGroup()
	}
	return &s.groups[0].batch
}

// Committed says that the batch taken last is durable.
type Committed struct{}

func (*Committed) step(s *Shard, out *Output) {
	if !s.inFlight {
		panic(fmt.Sprintf("core: shard %d: Committed without a batch under way", s.id))
	}
	g := s.groups[0]
	copy(s.groups, s.groups[1:])
	s.groups = s.groups[:len(s.groups)-1]
	s.inFlight = false
	s.committed = g.batch.Seq
	s.pending -= g.batch.Bytes()
	s.due.forgetRecent(s.committed)
	for _, t := range g.parked {
		s.decide(t, out)
	}
	out.Firings = append(out.Firings, g.firings...)
	for _, st := range g.sends {
		s.pump(st, out)
	}
	for _, a := range g.acts {
		s.settled(a, out)
	}
	for _, sc := range g.scheds {
		s.evict(sc)
	}
	g.clear()
	s.spare = append(s.spare, g)
}

func (g *group) clear() {
	clear(g.parked)
	clear(g.acts)
	clear(g.sends)
	clear(g.scheds)
	clear(g.firings)
	g.parked, g.acts, g.sends, g.scheds, g.firings = g.parked[:0], g.acts[:0], g.sends[:0], g.scheds[:0], g.firings[:0]
}

// Fenced says that the shard has a newer owner, or that the outcome of its
// batch cannot be known. Done tells how many of the groups taken are durable
// all the same (0 or 1). Everything else was never executed, unless Unknown.
type Fenced struct {
	Done    int
	Unknown bool
}

func (in *Fenced) step(s *Shard, out *Output) {
	if in.Done > 0 && s.inFlight {
		(&Committed{}).step(s, out)
		out.Turns, out.Loads, out.Sends = out.Turns[:0], out.Loads[:0], out.Sends[:0]
	}
	s.fenced = errMoving(s.id)
	for i, g := range s.groups {
		for _, t := range g.parked {
			err := s.fenced
			if in.Unknown && i == 0 && s.inFlight {
				err = nola.Errorf(nola.ReasonOutcomeUnknown, "the commit's outcome cannot be known; it may have happened: ask with the key of the call")
			}
			s.refuse(t, err, out)
		}
	}
	last := s.committed
	if in.Unknown && s.inFlight {
		last++
	}
	s.inFlight = false
	for _, a := range s.acts {
		s.abandonDeferred(a, last, out)
		s.abandon(a, out)
	}
	for _, sc := range s.schedules {
		for _, op := range sc.waiting {
			s.refuse(&op.Ticket, s.fenced, out)
		}
		sc.waiting = nil
	}
}

// abandon answers everything that waits at a and forgets it. A turn that runs
// goes on until it is interrupted; what it brings back is dropped.
func (s *Shard) abandon(a *Activation, out *Output) {
	for _, in := range a.waiting {
		s.refuseInput(in, s.fenced, out)
	}
	a.waiting = nil
	for c := a.queue.pop(); c != nil; c = a.queue.pop() {
		switch {
		case c.control != nil:
			s.refuse(&c.control.Ticket, s.fenced, out)
			continue
		case c.order != nil:
			s.refuse(&c.order.Ticket, s.fenced, out)
			continue
		}
		s.refuse(&c.Ticket, s.fenced, out)
	}
	if a.order != nil {
		s.refuse(&a.order.Ticket, s.fenced, out)
	}
	switch {
	case a.running && a.turn.Order != nil:
		s.refuse(&a.turn.Order.Ticket, s.fenced, out)
	case a.running && a.turn.Call != nil: // SHUTDOWN has no call
		s.refuse(&a.turn.Call.Ticket, s.fenced, out)
	}
	for _, token := range sortedTokens(a.deferred) {
		if c := a.deferred[token].call; c != nil {
			s.refuse(&c.Ticket, s.fenced, out)
		}
	}
	for _, k := range a.keys {
		for _, c := range k.waiters {
			s.refuse(&c.Ticket, s.fenced, out)
		}
		k.waiters = nil
		if k.call != nil {
			s.refuse(&k.call.Ticket, s.fenced, out)
		}
	}
	delete(s.acts, a.ref)
	a.unlist()
	out.Closed = append(out.Closed, a)
}

// park holds t back until everything up to seq is durable.
func (s *Shard) park(t *Ticket, seq nola.Seq, out *Output) {
	if seq <= s.committed {
		s.decide(t, out)
		return
	}
	g := s.groups[seq-s.committed-1]
	g.parked = append(g.parked, t)
}

// decide lets t's answer go.
func (s *Shard) decide(t *Ticket, out *Output) {
	if t.decided {
		return
	}
	t.decided = true
	out.Answers = append(out.Answers, t)
}

func (s *Shard) refuse(t *Ticket, err error, out *Output) {
	if t.decided {
		return
	}
	t.Err = err
	s.decide(t, out)
}

// refuseInput answers an input that waited for its actor to be loaded.
func (s *Shard) refuseInput(in Input, err error, out *Output) {
	switch in := in.(type) {
	case *Call:
		s.refuse(&in.Ticket, err, out)
	case *Control:
		s.refuse(&in.Ticket, err, out)
	case *Delivery:
		in.let(s, out)
		s.refuse(&in.Ticket, err, out)
	case *Order:
		s.refuse(&in.Ticket, err, out)
	case *ScheduleOp:
		s.refuse(&in.Ticket, err, out)
	}
}

// Barrier is answered when everything that the turn has read so far is durable.
// Whoever calls another shard on behalf of a turn waits for it first.
type Barrier struct {
	Ticket
	Turn *Turn
}

func (in *Barrier) step(s *Shard, out *Output) {
	if s.over(&in.Ticket, in.Turn, out) {
		return
	}
	s.park(&in.Ticket, in.Turn.dep, out)
}
