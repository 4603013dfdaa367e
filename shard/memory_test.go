package shard_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
	"github.com/nolaproject/nola/shard/core"
)

// notebook is a module in memory mode. Its instances have a memory of pages with
// text, and know "write" (page=text ...), "read", and some more.
type notebook struct {
	*module
	image                      byte
	startup, exports, upgrades bool
	ended                      atomic.Int64 // SHUTDOWN operations
	restored                   atomic.Int64
	waits                      atomic.Int64 // turns that wait
}

func newNotebook(image byte) *notebook {
	n := &notebook{module: newModule(), image: image}
	n.manifest = nola.Manifest{Mode: nola.ModeMemory, ReadonlyOperations: []string{"scribble", "read"}}.WithDefaults()
	return n
}

func (n *notebook) Instantiate(nola.ActorRef) (nola.Instance, error) {
	in, err := n.module.Instantiate(nola.ActorRef{})
	return &leaves{n: n, instance: in.(*instance), pages: make(map[uint32]string)}, err
}

type leaves struct {
	*instance
	n     *notebook
	pages map[uint32]string
}

func (l *leaves) Image() [32]byte { return [32]byte{l.n.image} }

func (l *leaves) Restore(m *nola.Memory) error {
	if m.Image != l.Image() {
		panic("the memory of another image")
	}
	l.n.restored.Add(1)
	for n, d := range m.Pages {
		l.pages[n] = string(d)
	}
	return nil
}

func (l *leaves) Keep(before *nola.Memory) *nola.MemoryChange {
	c := &nola.MemoryChange{MemoryHead: nola.MemoryHead{Image: l.Image(), Bytes: 1 << 16}}
	had := make(map[uint32]string)
	if before != nil {
		for n, d := range before.Pages {
			had[n] = string(d)
		}
	}
	for n := range maps.Keys(had) {
		if _, ok := l.pages[n]; !ok {
			c.Pages = append(c.Pages, nola.MemoryPage{Number: n})
		}
	}
	for n, text := range l.pages {
		if had[n] != text {
			c.Pages = append(c.Pages, nola.MemoryPage{Number: n, Difference: []byte(text)})
		}
	}
	if len(c.Pages) == 0 {
		return nil
	}
	slices.SortFunc(c.Pages, func(x, y nola.MemoryPage) int { return int(x.Number) - int(y.Number) })
	return c
}

func (l *leaves) text() string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(l.pages)) {
		fmt.Fprintf(&b, "%d=%.20s ", n, l.pages[n])
	}
	return strings.TrimSpace(b.String())
}

func (l *leaves) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	if l.closed {
		panic("used after close")
	}
	payload := string(t.Payload)
	write := func() error {
		for _, f := range strings.Fields(payload) {
			page, text, _ := strings.Cut(f, "=")
			n, err := strconv.Atoi(page)
			if err != nil {
				return nola.Errorf(nola.ReasonGuestError, "%v", err)
			}
			if text == "" {
				delete(l.pages, uint32(n))
			} else {
				l.pages[uint32(n)] = text
			}
		}
		return nil
	}
	switch t.Operation {
	case "write", "scribble":
		if err := write(); err != nil {
			return nil, err
		}
		return []byte(l.text()), nil
	case "writefail":
		_ = write()
		return nil, nola.Errorf(nola.ReasonGuestError, "as asked")
	case "writeput": // keeps the same in memory and in the state
		if err := write(); err != nil {
			return nil, err
		}
		return []byte(l.text()), h.Put([]byte("text"), []byte(l.text()))
	case "count": // counts in memory
		n, _ := strconv.Atoi(l.pages[0])
		l.pages[0] = strconv.Itoa(n + 1)
		return []byte(l.pages[0]), nil
	case "writewait":
		if err := write(); err != nil {
			return nil, err
		}
		l.n.waits.Add(1)
		<-l.n.gate("firing")
		return nil, nil
	case "large": // n pages of 4 KiB
		n, _ := strconv.Atoi(payload)
		for i := range n {
			l.pages[uint32(i)] = strings.Repeat("x", nola.MemoryPageBytes)
		}
		return nil, nil
	case "read":
		return []byte(l.text()), nil
	case nola.OperationStartup:
		if l.n.startup {
			l.pages[9] += "begun"
			return nil, nil
		}
	case nola.OperationShutdown:
		l.n.ended.Add(1)
		return nil, nil
	case nola.OperationExport:
		if l.n.exports {
			return []byte(l.text()), nil
		}
	case nola.OperationUpgrade:
		if l.n.upgrades {
			l.pages[1] = "was:" + payload
			return nil, h.Put([]byte("was"), t.Payload)
		}
	default:
		return l.instance.Invoke(t, h)
	}
	return nil, nola.Errorf(nola.ReasonOperationNotFound, "no operation %s", t.Operation)
}

