package shard

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// turnstile is turns that hold and want tokens, without goroutines: the test says
// who goes on.
type turnstile struct {
	t       *testing.T
	tokens  tokens
	holders []*spinner
}

// spinner is a turn that would like to run for ever.
type spinner struct {
	namespace string
	token     hold
	claim     *claim
	steps     uint64
}

const slice = 100_000 // steps between two yields

func newTurnstile(t *testing.T, n int) *turnstile {
	s := &turnstile{t: t}
	s.tokens.init(n, time.Hour, func(task, hold) { t.Error("there are no tasks") })
	return s
}

// enter has a turn of a namespace ask for a token.
func (s *turnstile) enter(namespace string) *spinner {
	x := &spinner{namespace: namespace, claim: &claim{token: make(chan hold, 1)}}
	var ok bool
	if x.token, ok = s.tokens.claim(namespace, false, x.claim); ok {
		s.holders = append(s.holders, x)
	}
	return x
}

// run has the holder i take steps and yield, or end its turn, and takes in who
// has got a token by that.
func (s *turnstile) run(i int, steps uint64, ends bool, all []*spinner) {
	x := s.holders[i]
	x.steps += steps
	if ends {
		s.tokens.giveBack(x.token, x.namespace, steps)
	} else if s.tokens.yield(x.token, x.namespace, steps, x.claim) {
		return
	}
	s.holders = append(s.holders[:i], s.holders[i+1:]...)
	for _, w := range all {
		select {
		case w.token = <-w.claim.token:
			s.holders = append(s.holders, w)
		default:
		}
	}
}

func (s *turnstile) holds(x *spinner) bool {
	for _, h := range s.holders {
		if h == x {
			return true
		}
	}
	return false
}

