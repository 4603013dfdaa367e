package server_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/server"
	"github.com/nolaproject/nola/server/cluster"
	"github.com/nolaproject/nola/shard"
	"github.com/nolaproject/nola/shard/core"
)

// directory is the rows that the nodes of a test share.
type directory struct {
	mu     sync.Mutex
	joined int
	nodes  map[string]cluster.NodeRow
	shards []cluster.ShardRow
	// claims counts how often each shard was taken.
	claims []int
	// gate, if set, is called before a node reads the rows of all shards, before it
	// claims or releases one, and while it joins.
	gate atomic.Pointer[func(ctx context.Context, what, node string, id nola.ShardID)]
	// old is set while nothing is passed on, as among nodes of an older release.
	old atomic.Bool
	// lost is set while no word of what was passed on is understood.
	lost atomic.Bool
	// looks counts the reads of the nodes' rows by each node.
	looks map[string]int
}

func (d *share) pass(ctx context.Context, what string, id nola.ShardID) {
	if gate := d.gate.Load(); gate != nil {
		(*gate)(ctx, what, d.name, id)
	}
}

// share is a node's part of a directory: it claims for its own store.
type share struct {
	*directory
	name  string
	store *memstore.Member
	mute  *atomic.Bool // beats do not arrive
}

func (d *share) Join(ctx context.Context) (string, error) {
	d.mu.Lock()
	d.joined++
	id := fmt.Sprintf("%s#%d", d.name, d.joined)
	d.mu.Unlock()
	d.pass(ctx, "join", 0) // others may know of it by now
	return id, nil
}

func (d *share) Beat(_ context.Context, row cluster.NodeRow) error {
	if d.mute.Load() {
		return errors.New("the beat got lost")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if row.Beat > d.nodes[row.ID].Beat {
		d.nodes[row.ID] = row
	}
	return nil
}

func (d *share) Nodes(context.Context) ([]cluster.NodeRow, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks[d.name]++
	var rows []cluster.NodeRow
	for _, row := range d.nodes {
		rows = append(rows, row)
	}
	return rows, nil
}

func (d *share) Forget(_ context.Context, node string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.nodes, node)
	return nil
}

func (d *share) Shards(ctx context.Context) ([]cluster.ShardRow, error) {
	if d.pass(ctx, "look", 0); ctx.Err() != nil {
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.shards), nil
}

func (d *share) Claim(ctx context.Context, node string, from cluster.ShardRow) (persistence.Head, error) {
	d.pass(ctx, "claim", from.Shard)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shards[from.Shard] != from {
		return persistence.Head{}, cluster.ErrMoved
	}
	heads, err := d.store.Acquire(ctx, []nola.ShardID{from.Shard})
	if err != nil {
		return persistence.Head{}, err
	}
	d.shards[from.Shard] = cluster.ShardRow{Shard: from.Shard, Epoch: heads[0].Epoch, Node: node}
	d.claims[from.Shard]++
	return heads[0], nil
}

func (d *share) Flush(context.Context, nola.ShardID, nola.Epoch) error { return nil }

func (d *share) Release(ctx context.Context, id nola.ShardID, epoch nola.Epoch, to string) (cluster.Passed, error) {
	d.pass(ctx, "release", id)
	d.mu.Lock()
	defer d.mu.Unlock()
	row := &d.shards[id]
	switch _, known := d.nodes[to]; {
	case row.Epoch != epoch:
	case known && !d.old.Load():
		*row = cluster.ShardRow{Shard: id, Epoch: epoch + 1, Node: to}
		return cluster.Passed{Epoch: row.Epoch, Word: fmt.Appendf(nil, "%d of %s", row.Epoch, to)}, nil
	default:
		row.Node, row.HandoffTo = "", to
	}
	return cluster.Passed{}, nil
}

// TakeUp raises the epoch in the store, as the row says.
func (d *share) TakeUp(ctx context.Context, node string, id nola.ShardID, word []byte) (persistence.Head, error) {
	if d.pass(ctx, "take", id); ctx.Err() != nil {
		return persistence.Head{}, ctx.Err()
	}
	d.mu.Lock()
	row := d.shards[id]
	d.mu.Unlock()
	if d.lost.Load() || row.Node != node || string(word) != fmt.Sprintf("%d of %s", row.Epoch, node) {
		return persistence.Head{}, cluster.ErrMoved
	}
	return d.Claim(ctx, node, row)
}

// nodes is a cluster in one process: nodes on loopback over one store in memory.
type nodes struct {
	t    *testing.T
	disk *memstore.Disk
	dir  *directory
	list []*member
}

