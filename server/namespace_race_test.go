package server_test

import (
	"context"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// interrupted is a store that has something else happen just before the next
// entry of a space is written.
type interrupted struct {
	persistence.Store
	space persistence.Space
	mu    sync.Mutex // guards the field below
	first func()
}

func (s *interrupted) next(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = f
}

func (s *interrupted) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	if space == s.space {
		s.mu.Lock()
		first := s.first
		s.first = nil
		s.mu.Unlock()
		if first != nil {
			first()
		}
	}
	return s.Store.CatalogPut(ctx, space, key, version, value)
}

func (s *interrupted) CatalogReserve(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	return s.CatalogPut(ctx, space, key, version, value)
}

// TestNothingIsMadeInADeletedNamespace deletes a namespace, all the way, between
// a request's look at the namespace and its first write.
func TestNothingIsMadeInADeletedNamespace(t *testing.T) {
	for name, tt := range map[string]struct {
		space persistence.Space
		make  func(w *world) error
	}{
		"schedule": {persistence.SpaceSchedule, func(w *world) error {
			s := yearly("a", "one")
			s.Namespace, s.Target.Actor.Namespace = "shop", "shop"
			_, err := w.create(s, "")
			return err
		}},
		"calendar": {persistence.SpaceCalendar, func(w *world) error {
			_, err := w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Namespace: "shop", Name: "bank", Dates: dates("2026-12-24")}})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			store := &interrupted{space: tt.space}
			w.wrap = func(s persistence.Store) persistence.Store { store.Store = s; return store }
			w.restart()
			if err := w.createNamespace("shop"); err != nil {
				t.Fatal(err)
			}
			store.next(func() {
				if _, err := w.Namespaces.DeleteNamespace(context.Background(), connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "shop"})); err != nil {
					t.Error(err)
				}
				eventually(t, "the namespace is gone", func() bool { return w.gone("shop") })
			})
			w.want(nola.ReasonNamespaceNotFound, "made in a namespace that has gone", tt.make(w))
			catalog := persistence.Catalog{Store: w.store}
			entries, err := catalog.ScheduleEntries(t.Context(), "shop", "", "", 10)
			calendars, err2 := catalog.Calendars(t.Context(), "shop", "", 10)
			if err != nil || err2 != nil || len(entries)+len(calendars) != 0 {
				t.Errorf("there are the schedules %v and the calendars %v, errors %v, %v", entries, calendars, err, err2)
			}
			if err := w.createNamespace("shop"); err != nil {
				t.Fatal(err)
			}
			if err := tt.make(w); err != nil {
				t.Errorf("made in the namespace of that name which came next: %v", err)
			}
		})
	}
}
