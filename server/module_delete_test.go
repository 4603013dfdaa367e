package server_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/server"
)

// mortal is a store whose writes of modules fail once its budget is spent.
type mortal struct {
	persistence.Store
	writes int // that still reach the disk
}

func (m *mortal) spend() error {
	if m.writes == 0 {
		return errDead
	}
	m.writes--
	return nil
}

func (m *mortal) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	if err := m.spend(); err != nil {
		return 0, err
	}
	return m.Store.CatalogPut(ctx, space, key, version, value)
}

func (m *mortal) DeleteObject(ctx context.Context, digest [32]byte) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.Store.DeleteObject(ctx, digest)
}

// TestDeletedModulesLeaveNoBytes cuts the deletion of a module at each of its
// writes, starts again, and deletes it again.
func TestDeletedModulesLeaveNoBytes(t *testing.T) {
	const own = 150 // versions, more than are read at once
	code := func(i int) []byte { return fmt.Appendf(nil, "code %d", i) }
	for cut := 0; ; cut += 37 {
		disk := memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 1})
		open := func() persistence.Store {
			t.Helper()
			store, err := disk.Open()
			if err != nil {
				t.Fatal(err)
			}
			return store
		}
		push := func(m *server.Modules, namespace, name string, code []byte) {
			t.Helper()
			if _, err := m.Push(t.Context(), namespace, name, code, nola.Manifest{}); err != nil {
				t.Fatal(err)
			}
		}
		has := func(store persistence.Store, i int) bool {
			t.Helper()
			_, err := store.GetObject(t.Context(), sha256.Sum256(code(i)))
			if err != nil && !errors.Is(err, persistence.ErrNotFound) {
				t.Fatal(err)
			}
			return err == nil
		}
		store := open()
		m := server.NewModules(store, guests{})
		for i := range own {
			push(m, "default", "a", code(i))
		}
		push(m, "default", "a", code(0)) // twice in one module
		push(m, "default", "b", code(1))
		push(m, "other", "a", code(2))
		_ = store.Close()

		store = open()
		m = server.NewModules(&mortal{Store: store, writes: cut}, guests{})
		failed := m.Delete(t.Context(), "default", "a", true)
		if failed != nil && !strings.Contains(failed.Error(), errDead.Error()) {
			t.Fatal(failed)
		}
		_ = store.Close()

		store = open()
		m = server.NewModules(store, guests{})
		if failed != nil {
			if _, _, err := m.Module("default", "a"); cut > 0 && reasonOf(err) != nola.ReasonModuleNotFound {
				t.Errorf("cut after %d writes: the module runs, or answers %v", cut, err)
			}
			if err := m.Delete(t.Context(), "default", "a", true); err != nil {
				t.Errorf("cut after %d writes: deleting again: %v", cut, err)
			}
		}
		for i := range own {
			if shared := i == 1 || i == 2; has(store, i) != shared {
				t.Errorf("cut after %d writes: the bytes of version %d are there: %t, want %t", cut, i+1, !shared, shared)
			}
		}
		for namespace, name := range map[string]string{"default": "b", "other": "a"} {
			if _, _, err := m.Module(namespace, name); err != nil {
				t.Errorf("cut after %d writes: module %s/%s: %v", cut, namespace, name, err)
			}
		}
		if err := m.Delete(t.Context(), "default", "b", true); err != nil || has(store, 1) || !has(store, 2) {
			t.Errorf("the second of two that share bytes: error %v; the bytes are there: %t, those of another: %t", err, has(store, 1), has(store, 2))
		}
		push(m, "default", "a", code(1))
		if _, _, err := m.Module("default", "a"); err != nil || !has(store, 1) {
			t.Errorf("pushed again: error %v", err)
		}
		_ = store.Close()
		if failed == nil {
			return
		}
	}
}

// keeper is a runtime that keeps something of modules beyond the process.
type keeper struct {
	guests
	forgotten map[[32]byte]int
}

func (k *keeper) Forget(digest [32]byte) error {
	k.forgotten[digest]++
	return nil
}

// TestDeletedModulesAreForgotten deletes two modules of the same bytes: the
// runtime is to forget them with the second.
func TestDeletedModulesAreForgotten(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	runtime := &keeper{forgotten: make(map[[32]byte]int)}
	m := server.NewModules(store, runtime)
	digest := sha256.Sum256([]byte("code"))
	for _, name := range []string{"a", "b"} {
		if _, err := m.Push(t.Context(), "default", name, []byte("code"), nola.Manifest{}); err != nil {
			t.Fatal(err)
		}
	}
	for want, name := range []string{"a", "b"} { // the first leaves the bytes to the other
		if err := m.Delete(t.Context(), "default", name, false); err != nil {
			t.Fatal(err)
		}
		if got := runtime.forgotten[digest]; got != want {
			t.Errorf("after %s was deleted the bytes were forgotten %d times, want %d", name, got, want)
		}
	}
}
