package nola

import (
	"context"
	"time"
)

// Runtime runs guest code. Its methods may be called at once from many
// goroutines.
type Runtime interface {
	// Prepare checks module bytes and makes them ready to run: it validates,
	// meters and compiles them, within a bounded time and memory. Bytes that
	// cannot become an actor are refused as INVALID_MODULE with what is wrong
	// and where; nothing is left behind then. Preparing the same bytes and
	// manifest again is cheap.
	Prepare(ctx context.Context, code []byte, manifest Manifest) (Module, error)
	// Close ends all modules and instances. No turn may be running.
	Close() error
}

// Forgetter is a Runtime that keeps something of modules beyond the process.
type Forgetter interface {
	Runtime
	// Forget gives up what is kept of the module bytes of a digest (SHA-256).
	// Preparing them again is possible, and takes longer. Modules that are ready
	// go on.
	Forget(digest [32]byte) error
}

// Module is prepared code. Its methods may be called at once from many
// goroutines.
type Module interface {
	// Manifest is the one given to Prepare with all defaults filled in.
	Manifest() *Manifest
	// Instantiate makes the memory of one activation. It runs the module's own
	// initialisers, nothing of the actor. A guest that fails there answers as
	// in [Instance.Invoke]; a node out of room for instances answers
	// NODE_OVERLOADED, a module that was closed UNAVAILABLE.
	Instantiate(self ActorRef) (Instance, error)
	// Close gives the module up. Instances made from it go on; the compiled code
	// is released with the last of them.
	Close() error
}

// Instance is the memory of one activation. One turn runs at a time; only
// Interrupt may be called meanwhile. Memory is a cache of committed state:
// whoever cannot commit what a turn did closes the instance.
type Instance interface {
	// Invoke runs one guest operation to its end and returns the guest's reply,
	// which the caller may keep. Errors are *Error with one of these reasons:
	//
	//	GUEST_ERROR          the guest's own text
	//	OPERATION_NOT_FOUND  the guest knows no such operation
	//	GUEST_TRAP           trap kind and guest stack
	//	CPU_BUDGET, MEMORY_LIMIT, LIMIT_EXCEEDED   which limit, its value
	//	DEADLINE_EXCEEDED    the turn's deadline passed
	//
	// or the error given to Interrupt. After any error the instance must be
	// closed. An error from host that the guest hands on unchanged is returned
	// as host returned it.
	Invoke(t *Turn, host Host) (reply []byte, err error)
	// Interrupt ends the running turn soon with err; without one, the next turn
	// ends so as soon as it begins.
	Interrupt(err error)
	// Bytes is the memory that the instance holds, for budgets.
	Bytes() int64
	// Close releases the instance. No turn may be running.
	Close()
}

// Keeper is an Instance whose memory can be kept and given to another one. Those
// of modules in memory mode are; a module that cannot is refused in that mode.
type Keeper interface {
	Instance
	// Image names what the instance began as. Instances of other code, and of code
	// that begins otherwise, have another one.
	Image() [32]byte
	// Restore makes the memory of an instance that has had no turn the one kept in
	// m, which must be of its image. A memory larger than the manifest allows is
	// MEMORY_LIMIT; a node out of room answers NODE_OVERLOADED. After an error the
	// instance must be closed.
	Restore(m *Memory) error
	// Keep answers, after a turn that went well, how the memory differs from
	// before: what was restored with all changes since, or nil for the image. It
	// answers nil if nothing has changed. Version, InlineMax and Anew are the
	// caller's to set.
	Keep(before *Memory) *MemoryChange
}

// Turn says what is to be run and within which bounds.
type Turn struct {
	Operation string
	Payload   []byte
	Deadline  time.Time
	// Carry is what the schedule's earlier firings leave to this one; nil if there
	// is nothing, or no schedule or reminder is behind the turn.
	Carry *Carry
	// Worker is the number of the run token the turn holds when it starts, from
	// 0; no two turns hold one token at once, but a turn that waited in a host
	// call may come back under another one.
	Worker int
	// Steps is set by Invoke: what the turn cost by the runtime's meter.
	Steps uint64
}

