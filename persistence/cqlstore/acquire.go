package cqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// HeldError says that a shard has an owner that lives.
type HeldError struct {
	Shard   nola.ShardID
	Node    string // incarnation
	Address string
}

// Error says who holds the shard.
func (e *HeldError) Error() string {
	return fmt.Sprintf("cqlstore: shard %d is held by node %s at %q, which is alive", e.Shard, e.Node, e.Address)
}

// The bounds of taking shards over.
const (
	claimsMax    = 32 // at once
	claimTries   = 8  // of one shard, when others claim it too
	laneTries    = 3  // of creating a lane
	handoffGrace = 5 * time.Second
)

// Acquire implements [persistence.Store]. A shard is taken from nobody, from this
// store itself, or from a node whose lane has ended or whose lease is over, for
// which Acquire waits. It answers a *HeldError if that node shows that it lives.
func (s *Store) Acquire(ctx context.Context, shards []nola.ShardID) ([]persistence.Head, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	for _, shard := range shards {
		if int(shard) >= s.cluster.Shards {
			return nil, fmt.Errorf("cqlstore: acquire shard %d: the cluster has %d", shard, s.cluster.Shards)
		}
	}
	ctx, stop := s.within(ctx)
	defer stop()
	own, err := s.openLane(ctx)
	if err != nil {
		return nil, s.acquireError(err)
	}
	heads := make(map[nola.ShardID]*persistence.Head, len(shards))
	for _, shard := range shards {
		heads[shard] = nil
	}
	var mu sync.Mutex // guards heads and failed
	var failed error
	slots := make(chan struct{}, claimsMax)
	var wg sync.WaitGroup
	for _, shard := range shards {
		mu.Lock()
		_, open := heads[shard]
		if open = open && heads[shard] == nil && failed == nil; open {
			heads[shard] = new(persistence.Head)
		}
		mu.Unlock()
		if !open {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			head, err := s.claim(ctx, own, shard)
			mu.Lock()
			defer mu.Unlock()
			*heads[shard] = head
			if failed == nil {
				failed = err
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return nil, s.acquireError(failed)
	}
	list := make([]persistence.Head, len(shards))
	for i, shard := range shards {
		list[i] = *heads[shard]
	}
	s.tidy()
	return list, nil
}

func (s *Store) acquireError(err error) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	return err
}

// within ends with ctx, and when the store is closed.
func (s *Store) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	end := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { end(); cancel() }
}

// openLane answers the lane of this store, and opens one if there is none, or
// the last one was lost.
func (s *Store) openLane(ctx context.Context) (*ownLane, error) {
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	wake := context.AfterFunc(ctx, s.wake)
	defer wake()
	s.mu.Lock()
	own := s.own
	for own != nil && own.lost && !own.settled && ctx.Err() == nil {
		s.changed.Wait()
	}
	open := own != nil && !own.lost
	s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case open:
		return own, nil
	case own != nil && own.err != nil:
		return nil, own.err
	}
	for range laneTries {
		fresh, err := s.createLane(ctx)
		if err != nil {
			return nil, err
		}
		if fresh == nil {
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fresh.successor = own != nil
		s.own = fresh
		if !s.cfg.External {
			s.wg.Go(func() { s.keep(fresh) })
			for s.until.Load() == 0 && !fresh.lost && ctx.Err() == nil {
				s.changed.Wait() // what is read is trusted from the first beat on
			}
		}
		s.wg.Go(func() { s.mind(fresh) })
		s.cfg.Log.Info("lane opened", "lane", fmt.Sprintf("%x", fresh.id), "node", fresh.node, "mode", modeName(s.server.Mode), "ring", fresh.ring)
		return fresh, nil
	}
	return nil, fmt.Errorf("cqlstore: no lane could be created in %d tries: the cluster did not answer, try again", laneTries)
}

