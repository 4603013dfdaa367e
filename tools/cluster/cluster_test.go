package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/tools/cassandra"
	"github.com/nolaproject/nola/tools/cluster"
)

const (
	servers = 3
	shards  = 48
	lease   = 3 * time.Second // as it is by default
	// takeMax is how long others may take for the shards of a server that was killed, on
	// a busy machine: something is wrong beyond it. How long they do take is measured
	// elsewhere.
	takeMax = 30 * time.Second
)

// world is three servers on three nodes of Cassandra, with something in between
// that can break every connection between them.
type world struct {
	db      *cassandra.Cluster
	all     *cluster.Cluster
	clients []*client.Client // one for each server
	ctl     string           // nolactl
	store   [servers][]*proxy
	peers   [servers]*proxy
}

// TestCluster kills, freezes and cuts off the parts of a cluster of real servers,
// one after the other, while clients call: nothing that was acknowledged is lost,
// nothing happens twice, and no answer is older than its question.
func TestCluster(t *testing.T) {
	if os.Getenv("NOLA_SLOW") == "" {
		t.Skip("needs three nodes of Cassandra: make test-cluster starts them")
	}
	w := start(t)
	for _, stage := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"kill an owner", killOwners},
		{"freeze an owner", freezeOwner},
		{"lose a node of the store", loseStoreNode},
		{"cut an owner off the store", cutStore},
		{"cut an owner off the others", cutPeers},
		{"cut an owner off everything", cutAll},
		{"drain and restart one after the other", drainAndRestart},
		{"kill both sides of a transfer", killBank},
	} {
		if !t.Run(stage.name, func(t *testing.T) { stage.run(t, w) }) {
			for _, s := range w.all.Servers() {
				text, _ := os.ReadFile(s.Log())
				t.Logf("end of the log of %s:\n%s", s.Name(), text[max(0, len(text)-6<<10):])
			}
			return // what follows would fail for the same reason
		}
	}
}

