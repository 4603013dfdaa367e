package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/validate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
	"github.com/nolaproject/nola/scheduler"
)

// start is the time of the fake server and of the commands under test.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// fake is a server with its state in memory. It knows one kind of guest: a
// counter with the operations inc, add, get, fail and trap. It validates every
// request as the real server does.
type fake struct {
	nolav1connect.UnimplementedActorServiceHandler
	nolav1connect.UnimplementedModuleServiceHandler
	nolav1connect.UnimplementedScheduleServiceHandler
	nolav1connect.UnimplementedCalendarServiceHandler
	nolav1connect.UnimplementedNamespaceServiceHandler
	nolav1connect.UnimplementedClusterServiceHandler

	mu         sync.Mutex // guards the fields below
	actors     map[string]*fakeActor
	modules    map[string][]*nolav1.ModuleVersion
	defaults   map[string]uint64
	schedules  map[string]*nolav1.Schedule
	calendars  map[string]*nolav1.Calendar
	namespaces map[string]*nolav1.Namespace
	keys       map[string]string // idempotency keys with their requests
	ids        uint64
	time       time.Time      // the server's
	target     time.Time      // of an advance that is not there yet
	refuse     *connect.Error // answer to every call, if set
	tokens     []string       // that calls came with
	lists      []*nolav1.ListSchedulesRequest
	listed     func()   // what happens right after a list, if set
	lose       int      // answers to calls that get lost from now on
	keyed      []string // session keys of calls
	moving     string   // id of a schedule that cannot be reached, if set
	full       string   // id of a schedule that finds no room, if set
}

type fakeActor struct {
	ref   *nolav1.ActorRef
	state map[string][]byte
	logs  []*nolav1.LogEntry
}

// newFake starts a server that holds what the examples of the help name.
func newFake(t *testing.T) (*fake, string) {
	t.Helper()
	f := &fake{
		time:   start,
		actors: map[string]*fakeActor{}, modules: map[string][]*nolav1.ModuleVersion{}, defaults: map[string]uint64{},
		schedules: map[string]*nolav1.Schedule{}, calendars: map[string]*nolav1.Calendar{}, namespaces: map[string]*nolav1.Namespace{}, keys: map[string]string{},
	}
	for _, name := range []string{"default", "staging"} {
		f.namespaces[name] = &nolav1.Namespace{
			Namespace: name, State: nolav1.NamespaceState_NAMESPACE_STATE_ACTIVE, Created: ago(72 * time.Hour), Updated: ago(time.Hour),
			Labels: map[string]string{"owner": "ops"},
		}
		for range 2 {
			f.push(name, "counter", []byte("\x00asm"), &nolav1.ModuleManifest{Operations: []string{"inc", "add", "get"}, ReadonlyOperations: []string{"get"}})
		}
	}
	f.push("default", "scratch", []byte("\x00asm"), nil)
	for _, ref := range []*nolav1.ActorRef{
		{Namespace: "default", Type: "counter", Id: "alice"},
		{Namespace: "default", Type: "counter", Id: "a/b:c"},
		{Namespace: "staging", Type: "counter", Id: "alice"},
	} {
		a := f.actor(ref)
		a.state["count"], a.state["color"] = []byte("7"), []byte{0xff, 0x00}
		a.logs = []*nolav1.LogEntry{
			{Time: ago(2 * time.Second), Level: "info", Message: "counted to 6", InvocationId: f.id()},
			{Time: ago(time.Second), Level: "error", Message: "odd \x1b[31mcolor", InvocationId: f.id()},
		}
	}
	f.fillCalendars()
	target := &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Namespace: "default", Type: "counter", Id: "alice"}, Operation: "inc"}
	for _, s := range []*nolav1.Schedule{
		{ScheduleId: "tick", Spec: &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Second)}}}},
		{ScheduleId: "nightly", Spec: &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{Expression: "0 3 * * *"}}, TimeZone: "Europe/Berlin"}, Labels: map[string]string{"owner": "ops"}},
	} {
		s.Namespace, s.Target = "default", proto.CloneOf(target)
		s.State, s.Policy, s.Etag = &nolav1.ScheduleState{}, &nolav1.SchedulePolicy{}, "1"
		s.Info = &nolav1.ScheduleInfo{
			Created: ago(time.Hour), Updated: ago(time.Minute),
			Counters: []*nolav1.OutcomeCounter{{Outcome: nolav1.Outcome_OUTCOME_FIRED, Count: 12, LastTime: ago(time.Second)}},
			Recent: []*nolav1.Occurrence{
				occurrence(time.Second, nolav1.Outcome_OUTCOME_FIRED),
				{NominalTime: ago(5 * time.Second), LastNominalTime: ago(2 * time.Second), Count: 4, Kind: 1, Outcome: nolav1.Outcome_OUTCOME_SKIPPED_OVERLAP, EndTime: ago(time.Second)},
				failed(occurrence(6*time.Second, nolav1.Outcome_OUTCOME_FIRED)),
			},
		}
		f.schedules["default/"+s.ScheduleId] = s
		f.plan(s)
	}

	mux := http.NewServeMux()
	options := connect.WithInterceptors(f.gate(), validate.NewInterceptor())
	mux.Handle(nolav1connect.NewActorServiceHandler(f, options))
	mux.Handle(nolav1connect.NewModuleServiceHandler(f, options))
	mux.Handle(nolav1connect.NewScheduleServiceHandler(f, options))
	mux.Handle(nolav1connect.NewCalendarServiceHandler(f, options))
	mux.Handle(nolav1connect.NewNamespaceServiceHandler(f, options))
	mux.Handle(nolav1connect.NewClusterServiceHandler(f, options))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return f, server.URL
}

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(start.Add(-d)) }

