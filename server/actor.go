package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// actors is the ActorService.
type actors struct{ s *Server }

func (a *actors) Invoke(ctx context.Context, req *connect.Request[nolav1.InvokeRequest]) (*connect.Response[nolav1.InvokeResponse], error) {
	m := req.Msg
	key, err := keyOf(m.GetIdempotencyKey(), m.GetSession())
	if err != nil {
		return nil, err
	}
	now := a.s.cfg.Now()
	deadline, err := deadlineOf(now, m.GetTimeout())
	if err != nil {
		return nil, err
	}
	if m.GetActor() == nil {
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "actor: value is required")
	}
	if err := checkOperation(m.GetOperation()); err != nil {
		return nil, err
	}
	inv := &nola.Invocation{
		Target: refOf(m.GetActor()), Operation: m.GetOperation(), Payload: m.GetPayload(), Key: key,
		Deadline: headerDeadline(req.Header(), now, deadline),
	}
	if err := a.s.authorize(req.Header(), inv); err != nil {
		return nil, err
	}
	result, err := a.s.cfg.Shards.Invoke(ctx, inv)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.InvokeResponse{Payload: result.Payload, InvocationId: result.ID[:], Replayed: result.Replayed}), nil
}

// InvokeUnansweredMax is how many calls of one stream may be unanswered; then the
// server stops reading from it.
const InvokeUnansweredMax = 1024

func (a *actors) InvokeMany(ctx context.Context, stream *connect.BidiStream[nolav1.InvokeManyRequest, nolav1.InvokeManyResponse]) error {
	m := newInvokeMany(a, stream)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan error, 1)
	go func() {
		defer stop() // nobody hears the answers any more
		sent <- m.send(ctx)
	}()
	err := m.receive(ctx)
	m.settle(ctx) // what was begun is answered, also if the stream ends with an error
	stop()
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	return err
}

// invokeMany is one stream. Its calls are begun in the order in which they
// arrive, so that those to one actor start in that order; they are answered as
// they end.
type invokeMany struct {
	a       *actors
	stream  *connect.BidiStream[nolav1.InvokeManyRequest, nolav1.InvokeManyResponse]
	slots   chan struct{}                 // one for each unanswered call
	answers chan *nolav1.InvokeManyResult // has room for each
}

func newInvokeMany(a *actors, stream *connect.BidiStream[nolav1.InvokeManyRequest, nolav1.InvokeManyResponse]) *invokeMany {
	return &invokeMany{
		a: a, stream: stream, slots: make(chan struct{}, InvokeUnansweredMax),
		answers: make(chan *nolav1.InvokeManyResult, InvokeUnansweredMax),
	}
}

// receive begins what the stream brings until it ends.
func (m *invokeMany) receive(ctx context.Context) error {
	for {
		req, err := m.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, c := range req.GetCalls() {
			select {
			case m.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			m.begin(ctx, c)
		}
	}
}

func (m *invokeMany) begin(ctx context.Context, c *nolav1.InvokeManyCall) {
	inv, err := m.invocation(c)
	if err != nil {
		m.answer(c.GetTag(), nola.Result{}, err)
		return
	}
	err = m.a.s.cfg.Shards.Begin(ctx, inv, func(result nola.Result, err error) { m.answer(c.GetTag(), result, err) })
	if err != nil {
		m.answer(c.GetTag(), nola.Result{}, err)
	}
}

func (m *invokeMany) invocation(c *nolav1.InvokeManyCall) (*nola.Invocation, error) {
	key, err := keyOf(c.GetIdempotencyKey(), c.GetSession())
	if err != nil {
		return nil, err
	}
	deadline, err := deadlineOf(m.a.s.cfg.Now(), c.GetTimeout())
	if err != nil {
		return nil, err
	}
	if c.GetActor() == nil {
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "actor: value is required")
	}
	if err := checkOperation(c.GetOperation()); err != nil {
		return nil, err
	}
	inv := &nola.Invocation{Target: refOf(c.GetActor()), Operation: c.GetOperation(), Payload: c.GetPayload(), Key: key, Deadline: deadline}
	return inv, m.a.s.authorize(m.stream.RequestHeader(), inv)
}

