package cqlstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

var shardTables = []persistence.Table{
	persistence.TableDue, persistence.TableOutcome, persistence.TableSession, persistence.TableOutbox,
	persistence.TableInbox, persistence.TableBacklog, persistence.TableFloors,
}

// someKey draws a key as the table has them, mostly, with many that share a bucket.
func someKey(r *rand.Rand, table persistence.Table) []byte {
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = []byte{0, 1, 0x7f, 0x80, 0xfe, 0xff}[r.IntN(6)]
		}
		return b
	}
	if r.IntN(10) == 0 {
		return random(r.IntN(14))
	}
	if table == persistence.TableBacklog {
		ref := nola.ActorRef{Namespace: "n", Type: string(random(1)), ID: string(random(r.IntN(3)))}
		return append(ref.AppendCanonical(nil), random(8)...)
	}
	return random(12 + r.IntN(3))
}

// TestBuckets holds buckets against the order of keys: each is a stretch of it,
// they do not overlap, and a range finds all that have a part of it.
func TestBuckets(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	for _, table := range shardTables {
		var keys [][]byte
		for range 3000 {
			keys = append(keys, someKey(r, table))
		}
		slices.SortFunc(keys, bytes.Compare)
		var last []byte
		for i, key := range keys {
			lo := bucketOf(table, key)
			end := bucketEnd(table, lo)
			if end != nil && bytes.Compare(key, end) >= 0 {
				t.Errorf("table %d: key %x lies behind its bucket %x to %x", table, key, lo, end)
			}
			// A key that is too short to name its bucket stands for the lowest that
			// could.
			if len(key) >= len(lo) && bytes.Compare(key, lo) < 0 {
				t.Errorf("table %d: key %x lies before its bucket %x", table, key, lo)
			}
			if i > 0 && bytes.Compare(lo, last) < 0 && len(key) >= len(lo) && len(keys[i-1]) >= len(last) {
				t.Errorf("table %d: key %x has bucket %x, the one before it %x", table, key, lo, last)
			}
			last = lo
			from, to := keys[r.IntN(len(keys))], keys[r.IntN(len(keys))]
			if bytes.Compare(from, to) >= 0 || len(key) < len(lo) {
				continue
			}
			inside := bytes.Compare(from, key) <= 0 && bytes.Compare(key, to) < 0
			some, within := overlaps(table, lo, from, to)
			if inside && !some || !inside && within {
				t.Errorf("table %d: bucket %x of key %x, range %x to %x: some %v, within %v, the key is inside: %v", table, lo, key, from, to, some, within, inside)
			}
		}
	}
}

// TestFilter looks whether a filter forgets nothing, and seldom claims what it has
// not seen.
func TestFilter(t *testing.T) {
	var f filter
	const n = 20_000
	wrong := 0
	for i := range n {
		if f.has(fmt.Sprint("a", i)) {
			wrong++
		}
		f.add(fmt.Sprint("a", i))
	}
	for i := range n {
		if !f.has(fmt.Sprint("a", i)) {
			t.Fatalf("key %d of %d was forgotten", i, n)
		}
	}
	if wrong > n/20 {
		t.Errorf("%d of %d keys were claimed before they were added", wrong, n)
	}
}

// TestGroup looks whether requests keep to their bounds and lose nothing.
func TestGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var writes []write
	for i := range 5000 {
		p := fmt.Sprint(r.IntN(400))
		if i%3 == 0 {
			p = "one"
		}
		writes = append(writes, write{part: p, bytes: 50 + r.IntN(3000), args: []any{i}})
	}
	writes = append(writes, write{part: "large", bytes: 4 << 20, args: []any{len(writes)}})
	seen := map[any]bool{}
	for _, request := range group(writes) {
		parts, size := map[string]bool{}, 0
		for _, w := range request {
			parts[w.part] = true
			size += w.bytes
			seen[w.args[0]] = true
		}
		if len(request) > applyRowsMax && len(parts) == 1 || len(parts) > applyPartitionsMax || len(parts) > 1 && size > applyMixedMax || size > applyBytesMax && len(request) > 1 {
			t.Errorf("a request of %d writes to %d partitions, %d bytes", len(request), len(parts), size)
		}
	}
	if len(seen) != len(writes) {
		t.Errorf("%d of %d writes are in the requests", len(seen), len(writes))
	}
}
