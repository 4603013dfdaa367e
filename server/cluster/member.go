package cluster

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
	"github.com/nolaproject/nola/shard"
)

// The bounds of a lease, and the length of a token.
const (
	LeaseDefault  = 3 * time.Second
	LeaseMin      = 500 * time.Millisecond
	LeaseMax      = time.Minute
	TokenBytesMin = 16
	LabelsMax     = 32
)

// beatsPerLease is how many beats a lease has room for, and looks at the others'.
const beatsPerLease = 6

// calmLeases is how often the rows of shards are read while nothing happens, in
// leases.
const calmLeases = 10

const (
	// handOffTime is how long a shard that is given away may take to end what was
	// admitted; what has not ended by then is rolled back and tried again elsewhere.
	handOffTime = 200 * time.Millisecond
	stepTimeout = 10 * time.Second // of a claim or a release
	lookPause   = 20 * time.Millisecond
	joinRetry   = 500 * time.Millisecond
	leavePoll   = 20 * time.Millisecond
	// stepWait is how long requests wait for a shard that is on its way from this node,
	// or to it, and stepWaitersMax how many do; others are refused at once.
	stepWait       = 2 * time.Second
	stepWaitersMax = 4096
	wakeTimeout    = 500 * time.Millisecond // of telling a node that a shard was given to it
	takePause      = 50 * time.Millisecond  // between questions whether that node serves it
	leavesMax      = 32                     // releases at once of what no node takes
)

// Config says who a node is in its cluster. Directory, Store, Name, Peer and Token
// are required.
type Config struct {
	Directory Directory
	// Store is that of the node's shards.
	Store persistence.Store
	// Name is the node's own, the same after a restart: as nola.ValidateName has it.
	Name string
	// Address is where clients reach the node, Peer where other nodes do: HOST:PORT.
	Address string
	Peer    string
	Version string
	// Weight is the node's share of the shards: default WeightDefault, at most
	// WeightMax.
	Weight int
	Labels map[string]string
	// Token is what the nodes of a cluster show each other: at least TokenBytesMin.
	Token string
	// TLS, if set, is how other nodes are called: their listeners have TLS then.
	TLS *tls.Config
	// Lease is how long the others wait before they take the shards of a node that
	// does not beat: default LeaseDefault. It is the same on all nodes.
	Lease  time.Duration
	Now    func() time.Time // the wall clock: default time.Now
	Logger *slog.Logger     // hears of changes of state: default slog.Default
}

func (c *Config) check() error {
	if c.Weight == 0 {
		c.Weight = WeightDefault
	}
	if c.Lease == 0 {
		c.Lease = LeaseDefault
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	var faults []error
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Directory == nil || c.Store == nil, "cluster: Config needs Directory and Store")
	if err := nola.ValidateName("node name", c.Name); err != nil {
		faults = append(faults, err)
	}
	fault(c.Peer == "", "cluster: Config needs the address at which other nodes reach this one")
	fault(len(c.Token) < TokenBytesMin, "cluster: the token has %d bytes, at least %d are needed", len(c.Token), TokenBytesMin)
	fault(c.Weight < 1 || c.Weight > WeightMax, "cluster: weight %d: must lie between 1 and %d", c.Weight, WeightMax)
	fault(c.Lease < LeaseMin || c.Lease > LeaseMax, "cluster: lease %s: must lie between %s and %s", c.Lease, LeaseMin, LeaseMax)
	fault(len(c.Labels) > LabelsMax, "cluster: %d labels, at most %d are allowed", len(c.Labels), LabelsMax)
	return errors.Join(faults...)
}

// Member is a node among others. It is what a server asks in place of its own
// shards: it does what concerns a shard where that is served. Run has it take part;
// until then, and while its lease is over, it serves no shard. Its methods may be
// called at once.
type Member struct {
	cfg     Config
	cluster string // the cluster's ID
	started time.Time
	shards  *shard.Manager
	routes  []atomic.Pointer[route]
	until   atomic.Int64  // the lease is held before this reading of the clock; 0: never
	looking chan struct{} // holds one: look at the directory now
	moved   atomic.Bool   // the rows of shards have changed since they were read
	waiters atomic.Int64  // for steps to end

	ctx  context.Context // ends with Run
	stop context.CancelFunc

	mu        sync.Mutex // guards the fields below
	id        string
	ended     bool
	drained   bool // by an operator
	placement placement
	leaving   bool
	look      chan struct{} // closed by the next look that begins from now on
	peers     map[string]NodeRow
	links     map[string]*link
	steps     map[nola.ShardID]chan struct{} // those under way, closed when they end
	life      *life                          // nil: the node has not joined
	status    Status
	work      Work // as last measured
}

