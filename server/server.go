package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
	"github.com/nolaproject/nola/server/cluster"
)

// Shards is what the server asks of the shards of its node; shard.Manager is
// one. Every error is a *nola.Error or one of ctx.
type Shards interface {
	// Invoke runs a call and answers when its effects are durable.
	Invoke(ctx context.Context, inv *nola.Invocation) (nola.Result, error)
	// Begin puts a call into its actor's mailbox: calls begun one after another
	// reach an actor in that order. Unless it answers an error, done is called once
	// with what Invoke would answer, and must not wait.
	Begin(ctx context.Context, inv *nola.Invocation, done func(nola.Result, error)) error
	// Cast answers once the cast is durable; a zero due time is now.
	Cast(ctx context.Context, inv *nola.Invocation, due time.Time) (nola.InvocationID, error)
	// GetInvocation tells how an invocation ended, by its id or its key.
	GetInvocation(ctx context.Context, ref nola.ActorRef, id nola.InvocationID, key nola.Key) (nola.InvocationInfo, error)
	// DescribeActor describes an actor that exists or is in memory.
	DescribeActor(ctx context.Context, ref nola.ActorRef) (nola.ActorInfo, error)
	// PassivateActor takes an actor out of memory.
	PassivateActor(ctx context.Context, ref nola.ActorRef) (bool, error)
	// CompleteInvocation answers a deferred invocation, once.
	CompleteInvocation(ctx context.Context, ref nola.ActorRef, c nola.Completion) (nola.InvocationID, error)
	// SetTimer sets a timer of an actor, or replaces it.
	SetTimer(ctx context.Context, ref nola.ActorRef, t nola.Timer) error
	// CancelTimer reports whether there was such a timer.
	CancelTimer(ctx context.Context, ref nola.ActorRef, name string) (bool, error)
	// SetReminder sets a reminder of an actor, or replaces it.
	SetReminder(ctx context.Context, ref nola.ActorRef, r nola.Reminder) error
	// CancelReminder reports whether there was such a reminder.
	CancelReminder(ctx context.Context, ref nola.ActorRef, name string) (bool, error)
	// DeleteActor removes an actor with all it owns.
	DeleteActor(ctx context.Context, ref nola.ActorRef) error
	// Logs answers the last lines of an actor's log, oldest first.
	Logs(ref nola.ActorRef, limit int) []nola.LogRecord
	// TailLogs follows a log until ctx ends.
	TailLogs(ctx context.Context, ref nola.ActorRef, limit int, fn func(nola.LogRecord) error) error
	// CreateSchedule makes a schedule, once per incarnation.
	CreateSchedule(ctx context.Context, s nola.Schedule, requestID string) (nola.ScheduleInfo, error)
	// GetSchedule describes a schedule or reminder.
	GetSchedule(ctx context.Context, ref nola.ScheduleRef) (nola.ScheduleInfo, error)
	// UpdateSchedule changes a schedule, under its etag.
	UpdateSchedule(ctx context.Context, ref nola.ScheduleRef, c nola.ScheduleChange) (nola.ScheduleInfo, error)
	// DeleteSchedule removes a schedule whose etag is etag, or any if that is
	// zero; nothing of it fires afterwards.
	DeleteSchedule(ctx context.Context, ref nola.ScheduleRef, etag uint64) error
	// BackfillSchedule fires the nominal times of a range again, once per id.
	BackfillSchedule(ctx context.Context, ref nola.ScheduleRef, b nola.Backfill) (nola.Backfill, error)
	// CancelBackfill ends a backfill.
	CancelBackfill(ctx context.Context, ref nola.ScheduleRef, id string) (nola.Backfill, error)
	// SkipOccurrence takes one nominal time to come out.
	SkipOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal time.Time) error
	// UnskipOccurrence takes back that a nominal time was skipped or moved.
	UnskipOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal time.Time) error
	// MoveOccurrence has one nominal time to come fire at another instant.
	MoveOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal, to time.Time) error
	// RedriveDeadLetter fires a dead letter again.
	RedriveDeadLetter(ctx context.Context, ref nola.ScheduleRef, number uint64) (nola.Occurrence, error)
	// TriggerSchedule fires now, once per request id.
	TriggerSchedule(ctx context.Context, ref nola.ScheduleRef, requestID string, overlap nola.Overlap, payload []byte) (nola.Occurrence, error)
	// Advance moves virtual time, and answers the time that was reached. When ctx
	// ends first the error is DEADLINE_EXCEEDED; TIME_NOT_VIRTUAL with a real clock.
	Advance(ctx context.Context, to time.Time) (time.Time, error)
	// Shards describes the shards of this node.
	Shards() []nola.ShardInfo
	// TypeUsage answers what turns of each type have cost on this node, in the order
	// of names.
	TypeUsage() []nola.Usage
	// ActorUsage is the same by actor, of those that have cost most.
	ActorUsage() []nola.Usage
	// UsageSince is when that began to be counted.
	UsageSince() time.Time
}

