package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/nolaproject/nola"
)

var alice = nola.ActorRef{Namespace: "default", Type: "counter", ID: "alice"}

func TestSessionsAcknowledgeWhatIsAnswered(t *testing.T) {
	var s sessions
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	ctx := context.Background()
	type open struct {
		x *session
		k nola.Key
	}
	var calls []open
	seen := map[uint64]bool{}
	for range 20_000 {
		if len(calls) < nola.SessionWindow/2 && random.IntN(2) == 0 || len(calls) == 0 {
			lowest := ^uint64(0)
			for _, c := range calls {
				lowest = min(lowest, c.k.Seq)
			}
			if len(calls) > 0 && calls[0].x.next-lowest >= nola.SessionWindow {
				// The window is full: answer the lowest first.
				for i, c := range calls {
					if c.k.Seq == lowest {
						s.end(c.x, c.k.Seq, true)
						calls = append(calls[:i], calls[i+1:]...)
						break
					}
				}
				continue
			}
			x, k, err := s.begin(ctx, alice)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Validate(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if seen[k.Seq] {
				t.Fatalf("seed %d: number %d came twice", seed, k.Seq)
			}
			if want := min(lowest, k.Seq); k.AckedBelow != want {
				t.Fatalf("seed %d: acked below %d, the lowest unanswered is %d", seed, k.AckedBelow, want)
			}
			seen[k.Seq] = true
			calls = append(calls, open{x, k})
			continue
		}
		i := random.IntN(len(calls))
		s.end(calls[i].x, calls[i].k.Seq, true)
		calls[i] = calls[len(calls)-1]
		calls = calls[:len(calls)-1]
	}
}

func TestSessionsWaitWhileTheWindowIsFull(t *testing.T) {
	var s sessions
	first, key, err := s.begin(context.Background(), alice)
	if err != nil {
		t.Fatal(err)
	}
	for range nola.SessionWindow - 1 {
		if _, _, err := s.begin(context.Background(), alice); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.begin(ended, alice); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v with a full window, want the context's", err)
	}
	got := make(chan nola.Key)
	go func() {
		_, k, _ := s.begin(context.Background(), alice)
		got <- k
	}()
	s.end(first, key.Seq, true)
	if k := <-got; k.Seq != nola.SessionWindow || k.AckedBelow != 1 {
		t.Errorf("key %+v, want number %d and 1 acknowledged", k, nola.SessionWindow)
	}
}

func TestSessionsGiveUpUnknownOutcomes(t *testing.T) {
	var s sessions
	ctx := context.Background()
	x, lost, _ := s.begin(ctx, alice)
	_, during, _ := s.begin(ctx, alice)
	s.end(x, lost.Seq, false)
	_, after, err := s.begin(ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	if after.Session == lost.Session {
		t.Error("the session goes on after an unknown outcome, and would acknowledge it")
	}
	s.end(x, during.Seq, true)
	if low := s.ackedBelow(x); low > lost.Seq {
		t.Errorf("%d acknowledges the unknown outcome %d", low, lost.Seq)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	var s sessions
	ids := map[nola.SessionID]bool{}
	for round := range 2 {
		for i := range sessionsMax + 100 {
			ref := nola.ActorRef{Namespace: "default", Type: "t", ID: string(rune(0x4000 + i))}
			x, k, err := s.begin(context.Background(), ref)
			if err != nil {
				t.Fatal(err)
			}
			ids[k.Session] = true
			s.end(x, k.Seq, true)
		}
		if len(s.of) > sessionsMax || s.idle.Len() != len(s.of) {
			t.Fatalf("round %d: %d sessions, %d of them idle, at most %d are kept", round, len(s.of), s.idle.Len(), sessionsMax)
		}
	}
	if len(ids) != 2*(sessionsMax+100) {
		t.Errorf("%d sessions began, want one for each call after each was dropped", len(ids))
	}
}
