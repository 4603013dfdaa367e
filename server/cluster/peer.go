package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
	"github.com/nolaproject/nola/proto/nola/peer/v1/peerv1connect"
	"github.com/nolaproject/nola/shard"
)

// clusterHeader says for which cluster a request is meant.
const clusterHeader = "Nola-Cluster"

// Handler serves the other nodes, on a listener of its own. Who does not show the
// cluster's token is refused before anything is read.
func (m *Member) Handler() http.Handler {
	path, h := peerv1connect.NewPeerServiceHandler(&service{m: m}, connect.WithReadMaxBytes(MessageBytesMax))
	mux := http.NewServeMux()
	mux.Handle(path, h)
	want := sha256.Sum256([]byte("Bearer " + m.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		switch {
		case subtle.ConstantTimeCompare(got[:], want[:]) == 0:
			http.Error(w, "the token is not that of this cluster", http.StatusUnauthorized)
		case r.Header.Get(clusterHeader) != m.cluster:
			http.Error(w, "this node belongs to cluster "+m.cluster, http.StatusForbidden)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// service is the PeerService of a node.
type service struct{ m *Member }

// missed is the answer to who asks for a shard that is not served here, with what
// is known of its owner.
func (s *service) missed(id nola.ShardID) *peerv1.Error {
	if int(id) >= len(s.m.routes) {
		return errorMessage(nola.Errorf(nola.ReasonInvalidArgument, "shard %d: the cluster has %d", id, len(s.m.routes)))
	}
	return s.message(id, errNoOwner(id))
}

// refusal is err as a message. Of a shard that is on its way it waits to know where to.
func (s *service) refusal(ctx context.Context, id nola.ShardID, err error) *peerv1.Error {
	if moved(err) {
		s.m.await(ctx, id)
	}
	return s.message(id, err)
}

// message is err as a message; if the shard has moved, it says where.
func (s *service) message(id nola.ShardID, err error) *peerv1.Error {
	m := errorMessage(err)
	if r := s.m.routes[id].Load(); r != nil && moved(err) && r.node != "" && r.node != s.m.ID() {
		m.Owner = &peerv1.Owner{Node: r.node, Epoch: uint64(r.epoch)}
	}
	return m
}

// serves reports whether a shard is served here. It waits for one that is on its way.
func (s *service) serves(ctx context.Context, id nola.ShardID) bool {
	if int(id) >= len(s.m.routes) {
		return false
	}
	return s.m.shards.Serving(id) != 0 || s.m.await(ctx, id) && s.m.shards.Serving(id) != 0
}

// Calls begins calls in the order in which they come, and answers them as they end.
func (s *service) Calls(ctx context.Context, stream *connect.BidiStream[peerv1.CallsRequest, peerv1.CallsResponse]) error {
	a := &answerer{stream: stream, s: s, results: make(chan *peerv1.Result, unansweredMax), cancels: map[uint64]context.CancelFunc{}}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan error, 1)
	go func() {
		err := a.send()
		if err != nil {
			stop() // nobody hears the answers
		}
		sent <- err
	}()
	err := a.receive(ctx)
	stop() // who waits for answers has gone
	a.wg.Wait()
	close(a.results)
	return errors.Join(err, <-sent)
}

// answerer is one stream of calls, on the owner's side.
type answerer struct {
	s       *service
	stream  *connect.BidiStream[peerv1.CallsRequest, peerv1.CallsResponse]
	results chan *peerv1.Result
	wg      sync.WaitGroup

	mu      sync.Mutex // guards cancels
	cancels map[uint64]context.CancelFunc
}

func (a *answerer) receive(ctx context.Context) error {
	for {
		req, err := a.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, c := range req.GetCalls() {
			a.begin(ctx, c)
		}
		a.mu.Lock()
		for _, tag := range req.GetCancels() {
			if cancel := a.cancels[tag]; cancel != nil {
				cancel()
			}
		}
		a.mu.Unlock()
	}
}

func (a *answerer) begin(ctx context.Context, c *peerv1.Call) {
	m := a.s.m
	inv := invocationOf(m.cfg.Now(), c.GetInvocation())
	if err := inv.Target.Validate(); err != nil {
		a.answer(c.GetTag(), nola.Result{}, errorMessage(err))
		return
	}
	id := m.shardOf(inv.Target)
	a.mu.Lock()
	full := len(a.cancels) >= unansweredMax
	a.mu.Unlock()
	if full {
		e := nola.LimitError(nola.ReasonNodeOverloaded, "forwarded_calls", unansweredMax, "%d calls of one stream are unanswered, the limit; it was not executed, try again later", unansweredMax)
		e.RetryAfter = overloadedRetry
		a.answer(c.GetTag(), nola.Result{}, errorMessage(e))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	a.mu.Lock()
	a.cancels[c.GetTag()] = cancel
	a.mu.Unlock()
	type outcome struct {
		result nola.Result
		err    error
	}
	decided := make(chan outcome, 1)
	begin := func() {
		if err := m.shards.Begin(ctx, inv, func(result nola.Result, err error) { decided <- outcome{result, err} }); err != nil {
			decided <- outcome{err: err}
		}
	}
	served := m.shards.Serving(id) != 0
	if served {
		begin() // before those behind it
	}
	a.wg.Go(func() {
		defer cancel()
		var o outcome
		var e *peerv1.Error
		wait, end := m.within(ctx, inv)
		defer end()
		if !served && !a.s.serves(wait, id) {
			e = a.s.missed(id)
		} else {
			if !served {
				begin()
			}
			if o = <-decided; o.err != nil {
				e = a.s.refusal(wait, id, o.err)
			}
		}
		a.mu.Lock()
		delete(a.cancels, c.GetTag())
		a.mu.Unlock()
		a.answer(c.GetTag(), o.result, e)
	})
}

func (a *answerer) answer(tag uint64, result nola.Result, e *peerv1.Error) {
	r := &peerv1.Result{Tag: tag, Payload: result.Payload, Replayed: result.Replayed, Error: e}
	if !result.ID.IsZero() {
		r.Id = result.ID[:]
	}
	a.results <- r
}

// send brings answers back, several at once if there are, and drains them when
// nobody hears any more.
func (a *answerer) send() error {
	var failed error
	for r := range a.results {
		m := &peerv1.CallsResponse{Results: []*peerv1.Result{r}}
		bytes := len(r.GetPayload())
	more:
		for len(m.GetResults()) < batchMax && bytes < batchBytesMax {
			select {
			case r, ok := <-a.results:
				if !ok {
					break more
				}
				bytes += len(r.GetPayload())
				m.Results = append(m.Results, r)
			default:
				break more
			}
		}
		if failed == nil {
			failed = a.stream.Send(m)
		}
	}
	return failed
}

// Deliver takes casts in.
func (s *service) Deliver(ctx context.Context, req *connect.Request[peerv1.DeliverRequest]) (*connect.Response[peerv1.DeliverResponse], error) {
	m := req.Msg
	to := nola.ShardID(m.GetTo())
	if !s.serves(ctx, to) {
		return connect.NewResponse(&peerv1.DeliverResponse{Error: s.missed(to)}), nil
	}
	if len(m.GetRows()) > persistence.StreamWindow {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d casts, at most %d are allowed", len(m.GetRows()), persistence.StreamWindow))
	}
	d := &shard.Delivery{From: nola.ShardID(m.GetFrom()), To: to, Epoch: nola.Epoch(m.GetEpoch())}
	for _, row := range m.GetRows() {
		inv := invocationOf(s.m.cfg.Now(), row.GetInvocation())
		if err := inv.Target.Validate(); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		if s.m.shardOf(inv.Target) != to {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s is not of shard %d", inv.Target, to))
		}
		d.Rows = append(d.Rows, persistence.OutboxRow{To: to, Number: row.GetNumber(), Invocation: inv})
	}
	if err := s.m.shards.Deliver(ctx, d); err != nil {
		return connect.NewResponse(&peerv1.DeliverResponse{Error: s.refusal(ctx, to, err)}), nil
	}
	return connect.NewResponse(&peerv1.DeliverResponse{Taken: d.Taken}), nil
}

// Ask carries one of the other operations out.
func (s *service) Ask(ctx context.Context, req *connect.Request[peerv1.AskRequest]) (*connect.Response[peerv1.AskResponse], error) {
	m := req.Msg
	if run := nodeOperations[m.GetOperation()]; run != nil {
		result, err := run(ctx, s.m)
		return connect.NewResponse(&peerv1.AskResponse{Result: result, Error: errorMessage(err)}), nil
	}
	run := operations[m.GetOperation()]
	if run == nil {
		return nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("operation %q is not known here: the node is of another release", m.GetOperation()))
	}
	id := nola.ShardID(m.GetShard())
	if !s.serves(ctx, id) {
		return connect.NewResponse(&peerv1.AskResponse{Error: s.missed(id)}), nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(time.Millisecond, m.GetTimeout().AsDuration()))
	defer cancel()
	result, err := run(ctx, s.m.shards, m.GetArguments())
	if err != nil {
		return connect.NewResponse(&peerv1.AskResponse{Error: s.refusal(ctx, id, err)}), nil
	}
	return connect.NewResponse(&peerv1.AskResponse{Result: result}), nil
}

// Read reads committed rows.
func (s *service) Read(ctx context.Context, req *connect.Request[peerv1.ReadRequest]) (*connect.Response[peerv1.ReadResponse], error) {
	m := req.Msg
	id := nola.ShardID(m.GetShard())
	if !s.serves(ctx, id) {
		return connect.NewResponse(&peerv1.ReadResponse{Error: s.missed(id)}), nil
	}
	res := &peerv1.ReadResponse{}
	var err error
	table, actor := persistence.Table(m.GetTable()), actorOf(m.GetActor())
	if rg := m.GetRange(); rg != nil {
		res.Rows, res.More, err = scanPage(s.m.cfg.Store, persistence.Range{Table: table, Shard: id, Actor: actor, From: rg.GetFrom(), To: rg.GetTo(), Reverse: rg.GetReverse()})
	} else {
		var value []byte
		var found bool
		if value, found, err = s.m.cfg.Store.Get(persistence.Row{Table: table, Shard: id, Actor: actor, Key: m.GetKey()}); found {
			res.Rows = []*peerv1.StoredRow{{Key: m.GetKey(), Value: value}}
		}
	}
	if err == nil {
		err = s.m.confirm(id)
	}
	if err != nil {
		return connect.NewResponse(&peerv1.ReadResponse{Error: s.refusal(ctx, id, err)}), nil
	}
	return connect.NewResponse(res), nil
}

// Tail follows a log.
func (s *service) Tail(ctx context.Context, req *connect.Request[peerv1.TailRequest], stream *connect.ServerStream[peerv1.TailResponse]) error {
	ref := actorOf(req.Msg.GetActor())
	if err := ref.Validate(); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	if id := s.m.shardOf(ref); !s.serves(ctx, id) {
		return stream.Send(&peerv1.TailResponse{Error: s.missed(id)})
	}
	err := s.m.shards.TailLogs(ctx, ref, int(req.Msg.GetLimit()), func(l nola.LogRecord) error {
		return stream.Send(&peerv1.TailResponse{Entries: []*peerv1.LogEntry{{Time: stamp(l.Time), Level: l.Level, Message: l.Message, Invocation: l.Invocation[:]}}})
	})
	if err != nil && ctx.Err() == nil {
		return stream.Send(&peerv1.TailResponse{Error: errorMessage(err)})
	}
	return nil
}

// Wake has the node take a shard that was released for it or passed to it.
func (s *service) Wake(ctx context.Context, req *connect.Request[peerv1.WakeRequest]) (*connect.Response[peerv1.WakeResponse], error) {
	m := req.Msg
	if m.GetWait() {
		return connect.NewResponse(&peerv1.WakeResponse{Serves: s.serves(ctx, nola.ShardID(m.GetShard()))}), nil
	}
	s.m.arrive(nola.ShardID(m.GetShard()), nola.Epoch(m.GetEpoch()), m.GetWord())
	return connect.NewResponse(&peerv1.WakeResponse{}), nil
}

// nameOf is the name in the ID of a process, for people.
func nameOf(id string) string { name, _, _ := strings.Cut(id, "#"); return name }
