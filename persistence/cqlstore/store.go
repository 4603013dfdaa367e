package cqlstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// Store is a persistence.Store on a Cassandra or Scylla cluster. Its goroutines
// end with Close.
type Store struct {
	cfg      Config
	lanes    *link
	bulk     *link
	sender   sender
	appliers appliers
	cluster  persistence.ClusterInfo
	server   Server

	ctx    context.Context //nolint:containedctx // ends with Close, and with it all that the store has under way
	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed atomic.Bool
	until  atomic.Int64 // the lease is held before this reading of uptime; 0: it is not
	ends   sync.Once

	shards  []atomic.Pointer[memory] // of acquired shards
	cached  atomic.Int64             // bytes of all memories
	kick    chan struct{}            // the flusher has work
	recover recoveries
	opening chan struct{} // held by who opens a lane
	watcher watcher
	figures figures
	stuck   atomic.Bool // nothing is committed: something waits for the tables for too long

	mu      sync.Mutex // guards the fields below
	changed *sync.Cond // something was committed, applied, or lost
	own     *ownLane   // the newest; nil before the first Acquire
	tenures []tenures  // by shard
}

// figures count what a store does.
type figures struct {
	entries, batches, bytes, spilled    atomic.Int64
	flushes, flushedRows, applyRequests atomic.Int64
	closingEntries                      atomic.Int64
	memoryReads, tableReads             atomic.Int64
	recoveries, claims, releases        atomic.Int64
	unapplied                           atomic.Int64 // seconds that the oldest effect waits for the tables
}

// ownLane is a lane that this store writes, or wrote.
type ownLane struct {
	id   lane.ID
	node string // incarnation that holds its lease
	// since is from before anything was written by which others know of the lane.
	since time.Duration
	w     *lane.Writer
	ring  int
	// sent are the entries that are not committed, in order.
	sent []*sentEntry
	// lost is set when the writer is not open any more; then settled when what was
	// sent is decided, or err if it cannot be.
	lost, settled bool
	// successor is set if the store had another lane before: then it knows no more
	// that nobody else has its name.
	successor bool
	err       error
	again     int // of statements that are sent again, for their pause
	appliedTo lane.Seq
	appended  time.Time // the last entry
	spills    []spilled // of committed entries, to be deleted once they are applied
}

type spilled struct {
	n     lane.Seq
	spill lane.Spill
}

// sentEntry is an entry whose fate is open.
type sentEntry struct {
	n       lane.Seq
	effects []lane.Effects
	spill   *lane.Spill
	shards  []*tenure
}

// tenures are those of one shard, the present one last.
type tenures struct {
	list []*tenure
}

// tenure is one epoch of a shard in this store: batches above start, up to last,
// are committed.
type tenure struct {
	shard       nola.ShardID
	epoch       nola.Epoch
	start, last nola.Seq
	own         *ownLane
	m           *memory
	pending     nola.Seq // the number of a batch under way, 0: none
	entry       lane.Seq // the last entry that has something of it
	stopped     bool     // nothing more may be committed
	released    bool     // or may have been: it is not ours any more
}

// tenuresMax is how many epochs of a shard Resolve can tell about.
const tenuresMax = 16