func start(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{ctl: build(t, dir, "nolactl", nil, "./cmd/nolactl")}
	program := build(t, dir, "nolad", nil, "./cmd/nolad")
	bank := build(t, dir, "bank.wasm", []string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared", "./examples/bank")
	began := time.Now()
	var err error
	if w.db, err = cassandra.Start(t.Context(), cassandra.Config{Dir: filepath.Join(dir, "cassandra"), Nodes: 3}); errors.Is(err, cassandra.ErrMissing) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range w.db.Nodes() {
			n.Kill()
		}
	})
	// All between a server and the store, and what others send to it, goes through a
	// proxy. The store's have the addresses of its nodes, as the driver tells nodes
	// apart by them.
	w.all, err = cluster.Start(t.Context(), cluster.Config{
		Dir: filepath.Join(dir, "servers"), Program: program, CQL: w.db.Addresses(), Shards: shards,
		Change: func(number int, s *cluster.Settings) {
			s.CQL.Translate = map[string]string{}
			for i, to := range s.CQL.Hosts {
				host, _, err := net.SplitHostPort(to)
				if err != nil {
					t.Fatal(err)
				}
				p := newProxy(t, host, to)
				w.store[number-1] = append(w.store[number-1], p)
				s.CQL.Translate[to] = p.address()
				s.CQL.Hosts = slices.Clone(s.CQL.Hosts)
				s.CQL.Hosts[i] = p.address()
			}
			w.peers[number-1] = newProxy(t, "127.0.0.1", s.Cluster.Listen)
			s.Cluster.Advertise = w.peers[number-1].address()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.all.Kill)
	for _, s := range w.all.Servers() {
		c, err := client.New(s.URL(), client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		w.clients = append(w.clients, c)
	}
	w.push(t, "small", "../../testdata/guests/small/small.wasm", "get")
	w.push(t, "bank", bank, "balance")
	w.push(t, "witness", build(t, dir, "witness.wasm", []string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared", "./testdata/guests/witness"))
	w.settled(t, servers)
	t.Logf("ready after %s", time.Since(began).Round(time.Second))
	return w
}

// build builds a program of this repository.
func build(t *testing.T, dir, name string, env []string, args ...string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", file}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return file
}

func (w *world) push(t *testing.T, name, file string, readonly ...string) {
	t.Helper()
	code, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.clients[0].Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{
		Name: name, Wasm: code, Manifest: &nolav1.ModuleManifest{ReadonlyOperations: readonly},
	})); err != nil {
		t.Fatalf("push %s: %v", name, err)
	}
}

// owned answers which server owns how many shards, by its name, as another one
// sees it; nil if it cannot tell.
func (w *world) owned(t *testing.T, asks int) map[string]int {
	res, err := w.clients[asks].Cluster.ListNodes(t.Context(), connect.NewRequest(&nolav1.ListNodesRequest{}))
	if err != nil {
		return nil
	}
	owned := map[string]int{}
	for _, n := range res.Msg.GetNodes() {
		if n.GetShards() > 0 {
			owned[n.GetName()] += int(n.GetShards())
		}
	}
	return owned
}

// settled waits until all shards are owned by so many servers.
func (w *world) settled(t *testing.T, by int) {
	t.Helper()
	for i := range servers {
		w.settledAt(t, i, by)
	}
}

// settledAt waits until a server sees all shards owned by so many.
func (w *world) settledAt(t *testing.T, asks, by int) {
	t.Helper()
	eventually(t, fmt.Sprintf("server %d sees %d shards on %d servers", asks+1, shards, by), func() bool {
		owned, sum := w.owned(t, asks), 0
		for _, n := range owned {
			sum += n
		}
		return sum == shards && len(owned) == by
	})
}

// without waits until the others have all shards of a server.
func (w *world) without(t *testing.T, gone int) time.Duration {
	t.Helper()
	began := time.Now()
	for i := range servers {
		if i != gone {
			name := w.all.Servers()[gone].Name()
			eventually(t, fmt.Sprintf("server %d sees that the others have the shards of %s", i+1, name), func() bool {
				owned, sum := w.owned(t, i), 0
				for _, n := range owned {
					sum += n
				}
				return sum == shards && owned[name] == 0
			})
		}
	}
	return time.Since(began)
}

// every is the period of the schedules.
const every = 500 * time.Millisecond

// killOwners kills one server after the other. Nobody calls the actors of timers
// and schedules: they go on by themselves.
func killOwners(t *testing.T, w *world) {
	const chains, schedules = 6, 6
	for i := range chains {
		invoke(t, w.clients[i%servers], actor("witness", fmt.Sprint("chain-", i)), "chain", "0")
	}
	for i := range schedules {
		id := fmt.Sprint("every-", i)
		if _, err := w.clients[0].Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
			ScheduleId: id,
			Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "witness", Id: id}, Operation: "mark"},
			Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(every)}}},
			Policy:     &nolav1.SchedulePolicy{Catchup: &nolav1.CatchupPolicy{Mode: nolav1.CatchupMode_CATCHUP_MODE_ALL}},
		}})); err != nil {
			t.Fatalf("create schedule %s: %v", id, err)
		}
	}
	l := newLoad(t, w.clients, "kill")
	for round := range 3 {
		l.more(200)
		victim := w.all.Servers()[round%servers]
		victim.Kill()
		took := w.without(t, round%servers)
		t.Logf("round %d: %s was killed, the others have its shards after %s", round+1, victim.Name(), took.Round(10*time.Millisecond))
		if took > takeMax {
			t.Errorf("the others took %s for the shards of a server that was killed", took)
		}
		// The counters of the others, which nobody's call changes: only what is due.
		before := w.firings(t, round%servers)
		eventually(t, "schedules go on", func() bool { return w.firings(t, round%servers) >= before+2*schedules })
		if err := victim.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.more(300)
	l.end()
	w.settled(t, servers)
	for i := range chains {
		ref := actor("witness", fmt.Sprint("chain-", i))
		links := len(state(t, w.clients[0], ref, "link/"))
		eventually(t, "the chain of timers goes on", func() bool { return len(state(t, w.clients[1], ref, "link/")) > links+2 })
		chained := state(t, w.clients[2], ref, "link/")
		for j, name := range slices.Sorted(maps.Keys(chained)) {
			if want := fmt.Sprintf("link/%08d", j); name != want || chained[name] != "1" {
				t.Fatalf("%s: link %s was reached %s times, want %s once", ref, name, chained[name], want)
			}
		}
	}
	for i := range schedules {
		w.checkSchedule(t, fmt.Sprint("every-", i))
	}
}

