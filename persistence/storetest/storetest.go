package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Shards is how many shards a store under test must have.
const Shards = 8

// Open makes an empty store of Shards shards. reopen closes it, or what reopen
// answered last, and opens the same store again. Open arranges for the last one
// to be closed.
type Open func(t *testing.T) (store persistence.Store, reopen func(t *testing.T) persistence.Store)

// Run runs the suite on the stores that open makes.
func Run(t *testing.T, open Open) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"Records", testRecords},
		{"RecordsAfterReopen", testRecordsAfterReopen},
		{"Together", testTogether},
		{"Order", testOrder},
		{"Fencing", testFencing},
		{"Atomicity", testAtomicity},
		{"TooLarge", testTooLarge},
		{"Resolve", testResolve},
		{"Acquire", testAcquire},
		{"Ranges", testRanges},
		{"NamespacesNeverMeet", testNamespaces},
		{"ShardsNeverMeet", testShards},
		{"DeleteActor", testDeleteActor},
		{"DeleteSchedule", testDeleteSchedule},
		{"Sessions", testSessions},
		{"UserKeys", testUserKeys},
		{"Outcomes", testOutcomes},
		{"Due", testDue},
		{"Backlog", testBacklog},
		{"Outbox", testOutbox},
		{"Timers", testTimers},
		{"Listings", testListings},
		{"Objects", testObjects},
		{"CatalogCAS", testCatalogCAS},
		{"CatalogReserve", testCatalogReserve},
		{"CatalogRecords", testCatalogRecords},
		{"ReadsDuringCommits", testReadsDuringCommits},
		{"Reopen", testReopen},
		{"Closed", testClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store, reopen := open(t)
			s := &suite{T: t, store: store, heads: make(map[nola.ShardID]persistence.Head)}
			s.reopen = func() {
				s.store = reopen(t)
				clear(s.heads)
			}
			tt.run(t, s)
		})
	}
}

// suite is a store under test and the heads of the shards that were acquired.
type suite struct {
	*testing.T
	store  persistence.Store
	reopen func()
	heads  map[nola.ShardID]persistence.Head
}

func (s *suite) reader() persistence.Reader { return persistence.Reader{Store: s.store} }

// batch starts the next batch of a shard, which it acquires when it must.
func (s *suite) batch(shard nola.ShardID) *persistence.Batch {
	s.Helper()
	h, ok := s.heads[shard]
	if !ok {
		heads, err := s.store.Acquire(s.Context(), []nola.ShardID{shard})
		s.ok(err)
		h = heads[0]
		s.heads[shard] = h
	}
	b := new(persistence.Batch)
	b.Reset(shard, h.Epoch, h.Seq+1)
	return b
}

// commit makes what write writes durable.
func (s *suite) commit(shard nola.ShardID, write func(b *persistence.Batch)) {
	s.Helper()
	b := s.batch(shard)
	write(b)
	s.ok(s.store.Commit([]*persistence.Batch{b})[0])
	s.done(b)
}

func (s *suite) done(b *persistence.Batch) {
	s.heads[b.Shard] = persistence.Head{Shard: b.Shard, Epoch: b.Epoch, Seq: b.Seq}
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// state answers a value of Actor's, or - for none.
func (s *suite) state(key string) string {
	s.Helper()
	value, found, err := s.reader().State(Shard, Actor, key)
	s.ok(err)
	if !found {
		return "-"
	}
	return string(value)
}

func testRecords(t *testing.T, s *suite) {
	for _, rec := range Records() {
		s.commit(Shard, rec.Write)
		got, found, err := rec.Read(s.reader())
		s.ok(err)
		if !found {
			t.Errorf("%s: not found", rec.Name)
		}
		equal(t, rec.Name, got, rec.Want)
	}
}

func testRecordsAfterReopen(t *testing.T, s *suite) {
	for _, rec := range Records() {
		if _, found, err := rec.Read(s.reader()); err != nil {
			t.Errorf("%s: before it is written: %v, %v", rec.Name, found, err)
		}
	}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, rec := range Records() {
			rec.Write(b)
		}
	})
	s.reopen()
	for _, rec := range Records() {
		got, _, err := rec.Read(s.reader())
		s.ok(err)
		equal(t, rec.Name, got, rec.Want)
	}
}

// testTogether reads rows in company: in any order, also those that are not there,
// and all that was committed before.
func testTogether(t *testing.T, s *suite) {
	const keys = 100
	name := func(i int) string { return fmt.Sprintf("%03d", i) }
	for round := range 3 {
		together, end := s.reader().Together()
		for _, rec := range Records() {
			got, _, err := rec.Read(together)
			s.ok(err)
			if round > 0 {
				equal(t, rec.Name, got, rec.Want)
			}
		}
		for i := range keys {
			i = i * 37 % keys
			value, found, err := together.State(Shard, Actor, name(i))
			if want := round > 0 && i%2 == 0; err != nil || found != want || want && string(value) != fmt.Sprint(i, round) {
				t.Errorf("key %d, round %d: %q, %v, %v", i, round, value, found, err)
			}
		}
		s.ok(end())
		s.commit(Shard, func(b *persistence.Batch) {
			for _, rec := range Records() {
				rec.Write(b)
			}
			for i := 0; i < keys; i += 2 {
				b.PutState(Actor, name(i), fmt.Append(nil, i, round+1))
			}
		})
	}
}

func testOrder(t *testing.T, s *suite) {
	s.commit(Shard, func(b *persistence.Batch) {
		b.PutState(Actor, "twice", []byte("1"))
		b.PutState(Actor, "twice", []byte("2"))
		b.PutState(Actor, "gone", []byte("1"))
		b.DeleteState(Actor, "gone")
		b.DeleteState(Actor, "back")
		b.PutState(Actor, "back", []byte{})
		b.PutState(Actor, "dropped", []byte("1"))
		b.ListActor(Actor)
		b.DeleteActor(Actor)
		b.PutState(Actor, "born again", []byte("2"))
		b.ListActor(Actor)
	})
	for key, want := range map[string]string{"twice": "-", "gone": "-", "back": "-", "dropped": "-", "born again": "2"} {
		equal(t, key, s.state(key), want)
	}
	s.commit(Shard, func(b *persistence.Batch) {
		b.PutState(Actor, "twice", []byte("1"))
		b.PutState(Actor, "twice", []byte("2"))
		b.DeleteState(Actor, "back")
		b.PutState(Actor, "back", []byte{})
	})
	equal(t, "a later put wins", s.state("twice"), "2")
	equal(t, "an empty value exists", s.state("back"), "")
	list, err := s.store.ListActors(Actor.Namespace, "", "", nola.ActorRef{}, 10)
	s.ok(err)
	equal(t, "actors", list, []nola.ActorRef{Actor})
}