// createLane answers nil if the creation has no definite answer: then that id is
// given up.
func (s *Store) createLane(ctx context.Context) (*ownLane, error) {
	own := &ownLane{id: freshID(), ring: s.cfg.RingSize, appended: s.cfg.Now(), since: uptime()}
	own.node = s.nodeID(own.id)
	// So that whoever cleans up finds it, however this goes on.
	err := untilDone(ctx, func() error { return s.bulk.exec(ctx, stmtLaneEnter, gocql.UUID(own.id), own.node) })
	if err != nil {
		return nil, describe(stmtLaneEnter, err)
	}
	w, out := lane.NewWriter(own.id, lane.Head{Node: own.node, Address: s.cfg.Address, Mode: s.server.Mode, RingSize: own.ring})
	own.w = w
	if err := s.sender.drive(ctx, out, w.Step); err != nil {
		return nil, err
	}
	if w.State() != lane.StateOpen {
		return nil, nil
	}
	return own, nil
}

// claim takes one shard over.
func (s *Store) claim(ctx context.Context, own *ownLane, shard nola.ShardID) (persistence.Head, error) {
	var head persistence.Head
	since := s.cfg.Now()
	for try := 0; try < claimTries; try++ {
		row, found, err := s.shardRow(ctx, shard)
		switch {
		case err != nil:
			return head, err
		case !found:
			return head, fmt.Errorf("%w: shard %d has no row; run nolad schema setup again", ErrNoSchema, shard)
		case row.Lane == own.id:
			t, err := s.adopt(ctx, own, shard, row, nil)
			if err != nil {
				return head, err
			}
			if t != nil {
				return persistence.Head{Shard: shard, Epoch: t.epoch, Seq: t.start}, nil
			}
			if err := s.giveUp(ctx, own, shard, own.node); err != nil {
				return head, err
			}
			continue
		}
		c := lane.Claim{Shard: shard, Node: own.node, Lane: own.id, Row: row}
		if row.Lane.IsZero() {
			if c.Overdue = row.HandoffTo != "" && row.HandoffTo != own.node && s.cfg.Now().Sub(since) > handoffGrace; !c.Overdue && row.HandoffTo != "" && row.HandoffTo != own.node {
				try--
				if err := sleep(ctx, pauseMax); err != nil {
					return head, err
				}
				continue
			}
		} else {
			r, err := s.take(ctx, own, row.Lane, shard)
			if err != nil {
				return head, err
			}
			c.From, c.Effects = r.ended, r.byShard[shard]
		}
		t, err := s.claimFrom(ctx, own, c)
		if err != nil {
			return head, err
		}
		if t != nil {
			return persistence.Head{Shard: shard, Epoch: t.epoch, Seq: t.start}, nil
		}
	}
	return head, fmt.Errorf("cqlstore: shard %d was claimed by others %d times in a row", shard, claimTries)
}

func (s *Store) shardRow(ctx context.Context, shard nola.ShardID) (row lane.ShardRow, found bool, err error) {
	var at, floor int64
	var id gocql.UUID
	err = again(ctx, func() error {
		return s.sender.lane.query(ctx, stmtShardRead, int(shard)).Scan(&at, &id, &row.HandoffTo, &floor)
	})
	switch {
	case errors.Is(err, gocql.ErrNotFound):
		return row, false, nil
	case err != nil:
		return row, false, describe(stmtShardRead, err)
	}
	row.Epoch, row.Lane, row.Floor = epoch(&at), lane.ID(id), lane.Timestamp(floor)
	return row, true, nil
}

// claimFrom drives a claimer. It answers nil if somebody else has the shard.
func (s *Store) claimFrom(ctx context.Context, own *ownLane, claim lane.Claim) (*tenure, error) {
	shard := claim.Shard
	m := newMemory(shard, &s.cached)
	var number nola.Seq
	reads, rctx := errgroup.WithContext(ctx)
	reads.Go(func() error {
		if err := s.learn(rctx, m); err != nil {
			return describe(stmtBucketsRead, err)
		}
		return nil
	})
	if released := claim.From.Lane.IsZero(); released { // its tables rest until it is claimed
		reads.Go(func() (err error) {
			number, err = s.number(rctx, shard)
			return err
		})
	} else if err := reads.Wait(); err != nil {
		m.close()
		return nil, err
	}
	sender := s.sender
	sender.node = own.node
	sender.apply = func(ctx context.Context, effects []lane.Effects) error {
		m.add(effects, 1, s.cfg.Now())
		_, err := s.appliers.flush(ctx, m)
		return err
	}
	c, out := lane.NewClaimer(claim)
	err := sender.drive(ctx, out, c.Step)
	if failed := reads.Wait(); err == nil {
		err = failed
	}
	if err != nil {
		m.close()
		return nil, err
	}
	if c.Phase() != lane.ClaimOwned {
		m.close()
		return nil, nil
	}
	s.figures.claims.Add(1)
	last := cmp.Or(c.LastSeq(), number)
	if last == 0 {
		if last, err = s.number(ctx, shard); err != nil {
			m.close()
			return nil, err
		}
	}
	return s.install(own, shard, m, c.Row(), last)
}

