package lane

import (
	"slices"
	"testing"
)

// headRule is a set of rules of the life of a head that a model breaks on purpose.
type headRule uint16

const (
	headRuleStays   headRule = 1 << iota // a head is deleted when its lane is not needed any more
	headRuleAbandon                      // a creation without an answer is sent again, for the same lane
	headRuleMissing                      // to a writer, a head that is missing is not sealed
	headRuleCreated                      // a claim names the lane before its head is there
	headRuleInsert                       // a head that is missing is not inserted sealed
	headRuleUnknown                      // what is open in a lane without a head counts as never executed
	headRuleNamed                        // that no row names the lane may be read before the lane has ended
	headRuleTrimmed                      // slots are deleted before the head says so
)

// Who sends the statements of a headWorld, by their names in headNames. X has a
// recoverer of its own lane too.
const (
	headWriter = iota
	headOwn
	headTaker
	headKeeper
)

const headNames = "XXBK"

// headWork is a statement under way.
type headWork struct {
	by   int
	to   Statement
	acts uint8  // of the creation: 1 its condition held, 2 it did not; of a read of the lane: 1 it has the head
	read Answer // of a read of the lane: the head
	lost bool   // nobody waits for the answer
}

// headWorld is the life of one lane's head: X creates it, claims the one shard for
// the lane and appends one entry; B recovers the lane at any time and takes the shard;
// K, as the keeper of a store does, ends the lane at any time, reads whether a row
// names it, and clears it away. A creation or a claim may take effect at any time,
// whatever X was told, and a read of the lane sees its head before its slots.
// Other statements take effect in one step, for laneWorld opens them up.
type headWorld struct {
	broken  headRule
	found   bool
	head    Head
	entry   *Entry
	slot    uint8 // of the entry: 1 some replica has it, 2 a quorum
	cut     bool  // the slots are deleted, with a timestamp above theirs
	work    []headWork
	writer  *Writer
	creates int
	claimed bool  // X has sent its claim of the shard
	row     uint8 // whose lane it names: 1 X's, 2 B's
	rec     [4]*Recoverer
	unnamed bool // K has read that no row names the lane
	settled bool // X has
	never   bool // X has answered the entry as never executed
	table   bool // the entry is applied
	bad     string
}

func newHeadWorld(broken headRule) *headWorld {
	w := &headWorld{broken: broken, creates: 1}
	var out Output
	w.writer, out = NewWriter(ID{1}, Head{Mode: ModeQuorum, RingSize: modelRing})
	w.take(headWriter, out)
	return w
}

func (w *headWorld) copy() *headWorld {
	c := *w
	c.work = slices.Clone(w.work)
	return &c
}

func (w *headWorld) fault() string { return w.bad }

func (w *headWorld) breaks(r headRule) bool { return w.broken&r != 0 }

func (w *headWorld) take(by int, out Output) {
	for _, s := range append(out.Send, out.Again...) {
		w.work = append(w.work, headWork{by: by, to: s})
	}
}

func (w *headWorld) ended(by int) bool { return w.rec[by] != nil && w.rec[by].phase == PhaseEnded }

func (w *headWorld) moves() []move[*headWorld] {
	var all []move[*headWorld]
	add := func(do func(w *headWorld), label string, args ...any) {
		all = append(all, move[*headWorld]{func(w *headWorld) {
			do(w)
			w.check()
		}, label, args})
	}
	open := w.writer.state == StateOpen
	if !w.claimed && (open || w.breaks(headRuleCreated) && w.writer.state == StateOpening) {
		add(func(w *headWorld) { w.claimed = true }, "X claims the shard")
	}
	if w.claimed && w.row == 0 {
		add(func(w *headWorld) { w.row = 1 }, "X's claim is executed")
	}
	if open && w.row == 1 && w.entry == nil {
		add(func(w *headWorld) { w.append() }, "X appends an entry")
	}
	for by, may := range [...]bool{
		headOwn:    w.writer.state == StateSealed,
		headTaker:  w.found || w.row == 1,
		headKeeper: w.found,
	} {
		if may && w.rec[by] == nil {
			add(func(w *headWorld) {
				r, out := NewRecoverer(ID{1})
				w.rec[by] = r
				w.take(by, out)
			}, "%c recovers the lane", headNames[by])
		}
	}
	if w.ended(headOwn) && !w.settled {
		add((*headWorld).settle, "X settles")
	}
	if w.ended(headTaker) && w.row == 1 {
		add(func(w *headWorld) {
			w.table = w.table || len(w.rec[headTaker].Result().Suffix) > 0
			w.row = 2
		}, "B applies what is committed and takes the shard")
	}
	w.clearMoves(add)
	for at := range w.work {
		w.workMoves(at, add)
	}
	return all
}

func (w *headWorld) settle() {
	w.settled = true
	ended := w.rec[headOwn].Result()
	if ended.Missing && w.entry != nil && !w.breaks(headRuleUnknown) {
		return // nobody can tell what became of it
	}
	x := *w.writer
	w.writer = &x
	if !x.Settle(ended.Final) {
		w.bad = "the writer had answered entries beyond the end"
	}
	w.never = w.entry != nil && x.committed == 0
}

