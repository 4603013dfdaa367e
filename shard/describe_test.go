package shard_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nolaproject/nola"
)

// TestAskingLeavesNothingInMemory: describing or deleting actors that are not in
// memory, whether they exist or not, leaves none of them there.
func TestAskingLeavesNothingInMemory(t *testing.T) {
	const asked = 10_000
	w := newWorld(t, 4)
	for i := range 100 {
		w.must(fmt.Sprint("there-", i), "inc", "")
	}
	w.crash() // so that none is in memory
	for i := range 100 {
		info, err := w.m.DescribeActor(t.Context(), ref(fmt.Sprint("there-", i)))
		if err != nil || !info.Exists || info.Active {
			t.Fatalf("describe an actor that exists: %+v, %v", info, err)
		}
	}
	for i := range asked {
		if _, err := w.m.DescribeActor(t.Context(), ref(fmt.Sprint("random-", i))); reason(err) != nola.ReasonActorNotFound {
			t.Fatalf("describe an actor that does not exist: %v", err)
		}
		if i%10 == 0 {
			if err := w.m.DeleteActor(t.Context(), ref(fmt.Sprint("random-", i))); reason(err) != nola.ReasonActorNotFound {
				t.Fatalf("delete an actor that does not exist: %v", err)
			}
		}
	}
	held := 0
	for _, s := range w.m.Shards() {
		held += s.Activations
	}
	if held > 0 {
		t.Errorf("%d actors are in memory after they were only asked for", held)
	}
	// One that works stays, whoever asks for it.
	w.must("there-1", "inc", "")
	if info, err := w.m.DescribeActor(t.Context(), ref("there-1")); err != nil || !info.Active {
		t.Errorf("an actor in memory is described as %+v, %v", info, err)
	}
}

// TestMoreKeysThanAreRemembered: an actor remembers as many idempotency keys as it
// says and not one more, also if calls come in at once; what is refused has not run,
// and what is remembered is not run again.
func TestMoreKeysThanAreRemembered(t *testing.T) {
	const room, atOnce = 10, 60
	w := newWorld(t, 1)
	key := func(i int) nola.Key { return nola.Key{User: fmt.Sprint("key-", i)} }
	for i := range nola.UserKeysMax - room {
		if _, err := w.keyed("a", "inc", "", key(i)); err != nil {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	go func() { _, _ = w.invoke("a", "wait", "g") }()
	eventually(t, "the actor is busy", func() bool { return w.m.Shards()[0].Unanswered >= 1 })
	answers := make(chan error, atOnce)
	for i := range atOnce {
		go func() {
			_, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "inc", Key: key(nola.UserKeysMax + i)})
			answers <- err
		}()
	}
	refused := 0
	for range atOnce - room { // they are refused at once, the others wait
		if err := <-answers; reason(err) != nola.ReasonDedupFull {
			t.Fatalf("a key beyond the limit: %v, want DEDUP_FULL", err)
		}
		refused++
	}
	close(w.code.gate("g"))
	for range room {
		if err := <-answers; err != nil {
			t.Errorf("a key within the limit: %v", err)
		}
	}
	if got := w.must("a", "get", ""); got != fmt.Sprint(nola.UserKeysMax) {
		t.Errorf("the counter is %s, want %d: one for each key that was taken", got, nola.UserKeysMax)
	}
	for _, i := range []int{0, nola.UserKeysMax - room - 1} {
		if res, err := w.keyed("a", "inc", "", key(i)); err != nil || !res.Replayed {
			t.Errorf("key %d again: %+v, %v", i, res, err)
		}
	}
	if _, err := w.keyed("a", "inc", "", key(1<<20)); reason(err) != nola.ReasonDedupFull {
		t.Errorf("one more: %v, want DEDUP_FULL", err)
	}
	w.crash()
	if _, err := w.keyed("a", "inc", "", key(1<<20)); reason(err) != nola.ReasonDedupFull {
		t.Errorf("one more after a restart: %v, want DEDUP_FULL", err)
	}
}