// adopt takes up a shard that the own lane owns by its row and has not served under its
// epoch: its owner before has passed it on, or its claim was executed, and failed
// afterwards. told is what that owner has told, if it has. It answers nil if the lane has
// served it.
func (s *Store) adopt(ctx context.Context, own *ownLane, shard nola.ShardID, row lane.ShardRow, told *Passed) (*tenure, error) {
	s.mu.Lock()
	served := s.served(own, shard, row.Epoch)
	s.mu.Unlock()
	if served {
		return nil, nil
	}
	m := newMemory(shard, &s.cached)
	if told != nil && told.Buckets != nil {
		for _, b := range told.Buckets {
			m.know(persistence.Table(b[0]), b[1:])
		}
		return s.install(own, shard, m, row, told.Seq)
	}
	var last nola.Seq
	reads, rctx := errgroup.WithContext(ctx)
	reads.Go(func() error {
		if err := s.learn(rctx, m); err != nil {
			return describe(stmtBucketsRead, err)
		}
		return nil
	})
	reads.Go(func() (err error) {
		last, err = s.number(rctx, shard)
		return err
	})
	if err := reads.Wait(); err != nil {
		m.close()
		return nil, err
	}
	return s.install(own, shard, m, row, last)
}

// served reports whether a lane has served a shard under that epoch or a later one. It
// is called with s.mu held.
func (s *Store) served(own *ownLane, shard nola.ShardID, epoch nola.Epoch) bool {
	t := s.tenure(shard)
	return t != nil && t.own == own && t.epoch >= epoch
}

// install has the own lane commit to a shard whose row is its own.
func (s *Store) install(own *ownLane, shard nola.ShardID, m *memory, row lane.ShardRow, last nola.Seq) (*tenure, error) {
	m.start(last, row.Floor)
	t := &tenure{shard: shard, epoch: row.Epoch, start: last, last: last, own: own, m: m}
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.lost {
		m.close()
		return nil, fmt.Errorf("cqlstore: the lane %x was lost while shard %d was claimed: acquire it again", own.id, shard)
	}
	if s.served(own, shard, row.Epoch) { // what a tenure has in memory must never be taken from it
		m.close()
		return nil, fmt.Errorf("cqlstore: shard %d was taken up twice under epoch %d", shard, row.Epoch)
	}
	own.w.Raise(row.Floor)
	list := &s.tenures[shard].list
	if len(*list) == tenuresMax {
		*list = append((*list)[:0], (*list)[1:]...)
	}
	*list = append(*list, t)
	if old := s.shards[shard].Swap(m); old != nil {
		old.close()
	}
	return t, nil
}

// number answers the number of the last batch that the tables have of a shard.
func (s *Store) number(ctx context.Context, shard nola.ShardID) (nola.Seq, error) {
	var n int64
	err := again(ctx, func() error { return s.bulk.query(ctx, stmtNumberRead, int(shard)).Scan(&n) })
	if err != nil && !errors.Is(err, gocql.ErrNotFound) {
		return 0, describe(stmtNumberRead, err)
	}
	return nola.Seq(n), nil //nolint:gosec // never negative
}

// start makes a memory that of a shard that was just claimed: the tables have all
// that there is.
func (m *memory) start(number nola.Seq, floor lane.Timestamp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number, m.stale, m.first, m.next = number, false, 0, 0
	m.clock = max(m.clock, floor)
}

// recoveries are the lanes that were recovered, each once while it is remembered.
type recoveries struct {
	mu     sync.Mutex // guards the fields below
	byLane map[lane.ID]*recovery
	ended  []lane.ID // those that have a result, oldest first
}

// recoveriesMax is how many results are kept, each with all that its lane's ring had
// left to apply. Of a lane that is forgotten the end is read again.
const recoveriesMax = 16

// remember takes in that a lane was recovered.
func (r *recoveries) remember(id lane.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, id)
	for len(r.ended) > recoveriesMax {
		delete(r.byLane, r.ended[0])
		r.ended = r.ended[1:]
	}
}

