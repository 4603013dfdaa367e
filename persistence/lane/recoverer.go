package lane

import "fmt"

// Phase is where a recoverer stands.
type Phase uint8

// The phases of a recoverer. The last two are final.
const (
	PhaseSealing   Phase = iota // until the seal is definite
	PhaseInserting              // the head is missing: a sealed one is put in its place
	PhaseReading                // the ring, after the seal
	PhaseRewriting              // what is not known to be committed, until a quorum has it
	PhaseDeciding               // the end of the lane
	PhaseRereading              // somebody else decided a later end than this one had seen
	PhaseChecking               // entries are missing: was the lane trimmed?
	PhaseEnded                  // Result answers
	PhaseDamaged                // Err says why: stop, and raise an alarm
)

var phaseNames = [...]string{"sealing", "inserting", "reading", "rewriting", "deciding", "rereading", "checking", "ended", "damaged"}

// String answers the phase's name.
func (p Phase) String() string { return phaseNames[p] }

// Ended is a lane that was recovered.
type Ended struct {
	Lane  ID
	Final Seq // entries up to here are committed, others never executed
	// Missing says that the lane had no head any more: it ended long ago, and nobody
	// can tell where.
	Missing bool
	FinalTS Timestamp // no timestamp that the lane has used for a committed entry is greater
	// Suffix are the entries up to Final whose effects may not be in the tables
	// yet, in order and without gaps.
	Suffix []*Entry
	// Bodies are those of the entries in Suffix that were spilled. Whoever drives
	// the recoverer reads them, before it calls ByShard.
	Bodies map[Seq][]byte
}

// Recoverer finds out where one lane ends. Start it when the lease of the lane's
// node is over, or the lane is sealed. One goroutine at a time uses it.
type Recoverer struct {
	lane  ID
	phase Phase
	err   error
	gap   error // why PhaseChecking was entered

	mode      Mode
	ring      Seq
	chain     []*Entry  // without gaps, behind applied
	applied   Seq       // the greatest that any slot says
	committed Seq       // the greatest that any slot says
	last      Seq       // end of the chain, at least applied
	ts        Timestamp // the greatest of any slot
	open      []Seq     // re-written, not yet acknowledged
	headless  bool
	final     Seq // Undecided until it is known
	finalTS   Timestamp
}

// NewRecoverer starts to recover a lane.
func NewRecoverer(lane ID) (*Recoverer, Output) {
	r := &Recoverer{lane: lane, final: Undecided, finalTS: Undecided}
	var out Output
	out.send(SealHead{Lane: lane})
	return r, out
}

// Phase answers where the recoverer stands.
func (r *Recoverer) Phase() Phase { return r.phase }

// Err says why the phase is PhaseDamaged, and what to do.
func (r *Recoverer) Err() error { return r.err }

// Result answers what was found. The phase must be PhaseEnded.
func (r *Recoverer) Result() Ended {
	if r.phase != PhaseEnded {
		panic(fmt.Sprintf("lane: the result of a recovery that is %s", r.phase))
	}
	ended := Ended{Lane: r.lane, Final: r.final, FinalTS: r.finalTS, Missing: r.headless}
	if n := r.final - r.applied; n > 0 {
		ended.Suffix = r.chain[:n]
	}
	return ended
}

// Step takes an answer in.
func (r *Recoverer) Step(a Answer) Output {
	var out Output
	switch to := a.To.(type) {
	case SealHead:
		r.sealed(a, &out)
	case InsertSealed:
		r.inserted(to, a, &out)
	case ReadLane:
		r.read(a, &out)
	case WriteSlot:
		r.rewritten(to, a, &out)
	case DecideFinal:
		r.decided(to, a, &out)
	case ReadHead:
		r.checked(a, &out)
	default:
		panic(fmt.Sprintf("lane: a recoverer got the answer to a %T", to))
	}
	return out
}

// damaged ends the recovery without a result.
func (r *Recoverer) damaged(format string, args ...any) {
	r.phase = PhaseDamaged
	r.err = fmt.Errorf("lane: recover lane %x: "+format+": the store has lost or changed what it acknowledged; keep the lane's rows and do not serve its shards", append([]any{r.lane}, args...)...)
}

// sealed is the definite seal, also if it was somebody else's. That a plain read
// shows it would not do: the seal must be at a quorum before the ring is read.
func (r *Recoverer) sealed(a Answer, out *Output) {
	switch {
	case a.Outcome == Unknown || a.Outcome == Refused:
		out.again(a.To)
	case a.Outcome == Done || a.Found && a.Head.Sealed:
		r.phase = PhaseReading
		out.send(ReadLane{Lane: r.lane})
	case !a.Found:
		r.phase = PhaseInserting
		head := Head{Mode: ModeQuorum, Sealed: true} // without a ring: so one sees whence it came
		out.send(InsertSealed{Lane: r.lane, Head: head})
	default:
		r.damaged("its head is not sealed, and cannot be sealed")
	}
}

// inserted knows that no entry will be committed in a lane without a head any
// more. That none was, the ring must show: the head of a lane is there before the
// first entry, and stays longer than the slots.
func (r *Recoverer) inserted(to InsertSealed, a Answer, out *Output) {
	switch a.Outcome {
	case Done:
		r.phase = PhaseReading
		out.send(ReadLane{Lane: r.lane})
	case NotApplied:
		r.seal(out)
	default:
		out.again(to)
	}
}

func (r *Recoverer) seal(out *Output) {
	r.phase = PhaseSealing
	out.send(SealHead{Lane: r.lane})
}

