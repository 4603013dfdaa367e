package nola

import "time"

// Result is the answer to a call.
type Result struct {
	ID      InvocationID
	Payload []byte
	// Replayed is set when the call had run before under the same key, and this
	// is what it answered then.
	Replayed bool
}

// InvocationState says how far an invocation is.
type InvocationState uint8

// The states of an invocation, numbered as in the API.
const (
	InvocationPending     InvocationState = 1 // accepted, not ended
	InvocationSucceeded   InvocationState = 2
	InvocationFailed      InvocationState = 3
	InvocationNotRecorded InvocationState = 4 // nothing is known of it
)

// InvocationInfo is what is known of an invocation.
type InvocationInfo struct {
	ID       InvocationID
	State    InvocationState
	Payload  []byte
	Err      *Error // set for failed ones
	Attempts int
	Ended    time.Time
}

// ActorInfo describes an actor. What concerns its activation is zero unless
// Active.
type ActorInfo struct {
	Ref           ActorRef
	Shard         ShardID
	Exists        bool
	Created       time.Time
	Active        bool
	ModuleVersion uint64
	Mailbox       int    // invocations waiting in memory
	Backlog       int    // casts waiting, in memory and on disk
	Turns         uint64 // ended since the activation
	Steps         uint64 // metered since the activation
	MemoryBytes   int64
	LastUsed      time.Time
}

// ScheduleInfo is a schedule with where it stands.
type ScheduleInfo struct {
	Schedule Schedule
	Progress Progress
	// Next are the coming nominal times, at most ten; empty while paused for
	// good, exhausted or at the end.
	Next []time.Time
	// Recent are the newest occurrence records, at most ten, newest first.
	Recent []Occurrence
}

// ShardInfo is where a shard of this node stands.
type ShardInfo struct {
	Shard       ShardID
	Epoch       Epoch
	Seq         Seq
	Activations int
	Unanswered  int // admitted and not yet answered
	Due         int // entries of the due index in memory
	// Turns, Steps and Bytes are the guests' turns, the steps that these took and the
	// bytes that were committed, of this process since it started.
	Turns, Steps, Bytes uint64
}

// Usage is what turns have cost: those of an actor, of all actors of a type (no ID),
// or of a namespace (no Type).
type Usage struct {
	Ref   ActorRef
	Turns uint64
	// Steps are the runtime's, which the same turn always takes as many of.
	Steps uint64
	// StepsError is by how much Steps may be too high; it is never too low.
	StepsError uint64
	// RunTime is how long the turns took, without the calls that they waited for.
	RunTime time.Duration
}

// UsageRest stands for the names of types and namespaces that are not told apart.
// No name is like it.
const UsageRest = "*"

// LogRecord is a line of an actor's log.
type LogRecord struct {
	Time       time.Time
	Level      string
	Message    string
	Invocation InvocationID
}

// ScheduleChange is an update of a schedule: it sets what is not nil.
type ScheduleChange struct {
	// ETag must be the schedule's, unless zero.
	ETag      uint64
	Operation *string
	Payload   *[]byte
	Spec      *Spec
	// Calendars are the named calendars that the spec uses, as they stand. Alone
	// they are no change of the schedule: its etag and Updated stay.
	Calendars   *[]Calendar
	Policy      *Policy
	Paused      *bool
	PausedUntil *time.Time
	PausedBy    string // who asks; counts if Paused says that it pauses
	Note        *string
	Limited     *bool
	Remaining   *int64
	Labels      *map[string]string
}