func testFencing(t *testing.T, s *suite) {
	s.commit(Shard, func(b *persistence.Batch) { b.PutState(Actor, "k", []byte("1")) })
	head := s.heads[Shard]
	attempt := func(what string, epoch nola.Epoch, seq nola.Seq, want error) {
		t.Helper()
		b := new(persistence.Batch)
		b.Reset(Shard, epoch, seq)
		b.PutState(Actor, "k", []byte(what))
		if err := s.store.Commit([]*persistence.Batch{b})[0]; !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		value := "1"
		if want == nil {
			value = what
		}
		equal(t, what, s.state("k"), value)
	}
	attempt("same number", head.Epoch, head.Seq, persistence.ErrFenced)
	attempt("gap", head.Epoch, head.Seq+2, persistence.ErrFenced)
	attempt("lower epoch", head.Epoch-1, head.Seq+1, persistence.ErrFenced)
	attempt("higher epoch", head.Epoch+1, head.Seq+1, persistence.ErrFenced)
	heads, err := s.store.Acquire(t.Context(), []nola.ShardID{Shard})
	s.ok(err)
	equal(t, "head", heads[0], persistence.Head{Shard: Shard, Epoch: head.Epoch + 1, Seq: head.Seq})
	attempt("stale epoch", head.Epoch, head.Seq+1, persistence.ErrFenced)
	attempt("2", head.Epoch+1, head.Seq+1, nil)

	b := new(persistence.Batch)
	b.Reset(5, 0, 1)
	b.PutMeta(Actor, persistence.Meta{})
	if err := s.store.Commit([]*persistence.Batch{b})[0]; !errors.Is(err, persistence.ErrFenced) {
		t.Errorf("a shard that nobody acquired: %v", err)
	}
}

func testAtomicity(t *testing.T, s *suite) {
	good, bad := s.batch(1), s.batch(2)
	good.PutState(Actor, "k", []byte("good"))
	bad.Seq += 7
	bad.PutState(Actor, "k", []byte("bad"))
	bad.ListActor(Actor)
	other := s.batch(4)
	other.PutState(Actor, "k", []byte("other"))
	verdicts := s.store.Commit([]*persistence.Batch{good, bad, other})
	if verdicts[0] != nil || !errors.Is(verdicts[1], persistence.ErrFenced) || verdicts[2] != nil {
		t.Fatalf("verdicts %v", verdicts)
	}
	for shard, want := range map[nola.ShardID]string{1: "good", 2: "", 4: "other"} {
		value, _, err := s.reader().State(shard, Actor, "k")
		s.ok(err)
		equal(t, fmt.Sprintf("shard %d", shard), string(value), want)
	}
	list, err := s.store.ListActors(Actor.Namespace, "", "", nola.ActorRef{}, 10)
	s.ok(err)
	equal(t, "actors", len(list), 0)
	if got := s.store.Commit(nil); len(got) != 0 {
		t.Errorf("no batch: %v", got)
	}
	s.done(good)
	s.commit(1, func(*persistence.Batch) {}) // an empty batch takes a number as well
	s.commit(1, func(b *persistence.Batch) { b.PutState(Actor, "k", nil) })
}

func testTooLarge(t *testing.T, s *suite) {
	b := s.batch(Shard)
	value := make([]byte, nola.ValueBytesMax)
	for i := 0; b.Bytes() <= persistence.BatchBytesLimit; i++ {
		b.PutState(Actor, fmt.Sprint(i), value)
	}
	if err := s.store.Commit([]*persistence.Batch{b})[0]; !errors.Is(err, persistence.ErrTooLarge) {
		t.Fatalf("%d bytes: %v", b.Bytes(), err)
	}
	equal(t, "first key", s.state("0"), "-")
	b = s.batch(Shard)
	for i := 0; b.Bytes() < persistence.BatchBytesMax+nola.TurnBytesMax; i++ {
		b.PutState(Actor, fmt.Sprint(i), value)
	}
	s.ok(s.store.Commit([]*persistence.Batch{b})[0])
	equal(t, "first key", len(s.state("0")), len(value))
}

func testResolve(t *testing.T, s *suite) {
	resolve := func(what string, b *persistence.Batch, want error) {
		t.Helper()
		if err := s.store.Resolve(t.Context(), []*persistence.Batch{b})[0]; !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	done := s.batch(Shard)
	done.PutState(Actor, "k", []byte("1"))
	s.ok(s.store.Commit([]*persistence.Batch{done})[0])
	resolve("committed", done, nil)
	s.done(done)
	never := s.batch(Shard)
	never.PutState(Actor, "k", []byte("2"))
	resolve("never sent", never, persistence.ErrFenced)
	if err := s.store.Commit([]*persistence.Batch{never})[0]; !errors.Is(err, persistence.ErrFenced) {
		t.Errorf("sent after it was told never to be executed: %v", err)
	}
	equal(t, "value", s.state("k"), "1")
	delete(s.heads, Shard)
	s.commit(Shard, func(b *persistence.Batch) { b.PutState(Actor, "k", []byte("3")) })
	resolve("committed in an earlier epoch", done, nil)
	resolve("number taken by a later epoch", never, persistence.ErrFenced)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.store.Resolve(ctx, []*persistence.Batch{done})[0]; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("context has ended: %v", err)
	}
}

func testAcquire(t *testing.T, s *suite) {
	equal(t, "shards", s.store.Cluster().Shards, Shards)
	all := make([]nola.ShardID, Shards)
	for i := range all {
		all[i] = nola.ShardID(Shards - 1 - i)
	}
	for round := nola.Epoch(1); round <= 2; round++ {
		heads, err := s.store.Acquire(t.Context(), all)
		s.ok(err)
		for i, head := range heads {
			equal(t, "head", head, persistence.Head{Shard: all[i], Epoch: round})
		}
	}
	if _, err := s.store.Acquire(t.Context(), []nola.ShardID{0, Shards}); err == nil {
		t.Errorf("shard %d of %d was acquired", Shards, Shards)
	}
	s.reopen()
	heads, err := s.store.Acquire(t.Context(), []nola.ShardID{0})
	s.ok(err)
	equal(t, "head after reopen, and after a refused Acquire", heads[0], persistence.Head{Epoch: 3})
}

