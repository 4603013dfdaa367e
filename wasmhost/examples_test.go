package wasmhost_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

func TestExampleCounter(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	example := instantiate(t, prepare(t, r, goGuest(t, "../examples/counter"), nola.Manifest{ReadonlyOperations: []string{"get"}}))
	small := instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{}))
	we, ws := newWorld(), newWorld()
	// The small guest has the same operations, on the same state.
	for _, c := range []call{{"get", ""}, {"inc", ""}, {"inc", "41"}, {"inc", "-50"}, {"get", ""}, {"inc", "x"}, {"reset", ""}, {"get", ""}, {"fly", ""}} {
		a, errA := invoke(example, we, c.op, c.payload)
		b, errB := invoke(small, ws, c.op, c.payload)
		if a != b || (errA == nil) != (errB == nil) || errA != nil && errA.Error() != errB.Error() {
			t.Errorf("%s(%q): example %q, %v; small %q, %v", c.op, c.payload, a, errA, b, errB)
		}
		if string(we.state["n"]) != string(ws.state["n"]) {
			t.Errorf("after %s(%q): example keeps %q, small %q", c.op, c.payload, we.state["n"], ws.state["n"])
		}
	}
}

// TestExampleBank delivers what accounts cast to each other and demands that
// the sum of all balances stays.
func TestExampleBank(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	m := prepare(t, r, goGuest(t, "../examples/bank"), nola.Manifest{})
	type account struct {
		nola.Instance
		*world
	}
	accounts := map[string]account{}
	for _, id := range []string{"alice", "bob"} {
		w := newWorld()
		w.inv.Target.ID = id
		accounts[id] = account{instantiate(t, m), w}
		mustInvoke(t, accounts[id], w, "deposit", "1000")
	}
	for _, transfer := range []struct{ from, payload, want string }{
		{"alice", `{"to":"bob","amount":250}`, `{"balance":750,"credit":"09010000000000000000000000000000"}`},
		{"bob", `{"to":"alice","amount":1250}`, `{"balance":0,"credit":"09010000000000000000000000000000"}`},
		{"bob", `{"to":"alice","amount":1}`, "transfer: the balance is 0, 1 are wanted"},
		{"alice", `{"to":"alice","amount":2000}`, `{"balance":0,"credit":"09010000000000000000000000000000"}`},
		{"alice", `{"to":"bob","amount":-5}`, "transfer: the amount is -5, want a number of cents above 0"},
		{"alice", `{"amount":5}`, `transfer: "to" is empty, want the id of an account`},
	} {
		from := accounts[transfer.from]
		before := string(from.state["balance"])
		got, err := invoke(from, from.world, "transfer", transfer.payload)
		if err != nil {
			got = err.Error()
			from.casts, from.state["balance"] = nil, []byte(before) // a failed turn leaves nothing
		}
		if got != transfer.want {
			t.Errorf("%s transfers %s: %s, want %s", transfer.from, transfer.payload, got, transfer.want)
		}
		for _, c := range from.casts {
			to := accounts[c.ID]
			mustInvoke(t, to, to.world, c.Operation, string(c.Payload))
		}
		from.casts = nil
		sum := 0
		for id, a := range accounts {
			var n int
			if err := json.Unmarshal([]byte(mustInvoke(t, a, a.world, "balance", "")), &n); err != nil || n < 0 {
				t.Errorf("%s has %d, %v", id, n, err)
			}
			sum += n
		}
		if sum != 2000 {
			t.Errorf("after %s transfers %s all accounts have %d, want 2000", transfer.from, transfer.payload, sum)
		}
	}
}

func TestExampleTicker(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i, w := instantiate(t, prepare(t, r, goGuest(t, "../examples/ticker"), nola.Manifest{})), newWorld()
	if got := mustInvoke(t, i, w, "tick", ""); !strings.HasPrefix(got, "tick 1 by client, due 2026-03-04T05:06:07.000000008Z, 0s late") {
		t.Errorf("tick by hand: %s", got)
	}
	w.inv.Kind = nola.KindSchedule
	w.inv.Caller = nola.Caller{Name: "demo", Nominal: w.now.Add(-1500 * time.Millisecond)}
	line := mustInvoke(t, i, w, "tick", "")
	if line != "tick 2 by schedule demo, due 2026-03-04T05:06:05.500000008Z, 1.5s late" || w.logs[1] != "info: "+line {
		t.Errorf("tick by schedule: %s, logs %q", line, w.logs)
	}
	want := `{"ticks":2,"nominal":"2026-03-04T05:06:05.500000008Z","fired":"2026-03-04T05:06:07.000000008Z","by":"schedule demo"}`
	if got := mustInvoke(t, i, w, "status", ""); got != want {
		t.Errorf("status = %s, want %s", got, want)
	}
}
