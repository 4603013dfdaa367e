package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

// timeHeader carries the server's clock, in Unix nanoseconds, with every answer.
const timeHeader = "Nola-Server-Time"

const (
	// dialTimeout bounds how long a connection may take to come about.
	dialTimeout = 5 * time.Second
	// pingAfter and pingTimeout find out that a silent connection is dead.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// clockAge is how old a reading of the server's clock may be before a newer
	// one replaces it.
	clockAge = 10 * time.Second
	// clockJump is how far the server's clock must be ahead of the reading for a
	// newer one to take its place at once: it was set forward.
	clockJump = time.Second
)

// Options say how to speak to a server. The zero Options are for a server on
// this machine that asks for no token.
type Options struct {
	// Token is the bearer token to show, if the server asks for one.
	Token string
	// TLS configures https:// connections: default the system's roots.
	TLS *tls.Config
	// HTTPClient replaces the client's own; TLS and Wrap do not count then. For
	// http:// it must speak HTTP/2 without TLS if streams are to be used.
	HTTPClient *http.Client
	// Wrap, if it is not nil, gets the client's own transport and answers the one
	// to use: one that watches requests, for example.
	Wrap func(http.RoundTripper) http.RoundTripper
	// UserAgent says which program speaks: default that of the protocol's library.
	UserAgent string
	// ReadBytesMax bounds one message of the server's, below 2 GiB: default no
	// bound.
	ReadBytesMax int
	// Timeout of Invoke and Cast, with all their retries, where the context has
	// no deadline: default nola.CallTimeoutDefault, at most nola.CallTimeoutMax.
	Timeout time.Duration
	// Retries of one Invoke or Cast at most: default RetriesDefault, negative for
	// none.
	Retries int
	// FailFast gives a call up at once if no server can be reached, for a person
	// who waits. A call that may have run is retried all the same.
	FailFast bool
}

// Client speaks to one server.
type Client struct {
	// The generated clients of all services. Their errors wrap a *nola.Error. They
	// neither make keys nor retry.
	Actors     nolav1connect.ActorServiceClient
	Modules    nolav1connect.ModuleServiceClient
	Schedules  nolav1connect.ScheduleServiceClient
	Calendars  nolav1connect.CalendarServiceClient
	Namespaces nolav1connect.NamespaceServiceClient
	Cluster    nolav1connect.ClusterServiceClient

	opts      Options
	address   string
	http      *http.Client
	sessions  sessions
	budget    budget
	clock     atomic.Pointer[reading]
	clockOnce sync.Mutex // held by who asks for the first reading
}

// reading is what the server's clock said at a moment of ours. Ours counts
// monotonically, so that setting the clock of this machine does no harm.
type reading struct {
	server time.Time
	local  time.Time
}

// New makes a client for the server at baseURL, which is http://HOST:PORT (HTTP/2
// without TLS) or https://HOST:PORT. It connects with the first call.
func New(baseURL string, opts Options) (*Client, error) {
	u, err := url.Parse(baseURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("client: server address %q: want http://HOST:PORT or https://HOST:PORT", baseURL)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("client: server address %q has more than a scheme, a host, a port and a path", u.Redacted())
	case opts.Timeout < 0 || opts.Timeout > nola.CallTimeoutMax:
		return nil, fmt.Errorf("client: timeout %s: want at most %s", opts.Timeout, nola.CallTimeoutMax)
	case opts.ReadBytesMax < 0 || opts.ReadBytesMax > math.MaxInt32:
		return nil, fmt.Errorf("client: messages of %d bytes: want at most %d", opts.ReadBytesMax, math.MaxInt32)
	case strings.ContainsAny(opts.Token, " \t\r\n"):
		return nil, errors.New("client: the token has white space in it")
	}
	if opts.Timeout == 0 {
		opts.Timeout = nola.CallTimeoutDefault
	}
	if opts.Retries == 0 {
		opts.Retries = RetriesDefault
	}
	c := &Client{opts: opts, address: u.Scheme + "://" + u.Host, http: opts.HTTPClient}
	if c.http == nil {
		var t http.RoundTripper = transport(u.Scheme, opts.TLS)
		if opts.Wrap != nil {
			t = opts.Wrap(t)
		}
		c.http = &http.Client{Transport: t}
	}
	base := strings.TrimSuffix(u.String(), "/")
	with := connect.WithClientOptions(
		connect.WithInterceptors(&interceptor{c}),
		connect.WithAcceptCompression("gzip", nil, nil), // replies are small: it costs more than it saves
		connect.WithReadMaxBytes(opts.ReadBytesMax),
	)
	c.Actors = nolav1connect.NewActorServiceClient(c.http, base, with)
	c.Modules = nolav1connect.NewModuleServiceClient(c.http, base, with)
	c.Schedules = nolav1connect.NewScheduleServiceClient(c.http, base, with)
	c.Calendars = nolav1connect.NewCalendarServiceClient(c.http, base, with)
	c.Namespaces = nolav1connect.NewNamespaceServiceClient(c.http, base, with)
	c.Cluster = nolav1connect.NewClusterServiceClient(c.http, base, with)
	return c, nil
}

