package cqlstore

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// memory is what the owner of a shard knows of its rows: what was committed and
// is not in the tables yet, and some of what is. Reads take it before the tables.
//
// Invariants.
//
//   - A row in memory is what the last committed operation made of it, or what the
//     tables say if there was none since they were read.
//   - What is dirty, a hole or an entered bucket, is in memory until a quorum has it.
//   - The tables change only while a flush runs, and begun counts those that began:
//     a page that was read while begun stood still, and is put under what memory
//     held before, is of one state.
type memory struct {
	shard nola.ShardID
	cache *atomic.Int64 // bytes of all memories

	mu      sync.Mutex // guards the fields below
	rows    btree.Map[string, *item]
	holes   []hole
	gone    map[string]lane.Timestamp // actors that were deleted: canonical bytes
	dirty   []string                  // keys, of which some may be clean or gone again
	buckets btree.Map[string, *bucket]
	entries []bucketWrite // of the table of buckets
	number  nola.Seq      // of the last batch
	clock   lane.Timestamp
	stale   bool // number is not in the tables
	bytes   int64
	cursor  string // where eviction goes on
	filters map[persistence.Table][]*bucket
	actors  map[string]*sight // by canonical bytes

	first    lane.Seq  // the oldest entry of which something is not in the tables; 0: none
	since    time.Time // when that came
	next     lane.Seq  // the first entry that came while a flush runs; 0: none
	nextTime time.Time
	waiting  int64 // bytes that are not in the tables
	flushing bool
	frozen   bool   // the tenure is over: whoever claims the shard writes what is here
	begun    uint64 // flushes
	scans    int    // pages that a flush must wait for
	idle     sync.Cond
}

// item is a row, or the knowledge that there is none.
type item struct {
	value   []byte
	present bool
	dirty   bool
	loading bool // nothing is known yet: somebody reads the tables
	used    bool
	ts      lane.Timestamp
}

const itemBytes = 96 // of an item beside key and value, about

// sight is a look at all rows that the tables have of an actor.
type sight struct {
	known bool // all of them are in memory: what is not there does not exist
	large bool // there are too many
	begun uint64
}

const (
	sightBytes = 64 // of a sight beside its key, about
	// sightRows is how many rows an actor may have that are read at once. Each may
	// have nola.ValueBytesMax.
	sightRows = 8
)

// glance begins a look at an actor of which a row is missed. It answers nil if there
// was one, or a flush changes the tables.
func (m *memory) glance(actor string) *sight {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flushing || m.actors[actor] != nil {
		return nil
	}
	s := &sight{begun: m.begun}
	m.actors[actor] = s
	m.grow(len(actor) + sightBytes)
	return s
}

// seen ends a look: these are all rows, by their keys in memory, or too many. It
// counts only if the tables stood still, as then what memory has is newer.
func (m *memory) seen(actor string, s *sight, rows []pair, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.actors[actor] != s:
		return
	case err != nil || m.begun != s.begun:
		delete(m.actors, actor)
		m.grow(-len(actor) - sightBytes)
		return
	case len(rows) > sightRows:
		s.large = true
		return
	}
	s.known = true
	for _, p := range rows {
		key := string(p.key)
		// Of one that somebody else reads, it does not matter how that ends.
		if it, found := m.rows.Get(key); found && !it.loading || m.deleted(key) {
			continue
		}
		m.rows.Set(key, &item{value: p.value, present: true, used: true})
		m.grow(len(key) + len(p.value) + itemBytes)
	}
}

// hole is a range of rows that was deleted.
type hole struct {
	from, to string // encoded keys; an empty to is unbounded
	ts       lane.Timestamp
	writes   []write
}

func (h *hole) covers(key string) bool { return h.from <= key && (h.to == "" || key < h.to) }

// bucket is a partition of a shard's table.
type bucket struct {
	table   persistence.Table
	lo      []byte
	entered bool // in this tenure: the table of buckets has it with one of our timestamps
	// keys are all that the bucket ever held, if it began in this tenure and is among
	// the newest of its table; nil if that is not known.
	keys    *filter
	touched time.Time
}

type bucketWrite struct {
	b     *bucket
	leave bool
	ts    lane.Timestamp
}

// filtersMax is how many of the newest buckets of a table keep their filter.
const filtersMax = 3

func newMemory(shard nola.ShardID, cache *atomic.Int64) *memory {
	m := &memory{shard: shard, cache: cache, filters: map[persistence.Table][]*bucket{}, actors: map[string]*sight{}, gone: map[string]lane.Timestamp{}}
	m.idle.L = &m.mu
	return m
}

func bucketKey(table persistence.Table, lo []byte) string {
	return string(append([]byte{byte(table)}, lo...))
}

// know takes in that the tables have a bucket.
func (m *memory) know(table persistence.Table, lo []byte) {
	m.buckets.Set(bucketKey(table, lo), &bucket{table: table, lo: lo})
}

