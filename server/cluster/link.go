package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
	"github.com/nolaproject/nola/proto/nola/peer/v1/peerv1connect"
)

// The limits of what nodes ask of each other.
const (
	MessageBytesMax = 8 << 20 // of one message
	// CallStreams is how many streams of calls lead to one node. Those to one shard
	// go through one, so that they keep their order.
	CallStreams     = 16
	unansweredMax   = 4096 // calls on one stream
	batchMax        = 256  // calls in one message
	batchBytesMax   = 3 << 20
	dialTimeout     = time.Second
	pingAfter       = 2 * time.Second // of silence on a connection
	pingTimeout     = 2 * time.Second
	askTimeout      = 15 * time.Second // of what brings no deadline
	overloadedRetry = 100 * time.Millisecond
)

// link is the way to one node.
type link struct {
	node   string
	name   string
	http   *http.Client
	client peerv1connect.PeerServiceClient
	ctx    context.Context // ends with close
	stop   context.CancelFunc
	calls  [CallStreams]calls
}

// credentials go with each request.
type credentials struct {
	http.RoundTripper
	token, cluster string
}

// RoundTrip shows the token.
func (c credentials) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set(clusterHeader, c.cluster)
	return c.RoundTripper.RoundTrip(r)
}

func newLink(row NodeRow, token, cluster string, conf *tls.Config) *link {
	protocols, scheme := new(http.Protocols), "https://"
	protocols.SetHTTP2(true)
	if conf == nil {
		protocols, scheme = new(http.Protocols), "http://"
		protocols.SetUnencryptedHTTP2(true)
	}
	transport := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig: conf, TLSHandshakeTimeout: dialTimeout, Protocols: protocols,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	l := &link{node: row.ID, name: row.Name, http: &http.Client{Transport: credentials{transport, token, cluster}}}
	l.client = peerv1connect.NewPeerServiceClient(l.http, scheme+row.Peer,
		connect.WithReadMaxBytes(MessageBytesMax), connect.WithAcceptCompression("gzip", nil, nil))
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// close ends the link; what is on its way has an unknown outcome.
func (l *link) close() {
	l.stop()
	l.http.CloseIdleConnections()
}

// calls is one stream of calls, opened anew when it has broken.
type calls struct {
	mu   sync.Mutex // guards flow
	flow *flow
}

// flow is a stream while it lasts.
type flow struct {
	l    *link
	conn *connect.BidiStreamForClient[peerv1.CallsRequest, peerv1.CallsResponse]
	kick chan struct{} // holds one: there is something to send

	mu      sync.Mutex // guards the fields below
	next    uint64
	queue   []*peerv1.Call
	cancels []uint64
	waiting map[uint64]*flight
	broken  error
}

// flight is a call that was begun.
type flight struct {
	flow *flow
	tag  uint64
	sent bool
	done chan *peerv1.Result // gets one
}

// begin puts a call on its way. Calls begun one after another on one shard are
// begun by its owner in that order.
func (l *link) begin(shard nola.ShardID, inv *peerv1.Invocation) (*flight, error) {
	c := &l.calls[shard%CallStreams]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flow != nil {
		if f, err := c.flow.add(inv); err == nil || !errors.Is(err, errBroken) {
			return f, err
		}
	}
	c.flow = &flow{l: l, kick: make(chan struct{}, 1), waiting: map[uint64]*flight{}, conn: l.client.Calls(l.ctx)}
	go c.flow.send()
	go c.flow.receive()
	f, err := c.flow.add(inv)
	if errors.Is(err, errBroken) { // before anything was sent
		err = errUnreachable(l.name, err)
	}
	return f, err
}

var errBroken = errors.New("cluster: the stream is broken")

func (s *flow) add(inv *peerv1.Invocation) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
		return nil, errBroken
	case len(s.waiting) >= unansweredMax:
		e := nola.LimitError(nola.ReasonNodeOverloaded, "forwarded_calls", unansweredMax, "%d calls wait for node %s, the limit; it was not executed, try again later", len(s.waiting), s.l.name)
		e.RetryAfter = overloadedRetry
		return nil, e
	}
	s.next++
	f := &flight{flow: s, tag: s.next, done: make(chan *peerv1.Result, 1)}
	s.waiting[f.tag] = f
	s.queue = append(s.queue, &peerv1.Call{Tag: f.tag, Invocation: inv})
	s.poke()
	return f, nil
}