const (
	clusterShards = 32
	clusterLease  = 600 * time.Millisecond
	clusterToken  = "only for tests, 27 bytes"
)

func newNodes(t *testing.T, n int) *nodes {
	t.Helper()
	c := &nodes{
		t: t, disk: memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: clusterShards, Secret: [32]byte{2}}),
		dir: &directory{nodes: map[string]cluster.NodeRow{}, shards: make([]cluster.ShardRow, clusterShards), claims: make([]int, clusterShards), looks: map[string]int{}},
	}
	for i := range c.dir.shards {
		c.dir.shards[i].Shard = nola.ShardID(i)
	}
	for i := range n {
		m := &member{c: c, name: fmt.Sprint("n", i)}
		c.list = append(c.list, m)
		m.listen()
		m.start()
		t.Cleanup(m.kill)
	}
	c.rests()
	_, err := c.list[0].Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "bank", Wasm: []byte("code")}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rests waits until every shard is where it belongs.
func (c *nodes) rests() {
	c.t.Helper()
	eventually(c.t, "every shard is served where it belongs", func() bool {
		c.dir.mu.Lock()
		rows := slices.Clone(c.dir.shards)
		c.dir.mu.Unlock()
		ids := map[string]*member{}
		living := 0
		for _, m := range c.list {
			if m.node != nil {
				ids[m.part.ID()] = m
				living++
			}
		}
		for _, m := range ids {
			if s := m.part.Status(); !m.part.Ready() || len(s.Nodes) != living {
				return false
			}
		}
		for _, row := range rows {
			if ids[row.Node] == nil {
				return false
			}
			for _, m := range ids {
				if s := m.part.Status(); s.Desired[row.Shard] != row.Node || s.Shards[row.Shard] != row {
					return false
				}
			}
		}
		return true
	})
}

// member is one node of the cluster.
type member struct {
	*client.Client
	c             *nodes
	name          string
	public, peers string       // addresses, the same after a restart
	beats         atomic.Bool  // set: those of the node get lost
	fenced        atomic.Int64 // commits that came after the shard had another owner

	store   *memstore.Member
	part    *cluster.Member
	node    *server.Node
	servers []*http.Server
	served  sync.WaitGroup
}

// listen takes two ports, which the node keeps.
func (m *member) listen() {
	m.c.t.Helper()
	for _, at := range []*string{&m.public, &m.peers} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			m.c.t.Fatal(err)
		}
		*at = l.Addr().String()
		_ = l.Close()
	}
	var err error
	if m.Client, err = client.New("http://"+m.public, client.Options{}); err != nil {
		m.c.t.Fatal(err)
	}
}

