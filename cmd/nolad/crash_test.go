package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// crashEvery is the period of the schedules in the crash suite.
const crashEvery = 200 * time.Millisecond

// load is what clients do to a server that is killed again and again.
type load struct {
	t       *testing.T
	c       *client.Client
	ctx     context.Context // ends when no new calls are to start
	wg      sync.WaitGroup
	acked   atomic.Int64
	unknown atomic.Int64

	mu sync.Mutex // guards the fields below
	// once holds, for each actor, the keys of what happened once.
	once map[string]map[string]bool
	// replies holds, for each actor, which key got which reply.
	replies map[string]map[string]string
}

func (l *load) note(set map[string]map[string]bool, actor, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if set[actor] == nil {
		set[actor] = make(map[string]bool)
	}
	set[actor][key] = true
}

// reply notes what a call was answered, and that no other was.
func (l *load) reply(actor, key, reply string) {
	l.note(l.once, actor, key)
	l.acked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.replies[actor] == nil {
		l.replies[actor] = make(map[string]string)
	}
	if other, dup := l.replies[actor][reply]; dup {
		l.t.Errorf("witness/%s: %s and %s were both answered %s", actor, other, key, reply)
	}
	l.replies[actor][reply] = key
}

// keysPerActor keeps the clients below the number of keys that one actor
// remembers, also where two share it.
const keysPerActor = 4_000

// chapter is the actor that the i-th call goes to.
func chapter(actor string, i int) string { return fmt.Sprintf("%s-%d", actor, i/keysPerActor) }

// userKeys calls under idempotency keys, each until it is acknowledged.
func (l *load) userKeys(worker int, base string) {
	for i := 0; l.ctx.Err() == nil; i++ {
		actor := chapter(base, i)
		key := fmt.Sprintf("user-%d-%06d", worker, i)
		l.until(key, func(ctx context.Context) error {
			res, err := l.c.Invoke(ctx, actorRef("witness", actor), "add", []byte(key), client.WithIdempotencyKey(key))
			if err == nil {
				l.reply(actor, key, string(res.Payload))
			}
			return err
		})
	}
}

// casts casts under idempotency keys, each until it is acknowledged.
func (l *load) casts(worker int, base string) {
	for i := 0; l.ctx.Err() == nil; i++ {
		actor := chapter(base, i)
		key := fmt.Sprintf("cast-%d-%06d", worker, i)
		l.until(key, func(ctx context.Context) error {
			_, err := l.c.Cast(ctx, actorRef("witness", actor), "add", []byte(key), client.WithIdempotencyKey(key))
			if err == nil {
				l.note(l.once, actor, key)
				l.acked.Add(1)
			}
			return err
		})
	}
}

// until tries, with the same key, until it goes well.
func (l *load) until(key string, try func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), time.Minute)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = try(ctx); err == nil {
			return
		}
		var e *nola.Error
		if torn := (*connect.Error)(nil); errors.As(err, &torn) && !connect.IsWireError(err) {
			continue // the connection broke: no server said this
		}
		if errors.As(err, &e) && slices.Contains([]nola.Reason{
			nola.ReasonKeyReused, nola.ReasonGuestError, nola.ReasonGuestTrap, nola.ReasonInternal, nola.ReasonInvalidArgument,
		}, e.Reason) {
			break
		}
	}
	l.t.Errorf("%s was never acknowledged: %v", key, err)
}

// sessionKeys calls under the client's own keys, and asks for the outcome where
// the client cannot tell it.
func (l *load) sessionKeys(worker int, base string) {
	for i := 0; l.ctx.Err() == nil; i++ {
		actor := chapter(base, i)
		key := fmt.Sprintf("session-%d-%06d", worker, i)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), 20*time.Second)
		res, err := l.c.Invoke(ctx, actorRef("witness", actor), "add", []byte(key))
		cancel()
		var e *nola.Error
		switch {
		case err == nil:
			l.reply(actor, key, string(res.Payload))
		case errors.As(err, &e) && e.Reason == nola.ReasonOutcomeUnknown:
			l.resolve(actor, key, e)
		case errors.As(err, &e) && e.Reason == nola.ReasonUnavailable:
			// It never ran: it must not be there.
		default:
			l.t.Errorf("%s: %v", key, err)
		}
	}
}