// bucketsTold is how many buckets are told to the next owner of a shard; it reads more.
const bucketsTold = 128

// known answers what know was told and what was entered since, as table and lower bound,
// or nil if it is too much to tell.
func (m *memory) known() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.buckets.Len() > bucketsTold {
		return nil
	}
	list := make([][]byte, 0, m.buckets.Len())
	m.buckets.Scan(func(key string, _ *bucket) bool {
		list = append(list, []byte(key))
		return true
	})
	return list
}

// add takes in the effects of an entry: all of them at once for who reads.
func (m *memory) add(effects []lane.Effects, n lane.Seq, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range effects {
		for i, op := range f.Batch.Ops() {
			m.op(&op, f.First+lane.Timestamp(i), now)
		}
		if f.Batch.Seq > m.number {
			m.number, m.stale = f.Batch.Seq, true
		}
		m.clock = max(m.clock, f.First+lane.Timestamp(f.Batch.Len()))
	}
	switch {
	case m.flushing && m.next == 0:
		m.next, m.nextTime = n, now
	case !m.flushing && m.first == 0:
		m.first, m.since = n, now
	}
}

func (m *memory) op(op *persistence.Op, ts lane.Timestamp, now time.Time) {
	switch op.Kind {
	case persistence.OpPut:
		if !op.Table.OfActor() {
			m.enter(op.Table, op.Key, ts, now)
		}
		m.set(string(appendKey(nil, op.Table, op.Actor, op.Key)), op.Value, true, ts)
	case persistence.OpDelete:
		key := string(appendKey(nil, op.Table, op.Actor, op.Key))
		if !op.Table.OfActor() && m.bucket(op.Table, op.Key) == nil {
			return // there is no such row
		}
		m.set(key, nil, false, ts)
	case persistence.OpDeleteRange:
		m.deleteRange(op, ts)
	case persistence.OpDeleteActor:
		m.deleteActor(op.Actor, ts)
	case persistence.OpList:
		m.set(string(appendListingKey(nil, op.Actor)), nil, true, ts)
	}
}

func (m *memory) bucket(table persistence.Table, own []byte) *bucket {
	b, _ := m.buckets.Get(bucketKey(table, bucketOf(table, own)))
	return b
}

// enter makes sure that the bucket of a row is known before the row is. What an
// earlier tenure has entered is entered anew: somebody of that tenure may be
// about to remove it.
func (m *memory) enter(table persistence.Table, own []byte, ts lane.Timestamp, now time.Time) {
	lo := bucketOf(table, own)
	key := bucketKey(table, lo)
	b, found := m.buckets.Get(key)
	if !found {
		b = &bucket{table: table, lo: lo}
		m.buckets.Set(key, b)
		if table == persistence.TableSession || table == persistence.TableOutcome {
			b.keys = new(filter)
			list := append(m.filters[table], b)
			if len(list) > filtersMax {
				list[0].keys = nil
				list = append(list[:0], list[1:]...)
			}
			m.filters[table] = list
		}
	}
	b.touched = now
	if b.keys != nil {
		b.keys.add(string(own))
	}
	if !b.entered {
		b.entered = true
		m.entries = append(m.entries, bucketWrite{b: b, ts: ts})
	}
}

func (m *memory) set(key string, value []byte, present bool, ts lane.Timestamp) {
	it, found := m.rows.Get(key)
	if !found || it.loading {
		it = new(item)
		m.rows.Set(key, it)
		m.grow(len(key) + itemBytes)
	}
	m.grow(len(value) - len(it.value))
	m.waiting += int64(len(key) + len(value) + itemBytes)
	it.value, it.present, it.ts = value, present, ts
	if !it.dirty {
		it.dirty = true
		m.dirty = append(m.dirty, key)
	}
}

func (m *memory) grow(n int) {
	m.bytes += int64(n)
	m.cache.Add(int64(n))
}

func (m *memory) drop(key string, it *item) {
	m.rows.Delete(key)
	if !it.loading {
		m.grow(-len(key) - len(it.value) - itemBytes)
	}
}

// cut removes rows from memory, from <= key < to.
func (m *memory) cut(from, to string) {
	type row struct {
		key string
		it  *item
	}
	var gone []row
	m.rows.Ascend(from, func(key string, it *item) bool {
		if to != "" && key >= to {
			return false
		}
		gone = append(gone, row{key, it})
		return true
	})
	for _, r := range gone {
		m.drop(r.key, r.it)
	}
}

func (m *memory) deleteRange(op *persistence.Op, ts lane.Timestamp) {
	if len(op.Value) > 0 && bytes.Compare(op.Key, op.Value) >= 0 {
		return
	}
	prefix := appendKey(nil, op.Table, op.Actor, nil)
	h := hole{from: string(prefix) + string(op.Key), to: string(successor(prefix)), ts: ts}
	if len(op.Value) > 0 {
		h.to = string(prefix) + string(op.Value)
	}
	m.cut(h.from, h.to)
	if op.Table.OfActor() {
		h.writes = append(h.writes, actorRange(m.shard, op, ts))
		m.holes = append(m.holes, h)
		return
	}
	for _, b := range m.overlapping(op.Table, op.Key, op.Value) {
		_, whole := overlaps(op.Table, b.lo, op.Key, op.Value)
		if !whole {
			h.writes = append(h.writes, bucketRange(m.shard, b, op, ts))
			continue
		}
		h.writes = append(h.writes, bucketWhole(m.shard, b, ts))
		m.forget(b, ts)
	}
	m.holes = append(m.holes, h)
}

