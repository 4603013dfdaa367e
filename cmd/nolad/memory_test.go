package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// pushMemory pushes code that keeps its memory under a name.
func pushMemory(t testing.TB, c *client.Client, name string, code []byte) uint64 {
	t.Helper()
	res, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{
		Name: name, Wasm: code,
		Manifest: &nolav1.ModuleManifest{Mode: nolav1.ModuleMode_MODULE_MODE_MEMORY, ReadonlyOperations: []string{"get"}, Capabilities: []string{"LOG"}},
	}))
	if err != nil {
		t.Fatalf("push %s: %v", name, err)
	}
	return res.Msg.GetVersion()
}

// TestCrashMemorySurvivesKill9 kills the server again and again while clients
// count in actors whose number is a variable of a Go program that makes no host
// call. Every acknowledged increment is there, once, and every answer was the
// number at that moment.
func TestCrashMemorySurvivesKill9(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("NOLA_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (NOLA_SEED)", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, address := t.TempDir(), steadyAddress(t)
	p := serve(t, dir, "--listen", address)
	c := dial(t, "http://"+address, client.Options{})
	pushMemory(t, c, "counter-memory", guestCode(t, "counter-memory"))

	const actors = 4
	var acked [actors]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{t: t, c: c, ctx: ctx, once: make(map[string]map[string]bool), replies: make(map[string]map[string]string)}
	for i := range actors {
		actor := fmt.Sprint("m", i)
		l.wg.Go(func() {
			for n := int64(1); ctx.Err() == nil; n++ {
				key := fmt.Sprintf("inc-%d-%d", i, n)
				l.until(key, func(ctx context.Context) error {
					res, err := c.Invoke(ctx, actorRef("counter-memory", actor), "inc", nil, client.WithIdempotencyKey(key))
					if err == nil && string(res.Payload) != strconv.FormatInt(n, 10) {
						t.Errorf("%s: increment %d was answered %s (seed %d)", actor, n, res.Payload, seed)
					}
					return err
				})
				if t.Failed() {
					return
				}
				acked[i].Store(n)
			}
		})
	}
	defer l.wg.Wait()
	defer stop()
	total := func() (sum int64) {
		for i := range acked {
			sum += acked[i].Load()
		}
		return sum
	}
	for round := range sized(3, 20) {
		want := total() + int64(20+rng.IntN(200))
		eventually(t, time.Minute, fmt.Sprintf("round %d: %d calls acknowledged (seed %d)", round, want, seed), func() bool { return t.Failed() || total() >= want })
		p.kill()
		p = serve(t, dir, "--listen", address)
	}
	stop()
	l.wg.Wait()
	for i := range acked {
		if got, want := invoke(t, c, "counter-memory", fmt.Sprint("m", i), "get", ""), strconv.FormatInt(acked[i].Load(), 10); got != want {
			t.Errorf("m%d counts %s, %s were acknowledged (seed %d)", i, got, want, seed)
		}
	}
	t.Logf("%d increments", total())
}

// TestMemoryModeOverTheServer counts in memory, passivates, deletes, and moves to
// another version, which takes over what the old one had.
func TestMemoryModeOverTheServer(t *testing.T) {
	dir, address := t.TempDir(), steadyAddress(t)
	p := serve(t, dir, "--listen", address)
	c := dial(t, "http://"+address, client.Options{})
	code := guestCode(t, "counter-memory")
	pushMemory(t, c, "m", code)
	if got := invoke(t, c, "m", "a", "inc", "41"); got != "41" {
		t.Fatalf("inc 41 = %s", got)
	}
	if _, err := c.Actors.PassivateActor(t.Context(), connect.NewRequest(&nolav1.PassivateActorRequest{Actor: actorMessage("m", "a")})); err != nil {
		t.Fatal(err)
	}
	if got := invoke(t, c, "m", "a", "inc", ""); got != "42" {
		t.Errorf("after passivation: inc = %s, want 42", got)
	}
	if _, err := c.Invoke(t.Context(), actorRef("m", "a"), "inc", []byte("x")); !errors.Is(err, &nola.Error{Reason: nola.ReasonGuestError}) {
		t.Errorf("inc x: %v", err)
	}
	if st := state(t, c, "m", "a", ""); len(st) != 0 {
		t.Errorf("it has state besides its memory: %v", st)
	}

	// The same code with a section that means nothing is another module.
	second := pushMemory(t, c, "m", append(append([]byte{}, code...), 0, 3, 2, 'v', '2'))
	p.kill()
	serve(t, dir, "--listen", address)
	if got := invoke(t, c, "m", "a", "get", ""); got != "42" {
		t.Errorf("under version %d: get = %s, want 42", second, got)
	}
	if got := invoke(t, c, "m", "a", "inc", ""); got != "43" {
		t.Errorf("under version %d: inc = %s, want 43", second, got)
	}

	// A module that does not know what to do with what it is given.
	pushMemory(t, c, "m", guestCode(t, "kitchen"))
	if _, err := c.Invoke(t.Context(), actorRef("m", "a"), "remember", nil); !errors.Is(err, &nola.Error{Reason: nola.ReasonUpgradeRefused}) {
		t.Errorf("under a version without UPGRADE: %v", err)
	}
	if _, err := c.Modules.SetDefaultVersion(t.Context(), connect.NewRequest(&nolav1.SetDefaultVersionRequest{Name: "m", Version: second})); err != nil {
		t.Fatal(err)
	}
	if got := invoke(t, c, "m", "a", "inc", ""); got != "44" {
		t.Errorf("back under version %d: inc = %s, want 44", second, got)
	}
	if _, err := c.Actors.DeleteActor(t.Context(), connect.NewRequest(&nolav1.DeleteActorRequest{Actor: actorMessage("m", "a")})); err != nil {
		t.Fatal(err)
	}
	if got := invoke(t, c, "m", "a", "inc", ""); got != "1" {
		t.Errorf("after it was deleted: inc = %s, want 1", got)
	}
}
