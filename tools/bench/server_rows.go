package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

const (
	idleSettle     = time.Second // after which an idle server's memory is read
	crashLoad      = time.Second // under load before the crash
	crashActors    = 200         // loaded
	mailboxEntries = 1024        // calls that a mailbox holds
	fillers        = mailboxEntries + 64
	probes         = 16 // callers that are refused
	spinners       = 2  // guests that spin at once
	loudNamespace  = "loud"
	neighbourShare = 0.3  // of the rate that the machine can do
	diskSchedules  = 1000 // each with ten actions a second
	filterBitsKey  = 10   // as the store has it
	answerPoll     = time.Millisecond
)

const (
	rowReady      = "idle server, ready after"
	rowMemory     = "idle server, memory"
	rowCrash      = "first answer after kill -9"
	rowReopen     = "ready after kill -9"
	rowRefusal    = "refusal of a full mailbox, 16 callers"
	rowAlone      = "durable call at 30 % load"
	rowNeighbour  = "durable call at 30 % load beside two spinning guests of another namespace"
	rowDiskCall   = "disk per durable call with a key of 16 bytes"
	rowDiskAction = "disk per schedule action"
)

func serverBlock() block {
	kitchen := func(b *bench) string {
		if b.kitchen == "" {
			return "needs -kitchen, the module that misbehaves"
		}
		return ""
	}
	return block{name: "server", also: []string{echoMany, fsyncOne}, experiments: []experiment{
		{rows: []row{
			{rowReady, millis, "", []target{valueAtMost(300, millis)}},
			{rowMemory, mebibytes, "", []target{valueAtMost(60, mebibytes)}},
		}, run: idle},
		{rows: []row{
			{rowCrash, millis, "", []target{valueAtMost(500, millis)}},
			{rowReopen, millis, "", []target{valueAtMost(1000, millis)}},
		}, run: crash},
		{rows: []row{{rowRefusal, millis, "", []target{p99AtMost(5)}}}, run: refusal, needs: kitchen},
		{rows: []row{{rowAlone, millis, "", nil}, {rowNeighbour, millis, "", []target{p99OfRow(rowAlone, "alone", 2)}}}, run: neighbours, needs: kitchen},
		{rows: []row{{rowDiskCall, byteCount, "", []target{valueAtMost(300, byteCount)}}}, run: diskOfCalls},
		{rows: []row{{rowDiskAction, byteCount, "", []target{valueAtMost(400, byteCount)}}}, run: diskOfActions},
	}}
}

// idle measures a server on an empty directory that nobody calls.
func idle(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, took, err := startNode(ctx, b.nolad, b.noladArgs, b.dir, false)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	if err := waitUntil(ctx, time.Now().Add(idleSettle)); err != nil {
		return nil, err
	}
	rss, err := n.rss()
	if err != nil {
		return nil, err
	}
	return map[string]sample{rowReady: {Value: ms(took)}, rowMemory: {Value: float64(rss) / (1 << 20)}}, nil
}

// crash kills a server under load and starts it again on the same data. What was
// answered before must be there, and no more than what was asked.
func crash(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	ids := actorNames("k", crashActors)
	highest := make([]atomic.Int64, crashActors) // answer of each actor
	killed := make(chan struct{})
	go func() { // ends after crashLoad, or with ctx
		defer close(killed)
		_ = waitUntil(ctx, time.Now().Add(crashLoad)) // an interrupt ends the server as well
		n.kill()
	}()
	t, err := drive(ctx, manyCaller, 2*crashLoad, calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(_, actor int, value int64) error {
		for h := highest[actor].Load(); value > h && !highest[actor].CompareAndSwap(h, value); h = highest[actor].Load() {
		}
		return nil
	}))
	<-killed
	if err != nil {
		return nil, err
	}
	reopened, err := n.start(ctx, n.address)
	if err != nil {
		return nil, err
	}
	first, err := firstAnswer(ctx, n)
	if err != nil {
		return nil, err
	}
	stored, each, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	check := &tally{}
	for i, v := range each {
		if h := highest[i].Load(); v < h {
			check.fail(fmt.Errorf("actor %s had answered %d before the crash and is %d after it", ids[i], h, v))
		}
	}
	acked, cut := int64(t.hist.n), int64(t.errors)
	if stored < acked || stored > acked+cut {
		check.fail(fmt.Errorf("%d calls were answered and %d cut off, %d are stored", acked, cut, stored))
	}
	s := withErrors(sample{Value: ms(first), Note: fmt.Sprintf("%d calls answered before, none lost", acked)}, check)
	if check.errors > 0 {
		s.Note = ""
	}
	return map[string]sample{rowCrash: s, rowReopen: {Value: ms(reopened)}}, nil
}