// Status is what a node sees of its cluster.
type Status struct {
	Nodes  []NodeStatus
	Shards []ShardRow
	// Desired is the ID of the node that each shard belongs to.
	Desired []string
	// Settled says that the nodes were the same for some time, once since this process
	// has joined.
	Settled bool
	// Moves are the shards that are not where they belong, and those that nodes would
	// begin to move now because of load, in the order of their numbers.
	Moves []Move
}

// NodeStatus is a node as another one sees it.
type NodeStatus struct {
	NodeRow
	Shards int // that it owns
	// Barred says which rule keeps it from serving shards, empty if none does.
	Barred string
}

// New makes a member. Its shards are opened with the member as their Peers, and
// given to Run.
func New(cfg Config) (*Member, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	info := cfg.Store.Cluster()
	m := &Member{
		cfg: cfg, cluster: hex.EncodeToString(info.ID[:]), started: cfg.Now(),
		routes: make([]atomic.Pointer[route], info.Shards), looking: make(chan struct{}, 1),
		look: make(chan struct{}), peers: map[string]NodeRow{}, links: map[string]*link{}, steps: map[nola.ShardID]chan struct{}{},
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m, nil
}

// Attach gives the member the node's own shards, once, before all else.
func (m *Member) Attach(shards *shard.Manager) { m.shards = shards }

// Trusted reports whether the node's lease is held.
func (m *Member) Trusted() bool { return int64(now()) < m.until.Load() }

// ID is the ID of this process among the nodes, empty before it has joined.
func (m *Member) ID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// Ready reports whether the node holds its lease and serves what belongs to it.
func (m *Member) Ready() bool {
	m.mu.Lock()
	s, id := m.status, m.id
	m.mu.Unlock()
	if !m.Trusted() || !s.Settled {
		return false
	}
	for i, desired := range s.Desired {
		// What others have yet to give away does not keep a node from its work.
		if desired == id && s.Shards[i].Node == id && m.shards.Serving(s.Shards[i].Shard) == 0 {
			return false
		}
	}
	return true
}

// Status answers what the node saw last.
func (m *Member) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// poke has the directory looked at now.
func (m *Member) poke() {
	select {
	case m.looking <- struct{}{}:
	default:
	}
}

// Look has the node look at the directory at once: something has happened.
func (m *Member) Look() { m.poke() }

// row is what the node says of itself.
func (m *Member) row() NodeRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := NodeRow{
		ID: m.id, Name: m.cfg.Name, Address: m.cfg.Address, Peer: m.cfg.Peer, Version: m.cfg.Version,
		Weight: m.cfg.Weight, Leaving: m.leaving, Labels: m.cfg.Labels, Started: m.started, Lease: m.cfg.Lease, Work: m.work, Rules: m.placement.version,
	}
	if m.drained {
		row.Weight = 0
	}
	return row
}

// change changes what the node says of itself with its next beat.
func (m *Member) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// Run takes part in the cluster until ctx ends: it beats, takes shards and gives
// them away. When the lease is over it drops all it serves and joins anew. It
// releases nothing at its end: see Leave.
func (m *Member) Run(ctx context.Context) {
	defer m.end()
	for ctx.Err() == nil {
		err := m.refreshPlacement(ctx) // it may be drained
		var id string
		since := now() // others may know of the node from here on
		if err == nil {
			id, err = m.cfg.Directory.Join(ctx)
		}
		if err != nil {
			m.cfg.Logger.Warn("the cluster cannot be joined; trying again", "error", err)
			select {
			case <-time.After(joinRetry):
			case <-ctx.Done():
			}
			continue
		}
		m.mu.Lock()
		m.id, m.work = id, Work{}
		m.mu.Unlock()
		m.cfg.Logger.Info("joining the cluster", "node", id)
		m.live(ctx, id, since)
		if ctx.Err() == nil {
			m.cfg.Logger.Error("the lease is over: the store did not take beats in time; shards are dropped, and the cluster is joined anew", "node", id, "lease", m.cfg.Lease)
		}
		m.until.Store(0)
		for i := range m.routes {
			if id := nola.ShardID(i); m.shards.Serving(id) != 0 {
				m.shards.DropShard(id)
			}
		}
	}
}

