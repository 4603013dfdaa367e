package cqlstore

import (
	"context"
	"testing"
	"time"

	"github.com/gocql/gocql"
)

// fixed is a policy of some nodes in one order.
type fixed struct {
	gocql.HostSelectionPolicy
	hosts []*gocql.HostInfo
}

// Pick implements gocql.HostSelectionPolicy.
func (f *fixed) Pick(gocql.ExecutableQuery) gocql.NextHost {
	left := f.hosts
	return func() gocql.SelectedHost {
		if len(left) == 0 {
			return nil
		}
		h := left[0]
		left = left[1:]
		return plainHost{h}
	}
}

type plainHost struct{ host *gocql.HostInfo }

func (h plainHost) Info() *gocql.HostInfo { return h.host }
func (h plainHost) Mark(error)            {}

// A node that was slow is asked after the others, for a while; all are asked in
// any case, the last one once more.
func TestSlowNodesAreAskedLast(t *testing.T) {
	now := time.Unix(0, 0)
	nodes := newSlowNodes()
	nodes.now = func() time.Time { return now }
	policy := &fixed{}
	a := &avoiding{policy, nodes}
	for _, id := range []string{"a", "b", "c"} {
		h := &gocql.HostInfo{}
		h.SetHostID(id)
		policy.hosts = append(policy.hosts, h)
		nodes.know(id, true)
	}
	ask := func(took time.Duration, err error) {
		h := a.Pick(nil)()
		now = now.Add(took)
		h.Mark(err)
	}
	want := func(order string, again int) {
		t.Helper()
		got, next := "", a.Pick(nil)
		for h := next(); h != nil; h = next() {
			got += h.Info().HostID()
		}
		if got != order || nodes.Attempts() != again {
			t.Errorf("asked in the order %s, and sent again %d times; want %s, %d", got, nodes.Attempts(), order, again)
		}
	}
	want("abcc", 1)
	ask(slowAfter, gocql.ErrUnavailable)
	want("abcc", 1)
	ask(slowAfter+1, context.Canceled) // another one was faster
	want("bcaa", 1)
	ask(slowAfter+1, nil) // with two of them slow, it is the load
	want("cabb", 0)
	ask(slowAfter+1, nil)
	want("abcc", 0)
	now = now.Add(avoidFor)
	want("abcc", 1)
	nodes.know("b", false)
	nodes.know("c", false)
	want("abcc", 0) // nobody else to ask
}
