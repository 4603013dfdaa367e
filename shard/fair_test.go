package shard_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nolaproject/nola"
)

// spinFor has actors of a namespace run endless turns until the node ends. It
// returns when all of them have begun.
func (w *world) spinFor(wg *sync.WaitGroup, namespace string, n int) {
	w.t.Helper()
	for i := range n {
		wg.Go(func() {
			_, err := w.m.Invoke(context.Background(), &nola.Invocation{
				Target: nola.ActorRef{Namespace: namespace, Type: "t", ID: fmt.Sprint(i)}, Operation: "spin",
				Deadline: time.Now().Add(nola.CallTimeoutMax),
			})
			if err == nil {
				w.t.Error("an endless turn has ended")
			}
		})
	}
	eventually(w.t, "all turns have begun", func() bool { return w.code.spinning.Load() >= int64(n) })
}

// TestSpinningNamespaceKeepsItsShare has endless turns of one namespace, few of them
// and many, compete with one long turn of another for the only token: it takes as
// many steps as all of those together.
func TestSpinningNamespaceKeepsItsShare(t *testing.T) {
	const slices = 4000
	for _, spinners := range []int{2, 12} {
		t.Run(fmt.Sprint(spinners, " spinning"), func(t *testing.T) {
			w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 1 })
			var wg sync.WaitGroup
			w.spinFor(&wg, "loud", spinners)
			loud := w.code.spun("loud")
			before := loud.Load()
			_, err := w.m.Invoke(context.Background(), &nola.Invocation{
				Target: nola.ActorRef{Namespace: "quiet", Type: "t", ID: "a"}, Operation: "spin", Payload: []byte(fmt.Sprint(slices)),
				Deadline: time.Now().Add(nola.CallTimeoutMax),
			})
			if err != nil {
				t.Fatal(err)
			}
			took := loud.Load() - before
			w.close()
			wg.Wait()
			t.Logf("quiet took %d slices, loud %d", slices, took)
			if took > slices*3/2 {
				t.Errorf("loud took %d slices beside %d of quiet, want about as many", took, slices)
			}
		})
	}
}

// TestLongTurnsKeepNoOtherWorkWaiting has endless turns that nobody waits for
// fill a namespace. What another namespace casts arrives.
func TestLongTurnsKeepNoOtherWorkWaiting(t *testing.T) {
	w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 2 })
	const spinners = 60
	for i := range spinners {
		if _, err := w.m.Cast(context.Background(), &nola.Invocation{Target: nola.ActorRef{Namespace: "loud", Type: "t", ID: fmt.Sprint(i)}, Operation: "spin"}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all turns have begun", func() bool { return w.code.spinning.Load() >= spinners })
	for i := range 20 {
		if _, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref(fmt.Sprint("b", i%4)), Operation: "inc"}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		eventually(t, "the casts have arrived", func() bool { return w.must(fmt.Sprint("b", i), "get", "") == "5" })
	}
}

// TestTurnLeavesTheLineAtItsDeadline has a turn wait for a token, in its midst or
// before it begins, until its deadline passes. The guest itself does not look at
// the time.
func TestTurnLeavesTheLineAtItsDeadline(t *testing.T) {
	w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 2 })
	var wg sync.WaitGroup
	w.spinFor(&wg, "default", 20)
	for i := range 4 {
		_, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref(fmt.Sprint("late", i)), Operation: "spin", Deadline: time.Now().Add(20 * time.Millisecond)})
		if reason(err) != nola.ReasonDeadlineExceeded {
			t.Errorf("the turn ended with %v", err)
		}
	}
	w.close()
	wg.Wait()
}

// TestLongTurnRests has a long turn run alone, which must not rest, and beside
// short ones, for which it must.
func TestLongTurnRests(t *testing.T) {
	var rests atomic.Int64
	w := newWorld(t, 4, func(w *world) {
		w.cfg.Tokens = 2
		w.cfg.Events.Rested = func(nola.ActorRef) { rests.Add(1) }
	})
	w.must("long", "spin", "100")
	if n := rests.Load(); n != 0 {
		t.Errorf("alone, the turn rested %d times", n)
	}
	var wg sync.WaitGroup
	w.spinFor(&wg, "loud", 1)
	eventually(t, "the long turn rests", func() bool {
		w.must("short", "inc", "")
		return rests.Load() > 0
	})
	w.close()
	wg.Wait()
}

