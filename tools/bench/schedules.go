package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

const (
	steadySchedules  = 1000
	steadySecondsMin = 5
	schedulesLead    = time.Second // between the last creation and the first firing that counts
	busyEvery        = 100 * time.Millisecond
	busySchedulesMax = 5000
	busyOffer        = 1.5 // of the target
	busyShare        = 0.15
	timers           = 10_000
	timersLead       = 10 * time.Second // in which they must all be set
	settleTimeout    = 30 * time.Second // in which what was due must have happened
	settlePoll       = 200 * time.Millisecond
	readers          = 16   // of results, after the measurement
	pageSize         = 1000 // of listings
)

const (
	rowTimers   = "10,000 timers due at one instant"
	rowArm      = "set timers, 64 callers"
	rowSteady   = "1,000 schedules every second"
	rowSteadyAt = "1,000 schedules every second, beside calls at 30 % load"
	rowSteadyOn = "1,000 schedules every second, beside 64 callers"
	rowCallsAt  = "durable call at 30 % load, beside 1,000 schedules every second"
	rowCallsOn  = "durable call, 64 callers, beside 1,000 schedules every second"
	rowBusy     = "schedule actions, sustained"
	rowBusyLate = "schedule actions, lateness"
	rowCreate   = "create schedules, 64 callers"
)

func schedulesBlock() block {
	return block{name: "schedules and timers", also: []string{echoMany, fsyncOne}, experiments: []experiment{
		{rows: []row{{rowCreate, perSecond, echoMany, []target{shareOfLimit(echoMany, 0.2)}}}, run: createSchedules},
		{rows: []row{{rowSteady, millis, "", []target{p99AtMost(50)}}}, run: steady},
		{rows: []row{
			{rowSteadyAt, millis, "", []target{p99AtMost(50)}},
			{rowSteadyOn, millis, "", nil},
			{rowCallsAt, millis, "", nil},
			{rowCallsOn, perSecond, "", nil},
		}, run: steadyBesideCalls},
		{rows: []row{
			{rowBusy, perSecond, pebbleMany, []target{shareOfLimit(pebbleMany, busyShare)}},
			{rowBusyLate, millis, "", nil},
		}, run: busy},
		{rows: []row{
			{rowTimers, millis, "", []target{p50AtMost(100), p99AtMost(250)}},
			{rowArm, perSecond, echoMany, nil},
		}, run: timersAtOnce},
	}}
}

// creating makes callers that create schedules. spec is the JSON of schedule i.
func creating(ctx context.Context, n *node, prefix string, spec func(i int) string, number func(caller, i int) int) func(int) (call, func(), error) {
	return onConn(ctx, n.address, func(caller int, c *conn) call {
		return func(i int) error {
			k := number(caller, i)
			id := prefix + strconv.Itoa(k)
			status, body, err := c.do(postJSON(n.address, nolav1connect.ScheduleServiceCreateScheduleProcedure,
				fmt.Sprintf(`{"schedule":{"namespace":%q,"scheduleId":%q,"target":{"actor":{"namespace":%q,"type":%q,"id":%q},"operation":%q},"spec":%s}}`,
					namespace, id, namespace, counterModule, id, opInc, spec(k))))
			if err != nil {
				return err
			}
			if status != 200 {
				return fmt.Errorf("status %d: %.300s", status, body)
			}
			if got, _ := jsonText(body, "scheduleId"); string(got) != id {
				return fmt.Errorf("schedule %q was answered with %.300s", id, body)
			}
			return nil
		}
	})
}

func createAll(ctx context.Context, n *node, prefix string, count int, spec func(i int) string) error {
	t, err := driveEach(ctx, manyCaller, count, creating(ctx, n, prefix, spec, func(_, i int) int { return i }))
	if err == nil {
		err = t.err
	}
	if err != nil {
		return fmt.Errorf("create schedules: %w", err)
	}
	return nil
}

// createSchedules measures the creation of schedules that do not fire meanwhile.
func createSchedules(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	never := func(int) string { return `{"at":["2999-01-01T00:00:00Z"]}` }
	slice := 0
	warm, t, err := b.load(ctx, n, rowCreate, manyCaller, func(k int) (call, func(), error) {
		if k == 0 {
			slice++
		}
		return creating(ctx, n, fmt.Sprintf("s%d-", slice), never, func(caller, i int) int { return i*manyCaller + caller })(k)
	})
	if err != nil {
		return nil, err
	}
	listed, err := countSchedules(ctx, n)
	if err != nil {
		return nil, err
	}
	checkSum(t, listed, warm, t)
	return map[string]sample{rowCreate: rateSample(t)}, nil
}