type recovery struct {
	done    chan struct{}
	ended   lane.Ended
	byShard map[nola.ShardID][]lane.Effects
	err     error
}

// take recovers a lane of somebody else, once its node may be taken for dead.
func (s *Store) take(ctx context.Context, own *ownLane, id lane.ID, shard nola.ShardID) (*recovery, error) {
	return s.recoverOnce(ctx, id, func() error { return s.mayTake(ctx, own, id, shard) })
}

// recovered recovers a lane, living or not.
func (s *Store) recovered(ctx context.Context, id lane.ID) (lane.Ended, error) {
	r, err := s.recoverOnce(ctx, id, func() error { return nil })
	if err != nil {
		return lane.Ended{}, err
	}
	return r.ended, nil
}

func (s *Store) recoverOnce(ctx context.Context, id lane.ID, may func() error) (*recovery, error) {
	for {
		s.recover.mu.Lock()
		r := s.recover.byLane[id]
		mine := r == nil
		if mine {
			r = &recovery{done: make(chan struct{})}
			s.recover.byLane[id] = r
		}
		s.recover.mu.Unlock()
		if mine {
			if r.err = may(); r.err == nil {
				r.err = s.recoverLane(ctx, id, r)
			}
			if r.err != nil {
				s.recover.mu.Lock()
				delete(s.recover.byLane, id)
				s.recover.mu.Unlock()
			} else {
				s.recover.remember(id)
			}
			close(r.done)
			return r, r.err
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var held *HeldError
		if r.err == nil || errors.As(r.err, &held) || !errors.Is(r.err, context.Canceled) && !errors.Is(r.err, context.DeadlineExceeded) {
			return r, r.err
		}
	}
}

func (s *Store) recoverLane(ctx context.Context, id lane.ID, r *recovery) error {
	began := time.Now()
	machine, out := lane.NewRecoverer(id)
	if err := s.sender.drive(ctx, out, machine.Step); err != nil {
		return err
	}
	if machine.Phase() != lane.PhaseEnded {
		s.cfg.Log.Error("lane damaged", "lane", fmt.Sprintf("%x", id), "error", machine.Err())
		return machine.Err()
	}
	r.ended = machine.Result()
	if r.ended.Missing {
		s.cfg.Log.Warn("a lane had no head any more, and no entries", "lane", fmt.Sprintf("%x", id))
	}
	for _, e := range r.ended.Suffix {
		spill, is, err := e.Spill()
		if err != nil {
			return err
		}
		if !is {
			continue
		}
		if r.ended.Bodies == nil {
			r.ended.Bodies = map[lane.Seq][]byte{}
		}
		if r.ended.Bodies[e.Seq], err = s.readSpill(ctx, id, spill); err != nil {
			return describe(stmtChunksRead, err)
		}
	}
	var err error
	if r.byShard, err = r.ended.ByShard(); err != nil {
		return err
	}
	s.figures.recoveries.Add(1)
	s.cfg.Log.Info("lane recovered", "lane", fmt.Sprintf("%x", id), "final", int64(r.ended.Final), "to_apply", len(r.ended.Suffix), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// giveUp releases a shard of the own lane, to a node or, if that is empty, to any.
func (s *Store) giveUp(ctx context.Context, own *ownLane, shard nola.ShardID, to string) error {
	_, err := s.give(ctx, own, shard, s.sender, func(t *tenure) (*lane.Releaser, lane.Output) {
		return own.w.Release(shard, t.epoch, to)
	})
	return err
}

// give gives a shard of the own lane away, by what begin says once the shard rests.
func (s *Store) give(ctx context.Context, own *ownLane, shard nola.ShardID, by sender, begin func(*tenure) (*lane.Releaser, lane.Output)) (p Passed, err error) {
	wake := context.AfterFunc(ctx, s.wake)
	defer wake()
	s.mu.Lock()
	t := s.tenure(shard)
	if t == nil || t.own != own || t.released || own.lost {
		s.mu.Unlock()
		return p, fmt.Errorf("cqlstore: release shard %d: this store does not own it", shard)
	}
	s.mu.Unlock()
	was, err := s.halt(ctx, t)
	if err != nil {
		return p, err
	}
	s.mu.Lock()
	if own.lost || own.w.State() != lane.StateOpen {
		s.mu.Unlock()
		return p, fmt.Errorf("cqlstore: release shard %d: the lane %x was lost", shard, own.id)
	}
	r, out := begin(t)
	s.mu.Unlock()
	if err := by.drive(ctx, out, r.Step); err != nil {
		return p, fmt.Errorf("cqlstore: release shard %d: the outcome is unknown, it is not served any more: %w", shard, err)
	}
	buckets := t.m.known() // all that was ever entered and not removed; it rests
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Phase() == lane.ReleaseKept {
		t.stopped = was // a release that was sent before may still be executed
		return p, fmt.Errorf("cqlstore: release shard %d: the cluster refuses it", shard)
	}
	t.released = true
	s.figures.releases.Add(1)
	if s.tenure(shard) == t {
		if m := s.shards[shard].Swap(nil); m != nil {
			m.close()
		}
	}
	if row, passed := r.Passed(); passed {
		p = Passed{Shard: shard, Epoch: row.Epoch, Lane: row.Lane, Floor: row.Floor, Seq: t.last, Buckets: buckets}
	}
	return p, nil
}

// halt has nothing more committed of a shard, and all that was in the tables. It answers
// whether that was so before.
func (s *Store) halt(ctx context.Context, t *tenure) (was bool, err error) {
	// Most of the work before the shard stops.
	if err := s.applyShard(ctx, t); err != nil {
		return false, err
	}
	s.mu.Lock()
	was = t.stopped
	t.stopped = true
	for t.pending != 0 && !t.own.lost && ctx.Err() == nil {
		s.changed.Wait()
	}
	s.mu.Unlock()
	if err := ctx.Err(); err != nil { // a batch may be under way still
		return was, err
	}
	return was, s.applyShard(ctx, t)
}

// applyShard brings what is committed of a shard into the tables.
func (s *Store) applyShard(ctx context.Context, t *tenure) error {
	s.mu.Lock()
	last := t.entry
	s.mu.Unlock()
	for t.m.oldest() <= last {
		s.mu.Lock()
		lost := t.own.lost
		s.mu.Unlock()
		if lost {
			return fmt.Errorf("cqlstore: the lane %x was lost", t.own.id)
		}
		did, err := s.appliers.flush(ctx, t.m)
		if err == nil && !did { // that of somebody else is under way
			err = sleep(ctx, flushEvery/10)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// applyTo brings the effects of all entries up to n into the tables.
func (s *Store) applyTo(ctx context.Context, own *ownLane, n lane.Seq) error {
	for {
		s.mu.Lock()
		s.applied(own)
		done, lost := own.appliedTo >= n, own.lost
		s.mu.Unlock()
		switch {
		case done:
			return nil
		case lost:
			return fmt.Errorf("cqlstore: the lane %x was lost", own.id)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		some := false
		var wg sync.WaitGroup
		var mu sync.Mutex
		var failed error
		for _, m := range s.memories() {
			if m.oldest() > n {
				continue
			}
			wg.Go(func() {
				did, err := s.appliers.flush(ctx, m)
				mu.Lock()
				defer mu.Unlock()
				some, failed = some || did, errors.Join(failed, err)
			})
		}
		wg.Wait()
		if failed != nil {
			return failed
		}
		if !some { // flushes of others are under way
			if err := sleep(ctx, flushEvery/10); err != nil {
				return err
			}
		}
	}
}

// applied tells the writer what is in the tables. It is called with s.mu held.
func (s *Store) applied(own *ownLane) {
	if own != s.own || own.lost {
		return
	}
	n := own.w.Committed()
	for i := range s.shards {
		if m := s.shards[i].Load(); m != nil {
			n = min(n, m.oldest()-1)
		}
	}
	if n <= own.appliedTo {
		return
	}
	own.w.Applied(n)
	own.appliedTo = n
	for len(own.spills) > 0 && own.spills[0].n <= n {
		chunks := own.spills[0].spill.Chunks
		own.spills = own.spills[1:]
		s.wg.Go(func() {
			// What stays goes with the lane.
			_ = s.bulk.exec(s.ctx, stmtChunksDelete, int64(2), gocql.UUID(own.id), gocql.UUID(chunks))
		})
	}
	s.changed.Broadcast()
}