func (m *invokeMany) answer(tag uint64, result nola.Result, err error) {
	r := &nolav1.InvokeManyResult{Tag: tag, Replayed: result.Replayed}
	if !result.ID.IsZero() {
		r.InvocationId = result.ID[:]
	}
	if err != nil {
		r.Result = &nolav1.InvokeManyResult_Error{Error: asMessage(m.a.s.log, err)}
	} else {
		r.Result = &nolav1.InvokeManyResult_Payload{Payload: result.Payload}
	}
	m.answers <- r
}

// settle waits until every call has been answered, or ctx ends.
func (m *invokeMany) settle(ctx context.Context) {
	for range cap(m.slots) {
		select {
		case m.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// send brings answers back, as many at once as there are, until ctx ends.
func (m *invokeMany) send(ctx context.Context) error {
	for {
		var batch []*nolav1.InvokeManyResult
		select {
		case r := <-m.answers:
			batch = append(batch, r)
		case <-ctx.Done():
			return nil
		}
	more:
		for len(batch) < InvokeUnansweredMax {
			select {
			case r := <-m.answers:
				batch = append(batch, r)
			default:
				break more
			}
		}
		if err := m.stream.Send(&nolav1.InvokeManyResponse{Results: batch}); err != nil {
			return err
		}
		for range batch {
			<-m.slots
		}
	}
}

func (a *actors) Cast(ctx context.Context, req *connect.Request[nolav1.CastRequest]) (*connect.Response[nolav1.CastResponse], error) {
	m := req.Msg
	key, err := keyOf(m.GetIdempotencyKey(), m.GetSession())
	if err != nil {
		return nil, err
	}
	inv := &nola.Invocation{Target: refOf(m.GetActor()), Operation: m.GetOperation(), Payload: m.GetPayload(), Key: key}
	if err := a.s.authorize(req.Header(), inv); err != nil {
		return nil, err
	}
	id, err := a.s.cfg.Shards.Cast(ctx, inv, a.dueOf(m.GetDeliverAt(), m.GetDelay()))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CastResponse{InvocationId: id[:]}), nil
}

func (a *actors) dueOf(at *timestamppb.Timestamp, delay *durationpb.Duration) time.Time {
	switch {
	case at != nil:
		return at.AsTime()
	case delay != nil:
		return a.s.cfg.Now().Add(delay.AsDuration())
	}
	return time.Time{}
}

// MultiMax is how many actors of one Multi request are worked on at once.
const MultiMax = 64

// each runs f for every index below n, a bounded number at once.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, MultiMax)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

func (a *actors) MultiInvoke(ctx context.Context, req *connect.Request[nolav1.MultiInvokeRequest]) (*connect.Response[nolav1.MultiInvokeResponse], error) {
	m := req.Msg
	key, err := keyOf(m.GetIdempotencyKey(), m.GetSession())
	if err != nil {
		return nil, err
	}
	deadline, err := deadlineOf(a.s.cfg.Now(), m.GetTimeout())
	if err != nil {
		return nil, err
	}
	results := make([]*nolav1.MultiInvokeResult, len(m.GetActors()))
	each(len(results), func(i int) {
		r := &nolav1.MultiInvokeResult{Actor: m.GetActors()[i]}
		inv := &nola.Invocation{Target: refOf(r.GetActor()), Operation: m.GetOperation(), Payload: m.GetPayload(), Key: key, Deadline: deadline}
		err := a.s.authorize(req.Header(), inv)
		var result nola.Result
		if err == nil {
			result, err = a.s.cfg.Shards.Invoke(ctx, inv)
		}
		if err != nil {
			r.Result = &nolav1.MultiInvokeResult_Error{Error: asMessage(a.s.log, err)}
		} else {
			r.Result = &nolav1.MultiInvokeResult_Payload{Payload: result.Payload}
			r.InvocationId, r.Replayed = result.ID[:], result.Replayed
		}
		results[i] = r
	})
	return connect.NewResponse(&nolav1.MultiInvokeResponse{Results: results}), nil
}

func (a *actors) MultiCast(ctx context.Context, req *connect.Request[nolav1.MultiCastRequest]) (*connect.Response[nolav1.MultiCastResponse], error) {
	m := req.Msg
	key, err := keyOf(m.GetIdempotencyKey(), m.GetSession())
	if err != nil {
		return nil, err
	}
	due := a.dueOf(m.GetDeliverAt(), m.GetDelay())
	results := make([]*nolav1.MultiCastResult, len(m.GetActors()))
	each(len(results), func(i int) {
		r := &nolav1.MultiCastResult{Actor: m.GetActors()[i]}
		inv := &nola.Invocation{Target: refOf(r.GetActor()), Operation: m.GetOperation(), Payload: m.GetPayload(), Key: key}
		err := a.s.authorize(req.Header(), inv)
		var id nola.InvocationID
		if err == nil {
			id, err = a.s.cfg.Shards.Cast(ctx, inv, due)
		}
		if err != nil {
			r.Result = &nolav1.MultiCastResult_Error{Error: asMessage(a.s.log, err)}
		} else {
			r.Result = &nolav1.MultiCastResult_InvocationId{InvocationId: id[:]}
		}
		results[i] = r
	})
	return connect.NewResponse(&nolav1.MultiCastResponse{Results: results}), nil
}

func (a *actors) GetInvocation(ctx context.Context, req *connect.Request[nolav1.GetInvocationRequest]) (*connect.Response[nolav1.GetInvocationResponse], error) {
	m := req.Msg
	var id nola.InvocationID
	var key nola.Key
	if m.GetInvocationId() != nil {
		if len(m.GetInvocationId()) != len(id) {
			return nil, nola.Errorf(nola.ReasonInvalidArgument, "invocation_id has %d bytes, it must have %d", len(m.GetInvocationId()), len(id))
		}
		copy(id[:], m.GetInvocationId())
	} else {
		var err error
		if key, err = keyOf(m.GetIdempotencyKey(), m.GetSession()); err != nil {
			return nil, err
		}
	}
	info, err := a.s.cfg.Shards.GetInvocation(ctx, refOf(m.GetActor()), id, key)
	if err != nil {
		return nil, err
	}
	res := &nolav1.GetInvocationResponse{
		State: nolav1.InvocationState(info.State), Result: info.Payload, Attempts: uint32(info.Attempts), EndTime: timeMessage(info.Ended),
	}
	if !info.ID.IsZero() {
		res.InvocationId = info.ID[:]
	}
	if info.Err != nil {
		res.Error = asMessage(a.s.log, info.Err)
	}
	return connect.NewResponse(res), nil
}

func (a *actors) CreateActor(ctx context.Context, req *connect.Request[nolav1.CreateActorRequest]) (*connect.Response[nolav1.CreateActorResponse], error) {
	m := req.Msg
	key, err := keyOf(m.GetIdempotencyKey(), m.GetSession())
	if err != nil {
		return nil, err
	}
	deadline, err := deadlineOf(a.s.cfg.Now(), m.GetTimeout())
	if err != nil {
		return nil, err
	}
	inv := &nola.Invocation{Target: refOf(m.GetActor()), Payload: m.GetInitPayload(), Create: true, Key: key, Deadline: deadline}
	if err := a.s.authorize(req.Header(), inv); err != nil {
		return nil, err
	}
	result, err := a.s.cfg.Shards.Invoke(ctx, inv)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CreateActorResponse{InvocationId: result.ID[:], Replayed: result.Replayed}), nil
}

func (a *actors) DescribeActor(ctx context.Context, req *connect.Request[nolav1.DescribeActorRequest]) (*connect.Response[nolav1.DescribeActorResponse], error) {
	info, err := a.s.cfg.Shards.DescribeActor(ctx, refOf(req.Msg.GetActor()))
	if err != nil {
		return nil, err
	}
	res := &nolav1.DescribeActorResponse{
		Actor: refMessage(info.Ref), Shard: uint32(info.Shard), Created: timeMessage(info.Created), BacklogEntries: uint64(info.Backlog),
	}
	if info.Active {
		res.Activation = &nolav1.Activation{
			ModuleVersion: info.ModuleVersion, MailboxEntries: uint32(info.Mailbox), Turns: info.Turns, Steps: info.Steps,
			MemoryBytes: uint64(info.MemoryBytes), LastUsed: timeMessage(info.LastUsed),
		}
	}
	return connect.NewResponse(res), nil
}

func (a *actors) ListActors(_ context.Context, req *connect.Request[nolav1.ListActorsRequest]) (*connect.Response[nolav1.ListActorsResponse], error) {
	m := req.Msg
	var after nola.ActorRef
	cursor, err := parseCursor("actors", m.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	if cursor != nil {
		var rest []byte
		if after, rest, err = nola.ParseCanonical([]byte(cursor[0])); err != nil || len(rest) > 0 {
			return nil, errPageToken()
		}
	}
	size := pageSize(m.GetPageSize())
	refs, err := a.s.cfg.Store.ListActors(namespaceOr(m.GetNamespace()), m.GetType(), m.GetIdPrefix(), after, size)
	if err != nil {
		return nil, err
	}
	res := &nolav1.ListActorsResponse{}
	for _, r := range refs {
		res.Actors = append(res.Actors, refMessage(r))
	}
	if len(refs) == size {
		res.NextPageToken = formatCursor("actors", string(refs[size-1].AppendCanonical(nil)))
	}
	return connect.NewResponse(res), nil
}

func (a *actors) PassivateActor(ctx context.Context, req *connect.Request[nolav1.PassivateActorRequest]) (*connect.Response[nolav1.PassivateActorResponse], error) {
	passivated, err := a.s.cfg.Shards.PassivateActor(ctx, refOf(req.Msg.GetActor()))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.PassivateActorResponse{Passivated: passivated}), nil
}

func (a *actors) DeleteActor(ctx context.Context, req *connect.Request[nolav1.DeleteActorRequest]) (*connect.Response[nolav1.DeleteActorResponse], error) {
	if err := a.s.cfg.Shards.DeleteActor(ctx, refOf(req.Msg.GetActor())); err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.DeleteActorResponse{}), nil
}