// firstAnswer calls until it is answered and returns how long after the server's
// start that was.
func firstAnswer(ctx context.Context, n *node) (time.Duration, error) {
	request := gatewayInc.request(n, "first", opInc)
	for giveUp := time.Now().Add(readyTimeout); ; {
		c, err := dial(ctx, n.address)
		if err == nil {
			err = c.until(time.Now().Add(answerGrace))
		}
		if err == nil {
			_, err = answered(c, gatewayInc, request)
		}
		c.close()
		if err == nil {
			return time.Since(n.began), nil
		}
		if time.Now().After(giveUp) {
			return 0, fmt.Errorf("no answer within %s of the restart: %w", readyTimeout, err)
		}
		if err := waitUntil(ctx, time.Now().Add(answerPoll)); err != nil {
			return 0, err
		}
	}
}

// refusal fills the mailbox of an actor whose guest spins and measures how long it
// takes to be refused.
func refusal(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.freshKitchen(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	var wg sync.WaitGroup
	defer wg.Wait() // before the node closes
	wg.Go(func() { spin(ctx, n, namespace, "full", 1) })
	if err := waitUntil(ctx, time.Now().Add(settlePoll)); err != nil {
		return nil, err
	}
	echo := n.invoke(kitchenModule, "full", "echo")
	// These fill the mailbox and wait in it until the spinning turn has ended; those
	// for which there is no room are refused.
	var turnedAway atomic.Int64
	filled := make(chan error, 1)
	wg.Go(func() {
		t, err := driveEach(ctx, fillers, fillers, onConn(ctx, n.address, func(_ int, c *conn) call {
			return func(int) error {
				status, body, err := c.do(echo)
				switch {
				case err != nil || status == http.StatusOK:
					return err
				case refused(status, body):
					turnedAway.Add(1)
					return errDone // one refusal is enough
				default:
					return fmt.Errorf("a waiting call: status %d: %.300s", status, body)
				}
			}
		}))
		if err == nil {
			err = t.err
		}
		filled <- err
	})
	if err := untilFull(ctx, &turnedAway); err != nil {
		return nil, err
	}
	t, err := drive(ctx, probes, min(b.each, kitchenTurn/4), onConn(ctx, n.address, func(_ int, c *conn) call {
		return func(int) error {
			status, body, err := c.do(echo)
			if err == nil && !refused(status, body) {
				err = fmt.Errorf("status %d, want %d and MAILBOX_FULL: %.300s", status, http.StatusTooManyRequests, body)
			}
			return err
		}
	}))
	if err != nil {
		return nil, err
	}
	if err := <-filled; err != nil {
		t.fail(err)
	}
	s := latencySample(t)
	s.Note = fmt.Sprintf("%.0f refusals/s", t.rate())
	return map[string]sample{rowRefusal: s}, nil
}

func refused(status int, body []byte) bool {
	return status == http.StatusTooManyRequests && strings.Contains(string(body), "MAILBOX_FULL")
}

// untilFull returns when as many calls have been turned away as there is no room
// for, and no more follow.
func untilFull(ctx context.Context, turnedAway *atomic.Int64) error {
	for giveUp, before := time.Now().Add(kitchenTurn/2), int64(0); ; {
		if err := waitUntil(ctx, time.Now().Add(settlePoll)); err != nil {
			return err
		}
		now := turnedAway.Load()
		if now > 0 && now == before {
			return nil
		}
		if before = now; time.Now().After(giveUp) {
			return fmt.Errorf("%d calls to a busy actor did not fill its mailbox, which should hold %d", fillers, mailboxEntries)
		}
	}
}

// spin calls the endless loop of an actor of the kitchen guest count times, or until
// ctx ends. The server ends each.
func spin(ctx context.Context, n *node, namespace, id string, count int) {
	c, err := dial(ctx, n.address)
	if err != nil {
		return
	}
	defer c.close()
	stop := context.AfterFunc(ctx, func() { _ = c.until(time.Now()) })
	defer stop()
	request := post(n.address, "/v1/"+namespace+"/"+kitchenModule+"/"+id+"/loop", "", nil, fmt.Sprintf("Connect-Timeout-Ms: %d", kitchenTurn.Milliseconds()))
	for range count {
		if ctx.Err() != nil || c.conn.SetDeadline(time.Now().Add(kitchenTurn+answerGrace)) != nil {
			return
		}
		if _, _, err := c.do(request); err != nil {
			return
		}
	}
}

// neighbours measures calls at a modest load, alone and beside guests of another
// namespace that spin.
func neighbours(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.freshKitchen(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	ids := actorNames("q", manyActors)
	caller := calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(_, _ int, _ int64) error { return nil })
	if err := n.createNamespace(ctx, loudNamespace); err != nil {
		return nil, err
	}
	if err := n.pushKitchen(ctx, loudNamespace, b.kitchen); err != nil {
		return nil, err
	}
	full, err := b.atFullSpeed(ctx, caller)
	if err != nil {
		return nil, err
	}
	rate := full.rate() * neighbourShare
	alone, err := pace(ctx, manyCaller, b.each, rate, caller)
	if err != nil {
		return nil, err
	}
	spinning, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range spinners {
		wg.Go(func() { spin(spinning, n, loudNamespace, fmt.Sprint("spinner", i), int(b.each/kitchenTurn)+2) })
	}
	beside, err := pace(ctx, manyCaller, b.each, rate, caller)
	cancel()
	wg.Wait()
	if err != nil {
		return nil, err
	}
	total, _, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	checkSum(beside, total, full, alone, beside)
	a, s := latencySample(alone), latencySample(beside)
	s.Note = fmt.Sprintf("%.0f calls/s", rate)
	return map[string]sample{rowAlone: a, rowNeighbour: s}, nil
}

// diskOfCalls makes calls with a key each, so that each outcome is recorded, and
// weighs what the store keeps.
func diskOfCalls(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	ids := actorNames("d", manyActors)
	t, err := drive(ctx, manyCaller, b.each, onConn(ctx, n.address, func(caller int, c *conn) call {
		return func(i int) error {
			k := i*manyCaller + caller
			_, err := answered(c, gatewayInc, n.invoke(counterModule, ids[k%len(ids)], opInc, fmt.Sprintf("Idempotency-Key: %016x", k)))
			return err
		}
	}))
	if err != nil {
		return nil, err
	}
	total, _, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	checkSum(t, total, t)
	size, err := weigh(n)
	if err != nil {
		return nil, err
	}
	s := withErrors(sample{Value: float64(size) / float64(max(t.hist.n, 1)), Note: fmt.Sprintf("%d calls", t.hist.n)}, t)
	return map[string]sample{rowDiskCall: s}, nil
}

// diskOfActions lets schedules fire and weighs what the store keeps, the schedules
// themselves included.
func diskOfActions(ctx context.Context, b *bench) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	if err := createAll(ctx, n, "d", diskSchedules, busySpec); err != nil {
		return nil, err
	}
	if err := waitUntil(ctx, time.Now().Add(b.each)); err != nil {
		return nil, err
	}
	ids := actorNames("d", diskSchedules)
	actions, _, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	size, err := weigh(n)
	if err != nil {
		return nil, err
	}
	s := sample{Value: float64(size) / float64(max(actions, 1)), Note: strconv.FormatInt(actions, 10) + " actions"}
	if actions == 0 {
		s.Errors, s.Error = 1, "no schedule has fired"
	}
	return map[string]sample{rowDiskAction: s}, nil
}

// weigh stops the server, compacts its store and returns the size of its tables:
// the write-ahead log is recycled and says nothing of what is kept.
func weigh(n *node) (int64, error) {
	if err := n.stop(); err != nil {
		return 0, err
	}
	dir, err := storeDir(n.dataDir)
	if err != nil {
		return 0, err
	}
	o := &pebble.Options{Logger: quiet{}, ErrorIfNotExists: true}
	o.EnsureDefaults()
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBitsKey)
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return 0, fmt.Errorf("open the store to compact it: %w", err)
	}
	err = db.Compact(context.Background(), []byte{0}, []byte{0xff, 0xff, 0xff, 0xff}, false)
	var size int64
	for _, level := range db.Metrics().Levels {
		size += level.TablesSize
	}
	return size, errors.Join(err, db.Close())
}

// storeDir finds the directory of the store in a data directory.
func storeDir(dataDir string) (dir string, err error) {
	err = filepath.WalkDir(dataDir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasPrefix(e.Name(), "MANIFEST-") {
			dir = filepath.Dir(path)
			return fs.SkipAll
		}
		return err
	})
	if err == nil && dir == "" {
		err = fmt.Errorf("no store in %s: %w", dataDir, os.ErrNotExist)
	}
	return dir, err
}
