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

// hedge is shared by all statements: it has no state.
var hedge = &gocql.SimpleSpeculativeExecution{NumAttempts: 1, TimeoutDelay: hedgeAfter}

// avoiding is a policy that asks those nodes last that were slow to answer.
type avoiding struct {
	gocql.HostSelectionPolicy
	now func() time.Time

	mu   sync.Mutex           // guards the field below
	slow map[string]time.Time // until when, by the node's id
}

func newAvoiding(policy gocql.HostSelectionPolicy) *avoiding {
	return &avoiding{HostSelectionPolicy: policy, now: time.Now, slow: map[string]time.Time{}}
}

// Pick answers the nodes of the policy below, in its order, those that were slow
// after the others.
func (a *avoiding) Pick(q gocql.ExecutableQuery) gocql.NextHost {
	next := a.HostSelectionPolicy.Pick(q)
	var later []gocql.SelectedHost
	return func() gocql.SelectedHost {
		for {
			host := next()
			if host == nil {
				if len(later) == 0 {
					return nil
				}
				host, later = later[0], later[1:]
				return a.timed(host)
			}
			if a.avoids(host.Info()) {
				later = append(later, host)
				continue
			}
			return a.timed(host)
		}
	}
}

func (a *avoiding) avoids(host *gocql.HostInfo) bool {
	if host == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	until, slow := a.slow[host.HostID()]
	if slow && !a.now().Before(until) {
		delete(a.slow, host.HostID())
		slow = false
	}
	return slow
}

func (a *avoiding) timed(host gocql.SelectedHost) gocql.SelectedHost {
	return &timedHost{host, a, a.now()}
}

// timedHost notes how long its node took. Mark is called when the statement has
// ended, also when another node was faster.
type timedHost struct {
	gocql.SelectedHost
	of    *avoiding
	began time.Time
}

// Mark implements gocql.SelectedHost.
func (h *timedHost) Mark(err error) {
	h.SelectedHost.Mark(err)
	now := h.of.now()
	if host := h.Info(); host != nil && now.Sub(h.began) > slowAfter {
		h.of.mu.Lock()
		defer h.of.mu.Unlock()
		h.of.slow[host.HostID()] = now.Add(avoidFor)
	}
}
