package cqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Get implements [persistence.Store]. Of a shard that this store has not acquired
// it answers what was applied to the tables.
func (s *Store) Get(r persistence.Row) ([]byte, bool, error) {
	if s.closed.Load() {
		return nil, false, persistence.ErrClosed
	}
	m := s.memory(r.Shard)
	var it *item
	var key string
	if m != nil {
		key = string(appendKey(make([]byte, 0, 128), r.Table, r.Actor, r.Key))
		value, present, known, mine := m.get(r.Table, key, r.Key)
		if known {
			s.figures.memoryReads.Add(1)
			return value, present, nil
		}
		it = mine
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.readTimeout())
	defer cancel()
	var value []byte
	var present, found bool
	var err error
	if it != nil && r.Table.OfActor() {
		value, present, found, err = s.readActor(ctx, m, r, key)
	}
	if !found && err == nil {
		value, present, err = s.read(ctx, r)
	}
	if it != nil {
		m.loaded(key, it, value, present, err)
		s.evict(m)
	}
	if err != nil {
		return nil, false, s.readError("read a row", r.Shard, err)
	}
	return value, present, nil
}

func (s *Store) readError(what string, shard nola.ShardID, err error) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	return fmt.Errorf("cqlstore: %s of shard %d: %w", what, shard, err)
}

// readTries is how often a read is tried before its error is answered.
const readTries = 3

func (c *Config) readTimeout() time.Duration { return readTries * c.Timeout }

// again tries a read until it is answered, refused, or tried often enough.
func again(ctx context.Context, read func() error) error {
	pause := pauseMin
	for try := 1; ; try++ {
		err := read()
		if err == nil || errors.Is(err, gocql.ErrNotFound) || refused(err) || try == readTries || sleep(ctx, jitter(pause)) != nil {
			return err
		}
		pause *= 2
	}
}

func (s *Store) read(ctx context.Context, r persistence.Row) (value []byte, present bool, err error) {
	s.figures.tableReads.Add(1)
	err = again(ctx, func() error {
		if r.Table.OfActor() {
			return s.bulk.query(ctx, stmtActorGet, int(r.Shard), r.Actor.AppendCanonical(nil), int8(r.Table), blob(r.Key)).Scan(&value) //nolint:gosec // tables are small
		}
		return s.bulk.query(ctx, stmtShardGet, int(r.Shard), int8(r.Table), bucketOf(r.Table, r.Key), blob(r.Key)).Scan(&value) //nolint:gosec // as above
	})
	if errors.Is(err, gocql.ErrNotFound) {
		return nil, false, nil
	}
	return blob(value), err == nil, err
}

// readActor reads all rows of an actor of which one is missed, as who wakes it wants
// several. found is false if that says nothing about the row.
func (s *Store) readActor(ctx context.Context, m *memory, r persistence.Row, key string) (value []byte, present, found bool, err error) {
	actor := key[1 : len(key)-len(r.Key)]
	look := m.glance(actor)
	if look == nil {
		return nil, false, false, nil
	}
	s.figures.tableReads.Add(1)
	var rows []pair
	err = again(ctx, func() error {
		rows = rows[:0]
		iter := s.bulk.query(ctx, stmtActorRead, int(r.Shard), []byte(actor), sightRows+1).Iter()
		var table int8
		var own, data []byte
		for iter.Scan(&table, &own, &data) {
			rows = append(rows, pair{key: append(append([]byte{byte(table)}, actor...), own...), value: blob(data), present: true}) //nolint:gosec // what was written
			own, data = nil, nil
		}
		return iter.Close()
	})
	m.seen(actor, look, rows, err)
	if err != nil {
		return nil, false, false, err
	}
	for _, p := range rows {
		if string(p.key) == key {
			return bytes.Clone(p.value), true, true, nil
		}
	}
	return nil, false, len(rows) <= sightRows, nil
}

// stretch is a range of rows in one partition.
type stretch struct {
	shard    nola.ShardID
	table    persistence.Table
	where    []byte // the actor's canonical bytes, or the bucket
	prefix   []byte // of the keys in memory
	from, to []byte // an empty to is unbounded
	reverse  bool
}

type pair struct {
	key, value []byte
	present    bool
}

// The sizes of a page of a scan. Pages grow while their rows are small.
const (
	pageFirst    = 100
	pageMost     = 3000
	pageBytesMax = 1 << 20
	pageTries    = 3 // before flushes have to wait for it
)

