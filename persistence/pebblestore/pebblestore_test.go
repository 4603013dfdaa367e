package pebblestore_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/persistence/storetest"
)

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a store that is closed at the end of the test.
func open(t testing.TB, dir string, o pebblestore.Options) *pebblestore.Store {
	t.Helper()
	store := must(pebblestore.Open(dir, o))(t)
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// commit acquires a shard and commits what write writes.
func commit(t testing.TB, store persistence.Store, shard nola.ShardID, write func(b *persistence.Batch)) {
	t.Helper()
	head := must(store.Acquire(t.Context(), []nola.ShardID{shard}))(t)[0]
	b := new(persistence.Batch)
	b.Reset(shard, head.Epoch, head.Seq+1)
	write(b)
	ok(t, store.Commit([]*persistence.Batch{b})[0])
}

func TestStore(t *testing.T) {
	for name, fs := range map[string]func() vfs.FS{
		"Memory": func() vfs.FS { return vfs.NewMem() },
		"Disk":   func() vfs.FS { return vfs.Default },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
				dir := filepath.Join(t.TempDir(), "data")
				o := pebblestore.Options{FS: fs(), Shards: storetest.Shards}
				store := open(t, dir, o)
				return store, func(t *testing.T) persistence.Store {
					ok(t, store.Close())
					store = open(t, dir, o)
					return store
				}
			})
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	marker := func(text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			ok(t, os.WriteFile(filepath.Join(dir, "NOLA-STORE"), []byte(text), 0o600))
		}
	}
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, dir string)
		o       pebblestore.Options
		is      error
		says    []string
	}{
		"another directory": {
			prepare: func(t *testing.T, dir string) { ok(t, os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600)) },
			is:      pebblestore.ErrNotStore,
		},
		"another marker": {prepare: marker("hello\n"), is: pebblestore.ErrNotStore, says: []string{`"hello\n"`}},
		"newer format":   {prepare: marker("nola store 2, pebble 1, created\n"), is: pebblestore.ErrNewerFormat},
		"newer Pebble":   {prepare: marker("nola store 1, pebble 9999, created\n"), is: pebblestore.ErrNewerFormat},
		"lost files": {
			prepare: func(t *testing.T, dir string) {
				ok(t, open(t, dir, pebblestore.Options{}).Close())
				ok(t, os.RemoveAll(filepath.Join(dir, "db")))
			},
			is:   pebblestore.ErrDamaged,
			says: []string{"does not exist"},
		},
		"damaged manifest": {
			prepare: func(t *testing.T, dir string) {
				ok(t, open(t, dir, pebblestore.Options{}).Close())
				manifests := must(filepath.Glob(filepath.Join(dir, "db", "MANIFEST-*")))(t)
				for _, file := range manifests {
					ok(t, os.WriteFile(file, []byte("garbage"), 0o600))
				}
			},
			is:   pebblestore.ErrDamaged,
			says: []string{"MANIFEST"},
		},
		"in use": {
			prepare: func(t *testing.T, dir string) { open(t, dir, pebblestore.Options{}) },
			is:      pebblestore.ErrInUse,
		},
		"a file": {
			prepare: func(t *testing.T, dir string) {
				ok(t, os.Remove(dir))
				ok(t, os.WriteFile(dir, nil, 0o600))
			},
			says: []string{"not a directory"},
		},
		"other shards": {
			prepare: func(t *testing.T, dir string) {
				ok(t, open(t, dir, pebblestore.Options{Shards: 8}).Close())
			},
			o:    pebblestore.Options{Shards: 16},
			says: []string{"8 shards", "16 are asked"},
		},
		"too many shards": {
			prepare: func(*testing.T, string) {},
			o:       pebblestore.Options{Shards: persistence.ShardsMax + 1},
			says:    []string{"65537"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			ok(t, os.Mkdir(dir, 0o700))
			tt.prepare(t, dir)
			before := listing(t, dir)
			_, err := pebblestore.Open(dir, tt.o)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), dir) {
				t.Fatalf("got %v, want %v and the directory's name", err, tt.is)
			}
			for _, text := range tt.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v does not say %q", err, text)
				}
			}
			if name == "another directory" && !reflect.DeepEqual(listing(t, dir), before) {
				t.Errorf("the directory was changed: %v, then %v", before, listing(t, dir))
			}
		})
	}
}

