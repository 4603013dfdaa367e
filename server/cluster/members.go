package cluster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/nolaproject/nola/persistence/lane"
)

// settlePart is the part of a lease for which the nodes must have been the same
// before shards move because of them.
const settlePart = 3

// forgetLeases is how many leases the row of a dead node must have been gone for
// its verdict to be forgotten. A beat of it that comes late finds the verdict.
const forgetLeases = 100

// Members tells which nodes are alive, from reads of their rows. Times are
// readings of one clock that goes on while the machine sleeps. One goroutine at a
// time uses it.
type Members struct {
	self    string
	lease   time.Duration
	watcher *lane.Watcher
	nodes   map[string]*member
	alive   []NodeRow
	changed time.Duration // when a read last showed another alive
	last    time.Duration // the end of the last read
}

type member struct {
	row   NodeRow
	first uint64        // the beat that was seen first
	seen  time.Duration // when a read last showed its row
}

// NewMembers makes the view that the node self has of leases of that length.
func NewMembers(self string, lease time.Duration) *Members {
	return &Members{self: self, lease: lease, watcher: lane.NewWatcher(lease), nodes: map[string]*member{}}
}

// Read takes in the rows of all nodes, from a read that began and ended then, and
// the owners that the rows of shards name.
func (m *Members) Read(began, ended time.Duration, rows []NodeRow, shards []ShardRow) {
	sightings := make([]lane.Sighting, len(rows))
	for i, row := range rows {
		sightings[i] = lane.Sighting{Node: row.ID, Number: row.Beat, Lease: row.Lease}
		n := m.nodes[row.ID]
		if n == nil {
			n = &member{first: row.Beat}
			m.nodes[row.ID] = n
		}
		n.row, n.seen = row, ended
	}
	for _, s := range shards {
		if s.Node != "" && m.nodes[s.Node] == nil { // an owner without a row
			m.nodes[s.Node] = &member{seen: ended}
			m.watcher.Expect(s.Node, ended)
		}
	}
	m.watcher.Read(began, ended, sightings)
	for id, n := range m.nodes {
		if m.watcher.Dead(id) && ended > n.seen+forgetLeases*m.lease {
			delete(m.nodes, id)
			m.watcher.Forget(id)
		}
	}
	before := m.alive
	m.alive, m.last = m.living(), ended
	if !slices.EqualFunc(before, m.alive, sameShare) {
		m.changed = ended
	}
}

// living lists the nodes that beat. A row that was not seen to change may be of a
// process that ended long ago, so it does not count yet.
func (m *Members) living() []NodeRow {
	newest := map[string]NodeRow{}
	for id, n := range m.nodes {
		if n.row.ID == "" || m.watcher.Dead(id) || n.row.Beat == n.first && id != m.self {
			continue
		}
		if other, found := newest[n.row.Name]; !found || newer(n.row, other) {
			newest[n.row.Name] = n.row
		}
	}
	list := make([]NodeRow, 0, len(newest))
	for _, row := range newest {
		list = append(list, row)
	}
	slices.SortFunc(list, func(a, b NodeRow) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// newer tells which of two processes of one name counts: the older one is about
// to end.
func newer(a, b NodeRow) bool {
	if c := a.Started.Compare(b.Started); c != 0 {
		return c > 0
	}
	return a.ID > b.ID
}

// sameShare reports whether two rows come to the same in an assignment.
func sameShare(a, b NodeRow) bool {
	return a.ID == b.ID && a.Weight == b.Weight && a.Leaving == b.Leaving && a.Rules == b.Rules && maps.Equal(a.Labels, b.Labels)
}

// Alive lists the nodes that are seen to live, in the order of their names, one
// for each name.
func (m *Members) Alive() []NodeRow { return m.alive }

// Settled reports whether the nodes have been the same for some time.
func (m *Members) Settled() bool { return m.last-m.changed >= m.lease/settlePart }

// Dead reports whether the lease of a process is over. It stays so.
func (m *Members) Dead(node string) bool { return m.watcher.Dead(node) }

// Row is the row of a process as it was last seen, alive or not.
func (m *Members) Row(node string) (NodeRow, bool) {
	n := m.nodes[node]
	if n == nil || n.row.ID == "" {
		return NodeRow{}, false
	}
	return n.row, true
}

// Gone lists the dead processes that left a row but own no shard: their rows may
// be forgotten.
func (m *Members) Gone(now time.Duration, shards []ShardRow) []string {
	var gone []string
	for id, n := range m.nodes {
		owns := func(s ShardRow) bool { return s.Node == id || s.HandoffTo == id }
		if n.row.ID != "" && n.seen == now && m.watcher.Dead(id) && !slices.ContainsFunc(shards, owns) {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	return gone
}