// Scan implements [persistence.Store]. Each page is of one state: 100 rows, or
// more if they are small.
func (s *Store) Scan(r persistence.Range, fn func(key, value []byte) bool) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	if len(r.To) > 0 && bytes.Compare(r.From, r.To) >= 0 {
		return nil
	}
	ctx := s.ctx
	m := s.memory(r.Shard)
	st := stretch{shard: r.Shard, table: r.Table, prefix: appendKey(nil, r.Table, r.Actor, nil), from: blob(r.From), to: r.To, reverse: r.Reverse}
	if r.Table.OfActor() {
		st.where = r.Actor.AppendCanonical(nil)
		_, _, err := s.scan(ctx, m, st, fn)
		if err != nil {
			return s.readError("scan rows", r.Shard, err)
		}
		return nil
	}
	buckets, err := s.buckets(ctx, m, r)
	if err != nil {
		return s.readError("read the buckets", r.Shard, err)
	}
	if r.Reverse {
		slices.Reverse(buckets)
	}
	for _, b := range buckets {
		part := st
		part.where = b.lo
		_, whole := overlaps(r.Table, b.lo, r.From, r.To)
		if bytes.Compare(part.from, b.lo) < 0 {
			part.from = b.lo
		}
		if end := bucketEnd(r.Table, b.lo); end != nil && (len(part.to) == 0 || bytes.Compare(end, part.to) < 0) {
			part.to = end
		}
		more, rows, err := s.scan(ctx, m, part, fn)
		if err != nil {
			return s.readError("scan rows", r.Shard, err)
		}
		if whole && rows == 0 && m != nil {
			m.retire(b, s.cfg.Now())
		}
		if !more {
			return nil
		}
	}
	return nil
}

func (s *Store) buckets(ctx context.Context, m *memory, r persistence.Range) ([]*bucket, error) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.overlapping(r.Table, r.From, r.To), nil
	}
	all := newMemory(r.Shard, new(atomic.Int64))
	if err := s.learn(ctx, all); err != nil {
		return nil, err
	}
	return all.overlapping(r.Table, r.From, r.To), nil
}

// learn reads which buckets the tables have.
func (s *Store) learn(ctx context.Context, m *memory) error {
	return again(ctx, func() error {
		iter := s.bulk.query(ctx, stmtBucketsRead, int(m.shard)).Iter()
		var table int8
		var lo []byte
		for iter.Scan(&table, &lo) {
			m.know(persistence.Table(table), blob(lo)) //nolint:gosec // what was written
			lo = nil
		}
		return iter.Close()
	})
}

// scan calls fn with the rows of a stretch. more is false if fn wants no more.
func (s *Store) scan(ctx context.Context, m *memory, st stretch, fn func(key, value []byte) bool) (more bool, rows int, err error) {
	limit := pageFirst
	for {
		page, last, err := s.page(ctx, m, st, limit)
		if err != nil {
			return false, rows, err
		}
		size := 0
		for _, p := range page {
			rows++
			size += len(p.key) + len(p.value)
			if !fn(p.key, p.value) {
				return false, rows, nil
			}
		}
		if last == nil {
			return true, rows, nil
		}
		if st.reverse {
			st.to = last
		} else {
			st.from = append(bytes.Clone(last), 0)
		}
		if len(st.to) > 0 && bytes.Compare(st.from, st.to) >= 0 {
			return true, rows, nil
		}
		if size < pageBytesMax/4 {
			limit = min(4*limit, pageMost)
		}
	}
}

// page answers rows of the start of a stretch, and the last key that it covers;
// nil if that is all.
func (s *Store) page(ctx context.Context, m *memory, st stretch, limit int) (rows []pair, last []byte, err error) {
	if m == nil {
		rows, err = s.tablePage(ctx, st, limit)
		if len(rows) == limit {
			last = rows[limit-1].key
		}
		return rows, last, err
	}
	for try := 0; ; try++ {
		hold := try >= pageTries
		view := m.look(st, limit, hold)
		below, err := s.tablePage(ctx, st, limit)
		still := m.same(view, hold)
		if err != nil {
			return nil, nil, err
		}
		if still {
			rows, last = view.over(below, limit)
			return rows, last, nil
		}
	}
}

