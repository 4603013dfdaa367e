package lane

import (
	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// ID names a lane. It is made afresh for each lane and never used again.
type ID [16]byte

// IsZero reports whether the id names no lane.
func (id ID) IsZero() bool { return id == ID{} }

// Seq is the number of an entry in its lane, from 1 and without gaps.
type Seq int64

// Undecided is the FinalSeq, and the FinalTS, of a lane whose end is not decided.
const Undecided = -1

// Timestamp is what a plain write is written with, in microseconds: the later
// one wins.
type Timestamp int64

// Mode is how the entries of a lane are committed. The numbers are storage format.
type Mode uint8

// The modes.
const (
	ModeQuorum Mode = 1 // a plain write, then a read of the head: for stores that sync what they acknowledge
	ModeLWT    Mode = 2 // one conditional batch: for stores that sync only those
)

// The limits of a lane.
const (
	RingSize      = 512                             // slots of a new lane; a lane's head says its own
	FlightMax     = 4                               // entries of a lane in ModeQuorum that are not acknowledged
	BodyBytesMax  = 1 << 20                         // of an entry; a writer refuses larger ones
	BodyBytesGoal = 256 << 10                       // from here on a group of batches is better closed and sent
	SpillBytesMax = 2 * persistence.BatchBytesLimit // of a body in chunks, packed or not
	ValueBytesMax = 64 << 10                        // of a value in a slot; the body of a larger one is better spilled
)

// Head is the head row of a lane.
type Head struct {
	Node     string // who writes the lane
	Address  string // where that node is reached
	Mode     Mode
	RingSize int // 0 in a head that a recoverer has put where none was
	Sealed   bool
	LastSeq  Seq // of the last entry, in ModeLWT only
	FinalSeq Seq // of the last entry there is, once the lane was recovered; Undecided before
	FinalTS  Timestamp
	Trimmed  bool // the slots may be gone
}

// ShardRow says who owns a shard. Epochs only increase.
type ShardRow struct {
	Epoch     nola.Epoch
	Lane      ID     // through which its owner commits; zero: released
	HandoffTo string // of a released shard: the node that shall have it; empty: any
	Floor     Timestamp
}

// Statement is one statement of CQL, as a value. Those with a condition are
// marked LWT and go with serial consistency; all others are plain and go with
// quorum consistency. Whoever sends a statement owes its machine exactly one
// Answer.
type Statement interface{ statement() }

// The statements.
type (
	// CreateHead inserts a head, IF NOT EXISTS. LWT.
	CreateHead struct {
		Lane ID
		Head Head
	}
	// SealHead sets sealed = 1, IF sealed = 0. LWT.
	SealHead struct{ Lane ID }
	// InsertSealed inserts a head that is sealed and ends at entry 0, IF NOT
	// EXISTS. LWT.
	InsertSealed struct {
		Lane ID
		Head Head
	}
	// DecideFinal sets final_seq and final_ts, IF final_seq = -1 AND final_ts = -1.
	// LWT.
	DecideFinal struct {
		Lane  ID
		Final Seq
		TS    Timestamp
	}
	// ClaimShard sets the row to To, IF epoch and lane are those of From. LWT. It is sent
	// by the node that To is of, or by the owner that From is of, for that node.
	ClaimShard struct {
		Shard    nola.ShardID
		From, To ShardRow
	}
	// ReleaseShard sets the row to To, which names no lane, IF epoch and lane are
	// those of From. LWT.
	ReleaseShard struct {
		Shard    nola.ShardID
		From, To ShardRow
	}
	// ApplyEffects writes the effects of a committed batch into the tables, each
	// USING its own TIMESTAMP, and the number of the batch.
	ApplyEffects struct{ Effects Effects }
	// Beat writes the row of a node: that it lives. Of several the greatest number
	// wins.
	Beat struct {
		Node   string
		Number uint64
	}
	// ReadHead reads the head of a lane.
	ReadHead struct{ Lane ID }
	// ReadLane reads the head of a lane and all its slots.
	ReadLane struct{ Lane ID }
	// WriteSlot writes an entry into its slot, USING its TIMESTAMP.
	WriteSlot struct {
		Lane  ID
		Slot  int
		Entry *Entry
	}
	// AppendEntry sets the head's last_seq to the entry's number and writes its
	// slot, in one batch, IF sealed = 0 AND last_seq = number - 1. LWT. The slot's
	// cells get the time of the decision; the entry's own is in a column.
	AppendEntry struct {
		Lane  ID
		Slot  int
		Entry *Entry
	}
)

func (CreateHead) statement()   {}
func (SealHead) statement()     {}
func (InsertSealed) statement() {}
func (DecideFinal) statement()  {}
func (ClaimShard) statement()   {}
func (ReleaseShard) statement() {}
func (ApplyEffects) statement() {}
func (Beat) statement()         {}
func (ReadHead) statement()     {}
func (ReadLane) statement()     {}
func (WriteSlot) statement()    {}
func (AppendEntry) statement()  {}

// Outcome says what became of a statement.
type Outcome uint8

// The outcomes. Only a definite answer of the store may be given as anything but
// Unknown: a time-out, a lost connection, an answer that cannot be understood
// are Unknown, whatever a look at the row says.
const (
	Unknown    Outcome = iota // it was, will be or will never be executed
	Done                      // read; written at a quorum; or its condition held, and a quorum has it
	NotApplied                // its condition did not hold
	Refused                   // the store will never execute it, however often it is sent
)

// Answer is what the store said to a statement.
type Answer struct {
	To      Statement
	Outcome Outcome
	// Found says whether the row exists that was read or whose condition did not
	// hold. Of a row under a condition, only the columns that the condition names
	// are set.
	Found bool
	Head  Head
	Shard ShardRow
	Slots []*Entry // of ReadLane: the slots that were ever written
}

// Output is what a step wants done.
type Output struct {
	Send  []Statement // at once, in any order
	Again []Statement // after a pause, the same as before: their fate is unknown
}

func (o *Output) send(s ...Statement) { o.Send = append(o.Send, s...) }
func (o *Output) again(s Statement)   { o.Again = append(o.Again, s) }