func testRanges(t *testing.T, s *suite) {
	keys := []string{"", "\x00", "a", "a\x00", "a\xff", "a\xff\xff", "b", "\xff", "\xff\xff"}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, k := range keys {
			b.PutState(Actor, k, []byte("v"+k))
		}
		for _, table := range []persistence.Table{persistence.TableMeta, persistence.TableTimer} {
			b.Add(persistence.Op{Kind: persistence.OpPut, Table: table, Actor: Actor, Key: []byte("a"), Value: []byte{1}})
		}
	})
	for _, tt := range []struct {
		from, to string
		want     []string
	}{
		{"", "", keys},
		{"a", "b", keys[2:6]},
		{"a\x00", "", keys[3:]},
		{"", "a", keys[:2]},
		{"b", "a", nil},
		{"a", "a", nil},
		{"\xff\xff\xff", "", nil},
	} {
		for _, reverse := range []bool{false, true} {
			want := slices.Clone(tt.want)
			if reverse {
				slices.Reverse(want)
			}
			for stop := 0; stop <= len(want); stop++ {
				var got []string
				s.ok(s.reader().ScanState(Shard, Actor, []byte(tt.from), []byte(tt.to), reverse, func(key, value []byte) bool {
					got = append(got, string(key))
					if string(value) != "v"+string(key) {
						t.Errorf("key %q has value %q", key, value)
					}
					return len(got) != stop
				}))
				wanted := want
				if stop > 0 {
					wanted = want[:stop]
				}
				if !slices.Equal(got, wanted) {
					t.Errorf("%q to %q, reverse %v, stop at %d: got %q, want %q", tt.from, tt.to, reverse, stop, got, wanted)
				}
			}
		}
	}
	s.commit(Shard, func(b *persistence.Batch) {
		b.Add(persistence.Op{Kind: persistence.OpDeleteRange, Table: persistence.TableState, Actor: Actor, Key: []byte("a\x00"), Value: []byte("b")})
		b.Add(persistence.Op{Kind: persistence.OpDeleteRange, Table: persistence.TableState, Actor: Actor, Key: []byte("z"), Value: []byte("c")})
		b.Add(persistence.Op{Kind: persistence.OpDeleteRange, Table: persistence.TableState, Actor: Actor, Key: []byte("\xff\xff")})
	})
	var got []string
	s.ok(s.reader().ScanState(Shard, Actor, nil, nil, false, func(key, _ []byte) bool { got = append(got, string(key)); return true }))
	equal(t, "after deleting ranges", got, []string{"", "\x00", "a", "b", "\xff"})
}

func testNamespaces(t *testing.T, s *suite) {
	refs := []nola.ActorRef{
		{Namespace: "a", Type: "bc", ID: "x"},
		{Namespace: "ab", Type: "c", ID: "x"},
		{Namespace: "a", Type: "b", ID: "cx"},
		{Namespace: "a", Type: "b", ID: "c"},
		{Namespace: "a", Type: "bc", ID: "xk"},
	}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, ref := range refs {
			b.PutState(ref, "k", []byte(ref.String()))
			b.PutUserKey(ref, "k", persistence.OutcomeRecord{Reply: []byte(ref.String())})
			b.PutSession(ref, nola.Key{Session: nola.SessionID{1}}, persistence.OutcomeRecord{Reply: []byte(ref.String())})
			b.PutBacklog(ref, persistence.BacklogRow{Number: uint64(len(ref.ID)), Invocation: &nola.Invocation{Operation: ref.String()}})
			b.ListActor(ref)
		}
	})
	check := func(ref nola.ActorRef, exists bool) {
		t.Helper()
		n := 0
		s.ok(s.reader().ScanState(Shard, ref, nil, nil, false, func(_, value []byte) bool {
			equal(t, "state of "+ref.String(), string(value), ref.String())
			n++
			return true
		}))
		if (n == 1) != exists {
			t.Errorf("%s has %d keys", ref, n)
		}
	}
	for _, ref := range refs {
		check(ref, true)
		rec, found, err := s.reader().UserKey(Shard, ref, "k")
		s.ok(err)
		equal(t, "user key", found, true)
		equal(t, "user key", string(rec.Reply), ref.String())
		rec, _, err = s.reader().Session(Shard, ref, nola.Key{Session: nola.SessionID{1}})
		s.ok(err)
		equal(t, "session", string(rec.Reply), ref.String())
		rows, err := s.reader().Backlog(Shard, ref, 0, 9, 1000)
		s.ok(err)
		if len(rows) != 1 || rows[0].Invocation.Operation != ref.String() {
			t.Errorf("backlog of %s: %v", ref, rows)
		}
	}
	s.commit(Shard, func(b *persistence.Batch) { b.DeleteActor(refs[0]) })
	for i, ref := range refs {
		check(ref, i != 0)
	}
	for namespace, want := range map[string]int{"a": 3, "ab": 1, "b": 0} {
		list, err := s.store.ListActors(namespace, "", "", nola.ActorRef{}, 10)
		s.ok(err)
		equal(t, "actors of "+namespace, len(list), want)
	}
}

func testShards(t *testing.T, s *suite) {
	s.commit(1, func(b *persistence.Batch) {
		for _, rec := range Records() {
			rec.Write(b)
		}
	})
	for _, rec := range Records() { // they read Shard, which is another one
		got, found, err := rec.Read(s.reader())
		s.ok(err)
		if v := reflect.ValueOf(got); found && !v.IsZero() && (v.Kind() != reflect.Slice || v.Len() > 0) {
			t.Errorf("%s of shard 1 was found in shard %d: %+v", rec.Name, Shard, got)
		}
	}
}

func testDeleteActor(t *testing.T, s *suite) {
	goes := []string{"meta", "state", "memory", "timer", "deferred", "schedule", "reminder", "occurrence"}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, rec := range Records() {
			rec.Write(b)
		}
		b.ListActor(Actor)
	})
	s.commit(Shard, func(b *persistence.Batch) { b.DeleteActor(Actor) })
	for _, rec := range Records() {
		got, found, err := rec.Read(s.reader())
		s.ok(err)
		if slices.Contains(goes, rec.Name) {
			if v := reflect.ValueOf(got); found && (v.Kind() != reflect.Slice || v.Len() > 0) {
				t.Errorf("%s is left of the actor: %+v", rec.Name, got)
			}
			continue
		}
		equal(t, rec.Name, got, rec.Want)
	}
	list, err := s.store.ListActors(Actor.Namespace, "", "", nola.ActorRef{}, 10)
	s.ok(err)
	equal(t, "actors", len(list), 0)
	again := Schedule()
	s.commit(Shard, func(b *persistence.Batch) { b.PutSchedule(Actor, &again) })
	row, _, err := s.reader().Schedule(Shard, Actor, false, again.ID)
	s.ok(err)
	equal(t, "schedule made again", row, persistence.ScheduleRow{Schedule: again})
}