func (r *Recoverer) read(a Answer, out *Output) {
	switch {
	case a.Outcome != Done:
		out.again(a.To)
		return
	case !a.Found:
		r.seal(out)
		return
	case a.Head.Trimmed:
		r.trimmed(a.Head)
		return
	case a.Head.RingSize == 0 && len(a.Slots) > 0:
		r.damaged("it has %d entries, and its head was lost", len(a.Slots))
		return
	case a.Head.RingSize == 0:
		r.phase, r.final, r.finalTS, r.headless = PhaseEnded, a.Head.FinalSeq, a.Head.FinalTS, true
		return
	}
	r.mode, r.ring = a.Head.Mode, Seq(a.Head.RingSize)
	switch {
	case !r.follow(a.Slots):
	case r.last < r.committed:
		r.missing(out, "entry %d is missing, and %d is committed", r.last+1, r.committed)
	case r.mode == ModeLWT && r.last != a.Head.LastSeq:
		r.missing(out, "its last entry is %d, and its head says %d", r.last, a.Head.LastSeq)
	case r.phase == PhaseRereading:
		r.end(out)
	default:
		r.rewrite(max(r.applied, r.committed), out)
	}
}

// follow finds the chain in the slots, and what they say. Slots beyond the chain
// count too: an entry that says what was applied may have overwritten it.
func (r *Recoverer) follow(slots []*Entry) bool {
	bySeq := make(map[Seq]*Entry, len(slots))
	r.applied, r.committed, r.ts, r.chain = 0, 0, 0, nil
	for _, e := range slots {
		if err := e.Check(r.lane); err != nil {
			r.damaged("%w", err)
			return false
		}
		bySeq[e.Seq] = e
		r.applied, r.committed, r.ts = max(r.applied, e.Applied), max(r.committed, e.Committed), max(r.ts, e.TS)
	}
	var prev uint64
	known := r.applied == 0
	if e := bySeq[r.applied]; e != nil {
		prev, known = e.Sum, true
	}
	for r.last = r.applied; bySeq[r.last+1] != nil; r.last++ {
		e := bySeq[r.last+1]
		if known && e.Prev != prev {
			r.damaged("entry %d does not follow the entry before it", e.Seq)
			return false
		}
		prev, known = e.Sum, true
		r.chain = append(r.chain, e)
	}
	return true
}

// rewrite brings the entries behind from to a quorum. In ModeLWT they are: the
// seal came after them in the same row.
func (r *Recoverer) rewrite(from Seq, out *Output) {
	r.phase, r.open = PhaseRewriting, nil
	if r.mode == ModeQuorum {
		for _, e := range r.chain[from-r.applied:] {
			r.open = append(r.open, e.Seq)
			out.send(WriteSlot{Lane: r.lane, Slot: int(e.Seq % r.ring), Entry: e})
		}
	}
	r.decide(out)
}

func (r *Recoverer) rewritten(to WriteSlot, a Answer, out *Output) {
	if a.Outcome != Done {
		out.again(to)
		return
	}
	for i, n := range r.open {
		if n == to.Entry.Seq {
			r.open = append(append([]Seq{}, r.open[:i]...), r.open[i+1:]...)
			break
		}
	}
	r.decide(out)
}

func (r *Recoverer) decide(out *Output) {
	if r.phase == PhaseRewriting && len(r.open) == 0 {
		r.phase = PhaseDeciding
		out.send(DecideFinal{Lane: r.lane, Final: r.last, TS: r.ts})
	}
}

func (r *Recoverer) decided(to DecideFinal, a Answer, out *Output) {
	switch {
	case a.Outcome == Unknown || a.Outcome == Refused:
		out.again(to)
		return
	case a.Outcome == Done:
		r.final, r.finalTS = to.Final, to.TS
	case !a.Found:
		r.seal(out)
		return
	case a.Head.FinalSeq == Undecided:
		r.damaged("its end is undecided, and cannot be decided")
		return
	default:
		r.final, r.finalTS = a.Head.FinalSeq, a.Head.FinalTS
	}
	if r.last >= r.final {
		r.end(out)
		return
	}
	r.phase = PhaseRereading
	out.send(ReadLane{Lane: r.lane})
}

// end takes the decided end. What this recoverer has seen behind it is dropped.
func (r *Recoverer) end(out *Output) {
	switch {
	case max(r.applied, r.committed) > r.final:
		r.damaged("entry %d is committed, and it ends at %d", max(r.applied, r.committed), r.final)
	case r.last < r.final:
		r.missing(out, "entry %d is missing, and it ends at %d", r.last+1, r.final)
	default:
		r.phase = PhaseEnded
	}
}

// missing looks at the head once more: a lane that was trimmed meanwhile has
// lost its slots by right.
func (r *Recoverer) missing(out *Output, format string, args ...any) {
	r.phase, r.gap = PhaseChecking, fmt.Errorf(format, args...)
	out.send(ReadHead{Lane: r.lane})
}

func (r *Recoverer) checked(a Answer, out *Output) {
	switch {
	case a.Outcome != Done:
		out.again(a.To)
	case !a.Found:
		r.seal(out)
	case a.Head.Trimmed:
		r.trimmed(a.Head)
	default:
		r.damaged("%w", r.gap)
	}
}

// trimmed is a lane that no shard names any more: nothing of it waits to be
// applied. A head put where none was may have been trimmed since.
func (r *Recoverer) trimmed(head Head) {
	r.phase, r.final, r.finalTS, r.headless = PhaseEnded, head.FinalSeq, head.FinalTS, head.RingSize == 0
	r.applied, r.chain = r.final, nil
}
