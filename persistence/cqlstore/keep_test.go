package cqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/storetest"
)

// saying keeps what a store logs.
type saying struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (s *saying) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *saying) has(part string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), part)
}

// until asks again and again, each time something of the server, for a minute at
// most.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestFence wants a look at the lane that begins after it was asked for, one for
// all who wait, and an answer that no shard is safe any more once it is sealed.
func TestFence(t *testing.T) {
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run(string(mode), func(t *testing.T) {
			server, c := fakeServer(t, cqlfake.Config{})
			c.Mode, c.External, c.Lease = mode, true, 5*time.Minute // no heartbeat looks meanwhile
			a := open(t, c)
			c.Name = "two"
			b := open(t, c)
			if err := a.Fence(t.Context()); !errors.Is(err, persistence.ErrFenced) {
				t.Errorf("without a lane: %v", err)
			}
			node, err := a.Join(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rows, err := a.ShardRows(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Claim(t.Context(), node, rows[4]); err != nil {
				t.Fatal(err)
			}
			// The first look is held back; those who come meanwhile share the second.
			looks := make(chan struct{}, 100)
			var held atomic.Bool
			server.Inject(func(r cqlfake.Request) cqlfake.Fault {
				if !strings.Contains(r.Statements[0], "final_ts, trimmed FROM") {
					return cqlfake.None
				}
				looks <- struct{}{}
				if held.CompareAndSwap(false, true) {
					return cqlfake.LateThenSilence
				}
				return cqlfake.None
			})
			const many = 20
			answers := make(chan error, many+1)
			go func() { answers <- a.Fence(t.Context()) }()
			<-looks
			for range many {
				go func() { answers <- a.Fence(t.Context()) }()
			}
			select {
			case err := <-answers:
				t.Fatalf("answered before a look was: %v", err)
			default:
			}
			server.Release()
			for range many + 1 {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
			if n := len(looks); n > many/2 {
				t.Errorf("%d who wait have looked %d times more", many, n)
			}
			server.Inject(nil)
			other, err := b.Join(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if rows, err = b.ShardRows(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Claim(t.Context(), other, rows[4]); err != nil {
				t.Fatal(err)
			}
			if err := a.Fence(t.Context()); !errors.Is(err, persistence.ErrFenced) {
				t.Errorf("after another has taken the shard: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := b.Fence(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("of a caller that left: %v", err)
			}
			b.Close()
			if err := b.Fence(t.Context()); !errors.Is(err, persistence.ErrClosed) {
				t.Errorf("of a store that is closed: %v", err)
			}
		})
	}
}

// TestClaimThatFailed has a shard claimed, and the claim fail after that was executed:
// the shard is this node's by its row, and the next claim takes it up. What is written
// then is newer than all before, although the owner before has a clock that is ahead.
func TestClaimThatFailed(t *testing.T) {
	s, c := fakeServer(t, cqlfake.Config{})
	c.External = true
	row := func(store *cqlstore.Store) cqlstore.ShardRow {
		t.Helper()
		rows, err := store.ShardRows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return rows[3]
	}
	for i, ahead := range []time.Duration{time.Hour, 0, 0} {
		c.Name, c.Now = fmt.Sprint("n", i), func() time.Time { return time.Now().Add(ahead) }
		store := open(t, c)
		node, err := store.Join(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := row(store)
		s.Inject(func(r cqlfake.Request) cqlfake.Fault {
			if strings.Contains(r.Statements[0], "FROM nola.buckets") {
				return cqlfake.Refused
			}
			return cqlfake.None
		})
		if _, err := store.Claim(t.Context(), node, before); err == nil {
			t.Fatal("a claim that could not read is said to be done")
		}
		s.Inject(nil)
		claimed := row(store)
		if claimed.Node != node || claimed.Epoch != before.Epoch+1 {
			t.Fatalf("the claim was not executed: %+v", claimed)
		}
		head, err := store.Claim(t.Context(), node, claimed)
		if err != nil || head.Epoch != claimed.Epoch {
			t.Fatalf("epoch %d after a claim of %d: %v", head.Epoch, claimed.Epoch, err)
		}
		value, found, err := (persistence.Reader{Store: store}).State(3, storetest.Actor, "k")
		if want := fmt.Sprint("v", i-1); err != nil || found != (i > 0) || found && string(value) != want {
			t.Errorf("the node finds %q (%v, %v), want %s", value, found, err, want)
		}
		b := new(persistence.Batch)
		b.Reset(3, head.Epoch, head.Seq+1)
		b.PutState(storetest.Actor, "k", []byte(fmt.Sprint("v", i)))
		if err := store.Commit([]*persistence.Batch{b})[0]; err != nil {
			t.Fatal(err)
		}
		if err := store.Release(t.Context(), 3, head.Epoch, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIdleNodeHearsOfTheSeal has a lane sealed whose store commits nothing: it must
// find out by itself.
func TestIdleNodeHearsOfTheSeal(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
	said := new(saying)
	c.External, c.Lease, c.Log = true, time.Second, slog.New(slog.NewTextHandler(said, nil))
	a := open(t, c)
	node, err := a.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := a.ShardRows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Claim(t.Context(), node, rows[0]); err != nil {
		t.Fatal(err)
	}
	c.Name, c.Log = "two", slog.New(slog.DiscardHandler)
	b := open(t, c)
	other, err := b.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rows, err = b.ShardRows(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Claim(t.Context(), other, rows[0]); err != nil {
		t.Fatal(err)
	}
	until(t, "the store has lost its lane", func() bool {
		_, err := b.Nodes(t.Context())
		return err == nil && said.has("lane settled")
	})
}

// TestUnappliedStopsIntake has the tables refuse what was committed, until it is
// older than the limit: nothing more is committed then, and all of it goes on once
// the tables take it.
func TestUnappliedStopsIntake(t *testing.T) {
	server, c := fakeServer(t, cqlfake.Config{})
	var ahead atomic.Int64
	said := new(saying)
	c.ApplyAge, c.Log = 10*time.Millisecond, slog.New(slog.NewTextHandler(said, nil))
	c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	store := open(t, c)
	heads := acquireAll(t, store, []nola.ShardID{2, 3})
	var tried atomic.Int64
	server.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if strings.Contains(r.Statements[0], ".actor_rows") && !r.Read {
			tried.Add(1)
			return cqlfake.LostThenTimeout
		}
		return cqlfake.None
	})
	commit := func() error {
		batches, verdicts := round(store, heads)
		for i, err := range verdicts {
			if err != nil {
				return err
			}
			heads[i].Seq = batches[i].Seq
		}
		return nil
	}
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(cqlstore.UnappliedMax - time.Minute))
	if err := commit(); err != nil {
		t.Errorf("before the limit: %v", err)
	}
	ahead.Store(int64(cqlstore.UnappliedMax + time.Minute))
	until(t, "the store is under pressure", func() bool { return store.Pressure() == 1 })
	if err := commit(); !errors.Is(err, persistence.ErrFenced) || !strings.Contains(err.Error(), "wait for the tables") {
		t.Errorf("behind the limit: %v", err)
	}
	until(t, "it was said", func() bool { return said.has("cannot be brought into the tables") })
	var figures bytes.Buffer
	if err := store.Metrics(&figures); err != nil || !strings.Contains(figures.String(), "nola_store_unapplied_seconds 36") {
		t.Errorf("the figures say nothing of it: %v\n%s", err, figures.String())
	}
	server.Inject(nil)
	until(t, "the pressure is gone", func() bool { return store.Pressure() < 1 })
	for i, h := range acquireAll(t, store, []nola.ShardID{2, 3}) {
		if h.Seq != heads[i].Seq {
			t.Errorf("shard %d stands at %d, want %d", h.Shard, h.Seq, heads[i].Seq)
		}
		heads[i] = h
	}
	if err := commit(); err != nil {
		t.Errorf("after all was applied: %v", err)
	}
	for _, h := range heads {
		checkHistory(t, store, h.Shard, h.Seq)
	}
}

// TestKeeperEndsOldLanes leaves a lane behind that no shard names and whose node is
// dead: others seal and trim it, and delete its head 30 days later, no earlier. One
// whose node lives they leave alone.
func TestKeeperEndsOldLanes(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
	var ahead atomic.Int64
	c.External, c.Lease = true, time.Second
	c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	dead := open(t, c)
	if _, err := dead.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Name = "living"
	living := open(t, c)
	node, err := living.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Name = "keeper"
	keeper := open(t, c)
	if _, err := keeper.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := session(t, c)
	type head struct{ sealed, trimmed int }
	heads := func() map[string]head {
		all := map[string]head{}
		iter := db.Query("SELECT node, sealed, trimmed FROM nola.lane_log").Iter()
		var name string
		var h head
		for iter.Scan(&name, &h.sealed, &h.trimmed) {
			// Who hears late that its lane has ended may find no head, and inserts one that
			// names nobody.
			if i := strings.IndexByte(name, '#'); i > 0 {
				all[name[:i]] = h
			}
		}
		if err := iter.Close(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	beat := uint64(0)
	tidy := func() {
		t.Helper()
		beat++
		if err := living.Beat(t.Context(), cqlstore.Node{ID: node, Beat: beat, Lease: c.Lease}); err != nil {
			t.Fatal(err)
		}
		if err := keeper.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the lane of the dead is trimmed", func() bool {
		tidy()
		return heads()["one"].trimmed == 1
	})
	if got := heads(); got["one"].sealed != 1 || got["living"] != (head{}) || got["keeper"] != (head{}) {
		t.Errorf("the heads are %v", got)
	}
	ahead.Store(int64(cqlstore.HeadDays*24*time.Hour - time.Hour))
	tidy()
	if _, there := heads()["one"]; !there {
		t.Error("the head went too early")
	}
	ahead.Add(int64(2 * time.Hour))
	tidy()
	if got := heads(); len(got) != 2 {
		t.Errorf("the heads are %v", got)
	}
	var left int
	if err := db.Query("SELECT p FROM nola.trimmed_lanes").Iter().NumRows(); err != 0 || left != 0 {
		t.Errorf("%d lanes are still noted as trimmed", err)
	}
}

// TestLargeValues commits values above the limit of a slot, which go into chunks
// before the entry, and are found by who recovers the lane.
func TestLargeValues(t *testing.T) {
	server, c := fakeServer(t, cqlfake.Config{})
	c.ApplyAge = time.Minute // so that the lane has all of it
	var mu sync.Mutex        // guards order and most
	var order []string
	most := 0
	server.Inject(func(r cqlfake.Request) cqlfake.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.Contains(r.Statements[0], "INSERT INTO nola.lane_chunks"):
			order = append(order, "chunk")
		case strings.Contains(r.Statements[0], "crc, body) VALUES"):
			order = append(order, "entry")
			most = max(most, len(r.Values[0][8]))
		}
		return cqlfake.None
	})
	store := open(t, c)
	heads := acquireAll(t, store, nil)
	noise := make([]byte, 200<<10)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	batches := make([]*persistence.Batch, len(heads))
	for i, h := range heads {
		b := new(persistence.Batch)
		b.Reset(h.Shard, h.Epoch, h.Seq+1)
		b.PutState(storetest.Actor, "small", []byte(fmt.Sprint(i)))
		if i == 3 {
			b.PutState(storetest.Actor, "large", noise)
		}
		batches[i] = b
	}
	for i, err := range store.Commit(batches) {
		if err != nil {
			t.Fatalf("shard %d: %v", i, err)
		}
	}
	mu.Lock()
	if got := strings.Join(order, " "); got != "entry chunk entry" && got != "chunk entry entry" {
		t.Errorf("the server got %s", got)
	}
	if most > 64<<10 {
		t.Errorf("a slot has %d bytes", most)
	}
	mu.Unlock()
	second := open(t, c)
	for _, h := range acquireAll(t, second, nil) {
		got, found, err := (persistence.Reader{Store: second}).State(h.Shard, storetest.Actor, "large")
		if err != nil || found != (h.Shard == 3) || found && !bytes.Equal(got, noise) {
			t.Errorf("shard %d: %d bytes, %v, %v", h.Shard, len(got), found, err)
		}
	}
}

// TestLyingStore takes away what the store has acknowledged, while nobody looks.
// Whoever recovers the lane stops with an alarm, and claims nothing; and the owner
// answers no batch as done or as never executed that it cannot know of.
func TestLyingStore(t *testing.T) {
	for name, tt := range map[string]struct {
		lose string // a statement with the lane as its value
		says string
		mode cqlstore.Mode // default quorum
	}{
		"an entry":            {"DELETE FROM nola.lane_log USING TIMESTAMP 9000000000000000 WHERE lane = ? AND kind = 1 AND slot = 2", "is missing", ""},
		"the ring":            {"DELETE FROM nola.lane_log USING TIMESTAMP 9000000000000000 WHERE lane = ? AND kind = 1 AND slot >= 2 AND slot < 4", "is missing", ""},
		"the head":            {"DELETE FROM nola.lane_log WHERE lane = ? AND kind = 0", "its head was lost", ""},
		"the last entry, lwt": {"DELETE FROM nola.lane_log USING TIMESTAMP 9000000000000000 WHERE lane = ? AND kind = 1 AND slot = 5", "its head says 5", cqlstore.ModeLWT},
		"the head, lwt":       {"DELETE FROM nola.lane_log WHERE lane = ? AND kind = 0", "its head was lost", cqlstore.ModeLWT},
		"its bytes":           {"UPDATE nola.lane_log USING TIMESTAMP 9000000000000000 SET body = 0x0100 WHERE lane = ? AND kind = 1 AND slot = 2", "has sum", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := fakeServer(t, cqlfake.Config{})
			said := new(saying)
			c.ApplyAge, c.Mode, c.Log = time.Minute, cqlstore.ModeQuorum, slog.New(slog.NewTextHandler(said, nil))
			if tt.mode != "" {
				c.Mode = tt.mode
			}
			store := open(t, c)
			heads := acquireAll(t, store, []nola.ShardID{1})
			commit := func() ([]*persistence.Batch, error) {
				batches, verdicts := round(store, heads)
				if verdicts[0] == nil {
					heads[0].Seq++
				}
				return batches, verdicts[0]
			}
			for range 5 {
				if _, err := commit(); err != nil {
					t.Fatal(err)
				}
			}
			rows, err := store.ShardRows(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			db := session(t, c)
			if err := db.Query(tt.lose, rows[1].Lane[:]).Exec(); err != nil {
				t.Fatal(err)
			}
			c.Name = "one" // takes over without waiting
			second := open(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := second.Acquire(ctx, []nola.ShardID{1}); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "lost or changed what it acknowledged") {
				t.Errorf("acquired: %v", err)
			}
			if !said.has("lane damaged") {
				t.Error("no alarm was given")
			}
			now, err := store.ShardRows(t.Context())
			if err != nil || now[1].Epoch != rows[1].Epoch || now[1].Lane != rows[1].Lane {
				t.Errorf("the row of the shard was %+v and is %+v, %v", rows[1], now[1], err)
			}
			batches, err := commit()
			if err == nil {
				t.Error("the owner commits through a lane that was sealed")
			}
			if !errors.Is(err, persistence.ErrFenced) {
				short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := store.Resolve(short, batches)[0]; err == nil || errors.Is(err, persistence.ErrFenced) {
					t.Errorf("the outcome of a batch that nobody can know is %v", err)
				}
			}
		})
	}
}

// TestActorIsReadAtOnce counts what the server is asked when an actor wakes: once
// for all rows of a small one, those that do not exist included.
func TestActorIsReadAtOnce(t *testing.T) {
	server, c := fakeServer(t, cqlfake.Config{})
	store := open(t, c)
	heads := acquireAll(t, store, []nola.ShardID{1})
	small, large := nola.ActorRef{Namespace: "n", Type: "t", ID: "small"}, nola.ActorRef{Namespace: "n", Type: "t", ID: "large"}
	b := new(persistence.Batch)
	b.Reset(1, heads[0].Epoch, heads[0].Seq+1)
	for i := range 20 {
		b.PutState(large, fmt.Sprint(i), []byte("v"))
	}
	b.PutState(small, "a", []byte("1"))
	b.PutState(small, "b", []byte("2"))
	if err := store.Commit([]*persistence.Batch{b})[0]; err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, c)
	acquireAll(t, again, []nola.ShardID{1})
	get := func(ref nola.ActorRef, key, want string) {
		t.Helper()
		got, found, err := (persistence.Reader{Store: again}).State(1, ref, key)
		if err != nil || string(got) != want || found != (want != "") {
			t.Errorf("%s of %s: %q, %v, %v; want %q", key, ref.ID, got, found, err, want)
		}
	}
	asked := func(of string, most int, do func()) {
		t.Helper()
		before := len(server.Requests())
		do()
		n := 0
		for _, r := range server.Requests()[before:] {
			if strings.Contains(r.Statements[0], ".actor_rows") {
				n++
			}
		}
		if n > most {
			t.Errorf("%s: the server was asked %d times, at most %d are needed", of, n, most)
		}
	}
	asked("a small actor", 1, func() {
		get(small, "a", "1")
		get(small, "b", "2")
		get(small, "c", "")
	})
	asked("an actor that does not exist", 1, func() {
		get(nola.ActorRef{Namespace: "n", Type: "t", ID: "none"}, "a", "")
		get(nola.ActorRef{Namespace: "n", Type: "t", ID: "none"}, "b", "")
	})
	asked("a large actor", 4, func() {
		get(large, "0", "v")
		get(large, "19", "v")
		get(large, "no", "")
	})
}
