package server_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/server"
)

// slow is a runtime that takes a second to prepare a module, and fails for as
// long as it has an error.
type slow struct {
	guests
	mu    sync.Mutex
	err   error
	tries int
}

func (s *slow) Prepare(ctx context.Context, code []byte, m nola.Manifest) (nola.Module, error) {
	<-time.After(time.Second) // of the bubble's clock
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.err != nil {
		return nil, s.err
	}
	return s.guests.Prepare(ctx, code, m)
}

// TestFailedLoadIsShared has many ask for a module that cannot be prepared.
func TestFailedLoadIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := memstore.New(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if _, err := server.NewModules(store, guests{}).Push(t.Context(), "default", "a", []byte("code"), nola.Manifest{}); err != nil {
			t.Fatal(err)
		}
		want := errors.New("no memory for the code")
		runtime := &slow{err: want}
		m := server.NewModules(store, runtime)
		ask := func(callers int, want error) {
			t.Helper()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					if _, _, err := m.Module("default", "a"); !errors.Is(err, want) {
						t.Errorf("error %v, want %v", err, want)
					}
				})
			}
			wg.Wait()
		}
		tried := func(n int, what string) {
			t.Helper()
			if runtime.tries != n {
				t.Errorf("%s: prepared %d times, want %d", what, runtime.tries, n)
			}
		}
		ask(20, want)
		tried(1, "20 callers at once")
		ask(20, want)
		tried(1, "20 more right behind them")
		<-time.After(199 * time.Millisecond)
		ask(1, want)
		tried(1, "within the backoff")
		<-time.After(time.Millisecond)
		ask(20, want)
		tried(2, "after the backoff")

		runtime.mu.Lock()
		runtime.err = nil
		runtime.mu.Unlock()
		if _, err := m.Push(t.Context(), "default", "a", []byte("code"), nola.Manifest{}); err != nil {
			t.Fatal(err)
		}
		ask(20, nil)
		tried(3, "pushed, within the backoff")
	})
}

// gated is a runtime that prepares the code "old" only once it is let.
type gated struct {
	guests
	began, let chan struct{}
}

func (g gated) Prepare(ctx context.Context, code []byte, m nola.Manifest) (nola.Module, error) {
	if string(code) == "old" {
		g.began <- struct{}{}
		<-g.let
	}
	return g.guests.Prepare(ctx, code, m)
}

// TestLoadDoesNotUndoAChange changes a module while its default version of before
// is being loaded: what was acknowledged stands.
func TestLoadDoesNotUndoAChange(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(m *server.Modules) error
		version uint64
		reason  nola.Reason
	}{
		"pushed": {func(m *server.Modules) error {
			_, err := m.Push(t.Context(), "default", "a", []byte("new"), nola.Manifest{})
			return err
		}, 2, ""},
		"deleted": {func(m *server.Modules) error { return m.Delete(t.Context(), "default", "a", true) }, 0, nola.ReasonModuleNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := memstore.New(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if _, err := server.NewModules(store, guests{}).Push(t.Context(), "default", "a", []byte("old"), nola.Manifest{}); err != nil {
				t.Fatal(err)
			}
			runtime := gated{began: make(chan struct{}), let: make(chan struct{})}
			m := server.NewModules(store, runtime)
			type answer struct {
				version uint64
				err     error
			}
			loaded := make(chan answer)
			go func() {
				_, version, err := m.Module("default", "a")
				loaded <- answer{version, err}
			}()
			<-runtime.began
			if err := tt.change(m); err != nil {
				t.Fatal(err)
			}
			close(runtime.let)
			first := <-loaded
			_, version, err := m.Module("default", "a")
			for _, got := range []answer{first, {version, err}} {
				if got.version != tt.version || reasonOf(got.err) != tt.reason {
					t.Errorf("version %d, error %v; want version %d and reason %q", got.version, got.err, tt.version, tt.reason)
				}
			}
		})
	}
}
