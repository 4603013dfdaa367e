package lane

import (
	"fmt"

	"github.com/nolaproject/nola/persistence"
)

// State is where a writer stands.
type State uint8

// The states of a writer. The last four are final.
const (
	StateOpening   State = iota // the head is not there yet: no claim may name the lane
	StateOpen                   // entries are taken
	StateAbandoned              // the creation has no definite answer: take another id
	StateSealed                 // somebody has sealed the lane: recover it, then Settle
	StateRefused                // an entry can never be written: seal the lane, recover it, then Settle
	StateDamaged                // the head is not as this writer left it: stop, and raise an alarm
)

var stateNames = [...]string{"opening", "open", "abandoned", "sealed", "refused", "damaged"}

// String answers the state's name.
func (s State) String() string { return stateNames[s] }

// Ticket numbers the strict reads of a writer.
type Ticket uint64

// Writer appends to one lane. One goroutine at a time uses it.
type Writer struct {
	lane  ID
	head  Head
	state State

	clock Timestamp // of the last operation
	sum   uint64    // of the last entry

	committed Seq    // entries up to here are committed
	acked     Seq    // entries up to here are acknowledged
	flight    []sent // the entries behind acked
	applied   Seq    // the effects of entries up to here are in the tables
	closed    bool   // the last entry had no batches, or there is none
	fencing   bool   // a read of the head is under way
	covers    Seq    // what that read commits if it finds the lane unsealed
	asked     Ticket // the last one drawn
	coversTo  Ticket // what that read passes
	passed    Ticket // the last one that may go
}

// sent is an entry that was sent.
type sent struct {
	entry *Entry
	acked bool
}

// NewWriter starts a new lane: the id must be fresh. head says node, address,
// mode and ring size (0: RingSize).
func NewWriter(lane ID, head Head) (*Writer, Output) {
	if head.RingSize == 0 {
		head.RingSize = RingSize
	}
	if head.Mode != ModeQuorum && head.Mode != ModeLWT || head.RingSize < 1 || lane.IsZero() {
		panic(fmt.Sprintf("lane: new lane %x with mode %d and %d slots", lane, head.Mode, head.RingSize))
	}
	head.FinalSeq, head.FinalTS = Undecided, Undecided
	w := &Writer{lane: lane, head: head, closed: true}
	var out Output
	out.send(CreateHead{Lane: lane, Head: head})
	return w, out
}

// Lane answers the id of the lane.
func (w *Writer) Lane() ID { return w.lane }

// State answers where the writer stands.
func (w *Writer) State() State { return w.state }

// Sent is the number of the last entry.
func (w *Writer) Sent() Seq { return w.acked + Seq(len(w.flight)) }

// Committed is the number of the last committed entry. It never decreases.
func (w *Writer) Committed() Seq { return w.committed }

// Clock is the greatest timestamp in use: the floor of a shard that is handed
// over.
func (w *Writer) Clock() Timestamp { return w.clock }

// Raise makes all further timestamps greater than floor. It is called with the
// floor of each shard that is claimed, before its first batch is appended.
func (w *Writer) Raise(floor Timestamp) { w.clock = max(w.clock, floor) }

// Applied says that a quorum has the effects of all entries up to n. They must
// be committed.
func (w *Writer) Applied(n Seq) {
	if n > w.committed {
		panic(fmt.Sprintf("lane: entry %d was applied and only %d is committed", n, w.committed))
	}
	w.applied = max(w.applied, n)
}

// Lags reports whether a closing entry, one without batches, is worth its write:
// all is applied, and no entry says so.
func (w *Writer) Lags() bool {
	return w.state == StateOpen && !w.closed && w.applied == w.Sent()
}

// Room reports whether Append has room for an entry.
func (w *Writer) Room() bool {
	limit := FlightMax
	if w.head.Mode == ModeLWT {
		limit = 1
	}
	return w.state == StateOpen && len(w.flight) < limit && w.applied >= w.Sent()+1-Seq(w.head.RingSize)
}

// Append makes the batches, at most one of a shard, the next entry of the lane.
// now is the wall clock in microseconds, and need not be right. It answers
// ErrFull, ErrNotOpen, or persistence.ErrTooLarge if the entry would pass
// BodyBytesMax; then nothing has happened.
func (w *Writer) Append(now Timestamp, batches []*persistence.Batch) (Seq, Output, error) {
	return w.AppendPacked(now, batches, Pack(EncodeBody(batches)))
}

// AppendPacked is Append of batches whose body (EncodeBody, then Pack) the caller
// has made.
func (w *Writer) AppendPacked(now Timestamp, batches []*persistence.Batch, body []byte) (Seq, Output, error) {
	switch {
	case w.state != StateOpen:
		return 0, Output{}, ErrNotOpen
	case !w.Room():
		return 0, Output{}, ErrFull
	case len(body) > BodyBytesMax:
		return 0, Output{}, persistence.ErrTooLarge
	}
	seq, out := w.append(now, batches, body)
	return seq, out, nil
}

