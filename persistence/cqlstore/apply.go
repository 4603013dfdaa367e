package cqlstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// write is one plain statement with its timestamp. It may be sent at any time, by
// anybody who knows it to be committed, any number of times.
type write struct {
	stmt  statement
	args  []any
	part  string // its partition
	bytes int
}

func blob(b []byte) []byte {
	if b == nil {
		return []byte{} // nil would be null
	}
	return b
}

func part(kind byte, shard nola.ShardID, rest ...[]byte) string {
	b := []byte{kind, byte(shard >> 24), byte(shard >> 16), byte(shard >> 8), byte(shard)}
	for _, r := range rest {
		b = append(b, r...)
	}
	return string(b)
}

// rowWrite is what an item of memory writes.
func rowWrite(shard nola.ShardID, key string, it *item) write {
	table, actor, own := splitKey(key)
	ts := int64(it.ts)
	w := write{bytes: len(key) + len(it.value) + itemBytes}
	switch {
	case table == tableListing:
		at := 0
		for own[at] != 0 {
			at++
		}
		namespace, rest := string(own[:at]), own[at+1:]
		n := listingBucket(rest)
		w.part = string(append([]byte{'l', byte(n)}, namespace...))
		if it.present {
			w.stmt, w.args = stmtListingPut, []any{namespace, n, rest, ts}
		} else {
			w.stmt, w.args = stmtListingDelete, []any{ts, namespace, n, rest}
		}
	case table.OfActor():
		w.part = part('a', shard, actor)
		if it.present {
			w.stmt, w.args = stmtActorPut, []any{int(shard), actor, int8(table), blob(own), blob(it.value), ts} //nolint:gosec // tables are small
		} else {
			w.stmt, w.args = stmtActorDelete, []any{ts, int(shard), actor, int8(table), blob(own)} //nolint:gosec // as above
		}
	default:
		lo := bucketOf(table, own)
		w.part = part('s', shard, []byte{byte(table)}, lo)
		if it.present {
			w.stmt, w.args = stmtShardPut, []any{int(shard), int8(table), lo, blob(own), blob(it.value), ts} //nolint:gosec // as above
		} else {
			w.stmt, w.args = stmtShardDelete, []any{ts, int(shard), int8(table), lo, blob(own)} //nolint:gosec // as above
		}
	}
	return w
}

func actorRange(shard nola.ShardID, op *persistence.Op, ts lane.Timestamp) write {
	actor := op.Actor.AppendCanonical(nil)
	w := write{stmt: stmtActorDeleteFrom, part: part('a', shard, actor), bytes: itemBytes}
	w.args = []any{int64(ts), int(shard), actor, int8(op.Table), blob(op.Key)} //nolint:gosec // tables are small
	if len(op.Value) > 0 {
		w.stmt, w.args = stmtActorDeleteRange, append(w.args, op.Value)
	}
	return w
}

func actorWhole(shard nola.ShardID, actor []byte, ts lane.Timestamp) write {
	args := []any{int64(ts), int(shard), actor, int8(persistence.TableUserKey)}
	return write{stmt: stmtActorDeleteAll, part: part('a', shard, actor), args: args, bytes: itemBytes}
}

func bucketRange(shard nola.ShardID, b *bucket, op *persistence.Op, ts lane.Timestamp) write {
	w := write{stmt: stmtShardDeleteFrom, part: part('s', shard, []byte{byte(b.table)}, b.lo), bytes: itemBytes}
	w.args = []any{int64(ts), int(shard), int8(b.table), b.lo, blob(op.Key)} //nolint:gosec // tables are small
	if len(op.Value) > 0 {
		w.stmt, w.args = stmtShardDeleteRange, append(w.args, op.Value)
	}
	return w
}

func bucketWhole(shard nola.ShardID, b *bucket, ts lane.Timestamp) write {
	args := []any{int64(ts), int(shard), int8(b.table), b.lo} //nolint:gosec // tables are small
	return write{stmt: stmtBucketDelete, part: part('s', shard, []byte{byte(b.table)}, b.lo), args: args, bytes: itemBytes}
}

func entryWrite(shard nola.ShardID, e bucketWrite) write {
	w := write{stmt: stmtBucketEnter, part: part('b', shard), bytes: itemBytes}
	w.args = []any{int(shard), int8(e.b.table), e.b.lo, int64(e.ts)} //nolint:gosec // tables are small
	if e.leave {
		w.stmt, w.args = stmtBucketLeave, []any{int64(e.ts), int(shard), int8(e.b.table), e.b.lo} //nolint:gosec // as above
	}
	return w
}

// flush is what a memory has to write, as it stood when the flush began.
type flush struct {
	m       *memory
	writes  []write
	keys    []flushed
	holes   int
	gone    map[string]lane.Timestamp
	entries int
	number  nola.Seq
	waiting int64
}

type flushed struct {
	key string
	ts  lane.Timestamp
}