// resolve asks what became of a call.
func (l *load) resolve(actor, key string, e *nola.Error) {
	l.unknown.Add(1)
	id, err := hex.DecodeString(e.Metadata["session"])
	if err != nil {
		l.t.Errorf("%s: session in %v: %v", key, e.Metadata, err)
		return
	}
	seq, err := strconv.ParseUint(e.Metadata["seq"], 10, 64)
	if err != nil {
		l.t.Errorf("%s: seq in %v: %v", key, e.Metadata, err)
		return
	}
	first, err := time.Parse(time.RFC3339Nano, e.Metadata["first_attempt"])
	if err != nil {
		l.t.Errorf("%s: first_attempt in %v: %v", key, e.Metadata, err)
		return
	}
	l.until(key, func(ctx context.Context) error {
		res, err := l.c.Actors.GetInvocation(ctx, connect.NewRequest(&nolav1.GetInvocationRequest{
			Actor: actorMessage("witness", actor),
			Selector: &nolav1.GetInvocationRequest_Session{Session: &nolav1.SessionKey{
				Id: id, Seq: seq, AckedBelow: seq, FirstAttempt: timestamppb.New(first),
			}},
		}))
		if err != nil {
			return err
		}
		switch res.Msg.GetState() {
		case nolav1.InvocationState_INVOCATION_STATE_SUCCEEDED:
			l.reply(actor, key, string(res.Msg.GetResult()))
		case nolav1.InvocationState_INVOCATION_STATE_NOT_RECORDED:
		default:
			return fmt.Errorf("state %s", res.Msg.GetState())
		}
		return nil
	})
}

// check compares what happened with what was acknowledged.
func (l *load) check(actor string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	have := state(l.t, l.c, "witness", actor, "k/")
	sum := 0
	for name, count := range have {
		key := strings.TrimPrefix(name, "k/")
		n, err := strconv.Atoi(count)
		if err != nil {
			l.t.Fatal(err)
		}
		sum += n
		if n != 1 {
			l.t.Errorf("witness/%s: %s happened %d times", actor, key, n)
		}
		if !l.once[actor][key] {
			l.t.Errorf("witness/%s: %s happened, and its caller was told that it had not", actor, key)
		}
	}
	for key := range l.once[actor] {
		if have["k/"+key] == "" {
			l.t.Errorf("witness/%s: %s was acknowledged and is lost", actor, key)
		}
	}
	if total := state(l.t, l.c, "witness", actor, "total")["total"]; sum > 0 && total != strconv.Itoa(sum) {
		l.t.Errorf("witness/%s: the total is %s, its parts make %d: half a turn was kept", actor, total, sum)
	}
}