func listing(t *testing.T, dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestClusterFacts(t *testing.T) {
	a, b := open(t, t.TempDir(), pebblestore.Options{}), open(t, t.TempDir(), pebblestore.Options{})
	if a.Cluster().Shards != pebblestore.ShardsDefault {
		t.Errorf("%d shards", a.Cluster().Shards)
	}
	if a.Cluster().ID == b.Cluster().ID || a.Cluster().Secret == b.Cluster().Secret || a.Cluster().ID == [16]byte{} {
		t.Errorf("two clusters: %+v, %+v", a.Cluster(), b.Cluster())
	}
}

func TestBackupAndRestore(t *testing.T) {
	dir, backup, restored := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	store := open(t, dir, pebblestore.Options{Shards: storetest.Shards})
	commit(t, store, storetest.Shard, func(b *persistence.Batch) {
		for _, rec := range storetest.Records() {
			rec.Write(b)
		}
	})
	ok(t, store.Backup(t.Context(), backup))
	commit(t, store, storetest.Shard, func(b *persistence.Batch) { b.PutState(storetest.Actor, "later", nil) })
	if err := store.Backup(t.Context(), backup); err == nil {
		t.Error("a second backup was written into the same directory")
	}
	head := must(store.Acquire(t.Context(), []nola.ShardID{storetest.Shard}))(t)[0]

	ok(t, pebblestore.Restore(backup, restored, pebblestore.Options{}))
	if err := pebblestore.Restore(backup, restored, pebblestore.Options{}); err == nil {
		t.Error("a second restore was written into the same directory")
	}
	again := open(t, restored, pebblestore.Options{})
	if again.Cluster() != store.Cluster() {
		t.Errorf("cluster %+v, want %+v", again.Cluster(), store.Cluster())
	}
	reader := persistence.Reader{Store: again}
	for _, rec := range storetest.Records() {
		if got, _, err := rec.Read(reader); err != nil || !reflect.DeepEqual(got, rec.Want) {
			t.Errorf("%s: %+v, %v", rec.Name, got, err)
		}
	}
	if _, found, err := reader.State(storetest.Shard, storetest.Actor, "later"); found || err != nil {
		t.Errorf("committed after the backup: found %v, %v", found, err)
	}
	now := must(again.Acquire(t.Context(), []nola.ShardID{storetest.Shard}))(t)[0]
	if now.Epoch <= head.Epoch || now.Seq != 1 {
		t.Errorf("head %+v after restore, %+v before", now, head)
	}

	unfinished := t.TempDir()
	if err := pebblestore.Restore(unfinished, filepath.Join(t.TempDir(), "x"), pebblestore.Options{}); !errors.Is(err, pebblestore.ErrNotStore) {
		t.Errorf("restore of an empty directory: %v", err)
	}
}

func TestCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	store := open(t, dir, pebblestore.Options{Shards: storetest.Shards})
	ref := nola.ActorRef{Namespace: "n", Type: "t"}
	for nola.ShardOf(ref, storetest.Shards) != 0 {
		ref.ID += "x"
	}
	inv := storetest.Invocation()
	code := []byte("code")
	digest := sha256.Sum256(code)
	ok(t, store.PutObject(t.Context(), digest, code))
	catalog := persistence.Catalog{Store: store}
	must(catalog.PutModuleVersion(t.Context(), 0, persistence.ModuleVersion{Namespace: "n", Name: "m", Version: 1, Digest: digest}))(t)
	commit(t, store, 0, func(b *persistence.Batch) {
		b.PutMeta(ref, persistence.Meta{})
		b.ListActor(ref)
		b.PutTimer(ref, persistence.TimerRecord{Name: "a", Due: inv.Due})
		b.PutDue(persistence.DueRow{Due: inv.Due, Target: ref, Kind: persistence.DueTimer, Name: "a", Invocation: inv})
		b.PutBacklog(ref, persistence.BacklogRow{Number: 1, Total: 10, Invocation: inv})
		b.PutBacklog(ref, persistence.BacklogRow{Number: 2, Total: 20, Invocation: inv})
	})
	ok(t, store.Close())
	report := must(pebblestore.Check(t.Context(), dir, pebblestore.Options{}))(t)
	if report.Count != 0 || report.Cluster.Shards != storetest.Shards || len(report.Tables) < 8 {
		t.Fatalf("a good store: %+v", report)
	}

	store = open(t, dir, pebblestore.Options{})
	if _, err := pebblestore.Check(t.Context(), dir, pebblestore.Options{}); !errors.Is(err, pebblestore.ErrInUse) {
		t.Errorf("check of a store in use: %v", err)
	}
	catalog = persistence.Catalog{Store: store}
	must(catalog.PutModuleVersion(t.Context(), 0, persistence.ModuleVersion{Namespace: "n", Name: "m", Version: 2}))(t)
	commit(t, store, 0, func(b *persistence.Batch) {
		b.PutDue(persistence.DueRow{Due: inv.Due, Target: ref, Kind: persistence.DueTimer, Name: "dangling", Invocation: inv})
		b.PutDue(persistence.DueRow{Due: inv.Due, Target: ref, Kind: persistence.DueSchedule, Name: "dangling"})
		b.PutBacklog(ref, persistence.BacklogRow{Number: 4, Total: 30, Invocation: inv})
		b.ListActor(nola.ActorRef{Namespace: "n", Type: "t", ID: "ghost"})
		b.Add(persistence.Op{Kind: persistence.OpPut, Table: persistence.TableState, Actor: ref, Key: []byte("future"), Value: []byte{9}})
		b.Add(persistence.Op{Kind: persistence.OpPut, Table: 60, Key: []byte("?"), Value: []byte{1}})
	})
	commit(t, store, 1, func(b *persistence.Batch) { b.PutState(ref, "k", nil) })
	ok(t, store.Close())
	report = must(pebblestore.Check(t.Context(), dir, pebblestore.Options{}))(t)
	for _, want := range []string{
		`there is no timer "dangling"`, `there is no schedule "dangling"`, "number 4 behind number 2", "ghost does not exist",
		"format 9, this version knows format 1", "no table 60", "lives in shard 0, the row is in shard 1", "version 2 of module m in namespace n has no bytes",
	} {
		n := 0
		for _, f := range report.Findings {
			if strings.Contains(f.What, want) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d findings say %q", n, want)
		}
	}
	if report.Count != 8 {
		for _, f := range report.Findings {
			t.Logf("%s: %s", f.Table, f.What)
		}
		t.Errorf("%d findings, want 8", report.Count)
	}
}