// firings is how often schedules and reminders have fired at all servers but one.
func (w *world) firings(t *testing.T, but int) (sum int) {
	t.Helper()
	for i, s := range w.all.Servers() {
		if i == but {
			continue
		}
		res, err := http.Get(s.Admin() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(body)) {
			if rest, ok := strings.CutPrefix(line, `nola_firings_total{outcome="FIRED"} `); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += int(n)
			}
		}
	}
	return sum
}

// checkSchedule looks that every nominal time has one outcome, and that the target
// was woken once for each that fired.
func (w *world) checkSchedule(t *testing.T, id string) {
	t.Helper()
	c := w.clients[0]
	if _, err := c.Schedules.PauseSchedule(t.Context(), connect.NewRequest(&nolav1.PauseScheduleRequest{ScheduleId: id})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no firing of "+id+" runs", func() bool {
		res, err := c.Schedules.GetSchedule(t.Context(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: id}))
		return err == nil && len(res.Msg.GetSchedule().GetInfo().GetRunning()) == 0
	})
	outcomes := map[int64]*nolav1.Occurrence{}
	for token := ""; ; {
		res, err := c.Schedules.ListOccurrences(t.Context(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: id, PageSize: 1000, PageToken: token}))
		if err != nil {
			t.Fatalf("occurrences of %s: %v", id, err)
		}
		for _, o := range res.Msg.GetOccurrences() {
			for i := range max(o.GetCount(), 1) {
				at := o.GetNominalTime().AsTime().Add(time.Duration(i) * every).UnixNano()
				if outcomes[at] != nil {
					t.Errorf("schedule %s: %s has two outcomes: %v and %v", id, time.Unix(0, at).UTC(), outcomes[at], o)
				}
				outcomes[at] = o
			}
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			break
		}
	}
	times := slices.Sorted(maps.Keys(outcomes))
	marks := state(t, c, actor("witness", id), "at/")
	fired := 0
	for i, at := range times {
		if i > 0 && at != times[i-1]+int64(every) {
			t.Errorf("schedule %s: no outcome between %s and %s", id, time.Unix(0, times[i-1]).UTC(), time.Unix(0, at).UTC())
		}
		name, want := fmt.Sprintf("at/%s/%020d", id, at), ""
		if outcomes[at].GetOutcome() == nolav1.Outcome_OUTCOME_FIRED {
			want = "1"
			fired++
		}
		if marks[name] != want {
			t.Errorf("schedule %s: the target was woken %q times for %s, which is %s", id, marks[name], time.Unix(0, at).UTC(), outcomes[at].GetOutcome())
		}
		delete(marks, name)
	}
	if len(marks) > 0 || fired == 0 {
		t.Errorf("schedule %s: fired %d times, and the target was woken for what is on no record: %v", id, fired, marks)
	}
}

// freezeOwner stops a server for longer than its lease and lets it go on. What it
// was asked meanwhile it answers with what really happened.
func freezeOwner(t *testing.T, w *world) {
	l := newLoad(t, w.clients, "freeze")
	for round := range 2 {
		victim := round + 1
		l.more(300)
		if err := w.all.Servers()[victim].Pause(); err != nil {
			t.Fatal(err)
		}
		took := w.without(t, victim)
		l.more(200) // at the new owners
		var held sync.WaitGroup
		for _, c := range l.counters[:40] { // they reach it as it wakes
			held.Go(func() {
				if err := l.get(c, victim, patience); err != nil {
					t.Errorf("%s: a read that a frozen server held: %v", c.ref, err)
				}
			})
			held.Go(func() { l.increment(c, victim) })
		}
		l.more(100) // by then the questions wait there
		if err := w.all.Servers()[victim].Resume(); err != nil {
			t.Fatal(err)
		}
		held.Wait()
		l.more(200)
		w.settled(t, servers)
		t.Logf("round %d: the others had the shards after %s", round+1, took.Round(10*time.Millisecond))
	}
	l.end()
}

