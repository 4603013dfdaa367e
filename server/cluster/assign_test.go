package cluster

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func shares(n int) []Share {
	var list []Share
	for i := range n {
		list = append(list, Share{fmt.Sprintf("node-%d", i), 100})
	}
	return list
}

func count(owners []string) map[string]int {
	n := map[string]int{}
	for _, o := range owners {
		n[o]++
	}
	return n
}

// Nodes of different releases must agree, so the result never changes.
func TestAssignVector(t *testing.T) {
	const want = "b c c c c c c b b b b c c b b c a b c a a b c b"
	got := strings.Join(Assign(24, []Share{{"c", 200}, {"a", 50}, {"b", 100}, {"d", 0}}), " ")
	if got != want {
		t.Errorf("Assign answered\n%s, want\n%s", got, want)
	}
	if got := Assign(2, []Share{{"d", 0}}); !slices.Equal(got, []string{"", ""}) {
		t.Errorf("without weights: %q", got)
	}
}

func TestAssignFollowsWeights(t *testing.T) {
	const n = 10_000
	got := count(Assign(n, []Share{{"a", 1}, {"b", 2}, {"c", 5}, {"d", 0}}))
	for name, part := range map[string]float64{"a": 1. / 8, "b": 2. / 8, "c": 5. / 8, "d": 0} {
		mean := n * part
		if off := math.Abs(float64(got[name]) - mean); off > 5*math.Sqrt(mean)+1 {
			t.Errorf("%s has %d of %d shards, want about %.0f", name, got[name], n, mean)
		}
	}
}

func TestAssignMovesLittle(t *testing.T) {
	const n = 1024
	before := shares(9)
	old := Assign(n, before)
	for name, tt := range map[string]struct {
		after []Share
		moves func(from, to string) bool // what may move
	}{
		"a node joins":             {append(slices.Clone(before), Share{"new", 100}), func(_, to string) bool { return to == "new" }},
		"a node leaves":            {before[1:], func(from, _ string) bool { return from == before[0].Name }},
		"a node gives all away":    {append([]Share{{before[0].Name, 0}}, before[1:]...), func(from, _ string) bool { return from == before[0].Name }},
		"a node grows":             {append([]Share{{before[0].Name, 300}}, before[1:]...), func(_, to string) bool { return to == before[0].Name }},
		"a node shrinks":           {append([]Share{{before[0].Name, 30}}, before[1:]...), func(from, _ string) bool { return from == before[0].Name }},
		"all grow alike":           {scaled(before, 7), func(_, _ string) bool { return false }},
		"the order is another":     {reversed(before), func(_, _ string) bool { return false }},
		"one leaves, one replaces": {append(slices.Clone(before[1:]), Share{"new", 100}), func(from, to string) bool { return from == before[0].Name || to == "new" }},
	} {
		t.Run(name, func(t *testing.T) {
			moved := 0
			for shard, owner := range Assign(n, tt.after) {
				if owner == old[shard] {
					continue
				}
				moved++
				if !tt.moves(old[shard], owner) {
					t.Errorf("shard %d moved from %s to %s", shard, old[shard], owner)
				}
			}
			if moved > 2*n/len(before)+64 {
				t.Errorf("%d of %d shards moved", moved, n)
			}
		})
	}
}

func scaled(list []Share, by int) []Share {
	out := slices.Clone(list)
	for i := range out {
		out[i].Weight *= by
	}
	return out
}

func reversed(list []Share) []Share {
	out := slices.Clone(list)
	slices.Reverse(out)
	return out
}
