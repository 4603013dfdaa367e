package server_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/shard"
)

// bells is a runtime whose guests count how often the operation ring ran, in
// each namespace.
type bells struct {
	guests
	shop, bank *atomic.Int64
}

func (b bells) Prepare(_ context.Context, _ []byte, m nola.Manifest) (nola.Module, error) {
	return &belfry{guest{m.WithDefaults()}, b}, nil
}

type belfry struct {
	guest
	bells bells
}

func (b *belfry) Instantiate(self nola.ActorRef) (nola.Instance, error) {
	rings := b.bells.bank
	if self.Namespace == "shop" {
		rings = b.bells.shop
	}
	return &bell{rings: rings}, nil
}

type bell struct {
	instance
	rings *atomic.Int64
}

func (b *bell) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	if t.Operation == "ring" {
		b.rings.Add(1)
		return nil, h.Put([]byte("rang"), nil)
	}
	return b.instance.Invoke(t, h)
}

// unswept is a store of which nobody can list the namespaces, nor the schedules of
// shop, as whoever removes what the namespace holds does first, until swept is
// closed. So nothing hides what the delete itself forgot.
type unswept struct {
	persistence.Store
	closed, swept chan struct{}
}

func (s unswept) CatalogList(ctx context.Context, space persistence.Space, prefix, after string, limit int) ([]persistence.CatalogEntry, error) {
	if space == persistence.SpaceNamespace || space == persistence.SpaceSchedule && strings.HasPrefix(prefix, "shop") {
		select {
		case <-s.closed:
			select {
			case <-s.swept:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		default:
		}
	}
	return s.Store.CatalogList(ctx, space, prefix, after, limit)
}

// TestNothingFiresInADeletedNamespace deletes a namespace with schedules,
// reminders and timers of many actors, and lets days pass: from the
// acknowledgement on nothing fires, although all that it holds is still there, also
// if the server crashes at that moment; and nothing when all that was removed, and
// the name and its module are there again.
func TestNothingFiresInADeletedNamespace(t *testing.T) {
	for name, after := range map[string]func(*world){
		"and goes on": func(*world) {},
		"and crashes": (*world).restart,
	} {
		t.Run(name, func(t *testing.T) {
			b := bells{shop: new(atomic.Int64), bank: new(atomic.Int64)}
			closed, swept := make(chan struct{}), make(chan struct{})
			w := &world{
				t: t, clock: shard.NewVirtualClock(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)), runtime: b,
				disk: memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 4, Secret: [32]byte{2}}),
				wrap: func(s persistence.Store) persistence.Store { return unswept{s, closed, swept} },
			}
			w.start()
			t.Cleanup(func() { w.stop() })
			const actors = 30
			fill := func(namespace string) {
				t.Helper()
				if _, err := w.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: namespace})); err != nil {
					t.Fatal(err)
				}
				if _, err := w.node.Modules().Push(t.Context(), namespace, "keeper", []byte("code"), nola.Manifest{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, namespace := range []string{"shop", "bank"} {
				fill(namespace)
				for i := range actors {
					ref := &nolav1.ActorRef{Namespace: namespace, Type: "keeper", Id: string(rune('A' + i))}
					_, err := w.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
						Namespace: namespace, ScheduleId: ref.GetId(), Target: &nolav1.ScheduleTarget{Actor: ref, Operation: "ring"},
						Spec: &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Hour)}}},
					}}))
					if err != nil {
						t.Fatal(err)
					}
					for _, req := range []*nolav1.SetTimerRequest{
						{Name: "soon", When: &nolav1.SetTimerRequest_Delay{Delay: durationpb.New(90 * time.Minute)}},
						{Name: "late", When: &nolav1.SetTimerRequest_Delay{Delay: durationpb.New(10 * time.Hour)}},
						{Name: "again", When: &nolav1.SetTimerRequest_Reminder{Reminder: &nolav1.Reminder{Period: &nolav1.Reminder_Every{Every: durationpb.New(time.Hour)}}}},
					} {
						req.Actor, req.Operation = ref, "ring"
						if _, err := w.Actors.SetTimer(t.Context(), connect.NewRequest(req)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			w.advance(2*time.Hour - time.Second)
			if got, want := b.shop.Load(), int64(3*actors); got != want {
				t.Fatalf("before the delete %d bells rang, want %d", got, want)
			}
			close(closed)
			if _, err := w.Namespaces.DeleteNamespace(t.Context(), connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "shop"})); err != nil {
				t.Fatal(err)
			}
			rang := b.shop.Load()
			after(w)
			w.advance(time.Second) // the moment in which all of them would ring
			w.advance(24 * time.Hour)
			if got := b.shop.Load(); got != rang {
				t.Errorf("after the delete %d bells rang", got-rang)
			}
			close(swept)
			eventually(t, "the namespace is gone", func() bool {
				_, err := w.Namespaces.GetNamespace(t.Context(), connect.NewRequest(&nolav1.GetNamespaceRequest{Namespace: "shop"}))
				return reasonOf(err) == nola.ReasonNamespaceNotFound
			})
			fill("shop")
			w.advance(24 * time.Hour)
			if got := b.shop.Load(); got != rang {
				t.Errorf("in the namespace made anew %d bells rang", got-rang)
			}
			if got, want := b.bank.Load(), int64(actors*(2*50+2)); got != want {
				t.Errorf("in the other namespace %d bells rang in 50 hours, want %d", got, want)
			}
			list, err := w.Schedules.ListSchedules(t.Context(), connect.NewRequest(&nolav1.ListSchedulesRequest{Namespace: "shop"}))
			if err != nil || len(list.Msg.GetSchedules()) != 0 {
				t.Errorf("the new namespace has %d schedules, %v", len(list.Msg.GetSchedules()), err)
			}
			timers, err := w.Actors.ListTimers(t.Context(), connect.NewRequest(&nolav1.ListTimersRequest{Actor: &nolav1.ActorRef{Namespace: "shop", Type: "keeper", Id: "A"}}))
			if err != nil || len(timers.Msg.GetTimers()) != 0 {
				t.Errorf("an actor of the new namespace has the timers %v, %v", timers, err)
			}
		})
	}
}

