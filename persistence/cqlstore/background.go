package cqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

const (
	// flushersMax is how many shards are flushed at once.
	flushersMax = 8
	// waitingMax is what a shard may have in memory that is not in the tables.
	waitingMax = 4 << 20
)

// hurry wakes the flusher.
func (s *Store) hurry() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// flushLoop writes what was committed into the tables: late, so that of many
// writes to one row the last alone is made, but before the ring is full. It ends
// with the store.
func (s *Store) flushLoop() {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	slots := make(chan struct{}, flushersMax)
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
		s.mu.Lock()
		own := s.own
		if own == nil || own.lost {
			s.mu.Unlock()
			continue
		}
		sent, done := own.w.Sent(), own.appliedTo
		s.applied(own)
		s.closing(own)
		s.mu.Unlock()
		// From a quarter of the ring on, what holds the oldest entries goes first.
		urgent := lane.Seq(0)
		if quarter := lane.Seq(own.ring / 4); sent-done > quarter {
			urgent = sent - quarter
		}
		now := s.cfg.Now()
		for _, m := range s.memories() {
			if !m.due(now, s.cfg.ApplyAge, urgent) {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-s.ctx.Done():
				return
			}
			s.wg.Go(func() {
				defer func() { <-slots }()
				s.flush(own, m)
			})
		}
	}
}

// due reports whether it is time to flush m.
func (m *memory) due(now time.Time, age time.Duration, urgent lane.Seq) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flushing || m.frozen {
		return false
	}
	return m.first != 0 && (now.Sub(m.since) >= age || now.Before(m.since) || m.first <= urgent || m.waiting > waitingMax) || m.first == 0 && len(m.entries) > 0
}

func (s *Store) flush(own *ownLane, m *memory) {
	did, err := s.appliers.flush(s.ctx, m)
	if err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Error("effects cannot be applied; the shard stops when the ring is full", "shard", m.shard, "error", err)
		_ = sleep(s.ctx, pauseMax)
	}
	if did {
		s.figures.flushes.Add(1)
		s.evict(m)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.applied(own)
	}
}

// closing appends an entry without batches when all is applied, no entry says so,
// and nothing else comes. It is called with s.mu held.
func (s *Store) closing(own *ownLane) {
	if !own.w.Lags() || !own.w.Room() || s.cfg.Now().Sub(own.appended) < s.cfg.ApplyAge || s.closed.Load() {
		return
	}
	s.closeEntry(own)
}

func (s *Store) closeEntry(own *ownLane) {
	n, out, err := own.w.Append(s.wall(), nil)
	if err != nil {
		return
	}
	own.appended = s.cfg.Now()
	own.sent = append(own.sent, &sentEntry{n: n})
	s.figures.closingEntries.Add(1)
	s.send(own, out)
}

// hangUp brings everything into the tables and ends the lane, as far as ctx lets
// it. Nothing is committed any more.
func (s *Store) hangUp(ctx context.Context) {
	s.mu.Lock()
	own := s.own
	if own == nil || own.lost {
		s.mu.Unlock()
		return
	}
	wake := context.AfterFunc(ctx, s.wake)
	defer wake()
	for len(own.sent) > 0 && !own.lost && ctx.Err() == nil {
		s.changed.Wait()
	}
	last := own.w.Committed()
	s.mu.Unlock()
	if err := s.applyTo(ctx, own, last); err != nil {
		s.cfg.Log.Warn("what was committed is not all in the tables; the next owner brings it there", "error", err)
	}
	s.mu.Lock()
	if !own.lost && own.w.Lags() && own.w.Room() {
		s.closeEntry(own)
		for len(own.sent) > 0 && !own.lost && ctx.Err() == nil {
			s.changed.Wait()
		}
	}
	lost := own.lost
	own.lost = true // so that nobody settles it
	s.mu.Unlock()
	if lost {
		return
	}
	if _, err := s.recovered(ctx, own.id); err != nil {
		s.cfg.Log.Warn("the lane could not be ended; others wait for the lease to end", "lane", fmt.Sprintf("%x", own.id), "error", err)
	}
	_ = s.bulk.exec(ctx, stmtNodeLeave, nodeGone, own.node) // it ends by itself
}

