package wasmhost_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// endless loops when it is called, or with start in its start section.
func endless(start bool) []byte {
	loop := []byte{0x03, 0x40, 0x0c, 0, 0x0b, 0x00}
	if start {
		return guestOf(nil, ok, function(loop...)).with(8, []byte{1}).bytes()
	}
	return guestOf(nil, loop).bytes()
}

// TestTimeoutsEndGuests loops with a budget of far more steps, on a clock that
// moves with each look at it. The earliest end counts, and the error names it.
func TestTimeoutsEndGuests(t *testing.T) {
	const (
		look  = 10 * time.Millisecond // one in each 100,000 steps
		steps = 500_000_000
	)
	for name, tt := range map[string]struct {
		timeout, deadline time.Duration // of the manifest, of the caller
		start             bool
		limit, text       string
		after             time.Duration
	}{
		"turn_timeout":                    {timeout: time.Second, limit: "turn_timeout", text: "stopped after 1s", after: time.Second},
		"turn_timeout before the caller":  {timeout: 2 * time.Second, deadline: time.Minute, limit: "turn_timeout", text: "stopped after 2s", after: 2 * time.Second},
		"the caller before turn_timeout":  {timeout: time.Minute, deadline: time.Second, text: "at its deadline", after: time.Second},
		"init_timeout":                    {start: true, limit: "init_timeout", text: "initialisers were stopped after 5s", after: 5 * time.Second},
		"init_timeout, not the turn's":    {timeout: time.Second, start: true, limit: "init_timeout", text: "initialisers were stopped after 5s", after: 5 * time.Second},
		"turn_timeout longer than a call": {timeout: nola.CallTimeoutMax, deadline: time.Second, text: "at its deadline", after: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			r := newRuntime(t, wasmhost.Config{Now: func() time.Time { now = now.Add(look); return now }})
			m := prepare(t, r, endless(tt.start), nola.Manifest{Limits: nola.Limits{Steps: steps, TurnTimeout: tt.timeout}})
			began := now
			i, err := m.Instantiate(nola.ActorRef{Namespace: "default", Type: "test", ID: "a"})
			if err == nil {
				defer i.Close()
				began = now
				turn := &nola.Turn{Operation: "op"}
				if tt.deadline > 0 {
					turn.Deadline = now.Add(tt.deadline)
				}
				_, err = i.Invoke(turn, newWorld())
			}
			took := now.Sub(began)
			if reason, limit := reasonOf(t, err); reason != nola.ReasonDeadlineExceeded || limit != tt.limit || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("it ended with %v, limit %q, want limit %q and a text with %q", err, limit, tt.limit, tt.text)
			}
			if took < tt.after || took > tt.after+10*look {
				t.Errorf("it ended after %s, want %s", took, tt.after)
			}
		})
	}
}

// TestLogBytes floods the log under several limits. Each message counts 16 bytes
// besides its own.
func TestLogBytes(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	prepare(t, r, kitchen(t), nola.Manifest{}) // compiled once, for all
	for limit, want := range map[int]int{0: 64 << 10, 1: 1, 1000: 1000, 200_000: 200_000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{Limits: nola.Limits{LogBytes: limit}}))
			w := newWorld()
			mustInvoke(t, i, w, "logFlood", "10000")
			const messageMax = 64 // of the flood
			notice := w.logs[len(w.logs)-1]
			used := 0
			for _, l := range w.logs[:len(w.logs)-1] {
				_, message, _ := strings.Cut(l, ": ")
				used += len(message) + 16
			}
			if used > want || used < want-messageMax {
				t.Errorf("%d messages of %d bytes were logged, %d bytes are allowed", len(w.logs)-1, used, want)
			}
			if text := fmt.Sprintf("more than %d bytes (limits.log_bytes", want); !strings.Contains(notice, text) {
				t.Errorf("the last message is %q, want one with %q", notice, text)
			}
		})
	}
}