func (m *member) start() {
	t := m.c.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("NOLA_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", m.name)
	}
	var err error
	if m.store, err = m.c.disk.Join(); err != nil {
		t.Fatal(err)
	}
	m.part, err = cluster.New(cluster.Config{
		Directory: &share{m.c.dir, m.name, m.store, &m.beats}, Store: m.store, Name: m.name, Address: m.public, Peer: m.peers,
		Token: clusterToken, Lease: clusterLease, Logger: log, Labels: map[string]string{"name": m.name},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.node, err = server.OpenNode(context.Background(), server.NodeConfig{
		Store: m.store, Runtime: banks{}, StoreName: "memory", Version: "test", Address: m.public, Cluster: m.part, Logger: log,
		Shards: shard.Config{
			Limits: core.Limits{BackoffMin: 10 * time.Millisecond},
			Events: shard.Events{Fenced: func(nola.ShardID, error) { m.fenced.Add(1) }},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.node.SetReady(true)
	m.servers = nil
	for _, at := range []struct {
		address string
		handler http.Handler
	}{{m.public, m.node.Handler()}, {m.peers, m.part.Handler()}} {
		l, err := net.Listen("tcp", at.address)
		if err != nil {
			t.Fatal(err)
		}
		s := server.HTTPServer(context.Background(), at.handler, nil, log)
		m.servers = append(m.servers, s)
		m.served.Go(func() { _ = s.Serve(l) })
	}
}

// kill ends the node without a word: nothing is committed or released any more.
func (m *member) kill() {
	if m.node == nil {
		return
	}
	_ = m.store.Close()
	for _, s := range m.servers {
		_ = s.Close()
	}
	m.served.Wait()
	if err := m.node.Close(); err != nil {
		m.c.t.Errorf("close node %s: %v", m.name, err)
	}
	m.node = nil
}

// restart ends the node as SIGTERM does, and starts it again.
func (m *member) restart() {
	t := m.c.t
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.node.Drain(ctx); err != nil {
		t.Errorf("drain %s: %v", m.name, err)
	}
	if n := len(m.part.Shards()); n != 0 {
		t.Errorf("%s ends with %d shards", m.name, n)
	}
	if err := m.servers[0].Shutdown(ctx); err != nil {
		t.Errorf("shut %s down: %v", m.name, err)
	}
	m.kill()
	m.start()
}

// banks is a runtime whose guests keep money.
type banks struct{ guests }

func (banks) Prepare(_ context.Context, _ []byte, m nola.Manifest) (nola.Module, error) {
	m = m.WithDefaults()
	return &bank{guest{manifest: m}}, nil
}

type bank struct{ guest }

func (b *bank) Instantiate(nola.ActorRef) (nola.Instance, error) { return &account{}, nil }

type account struct{ instance }

func (a *account) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	balance := func() int64 {
		v, _, _ := h.Get([]byte("balance"))
		if len(v) != 8 {
			return 0
		}
		return int64(binary.BigEndian.Uint64(v))
	}
	add := func(n int64) error {
		return h.Put([]byte("balance"), binary.BigEndian.AppendUint64(nil, uint64(balance()+n)))
	}
	to, amount, _ := strings.Cut(string(t.Payload), "|")
	n, _ := strconv.ParseInt(amount, 10, 64)
	switch t.Operation {
	case "add":
		n, _ = strconv.ParseInt(to, 10, 64)
		return nil, add(n)
	case "balance":
		return []byte(strconv.FormatInt(balance(), 10)), nil
	case "send": // by cast
		if err := add(-n); err != nil {
			return nil, err
		}
		_, err := h.Cast(nola.OutCall{ID: to, Operation: "add", Payload: []byte(amount)})
		return nil, err
	case "pay": // by call
		if _, err := h.Call(nola.OutCall{ID: to, Operation: "add", Payload: []byte(amount)}); err != nil {
			return nil, err
		}
		return nil, add(-n)
	case "burn":
		t.Steps, _ = strconv.ParseUint(to, 10, 64)
		return nil, nil
	case "later":
		ms, _ := strconv.ParseInt(to, 10, 64)
		return nil, h.SetTimer(nola.Timer{Name: "later", Operation: "add", Payload: []byte("1"), Due: h.Now().Add(time.Duration(ms) * time.Millisecond)})
	case nola.OperationStartup, nola.OperationShutdown:
		return nil, nil
	}
	return nil, nola.Errorf(nola.ReasonOperationNotFound, "no operation %q", t.Operation)
}

func accountRef(i int) nola.ActorRef {
	return nola.ActorRef{Namespace: "default", Type: "bank", ID: fmt.Sprint("account-", i)}
}

// balances adds up all accounts, asking one node.
func (m *member) balances(n int) (sum int64) {
	m.c.t.Helper()
	for i := range n {
		r, err := m.Invoke(context.Background(), accountRef(i), "balance", nil)
		if err != nil {
			m.c.t.Fatalf("balance of %s: %v", accountRef(i), err)
		}
		b, _ := strconv.ParseInt(string(r.Payload), 10, 64)
		sum += b
	}
	return sum
}

// A call reaches the node that serves the actor, whichever node is asked, and so do
// the other operations.
func TestClusterRoutes(t *testing.T) {
	c := newNodes(t, 3)
	const accounts = 20
	owners := map[string]bool{}
	for i := range accounts {
		ref := accountRef(i)
		for j, m := range c.list {
			if _, err := m.Invoke(t.Context(), ref, "add", []byte(strconv.Itoa(j+1))); err != nil {
				t.Fatalf("add at %s by way of %s: %v", ref, m.name, err)
			}
		}
		at := &nolav1.ActorRef{Type: ref.Type, Id: ref.ID}
		for _, m := range c.list {
			r, err := m.Invoke(t.Context(), ref, "balance", nil)
			if err != nil || string(r.Payload) != "6" {
				t.Fatalf("balance of %s by way of %s: %q, %v", ref, m.name, r.Payload, err)
			}
			state, err := m.Actors.GetState(t.Context(), connect.NewRequest(&nolav1.GetStateRequest{Actor: at, Key: []byte("balance")}))
			if err != nil || !state.Msg.GetFound() || binary.BigEndian.Uint64(state.Msg.GetValue()) != 6 {
				t.Fatalf("state of %s by way of %s: %v, %v", ref, m.name, state, err)
			}
			list, err := m.Actors.ListState(t.Context(), connect.NewRequest(&nolav1.ListStateRequest{Actor: at}))
			if err != nil || len(list.Msg.GetEntries()) != 1 {
				t.Fatalf("list of %s by way of %s: %v, %v", ref, m.name, list, err)
			}
			if _, err := m.Actors.DescribeActor(t.Context(), connect.NewRequest(&nolav1.DescribeActorRequest{Actor: at})); err != nil {
				t.Fatalf("description of %s by way of %s: %v", ref, m.name, err)
			}
			where, err := m.Cluster.LocateActor(t.Context(), connect.NewRequest(&nolav1.LocateActorRequest{Actor: at}))
			if err != nil || where.Msg.GetNode() == nil {
				t.Fatalf("location of %s by way of %s: %v, %v", ref, m.name, where, err)
			}
			owners[where.Msg.GetNode().GetName()] = true
		}
		id, err := c.list[i%3].Cast(t.Context(), ref, "add", []byte("4"))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the cast has its outcome", func() bool {
			got, err := c.list[(i+1)%3].Actors.GetInvocation(t.Context(), connect.NewRequest(&nolav1.GetInvocationRequest{Actor: at, Selector: &nolav1.GetInvocationRequest_InvocationId{InvocationId: id.ID[:]}}))
			if err != nil {
				t.Fatal(err)
			}
			return got.Msg.GetState() == nolav1.InvocationState_INVOCATION_STATE_SUCCEEDED
		})
	}
	if len(owners) != 3 {
		t.Errorf("the accounts live on %v, they should live on three nodes", owners)
	}
	if sum := c.list[1].balances(accounts); sum != 10*accounts {
		t.Errorf("all accounts have %d, want %d", sum, 10*accounts)
	}
}

// load is transfers between accounts by way of all nodes, as long as it runs.
type load struct {
	c        *nodes
	accounts int
	stop     chan struct{}
	callers  sync.WaitGroup
	mu       sync.Mutex // guards the fields below
	done     int
	failures []error
	// gaps are the longest waits of single calls.
	longest time.Duration
}

// pays starts callers that transfer money through the nodes, each through its own.
func (c *nodes) pays(accounts, callers int) *load {
	l := &load{c: c, accounts: accounts, stop: make(chan struct{})}
	for i := range callers {
		m := c.list[i%len(c.list)]
		l.callers.Go(func() { l.run(i, m) })
	}
	return l
}

func (l *load) run(i int, m *member) {
	for n := i; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		a, b := n%l.accounts, (n*7+i+1)%l.accounts
		if a == b {
			continue
		}
		op := "send"
		if n%2 == 0 {
			op = "pay"
			a, b = min(a, b), max(a, b) // calls in both directions would wait for each other
		}
		from, to := accountRef(a), accountRef(b)
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, err := m.Invoke(ctx, from, op, []byte(to.ID+"|1"))
		cancel()
		l.mu.Lock()
		l.longest = max(l.longest, time.Since(began))
		if l.done++; err != nil {
			l.failures = append(l.failures, fmt.Errorf("%s from %s to %s by way of %s: %w", op, from, to, m.name, err))
		}
		l.mu.Unlock()
	}
}