// loseStoreNode kills one node of the Cassandra and freezes another: two of three
// are enough.
func loseStoreNode(t *testing.T, w *world) {
	l := newLoad(t, w.clients, "store")
	l.more(300)
	dead := w.db.Nodes()[1]
	dead.Kill()
	l.more(1000)
	if err := dead.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.more(300)
	frozen := w.db.Nodes()[2]
	if err := frozen.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l.more(1000)
	t.Logf("with a frozen node 1,000 increments took %s", time.Since(began).Round(10*time.Millisecond))
	if err := frozen.Resume(); err != nil {
		t.Fatal(err)
	}
	l.more(300)
	l.end()
	w.settled(t, servers)
}

// cutStore cuts a server off the store, both ways and then one way.
func cutStore(t *testing.T, w *world) {
	l := newLoad(t, w.clients, "cutstore")
	for round, cut := range []struct{ there, back bool }{{true, true}, {true, false}, {false, true}} {
		victim := round % servers
		l.more(300)
		for _, p := range w.store[victim] {
			p.hold(cut.there, cut.back)
		}
		took := w.without(t, victim)
		l.more(300)
		for _, p := range w.store[victim] {
			p.hold(false, false)
		}
		w.settled(t, servers)
		l.more(300)
		t.Logf("nothing arrives there %v, nothing comes back %v: the others had the shards after %s", cut.there, cut.back, took.Round(10*time.Millisecond))
	}
	l.end()
}

// cutPeers cuts a server off the others, who keep the store in common.
func cutPeers(t *testing.T, w *world) {
	l := newLoad(t, w.clients, "cutpeers")
	for _, cut := range []struct {
		there, back bool
		whose       []int
	}{{true, true, []int{0, 1, 2}}, {true, false, []int{1}}, {false, true, []int{2}}} {
		l.more(300)
		for _, i := range cut.whose {
			w.peers[i].hold(cut.there, cut.back)
		}
		l.more(60) // where the owner can be asked itself, after up to two others
		for _, i := range cut.whose {
			w.peers[i].hold(false, false)
		}
		l.more(600)
	}
	l.end()
	w.settled(t, servers)
}

