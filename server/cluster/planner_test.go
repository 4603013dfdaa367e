package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// Of one shard: what its row says, what the node serves, what is to be done.
func TestPlanOfOneShard(t *testing.T) {
	me, other := NodeRow{ID: "me", Name: "me", Weight: 100}, NodeRow{ID: "other", Name: "other"}
	owned := ShardRow{Epoch: 4, Node: "me"}
	foreign := ShardRow{Epoch: 4, Node: "other"}
	free := ShardRow{Epoch: 4}
	for name, tt := range map[string]struct {
		row       ShardRow
		serving   nola.Epoch
		theirs    bool // the shard belongs to the other node
		unsettled bool
		dead      string
		want      StepKind
	}{
		"ours and served":                                 {row: owned, serving: 4},
		"ours and not served":                             {row: owned, want: StepClaim},
		"ours, not served, nothing settled":               {row: owned, unsettled: true, want: StepClaim},
		"served, but somebody has it under a later epoch": {row: foreign, serving: 3, want: StepDrop},
		"served under a later epoch than was read":        {row: foreign, serving: 5},
		"belongs to the other":                            {row: owned, serving: 4, theirs: true, want: StepRelease},
		"belongs to the other, nothing settled":           {row: owned, serving: 4, theirs: true, unsettled: true},
		"free":                                            {row: free, want: StepClaim},
		"free, nothing settled":                           {row: free, unsettled: true},
		"free, belongs to the other":                      {row: free, theirs: true},
		"of a node that lives":                            {row: foreign},
		"of a node that is dead":                          {row: foreign, dead: "other", want: StepClaim},
		"of a dead node, nothing settled":                 {row: foreign, dead: "other", unsettled: true, want: StepClaim},
		"released for us":                                 {row: ShardRow{Epoch: 4, HandoffTo: "me"}, want: StepClaim},
		"released for us, belongs to the other":           {row: ShardRow{Epoch: 4, HandoffTo: "me"}, theirs: true, unsettled: true, want: StepClaim},
		"released for the other":                          {row: ShardRow{Epoch: 4, HandoffTo: "other"}},
		"released for the other, which is dead":           {row: ShardRow{Epoch: 4, HandoffTo: "other"}, dead: "other", want: StepClaim},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{
				Alive: []NodeRow{me, other}, Settled: !tt.unsettled, Shards: []ShardRow{tt.row},
				Dead:    func(id string) bool { return id == tt.dead },
				Serving: func(nola.ShardID) nola.Epoch { return tt.serving },
			}
			if tt.theirs {
				v.Alive = []NodeRow{{ID: "me", Name: "me"}, {ID: "other", Name: "other", Weight: 100}}
			}
			var got StepKind
			if steps := NewPlanner("me").Plan(0, v); len(steps) > 0 {
				got = steps[0].Kind
			}
			if got != tt.want {
				t.Errorf("step %d, want %d", got, tt.want)
			}
		})
	}
}

func TestOverdueShardIsTaken(t *testing.T) {
	p := NewPlanner("me")
	v := View{
		Alive: []NodeRow{{ID: "me", Name: "me", Weight: 100}, {ID: "other", Name: "other"}}, Settled: true,
		Shards: []ShardRow{{Epoch: 4, HandoffTo: "other"}},
		Dead:   func(string) bool { return false }, Serving: func(nola.ShardID) nola.Epoch { return 0 },
	}
	if steps := p.Plan(time.Hour, v); len(steps) != 0 {
		t.Fatalf("at first sight: %+v", steps)
	}
	if steps := p.Plan(time.Hour+OverdueAfter-1, v); len(steps) != 0 {
		t.Fatalf("before it is overdue: %+v", steps)
	}
	if steps := p.Plan(time.Hour+OverdueAfter, v); len(steps) != 1 || steps[0].Kind != StepClaim {
		t.Errorf("overdue: %+v", steps)
	}
}

