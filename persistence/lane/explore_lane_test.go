package lane

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/nolaproject/nola/persistence"
)

// rule is a rule of the protocol that a model breaks on purpose.
type rule int

const (
	ruleNone              rule = iota
	ruleFenceAfterAck          // the read of the head may start before the acknowledgements it covers
	ruleFenceOwn               // the read of the head covers an entry that was acknowledged, though one before it was not
	ruleAckInOrder             // an entry counts although one before it is not acknowledged
	ruleSeal                   // the seal is left out
	ruleSealFirst              // the ring is read before the seal took effect
	ruleSealQuorum             // the seal counts as soon as one replica shows it
	ruleRewrite                // the end is decided before a quorum has what lies below it
	ruleReread                 // who lost the decision goes on with what it had read
	ruleKeepChain              // who lost the decision keeps what lies beyond it
	ruleDecideOnce             // the end is a plain write
	ruleSameBytes              // an entry is sent again with other content
	ruleSameTimestamp          // a recoverer writes entries with a newer timestamp
	ruleClock                  // an entry carries the wall clock, which steps back
	ruleCarryApplied           // entries do not say what was applied
	ruleApplyFirst             // a slot is overwritten before its entry was applied
	ruleApplyCommitted         // entries are applied when acknowledged
	ruleBeyondEnd              // what slots beyond the end say does not count
	ruleEveryTimestamp         // the timestamp of the end is that of the chain
	ruleUnsealedCondition      // the conditional entry does not ask whether the lane is sealed
	ruleUnknownStaysOpen       // a conditional entry without an answer counts as never executed
	ruleSerialRead             // a conditional entry that a read does not show yet counts as never executed
	ruleLostAnswer             // the answer "not applied" to one's own success counts as never executed
)

const (
	atX = 0 // the writer's process; B and C are 1 and 2
)

// inflight is a statement under way, of which the replicas are a part.
type inflight struct {
	by     int
	to     Statement
	seen   uint8 // replicas that were read
	sealed bool  // a replica showed the seal
	acts   uint8 // of a conditional one: 1 its condition held, 2 it did not
	slots  slots // what was read of the ring
}

// The bounds of a laneWorld.
const (
	modelEntries = 12
	modelRing    = 4
)

// slots are the numbers of the entries in the ring of a replica.
type slots [modelRing]Seq

// laneWorld is one lane on three replicas. A plain write reaches each replica at
// any time or never; a read takes two replicas one after the other; a
// conditional write takes effect in one step, and plain reads see it replica by
// replica. A process that stands still is one that makes no move.
type laneWorld struct {
	id      ID
	names   string // of the processes
	broken  rule
	mode    Mode
	ring    int
	entries Seq  // that are sent at most
	lossy   bool // answers get lost
	later   int  // B and C may start once an eighth of this has landed; 0: never later

	writer *Writer
	rec    [3]*Recoverer
	work   []inflight

	sent    []*Entry            // by number - 1
	reached [modelEntries]uint8 // of each: the replicas that its write reached
	slots   [replicas]slots
	sealed  bool
	sealAt  uint8 // replicas that show the seal
	last    Seq   // ModeLWT
	top     Seq   // ModeLWT: the latest decision, -1 is the seal
	final   Seq
	finalTS Timestamp
	tables  Seq // effects up to here are in the tables
	never   Seq // this entry was answered as never executed
	settled bool
	trimmed bool
	cut     bool   // the slots are deleted, with a timestamp above theirs
	apart   uint32 // ruleFenceOwn: the entries acknowledged when the read of the head started
	bad     string
	seen    *laneSights // of random ways
}

// laneSights counts what random ways came past, so that they are seen to be worth
// their time.
type laneSights struct{ overwritten, lostDecision, reread, ownLane, lostAnswer, done int }

