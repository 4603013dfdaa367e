package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

var errDead = errors.New("the disk is gone")

// dying is a store that loses its disk while schedules are created or deleted:
// so many writes still reach it, and the answer of the last of them may be lost.
type dying struct {
	persistence.Store
	mu       sync.Mutex // guards the fields below
	mortal   bool
	writes   int  // that still reach the disk
	lostLast bool // the answer of the last of them is lost
}

// kill lets writes more writes through.
func (d *dying) kill(writes int, lostLast bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mortal, d.writes, d.lostLast = true, writes, lostLast
}

func (d *dying) next() (reaches, answered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mortal {
		return true, true
	}
	if d.writes == 0 {
		return false, false
	}
	d.writes--
	return true, d.writes > 0 || !d.lostLast
}

func (d *dying) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	reaches, answered := d.next()
	if !reaches {
		return 0, errDead
	}
	version, err := d.Store.CatalogPut(ctx, space, key, version, value)
	if !answered {
		return 0, errDead
	}
	return version, err
}

func (d *dying) CatalogReserve(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	return d.CatalogPut(ctx, space, key, version, value)
}

func (d *dying) Commit(batches []*persistence.Batch) []error {
	reaches, answered := d.next()
	verdicts := make([]error, len(batches))
	if reaches {
		verdicts = d.Store.Commit(batches)
	}
	if !answered {
		for i := range verdicts {
			verdicts[i] = errDead
		}
	}
	return verdicts
}

func (d *dying) Resolve(ctx context.Context, batches []*persistence.Batch) []error {
	d.mu.Lock()
	dead := d.mortal && d.writes == 0
	d.mu.Unlock()
	if !dead {
		return d.Store.Resolve(ctx, batches)
	}
	verdicts := make([]error, len(batches))
	for i := range verdicts {
		verdicts[i] = errDead
	}
	return verdicts
}

// homes are the actors of the list in whose shard a schedule of that id stands,
// whatever the catalogue says.
func (w *world) homes(id string, actors ...string) (found []string) {
	w.t.Helper()
	reader := persistence.Reader{Store: w.store}
	for _, actor := range actors {
		ref := nola.ActorRef{Namespace: "default", Type: "keeper", ID: actor}
		_, ok, err := reader.Schedule(nola.ShardOf(ref, w.store.Cluster().Shards), ref, false, id)
		if err != nil {
			w.t.Fatal(err)
		}
		if ok {
			found = append(found, actor)
		}
	}
	return found
}

// agrees checks that get, list, the catalogue and the shards say the same of
// schedule a: that it aims at want, or that there is none if that is "".
func (w *world) agrees(want string, actors ...string) {
	w.t.Helper()
	got, err := w.schedule("a")
	list, homes := strings.Join(w.list(""), " "), strings.Join(w.homes("a", actors...), " ")
	if want == "" {
		w.want(nola.ReasonScheduleNotFound, "get", err)
		if list != "" || homes != "" {
			w.t.Errorf("there is no schedule, but the list has %q and the shards of %q have one", list, homes)
		}
		return
	}
	if err != nil || got.GetTarget().GetActor().GetId() != want || list != "a" || homes != want {
		w.t.Errorf("get answers %v, error %v, the list %q, and the shards of %q have it; want it in that of %q", got, err, list, homes, want)
	}
}

func TestCrashWhileScheduleIsCreated(t *testing.T) {
	for name, crash := range map[string]struct {
		writes   int
		lostLast bool
		stands   bool
	}{
		"before the reservation":      {writes: 0},
		"while reserving":             {writes: 1, lostLast: true},
		"between the two writes":      {writes: 1},
		"while the shard makes it":    {writes: 2, lostLast: true, stands: true},
		"after it, before the answer": {writes: 2, stands: true},
	} {
		for next, then := range map[string]func(w *world, stands bool) (home string){
			"nothing": func(_ *world, stands bool) string {
				if stands {
					return "one"
				}
				return ""
			},
			"the same request": func(w *world, _ bool) string {
				if _, err := w.create(yearly("a", "one"), "request 1"); err != nil {
					w.t.Errorf("the same request: %v", err)
				}
				return "one"
			},
			"another request": func(w *world, stands bool) string {
				_, err := w.create(yearly("a", "two"), "request 2")
				if stands {
					w.want(nola.ReasonAlreadyExists, "another request", err)
					return "one"
				}
				if err != nil {
					w.t.Errorf("another request for an id that nothing stands under: %v", err)
				}
				return "two"
			},
			"delete": func(w *world, stands bool) string {
				err := w.deleteSchedule("a", "")
				if stands && err != nil {
					w.t.Errorf("delete: %v", err)
				} else if !stands {
					w.want(nola.ReasonScheduleNotFound, "delete", err)
				}
				if _, version, err := (persistence.Catalog{Store: w.store}).ScheduleEntry(context.Background(), "default", "a"); err != nil || version != 0 {
					w.t.Errorf("the id is not free after the deletion: version %d, error %v", version, err)
				}
				return ""
			},
		} {
			t.Run(name+", then "+next, func(t *testing.T) {
				w := newWorld(t)
				var d *dying // of the present life: what still runs of an earlier one keeps its dead disk
				w.wrap = func(s persistence.Store) persistence.Store { d = &dying{Store: s}; return d }
				w.restart()
				d.kill(crash.writes, crash.lostLast)
				ctx, cancel := context.WithCancel(context.Background())
				made := make(chan error, 1)
				schedules := w.Schedules // the next life has its own
				go func() {
					_, err := schedules.CreateSchedule(ctx, connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: yearly("a", "one"), RequestId: "request 1"}))
					made <- err
				}()
				eventually(t, "the writes that the disk survives", func() bool {
					d.mu.Lock()
					defer d.mu.Unlock()
					return d.writes == 0
				})
				if crash.writes == 2 && !crash.lostLast {
					if err := <-made; err != nil {
						t.Errorf("both writes are done: %v", err)
					}
				}
				w.stop()
				cancel()
				w.start()

				home := then(w, crash.stands)
				w.agrees(home, "one", "two")
				w.restart()
				w.agrees(home, "one", "two")
			})
		}
	}
}