// TestCrashKill9UnderLoad kills the server again and again while clients call and
// cast, a chain of timers runs and schedules fire. Nothing that was acknowledged
// is lost, nothing happens twice, and every nominal time has one outcome.
func TestCrashKill9UnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("NOLA_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, address := t.TempDir(), steadyAddress(t)
	t.Logf("seed %d (NOLA_SEED)", seed)
	p := serve(t, dir, "--listen", address)
	c := dial(t, "http://"+address, client.Options{})
	push(t, c, "witness")
	invoke(t, c, "witness", "chain", "chain", "0")
	overlaps := map[string]nolav1.OverlapPolicy{
		"skip": nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP, "allow": nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL,
	}
	// The firings of skip take a good part of a period, so that crashes hit some.
	work := map[string]string{"skip": "50000000"}
	for id, overlap := range overlaps {
		createSchedule(t, c, id, "mark", work[id], crashEvery, overlap)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{
		t: t, c: c, ctx: ctx,
		once: make(map[string]map[string]bool), replies: make(map[string]map[string]string),
	}
	for i := range 4 {
		actor := fmt.Sprintf("acc-%d", i%3)
		l.wg.Go(func() { l.userKeys(i, actor) })
		l.wg.Go(func() { l.sessionKeys(i, actor) })
		l.wg.Go(func() { l.casts(i, fmt.Sprint("mail-", i%2)) })
	}
	defer l.wg.Wait()
	defer stop()

	for round := range sized(3, 20) {
		acked, at := l.acked.Load()+int64(20+rng.IntN(400)), time.Now().Add(time.Duration(200+rng.IntN(1_000))*time.Millisecond)
		eventually(t, time.Minute, fmt.Sprintf("round %d: %d calls acknowledged (seed %d)", round, acked, seed), func() bool {
			return l.acked.Load() >= acked && time.Now().After(at)
		})
		p.kill()
		if round%3 == 1 { // and while it starts
			p = spawn(t, dir, "--listen", address)
			at := time.Now().Add(time.Duration(rng.IntN(150)) * time.Millisecond)
			eventually(t, time.Minute, "a moment to kill at", func() bool { return time.Now().After(at) })
			p.kill()
		}
		p = serve(t, dir, "--listen", address)
	}
	restarted := time.Now()
	acked := l.acked.Load() + 100
	eventually(t, time.Minute, "calls are answered after the last restart", func() bool { return l.acked.Load() >= acked })
	stop()
	l.wg.Wait()

	for _, actor := range slices.Sorted(maps.Keys(l.once)) {
		eventually(t, time.Minute, "the backlog of witness/"+actor+" is worked off", func() bool {
			res, err := c.Actors.DescribeActor(t.Context(), connect.NewRequest(&nolav1.DescribeActorRequest{Actor: actorMessage("witness", actor)}))
			return err == nil && res.Msg.GetBacklogEntries() == 0 && res.Msg.GetActivation().GetMailboxEntries() == 0
		})
		l.check(actor)
	}
	links := len(state(t, c, "witness", "chain", "link/"))
	eventually(t, time.Minute, "the chain of timers goes on", func() bool {
		return len(state(t, c, "witness", "chain", "link/")) > links+2
	})
	checkChain(t, state(t, c, "witness", "chain", "link/"))
	for id := range overlaps {
		checkOccurrences(t, c, id, restarted)
	}
	t.Logf("%d acknowledged, %d of unknown outcome", l.acked.Load(), l.unknown.Load())
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

// createSchedule makes a schedule of one interval that calls witness/ID.
func createSchedule(t testing.TB, c *client.Client, id, operation, payload string, every time.Duration, overlap nolav1.OverlapPolicy) {
	t.Helper()
	_, err := c.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		ScheduleId: id,
		Target:     &nolav1.ScheduleTarget{Actor: actorMessage("witness", id), Operation: operation, Payload: []byte(payload)},
		Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(every)}}},
		Policy:     &nolav1.SchedulePolicy{Overlap: overlap, Catchup: &nolav1.CatchupPolicy{Mode: nolav1.CatchupMode_CATCHUP_MODE_ALL}},
	}}))
	if err != nil {
		t.Fatalf("create schedule %s: %v", id, err)
	}
}

// checkChain looks that each link was reached once and none was left out.
func checkChain(t testing.TB, links map[string]string) {
	t.Helper()
	for i, name := range slices.Sorted(maps.Keys(links)) {
		if want := fmt.Sprintf("link/%08d", i); name != want {
			t.Fatalf("the chain goes on with %s, want %s: a timer was lost", name, want)
		}
		if links[name] != "1" {
			t.Errorf("%s was reached %s times", name, links[name])
		}
	}
}

// occurrences reads all records of a schedule, the oldest first.
func occurrences(t testing.TB, c *client.Client, id string) []*nolav1.Occurrence {
	t.Helper()
	var all []*nolav1.Occurrence
	for token := ""; ; {
		res, err := c.Schedules.ListOccurrences(t.Context(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: id, PageSize: 1000, PageToken: token}))
		if err != nil {
			t.Fatalf("occurrences of %s: %v", id, err)
		}
		all = append(all, res.Msg.GetOccurrences()...)
		if token = res.Msg.GetNextPageToken(); token == "" {
			slices.Reverse(all)
			return all
		}
	}
}

