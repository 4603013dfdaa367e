package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

var alice = nola.ActorRef{Type: "counter", ID: "alice"}

// script is a server that answers the attempts of a call one after the other as
// it was told.
type script struct {
	nolav1connect.UnimplementedActorServiceHandler
	nolav1connect.UnimplementedClusterServiceHandler
	now time.Time

	mu      sync.Mutex
	answers []answer
	seen    []*nolav1.InvokeRequest
	casts   []*nolav1.CastRequest
	tokens  []string
}

type answer func(ctx context.Context) (*nolav1.InvokeResponse, error)

func reply(text string) answer {
	return func(context.Context) (*nolav1.InvokeResponse, error) {
		return &nolav1.InvokeResponse{Payload: []byte(text), InvocationId: make([]byte, 16)}, nil
	}
}

func refuse(code connect.Code, reason nola.Reason, after time.Duration) answer {
	return func(context.Context) (*nolav1.InvokeResponse, error) {
		e := connect.NewError(code, errors.New("refused: "+string(reason)))
		d, _ := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: string(reason), Domain: "nola", Metadata: map[string]string{"limit": "x"}})
		e.AddDetail(d)
		if after > 0 {
			d, _ := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
			e.AddDetail(d)
		}
		return nil, e
	}
}

// drop cuts the connection when the call has arrived.
func drop(context.Context) (*nolav1.InvokeResponse, error) { panic(http.ErrAbortHandler) }

// hang answers nothing.
func hang(ctx context.Context) (*nolav1.InvokeResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *script) Invoke(ctx context.Context, req *connect.Request[nolav1.InvokeRequest]) (*connect.Response[nolav1.InvokeResponse], error) {
	s.mu.Lock()
	s.seen = append(s.seen, req.Msg)
	s.tokens = append(s.tokens, req.Header().Get("Authorization"))
	next := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	m, err := next(ctx)
	if err != nil {
		return nil, err
	}
	res := connect.NewResponse(m)
	res.Header().Set("Nola-Server-Time", strconv.FormatInt(s.now.UnixNano(), 10))
	return res, nil
}