// advance moves virtual time on, and waits for what that brings about.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	if _, err := w.node.Advance(w.t.Context(), w.clock.Now().Add(d)); err != nil {
		w.t.Fatal(err)
	}
}

// tardy is a runtime whose guests wait before they put.
type tardy struct {
	guests
	began, end chan struct{}
}

func (s tardy) Prepare(_ context.Context, _ []byte, m nola.Manifest) (nola.Module, error) {
	return &tardyModule{guest{m.WithDefaults()}, s}, nil
}

type tardyModule struct {
	guest
	tardy tardy
}

func (m *tardyModule) Instantiate(nola.ActorRef) (nola.Instance, error) {
	return &tardyGuest{tardy: m.tardy}, nil
}

type tardyGuest struct {
	instance
	tardy tardy
}

func (i *tardyGuest) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	if t.Operation == "put" {
		close(i.tardy.began)
		<-i.tardy.end
	}
	return i.instance.Invoke(t, h)
}

// behind is a store that calls after once, before it answers which actors shop has.
type behind struct {
	persistence.Store
	after func()
}

func (b behind) ListActors(namespace, typ, prefix string, after nola.ActorRef, limit int) ([]nola.ActorRef, error) {
	list, err := b.Store.ListActors(namespace, typ, prefix, after, limit)
	if namespace == "shop" {
		b.after()
	}
	return list, err
}

// TestNothingOutlivesItsNamespace has a turn, begun before its namespace was deleted,
// make an actor behind the back of whoever removes the actors: that looks again.
func TestNothingOutlivesItsNamespace(t *testing.T) {
	began, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	w := &world{
		t: t, runtime: tardy{began: began, end: end},
		disk: memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 4, Secret: [32]byte{2}}),
	}
	after := sync.OnceFunc(func() {
		close(end)
		if err := <-done; err != nil {
			t.Errorf("the turn that had begun: %v", err)
		}
	})
	w.wrap = func(s persistence.Store) persistence.Store { return behind{s, after} }
	w.start()
	t.Cleanup(func() { w.stop() })
	if err := w.createNamespace("shop"); err != nil {
		t.Fatal(err)
	}
	w.push("shop", "keeper")
	go func() {
		_, err := w.Invoke(context.Background(), nola.ActorRef{Namespace: "shop", Type: "keeper", ID: "late"}, "put", []byte("v"))
		done <- err
	}()
	<-began
	if _, err := w.Namespaces.DeleteNamespace(t.Context(), connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "shop"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone", func() bool { return w.gone("shop") })
}
