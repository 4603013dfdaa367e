package cqlstore

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// tables execute writes as the servers do: of each cell the greatest timestamp
// wins, and of equal ones the deletion.
type tables struct {
	cells  map[string]cell // by encoded key
	ranges []hole
	dirs   map[string]cell // buckets
}

type cell struct {
	value []byte
	ts    int64
	live  bool
}

func newTables() *tables { return &tables{cells: map[string]cell{}, dirs: map[string]cell{}} }

func (db *tables) put(in map[string]cell, key string, c cell) {
	old, found := in[key]
	if !found || c.ts > old.ts || c.ts == old.ts && !c.live {
		in[key] = c
	}
}

func (db *tables) execute(w write) {
	a := w.args
	key := func(table, actor, own any) string {
		b := []byte{byte(table.(int8))}
		b = append(append(b, actor.([]byte)...), own.([]byte)...)
		return string(b)
	}
	span := func(prefix, from, to string, ts any) {
		h := hole{from: prefix + from, to: prefix + to, ts: lane.Timestamp(ts.(int64))}
		if to == "" {
			h.to = string(successor([]byte(prefix)))
		}
		db.ranges = append(db.ranges, h)
	}
	none := []byte{}
	switch w.stmt {
	case stmtActorPut:
		db.put(db.cells, key(a[2], a[1], a[3]), cell{a[4].([]byte), a[5].(int64), true})
	case stmtActorDelete:
		db.put(db.cells, key(a[3], a[2], a[4]), cell{nil, a[0].(int64), false})
	case stmtActorDeleteFrom:
		span(key(a[3], a[2], none), string(a[4].([]byte)), "", a[0])
	case stmtActorDeleteRange:
		span(key(a[3], a[2], none), string(a[4].([]byte)), string(a[5].([]byte)), a[0])
	case stmtActorDeleteAll:
		for table := int8(1); table < a[3].(int8); table++ {
			span(key(table, a[2], none), "", "", a[0])
		}
	case stmtShardPut:
		db.put(db.cells, key(a[1], none, a[3]), cell{a[4].([]byte), a[5].(int64), true})
	case stmtShardDelete:
		db.put(db.cells, key(a[2], none, a[4]), cell{nil, a[0].(int64), false})
	case stmtBucketDelete:
		table, lo := persistence.Table(a[2].(int8)), a[3].([]byte) //nolint:gosec // small
		end := bucketEnd(table, lo)
		span(string([]byte{byte(table)}), string(lo), string(end), a[0])
	case stmtShardDeleteFrom:
		span(key(a[2], none, none), string(a[4].([]byte)), string(bucketEnd(persistence.Table(a[2].(int8)), a[3].([]byte))), a[0]) //nolint:gosec // small
	case stmtShardDeleteRange:
		span(key(a[2], none, none), string(a[4].([]byte)), string(a[5].([]byte)), a[0])
	case stmtBucketEnter:
		db.put(db.dirs, key(a[1], none, a[2]), cell{nil, a[3].(int64), true})
	case stmtBucketLeave:
		db.put(db.dirs, key(a[2], none, a[3]), cell{nil, a[0].(int64), false})
	case stmtListingPut, stmtListingDelete, stmtNumberPut:
	default:
		panic(statements[w.stmt].name)
	}
}

