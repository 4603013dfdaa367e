package cqlstore

import (
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/lane"
)

const replayShards = 3

// TestReplay has shards change hands between nodes whose clocks are hours apart, while entries of all tenures, old ones too,
// are applied again and again by whoever has once read them. In the end the tables
// must be, byte for byte, what one store makes that does the same in order.
func TestReplay(t *testing.T) {
	for _, mode := range []Mode{ModeQuorum, ModeLWT} {
		for round := range 5 {
			seed := flag.Lookup("seed").Value.(flag.Getter).Get().(uint64)
			if seed == 0 {
				seed = rand.Uint64()
			}
			t.Run(fmt.Sprintf("%s %d", mode, round), func(t *testing.T) {
				defer func() {
					if t.Failed() {
						t.Logf("-seed %d", seed)
					}
				}()
				replay(t, mode, seed)
			})
		}
	}
}

// replayed is what the server was sent of a lane.
type replayed struct {
	mu      sync.Mutex // guards the field below
	entries []*lane.Entry
}

func (e *replayed) request(r cqlfake.Request) cqlfake.Fault {
	last := len(r.Statements) - 1
	if !strings.Contains(r.Statements[last], "crc, body) VALUES") {
		return cqlfake.None
	}
	v := r.Values[last]
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(v[i])) } //nolint:gosec // keeps its bits
	e.mu.Lock()
	defer e.mu.Unlock()
	e.entries = append(e.entries, &lane.Entry{
		Seq: lane.Seq(n(2)), Prev: uint64(n(3)), TS: lane.Timestamp(n(4)), Applied: lane.Seq(n(5)), //nolint:gosec // as above
		Committed: lane.Seq(n(6)), Sum: uint64(n(7)), Body: v[8], //nolint:gosec // as above
	})
	return cqlfake.None
}