func occurrence(back time.Duration, outcome nolav1.Outcome) *nolav1.Occurrence {
	return &nolav1.Occurrence{
		NominalTime: ago(back), Kind: nolav1.OccurrenceKind_OCCURRENCE_KIND_REGULAR, Outcome: outcome,
		StartTime: ago(back - 2*time.Millisecond), EndTime: ago(back - 3500*time.Microsecond), Attempts: 1, Count: 1,
	}
}

func failed(o *nolav1.Occurrence) *nolav1.Occurrence {
	o.Error = &nolav1.Error{Reason: "GUEST_ERROR", Code: "unknown", Message: "the counter is full"}
	return o
}

// gate notes the token of each call, and refuses it where a test wants that.
func (f *fake) gate() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			f.mu.Lock()
			f.tokens = append(f.tokens, req.Header().Get("Authorization"))
			refuse := f.refuse
			f.mu.Unlock()
			if refuse != nil {
				return nil, refuse
			}
			res, err := next(ctx, req)
			if err == nil {
				res.Header().Set("Nola-Server-Time", strconv.FormatInt(f.time.UnixNano(), 10))
			}
			return res, err
		}
	}
}

// failure is an error as the server makes them.
func failure(code connect.Code, reason, message string, meta ...string) *connect.Error {
	err := connect.NewError(code, errors.New(message))
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "nola", Metadata: map[string]string{}}
	for i := 0; i+1 < len(meta); i += 2 {
		info.Metadata[meta[i]] = meta[i+1]
	}
	d, detailErr := connect.NewErrorDetail(info)
	if detailErr != nil {
		panic(detailErr)
	}
	err.AddDetail(d)
	return err
}

func retryable(err *connect.Error, after time.Duration) *connect.Error {
	d, detailErr := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if detailErr != nil {
		panic(detailErr)
	}
	err.AddDetail(d)
	return err
}

func answer[T any](m *T) (*connect.Response[T], error) { return connect.NewResponse(m), nil }

// page cuts a page out of all items; the token is the index to go on with.
func page[T any](all []T, size int32, token string) ([]T, string) {
	from, _ := strconv.Atoi(token)
	from = min(from, len(all))
	to := min(from+int(cmp.Or(size, 100)), len(all))
	if to == len(all) {
		return all[from:to], ""
	}
	return all[from:to], strconv.Itoa(to)
}

func (f *fake) id() []byte {
	f.ids++
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b, uint64(start.UnixMilli())<<16)
	binary.BigEndian.PutUint64(b[8:], f.ids)
	return b
}

func refKey(r *nolav1.ActorRef) string {
	return cmp.Or(r.Namespace, "default") + "\x00" + r.Type + "\x00" + r.Id
}

func (f *fake) actor(r *nolav1.ActorRef) *fakeActor {
	a := f.actors[refKey(r)]
	if a == nil {
		a = &fakeActor{ref: r, state: map[string][]byte{}}
		f.actors[refKey(r)] = a
	}
	return a
}

func (f *fake) find(r *nolav1.ActorRef) (*fakeActor, error) {
	if a := f.actors[refKey(r)]; a != nil {
		return a, nil
	}
	return nil, failure(connect.CodeNotFound, "ACTOR_NOT_FOUND", "there is no actor "+refName(r))
}

func (f *fake) module(namespace, name string) error {
	if f.modules[namespace+"/"+name] == nil {
		return failure(connect.CodeNotFound, "MODULE_NOT_FOUND", "there is no module "+name)
	}
	return nil
}

// Actors.

