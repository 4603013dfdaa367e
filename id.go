package nola

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// InvocationID names one invocation. The server makes it; ids sort by the time
// at which they were made: six bytes of Unix milliseconds, then ten bytes that
// the maker chose at random or derived.
type InvocationID [16]byte

// MakeInvocationID joins a time (to the millisecond) and ten further bytes.
func MakeInvocationID(at time.Time, tail [10]byte) InvocationID {
	var id InvocationID
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16)
	copy(id[6:], tail[:])
	return id
}

// Time is the moment at which the id was made, to the millisecond.
func (id InvocationID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// IsZero reports whether id names nothing.
func (id InvocationID) IsZero() bool { return id == InvocationID{} }

// String is the id in 32 hexadecimal digits.
func (id InvocationID) String() string { return hex.EncodeToString(id[:]) }

// ParseInvocationID reads what String wrote.
func ParseInvocationID(s string) (InvocationID, error) {
	var id InvocationID
	if len(s) != 2*len(id) {
		return id, &Error{Reason: ReasonInvalidName, Message: fmt.Sprintf("invocation id %q: want 32 hexadecimal digits, got %d characters", s, len(s))}
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return InvocationID{}, &Error{Reason: ReasonInvalidName, Message: fmt.Sprintf("invocation id %q: want 32 hexadecimal digits", s)}
	}
	return id, nil
}