// Open opens the store of a cluster that SetupSchema has made. It acquires no
// shard, and opens no lane before the first Acquire. It answers ErrAway,
// ErrCredentials, ErrNoSchema, ErrSchema or ErrTablets, with what to do.
func Open(ctx context.Context, c Config) (*Store, error) {
	l, c, err := connect(c)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: c, lanes: l, kick: make(chan struct{}, 1)}
	if err := s.open(ctx); err != nil {
		l.session().Close()
		if s.bulk != nil {
			s.bulk.session().Close()
		}
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	status, err := s.cfg.status(ctx, s.lanes)
	if err == nil {
		err = status.Usable()
	}
	if err != nil {
		return s.cfg.explainAccess(err)
	}
	if s.cfg.Shards != 0 && s.cfg.Shards != status.Shards {
		return fmt.Errorf("cqlstore: the cluster was made with %d shards, %d are asked for: the number never changes, ask for %d or for none", status.Shards, s.cfg.Shards, status.Shards)
	}
	s.server = status.Server
	var id gocql.UUID
	var secret []byte
	if err := s.lanes.query(ctx, stmtClusterRead).Scan(&id, &s.cluster.Shards, &secret); err != nil {
		return s.cfg.explainAccess(describe(stmtClusterRead, err))
	}
	if len(secret) != len(s.cluster.Secret) || s.cluster.Shards < 1 || s.cluster.Shards > persistence.ShardsMax {
		return fmt.Errorf("cqlstore: the cluster's facts in keyspace %s are damaged: %d shards, a secret of %d bytes", s.cfg.Keyspace, s.cluster.Shards, len(secret))
	}
	s.cluster.ID, s.cluster.Secret = id, [32]byte(secret)
	bulk, err := s.cfg.dial() // a policy of its own
	if err != nil {
		return err
	}
	s.bulk = newLink(bulk, s.cfg.Keyspace, s.cfg.slow)
	s.appliers = appliers{link: s.bulk, slots: make(chan struct{}, appliersMax), figures: &s.figures}
	s.shards = make([]atomic.Pointer[memory], s.cluster.Shards)
	s.tenures = make([]tenures, s.cluster.Shards)
	s.changed = sync.NewCond(&s.mu)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.sender = sender{lane: s.lanes, bulk: s.bulk, addr: s.cfg.Address}
	s.recover.byLane = map[lane.ID]*recovery{}
	s.opening = make(chan struct{}, 1)
	s.watcher.Watcher = lane.NewWatcher(s.cfg.Lease)
	log := s.cfg.Log.With("keyspace", s.cfg.Keyspace, "server", s.server.Flavour+" "+s.server.Version, "replicas", s.server.Replicas)
	log.Info("store opened", "shards", s.cluster.Shards, "mode", modeName(s.server.Mode), "why", s.server.Why)
	if s.server.Warning != "" {
		log.Warn("acknowledged work may be lost", "why", s.server.Warning)
	}
	if ahead := s.server.ClockAhead; ahead.Abs() > clockAheadMax {
		log.Warn("this machine's clock and the server's differ; nothing is lost by it, but due times follow this machine's", "ahead", ahead.Round(time.Second))
	}
	s.wg.Go(s.flushLoop)
	s.wg.Go(s.tidyLoop)
	for _, l := range []*link{s.lanes, s.bulk} {
		s.wg.Go(func() { l.watch(s.ctx, s.cfg.dial) })
	}
	return nil
}

const clockAheadMax = time.Minute

// explainAccess says what to do about a role that lacks rights.
func (c Config) explainAccess(err error) error {
	var e gocql.RequestError
	if errors.As(err, &e) && e.Code() == gocql.ErrCodeUnauthorized {
		return fmt.Errorf("%w: role %q lacks a right on keyspace %s; docs/operations.md has the statements that grant what a server needs: %w", ErrCredentials, c.Username, c.Keyspace, err)
	}
	return err
}

// Cluster implements [persistence.Store].
func (s *Store) Cluster() persistence.ClusterInfo { return s.cluster }

// Server answers what the servers said of themselves when the store was opened.
func (s *Store) Server() Server { return s.server }

func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	return ctx.Err()
}

func (s *Store) memory(shard nola.ShardID) *memory {
	if int(shard) >= len(s.shards) {
		return nil
	}
	return s.shards[shard].Load()
}

func (s *Store) memories() (list []*memory) {
	for i := range s.shards {
		if m := s.shards[i].Load(); m != nil {
			list = append(list, m)
		}
	}
	return list
}

// evict keeps the memory of a shard within its part of the cache.
func (s *Store) evict(m *memory) {
	if s.cached.Load() <= s.cfg.CacheBytes {
		return
	}
	owned := 0
	for i := range s.shards {
		if s.shards[i].Load() != nil {
			owned++
		}
	}
	m.evict(s.cfg.CacheBytes / int64(max(1, owned)))
}

// wall is the clock for timestamps.
func (s *Store) wall() lane.Timestamp { return lane.Timestamp(s.cfg.Now().UnixMicro()) }

// freshID makes an id that nobody has used.
func freshID() (id lane.ID) {
	_, _ = rand.Read(id[:])   // never fails (crypto/rand)
	id[6] = id[6]&0x0f | 0x40 // so that it prints as the UUID that it is
	id[8] = id[8]&0x3f | 0x80 // RFC 4122
	return id
}

// nodeID names an incarnation of this node.
func (s *Store) nodeID(id lane.ID) string { return s.cfg.Name + "#" + hex.EncodeToString(id[:6]) }

// nameOf is the name in a node's id.
func nameOf(node string) string {
	for i := len(node) - 1; i >= 0; i-- {
		if node[i] == '#' {
			return node[:i]
		}
	}
	return node
}