// count is how many transfers have ended.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// goesOn waits until so many more transfers have ended.
func (l *load) goesOn(more int) {
	l.c.t.Helper()
	want := l.count() + more
	eventually(l.c.t, fmt.Sprintf("%d more transfers", more), func() bool { return l.count() >= want })
}

// ends stops the callers, and holds the accounts against what they must have.
func (l *load) ends() {
	t := l.c.t
	t.Helper()
	close(l.stop)
	l.callers.Wait()
	for i, err := range l.failures {
		if i == 5 {
			t.Errorf("and %d failures more", len(l.failures)-i)
			break
		}
		t.Error(err)
	}
	t.Logf("%d transfers, the longest took %s", l.done, l.longest)
	l.c.rests()
	eventually(t, "no money is on its way", func() bool { return l.c.list[0].balances(l.accounts) == 0 })
}

// Owners are killed again and again while money is transferred between actors on
// different nodes, by calls and by casts: none is lost or made, and no call fails.
func TestClusterKeepsMoneyWhileOwnersAreKilled(t *testing.T) {
	kills := 4
	if os.Getenv("NOLA_SLOW") != "" {
		kills = 20
	}
	c := newNodes(t, 3)
	l := c.pays(16, 6)
	for i := range kills {
		l.goesOn(100)
		m := c.list[i%3]
		m.kill()
		l.goesOn(20)
		m.start()
		c.rests()
	}
	l.ends()
}

