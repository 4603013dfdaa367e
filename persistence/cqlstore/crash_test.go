package cqlstore_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

// The history that crash tests write: to each shard numbered batches, of which
// each adds a row under its number, counts in one row, and moves an entry of the
// due index.

var counter = nola.ActorRef{Namespace: "n", Type: "counter", ID: "c"}

func numbered(b *persistence.Batch) {
	n := uint64(b.Seq)
	b.PutMeta(counter, persistence.Meta{Created: time.Unix(0, 0)})
	b.PutState(counter, fmt.Sprintf("%08d", n), binary.BigEndian.AppendUint64(nil, n))
	b.PutState(counter, "count", binary.BigEndian.AppendUint64(nil, n))
	if n > 1 {
		b.DeleteDue(time.Unix(int64(n-1)*600, 0), counter, persistence.DueTimer, "t")
	}
	b.PutDue(persistence.DueRow{Due: time.Unix(int64(n)*600, 0), Target: counter, Kind: persistence.DueTimer, Name: "t"})
}

// checkHistory wants all of the first n batches of a shard, each once, and no
// other.
func checkHistory(t *testing.T, store persistence.Store, shard nola.ShardID, n nola.Seq) {
	t.Helper()
	r := persistence.Reader{Store: store}
	value, found, err := r.State(shard, counter, "count")
	if err != nil {
		t.Fatal(err)
	}
	if found {
		if count := nola.Seq(binary.BigEndian.Uint64(value)); count != n {
			t.Errorf("shard %d: %d were counted, the head says %d", shard, count, n)
		}
	} else if n > 0 {
		t.Errorf("shard %d: nothing of %d batches is there", shard, n)
	}
	next := nola.Seq(1)
	err = r.ScanState(shard, counter, []byte("0"), []byte("a"), false, func(key, value []byte) bool {
		if got := nola.Seq(binary.BigEndian.Uint64(value)); got != next || string(key) != fmt.Sprintf("%08d", got) {
			t.Errorf("shard %d: row %q has number %d, want %d", shard, key, got, next)
			return false
		}
		next++
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if next != n+1 {
		t.Errorf("shard %d: %d rows of %d batches", shard, next-1, n)
	}
	due, err := r.Due(shard, persistence.DueRow{}, time.Unix(1<<40, 0), 10)
	if err != nil {
		t.Fatal(err)
	}
	if n > 0 && (len(due) != 1 || due[0].Due.Unix() != int64(n)*600) {
		t.Errorf("shard %d: the due index has %v after batch %d", shard, due, n)
	}
}

func all(shards int) []nola.ShardID {
	list := make([]nola.ShardID, shards)
	for i := range list {
		list[i] = nola.ShardID(i)
	}
	return list
}

const crashShards = 8

// round commits a batch to each shard whose head is known.
func round(store persistence.Store, heads []persistence.Head) ([]*persistence.Batch, []error) {
	batches := make([]*persistence.Batch, len(heads))
	for i, h := range heads {
		batches[i] = new(persistence.Batch)
		batches[i].Reset(h.Shard, h.Epoch, h.Seq+1)
		numbered(batches[i])
	}
	return batches, store.Commit(batches)
}

// TestCrashWriter is the process that TestCrashKill kills.
func TestCrashWriter(t *testing.T) {
	keyspace := os.Getenv("NOLA_CRASH_KEYSPACE")
	if keyspace == "" {
		t.Skip("the process that TestCrashKill starts")
	}
	c := cqlstore.Config{
		Hosts: strings.Split(os.Getenv("NOLA_TEST_CQL"), ","), Keyspace: keyspace, Name: "writer", Mode: cqlstore.Mode(os.Getenv("NOLA_CRASH_MODE")),
		ApplyAge: 20 * time.Millisecond, RingSize: 16, Log: slog.New(slog.DiscardHandler),
	}
	store, err := cqlstore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	heads, err := store.Acquire(t.Context(), all(crashShards))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(os.Stdout)
	for {
		batches, verdicts := round(store, heads)
		for i, err := range verdicts {
			if err != nil {
				t.Fatal(err)
			}
			heads[i].Seq = batches[i].Seq
			fmt.Fprintf(out, "done %d %d\n", batches[i].Shard, batches[i].Seq)
		}
		out.Flush()
	}
}

// TestCrashKill kills a process that commits, opens the store again, and wants all
// that was acknowledged, each once.
func TestCrashKill(t *testing.T) {
	where := strings.Join(hosts(t), ",")
	const kills = 4
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run(string(mode), func(t *testing.T) {
			c := fresh(t, crashShards)
			c.Name, c.Mode = "writer", mode
			acked := make([]nola.Seq, crashShards)
			for kill := range kills {
				killWriter(t, where, c, acked, 120+150*kill)
				store := open(t, c)
				heads, err := store.Acquire(t.Context(), all(crashShards))
				if err != nil {
					t.Fatal(err)
				}
				for i, h := range heads {
					if h.Seq < acked[i] || h.Seq > acked[i]+1 {
						t.Errorf("kill %d, shard %d: the head says %d, %d was acknowledged", kill, i, h.Seq, acked[i])
					}
					checkHistory(t, store, h.Shard, h.Seq)
					acked[i] = h.Seq
				}
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// killWriter lets a process commit until it has acknowledged so much, and kills it.
func killWriter(t *testing.T, where string, c cqlstore.Config, acked []nola.Seq, lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashWriter$", "-test.v")
	cmd.Env = append(os.Environ(), "NOLA_TEST_CQL="+where, "NOLA_CRASH_KEYSPACE="+c.Keyspace, "NOLA_CRASH_MODE="+string(c.Mode))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	n := 0
	for scan := bufio.NewScanner(out); scan.Scan(); {
		word := strings.Fields(scan.Text())
		if len(word) != 3 || word[0] != "done" {
			said = append(said, scan.Text())
			continue
		}
		shard, _ := strconv.Atoi(word[1])
		seq, _ := strconv.Atoi(word[2])
		acked[shard] = nola.Seq(seq)
		if n++; n == lines {
			_ = cmd.Process.Kill() // in mid-commit, most likely; what it said before is read on
		}
	}
	_ = cmd.Wait()
	if n < lines {
		t.Fatalf("the writer ended by itself after %d commits: %s", n, strings.Join(said, "\n"))
	}
}

// TestFenced has two stores of one name fight for the same shards: each verdict is
// definite, and the batches that were done are all there, in order, each once.
func TestFenced(t *testing.T) {
	hosts(t)
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run(string(mode), func(t *testing.T) { fight(t, mode) })
	}
}

func fight(t *testing.T, mode cqlstore.Mode) {
	c := fresh(t, crashShards)
	c.Mode, c.ApplyAge, c.RingSize = mode, 50*time.Millisecond, 16
	first := open(t, c)
	heads, err := first.Acquire(t.Context(), all(crashShards))
	if err != nil {
		t.Fatal(err)
	}
	var done [crashShards]atomic.Uint64
	var busy, ended sync.WaitGroup
	busy.Add(1)
	var stop atomic.Bool
	ended.Go(func() {
		rounds := 0
		for !stop.Load() {
			batches, verdicts := round(first, heads)
			over := false
			for i, err := range verdicts {
				if err != nil && !errors.Is(err, persistence.ErrFenced) {
					err = first.Resolve(t.Context(), batches[i:i+1])[0]
				}
				switch {
				case err == nil:
					heads[i].Seq = batches[i].Seq
					done[i].Store(uint64(batches[i].Seq))
				case errors.Is(err, persistence.ErrFenced):
					over = true
				default:
					t.Errorf("no verdict on batch %d of shard %d: %v", batches[i].Seq, i, err)
					over = true
				}
			}
			if rounds++; rounds == 10 {
				busy.Done()
			}
			if over {
				if rounds < 10 {
					t.Error("fenced before anybody else came")
					busy.Done()
				}
				return
			}
		}
	})
	busy.Wait()
	second := open(t, c)
	got, err := second.Acquire(t.Context(), all(crashShards))
	if err != nil {
		t.Fatal(err)
	}
	ended.Wait()
	stop.Store(true)
	for i, h := range got {
		if h.Epoch != 2 || uint64(h.Seq) != done[i].Load() {
			t.Errorf("shard %d: taken over at epoch %d, batch %d; %d was acknowledged", i, h.Epoch, h.Seq, done[i].Load())
		}
		checkHistory(t, second, h.Shard, h.Seq)
	}
	// The first may not take them back from one that lives, and reads go on.
	var held *cqlstore.HeldError
	if _, err := first.Acquire(t.Context(), all(1)); !errors.As(err, &held) {
		t.Errorf("the loser acquired again: %v", err)
	}
	batches, verdicts := round(second, got)
	for i, err := range verdicts {
		if err != nil {
			t.Errorf("batch %d of the winner: %v", batches[i].Seq, err)
		}
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	back, err := first.Acquire(t.Context(), all(crashShards))
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range back {
		if h.Epoch != 3 || h.Seq != batches[i].Seq {
			t.Errorf("shard %d: taken back at epoch %d, batch %d; want 3, %d", i, h.Epoch, h.Seq, batches[i].Seq)
		}
		checkHistory(t, first, h.Shard, h.Seq)
	}
}

// TestTakesOverTheDead drops a store without a word; another one of another name
// waits for its lease and takes its shards.
func TestTakesOverTheDead(t *testing.T) {
	c := fresh(t, crashShards)
	where := strings.Join(c.Hosts, ",")
	acked := make([]nola.Seq, crashShards)
	killWriter(t, where, c, acked, 50)
	c.Name = "another"
	store := open(t, c)
	began := time.Now()
	heads, err := store.Acquire(t.Context(), all(crashShards))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("waited %v for a lease of 10 s", time.Since(began))
	for i, h := range heads {
		if h.Seq < acked[i] {
			t.Errorf("shard %d: the head says %d, %d was acknowledged", i, h.Seq, acked[i])
		}
		checkHistory(t, store, h.Shard, h.Seq)
	}
	rows, err := store.ShardRows(t.Context())
	if err != nil || len(rows) != crashShards {
		t.Fatalf("%d rows of shards, %v", len(rows), err)
	}
	for _, row := range rows {
		if row.Node != store.NodeID() || row.Epoch != heads[row.Shard].Epoch {
			t.Errorf("row %+v, want node %s and epoch %d", row, store.NodeID(), heads[row.Shard].Epoch)
		}
	}
	// Nothing names the lane of the dead any more.
	if err := store.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	session := raw(t, c)
	defer session.Close()
	slots := map[string]int{}
	iter := session.Query("SELECT lane, kind FROM " + c.Keyspace + ".lane_log").Iter()
	var id string
	var kind int
	for iter.Scan(&id, &kind) {
		slots[id] += kind
	}
	if err := iter.Close(); err != nil {
		t.Fatal(err)
	}
	for id, n := range slots {
		if own := rows[0].Lane; n > 0 && id != fmt.Sprintf("%x-%x-%x-%x-%x", own[:4], own[4:6], own[6:8], own[8:10], own[10:]) {
			t.Errorf("lane %s still has %d slots", id, n)
		}
	}
}

// TestRelease gives shards from one living store to another.
func TestRelease(t *testing.T) {
	c := fresh(t, crashShards)
	a := open(t, c)
	c.Name = "two"
	b := open(t, c)
	heads, err := a.Acquire(t.Context(), all(crashShards))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		batches, verdicts := round(a, heads)
		for i, err := range verdicts {
			if err != nil {
				t.Fatal(err)
			}
			heads[i].Seq = batches[i].Seq
		}
	}
	if _, err := b.Acquire(t.Context(), []nola.ShardID{3}); err == nil {
		t.Fatal("a shard was taken from a living node")
	} else if held := new(cqlstore.HeldError); !errors.As(err, &held) || held.Node != a.NodeID() {
		t.Fatalf("shard held by %s: %v", a.NodeID(), err)
	}
	for i, to := range []string{"", b.NodeID()} {
		shard := nola.ShardID(3 + i)
		if err := a.Release(t.Context(), shard, heads[shard].Epoch, to); err != nil {
			t.Fatal(err)
		}
		if err := a.Release(t.Context(), shard, heads[shard].Epoch, to); err == nil {
			t.Errorf("shard %d was released twice", shard)
		}
		got, err := b.Acquire(t.Context(), []nola.ShardID{shard})
		if err != nil {
			t.Fatal(err)
		}
		if want := (persistence.Head{Shard: shard, Epoch: heads[shard].Epoch + 1, Seq: heads[shard].Seq}); got[0] != want {
			t.Errorf("taken at %+v, want %+v", got[0], want)
		}
		checkHistory(t, b, shard, got[0].Seq)
		// What the old owner still wants to write is fenced.
		if _, verdicts := round(a, heads[shard:shard+1]); !errors.Is(verdicts[0], persistence.ErrFenced) {
			t.Errorf("a commit after the release: %v", verdicts[0])
		}
		if _, verdicts := round(b, got); verdicts[0] != nil {
			t.Errorf("a commit of the new owner: %v", verdicts[0])
		}
	}
}

// TestClaim moves shards as a cluster does that decides itself who is alive.
func TestClaim(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
	c.External = true
	a := open(t, c)
	c.Name = "two"
	b := open(t, c)
	claim := func(s *cqlstore.Store, node string, row cqlstore.ShardRow) (persistence.Head, error) {
		return s.Claim(t.Context(), node, row)
	}
	rows := func() []cqlstore.ShardRow {
		t.Helper()
		list, err := a.ShardRows(t.Context())
		if err != nil || len(list) != crashShards {
			t.Fatal(list, err)
		}
		return list
	}
	node, err := a.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := rows()
	head, err := claim(a, node, first[2])
	if err != nil || head.Epoch != 1 {
		t.Fatalf("claimed at %+v, %v", head, err)
	}
	if _, verdicts := round(a, []persistence.Head{head}); verdicts[0] != nil {
		t.Fatal(verdicts[0])
	}
	if _, err := claim(a, node, first[2]); !errors.Is(err, cqlstore.ErrMoved) {
		t.Errorf("claimed from a row that has changed: %v", err)
	}
	if head, err = claim(a, node, rows()[2]); err != nil || head.Epoch != 2 || head.Seq != 1 {
		t.Errorf("claimed from itself at %+v, %v", head, err)
	}
	// The other takes it from the lane of a node that it takes for dead.
	other, err := b.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := claim(b, other, rows()[2])
	if err != nil || got.Epoch != 3 || got.Seq != 1 {
		t.Fatalf("claimed from the dead at %+v, %v", got, err)
	}
	checkHistory(t, b, 2, 1)
	if row := rows()[2]; row.Node != other || row.Epoch != 3 {
		t.Errorf("the row is %+v, want node %s", row, other)
	}
	if _, verdicts := round(a, []persistence.Head{head}); verdicts[0] == nil {
		t.Error("the one that was taken for dead commits")
	}
	again, err := a.Join(t.Context())
	if err != nil || again == node {
		t.Errorf("joined again as %q, %v; before it was %q", again, err, node)
	}
	if _, err := claim(a, node, rows()[3]); !errors.Is(err, cqlstore.ErrMoved) {
		t.Errorf("claimed under an id that is over: %v", err)
	}
	if err := b.Release(t.Context(), 2, 2, again); err == nil {
		t.Error("released under an epoch that is over")
	}
	if err := b.Release(t.Context(), 2, 3, again); err != nil {
		t.Fatal(err)
	}
	if head, err = claim(a, again, rows()[2]); err != nil || head.Epoch != 4 || head.Seq != 1 {
		t.Errorf("claimed after the release at %+v, %v", head, err)
	}
	checkHistory(t, a, 2, 1)
	if list, err := a.Nodes(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a store that leaves the lease to others has beaten: %+v, %v", list, err)
	}
}

// TestNodes writes and reads the rows of nodes.
func TestNodes(t *testing.T) {
	store := open(t, fresh(t, 1))
	n := cqlstore.Node{
		ID: "n#1", Name: "n", Address: "a:1", Zone: "z", Labels: map[string]string{"k": "v"}, State: cqlstore.NodeDraining,
		Beat: 7, Lease: 3 * time.Second, Shards: 5, Load: 0.5, Build: "b", Started: time.UnixMilli(1_800_000_000_123),
	}
	older := n
	older.Beat, older.State = 6, cqlstore.NodeReady
	for _, row := range []cqlstore.Node{n, older} { // a late one changes nothing
		if err := store.Beat(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	list, err := store.Nodes(t.Context())
	if err != nil || len(list) != 1 || fmt.Sprint(list[0]) != fmt.Sprint(n) {
		t.Errorf("nodes %+v, %v; want %+v", list, err, n)
	}
	if err := store.Leave(t.Context(), n.ID); err != nil {
		t.Fatal(err)
	}
	if list, err = store.Nodes(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after it left: %+v, %v", list, err)
	}
	if err := store.Beat(t.Context(), cqlstore.Node{}); err == nil {
		t.Error("a node without an id was written")
	}
}