// holding is a store that tells what comes to it, and whose commits wait while
// it holds them.
type holding struct {
	persistence.Store
	saw chan string

	mu   sync.Mutex
	held chan struct{} // closed to let them go; nil if none is held
}

func (h *holding) CatalogGet(ctx context.Context, space persistence.Space, key string) ([]byte, uint64, error) {
	value, version, err := h.Store.CatalogGet(ctx, space, key)
	h.saw <- "read " + key
	return value, version, err
}

func (h *holding) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	version, err := h.Store.CatalogPut(ctx, space, key, version, value)
	h.saw <- "wrote " + key
	return version, err
}

func (h *holding) CatalogReserve(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	return h.CatalogPut(ctx, space, key, version, value)
}

func (h *holding) Commit(batches []*persistence.Batch) []error {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if held != nil {
		h.saw <- "commit"
		<-held
	}
	return h.Store.Commit(batches)
}

// see waits until the store has seen that.
func (h *holding) see(what string) {
	for what != <-h.saw {
	}
}

// TestAbandonedCreate has the caller of a create go away while its shard still
// makes the schedule: nobody may get its id in between.
func TestAbandonedCreate(t *testing.T) {
	w := newWorld(t)
	h := &holding{saw: make(chan string, 1024)}
	w.wrap = func(s persistence.Store) persistence.Store { h.Store = s; return h }
	w.restart()
	release := make(chan struct{})
	h.mu.Lock()
	h.held = release
	h.mu.Unlock()
	create := func(ctx context.Context, id, actor string) <-chan error {
		made := make(chan error, 1)
		go func() {
			_, err := w.Schedules.CreateSchedule(ctx, connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: yearly(id, actor)}))
			made <- err
		}()
		return made
	}

	leads := create(context.Background(), "leads", "one") // whose request makes the commit
	h.see("commit")
	ctx, cancel := context.WithCancel(context.Background())
	first := create(ctx, "a", "one")
	h.see("wrote default\x00a")
	h.see("read default") // the namespace once more; a create that is given up before frees the id
	cancel()
	if err := <-first; err == nil {
		t.Error("a create that was given up while its commit waited was answered")
	}
	second := create(context.Background(), "a", "two")
	h.see("read default\x00a") // and now it asks the shard
	close(release)
	if err := <-leads; err != nil {
		t.Error(err)
	}
	w.want(nola.ReasonAlreadyExists, "a create behind one that was given up", <-second)
	if err := w.deleteSchedule("leads", ""); err != nil {
		t.Error(err)
	}
	w.agrees("one", "one", "two")
}

// TestOneIDUnderLoad creates, deletes, reads and lists one id at once.
func TestOneIDUnderLoad(t *testing.T) {
	w := newWorld(t)
	const rounds = 30 // deletions that succeed, and reads of each reader
	actors := []string{"0", "1", "2", "3"}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, deleted := 0, 0
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return deleted >= rounds || t.Failed()
	}
	for _, actor := range actors {
		wg.Go(func() {
			for i := 0; !enough(); i++ {
				got, err := w.create(yearly("a", actor), fmt.Sprint(actor, "-", i))
				mu.Lock()
				switch {
				case err != nil && reasonOf(err) != nola.ReasonAlreadyExists:
					t.Errorf("create: %v", err)
				case err == nil && got.GetTarget().GetActor().GetId() != actor:
					t.Errorf("the create of %s was answered with %v", actor, got)
				case err == nil:
					made++
				}
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for !enough() {
				err := w.deleteSchedule("a", "")
				mu.Lock()
				if err == nil {
					deleted++
				} else if reasonOf(err) != nola.ReasonScheduleNotFound {
					t.Errorf("delete: %v", err)
				}
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for range rounds {
				if got, err := w.schedule("a"); err != nil && reasonOf(err) != nola.ReasonScheduleNotFound || err == nil && got.GetScheduleId() != "a" {
					t.Errorf("get: %v, error %v", got, err)
				}
				if list := w.list(""); len(list) > 1 {
					t.Errorf("the list has %q", list)
				}
			}
		})
	}
	wg.Wait()
	homes := w.homes("a", actors...)
	if made-deleted != len(homes) {
		t.Errorf("%d creates and %d deletes succeeded, and the schedule stands in the shards of %q", made, deleted, homes)
	}
	w.agrees(strings.Join(homes, " "), actors...)
}
