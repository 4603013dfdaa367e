package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestGuestsLeaveAProcessorFree asks a node how many processors it takes: one more
// than run guests. Who sets GOMAXPROCS gets what it says.
func TestGuestsLeaveAProcessorFree(t *testing.T) {
	for name, tt := range map[string]struct {
		set  string
		want int
	}{
		"by itself": {"", processors() + 1},
		"as told":   {"5", 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMAXPROCS", tt.set)
			admin := steadyAddress(t)
			serve(t, t.TempDir(), "--admin-listen", admin)
			_, rest, _ := strings.Cut(request(t, http.MethodGet, "http://"+admin+"/metrics", "").body, "\ngo_sched_gomaxprocs_threads ")
			var have int
			if _, err := fmt.Sscan(rest, &have); err != nil {
				t.Fatalf("how many processors there are: %v", err)
			}
			if have != tt.want {
				t.Errorf("Go has %d processors, want %d", have, tt.want)
			}
		})
	}
}
