package nola

import (
	"fmt"
	"time"
)

// Reason is the stable, machine-readable name of what went wrong. Clients
// branch on it; each reason belongs to one Connect code (server/errors.go).
type Reason string

// The reasons.
const (
	ReasonInvalidName        Reason = "INVALID_NAME"
	ReasonInvalidArgument    Reason = "INVALID_ARGUMENT"
	ReasonInvalidSpec        Reason = "INVALID_SPEC"
	ReasonInvalidModule      Reason = "INVALID_MODULE"
	ReasonInvalidKey         Reason = "INVALID_KEY"
	ReasonModuleNotFound     Reason = "MODULE_NOT_FOUND"
	ReasonVersionNotFound    Reason = "VERSION_NOT_FOUND"
	ReasonActorNotFound      Reason = "ACTOR_NOT_FOUND"
	ReasonScheduleNotFound   Reason = "SCHEDULE_NOT_FOUND"
	ReasonCalendarNotFound   Reason = "CALENDAR_NOT_FOUND"
	ReasonBackfillNotFound   Reason = "BACKFILL_NOT_FOUND"
	ReasonDeadLetterNotFound Reason = "DEAD_LETTER_NOT_FOUND"
	ReasonNamespaceNotFound  Reason = "NAMESPACE_NOT_FOUND"
	ReasonInvocationNotFound Reason = "INVOCATION_NOT_FOUND"
	ReasonAlreadyExists      Reason = "ALREADY_EXISTS"
	ReasonOperationNotFound  Reason = "OPERATION_NOT_FOUND"
	ReasonGuestError         Reason = "GUEST_ERROR"
	ReasonGuestTrap          Reason = "GUEST_TRAP"
	ReasonCPUBudget          Reason = "CPU_BUDGET"
	ReasonMemoryLimit        Reason = "MEMORY_LIMIT"
	ReasonLimitExceeded      Reason = "LIMIT_EXCEEDED"
	ReasonMailboxFull        Reason = "MAILBOX_FULL"
	ReasonBacklogFull        Reason = "BACKLOG_FULL"
	ReasonShardOverloaded    Reason = "SHARD_OVERLOADED"
	ReasonNodeOverloaded     Reason = "NODE_OVERLOADED"
	ReasonNestedCalls        Reason = "NESTED_CALLS"
	ReasonDeadlineExceeded   Reason = "DEADLINE_EXCEEDED"
	ReasonCanceled           Reason = "CANCELED"
	ReasonTerminated         Reason = "TERMINATED"
	ReasonCallCycle          Reason = "CALL_CYCLE"
	ReasonETagMismatch       Reason = "ETAG_MISMATCH"
	ReasonModuleInUse        Reason = "MODULE_IN_USE"
	ReasonUpgradeRefused     Reason = "UPGRADE_REFUSED"
	ReasonCalendarInUse      Reason = "CALENDAR_IN_USE"
	ReasonNamespaceDeleting  Reason = "NAMESPACE_DELETING"
	ReasonShardMoving        Reason = "SHARD_MOVING"
	ReasonNoOwner            Reason = "NO_OWNER"
	ReasonKeyReused          Reason = "KEY_REUSED"
	ReasonKeyExpired         Reason = "KEY_EXPIRED"
	ReasonDedupFull          Reason = "DEDUP_FULL"
	ReasonNondeterministic   Reason = "NONDETERMINISTIC"
	ReasonOutcomeUnknown     Reason = "OUTCOME_UNKNOWN"
	ReasonPermissionDenied   Reason = "PERMISSION_DENIED"
	ReasonUnauthenticated    Reason = "UNAUTHENTICATED"
	ReasonBackupsDisabled    Reason = "BACKUPS_DISABLED"
	ReasonTimeNotVirtual     Reason = "TIME_NOT_VIRTUAL"
	ReasonUnavailable        Reason = "UNAVAILABLE"
	ReasonInternal           Reason = "INTERNAL"
)

// Error is every error that may reach a client. It stands for itself: nobody
// wraps its message on the way out. An Error is immutable once returned.
type Error struct {
	Reason Reason
	// Message says what happened and what to do next. For GUEST_ERROR it is the
	// guest's own text, unchanged.
	Message string
	// Metadata holds what a program may want of the message: a limit's name and
	// value, the field, the chain.
	Metadata map[string]string
	// RetryAfter is when the same request has a chance again, zero if waiting
	// does not help.
	RetryAfter time.Duration
}

// Error is the message alone; the reason travels beside it.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare reasons, so that &Error{Reason: r} is a sentinel.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Message == ""
}

// Errorf makes an Error from a format.
func Errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// LimitError is the refusal of a request that would pass a named limit.
// metadata holds the limit's name and value.
func LimitError(reason Reason, limit string, value int64, format string, args ...any) *Error {
	e := Errorf(reason, format, args...)
	e.Metadata = map[string]string{"limit": limit, "value": fmt.Sprint(value)}
	return e
}