func newLaneWorld(broken rule, mode Mode, ring int, entries Seq, recoverers ...int) *laneWorld {
	w := &laneWorld{id: ID{1}, names: "XBC", seen: new(laneSights), broken: broken, mode: mode, ring: ring, entries: entries, final: Undecided}
	w.create()
	for _, k := range recoverers {
		if k == atX {
			continue // starts when the writer finds the seal
		}
		w.start(k)
	}
	return w
}

func (w *laneWorld) create() {
	w.writer, _ = NewWriter(w.id, Head{Mode: w.mode, RingSize: w.ring})
	w.writer.Step(Answer{To: CreateHead{}, Outcome: Done})
}

func (w *laneWorld) start(k int) {
	r, out := NewRecoverer(w.id)
	w.rec[k] = r
	w.take(k, out)
}

func (w *laneWorld) copy() *laneWorld {
	c := *w
	c.work = slices.Clone(w.work)
	return &c
}

// own answers the writer for a step. Copies of a world share their machines
// until one steps.
func (w *laneWorld) own() *Writer {
	x := *w.writer
	x.flight = slices.Clone(x.flight)
	w.writer = &x
	return w.writer
}

func (w *laneWorld) ownRecoverer(k int) *Recoverer {
	r := *w.rec[k]
	w.rec[k] = &r
	return w.rec[k]
}

func (w *laneWorld) fault() string { return w.bad }

func (w *laneWorld) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

func (w *laneWorld) take(by int, out Output) {
	for _, s := range append(out.Send, out.Again...) {
		w.work = append(w.work, inflight{by: by, to: s})
	}
}

// land has the entry reach a replica: the slot keeps the write with the greatest
// timestamp.
func (w *laneWorld) land(n Seq, i int) {
	w.reached[n-1] |= 1 << i
	if w.cut {
		return
	}
	slot := &w.slots[i][n%Seq(w.ring)]
	if *slot > 0 && *slot < n {
		w.seen.overwritten++
	}
	*slot = w.newer(*slot, n)
}

// newer is which of two entries in a slot a store keeps: that with the greater
// timestamp, or in ModeLWT the one decided later.
func (w *laneWorld) newer(a, b Seq) Seq {
	switch {
	case a == 0 || b == 0 || w.mode == ModeLWT:
		return max(a, b)
	case w.sent[a-1].TS > w.sent[b-1].TS:
		return a
	}
	return b
}

func (w *laneWorld) clear() bool {
	switch {
	case w.mode == ModeQuorum || w.top == 0:
		return true
	case w.top == -1:
		return quorum(w.sealAt)
	}
	return quorum(w.reached[w.top-1])
}

func (w *laneWorld) moves() []move[*laneWorld] {
	all := make([]move[*laneWorld], 0, 16)
	add := func(do func(w *laneWorld), label string, args ...any) {
		all = append(all, move[*laneWorld]{do, label, args})
	}
	w.storeMoves(add)
	for k := 1; k <= 2; k++ {
		if w.later > 0 && w.rec[k] == nil && w.landed() > w.later/8 {
			add(func(w *laneWorld) { w.start(k) }, "%c recovers the lane", w.names[k])
		}
	}
	if w.Sent() < w.entries && w.room() {
		add(func(w *laneWorld) { w.append(0, nil) }, "X sends entry %d", w.Sent()+1)
	}
	if w.tables < w.applicable() {
		add((*laneWorld).apply, "X applies entry %d", w.tables+1)
	}
	if w.writer.state == StateSealed && w.rec[atX] == nil {
		add(func(w *laneWorld) { w.start(atX) }, "X recovers its own lane")
	}
	if r := w.rec[atX]; r != nil && r.phase == PhaseEnded && !w.settled {
		add((*laneWorld).settle, "X settles")
	}
	for at := range w.work {
		w.workMoves(at, add)
	}
	return all
}

