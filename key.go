package nola

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Limits and lifetimes of keys.
const (
	SessionWindow    = 1024             // keys of one session that may be open at once, per actor
	SessionRetention = 10 * time.Minute // an actor may forget a session unused for so long
	UserKeyRetention = 24 * time.Hour
	UserKeysMax      = 10_000 // remembered per actor
	NestedRetention  = 24 * time.Hour
)

// SessionID names a client's session or, for nested calls, the identity of the
// calling invocation.
type SessionID [16]byte

// Key recognises the retries of one invocation. It is scoped to the target
// actor. The zero Key recognises nothing. At most one of its three forms is
// set: a session key, a user's idempotency key, or the key of a nested call.
type Key struct {
	// Session, Seq and AckedBelow are a session key: the client's session, the
	// number of the call in it, and the number below which the client has seen
	// every answer.
	Session    SessionID
	Seq        uint64
	AckedBelow uint64
	// FirstAttempt is when the first attempt was made, by the server's clock as
	// the client last saw it.
	FirstAttempt time.Time
	// Nested marks a session key made by the server for a call from one actor's
	// turn to another actor: Session is the identity of the calling invocation
	// and Seq the number of the call in its turn.
	Nested bool
	// User is the idempotency key that a user chose.
	User string
}

// IsZero reports whether k recognises nothing.
func (k Key) IsZero() bool { return k.User == "" && k.Session == SessionID{} }

// IsUser reports whether k is a user's idempotency key.
func (k Key) IsUser() bool { return k.User != "" }

// Retention is how long an actor remembers the outcome under k.
func (k Key) Retention() time.Duration {
	switch {
	case k.IsUser():
		return UserKeyRetention
	case k.Nested:
		return NestedRetention
	default:
		return SessionRetention
	}
}

// Validate reports a malformed key.
func (k Key) Validate() error {
	switch {
	case k.IsZero():
		return nil
	case k.IsUser() && k.Session != SessionID{}:
		return &Error{Reason: ReasonInvalidKey, Message: "an idempotency key and a session key are both set; send one of them"}
	case len(k.User) > UserKeyBytesMax:
		return &Error{Reason: ReasonInvalidKey, Message: fmt.Sprintf("idempotency key has %d bytes, at most %d are allowed", len(k.User), UserKeyBytesMax)}
	case k.IsUser() || k.Nested:
		return nil
	case k.Seq < k.AckedBelow:
		return &Error{Reason: ReasonInvalidKey, Message: fmt.Sprintf("session key: seq %d lies below acked_below %d, so its answer was acknowledged already", k.Seq, k.AckedBelow)}
	case k.Seq-k.AckedBelow >= SessionWindow:
		return &Error{Reason: ReasonInvalidKey, Message: fmt.Sprintf("session key: seq %d is %d above acked_below %d, at most %d calls of a session may be open", k.Seq, k.Seq-k.AckedBelow, k.AckedBelow, SessionWindow-1)}
	}
	return nil
}

func (k Key) identity(target ActorRef) InvocationID {
	b := target.AppendCanonical(make([]byte, 0, 128))
	if k.IsUser() {
		b = append(append(b, 1), k.User...)
	} else {
		b = append(append(b, 2), k.Session[:]...)
		b = binary.BigEndian.AppendUint64(b, k.Seq)
	}
	h := sha256.Sum256(b)
	return InvocationID(h[:16])
}

// RequestHash tells two requests under one key apart: SHA-256 of the operation
// behind its length and the payload, cut to 16 bytes.
func RequestHash(operation string, payload []byte) [16]byte {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(operation)))
	h.Write(n[:])
	h.Write([]byte(operation))
	h.Write(payload)
	var sum [sha256.Size]byte
	return [16]byte(h.Sum(sum[:0]))
}
