package nola

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Limits of deferred invocations.
const (
	DeferredMax         = 1_000                // deferred invocations of one actor
	DeferTimeoutDefault = 24 * time.Hour       // of what nobody waits for
	DeferTimeoutMax     = 366 * 24 * time.Hour // of what nobody waits for; a call ends with its own deadline
	CompletionErrorMax  = 8 << 10              // bytes of the text with which a deferred invocation is failed
)

// Token names a deferred invocation: one whose turn has ended without a reply.
// Whoever holds it may answer the invocation, once. It cannot be guessed, and
// the retry of an invocation gets the token that the attempt before got.
type Token [16]byte

// IsZero reports whether t names nothing.
func (t Token) IsZero() bool { return t == Token{} }

// String is the token in 32 hexadecimal digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// ParseToken reads what String wrote.
func ParseToken(s string) (Token, error) {
	var t Token
	if len(s) != 2*len(t) {
		return t, &Error{Reason: ReasonInvalidArgument, Message: fmt.Sprintf("token: want 32 hexadecimal digits, got %d characters", len(s))}
	}
	if _, err := hex.Decode(t[:], []byte(s)); err != nil {
		return Token{}, &Error{Reason: ReasonInvalidArgument, Message: "token: want 32 hexadecimal digits"}
	}
	return t, nil
}

// Deferral says that a turn ends without a reply.
type Deferral struct {
	Token Token
	// Deadline is when the invocation fails unless it was answered before.
	Deadline time.Time
}

// Completion is the answer to a deferred invocation: Payload, or Err.
type Completion struct {
	Token   Token
	Payload []byte
	Err     *Error
}