func testDeleteSchedule(t *testing.T, s *suite) {
	ids := []string{"a", "ab", "a\xff", "b"}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, id := range ids {
			for _, reminder := range []bool{false, true} {
				b.PutSchedule(Actor, &nola.Schedule{ID: id, Target: Actor, Reminder: reminder})
				b.PutProgress(Actor, reminder, id, &nola.Progress{Due: at(1, 0)}, 3)
				for n := range uint64(3) {
					b.PutOccurrence(Actor, reminder, id, n, nola.Occurrence{Nominal: at(int64(n), 0), Count: 1})
				}
			}
		}
	})
	s.commit(Shard, func(b *persistence.Batch) { b.DeleteSchedule(Actor, false, "a") })
	for _, id := range ids {
		for _, reminder := range []bool{false, true} {
			gone := id == "a" && !reminder
			row, found, err := s.reader().Schedule(Shard, Actor, reminder, id)
			s.ok(err)
			list, err := s.reader().Occurrences(Shard, Actor, reminder, id)
			s.ok(err)
			if found == gone || (len(list) == 0) != gone || !gone && (row.Records != 3 || !row.Progress.Due.Equal(at(1, 0))) {
				t.Errorf("schedule %q, reminder %v: found %v, %+v, %d occurrences", id, reminder, found, row, len(list))
			}
		}
	}
	rows, err := s.reader().Schedules(Shard, Actor, true, "a", 2)
	s.ok(err)
	if len(rows) != 2 || rows[0].Schedule.ID != "ab" || rows[1].Schedule.ID != "a\xff" {
		t.Errorf("two reminders behind a: %+v", rows)
	}

	s.commit(Shard, func(b *persistence.Batch) {
		for n := uint64(nola.OccurrencesMax - 1); n < nola.OccurrencesMax+2; n++ {
			b.PutOccurrence(Actor, false, "b", n, nola.Occurrence{Nominal: at(int64(n), 0), Count: 1})
		}
	})
	list, err := s.reader().Occurrences(Shard, Actor, false, "b")
	s.ok(err)
	var got []int64
	for _, o := range list {
		got = append(got, o.Nominal.Unix()-at(0, 0).Unix())
	}
	equal(t, "nominal times, in slots used again", got, []int64{1001, 1000, 999, 2})

	row := persistence.ScheduleRow{Schedule: nola.Schedule{ID: "b", Target: Actor}, Records: nola.OccurrencesMax + 2}
	for n, want := range map[int][]int64{0: nil, 2: {1001, 1000}, 3: {1001, 1000, 999}, nola.OccurrencesMax: {1001, 1000, 999}} {
		list, err := s.reader().RecentOccurrences(Shard, &row, n)
		s.ok(err)
		got = nil
		for _, o := range list {
			got = append(got, o.Nominal.Unix()-at(0, 0).Unix())
		}
		equal(t, fmt.Sprintf("nominal times of the %d newest records", n), got, want)
	}
}

func testSessions(t *testing.T, s *suite) {
	key := func(seq uint64, first time.Time, nested bool) nola.Key {
		return nola.Key{Session: nola.SessionID{1}, Seq: seq, FirstAttempt: first, Nested: nested}
	}
	old, recent := at(0, 0).Truncate(time.Hour), at(0, 0).Truncate(time.Hour).Add(time.Hour)
	ancient := time.Time{}
	s.commit(Shard, func(b *persistence.Batch) {
		b.PutSession(Actor, key(5, old.Add(59*time.Second), false), persistence.OutcomeRecord{Reply: []byte("old")})
		b.PutSession(Actor, key(6, old.Add(60*time.Second), false), persistence.OutcomeRecord{Reply: []byte("next minute")})
		b.PutSession(Actor, key(7, ancient, false), persistence.OutcomeRecord{Reply: []byte("ancient")})
		b.PutSession(Actor, key(8, time.Unix(-1, 0), false), persistence.OutcomeRecord{Reply: []byte("before the epoch")})
		b.PutSession(Actor, key(5, old, true), persistence.OutcomeRecord{Reply: []byte("old nested")})
		b.PutSession(Actor, key(6, recent, true), persistence.OutcomeRecord{Reply: []byte("nested")})
	})
	read := func(k nola.Key) string {
		t.Helper()
		rec, found, err := s.reader().Session(Shard, Actor, k)
		s.ok(err)
		if !found {
			return "-"
		}
		equal(t, "seq", rec.Seq, k.Seq)
		return string(rec.Reply)
	}
	equal(t, "within the bucket", read(key(5, old, false)), "old")
	equal(t, "other session number in the slot", read(key(5+nola.SessionWindow, old, false)), "-")
	rec, found, err := s.reader().SessionSlot(Shard, Actor, key(5+nola.SessionWindow, old, false))
	s.ok(err)
	if !found || rec.Seq != 5 {
		t.Errorf("slot holds %+v, %v", rec, found)
	}
	equal(t, "ancient", read(key(7, ancient, false)), "ancient")
	equal(t, "before the epoch", read(key(8, time.Unix(-60, 0), false)), "before the epoch")
	s.commit(Shard, func(b *persistence.Batch) { b.DeleteSessionsBefore(false, time.Unix(59, 0)) })
	equal(t, "before the epoch, deleted", read(key(8, time.Unix(-1, 0), false)), "-")
	equal(t, "after the epoch", read(key(5, old, false)), "old")
	equal(t, "nested", read(key(5, old.Add(30*time.Minute), true)), "old nested")
	s.commit(Shard, func(b *persistence.Batch) {
		b.PutSession(Actor, key(5+nola.SessionWindow, old, false), persistence.OutcomeRecord{Reply: []byte("newer")})
		b.DeleteSessionsBefore(true, recent.Add(time.Minute))
	})
	equal(t, "slot taken", read(key(5+nola.SessionWindow, old, false)), "newer")
	equal(t, "slot taken", read(key(5, old, false)), "-")
	equal(t, "nested deleted", read(key(5, old, true)), "-")
	equal(t, "nested of the bucket stays", read(key(6, recent, true)), "nested")
	s.commit(Shard, func(b *persistence.Batch) { b.DeleteSessionsBefore(false, old.Add(119*time.Second)) })
	equal(t, "deleted", read(key(5+nola.SessionWindow, old, false)), "-")
	equal(t, "ancient deleted", read(key(7, ancient, false)), "-")
	equal(t, "bucket not over", read(key(6, old.Add(60*time.Second), false)), "next minute")
	equal(t, "nested stays", read(key(6, recent, true)), "nested")
}

