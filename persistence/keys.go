package persistence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/nolaproject/nola"
)

// The keys of rows, inside their table. All numbers are big-endian, so that the
// order of the bytes is the order of the numbers. testdata/operations.golden
// holds examples of each.

// The widths of a session row's bucket: how exactly the oldest rows go.
const (
	sessionBucket = time.Minute
	nestedBucket  = time.Hour
)

// signBit flips the order of signed numbers into that of unsigned ones.
const signBit = 1 << 63

// The times a due key can tell apart, to the nanosecond; those beyond count as
// the nearest of them.
var (
	dueMin = time.Unix(0, math.MinInt64)
	dueMax = time.Unix(0, math.MaxInt64)
)

func appendDueTime(b []byte, t time.Time) []byte {
	switch {
	case t.Before(dueMin):
		t = dueMin
	case t.After(dueMax):
		t = dueMax
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixNano())^signBit)
}

func appendDueKey(b []byte, due time.Time, target nola.ActorRef, kind DueKind, name string) []byte {
	b = appendDueTime(b, due)
	b = target.AppendCanonical(b)
	b = append(b, byte(kind))
	return append(b, name...)
}

func parseDueKey(key []byte) (row DueRow, err error) {
	if len(key) < 8 {
		return DueRow{}, errKey
	}
	row.Due = time.Unix(0, int64(binary.BigEndian.Uint64(key)^signBit)).UTC()
	target, rest, err := nola.ParseCanonical(key[8:])
	if err != nil || len(rest) == 0 {
		return DueRow{}, errKey
	}
	row.Target, row.Kind, row.Name = target, DueKind(rest[0]), string(rest[1:])
	return row, nil
}

func appendBacklogKey(b []byte, ref nola.ActorRef, number uint64) []byte {
	return binary.BigEndian.AppendUint64(ref.AppendCanonical(b), number)
}

func parseBacklogKey(key []byte) (ref nola.ActorRef, number uint64, err error) {
	ref, rest, err := nola.ParseCanonical(key)
	if err != nil || len(rest) != 8 {
		return nola.ActorRef{}, 0, errKey
	}
	return ref, binary.BigEndian.Uint64(rest), nil
}

func appendScheduleKey(b []byte, reminder bool, id string) []byte {
	return append(appendBool(b, reminder), id...)
}

func appendOccurrencePrefix(b []byte, reminder bool, id string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(id)))
	return appendScheduleKey(b, reminder, id)
}

func appendOccurrenceKey(b []byte, reminder bool, id string, number uint64) []byte {
	b = appendOccurrencePrefix(b, reminder, id)
	return binary.BigEndian.AppendUint16(b, uint16(number%nola.OccurrencesMax))
}

func appendSessionBucket(b []byte, nested bool, t time.Time) []byte {
	width := int64(sessionBucket / time.Second)
	if nested {
		width = int64(nestedBucket / time.Second)
	}
	seconds := t.Unix()
	bucket := seconds / width
	if seconds%width < 0 {
		bucket--
	}
	return binary.BigEndian.AppendUint64(appendBool(b, nested), uint64(bucket)^signBit)
}

func appendSessionKey(b []byte, ref nola.ActorRef, key nola.Key) []byte {
	b = appendSessionBucket(b, key.Nested, key.FirstAttempt)
	b = ref.AppendCanonical(b)
	b = append(b, key.Session[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(key.Seq%nola.SessionWindow))
}

// UserKeyHash is what stands for a user's idempotency key in rows: SHA-256, cut
// to 16 bytes.
func UserKeyHash(key string) [16]byte {
	sum := sha256.Sum256([]byte(key))
	return [16]byte(sum[:16])
}

func appendOutboxKey(b []byte, to nola.ShardID, number uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(to))
	return binary.BigEndian.AppendUint64(b, number)
}

func parseOutboxKey(key []byte) (to nola.ShardID, number uint64, err error) {
	if len(key) != 12 {
		return 0, 0, errKey
	}
	return nola.ShardID(binary.BigEndian.Uint32(key)), binary.BigEndian.Uint64(key[4:]), nil
}

// appendOutcomeBound appends what lies at or below the ids made at t and above
// all earlier ones.
func appendOutcomeBound(b []byte, t time.Time) []byte {
	const idTimeMax = 1<<48 - 1
	ms := uint64(min(max(t.UnixMilli(), 0), idTimeMax))
	at := len(b)
	b = binary.BigEndian.AppendUint64(b, ms<<16)
	return b[:at+6]
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// successor appends the first key behind all that start with prefix; it appends
// nothing if there is none.
func successor(b, prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c != 0xff {
			b = append(b, prefix[:n-1]...)
			return append(b, c+1)
		}
	}
	return b
}

var errKey = errors.New("malformed key")