// Of two processes of one name the one that started later counts, whatever the order
// in which they are seen and however long the other goes on to beat.
func TestMembersOfOneName(t *testing.T) {
	for _, ids := range [][2]string{{"b#1", "b#2"}, {"b#2", "b#1"}} {
		m := NewMembers("me", 3*time.Second)
		for beat := uint64(1); beat <= 4; beat++ {
			at := time.Duration(beat) * 500 * time.Millisecond
			rows := []NodeRow{{ID: "me", Name: "me", Beat: beat}, {ID: ids[0], Name: "b", Beat: beat, Started: time.Unix(100, 0)}}
			if beat > 1 {
				rows = append(rows, NodeRow{ID: ids[1], Name: "b", Beat: beat, Started: time.Unix(200, 0)})
			}
			m.Read(at, at, rows, nil)
		}
		if alive := m.Alive(); len(alive) != 2 || alive[0].ID != ids[1] {
			t.Errorf("alive are %+v, want %s for b", alive, ids[1])
		}
	}
}

// A node is waited for as long as it says itself, whatever the lease of who waits.
func TestMembersGoByTheLeaseOfEach(t *testing.T) {
	m := NewMembers("me", 3*time.Second)
	read := func(at time.Duration) {
		m.Read(at, at, []NodeRow{{ID: "long", Beat: 1, Lease: 10 * time.Second}, {ID: "short", Beat: 1, Lease: time.Second}, {ID: "old", Beat: 1}}, nil)
	}
	read(0)
	for _, tt := range []struct {
		at   time.Duration
		dead []bool // long, short, old
	}{
		{2 * time.Second, []bool{false, true, false}},
		{4 * time.Second, []bool{false, true, true}},
		{11 * time.Second, []bool{true, true, true}},
	} {
		read(tt.at)
		if got := []bool{m.Dead("long"), m.Dead("short"), m.Dead("old")}; !slices.Equal(got, tt.dead) {
			t.Errorf("after %s dead are %v, want %v", tt.at, got, tt.dead)
		}
	}
}

func TestMembers(t *testing.T) {
	const lease = 3 * time.Second
	m := NewMembers("me", lease)
	row := func(id string, beat uint64) NodeRow { return NodeRow{ID: id, Name: id[:1], Beat: beat, Weight: 100} }
	read := func(at time.Duration, rows ...NodeRow) {
		t.Helper()
		m.Read(at, at, rows, []ShardRow{{Node: "owner"}})
	}
	alive := func() (ids []string) {
		for _, n := range m.Alive() {
			ids = append(ids, n.ID)
		}
		return ids
	}
	read(0, row("me", 1), row("b", 7))
	if got := alive(); !slices.Equal(got, []string{"me"}) {
		t.Errorf("a row that may be old counts: %v", got)
	}
	read(500*time.Millisecond, row("me", 2), row("b", 8))
	if got := alive(); !slices.Equal(got, []string{"b", "me"}) || m.Settled() {
		t.Errorf("after its second beat: %v, settled %v", got, m.Settled())
	}
	read(1499*time.Millisecond, row("me", 3), row("b", 8))
	if m.Settled() {
		t.Error("settled too early")
	}
	read(1500*time.Millisecond, row("me", 4), row("b", 8))
	if !m.Settled() {
		t.Error("not settled after the time that it takes")
	}
	read(4*time.Second, row("me", 9), row("b", 8))
	if got := alive(); !slices.Equal(got, []string{"me"}) || !m.Dead("b") || m.Settled() {
		t.Errorf("without beats: %v, dead %v, settled %v", got, m.Dead("b"), m.Settled())
	}
	if !m.Dead("owner") {
		t.Error("an owner without a row is never dead")
	}
	if got := m.Gone(4*time.Second, nil); !slices.Equal(got, []string{"b"}) {
		t.Errorf("gone: %v", got)
	}
	if got := m.Gone(4*time.Second, []ShardRow{{Node: "b"}}); len(got) != 0 {
		t.Errorf("gone though it owns a shard: %v", got)
	}
	read(5*time.Second, row("me", 10), row("b", 9))
	if !m.Dead("b") {
		t.Error("a beat that comes late revives a lease")
	}
}
