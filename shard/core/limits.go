package core

import (
	"time"

	"github.com/nolaproject/nola"
)

// Limits bound a shard. Zero fields take the default.
type Limits struct {
	MailboxMax      int           // invocations waiting in memory for one actor: default 1,024
	BacklogMax      int           // casts waiting for one actor, on disk too: default 100,000
	BacklogBytesMax int64         // their payloads: default 64 MiB
	DelayedMax      int           // casts to one actor that wait for their time: default 100,000
	CallsMax        int           // unanswered calls of the shard: default 16,384
	CallBytesMax    int64         // their payloads: default 64 MiB
	PendingBytesMax int           // folded and not yet committed; no turn starts above it: default 16 MiB
	CacheBytesMax   int           // committed state that one activation keeps in memory: default 64 KiB
	IdleAfter       time.Duration // an activation unused for so long is passivated: default 5 min
	AsleepMax       int           // activations without an instance that are remembered for IdleAfter: default 16
	DueWindow       time.Duration // how far ahead the due index is kept in memory: default 2 min
	DueMax          int           // entries of the due index read at once: default 128
	DueRowsMax      int           // entries of the due index in memory: default 1,024; more are read while they are no more than half of it
	DueBytesMax     int           // their payloads: default 16 MiB
	DueAtOnce       int           // due entries that one tick brings about; the others wait for the next one: default 16
	DueRunningMax   int           // due entries whose invocations wait or run; later ones wait in the index: default 16,384
	DueTurnsMax     int           // due turns of one namespace that wait for what they need from the store, wait to begin or run; its later entries wait in the index, unless no turn ends: default 16
	SchedulesMax    int           // schedules that stay in memory because they are due soon: default 256
	AttemptsMax     int           // of a cast, timer or firing: default 5
	BackoffMin      time.Duration // before the second attempt, doubled each time: default 1 s
	BackoffMax      time.Duration // default 1 min
}

// WithDefaults returns l with each zero field set to its default.
func (l Limits) WithDefaults() Limits {
	setDefault(&l.MailboxMax, 1024)
	setDefault(&l.BacklogMax, 100_000)
	setDefault(&l.BacklogBytesMax, 64<<20)
	setDefault(&l.DelayedMax, 100_000)
	setDefault(&l.CallsMax, 16_384)
	setDefault(&l.CallBytesMax, 64<<20)
	setDefault(&l.PendingBytesMax, 16<<20)
	setDefault(&l.CacheBytesMax, 64<<10)
	setDefault(&l.IdleAfter, 5*time.Minute)
	setDefault(&l.AsleepMax, 16)
	setDefault(&l.DueWindow, 2*time.Minute)
	setDefault(&l.DueMax, 128)
	setDefault(&l.DueRowsMax, 1024)
	setDefault(&l.DueBytesMax, 16<<20)
	setDefault(&l.DueAtOnce, 16)
	setDefault(&l.DueRunningMax, 16_384)
	setDefault(&l.DueTurnsMax, 16)
	setDefault(&l.SchedulesMax, 256)
	setDefault(&l.AttemptsMax, 5)
	setDefault(&l.BackoffMin, time.Second)
	setDefault(&l.BackoffMax, time.Minute)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// backoff is how long to wait after so many attempts.
func (l *Limits) backoff(attempts int) time.Duration {
	d := l.BackoffMin
	for ; attempts > 1 && d < l.BackoffMax; attempts-- {
		d *= 2
	}
	return min(d, l.BackoffMax)
}

// retryAfter is what refused callers are told to wait: long enough that a full
// queue has moved, short enough that nobody sits idle.
const retryAfter = 50 * time.Millisecond

func errMailboxFull(r nola.ActorRef, limit int) *nola.Error {
	e := nola.LimitError(nola.ReasonMailboxFull, "mailbox", int64(limit), "%s has %d invocations waiting, its limit; it was not executed, try again later", r, limit)
	e.RetryAfter = retryAfter
	return e
}

func errBacklogFull(r nola.ActorRef, limit int64, what string) *nola.Error {
	e := nola.LimitError(nola.ReasonBacklogFull, "backlog", limit, "the backlog of %s holds %d %s, its limit; the cast was not accepted, try again later", r, limit, what)
	e.RetryAfter = time.Second
	return e
}

func errOverloaded(id nola.ShardID, limit int64, what string) *nola.Error {
	e := nola.LimitError(nola.ReasonShardOverloaded, "shard_"+what, limit, "shard %d holds %d unanswered %s, its limit; it was not executed, try again later", id, limit, what)
	e.RetryAfter = retryAfter
	return e
}

func errMoving(id nola.ShardID) *nola.Error {
	e := nola.Errorf(nola.ReasonShardMoving, "shard %d is moving to another owner; it was not executed, try again", id)
	e.RetryAfter = retryAfter
	return e
}

// ErrExpired is the answer to a call whose deadline passed in the queue.
func ErrExpired(inv *nola.Invocation) *nola.Error {
	e := nola.Errorf(nola.ReasonDeadlineExceeded, "the deadline passed while the call waited for its turn; it was not executed")
	e.Metadata = map[string]string{"where": "queue", "actor": inv.Target.String()}
	return e
}
