package shard_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/persistence/pebblestore/powercut"
	"github.com/nolaproject/nola/wasmhost"
)

const (
	memoryCutOps    = 400
	memoryCutActors = 3 // of each guest
	memoryCutSample = 19
)

var memoryCutGuests = []string{"assemblyscript", "rust", "small", "tinygo", "wat"}

// memoryCut is what a disk may hold after the power went, and what had been
// acknowledged by then.
type memoryCut struct {
	op, percent int
	what        string
	disk        *vfs.MemFS
	counts      map[nola.ActorRef]int // acknowledged turns that counted in memory
	note        int                   // the last one acknowledged that went into memory and state
}

func (c memoryCut) String() string {
	return fmt.Sprintf("power cut before file operation %d (%s), %d %% of what was not synced survives", c.op, c.what, c.percent)
}

// TestCrashPowerCutInMemoryMode takes the power away before the file operations of
// a workload of guests in five languages that count in their memory and nowhere
// else. A new node must find every acknowledged count, in memories that work,
// and memory and state of one turn together.
func TestCrashPowerCutInMemoryMode(t *testing.T) {
	runtime, err := wasmhost.New(t.Context(), wasmhost.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := runtime.Close(); err != nil {
			t.Error(err)
		}
	}()
	types := map[string]nola.Module{"notebook": newNotebook(1)}
	for n, name := range memoryCutGuests {
		code, err := os.ReadFile("../testdata/guests/" + name + "/" + name + ".wasm")
		if err != nil {
			t.Fatal(err)
		}
		manifest := nola.Manifest{Mode: nola.ModeMemory}
		if n%2 == 1 { // soon in rows
			manifest.Limits.MemoryInline = 256
		}
		if types[name], err = runtime.Prepare(t.Context(), code, manifest); err != nil {
			t.Fatal(err)
		}
	}
	cuts, ops := memoryCutRun(t, types)
	t.Logf("%d file operations, %d power cuts", ops, len(cuts))
	if ops < 400 {
		t.Errorf("the workload makes %d file operations, too few to show anything", ops)
	}
	for _, c := range cuts {
		if memoryCutCheck(t, types, c); t.Failed() {
			t.Fatal(c)
		}
	}
	for _, m := range types {
		_ = m.Close()
	}
}

func memoryCutRun(t *testing.T, types map[string]nola.Module) (cuts []memoryCut, ops int) {
	every := memoryCutSample
	if os.Getenv("NOLA_SLOW") != "" {
		every = 1
	}
	var mu sync.Mutex // guards what follows; the engine works in the background as well
	acked := memoryCut{counts: map[nola.ActorRef]int{}}
	fs := powercut.NewDisk(func(cut powercut.Point) {
		mu.Lock()
		defer mu.Unlock()
		if ops = cut.Op; ops%every != 0 {
			return
		}
		for _, percent := range []int{0, 50, 100} {
			c := memoryCut{op: ops, percent: percent, what: cut.What, note: acked.note, counts: map[nola.ActorRef]int{}}
			for ref, n := range acked.counts {
				c.counts[ref] = n
			}
			c.disk = cut.Survivors(percent, 1)
			cuts = append(cuts, c)
		}
	})
	w := newWorld(t, powerShards, func(w *world) {
		w.types = types
		w.open = func() (persistence.Store, error) { return pebblestore.Open("data", powerOptions(fs)) }
	})
	ask := func(ref nola.ActorRef, op, payload string) (string, error) {
		r, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref, Operation: op, Payload: []byte(payload)})
		return string(r.Payload), err
	}
	for i := range memoryCutOps {
		to := nola.ActorRef{Namespace: "default", Type: memoryCutGuests[i%len(memoryCutGuests)], ID: strconv.Itoa(i % memoryCutActors)}
		switch i % 7 {
		case 3: // garbage, and more memory
			if _, err := ask(to, "echo", strings.Repeat("x", i*200)); err != nil {
				t.Fatal(err)
			}
		case 4: // taken back
			if _, err := ask(to, "nope", ""); err == nil {
				t.Fatal("it did not fail")
			}
		case 5:
			if _, err := w.m.PassivateActor(context.Background(), to); err != nil {
				t.Fatal(err)
			}
		case 6:
			if _, err := ask(nola.ActorRef{Namespace: "default", Type: "notebook", ID: "a"}, "writeput", fmt.Sprintf("1=%d", i)); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			acked.note = i
			mu.Unlock()
		default:
			got, err := ask(to, "remember", "")
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			acked.counts[to]++
			if want := strconv.Itoa(acked.counts[to]); got != want {
				t.Fatalf("turn %d: %s counts %s, want %s", i, to, got, want)
			}
			mu.Unlock()
		}
	}
	w.close()
	mu.Lock()
	defer mu.Unlock()
	return cuts, ops
}

func memoryCutCheck(t *testing.T, types map[string]nola.Module, c memoryCut) {
	w := newWorld(t, powerShards, func(w *world) {
		w.types = types
		w.open = func() (persistence.Store, error) { return pebblestore.Open("data", powerOptions(c.disk)) }
	})
	defer w.close()
	ask := func(ref nola.ActorRef, op, payload string) string {
		t.Helper()
		r, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref, Operation: op, Payload: []byte(payload)})
		if err != nil {
			t.Errorf("%s %s: %v", ref, op, err)
		}
		return string(r.Payload)
	}
	more := 0
	for _, name := range memoryCutGuests {
		for id := range memoryCutActors {
			ref := nola.ActorRef{Namespace: "default", Type: name, ID: strconv.Itoa(id)}
			want := c.counts[ref] + 1
			got, _ := strconv.Atoi(ask(ref, "remember", ""))
			if got == want+1 { // made durable and not acknowledged
				more++
				want++
			}
			if got != want {
				t.Errorf("%s counts %d, %d were acknowledged before", ref, got, c.counts[ref])
			}
			if again, _ := strconv.Atoi(ask(ref, "remember", "")); again != got+1 {
				t.Errorf("%s counts %d behind %d", ref, again, got)
			}
			if got := ask(ref, "echo", "still there"); got != "still there" {
				t.Errorf("%s answers %q", ref, got)
			}
		}
	}
	if more > 1 {
		t.Errorf("%d turns were made durable that nobody was told of; one at a time was under way", more)
	}
	notebook := nola.ActorRef{Namespace: "default", Type: "notebook", ID: "a"}
	memory, state := ask(notebook, "read", ""), ask(notebook, "get", "text")
	if n, _ := strconv.Atoi(strings.TrimPrefix(memory, "1=")); memory != state || n < c.note {
		t.Errorf("the memory says %q, the state %q, and %d was acknowledged", memory, state, c.note)
	}
}
