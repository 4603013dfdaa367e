package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

func TestRulesSayWhoMayHaveShards(t *testing.T) {
	type labels = map[string]string
	node := func(name string, weight int, l labels) NodeRow {
		return NodeRow{ID: name + "#1", Name: name, Weight: weight, Labels: l}
	}
	fast, slow, spot := node("fast", 100, labels{"disk": "fast"}), node("slow", 100, labels{"disk": "slow"}), node("spot", 100, labels{"disk": "fast", "spot": "yes"})
	idle := node("idle", 0, labels{"disk": "fast"})
	require := persistence.PlacementRule{Namespace: "a", Require: labels{"disk": "fast"}}
	prefer := persistence.PlacementRule{Namespace: "a", Prefer: labels{"disk": "fast"}}
	avoid := persistence.PlacementRule{Namespace: "b", Type: "t", Avoid: labels{"spot": "yes"}}
	for name, tt := range map[string]struct {
		nodes    []NodeRow
		rules    []persistence.PlacementRule
		want     []Share
		fallback bool
	}{
		"no rule":                           {nodes: []NodeRow{fast, slow, idle}, want: []Share{{"fast", 10_000}, {"slow", 10_000}}},
		"required":                          {[]NodeRow{fast, slow, spot}, []persistence.PlacementRule{require}, []Share{{"fast", 10_000}, {"spot", 10_000}}, false},
		"required, and nobody has it":       {[]NodeRow{slow}, []persistence.PlacementRule{require}, nil, true},
		"required, who has it is drained":   {[]NodeRow{slow, idle}, []persistence.PlacementRule{require}, []Share{{"idle", 1}}, true},
		"preferred":                         {[]NodeRow{fast, slow}, []persistence.PlacementRule{prefer}, []Share{{"fast", 10_000}, {"slow", 1000}}, false},
		"preferred by two":                  {[]NodeRow{slow}, []persistence.PlacementRule{prefer, prefer, prefer}, []Share{{"slow", 100}}, false},
		"avoided":                           {[]NodeRow{fast, spot}, []persistence.PlacementRule{avoid}, []Share{{"fast", 10_000}}, false},
		"avoided, and there is nobody else": {[]NodeRow{idle, spot}, []persistence.PlacementRule{avoid}, []Share{{"spot", 10_000}}, false},
		"avoided, and the others may not":   {[]NodeRow{slow, spot}, []persistence.PlacementRule{avoid, require}, []Share{{"spot", 10_000}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, fallback := View{Alive: tt.nodes, Rules: tt.rules}.shares()
			if !slices.Equal(got, tt.want) || fallback != tt.fallback {
				t.Errorf("shares %v, fallback %t, want %v, %t", got, fallback, tt.want, tt.fallback)
			}
		})
	}
}

// A node that a rule keeps from serving shards takes none, from nobody, from the dead
// or by a hand-over; it gives away what it has to who may have it, and the plan says
// why.
func TestRequiredLabelsAreKept(t *testing.T) {
	rules := []persistence.PlacementRule{{Namespace: "shop", Require: map[string]string{"zone": "eu"}}}
	us := NodeRow{ID: "us#1", Name: "us", Weight: 100, Labels: map[string]string{"zone": "us"}}
	eu := NodeRow{ID: "eu#1", Name: "eu", Weight: 100, Labels: map[string]string{"zone": "eu"}}
	v := View{
		Alive: []NodeRow{us}, Settled: true, Rules: rules,
		Shards: []ShardRow{{Shard: 0}, {Shard: 1, Epoch: 3, Node: "dead#1"}, {Shard: 2, Epoch: 4, HandoffTo: "us#1"}},
		Dead:   func(id string) bool { return id == "dead#1" }, Serving: func(nola.ShardID) nola.Epoch { return 0 },
	}
	p := NewPlanner("us#1")
	if steps := p.Plan(time.Hour, v); len(steps) != 0 {
		t.Errorf("a node without the label takes %+v", steps)
	}
	moves := p.Moves(v)
	if len(moves) != 3 || !strings.Contains(moves[0].Why, "namespace shop requires the label zone=eu") {
		t.Errorf("the plan says %+v", moves)
	}
	v.Alive = []NodeRow{eu, us}
	v.Shards = []ShardRow{{Shard: 0, Epoch: 5, Node: "us#1"}}
	v.Serving = func(nola.ShardID) nola.Epoch { return 5 }
	if steps := p.Plan(time.Hour, v); len(steps) != 1 || steps[0].Kind != StepRelease || steps[0].To != "eu#1" {
		t.Errorf("a node without the label has a shard, and does %+v", steps)
	}
	if moves := p.Moves(v); len(moves) != 1 || moves[0].To != "eu#1" || !strings.Contains(moves[0].Why, "requires the label") {
		t.Errorf("the plan says %+v", moves)
	}
}
