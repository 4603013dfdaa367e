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
	// flushersCalm is how many shards are flushed at once, with requestsCalm requests
	// under way: few, so that commits need not stand in line behind them.
	flushersCalm = 2
	requestsCalm = 4
	// flushersMax is how many are when half of the ring is in use.
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
	calm, hurried := make(chan struct{}, flushersCalm), make(chan struct{}, flushersMax)
	few := s.appliers
	few.slots = make(chan struct{}, requestsCalm)
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
		slots, by := calm, &few
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
		s.alarm()
		// From half of the ring on, what holds the oldest entries need not be old.
		urgent := lane.Seq(0)
		if half := lane.Seq(own.ring / 2); sent-done > half {
			urgent = sent - half/2
			slots, by = hurried, &s.appliers
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
				s.flush(own, m, by)
			})
		}
	}
}

// UnappliedMax is how long something that was committed may wait for the tables.
// From then on nothing is committed until it is there: who applies it must not
// outlive what the cluster remembers of deletions (gc_grace_seconds).
const UnappliedMax = time.Hour

// alarm stops commits while something has waited for too long.
func (s *Store) alarm() {
	now := s.cfg.Now()
	oldest := time.Duration(0)
	shard := nola.ShardID(0)
	for _, m := range s.memories() {
		if age := m.age(now); age > oldest {
			oldest, shard = age, m.shard
		}
	}
	s.figures.unapplied.Store(int64(oldest / time.Second))
	stuck := oldest > UnappliedMax
	if was := s.stuck.Swap(stuck); stuck && !was {
		s.cfg.Log.Error("committed effects cannot be brought into the tables: nothing more is committed until they are there; see what the cluster says to writes", "shard", shard, "waiting", oldest.Round(time.Second))
	} else if was && !stuck {
		s.cfg.Log.Info("committed effects are in the tables again", "waiting", oldest.Round(time.Second))
	}
}