// cutAll cuts a server off the store and the others, so that what it answers is its
// own. None of its answers is to a question that was asked after a new owner had
// answered, or a lease after the cut.
func cutAll(t *testing.T, w *world) {
	const victim = 0
	l := newLoad(t, w.clients, "cutall")
	l.more(500)
	l.stop()
	l.wg.Wait()
	var mine []*counter
	for _, c := range l.counters {
		res, err := w.clients[1].Cluster.LocateActor(t.Context(), connect.NewRequest(&nolav1.LocateActorRequest{Actor: &nolav1.ActorRef{Type: c.ref.Type, Id: c.ref.ID}}))
		if err != nil {
			t.Fatal(err)
		}
		if res.Msg.GetNode().GetName() == w.all.Servers()[victim].Name() {
			mine = append(mine, c)
		}
	}
	if len(mine) == 0 {
		t.Fatalf("%s owns none of %d actors", w.all.Servers()[victim].Name(), len(l.counters))
	}
	hold := func(held bool) {
		for _, p := range append(slices.Clone(w.store[victim]), w.peers[:]...) {
			p.hold(held, held)
		}
	}
	hold(true)
	cut := time.Now()
	var mu sync.Mutex                  // guards those below
	others := map[*counter]time.Time{} // when a new owner answered first
	type answer struct {
		c     *counter
		asked time.Time
	}
	var own []answer
	var wg sync.WaitGroup
	defer wg.Wait()
	defer hold(false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 8 {
		wg.Go(func() {
			c, err := client.New(w.all.Servers()[victim].URL(), client.Options{Retries: -1, Timeout: time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			tick := time.NewTicker(callEvery)
			defer tick.Stop()
			for j := i; ctx.Err() == nil; j += 8 {
				<-tick.C
				x, asked := mine[j%len(mine)], time.Now()
				floor := x.begin(0)
				res, err := c.Invoke(ctx, x.ref, "get", nil)
				if err != nil {
					continue
				}
				if n, err := strconv.Atoi(string(res.Payload)); err != nil || n < floor {
					t.Errorf("%s: the owner that was cut off answered %q, and %d had been answered before", x.ref, res.Payload, floor)
				}
				mu.Lock()
				own = append(own, answer{x, asked})
				mu.Unlock()
			}
		})
	}
	rest := &load{t: t, clients: w.clients[1:], ctx: l.ctx}
	for i := range 8 {
		wg.Go(func() {
			for j := i; j < len(mine); j += 8 {
				x := mine[j]
				key := fmt.Sprint("cut-", x.ref.ID)
				floor := x.begin(1)
				// The other two cannot pass it on either: the owner alone answers.
				rest.until(key, j, func(ctx context.Context, c *client.Client) error {
					res, err := c.Invoke(ctx, x.ref, "inc", nil, client.WithIdempotencyKey(key))
					if err == nil {
						l.reply(x, key, floor, res.Payload)
						mu.Lock()
						others[x] = time.Now()
						mu.Unlock()
					}
					return err
				})
			}
		})
	}
	eventually(t, "new owners have answered for all actors", func() bool { mu.Lock(); defer mu.Unlock(); return len(others) == len(mine) })
	cancel()
	hold(false)
	wg.Wait()
	late, last := 0, time.Time{}
	for _, a := range own {
		if first, ok := others[a.c]; ok && a.asked.After(first) {
			late++
		}
		if a.asked.After(last) {
			last = a.asked
		}
	}
	if after := last.Sub(cut); after > lease {
		t.Errorf("the owner answered a question asked %s after it was cut off, its lease is %s", after, lease)
	}
	firstOther := time.Now()
	for _, at := range others {
		if at.Before(firstOther) {
			firstOther = at
		}
	}
	if late > 0 || len(own) == 0 {
		t.Errorf("the owner that was cut off gave %d answers, %d of them to questions asked after a new owner had answered", len(own), late)
	}
	t.Logf("the owner that was cut off gave %d answers, the last one asked for %s before a new owner answered first", len(own), firstOther.Sub(last).Round(time.Millisecond))
	w.settled(t, servers)
	l.end()
}

// drainAndRestart empties a server and takes it back, and then restarts all three,
// one after the other. The default client does not notice.
func drainAndRestart(t *testing.T, w *world) {
	l := newLoad(t, w.clients, "drain")
	l.more(300)
	for _, args := range [][]string{{"node", "drain", w.all.Servers()[1].Name()}, {"node", "drain", w.all.Servers()[1].Name(), "--undo"}} {
		began := time.Now()
		cmd := exec.CommandContext(t.Context(), w.ctl, append([]string{"--server", w.all.Servers()[0].URL()}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nolactl %v: %v\n%s", args, err, out)
		}
		t.Logf("nolactl %v: %s", args, time.Since(began).Round(10*time.Millisecond))
		l.more(300)
		if len(args) == 3 {
			w.without(t, 1)
		}
	}
	w.settled(t, servers)
	for _, s := range w.all.Servers() {
		began := time.Now()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		stopped := time.Since(began)
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s stopped within %s and was ready again after %s", s.Name(), stopped.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
		l.more(300)
	}
	w.settled(t, servers)
	l.end()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d calls of the default client failed, the last with: %v", n, *l.last.Load())
	}
}

// killBank moves money between accounts of all servers, by casts, and has actors call
// each other, while servers are killed: all that was acknowledged happened once.
func killBank(t *testing.T, w *world) {
	const accounts, each = 40, 1_000
	account := func(i int) nola.ActorRef { return actor("bank", fmt.Sprint("account-", i)) }
	for i := range accounts {
		invoke(t, w.clients[i%servers], account(i), "deposit", strconv.Itoa(each))
	}
	l := &load{t: t, clients: w.clients}
	l.ctx, l.stop = context.WithCancel(t.Context())
	defer l.wg.Wait()
	defer l.stop()
	const relays = 12
	relay := func(i int) nola.ActorRef { return actor("witness", fmt.Sprint("relay-", i)) }
	var mu sync.Mutex // guards those below
	moved := map[nola.ActorRef]int{}
	called := map[nola.ActorRef][]string{}  // keys, by caller
	arrived := map[nola.ActorRef][]string{} // the same, by who was called
	for i := range 4 {
		l.wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			tick := time.NewTicker(callEvery)
			defer tick.Stop()
			for j := 0; l.ctx.Err() == nil; j++ {
				<-tick.C
				from := rng.IntN(relays)
				to := (from + 1 + rng.IntN(relays-1)) % relays
				key := fmt.Sprintf("relay-%d-%d", i, j)
				l.until(key, rng.IntN(servers), func(ctx context.Context, c *client.Client) error {
					_, err := c.Invoke(ctx, relay(from), "relay", []byte(relay(to).ID+" "+key), client.WithIdempotencyKey(key))
					if err == nil {
						mu.Lock()
						called[relay(from)] = append(called[relay(from)], key)
						arrived[relay(to)] = append(arrived[relay(to)], key)
						mu.Unlock()
						l.acked.Add(1)
					}
					return err
				})
			}
		})
	}
	for i := range 8 {
		l.wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			tick := time.NewTicker(callEvery)
			defer tick.Stop()
			for j := 0; l.ctx.Err() == nil; j++ {
				<-tick.C
				from, to, amount := rng.IntN(accounts), rng.IntN(accounts), 1+rng.IntN(20)
				key, order := fmt.Sprintf("transfer-%d-%d", i, j), fmt.Appendf(nil, `{"to":%q,"amount":%d}`, account(to).ID, amount)
				l.until(key, rng.IntN(servers), func(ctx context.Context, c *client.Client) error {
					_, err := c.Invoke(ctx, account(from), "transfer", order, client.WithIdempotencyKey(key))
					if err == nil {
						mu.Lock()
						moved[account(from)] -= amount
						moved[account(to)] += amount
						mu.Unlock()
					}
					if errors.Is(err, &nola.Error{Reason: nola.ReasonGuestError}) {
						err = nil // there was not enough
					}
					if err == nil {
						l.acked.Add(1)
					}
					return err
				})
			}
		})
	}
	for round := range 3 {
		l.more(200)
		victim := (round*2 + 1) % servers
		w.all.Servers()[victim].Kill()
		w.without(t, victim)
		l.more(200)
		if err := w.all.Servers()[victim].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.more(300)
	l.stop()
	l.wg.Wait()
	sum := 0
	eventually(t, "all money has arrived", func() bool {
		sum = 0
		for i := range accounts {
			n, err := strconv.Atoi(invoke(t, w.clients[i%servers], account(i), "balance", ""))
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum > accounts*each {
			t.Fatalf("the accounts hold %d, and %d were paid in", sum, accounts*each)
		}
		return sum == accounts*each
	})
	for i := range accounts {
		if got, want := invoke(t, w.clients[0], account(i), "balance", ""), strconv.Itoa(each+moved[account(i)]); got != want {
			t.Errorf("%s holds %s, and by what was acknowledged it should be %s", account(i), got, want)
		}
	}
	calls := 0
	for i := range relays {
		calls += len(called[relay(i)])
		for prefix, keys := range map[string][]string{"r/": called[relay(i)], "k/": arrived[relay(i)]} {
			have := state(t, w.clients[i%servers], relay(i), prefix)
			for _, key := range keys {
				if times := have[prefix+key]; times != "1" {
					t.Errorf("%s: %s%s was acknowledged once and counted %q times", relay(i), prefix, key, times)
				}
				delete(have, prefix+key)
			}
			if len(have) > 0 {
				t.Errorf("%s counted what nobody was acknowledged: %v", relay(i), have)
			}
		}
	}
	t.Logf("%d transfers and calls, %d of them calls between actors", l.acked.Load(), calls)
}

func invoke(t *testing.T, c *client.Client, ref nola.ActorRef, operation, payload string) string {
	t.Helper()
	res, err := c.Invoke(t.Context(), ref, operation, []byte(payload))
	if err != nil {
		t.Fatalf("%s %s: %v", ref, operation, err)
	}
	return string(res.Payload)
}

// state reads the entries of an actor's state under a prefix.
func state(t *testing.T, c *client.Client, ref nola.ActorRef, prefix string) map[string]string {
	t.Helper()
	entries := map[string]string{}
	for token := ""; ; {
		res, err := c.Actors.ListState(t.Context(), connect.NewRequest(&nolav1.ListStateRequest{
			Actor: &nolav1.ActorRef{Type: ref.Type, Id: ref.ID}, Prefix: []byte(prefix), Limit: 1000, PageToken: token,
		}))
		if err != nil {
			t.Fatalf("state of %s: %v", ref, err)
		}
		for _, e := range res.Msg.GetEntries() {
			entries[string(e.GetKey())] = string(e.GetValue())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			return entries
		}
	}
}
