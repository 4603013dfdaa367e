package lane

import (
	"encoding/binary"
	"flag"
	"fmt"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	deepRuns = flag.Int("deep", 3000, "random runs of each model")
	wide     = flag.Bool("wide", false, "explore wider bounds too, which takes minutes")
	deepSeed = flag.Uint64("seed", 1, "seed of the first random run")
)

// move is one thing that may happen next in a world.
type move[W any] struct {
	do    func(w W)
	label string // of fmt.Sprintf
	args  []any
}

func (m move[W]) String() string { return fmt.Sprintf(m.label, m.args...) }

// world is a model of a store with machines in it.
type world[W any] interface {
	way[W]
	copy() W
	key(b []byte) []byte // equal keys: equal futures
}

// way is what is asked of a model for random ways alone.
type way[W any] interface {
	moves() []move[W]
	fault() string // the promise that is broken, or empty
}

type report struct {
	states int
	fault  string
	trace  []string
	full   bool // the limit was reached first
}

// explore tries all interleavings, the short ones first, until a promise breaks
// or limit states are known.
func explore[W world[W]](start W, limit int) report {
	type state struct {
		w    W
		from int32
		by   int32 // which move of that state
	}
	seedA, seedB := maphash.MakeSeed(), maphash.MakeSeed()
	known := map[[2]uint64]struct{}{}
	var states []state
	var key []byte
	add := func(w W, from, by int) bool {
		key = w.key(key[:0])
		h := [2]uint64{maphash.Bytes(seedA, key), maphash.Bytes(seedB, key)}
		if _, ok := known[h]; ok {
			return false
		}
		known[h] = struct{}{}
		states = append(states, state{w, int32(from), int32(by)})
		return true
	}
	add(start.copy(), -1, 0)
	for i := 0; i < len(states); i++ {
		w := states[i].w
		for k, m := range w.moves() {
			next := w.copy()
			m.do(next)
			if !add(next, i, k) {
				continue
			}
			if fault := next.fault(); fault != "" {
				var way []int32
				for at := int32(len(states) - 1); at > 0; at = states[at].from {
					way = append(way, states[at].by)
				}
				r := report{states: len(states), fault: fault}
				again := start.copy()
				for _, k := range slices.Backward(way) {
					m := again.moves()[k]
					r.trace = append(r.trace, m.String())
					m.do(again)
				}
				return r
			}
		}
		var none W
		states[i].w = none
		if len(states) >= limit {
			return report{states: len(states), full: true}
		}
	}
	return report{states: len(states)}
}

// wander takes one random way of at most steps.
func wander[W way[W]](w W, seed uint64, steps int) report {
	chance := rand.New(rand.NewPCG(seed, 0))
	var r report
	for r.states = range steps {
		moves := w.moves()
		if len(moves) == 0 {
			break
		}
		m := moves[chance.IntN(len(moves))]
		m.do(w)
		r.trace = append(r.trace, m.String())
		if r.fault = w.fault(); r.fault != "" {
			break
		}
	}
	return r
}

// wideLimit bounds the states of the explorations that take minutes.
const wideLimit = 8_000_000

// holds explores a model and wants no promise broken.
func holds[W world[W]](t *testing.T, start W, limit int) {
	t.Helper()
	r := explore(start, limit)
	if r.fault != "" || r.full {
		t.Fatalf("after %d states, all seen %t: %s\n%s", r.states, !r.full, r.fault, strings.Join(r.trace, "\n"))
	}
	t.Logf("%d states", r.states)
}

// breaks explores a model in which a rule was broken, and wants that found.
func breaks[W world[W]](t *testing.T, start W, limit int, fault string) {
	t.Helper()
	r := explore(start, limit)
	if !strings.Contains(r.fault, fault) || r.fault == "" {
		t.Fatalf("%d states, all seen %t, found %q, want %q\n%s", r.states, !r.full, r.fault, fault, strings.Join(r.trace, "\n"))
	}
	t.Logf("%s: found after %d states, %d steps", r.fault, r.states, len(r.trace))
}

// deep wanders through a model and wants no promise broken.
func deep[W way[W]](t *testing.T, runs int, start func(seed uint64) W, steps int) {
	t.Helper()
	for i := range runs {
		seed := *deepSeed + uint64(i)
		if r := wander(start(seed), seed, steps); r.fault != "" {
			t.Fatalf("%s\n%s\nagain: go test -run '^%s$' -deep 1 -seed %d", r.fault, strings.Join(r.trace, "\n"), t.Name(), seed)
		}
	}
}

const replicas = 3

func quorum(mask uint8) bool { return bits.OnesCount8(mask) >= 2 }

func appendInts[T ~int | ~int64 | ~uint8 | ~uint64 | ~uint32 | ~int8](b []byte, values ...T) []byte {
	for _, v := range values {
		b = binary.AppendVarint(b, int64(v))
	}
	return b
}

func appendFlags(b []byte, flags ...bool) []byte {
	for _, f := range flags {
		if f {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// sortReplicas puts what each replica has into one order: they are
// interchangeable.
func sortReplicas(b []byte, each [replicas][]byte) []byte {
	slices.SortFunc(each[:], func(x, y []byte) int { return strings.Compare(string(x), string(y)) })
	for _, r := range each {
		b = append(append(b, r...), 0xff)
	}
	return b
}