func countSchedules(ctx context.Context, n *node) (int64, error) {
	var count int64
	for token := ""; ; {
		res, err := n.schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{Namespace: namespace, PageSize: pageSize, PageToken: token}))
		if err != nil {
			return 0, fmt.Errorf("list schedules: %w", err)
		}
		count += int64(len(res.Msg.GetSchedules()))
		if token = res.Msg.GetNextPageToken(); token == "" {
			return count, nil
		}
	}
}

// closing ends a node and joins what goes wrong with err.
func closing(n *node, err *error) { *err = errors.Join(*err, n.close()) }

// steady fires 1,000 schedules at every full second. Every second must have fired
// each of them.
func steady(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	if err := createAll(ctx, n, "s", steadySchedules, everySecond); err != nil {
		return nil, err
	}
	s, err := b.seconds(ctx, n, rowSteady, func(until time.Time) error { return waitUntil(ctx, until) })
	return map[string]sample{rowSteady: s}, err
}

func everySecond(int) string { return `{"interval":[{"every":"1s"}]}` }

// steadyBesideCalls fires the same schedules while others call: first at the pace
// of the rows at 30 % load, then as fast as they are answered.
func steadyBesideCalls(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	ids := actorNames("q", herdActors)
	caller := calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(_, _ int, _ int64) error { return nil })
	full, err := b.atFullSpeed(ctx, caller)
	if err != nil {
		return nil, err
	}
	if err := createAll(ctx, n, "s", steadySchedules, everySecond); err != nil {
		return nil, err
	}
	var paced, driven *tally
	at, err := b.seconds(ctx, n, rowSteadyAt, func(until time.Time) (err error) {
		paced, err = pace(ctx, manyCaller, time.Until(until), full.rate()*herdShare, caller)
		return err
	})
	if err != nil {
		return nil, err
	}
	on, err := b.seconds(ctx, n, rowSteadyOn, func(until time.Time) (err error) {
		driven, err = drive(ctx, manyCaller, time.Until(until), caller)
		return err
	})
	if err != nil {
		return nil, err
	}
	total, _, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	checkSum(driven, total, full, paced, driven)
	return map[string]sample{rowSteadyAt: at, rowSteadyOn: on, rowCallsAt: latencySample(paced), rowCallsOn: rateSample(driven)}, nil
}

// seconds lets some full seconds pass, in which the steady schedules must each fire
// once a second, while during lasts, which is told when they end.
func (b *bench) seconds(ctx context.Context, n *node, name string, during func(until time.Time) error) (sample, error) {
	seconds := max(int(b.each.Seconds()), steadySecondsMin)
	from := time.Now().Add(schedulesLead).Truncate(time.Second).Add(time.Second)
	until := from.Add(time.Duration(seconds) * time.Second)
	if err := waitUntil(ctx, from); err != nil {
		return sample{}, err
	}
	done := b.profile(ctx, n, name)
	if err := errors.Join(during(until), done()); err != nil {
		return sample{}, err
	}
	f, err := settled(ctx, n, "s", steadySchedules, from, until, seconds)
	if err != nil {
		return sample{}, err
	}
	t := &tally{hist: f.late, took: until.Sub(from), errors: f.failed, err: f.err}
	if missing := steadySchedules*seconds - int(f.late.n) - f.failed; missing != 0 {
		t.errors += max(missing, -missing)
		if t.err == nil {
			t.err = fmt.Errorf("%d firings were recorded, %d are right", f.late.n, steadySchedules*seconds)
		}
	}
	s := latencySample(t)
	s.Note = fmt.Sprintf("%d of %d fired, %d skipped", f.late.n, steadySchedules*seconds, f.skipped)
	return s, nil
}

// firings are the occurrences of a window.
type firings struct {
	late     histogram // of those that fired: start minus nominal time
	failed   int       // ended otherwise, or too early
	skipped  int       // because the one before still ran
	inWindow int       // ended inside the window, whatever their nominal time
	err      error     // of one that failed
}

