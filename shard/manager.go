package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// Modules finds the code of actors.
type Modules interface {
	// Module answers the default version of a module, ready to run, and its
	// number. It is asked before every turn.
	Module(namespace, name string) (m nola.Module, version uint64, err error)
	// ModuleVersion answers a version that need not be the default one, ready to
	// run for a while: the caller does not close it.
	ModuleVersion(namespace, name string, version uint64) (nola.Module, error)
}

// Config says how a node runs its shards. Store and Modules are required; every
// other zero field takes its default.
type Config struct {
	Store   persistence.Store
	Modules Modules
	// Limits of each shard.
	Limits core.Limits
	// Tokens is how many turns run at once: default GOMAXPROCS. While more are
	// ready, they go round by namespace.
	Tokens int
	// ParkedMax is how many turns may wait in nested calls at once: default
	// 1,024.
	ParkedMax int
	// CallsMax is how many calls may be unanswered on the node: default 65,536.
	CallsMax int
	// CallBytesMax bounds their payloads: default 256 MiB.
	CallBytesMax int64
	// InstanceBytesMax is the memory of instances above which idle actors are
	// passivated: default 1 GiB.
	InstanceBytesMax int64
	// LogBytesMax bounds the logs of all actors: default 16 MiB.
	LogBytesMax int64
	// Now is the clock: default time.Now.
	Now func() time.Time
	// Virtual, if set, is the clock instead of Now: time stands still until
	// Manager.Advance moves it.
	Virtual *VirtualClock
	// Logger hears of changes of state: default slog.Default.
	Logger *slog.Logger
	Events Events
	// Strict has answers for which nothing was committed wait for a look into the
	// store that began after the turn (persistence.Fencer), so that no clock decides
	// whether they are of the present. It has no effect on a store that is no Fencer.
	Strict bool
	// Peers, if set, are the other nodes that serve shards of the store. Then this
	// one serves those only that it was given with OpenShard.
	Peers Peers
}

// Events are told what happens; nil ones are skipped. They are called by the
// goroutines that do the work, so they must be quick, and never with a lock
// held.
type Events struct {
	Turn func(kind nola.Kind, ref nola.ActorRef, took time.Duration, steps uint64, err error)
	// Rested: a long turn has rested for a moment, since others had begun.
	Rested func(ref nola.ActorRef)
	Commit func(batches, bytes int, took time.Duration)
	Fired  func(schedule nola.ScheduleRef, o nola.Occurrence, reply []byte)
	Fenced func(shard nola.ShardID, err error)
}

