package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

const (
	herdSmall      = 10_000
	herdLarge      = 1_000_000
	herdMax        = 10_000_000
	herdProbe      = time.Second / 2 // in which the rate of creation is found
	herdMargin     = 1.5             // of the time that creating should take
	herdActors     = 1000            // that are called meanwhile
	herdShare      = 0.3             // of the rate that the machine can do
	herdRate       = 10_000          // actions a second
	herdPoll       = 200 * time.Millisecond
	herdDrainMax   = 10 * time.Minute
	herdSlowDown   = 2 // of the calls' p99
	firingsCounter = `nola_firings_total{outcome="FIRED"}`
)

// herdNames are the rows of a herd.
type herdNames struct{ late, rate, before, during string }

func herdRows(size int) herdNames {
	herd := "herd of " + grouped(size)
	return herdNames{
		late:   herd + ", lateness of the end",
		rate:   herd + ", actions",
		before: "durable call at 30 % load, before the herd of " + grouped(size),
		during: "durable call at 30 % load, while the herd of " + grouped(size) + " drains",
	}
}

// grouped writes a number with a comma before each three digits.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// herdBlock has so many schedules, of an actor each, due at one instant while
// others call.
func herdBlock(size int) block {
	rows := herdRows(size)
	return block{name: "herd of " + grouped(size), also: []string{echoMany, fsyncOne}, experiments: []experiment{{
		rows: []row{
			{rows.late, millis, "", nil},
			{rows.rate, perSecond, pebbleMany, []target{valueAtLeast(herdRate, perSecond)}},
			{rows.before, millis, "", nil},
			{rows.during, millis, "", []target{p99WithinRow(rows.before, "before", herdSlowDown)}},
		},
		run: func(ctx context.Context, b *bench) (map[string]sample, error) { return b.herd(ctx, size) },
	}}}
}

func herdCommand(ctx context.Context, args []string) error {
	f := newFlags("herd")
	size := f.Int("n", herdLarge, "how many schedules are due at the instant")
	f.StringVar(&f.b.pprof, "pprof", "", "directory for CPU profiles of the server, one per row")
	if err := f.parse(args); err != nil {
		return err
	}
	if *size < 1 || *size > herdMax {
		return fmt.Errorf("%w -n is %d, it must lie between 1 and %d", errUsage, *size, herdMax)
	}
	return f.measure(ctx, []block{herdBlock(*size)})
}

// herd creates the schedules, measures calls before they are due, and until all
// have fired.
func (b *bench) herd(ctx context.Context, size int) (_ map[string]sample, err error) {
	n, err := b.freshWithMetrics(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	rows := herdRows(size)
	ids := actorNames("q", herdActors)
	caller := calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(_, _ int, _ int64) error { return nil })
	full, err := b.atFullSpeed(ctx, caller)
	if err != nil {
		return nil, err
	}
	rate := full.rate() * herdShare
	due, err := b.gather(ctx, n, size)
	if err != nil {
		return nil, err
	}
	before, err := pace(ctx, manyCaller, b.each, rate, caller)
	if err == nil {
		err = before.err
	}
	if err != nil {
		return nil, err
	}
	if time.Now().After(due) {
		return nil, fmt.Errorf("the herd was due before the calls alone were measured: the machine is too slow or too busy for this row")
	}
	if err := waitUntil(ctx, due.Add(-herdPoll)); err != nil {
		return nil, err
	}
	profiled := b.profile(ctx, n, rows.rate)
	calls, err := b.meanwhile(ctx, n, size, due, rate, caller)
	if err := errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	late, last, err := herdOutcomes(ctx, n, size, due)
	if err != nil {
		return nil, err
	}
	during := &tally{took: last.Sub(due), errors: calls.failed, err: calls.err}
	for _, c := range calls.list {
		if !c.due.Before(due) && c.due.Before(last) {
			during.hist.add(c.took)
		}
	}
	total, _, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	if made := int64(full.hist.n) + int64(before.hist.n) + int64(len(calls.list)); total != made {
		during.fail(fmt.Errorf("%d calls were answered, %d are stored", made, total))
	}
	fired := latencySample(late)
	fired.Note = fmt.Sprintf("drained in %s", last.Sub(due).Round(time.Millisecond))
	with := latencySample(during)
	with.Note = fmt.Sprintf("%.0f calls/s offered, %d measured", rate, during.hist.n)
	return map[string]sample{
		rows.late: fired, rows.before: latencySample(before), rows.during: with,
		rows.rate: {Value: float64(size) / last.Sub(due).Seconds()},
	}, nil
}