// watcher tells which nodes are dead, by the rows that this store reads.
type watcher struct {
	mu sync.Mutex // guards the field below
	*lane.Watcher
}

// mayTake waits until the writer of a lane may be taken for dead. A node of this
// one's name is: this process was started in its place.
func (s *Store) mayTake(ctx context.Context, own *ownLane, id lane.ID, shard nola.ShardID) error {
	var head lane.Head
	var found bool
	err := again(ctx, func() (err error) {
		head, found, err = s.bulk.head(ctx, id)
		return err
	})
	switch {
	case err != nil:
		return describe(stmtHeadRead, err)
	case !found || head.Sealed:
		return nil
	case nameOf(head.Node) == s.cfg.Name && !own.successor:
		return nil
	}
	s.cfg.Log.Info("waiting for the lease of a node", "node", head.Node, "address", head.Address)
	s.watcher.mu.Lock()
	s.watcher.Expect(head.Node, uptime())
	s.watcher.mu.Unlock()
	first := uint64(0)
	for {
		began := uptime()
		rows, err := s.Nodes(ctx)
		if err != nil {
			return err
		}
		ended := uptime()
		seen := uint64(0)
		sightings := make([]lane.Sighting, len(rows))
		for i, row := range rows {
			sightings[i] = lane.Sighting{Node: row.ID, Number: row.Beat}
			if row.ID == head.Node {
				seen = row.Beat
			}
		}
		s.watcher.mu.Lock()
		s.watcher.Read(began, ended, sightings)
		dead := s.watcher.Dead(head.Node)
		s.watcher.mu.Unlock()
		switch {
		case dead:
			return nil
		case first != 0 && seen > first:
			return &HeldError{Shard: shard, Node: head.Node, Address: head.Address}
		case first == 0:
			first = seen
		}
		if err := sleep(ctx, s.cfg.Lease/10); err != nil {
			return err
		}
	}
}

// keep holds the lease of a lane's node while the lane is open.
func (s *Store) keep(own *ownLane) {
	every := s.cfg.Lease / beatsPerLease
	keeper := lane.NewKeeper(own.node, s.cfg.Lease, every)
	answers := make(chan lane.Answer, lane.BeatsMax)
	started := s.cfg.Now()
	for {
		out := keeper.Tick(uptime())
		for _, to := range out.Send {
			beat := to.(lane.Beat)
			s.wg.Go(func() {
				ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Lease)
				defer cancel()
				err := s.Beat(ctx, s.nodeRow(beat, started))
				answers <- lane.Answer{To: to, Outcome: outcome(err)}
			})
		}
		wait := time.NewTimer(max(keeper.Wake()-uptime(), time.Millisecond))
		select {
		case a := <-answers:
			keeper.Step(uptime(), a)
		case <-wait.C:
		case <-s.ctx.Done():
			wait.Stop()
			return
		}
		wait.Stop()
		s.mu.Lock()
		lost := own.lost
		if !lost && keeper.Phase(uptime()) == lane.LeaseLapsed && !s.closed.Load() {
			s.cfg.Log.Error("lease over: no sign of life reached the cluster in time; the shards are opened anew", "node", own.node)
			s.lose(own)
			lost = true
		}
		s.mu.Unlock()
		if lost {
			return
		}
	}
}

const beatsPerLease = 10

// lose gives the own lane up. It is called with s.mu held.
func (s *Store) lose(own *ownLane) {
	own.lost = true
	s.changed.Broadcast()
	s.wg.Go(func() { s.settle(own) })
}

func (s *Store) nodeRow(beat lane.Beat, started time.Time) Node {
	owned := 0
	for i := range s.shards {
		if s.shards[i].Load() != nil {
			owned++
		}
	}
	return Node{ID: beat.Node, Name: s.cfg.Name, Address: s.cfg.Address, State: NodeReady, Beat: beat.Number, Lease: s.cfg.Lease, Shards: owned, Started: started}
}

