package pebblestore_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/persistence/pebblestore/powercut"
)

var (
	crashFull = flag.Bool("crash.full", os.Getenv("NOLA_SLOW") != "", "crash at every file operation, not at a sample of them; so does NOLA_SLOW=1")
	crashSeed = flag.Uint64("crash.seed", 1, "decides which unsynced blocks survive")
)

const (
	crashShards  = 2
	crashCommits = 40
	crashSample  = 11  // one in so many operations, unless all
	crashEntry   = "e" // of the catalogue, reserved ahead of every commit
)

// crashed is what the disk may hold after a crash, and what had been answered.
type crashed struct {
	op, percent int
	what        string
	fs          *vfs.MemFS
	answered    int // commits, which are numbered from 1
}

func (c crashed) String() string {
	return fmt.Sprintf("crash before file operation %d (%s), %d %% of what was not synced survives, %d commits answered, -crash.seed=%d", c.op, c.what, c.percent, c.answered, *crashSeed)
}

// crashRef is an actor that lives in that shard.
func crashRef(shard nola.ShardID) nola.ActorRef {
	ref := nola.ActorRef{Namespace: "n", Type: "t", ID: "x"}
	for nola.ShardOf(ref, crashShards) != shard {
		ref.ID += "x"
	}
	return ref
}

func crashOptions(fs vfs.FS) pebblestore.Options {
	// Small tables, so that flushes fall between the commits as well.
	return pebblestore.Options{FS: fs, Shards: crashShards, MemTableBytes: 64 << 10}
}

// TestCrash takes the power away before file operations of a small workload and
// looks at what a new process finds.
func TestCrash(t *testing.T) {
	cases, ops := crashRun(t)
	t.Logf("%d file operations, %d crashes", ops, len(cases))
	if ops < 100 {
		t.Errorf("the workload makes %d file operations, too few to show anything", ops)
	}
	for _, c := range cases {
		crashCheck(t, c)
		if t.Failed() {
			t.Fatal(c)
		}
	}
}

// openDraws is how often the survivors are drawn at one file operation: what is
// drawn depends on the order of a map, so that no seed repeats it.
const openDraws = 24

// TestCrashWhileOpening takes the power away before every file operation of the
// making of a store and of its second opening, where the engine begins files
// that it then names, with half of what was not synced left.
func TestCrashWhileOpening(t *testing.T) {
	var cases []crashed
	fs := powercut.NewDisk(func(cut powercut.Point) {
		for draw := range openDraws {
			c := crashed{op: cut.Op, percent: 50, what: cut.What}
			c.fs = cut.Survivors(c.percent, *crashSeed+uint64(draw))
			cases = append(cases, c)
		}
	})
	for range 2 {
		store := must(pebblestore.Open("/parent/data", crashOptions(fs)))(t)
		ok(t, store.Close())
	}
	for _, c := range cases {
		store, err := pebblestore.Open("/parent/data", crashOptions(c.fs))
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		ok(t, store.Close())
	}
}

// crashRun runs the workload once and copies the disk before its operations.
func crashRun(t *testing.T) (cases []crashed, ops int) {
	var answered atomic.Int64
	every := crashSample
	if *crashFull {
		every = 1
	}
	fs := powercut.NewDisk(func(cut powercut.Point) {
		if ops = cut.Op; ops%every != 0 {
			return
		}
		for _, percent := range []int{0, 50, 100} {
			c := crashed{op: ops, percent: percent, what: cut.What, answered: int(answered.Load())}
			c.fs = cut.Survivors(percent, *crashSeed)
			cases = append(cases, c)
		}
	})

	store := must(pebblestore.Open("/parent/data", crashOptions(fs)))(t)
	heads := must(store.Acquire(t.Context(), []nola.ShardID{0, 1}))(t)
	version := uint64(0)
	for n := 1; n <= crashCommits; n++ {
		entry := persistence.ScheduleEntry{Namespace: "n", ID: crashEntry, Incarnation: uint64(n)}
		version = must(persistence.Catalog{Store: store}.ReserveScheduleEntry(t.Context(), version, entry))(t)
		var batches []*persistence.Batch
		for _, head := range heads {
			b := new(persistence.Batch)
			b.Reset(head.Shard, head.Epoch, nola.Seq(n))
			crashWrite(b, n)
			batches = append(batches, b)
		}
		for _, err := range store.Commit(batches) {
			ok(t, err)
		}
		answered.Store(int64(n))
	}
	ok(t, store.Close())
	return cases, ops
}