// freshWithMetrics is fresh with an address that tells how many have fired.
func (b *bench) freshWithMetrics(ctx context.Context) (*node, error) {
	n, _, err := startNode(ctx, b.nolad, b.noladArgs, b.dir, true)
	if err != nil {
		return nil, err
	}
	if err := n.pushCounter(ctx, b.guest); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// gather creates the herd, due at an instant that leaves time for that and for
// the measurement before it.
func (b *bench) gather(ctx context.Context, n *node, size int) (due time.Time, err error) {
	never := func(int) string { return `{"at":["2999-01-01T00:00:00Z"]}` }
	probe, err := drive(ctx, manyCaller, herdProbe, creating(ctx, n, "probe", never, func(caller, i int) int { return i*manyCaller + caller }))
	if err == nil {
		err = probe.err
	}
	if err != nil {
		return due, fmt.Errorf("create schedules: %w", err)
	}
	creation := time.Duration(herdMargin * float64(size) / probe.rate() * float64(time.Second))
	due = time.Now().Add(creation + b.each + 2*schedulesLead).Truncate(time.Second).Add(time.Second).UTC()
	spec := fmt.Sprintf(`{"at":[%q]}`, due.Format(time.RFC3339))
	if err := createAll(ctx, n, "h", size, func(int) string { return spec }); err != nil {
		return due, err
	}
	if left := time.Until(due) - b.each; left < 0 {
		return due, fmt.Errorf("creating %d schedules took longer than the %s that there were for it", size, creation)
	}
	return due, nil
}

// herdCalls are the calls that were made while the herd drained.
type herdCalls struct {
	mu     sync.Mutex // guards the fields below
	list   []herdCall
	failed int
	err    error
}

type herdCall struct {
	due  time.Time
	took time.Duration
}

// meanwhile calls at the rate from now until the herd has fired.
func (b *bench) meanwhile(ctx context.Context, n *node, size int, due time.Time, rate float64, caller func(int) (call, func(), error)) (*herdCalls, error) {
	calls := &herdCalls{}
	calling, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { // ends when the herd has fired, or with ctx
		defer stop()
		watched <- n.awaitFirings(ctx, size, due.Add(herdDrainMax))
	}()
	t, err := paceEach(calling, manyCaller, rate, caller, func(_, _ time.Time) bool { return true }, func(due time.Time, took time.Duration) {
		calls.mu.Lock()
		defer calls.mu.Unlock()
		calls.list = append(calls.list, herdCall{due, took})
	})
	stop()
	if err != nil && ctx.Err() == nil {
		err = nil // the herd has fired
	}
	if t != nil {
		calls.failed, calls.err = t.errors, t.err
	}
	return calls, errors.Join(err, <-watched)
}

// awaitFirings waits until the server has counted so many firings.
func (n *node) awaitFirings(ctx context.Context, count int, giveUp time.Time) error {
	for {
		fired, err := n.metric(ctx, firingsCounter)
		switch {
		case err != nil:
			return err
		case fired >= float64(count):
			return nil
		case time.Now().After(giveUp):
			return fmt.Errorf("only %.0f of %d have fired", fired, count)
		}
		if err := waitUntil(ctx, time.Now().Add(herdPoll)); err != nil {
			return err
		}
	}
}

// metric reads one of the server's metrics; 0 if it is not there yet.
func (n *node) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := n.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, lines.Err()
}

// herdOutcomes reads how long after its time each of the herd ended, and when the
// last one did. Each must have fired once.
func herdOutcomes(ctx context.Context, n *node, size int, due time.Time) (late *tally, last time.Time, err error) {
	late = &tally{}
	var f firings
	for token := ""; ; {
		res, err := n.schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{
			Namespace: namespace, Filter: "id=h*", PageSize: pageSize, PageToken: token, Recent: 2,
		}))
		if err != nil {
			return nil, last, fmt.Errorf("list schedules: %w", err)
		}
		for _, s := range res.Msg.GetSchedules() {
			for _, o := range s.GetInfo().GetRecent() {
				f.add(o, due, due.Add(time.Second))
				end := o.GetEndTime().AsTime()
				late.hist.add(end.Sub(due))
				if end.After(last) {
					last = end
				}
			}
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			break
		}
	}
	late.errors, late.err = f.failed, f.err
	if missing := size - int(late.hist.n); missing != 0 {
		late.fail(fmt.Errorf("%d firings were recorded, %d are right", late.hist.n, size))
	}
	late.took = last.Sub(due)
	return late, last, nil
}
