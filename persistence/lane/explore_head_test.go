package lane

import (
	"slices"
	"testing"
)

// headRule is a set of rules of the life of a head that a model breaks on purpose.
type headRule uint8

const (
	headRuleStays   headRule = 1 << iota // a head is deleted when its lane is not needed any more
	headRuleAbandon                      // a creation without an answer is sent again, for the same lane
	headRuleMissing                      // to a writer, a head that is missing is not sealed
	headRuleCreated                      // a claim names the lane before its head is there
	headRuleInsert                       // a head that is missing is not inserted sealed
)

// headWork is a statement under way.
type headWork struct {
	by   int // 0 X, 1 B
	to   Statement
	acts uint8 // of the creation: 1 its condition held, 2 it did not
	lost bool  // nobody waits for the answer
}

// headWorld is the life of one lane's head: X creates it, claims the one shard for
// the lane and appends one entry; B recovers the lane at any time, takes the shard, and
// clears the lane away. A creation may take effect at any time, whatever X was told.
// Other statements take effect in one step, for laneWorld opens them up.
type headWorld struct {
	broken  headRule
	found   bool
	head    Head
	entry   *Entry
	slot    uint8 // of the entry: 1 some replica has it, 2 a quorum
	work    []headWork
	writer  *Writer
	creates int
	claimed bool // X has claimed the shard
	row     uint8
	rec     *Recoverer
	sealed  bool // it once was
	table   bool // the entry is applied
	cleared bool
	bad     string
}

func newHeadWorld(broken headRule) *headWorld {
	w := &headWorld{broken: broken, creates: 1}
	var out Output
	w.writer, out = NewWriter(ID{1}, Head{Mode: ModeQuorum, RingSize: modelRing})
	w.take(0, out)
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

func (w *headWorld) moves() []move[*headWorld] {
	var all []move[*headWorld]
	add := func(do func(w *headWorld), label string, args ...any) {
		all = append(all, move[*headWorld]{func(w *headWorld) {
			do(w)
			w.check()
		}, label, args})
	}
	open := w.writer.state == StateOpen
	if w.row == 0 && !w.claimed && (open || w.breaks(headRuleCreated) && w.writer.state == StateOpening) {
		add(func(w *headWorld) { w.claimed, w.row = true, 1 }, "X claims the shard")
	}
	if open && w.claimed && w.entry == nil {
		add(func(w *headWorld) { w.append() }, "X appends an entry")
	}
	if w.rec == nil && (w.found || w.row == 1) {
		add(func(w *headWorld) {
			r, out := NewRecoverer(ID{1})
			w.rec = r
			w.take(1, out)
		}, "B recovers the lane")
	}
	if w.rec != nil && w.rec.phase == PhaseEnded {
		if w.row == 1 {
			add(func(w *headWorld) {
				w.table = w.table || w.rec.final > 0
				w.row = 2
			}, "B applies what is committed and takes the shard")
		} else if !w.cleared {
			add(func(w *headWorld) {
				w.cleared = true
				w.head.Trimmed = true
				if w.breaks(headRuleStays) {
					w.found, w.head = false, Head{}
				}
			}, "the lane is cleared away")
		}
	}
	for at := range w.work {
		w.workMoves(at, add)
	}
	return all
}

func (w *headWorld) append() {
	x := *w.writer
	w.writer = &x
	_, out, _ := x.Append(1, nil)
	w.entry = out.Send[0].(WriteSlot).Entry
	w.take(0, out)
}

func (w *headWorld) workMoves(at int, add func(do func(w *headWorld), label string, args ...any)) {
	job := w.work[at]
	who := "XB"[job.by]
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
		if job.by == 0 && w.slot == 0 {
			add(func(w *headWorld) { w.slot = 1 }, "the entry reaches a replica")
		}
		answer(Answer{Outcome: Done}, func(w *headWorld) { w.slot = 2 }, "%c's entry is at a quorum")
	case ReadHead:
		if !w.found && w.breaks(headRuleMissing) {
			found = Answer{Outcome: Done, Found: true}
		}
		answer(found, nothing, "%c reads the head")
	case SealHead:
		if w.found && !w.head.Sealed {
			answer(Answer{Outcome: Done}, func(w *headWorld) { w.head.Sealed, w.sealed = true, true }, "%c seals the lane")
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
			answer(Answer{Outcome: Done}, func(w *headWorld) { w.found, w.head, w.sealed = true, to.Head, true }, "%c inserts a sealed head")
		}
	case ReadLane:
		if !w.found && w.breaks(headRuleInsert) {
			found.Found, found.Head = true, Head{Sealed: true}
		}
		if w.slot < 2 || !w.found {
			answer(found, nothing, "%c reads the ring without the entry")
		}
		if w.slot > 0 && w.found {
			with := found
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
	if job.by == 0 {
		x := *w.writer
		x.flight = slices.Clone(x.flight)
		w.writer = &x
		w.take(0, x.Step(a))
		return
	}
	r := *w.rec
	w.rec = &r
	w.take(1, r.Step(a))
}

// check looks whether an entry that was answered is lost.
func (w *headWorld) check() {
	switch {
	case w.writer.committed > 0 && w.row == 2 && !w.table:
		w.bad = "an answered entry is lost"
	case w.writer.committed > 0 && w.rec != nil && w.rec.phase == PhaseEnded && w.rec.final == 0:
		w.bad = "an entry is answered behind the end of its lane"
	case w.rec != nil && w.rec.phase == PhaseDamaged:
		w.bad = w.rec.err.Error()
	}
}

func (w *headWorld) key(b []byte) []byte {
	b = appendFlags(b, w.found, w.head.Sealed, w.head.Trimmed, w.claimed, w.sealed, w.table, w.cleared, w.entry != nil)
	b = appendInts(b, int64(w.head.FinalSeq), int64(w.slot), int64(w.creates), int64(w.row), int64(w.writer.state), int64(w.writer.committed), int64(w.writer.acked), int64(len(w.writer.flight)))
	b = appendFlags(b, w.writer.fencing, w.rec != nil)
	if r := w.rec; r != nil {
		b = appendInts(b, int64(r.phase), int64(r.final), int64(r.last), int64(len(r.open)), int64(len(r.chain)))
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
		each = append(each, appendFlags(appendInts(nil, int64(job.by), kind, int64(job.acts)), job.lost))
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
		"a head is deleted, and a creation is sent again":         {headRuleStays | headRuleAbandon, "behind the end"},
		"a head is deleted, and one that is missing is no seal":   {headRuleStays | headRuleMissing, "behind the end"},
		"a claim before the head, and a missing one is left away": {headRuleCreated | headRuleInsert, "behind the end"},
	} {
		t.Run(name, func(t *testing.T) { breaks(t, newHeadWorld(tt.broken), 600_000, tt.fault) })
	}
	for name, broken := range map[string]headRule{
		"heads are deleted":        headRuleStays,
		"a claim before the head":  headRuleCreated,
		"a creation is sent again": headRuleAbandon,
	} {
		t.Run("alone: "+name, func(t *testing.T) { holds(t, newHeadWorld(broken), 600_000) })
	}
}