// handedOver wants that no shard was given away before all that it had taken in was
// durable.
func (c *nodes) handedOver() {
	c.t.Helper()
	for _, m := range c.list {
		if n := m.fenced.Load(); n != 0 {
			c.t.Errorf("%s has tried to commit to %d shards that it had given away", m.name, n)
		}
	}
}

// Each node is drained and restarted under load: no call of the default client
// fails.
func TestClusterRollingRestart(t *testing.T) {
	c := newNodes(t, 3)
	l := c.pays(16, 6)
	for _, m := range c.list {
		l.goesOn(100)
		m.restart()
		c.rests()
	}
	l.goesOn(100)
	l.ends()
	c.handedOver()
}

// drain has a node give its shards away, or take some again.
func (c *nodes) drain(name string, undo bool) {
	c.t.Helper()
	if _, err := c.list[0].Cluster.DrainNode(c.t.Context(), connect.NewRequest(&nolav1.DrainNodeRequest{Node: name, Undo: undo})); err != nil {
		c.t.Fatal(err)
	}
}

// looked waits until each node has looked at the directory so many more times.
func (c *nodes) looked(times int) {
	c.t.Helper()
	look := func() map[string]int {
		c.dir.mu.Lock()
		defer c.dir.mu.Unlock()
		return maps.Clone(c.dir.looks)
	}
	was := look()
	eventually(c.t, "all nodes have looked at the directory", func() bool {
		now := look()
		for _, m := range c.list {
			if now[m.name] < was[m.name]+times {
				return false
			}
		}
		return true
	})
}

// Calls that come while their shard is on its way wait for it, at the node that gives
// it away and at the one that takes it: none is refused, whichever node is asked.
func TestClusterCallsWaitForAMove(t *testing.T) {
	c := newNodes(t, 3)
	ref := accountRef(0)
	id := nola.ShardOf(ref, clusterShards)
	want := 0
	for _, step := range []string{"release", "claim"} {
		held, let := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(held) })
		gate := func(_ context.Context, what, _ string, at nola.ShardID) {
			if what == step && at == id {
				once()
				<-let
			}
		}
		c.dir.gate.Store(&gate)
		owner := c.owner(id).name
		c.drain(owner, false)
		<-held
		answers := make(chan error, len(c.list))
		for _, m := range c.list {
			go func() { // with a client that tries nothing again
				_, err := m.Actors.Invoke(t.Context(), connect.NewRequest(&nolav1.InvokeRequest{
					Actor: &nolav1.ActorRef{Type: ref.Type, Id: ref.ID}, Operation: "add", Payload: []byte("1"),
				}))
				answers <- err
			}()
		}
		c.looked(4) // who does not wait gives up by then
		if n := len(answers); n > 0 {
			t.Errorf("%d calls were answered while the %s was held up", n, step)
		}
		close(let)
		for range c.list {
			if err := <-answers; err != nil {
				t.Errorf("a call while the %s was held up: %v", step, err)
				continue
			}
			want++
		}
		c.drain(owner, true)
		c.rests()
	}
	r, err := c.list[0].Invoke(t.Context(), ref, "balance", nil)
	if err != nil || string(r.Payload) != strconv.Itoa(want) {
		t.Errorf("the account has %s (%v), %d calls were answered", r.Payload, err, want)
	}
}

// owner is the node that serves a shard.
func (c *nodes) owner(id nola.ShardID) *member {
	c.dir.mu.Lock()
	node := c.dir.shards[id].Node
	c.dir.mu.Unlock()
	for _, m := range c.list {
		if m.part.ID() == node {
			return m
		}
	}
	c.t.Fatalf("nobody serves shard %d", id)
	return nil
}

// A shard is taken by the node that it was given to before that looks at the directory,
// whether it was passed to that or released for it.
func TestClusterShardArrives(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("released %v", old), func(t *testing.T) { shardArrives(t, old) })
	}
}

func shardArrives(t *testing.T, old bool) {
	c := newNodes(t, 2)
	c.dir.old.Store(old)
	m, other := c.list[0], c.list[1]
	began := make(chan nola.ShardID, clusterShards)
	blind := make(chan struct{})
	gate := func(ctx context.Context, what, node string, id nola.ShardID) {
		switch {
		case what == "release" && node == m.name:
			began <- id
		case what == "look" && node == other.name && len(began) > 0:
			select {
			case <-blind:
			case <-ctx.Done():
			}
		}
	}
	c.dir.gate.Store(&gate)
	had := len(other.part.Shards())
	c.drain(m.name, false)
	eventually(t, "what was released is taken without a look", func() bool { return len(other.part.Shards()) > had })
	close(blind)
	c.rests()
}