// storeMoves are those that are nobody's.
func (w *laneWorld) storeMoves(add func(do func(w *laneWorld), label string, args ...any)) {
	for n := Seq(1); n <= w.Sent(); n++ {
		for i := range replicas {
			if w.reached[n-1]>>i&1 == 0 && (w.mode == ModeQuorum || n <= w.last) {
				add(func(w *laneWorld) { w.land(n, i) }, "entry %d reaches replica %d", n, i)
			}
		}
	}
	for i := range replicas {
		if w.sealed && w.sealAt>>i&1 == 0 {
			add(func(w *laneWorld) { w.sealAt |= 1 << i }, "replica %d shows the seal", i)
		}
	}
	if w.broken == ruleSealFirst && !w.sealed && w.clear() {
		add(func(w *laneWorld) { w.sealed, w.top = true, -1 }, "the seal takes effect")
	}
}

// applicable is the number up to which X applies entries.
func (w *laneWorld) applicable() Seq {
	if w.broken == ruleApplyCommitted {
		return w.writer.acked
	}
	return w.writer.committed
}

func (w *laneWorld) landed() int {
	n := 0
	for _, mask := range w.reached {
		n += bits.OnesCount8(mask)
	}
	return n
}

// Sent is the number of the last entry.
func (w *laneWorld) Sent() Seq { return Seq(len(w.sent)) }

// room keeps two entries in flight at most.
func (w *laneWorld) room() bool {
	x := *w.writer
	if w.broken == ruleApplyFirst {
		x.applied = w.Sent()
	}
	return x.Room() && len(x.flight) < 2
}

func (w *laneWorld) append(now Timestamp, batches []*persistence.Batch) {
	x := w.own()
	applied := x.applied
	if w.broken == ruleApplyFirst {
		x.applied = w.Sent() // there is room
	}
	if w.broken == ruleClock && w.Sent() == Seq(w.ring) {
		x.clock -= 2 * Timestamp(w.ring)
	}
	_, out, err := x.Append(now, batches)
	if err != nil {
		panic(err)
	}
	x.applied = applied
	e := entryIn(out.Send[0])
	if w.broken == ruleApplyFirst || w.broken == ruleCarryApplied {
		e.Applied = applied
		if w.broken == ruleCarryApplied {
			e.Applied = 0
		}
		e.Sum = e.sum(x.lane)
		x.sum = e.Sum
	}
	w.sent = append(slices.Clone(w.sent), e)
	w.take(atX, out)
}

func entryIn(s Statement) *Entry {
	switch s := s.(type) {
	case WriteSlot:
		return s.Entry
	case AppendEntry:
		return s.Entry
	}
	panic(fmt.Sprintf("%T has no entry", s))
}

func (w *laneWorld) apply() {
	w.tables++
	if x := w.own(); w.broken == ruleApplyCommitted {
		x.applied = w.tables
	} else {
		x.Applied(w.tables)
	}
	w.check()
}

func (w *laneWorld) settle() {
	w.settled = true
	w.seen.ownLane++
	if !w.own().Settle(w.rec[atX].Result().Final) {
		w.fail("the writer had answered entries beyond the end")
	}
	w.check()
}

// answer ends the work with an answer.
func (w *laneWorld) answer(at int, a Answer) {
	job := w.work[at]
	a.To = job.to
	if a.Outcome == Unknown {
		w.seen.lostAnswer++
	}
	if _, ok := a.To.(DecideFinal); ok && a.Outcome == NotApplied {
		w.seen.lostDecision++
	}
	w.work = slices.Delete(slices.Clone(w.work), at, at+1)
	own := w.rec[atX]
	checks := own != nil && own.phase == PhaseChecking
	if job.by == atX && (own == nil || isWriters(job.to) && !checks) {
		w.answerWriter(a)
	} else {
		r := w.ownRecoverer(job.by)
		out := r.Step(a)
		if r.phase == PhaseRereading {
			w.seen.reread++
		}
		if w.broken == ruleKeepChain && r.phase == PhaseEnded {
			r.final = max(r.final, r.last)
		}
		if w.broken == ruleReread && r.phase == PhaseRereading {
			r.phase, out = PhaseEnded, Output{}
			r.final = min(r.final, r.last)
		}
		w.take(job.by, out)
		w.checkRecoverer(job.by)
	}
	w.check()
}