// clearMoves are those of K, apart from its recovery.
func (w *headWorld) clearMoves(add func(do func(w *headWorld), label string, args ...any)) {
	ended := w.ended(headKeeper)
	if !w.unnamed && w.row != 1 && (ended || w.breaks(headRuleNamed)) {
		add(func(w *headWorld) { w.unnamed = true }, "K reads that no row names the lane")
	}
	if !ended || !w.unnamed || !w.found {
		return
	}
	if !w.head.Trimmed {
		add(func(w *headWorld) { w.head.Trimmed = true }, "K trims the lane")
	}
	if !w.cut && (w.head.Trimmed || w.breaks(headRuleTrimmed)) {
		add(func(w *headWorld) { w.cut = true }, "K deletes the slots")
	}
	if w.cut && w.head.Trimmed && w.breaks(headRuleStays) {
		add(func(w *headWorld) { w.found, w.head = false, Head{} }, "K deletes the head")
	}
}

func (w *headWorld) append() {
	x := *w.writer
	w.writer = &x
	_, out, _ := x.Append(1, nil)
	w.entry = out.Send[0].(WriteSlot).Entry
	w.take(headWriter, out)
}

func (w *headWorld) workMoves(at int, add func(do func(w *headWorld), label string, args ...any)) {
	job := w.work[at]
	who := headNames[job.by]
	found := Answer{Outcome: Done, Found: w.found, Head: w.head}
	unmet := Answer{Outcome: NotApplied, Found: w.found, Head: w.head}
	answer := func(a Answer, change func(w *headWorld), label string) {
		add(func(w *headWorld) {
			change(w)
			w.answer(at, a)
		}, label, who)
	}
	nothing := func(*headWorld) {}
	switch to := job.to.(type) {
	case CreateHead:
		w.createMoves(at, to, add)
	case WriteSlot:
		if job.by == headWriter && w.slot == 0 {
			add(func(w *headWorld) { w.slot = 1 }, "the entry reaches a replica")
		}
		answer(Answer{Outcome: Done}, func(w *headWorld) { w.slot = 2 }, "%c's entry is at a quorum")
	case ReadHead:
		if !w.found && job.by == headWriter && w.breaks(headRuleMissing) {
			found = Answer{Outcome: Done, Found: true}
		}
		answer(found, nothing, "%c reads the head")
	case SealHead:
		if w.found && !w.head.Sealed {
			answer(Answer{Outcome: Done}, func(w *headWorld) { w.head.Sealed = true }, "%c seals the lane")
		} else {
			answer(unmet, nothing, "%c cannot seal the lane")
		}
	case InsertSealed:
		switch {
		case w.breaks(headRuleInsert):
			answer(Answer{Outcome: Done}, nothing, "%c takes the lane for empty")
		case w.found:
			answer(unmet, nothing, "%c finds a head where it missed one")
		default:
			answer(Answer{Outcome: Done}, func(w *headWorld) { w.found, w.head = true, to.Head }, "%c inserts a sealed head")
		}
	case ReadLane:
		if job.acts == 0 {
			if !w.found && w.breaks(headRuleInsert) {
				found.Found, found.Head = true, Head{Sealed: true}
			}
			add(func(w *headWorld) { w.work[at].acts, w.work[at].read = 1, found }, "%c reads the head of the lane", who)
			return
		}
		if w.slot < 2 || w.cut {
			answer(job.read, nothing, "%c reads the ring without the entry")
		}
		if w.slot > 0 && !w.cut {
			with := job.read
			with.Slots = []*Entry{w.entry}
			answer(with, nothing, "%c reads the ring with the entry")
		}
	case DecideFinal:
		if w.found && w.head.FinalSeq == Undecided {
			answer(Answer{Outcome: Done}, func(w *headWorld) { w.head.FinalSeq, w.head.FinalTS = to.Final, to.TS }, "%c decides the end")
		} else {
			answer(unmet, nothing, "%c finds the end decided")
		}
	}
}

// createMoves are those of a creation: it is executed whenever the store likes, and
// its answer comes or does not.
func (w *headWorld) createMoves(at int, to CreateHead, add func(do func(w *headWorld), label string, args ...any)) {
	job := w.work[at]
	if job.acts == 0 {
		add(func(w *headWorld) {
			job := &w.work[at]
			if job.acts = 2; !w.found {
				job.acts, w.found, w.head = 1, true, to.Head
			}
			if job.lost {
				w.work = slices.Delete(w.work, at, at+1)
			}
		}, "a creation is executed")
	}
	if job.lost {
		return
	}
	if job.acts > 0 {
		add(func(w *headWorld) {
			a := Answer{Outcome: Done}
			if job.acts == 2 {
				a = Answer{Outcome: NotApplied, Found: true, Head: w.head}
				if w.breaks(headRuleAbandon) && !w.head.Sealed { // it takes the row for its own
					a = Answer{Outcome: Done}
				}
			}
			w.answer(at, a)
		}, "X hears of its creation")
	}
	add(func(w *headWorld) {
		stray := w.work[at]
		stray.lost = true
		if w.breaks(headRuleAbandon) {
			if w.creates == 2 {
				return
			}
			w.creates++
			w.take(0, Output{Send: []Statement{to}})
			w.work = slices.Delete(w.work, at, at+1)
		} else {
			w.answer(at, Answer{Outcome: Unknown})
		}
		if stray.acts == 0 {
			w.work = append(w.work, stray)
		}
	}, "X hears nothing of its creation")
}