func (f *fake) Invoke(_ context.Context, req *connect.Request[nolav1.InvokeRequest]) (*connect.Response[nolav1.InvokeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := req.Msg
	if err := f.module(m.Actor.Namespace, m.Actor.Type); err != nil {
		return nil, err
	}
	if f.lose > 0 {
		f.lose--
		defer panic(http.ErrAbortHandler)
	}
	recognise := m.IdempotencyKey
	if m.Session != nil {
		recognise = fmt.Sprintf("%x/%d", m.Session.Id, m.Session.Seq)
		f.keyed = append(f.keyed, recognise)
	}
	if recognise != "" {
		key := refKey(m.Actor) + recognise
		was, known := f.keys[key]
		is := m.Operation + "\x00" + string(m.Payload)
		if known && was != is {
			return nil, failure(connect.CodeFailedPrecondition, "KEY_REUSED", "the key was used for another request")
		}
		if known {
			return answer(&nolav1.InvokeResponse{Payload: f.actor(m.Actor).state["count"], InvocationId: f.id(), Replayed: true})
		}
		f.keys[key] = is
	}
	switch m.Operation {
	case "inc", "add":
		a := f.actor(m.Actor)
		n, _ := strconv.Atoi(string(a.state["count"]))
		by := 1
		if _, err := fmt.Sscanf(string(m.Payload), `{"by":%d}`, &by); m.Operation == "add" && err != nil {
			return nil, failure(connect.CodeUnknown, "GUEST_ERROR", "add wants {\"by\": number}")
		}
		a.state["count"] = []byte(strconv.Itoa(n + by))
		return answer(&nolav1.InvokeResponse{Payload: a.state["count"], InvocationId: f.id()})
	case "get":
		return answer(&nolav1.InvokeResponse{Payload: f.actor(m.Actor).state["count"], InvocationId: f.id()})
	case "echo":
		return answer(&nolav1.InvokeResponse{Payload: m.Payload, InvocationId: f.id()})
	case "trap":
		return nil, failure(connect.CodeInternal, "GUEST_TRAP", "unreachable")
	default:
		return nil, failure(connect.CodeUnimplemented, "OPERATION_NOT_FOUND", fmt.Sprintf("counter has no operation %q", m.Operation))
	}
}

func (f *fake) Cast(_ context.Context, req *connect.Request[nolav1.CastRequest]) (*connect.Response[nolav1.CastResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.module(req.Msg.Actor.Namespace, req.Msg.Actor.Type); err != nil {
		return nil, err
	}
	return answer(&nolav1.CastResponse{InvocationId: f.id()})
}

func (f *fake) GetInvocation(_ context.Context, req *connect.Request[nolav1.GetInvocationRequest]) (*connect.Response[nolav1.GetInvocationResponse], error) {
	if req.Msg.GetIdempotencyKey() == "lost" {
		return answer(&nolav1.GetInvocationResponse{State: nolav1.InvocationState_INVOCATION_STATE_NOT_RECORDED})
	}
	return answer(&nolav1.GetInvocationResponse{
		State: nolav1.InvocationState_INVOCATION_STATE_SUCCEEDED, Result: []byte("8"), Attempts: 1, EndTime: ago(time.Minute),
		InvocationId: []byte(cmp.Or(string(req.Msg.GetInvocationId()), "0123456789abcdef")),
	})
}

func (f *fake) CompleteInvocation(_ context.Context, req *connect.Request[nolav1.CompleteInvocationRequest]) (*connect.Response[nolav1.CompleteInvocationResponse], error) {
	if req.Msg.Token == "ffffffffffffffffffffffffffffffff" {
		return nil, failure(connect.CodeNotFound, "INVOCATION_NOT_FOUND", "there is no such token")
	}
	return answer(&nolav1.CompleteInvocationResponse{InvocationId: []byte("0123456789abcdef")})
}

func (f *fake) ListDeferred(_ context.Context, req *connect.Request[nolav1.ListDeferredRequest]) (*connect.Response[nolav1.ListDeferredResponse], error) {
	return answer(&nolav1.ListDeferredResponse{Deferred: []*nolav1.DeferredInvocation{
		{Token: "000102030405060708090a0b0c0d0e0f", InvocationId: []byte("0123456789abcdef"), Operation: "approve", Deadline: ago(-time.Hour)},
		{Token: "100102030405060708090a0b0c0d0e0f", InvocationId: []byte("0123456789abcdef"), Operation: "report", Deadline: ago(-2 * time.Hour), ScheduleId: "nightly", NominalTime: ago(time.Hour)},
	}})
}

func (f *fake) SetTimer(context.Context, *connect.Request[nolav1.SetTimerRequest]) (*connect.Response[nolav1.SetTimerResponse], error) {
	return answer(&nolav1.SetTimerResponse{})
}

func (f *fake) CancelTimer(_ context.Context, req *connect.Request[nolav1.CancelTimerRequest]) (*connect.Response[nolav1.CancelTimerResponse], error) {
	return answer(&nolav1.CancelTimerResponse{Found: req.Msg.Name != "none"})
}

func (f *fake) CreateActor(_ context.Context, req *connect.Request[nolav1.CreateActorRequest]) (*connect.Response[nolav1.CreateActorResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lose > 0 {
		f.lose--
		defer panic(http.ErrAbortHandler)
	}
	recognise := req.Msg.IdempotencyKey
	if s := req.Msg.Session; s != nil {
		recognise = fmt.Sprintf("%x/%d", s.Id, s.Seq)
		f.keyed = append(f.keyed, recognise)
	}
	key := refKey(req.Msg.Actor) + recognise
	if _, known := f.keys[key]; known && recognise != "" {
		return answer(&nolav1.CreateActorResponse{InvocationId: f.id(), Replayed: true})
	}
	f.keys[key] = "create"
	if _, err := f.find(req.Msg.Actor); err == nil {
		return nil, failure(connect.CodeAlreadyExists, "ALREADY_EXISTS", "there is an actor "+refName(req.Msg.Actor)+" already")
	}
	f.actor(req.Msg.Actor)
	return answer(&nolav1.CreateActorResponse{InvocationId: f.id()})
}

func (f *fake) DescribeActor(_ context.Context, req *connect.Request[nolav1.DescribeActorRequest]) (*connect.Response[nolav1.DescribeActorResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.find(req.Msg.Actor)
	if err != nil {
		return nil, err
	}
	return answer(&nolav1.DescribeActorResponse{Actor: a.ref, Shard: 17, Created: ago(2 * time.Hour), Activation: &nolav1.Activation{
		ModuleVersion: 2, Turns: 7, Steps: 1234, MemoryBytes: 3 << 20, LastUsed: ago(90 * time.Second),
	}})
}

func (f *fake) ListActors(_ context.Context, req *connect.Request[nolav1.ListActorsRequest]) (*connect.Response[nolav1.ListActorsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.namespaces[req.Msg.Namespace] == nil {
		return nil, failure(connect.CodeNotFound, "NAMESPACE_NOT_FOUND", "there is no namespace "+req.Msg.Namespace)
	}
	var all []*nolav1.ActorRef
	for _, key := range slices.Sorted(maps.Keys(f.actors)) {
		r := f.actors[key].ref
		if r.Namespace == req.Msg.Namespace && (req.Msg.Type == "" || r.Type == req.Msg.Type) && strings.HasPrefix(r.Id, req.Msg.IdPrefix) {
			all = append(all, r)
		}
	}
	some, next := page(all, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListActorsResponse{Actors: some, NextPageToken: next})
}

func (f *fake) PassivateActor(context.Context, *connect.Request[nolav1.PassivateActorRequest]) (*connect.Response[nolav1.PassivateActorResponse], error) {
	return answer(&nolav1.PassivateActorResponse{Passivated: true})
}

func (f *fake) DeleteActor(_ context.Context, req *connect.Request[nolav1.DeleteActorRequest]) (*connect.Response[nolav1.DeleteActorResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(req.Msg.Actor); err != nil {
		return nil, err
	}
	delete(f.actors, refKey(req.Msg.Actor))
	return answer(&nolav1.DeleteActorResponse{})
}

func (f *fake) GetState(_ context.Context, req *connect.Request[nolav1.GetStateRequest]) (*connect.Response[nolav1.GetStateResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var value []byte
	var found bool
	if a := f.actors[refKey(req.Msg.Actor)]; a != nil {
		value, found = a.state[string(req.Msg.Key)]
	}
	return answer(&nolav1.GetStateResponse{Found: found, Value: value})
}

func (f *fake) ListState(_ context.Context, req *connect.Request[nolav1.ListStateRequest]) (*connect.Response[nolav1.ListStateResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*nolav1.StateEntry
	if a := f.actors[refKey(req.Msg.Actor)]; a != nil {
		for _, key := range slices.Sorted(maps.Keys(a.state)) {
			if strings.HasPrefix(key, string(req.Msg.Prefix)) {
				all = append(all, &nolav1.StateEntry{Key: []byte(key), Value: a.state[key]})
			}
		}
	}
	if req.Msg.Reverse {
		slices.Reverse(all)
	}
	some, next := page(all, req.Msg.Limit, req.Msg.PageToken)
	return answer(&nolav1.ListStateResponse{Entries: some, NextPageToken: next})
}

func (f *fake) ListTimers(context.Context, *connect.Request[nolav1.ListTimersRequest]) (*connect.Response[nolav1.ListTimersResponse], error) {
	return answer(&nolav1.ListTimersResponse{Timers: []*nolav1.Timer{
		{Name: "flush", Operation: "flush", DueTime: ago(-3 * time.Second)},
		{Name: "report", Operation: "report", DueTime: ago(-time.Hour), Reminder: &nolav1.Reminder{Period: &nolav1.Reminder_Cron{Cron: "0 * * * *"}}},
	}})
}

func (f *fake) TailLogs(ctx context.Context, req *connect.Request[nolav1.TailLogsRequest], stream *connect.ServerStream[nolav1.TailLogsResponse]) error {
	f.mu.Lock()
	a, err := f.find(req.Msg.Actor)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	entries := a.logs[max(0, len(a.logs)-int(req.Msg.Limit)):]
	if err := stream.Send(&nolav1.TailLogsResponse{Entries: entries}); err != nil || !req.Msg.Follow {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Modules.

func (f *fake) push(namespace, name string, wasm []byte, manifest *nolav1.ModuleManifest) *nolav1.ModuleVersion {
	key := namespace + "/" + name
	v := &nolav1.ModuleVersion{
		Version: uint64(len(f.modules[key]) + 1), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(wasm)),
		SizeBytes: uint64(len(wasm)), Created: ago(time.Hour), Manifest: manifest,
	}
	f.modules[key], f.defaults[key] = append(f.modules[key], v), v.Version
	return v
}

func (f *fake) info(key string) *nolav1.Module {
	namespace, name, _ := strings.Cut(key, "/")
	return &nolav1.Module{Namespace: namespace, Name: name, DefaultVersion: f.defaults[key], LatestVersion: uint64(len(f.modules[key]))}
}

func (f *fake) PushModule(_ context.Context, req *connect.Request[nolav1.PushModuleRequest]) (*connect.Response[nolav1.PushModuleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.HasPrefix(string(req.Msg.Wasm), "\x00asm") {
		return nil, failure(connect.CodeInvalidArgument, "INVALID_MODULE", "the file is no WebAssembly binary: it does not begin with \\0asm")
	}
	v := f.push(req.Msg.Namespace, req.Msg.Name, req.Msg.Wasm, req.Msg.Manifest)
	return answer(&nolav1.PushModuleResponse{Digest: v.Digest, Version: v.Version})
}

func (f *fake) GetModule(_ context.Context, req *connect.Request[nolav1.GetModuleRequest]) (*connect.Response[nolav1.GetModuleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.module(req.Msg.Namespace, req.Msg.Name); err != nil {
		return nil, err
	}
	key := req.Msg.Namespace + "/" + req.Msg.Name
	v := cmp.Or(req.Msg.Version, f.defaults[key])
	if v > uint64(len(f.modules[key])) {
		return nil, failure(connect.CodeNotFound, "VERSION_NOT_FOUND", fmt.Sprintf("module %s has no version %d", req.Msg.Name, v), "module", req.Msg.Name)
	}
	return answer(&nolav1.GetModuleResponse{Module: f.info(key), Version: f.modules[key][v-1]})
}

func (f *fake) ListModules(_ context.Context, req *connect.Request[nolav1.ListModulesRequest]) (*connect.Response[nolav1.ListModulesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*nolav1.Module
	for _, key := range slices.Sorted(maps.Keys(f.modules)) {
		if strings.HasPrefix(key, req.Msg.Namespace+"/") {
			all = append(all, f.info(key))
		}
	}
	some, next := page(all, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListModulesResponse{Modules: some, NextPageToken: next})
}

func (f *fake) ListModuleVersions(_ context.Context, req *connect.Request[nolav1.ListModuleVersionsRequest]) (*connect.Response[nolav1.ListModuleVersionsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.module(req.Msg.Namespace, req.Msg.Name); err != nil {
		return nil, err
	}
	all := slices.Clone(f.modules[req.Msg.Namespace+"/"+req.Msg.Name])
	slices.Reverse(all)
	some, next := page(all, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListModuleVersionsResponse{Versions: some, NextPageToken: next})
}

func (f *fake) SetDefaultVersion(_ context.Context, req *connect.Request[nolav1.SetDefaultVersionRequest]) (*connect.Response[nolav1.SetDefaultVersionResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.module(req.Msg.Namespace, req.Msg.Name); err != nil {
		return nil, err
	}
	key := req.Msg.Namespace + "/" + req.Msg.Name
	f.defaults[key] = req.Msg.Version
	return answer(&nolav1.SetDefaultVersionResponse{Module: f.info(key)})
}

func (f *fake) DeleteModule(_ context.Context, req *connect.Request[nolav1.DeleteModuleRequest]) (*connect.Response[nolav1.DeleteModuleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.module(req.Msg.Namespace, req.Msg.Name); err != nil {
		return nil, err
	}
	if req.Msg.Name == "counter" && !req.Msg.Force {
		return nil, failure(connect.CodeFailedPrecondition, "MODULE_IN_USE", "module counter has 2 actors")
	}
	delete(f.modules, req.Msg.Namespace+"/"+req.Msg.Name)
	return answer(&nolav1.DeleteModuleResponse{})
}

// Schedules.

func (f *fake) plan(s *nolav1.Schedule) {
	s.Info.NextTimes = nil
	if s.State.GetPaused() {
		return
	}
	spec := specOf(s.Spec)
	compiled, _, err := scheduler.Compile(spec, s.ScheduleId, scheduler.WithCalendars(f.known(s.Namespace)...))
	if err != nil {
		return
	}
	now := start
	for range 2 {
		t, ok := compiled.Next(now)
		if !ok {
			return
		}
		s.Info.NextTimes = append(s.Info.NextTimes, timestamppb.New(t))
		now = t
	}
}

func (f *fake) schedule(namespace, id string) (*nolav1.Schedule, error) {
	if id == f.moving && id != "" {
		return nil, failure(connect.CodeUnavailable, "SHARD_MOVING", "the shard is moving")
	}
	if s := f.schedules[namespace+"/"+id]; s != nil {
		return s, nil
	}
	return nil, failure(connect.CodeNotFound, "SCHEDULE_NOT_FOUND", "there is no schedule "+id)
}

// illegal is the refusal of a spec, as the server words it.
func (f *fake) illegal(namespace string, spec *nolav1.ScheduleSpec) error {
	_, _, err := scheduler.Compile(specOf(spec), "", scheduler.WithCalendars(f.known(namespace)...))
	var faulty *scheduler.SpecError
	if !errors.As(err, &faulty) {
		return nil
	}
	refused := failure(connect.CodeInvalidArgument, "INVALID_SPEC", faulty.Error(), "faults", strconv.Itoa(len(faulty.Faults)))
	for _, at := range faulty.Faults {
		d, err := connect.NewErrorDetail(&nolav1.SpecFault{
			Expression: at.Expression, Field: at.Field, Begin: uint32(at.Start), End: uint32(at.End), Message: at.Message, Suggestion: at.Suggestion,
		})
		if err != nil {
			panic(err)
		}
		refused.AddDetail(d)
	}
	return refused
}

func (f *fake) CreateSchedule(_ context.Context, req *connect.Request[nolav1.CreateScheduleRequest]) (*connect.Response[nolav1.CreateScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := req.Msg.Schedule
	if f.schedules[s.Namespace+"/"+s.ScheduleId] != nil {
		return nil, failure(connect.CodeAlreadyExists, "ALREADY_EXISTS", "there is a schedule "+s.ScheduleId+" already")
	}
	if err := f.illegal(s.Namespace, s.Spec); err != nil {
		return nil, err
	}
	if s.ScheduleId == f.full {
		return nil, retryable(failure(connect.CodeResourceExhausted, "SHARD_OVERLOADED", "too much at once"), time.Second)
	}
	s.Etag, s.Info = "1", &nolav1.ScheduleInfo{Created: ago(0), Updated: ago(0)}
	f.plan(s)
	f.schedules[s.Namespace+"/"+s.ScheduleId] = s
	return answer(&nolav1.CreateScheduleResponse{Schedule: s, Warnings: []*nolav1.ScheduleWarning{{Code: "RARE", Message: "it is rare", Field: "cron[0]"}}})
}

func (f *fake) GetSchedule(_ context.Context, req *connect.Request[nolav1.GetScheduleRequest]) (*connect.Response[nolav1.GetScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId)
	if err != nil {
		return nil, err
	}
	return answer(&nolav1.GetScheduleResponse{Schedule: proto.CloneOf(s)})
}

func (f *fake) UpdateSchedule(_ context.Context, req *connect.Request[nolav1.UpdateScheduleRequest]) (*connect.Response[nolav1.UpdateScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := req.Msg.Schedule
	s, err := f.schedule(in.Namespace, in.ScheduleId)
	switch {
	case err != nil:
		return nil, err
	case req.Msg.Etag != "" && req.Msg.Etag != s.Etag:
		return nil, failure(connect.CodeAborted, "ETAG_MISMATCH", "the schedule has the etag "+s.Etag)
	}
	for _, path := range req.Msg.UpdateMask.GetPaths() {
		switch path {
		case "target.operation":
			s.Target.Operation = in.Target.Operation
		case "target.payload":
			s.Target.Payload = in.Target.Payload
		case "spec":
			s.Spec = in.Spec
		case "policy":
			s.Policy = in.Policy
		case "labels":
			s.Labels = in.Labels
		default:
			s.State = in.State
		}
	}
	f.plan(s)
	return answer(&nolav1.UpdateScheduleResponse{Schedule: s})
}

func (f *fake) DeleteSchedule(_ context.Context, req *connect.Request[nolav1.DeleteScheduleRequest]) (*connect.Response[nolav1.DeleteScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId)
	switch {
	case err != nil:
		return nil, err
	case req.Msg.Etag != "" && req.Msg.Etag != s.Etag:
		return nil, failure(connect.CodeAborted, "ETAG_MISMATCH", "the schedule has the etag "+s.Etag)
	}
	delete(f.schedules, req.Msg.Namespace+"/"+req.Msg.ScheduleId)
	return answer(&nolav1.DeleteScheduleResponse{})
}

func (f *fake) ListSchedules(_ context.Context, req *connect.Request[nolav1.ListSchedulesRequest]) (*connect.Response[nolav1.ListSchedulesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists = append(f.lists, proto.CloneOf(req.Msg))
	var all []*nolav1.Schedule
	passes := func(s *nolav1.Schedule) bool {
		for term := range strings.FieldsSeq(req.Msg.Filter) {
			key, value, _ := strings.Cut(term, "=")
			label, isLabel := strings.CutPrefix(key, "label.")
			switch {
			case key == "id" && !strings.HasPrefix(s.ScheduleId, strings.TrimSuffix(value, "*")),
				key == "paused" && value != strconv.FormatBool(s.State.Paused),
				isLabel && s.Labels[label] != value:
				return false
			}
		}
		return true
	}
	for _, key := range slices.Sorted(maps.Keys(f.schedules)) {
		if s := f.schedules[key]; s.Namespace == req.Msg.Namespace && passes(s) {
			s = proto.CloneOf(s)
			s.Info.Recent = s.Info.Recent[:min(len(s.Info.Recent), int(req.Msg.Recent))]
			all = append(all, s)
		}
	}
	some, next := page(all, req.Msg.PageSize, req.Msg.PageToken)
	if f.listed != nil {
		f.listed()
	}
	return answer(&nolav1.ListSchedulesResponse{Schedules: some, NextPageToken: next})
}

func (f *fake) PauseSchedule(_ context.Context, req *connect.Request[nolav1.PauseScheduleRequest]) (*connect.Response[nolav1.PauseScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId)
	if err != nil {
		return nil, err
	}
	s.State = &nolav1.ScheduleState{Paused: true, Note: req.Msg.Note, PausedUntil: req.Msg.Until}
	f.plan(s)
	return answer(&nolav1.PauseScheduleResponse{Schedule: s})
}

func (f *fake) UnpauseSchedule(_ context.Context, req *connect.Request[nolav1.UnpauseScheduleRequest]) (*connect.Response[nolav1.UnpauseScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId)
	if err != nil {
		return nil, err
	}
	s.State = &nolav1.ScheduleState{Note: req.Msg.Note}
	f.plan(s)
	return answer(&nolav1.UnpauseScheduleResponse{Schedule: s})
}

func (f *fake) TriggerSchedule(_ context.Context, req *connect.Request[nolav1.TriggerScheduleRequest]) (*connect.Response[nolav1.TriggerScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.TriggerScheduleResponse{Occurrence: &nolav1.Occurrence{
		NominalTime: ago(0), Kind: nolav1.OccurrenceKind_OCCURRENCE_KIND_TRIGGER, Outcome: nolav1.Outcome_OUTCOME_RUNNING, Count: 1,
	}})
}

func (f *fake) PreviewSchedule(_ context.Context, req *connect.Request[nolav1.PreviewScheduleRequest]) (*connect.Response[nolav1.PreviewScheduleResponse], error) {
	if err := f.illegal(req.Msg.Namespace, req.Msg.Spec); err != nil {
		return nil, err
	}
	if req.Msg.GetPolicy().GetBufferLimit() > 1000 {
		return nil, failure(connect.CodeInvalidArgument, "INVALID_SPEC", "policy.buffer_limit is too great")
	}
	s := &nolav1.Schedule{Namespace: req.Msg.Namespace, ScheduleId: req.Msg.ScheduleId, Spec: req.Msg.Spec, Info: &nolav1.ScheduleInfo{}}
	f.plan(s)
	return answer(&nolav1.PreviewScheduleResponse{Times: s.Info.NextTimes, Description: "now and then"})
}

func (f *fake) ListOccurrences(_ context.Context, req *connect.Request[nolav1.ListOccurrencesRequest]) (*connect.Response[nolav1.ListOccurrencesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId)
	if err != nil {
		return nil, err
	}
	some, next := page(s.Info.Recent, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListOccurrencesResponse{Occurrences: some, NextPageToken: next})
}

// Namespaces.

func (f *fake) room(name string) (*nolav1.Namespace, error) {
	if n := f.namespaces[name]; n != nil {
		return n, nil
	}
	return nil, failure(connect.CodeNotFound, "NAMESPACE_NOT_FOUND", "there is no namespace "+name)
}

func (f *fake) CreateNamespace(_ context.Context, req *connect.Request[nolav1.CreateNamespaceRequest]) (*connect.Response[nolav1.CreateNamespaceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.namespaces[req.Msg.Namespace] != nil {
		return nil, failure(connect.CodeAlreadyExists, "ALREADY_EXISTS", "there is a namespace "+req.Msg.Namespace+" already")
	}
	n := &nolav1.Namespace{Namespace: req.Msg.Namespace, State: 1, Description: req.Msg.Description, Labels: req.Msg.Labels}
	f.namespaces[n.Namespace] = n
	return answer(&nolav1.CreateNamespaceResponse{Namespace: n})
}

func (f *fake) GetNamespace(_ context.Context, req *connect.Request[nolav1.GetNamespaceRequest]) (*connect.Response[nolav1.GetNamespaceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.room(req.Msg.Namespace)
	if err != nil {
		return nil, err
	}
	return answer(&nolav1.GetNamespaceResponse{Namespace: n})
}

func (f *fake) ListNamespaces(_ context.Context, req *connect.Request[nolav1.ListNamespacesRequest]) (*connect.Response[nolav1.ListNamespacesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*nolav1.Namespace
	for _, name := range slices.Sorted(maps.Keys(f.namespaces)) {
		all = append(all, f.namespaces[name])
	}
	some, next := page(all, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListNamespacesResponse{Namespaces: some, NextPageToken: next})
}

func (f *fake) UpdateNamespace(_ context.Context, req *connect.Request[nolav1.UpdateNamespaceRequest]) (*connect.Response[nolav1.UpdateNamespaceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.room(req.Msg.Namespace)
	if err != nil {
		return nil, err
	}
	for _, path := range req.Msg.UpdateMask.GetPaths() {
		switch path {
		case "labels":
			n.Labels = req.Msg.Labels
		case "limits":
			n.Limits = req.Msg.Limits
		default:
			n.Description = req.Msg.Description
		}
	}
	return answer(&nolav1.UpdateNamespaceResponse{Namespace: n})
}

func (f *fake) DeleteNamespace(_ context.Context, req *connect.Request[nolav1.DeleteNamespaceRequest]) (*connect.Response[nolav1.DeleteNamespaceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.room(req.Msg.Namespace); err != nil {
		return nil, err
	}
	delete(f.namespaces, req.Msg.Namespace)
	return answer(&nolav1.DeleteNamespaceResponse{})
}

// The cluster.

func (f *fake) node() *nolav1.Node {
	return &nolav1.Node{
		NodeId: "n1#7f3a", Name: "n1", Address: "127.0.0.1:7466", Version: "v0.1.0", Started: ago(3 * time.Hour), Shards: 256,
		State: nolav1.NodeState_NODE_STATE_READY, Weight: 100, Load: 412_000, Labels: map[string]string{"zone": "eu", "disk": "fast"},
	}
}

func (f *fake) ListNodes(context.Context, *connect.Request[nolav1.ListNodesRequest]) (*connect.Response[nolav1.ListNodesResponse], error) {
	return answer(&nolav1.ListNodesResponse{Nodes: []*nolav1.Node{f.node()}})
}

func (f *fake) DrainNode(_ context.Context, req *connect.Request[nolav1.DrainNodeRequest]) (*connect.Response[nolav1.DrainNodeResponse], error) {
	return answer(&nolav1.DrainNodeResponse{Node: &nolav1.Node{NodeId: "gone#1", Name: req.Msg.Node}})
}

func (f *fake) ListLanes(context.Context, *connect.Request[nolav1.ListLanesRequest]) (*connect.Response[nolav1.ListLanesResponse], error) {
	return answer(&nolav1.ListLanesResponse{Lanes: []*nolav1.Lane{
		{LaneId: "0190a0b0c0d0", NodeId: "n1#7f3a", Mode: "quorum", Unapplied: proto.Uint64(3)},
		{LaneId: "0190a0b0c0e1", NodeId: "n2#51d0", Mode: "quorum", Sealed: true, FinalSeq: proto.Uint64(1204)},
	}})
}

func (f *fake) ListPlacementRules(context.Context, *connect.Request[nolav1.ListPlacementRulesRequest]) (*connect.Response[nolav1.ListPlacementRulesResponse], error) {
	return answer(&nolav1.ListPlacementRulesResponse{Rules: []*nolav1.PlacementRule{
		{Namespace: "shop", Require: map[string]string{"zone": "eu"}},
		{Namespace: "shop", Type: "report", Prefer: map[string]string{"disk": "fast"}, Avoid: map[string]string{"spot": "yes"}},
	}})
}

func (f *fake) SetPlacementRule(context.Context, *connect.Request[nolav1.SetPlacementRuleRequest]) (*connect.Response[nolav1.SetPlacementRuleResponse], error) {
	return answer(&nolav1.SetPlacementRuleResponse{})
}

func (f *fake) DeletePlacementRule(context.Context, *connect.Request[nolav1.DeletePlacementRuleRequest]) (*connect.Response[nolav1.DeletePlacementRuleResponse], error) {
	return answer(&nolav1.DeletePlacementRuleResponse{})
}

func (f *fake) GetCluster(context.Context, *connect.Request[nolav1.GetClusterRequest]) (*connect.Response[nolav1.GetClusterResponse], error) {
	return answer(&nolav1.GetClusterResponse{ServerTime: timestamppb.New(f.time), VirtualTime: true})
}

// AdvanceTime needs two requests, the second of which must go on to the same time.
func (f *fake) AdvanceTime(_ context.Context, req *connect.Request[nolav1.AdvanceTimeRequest]) (*connect.Response[nolav1.AdvanceTimeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to := req.Msg.GetTo(); to != nil && to.AsTime().Equal(f.target) {
		f.target = time.Time{}
		return answer(&nolav1.AdvanceTimeResponse{ServerTime: to, TargetTime: to, Reached: true})
	}
	f.target = f.time.Add(req.Msg.GetBy().AsDuration())
	if to := req.Msg.GetTo(); to != nil {
		f.target = to.AsTime()
	}
	return answer(&nolav1.AdvanceTimeResponse{ServerTime: timestamppb.New(f.time), TargetTime: timestamppb.New(f.target)})
}

func (f *fake) ListShards(_ context.Context, req *connect.Request[nolav1.ListShardsRequest]) (*connect.Response[nolav1.ListShardsResponse], error) {
	all := []*nolav1.Shard{
		{Shard: 0, NodeId: "n1#7f3a", Epoch: 3, Seq: 120, Activations: 2, Due: 1, DesiredNodeId: "n1#7f3a"},
		{Shard: 1, DesiredNodeId: "n1#7f3a"},
		{Shard: 2, NodeId: "n1#7f3a", Epoch: 4, Seq: 7, DesiredNodeId: "n1#7f3a"},
	}
	some, next := page(all, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListShardsResponse{Shards: some, NextPageToken: next})
}

func (f *fake) GetUsage(_ context.Context, req *connect.Request[nolav1.GetUsageRequest]) (*connect.Response[nolav1.GetUsageResponse], error) {
	all := map[nolav1.UsageBy][]*nolav1.Usage{
		nolav1.UsageBy_USAGE_BY_NAMESPACE: {{Namespace: "default", Turns: 40, Steps: 4_000, RunTime: durationpb.New(2 * time.Millisecond)}},
		nolav1.UsageBy_USAGE_BY_TYPE: {
			{Namespace: "default", Type: "counter", Turns: 39, Steps: 3_900, RunTime: durationpb.New(time.Millisecond)},
			{Namespace: "default", Type: "*", Turns: 1, Steps: 100, RunTime: durationpb.New(time.Millisecond)},
		},
		nolav1.UsageBy_USAGE_BY_ACTOR: {
			{Namespace: "default", Type: "counter", Id: "alice", Turns: 30, Steps: 3_000, RunTime: durationpb.New(900 * time.Microsecond)},
			{Namespace: "default", Type: "counter", Id: "bob", Turns: 2, Steps: 700, StepsError: 500, RunTime: durationpb.New(100 * time.Microsecond)},
		},
	}
	list := all[req.Msg.By]
	return answer(&nolav1.GetUsageResponse{
		Usage: list[:min(len(list), int(req.Msg.Limit))], Since: timestamppb.New(start.Add(-time.Hour)), ServerTime: timestamppb.New(start), NodeId: "n1#7f3a",
		Total: &nolav1.Usage{Turns: 40, Steps: 4_000, RunTime: durationpb.New(2 * time.Millisecond)},
	})
}

func (f *fake) LocateActor(context.Context, *connect.Request[nolav1.LocateActorRequest]) (*connect.Response[nolav1.LocateActorResponse], error) {
	return answer(&nolav1.LocateActorResponse{Shard: 17, Epoch: 3, Node: f.node()})
}

func (f *fake) CreateBackup(_ context.Context, req *connect.Request[nolav1.CreateBackupRequest]) (*connect.Response[nolav1.CreateBackupResponse], error) {
	name := cmp.Or(req.Msg.Name, "20261124t120000z")
	if name == "old" {
		return nil, failure(connect.CodeAlreadyExists, "ALREADY_EXISTS", "there is a backup called old")
	}
	return answer(&nolav1.CreateBackupResponse{Backup: fakeBackup(name)})
}

func (f *fake) ListBackups(_ context.Context, req *connect.Request[nolav1.ListBackupsRequest]) (*connect.Response[nolav1.ListBackupsResponse], error) {
	some, next := page([]*nolav1.Backup{fakeBackup("monday"), fakeBackup("old")}, req.Msg.PageSize, req.Msg.PageToken)
	return answer(&nolav1.ListBackupsResponse{Backups: some, NextPageToken: next})
}

func fakeBackup(name string) *nolav1.Backup {
	return &nolav1.Backup{Name: name, Directory: "/var/backups/nola/" + name, Created: ago(time.Hour), Bytes: 5 << 20}
}