func testUserKeys(t *testing.T, s *suite) {
	var want [][16]byte
	s.commit(Shard, func(b *persistence.Batch) {
		for i := range 20 {
			key := fmt.Sprint(i)
			b.PutUserKey(Actor, key, persistence.OutcomeRecord{Time: at(int64(i), 0)})
			if i < 7 {
				want = append(want, persistence.UserKeyHash(key))
			}
		}
		b.PutUserKeys(Actor, persistence.UserKeys{Count: 20})
	})
	slices.SortFunc(want, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, limit := range []int{0, 3, 7, 50} {
		list, err := s.reader().ExpiredUserKeys(Shard, Actor, at(7, 0), limit)
		s.ok(err)
		if !slices.Equal(list, want[:min(limit, len(want))]) {
			t.Errorf("limit %d: %x, want %x", limit, list, want)
		}
	}
	s.commit(Shard, func(b *persistence.Batch) { b.DeleteUserKey(Actor, persistence.UserKeyHash("3")) })
	_, found, err := s.reader().UserKey(Shard, Actor, "3")
	s.ok(err)
	equal(t, "found after deletion", found, false)
	count, err := s.reader().UserKeys(Shard, Actor)
	s.ok(err)
	equal(t, "count", count.Count, 20)
}

func testOutcomes(t *testing.T, s *suite) {
	made := func(ms int) nola.InvocationID {
		return nola.MakeInvocationID(at(0, int64(ms)*1e6), [10]byte{byte(ms)})
	}
	s.commit(Shard, func(b *persistence.Batch) {
		for ms := range 5 {
			b.PutOutcome(persistence.OutcomeRecord{ID: made(ms), Target: Actor, State: persistence.StatePending})
		}
	})
	s.commit(Shard, func(b *persistence.Batch) {
		b.DeleteOutcomesBefore(time.Time{})
		b.DeleteOutcomesBefore(at(0, 3e6))
	})
	for ms := range 5 {
		_, found, err := s.reader().Outcome(Shard, made(ms))
		s.ok(err)
		equal(t, fmt.Sprintf("outcome of an id made at %d ms, all before 3 ms deleted", ms), found, ms >= 3)
	}
}

func testDue(t *testing.T, s *suite) {
	early, late := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	beyond := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := []persistence.DueRow{
		{Due: early, Target: Actor, Kind: persistence.DueSchedule, Name: "s"},
		{Due: at(0, 0), Target: Actor, Kind: persistence.DueTimer, Name: "a", Invocation: Invocation()},
		{Due: at(0, 0), Target: Actor, Kind: persistence.DueTimer, Name: "a\x00"},
		{Due: at(0, 0), Target: Actor, Kind: persistence.DueReminder, Name: ""},
		{Due: at(0, 1), Target: Actor, Kind: persistence.DueTimer, Name: ""},
		{Due: late, Target: Actor, Kind: persistence.DueTimer, Name: "x"},
	}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, i := range []int{3, 0, 5, 2, 4, 1} {
			b.PutDue(rows[i])
		}
		b.PutDue(persistence.DueRow{Due: beyond, Target: Actor, Kind: persistence.DueSchedule})
	})
	read := func(after persistence.DueRow, until time.Time, limit int) []persistence.DueRow {
		t.Helper()
		list, err := s.reader().Due(Shard, after, until, limit)
		s.ok(err)
		return list
	}
	equal(t, "until the time itself", read(persistence.DueRow{}, at(0, 0), 100), rows[:4])
	equal(t, "limit", read(persistence.DueRow{}, late, 2), rows[:2])
	for i := range rows {
		equal(t, fmt.Sprintf("behind row %d", i), len(read(rows[i], late, 100)), len(rows)-1-i)
	}
	all := read(persistence.DueRow{}, beyond, 100)
	equal(t, "all", len(all), len(rows)+1)
	s.commit(Shard, func(b *persistence.Batch) {
		b.DeleteDue(at(0, 0), Actor, persistence.DueTimer, "a")
		b.DeleteDue(beyond, Actor, persistence.DueSchedule, "")
	})
	equal(t, "after deletion", read(persistence.DueRow{}, beyond, 100), append(slices.Clone(rows[:1]), rows[2:]...))
}

func testBacklog(t *testing.T, s *suite) {
	a := nola.ActorRef{Namespace: "n", Type: "t", ID: "a"}
	b2 := nola.ActorRef{Namespace: "n", Type: "t", ID: "b"}
	long := nola.ActorRef{Namespace: "n", Type: "t", ID: "aa"}
	s.commit(Shard, func(b *persistence.Batch) {
		for n := uint64(254); n < 260; n++ {
			b.PutBacklog(a, persistence.BacklogRow{Number: n, Total: n, Invocation: &nola.Invocation{Payload: make([]byte, 100)}})
		}
		b.PutBacklog(b2, persistence.BacklogRow{Number: 1, Invocation: &nola.Invocation{}})
		b.PutBacklog(long, persistence.BacklogRow{Number: 9, Invocation: &nola.Invocation{}})
		b.DeleteBacklog(a, 254)
	})
	first, last, found, err := s.reader().BacklogBounds(Shard, a)
	s.ok(err)
	if !found || first.Number != 255 || last.Number != 259 || last.Total != 259 {
		t.Errorf("bounds %+v, %+v, %v", first, last, found)
	}
	_, _, found, err = s.reader().BacklogBounds(Shard, Actor)
	s.ok(err)
	equal(t, "bounds of an actor without a backlog", found, false)
	numbers := func(from uint64, limit, bytesMax int) (list []uint64) {
		t.Helper()
		rows, err := s.reader().Backlog(Shard, a, from, limit, bytesMax)
		s.ok(err)
		for _, row := range rows {
			list = append(list, row.Number)
		}
		return list
	}
	equal(t, "all", numbers(0, 100, 1<<20), []uint64{255, 256, 257, 258, 259})
	equal(t, "from and limit", numbers(256, 2, 1<<20), []uint64{256, 257})
	equal(t, "bytes", numbers(0, 100, 250), []uint64{255, 256})
	equal(t, "at least one", numbers(0, 100, 1), []uint64{255})
	list, err := s.reader().BacklogActors(Shard, nola.ActorRef{}, 100)
	s.ok(err)
	equal(t, "actors", list, []nola.ActorRef{a, b2, long})
	list, err = s.reader().BacklogActors(Shard, a, 1)
	s.ok(err)
	equal(t, "actors behind a", list, []nola.ActorRef{b2})
}