// Config says what a server serves. Store, Modules and Shards are required.
type Config struct {
	Store   persistence.Store
	Modules *Modules
	Shards  Shards
	// Cluster, if set, is the node's part in a cluster; it takes the place of Shards.
	Cluster *cluster.Member
	// StoreName is the kind of the store, as clients see it.
	StoreName string
	// Version of the program, as clients see it.
	Version string
	// Address is where clients reach this node, as they see it.
	Address string
	// BackupDir is where CreateBackup puts backups, an absolute path: default
	// nowhere, so that none can be made.
	BackupDir string
	// Tokens, if set, are what clients must show one of.
	Tokens *Tokens
	// AllowedOrigins are the origins that browsers may call from: default none
	// but the server's own.
	AllowedOrigins []string
	// Metrics counts what is served: default a set of its own.
	Metrics *Metrics
	// Now is the clock: default time.Now.
	Now func() time.Time
	// VirtualTime says that Now stands still but for Shards.Advance.
	VirtualTime bool
	Logger      *slog.Logger
}

// Server is a node's API.
type Server struct {
	cfg     Config
	log     *slog.Logger
	reader  persistence.Reader
	catalog persistence.Catalog
	started time.Time
	spaces  namespaceCache
	ids     idLocks
	// unsettled holds one: see RunCalendars.
	unsettled chan struct{}
	// backing holds one while a backup is made.
	backing chan struct{}
	ready   atomic.Bool
	health  *grpchealth.StaticChecker
	handler http.Handler
}

// MessageBytesMax bounds a request message, and HeaderBytesMax its headers.
const (
	MessageBytesMax = 8 << 20 // all but pushes of modules
	PushBytesMax    = nolaModuleBytesMax + 1<<20
	HeaderBytesMax  = 64 << 10
	// compressBytesMin is the size from which on answers are compressed, for clients
	// that take that: below, it costs more than it saves.
	compressBytesMin = 16 << 10
)

const nolaModuleBytesMax = 64 << 20

// New makes the API of a node. It is not ready until SetReady.
func New(cfg Config) (*Server, error) {
	reads := cfg.Store
	if cfg.Cluster != nil {
		cfg.Shards, reads = cfg.Cluster, cfg.Cluster.Reads(cfg.Store)
	}
	if cfg.Store == nil || cfg.Modules == nil || cfg.Shards == nil {
		return nil, errors.New("server: Config needs Store, Modules and Shards")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, started: cfg.Now(), unsettled: make(chan struct{}, 1), backing: make(chan struct{}, 1),
		reader: persistence.Reader{Store: reads}, catalog: persistence.Catalog{Store: cfg.Store},
	}
	cfg.Modules.now, cfg.Modules.exists, cfg.Modules.bounds = cfg.Now, s.namespaceExists, s.namespaceLimits
	if err := s.ensureDefaultNamespace(context.Background()); err != nil {
		return nil, fmt.Errorf("server: default namespace: %w", err)
	}
	if err := s.route(); err != nil {
		return nil, err
	}
	return s, nil
}

// Handler serves clients: Connect, gRPC, gRPC-Web, the gateway, health.
func (s *Server) Handler() http.Handler { return s.handler }

// SetReady says whether the node takes requests: it opens and shuts /readyz and
// the gRPC health check, nothing else.
func (s *Server) SetReady(ready bool) {
	s.ready.Store(ready)
	status := grpchealth.StatusNotServing
	if ready {
		status = grpchealth.StatusServing
	}
	for _, name := range append(serviceNames, "") {
		s.health.SetStatus(name, status)
	}
}

