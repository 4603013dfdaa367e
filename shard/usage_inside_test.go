package shard

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

func actorOf(n uint64) nola.ActorRef {
	return nola.ActorRef{Namespace: "default", Type: "t", ID: fmt.Sprint(n)}
}

// TestSketchKeepsItsBounds charges actors at random, some far more than others, and
// compares what the sketch says with what is so.
func TestSketchKeepsItsBounds(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		places := 1 + random.IntN(100)
		actors := rand.NewZipf(random, 1.05+random.Float64(), 1, uint64(1+random.IntN(5000)))
		var s sketch
		s.init(places)
		steps, turns, total := map[nola.ActorRef]uint64{}, map[nola.ActorRef]uint64{}, uint64(0)
		known := map[nola.ActorRef]*watched{} // as activations remember it, right or wrong
		for range 20_000 {
			ref, n := actorOf(actors.Uint64()), uint64(random.IntN(1000))
			steps[ref], turns[ref], total = steps[ref]+n, turns[ref]+1, total+n
			w := known[ref]
			if random.IntN(3) == 0 {
				w = nil // a new activation
			}
			known[ref] = s.add(w, ref, cost{turns: 1, steps: n, ran: time.Second})
		}
		fail := func(format string, args ...any) {
			t.Errorf("seed %d, %d places: %s", seed, places, fmt.Sprintf(format, args...))
		}
		if len(s.heap) > places || len(s.actors) != len(s.heap) {
			fail("%d places are taken, %d actors known", len(s.heap), len(s.actors))
		}
		sum := uint64(0)
		for _, w := range s.heap {
			sum += w.steps
			switch true := steps[w.ref]; {
			case s.actors[w.ref] != w:
				fail("%s is not found", w.ref)
			case w.steps < true || w.steps-w.over > true:
				fail("%s took %d steps, the sketch says %d, at most %d too many", w.ref, true, w.steps, w.over)
			case w.over > total/uint64(places):
				fail("%s may have %d steps too many, of %d in all", w.ref, w.over, total)
			case w.turns > turns[w.ref] || w.ran != time.Duration(w.turns)*time.Second:
				fail("%s had %d turns, the sketch says %d in %s", w.ref, turns[w.ref], w.turns, w.ran)
			}
		}
		if sum != total {
			fail("it has %d steps of %d", sum, total)
		}
		least := s.least().steps
		for ref, n := range steps {
			if s.actors[ref] == nil && n > least {
				fail("%s took %d steps and is missing, where others took %d", ref, n, least)
			}
		}
	}
}

// TestUsageOfManyTypes has more types and namespaces than are told apart.
func TestUsageOfManyTypes(t *testing.T) {
	var u usage
	u.init(time.Now(), 256, 2)
	charge := func(namespace, name string) {
		u.charge(new(guest), 1, nola.ActorRef{Namespace: namespace, Type: name, ID: "a"}, cost{turns: 1, steps: 10})
	}
	const further = 7
	for n := range usageTypesMax + further {
		charge("first", fmt.Sprint(n))
	}
	for n := range usageNamespacesMax + further {
		charge(fmt.Sprint("n", n), "a")
		charge(fmt.Sprint("n", n), "b")
	}
	charge("first", "0")
	charge("first", "late")
	got := map[string]uint64{}
	list := u.byType()
	for _, x := range list {
		got[x.Ref.Namespace+":"+x.Ref.Type] = x.Steps
	}
	if most := usageTypesMax + usageNamespacesMax + 1; len(list) > most {
		t.Errorf("%d sums, at most %d may be", len(list), most)
	}
	for name, want := range map[string]uint64{
		"first:0":   20,
		"first:999": 10,
		"first:*":   10 * (further + 1),
		"n0:*":      20,
		"n998:*":    20,
		"*:*":       20 * (further + 1),
	} {
		if got[name] != want {
			t.Errorf("%s took %d steps, want %d", name, got[name], want)
		}
	}
}
