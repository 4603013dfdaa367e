package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

const (
	manyActors   = 1000
	warmupShare  = 5 // a slice is preceded by a fifth of it that does not count
	streams      = 4
	streamBatch  = 128 // calls in a message
	streamWindow = 4   // messages of a stream without an answer
)

// Rows that others refer to.
const rowDurable = "durable call, 64 callers, 1,000 actors, gateway"

func callsBlock() block {
	p99 := p99AtMost(20)
	return block{name: "calls", experiments: []experiment{
		counting(row{rowDurable, perSecond, echoMany, []target{shareOfLimit(echoMany, 0.35), p99}}, manyCaller, manyActors, gatewayInc),
		counting(row{"durable call, 64 callers, 1,000 actors, Connect JSON", perSecond, echoMany, []target{shareOfLimit(echoMany, 0.35), p99}}, manyCaller, manyActors, jsonInc),
		counting(row{"durable call, 64 callers, one actor", perSecond, echoMany, []target{shareOfLimit(echoMany, 0.30)}}, manyCaller, 1, gatewayInc),
		counting(row{"durable call, one caller", millis, "", []target{p50WithinLimits(0.05, fsyncOne, echoOne)}}, 1, 1, gatewayInc),
		reading(row{"volatile read, 64 callers, 1,000 actors", perSecond, echoMany, []target{shareOfLimit(echoMany, 0.55)}}),
		streaming(row{"InvokeMany, durable, 4 streams, 1,000 actors", perSecond, pebbleMany, []target{shareOfLimit(pebbleMany, 0.35)}}),
		newActors(row{"first call of a new actor, durable, 64 callers", perSecond, echoMany, []target{shareOfRow(rowDurable, "the warm durable rate", 0.3)}}),
	}}
}

// ask is a way to call an actor and to read the counter in the answer.
type ask struct {
	request func(n *node, id, operation string) []byte
	value   func(body []byte) (int64, error)
}

var (
	gatewayInc = ask{
		request: func(n *node, id, operation string) []byte { return n.invoke(counterModule, id, operation) },
		value:   number,
	}
	jsonInc = ask{
		request: func(n *node, id, operation string) []byte {
			return postJSON(n.address, nolav1connect.ActorServiceInvokeProcedure,
				fmt.Sprintf(`{"actor":{"namespace":%q,"type":%q,"id":%q},"operation":%q}`, namespace, counterModule, id, operation))
		},
		value: jsonNumber,
	}
)

// jsonNumber reads the number in the payload of an InvokeResponse.
func jsonNumber(body []byte) (int64, error) {
	text, ok := jsonText(body, "payload")
	if !ok {
		return 0, fmt.Errorf("no payload in %.100q", body)
	}
	var into [32]byte
	if base64.StdEncoding.DecodedLen(len(text)) > len(into) {
		return 0, fmt.Errorf("payload %.60q is not a number", text)
	}
	n, err := base64.StdEncoding.Decode(into[:], text)
	if err != nil {
		return 0, fmt.Errorf("payload %.60q: %w", text, err)
	}
	return number(into[:n])
}

// actorNames are the ids of a row's actors.
func actorNames(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = prefix + strconv.Itoa(i)
	}
	return ids
}

func requests(n *node, a ask, ids []string, operation string) [][]byte {
	all := make([][]byte, len(ids))
	for i, id := range ids {
		all[i] = a.request(n, id, operation)
	}
	return all
}

// calling makes callers that send one of the requests at a time, in an order of
// their own, and hand the number in the answer to check.
func calling(ctx context.Context, address string, a ask, all [][]byte, check func(caller, actor int, value int64) error) func(int) (call, func(), error) {
	return onConn(ctx, address, func(caller int, c *conn) call {
		order := rand.New(rand.NewPCG(uint64(caller), 1)) //nolint:gosec // an even spread is all it is for
		return func(int) error {
			actor := order.IntN(len(all))
			value, err := answered(c, a, all[actor])
			if err != nil {
				return err
			}
			return check(caller, actor, value)
		}
	})
}

func answered(c *conn, a ask, request []byte) (int64, error) {
	status, body, err := c.do(request)
	if err != nil {
		return 0, err
	}
	if status != http.StatusOK {
		return 0, fmt.Errorf("status %d: %.300s", status, body)
	}
	return a.value(body)
}

// sum adds up the counters of our own server.
func sum(ctx context.Context, n *node, ids []string) (total int64, each []int64, err error) {
	return readCounters(ctx, n.address, requests(n, gatewayInc, ids, opGet))
}

// readCounters sends each request once and adds up the answers.
func readCounters(ctx context.Context, address string, requests [][]byte) (total int64, each []int64, err error) {
	each = make([]int64, len(requests))
	t, err := driveEach(ctx, readers, len(requests), onConn(ctx, address, func(_ int, c *conn) call {
		return func(i int) (err error) {
			each[i], err = answered(c, gatewayInc, requests[i])
			return err
		}
	}))
	if err == nil {
		err = t.err
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read the counters: %w", err)
	}
	for _, v := range each {
		total += v
	}
	return total, each, nil
}