func getSchedule(t testing.TB, c *client.Client, id string) *nolav1.Schedule {
	t.Helper()
	res, err := c.Schedules.GetSchedule(t.Context(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: id}))
	if err != nil {
		t.Fatalf("schedule %s: %v", id, err)
	}
	return res.Msg.GetSchedule()
}

// checkOccurrences pauses a schedule that began with the store, and looks that
// every nominal time up to a moment after since has one outcome, that the
// counters agree, and that the target was woken for what fired, once.
func checkOccurrences(t testing.TB, c *client.Client, id string, since time.Time) {
	t.Helper()
	eventually(t, time.Minute, "schedule "+id+" fires after the last restart", func() bool {
		recent := getSchedule(t, c, id).GetInfo().GetRecent()
		return len(recent) > 0 && recent[0].GetNominalTime().AsTime().After(since.Add(2*crashEvery))
	})
	if _, err := c.Schedules.PauseSchedule(t.Context(), connect.NewRequest(&nolav1.PauseScheduleRequest{ScheduleId: id})); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	eventually(t, time.Minute, "no firing of "+id+" runs", func() bool { return len(getSchedule(t, c, id).GetInfo().GetRunning()) == 0 })
	sd := getSchedule(t, c, id)
	outcomes := make(map[int64]*nolav1.Occurrence)
	counted := make(map[nolav1.Outcome]uint64)
	for _, o := range occurrences(t, c, id) {
		nominal, count := o.GetNominalTime().AsTime(), max(o.GetCount(), 1)
		for i := range count {
			at := nominal.Add(time.Duration(i) * crashEvery)
			if other := outcomes[at.UnixNano()]; other != nil {
				t.Errorf("schedule %s: %s has two outcomes: %v and %v", id, at, other, o)
			}
			outcomes[at.UnixNano()] = o
		}
		if count > 1 && !o.GetLastNominalTime().AsTime().Equal(nominal.Add(time.Duration(count-1)*crashEvery)) {
			t.Errorf("schedule %s: a record of %d from %s ends at %s", id, count, nominal, o.GetLastNominalTime().AsTime())
		}
		counted[o.GetOutcome()] += count
		if o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED && o.GetError() != nil {
			t.Errorf("schedule %s: the firing for %s failed: %v", id, nominal, o.GetError())
		}
	}
	times := slices.Sorted(maps.Keys(outcomes))
	if len(times) == 0 {
		t.Fatalf("schedule %s has no occurrences", id)
	}
	for i, at := range times {
		if i > 0 && at != times[i-1]+int64(crashEvery) {
			t.Errorf("schedule %s: no outcome between %s and %s", id, time.Unix(0, times[i-1]).UTC(), time.Unix(0, at).UTC())
		}
	}
	if gap := time.Unix(0, times[0]).Sub(sd.GetInfo().GetCreated().AsTime()); gap < 0 || gap > crashEvery {
		t.Errorf("schedule %s: made at %s, and its first outcome is for %s", id, sd.GetInfo().GetCreated().AsTime(), time.Unix(0, times[0]).UTC())
	}
	if gap := paused.Sub(time.Unix(0, times[len(times)-1])); gap > 2*crashEvery+time.Second {
		t.Errorf("schedule %s: paused at %s, and its last outcome is for %s", id, paused, time.Unix(0, times[len(times)-1]).UTC())
	}
	for _, n := range sd.GetInfo().GetCounters() {
		if n.GetOutcome() != nolav1.Outcome_OUTCOME_PAUSED && n.GetCount() != counted[n.GetOutcome()] {
			t.Errorf("schedule %s: the counter of %s is %d, there are %d occurrences", id, n.GetOutcome(), n.GetCount(), counted[n.GetOutcome()])
		}
	}
	marks := state(t, c, "witness", id, "at/")
	for at, o := range outcomes {
		name := fmt.Sprintf("at/%s/%020d", id, at)
		want := ""
		if o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED {
			want = "1"
		}
		if marks[name] != want {
			t.Errorf("schedule %s: the target was woken %q times for %s, which is %s", id, marks[name], time.Unix(0, at).UTC(), o.GetOutcome())
		}
		delete(marks, name)
	}
	if len(marks) > 0 {
		t.Errorf("schedule %s: the target was woken for what is on no record: %v", id, marks)
	}
	t.Logf("schedule %s: %v", id, counted)
}