func notebookWorld(t *testing.T, change ...func(*world)) (*world, *notebook) {
	n := newNotebook(1)
	w := newWorld(t, 2, append(change, func(w *world) { w.versions = []nola.Module{n} })...)
	return w, n
}

// TestMemoryIsKept takes an actor that writes nothing but its memory through all
// that ends an activation.
func TestMemoryIsKept(t *testing.T) {
	w, n := notebookWorld(t)
	w.must("a", "write", "1=one")
	w.must("a", "write", "2=two 1=uno")
	const want = "1=uno 2=two"
	if _, err := w.m.PassivateActor(context.Background(), ref("a")); err != nil {
		t.Fatal(err)
	}
	if got := w.must("a", "read", ""); got != want {
		t.Errorf("after passivation: %q, want %q", got, want)
	}
	w.crash()
	if got := w.must("a", "read", ""); got != want {
		t.Errorf("after a crash: %q, want %q", got, want)
	}
	if _, err := w.invoke("a", "writefail", "1=bad 3=bad"); reason(err) != nola.ReasonGuestError {
		t.Errorf("a turn that fails: %v", err)
	}
	if got := w.must("a", "read", ""); got != want {
		t.Errorf("after a turn that failed: %q, want %q", got, want)
	}
	if got := w.must("a", "scribble", "1=bad"); got != "1=bad 2=two" {
		t.Errorf("an operation that must not write sees %q", got)
	}
	if got := w.must("a", "read", ""); got != want {
		t.Errorf("after an operation that must not write: %q, want %q", got, want)
	}
	if got := w.must("b", "read", ""); got != "" {
		t.Errorf("another actor reads %q", got)
	}
	if err := w.m.DeleteActor(context.Background(), ref("a")); err != nil {
		t.Fatal(err)
	}
	if got := w.must("a", "read", ""); got != "" {
		t.Errorf("after it was deleted: %q", got)
	}
	w.crash()
	if got := w.must("a", "read", ""); got != "" {
		t.Errorf("after it was deleted, and a crash: %q", got)
	}
	if n.ended.Load() != 0 {
		t.Error("SHUTDOWN was run in memory mode")
	}
}

// TestMemoryIsReadOnce demands that a turn on an instance that is there needs no
// restored one, and that a turn that changes nothing commits nothing.
func TestMemoryIsReadOnce(t *testing.T) {
	commits := atomic.Int64{}
	w, n := notebookWorld(t, func(w *world) {
		w.cfg.Events.Commit = func(int, int, time.Duration) { commits.Add(1) }
	})
	w.must("a", "write", "1=one")
	before := commits.Load()
	for range 10 {
		w.must("a", "read", "")
		w.must("a", "write", "1=one")
	}
	if got := commits.Load() - before; got != 0 {
		t.Errorf("turns that change nothing made %d commits", got)
	}
	if got := n.restored.Load(); got != 0 {
		t.Errorf("%d instances were restored", got)
	}
}