// begin starts a flush, unless one runs or there is nothing to write.
func (m *memory) begin() *flush {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flushing || m.frozen || len(m.dirty) == 0 && len(m.holes) == 0 && len(m.entries) == 0 && !m.stale && m.first == 0 {
		return nil
	}
	for m.scans > 0 {
		m.idle.Wait()
	}
	if m.flushing {
		return nil
	}
	m.flushing = true
	m.begun++
	f := &flush{m: m, holes: len(m.holes), entries: len(m.entries), waiting: m.waiting, number: m.number}
	for _, key := range m.dirty {
		it, found := m.rows.Get(key)
		if !found || !it.dirty {
			continue
		}
		f.writes = append(f.writes, rowWrite(m.shard, key, it))
		f.keys = append(f.keys, flushed{key, it.ts})
	}
	m.dirty = m.dirty[:0]
	for i := range m.holes {
		f.writes = append(f.writes, m.holes[i].writes...)
	}
	f.gone = make(map[string]lane.Timestamp, len(m.gone))
	for actor, ts := range m.gone {
		f.gone[actor] = ts
		f.writes = append(f.writes, actorWhole(m.shard, []byte(actor), ts))
	}
	for _, e := range m.entries {
		f.writes = append(f.writes, entryWrite(m.shard, e))
	}
	if m.stale {
		f.writes = append(f.writes, write{stmt: stmtNumberPut, args: []any{int(m.shard), int64(m.number), int64(m.clock)}, part: part('n', m.shard), bytes: itemBytes})
	}
	return f
}

// end says that a quorum has all of it, or with an error that perhaps not.
func (f *flush) end(err error) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushing = false
	if err != nil {
		for _, k := range f.keys {
			m.dirty = append(m.dirty, k.key) // if it is still there and dirty
		}
		if m.first == 0 {
			m.first, m.since = m.next, m.nextTime
		}
		m.next = 0
		return
	}
	for _, k := range f.keys {
		it, found := m.rows.Get(k.key)
		if !found || !it.dirty {
			continue
		}
		if it.ts == k.ts {
			it.dirty = false
		} else {
			m.dirty = append(m.dirty, k.key)
		}
	}
	m.holes = append(m.holes[:0], m.holes[f.holes:]...)
	for actor, ts := range f.gone {
		if m.gone[actor] == ts {
			delete(m.gone, actor)
		}
	}
	m.entries = append(m.entries[:0], m.entries[f.entries:]...)
	m.stale = m.stale && m.number != f.number
	m.waiting -= f.waiting
	m.first, m.since, m.next = m.next, m.nextTime, 0
}

// The bounds of one request that writes rows. Of several partitions it stays below
// what servers warn about (5 KiB, 10 partitions).
const (
	applyRowsMax       = 256
	applyBytesMax      = 64 << 10
	applyMixedMax      = 4 << 10
	applyPartitionsMax = 8
	appliersMax        = 16 // requests under way per store
)

// group cuts writes into requests.
func group(writes []write) [][]write {
	order := make(map[string]int, len(writes))
	var parts [][]write
	for _, w := range writes {
		i, ok := order[w.part]
		if !ok {
			i = len(parts)
			order[w.part] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], w)
	}
	var requests [][]write
	var mixed []write
	mixedParts, mixedBytes := 0, 0
	for _, p := range parts {
		size := 0
		for _, w := range p {
			size += w.bytes
		}
		if len(p) <= applyRowsMax && size <= applyMixedMax/2 {
			if mixedParts == applyPartitionsMax || mixedBytes+size > applyMixedMax {
				requests = append(requests, mixed)
				mixed, mixedParts, mixedBytes = nil, 0, 0
			}
			mixed, mixedParts, mixedBytes = append(mixed, p...), mixedParts+1, mixedBytes+size
			continue
		}
		for from := 0; from < len(p); {
			to, bytes := from, 0
			for to < len(p) && to-from < applyRowsMax && (to == from || bytes+p[to].bytes <= applyBytesMax) {
				bytes += p[to].bytes
				to++
			}
			requests = append(requests, p[from:to])
			from = to
		}
	}
	if len(mixed) > 0 {
		requests = append(requests, mixed)
	}
	return requests
}

// appliers writes rows, bounded over all shards of a store.
type appliers struct {
	link    *link
	slots   chan struct{}
	figures *figures
}

// write sends all writes until a quorum has them or ctx ends. Of a refusal it
// answers the first.
func (a *appliers) write(ctx context.Context, writes []write) error {
	requests := group(writes)
	a.figures.flushedRows.Add(int64(len(writes)))
	a.figures.applyRequests.Add(int64(len(requests)))
	errs := make([]error, len(requests))
	var wg sync.WaitGroup
	for i, r := range requests {
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-a.slots }()
			errs[i] = a.request(ctx, r)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (a *appliers) request(ctx context.Context, writes []write) error {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		err := a.once(ctx, writes)
		if err == nil {
			return nil
		}
		if refused(err) {
			return fmt.Errorf("cqlstore: apply %d rows (%s): %w", len(writes), statements[writes[0].stmt].name, err)
		}
		if sleep(ctx, jitter(pause)) != nil {
			return ctx.Err()
		}
	}
}

func (a *appliers) once(ctx context.Context, writes []write) error {
	if len(writes) == 1 {
		return a.link.exec(ctx, writes[0].stmt, writes[0].args...)
	}
	b := a.link.batch(ctx)
	b.Entries = make([]gocql.BatchEntry, 0, len(writes))
	for _, w := range writes {
		b.Query(a.link.texts[w.stmt], w.args...)
	}
	return a.link.session().ExecuteBatch(b)
}

// flush writes what m holds, and reports whether there was something.
func (a *appliers) flush(ctx context.Context, m *memory) (bool, error) {
	f := m.begin()
	if f == nil {
		return false, nil
	}
	err := a.write(ctx, f.writes)
	f.end(err)
	return true, err
}

// oldest answers the first entry of which something is not in the tables, or
// math.MaxInt64.
func (m *memory) oldest() lane.Seq {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.frozen:
	case m.first != 0:
		return m.first
	case m.next != 0: // what is flushed is of no entry, as when a bucket was removed
		return m.next
	}
	return math.MaxInt64
}