// isWriters tells the writer's statements from those of a recoverer in the same
// process; a re-write of the writer's own entry is as good as its write.
func isWriters(s Statement) bool {
	switch s.(type) {
	case AppendEntry, ReadHead:
		return true
	}
	return false
}

func (w *laneWorld) answerWriter(a Answer) {
	x := w.own()
	switch to := a.To.(type) {
	case WriteSlot:
		if w.broken == ruleAckInOrder {
			for i := range x.flight {
				x.flight[i].acked = x.flight[i].acked || x.flight[i].entry.Seq < to.Entry.Seq
			}
		}
	case ReadHead:
		switch w.broken {
		case ruleFenceAfterAck:
			x.covers = x.acked
		case ruleFenceOwn:
			for n := x.acked; n > x.covers; n-- {
				if w.apart>>n&1 == 1 {
					x.covers = n
				}
			}
		}
	case AppendEntry:
		if a.Outcome == Unknown && w.broken == ruleUnknownStaysOpen || a.Outcome == NotApplied && w.broken == ruleLostAnswer {
			w.never = to.Entry.Seq
		}
	}
	out := x.Step(a)
	if w.broken == ruleFenceOwn {
		w.fenceOwn(x, &out)
	}
	w.take(atX, out)
	if x.state == StateDamaged {
		w.fail("false alarm of the writer")
	}
}

// fenceOwn starts a read of the head for entries behind one that is not
// acknowledged, and notes what it covers.
func (w *laneWorld) fenceOwn(x *Writer, out *Output) {
	var apart uint32
	for _, s := range x.flight {
		if s.acked {
			apart |= 1 << s.entry.Seq
		}
	}
	if apart != 0 && !x.fencing {
		x.asked++
		x.fence(out)
	}
	for _, s := range out.Send {
		if _, ok := s.(ReadHead); ok {
			w.apart = apart
		}
	}
}