// TestMemoryOfDroppedTurn has the core drop a turn that went well: its schedule
// was deleted while it ran.
func TestMemoryOfDroppedTurn(t *testing.T) {
	w, n := notebookWorld(t)
	w.must("a", "write", "1=one")
	if _, err := w.m.CreateSchedule(context.Background(), nola.Schedule{
		Namespace: "default", ID: "s", Target: ref("a"), Operation: "writewait", Incarnation: 1,
		Spec: nola.Spec{Interval: []nola.Interval{{Every: time.Hour}}},
	}, "r"); err != nil {
		t.Fatal(err)
	}
	gate := n.gate("firing")
	if _, err := w.m.TriggerSchedule(context.Background(), nola.ScheduleRef{Target: ref("a"), ID: "s"}, "now", 0, []byte("1=bad")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the firing runs", func() bool { return n.waits.Load() > 0 })
	if err := w.m.DeleteSchedule(context.Background(), nola.ScheduleRef{Target: ref("a"), ID: "s"}, 0); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if got := w.must("a", "read", ""); got != "1=one" {
		t.Errorf("after a turn that was dropped: %q", got)
	}
}

// TestMemoryGoesToRows lets a memory grow beyond what one row takes and shrink
// again, with crashes in between.
func TestMemoryGoesToRows(t *testing.T) {
	w, n := notebookWorld(t)
	n.manifest.Limits.MemoryInline = 1000
	rows := func() (rows int) {
		t.Helper()
		shardOf := nola.ShardOf(ref("a"), 2)
		if err := w.store.Scan(persistence.Range{Table: persistence.TableMemory, Shard: shardOf, Actor: ref("a")}, func(_, _ []byte) bool { rows++; return true }); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	long := strings.Repeat("x", 400)
	check := func(what string, wantRows int) {
		t.Helper()
		before := w.must("a", "read", "")
		if got := rows(); got != wantRows {
			t.Errorf("%s: %d rows, want %d", what, got, wantRows)
		}
		w.crash()
		if got := w.must("a", "read", ""); got != before || got == "" {
			t.Errorf("%s, after a crash: %q, want %q", what, got, before)
		}
	}
	w.must("a", "write", "1="+long+" 2="+long)
	check("inline", 1)
	w.must("a", "write", "3="+long)
	check("in rows", 4)
	w.must("a", "write", "2= 4=four")
	check("a page less, one more", 4)
	w.must("a", "write", "3=y")
	check("half as much", 1)
	w.must("a", "write", "3="+long+" 5="+long)
	check("in rows again", 5)
	if err := w.m.DeleteActor(context.Background(), ref("a")); err != nil {
		t.Fatal(err)
	}
	if got := rows(); got != 0 {
		t.Errorf("%d rows are left of a deleted actor", got)
	}
}

// TestMemoryIsLimited has a turn change more memory than a turn may write.
func TestMemoryIsLimited(t *testing.T) {
	w, _ := notebookWorld(t)
	w.must("a", "write", "1=one")
	pages := nola.TurnBytesMax / nola.MemoryPageBytes
	if _, err := w.invoke("a", "large", strconv.Itoa(pages)); reason(err) != nola.ReasonLimitExceeded || !strings.Contains(err.Error(), "of its actor's memory") {
		t.Errorf("a turn that changes %d pages: %v", pages, err)
	}
	if got := w.must("a", "read", ""); got != "1=one" {
		t.Errorf("afterwards: %.100q", got)
	}
	w.must("a", "large", strconv.Itoa(pages-10))
	w.crash()
	if got := w.must("a", "read", ""); len(strings.Fields(got)) != pages-10 {
		t.Errorf("%d pages came back, want %d", len(strings.Fields(got)), pages-10)
	}
}

// TestMemoryUpgrade moves an actor that keeps its memory to other versions of its
// module.
func TestMemoryUpgrade(t *testing.T) {
	same, other := newNotebook(1), newNotebook(2)
	kv := newNotebook(3)
	kv.manifest.Mode = nola.ModeKV
	w, first := notebookWorld(t)
	push := func(m nola.Module) { w.versions = append(w.versions, m) }
	w.must("a", "write", "1=one")

	push(same) // with the same image: another manifest, for example
	if got := w.must("a", "read", ""); got != "1=one" {
		t.Errorf("under a version with the same image: %q", got)
	}
	push(other)
	refused := func(why string) {
		t.Helper()
		if _, err := w.invoke("a", "write", "5=five"); reason(err) != nola.ReasonUpgradeRefused || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v, want UPGRADE_REFUSED because of %s", err, why)
		}
	}
	refused("no operation EXPORT")
	first.exports, same.exports = true, true
	refused("no operation UPGRADE")
	w.crash()
	refused("no operation UPGRADE")
	w.versions = w.versions[:2]
	if got := w.must("a", "read", ""); got != "1=one" {
		t.Errorf("back under the old version: %q", got)
	}
	push(other)
	other.upgrades = true
	if _, err := w.invoke("a", "writefail", "1=bad"); reason(err) != nola.ReasonGuestError {
		t.Errorf("the first turn under the new version fails: %v", err)
	}
	const upgraded = "1=was:1=one"
	if got := w.must("a", "read", ""); got != upgraded { // and a readonly turn keeps it
		t.Errorf("under the new version: %q, want %q", got, upgraded)
	}
	w.crash()
	w.versions[0], w.versions[1] = nil, nil // the old ones are needed no more
	if got := w.must("a", "read", ""); got != upgraded {
		t.Errorf("under the new version, after a crash: %q, want %q", got, upgraded)
	}
	if got := w.must("a", "get", "was"); got != "1=one" {
		t.Errorf("what UPGRADE wrote: %q", got)
	}
	push(newNotebook(4))
	w.versions[2] = nil
	refused("cannot be run")
	other.image = 7
	w.versions[2] = other
	refused("begins with another memory")
	other.image, other.exports = 2, true

	kv.upgrades = true
	w.versions = w.versions[:3]
	push(kv)
	if got := w.must("a", "get", "was"); got != upgraded {
		t.Errorf("in mode kv: %q", got)
	}
	w.crash()
	w.versions[2] = nil
	if got := w.must("a", "read", ""); got != "" {
		t.Errorf("in mode kv, after a crash: %q", got)
	}
	push(newNotebook(8))
	if got := w.must("a", "read", ""); got != "" {
		t.Errorf("in memory mode again: %q", got)
	}
}

// TestMemoryStartup runs STARTUP when an actor begins, and not when it wakes.
func TestMemoryStartup(t *testing.T) {
	w, n := notebookWorld(t)
	n.startup = true
	for _, want := range []string{"9=begun", "9=begun"} {
		if got := w.must("a", "read", ""); got != want { // the first is readonly
			t.Errorf("got %q, want %q", got, want)
		}
		w.crash()
	}
	if err := w.m.CreateActor(context.Background(), ref("b"), nil); err != nil {
		t.Fatal(err)
	}
	w.crash()
	if got := w.must("b", "write", "1=x"); got != "1=x 9=begun" {
		t.Errorf("got %q", got)
	}
}

// TestMemoryOfCastsTimersAndDeferred keeps what turns without a caller change.
func TestMemoryOfCastsTimersAndDeferred(t *testing.T) {
	w, _ := notebookWorld(t, func(w *world) { w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond} })
	for range 5 {
		if _, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "count"}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	w.must("a", "timer", "t|count|1")
	eventually(t, "casts and the timer have run", func() bool { return w.must("a", "read", "") == "0=6" })
	w.crash()
	if got := w.must("a", "count", ""); got != "7" {
		t.Errorf("the next one counts %s, want 7", got)
	}
}