// TestLongTurnRestsAfterAStretch has a turn call another actor before slices of its
// work, so that others have begun when it looks: it rests once in each longSteps, no
// less and no more often, or in each longTime where its steps take longer, also if it
// hands its token over all the time, and goes on to until it has been alone for a while.
func TestLongTurnRestsAfterAStretch(t *testing.T) {
	const between, alone = 2, 64 // slices of 100,000 steps that make a stretch; rests of 1 ms before a turn is alone
	for name, tt := range map[string]struct {
		slices, calls, want int
		slow                time.Duration // what the clock goes on by from one look to the next
		beside              int           // endless turns of others, for the only token
	}{
		"others begin all the time":      {slices: 40, calls: 40, want: 20},
		"others begin no more":           {slices: between * 200, calls: between, want: alone},
		"others begin for a while":       {slices: between * 200, calls: between * 10, want: 10 - 1 + alone},
		"steps that take long":           {slices: 8, calls: 8, want: 8, slow: time.Millisecond},
		"others are before it":           {slices: 40, calls: 40, want: 20, beside: 3},
		"others, and it takes them long": {slices: 8, calls: 8, want: 8, slow: time.Millisecond, beside: 3},
	} {
		t.Run(name, func(t *testing.T) {
			var rests, looks atomic.Int64
			began := time.Now()
			w := newWorld(t, 4, func(w *world) {
				w.cfg.Tokens = 2 - min(tt.beside, 1)
				w.cfg.Now = func() time.Time { return began.Add(tt.slow * time.Duration(looks.Add(1))) }
				w.cfg.Events.Rested = func(ref nola.ActorRef) {
					if ref.Namespace != "loud" {
						rests.Add(1)
					}
				}
			})
			var wg sync.WaitGroup
			w.spinFor(&wg, "loud", tt.beside)
			w.must("long", "work", fmt.Sprint(tt.slices, " ", tt.calls))
			if n := rests.Load(); n != int64(tt.want) {
				t.Errorf("the turn rested %d times in %d slices, want %d", n, tt.slices, tt.want)
			}
			w.close()
			wg.Wait()
		})
	}
}

// massive is a module of which a turn calls another actor, and then takes pieceTime in
// one piece.
type massive struct{ *module }

const pieceTime = 30 * time.Millisecond

func (m massive) Instantiate(ref nola.ActorRef) (nola.Instance, error) {
	in, err := m.module.Instantiate(ref)
	return massiveInstance{in}, err
}

type massiveInstance struct{ nola.Instance }

func (massiveInstance) Invoke(_ *nola.Turn, h nola.Host) ([]byte, error) {
	if _, err := h.Call(nola.OutCall{Type: "t", ID: "other", Operation: "inc"}); err != nil {
		return nil, err
	}
	<-time.After(pieceTime)
	return nil, h.Yield(1)
}

// TestNoRestBeyondTheDeadline has a turn work for long in one piece while others begin,
// just before its deadline: it rests, but ends when it has to.
func TestNoRestBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rests := 0
		w := newWorld(t, 4, func(w *world) {
			w.types = map[string]nola.Module{"massive": massive{newModule()}, "t": w.code}
			w.cfg.Events.Rested = func(nola.ActorRef) { rests++ }
		})
		const timeout = pieceTime + 5*time.Millisecond
		began := time.Now()
		_, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: nola.ActorRef{Namespace: "default", Type: "massive", ID: "a"}, Operation: "op", Deadline: began.Add(timeout)})
		if took := time.Since(began); took > timeout || rests == 0 {
			t.Errorf("with a timeout of %s the turn rested %d times, and ended after %s: %v", timeout, rests, took, err)
		}
		w.close()
	})
}

// crawling is a module with an operation of which a step takes as long as a whole slice
// of another one.
type crawling struct {
	*module
	turns, slices atomic.Int64
	ended         atomic.Bool
}

func (m *crawling) Instantiate(ref nola.ActorRef) (nola.Instance, error) {
	in, err := m.module.Instantiate(ref)
	return &crawlingInstance{Instance: in, m: m}, err
}

// crawlMax bounds the slices of all turns that crawl.
const crawlMax = 20_000

type crawlingInstance struct {
	nola.Instance
	m      *crawling
	memory int
}