func (a *actors) GetState(_ context.Context, req *connect.Request[nolav1.GetStateRequest]) (*connect.Response[nolav1.GetStateResponse], error) {
	ref := refOf(req.Msg.GetActor())
	value, found, err := a.s.reader.State(a.s.shardOf(ref), ref, string(req.Msg.GetKey()))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.GetStateResponse{Found: found, Value: value}), nil
}

func (a *actors) ListState(_ context.Context, req *connect.Request[nolav1.ListStateRequest]) (*connect.Response[nolav1.ListStateResponse], error) {
	m := req.Msg
	ref := refOf(m.GetActor())
	from, to := stateRange(m.GetPrefix(), m.GetStart(), m.GetReverse())
	cursor, err := parseCursor("state", m.GetPageToken(), 1)
	switch {
	case err != nil:
		return nil, err
	case cursor == nil:
	case m.GetReverse():
		to = []byte(cursor[0]) // exclusive
	default:
		from = append([]byte(cursor[0]), 0)
	}
	size := pageSize(m.GetLimit())
	res := &nolav1.ListStateResponse{}
	bytes := 0
	err = a.s.reader.ScanState(a.s.shardOf(ref), ref, from, to, m.GetReverse(), func(key, value []byte) bool {
		if len(res.GetEntries()) == size || bytes > nola.ListBytesMax {
			res.NextPageToken = formatCursor("state", string(res.GetEntries()[len(res.GetEntries())-1].GetKey()))
			return false
		}
		bytes += len(key) + len(value)
		res.Entries = append(res.Entries, &nolav1.StateEntry{Key: append([]byte(nil), key...), Value: append([]byte(nil), value...)})
		return true
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

// stateRange is the range of keys with a prefix, from start on in the direction
// of the listing.
func stateRange(prefix, start []byte, reverse bool) (from, to []byte) {
	from = prefix
	for end := append([]byte(nil), prefix...); len(end) > 0; end = end[:len(end)-1] {
		if end[len(end)-1]++; end[len(end)-1] != 0 {
			to = end
			break
		}
	}
	switch {
	case len(start) == 0:
	case reverse:
		if end := append(append([]byte(nil), start...), 0); len(to) == 0 || string(end) < string(to) {
			to = end
		}
	case string(start) > string(from):
		from = start
	}
	return from, to
}

func (a *actors) ListTimers(_ context.Context, req *connect.Request[nolav1.ListTimersRequest]) (*connect.Response[nolav1.ListTimersResponse], error) {
	m := req.Msg
	ref := refOf(m.GetActor())
	// A token says which list goes on, and where: timers first, reminders then.
	const timers, reminders = "t", "r"
	list, after := timers, ""
	cursor, err := parseCursor("timers", m.GetPageToken(), 2)
	if err != nil {
		return nil, err
	}
	if cursor != nil {
		if list, after = cursor[0], cursor[1]; list != timers && list != reminders {
			return nil, errPageToken()
		}
	}
	size := pageSize(m.GetPageSize())
	shard := a.s.shardOf(ref)
	res := &nolav1.ListTimersResponse{}
	if list == timers {
		rows, err := a.s.reader.Timers(shard, ref, "", after, size)
		if err != nil {
			return nil, err
		}
		bytes := 0
		for _, t := range rows {
			m := &nolav1.Timer{Name: t.Name, Operation: t.Operation, DueTime: timeMessage(t.Due)}
			due, _, err := a.s.reader.DueAt(shard, t.Due, ref, persistence.DueTimer, t.Name)
			if err != nil {
				return nil, err
			}
			if due.Invocation != nil {
				m.Payload = due.Invocation.Payload
			}
			res.Timers = append(res.Timers, m)
			if bytes += len(m.Payload); bytes > nola.ListBytesMax {
				res.NextPageToken = formatCursor("timers", timers, t.Name)
				return connect.NewResponse(res), nil
			}
		}
		if len(rows) == size {
			res.NextPageToken = formatCursor("timers", timers, rows[size-1].Name)
			return connect.NewResponse(res), nil
		}
		after = ""
	}
	room := size - len(res.GetTimers())
	rows, err := a.s.reader.Schedules(shard, ref, true, after, room)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		res.Timers = append(res.Timers, reminderMessage(&rows[i].Schedule, &rows[i].Progress))
	}
	if len(rows) == room && room > 0 {
		res.NextPageToken = formatCursor("timers", reminders, rows[room-1].Schedule.ID)
	}
	return connect.NewResponse(res), nil
}

func reminderMessage(sd *nola.Schedule, p *nola.Progress) *nolav1.Timer {
	t := &nolav1.Timer{Name: sd.ID, Operation: sd.Operation, Payload: sd.Payload, DueTime: timeMessage(p.Due), Reminder: &nolav1.Reminder{TimeZone: sd.Spec.TimeZone}}
	switch {
	case len(sd.Spec.Cron) > 0:
		t.Reminder.Period = &nolav1.Reminder_Cron{Cron: sd.Spec.Cron[0].Expression}
	case len(sd.Spec.Interval) > 0:
		t.Reminder.Period = &nolav1.Reminder_Every{Every: durationpb.New(sd.Spec.Interval[0].Every)}
	}
	return t
}

func (a *actors) TailLogs(ctx context.Context, req *connect.Request[nolav1.TailLogsRequest], stream *connect.ServerStream[nolav1.TailLogsResponse]) error {
	m := req.Msg
	ref := refOf(m.GetActor())
	limit := pageSize(m.GetLimit())
	if !m.GetFollow() {
		res := &nolav1.TailLogsResponse{}
		for _, line := range a.s.cfg.Shards.Logs(ref, limit) {
			res.Entries = append(res.Entries, logMessage(line))
		}
		return stream.Send(res)
	}
	// The headers go out at once, so that the client knows that it is heard.
	if err := stream.Send(&nolav1.TailLogsResponse{}); err != nil {
		return err
	}
	return a.s.cfg.Shards.TailLogs(ctx, ref, limit, func(line nola.LogRecord) error {
		return stream.Send(&nolav1.TailLogsResponse{Entries: []*nolav1.LogEntry{logMessage(line)}})
	})
}

func logMessage(l nola.LogRecord) *nolav1.LogEntry {
	return &nolav1.LogEntry{Time: timeMessage(l.Time), Level: l.Level, Message: l.Message, InvocationId: l.Invocation[:]}
}
