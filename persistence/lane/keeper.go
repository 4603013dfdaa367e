package lane

import (
	"fmt"
	"time"
)

// The parts of a lease, all in percent of its length.
const (
	keepPercent  = 90  // how long an acknowledged beat keeps the lease, from before it was sent
	watchPercent = 105 // how long a watcher wants to have seen no new beat
)

// BeatsMax is how many beats may be under way.
const BeatsMax = 8

// LeasePhase is where a keeper stands.
type LeasePhase uint8

// The phases of a lease. The last one is final.
const (
	LeaseStarting LeasePhase = iota // no beat is acknowledged yet
	LeaseHeld
	LeaseLapsed // take a new name for the process, and a new lane
)

var leaseNames = [...]string{"starting", "held", "lapsed"}

// String answers the phase's name.
func (p LeasePhase) String() string { return leaseNames[p] }

// Keeper holds the lease of one node: of one process, that is. Times are readings
// of one clock that goes on while the machine sleeps. One goroutine at a time
// uses it.
type Keeper struct {
	node   string
	length time.Duration
	every  time.Duration

	phase  LeasePhase
	number uint64 // of the last beat
	open   []beat // under way
	next   time.Duration
	until  time.Duration // the lease is held before this, once a beat is acknowledged
}

type beat struct {
	number uint64
	sent   time.Duration
}

// NewKeeper makes the keeper of a lease that others wait out for length, and that
// is renewed every so often. Several beats must fit into a lease. since must have
// been read before anything was written by which others know of the node, its lane
// for one: they may count from there.
func NewKeeper(node string, length, every, since time.Duration) *Keeper {
	if every <= 0 || length < 2*every {
		panic(fmt.Sprintf("lane: a lease of %v with a beat every %v", length, every))
	}
	k := &Keeper{node: node, length: length, every: every}
	k.until = since + k.kept()
	return k
}

// Phase answers where the lease stands.
func (k *Keeper) Phase(now time.Duration) LeasePhase {
	k.lapse(now)
	return k.phase
}

// Until is the time from which on the lease is over, if no beat is acknowledged
// before.
func (k *Keeper) Until() time.Duration { return k.until }

// Wake is when Tick wants to be called next, while the lease has not lapsed.
func (k *Keeper) Wake() time.Duration { return k.next }

// Tick sends a beat if it is time for one. now must have been read before the
// beat is sent.
func (k *Keeper) Tick(now time.Duration) Output {
	var out Output
	k.lapse(now)
	if k.phase == LeaseLapsed || now < k.next {
		return out
	}
	k.next = now + k.every
	if len(k.open) >= BeatsMax {
		return out
	}
	k.number++
	k.open = append(k.open, beat{k.number, now})
	out.send(Beat{Node: k.node, Number: k.number})
	return out
}

// Step takes an answer in. now must have been read after the answer came.
func (k *Keeper) Step(now time.Duration, a Answer) Output {
	var out Output
	to, ok := a.To.(Beat)
	if !ok {
		panic(fmt.Sprintf("lane: a keeper got the answer to a %T", a.To))
	}
	k.lapse(now)
	for i, b := range k.open {
		if b.number != to.Number {
			continue
		}
		k.open = append(append([]beat{}, k.open[:i]...), k.open[i+1:]...)
		if a.Outcome == Done && k.phase != LeaseLapsed {
			k.until = max(k.until, b.sent+k.kept())
			k.phase = LeaseHeld
		}
		break
	}
	return out
}

func (k *Keeper) kept() time.Duration { return k.length / 100 * keepPercent }

// lapse ends the lease for good. An acknowledgement that comes later would be of a
// beat that a watcher has not waited for.
func (k *Keeper) lapse(now time.Duration) {
	if now >= k.until {
		k.phase = LeaseLapsed
	}
}

// Sighting is a row of a node, as it was read.
type Sighting struct {
	Node   string
	Number uint64
	Lease  time.Duration // as the node itself says; 0: as the watcher's
}

// Watcher tells which nodes are dead. Times are readings of one clock that goes
// on while the machine sleeps. One goroutine at a time uses it.
type Watcher struct {
	length time.Duration
	nodes  map[string]*watched
}

type watched struct {
	number uint64
	length time.Duration // of its lease
	since  time.Duration // the end of the read that first showed it
	dead   bool
}

// NewWatcher makes a watcher of leases of that length, but for nodes that have said
// that theirs is longer or shorter.
func NewWatcher(length time.Duration) *Watcher {
	return &Watcher{length: length, nodes: map[string]*watched{}}
}

// Expect starts to watch a node of which perhaps no row is left: the one that a
// lane's head names.
func (w *Watcher) Expect(node string, now time.Duration) {
	if w.nodes[node] == nil {
		w.nodes[node] = &watched{since: now, length: w.length}
	}
}

// Read takes in what a quorum read of all nodes has shown, which began and ended
// then. A node that it does not show has not beaten.
func (w *Watcher) Read(began, ended time.Duration, rows []Sighting) {
	for _, row := range rows {
		n := w.nodes[row.Node]
		if n == nil {
			n = &watched{length: w.length}
			w.nodes[row.Node] = n
		}
		if row.Lease > 0 {
			n.length = row.Lease
		}
		if row.Number > n.number {
			n.number, n.since = row.Number, ended
		}
	}
	for _, n := range w.nodes {
		n.dead = n.dead || began > n.since+n.length/100*watchPercent
	}
}

// Dead reports whether the node's lease is over: its lane may be recovered. It
// stays so.
func (w *Watcher) Dead(node string) bool { return w.nodes[node] != nil && w.nodes[node].dead }

// Forget drops a node whose lane is sealed and whose shards are taken.
func (w *Watcher) Forget(node string) { delete(w.nodes, node) }