func (in *crawlingInstance) Invoke(_ *nola.Turn, h nola.Host) ([]byte, error) {
	in.m.turns.Add(1)
	for steps := uint64(1); !in.m.ended.Load() && in.m.slices.Add(1) < crawlMax; steps++ {
		for range 4 * spinSlice { // a tenth of a millisecond, which spinSlice counts for
			in.memory++
		}
		if err := h.Yield(steps); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// TestShareIsOfTime has turns whose steps take long compete with a turn of small ones
// for the only token: they have it for about as long, however few the steps are.
func TestShareIsOfTime(t *testing.T) {
	const (
		slices   = 4000 // many more than fit into the time for which loud rests, as quiet has begun
		crawlers = 3
	)
	m := &crawling{module: newModule()}
	w := newWorld(t, 4, func(w *world) {
		w.cfg.Tokens = 1
		w.types = map[string]nola.Module{"crawling": m, "t": w.code}
	})
	deadline := time.Now().Add(nola.CallTimeoutMax)
	var wg sync.WaitGroup
	for i := range crawlers {
		wg.Go(func() {
			_, err := w.m.Invoke(context.Background(), &nola.Invocation{
				Target: nola.ActorRef{Namespace: "loud", Type: "crawling", ID: fmt.Sprint(i)}, Operation: "crawl", Deadline: deadline,
			})
			if err != nil {
				t.Errorf("crawling: %v", err)
			}
		})
	}
	defer wg.Wait()
	defer m.ended.Store(true)
	eventually(t, "all turns crawl", func() bool { return m.turns.Load() == crawlers })
	before := m.slices.Load()
	_, err := w.m.Invoke(context.Background(), &nola.Invocation{
		Target: nola.ActorRef{Namespace: "quiet", Type: "t", ID: "a"}, Operation: "spin", Payload: []byte(fmt.Sprint(slices)), Deadline: deadline,
	})
	if err != nil {
		t.Fatal(err)
	}
	took := m.slices.Load() - before
	t.Logf("quiet took %d slices, loud %d of one step", slices, took)
	if took > slices*3 {
		t.Errorf("loud took %d slices beside %d of quiet, want about as many", took, slices)
	}
}

// timed is a module whose turns tell how much time they have.
type timed struct {
	*module
	now  func() time.Time
	left chan time.Duration
}

func (m *timed) Instantiate(ref nola.ActorRef) (nola.Instance, error) {
	in, err := m.module.Instantiate(ref)
	return timedInstance{in, m}, err
}

type timedInstance struct {
	nola.Instance
	m *timed
}

func (in timedInstance) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	if t.Operation == "inc" {
		in.m.left <- t.Deadline.Sub(in.m.now())
	}
	return in.Instance.Invoke(t, h)
}

// TestTimeInLineIsNotOfTheTurn has casts wait for a token for longer than a turn may
// take, by its module or at all. They have all of their time once they begin.
func TestTimeInLineIsNotOfTheTurn(t *testing.T) {
	const holders = 65 // of the only token, and of all that are lent
	for name, tt := range map[string]struct {
		may   time.Duration // by the module
		want  time.Duration
		delay time.Duration
	}{
		"a cast, as its module says":    {may: time.Second, want: time.Second},
		"a cast":                        {may: nola.CallTimeoutMax, want: nola.TurnTimeoutDefault},
		"a delayed cast, as its module": {may: time.Second, want: time.Second, delay: time.Hour},
		"a delayed cast":                {may: nola.CallTimeoutMax, want: nola.TurnTimeoutDefault, delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var ahead atomic.Int64
			now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			m := &timed{newModule(), now, make(chan time.Duration, 1)}
			m.manifest.Limits.TurnTimeout = tt.may
			w := newWorld(t, 1, func(w *world) {
				w.cfg.Tokens, w.cfg.Now = 1, now
				w.types = map[string]nola.Module{"timed": m}
			})
			target := nola.ActorRef{Namespace: "default", Type: "timed", ID: "a"}
			cast := func(due time.Time) {
				t.Helper()
				if _, err := w.m.Cast(t.Context(), &nola.Invocation{Target: target, Operation: "inc"}, due); err != nil {
					t.Fatal(err)
				}
			}
			if tt.delay > 0 {
				cast(now().Add(tt.delay))
			}
			var wg sync.WaitGroup
			for i := range holders {
				wg.Go(func() { _, _ = w.invoke(fmt.Sprint("holder", i), "wait", "gate") })
			}
			eventually(t, "all tokens are held", func() bool { return w.code.turns.Load() >= holders })
			if ahead.Add(int64(tt.delay)); tt.delay == 0 {
				cast(time.Time{})
			}
			eventually(t, "the cast waits for its turn", func() bool {
				info, err := w.m.DescribeActor(t.Context(), target)
				return err == nil && info.Mailbox == 1
			})
			ahead.Add(int64(2 * nola.TurnTimeoutDefault))
			close(w.code.gate("gate"))
			if left := <-m.left; left < tt.want/2 || left > tt.want {
				t.Errorf("the turn begins with %s, want %s", left, tt.want)
			}
			wg.Wait()
		})
	}
}
