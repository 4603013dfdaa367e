package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	callersMax  = 2048
	answerGrace = 30 * time.Second // how long a call may take before it counts as lost
)

// call is one request with its answer checked. i counts the calls of its caller.
// It returns errDone when the caller has nothing left to do.
type call func(i int) error

// tally is what a slice of load has brought.
type tally struct {
	hist   histogram
	took   time.Duration
	errors int
	err    error // one of them
}

func (t *tally) rate() float64 { return float64(t.hist.n) / t.took.Seconds() }

func (t *tally) fail(err error) {
	t.errors++
	if t.err == nil {
		t.err = err
	}
}

// atFullSpeed has callers call for half a slice as fast as they go: of the rate that
// they come to, rows at a modest load take a share.
func (b *bench) atFullSpeed(ctx context.Context, caller func(n int) (call, func(), error)) (*tally, error) {
	full, err := drive(ctx, manyCaller, max(b.each/2, time.Second/2), caller)
	if err == nil {
		err = full.err
	}
	return full, err
}

// drive runs callers in closed loops until d has passed: each waits for its answer
// before it asks again. A call under way then is waited for and counted. A caller
// whose call fails stops.
func drive(ctx context.Context, callers int, d time.Duration, caller func(n int) (call, func(), error)) (*tally, error) {
	return driveUntil(ctx, callers, caller, func(began, now time.Time, _ int) bool { return now.Sub(began) < d })
}

// driveEach runs n calls, spread over the callers.
func driveEach(ctx context.Context, callers, n int, caller func(n int) (call, func(), error)) (*tally, error) {
	var mu sync.Mutex // guards next
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= n
	}
	return driveUntil(ctx, min(callers, n), func(k int) (call, func(), error) {
		f, done, err := caller(k)
		return func(int) error {
			i, ok := take()
			if !ok {
				return errDone
			}
			return f(i)
		}, done, err
	}, func(_, _ time.Time, _ int) bool { return true })
}

var errDone = errors.New("no call is left")

func driveUntil(ctx context.Context, callers int, caller func(n int) (call, func(), error), more func(began, now time.Time, i int) bool) (*tally, error) {
	if callers > callersMax {
		return nil, fmt.Errorf("%d callers, at most %d are allowed", callers, callersMax)
	}
	calls, done := make([]call, callers), make([]func(), 0, callers)
	defer func() {
		for _, f := range done {
			f()
		}
	}()
	for n := range calls {
		f, end, err := caller(n)
		if err != nil {
			return nil, err
		}
		calls[n] = f
		if end != nil {
			done = append(done, end)
		}
	}
	var (
		mu    sync.Mutex // guards total
		total tally
		wg    sync.WaitGroup
	)
	began := time.Now()
	for _, f := range calls {
		wg.Go(func() {
			var mine tally
			for now, i := time.Now(), 0; more(began, now, i) && ctx.Err() == nil; i++ {
				err := f(i)
				if errors.Is(err, errDone) {
					break
				}
				after := time.Now()
				if err != nil {
					mine.fail(err)
					break
				}
				mine.hist.add(after.Sub(now))
				now = after
			}
			mu.Lock()
			defer mu.Unlock()
			total.hist.merge(&mine.hist)
			total.errors += mine.errors
			if total.err == nil {
				total.err = mine.err
			}
		})
	}
	wg.Wait()
	total.took = time.Since(began)
	return &total, ctx.Err()
}

// pace runs callers at a fixed rate, whether or not answers come: a call's time
// counts from the moment at which it should have begun, so that a server that
// stalls is charged for every call it held up.
func pace(ctx context.Context, callers int, d time.Duration, rate float64, caller func(n int) (call, func(), error)) (*tally, error) {
	var late histogram
	var mu sync.Mutex // guards late
	t, err := paceEach(ctx, callers, rate, caller, func(began, now time.Time) bool { return now.Sub(began) < d }, func(_ time.Time, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		late.add(took)
	})
	if t != nil {
		t.hist = late
	}
	return t, err
}

// paceEach is pace that tells of each call, from the callers' goroutines.
func paceEach(
	ctx context.Context, callers int, rate float64, caller func(n int) (call, func(), error),
	more func(began, now time.Time) bool, each func(due time.Time, took time.Duration),
) (*tally, error) {
	began := time.Now()
	gap := time.Duration(float64(callers) / rate * float64(time.Second))
	return driveUntil(ctx, callers, func(n int) (call, func(), error) {
		f, done, err := caller(n)
		first := began.Add(gap * time.Duration(n) / time.Duration(callers))
		return func(i int) error {
			due := first.Add(gap * time.Duration(i))
			if err := waitUntil(ctx, due); err != nil {
				return errDone
			}
			if err := f(i); err != nil {
				return err
			}
			each(due, time.Since(due))
			return nil
		}, done, err
	}, func(_, now time.Time, _ int) bool { return more(began, now) })
}

// waitUntil returns at t, or earlier with the reason when ctx ends.
func waitUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onConn makes callers that have a connection each.
func onConn(ctx context.Context, address string, caller func(n int, c *conn) call) func(n int) (call, func(), error) {
	return func(n int) (call, func(), error) {
		c, err := dial(ctx, address)
		if err != nil {
			return nil, nil, err
		}
		f := caller(n, c)
		return func(i int) error {
			if err := c.until(time.Now().Add(answerGrace)); err != nil {
				return err
			}
			return f(i)
		}, c.close, nil
	}
}