// The operations that a runtime's owner calls besides those of clients. All
// are optional: a guest that answers OPERATION_NOT_FOUND has none.
const (
	OperationStartup  = "STARTUP"  // before the first turn of an activation, payload = init payload
	OperationShutdown = "SHUTDOWN" // before passivation, payload = the reason; not in memory mode

	// When an actor that keeps its memory moves to another version, the old one is
	// asked for what it holds, and the new one is given that.
	OperationExport  = "EXPORT"  // reply = what the actor holds, in a form of the author's choice
	OperationUpgrade = "UPGRADE" // payload = the reply of EXPORT
)

// Host is the world outside the guest's memory, for the length of one turn. It
// is used by the goroutine that runs the turn. Byte slices passed in are
// copied by the host if it keeps them; slices handed out are not to be changed.
//
// A refusal is an *Error; the guest may handle it and go on.
type Host interface {
	// Invocation is what the turn runs: its target is the actor itself.
	Invocation() *Invocation
	// Now is the turn's one time.
	Now() time.Time
	// Yield lets others have the processor, as often as the runtime asks in a long
	// turn. steps is what Invoke has taken so far. It may wait; an error says that
	// the turn is to end with it.
	Yield(steps uint64) error
	// Random fills b from the turn's random stream, equal on every retry.
	Random(b []byte)
	// Log appends to the actor's log, whatever becomes of the turn. Level is
	// one of debug, info, warn, error.
	Log(level, message string)

	// Get reads a key as this turn and all turns before it left it.
	Get(key []byte) (value []byte, found bool, err error)
	// Put writes a key; it is durable with the turn's commit.
	Put(key, value []byte) error
	// Delete reports whether there was something to delete.
	Delete(key []byte) (found bool, err error)
	// List reads a range of keys in order; more tells that the limit cut it.
	List(q ListQuery) (entries []KeyValue, more bool, err error)

	// Call runs an operation of another actor and waits for its reply. The
	// called actor's turn is a transaction of its own, it stands even if this
	// turn fails. A target that waits for this turn is refused (CALL_CYCLE).
	Call(c OutCall) (reply []byte, err error)
	// Cast sends without waiting, with the commit of this turn.
	Cast(c OutCall) (InvocationID, error)

	// SetTimer sets the timer of that name, or replaces it; an empty name makes
	// one of its own.
	SetTimer(t Timer) error
	// CancelTimer reports whether there was such a timer.
	CancelTimer(name string) (found bool, err error)
	// ListTimers returns the actor's timers in the order of their names, with
	// their payloads, at most limit and about ListBytesMax.
	ListTimers(prefix string, limit int) ([]Timer, error)
	// SetReminder sets the reminder of that name, or replaces it; its spec must
	// compile (INVALID_SPEC).
	SetReminder(r Reminder) error
	// CancelReminder reports whether there was such a reminder.
	CancelReminder(name string) (found bool, err error)

	// Defer says that this turn, if it succeeds, ends without a reply: what the
	// guest returns is dropped, and whoever holds the token answers later. The
	// invocation fails when timeout has passed, counted from Now, and a call never
	// later than by its deadline; zero means the longest of a call, and
	// DeferTimeoutDefault otherwise. Asking again answers the same token.
	Defer(timeout time.Duration) (Token, error)
	// Complete answers an invocation that an earlier turn of this actor has
	// deferred, with the commit of this turn. found is false if the token is not
	// known, was used, or its deadline has passed.
	Complete(c Completion) (found bool, err error)
}

// OutCall is a call or cast as a guest asks for it.
type OutCall struct {
	Type      string // empty means the caller's own
	ID        string
	Operation string
	Payload   []byte
	// Create demands that the actor does not exist yet; the operation may be
	// empty then, and the payload is the init payload.
	Create bool
	// Delay holds a cast back.
	Delay time.Duration
}