// settled waits until every nominal time of the window has its outcome, and
// returns them.
func settled(ctx context.Context, n *node, prefix string, count int, from, until time.Time, each int) (*firings, error) {
	for giveUp := time.Now().Add(settleTimeout); ; {
		if err := waitUntil(ctx, time.Now().Add(settlePoll)); err != nil {
			return nil, err
		}
		f, err := listFirings(ctx, n, prefix, count, from, until)
		if err != nil {
			return nil, err
		}
		if int(f.late.n)+f.failed+f.skipped >= count*each || time.Now().After(giveUp) {
			return f, nil
		}
	}
}

// listFirings reads the outcomes of the window from all schedules.
func listFirings(ctx context.Context, n *node, prefix string, count int, from, until time.Time) (*firings, error) {
	var (
		mu    sync.Mutex // guards total
		total firings
	)
	t, err := driveEach(ctx, readers, count, func(int) (call, func(), error) {
		var mine firings
		read := func(i int) error {
			res, err := n.schedules.ListOccurrences(ctx, connect.NewRequest(&nolav1.ListOccurrencesRequest{
				Namespace: namespace, ScheduleId: prefix + strconv.Itoa(i), PageSize: pageSize,
			}))
			if err != nil {
				return err
			}
			for _, o := range res.Msg.GetOccurrences() {
				mine.add(o, from, until)
			}
			return nil
		}
		return read, func() {
			mu.Lock()
			defer mu.Unlock()
			total.merge(&mine)
		}, nil
	})
	if err == nil {
		err = t.err
	}
	if err != nil {
		return nil, fmt.Errorf("list occurrences: %w", err)
	}
	return &total, nil
}

func (f *firings) add(o *nolav1.Occurrence, from, until time.Time) {
	if o.GetKind() != nolav1.OccurrenceKind_OCCURRENCE_KIND_REGULAR || o.GetOutcome() == nolav1.Outcome_OUTCOME_RUNNING {
		return
	}
	nominal, start, end := o.GetNominalTime().AsTime(), o.GetStartTime().AsTime(), o.GetEndTime().AsTime()
	fired := o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED && o.GetError() == nil
	if fired && !end.Before(from) && end.Before(until) {
		f.inWindow++
	}
	if nominal.Before(from) || !nominal.Before(until) {
		return
	}
	switch {
	case o.GetOutcome() == nolav1.Outcome_OUTCOME_SKIPPED_OVERLAP:
		f.skipped += max(int(o.GetCount()), 1)
	case !fired:
		f.failed += max(int(o.GetCount()), 1)
		f.err = fmt.Errorf("the occurrence of %s ended as %s: %s", nominal, o.GetOutcome(), o.GetError().GetMessage())
	case start.Before(nominal):
		f.failed++
		f.err = fmt.Errorf("the occurrence of %s fired early, at %s", nominal, start)
	default:
		f.late.add(start.Sub(nominal))
	}
}

func (f *firings) merge(o *firings) {
	f.late.merge(&o.late)
	f.failed += o.failed
	f.skipped += o.skipped
	f.inWindow += o.inWindow
	if f.err == nil {
		f.err = o.err
	}
}

// busySchedules is how many schedules of ten actions a second offer more than the
// target asks for.
func busySchedules(pebbleRate float64) int {
	n := int(pebbleRate * busyShare * busyOffer * busyEvery.Seconds())
	return min(max(n, 100), busySchedulesMax)
}

// busy offers more actions than the target asks for and counts those that ended
// inside the window.
func busy(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	count := busySchedules(b.now[pebbleMany])
	if err := createAll(ctx, n, "b", count, busySpec); err != nil {
		return nil, err
	}
	from := time.Now().Add(schedulesLead)
	until := from.Add(b.each)
	if err := waitUntil(ctx, from); err != nil {
		return nil, err
	}
	done := b.profile(ctx, n, rowBusy)
	if err := errors.Join(waitUntil(ctx, until), done()); err != nil {
		return nil, err
	}
	offered := float64(count) / busyEvery.Seconds()
	f, err := settled(ctx, n, "b", count, from, until, int(b.each/busyEvery))
	if err != nil {
		return nil, err
	}
	t := &tally{hist: f.late, took: b.each, errors: f.failed, err: f.err}
	note := fmt.Sprintf("%.0f/s offered by %d schedules, %d skipped", offered, count, f.skipped)
	rate, late := latencySample(t), latencySample(t)
	rate.Value, rate.Latency, rate.Note = float64(f.inWindow)/b.each.Seconds(), nil, note
	return map[string]sample{rowBusy: rate, rowBusyLate: late}, nil
}