func replay(t *testing.T, mode Mode, seed uint64) {
	server, err := cqlfake.Start(cqlfake.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	r := rand.New(rand.NewPCG(seed, 3))
	var ahead atomic.Int64
	c := Config{
		Hosts: []string{server.Address()}, OnlyHosts: true, Mode: mode, External: true, RingSize: 8, ApplyAge: 10 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler),
	}
	node := func(name string, off time.Duration) *Store {
		t.Helper()
		c.Name, c.Now = name, func() time.Time { return time.Now().Add(off + time.Duration(ahead.Load())) }
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	claim := func(s *Store, shards []nola.ShardID) map[nola.ShardID]persistence.Head {
		t.Helper()
		id, err := s.Join(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.ShardRows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		heads := map[nola.ShardID]persistence.Head{}
		for _, shard := range shards {
			if heads[shard], err = s.Claim(t.Context(), id, rows[shard]); err != nil {
				t.Fatal(err)
			}
		}
		return heads
	}
	shards := []nola.ShardID{0, 1, 2}
	if _, err := SetupSchema(t.Context(), c, Schema{Replicas: 1, Shards: replayShards}); err != nil {
		t.Fatal(err)
	}
	var sent replayed
	server.Inject(sent.request)

	// What a zombie does: it has an entry, and writes its effects into the tables.
	again := func(s *Store, e *lane.Entry) {
		effects, err := e.Effects()
		if err != nil {
			t.Error(err)
			return
		}
		for _, f := range effects {
			m := newMemory(f.Batch.Shard, new(atomic.Int64))
			if err := s.learn(t.Context(), m); err != nil {
				t.Error(err)
			}
			m.add([]lane.Effects{f}, 1, time.Unix(0, 0))
			if _, err := s.appliers.flush(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
	}
	zombie := node("zombie", 0)
	stop := make(chan struct{})
	var haunted sync.WaitGroup
	haunt := rand.New(rand.NewPCG(seed, 4))
	var times int
	haunted.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent.mu.Lock()
			var e *lane.Entry
			if n := len(sent.entries); n > 1 {
				e = sent.entries[haunt.IntN(n-1)] // the last one may not be committed
			}
			sent.mu.Unlock()
			if e == nil {
				if _, err := zombie.Nodes(t.Context()); err != nil {
					t.Error(err)
				}
				continue
			}
			again(zombie, e)
			times++
		}
	})

	stores := []*Store{node("a", 0), node("b", time.Hour), node("c", -time.Hour)}
	owner := 0
	heads := claim(stores[0], shards)
	var history [replayShards][]*persistence.Batch
	for step := range 50 {
		if step%8 == 7 {
			owner = (owner + 1 + r.IntN(2)) % len(stores)
			heads = claim(stores[owner], shards)
		}
		var batches []*persistence.Batch
		for _, shard := range shards {
			if r.IntN(3) == 0 {
				continue
			}
			b := new(persistence.Batch)
			b.Reset(shard, heads[shard].Epoch, heads[shard].Seq+1)
			randomOps(r, b)
			batches = append(batches, b)
		}
		for i, err := range stores[owner].Commit(batches) {
			b := batches[i]
			if err != nil {
				t.Fatalf("step %d: batch %d of shard %d: %v", step, b.Seq, b.Shard, err)
			}
			heads[b.Shard] = persistence.Head{Shard: b.Shard, Epoch: b.Epoch, Seq: b.Seq}
			history[b.Shard] = append(history[b.Shard], b)
		}
		if r.IntN(4) == 0 { // what a scan finds empty is removed
			ahead.Add(int64(2 * retireAge))
			err := stores[owner].Scan(persistence.Range{Table: persistence.TableDue, Shard: shards[r.IntN(3)]}, func([]byte, []byte) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	haunted.Wait()
	for _, s := range stores {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range r.Perm(len(sent.entries)) {
		again(zombie, sent.entries[i])
	}
	got := dump(t, zombie)

	c.Keyspace = "inorder"
	if _, err := SetupSchema(t.Context(), c, Schema{Replicas: 1, Shards: replayShards}); err != nil {
		t.Fatal(err)
	}
	one := node("one", 0)
	heads = claim(one, shards)
	for _, list := range history {
		for _, b := range list {
			again := new(persistence.Batch)
			again.Reset(b.Shard, heads[b.Shard].Epoch, b.Seq)
			for _, op := range b.Ops() {
				again.Add(op)
			}
			if err := one.Commit([]*persistence.Batch{again})[0]; err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	want := dump(t, node("reader", 0))
	if !slices.Equal(got, want) {
		t.Errorf("%d entries, applied again %d times: the tables differ\n%s", len(sent.entries), times, differences(got, want))
	}
	t.Logf("%d entries, applied again %d times: %d rows", len(sent.entries), times, len(want))
}

// randomOps fills a batch with operations of all kinds, on few rows.
func randomOps(r *rand.Rand, b *persistence.Batch) {
	ref := nola.ActorRef{Namespace: "n", Type: "t", ID: fmt.Sprint("actor ", b.Shard, r.IntN(3))}
	key := func(table persistence.Table) []byte {
		if table.OfActor() {
			return []byte(fmt.Sprint(r.IntN(5)))
		}
		return []byte{0x18, 0, 0x0a + byte(r.IntN(4))*0x11, 0, 0, 0, 0, byte(r.IntN(4)), 1, 2}
	}
	for range 1 + r.IntN(5) {
		table := []persistence.Table{persistence.TableState, persistence.TableState, persistence.TableUserKey, persistence.TableDue}[r.IntN(4)]
		op := persistence.Op{Kind: persistence.OpPut, Table: table, Key: key(table), Value: fmt.Appendf(nil, "%d.%d", b.Seq, b.Len())}
		if table.OfActor() {
			op.Actor = ref
		}
		switch r.IntN(10) {
		case 0, 1, 2:
			op.Kind, op.Value = persistence.OpDelete, nil
		case 3, 4:
			op.Kind, op.Value = persistence.OpDeleteRange, nil
			if r.IntN(2) == 0 {
				op.Value = key(table)
			}
		case 5:
			op = persistence.Op{Kind: persistence.OpDeleteActor, Actor: ref}
		case 6:
			op = persistence.Op{Kind: persistence.OpList, Actor: ref}
		}
		b.Add(op)
	}
}

// dump answers all rows of the tables, and fails for one that no bucket leads to.
func dump(t *testing.T, s *Store) (rows []string) {
	t.Helper()
	session := s.bulk.session()
	read := func(columns, table string) *gocql.Iter {
		return session.Query("SELECT " + columns + " FROM " + s.cfg.Keyspace + "." + table).Iter()
	}
	var shard, number int
	var table int8
	var where, k, v []byte
	var ns string
	var part int16
	buckets := map[string]bool{}
	iter := read("shard, tbl, bucket", "buckets")
	for iter.Scan(&shard, &table, &where) {
		buckets[fmt.Sprintf("%d %d %x", shard, table, where)] = true
		where = nil
	}
	closed := func(iter *gocql.Iter) {
		if err := iter.Close(); err != nil {
			t.Fatal(err)
		}
	}
	closed(iter)
	iter = read("shard, actor, tbl, k, v", "actor_rows")
	for iter.Scan(&shard, &where, &table, &k, &v) {
		rows = append(rows, fmt.Sprintf("actor %d %q %d %x = %q", shard, where, table, k, v))
		where, k, v = nil, nil, nil
	}
	closed(iter)
	iter = read("shard, tbl, bucket, k, v", "shard_rows")
	for iter.Scan(&shard, &table, &where, &k, &v) {
		at := fmt.Sprintf("%d %d %x", shard, table, where)
		rows = append(rows, fmt.Sprintf("row %s %x = %q", at, k, v))
		if !buckets[at] {
			t.Errorf("keyspace %s: bucket %s has rows and is not in the table of buckets", s.cfg.Keyspace, at)
		}
		where, k, v = nil, nil, nil
	}
	closed(iter)
	iter = read("ns, bucket, k", "listing")
	for iter.Scan(&ns, &part, &k) {
		rows = append(rows, fmt.Sprintf("listing %s %d %q", ns, part, k))
		k = nil
	}
	closed(iter)
	iter = read("shard, seq", "shard_numbers")
	for iter.Scan(&shard, &number) {
		rows = append(rows, fmt.Sprintf("number %d = %d", shard, number))
	}
	closed(iter)
	slices.Sort(rows)
	return rows
}

func differences(got, want []string) string {
	var b strings.Builder
	for _, row := range got {
		if !slices.Contains(want, row) {
			fmt.Fprintln(&b, "too much:", row)
		}
	}
	for _, row := range want {
		if !slices.Contains(got, row) {
			fmt.Fprintln(&b, "missing: ", row)
		}
	}
	return b.String()
}
