package nola

import "time"

// Limits of an invocation.
const (
	OperationBytesMax = 128
	PayloadBytesMax   = 4 << 20 // of a request or a reply
	UserKeyBytesMax   = 256

	CallTimeoutDefault = 15 * time.Second
	CallTimeoutMax     = 5 * time.Minute
	TurnTimeoutDefault = 30 * time.Second // of casts, timers and firings, per attempt
)

// Kind says who caused an invocation.
type Kind uint8

// The kinds. The numbers are storage format.
const (
	KindCall     Kind = 1 // a client or another actor waits for the reply
	KindCast     Kind = 2 // acknowledged once durable, nobody waits
	KindTimer    Kind = 3 // a timer that the actor set
	KindReminder Kind = 4 // an occurrence of one of the actor's reminders
	KindSchedule Kind = 5 // an occurrence of a schedule
)

// String names the kind as docs, metrics and guests see it.
func (k Kind) String() string {
	switch k {
	case KindCall:
		return "call"
	case KindCast:
		return "cast"
	case KindTimer:
		return "timer"
	case KindReminder:
		return "reminder"
	case KindSchedule:
		return "schedule"
	}
	return "unknown"
}

// Invocation is one request to one actor. Whoever made it leaves it unchanged
// from then on.
type Invocation struct {
	ID        InvocationID
	Kind      Kind
	Key       Key
	Target    ActorRef
	Operation string
	Payload   []byte
	Caller    Caller
	// Chain lists the actors whose turns wait for this call, outermost first.
	Chain []ActorRef
	// Deadline ends the wait in the queue and the turn. Once the turn has ended
	// it no longer applies. For what nobody waits for it is set anew when an
	// attempt starts.
	Deadline time.Time
	// Due holds the invocation back until then; zero means at once.
	Due time.Time
	// Started is when the first attempt that called other actors began, zero
	// before. It is durable before the first of those calls leaves.
	Started time.Time
	// Attempt counts the turns that were started for it before, without this one.
	Attempt int
	// Create demands that the actor does not exist yet, and makes it exist.
	Create bool
}

// Identity names the invocation across its retries: equal for every attempt of
// what is one invocation to its sender. Nested calls and random streams hang on
// it.
func (inv *Invocation) Identity() InvocationID {
	if inv.Key.IsZero() {
		return inv.ID
	}
	return inv.Key.identity(inv.Target)
}

// Caller says on whose behalf an invocation was made, as the guest may see it.
type Caller struct {
	Actor    ActorRef     // zero unless an actor called or cast
	Parent   InvocationID // the caller's invocation, zero unless an actor called or cast
	Name     string       // of the timer, reminder or schedule
	Nominal  time.Time    // the nominal time of the occurrence, or the due time of the timer
	Identity string       // of the authenticated client, empty if anonymous
}
