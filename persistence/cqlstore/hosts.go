package cqlstore

import (
	"sync"
	"time"

	"github.com/gocql/gocql"
)

// A node of the cluster that hangs, with its connections open, would hold each
// statement that it is to coordinate until the time-out, and longer than a lease.
const (
	// hedgeAfter is how long a plain statement waits for one coordinator before a
	// second one is asked for the same. It may be made twice: see Invariants.
	hedgeAfter = 300 * time.Millisecond
	// slowAfter is how long a statement may take before its coordinator is asked
	// last, for avoidFor.
	slowAfter = 250 * time.Millisecond
	avoidFor  = 3 * time.Second
)

// slowNodes remembers which nodes were slow. It is shared by the sessions of a
// store; its methods may be called at once.
type slowNodes struct {
	now func() time.Time

	mu    sync.Mutex           // guards the fields below
	known map[string]bool      // by the nodes' ids
	until map[string]time.Time // when a slow one is asked again
}

func newSlowNodes() *slowNodes {
	return &slowNodes{now: time.Now, known: map[string]bool{}, until: map[string]time.Time{}}
}

func (s *slowNodes) know(id string, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known {
		s.known[id] = true
		return
	}
	delete(s.known, id)
	delete(s.until, id)
}

// took notes how long a node took for a statement.
func (s *slowNodes) took(id string, d time.Duration) {
	if d <= slowAfter {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until[id] = s.now().Add(avoidFor)
}

// slow reports whether a node is to be asked last.
func (s *slowNodes) slow(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, slow := s.until[id]
	return slow && s.now().Before(until)
}

// Attempts implements gocql.SpeculativeExecutionPolicy: how often a statement is
// sent again. Where several nodes are slow the cluster has too much to do, and twice
// the statements would be more of it.
func (s *slowNodes) Attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, slow := s.now(), 0
	for _, until := range s.until {
		if now.Before(until) {
			slow++
		}
	}
	if slow > 1 || len(s.known) < 2 {
		return 0
	}
	return 1
}

// Delay implements gocql.SpeculativeExecutionPolicy.
func (s *slowNodes) Delay() time.Duration { return hedgeAfter }

// avoiding is a policy that asks those nodes last that were slow to answer.
type avoiding struct {
	gocql.HostSelectionPolicy
	nodes *slowNodes
}

// AddHost implements gocql.HostSelectionPolicy.
func (a *avoiding) AddHost(host *gocql.HostInfo) {
	a.nodes.know(host.HostID(), true)
	a.HostSelectionPolicy.AddHost(host)
}

// RemoveHost implements gocql.HostSelectionPolicy.
func (a *avoiding) RemoveHost(host *gocql.HostInfo) {
	a.nodes.know(host.HostID(), false)
	a.HostSelectionPolicy.RemoveHost(host)
}

// Pick answers the nodes of the policy below, in its order, those that were slow
// after the others, and the last one once more: the driver takes the end for an
// error, also of a statement that is under way at a node and looks for a second one.
func (a *avoiding) Pick(q gocql.ExecutableQuery) gocql.NextHost {
	next := a.HostSelectionPolicy.Pick(q)
	var later []gocql.SelectedHost
	var last gocql.SelectedHost
	return func() gocql.SelectedHost {
		host := next()
		for ; host != nil && a.nodes.slow(host.Info().HostID()); host = next() {
			later = append(later, host)
		}
		again := host == nil && len(later) == 0
		switch {
		case again && last == nil:
			return nil
		case again:
			host = last
		case host == nil:
			host, later = later[0], later[1:]
		}
		if last = host; again {
			last = nil
		}
		return &timedHost{host, a.nodes, a.nodes.now()}
	}
}

// timedHost notes how long its node took. Mark is called when the statement has
// ended, also when another node was faster.
type timedHost struct {
	gocql.SelectedHost
	nodes *slowNodes
	began time.Time
}

// Mark implements gocql.SelectedHost.
func (h *timedHost) Mark(err error) {
	h.SelectedHost.Mark(err)
	h.nodes.took(h.Info().HostID(), h.nodes.now().Sub(h.began))
}