// rows answers what a scan of the range finds in buckets that are known.
func (db *tables) rows(table persistence.Table, from, to string) (rows []pair) {
	for key, c := range db.cells {
		if key < from || to != "" && key >= to || !c.live {
			continue
		}
		gone := false
		for i := range db.ranges {
			gone = gone || db.ranges[i].covers(key) && int64(db.ranges[i].ts) >= c.ts
		}
		if !table.OfActor() {
			lo := bucketOf(table, []byte(key[1:]))
			gone = gone || !db.dirs[string([]byte{byte(table)})+string(lo)].live
		}
		if !gone {
			rows = append(rows, pair{key: []byte(key), value: c.value, present: true})
		}
	}
	slices.SortFunc(rows, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	return rows
}

// TestMemory commits random operations and flushes at random, while writes of
// earlier flushes arrive late and again, and holds what reads see against a plain
// map. In the end the tables alone must have it all.
func TestMemory(t *testing.T) {
	for round := range 300 {
		seed := uint64(round) + 1
		if !memoryRound(t, rand.New(rand.NewPCG(seed, 7))) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func memoryRound(t *testing.T, r *rand.Rand) bool {
	db, model := newTables(), map[string]string{}
	m := newMemory(1, new(atomic.Int64))
	refs := []nola.ActorRef{{Namespace: "n", Type: "t", ID: "a"}, {Namespace: "n", Type: "t", ID: "b"}}
	list := []persistence.Table{persistence.TableState, persistence.TableTimer, persistence.TableUserKey, persistence.TableDue, persistence.TableOutcome, persistence.TableBacklog}
	hour := func() []byte {
		return []byte{0x80, 0, byte(r.IntN(3)), byte(r.IntN(2)) * 0x80, 0, 0, 0, byte(r.IntN(3)), 1, 2, 3, 4}
	}
	own := func(table persistence.Table) []byte {
		switch {
		case table.OfActor():
			return []byte(fmt.Sprint(r.IntN(6)))
		case table == persistence.TableBacklog:
			return append(refs[r.IntN(2)].AppendCanonical(nil), 0, 0, 0, 0, 0, 0, 0, byte(r.IntN(4)))
		}
		return hour()
	}
	ts, seq := lane.Timestamp(1000), lane.Seq(0)
	var late []write
	var running *flush
	var commits int
	type look struct {
		actor string
		s     *sight
		rows  []pair
	}
	var looks []look // under way
	for range 160 {
		switch r.IntN(8) {
		case 6: // a look at an actor begins
			actor := string(refs[r.IntN(2)].AppendCanonical(nil))
			if s := m.glance(actor); s != nil {
				l := look{actor: actor, s: s}
				for _, table := range list {
					if prefix := string([]byte{byte(table)}) + actor; table.OfActor() {
						l.rows = append(l.rows, db.rows(table, prefix, string(successor([]byte(prefix))))...)
					}
				}
				looks = append(looks, l)
			}
		case 7: // and ends
			if len(looks) > 0 {
				var err error
				if r.IntN(5) == 0 {
					err = context.Canceled
				}
				m.seen(looks[0].actor, looks[0].s, looks[0].rows, err)
				looks = looks[1:]
			}
		case 0: // a flush begins
			if running == nil {
				running = m.begin()
			}
		case 1: // and ends, or fails after some of it
			if running != nil {
				failed := r.IntN(4) == 0
				for _, w := range running.writes {
					if !failed || r.IntN(2) == 0 {
						db.execute(w)
					}
					late = append(late, w)
				}
				var err error
				if failed {
					err = context.Canceled
				}
				running.end(err)
				running = nil
			}
		case 2: // somebody writes again what was committed before
			if len(late) > 0 {
				db.execute(late[r.IntN(len(late))])
			}
		case 3: // reads
			if !memoryReads(t, r, m, db, model, refs, list, own) {
				return false
			}
			if r.IntN(3) == 0 {
				m.evict(0)
			}
		default:
			b := new(persistence.Batch)
			commits++
			b.Reset(1, 1, nola.Seq(commits))
			for range 1 + r.IntN(4) {
				table := list[r.IntN(len(list))]
				op := persistence.Op{Kind: persistence.OpKind(1 + r.IntN(4)), Table: table, Key: own(table), Value: []byte(fmt.Sprint(r.IntN(1000)))}
				if table.OfActor() || op.Kind == persistence.OpDeleteActor {
					op.Actor = refs[r.IntN(2)]
				}
				switch op.Kind {
				case persistence.OpDeleteRange:
					if op.Value = own(table); r.IntN(3) == 0 {
						op.Value = nil
					}
				case persistence.OpDeleteActor:
					op.Table, op.Key, op.Value = 0, nil, nil
				}
				b.Add(op)
				apply(model, &op)
			}
			seq++
			m.add([]lane.Effects{{Batch: b, First: ts}}, seq, time.Unix(int64(seq), 0))
			ts += lane.Timestamp(b.Len()) + 1
		}
	}
	if running != nil {
		for _, w := range running.writes {
			db.execute(w)
		}
		running.end(nil)
	}
	if f := m.begin(); f != nil {
		for _, w := range f.writes {
			db.execute(w)
		}
		f.end(nil)
	}
	if m.oldest() < 1<<40 {
		t.Errorf("after the last flush entry %d is not applied", m.oldest())
	}
	for _, w := range late {
		db.execute(w)
	}
	var left []string
	for _, table := range list {
		for _, p := range db.rows(table, string([]byte{byte(table)}), string([]byte{byte(table) + 1})) {
			left = append(left, string(p.key)+"="+string(p.value))
		}
	}
	var want []string
	for key, value := range model {
		want = append(want, key+"="+value)
	}
	slices.Sort(left)
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("the tables have\n%q, want\n%q", left, want)
	}
	return !t.Failed()
}

// apply does an operation to a plain map.
func apply(model map[string]string, op *persistence.Op) {
	prefix := string(appendKey(nil, op.Table, op.Actor, nil))
	switch op.Kind {
	case persistence.OpPut:
		model[prefix+string(op.Key)] = string(op.Value)
	case persistence.OpDelete:
		delete(model, prefix+string(op.Key))
	case persistence.OpDeleteRange:
		for key := range model {
			if rest, ok := strings.CutPrefix(key, prefix); ok && rest >= string(op.Key) && (len(op.Value) == 0 || rest < string(op.Value)) {
				delete(model, key)
			}
		}
	case persistence.OpDeleteActor:
		for table := persistence.Table(1); table.GoesWithActor(); table++ {
			apply(model, &persistence.Op{Kind: persistence.OpDeleteRange, Table: table, Actor: op.Actor})
		}
	}
}

func memoryReads(t *testing.T, r *rand.Rand, m *memory, db *tables, model map[string]string, refs []nola.ActorRef, list []persistence.Table, own func(persistence.Table) []byte) bool {
	table := list[r.IntN(len(list))]
	var actor nola.ActorRef
	if table.OfActor() {
		actor = refs[r.IntN(2)]
	}
	k := own(table)
	key := string(appendKey(nil, table, actor, k))
	value, present, known, it := m.get(table, key, k)
	if !known {
		rows := db.rows(table, key, key+"\x00")
		if present = len(rows) > 0; present {
			value = rows[0].value
		}
		if it != nil {
			m.loaded(key, it, value, present, nil)
		}
	}
	want, found := model[key]
	if present != found || present && string(value) != want {
		t.Errorf("row %q is %q, %v (from memory: %v); want %q, %v", key, value, present, known, want, found)
		return false
	}
	if !table.OfActor() {
		return true
	}
	st := stretch{shard: 1, table: table, where: actor.AppendCanonical(nil), prefix: appendKey(nil, table, actor, nil), from: []byte{}, reverse: r.IntN(2) == 0}
	limit := 1 + r.IntN(8)
	v := m.look(st, limit, false)
	below := db.rows(table, string(st.prefix), string(successor(st.prefix)))
	if st.reverse {
		slices.Reverse(below)
	}
	below = below[:min(limit, len(below))]
	for i := range below {
		below[i].key = below[i].key[len(st.prefix):]
	}
	if !m.same(v, false) {
		return true
	}
	page, last := v.over(below, limit)
	var got, wanted []string
	for _, p := range page {
		got = append(got, string(p.key)+"="+string(p.value))
	}
	for key, value := range model {
		rest, ok := strings.CutPrefix(key, string(st.prefix))
		if ok && (last == nil || !st.reverse && rest <= string(last) || st.reverse && rest >= string(last)) {
			wanted = append(wanted, rest+"="+value)
		}
	}
	slices.Sort(wanted)
	if st.reverse {
		slices.Reverse(wanted)
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("page of table %d, reverse %v, limit %d, up to %q: %q, want %q", table, st.reverse, limit, last, got, wanted)
		return false
	}
	return true
}

// TestLateRead fills the memory with a row that was read before it was written
// again.
func TestLateRead(t *testing.T) {
	ref := nola.ActorRef{Namespace: "n", Type: "t", ID: "a"}
	key := string(appendKey(nil, persistence.TableState, ref, []byte("k")))
	commit := func(m *memory, n nola.Seq, write func(*persistence.Batch)) {
		b := new(persistence.Batch)
		b.Reset(1, 1, n)
		write(b)
		m.add([]lane.Effects{{Batch: b, First: lane.Timestamp(n) * 10}}, lane.Seq(n), time.Unix(0, 0)) //nolint:gosec // small
	}
	for name, write := range map[string]func(*persistence.Batch){
		"put":          func(b *persistence.Batch) { b.PutState(ref, "k", []byte("new")) },
		"delete":       func(b *persistence.Batch) { b.DeleteState(ref, "k") },
		"delete actor": func(b *persistence.Batch) { b.DeleteActor(ref) },
	} {
		m := newMemory(1, new(atomic.Int64))
		_, _, known, it := m.get(persistence.TableState, key, []byte("k"))
		if known || it == nil {
			t.Fatalf("%s: an empty memory knows the row", name)
		}
		commit(m, 1, write)
		if f := m.begin(); f != nil {
			f.end(nil)
		}
		m.evict(0)
		m.loaded(key, it, []byte("old"), true, nil)
		if value, present, known, _ := m.get(persistence.TableState, key, []byte("k")); known && present && string(value) == "old" {
			t.Errorf("%s: the row that was read before is taken for the present one", name)
		}
	}
}

// TestInheritedBucket wants a bucket that an earlier tenure has entered to be
// entered anew with the first row of this one: the owner before may be about to
// remove the bucket that it found empty, with a timestamp of its own tenure.
func TestInheritedBucket(t *testing.T) {
	db := newTables()
	m := newMemory(1, new(atomic.Int64))
	row := persistence.DueRow{Due: time.Unix(1_800_000_000, 0), Target: nola.ActorRef{Namespace: "n", Type: "t", ID: "a"}, Kind: persistence.DueTimer}
	b := new(persistence.Batch)
	b.Reset(1, 2, 1)
	b.PutDue(row)
	lo := bucketOf(persistence.TableDue, b.Ops()[0].Key)
	db.execute(entryWrite(1, bucketWrite{b: &bucket{table: persistence.TableDue, lo: lo}, ts: 10}))
	m.know(persistence.TableDue, lo)
	m.add([]lane.Effects{{Batch: b, First: 100}}, 1, time.Unix(0, 0))
	f := m.begin()
	for _, w := range f.writes {
		db.execute(w)
	}
	f.end(nil)
	db.execute(entryWrite(1, bucketWrite{b: &bucket{table: persistence.TableDue, lo: lo}, leave: true, ts: 50})) // of the owner before
	prefix := []byte{byte(persistence.TableDue)}
	if rows := db.rows(persistence.TableDue, string(prefix), string(successor(prefix))); len(rows) != 1 {
		t.Errorf("%d rows are found after the owner before has removed the bucket, want 1", len(rows))
	}
}

// TestOldestWhileABucketIsRemoved commits while a flush runs that has nothing of an
// entry, but a bucket that was found empty. The new entry counts from the start as
// one that is not in the tables: the ring must keep it.
func TestOldestWhileABucketIsRemoved(t *testing.T) {
	for _, err := range []error{nil, context.Canceled} {
		m := newMemory(1, new(atomic.Int64))
		row := persistence.DueRow{Due: time.Unix(1_800_000_000, 0), Target: nola.ActorRef{Namespace: "n", Type: "t", ID: "a"}, Kind: persistence.DueTimer}
		b := new(persistence.Batch)
		b.Reset(1, 2, 1)
		b.PutDue(row)
		m.know(persistence.TableDue, bucketOf(persistence.TableDue, b.Ops()[0].Key))
		m.retire(m.bucket(persistence.TableDue, b.Ops()[0].Key), time.Unix(0, 0))
		f := m.begin()
		if f == nil {
			t.Fatal("there is nothing to flush")
		}
		m.add([]lane.Effects{{Batch: b, First: 100}}, 7, time.Unix(0, 0))
		if n := m.oldest(); n != 7 {
			t.Errorf("while the flush runs, entries before %d are said to be in the tables, want 7", n)
		}
		f.end(err)
		if n := m.oldest(); n != 7 {
			t.Errorf("after a flush with error %v, entries before %d are said to be in the tables, want 7", err, n)
		}
		for n := 0; n < 2 && m.oldest() == 7; n++ {
			m.begin().end(nil)
		}
		if n := m.oldest(); n != math.MaxInt64 {
			t.Errorf("in the end, entries before %d are said to be in the tables", n)
		}
	}
}

// TestRecoveriesAreBounded recovers many lanes, one after the other.
func TestRecoveriesAreBounded(t *testing.T) {
	r := recoveries{byLane: map[lane.ID]*recovery{}}
	for i := range byte(4 * recoveriesMax) {
		r.byLane[lane.ID{i}] = &recovery{}
		r.remember(lane.ID{i})
		if n := len(r.byLane); n > recoveriesMax || r.byLane[lane.ID{i}] == nil {
			t.Fatalf("%d results are kept, the newest among them: %v", n, r.byLane[lane.ID{i}] != nil)
		}
	}
}
