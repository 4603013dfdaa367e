package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// limitedTo is the GOMEMLIMIT of the server under test, and memorySlack by how
// much of it its resident memory may be larger.
const (
	limitedTo   = 512 << 20
	memorySlack = limitedTo / 10
)

// TestLargeActorsInMemoryLimit touches more actors than fit into the memory that
// a server is given, and demands that it takes no more, and refuses nobody.
func TestLargeActorsInMemoryLimit(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no figures of another process's memory here")
	}
	const callers = 64
	actors := sized(3_000, 60_000)
	for name, file := range map[string]string{"small": "../../testdata/guests/small/small.wasm", "go": ""} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", fmt.Sprint(limitedTo))
			p := serve(t, t.TempDir())
			c := p.dial()
			code := guestCode(t, "counter")
			if file != "" {
				var err error
				if code, err = os.ReadFile(file); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: name, Wasm: code})); err != nil {
				t.Fatal(err)
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				c := dial(t, p.url, client.Options{})
				wg.Go(func() {
					for n := next.Add(1); n <= int64(actors) && !t.Failed(); n = next.Add(1) {
						res, err := c.Invoke(t.Context(), actorRef(name, fmt.Sprint("a", n)), "inc", nil)
						if err != nil || string(res.Payload) != "1" {
							t.Errorf("actor %d answers %q, %v; want 1", n, res.Payload, err)
							return
						}
					}
				})
			}
			wg.Wait()
			peak := p.peakBytes()
			t.Logf("%d actors: at most %d MiB resident", actors, peak>>20)
			if limit := int64(limitedTo + memorySlack); peak > limit {
				t.Errorf("the server had %d MiB resident at its peak, at most %d MiB are allowed\n%s", peak>>20, limit>>20, p.memory())
			}
			for _, n := range []int{1, actors / 2, actors} { // those that left memory go on
				if got := invoke(t, c, name, fmt.Sprint("a", n), "inc", ""); got != "2" {
					t.Errorf("actor %d answers %s, want 2", n, got)
				}
			}
		})
	}
}

// peakBytes is the most memory that the process ever had.
func (p *process) peakBytes() int64 {
	p.t.Helper()
	_, rest, _ := strings.Cut(p.memory(), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// memory is what the system says of the process.
func (p *process) memory() string {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Vm") || strings.HasPrefix(line, "Rss") {
			b.WriteString(line)
		}
	}
	return b.String()
}
