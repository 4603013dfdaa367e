package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

// counters is a server with our API and nothing durable: it increments.
type counters struct {
	nolav1connect.UnimplementedActorServiceHandler
	mu     sync.Mutex // guards values
	values map[string]int64
	lose   atomic.Int64 // increments to answer without doing them
	refuse atomic.Bool
}

func (c *counters) call(id, operation string, amount int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.values[id]
	if operation == opInc {
		v += amount
		if c.lose.Add(-1) < 0 {
			c.values[id] = v
		}
	}
	return fmt.Sprint(v)
}

func (c *counters) Invoke(_ context.Context, r *connect.Request[nolav1.InvokeRequest]) (*connect.Response[nolav1.InvokeResponse], error) {
	return connect.NewResponse(&nolav1.InvokeResponse{Payload: []byte(c.call(r.Msg.GetActor().GetId(), r.Msg.GetOperation(), 1))}), nil
}

func (c *counters) InvokeMany(_ context.Context, s *connect.BidiStream[nolav1.InvokeManyRequest, nolav1.InvokeManyResponse]) error {
	for {
		msg, err := s.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, call := range msg.GetCalls() { // one by one: results come as they please
			result := &nolav1.InvokeManyResult{Tag: call.GetTag(), Result: &nolav1.InvokeManyResult_Payload{Payload: []byte(c.call(call.GetActor().GetId(), call.GetOperation(), 1))}}
			if c.refuse.Load() {
				result.Result = &nolav1.InvokeManyResult_Error{Error: &nolav1.Error{Reason: "SHARD_OVERLOADED", Message: "too much"}}
			}
			if err := s.Send(&nolav1.InvokeManyResponse{Results: []*nolav1.InvokeManyResult{result}}); err != nil {
				return err
			}
		}
	}
}

// serveCounters serves until the test ends, and returns a node without a process.
func serveCounters(t *testing.T) (*counters, *node) {
	t.Helper()
	c := &counters{values: map[string]int64{}}
	mux := http.NewServeMux()
	mux.Handle(nolav1connect.NewActorServiceHandler(c))
	mux.HandleFunc("POST /v1/{namespace}/{type}/{id}/{operation}", func(w http.ResponseWriter, r *http.Request) {
		if c.refuse.Load() {
			http.Error(w, `{"reason":"MAILBOX_FULL"}`, http.StatusTooManyRequests)
			return
		}
		amount := int64(1)
		if body, err := io.ReadAll(r.Body); err == nil && len(body) > 0 {
			amount, _ = number(body)
		}
		fmt.Fprint(w, c.call(r.PathValue("id"), r.PathValue("operation"), amount))
	})
	s := httptest.NewUnstartedServer(mux)
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return c, &node{process: &process{address: s.Listener.Addr().String()}}
}

const (
	slice    = 100 * time.Millisecond
	untilEnd = time.Minute // of load that ends by itself
)

// benchOn is a run whose shared server is n.
func benchOn(n *node) *bench { return &bench{each: slice, node: n, log: io.Discard} }

func TestCallRows(t *testing.T) {
	for _, e := range callsBlock().experiments {
		name := e.rows[0].name
		t.Run(name, func(t *testing.T) {
			_, n := serveCounters(t)
			b := benchOn(n)
			for range 2 {
				got, err := e.run(t.Context(), b)
				if err != nil {
					t.Fatal(err)
				}
				if s := got[name]; s.Errors != 0 || s.Value <= 0 || s.Latency == nil || s.Latency.P50 <= 0 || s.Latency.Max < s.Latency.P50 {
					t.Errorf("sample %+v %+v, want a rate, latencies and no error", s, s.Latency)
				}
			}
		})
	}
}

func TestLostIncrementsAreSeen(t *testing.T) {
	for _, e := range callsBlock().experiments {
		if name := e.rows[0].name; strings.Contains(name, "1,000 actors") && !strings.Contains(name, "read") {
			t.Run(name, func(t *testing.T) {
				c, n := serveCounters(t)
				c.lose.Store(1)
				got, err := e.run(t.Context(), benchOn(n))
				if err != nil {
					t.Fatal(err)
				}
				if s := got[name]; s.Errors == 0 || !strings.Contains(s.Error, "increments were answered") {
					t.Errorf("sample %+v, want the lost increment", s)
				}
			})
		}
	}
}