func (w *laneWorld) workMoves(at int, add func(do func(w *laneWorld), label string, args ...any)) {
	job := w.work[at]
	who := w.names[job.by]
	switch to := job.to.(type) {
	case WriteSlot:
		n := to.Entry.Seq
		rewrite := job.by != atX || w.rec[atX] != nil
		if quorum(w.reached[n-1]) || rewrite && w.broken == ruleRewrite {
			add(func(w *laneWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c has the acknowledgement of entry %d", who, n)
		}
		for i := range replicas {
			if rewrite && w.broken == ruleSameTimestamp && w.slots[i][n%Seq(w.ring)] > n {
				add(func(w *laneWorld) { w.slots[i][n%Seq(w.ring)] = n }, "the re-write of entry %d overwrites a newer one", n)
			}
		}
		if w.broken == ruleSameBytes && !rewrite && w.sent[n-1] == to.Entry && to.Entry.Committed == 0 && n == 1 {
			add(func(w *laneWorld) {
				e := *to.Entry
				e.Body = append([]byte{}, bodyFormat, 1)
				e.Sum = e.sum(w.id)
				w.sent = slices.Clone(w.sent)
				w.sent[n-1] = &e
			}, "X sends entry %d again with other content", n)
		}
	case ReadHead:
		for i := range replicas {
			if job.seen>>i&1 == 0 {
				add(func(w *laneWorld) { w.readHead(at, i) }, "%c reads the head on replica %d", who, i)
			}
		}
	case ReadLane:
		for i := range replicas {
			if job.seen>>i&1 == 0 {
				add(func(w *laneWorld) { w.readLane(at, i) }, "%c reads the ring on replica %d", who, i)
			}
		}
	case SealHead:
		if job.acts == 0 && w.clear() {
			add(func(w *laneWorld) {
				w.work[at].acts = 2
				if !w.sealed {
					w.work[at].acts = 1
					w.sealed, w.top = true, -1
				}
			}, "the seal of %c takes effect", who)
		}
		definite := job.acts > 0 && quorum(w.sealAt)
		switch w.broken {
		case ruleSeal, ruleSealFirst:
			definite = true
		case ruleSealQuorum:
			definite = w.sealAt != 0
		}
		if definite {
			a := Answer{Outcome: Done}
			if job.acts != 1 {
				a = Answer{Outcome: NotApplied, Found: true, Head: Head{Sealed: true}}
			}
			add(func(w *laneWorld) { w.answer(at, a) }, "%c knows that the lane is sealed", who)
		}
		if job.acts == 1 {
			w.lose(at, add)
		}
	case DecideFinal:
		if w.broken == ruleDecideOnce {
			add(func(w *laneWorld) {
				w.decide(to)
				w.answer(at, Answer{Outcome: Done})
			}, "%c writes the end %d", who, to.Final)
			return
		}
		if job.acts == 0 && w.clear() {
			add(func(w *laneWorld) {
				w.work[at].acts = 2
				if w.final == Undecided {
					w.work[at].acts = 1
					w.decide(to)
				}
			}, "%c's decision of the end %d is executed", who, to.Final)
		}
		switch job.acts {
		case 1:
			add(func(w *laneWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c knows that it decided", who)
			w.lose(at, add)
		case 2:
			add(func(w *laneWorld) {
				w.answer(at, Answer{Outcome: NotApplied, Found: true, Head: Head{FinalSeq: w.final, FinalTS: w.finalTS}})
			}, "%c knows that the end is %d", who, w.final)
		}
	case AppendEntry:
		n := to.Entry.Seq
		if job.acts == 0 && w.clear() {
			switch {
			case w.last == n-1 && (!w.sealed || w.broken == ruleUnsealedCondition):
				add(func(w *laneWorld) {
					w.work[at].acts = 1
					w.last, w.top = n, n
					w.check()
				}, "entry %d takes effect", n)
			case w.last >= n || w.sealed && quorum(w.sealAt):
				add(func(w *laneWorld) {
					w.answer(at, Answer{Outcome: NotApplied, Found: true, Head: Head{Sealed: w.sealed, LastSeq: w.last}})
				}, "%c knows that entry %d was not applied", who, n)
			}
		}
		if job.acts == 1 && quorum(w.reached[n-1]) {
			add(func(w *laneWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c knows that entry %d was applied", who, n)
		}
		if job.acts == 1 || w.broken == ruleUnknownStaysOpen && job.acts == 0 {
			w.lose(at, add)
		}
		if w.broken == ruleSerialRead && w.last < n && w.never == 0 {
			add(func(w *laneWorld) { w.never = n }, "X reads that entry %d is not there", n)
		}
	}
}

// lose has a conditional statement get no answer, after it took effect. (Before,
// the copy under way and the one that is sent again are the same.)
func (w *laneWorld) lose(at int, add func(do func(w *laneWorld), label string, args ...any)) {
	if w.lossy || w.broken == ruleUnknownStaysOpen || w.broken == ruleLostAnswer {
		add(func(w *laneWorld) { w.answer(at, Answer{Outcome: Unknown}) }, "the answer to %c's %T is lost", w.names[w.work[at].by], w.work[at].to)
	}
}

func (w *laneWorld) readHead(at, i int) {
	job := &w.work[at]
	job.seen |= 1 << i
	job.sealed = job.sealed || w.sealAt>>i&1 == 1
	if job.sealed || quorum(job.seen) {
		w.answer(at, Answer{Outcome: Done, Found: true, Head: Head{RingSize: w.ring, Sealed: job.sealed, FinalSeq: w.final, FinalTS: w.finalTS, Trimmed: w.trimmed}})
	}
}

func (w *laneWorld) readLane(at, i int) {
	job := &w.work[at]
	job.seen |= 1 << i
	for s, n := range w.slots[i] {
		job.slots[s] = w.newer(job.slots[s], n)
	}
	slots := job.slots
	if !quorum(job.seen) {
		return
	}
	a := Answer{Outcome: Done, Found: true, Head: Head{Mode: w.mode, RingSize: w.ring, Sealed: true, FinalSeq: Undecided}}
	if w.trimmed {
		a.Head.Trimmed, a.Head.FinalSeq, a.Head.FinalTS = true, w.final, w.finalTS
	}
	if w.mode == ModeLWT { // a replica has entry and head together
		a.Head.LastSeq = slices.Max(slots[:])
	}
	for _, n := range slots {
		hidden := w.broken == ruleBeyondEnd && w.final != Undecided && n > w.final
		if n > 0 && !hidden {
			a.Slots = append(a.Slots, w.sent[n-1])
		}
	}
	w.answer(at, a)
}

func (w *laneWorld) decide(to DecideFinal) {
	w.final, w.finalTS = to.Final, to.TS
	if w.broken == ruleEveryTimestamp {
		w.finalTS = 0
		for _, n := range w.slots[0] {
			if n > 0 && n == to.Final {
				w.finalTS = w.sent[n-1].TS
			}
		}
	}
	w.check()
}

// check holds the world against what the protocol promises.
func (w *laneWorld) check() {
	w.seen.done = max(w.seen.done, int(w.writer.committed))
	if w.never > 0 && (w.last >= w.never || w.final >= w.never) {
		w.fail("entry %d was answered as never executed and takes effect", w.never)
	}
	if w.final == Undecided {
		return
	}
	if w.writer.committed > w.final {
		w.fail("entry %d was answered as done and lies beyond the end %d", w.writer.committed, w.final)
	}
	if w.tables > w.final {
		w.fail("the effects of entry %d are in the tables, beyond the end %d", w.tables, w.final)
	}
	if n := min(w.final, w.Sent()); n > 0 && w.finalTS < w.sent[n-1].TS {
		w.fail("the end has timestamp %d, and a committed entry %d", w.finalTS, w.sent[n-1].TS)
	}
}

func (w *laneWorld) checkRecoverer(k int) {
	r := w.rec[k]
	if r.phase == PhaseDamaged {
		w.fail("false alarm: %v", r.err)
	}
	if r.phase != PhaseEnded {
		return
	}
	ended := r.Result()
	if ended.Final != w.final {
		w.fail("owners disagree about the end: %d and %d", ended.Final, w.final)
	}
	from := ended.Final - Seq(len(ended.Suffix))
	if from > w.tables && !w.trimmed {
		w.fail("entry %d is neither in the tables nor in what was recovered", w.tables+1)
	}
	for i, e := range ended.Suffix {
		if e != w.sent[from+Seq(i)] {
			w.fail("entry %d was recovered with other content than it has", e.Seq)
		}
	}
}

func (w *laneWorld) key(b []byte) []byte {
	x := w.writer
	b = appendInts(b, int64(x.state), int64(x.committed), int64(x.acked), int64(x.applied), int64(x.covers))
	b = appendFlags(b, x.fencing, w.sealed, w.settled)
	for _, s := range x.flight {
		b = appendFlags(b, s.acked)
	}
	b = appendInts(b, int64(w.apart), int64(w.last), int64(w.top), int64(w.final), int64(w.finalTS), int64(w.tables), int64(w.never), int64(len(w.sent)))
	for _, e := range w.sent {
		b = appendInts(b, int64(e.Applied), int64(e.Committed), int64(e.TS), int64(e.Sum))
	}
	// Whose turn comes first in the list of work makes no difference.
	work := slices.Clone(w.work)
	slices.SortStableFunc(work, func(p, q inflight) int {
		if p.by != q.by {
			return p.by - q.by
		}
		return order(p.to) - order(q.to)
	})
	var each [replicas][]byte
	for i := range each {
		each[i] = appendInts(each[i], w.slots[i][:]...)
		each[i] = appendFlags(each[i], w.sealAt>>i&1 == 1)
		for n := range w.sent {
			each[i] = appendFlags(each[i], w.reached[n]>>i&1 == 1)
		}
		for _, job := range work {
			each[i] = appendFlags(each[i], job.seen>>i&1 == 1)
		}
	}
	b = sortReplicas(b, each)
	for _, job := range work {
		b = appendInts(b, int64(job.by), int64(order(job.to)), int64(job.acts))
		b = appendFlags(b, job.sealed)
		b = appendInts(b, job.slots[:]...)
	}
	for _, r := range w.rec {
		if r == nil {
			b = append(b, 0xfe)
			continue
		}
		b = appendInts(b, int64(r.phase), int64(r.applied), int64(r.last), int64(r.final), int64(r.ts), int64(len(r.open)))
		for _, e := range r.chain {
			b = appendInts(b, e.Sum)
		}
	}
	return b
}

// order tells statements of one process apart, and entries among them.
func order(s Statement) int {
	switch s := s.(type) {
	case ReadHead:
		return 1
	case SealHead:
		return 2
	case ReadLane:
		return 3
	case DecideFinal:
		return 4
	case WriteSlot:
		return 10 + int(s.Entry.Seq)
	case AppendEntry:
		return 40 + int(s.Entry.Seq)
	}
	panic(fmt.Sprintf("%T", s))
}

// TestExploreLane tries everything that can happen to a few entries of a lane.
func TestExploreLane(t *testing.T) {
	for name, w := range map[string]*laneWorld{
		"quorum, two entries, one recoverer": newLaneWorld(ruleNone, ModeQuorum, 4, 2, 1),
		"quorum, one entry, two recoverers":  newLaneWorld(ruleNone, ModeQuorum, 4, 1, 1, 2),
		"lwt, two entries, two recoverers":   newLaneWorld(ruleNone, ModeLWT, 4, 2, 1, 2),
		"lwt, one slot, two entries":         newLaneWorld(ruleNone, ModeLWT, 1, 2, 1),
		"quorum, one slot, two entries":      newLaneWorld(ruleNone, ModeQuorum, 1, 2, 1),
	} {
		t.Run(name, func(t *testing.T) { holds(t, w, 400_000) })
	}
	if !*wide {
		return
	}
	for name, w := range map[string]*laneWorld{
		"quorum, two entries, two recoverers":           newLaneWorld(ruleNone, ModeQuorum, 4, 2, 1, 2),
		"quorum, one slot, two entries, two recoverers": newLaneWorld(ruleNone, ModeQuorum, 1, 2, 1, 2),
		"lwt, three entries, two recoverers":            newLaneWorld(ruleNone, ModeLWT, 4, 3, 1, 2),
	} {
		t.Run(name, func(t *testing.T) { holds(t, w, wideLimit) })
	}
}

// TestLaneRulesMatter breaks one rule of the protocol after the other and wants
// the explorer to see what it leads to.
func TestLaneRulesMatter(t *testing.T) {
	for name, tt := range map[string]struct {
		world *laneWorld
		fault string
	}{
		"read of the head starts before the acknowledgement": {newLaneWorld(ruleFenceAfterAck, ModeQuorum, 4, 2, 1), "lies beyond the end"},
		"read of the head starts before an earlier one's":    {newLaneWorld(ruleFenceOwn, ModeQuorum, 4, 2, 1), "lies beyond the end"},
		"an earlier entry is not acknowledged":               {newLaneWorld(ruleAckInOrder, ModeQuorum, 4, 2, 1), "lies beyond the end"},
		"no seal":                                            {newLaneWorld(ruleSeal, ModeQuorum, 4, 1, 1), "lies beyond the end"},
		"ring read before the seal":                          {newLaneWorld(ruleSealFirst, ModeQuorum, 4, 1, 1), "lies beyond the end"},
		"one slot, read before the seal":                     {newLaneWorld(ruleSealFirst, ModeQuorum, 1, 2, 1), "lies beyond the end"},
		"conditional entries, read before the seal":          {newLaneWorld(ruleSealFirst, ModeLWT, 4, 2, 1), "lies beyond the end"},
		"seal seen on one replica":                           {newLaneWorld(ruleSealQuorum, ModeQuorum, 4, 1, 1), "lies beyond the end"},
		"end decided before the re-write":                    {newLaneWorld(ruleRewrite, ModeQuorum, 4, 1, 1, 2), "false alarm"},
		"loser does not read again":                          {newLaneWorld(ruleReread, ModeQuorum, 4, 1, 1, 2), "owners disagree"},
		"loser keeps its longer chain":                       {newLaneWorld(ruleKeepChain, ModeQuorum, 4, 1, 1, 2), "owners disagree"},
		"end decided by a plain write":                       {newLaneWorld(ruleDecideOnce, ModeQuorum, 4, 1, 1, 2), "the end"},
		"sent again with other content":                      {newLaneWorld(ruleSameBytes, ModeQuorum, 4, 1, 1, 2), "other content"},
		"re-written with a newer timestamp":                  {newLaneWorld(ruleSameTimestamp, ModeQuorum, 1, 2, 1), "false alarm"},
		"written with a clock that steps back":               {newLaneWorld(ruleClock, ModeQuorum, 1, 2, 1), "lies beyond the end"},
		"applied is not carried":                             {newLaneWorld(ruleCarryApplied, ModeQuorum, 1, 2, 1), "false alarm"},
		"overwritten before it was applied":                  {newLaneWorld(ruleApplyFirst, ModeQuorum, 1, 2, 1), "lies beyond the end"},
		"applied before it was committed":                    {newLaneWorld(ruleApplyCommitted, ModeQuorum, 1, 2, 1), "in the tables"},
		"slots beyond the end do not count":                  {newLaneWorld(ruleBeyondEnd, ModeQuorum, 1, 2, 1, 2), "false alarm"},
		"timestamp of the chain":                             {newLaneWorld(ruleEveryTimestamp, ModeQuorum, 1, 2, 1), "timestamp"},
		"conditional entry ignores the seal":                 {newLaneWorld(ruleUnsealedCondition, ModeLWT, 4, 1, 1), "lies beyond the end"},
		"no answer taken as never executed":                  {newLaneWorld(ruleUnknownStaysOpen, ModeLWT, 4, 1, 1), "never executed"},
		"not there yet taken as never executed":              {newLaneWorld(ruleSerialRead, ModeLWT, 4, 1, 1), "never executed"},
		"not applied taken as never executed":                {newLaneWorld(ruleLostAnswer, ModeLWT, 4, 1, 1), "never executed"},
	} {
		t.Run(name, func(t *testing.T) { breaks(t, tt.world, 400_000, tt.fault) })
	}
}

// TestWanderLane takes random ways through longer lives of a lane.
func TestWanderLane(t *testing.T) {
	var seen laneSights
	deep(t, *deepRuns, func(seed uint64) *laneWorld {
		mode := ModeQuorum
		if seed%3 == 0 {
			mode = ModeLWT
		}
		w := newLaneWorld(ruleNone, mode, 1+int(seed%modelRing), modelEntries, atX)
		w.lossy, w.seen = true, &seen
		w.later = int(seed % 7 * 20)
		return w
	}, 400)
	if *deepRuns > 1000 && (seen.overwritten == 0 || seen.lostDecision == 0 || seen.reread == 0 || seen.ownLane == 0 || seen.lostAnswer == 0 || seen.done < modelEntries) {
		t.Errorf("the random ways did not come past all that they should: %+v", seen)
	}
	t.Logf("%+v", seen)
}