func (s *Store) tablePage(ctx context.Context, st stretch, limit int) (rows []pair, err error) {
	s.figures.tableReads.Add(1)
	stmt := stmtActorScan
	args := []any{int(st.shard), st.where, int8(st.table), st.from} //nolint:gosec // tables are small
	if !st.table.OfActor() {
		stmt = stmtShardScan
		args[1], args[2] = args[2], args[1]
	}
	if len(st.to) > 0 {
		stmt++
		args = append(args, st.to)
	}
	if st.reverse {
		stmt += 2
	}
	args = append(args, limit)
	err = again(ctx, func() error {
		rows = rows[:0]
		iter := s.bulk.query(ctx, stmt, args...).PageSize(limit).Iter()
		var key, value []byte
		for iter.Scan(&key, &value) {
			rows = append(rows, pair{key: blob(key), value: blob(value), present: true})
			key, value = nil, nil
		}
		return iter.Close()
	})
	return rows, err
}

// view is what memory says of a stretch at one time.
type view struct {
	st    stretch
	rows  []pair // at most limit
	cut   bool   // there are more
	holes []hole
	gone  bool
	begun uint64
}

// look takes a view. With hold no flush begins before same is called.
func (m *memory) look(st stretch, limit int, hold bool) *view {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := &view{st: st, begun: m.begun}
	if hold {
		m.scans++
	}
	n := len(st.prefix)
	from, to := string(st.prefix)+string(st.from), string(st.prefix)+string(st.to)
	if len(st.to) == 0 {
		to = string(successor(st.prefix))
	}
	take := func(key string, it *item) bool {
		if it.loading {
			return true
		}
		if len(v.rows) == limit {
			v.cut = true
			return false
		}
		v.rows = append(v.rows, pair{key: []byte(key[n:]), value: it.value, present: it.present})
		return true
	}
	if st.reverse {
		m.rows.Descend(to, func(key string, it *item) bool { return key == to || key >= from && take(key, it) })
	} else {
		m.rows.Ascend(from, func(key string, it *item) bool { return (to == "" || key < to) && take(key, it) })
	}
	for i := range m.holes {
		if h := &m.holes[i]; (to == "" || h.from < to) && (h.to == "" || from < h.to) {
			v.holes = append(v.holes, *h)
		}
	}
	if st.table.GoesWithActor() && st.table.OfActor() {
		_, v.gone = m.gone[string(st.where)]
	}
	return v
}

// same reports whether the tables are as they were when v was taken.
func (m *memory) same(v *view, hold bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if hold {
		if m.scans--; m.scans == 0 {
			m.idle.Broadcast()
		}
	}
	return m.begun == v.begun
}

// over puts the view on top of what the tables have.
func (v *view) over(below []pair, limit int) (rows []pair, last []byte) {
	before := func(a, b []byte) bool {
		c := bytes.Compare(a, b)
		return c < 0 && !v.st.reverse || c > 0 && v.st.reverse
	}
	if len(below) == limit {
		last = below[limit-1].key
	}
	if v.cut {
		if end := v.rows[len(v.rows)-1].key; last == nil || before(end, last) {
			last = end
		}
	}
	mem := v.rows
	for len(mem) > 0 || len(below) > 0 {
		var p pair
		switch {
		case len(below) == 0 || len(mem) > 0 && !before(below[0].key, mem[0].key):
			p = mem[0]
			if len(below) > 0 && bytes.Equal(below[0].key, p.key) {
				below = below[1:]
			}
			mem = mem[1:]
		default:
			p = below[0]
			below = below[1:]
			p.present = !v.hidden(p.key)
		}
		if last != nil && before(last, p.key) {
			break
		}
		if p.present {
			rows = append(rows, p)
		}
	}
	return rows, last
}

func (v *view) hidden(own []byte) bool {
	if v.gone {
		return true
	}
	for i := range v.holes {
		if v.holes[i].covers(string(v.st.prefix) + string(own)) {
			return true
		}
	}
	return false
}

// retireAge is how long nothing came to a bucket before it is removed.
const retireAge = time.Minute

// retire removes a bucket that a scan has found empty.
func (m *memory) retire(b *bucket, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := bucketKey(b.table, b.lo)
	if at, found := m.buckets.Get(key); !found || at != b || now.Sub(b.touched) < retireAge {
		return
	}
	end := string(successor([]byte{byte(b.table)}))
	if hi := bucketEnd(b.table, b.lo); hi != nil {
		end = bucketKey(b.table, hi)
	}
	empty := true
	m.rows.Ascend(key, func(key string, it *item) bool {
		empty = (end != "" && key >= end) || !it.present
		return empty && (end == "" || key < end)
	})
	if empty {
		m.forget(b, m.clock)
	}
}