func (m *Member) end() {
	m.stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	for _, l := range m.links {
		l.close()
	}
	clear(m.links)
}

// live is one process's life among the nodes: until its lease is over or ctx ends.
func (m *Member) live(ctx context.Context, id string, since time.Duration) {
	ctx, stop := context.WithCancel(ctx)
	l := &life{ctx: ctx, id: id}
	m.change(func() { m.life = l })
	defer l.wg.Wait()
	defer m.change(func() { m.life = nil })
	defer stop()
	l.wg.Go(func() {
		defer stop()
		m.keepLease(ctx, id, since)
	})
	l.wg.Go(func() { m.runPlacement(ctx) })
	m.watch(l)
}

// life is what goes on while the node is a process among the others.
type life struct {
	ctx context.Context
	id  string
	wg  sync.WaitGroup // grows under Member.mu alone while it is Member.life
}

// keepLease beats until the lease is over, which counts from since, or ctx ends.
func (m *Member) keepLease(ctx context.Context, id string, since time.Duration) {
	every := m.cfg.Lease / beatsPerLease
	keeper := lane.NewKeeper(id, m.cfg.Lease, every, since)
	answers := make(chan lane.Answer, lane.BeatsMax)
	var wg sync.WaitGroup
	defer wg.Wait()
	send := func(out lane.Output) {
		for _, s := range out.Send {
			beat := s.(lane.Beat)
			row := m.row()
			row.Beat = beat.Number
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, m.cfg.Lease)
				defer cancel()
				a := lane.Answer{To: beat, Outcome: lane.Done}
				if err := m.cfg.Directory.Beat(ctx, row); err != nil {
					a.Outcome = lane.Unknown
				}
				answers <- a
			})
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case a := <-answers:
			keeper.Step(now(), a)
		}
		send(keeper.Tick(now()))
		switch keeper.Phase(now()) {
		case lane.LeaseLapsed:
			return
		case lane.LeaseHeld:
			m.until.Store(int64(keeper.Until()))
		}
		timer.Reset(max(0, keeper.Wake()-now()))
	}
}