func transport(scheme string, config *tls.Config) *http.Transport {
	protocols := new(http.Protocols)
	if scheme == "http" {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           protocols,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 64,
	}
}

// Close lets idle connections go. Calls under way are not disturbed.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ServerTime is the time by the server's clock, which may differ from this
// machine's, or be virtual. It asks the server unless an answer has brought the
// time already.
func (c *Client) ServerTime(ctx context.Context) (time.Time, error) {
	if r := c.clock.Load(); r != nil {
		return r.now(), nil
	}
	c.clockOnce.Lock()
	defer c.clockOnce.Unlock()
	if r := c.clock.Load(); r != nil {
		return r.now(), nil
	}
	res, err := c.Cluster.GetCluster(ctx, connect.NewRequest(&nolav1.GetClusterRequest{}))
	if err != nil {
		return time.Time{}, err
	}
	r := &reading{server: res.Msg.GetServerTime().AsTime(), local: time.Now()}
	c.clock.Store(r)
	return r.now(), nil
}

func (r *reading) now() time.Time { return r.server.Add(time.Since(r.local)) }

// note takes the server's time from the header of an answer.
func (c *Client) note(h http.Header) {
	nanos, err := strconv.ParseInt(h.Get(timeHeader), 10, 64)
	if err != nil || nanos <= 0 {
		return // not from a server of ours
	}
	if r := c.clock.Load(); r != nil && time.Since(r.local) < clockAge && time.Unix(0, nanos).Before(r.now().Add(clockJump)) {
		return
	}
	c.clock.Store(&reading{server: time.Unix(0, nanos), local: time.Now()})
}

// interceptor shows the token and the program, reads the clock, and turns errors into ours.
type interceptor struct{ c *Client }

func (i *interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		i.introduce(req.Header())
		res, err := next(ctx, req)
		if err != nil {
			f := i.failed(err)
			if !f.answered && ctx.Err() == nil && f.err.Reason == nola.ReasonCanceled {
				// The other side cut the stream off; nobody here gave up.
				f.err = nola.Errorf(nola.ReasonUnavailable, "the connection to %s was cut off", i.c.address)
			}
			return nil, f
		}
		i.c.note(res.Header())
		return res, nil
	}
}

func (i *interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		i.introduce(conn.RequestHeader())
		return &stream{conn, i}
	}
}

func (i *interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (i *interceptor) introduce(h http.Header) {
	if i.c.opts.UserAgent != "" {
		h.Set("User-Agent", i.c.opts.UserAgent)
	}
	if i.c.opts.Token != "" {
		h.Set("Authorization", "Bearer "+i.c.opts.Token)
	}
}

func (i *interceptor) failed(err error) *failure {
	var ce *connect.Error
	if errors.As(err, &ce) {
		i.c.note(ce.Meta())
	}
	e, answered := fromConnect(err, i.c.address)
	return &failure{err: e, answered: answered, unsent: !answered && neverSent(err), cause: err}
}

type stream struct {
	connect.StreamingClientConn
	i *interceptor
}

func (s *stream) Receive(msg any) error {
	err := s.StreamingClientConn.Receive(msg)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return s.i.failed(err)
}

func (s *stream) Send(msg any) error {
	err := s.StreamingClientConn.Send(msg)
	if err == nil || errors.Is(err, io.EOF) {
		return err // io.EOF: Receive says why
	}
	return s.i.failed(err)
}