// send has the writer's statements sent; their answers are stepped in as they
// come. It is called with s.mu held.
func (s *Store) send(own *ownLane, out lane.Output) {
	for _, to := range out.Send {
		s.wg.Go(func() { s.answer(own, s.sender.send(s.ctx, to)) })
	}
	for _, to := range out.Again {
		pause := min(pauseMin<<min(own.again, 5), pauseMax)
		own.again++
		s.wg.Go(func() {
			if sleep(s.ctx, jitter(pause)) == nil {
				s.answer(own, s.sender.send(s.ctx, to))
			}
		})
	}
	if len(out.Again) == 0 && len(out.Send) > 0 {
		own.again = 0
	}
}

// answer steps the writer, and takes in what that has decided.
func (s *Store) answer(own *ownLane, a lane.Answer) {
	if s.ctx.Err() != nil && a.Outcome != lane.Done {
		return // the store is being closed; the statement was cut short
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(own, own.w.Step(a))
	s.progress(own)
}

// progress takes in what is committed, and sees to a lane that was lost. It is
// called with s.mu held.
func (s *Store) progress(own *ownLane) {
	done := own.w.Committed()
	closing := false
	for len(own.sent) > 0 && own.sent[0].n <= done {
		closing = closing || len(own.sent[0].shards) == 0
		s.committed(own, own.sent[0])
		own.sent = own.sent[1:]
	}
	if closing { // it has nothing to apply itself; not before, as what is committed must be in memory
		s.applied(own)
	}
	if own.w.State() > lane.StateOpen && own.w.State() != lane.StateAbandoned && !own.lost {
		own.lost = true
		s.until.Store(0)
		s.cfg.Log.Error("lane lost", "lane", fmt.Sprintf("%x", own.id), "state", own.w.State().String())
		s.wg.Go(func() { s.settle(own) })
	}
	s.changed.Broadcast()
}

// committed makes the effects of an entry visible. It is called with s.mu held.
func (s *Store) committed(own *ownLane, e *sentEntry) {
	now := s.cfg.Now()
	for i, t := range e.shards {
		t.last, t.pending, t.entry = e.effects[i].Batch.Seq, 0, e.n
		t.m.add(e.effects[i:i+1], e.n, now)
	}
	if e.spill != nil {
		own.spills = append(own.spills, spilled{e.n, *e.spill})
	}
}

// settle decides what was open when a lane was lost, by recovering it.
func (s *Store) settle(own *ownLane) {
	ended, err := s.recovered(s.ctx, own.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	own.settled = true
	if err != nil {
		own.err = fmt.Errorf("cqlstore: the lane %x was lost, and its end is not known: %w", own.id, err)
		return
	}
	if ended.Missing && len(own.sent) > 0 {
		own.err = fmt.Errorf("cqlstore: the head of lane %x is gone, and with it what became of %d entries: it was deleted after %d days, or the store has lost it; stop the node", own.id, len(own.sent), HeadDays)
		s.cfg.Log.Error("lane gone", "error", own.err)
		return
	}
	if !own.w.Settle(ended.Final) {
		own.err = fmt.Errorf("cqlstore: lane %x ends at entry %d, and entry %d was reported committed: the store has lost what it acknowledged; stop the node and keep the lane's rows", own.id, ended.Final, own.w.Committed())
		s.cfg.Log.Error("lane damaged", "error", own.err)
		return
	}
	for _, e := range own.sent {
		if e.n <= ended.Final {
			s.committed(own, e)
			continue
		}
		for _, t := range e.shards {
			t.pending = 0
		}
	}
	own.sent = nil
	for i := range s.tenures {
		// Reads go on from what the shard was at the end: the tables do not have all
		// of it before somebody claims it.
		if t := s.tenure(nola.ShardID(i)); t != nil && t.own == own {
			t.stopped = true
			t.m.freeze()
		}
	}
	s.cfg.Log.Info("lane settled", "lane", fmt.Sprintf("%x", own.id), "final", int64(ended.Final))
}

// tenure answers the newest tenure of a shard, or nil. It is called with s.mu held.
func (s *Store) tenure(shard nola.ShardID) *tenure {
	list := s.tenures[shard].list
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// Close ends the store: it writes what is not in the tables yet, and ends its
// lane, so that others need not wait for the lease. If the cluster does not answer
// in time, the next owner does both.
func (s *Store) Close() error {
	s.ends.Do(func() {
		s.closed.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		s.hangUp(ctx)
		s.stop()
		s.mu.Lock()
		s.changed.Broadcast()
		s.mu.Unlock()
		s.wg.Wait()
		s.lanes.session().Close()
		s.bulk.session().Close()
	})
	return nil
}

const closeTimeout = 10 * time.Second