// AppendSpilled is Append of batches whose body (EncodeBody, then Pack) is at a quorum in
// the chunks that spill names, of at most SpillBytesMax.
func (w *Writer) AppendSpilled(now Timestamp, batches []*persistence.Batch, spill Spill) (Seq, Output, error) {
	switch {
	case w.state != StateOpen:
		return 0, Output{}, ErrNotOpen
	case !w.Room():
		return 0, Output{}, ErrFull
	case spill.Bytes > SpillBytesMax:
		return 0, Output{}, persistence.ErrTooLarge
	}
	seq, out := w.append(now, batches, spill.encode())
	return seq, out, nil
}

func (w *Writer) append(now Timestamp, batches []*persistence.Batch, body []byte) (Seq, Output) {
	w.clock = max(w.clock+1, now) + ticks(batches) - 1
	e := &Entry{Seq: w.Sent() + 1, Prev: w.sum, TS: w.clock, Applied: w.applied, Committed: w.committed, Body: body}
	e.Sum = e.sum(w.lane)
	w.sum, w.closed = e.Sum, len(batches) == 0
	w.flight = append(w.flight, sent{entry: e})
	var out Output
	out.send(w.write(e))
	return e.Seq, out
}

func (w *Writer) write(e *Entry) Statement {
	slot := int(e.Seq % Seq(w.head.RingSize))
	if w.head.Mode == ModeLWT {
		return AppendEntry{Lane: w.lane, Slot: slot, Entry: e}
	}
	return WriteSlot{Lane: w.lane, Slot: slot, Entry: e}
}

// Strict asks for a look at the head that starts from now on: once Passed
// answers the ticket, the lane was not sealed after Strict was called. All who
// wait share a read.
func (w *Writer) Strict() (Ticket, Output) {
	w.asked++
	var out Output
	w.fence(&out)
	return w.asked, out
}

// Passed is the last ticket whose look at the head found the lane unsealed.
func (w *Writer) Passed() Ticket { return w.passed }

// Step takes an answer in. Answers that come after the writer has left
// StateOpen change nothing.
func (w *Writer) Step(a Answer) Output {
	var out Output
	switch to := a.To.(type) {
	case CreateHead:
		w.created(a)
	case WriteSlot:
		w.written(to, a, &out)
	case AppendEntry:
		w.appended(to, a, &out)
	case ReadHead:
		w.fenced(a, &out)
	default:
		panic(fmt.Sprintf("lane: a writer got the answer to a %T", to))
	}
	return out
}

// created decides whether the lane may be used. A creation that is sent again
// could bring back, unsealed, a head that was sealed and deleted meanwhile.
func (w *Writer) created(a Answer) {
	if w.state != StateOpening {
		return
	}
	w.state = StateAbandoned
	if a.Outcome == Done {
		w.state = StateOpen
	}
}

func (w *Writer) written(to WriteSlot, a Answer, out *Output) {
	if w.state != StateOpen {
		return
	}
	switch a.Outcome {
	case Done:
		if i := int(to.Entry.Seq - w.acked - 1); i >= 0 {
			w.flight[i].acked = true
		}
		for len(w.flight) > 0 && w.flight[0].acked {
			w.acked++
			w.flight = w.flight[1:]
		}
		w.fence(out)
	case Unknown:
		out.again(to)
	default:
		w.state = StateRefused
	}
}

// fence starts a read of the head if none is under way and one is wanted. What
// it commits is fixed here: acknowledgements that come later do not count.
func (w *Writer) fence(out *Output) {
	wanted := w.asked > w.passed || w.head.Mode == ModeQuorum && w.acked > w.committed
	if w.state != StateOpen || w.fencing || !wanted {
		return
	}
	w.fencing, w.covers, w.coversTo = true, w.acked, w.asked
	out.send(ReadHead{Lane: w.lane})
}

func (w *Writer) fenced(a Answer, out *Output) {
	if w.state != StateOpen {
		return
	}
	switch {
	case a.Outcome != Done:
		out.again(a.To)
		return
	case !a.Found || a.Head.Sealed:
		w.state = StateSealed
		return
	}
	w.fencing = false
	w.passed = w.coversTo
	if w.head.Mode == ModeQuorum {
		w.committed = max(w.committed, w.covers)
	}
	w.fence(out)
}

// appended decides an entry of ModeLWT. One is under way at a time, so a head
// that has its number has it from this writer, however the answer reads.
func (w *Writer) appended(to AppendEntry, a Answer, out *Output) {
	if w.state != StateOpen {
		return
	}
	n := to.Entry.Seq
	switch {
	case a.Outcome == Unknown:
		out.again(to)
	case a.Outcome == Refused:
		w.state = StateRefused
	case a.Outcome == Done || a.Found && a.Head.LastSeq == n:
		w.acked, w.committed, w.flight = n, n, w.flight[1:]
		if a.Outcome == NotApplied && a.Head.Sealed {
			w.state = StateSealed
		}
	case !a.Found || a.Head.Sealed && a.Head.LastSeq == n-1:
		w.state = StateSealed
	default:
		w.state = StateDamaged
	}
}

// Settle decides what was open when the writer left StateOpen. final is the
// FinalSeq that recovering the lane has found: entries up to it are committed,
// those behind it are never executed. It reports whether that agrees with what
// was reported committed; if not, the store has lost a write that it
// acknowledged, the writer is damaged, and nothing of it may be answered.
func (w *Writer) Settle(final Seq) bool {
	if final < w.committed || final > w.Sent() {
		w.state = StateDamaged
		return false
	}
	w.committed = final
	return true
}