// TestCrashFaultAtEveryCommitInMemoryMode loses the shard to another owner, or a
// commit, at each commit of a workload in memory alone, in one row and in many.
func TestCrashFaultAtEveryCommitInMemoryMode(t *testing.T) {
	atEveryCommit(t, 2, func(t *testing.T, fault faultstore.Fault, shards, n int) (batches int) {
		w := newFaultWorld(t, fault, shards, n, &batches)
		book := newNotebook(1)
		book.manifest.Limits.MemoryInline = 60
		w.versions = []nola.Module{book}
		seq := uint64(0)
		do := func(op, payload string) string {
			seq++
			key := nola.Key{Session: nola.SessionID{1}, Seq: seq, AckedBelow: seq, FirstAttempt: time.Now()}
			for {
				r, err := w.keyed("a", op, payload, key)
				switch reason(err) {
				case "":
					return string(r.Payload)
				case nola.ReasonShardMoving, nola.ReasonOutcomeUnknown, nola.ReasonUnavailable:
				default:
					t.Errorf("%s at batch %d: %s %s: %v", fault, n, op, payload, err)
					return ""
				}
			}
		}
		const rounds = 6
		want := ""
		for i := range rounds {
			if got := do("count", ""); got != strconv.Itoa(i+1) {
				t.Errorf("%s at batch %d: count %d answered %s", fault, n, i+1, got)
			}
			want = do("writeput", fmt.Sprintf("%d=%s", i+1, strings.Repeat("x", 10+i)))
		}
		w.crash()
		for _, q := range []struct{ op, payload string }{{"read", ""}, {"get", "text"}} {
			eventually(t, fmt.Sprintf("%s at batch %d: %s answers %q", fault, n, q.op, want), func() bool {
				got, err := w.invoke("a", q.op, q.payload)
				return err == nil && got == want
			})
		}
		w.close()
		return batches
	})
}