// TestSameKeyAcrossKill9: a key that was answered before a crash is answered the
// same after it, and does not serve another request.
func TestSameKeyAcrossKill9(t *testing.T) {
	dir, address := t.TempDir(), steadyAddress(t)
	p := serve(t, dir, "--listen", address)
	c := dial(t, p.url, client.Options{})
	push(t, c, "counter")
	session := &nolav1.SessionKey{Id: []byte("0123456789abcdef"), Seq: 7, AckedBelow: 7, FirstAttempt: timestamppb.Now()}
	requests := map[string]*nolav1.InvokeRequest{
		"user key":    {Actor: actorMessage("counter", "user"), Operation: "inc", Payload: []byte("5"), IdempotencyKey: "order-1"},
		"session key": {Actor: actorMessage("counter", "session"), Operation: "inc", Payload: []byte("5"), Session: session},
	}
	first := make(map[string]*nolav1.InvokeResponse)
	for name, req := range requests {
		res, err := c.Actors.Invoke(t.Context(), connect.NewRequest(req))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if res.Msg.GetReplayed() || string(res.Msg.GetPayload()) != "5" {
			t.Fatalf("%s: first answer %v", name, res.Msg)
		}
		first[name] = res.Msg
	}
	for round := range 2 {
		p.kill()
		p = serve(t, dir, "--listen", address)
		for name, req := range requests {
			res, err := c.Actors.Invoke(t.Context(), connect.NewRequest(req))
			if err != nil {
				t.Fatalf("%s, round %d: %v", name, round, err)
			}
			if !res.Msg.GetReplayed() || string(res.Msg.GetPayload()) != "5" || string(res.Msg.GetInvocationId()) != string(first[name].GetInvocationId()) {
				t.Errorf("%s, round %d: answer %v, want the first one again: %v", name, round, res.Msg, first[name])
			}
			other := &nolav1.InvokeRequest{Actor: req.GetActor(), Operation: "inc", Payload: []byte("6"), IdempotencyKey: req.GetIdempotencyKey(), Session: req.GetSession()}
			_, err = c.Actors.Invoke(t.Context(), connect.NewRequest(other))
			if !errors.Is(err, &nola.Error{Reason: nola.ReasonKeyReused}) {
				t.Errorf("%s, round %d: another payload under the same key: %v, want KEY_REUSED", name, round, err)
			}
			ask := &nolav1.GetInvocationRequest{Actor: req.GetActor(), Selector: &nolav1.GetInvocationRequest_IdempotencyKey{IdempotencyKey: req.GetIdempotencyKey()}}
			if req.GetSession() != nil {
				ask.Selector = &nolav1.GetInvocationRequest_Session{Session: req.GetSession()}
			}
			info, err := c.Actors.GetInvocation(t.Context(), connect.NewRequest(ask))
			if err != nil || info.Msg.GetState() != nolav1.InvocationState_INVOCATION_STATE_SUCCEEDED || string(info.Msg.GetResult()) != "5" {
				t.Errorf("%s, round %d: GetInvocation: %v %v", name, round, info, err)
			}
			if n := invoke(t, c, "counter", req.GetActor().GetId(), "get", ""); n != "5" {
				t.Errorf("%s, round %d: the counter is %s, want 5", name, round, n)
			}
		}
	}
}