func testOutbox(t *testing.T, s *suite) {
	s.commit(Shard, func(b *persistence.Batch) {
		for _, to := range []nola.ShardID{0, 1, 255, 256, 1<<32 - 1} {
			for n := uint64(1); n <= 3; n++ {
				b.PutOutbox(persistence.OutboxRow{To: to, Number: n, Invocation: &nola.Invocation{Attempt: int(to % 1000)}})
			}
		}
		b.DeleteOutbox(255, 1)
	})
	for _, tt := range []struct {
		first, last nola.ShardID
		limit       int
		want        string
	}{
		{0, 1<<32 - 1, 100, "[{0 1 3} {1 1 3} {255 2 3} {256 1 3} {4294967295 1 3}]"},
		{1, 255, 100, "[{1 1 3} {255 2 3}]"},
		{1, 1<<32 - 1, 1, "[{1 1 3}]"},
		{2, 254, 100, "[]"},
	} {
		got, err := s.reader().OutboxBounds(Shard, tt.first, tt.last, tt.limit)
		s.ok(err)
		equal(t, fmt.Sprintf("bounds of %d to %d, limit %d", tt.first, tt.last, tt.limit), fmt.Sprint(got), tt.want)
	}
	rows, err := s.reader().Outbox(Shard, 255, 0, 100)
	s.ok(err)
	if len(rows) != 2 || rows[0].Number != 2 || rows[0].To != 255 || rows[1].Invocation.Attempt != 255 {
		t.Errorf("outbox to 255: %+v", rows)
	}
	rows, err = s.reader().Outbox(Shard, 1, 2, 1)
	s.ok(err)
	if len(rows) != 1 || rows[0].Number != 2 {
		t.Errorf("one from 2: %+v", rows)
	}
}

func testTimers(t *testing.T, s *suite) {
	names := []string{"a", "a/1", "a/2", "a/\xff", "b"}
	s.commit(Shard, func(b *persistence.Batch) {
		for _, name := range names {
			b.PutTimer(Actor, persistence.TimerRecord{Name: name, Due: at(0, 0)})
		}
		b.PutTimer(Actor, persistence.TimerRecord{Name: "c"})
		b.DeleteTimer(Actor, "c")
	})
	for _, tt := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 100, names},
		{"a/", "", 100, names[1:4]},
		{"a/", "a/1", 1, names[2:3]},
		{"a/", "a", 100, names[1:4]},
		{"a/", "b", 100, nil},
		{"", "a", 2, names[1:3]},
	} {
		list, err := s.reader().Timers(Shard, Actor, tt.prefix, tt.after, tt.limit)
		s.ok(err)
		var got []string
		for _, rec := range list {
			got = append(got, rec.Name)
		}
		equal(t, fmt.Sprintf("timers %q behind %q, %d", tt.prefix, tt.after, tt.limit), got, tt.want)
	}
}

func testListings(t *testing.T, s *suite) {
	refs := []nola.ActorRef{
		{Namespace: "n", Type: "a", ID: "1"},
		{Namespace: "n", Type: "a", ID: "10"},
		{Namespace: "n", Type: "a", ID: "2"},
		{Namespace: "n", Type: "a", ID: "é"},
		{Namespace: "n", Type: "a-b", ID: "1"},
		{Namespace: "n", Type: "b", ID: "1"},
	}
	for i, ref := range refs {
		s.commit(nola.ShardID(i%Shards), func(b *persistence.Batch) {
			b.ListActor(ref)
			b.ListActor(nola.ActorRef{Namespace: "n2", Type: ref.Type, ID: ref.ID})
		})
	}
	for _, tt := range []struct {
		typ, prefix string
		after       int // index, -1 for none
		limit       int
		want        []int
	}{
		{"", "", -1, 100, []int{0, 1, 2, 3, 4, 5}},
		{"", "", 1, 2, []int{2, 3}},
		{"a", "", -1, 100, []int{0, 1, 2, 3}},
		{"a", "1", -1, 100, []int{0, 1}},
		{"a", "1", 0, 100, []int{1}},
		{"", "1", -1, 100, []int{0, 1, 4, 5}},
		{"", "1", 1, 1, []int{4}},
		{"b", "", 0, 100, []int{5}},
		{"a", "", 5, 100, nil},
		{"c", "", -1, 100, nil},
		{"", "", -1, 0, nil},
	} {
		var after nola.ActorRef
		if tt.after >= 0 {
			after = refs[tt.after]
		}
		got, err := s.store.ListActors("n", tt.typ, tt.prefix, after, tt.limit)
		s.ok(err)
		var want []nola.ActorRef
		for _, i := range tt.want {
			want = append(want, refs[i])
		}
		equal(t, fmt.Sprintf("%+v", tt), got, want)
	}
}

