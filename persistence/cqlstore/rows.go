package cqlstore

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Where rows lie. An actor's lie in a partition of their own. A shard's lie in
// buckets: partitions that hold a stretch of the table's keys, so that rows which
// come and go in the order of their keys (due times, outcomes, casts on their way)
// leave whole partitions behind, and nobody reads through what was deleted. The
// table buckets says which there are.
//
// testdata/layout.golden holds an example of each.

// key is a row inside its shard: the table, the actor's canonical bytes if it
// belongs to one, and its own key. The order of keys is that of
// persistence.Sorted, and Scan's.
func appendKey(b []byte, table persistence.Table, actor nola.ActorRef, own []byte) []byte {
	b = append(b, byte(table))
	if table.OfActor() {
		b = actor.AppendCanonical(b)
	}
	return append(b, own...)
}

// tableListing stands in front of keys of listings: namespace NUL type NUL id.
const tableListing persistence.Table = 0x41

func appendListingKey(b []byte, ref nola.ActorRef) []byte {
	b = append(b, byte(tableListing))
	b = append(append(b, ref.Namespace...), 0)
	b = append(append(b, ref.Type...), 0)
	return append(b, ref.ID...)
}

// splitKey undoes appendKey. actor is empty in the tables of a shard.
func splitKey(key string) (table persistence.Table, actor, own []byte) {
	b := []byte(key)
	table = persistence.Table(b[0])
	if b = b[1:]; !table.OfActor() {
		return table, nil, b
	}
	_, rest, err := nola.ParseCanonical(b)
	if err != nil {
		panic("cqlstore: a key without the actor that stood in it: " + err.Error())
	}
	return table, b[:len(b)-len(rest)], rest
}

// successor answers the first key behind all that start with prefix, or nil if
// there is none.
func successor(prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c != 0xff {
			return append(bytes.Clone(prefix[:n-1]), c+1)
		}
	}
	return nil
}

// The widths of buckets.
const (
	dueBucket     = time.Hour
	outcomeBucket = time.Hour
	outboxBucket  = 1 << 12 // numbers
	sessionPrefix = 9       // bytes: the minutes, or hours, that the keys themselves have
)

// bucketOf answers the bucket of a row of a shard's table: the lowest key that it
// can hold.
func bucketOf(table persistence.Table, own []byte) []byte {
	lo := []byte{}
	switch table {
	case persistence.TableDue:
		n := padded(own, 8)
		return binary.BigEndian.AppendUint64(lo, n-n%uint64(dueBucket))
	case persistence.TableOutcome:
		n := padded(own, 6) >> 16
		n -= n % uint64(outcomeBucket/time.Millisecond)
		return binary.BigEndian.AppendUint64(lo, n<<16)[:6]
	case persistence.TableSession:
		return append(lo, own[:min(len(own), sessionPrefix)]...)
	case persistence.TableOutbox:
		lo = binary.BigEndian.AppendUint32(lo, uint32(padded(own, 4)>>32)) //nolint:gosec // the upper half
		if len(own) < 4 {
			return binary.BigEndian.AppendUint64(lo, 0)
		}
		n := padded(own[4:], 8)
		return binary.BigEndian.AppendUint64(lo, n-n%outboxBucket)
	case persistence.TableBacklog:
		_, rest, err := nola.ParseCanonical(own)
		if err != nil {
			return append(lo, own...)
		}
		return append(lo, own[:len(own)-len(rest)]...)
	}
	return lo
}

// padded reads the first width bytes, at most 8, as the upper ones of a number.
func padded(b []byte, width int) uint64 {
	var full [8]byte
	copy(full[:width], b)
	return binary.BigEndian.Uint64(full[:])
}

// bucketEnd answers the first key behind a bucket, nil if it is unbounded.
func bucketEnd(table persistence.Table, lo []byte) []byte {
	switch table {
	case persistence.TableDue:
		return plus(lo, 0, uint64(dueBucket))
	case persistence.TableOutcome:
		if len(lo) < 6 {
			return nil
		}
		if end := plus(append(bytes.Clone(lo[:6]), 0, 0), 0, uint64(outcomeBucket/time.Millisecond)<<16); end != nil {
			return end[:6]
		}
		return nil
	case persistence.TableOutbox:
		if end := plus(lo, 4, outboxBucket); end != nil {
			return end
		}
		return successor(lo[:min(4, len(lo))])
	case persistence.TableSession, persistence.TableBacklog:
		return successor(lo)
	}
	return nil
}

// plus adds to the 8 bytes of lo from at on. It answers nil if that overflows.
func plus(lo []byte, at int, n uint64) []byte {
	if len(lo) != at+8 {
		return nil
	}
	sum := binary.BigEndian.Uint64(lo[at:]) + n
	if sum < n {
		return nil
	}
	return binary.BigEndian.AppendUint64(bytes.Clone(lo[:at]), sum)
}

// overlaps reports whether a bucket may hold keys of from <= key < to, and within
// whether it holds no others. An empty to is unbounded.
func overlaps(table persistence.Table, lo, from, to []byte) (some, within bool) {
	end := bucketEnd(table, lo)
	some = (end == nil || bytes.Compare(end, from) > 0) && (len(to) == 0 || bytes.Compare(lo, to) < 0)
	within = some && bytes.Compare(from, lo) <= 0 && (len(to) == 0 || end != nil && bytes.Compare(end, to) <= 0)
	return some, within
}

// Listings of a namespace lie in so many partitions.
const listingBuckets = 16

func listingBucket(own []byte) int16 {
	return int16(crc32.ChecksumIEEE(own) % listingBuckets) //nolint:gosec // below 16
}