// A node that is not told of the shards that were passed to it, or does not understand,
// finds itself in their rows.
func TestClusterShardUntold(t *testing.T) {
	c := newNodes(t, 2)
	l := c.pays(8, 4)
	c.dir.lost.Store(true)
	c.drain("n0", false)
	c.serves("n1", clusterShards)
	c.drain("n0", true)
	c.rests()
	l.ends()
}

// A node that takes nothing up is passed no more than a few shards, and none of them is
// lost.
func TestClusterShardsWaitTheirTurn(t *testing.T) {
	c := newNodes(t, 2)
	m, other := c.list[0], c.list[1]
	had := len(m.part.Shards())
	if had <= 2*cluster.WaveMax {
		t.Fatalf("%s has %d shards", m.name, had)
	}
	open := make(chan struct{})
	gate := func(ctx context.Context, what, node string, _ nola.ShardID) {
		if node == other.name && (what == "take" || what == "claim") {
			select {
			case <-open:
			case <-ctx.Done():
			}
		}
	}
	c.dir.gate.Store(&gate)
	c.drain(m.name, false)
	eventually(t, "the first shards are passed on", func() bool { return len(m.part.Shards()) == had-cluster.WaveMax })
	c.looked(5)
	if left := len(m.part.Shards()); left < had-cluster.WaveMax {
		t.Errorf("%d shards of %d are left at a node whose neighbour takes none up", left, had)
	}
	close(open)
	c.serves(other.name, clusterShards)
	c.rests()
}

// A shard that is passed to a node when that has given all it had away, and only waits for
// its end, is served by another at once.
func TestClusterShardForALeavingNode(t *testing.T) {
	c := newNodes(t, 3)
	from, leaving, last := c.list[0], c.list[1], c.list[2]
	open := make(chan struct{})
	gate := func(ctx context.Context, what, node string, _ nola.ShardID) {
		if node == from.name && what == "release" {
			select {
			case <-open:
			case <-ctx.Done():
			}
		}
	}
	c.dir.gate.Store(&gate)
	had := len(from.part.Shards())
	c.drain(from.name, false)
	eventually(t, "the first shards are about to be passed on", func() bool { return len(from.part.Shards()) == had-cluster.WaveMax })
	if err := leaving.node.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(open)
	c.serves(last.name, clusterShards)
}

// serves waits until a node serves so many shards.
func (c *nodes) serves(name string, n int) {
	c.t.Helper()
	for _, m := range c.list {
		if m.name == name {
			eventually(c.t, fmt.Sprintf("%s serves %d shards", name, n), func() bool { return len(m.part.Shards()) == n })
		}
	}
}