func TestMetrics(t *testing.T) {
	store := open(t, "data", pebblestore.Options{FS: vfs.NewMem()})
	commit(t, store, 1, func(b *persistence.Batch) { b.PutState(storetest.Actor, "k", nil) })
	var out bytes.Buffer
	ok(t, store.Metrics(&out))
	for _, want := range []string{"# TYPE nola_store_writes_total counter\nnola_store_writes_total 3\n", "\nnola_store_pressure 0\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("metrics do not say %q:\n%s", want, out.String())
		}
	}
}

// TestDamagedTable reads from a table that is not what was written: the process is
// told which file is damaged and what to do, in one line.
func TestDamagedTable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	store := open(t, dir, pebblestore.Options{})
	commit(t, store, 1, func(b *persistence.Batch) { b.PutState(storetest.Actor, "k", bytes.Repeat([]byte("v"), 10_000)) })
	ok(t, store.Close())
	ok(t, open(t, dir, pebblestore.Options{}).Close()) // what the log held goes into a table
	tables := must(filepath.Glob(filepath.Join(dir, "db", "*.sst")))(t)
	if len(tables) == 0 {
		t.Fatal("there is no table to damage")
	}
	for _, file := range tables {
		text := must(os.ReadFile(file))(t)
		copy(text, bytes.Repeat([]byte{0xff}, 64))
		ok(t, os.WriteFile(file, text, 0o600))
	}
	told := make(chan string, 100)
	report, err := pebblestore.Check(t.Context(), dir, pebblestore.Options{Fatal: func(message string) { told <- message }})
	if err == nil || len(told) == 0 {
		t.Fatalf("a damaged store is checked: %+v, %v, %d messages", report, err, len(told))
	}
	message := <-told
	for _, want := range []string{dir, ".sst", "damaged", "backup"} {
		if !strings.Contains(message, want) {
			t.Errorf("told %q, want it to say %q", message, want)
		}
	}
	if strings.Contains(message, "\n") || strings.Contains(message, ".go:") {
		t.Errorf("told %q, want one line", message)
	}
}

// TestFailedSync makes every sync of the log fail, as a broken or full disk
// does: the process must be told to end, and nothing answered as done.
func TestFailedSync(t *testing.T) {
	for name, fault := range map[string]struct {
		kind errorfs.OpKind
		err  error
		says string
	}{
		"sync fails": {errorfs.OpFileSyncData, syscall.EIO, "input/output error"},
		"disk full":  {errorfs.OpFileWrite, syscall.ENOSPC, "no space left"},
	} {
		t.Run(name, func(t *testing.T) {
			var broken errorfs.Toggle
			broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
				if strings.HasSuffix(op.Path, ".log") && (op.Kind == fault.kind || op.Kind == errorfs.OpFileSync && fault.kind == errorfs.OpFileSyncData) {
					return fault.err
				}
				return nil
			})
			told := make(chan string, 100)
			store := must(pebblestore.Open("data", pebblestore.Options{
				FS:    errorfs.Wrap(vfs.NewMem(), &broken),
				Fatal: func(message string) { told <- message; runtime.Goexit() },
			}))(t)
			head := must(store.Acquire(t.Context(), []nola.ShardID{1}))(t)[0]
			broken.On()
			answered := make(chan bool, 1)
			go func() {
				defer close(answered)
				b := new(persistence.Batch)
				b.Reset(1, head.Epoch, head.Seq+1)
				b.PutState(storetest.Actor, "k", []byte("v"))
				answered <- store.Commit([]*persistence.Batch{b})[0] == nil
			}()
			message := <-told
			if !strings.Contains(message, fault.says) || !strings.Contains(message, "data") {
				t.Errorf("told %q, want it to say %q", message, fault.says)
			}
			if done := <-answered; done {
				t.Error("the commit was answered as done")
			}
		})
	}
}
