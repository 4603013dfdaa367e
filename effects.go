package nola

import "time"

// Limits of what one turn may do. They are equal on all engines.
const (
	KeyBytesMax        = 1024      // a key of an actor's state
	ValueBytesMax      = 1 << 20   // a value of an actor's state
	TurnBytesMax       = 4 << 20   // keys, values, payloads of everything a turn writes and sends
	TurnWritesMax      = 10_000    // state keys one turn may write
	TurnCastsMax       = 1_000     // casts one turn may send
	TurnTimersMax      = 1_000     // timers one turn may set or cancel
	TurnCompletionsMax = 1_000     // deferred invocations one turn may answer
	TimersMax          = 10_000    // timers of one actor
	RemindersMax       = 100       // reminders of one actor
	TimerNameBytesMax  = 256       // of timers and reminders
	ListLimitDefault   = 100       // entries a listing returns unless told
	ListLimitMax       = 1_000     // entries a listing returns at most
	ListBytesMax       = 1 << 20   // bytes a listing returns at most
	TimerPayloadMax    = 256 << 10 // payload of a timer, a reminder, a schedule or a delayed cast
	CallChainMax       = 16        // turns that may wait for one another in one call
	LogMessageBytesMax = 8 << 10   // a longer log message is cut
)

// Effects are what one turn did: a value, committed as a whole or dropped.
type Effects struct {
	// Writes has each written key once, in ascending order.
	Writes []Write
	// Casts are in the order in which the turn sent them.
	Casts []*Invocation
	// Delayed are casts whose time has yet to come, with their due times.
	Delayed []DelayedCast
	// Timers are in order; a later one of the same name wins.
	Timers []TimerChange
	// Reminders are in order; a later one of the same name wins.
	Reminders []ReminderChange
	// Deferral is set when the turn ends without a reply: Reply does not count.
	Deferral *Deferral
	// Completions answer invocations that earlier turns deferred, each token once.
	Completions []Completion
	// Memory is what changed of the actor's memory, in memory mode; nil if nothing
	// did.
	Memory *MemoryChange
	// Reply is what the guest answered.
	Reply []byte
	// Called is set when the turn made a nested call, which has an effect of
	// its own.
	Called bool
	// Steps is what the turn cost by the meter of the runtime.
	Steps uint64
}

// Empty reports whether the turn changed nothing.
func (e *Effects) Empty() bool {
	return len(e.Writes) == 0 && len(e.Casts) == 0 && len(e.Delayed) == 0 && len(e.Timers) == 0 && len(e.Reminders) == 0 &&
		e.Deferral == nil && len(e.Completions) == 0 && e.Memory == nil
}

// Write puts or deletes one key of the actor's state.
type Write struct {
	Key     string
	Value   []byte
	Deleted bool
}

// DelayedCast is a cast that leaves at a time, not at once.
type DelayedCast struct {
	Cast *Invocation
	Due  time.Time
}

// TimerChange sets, replaces or cancels the timer of that name.
type TimerChange struct {
	Timer
	Cancel bool
}

// Timer is a durable one-shot wake-up of one actor. It fires once, at or after
// Due, as an invocation of kind timer.
type Timer struct {
	Name      string
	Operation string
	Payload   []byte
	Due       time.Time
}

// ReminderChange sets, replaces or cancels the reminder of that name.
type ReminderChange struct {
	Reminder
	Cancel bool
}

// Reminder is a named, durable, recurring wake-up that an actor sets for
// itself. It is a schedule owned by the actor: same engine, same promises.
type Reminder struct {
	Name      string
	Operation string
	Payload   []byte
	Spec      Spec
}

// KeyValue is one entry of a listing.
type KeyValue struct {
	Key   []byte
	Value []byte
}

// ListQuery asks for a range of an actor's state, in the order of its keys.
type ListQuery struct {
	Prefix []byte
	// Start is the first key wanted (the last one, going in reverse); empty
	// means from the beginning (the end).
	Start   []byte
	Limit   int // 0 means ListLimitDefault
	Reverse bool
}
