package shard_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// crowded is a module of which so many instances fit on the node.
type crowded struct {
	*module
	mu   sync.Mutex // one instance is made at a time
	most int64
}

func (c *crowded) Instantiate(self nola.ActorRef) (nola.Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live.Load() >= c.most {
		return nil, nola.LimitError(nola.ReasonNodeOverloaded, "instances_bytes", c.most, "full")
	}
	return c.module.Instantiate(self)
}

// touch has callers call actors 0 to n, each once, and demands an answer of each.
func (w *world) touch(callers, n int) {
	w.t.Helper()
	ids := make(chan int, n)
	for id := range n {
		ids <- id
	}
	close(ids)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for id := range ids {
				if got, err := w.invoke(fmt.Sprint(id), "inc", ""); got != "1" || err != nil {
					w.t.Errorf("actor %d answers %q, %v", id, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestActorsWaitForRoom calls ten times as many actors as fit on the node: each
// waits until an idle one has left, and none is refused.
func TestActorsWaitForRoom(t *testing.T) {
	w := newWorld(t, 4)
	w.current = &crowded{module: w.code, most: 50}
	w.touch(8, 500)
	if got := w.must("0", "get", "n"); got != "1" {
		t.Errorf("the first actor, which had to leave, remembers %q", got)
	}
}

// TestFirstCallHoldsOneInstance has room for one instance: the first actor of a
// module without STARTUP, of which that is not known yet, must not need two.
func TestFirstCallHoldsOneInstance(t *testing.T) {
	w := newWorld(t, 4)
	w.current = &crowded{module: w.code, most: 1}
	if got := w.must("a", "inc", ""); got != "1" {
		t.Errorf("it answers %q", got)
	}
}

// fullNotebook is a notebook on a node for so many instances of all its versions.
type fullNotebook struct {
	*notebook
	room *sync.Mutex
	live func() int64
	most int64
}

func (f *fullNotebook) Instantiate(self nola.ActorRef) (nola.Instance, error) {
	f.room.Lock()
	defer f.room.Unlock()
	if f.live() >= f.most {
		return nil, nola.LimitError(nola.ReasonNodeOverloaded, "instances_bytes", f.most, "full")
	}
	return f.notebook.Instantiate(self)
}

// TestUpgradeHoldsOneInstance has actors that keep their memory move to another
// version on a node with room for one instance, and for fewer than there are
// actors: the turn needs the old version and the new one, but never both at once.
func TestUpgradeHoldsOneInstance(t *testing.T) {
	for _, most := range []int64{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			old, next := newNotebook(1), newNotebook(2)
			old.exports, next.upgrades = true, true
			var room sync.Mutex
			live := func() int64 { return old.live.Load() + next.live.Load() }
			w := newWorld(t, 4, func(w *world) { w.versions = []nola.Module{&fullNotebook{old, &room, live, most}} })
			const actors = 8
			for n := range actors {
				w.must(fmt.Sprint(n), "write", fmt.Sprint("1=", n))
			}
			w.versions = append(w.versions, &fullNotebook{next, &room, live, most})
			var wg sync.WaitGroup
			for n := range actors {
				wg.Go(func() {
					want := fmt.Sprint("1=was:1=", n)
					if got, err := w.invoke(fmt.Sprint(n), "read", ""); got != want || err != nil {
						t.Errorf("actor %d answers %q, %v; want %q", n, got, err, want)
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestNoRoomIsSaidInTime has actors that are busy hold all the memory there is.
func TestNoRoomIsSaidInTime(t *testing.T) {
	w := newWorld(t, 4)
	w.current = &crowded{module: w.code, most: 2}
	var wg sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		wg.Go(func() { w.must(id, "gated", "") })
	}
	eventually(t, "both run", func() bool { return w.code.turns.Load() >= 2 && w.code.live.Load() == 2 })
	began := time.Now()
	_, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref("c"), Operation: "inc", Deadline: began.Add(50 * time.Millisecond)})
	if reason(err) != nola.ReasonNodeOverloaded {
		t.Errorf("a third actor: %v", err)
	}
	close(w.code.gate("firing"))
	wg.Wait()
	if got := w.must("c", "inc", ""); got != "1" {
		t.Errorf("once there is room the third actor answers %s", got)
	}
}

// TestIdleActorsLeaveForTheBudget calls more actors than the budget allows, and
// demands that about as many stay as it does allow.
func TestIdleActorsLeaveForTheBudget(t *testing.T) {
	const most = 64 // of 64 KiB each
	for _, shards := range []int{1, 16} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			w := newWorld(t, shards, func(w *world) { w.cfg.InstanceBytesMax = most << 16 })
			w.touch(4, 1000)
			stay := func() int64 { return w.code.live.Load() }
			eventually(t, "those over the budget have left", func() bool { return stay() <= most })
			if n := stay(); n < most/2 {
				t.Errorf("%d actors are in memory, the budget allows %d", n, most)
			}
		})
	}
}