func (w *headWorld) answer(at int, a Answer) {
	job := w.work[at]
	a.To = job.to
	w.work = slices.Delete(w.work, at, at+1)
	if job.by == headWriter {
		x := *w.writer
		x.flight = slices.Clone(x.flight)
		w.writer = &x
		w.take(headWriter, x.Step(a))
		return
	}
	r := *w.rec[job.by]
	w.rec[job.by] = &r
	w.take(job.by, r.Step(a))
}

// check looks whether what X has answered to its entry holds.
func (w *headWorld) check() {
	switch {
	case w.writer.committed > 0 && w.row == 2 && !w.table:
		w.bad = "an answered entry is lost"
	case w.never && w.table:
		w.bad = "an entry answered as never executed is in the tables"
	}
	for _, r := range w.rec {
		if r != nil && r.phase == PhaseDamaged {
			w.bad = "false alarm: " + r.err.Error()
		}
	}
}

func (w *headWorld) key(b []byte) []byte {
	b = appendFlags(b, w.found, w.head.Sealed, w.head.Trimmed, w.claimed, w.unnamed, w.settled, w.never, w.table, w.cut, w.entry != nil, w.writer.fencing)
	b = appendInts(b, int64(w.head.RingSize), int64(w.head.FinalSeq), int64(w.slot), int64(w.creates), int64(w.row), int64(w.writer.state), int64(w.writer.committed), int64(w.writer.acked), int64(len(w.writer.flight)))
	for _, r := range w.rec {
		b = appendFlags(b, r != nil)
		if r != nil {
			b = appendInts(b, int64(r.phase), int64(r.final), int64(r.last), int64(len(r.open)), int64(len(r.chain)))
			b = appendFlags(b, r.headless)
		}
	}
	var each [][]byte
	for _, job := range w.work {
		kind := int64(0)
		switch job.to.(type) {
		case CreateHead:
			kind = 1
		case WriteSlot:
			kind = 2
		case ReadHead:
			kind = 3
		case SealHead:
			kind = 4
		case InsertSealed:
			kind = 5
		case ReadLane:
			kind = 6
		case DecideFinal:
			kind = 7
		}
		e := appendInts(nil, int64(job.by), kind, int64(job.acts), int64(job.read.Head.RingSize), int64(job.read.Head.FinalSeq))
		each = append(each, appendFlags(e, job.lost, job.read.Found, job.read.Head.Sealed, job.read.Head.Trimmed))
	}
	slices.SortFunc(each, slices.Compare)
	for _, e := range each {
		b = append(append(b, e...), 0xff)
	}
	return b
}

// TestExploreHeads tries everything that can happen to the head of a lane, from its
// creation, whose answer may be lost, until the lane is cleared away.
func TestExploreHeads(t *testing.T) { holds(t, newHeadWorld(0), 600_000) }

// TestHeadRulesMatter breaks rules of the life of a head, and wants the explorer to
// see what that leads to. That heads stay hides what the others are for.
func TestHeadRulesMatter(t *testing.T) {
	for name, tt := range map[string]struct {
		broken headRule
		fault  string
	}{
		"a head is deleted, and a creation is sent again":         {headRuleStays | headRuleAbandon, "an answered entry is lost"},
		"a head is deleted, and one that is missing is no seal":   {headRuleStays | headRuleMissing, "an answered entry is lost"},
		"a head is deleted, and what was open was never executed": {headRuleStays | headRuleUnknown, "answered as never executed"},
		"a claim before the head, and a missing one is left away": {headRuleCreated | headRuleInsert, "its head was lost"},
		"that no row names the lane is read before it ends":       {headRuleNamed, "an answered entry is lost"},
		"slots are deleted before the head says so":               {headRuleTrimmed, "false alarm"},
	} {
		t.Run(name, func(t *testing.T) { breaks(t, newHeadWorld(tt.broken), 600_000, tt.fault) })
	}
	for name, broken := range map[string]headRule{
		"heads are deleted":                headRuleStays,
		"a claim before the head":          headRuleCreated,
		"a creation is sent again":         headRuleAbandon,
		"what was open was never executed": headRuleUnknown,
	} {
		t.Run("alone: "+name, func(t *testing.T) { holds(t, newHeadWorld(broken), 600_000) })
	}
}