// watch looks at the directory, and takes and gives shards.
func (m *Member) watch(l *life) {
	ctx, id := l.ctx, l.id
	w := &watcher{
		m: m, id: id, members: NewMembers(id, m.cfg.Lease), planner: NewPlanner(id), meter: newMeter(), ended: make(chan performed),
	}
	every := m.cfg.Lease / beatsPerLease
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Duration
	steps := 0
	run := func(list []Step) {
		for _, s := range list {
			steps++
			l.wg.Go(func() {
				end, free := m.begin(s.From.Shard)
				var c performed
				if free {
					c = m.carryOut(ctx, id, s, nil)
				}
				end()
				if c.rest != nil {
					c.rest(ctx)
				}
				c.step = s
				w.ended <- c
			})
		}
	}
	asked := true
	for {
		select {
		case <-ctx.Done():
			for ; steps > 0; steps-- {
				<-w.ended
			}
			return
		case c := <-w.ended:
			steps--
			w.planner.Ended(c.step, c.how)
			switch {
			case c.how == EndedBadly: // it is looked at in its time
			case c.row.Epoch != 0 && w.shards != nil && w.shards[c.row.Shard].Epoch <= c.row.Epoch:
				// What is next follows from this row. All are read in their time again.
				w.shards = slices.Clone(w.shards)
				w.shards[c.row.Shard] = c.row
				run(w.decide(now()))
			default:
				m.poke()
			}
			continue
		case <-timer.C:
			select {
			case <-m.looking:
				asked = true
			default:
			}
		case <-m.looking:
			asked = true
			if wait := last + lookPause - now(); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		list := w.look(ctx, asked)
		asked = false
		run(list)
		last = now()
		timer.Reset(every / 2)
	}
}

// watcher is the view of one process, used by one goroutine.
type watcher struct {
	m       *Member
	id      string
	members *Members
	planner *Planner
	meter   *meter
	ended   chan performed
	failing bool
	// nodes are the rows of the last read.
	nodes []NodeRow
	// shards are the rows of the last read of all, at that time; calm says that each was
	// where it belongs, and nothing was to be done.
	shards []ShardRow
	readAt time.Duration
	calm   bool
	// settled is set once it was known who lives.
	settled bool
}

// performed says how a step was carried out.
type performed struct {
	step Step
	how  Ending
	// row is that of the shard by what was done, if it has an epoch.
	row ShardRow
	// rest, if set, is what the step has left, for which requests need not wait.
	rest func(context.Context)
}

// look reads the directory, tells the routes, and answers what to do. The rows of
// shards, of which there are many, are read if somebody asked for it, or if they may
// have changed; otherwise now and then.
func (w *watcher) look(ctx context.Context, asked bool) []Step {
	m := w.m
	m.mu.Lock()
	looked := m.look
	m.look = make(chan struct{})
	m.mu.Unlock()
	defer close(looked)
	began := now()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Lease)
	defer cancel()
	nodes, err := m.cfg.Directory.Nodes(ctx)
	ended := now()
	asked = asked || !w.calm || ended-w.readAt >= calmLeases*m.cfg.Lease
	asked = m.moved.Swap(false) || asked
	if err == nil && !asked {
		w.members.Read(began, ended, nodes, w.shards)
		asked = !w.members.Settled()
	}
	if err == nil && asked {
		if w.shards, err = m.cfg.Directory.Shards(ctx); err == nil {
			ended = now()
			w.readAt = ended
			w.members.Read(began, ended, nodes, w.shards)
		}
	}
	if err != nil {
		w.calm = false
		if !w.failing && ctx.Err() == nil {
			m.cfg.Logger.Warn("the directory of the cluster cannot be read; trying again", "error", err)
		}
		w.failing = true
		return nil
	}
	w.failing, w.nodes = false, nodes
	w.measure(ended, w.members.Alive())
	for _, gone := range w.members.Gone(ended, w.shards) {
		_ = m.cfg.Directory.Forget(ctx, gone) // the next look tries again
	}
	return w.decide(ended)
}

// decide tells the routes, and answers what to do, by what is known of the directory.
func (w *watcher) decide(at time.Duration) []Step {
	m := w.m
	view := View{Alive: w.members.Alive(), Dead: w.members.Dead, Settled: w.members.Settled(), Shards: w.shards, Serving: m.shards.Serving}
	m.mu.Lock()
	view.Rules = m.placement.Rules
	for _, n := range view.Alive {
		view.Settled = view.Settled && n.Rules == m.placement.version // until all go by the same
	}
	m.mu.Unlock()
	w.settled = w.settled || view.Settled
	w.tell(view, w.nodes)
	w.calm = false
	if w.failing || !m.Trusted() {
		return nil
	}
	steps := w.planner.Plan(at, view)
	w.calm = view.Settled && len(steps) == 0 && w.planner.Rests(view)
	m.change(func() { m.work.Steady, m.work.Placed = w.planner.Steady(at), w.planner.Placed() })
	return steps
}

// measure sees what the node's shards cost. One that was taken is expected to cost what
// its owner before told of it.
func (w *watcher) measure(at time.Duration, alive []NodeRow) {
	w.meter.read(at, w.m.shards.Shards(), func(id nola.ShardID) uint64 {
		for _, n := range alive {
			for _, s := range n.Work.Heavy {
				if s.Shard == id && n.ID != w.id {
					return s.Cost
				}
			}
		}
		return 0
	})
	work := w.meter.work()
	w.m.change(func() { work.Steady, work.Placed = w.m.work.Steady, w.m.work.Placed; w.m.work = work })
}