func TestRefusalsAreErrors(t *testing.T) {
	c, n := serveCounters(t)
	ids := actorNames("a", 3)
	c.refuse.Store(true)
	got, err := drive(t.Context(), 4, untilEnd, calling(t.Context(), n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(_, _ int, _ int64) error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	if got.errors != 4 || got.hist.n != 0 || !strings.Contains(got.err.Error(), "MAILBOX_FULL") {
		t.Errorf("%d errors (%v), %d answers; want one error of each caller and no answer", got.errors, got.err, got.hist.n)
	}
	streamed, err := driveStreams(t.Context(), "http://"+n.address, ids, untilEnd)
	if err != nil {
		t.Fatal(err)
	}
	if streamed.errors != streams || !strings.Contains(streamed.err.Error(), "SHARD_OVERLOADED") {
		t.Errorf("%d errors (%v), want one of each stream", streamed.errors, streamed.err)
	}
}

func TestDriveEach(t *testing.T) {
	const n = 1000
	var done [n]atomic.Int64
	got, err := driveEach(t.Context(), 7, n, func(int) (call, func(), error) {
		return func(i int) error { done[i].Add(1); return nil }, nil, nil
	})
	if err != nil || got.hist.n != n {
		t.Errorf("%d of %d calls, %v", got.hist.n, n, err)
	}
	for i := range done {
		if c := done[i].Load(); c != 1 {
			t.Fatalf("call %d was made %d times", i, c)
		}
	}
}

func TestDriveEndsCallers(t *testing.T) {
	var ended atomic.Int64
	refuses := errors.New("refuses")
	caller := func(n int) (call, func(), error) {
		if n == 3 {
			return nil, nil, refuses
		}
		return func(int) error { return nil }, func() { ended.Add(1) }, nil
	}
	if _, err := drive(t.Context(), 5, slice, caller); !errors.Is(err, refuses) || ended.Load() != 3 {
		t.Errorf("%v, %d callers ended; want %v and 3", err, ended.Load(), refuses)
	}
	if _, err := drive(t.Context(), callersMax+1, slice, caller); err == nil {
		t.Errorf("%d callers were let in", callersMax+1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := drive(ctx, 2, time.Hour, caller); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestPaceChargesWhatWasHeldUp(t *testing.T) {
	var once atomic.Bool
	const stall = 40 * time.Millisecond
	got, err := pace(t.Context(), 1, 2*stall, 1000, func(int) (call, func(), error) {
		return func(int) error {
			if once.CompareAndSwap(false, true) {
				return waitUntil(t.Context(), time.Now().Add(stall))
			}
			return nil
		}, nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// About 40 of 80 calls were due during the stall; a closed loop would have seen one.
	if p := got.hist.quantile(0.75); p < stall/8 {
		t.Errorf("p75 is %s after a stall of %s over half of the time: %d calls", p, stall, got.hist.n)
	}
}

func TestFirings(t *testing.T) {
	from := time.Unix(1000, 0)
	until := from.Add(10 * time.Second)
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(from.Add(d)) }
	fired, regular := nolav1.Outcome_OUTCOME_FIRED, nolav1.OccurrenceKind_OCCURRENCE_KIND_REGULAR
	for name, tt := range map[string]struct {
		o                               *nolav1.Occurrence
		late, failed, skipped, inWindow int
	}{
		"fired":         {&nolav1.Occurrence{Kind: regular, Outcome: fired, NominalTime: at(0), StartTime: at(5), EndTime: at(9)}, 1, 0, 0, 1},
		"before":        {&nolav1.Occurrence{Kind: regular, Outcome: fired, NominalTime: at(-9), StartTime: at(-5), EndTime: at(9)}, 0, 0, 0, 1},
		"after":         {&nolav1.Occurrence{Kind: regular, Outcome: fired, NominalTime: at(10 * time.Second), StartTime: at(10 * time.Second), EndTime: at(11 * time.Second)}, 0, 0, 0, 0},
		"late":          {&nolav1.Occurrence{Kind: regular, Outcome: fired, NominalTime: at(9 * time.Second), StartTime: at(11 * time.Second), EndTime: at(11 * time.Second)}, 1, 0, 0, 0},
		"early":         {&nolav1.Occurrence{Kind: regular, Outcome: fired, NominalTime: at(5), StartTime: at(4), EndTime: at(9)}, 0, 1, 0, 1},
		"guest failed":  {&nolav1.Occurrence{Kind: regular, Outcome: fired, NominalTime: at(5), StartTime: at(5), EndTime: at(9), Error: &nolav1.Error{}}, 0, 1, 0, 0},
		"missed range":  {&nolav1.Occurrence{Kind: regular, Outcome: nolav1.Outcome_OUTCOME_MISSED_WINDOW, NominalTime: at(5), Count: 7}, 0, 7, 0, 0},
		"skipped":       {&nolav1.Occurrence{Kind: regular, Outcome: nolav1.Outcome_OUTCOME_SKIPPED_OVERLAP, NominalTime: at(5)}, 0, 0, 1, 0},
		"still running": {&nolav1.Occurrence{Kind: regular, Outcome: nolav1.Outcome_OUTCOME_RUNNING, NominalTime: at(5)}, 0, 0, 0, 0},
		"triggered":     {&nolav1.Occurrence{Kind: nolav1.OccurrenceKind_OCCURRENCE_KIND_TRIGGER, Outcome: fired, NominalTime: at(5), StartTime: at(5), EndTime: at(9)}, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var f firings
			f.add(tt.o, from, until)
			if int(f.late.n) != tt.late || f.failed != tt.failed || f.skipped != tt.skipped || f.inWindow != tt.inWindow {
				t.Errorf("fired %d failed %d skipped %d in the window %d, want %d %d %d %d", f.late.n, f.failed, f.skipped, f.inWindow, tt.late, tt.failed, tt.skipped, tt.inWindow)
			}
		})
	}
}