func (c Config) withDefaults() Config {
	setDefault(&c.Tokens, runtime.GOMAXPROCS(0))
	setDefault(&c.ParkedMax, 1024)
	setDefault(&c.CallsMax, 65_536)
	setDefault(&c.CallBytesMax, 256<<20)
	setDefault(&c.InstanceBytesMax, 1<<30)
	setDefault(&c.LogBytesMax, 16<<20)
	if c.Virtual != nil {
		c.Now = c.Virtual.Now
		setDefault(&c.Limits.DueWindow, virtualDueWindow)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Limits = c.Limits.WithDefaults()
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Manager runs the shards of a node. Its methods may be called at once.
type Manager struct {
	cfg    Config
	reader persistence.Reader
	info   persistence.ClusterInfo
	boxes  []*box
	tokens tokens
	begun  atomic.Uint64 // turns
	parked atomic.Int64
	commit committer
	pool   pool
	clock  clock
	logs   logs
	room   room
	starts startups
	usage  usage
	work   work
	// advancing is held by who moves virtual time.
	advancing chan struct{}

	calls     atomic.Int64 // unanswered
	callBytes atomic.Int64
	lastCall  atomic.Int64 // about when the newest came, in Unix nanoseconds
	draining  atomic.Bool
	idle      chan struct{} // poked when calls falls to zero while draining

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// box is a shard with its lock.
type box struct {
	id   nola.ShardID
	mu   sync.Mutex // guards core
	core *core.Shard
	wake atomic.Int64
	// ticking is set while a tick waits to be stepped.
	ticking atomic.Bool
	// epoch is that of the tenure, 0 while the shard is not served here.
	epoch atomic.Uint64
	// bytes is the memory of its instances.
	bytes atomic.Int64
	// turns, steps and written are what Manager.Shards tells of its work.
	turns, steps, written atomic.Uint64
	// ready is set while the shard is listed for a commit; the committer's mutex
	// guards it.
	ready bool
}

// Open acquires all shards of the store and starts to serve them; with Peers,
// none. The caller closes the manager before the store.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	cfg = cfg.withDefaults()
	m := &Manager{
		cfg:    cfg,
		reader: persistence.Reader{Store: cfg.Store},
		info:   cfg.Store.Cluster(),
		idle:   make(chan struct{}, 1),

		work:      work{virtual: cfg.Virtual != nil},
		advancing: make(chan struct{}, 1),
	}
	m.tokens.init(cfg.Tokens, tokenPatience, m.pool.start)
	m.logs.init(cfg.LogBytesMax)
	m.pool.init(m, max(8, 4*cfg.Tokens), cfg.Tokens)
	m.commit.init(&m.work)
	m.clock.init()
	m.room.init()
	m.usage.init(cfg.Now(), m.info.Shards, cfg.Tokens)
	ids := make([]nola.ShardID, m.info.Shards)
	m.boxes = make([]*box, m.info.Shards)
	for i := range ids {
		ids[i] = nola.ShardID(i)
		m.boxes[i] = &box{id: ids[i]}
	}
	if cfg.Peers == nil {
		if err := m.acquire(ctx, ids); err != nil {
			return nil, err
		}
	} else {
		for _, b := range m.boxes {
			b.core = core.Vacant(b.id, m.info.Shards, cfg.Limits)
		}
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.wg.Go(m.commitLoop)
	m.wg.Go(m.clockLoop)
	for _, b := range m.boxes {
		m.bring(b, &core.Resume{})
	}
	return m, nil
}

func (m *Manager) acquire(ctx context.Context, ids []nola.ShardID) error {
	heads, err := m.cfg.Store.Acquire(ctx, ids)
	if err != nil {
		return fmt.Errorf("shard: acquire %d shards: %w", len(ids), err)
	}
	for i, head := range heads {
		b := m.boxes[i]
		if b.core, err = m.open(head); err != nil {
			return err
		}
		b.epoch.Store(uint64(head.Epoch))
	}
	return nil
}

// open reads what a shard must know to start, several things at once: in a cluster
// each is an answer of a quorum, and callers wait.
func (m *Manager) open(head persistence.Head) (*core.Shard, error) {
	o := core.Opened{Head: head}
	var reads errgroup.Group
	read := func(what string, f func() error) {
		reads.Go(func() error {
			if err := f(); err != nil {
				return fmt.Errorf("shard %d: read %s: %w", head.Shard, what, err)
			}
			return nil
		})
	}
	read("inbox", func() (err error) {
		o.Inbox, err = m.reader.Inbox(head.Shard)
		return err
	})
	read("floors", func() (err error) {
		o.Floors, err = m.reader.Floors(head.Shard)
		return err
	})
	read("backlog", func() (err error) {
		o.Backlog, err = m.backlogs(head.Shard)
		return err
	})
	read("outbox", func() (err error) {
		o.Outbox, err = m.streams(head.Shard)
		return err
	})
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	return core.New(o, m.info.Shards, m.cfg.Limits), nil
}

// streamReads is how many streams of a shard are looked at at once.
const streamReads = 16

// streams answers where the streams of casts from a shard stand.
func (m *Manager) streams(id nola.ShardID) ([]persistence.OutboxBounds, error) {
	end := nola.ShardID(m.info.Shards)
	if some, err := m.reader.OutboxBounds(id, 0, end-1, 1); err != nil || len(some) == 0 {
		return nil, err
	}
	parts := make([][]persistence.OutboxBounds, streamReads)
	var reads errgroup.Group
	for i := range parts {
		from, to := nola.ShardID(i)*end/streamReads, nola.ShardID(i+1)*end/streamReads
		if from < to {
			reads.Go(func() (err error) {
				parts[i], err = m.reader.OutboxBounds(id, from, to-1, int(to-from))
				return err
			})
		}
	}
	err := reads.Wait()
	return slices.Concat(parts...), err
}

// backlogs answers the actors of a shard that have casts to do.
func (m *Manager) backlogs(id nola.ShardID) (all []nola.ActorRef, err error) {
	const page = 1000
	for after := (nola.ActorRef{}); ; {
		refs, err := m.reader.BacklogActors(id, after, page)
		if err != nil {
			return nil, err
		}
		all = append(all, refs...)
		if len(refs) < page {
			return all, nil
		}
		after = refs[len(refs)-1]
	}
}

// fenced looks after a shard that has lost its epoch: its memory is gone, its
// callers are answered; it is opened anew, unless another node may have it.
func (m *Manager) fenced(b *box, err error) {
	m.cfg.Logger.Error("shard fenced", "shard", b.id, "error", err)
	if m.cfg.Events.Fenced != nil {
		m.cfg.Events.Fenced(b.id, err)
	}
	if m.cfg.Peers != nil {
		b.epoch.Store(0)
		return
	}
	m.work.begin()
	m.wg.Go(func() {
		defer m.work.end()
		m.reopen(b)
	})
}

func (m *Manager) reopen(b *box) {
	const again = 100 * time.Millisecond
	for {
		heads, err := m.cfg.Store.Acquire(m.ctx, []nola.ShardID{b.id})
		if err == nil {
			var c *core.Shard
			if c, err = m.open(heads[0]); err == nil {
				m.install(b, c)
				return
			}
		}
		m.cfg.Logger.Error("shard cannot be opened", "shard", b.id, "error", err)
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// Drain stops the intake and waits until every admitted call is answered and
// what it did is durable, or ctx ends. Timers and schedules rest.
func (m *Manager) Drain(ctx context.Context) error {
	m.draining.Store(true)
	for m.calls.Load() > 0 {
		select {
		case <-m.idle:
		case <-ctx.Done():
			return fmt.Errorf("shard: %d calls are still unanswered: %w", m.calls.Load(), ctx.Err())
		}
	}
	return m.pool.drain(ctx)
}

// Close ends all goroutines and instances. Turns that still run are
// interrupted, and run again elsewhere if a cast, timer or firing brought them; a
// commit under way ends, and nothing is committed afterwards. Call Drain first to
// let turns end.
func (m *Manager) Close() error {
	m.draining.Store(true)
	m.commit.close() // first: that a turn was interrupted is no outcome of it
	m.stop()
	m.tokens.close()
	m.commit.wait()
	var out core.Output
	for _, b := range m.boxes {
		out.Reset()
		b.mu.Lock()
		b.core.Step(m.cfg.Now(), &core.Fenced{}, &out)
		b.mu.Unlock()
		m.answer(&out)
		m.closeAll(&out)
	}
	m.pool.close()
	m.wg.Wait()
	return nil
}

// Shards describes the node's shards.
func (m *Manager) Shards() []nola.ShardInfo {
	list := make([]nola.ShardInfo, 0, len(m.boxes))
	for _, b := range m.boxes {
		if b.epoch.Load() == 0 {
			continue
		}
		b.mu.Lock()
		info := b.core.Info()
		b.mu.Unlock()
		info.Turns, info.Steps, info.Bytes = b.turns.Load(), b.steps.Load(), b.written.Load()
		list = append(list, info)
	}
	return list
}

func (m *Manager) boxOf(ref nola.ActorRef) *box {
	return m.boxes[nola.ShardOf(ref, len(m.boxes))]
}

// newID makes an invocation id.
func (m *Manager) newID() nola.InvocationID {
	var tail [10]byte
	binary.LittleEndian.PutUint64(tail[:], rand.Uint64())
	binary.LittleEndian.PutUint16(tail[8:], uint16(rand.Uint32()))
	return nola.MakeInvocationID(m.cfg.Now(), tail)
}