// A drained node gives all it has to the others and takes part again when told so.
func TestClusterDrainNode(t *testing.T) {
	c := newNodes(t, 3)
	l := c.pays(16, 6)
	shards := func() (n int, state nolav1.NodeState) {
		t.Helper()
		list, err := c.list[2].Cluster.ListNodes(t.Context(), connect.NewRequest(&nolav1.ListNodesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list.Msg.GetNodes() {
			if n.GetName() == "n1" {
				return int(n.GetShards()), n.GetState()
			}
		}
		t.Fatalf("n1 is not among %v", list.Msg.GetNodes())
		return 0, 0
	}
	c.drain("n1", false)
	eventually(t, "n1 has given all away", func() bool {
		n, state := shards()
		return n == 0 && state == nolav1.NodeState_NODE_STATE_DRAINING
	})
	l.goesOn(50)
	c.drain("n1", true)
	eventually(t, "n1 has shards again", func() bool {
		n, state := shards()
		return n > 0 && state == nolav1.NodeState_NODE_STATE_READY
	})
	l.ends()
	c.handedOver()
	if _, err := c.list[0].Cluster.DrainNode(t.Context(), connect.NewRequest(&nolav1.DrainNodeRequest{Node: "n9"})); reasonOf(err) != nola.ReasonInvalidArgument {
		t.Errorf("drain of a node that is not there: %v", err)
	}
}

// A node that was drained is drained after a restart too, until that is undone, and
// so is one that was killed.
func TestClusterDrainOutlastsARestart(t *testing.T) {
	c := newNodes(t, 3)
	m := c.list[1]
	c.drain("n1", false)
	eventually(t, "n1 has given all away", func() bool { return len(m.part.Shards()) == 0 })
	c.rests()
	claims := func() []int {
		c.dir.mu.Lock()
		defer c.dir.mu.Unlock()
		return slices.Clone(c.dir.claims)
	}
	before := claims()
	for _, end := range []func(){m.restart, func() { m.kill(); m.start() }} {
		end()
		c.rests()
		for _, n := range m.part.Status().Nodes {
			if n.Name == "n1" && (n.Weight != 0 || n.Shards != 0) {
				t.Errorf("after a restart n1 has weight %d and %d shards", n.Weight, n.Shards)
			}
		}
	}
	if !slices.Equal(before, claims()) {
		t.Error("shards were moved by restarts of a drained node")
	}
	m.kill()
	eventually(t, "n1 is not seen any more", func() bool { return len(c.list[0].part.Status().Nodes) == 2 })
	c.drain("n1", true) // though it is not there
	m.start()
	eventually(t, "n1 has shards again", func() bool { return len(m.part.Shards()) > 0 })
	c.rests()
}

// Rules of placement are kept by all nodes; one that none satisfies is refused.
func TestClusterPlacementRules(t *testing.T) {
	c := newNodes(t, 3)
	l := c.pays(16, 3)
	set := func(typ string, rule map[string]string) error {
		_, err := c.list[0].Cluster.SetPlacementRule(t.Context(), connect.NewRequest(&nolav1.SetPlacementRuleRequest{
			Rule: &nolav1.PlacementRule{Namespace: "default", Type: typ, Require: rule},
		}))
		return err
	}
	if err := set("", map[string]string{"name": "n7"}); reasonOf(err) != nola.ReasonInvalidArgument || !strings.Contains(err.Error(), "no node that lives") {
		t.Errorf("a rule that nobody satisfies: %v", err)
	}
	if err := set("", map[string]string{"name": "n1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n1 has all shards", func() bool {
		for _, m := range []*member{c.list[0], c.list[2]} {
			if !m.part.Ready() {
				t.Fatalf("%s is not ready while shards move", m.name)
			}
		}
		return len(c.list[1].part.Shards()) == clusterShards
	})
	l.goesOn(50)
	eventually(t, "n1 tells of its load", func() bool {
		list, err := c.list[0].Cluster.ListNodes(t.Context(), connect.NewRequest(&nolav1.ListNodesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return list.Msg.GetNodes()[1].GetLoad() > 0
	})
	if err := set("bank", map[string]string{"name": "n2"}); reasonOf(err) != nola.ReasonInvalidArgument {
		t.Errorf("a rule against another one: %v", err)
	}
	list, err := c.list[2].Cluster.ListPlacementRules(t.Context(), connect.NewRequest(&nolav1.ListPlacementRulesRequest{}))
	if err != nil || len(list.Msg.GetRules()) != 1 {
		t.Errorf("rules %v, %v", list, err)
	}
	nodes, err := c.list[2].Cluster.ListNodes(t.Context(), connect.NewRequest(&nolav1.ListNodesRequest{}))
	if err != nil || nodes.Msg.GetNodes()[0].GetBarred() == "" || nodes.Msg.GetNodes()[1].GetBarred() != "" {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	if _, err := c.list[2].Cluster.DeletePlacementRule(t.Context(), connect.NewRequest(&nolav1.DeletePlacementRuleRequest{Namespace: "default"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have shards again", func() bool {
		return len(c.list[0].part.Shards()) > 0 && len(c.list[2].part.Shards()) > 0
	})
	l.ends()
}

// Shards whose node has far more to do than the others move there, and stay there.
func TestClusterMovesLoad(t *testing.T) {
	if os.Getenv("NOLA_SLOW") == "" {
		t.Skip("nodes take a minute to know their load: make crash waits for that")
	}
	c := newNodes(t, 3)
	// One dear actor on each of six shards of one node: three times its share.
	rows := c.list[0].part.Status().Shards
	var dear []nola.ActorRef
	busy, seen := rows[0].Node, map[nola.ShardID]bool{}
	for i := 0; len(dear) < 6; i++ {
		id := nola.ShardOf(accountRef(i), clusterShards)
		if rows[id].Node == busy && !seen[id] {
			seen[id] = true
			dear = append(dear, accountRef(i))
		}
		if i > 10_000 {
			t.Fatalf("%s has %d shards, six are needed", busy, len(seen))
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop()
	for i, ref := range dear {
		callers.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if _, err := c.list[i%3].Invoke(ctx, ref, "burn", []byte("10000000")); err != nil && ctx.Err() == nil {
					t.Errorf("burn at %s: %v", ref, err)
				}
			}
		})
	}
	away := func() (n int) {
		c.dir.mu.Lock()
		defer c.dir.mu.Unlock()
		for id := range seen {
			if c.dir.shards[id].Node != busy {
				n++
			}
		}
		return n
	}
	begun := time.Now()
	for tick := time.NewTicker(time.Second); away() < 3; <-tick.C {
		if time.Since(begun) > 4*cluster.LoadRest {
			t.Fatalf("%d of 6 dear shards were moved: %+v", away(), c.list[0].part.Status().Moves)
		}
	}
	c.rests()
	// Until they have rested and a little longer, none goes back.
	n := away()
	begun = time.Now()
	for tick := time.NewTicker(time.Second); time.Since(begun) < cluster.LoadRest+5*time.Second; <-tick.C {
		if now := away(); now < n || now > 4 {
			t.Fatalf("%d dear shards were moved, and then %d are elsewhere", n, now)
		}
	}
}

// Timers of a node that was killed fire at the nodes that take its shards, though
// nobody calls them.
func TestClusterTimersFireAfterAKill(t *testing.T) {
	c := newNodes(t, 3)
	const accounts = 12
	for i := range accounts {
		if _, err := c.list[0].Invoke(t.Context(), accountRef(i), "later", []byte("300")); err != nil {
			t.Fatal(err)
		}
	}
	c.list[1].kill()
	reader := persistence.Reader{Store: c.list[0].store} // looks without waking anybody
	eventually(t, "every timer has fired", func() bool {
		for i := range accounts {
			ref := accountRef(i)
			v, found, err := reader.State(nola.ShardOf(ref, clusterShards), ref, "balance")
			if err != nil {
				t.Fatal(err)
			}
			if !found || binary.BigEndian.Uint64(v) != 1 {
				return false
			}
		}
		return true
	})
}

// A node whose beats do not arrive answers nothing from memory, drops its shards,
// and comes back as another process.
func TestClusterLeaseLost(t *testing.T) {
	c := newNodes(t, 3)
	m := c.list[1]
	before := m.part.ID()
	m.beats.Store(true)
	eventually(t, "the lease is over", func() bool { return !m.part.Trusted() })
	if m.part.Ready() {
		t.Error("a node without a lease is ready")
	}
	eventually(t, "it serves no shard any more", func() bool { return len(m.part.Shards()) == 0 })
	eventually(t, "the others have its shards", func() bool {
		for _, row := range c.list[0].part.Status().Shards {
			if row.Node == before || row.Node == "" {
				return false
			}
		}
		return true
	})
	for i := range 8 {
		if _, err := m.Invoke(t.Context(), accountRef(i), "add", []byte("1")); err != nil {
			t.Errorf("a call by way of the node: %v", err)
		}
	}
	m.beats.Store(false)
	c.rests()
	if after := m.part.ID(); after == before {
		t.Errorf("it is still %s", after)
	}
}

// A node that takes longer to join than its lease lasts gives no sign of life under
// that name: others may have waited the lease out, and taken what it would claim.
func TestClusterSlowJoin(t *testing.T) {
	c := newNodes(t, 2)
	m := c.list[1]
	joining, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	gate := func(_ context.Context, what, node string, _ nola.ShardID) {
		if what == "join" && node == m.name {
			once.Do(func() { close(joining); <-goOn })
		}
	}
	c.dir.gate.Store(&gate)
	m.beats.Store(true)
	<-joining // anew, since its lease is over
	began := time.Now()
	c.dir.mu.Lock()
	slow := fmt.Sprintf("%s#%d", m.name, c.dir.joined)
	c.dir.mu.Unlock()
	m.beats.Store(false)
	eventually(t, "a lease has passed", func() bool { return time.Since(began) > clusterLease })
	close(goOn)
	c.rests()
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	if row, beat := c.dir.nodes[slow]; beat || m.part.ID() == slow {
		t.Errorf("it took longer than its lease to join as %s, and gave a sign of life: %+v", slow, row)
	}
}

// Nodes refuse who does not show the cluster's token, or means another cluster.
func TestClusterRefusesStrangers(t *testing.T) {
	c := newNodes(t, 1)
	for name, tt := range map[string]struct {
		token, cluster string
		want           int
	}{
		"no token":        {"", strings.Repeat("01", 1) + strings.Repeat("00", 15), http.StatusUnauthorized},
		"another token":   {"Bearer only for tests, 27 bytez", strings.Repeat("01", 1) + strings.Repeat("00", 15), http.StatusUnauthorized},
		"another cluster": {"Bearer " + clusterToken, "ff", http.StatusForbidden},
		"one of us":       {"Bearer " + clusterToken, strings.Repeat("01", 1) + strings.Repeat("00", 15), http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.list[0].peers+"/nola.peer.v1.PeerService/Wake", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Nola-Cluster", tt.cluster)
			if tt.token != "" {
				req.Header.Set("Authorization", tt.token)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("status %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
}