// load runs a warm-up and a measured slice, and profiles the latter if asked to.
func (b *bench) load(ctx context.Context, n *node, name string, callers int, caller func(int) (call, func(), error)) (warm, t *tally, err error) {
	if warm, err = drive(ctx, callers, b.each/warmupShare, caller); err != nil {
		return nil, nil, err
	}
	done := b.profile(ctx, n, name)
	t, err = drive(ctx, callers, b.each, caller)
	return warm, t, errors.Join(err, done())
}

// counting measures increments of counters, which must add up.
func counting(r row, callers, actors int, a ask) experiment {
	return experiment{rows: []row{r}, run: func(ctx context.Context, b *bench) (map[string]sample, error) {
		n, err := b.shared(ctx)
		if err != nil {
			return nil, err
		}
		ids := actorNames(fmt.Sprintf("c%d-%d-", callers, actors), actors)
		before, _, err := sum(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		last := make([]int64, callers)
		warm, t, err := b.load(ctx, n, r.name, callers, calling(ctx, n.address, a, requests(n, a, ids, opInc), func(caller, _ int, value int64) error {
			if len(ids) == 1 && value <= last[caller] {
				return fmt.Errorf("answer %d came after answer %d", value, last[caller])
			}
			last[caller] = value
			return nil
		}))
		if err != nil {
			return nil, err
		}
		after, _, err := sum(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		checkSum(t, after-before, warm, t)
		if r.unit == millis {
			return map[string]sample{r.name: latencySample(t)}, nil
		}
		return map[string]sample{r.name: rateSample(t)}, nil
	}}
}

// checkSum compares what the counters have grown by with the calls of the parts,
// and notes in t what is off.
func checkSum(t *tally, grown int64, parts ...*tally) {
	var answered int64
	for _, p := range parts {
		answered += int64(p.hist.n)
		if p != t && p.err != nil {
			t.fail(p.err)
		}
	}
	if t.errors == 0 && grown != answered {
		t.fail(fmt.Errorf("%d increments were answered, the counters have grown by %d", answered, grown))
	}
}

// reading measures a turn that writes nothing.
func reading(r row) experiment {
	return experiment{rows: []row{r}, run: func(ctx context.Context, b *bench) (map[string]sample, error) {
		n, err := b.shared(ctx)
		if err != nil {
			return nil, err
		}
		ids := actorNames("r", manyActors)
		_, each, err := sum(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		if each[0] == 0 { // each counter gets a value of its own, so that a mix-up shows
			if err := b.fill(ctx, n, ids); err != nil {
				return nil, err
			}
		}
		_, t, err := b.load(ctx, n, r.name, manyCaller, calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opGet), func(_, actor int, value int64) error {
			if value != int64(actor+1) {
				return fmt.Errorf("counter %s is %d, read as %d", ids[actor], actor+1, value)
			}
			return nil
		}))
		if err != nil {
			return nil, err
		}
		return map[string]sample{r.name: rateSample(t)}, nil
	}}
}

// fill sets counter i to i+1.
func (b *bench) fill(ctx context.Context, n *node, ids []string) error {
	t, err := driveEach(ctx, readers, len(ids), onConn(ctx, n.address, func(_ int, c *conn) call {
		return func(i int) error {
			amount := strconv.Itoa(i + 1)
			_, err := answered(c, gatewayInc, post(n.address, "/v1/"+namespace+"/"+counterModule+"/"+ids[i]+"/"+opInc, "", []byte(amount)))
			return err
		}
	}))
	if err == nil {
		err = t.err
	}
	return err
}

// newActors measures calls that each make an actor.
func newActors(r row) experiment {
	return experiment{rows: []row{r}, run: func(ctx context.Context, b *bench) (map[string]sample, error) {
		n, err := b.shared(ctx)
		if err != nil {
			return nil, err
		}
		prefix := "n" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
		slice := 0
		_, t, err := b.load(ctx, n, r.name, manyCaller, func(k int) (call, func(), error) {
			if k == 0 {
				slice++
			}
			mine := fmt.Sprintf("%s%d-%d-", prefix, slice, k)
			return onConn(ctx, n.address, func(_ int, c *conn) call {
				return func(i int) error {
					value, err := answered(c, gatewayInc, gatewayInc.request(n, mine+strconv.Itoa(i), opInc))
					if err == nil && value != 1 {
						err = fmt.Errorf("the first call of an actor answered %d", value)
					}
					return err
				}
			})(k)
		})
		if err != nil {
			return nil, err
		}
		return map[string]sample{r.name: rateSample(t)}, nil
	}}
}

// streaming measures increments that are sent many to a message.
func streaming(r row) experiment {
	return experiment{rows: []row{r}, run: func(ctx context.Context, b *bench) (map[string]sample, error) {
		n, err := b.shared(ctx)
		if err != nil {
			return nil, err
		}
		ids := actorNames("s", manyActors)
		before, _, err := sum(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		warm, err := driveStreams(ctx, "http://"+n.address, ids, b.each/warmupShare)
		if err != nil {
			return nil, err
		}
		done := b.profile(ctx, n, r.name)
		t, err := driveStreams(ctx, "http://"+n.address, ids, b.each)
		if err := errors.Join(err, done()); err != nil {
			return nil, err
		}
		after, _, err := sum(ctx, n, ids)
		if err != nil {
			return nil, err
		}
		checkSum(t, after-before, warm, t)
		return map[string]sample{r.name: rateSample(t)}, nil
	}}
}

// driveStreams loads InvokeMany. Each stream has a connection of its own, since
// all frames of an HTTP/2 connection pass the same locks.
func driveStreams(ctx context.Context, url string, ids []string, d time.Duration) (*tally, error) {
	var (
		mu    sync.Mutex // guards total
		total tally
		wg    sync.WaitGroup
	)
	began := time.Now()
	for k := range streams {
		wg.Go(func() {
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: &protocols}
			defer transport.CloseIdleConnections()
			s := stream{ids: ids, order: rand.New(rand.NewPCG(uint64(k), 2)), began: began, until: began.Add(d)} //nolint:gosec // an even spread is all it is for
			s.run(ctx, nolav1connect.NewActorServiceClient(&http.Client{Transport: transport}, url))
			mu.Lock()
			defer mu.Unlock()
			total.hist.merge(&s.hist)
			total.errors += s.errors
			if total.err == nil {
				total.err = s.err
			}
		})
	}
	wg.Wait()
	total.took = time.Since(began)
	return &total, ctx.Err()
}

// stream is one InvokeMany stream. A tag is the number of the message's slot and
// the place of the call in the message.
type stream struct {
	ids   []string
	order *rand.Rand
	until time.Time
	tally // of the receiving side
	began time.Time
	sent  [streamWindow]atomic.Int64 // when, since began
}

func (s *stream) run(ctx context.Context, actors nolav1connect.ActorServiceClient) {
	ctx, cancel := context.WithTimeout(ctx, time.Until(s.until)+answerGrace)
	defer cancel()
	conn := actors.InvokeMany(ctx)
	free := make(chan int, streamWindow) // slots
	for i := range streamWindow {
		free <- i
	}
	sent := make(chan error, 1)
	go func() { sent <- s.send(ctx, conn, free) }() // ends with the deadline, or with ctx
	if err := s.receive(conn, free); err != nil {
		s.fail(err)
		cancel()
	}
	if err := <-sent; err != nil && s.err == nil {
		s.fail(err)
	}
}

func (s *stream) send(ctx context.Context, conn *connect.BidiStreamForClient[nolav1.InvokeManyRequest, nolav1.InvokeManyResponse], free chan int) error {
	msg := &nolav1.InvokeManyRequest{Calls: make([]*nolav1.InvokeManyCall, streamBatch)}
	for i := range msg.Calls {
		msg.Calls[i] = &nolav1.InvokeManyCall{Actor: &nolav1.ActorRef{Namespace: namespace, Type: counterModule}, Operation: opInc}
	}
	for {
		var slot int
		select {
		case slot = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		if now.After(s.until) {
			return conn.CloseRequest()
		}
		for i, c := range msg.Calls {
			c.Tag = uint64(slot*streamBatch + i)
			c.Actor.Id = s.ids[s.order.IntN(len(s.ids))]
		}
		s.sent[slot].Store(int64(now.Sub(s.began)))
		if err := conn.Send(msg); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

func (s *stream) receive(conn *connect.BidiStreamForClient[nolav1.InvokeManyRequest, nolav1.InvokeManyResponse], free chan int) error {
	defer conn.CloseResponse() //nolint:errcheck // what could fail has been received
	var answered [streamWindow]int
	for {
		msg, err := conn.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		now := time.Since(s.began)
		for _, r := range msg.GetResults() {
			if e := r.GetError(); e != nil {
				return fmt.Errorf("%s: %s", e.GetReason(), e.GetMessage())
			}
			if _, err := number(r.GetPayload()); err != nil {
				return err
			}
			slot := int(r.GetTag() / streamBatch)
			if slot >= streamWindow {
				return fmt.Errorf("no call had the tag %d", r.GetTag())
			}
			s.hist.add(now - time.Duration(s.sent[slot].Load()))
			if answered[slot]++; answered[slot] == streamBatch {
				answered[slot] = 0
				free <- slot
			}
		}
	}
}
