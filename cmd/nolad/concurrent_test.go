package main

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/nolaproject/nola/client"
)

// TestConcurrentCounter: clients that call one actor at once see each number
// once, and none is missing.
func TestConcurrentCounter(t *testing.T) {
	const clients = 8
	calls := sized(8_000, 160_000)
	p := serve(t, t.TempDir())
	push(t, p.dial(), "counter")
	replies := make([][]int, clients)
	var wg sync.WaitGroup
	for i := range replies {
		c := dial(t, p.url, client.Options{})
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var inner sync.WaitGroup
			var mu sync.Mutex
			const lanes = 4 // of one client, at once
			for range lanes {
				inner.Go(func() {
					last := 0
					for range calls / clients / lanes {
						res, err := c.Invoke(ctx, actorRef("counter", "one"), "inc", nil)
						if err != nil {
							t.Errorf("client %d: %v", i, err)
							return
						}
						n, err := strconv.Atoi(string(res.Payload))
						if err != nil || n <= last {
							t.Errorf("client %d: reply %q after %d", i, res.Payload, last)
						}
						last = n
						mu.Lock()
						replies[i] = append(replies[i], n)
						mu.Unlock()
					}
				})
			}
			inner.Wait()
		})
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(replies...)))
	if len(all) != calls {
		t.Fatalf("%d replies, want %d", len(all), calls)
	}
	for i, n := range all {
		if n != i+1 {
			t.Fatalf("reply %d of %d is %d, want 1..%d, each once", i, calls, n, calls)
		}
	}
	if got := state(t, p.dial(), "counter", "one", "")["n"]; got != strconv.Itoa(calls) {
		t.Errorf("the state says %s, want %d", got, calls)
	}
	if res, err := http.Get(p.url + "/readyz"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("readyz: %v %v", res, err)
	}
}
