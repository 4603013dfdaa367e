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
	for name, tt := range map[string]struct {
		gogc  string
		right func(next int64) bool
	}{
		"by itself": {"", func(next int64) bool { return next >= 2*garbageMin }},
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
