package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestCollectorHasRoom asks a node that has nothing to do when the collector will
// run next, and how much memory it has. Who sets GOGC gets what it says.
func TestCollectorHasRoom(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	if availableMemory() == 0 {
		t.Error("how much memory there is cannot be told")
	}
	for memory, want := range map[uint64]uint64{0: garbageMin, 512 << 20: garbageMin, 4 << 30: 128 << 20, 1 << 40: garbageMax} {
		if got := garbageOf(memory); got != want {
			t.Errorf("of %d MiB %d may be garbage, want %d", memory>>20, got>>20, want>>20)
		}
	}
	for name, tt := range map[string]struct {
		gogc  string
		right func(next int64) bool
	}{
		"by itself": {"", func(next int64) bool { return next >= 2*int64(garbageOf(availableMemory())) }},
		"as told":   {"100", func(next int64) bool { return next < garbageMin }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", tt.gogc)
			admin := steadyAddress(t)
			p := serve(t, t.TempDir(), "--admin-listen", admin)
			heap := request(t, http.MethodGet, "http://"+admin+"/debug/pprof/heap?debug=1&gc=1", "").body
			_, rest, _ := strings.Cut(heap, "# NextGC = ")
			var next int64
			if _, err := fmt.Sscan(rest, &next); err != nil {
				t.Fatalf("when the collector runs next: %v", err)
			}
			if !tt.right(next) {
				t.Errorf("the collector runs next at a heap of %d MiB", next>>20)
			}
			if now := p.residentBytes(); now > 60<<20 {
				t.Errorf("an idle node has %d MiB, want no more than 60", now>>20)
			}
		})
	}
}
