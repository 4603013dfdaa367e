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
// any case.
func TestSlowNodesAreAskedLast(t *testing.T) {
	now := time.Unix(0, 0)
	policy := &fixed{}
	for _, id := range []string{"a", "b", "c"} {
		h := &gocql.HostInfo{}
		h.SetHostID(id)
		policy.hosts = append(policy.hosts, h)
	}
	a := newAvoiding(policy)
	a.now = func() time.Time { return now }
	order := func() (ids string) {
		next := a.Pick(nil)
		for h := next(); h != nil; h = next() {
			ids += h.Info().HostID()
		}
		return ids
	}
	ask := func(took time.Duration, err error) {
		h := a.Pick(nil)()
		now = now.Add(took)
		h.Mark(err)
	}
	want := func(want string) {
		t.Helper()
		if got := order(); got != want {
			t.Errorf("asked in the order %s, want %s", got, want)
		}
	}
	want("abc")
	ask(slowAfter, gocql.ErrUnavailable)
	want("abc")
	ask(slowAfter+1, context.Canceled) // another one was faster
	want("bca")
	ask(slowAfter+1, nil)
	want("cab")
	ask(slowAfter+1, nil)
	want("abc")
	now = now.Add(avoidFor)
	want("abc")
	if len(a.slow) > 0 {
		t.Errorf("%v are still remembered", a.slow)
	}
}