var serviceNames = []string{
	nolav1connect.ActorServiceName, nolav1connect.ModuleServiceName, nolav1connect.ScheduleServiceName,
	nolav1connect.CalendarServiceName, nolav1connect.NamespaceServiceName, nolav1connect.ClusterServiceName,
}

func (s *Server) route() error {
	valid, err := newValidator()
	if err != nil {
		return err
	}
	options := func(max int) connect.HandlerOption {
		return connect.WithHandlerOptions(
			connect.WithCodec(jsonCodec{}),
			connect.WithReadMaxBytes(max),
			connect.WithCompressMinBytes(compressBytesMin),
			connect.WithInterceptors(&interceptor{s: s, valid: valid}),
			connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
				s.log.Error("handler panicked", "procedure", spec.Procedure, "panic", p, "stack", string(debug.Stack()))
				return asConnect(s.log, fmt.Errorf("panic in %s: %v", spec.Procedure, p))
			}),
		)
	}
	mux := http.NewServeMux()
	mux.Handle(nolav1connect.NewActorServiceHandler(&actors{s}, options(MessageBytesMax)))
	mux.Handle(nolav1connect.NewModuleServiceHandler(&modules{s}, options(PushBytesMax)))
	mux.Handle(nolav1connect.NewScheduleServiceHandler(&schedules{s}, options(MessageBytesMax)))
	mux.Handle(nolav1connect.NewCalendarServiceHandler(&calendars{s}, options(MessageBytesMax)))
	mux.Handle(nolav1connect.NewNamespaceServiceHandler(&namespaces{s}, options(MessageBytesMax)))
	mux.Handle(nolav1connect.NewClusterServiceHandler(&clusters{s}, options(MessageBytesMax)))
	s.health = grpchealth.NewStaticChecker(serviceNames...)
	s.SetReady(false)
	mux.Handle(grpchealth.NewHandler(s.health))
	reflector := grpcreflect.NewStaticReflector(serviceNames...)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /{$}", s.index)
	s.handler = s.withCORS(&front{s: s, gateway: &gateway{s}, rest: mux, refusal: connect.NewErrorWriter()})
	return nil
}

// front sends the hot path straight to the gateway and everything else to the
// mux. Who must show a token and does not is refused before a byte of the body is
// read.
type front struct {
	s       *Server
	gateway *gateway
	rest    http.Handler
	refusal *connect.ErrorWriter
}

// servicePrefix starts the paths of our own services.
const servicePrefix = "/nola.v1."

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.Path) > len(gatewayPrefix) && r.URL.Path[:len(gatewayPrefix)] == gatewayPrefix {
		f.gateway.ServeHTTP(w, r)
		return
	}
	if f.s.cfg.Tokens != nil && strings.HasPrefix(r.URL.Path, servicePrefix) {
		if err := f.s.authorize(r.Header, nil); err != nil {
			refused := asConnect(f.s.log, err)
			if !f.refusal.IsSupported(r) {
				http.Error(w, refused.Message(), http.StatusUnauthorized)
				return
			}
			_ = f.refusal.Write(w, r, refused) // the client may have gone
			return
		}
	}
	f.rest.ServeHTTP(w, r)
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n")) // the client may have gone
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case !s.ready.Load():
		http.Error(w, "not ready: starting or shutting down", http.StatusServiceUnavailable)
		return
	case s.cfg.Cluster != nil && !s.cfg.Cluster.Ready():
		http.Error(w, "not ready: the lease is not held, or the node's shards are not open yet", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n")) // the client may have gone
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "NOLA %s\n\nCall an actor:   curl -s %s/v1/default/counter/alice/inc -d ''\nServices:        %v (Connect, gRPC, gRPC-Web; reflection is on)\nHealth:          /healthz /readyz\n", s.cfg.Version, s.cfg.Address, serviceNames) // the client may have gone
}

// shardOf is the shard that an actor lives in.
func (s *Server) shardOf(ref nola.ActorRef) nola.ShardID {
	return nola.ShardOf(ref, s.cfg.Store.Cluster().Shards)
}