// TestTokensGoRoundByNamespace has namespaces with different numbers of endless
// turns share two tokens: each takes as many steps, however many turns it has.
func TestTokensGoRoundByNamespace(t *testing.T) {
	turns := map[string]int{"one": 1, "few": 3, "many": 40, "crowd": 200}
	s := newTurnstile(t, 2)
	var all []*spinner
	for _, namespace := range []string{"crowd", "many", "few", "one"} {
		for range turns[namespace] {
			all = append(all, s.enter(namespace))
		}
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 40_000 {
		if len(s.holders) != 2 {
			t.Fatalf("seed %d: %d tokens are held, want 2", seed, len(s.holders))
		}
		s.run(random.IntN(2), slice, false, all)
	}
	sum := make(map[string]uint64)
	least := make(map[string]uint64)
	for _, x := range all {
		sum[x.namespace] += x.steps
		if old, ok := least[x.namespace]; !ok || x.steps < old {
			least[x.namespace] = x.steps
		}
	}
	const share = 40_000 * slice / 4
	for namespace, n := range turns {
		if got := sum[namespace]; got < share*99/100 || got > share*101/100 {
			t.Errorf("seed %d: %d turns of %q took %d steps, its share is %d", seed, n, namespace, got, share)
		}
		if got, want := least[namespace], uint64(share/n*8/10); got < want {
			t.Errorf("seed %d: a turn of %q took %d steps, its share is %d", seed, namespace, got, share/n)
		}
	}
}

// TestTokenIsHandedOverAtTheNextYield has a third namespace come in again and
// again while two endless turns hold both tokens: it never waits for more than
// one slice of one of them, and neither is it favoured for having waited.
func TestTokenIsHandedOverAtTheNextYield(t *testing.T) {
	for _, spaces := range [][2]string{{"loud", "loud"}, {"loud", "shrill"}} {
		s := newTurnstile(t, 2)
		all := []*spinner{s.enter(spaces[0]), s.enter(spaces[1])}
		for i := range 1000 {
			quiet := s.enter("quiet")
			if s.holds(quiet) {
				t.Fatal("there were more tokens than two")
			}
			if all = append(all[:2], quiet); i == 0 {
				s.run(0, slice, false, all)
			} else {
				s.run(i%2, slice, false, all)
			}
			if !s.holds(quiet) {
				t.Fatalf("%v: in round %d, a turn of another namespace waits beyond the first yield", spaces, i)
			}
			for j, x := range s.holders {
				if x == quiet {
					s.run(j, 500, true, all)
					break
				}
			}
		}
	}
}

// TestTokensKeepNoScore has a namespace work alone for long: it pays nothing for
// that when another one comes, and the other one has saved up nothing.
func TestTokensKeepNoScore(t *testing.T) {
	s := newTurnstile(t, 1)
	first := s.enter("first")
	for range 1000 {
		s.run(0, slice, false, nil)
	}
	all := []*spinner{first, s.enter("second")}
	first.steps = 0
	for range 1000 {
		s.run(0, slice, false, all)
	}
	const slack = savedWorkMax + 2*slice
	if a, b := all[0].steps, all[1].steps; a+b != 1000*slice || a > b+slack || b > a+slack {
		t.Errorf("side by side, the first took %d steps and the second %d", a, b)
	}
}

// TestBegunTurnsGoFirstWhenManyWait has turns come in without end while others of
// their namespace are in their midst: there are never many more of those than
// begunMax.
func TestBegunTurnsGoFirstWhenManyWait(t *testing.T) {
	s := newTurnstile(t, 2)
	var all []*spinner
	for range 4 * begunMax {
		all = append(all, s.enter("one"))
	}
	for range 8 * begunMax {
		s.run(0, slice, false, all)
	}
	begun := 0
	for _, x := range all {
		if x.steps > 0 {
			begun++
		}
	}
	if begun > begunMax+4 {
		t.Errorf("%d turns have begun, want at most %d", begun, begunMax+4)
	}
}

// TestAbandonedClaimsGetNothing takes claims back, whose tokens go to the next.
func TestAbandonedClaimsGetNothing(t *testing.T) {
	s := newTurnstile(t, 1)
	s.enter("a")
	var all []*spinner
	for i := range 10 {
		all = append(all, s.enter(fmt.Sprint("n", i%3)))
	}
	for i, x := range all {
		if i != 7 && !s.tokens.abandon(x.claim) {
			t.Errorf("claim %d had a token", i)
		}
	}
	if n := s.tokens.waiting.Load(); n != 1 {
		t.Errorf("%d wait, want 1", n)
	}
	s.run(0, slice, true, all)
	if !s.holds(all[7]) || len(s.holders) != 1 {
		t.Errorf("%d hold a token, want the one that was left", len(s.holders))
	}
	if s.tokens.abandon(all[7].claim) {
		t.Error("a claim was taken back that had its token")
	}
	s.run(0, slice, true, nil)
	if x := s.enter("b"); !s.holds(x) {
		t.Error("the token was lost")
	}
}

// TestTokenIsLentForStuckOnes has the holders of both tokens get stuck: extra ones
// are lent, and taken back when the stuck turns go on.
func TestTokenIsLentForStuckOnes(t *testing.T) {
	s := newTurnstile(t, 2)
	stuck := []*spinner{s.enter("a"), s.enter("a")}
	waits := []*spinner{s.enter("b"), s.enter("b"), s.enter("b")}
	s.tokens.lend()
	s.holders = nil
	select {
	case waits[0].token = <-waits[0].claim.token:
	default:
		t.Fatal("nothing was lent")
	}
	s.holders = []*spinner{waits[0]}
	s.run(0, slice, true, waits)
	s.tokens.lend() // a token has changed hands since the line was looked at
	if !s.holds(waits[1]) || s.tokens.lent.Load() != 1 {
		t.Errorf("the lent token was not handed on, or another one was lent, though the line moves: %d lent", s.tokens.lent.Load())
	}
	s.holders = []*spinner{stuck[0]}
	s.run(0, slice, true, waits)
	if s.holds(waits[2]) || s.tokens.lent.Load() != 0 {
		t.Errorf("the first token was handed on beside the one that was lent for it: %d lent", s.tokens.lent.Load())
	}
	s.holders = []*spinner{stuck[1]}
	s.run(0, slice, true, waits)
	if !s.holds(waits[2]) {
		t.Error("the second token was not handed on")
	}
}

// TestLentTokensAreTakenBack has turns of two namespaces that only seemed stuck run with
// tokens that were lent, so that nobody waits any more: as they yield, as many run at once
// as there are tokens, and the namespaces share them.
func TestLentTokensAreTakenBack(t *testing.T) {
	s := newTurnstile(t, 1)
	all := []*spinner{s.enter("loud"), s.enter("loud"), s.enter("quiet")}
	for _, w := range all[1:] {
		s.tokens.lend()
		select {
		case w.token = <-w.claim.token:
			s.holders = append(s.holders, w)
		default:
			t.Fatal("nothing was lent")
		}
	}
	for range len(all) {
		s.run(0, slice, false, all)
	}
	if len(s.holders) != 1 || s.tokens.lent.Load() != 0 {
		t.Fatalf("%d run at once, %d lent, want one", len(s.holders), s.tokens.lent.Load())
	}
	for _, x := range all {
		x.steps = 0
	}
	for range 1000 {
		s.run(0, slice, false, all)
	}
	if loud, quiet := all[0].steps+all[1].steps, all[2].steps; loud > quiet+4*slice || quiet > loud+4*slice {
		t.Errorf("loud took %d steps, quiet %d, want as many", loud, quiet)
	}
}

// TestSharesAreForgotten has many namespaces come and go.
func TestSharesAreForgotten(t *testing.T) {
	s := newTurnstile(t, 1)
	last := s.enter("first")
	for i := range 100 * sharesMin {
		next := s.enter(fmt.Sprint("n", i))
		s.holders = []*spinner{last}
		s.run(0, slice, true, []*spinner{next})
		last = next
	}
	if n := len(s.tokens.shares); n > 2*sharesMin {
		t.Errorf("%d shares are kept, want at most %d", n, 2*sharesMin)
	}
}
