package wasmhost_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// spent takes an instance of m through its life and writes down what each turn cost.
// between, if there is one, is called before each turn.
func spent(t *testing.T, m nola.Module, calls []call, between func(n int)) (costs []string) {
	t.Helper()
	i, w := instantiate(t, m), newWorld()
	defer i.Close()
	for n, c := range calls {
		if between != nil {
			between(n)
		}
		turn := &nola.Turn{Operation: c.op, Payload: []byte(c.payload)}
		_, err := i.Invoke(turn, w)
		if turn.Steps == 0 {
			t.Errorf("turn %d, %s(%.20q), cost nothing", n, c.op, c.payload)
		}
		costs = append(costs, fmt.Sprintf("%s(%.20q): %d steps, %.60v", c.op, c.payload, turn.Steps, err))
		if reason, _ := reasonIfAny(err); reason == nola.ReasonCPUBudget {
			break
		}
	}
	return costs
}

func reasonIfAny(err error) (nola.Reason, bool) {
	e, ok := err.(*nola.Error)
	if !ok {
		return "", false
	}
	return e.Reason, true
}

// TestTurnsCostTheSame demands that the same turns of the same actor cost the same
// number of steps each, whatever ran before them, beside them and where: what is
// billed and what shares are reckoned by is the guest's own doing.
func TestTurnsCostTheSame(t *testing.T) {
	// The last turn ends at the budget; what it cost by then is billed as well.
	const budget = 3_000_000
	guests := conformanceGuests(t)
	guests["kitchen"] = kitchen(t)
	others := []call{{"remember", ""}, {"echo", fivePages}, {"inc", "3"}, {"nope", ""}, {"get", ""}}
	for guest, code := range guests {
		t.Run(guest, func(t *testing.T) {
			life := calls()
			if guest == "kitchen" {
				life = append(life, call{"dice", ""}, call{"clock", ""}, call{"dice", ""}, call{"fill", "2000"}, call{"grow", "3000000"},
					call{"sleep", "50"}, call{"call", `{"id":"b","operation":"x"}`}, call{"loop", ""})
			}
			limits := nola.Manifest{Limits: nola.Limits{Steps: budget}}
			want := spent(t, prepare(t, newRuntime(t, wasmhost.Config{}), code, limits), life, nil)
			demand := func(how string, want, got []string) {
				t.Helper()
				for n := range want {
					if n >= len(got) || got[n] != want[n] {
						t.Errorf("%s, turn %d: %s\nwant %s", how, n, slices.Concat(got, make([]string, len(want)))[n], want[n])
						return
					}
				}
			}
			for name, config := range memories {
				r := newRuntime(t, config)
				m := prepare(t, r, code, limits)
				demand(name+", in a new slot", want, spent(t, m, life, nil))
				for n := range 3 {
					spent(t, m, others[:1+n], nil)
					demand(name+", in a slot that others have used", want, spent(t, m, life, nil))
				}
				neighbour, w := instantiate(t, m), newWorld()
				demand(name+", between the turns of another one", want, spent(t, m, life, func(n int) {
					c := others[n%len(others)]
					_, _ = invoke(neighbour, w, c.op, c.payload)
				}))
				if r.Stats().SlotsReused == 0 {
					t.Errorf("%s: no slot was used again", name)
				}
				config.CacheDir = t.TempDir()
				prepare(t, newRuntime(t, config), code, limits)
				demand(name+", in a later process", want, spent(t, prepare(t, newRuntime(t, config), code, limits), life, nil))
			}
			whole, err := newRuntime(t, wasmhost.Config{}).PrepareWhole(t.Context(), code, limits)
			if err != nil {
				t.Fatal(err)
			}
			defer whole.Close()
			// Generators that are seeded at the start have other seeds there than those of an image.
			demand("without an image", spent(t, whole, life, nil), spent(t, whole, life, nil))
		})
	}
}

// TestTurnsCostTheSameOnEachClock runs what misbehaves on clocks of several speeds: how
// often a turn visits the host depends on the time that its steps take, what it costs
// and where its budget ends does not.
func TestTurnsCostTheSameOnEachClock(t *testing.T) {
	var now time.Time
	var look time.Duration // what the clock goes on by with each look at it
	r := newRuntime(t, wasmhost.Config{Now: func() time.Time { now = now.Add(look); return now }})
	ended := 0
	for _, h := range hostileCorpus(t) {
		if h.At != "turn" {
			continue
		}
		t.Run(h.Name, func(t *testing.T) {
			code, manifest := h.code(t), h.manifest()
			manifest.Limits.TurnTimeout = nola.CallTimeoutMax
			for _, budget := range []uint64{10_001, 80_000, 500_000} {
				manifest.Limits.Steps = budget
				m := prepare(t, r, code, manifest)
				var want string
				for _, look = range []time.Duration{0, 20 * time.Microsecond, 110 * time.Microsecond, time.Millisecond} {
					now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
					turn := &nola.Turn{Operation: "op", Payload: make([]byte, 100)}
					_, err := instantiate(t, m).Invoke(turn, newWorld())
					got := fmt.Sprintf("%d steps, %.90v", turn.Steps, err)
					if want == "" {
						want = got
					}
					if got != want {
						t.Errorf("budget %d, %s from one look to the next: %s\nwant, as on a clock that stands still: %s", budget, look, got, want)
					}
					if reason, _ := reasonIfAny(err); reason == nola.ReasonCPUBudget {
						ended++
					}
				}
			}
		})
	}
	if ended < 100 {
		t.Errorf("%d turns ended at their budget, want more", ended)
	}
}
