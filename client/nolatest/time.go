package nolatest

import (
	"context"
	"time"

	"connectrpc.com/connect"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// advanceTimeout bounds how long one Advance may take on a real clock.
const advanceTimeout = 2 * time.Minute

// Now is the server's time.
func (s *Server) Now() time.Time {
	if s.opts.Now == nil {
		return time.Now()
	}
	return s.opts.Now()
}

// Advance moves virtual time on by d. When it returns, all that is due by then
// has fired, each at its own time, and settled: timers, reminders, schedules,
// retries, what they cast and called. It needs Options.VirtualTime.
func (s *Server) Advance(d time.Duration) {
	s.t.Helper()
	s.AdvanceTo(s.Now().Add(d))
}

// AdvanceTo is Advance to a point in time. To the present one it waits until
// everything has settled, and moves nothing.
func (s *Server) AdvanceTo(t time.Time) {
	s.t.Helper()
	if s.clock == nil {
		s.t.Fatal("nolatest: time moves by itself; set Options.VirtualTime to move it")
	}
	ctx, stop := context.WithTimeout(s.t.Context(), advanceTimeout)
	defer stop()
	if _, err := s.Node.Advance(ctx, t); err != nil {
		s.t.Fatalf("nolatest: advance time: %v", err)
	}
	// The client goes by the server's clock, and learns it from an answer.
	if _, err := s.Client.Cluster.GetCluster(ctx, connect.NewRequest(&nolav1.GetClusterRequest{})); err != nil {
		s.t.Fatalf("nolatest: read the time: %v", err)
	}
}