func testObjects(t *testing.T, s *suite) {
	data := bytes.Repeat([]byte("module"), 1<<18)
	digest := sha256.Sum256(data)
	if _, err := s.store.GetObject(t.Context(), digest); !errors.Is(err, persistence.ErrNotFound) {
		t.Errorf("before it is stored: %v", err)
	}
	s.ok(s.store.PutObject(t.Context(), digest, data))
	s.ok(s.store.PutObject(t.Context(), digest, data))
	if err := s.store.PutObject(t.Context(), digest, data[1:]); err == nil {
		t.Error("bytes with another digest were stored")
	}
	s.reopen()
	got, err := s.store.GetObject(t.Context(), digest)
	s.ok(err)
	if !bytes.Equal(got, data) {
		t.Errorf("got %d other bytes", len(got))
	}
	s.ok(s.store.DeleteObject(t.Context(), digest))
	s.ok(s.store.DeleteObject(t.Context(), digest))
	if _, err := s.store.GetObject(t.Context(), digest); !errors.Is(err, persistence.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
}

func testCatalogCAS(t *testing.T, s *suite) {
	ctx := t.Context()
	put := func(version uint64, value []byte, want error) uint64 {
		t.Helper()
		v, err := s.store.CatalogPut(ctx, persistence.SpaceModule, "k", version, value)
		if !errors.Is(err, want) {
			t.Errorf("put at version %d: %v, want %v", version, err, want)
		}
		return v
	}
	put(9, []byte("x"), persistence.ErrConflict)
	put(0, nil, nil)
	v1 := put(0, []byte("1"), nil)
	put(0, []byte("x"), persistence.ErrConflict)
	v2 := put(v1, []byte{}, nil)
	put(v1, []byte("x"), persistence.ErrConflict)
	s.reopen()
	value, version, err := s.store.CatalogGet(ctx, persistence.SpaceModule, "k")
	s.ok(err)
	equal(t, "value", string(value), "")
	equal(t, "version", version, v2)
	put(v1, nil, persistence.ErrConflict)
	put(v2, nil, nil)
	_, version, err = s.store.CatalogGet(ctx, persistence.SpaceModule, "k")
	s.ok(err)
	equal(t, "version of nothing", version, 0)
	s.reopen()
	if v := put(0, []byte("again"), nil); v == v1 || v == v2 || v == 0 {
		t.Errorf("version %d was given before", v)
	}

	const racers = 8
	wins := make(chan bool, racers)
	for range racers {
		go func() {
			_, err := s.store.CatalogPut(ctx, persistence.SpaceNamespace, "race", 0, []byte("1"))
			wins <- err == nil
		}()
	}
	n := 0
	for range racers {
		if <-wins {
			n++
		}
	}
	equal(t, "winners", n, 1)
}

func testCatalogReserve(t *testing.T, s *suite) {
	ctx := t.Context()
	reserve := func(version uint64, value []byte, want error) uint64 {
		t.Helper()
		v, err := s.store.CatalogReserve(ctx, persistence.SpaceSchedule, "k", version, value)
		if !errors.Is(err, want) {
			t.Errorf("reserve at version %d: %v, want %v", version, err, want)
		}
		return v
	}
	reserve(9, []byte("x"), persistence.ErrConflict)
	v1 := reserve(0, []byte("1"), nil)
	reserve(0, []byte("x"), persistence.ErrConflict)
	v2 := reserve(v1, []byte("2"), nil)
	if v2 == v1 {
		t.Errorf("version %d was given twice", v2)
	}
	is := func(when string) {
		t.Helper()
		value, version, err := s.store.CatalogGet(ctx, persistence.SpaceSchedule, "k")
		s.ok(err)
		equal(t, when, string(value), "2")
		equal(t, when+", version", version, v2)
	}
	is("at once")
	s.commit(Shard, func(b *persistence.Batch) { b.PutState(Actor, "k", []byte("v")) })
	s.reopen()
	is("after what followed it")
	equal(t, "what followed", s.state("k"), "v")
}

func testCatalogRecords(t *testing.T, s *suite) {
	ctx, c := t.Context(), persistence.Catalog{Store: s.store}
	namespace := persistence.Namespace{Name: "n", State: persistence.NamespaceDeleting, Created: at(0, 0), Incarnation: 3}
	v, err := c.PutNamespace(ctx, 0, namespace)
	s.ok(err)
	_, err = c.PutNamespace(ctx, 0, persistence.Namespace{Name: "m"})
	s.ok(err)
	got, version, err := c.Namespace(ctx, "n")
	s.ok(err)
	equal(t, "namespace", got, namespace)
	equal(t, "version", version, v)
	list, err := c.Namespaces(ctx, "m", 10)
	s.ok(err)
	equal(t, "namespaces behind m", list, []persistence.Namespace{namespace})
	s.ok(c.DeleteNamespace(ctx, v, "n"))
	_, version, err = c.Namespace(ctx, "n")
	s.ok(err)
	equal(t, "version after deletion", version, 0)

	module := persistence.Module{Namespace: "n", Name: "cart", Default: 2, Latest: 3}
	v, err = c.PutModule(ctx, 0, module)
	s.ok(err)
	for _, other := range []persistence.Module{{Namespace: "n2", Name: "cart"}, {Namespace: "n", Name: "cartx"}} {
		_, err = c.PutModule(ctx, 0, other)
		s.ok(err)
	}
	gotModule, _, err := c.Module(ctx, "n", "cart")
	s.ok(err)
	equal(t, "module", gotModule, module)
	modules, err := c.Modules(ctx, "n", "", 10)
	s.ok(err)
	equal(t, "modules", modules, []persistence.Module{module, {Namespace: "n", Name: "cartx"}})
	modules, err = c.Modules(ctx, "n", "cart", 10)
	s.ok(err)
	equal(t, "modules behind cart", len(modules), 1)
	s.ok(c.DeleteModule(ctx, v, "n", "cart"))

	var versions []persistence.ModuleVersion
	for _, number := range []uint64{1, 2, 16, persistence.ModuleVersionMax} {
		rec := persistence.ModuleVersion{
			Namespace: "n", Name: "cart", Version: number, Digest: [32]byte{1, 31: 2}, Size: 77, Created: at(1, 0),
			Manifest: nola.Manifest{
				Mode: nola.ModeKV, Operations: []string{"a", "b"}, ReadonlyOperations: []string{"b"}, Env: map[string]string{"k": "v"}, Capabilities: []string{"kv"},
				Limits: nola.Limits{MemoryBytes: 1, Steps: 2, TurnTimeout: 3, HostCalls: 4, LogBytes: 5, Casts: 6, ReplyBytes: 7, TableElements: 8, CallDepth: 9, MemoryInline: 10},
			},
		}
		versions = append(versions, rec)
		v, err = c.PutModuleVersion(ctx, 0, rec)
		s.ok(err)
	}
	if _, err := c.PutModuleVersion(ctx, 0, persistence.ModuleVersion{Version: persistence.ModuleVersionMax + 1}); err == nil {
		t.Error("a version above the highest was stored")
	}
	gotVersion, _, err := c.ModuleVersion(ctx, "n", "cart", 16)
	s.ok(err)
	equal(t, "module version", gotVersion, versions[2])
	gotVersions, err := c.ModuleVersions(ctx, "n", "cart", 0, 10)
	s.ok(err)
	equal(t, "module versions", gotVersions, versions)
	gotVersions, err = c.ModuleVersions(ctx, "n", "cart", 2, 1)
	s.ok(err)
	equal(t, "module versions behind 2", gotVersions, versions[2:3])
	s.ok(c.DeleteModuleVersion(ctx, v, "n", "cart", persistence.ModuleVersionMax))

	entry := persistence.ScheduleEntry{Namespace: "n", ID: "nightly", Incarnation: 4, Target: Actor, RequestID: "r", Created: at(2, 0), Calendars: []string{"bank", "school"}}
	v, err = c.PutScheduleEntry(ctx, 0, entry)
	s.ok(err)
	_, err = c.PutScheduleEntry(ctx, 0, persistence.ScheduleEntry{Namespace: "n", ID: "other"})
	s.ok(err)
	gotEntry, _, err := c.ScheduleEntry(ctx, "n", "nightly")
	s.ok(err)
	equal(t, "schedule entry", gotEntry, entry)
	entries, err := c.ScheduleEntries(ctx, "n", "ni", "", 10)
	s.ok(err)
	equal(t, "schedule entries", entries, []persistence.ScheduleEntry{entry})
	entries, err = c.ScheduleEntries(ctx, "n", "", "nightly", 10)
	s.ok(err)
	equal(t, "schedule entries behind nightly", len(entries), 1)
	s.ok(c.DeleteScheduleEntry(ctx, v, "n", "nightly"))
	if err := c.DeleteScheduleEntry(ctx, v, "n", "other"); !errors.Is(err, persistence.ErrConflict) {
		t.Errorf("delete at a version that is not the entry's: %v", err)
	}

	placement := persistence.Placement{Drained: []string{"n1"}, Rules: []persistence.PlacementRule{{Namespace: "n", Type: "cart", Require: map[string]string{"zone": "a"}}}}
	v, err = c.PutPlacement(ctx, 0, placement)
	s.ok(err)
	gotPlacement, version, err := c.Placement(ctx)
	s.ok(err)
	equal(t, "placement", gotPlacement, placement)
	equal(t, "its version", version, v)
	_, err = c.PutPlacement(ctx, v, persistence.Placement{})
	s.ok(err)

	calendar := persistence.CalendarEntry{Calendar: Schedule().Calendars[0], State: persistence.CalendarSpreading, Incarnation: 9}
	calendar.Namespace = "n"
	v, err = c.PutCalendar(ctx, 0, calendar)
	s.ok(err)
	for _, other := range []nola.Calendar{{Namespace: "n2", Name: "bank"}, {Namespace: "n", Name: "school"}} {
		_, err = c.PutCalendar(ctx, 0, persistence.CalendarEntry{Calendar: other})
		s.ok(err)
	}
	gotCalendar, _, err := c.Calendar(ctx, "n", "bank")
	s.ok(err)
	equal(t, "calendar", gotCalendar, calendar)
	calendars, err := c.Calendars(ctx, "n", "", 10)
	s.ok(err)
	equal(t, "calendars", calendars, []persistence.CalendarEntry{calendar, {Calendar: nola.Calendar{Namespace: "n", Name: "school"}}})
	calendars, err = c.Calendars(ctx, "n", "bank", 10)
	s.ok(err)
	equal(t, "calendars behind bank", len(calendars), 1)
	if _, err := c.PutCalendar(ctx, 0, calendar); !errors.Is(err, persistence.ErrConflict) {
		t.Errorf("a second calendar of one name: %v", err)
	}
	s.ok(c.DeleteCalendar(ctx, v, "n", "bank"))
	_, version, err = c.Calendar(ctx, "n", "bank")
	s.ok(err)
	equal(t, "version of a deleted calendar", version, 0)
}

// testReadsDuringCommits reads two rows that are always written together.
func testReadsDuringCommits(t *testing.T, s *suite) {
	const commits = 200
	write := func(n uint64) {
		s.commit(Shard, func(b *persistence.Batch) {
			value := binary.BigEndian.AppendUint64(nil, n)
			b.PutState(Actor, "a", value)
			b.PutState(Actor, "b", value)
		})
	}
	write(0)
	var committed atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait() // runs after stop is set
	defer stop.Store(true)
	for range 2 {
		wg.Go(func() {
			r := s.reader()
			for !stop.Load() {
				seen := committed.Load()
				var values []uint64
				err := r.ScanState(Shard, Actor, nil, nil, false, func(_, value []byte) bool {
					values = append(values, binary.BigEndian.Uint64(value))
					return true
				})
				if err != nil || len(values) != 2 || values[0] != values[1] || values[0] < seen {
					t.Errorf("a scan after commit %d sees %v, %v", seen, values, err)
					return
				}
			}
		})
	}
	for n := uint64(1); n <= commits; n++ {
		write(n)
		committed.Store(n)
	}
}

func testReopen(t *testing.T, s *suite) {
	info := s.store.Cluster()
	for i := range 3 {
		s.commit(Shard, func(b *persistence.Batch) { b.PutState(Actor, fmt.Sprint(i), []byte("v")) })
	}
	head := s.heads[Shard]
	s.reopen()
	equal(t, "cluster", s.store.Cluster(), info)
	b := new(persistence.Batch)
	b.Reset(Shard, head.Epoch, head.Seq+1)
	if err := s.store.Commit([]*persistence.Batch{b})[0]; !errors.Is(err, persistence.ErrFenced) {
		t.Errorf("commit without Acquire after reopen: %v", err)
	}
	heads, err := s.store.Acquire(t.Context(), []nola.ShardID{Shard})
	s.ok(err)
	equal(t, "head", heads[0], persistence.Head{Shard: Shard, Epoch: head.Epoch + 1, Seq: head.Seq})
	for i := range 3 {
		equal(t, "value", s.state(fmt.Sprint(i)), "v")
	}
}

func testClosed(t *testing.T, s *suite) {
	b := s.batch(Shard)
	s.ok(s.store.Close())
	s.ok(s.store.Close())
	_, err := s.store.Acquire(t.Context(), []nola.ShardID{0})
	_, _, err2 := s.store.Get(persistence.Row{Table: persistence.TableMeta, Actor: Actor})
	err3 := s.store.Scan(persistence.Range{Table: persistence.TableMeta, Actor: Actor}, func(_, _ []byte) bool { return true })
	_, _, err4 := s.store.CatalogGet(t.Context(), persistence.SpaceModule, "k")
	for i, err := range []error{err, err2, err3, err4, s.store.Commit([]*persistence.Batch{b})[0]} {
		if !errors.Is(err, persistence.ErrClosed) {
			t.Errorf("call %d on a closed store: %v", i, err)
		}
	}
}