// busySpec is every 100 ms, schedule after schedule a millisecond later.
func busySpec(i int) string {
	return fmt.Sprintf(`{"interval":[{"every":"0.100s","phase":"0.%03ds"}]}`, i%int(busyEvery/time.Millisecond))
}

// timersAtOnce sets a timer for each of many actors, all due at one instant. How
// late they were is read from their recorded outcomes, which are as durable as
// their effects.
func timersAtOnce(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	due := time.Now().Add(timersLead).Truncate(time.Millisecond)
	ids := make([]string, timers) // of the invocations, in base64
	arm, err := driveEach(ctx, manyCaller, timers, onConn(ctx, n.address, func(_ int, c *conn) call {
		return func(i int) error {
			status, body, err := c.do(postJSON(n.address, nolav1connect.ActorServiceCastProcedure,
				fmt.Sprintf(`{"actor":%s,"operation":%q,"deliverAt":%q}`, timerActor(i), opInc, due.UTC().Format(time.RFC3339Nano))))
			if err != nil {
				return err
			}
			id, ok := jsonText(body, "invocationId")
			if status != 200 || !ok {
				return fmt.Errorf("status %d: %.300s", status, body)
			}
			ids[i] = string(id)
			return nil
		}
	}))
	if err == nil {
		err = arm.err
	}
	if err != nil {
		return nil, fmt.Errorf("set timers: %w", err)
	}
	if left := time.Until(due); left < schedulesLead {
		return nil, fmt.Errorf("setting %d timers took %s, there are %s for it: the machine is too slow or too busy for this row", timers, arm.took, timersLead)
	}
	if err := waitUntil(ctx, due.Add(-b.each/8)); err != nil { // the profile is as long as a slice
		return nil, err
	}
	profiled := b.profile(ctx, n, rowTimers)
	if err := errors.Join(waitUntil(ctx, due.Add(schedulesLead)), profiled()); err != nil {
		return nil, err
	}
	late := &tally{took: schedulesLead}
	ends, err := timerEnds(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	for _, end := range ends {
		if end.Before(due) {
			late.fail(fmt.Errorf("a timer of %s fired early, at %s", due, end))
			continue
		}
		late.hist.add(end.Sub(due))
	}
	return map[string]sample{rowTimers: latencySample(late), rowArm: rateSample(arm)}, nil
}

func timerActor(i int) string {
	return fmt.Sprintf(`{"namespace":%q,"type":%q,"id":"t%d"}`, namespace, counterModule, i)
}

// timerEnds asks for the outcome of each timer until it has one. Each must have
// counted to 1.
func timerEnds(ctx context.Context, n *node, ids []string) ([]time.Time, error) {
	ends := make([]time.Time, len(ids))
	t, err := driveEach(ctx, readers, len(ids), onConn(ctx, n.address, func(_ int, c *conn) call {
		return func(i int) error {
			request := postJSON(n.address, nolav1connect.ActorServiceGetInvocationProcedure,
				fmt.Sprintf(`{"actor":%s,"invocationId":%q}`, timerActor(i), ids[i]))
			for giveUp := time.Now().Add(settleTimeout); ; {
				status, body, err := c.do(request)
				if err != nil {
					return err
				}
				state, _ := jsonText(body, "state")
				switch {
				case status == 200 && string(state) == nolav1.InvocationState_INVOCATION_STATE_SUCCEEDED.String():
					end, _ := jsonText(body, "endTime")
					result, _ := jsonText(body, "result")
					if string(result) != "MQ==" { // "1"
						return fmt.Errorf("a timer's result is not 1: %.300s", body)
					}
					ends[i], err = time.Parse(time.RFC3339Nano, string(end))
					return err
				case status != 200 || string(state) != nolav1.InvocationState_INVOCATION_STATE_PENDING.String() || time.Now().After(giveUp):
					return fmt.Errorf("a timer is not done: status %d: %.300s", status, body)
				}
				if err := waitUntil(ctx, time.Now().Add(settlePoll)); err != nil {
					return err
				}
			}
		}
	}))
	if err == nil {
		err = t.err
	}
	if err != nil {
		return nil, fmt.Errorf("read the timers' outcomes: %w", err)
	}
	return ends, nil
}