func (s *flow) poke() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// cancel takes a call back whose caller has left.
func (f *flight) cancel() {
	s := f.flow
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[f.tag] != nil {
		s.cancels = append(s.cancels, f.tag)
		s.poke()
	}
}

// take is what goes into the next message.
func (s *flow) take() *peerv1.CallsRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for n < len(s.queue) && n < batchMax {
		bytes += len(s.queue[n].GetInvocation().GetPayload())
		if n > 0 && bytes > batchBytesMax {
			break
		}
		if f := s.waiting[s.queue[n].GetTag()]; f != nil {
			f.sent = true
		}
		n++
	}
	m := &peerv1.CallsRequest{Calls: s.queue[:n:n], Cancels: s.cancels}
	s.queue, s.cancels = s.queue[n:], nil
	if len(s.queue) > 0 {
		s.poke()
	}
	if len(m.Calls)+len(m.Cancels) == 0 {
		return nil
	}
	return m
}

func (s *flow) send() {
	for {
		select {
		case <-s.kick:
		case <-s.l.ctx.Done():
			s.fail(s.l.ctx.Err()) // nobody receives on a stream that has sent nothing
			return
		}
		s.mu.Lock()
		broken := s.broken
		s.mu.Unlock()
		if broken != nil {
			return
		}
		if m := s.take(); m != nil {
			if err := s.conn.Send(m); err != nil {
				return // receive hears why
			}
		}
	}
}

func (s *flow) receive() {
	for {
		res, err := s.conn.Receive()
		if err != nil {
			s.fail(err)
			return
		}
		s.mu.Lock()
		for _, r := range res.GetResults() {
			if f := s.waiting[r.GetTag()]; f != nil {
				delete(s.waiting, r.GetTag())
				f.done <- r
			}
		}
		s.mu.Unlock()
	}
}

// fail answers whoever waits: what was not sent was never executed.
func (s *flow) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
	never := neverSent(err)
	for tag, f := range s.waiting {
		e := errUnreachable(s.l.name, err)
		if f.sent && !never {
			e = nola.Errorf(nola.ReasonOutcomeUnknown, "the connection to node %s, which serves the shard, broke; the call may have run: ask with its key", s.l.name)
		}
		f.done <- &peerv1.Result{Tag: tag, Error: errorMessage(e)}
	}
	clear(s.waiting)
	s.queue = nil
	s.poke()
	go func() { _ = s.conn.CloseRequest(); _ = s.conn.CloseResponse() }() // may wait for the network
}

func errUnreachable(node string, err error) *nola.Error {
	e := nola.Errorf(nola.ReasonNoOwner, "node %s, which serves the shard, cannot be reached (%s); it was not executed, try again", node, rootOf(err))
	e.RetryAfter = overloadedRetry
	return e
}

// neverSent reports whether no connection came about.
func neverSent(err error) bool {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &op) && op.Op == "dial" ||
		errors.As(err, &certificate) || errors.As(err, &header) // it is no TLS that is spoken there
}

func rootOf(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// failed is the error of a request other than a call; what it asked for may have
// happened unless it changes nothing.
func (l *link) failed(err error, changes bool) error {
	switch {
	case neverSent(err):
		return errUnreachable(l.name, err)
	case connect.CodeOf(err) == connect.CodeUnauthenticated || connect.CodeOf(err) == connect.CodePermissionDenied:
		return nola.Errorf(nola.ReasonUnavailable, "node %s refuses this one: %v; all nodes of a cluster need the same cluster token and store", l.name, err)
	case changes:
		return nola.Errorf(nola.ReasonOutcomeUnknown, "node %s, which serves the shard, did not answer (%v); it may have happened: look before you try again", l.name, err)
	}
	e := nola.Errorf(nola.ReasonUnavailable, "node %s, which serves the shard, did not answer: %v", l.name, err)
	e.RetryAfter = overloadedRetry
	return e
}

func (l *link) String() string { return fmt.Sprintf("%s (%s)", l.name, l.node) }
