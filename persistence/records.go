package persistence

import (
	"time"

	"github.com/nolaproject/nola"
)

// Meta is the row that makes an actor exist.
type Meta struct {
	Created     time.Time
	Incarnation uint64
	InitPayload []byte
	// KeepsMemory says that the actor has a row of its memory.
	KeepsMemory bool
}

// InvocationState says how far a recorded invocation is. The numbers are
// storage format.
type InvocationState uint8

// The states of a recorded invocation.
const (
	StateSucceeded InvocationState = 1
	StateFailed    InvocationState = 2
	StatePending   InvocationState = 3 // accepted, or started, and not ended
)

// OutcomeRecord is how an invocation ended. It is kept under the key of the
// call, or under the id of what nobody waited for.
type OutcomeRecord struct {
	ID       nola.InvocationID
	Target   nola.ActorRef
	Seq      uint64   // of the session, for session keys
	Hash     [16]byte // nola.RequestHash of the request, for keyed calls
	Time     time.Time
	State    InvocationState
	Reply    []byte
	Err      *nola.Error // nil unless failed
	Attempts int
	// Deferred is the token of the deferred invocation that will end it, zero
	// unless pending.
	Deferred nola.Token
}

// DeferredRecord is an invocation whose turn has ended without a reply. It lives
// until it is answered, or until its deadline, where a row of the due index
// stands for it.
type DeferredRecord struct {
	Token    nola.Token
	Deadline time.Time
	// Invocation comes without its payload.
	Invocation *nola.Invocation
	Hash       [16]byte // nola.RequestHash of the request, for keyed calls
	// Schedule, Kind and RequestID name the occurrence that a firing was made of.
	Schedule  string
	Kind      nola.OccurrenceKind
	RequestID string
}

// ScheduleRef names the schedule or reminder of a deferred firing.
func (r *DeferredRecord) ScheduleRef() nola.ScheduleRef {
	return nola.ScheduleRef{Target: r.Invocation.Target, ID: r.Schedule, Reminder: r.Invocation.Kind == nola.KindReminder}
}

// TimerRecord is a timer as its actor finds it by name. What it will run stands
// in the due row.
type TimerRecord struct {
	Name      string
	Operation string
	Due       time.Time
}

// DueKind says what a due row wakes up. The numbers are storage format and part
// of the row's key.
type DueKind uint8

// The kinds of due rows.
const (
	DueTimer     DueKind = 1 // Name is the timer's
	DueCast      DueKind = 2 // a delayed or retried cast, timer or firing; Name is its invocation id, 16 bytes
	DueSchedule  DueKind = 3 // Name is the schedule's id
	DueReminder  DueKind = 4 // Name is the reminder's
	DueKeyExpiry DueKind = 5 // user keys of the actor may have expired; Name is empty
	DueDeferred  DueKind = 6 // the deadline of a deferred invocation; Name is its token, 16 bytes
)

// DueRow is an entry of a shard's due index, in the order of due time.
type DueRow struct {
	Due    time.Time
	Target nola.ActorRef
	Kind   DueKind
	Name   string
	// Invocation is what runs, for timers and casts; nil for the other kinds.
	Invocation *nola.Invocation
}

// BacklogRow is a cast that waits for its turn.
type BacklogRow struct {
	Number uint64
	// Total is the size of everything ever appended to this backlog, this entry
	// included, so that two rows tell the bytes between them.
	Total      uint64
	Invocation *nola.Invocation
}

// OutboxRow is a cast on its way to another shard.
type OutboxRow struct {
	To         nola.ShardID
	Number     uint64
	Invocation *nola.Invocation
}

// InboxRow remembers what a shard took from another one: everything below Low
// and what is set in Seen above it.
type InboxRow struct {
	From  nola.ShardID
	Epoch nola.Epoch // the newest seen of the sender; lower ones are refused
	Low   uint64
	Seen  [StreamWindow / 64]uint64 // bit i is number Low+i
}

// StreamWindow is how many casts from one shard to another may be under way.
const StreamWindow = 256

// ScheduleRow is a schedule with where it stands.
type ScheduleRow struct {
	Schedule nola.Schedule
	Progress nola.Progress
	// Records counts the occurrence records written so far; the next one goes
	// to the slot Records mod nola.OccurrencesMax.
	Records uint64
}

// UserKeys counts what an actor has of rows that are not in an order in which
// they could be counted: remembered idempotency keys, and delayed casts.
type UserKeys struct {
	Count int
	// Delayed counts the rows of kind DueCast.
	Delayed int
	// Expiry is when the due row that looks after them stands, zero if none.
	Expiry time.Time
}

// Floors tell what a shard may have forgotten: keys of first attempts, and
// outcomes, that lie below them.
type Floors struct {
	Sessions time.Time
	Nested   time.Time
	Outcomes time.Time
}

// Has reports whether number n was taken already.
func (r *InboxRow) Has(n uint64) bool {
	return n < r.Low || r.Fits(n) && r.Seen[(n-r.Low)/64]>>((n-r.Low)%64)&1 != 0
}

// Fits reports whether number n lies in the window.
func (r *InboxRow) Fits(n uint64) bool { return n >= r.Low && n-r.Low < StreamWindow }

// Take remembers that number n was taken. It must fit.
func (r *InboxRow) Take(n uint64) {
	r.Seen[(n-r.Low)/64] |= 1 << ((n - r.Low) % 64)
	for r.Seen[0]&1 != 0 {
		r.Low++
		for i := range r.Seen {
			r.Seen[i] >>= 1
			if i+1 < len(r.Seen) {
				r.Seen[i] |= r.Seen[i+1] << 63
			}
		}
	}
}
