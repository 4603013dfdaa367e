package wasmhost_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// TestConcurrentPrepare prepares, runs and closes the same and other code from
// many goroutines.
func TestConcurrentPrepare(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{CompileConcurrency: 2})
	self := nola.ActorRef{Namespace: "default", Type: "test", ID: "a"}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 10 {
				m, err := r.Prepare(context.Background(), smallGuest(t), nola.Manifest{Limits: nola.Limits{CallDepth: 100 + g%2}})
				if err != nil {
					t.Error(err)
					return
				}
				i, err := m.Instantiate(self)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := invoke(i, newWorld(), "inc", "7"); got != "7" || err != nil {
					t.Errorf("inc = %q, %v", got, err)
				}
				i.Close()
				if err := errors.Join(m.Close(), m.Close()); err != nil { // the second does nothing
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestPrepareEndsInTime prepares a module of one function that takes the compiler
// seconds. Its caller is answered when its time is over; the compiler goes on in
// its place, where none other compiles before it has ended.
func TestPrepareEndsInTime(t *testing.T) {
	const patience = 100 * time.Millisecond
	branches := slices.Repeat([]byte{0x41, 1, 0x04, 0x40, 0x05, 0x0b}, 9_900)
	slow := guestOf(nil, slices.Concat(branches, ok)).bytes()
	r := newRuntime(t, wasmhost.Config{CompileTimeout: patience})
	tooSlow := func(what string, err error) {
		t.Helper()
		if reason, limit := reasonOf(t, err); reason != nola.ReasonDeadlineExceeded || limit != "compile_timeout" {
			t.Errorf("%s: %s %q: %v", what, reason, limit, err)
		}
	}
	_, err := r.Prepare(context.Background(), slow, nola.Manifest{})
	tooSlow("a slow module", err)
	_, err = r.Prepare(context.Background(), smallGuest(t), nola.Manifest{})
	tooSlow("a quick one, while the slow one is still at it", err)
	_, err = r.Prepare(context.Background(), slow, nola.Manifest{})
	tooSlow("the slow one again", err)
	for {
		m, err := r.Prepare(context.Background(), smallGuest(t), nola.Manifest{})
		if err == nil {
			if got := mustInvoke(t, instantiate(t, m), newWorld(), "inc", "3"); got != "3" {
				t.Errorf("inc = %q", got)
			}
			_ = m.Close()
			break
		}
		tooSlow("the quick one again", err)
	}
	for r.Stats().Modules > 1 { // the slow one is forgotten
		runtime.Gosched()
	}

	r = newRuntime(t, wasmhost.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = r.Prepare(ctx, smallGuest(t), nola.Manifest{})
	if reason, _ := reasonOf(t, err); reason != nola.ReasonCanceled {
		t.Errorf("canceled: %s %v", reason, err)
	}
}

// TestCache keeps compiled code on disk, and survives what may happen to it
// there.
func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "compiled")
	run := func() {
		t.Helper()
		r := newRuntime(t, wasmhost.Config{CacheDir: dir})
		i := instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{}))
		if got := mustInvoke(t, i, newWorld(), "inc", "3"); got != "3" {
			t.Errorf("inc = %q", got)
		}
	}
	files := func() (found []string) {
		_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().IsRegular() {
				found = append(found, path)
			}
			return err
		})
		return found
	}
	run()
	if len(files()) != 2 { // what we made of the module, and the engine's code
		t.Fatalf("the cache holds %q", files())
	}
	run()
	for name, damage := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	} {
		for n, file := range files() {
			b := readFile(t, file)
			if err := os.WriteFile(file, damage(bytes.Clone(b)), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				run()
				if got := readFile(t, file); !bytes.Equal(got, b) {
					t.Errorf("%s was not made anew: %d bytes, want %d", file, len(got), len(b))
				}
			})
		}
	}

	// The directory goes away under the runtime: nothing can be written.
	r := newRuntime(t, wasmhost.Config{CacheDir: dir})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := mustInvoke(t, instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{})), newWorld(), "inc", "3"); got != "3" {
		t.Errorf("inc = %q", got)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := wasmhost.New(context.Background(), wasmhost.Config{CacheDir: file}); err == nil {
		t.Error("a file was taken as the cache's directory")
	}
}

// TestMetrics lives through activations that find a slot and that do not, and reads
// how many of each there were.
func TestMetrics(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRuntime(t, wasmhost.Config{IdleAfter: time.Minute, Now: func() time.Time { return now }})
	m := prepare(t, r, smallGuest(t), nola.Manifest{})
	figures := func(made, reused, dropped, evicted, modules int, idle int64) {
		t.Helper()
		var b bytes.Buffer
		if err := r.Metrics(&b); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{
			"nola_slots_made_total": made, "nola_slots_reused_total": reused, "nola_slots_dropped_total": dropped,
			"nola_slots_evicted_total": evicted, "nola_modules_held": modules, "nola_slot_idle_bytes": idle,
		} {
			if line := fmt.Sprintf("\n%s %v\n", name, want); !strings.Contains(b.String(), line) {
				t.Errorf("want %q in\n%s", line, &b)
			}
		}
	}
	figures(0, 0, 0, 0, 1, 0)
	a := instantiate(t, m)
	b := instantiate(t, m)
	figures(2, 0, 0, 0, 1, 0)
	size := a.Bytes()
	a.Close()
	b.Close()
	figures(2, 0, 0, 0, 1, 2*size)
	for range 8 { // activations, one after the other, find a slot
		i := instantiate(t, m)
		mustInvoke(t, i, newWorld(), "inc", "1")
		i.Close()
	}
	figures(2, 8, 0, 0, 1, 2*size)
	now = now.Add(2 * time.Minute)
	instantiate(t, m).Close() // the release notices what was idle for long
	figures(2, 9, 0, 1, 1, size)

	trap := prepare(t, r, guestOf(nil, []byte{0x00}).bytes(), nola.Manifest{})
	i := instantiate(t, trap)
	if _, err := invoke(i, newWorld(), "op", ""); err == nil {
		t.Error("it answered")
	}
	i.Close()
	figures(3, 9, 1, 1, 2, size)
}