func (s *script) Cast(_ context.Context, req *connect.Request[nolav1.CastRequest]) (*connect.Response[nolav1.CastResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.casts = append(s.casts, req.Msg)
	return connect.NewResponse(&nolav1.CastResponse{InvocationId: []byte("0123456789abcdef")}), nil
}

func (s *script) GetCluster(context.Context, *connect.Request[nolav1.GetClusterRequest]) (*connect.Response[nolav1.GetClusterResponse], error) {
	return connect.NewResponse(&nolav1.GetClusterResponse{ServerTime: timestamppb.New(s.now)}), nil
}

func serve(t *testing.T, opts client.Options, answers ...answer) (*script, *client.Client) {
	t.Helper()
	s := &script{answers: answers, now: time.Now().Add(-3 * time.Hour)} // a clock of its own
	mux := http.NewServeMux()
	mux.Handle(nolav1connect.NewActorServiceHandler(s))
	mux.Handle(nolav1connect.NewClusterServiceHandler(s))
	ts := httptest.NewUnstartedServer(mux)
	ts.Config.Protocols = new(http.Protocols)
	ts.Config.Protocols.SetHTTP1(true)
	ts.Config.Protocols.SetUnencryptedHTTP2(true)
	ts.Start()
	t.Cleanup(ts.Close)
	c, err := client.New(ts.URL, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return s, c
}

func invoke(c *client.Client, timeout time.Duration, opts ...client.CallOption) (nola.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return c.Invoke(ctx, alice, "inc", []byte("p"), opts...)
}

func reasonOf(err error) nola.Reason {
	var e *nola.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func TestInvokeRetriesUnderOneKey(t *testing.T) {
	s, c := serve(
		t, client.Options{Token: "0123456789abcdef"},
		refuse(connect.CodeUnavailable, nola.ReasonShardMoving, time.Millisecond),
		refuse(connect.CodeResourceExhausted, nola.ReasonMailboxFull, time.Millisecond),
		drop,
		refuse(connect.CodeUnavailable, nola.ReasonOutcomeUnknown, 0),
		reply("1"),
	)
	res, err := invoke(c, 20*time.Second)
	if err != nil || string(res.Payload) != "1" {
		t.Fatalf("reply %q, error %v", res.Payload, err)
	}
	if len(s.seen) != 5 {
		t.Fatalf("%d attempts, want 5", len(s.seen))
	}
	first := s.seen[0].GetSession()
	for i, m := range s.seen {
		k := m.GetSession()
		if string(k.GetId()) != string(first.GetId()) || k.GetSeq() != first.GetSeq() || !k.GetFirstAttempt().AsTime().Equal(first.GetFirstAttempt().AsTime()) {
			t.Errorf("attempt %d has another key: %v, the first %v", i+1, k, first)
		}
		if s.tokens[i] != "Bearer 0123456789abcdef" {
			t.Errorf("attempt %d shows %q", i+1, s.tokens[i])
		}
		if m.GetTimeout().AsDuration() <= 0 || m.GetTimeout().AsDuration() >= 20*time.Second {
			t.Errorf("attempt %d has timeout %s, want less than the caller waits", i+1, m.GetTimeout().AsDuration())
		}
	}
	if len(first.GetId()) != 16 {
		t.Errorf("session id has %d bytes", len(first.GetId()))
	}
	if off := first.GetFirstAttempt().AsTime().Sub(s.now); off < 0 || off > 10*time.Second {
		t.Errorf("first attempt is stamped %s after the server's clock", off)
	}
	if _, err := invoke(c, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if k := s.seen[5].GetSession(); k.GetSeq() != first.GetSeq()+1 || k.GetAckedBelow() != k.GetSeq() {
		t.Errorf("the next call has key %v, want the next number with all before it acknowledged", k)
	}
}

func TestInvokeEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		answers  []answer
		timeout  time.Duration
		want     nola.Reason
		attempts int // 0: any
	}{
		"guest error":             {[]answer{refuse(connect.CodeUnknown, nola.ReasonGuestError, 0)}, 0, nola.ReasonGuestError, 1},
		"not found":               {[]answer{refuse(connect.CodeNotFound, nola.ReasonModuleNotFound, 0)}, 0, nola.ReasonModuleNotFound, 1},
		"limit without RetryInfo": {[]answer{refuse(connect.CodeResourceExhausted, nola.ReasonLimitExceeded, 0)}, 0, nola.ReasonLimitExceeded, 1},
		"deadline said by server": {[]answer{refuse(connect.CodeDeadlineExceeded, nola.ReasonDeadlineExceeded, 0)}, 0, nola.ReasonDeadlineExceeded, 1},
		"refused all the time":    {[]answer{refuse(connect.CodeResourceExhausted, nola.ReasonMailboxFull, time.Millisecond)}, 0, nola.ReasonMailboxFull, 4},
		"lost, then it failed":    {[]answer{drop, refuse(connect.CodeUnknown, nola.ReasonGuestError, 0)}, 0, nola.ReasonGuestError, 2},
		"lost, then refused":      {[]answer{drop, refuse(connect.CodeResourceExhausted, nola.ReasonMailboxFull, 0)}, 0, nola.ReasonOutcomeUnknown, 2},
		"lost, then too late":     {[]answer{drop, refuse(connect.CodeFailedPrecondition, nola.ReasonKeyExpired, 0)}, 0, nola.ReasonOutcomeUnknown, 2},
		"lost all the time":       {[]answer{drop}, 0, nola.ReasonOutcomeUnknown, 4},
		"server does not know":    {[]answer{refuse(connect.CodeUnavailable, nola.ReasonOutcomeUnknown, 0)}, 0, nola.ReasonOutcomeUnknown, 4},
		"no answer in time":       {[]answer{hang}, 300 * time.Millisecond, nola.ReasonOutcomeUnknown, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := serve(t, client.Options{Retries: 3}, tt.answers...)
			if tt.timeout == 0 {
				tt.timeout = 20 * time.Second
			}
			_, err := invoke(c, tt.timeout)
			if reasonOf(err) != tt.want {
				t.Fatalf("error %v (%s), want %s", err, reasonOf(err), tt.want)
			}
			s.mu.Lock() // a call that hangs may still be there
			defer s.mu.Unlock()
			if len(s.seen) != tt.attempts {
				t.Errorf("%d attempts, want %d", len(s.seen), tt.attempts)
			}
			var e *nola.Error
			if errors.As(err, &e); tt.want == nola.ReasonOutcomeUnknown && (len(e.Metadata["session"]) != 32 || e.Metadata["seq"] == "") {
				t.Errorf("metadata %v does not hold the key", e.Metadata)
			} else if tt.want == nola.ReasonMailboxFull && (e.Metadata["limit"] != "x" || e.RetryAfter != time.Millisecond) {
				t.Errorf("error %+v has lost metadata or retry", e)
			}
		})
	}
}

func TestInvokeWithAUsersKey(t *testing.T) {
	s, c := serve(t, client.Options{}, drop, reply("1"))
	if _, err := invoke(c, 20*time.Second, client.WithIdempotencyKey("order-17")); err != nil {
		t.Fatal(err)
	}
	for i, m := range s.seen {
		if m.GetIdempotencyKey() != "order-17" || m.GetSession() != nil {
			t.Errorf("attempt %d has keys %q and %v", i+1, m.GetIdempotencyKey(), m.GetSession())
		}
	}
	if _, err := invoke(c, time.Second, client.WithIdempotencyKey(strings.Repeat("x", 257))); reasonOf(err) != nola.ReasonInvalidKey {
		t.Errorf("error %v for a key that is too long", err)
	}
}

func TestCast(t *testing.T) {
	s, c := serve(t, client.Options{}, reply(""))
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, opts := range [][]client.CallOption{nil, {client.WithDelay(time.Minute)}, {client.WithDeliverAt(at)}} {
		res, err := c.Cast(context.Background(), alice, "inc", nil, opts...)
		if err != nil || string(res.ID[:]) != "0123456789abcdef" {
			t.Fatalf("id %s, error %v", res.ID, err)
		}
	}
	if m := s.casts[0]; m.GetDelivery() != nil || m.GetSession() == nil {
		t.Errorf("cast %v", m)
	}
	if m := s.casts[1]; m.GetDelay().AsDuration() != time.Minute {
		t.Errorf("cast %v", m)
	}
	if m := s.casts[2]; !m.GetDeliverAt().AsTime().Equal(at) {
		t.Errorf("cast %v", m)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	c, err := client.New(url, client.Options{Retries: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, err = invoke(c, 20*time.Second)
	if reasonOf(err) != nola.ReasonUnavailable || !strings.Contains(err.Error(), url) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v (%s), want UNAVAILABLE that names %s and says why", err, reasonOf(err), url)
	}
	_, err = c.Namespaces.ListNamespaces(context.Background(), connect.NewRequest(&nolav1.ListNamespacesRequest{}))
	if reasonOf(err) != nola.ReasonUnavailable || !strings.Contains(err.Error(), url) {
		t.Errorf("error %v of a generated client, want UNAVAILABLE that names %s", err, url)
	}
}

// attempts counts requests, and keeps how they introduced themselves.
type attempts struct {
	http.RoundTripper
	n     atomic.Int64
	agent atomic.Value
}

func (a *attempts) RoundTrip(r *http.Request) (*http.Response, error) {
	a.n.Add(1)
	a.agent.Store(r.Header.Get("User-Agent"))
	return a.RoundTripper.RoundTrip(r)
}

func TestFailFast(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	for fast, want := range map[bool]int64{true: 1, false: 3} {
		var seen attempts
		c, err := client.New(url, client.Options{Retries: 2, FailFast: fast, Wrap: func(next http.RoundTripper) http.RoundTripper {
			seen.RoundTripper = next
			return &seen
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := invoke(c, 20*time.Second); reasonOf(err) != nola.ReasonUnavailable || seen.n.Load() != want {
			t.Errorf("fail fast %v: %d attempts, want %d; error %v", fast, seen.n.Load(), want, err)
		}
	}
	// What may have run is asked for again, whatever happens in between.
	s, c := serve(t, client.Options{FailFast: true}, drop, reply("1"))
	if _, err := invoke(c, 20*time.Second); err != nil || len(s.seen) != 2 {
		t.Errorf("after a lost answer: %d attempts, want 2; error %v", len(s.seen), err)
	}
}

// TestServerThatDies: however a connection ends under a call, the caller is not
// told that he gave up: he learns that the server is not there, or that the
// outcome is unknown.
func TestServerThatDies(t *testing.T) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for name, says := range map[string]string{
		"nothing":        "",
		"settings":       settings,
		"stream reset":   settings + "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", // RST_STREAM, CANCEL
		"stream refused": settings + "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07",
		"goodbye":        settings + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 1<<16))
					_, _ = conn.Write([]byte(says))
					if says != "" {
						_, _ = conn.Read(make([]byte, 1<<16)) // the request, if it was not there yet
					}
					_ = conn.Close()
				}
			}()
			c, err := client.New("http://"+l.Addr().String(), client.Options{Retries: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Namespaces.ListNamespaces(t.Context(), connect.NewRequest(&nolav1.ListNamespacesRequest{}))
			if reasonOf(err) != nola.ReasonUnavailable {
				t.Errorf("a request ended with %v (%s), want UNAVAILABLE", err, reasonOf(err))
			}
			_, err = c.Invoke(t.Context(), alice, "inc", nil, client.WithIdempotencyKey("k"))
			if r := reasonOf(err); r != nola.ReasonUnavailable && r != nola.ReasonOutcomeUnknown {
				t.Errorf("a call ended with %v (%s), want UNAVAILABLE or OUTCOME_UNKNOWN", err, r)
			}
		})
	}
}

func TestOptionsReachTheWire(t *testing.T) {
	var seen attempts
	_, c := serve(t, client.Options{UserAgent: "tester/1", ReadBytesMax: 1000, Wrap: func(next http.RoundTripper) http.RoundTripper {
		seen.RoundTripper = next
		return &seen
	}}, reply("1"), reply(strings.Repeat("x", 2000)))
	if _, err := invoke(c, 20*time.Second); err != nil || seen.agent.Load() != "tester/1" {
		t.Errorf("the program is called %q, want tester/1; error %v", seen.agent.Load(), err)
	}
	if _, err := invoke(c, 20*time.Second); err == nil || !strings.Contains(err.Error(), "1000") {
		t.Errorf("a reply of 2,000 bytes where 1,000 are allowed: error %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:7466", "ftp://host", "http://", "http://host/?x=1", "http://user:secret@host"} {
		if _, err := client.New(url, client.Options{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error %v", url, err)
		}
	}
	if _, err := client.New("http://host", client.Options{Timeout: time.Hour}); err == nil {
		t.Error("a timeout of an hour is accepted")
	}
	c, err := client.New("http://host", client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Invoke(context.Background(), nola.ActorRef{Type: "Counter", ID: "a"}, "inc", nil); reasonOf(err) != nola.ReasonInvalidName {
		t.Errorf("error %v for a bad name", err)
	}
}