// crashWrite is what commit n does: it replaces what the one before wrote, in
// rows of several tables.
func crashWrite(b *persistence.Batch, n int) {
	ref := crashRef(b.Shard)
	value := bytes.Repeat([]byte{byte(n)}, 4<<10)
	b.PutMeta(ref, persistence.Meta{Incarnation: uint64(n)})
	b.ListActor(ref)
	b.PutState(ref, "last", value)
	b.PutState(ref, fmt.Sprintf("all/%03d", n), value)
	b.PutBacklog(ref, persistence.BacklogRow{Number: uint64(n), Invocation: &nola.Invocation{}})
	if n > 3 {
		b.DeleteBacklog(ref, uint64(n-3))
	}
	if n%10 == 0 {
		b.Add(persistence.Op{Kind: persistence.OpDeleteRange, Table: persistence.TableState, Actor: ref, Key: []byte("all/"), Value: fmt.Appendf(nil, "all/%03d", n)})
	}
}

func crashCheck(t *testing.T, c crashed) {
	store, err := pebblestore.Open("/parent/data", crashOptions(c.fs))
	if err != nil {
		t.Errorf("open: %v", err)
		return
	}
	defer func() { ok(t, store.Close()) }()
	report := must(store.Check(context.Background()))(t)
	if report.Count > 0 {
		t.Errorf("check: %+v", report.Findings)
	}
	heads := must(store.Acquire(t.Context(), []nola.ShardID{0, 1}))(t)
	if heads[0].Seq != heads[1].Seq {
		t.Errorf("one write of both shards survived in part: %+v", heads)
	}
	reserved, _, err := persistence.Catalog{Store: store}.ScheduleEntry(t.Context(), "n", crashEntry)
	ok(t, err)
	r := persistence.Reader{Store: store}
	for _, head := range heads {
		n := int(head.Seq)
		if have := int(reserved.Incarnation); have != n && have != n+1 {
			t.Errorf("shard %d has %d commits, what was reserved last is %d", head.Shard, n, have)
		}
		if n < c.answered || n > c.answered+1 {
			t.Errorf("shard %d has %d commits", head.Shard, n)
		}
		ref := crashRef(head.Shard)
		meta, exists := crashRead(t, func() (persistence.Meta, bool, error) { return r.Meta(head.Shard, ref) })
		last, _ := crashRead(t, func() ([]byte, bool, error) { return r.State(head.Shard, ref, "last") })
		if exists != (n > 0) || meta.Incarnation != uint64(n) || n > 0 && !bytes.Equal(last, bytes.Repeat([]byte{byte(n)}, 4<<10)) {
			t.Errorf("shard %d after commit %d: exists %v, %+v, %d bytes", head.Shard, n, exists, meta, len(last))
		}
		var got, want []string
		ok(t, r.ScanState(head.Shard, ref, []byte("all/"), []byte("all0"), false, func(key, _ []byte) bool {
			got = append(got, string(key))
			return true
		}))
		for i := max(1, n/10*10); i <= n; i++ {
			want = append(want, fmt.Sprintf("all/%03d", i))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("shard %d after commit %d has %v, want %v", head.Shard, n, got, want)
		}
		backlog := must(r.Backlog(head.Shard, ref, 0, 100, 1<<20))(t)
		if len(backlog) != min(n, 3) {
			t.Errorf("shard %d after commit %d has %d in the backlog", head.Shard, n, len(backlog))
		}
		b := new(persistence.Batch)
		b.Reset(head.Shard, head.Epoch, head.Seq+1)
		crashWrite(b, n+1)
		ok(t, store.Commit([]*persistence.Batch{b})[0])
	}
}

func crashRead[T any](t *testing.T, read func() (T, bool, error)) (T, bool) {
	t.Helper()
	v, found, err := read()
	ok(t, err)
	return v, found
}
