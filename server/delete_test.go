package server_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
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

// TestNothingFiresInADeletedNamespace deletes a namespace with schedules,
// reminders and timers of many actors, and lets weeks pass: from the
// acknowledgement on nothing fires, also if the server crashes at that moment,
// also when the name and its module are there again.
func TestNothingFiresInADeletedNamespace(t *testing.T) {
	for name, after := range map[string]func(*nolatest.Server){
		"and goes on": func(*nolatest.Server) {},
		"and crashes": (*nolatest.Server).Crash,
	} {
		t.Run(name, func(t *testing.T) {
			b := bells{shop: new(atomic.Int64), bank: new(atomic.Int64)}
			s := nolatest.Start(t, nolatest.Options{VirtualTime: true, Runtime: b})
			const actors = 30
			fill := func(namespace string) {
				t.Helper()
				if _, err := s.Client.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: namespace})); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Node.Modules().Push(t.Context(), namespace, "keeper", []byte("code"), nola.Manifest{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, namespace := range []string{"shop", "bank"} {
				fill(namespace)
				for i := range actors {
					ref := &nolav1.ActorRef{Namespace: namespace, Type: "keeper", Id: string(rune('A' + i))}
					_, err := s.Client.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
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
						if _, err := s.Client.Actors.SetTimer(t.Context(), connect.NewRequest(req)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			s.Advance(2*time.Hour - time.Second)
			if got, want := b.shop.Load(), int64(3*actors); got != want {
				t.Fatalf("before the delete %d bells rang, want %d", got, want)
			}
			if _, err := s.Client.Namespaces.DeleteNamespace(t.Context(), connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "shop"})); err != nil {
				t.Fatal(err)
			}
			rang := b.shop.Load()
			after(s)
			s.Advance(time.Second) // the moment in which all of them would ring
			s.Advance(24 * time.Hour)
			eventually(t, "the namespace is gone", func() bool {
				_, err := s.Client.Namespaces.GetNamespace(t.Context(), connect.NewRequest(&nolav1.GetNamespaceRequest{Namespace: "shop"}))
				return reasonOf(err) == nola.ReasonNamespaceNotFound
			})
			fill("shop")
			s.Advance(24 * time.Hour)
			if got := b.shop.Load(); got != rang {
				t.Errorf("after the delete %d bells rang", got-rang)
			}
			if got, want := b.bank.Load(), int64(actors*(2*50+2)); got != want {
				t.Errorf("in the other namespace %d bells rang in 50 hours, want %d", got, want)
			}
			list, err := s.Client.Schedules.ListSchedules(t.Context(), connect.NewRequest(&nolav1.ListSchedulesRequest{Namespace: "shop"}))
			if err != nil || len(list.Msg.GetSchedules()) != 0 {
				t.Errorf("the new namespace has %d schedules, %v", len(list.Msg.GetSchedules()), err)
			}
			timers, err := s.Client.Actors.ListTimers(t.Context(), connect.NewRequest(&nolav1.ListTimersRequest{Actor: &nolav1.ActorRef{Namespace: "shop", Type: "keeper", Id: "A"}}))
			if err != nil || len(timers.Msg.GetTimers()) != 0 {
				t.Errorf("an actor of the new namespace has the timers %v, %v", timers, err)
			}
		})
	}
}