// age answers how long the oldest effect waits that is not in the tables.
func (m *memory) age(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == 0 || m.frozen {
		return 0
	}
	return now.Sub(m.since)
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

func (s *Store) flush(own *ownLane, m *memory, by *appliers) {
	did, err := by.flush(s.ctx, m)
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
			sightings[i] = lane.Sighting{Node: row.ID, Number: row.Beat, Lease: row.Lease}
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

// Held implements [persistence.Leased]. With Config.External the caller knows.
func (s *Store) Held() bool {
	return s.cfg.External || int64(uptime()) < s.until.Load()
}

// keep holds the lease of a lane's node while the lane is open.
func (s *Store) keep(own *ownLane) {
	every := s.cfg.Lease / beatsPerLease
	keeper := lane.NewKeeper(own.node, s.cfg.Lease, every, own.since)
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
		if !lost && keeper.Phase(uptime()) == lane.LeaseHeld {
			s.until.Store(int64(keeper.Until()))
			s.changed.Broadcast()
		}
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

// mind reads the head of a lane with every heartbeat, so that a node which commits
// nothing hears too that its lane was sealed. It ends with the lane.
func (s *Store) mind(own *ownLane) {
	tick := time.NewTicker(s.cfg.Lease / beatsPerLease)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		if own.lost {
			s.mu.Unlock()
			return
		}
		_, out := own.w.Strict()
		s.send(own, out)
		s.mu.Unlock()
	}
}

// lose gives the own lane up. It is called with s.mu held.
func (s *Store) lose(own *ownLane) {
	own.lost = true
	s.until.Store(0)
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

// tidy is Tidy in the background.
func (s *Store) tidy() {
	s.wg.Go(func() {
		if err := s.Tidy(s.ctx); err != nil && s.ctx.Err() == nil {
			s.cfg.Log.Warn("old lanes could not be tidied up; it is tried again later", "error", err)
		}
	})
}

// How often a store looks for old lanes, and how long it keeps their heads.
const (
	tidyEvery = time.Minute
	// HeadDays is for how many days the head of a lane stays that was trimmed: as long
	// a node that was away can find out what became of what it had under way.
	HeadDays = 30
)

// tidyLoop tidies up now and then. It ends with the store.
func (s *Store) tidyLoop() {
	for sleep(s.ctx, jitter(tidyEvery)) == nil {
		s.tidy()
	}
}

// Tidy ends the lanes of dead nodes that no shard names, trims those that have
// ended and that no shard names, deletes the heads of those that were trimmed
// HeadDays ago, and reports the first error. Whether a node is dead it knows from
// the second time on. It is done after each Acquire, and every minute.
func (s *Store) Tidy(ctx context.Context) error {
	lanes, err := s.lanesEntered(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	own := s.own
	s.mu.Unlock()
	s.watcher.mu.Lock()
	for _, e := range lanes {
		s.watcher.Expect(e.node, uptime())
	}
	s.watcher.mu.Unlock()
	if _, err := s.Nodes(ctx); err != nil {
		return err
	}
	for _, e := range lanes {
		if own != nil && own.id == e.id {
			continue
		}
		if err := s.tidyLane(ctx, e.id, e.node); err != nil {
			return err
		}
	}
	return s.forgetHeads(ctx)
}

// enteredLane is a lane that is not trimmed.
type enteredLane struct {
	id   lane.ID
	node string
}

// lanesEntered answers the lanes that are not trimmed, in the order of their ids.
func (s *Store) lanesEntered(ctx context.Context) (lanes []enteredLane, err error) {
	err = again(ctx, func() error {
		lanes = lanes[:0]
		iter := s.bulk.query(ctx, stmtLaneList).Iter()
		var id gocql.UUID
		var node string
		for iter.Scan(&id, &node) {
			lanes = append(lanes, enteredLane{lane.ID(id), node})
		}
		return iter.Close()
	})
	if err != nil {
		return nil, describe(stmtLaneList, err)
	}
	slices.SortFunc(lanes, func(a, b enteredLane) int { return bytes.Compare(a.id[:], b.id[:]) })
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
	for _, e := range lanes {
		id := e.id
		head, found, err := s.bulk.head(ctx, id)
		if err != nil {
			return nil, describe(stmtHeadRead, err)
		}
		if !found {
			continue
		}
		info := persistence.LaneInfo{ID: id, Node: head.Node, Mode: modeName(head.Mode), Sealed: head.Sealed, Final: int64(head.FinalSeq)} //nolint:gosec // entries are few
		if info.Final < 0 {
			info.Final = -1
		}
		list = append(list, info)
	}
	return list, nil
}

// Unapplied implements [persistence.Laner].
func (s *Store) Unapplied() (id [16]byte, entries uint64, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own
	if own == nil || own.lost {
		return id, 0, false
	}
	return own.id, uint64(own.w.Sent() - own.appliedTo), true //nolint:gosec // never negative
}

// tidyLane trims a lane that no row of a shard names, which is read after the lane
// was found to have ended. A lane that has not ended, though its node has, is ended
// first.
func (s *Store) tidyLane(ctx context.Context, id lane.ID, node string) error {
	head, found, err := s.bulk.head(ctx, id)
	if err != nil {
		return describe(stmtHeadRead, err)
	}
	if !head.Trimmed {
		named, err := s.named(ctx, id)
		if err != nil || named {
			return err
		}
	}
	if !found || !head.Sealed || head.FinalSeq == lane.Undecided {
		s.watcher.mu.Lock()
		dead := s.watcher.Dead(node)
		s.watcher.mu.Unlock()
		if !dead && !head.Sealed {
			return nil
		}
		ended, err := s.recovered(ctx, id)
		if err != nil {
			return err
		}
		if named, err := s.named(ctx, id); err != nil || named {
			return err
		}
		head.FinalSeq, head.FinalTS = ended.Final, ended.FinalTS
	}
	return s.trim(ctx, id, head)
}

func (s *Store) named(ctx context.Context, id lane.ID) (bool, error) {
	rows, err := s.ShardRows(ctx)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if row.Lane == id {
			return true, nil
		}
	}
	return false, nil
}

// trim deletes the slots of a lane that has ended and that nobody needs. Its head
// stays for HeadDays.
func (s *Store) trim(ctx context.Context, id lane.ID, head lane.Head) error {
	if !head.Trimmed {
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
		{stmtTrimmedEnter, []any{gocql.UUID(id), s.cfg.Now().UnixMilli()}},
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

// forgetHeads deletes the heads of lanes that were trimmed long ago.
func (s *Store) forgetHeads(ctx context.Context) error {
	var old []gocql.UUID
	err := again(ctx, func() error {
		old = old[:0]
		iter := s.bulk.query(ctx, stmtTrimmedRead).Iter()
		var id gocql.UUID
		var at int64
		for iter.Scan(&id, &at) {
			if s.cfg.Now().Sub(time.UnixMilli(at)) > HeadDays*24*time.Hour {
				old = append(old, id)
			}
		}
		return iter.Close()
	})
	if err != nil {
		return describe(stmtTrimmedRead, err)
	}
	for _, id := range old {
		if err := s.lanes.settle(ctx, stmtHeadDelete, id); err != nil {
			return err
		}
		if err := untilDone(ctx, func() error { return s.bulk.exec(ctx, stmtTrimmedLeave, id) }); err != nil {
			return describe(stmtTrimmedLeave, err)
		}
		s.cfg.Log.Debug("head of a lane deleted", "lane", id.String())
	}
	return nil
}

var errNoNode = errors.New("cqlstore: a node without an id")