// forget removes a bucket that has no rows any more. It may come back.
func (m *memory) forget(b *bucket, ts lane.Timestamp) {
	m.buckets.Delete(bucketKey(b.table, b.lo))
	m.entries = append(m.entries, bucketWrite{b: b, leave: true, ts: ts})
	list := m.filters[b.table]
	for i := range list {
		if list[i] == b {
			m.filters[b.table] = append(list[:i], list[i+1:]...)
			break
		}
	}
}

// overlapping answers the buckets that may hold rows of the range, in order.
func (m *memory) overlapping(table persistence.Table, from, to []byte) (list []*bucket) {
	m.buckets.Ascend(string([]byte{byte(table)}), func(_ string, b *bucket) bool {
		if b.table != table {
			return false
		}
		if some, _ := overlaps(table, b.lo, from, to); some {
			list = append(list, b)
		}
		return true
	})
	return list
}

func (m *memory) deleteActor(ref nola.ActorRef, ts lane.Timestamp) {
	canonical := ref.AppendCanonical(nil)
	for table := persistence.Table(1); table.GoesWithActor(); table++ {
		prefix := append([]byte{byte(table)}, canonical...)
		m.cut(string(prefix), string(successor(prefix)))
	}
	m.gone[string(canonical)] = ts
	m.waiting += int64(len(canonical) + itemBytes)
	m.set(string(appendListingKey(nil, ref)), nil, false, ts)
}

// deleted reports whether a row that is not in memory itself was deleted, and the
// tables may not show it yet.
func (m *memory) deleted(key string) bool {
	for i := range m.holes {
		if m.holes[i].covers(key) {
			return true
		}
	}
	if table := persistence.Table(key[0]); len(m.gone) > 0 && table.GoesWithActor() {
		_, actor, _ := splitKey(key)
		_, gone := m.gone[string(actor)]
		return gone
	}
	return false
}

// get answers a row from memory. Otherwise the caller reads the tables, if known
// is false, and calls loaded with what it found and the item, unless that is nil.
func (m *memory) get(table persistence.Table, key string, own []byte) (value []byte, present, known bool, it *item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it, found := m.rows.Get(key)
	switch {
	case found && !it.loading:
		it.used = true
		return bytes.Clone(it.value), it.present, true, nil
	case found:
		return nil, false, false, nil // somebody else's
	}
	if m.deleted(key) {
		return nil, false, true, nil
	}
	if table.OfActor() {
		if s := m.actors[key[1:len(key)-len(own)]]; s != nil && s.known {
			return nil, false, true, nil
		}
	} else {
		if b := m.bucket(table, own); b == nil || b.keys != nil && !b.keys.has(string(own)) {
			return nil, false, true, nil
		}
	}
	it = &item{loading: true}
	m.rows.Set(key, it)
	return nil, false, false, it
}

// loaded keeps what the tables said of a row, unless it was written meanwhile.
func (m *memory) loaded(key string, it *item, value []byte, present bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, found := m.rows.Get(key)
	if !found || now != it {
		return
	}
	if err != nil {
		m.rows.Delete(key)
		return
	}
	it.loading, it.present, it.used = false, present, true
	it.value = bytes.Clone(value)
	m.grow(len(key) + len(value) + itemBytes)
}

// evict drops rows that the tables have until the memory takes no more than max.
func (m *memory) evict(most int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes <= most {
		return
	}
	for actor := range m.actors { // of some of them a row goes
		m.grow(-len(actor) - sightBytes)
	}
	clear(m.actors)
	type row struct {
		key string
		it  *item
	}
	var gone []row
	freed, looked := int64(0), 0
	for round := 0; round < 2 && m.bytes-freed > most*3/4; round++ {
		m.rows.Ascend(m.cursor, func(key string, it *item) bool {
			looked++
			switch {
			case it.dirty || it.loading:
			case it.used:
				it.used = false
			default:
				gone = append(gone, row{key, it})
				freed += int64(len(key) + len(it.value) + itemBytes)
			}
			m.cursor = key
			return m.bytes-freed > most*3/4
		})
		for _, r := range gone {
			m.drop(r.key, r.it)
		}
		if gone, freed = gone[:0], 0; m.bytes > most*3/4 {
			m.cursor = ""
		}
	}
}

// freeze keeps m for reads alone.
func (m *memory) freeze() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
}

// close gives the bytes of the memory back.
func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.grow(-int(m.bytes))
}