// ListActors implements [persistence.Store]. Of actors in shards of other nodes
// it answers those that were applied to the tables.
func (s *Store) ListActors(namespace, typ, idPrefix string, after nola.ActorRef, limit int) (list []nola.ActorRef, err error) {
	if s.closed.Load() {
		return nil, persistence.ErrClosed
	}
	if limit <= 0 {
		return nil, nil
	}
	var from []byte // behind the namespace
	if typ != "" {
		from = append(append(from, typ...), 0)
		from = append(from, idPrefix...)
	}
	to := successor(from)
	if !after.IsZero() {
		behind := append(append([]byte(after.Type), 0), after.ID...)
		if behind = append(behind, 0); bytes.Compare(behind, from) > 0 {
			from = behind
		}
	}
	if to != nil && bytes.Compare(from, to) >= 0 {
		return nil, nil
	}
	over := s.listed(namespace, from, to)
	sources := make([]listing, listingBuckets)
	for i := range sources {
		sources[i] = listing{s: s, namespace: namespace, bucket: int16(i), from: blob(from), to: to, page: min(limit, pageMost)} //nolint:gosec // below 16
	}
	for len(list) < limit {
		var best []byte
		at := -1
		for i := range sources {
			key, err := sources[i].head(s.ctx)
			if err != nil {
				return nil, s.listError(namespace, err)
			}
			if key != nil && (at < 0 || bytes.Compare(key, best) < 0) {
				best, at = key, i
			}
		}
		present := true
		if len(over) > 0 && (at < 0 || bytes.Compare(over[0].key, best) <= 0) {
			if at >= 0 && bytes.Equal(over[0].key, best) {
				sources[at].next()
			}
			best, present = over[0].key, over[0].present
			over = over[1:]
		} else if at >= 0 {
			sources[at].next()
		} else {
			break
		}
		if !present {
			continue
		}
		t, id, ok := bytes.Cut(best, []byte{0})
		if !ok {
			return nil, s.listError(namespace, fmt.Errorf("the listing has a key that is none: %q", best))
		}
		if strings.HasPrefix(string(id), idPrefix) {
			list = append(list, nola.ActorRef{Namespace: namespace, Type: string(t), ID: string(id)})
		}
	}
	return list, nil
}

func (s *Store) listError(namespace string, err error) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	return fmt.Errorf("cqlstore: list the actors of namespace %s: %w", namespace, err)
}

// listed answers what the memories say of a listing, in order.
func (s *Store) listed(namespace string, from, to []byte) (over []pair) {
	prefix := append(append([]byte{byte(tableListing)}, namespace...), 0)
	n := len(prefix)
	lo := string(prefix) + string(from)
	hi := string(successor(prefix))
	if to != nil {
		hi = string(prefix) + string(to)
	}
	for _, m := range s.memories() {
		m.mu.Lock()
		m.rows.Ascend(lo, func(key string, it *item) bool {
			if key >= hi {
				return false
			}
			over = append(over, pair{key: []byte(key[n:]), present: it.present})
			return true
		})
		m.mu.Unlock()
	}
	slices.SortFunc(over, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	return over
}

// listing reads one partition of a listing, in order.
type listing struct {
	s         *Store
	namespace string
	bucket    int16
	from, to  []byte
	page      int
	keys      [][]byte
	done      bool
}

func (l *listing) head(ctx context.Context) ([]byte, error) {
	if len(l.keys) == 0 && !l.done {
		err := again(ctx, func() error {
			l.keys = l.keys[:0]
			iter := l.s.bulk.query(ctx, stmtListingScan, l.namespace, l.bucket, l.from, l.page).PageSize(l.page).Iter()
			var key []byte
			for iter.Scan(&key) {
				l.keys = append(l.keys, key)
				key = nil
			}
			return iter.Close()
		})
		if err != nil {
			return nil, err
		}
		l.done = len(l.keys) < l.page
		if n := len(l.keys); n > 0 {
			l.from = append(bytes.Clone(l.keys[n-1]), 0)
		}
	}
	if len(l.keys) == 0 || l.to != nil && bytes.Compare(l.keys[0], l.to) >= 0 {
		l.keys, l.done = nil, true
		return nil, nil
	}
	return l.keys[0], nil
}

func (l *listing) next() { l.keys = l.keys[1:] }