// tell publishes a view.
func (w *watcher) tell(v View, rows []NodeRow) {
	m := w.m
	owned := map[string]int{}
	for _, s := range v.Shards {
		owned[s.Node]++
		m.route(s.Shard, route{s.Epoch, cmpOr(s.Node, s.HandoffTo)}, true)
	}
	status := Status{Shards: v.Shards, Desired: w.planner.Desired(v), Settled: w.settled, Moves: w.planner.Moves(v)}
	for _, n := range v.Alive {
		status.Nodes = append(status.Nodes, NodeStatus{n, owned[n.ID], requires(v.Rules, n.Labels)})
	}
	peers := map[string]NodeRow{}
	for _, row := range rows {
		if !v.Dead(row.ID) && row.ID != w.id {
			peers[row.ID] = row
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status, m.peers = status, peers
	for id, l := range m.links {
		if _, lives := peers[id]; !lives {
			l.close() // who waits for it need not wait longer
			delete(m.links, id)
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// begin notes that a step of a shard is under way, until end is called, unless another
// one is.
func (m *Member) begin(id nola.ShardID) (end func(), free bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.beginLocked(id)
}

func (m *Member) beginLocked(id nola.ShardID) (end func(), free bool) {
	if m.steps[id] != nil {
		return func() {}, false
	}
	done := make(chan struct{})
	m.steps[id] = done
	return func() {
		m.change(func() { delete(m.steps, id) })
		close(done)
	}, true
}

// await waits for the end of a step of the shard, and reports whether there was one,
// and it ended in time.
func (m *Member) await(ctx context.Context, id nola.ShardID) bool {
	m.mu.Lock()
	done := m.steps[id]
	m.mu.Unlock()
	if done == nil {
		return false
	}
	defer m.waiters.Add(-1)
	if m.waiters.Add(1) > stepWaitersMax {
		return false
	}
	timer := time.NewTimer(stepWait)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// arrive has the node take a shard that was released for it, or passed to it with this
// word, before it sees that in the directory. Whoever asks for the shard from now on waits
// for it.
func (m *Member) arrive(id nola.ShardID, epoch nola.Epoch, word []byte) {
	m.mu.Lock()
	l := m.life
	end, free := func() {}, false
	welcome := !m.leaving && requires(m.placement.Rules, m.cfg.Labels) == "" || word != nil // it is this node's already
	if l != nil && welcome && epoch != 0 && int(id) < len(m.routes) && len(m.steps) < ClaimsMax {
		if end, free = m.beginLocked(id); free {
			l.wg.Add(1)
		}
	}
	m.mu.Unlock()
	if !free {
		m.poke()
		return
	}
	go func() {
		defer l.wg.Done()
		var c performed
		if m.Trusted() {
			from := ShardRow{Shard: id, Epoch: epoch, HandoffTo: l.id}
			if word != nil {
				from.Node, from.HandoffTo = l.id, ""
			}
			c = m.carryOut(l.ctx, l.id, Step{Kind: StepClaim, From: from}, word)
		}
		end()
		if m.moved.Store(true); c.how != EndedWell {
			m.poke()
		}
	}()
}

// carryOut does one step, and says how that went. word is that of the owner before, if it
// has passed the shard to this node.
func (m *Member) carryOut(ctx context.Context, self string, s Step, word []byte) performed {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch s.Kind {
	case StepClaim:
		return m.claim(ctx, self, s.From, word)
	case StepRelease:
		return m.handOver(ctx, s.From, s.To)
	}
	id := s.From.Shard
	if mine := m.shards.Serving(id); mine != 0 && mine < s.From.Epoch { // it did not come back meanwhile
		m.shards.DropShard(id)
		m.cfg.Logger.Warn("shard lost to another node", "shard", id, "to", s.From.Node)
	}
	return performed{how: EndedWell}
}

// claim takes a shard.
func (m *Member) claim(ctx context.Context, self string, from ShardRow, word []byte) performed {
	id := from.Shard
	if m.shards.Serving(id) != 0 { // it came meanwhile
		return performed{how: EndedWell}
	}
	var head persistence.Head
	var err error
	if word != nil {
		head, err = m.cfg.Directory.TakeUp(ctx, self, id, word)
	} else {
		head, err = m.cfg.Directory.Claim(ctx, self, from)
	}
	if err == nil && m.leaves() {
		return m.decline(ctx, id, head.Epoch)
	}
	if err == nil {
		err = m.shards.OpenShard(head)
	}
	if err != nil {
		if !errors.Is(err, ErrMoved) && ctx.Err() == nil {
			m.cfg.Logger.Warn("a shard cannot be taken; trying again", "shard", id, "error", err)
		}
		return performed{how: EndedBadly}
	}
	m.route(id, route{head.Epoch, self}, true)
	m.cfg.Logger.Debug("shard taken", "shard", id, "epoch", head.Epoch, "from", from.Node)
	return performed{how: EndedWell, row: ShardRow{Shard: id, Epoch: head.Epoch, Node: self}}
}

// decline gives away, to anybody, a shard that was passed to this node before who had it
// could know that this node is about to end. Nothing of it was served here.
func (m *Member) decline(ctx context.Context, id nola.ShardID, epoch nola.Epoch) performed {
	if _, err := m.cfg.Directory.Release(ctx, id, epoch, ""); err != nil {
		if ctx.Err() == nil {
			m.cfg.Logger.Warn("a shard that was passed to this node while it ends cannot be released; trying again", "shard", id, "error", err)
		}
		return performed{how: EndedBadly}
	}
	return performed{how: EndedWell, row: ShardRow{Shard: id, Epoch: epoch}}
}

// leaves reports whether the node is about to end.
func (m *Member) leaves() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaving
}

// handOver gives a shard to another node.
func (m *Member) handOver(ctx context.Context, from ShardRow, to string) performed {
	id := from.Shard
	if err := m.cfg.Directory.Flush(ctx, id, from.Epoch); err != nil {
		if ctx.Err() == nil {
			m.cfg.Logger.Warn("a shard cannot be given away; trying again", "shard", id, "error", err)
		}
		return performed{how: EndedBadly}
	}
	handOff, cancel := context.WithTimeout(ctx, handOffTime)
	m.shards.CloseShard(handOff, id)
	cancel()
	passed, err := m.cfg.Directory.Release(ctx, id, from.Epoch, to)
	if err != nil {
		if ctx.Err() == nil {
			m.cfg.Logger.Warn("a shard cannot be released; trying again", "shard", id, "error", err)
		}
		return performed{how: EndedBadly}
	}
	c := performed{how: EndedGiven, row: ShardRow{Shard: id, Epoch: from.Epoch, HandoffTo: to}}
	if passed.Epoch != 0 {
		c = performed{how: EndedWell, row: ShardRow{Shard: id, Epoch: passed.Epoch, Node: to}}
	}
	m.route(id, route{c.row.Epoch, to}, true)
	m.cfg.Logger.Debug("shard given away", "shard", id, "to", to)
	if passed.Epoch != 0 {
		c.rest = func(ctx context.Context) { m.awaitServed(ctx, id, route{passed.Epoch, to}) }
	}
	if l, found := m.linkOf(to); found {
		wake, cancel := context.WithTimeout(ctx, wakeTimeout)
		defer cancel()
		if _, err := l.client.Wake(wake, request(&peerv1.WakeRequest{Shard: uint32(id), Epoch: uint64(c.row.Epoch), Word: passed.Word})); err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("the next owner of a shard was not told of it; it finds out a little later", "shard", id, "to", to, "error", err)
		}
	}
	return c
}

// awaitServed waits until the node that a shard was passed to serves it, has given it away
// again, is known to be dead, or has had OverdueAfter: to one that takes nothing up, no
// more is passed meanwhile.
func (m *Member) awaitServed(ctx context.Context, id nola.ShardID, by route) {
	ctx, cancel := context.WithTimeout(ctx, OverdueAfter)
	defer cancel()
	for {
		l, found := m.linkOf(by.node)
		if !found || *m.routes[id].Load() != by {
			return
		}
		if res, err := l.client.Wake(ctx, request(&peerv1.WakeRequest{Shard: uint32(id), Wait: true})); err == nil && res.Msg.GetServes() {
			return
		}
		select {
		case <-time.After(takePause):
		case <-ctx.Done():
			return
		}
	}
}

// Leave gives all shards away, because the node is about to end: to others while
// there are any, to nobody then, or when ctx ends. It serves and passes on requests
// meanwhile, and takes no shard any more.
func (m *Member) Leave(ctx context.Context) {
	m.change(func() { m.leaving = true })
	tick := time.NewTicker(leavePoll)
	defer tick.Stop()
	for len(m.shards.Shards()) > 0 && m.othersTake() {
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	m.stepsEnd(ctx) // none takes a shard from now on
	var wg sync.WaitGroup
	slots := make(chan struct{}, leavesMax)
	for _, s := range m.shards.Shards() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(m.ctx, stepTimeout)
			defer cancel()
			handOff, end := context.WithTimeout(ctx, handOffTime)
			m.shards.CloseShard(handOff, s.Shard)
			end()
			if _, err := m.cfg.Directory.Release(ctx, s.Shard, s.Epoch, ""); err != nil {
				m.cfg.Logger.Warn("a shard is not released; others take it when the lease is over", "shard", s.Shard, "error", err)
			}
		})
	}
	wg.Wait()
}

// stepsEnd waits for the steps that are under way, or until ctx ends.
func (m *Member) stepsEnd(ctx context.Context) {
	m.mu.Lock()
	var under []chan struct{}
	for _, done := range m.steps {
		under = append(under, done)
	}
	m.mu.Unlock()
	for _, done := range under {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// othersTake reports whether there is a node that takes shards.
func (m *Member) othersTake() bool {
	return slices.ContainsFunc(m.Status().Nodes, func(n NodeStatus) bool { return n.ID != m.ID() && !n.Leaving })
}

// nodeOperations are asked of a node, not of a shard.
var nodeOperations = map[string]func(context.Context, *Member) ([]byte, error){
	"Refresh": func(ctx context.Context, m *Member) ([]byte, error) {
		err := m.refreshPlacement(ctx)
		m.poke()
		return nil, err
	},
	"Lane": func(_ context.Context, m *Member) ([]byte, error) {
		var l ownLane
		if store, ok := m.cfg.Store.(persistence.Laner); ok {
			l.Lane, l.Unapplied, l.Found = store.Unapplied()
		}
		return json.Marshal(l)
	},
	"Shards": func(_ context.Context, m *Member) ([]byte, error) { return json.Marshal(m.shards.Shards()) },
}

// ownLane is what a node says of its lane.
type ownLane struct {
	Lane      [16]byte
	Unapplied uint64
	Found     bool
}

// Unapplied answers how many entries of each lane may not be in the tables, as far as
// the nodes that write them answer.
func (m *Member) Unapplied(ctx context.Context) map[[16]byte]uint64 {
	all := map[[16]byte]uint64{}
	for _, data := range m.askAll(ctx, "Lane") {
		var l ownLane
		if json.Unmarshal(data, &l) == nil && l.Found {
			all[l.Lane] = l.Unapplied
		}
	}
	return all
}

// askAll asks something of all nodes, and answers what those say that answer.
func (m *Member) askAll(ctx context.Context, operation string) (answers [][]byte) {
	var mu sync.Mutex // guards answers
	var wg sync.WaitGroup
	for _, n := range m.Status().Nodes {
		wg.Go(func() {
			data, err := m.askNode(ctx, n.ID, operation)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, data)
		})
	}
	wg.Wait()
	return answers
}

// askNode asks something of one node.
func (m *Member) askNode(ctx context.Context, id, operation string) ([]byte, error) {
	if id == m.ID() {
		return nodeOperations[operation](ctx, m)
	}
	l, found := m.linkOf(id)
	if !found {
		return nil, nola.Errorf(nola.ReasonUnavailable, "node %s is not alive", nameOf(id))
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	res, err := l.client.Ask(ctx, request(&peerv1.AskRequest{Operation: operation}))
	if err != nil {
		return nil, l.failed(err, false)
	}
	return res.Msg.GetResult(), errorOf(res.Msg.GetError())
}

// AllShards describes the shards that nodes serve, by number; those of nodes that
// do not answer are missing.
func (m *Member) AllShards(ctx context.Context) map[nola.ShardID]nola.ShardInfo {
	all := map[nola.ShardID]nola.ShardInfo{}
	for _, data := range m.askAll(ctx, "Shards") {
		var list []nola.ShardInfo
		if json.Unmarshal(data, &list) != nil {
			continue
		}
		for _, s := range list {
			all[s.Shard] = s
		}
	}
	return all
}
