package core

import (
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Input is something that happened: an invocation arrived (*Call), a turn ended
// (*Turn), rows were read (*Load), a group was committed (*Committed), time
// passed (*Tick), …
type Input interface {
	step(s *Shard, out *Output)
}

// Output is what must happen next. The caller of Step owns it and empties it
// with Reset.
type Output struct {
	// Turns are to be run, each by anybody, and stepped back.
	Turns []*Turn
	// Loads are to be filled by reading the store, and stepped back.
	Loads []*Load
	// Answers are decided: their Err and results are final.
	Answers []*Ticket
	// Ends are turns too, of actors that nobody asks for: SHUTDOWN. Others go first.
	Ends []*Turn
	// Hurry are earlier ones of Ends that somebody waits for now. They may have begun,
	// or ended.
	Hurry []*Turn
	// Sends are to be delivered to other shards.
	Sends []*Delivery
	// Interrupts are of turns that run, or are about to.
	Interrupts []Interrupt
	// Closed are activations that ended: their instances are to be closed.
	Closed []*Activation
	// Firings tell of schedule firings that ended, for people watching.
	Firings []Firing
	// Commit is set when a group waits and none is in flight.
	Commit bool
}

// Reset empties o for reuse.
func (o *Output) Reset() {
	clear(o.Turns)
	clear(o.Ends)
	clear(o.Hurry)
	clear(o.Loads)
	clear(o.Answers)
	clear(o.Sends)
	clear(o.Interrupts)
	clear(o.Closed)
	clear(o.Firings)
	*o = Output{
		Turns: o.Turns[:0], Ends: o.Ends[:0], Hurry: o.Hurry[:0], Loads: o.Loads[:0], Answers: o.Answers[:0], Sends: o.Sends[:0],
		Interrupts: o.Interrupts[:0], Closed: o.Closed[:0], Firings: o.Firings[:0],
	}
}

// Empty reports whether nothing is to be done.
func (o *Output) Empty() bool {
	return len(o.Turns) == 0 && len(o.Ends) == 0 && len(o.Hurry) == 0 && len(o.Loads) == 0 && len(o.Answers) == 0 && len(o.Sends) == 0 && len(o.Interrupts) == 0 && len(o.Closed) == 0 && len(o.Firings) == 0 && !o.Commit
}

// Interrupt ends the turn of that number soon with Err, if it has not ended. What
// it did is dropped in any case.
type Interrupt struct {
	Act    *Activation
	Number uint64
	Err    error
}

// Ticket is what somebody waits for: part of every input that gets an answer.
type Ticket struct {
	// Err is the answer if it is a refusal or a failure.
	Err error
	// Shell belongs to the owner of the shard: who waits.
	Shell any
	// decided guards against a second answer.
	decided bool
}

// Firing tells that an occurrence of a schedule has got its outcome.
type Firing struct {
	Schedule   nola.ScheduleRef
	Occurrence nola.Occurrence
	Reply      []byte
}

// LoadKind says what a Load reads.
type LoadKind uint8

// The kinds of loads, with what they fill.
const (
	LoadActor    LoadKind = iota + 1 // Meta, UserKeys, Memory if the actor keeps it, and First and Last if Behind
	LoadKey                          // Record, UserKeys
	LoadBacklog                      // Backlog, from Number
	LoadDue                          // Due, behind After, until Until, at most Limit and about Bytes; More if those cut it
	LoadSchedule                     // Row
	LoadOutbox                       // Outbox, to To, from Number
	LoadOwned                        // Timers, Rows, Reminders, Deferred: what an actor owns in the due index
	LoadExpired                      // Expired: user keys recorded before Until
)

// Load is a read that the core asks for. The owner fills it and steps it back,
// once, also when it failed.
type Load struct {
	Kind     LoadKind
	Ref      nola.ActorRef
	Key      nola.Key
	Schedule nola.ScheduleRef
	Number   uint64
	To       nola.ShardID
	After    persistence.DueRow
	Until    time.Time
	Limit    int
	Bytes    int
	Behind   bool

	Err       error
	Found     bool
	Meta      persistence.Meta
	Memory    *nola.Memory
	First     persistence.BacklogRow
	Last      persistence.BacklogRow
	Record    persistence.OutcomeRecord
	UserKeys  persistence.UserKeys
	Backlog   []persistence.BacklogRow
	Due       []persistence.DueRow
	More      bool
	Row       *persistence.ScheduleRow // where to put it
	Outbox    []persistence.OutboxRow
	Timers    []persistence.TimerRecord
	Rows      []persistence.ScheduleRow
	Reminders []persistence.ScheduleRow
	Deferred  []persistence.DeferredRecord
	Expired   [][16]byte

	epoch nola.Epoch
	act   *Activation
	call  *Call
	sched *schedule
}