// tidy trims the lanes that nothing waits for any more, in the background.
func (s *Store) tidy() {
	s.wg.Go(func() {
		if err := s.Tidy(s.ctx); err != nil && s.ctx.Err() == nil {
			s.cfg.Log.Warn("old lanes could not be trimmed; it is tried again later", "error", err)
		}
	})
}

// Tidy trims lanes that have ended and that no shard names, and reports the first
// error. It is done after each Acquire.
func (s *Store) Tidy(ctx context.Context) error {
	lanes, err := s.lanesEntered(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	own := s.own
	s.mu.Unlock()
	for _, id := range lanes {
		if own != nil && own.id == id {
			continue
		}
		if err := s.trim(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// lanesEntered answers the lanes that are not trimmed, in the order of their ids.
func (s *Store) lanesEntered(ctx context.Context) (lanes []lane.ID, err error) {
	err = again(ctx, func() error {
		lanes = lanes[:0]
		iter := s.bulk.query(ctx, stmtLaneList).Iter()
		var id gocql.UUID
		var node string
		for iter.Scan(&id, &node) {
			lanes = append(lanes, lane.ID(id))
		}
		return iter.Close()
	})
	if err != nil {
		return nil, describe(stmtLaneList, err)
	}
	slices.SortFunc(lanes, func(a, b lane.ID) int { return bytes.Compare(a[:], b[:]) })
	return lanes, nil
}

// Lanes implements [persistence.Laner].
func (s *Store) Lanes(ctx context.Context) ([]persistence.LaneInfo, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	lanes, err := s.lanesEntered(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]persistence.LaneInfo, 0, len(lanes))
	for _, id := range lanes {
		head, found, err := s.bulk.head(ctx, id)
		if err != nil {
			return nil, describe(stmtHeadRead, err)
		}
		if !found {
			continue
		}
		info := persistence.LaneInfo{ID: id, Node: head.Node, Mode: modeName(head.Mode), Sealed: head.Sealed, Final: int64(head.FinalSeq), Unapplied: -1} //nolint:gosec // entries are few
		if info.Final < 0 {
			info.Final = -1
		}
		s.mu.Lock()
		if own := s.own; own != nil && own.id == id && !own.lost {
			info.Unapplied = int64(own.w.Sent() - own.appliedTo) //nolint:gosec // a ring has few
		}
		s.mu.Unlock()
		list = append(list, info)
	}
	return list, nil
}

// trim deletes the slots of a lane whose end was decided, if no row of a shard
// that is read afterwards names it. Its head stays.
func (s *Store) trim(ctx context.Context, id lane.ID) error {
	head, found, err := s.bulk.head(ctx, id)
	if err != nil {
		return describe(stmtHeadRead, err)
	}
	if !found || !head.Sealed || head.FinalSeq == lane.Undecided {
		return nil
	}
	if !head.Trimmed {
		rows, err := s.ShardRows(ctx)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Lane == id {
				return nil
			}
		}
		if err := s.lanes.settle(ctx, stmtHeadTrim, gocql.UUID(id), int64(head.FinalSeq)); err != nil {
			return err
		}
	}
	// Above the timestamps of all slots, which follow the clocks of servers or nodes.
	ts := int64(max(head.FinalTS, s.wall())) + time.Hour.Microseconds()
	for _, d := range []struct {
		stmt statement
		args []any
	}{
		{stmtSlotsDelete, []any{ts, gocql.UUID(id)}},
		{stmtLaneChunksDelete, []any{int64(2), gocql.UUID(id)}},
		{stmtLaneLeave, []any{gocql.UUID(id)}},
	} {
		if err := untilDone(ctx, func() error { return s.bulk.exec(ctx, d.stmt, d.args...) }); err != nil {
			return describe(d.stmt, err)
		}
	}
	s.recover.mu.Lock()
	delete(s.recover.byLane, id)
	s.recover.mu.Unlock()
	s.cfg.Log.Debug("lane trimmed", "lane", fmt.Sprintf("%x", id))
	return nil
}

var errNoNode = errors.New("cqlstore: a node without an id")
