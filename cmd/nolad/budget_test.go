package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
	actors := sized(3_000, 200_000)
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

// TestBudgetTakesOthersOff has the process use memory that the Go runtime does
// not know of, and looks at what is left to the heap.
func TestBudgetTakesOthersOff(t *testing.T) {
	const limit, others = 1 << 30, 200 << 20
	if _, ok := othersBytes(); !ok {
		t.Skip("no figures of the memory of a process here")
	}
	before := debug.SetMemoryLimit(limit)
	defer debug.SetMemoryLimit(before)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		keepBudget(ctx, limit)
	}()
	mapped, err := syscall.Mmap(-1, 0, others, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(mapped); at += os.Getpagesize() {
		mapped[at] = 1
	}
	eventually(t, 10*time.Second, "the heap gets less", func() bool { return memoryLimit() <= limit-others*9/10 })
	if err := syscall.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the heap gets it back", func() bool { return memoryLimit() > limit-others/2 })
	cancel()
	<-done
	if got := memoryLimit(); got != limit {
		t.Errorf("the limit ends as %d, want %d", got, limit)
	}
}

// TestLimitsFollowTheMemory looks at what limits in bytes default to.
func TestLimitsFollowTheMemory(t *testing.T) {
	for _, tt := range []struct{ memory, set, instances, calls int64 }{
		{math.MaxInt64, 0, 1 << 30, 256 << 20},
		{8 << 30, 0, 1 << 30, 256 << 20},
		{512 << 20, 0, 128 << 20, 64 << 20},
		{512 << 20, 300 << 20, 300 << 20, 64 << 20},
		{1, 0, 1 << 20, 1 << 20},
	} {
		got := limitsConfig{InstanceBytes: tt.set}.withMemory(tt.memory)
		if got.InstanceBytes != tt.instances || got.CallBytes != tt.calls {
			t.Errorf("with %d bytes of memory and instance_bytes %d: %+v, want %d and %d", tt.memory, tt.set, got, tt.instances, tt.calls)
		}
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
