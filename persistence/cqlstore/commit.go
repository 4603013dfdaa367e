package cqlstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// errUndecided is the verdict on a batch whose fate is open.
var errUndecided = errors.New("cqlstore: the cluster has not answered; the outcome is unknown")

// Commit implements [persistence.Store]. Batches up to lane.BodyBytesMax go in one
// entry; of more, several are under way at once. A batch that is larger by itself,
// or has a value above lane.ValueBytesMax, goes into chunks that are written before
// its entry.
func (s *Store) Commit(batches []*persistence.Batch) []error {
	verdicts := make([]error, len(batches))
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.CommitTimeout)
	defer cancel()
	wake := context.AfterFunc(ctx, s.wake)
	defer wake()

	var entries, large [][]int // indices of batches
	bytes := 0
	s.mu.Lock()
	seen := make(map[*tenure]bool, len(batches))
	for i, b := range batches {
		t, err := s.check(b)
		if err == nil && seen[t] {
			err = persistence.ErrFenced
		}
		if verdicts[i] = err; err != nil {
			continue
		}
		seen[t] = true
		t.pending = b.Seq
		if largest(b) > lane.ValueBytesMax { // so that the others go into a slot
			large = append(large, []int{i})
			continue
		}
		if len(entries) == 0 || bytes+b.Bytes() > entryBytesGoal {
			entries, bytes = append(entries, nil), 0
		}
		entries[len(entries)-1] = append(entries[len(entries)-1], i)
		bytes += b.Bytes()
	}
	s.mu.Unlock()
	entries = append(entries, large...)

	var last *ownLane
	var n lane.Seq
	for _, group := range entries {
		part := make([]*persistence.Batch, len(group))
		for k, i := range group {
			part[k] = batches[i]
		}
		own, seq, err := s.append(ctx, part)
		if err != nil {
			s.mu.Lock()
			for _, i := range group {
				verdicts[i] = s.neverSent(batches[i], err)
			}
			s.mu.Unlock()
			continue
		}
		last, n = own, seq
	}
	if last == nil {
		return verdicts
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for last.w.Committed() < n && !last.settled && ctx.Err() == nil {
		s.changed.Wait()
	}
	for _, group := range entries {
		for _, i := range group {
			if verdicts[i] == nil {
				verdicts[i] = s.verdict(batches[i])
			}
		}
	}
	return verdicts
}

// entryBytesGoal is the size of batches beyond which a further one goes into the
// next entry. Their encoding is smaller than what Batch.Bytes says.
const entryBytesGoal = lane.BodyBytesGoal

// largest answers the bytes of the largest value of a batch.
func largest(b *persistence.Batch) (n int) {
	for _, op := range b.Ops() {
		n = max(n, len(op.Value))
	}
	return n
}

func (s *Store) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// check says whether b may be committed. It is called with s.mu held.
func (s *Store) check(b *persistence.Batch) (*tenure, error) {
	if s.closed.Load() {
		return nil, persistence.ErrClosed
	}
	if int(b.Shard) >= len(s.tenures) {
		return nil, fmt.Errorf("cqlstore: commit to shard %d of %d: %w", b.Shard, len(s.tenures), persistence.ErrFenced)
	}
	t := s.tenure(b.Shard)
	switch {
	case s.stuck.Load():
		return nil, fmt.Errorf("cqlstore: commit to shard %d: committed effects wait for the tables for more than %s, nothing is taken before they are there: %w", b.Shard, UnappliedMax, persistence.ErrFenced)
	case t == nil || t.stopped || t.own.lost || b.Epoch != t.epoch || t.pending != 0 || b.Seq != t.last+1:
		return nil, persistence.ErrFenced
	case b.Bytes() > persistence.BatchBytesLimit:
		return nil, persistence.ErrTooLarge
	}
	return t, nil
}

// neverSent takes a batch back that was not appended. It is called with s.mu held.
func (s *Store) neverSent(b *persistence.Batch, err error) error {
	if t := s.tenure(b.Shard); t != nil && t.epoch == b.Epoch && t.pending == b.Seq {
		t.pending = 0
		t.stopped = true // so that never executed stays true
	}
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	s.cfg.Log.Error("batch not sent", "shard", b.Shard, "error", err)
	return fmt.Errorf("%w: it was not sent: %w", persistence.ErrFenced, err)
}

// verdict says what became of a batch that was appended. It is called with s.mu
// held.
func (s *Store) verdict(b *persistence.Batch) error {
	list := s.tenures[b.Shard].list
	for i := len(list) - 1; i >= 0; i-- {
		t := list[i]
		if t.epoch != b.Epoch {
			continue
		}
		switch {
		case t.start < b.Seq && b.Seq <= t.last:
			return nil
		case t.pending == b.Seq && t.own.settled:
			return t.own.err
		case t.pending == b.Seq:
			return errUndecided
		}
		if i == len(list)-1 && b.Seq > t.last {
			t.stopped = true // so that never executed stays true
		}
		return persistence.ErrFenced
	}
	if len(list) > 0 && b.Epoch < list[0].epoch && len(list) == tenuresMax {
		return fmt.Errorf("cqlstore: shard %d was acquired too often since epoch %d to tell what became of its batch %d", b.Shard, b.Epoch, b.Seq)
	}
	return persistence.ErrFenced
}

// append makes batches the next entry of the lane, as soon as there is room.
func (s *Store) append(ctx context.Context, batches []*persistence.Batch) (*ownLane, lane.Seq, error) {
	size := 0
	for _, b := range batches {
		size += b.Bytes()
	}
	s.mu.Lock()
	own := s.laneOf(batches)
	s.mu.Unlock()
	if own == nil {
		return nil, 0, lane.ErrNotOpen
	}
	body := lane.EncodeBody(batches)
	packed := lane.Pack(body)
	var spill *lane.Spill
	if len(packed) > lane.BodyBytesMax || len(batches) == 1 && largest(batches[0]) > lane.ValueBytesMax {
		var err error
		if spill, err = s.spill(ctx, own.id, packed); err != nil {
			return nil, 0, err
		}
		body = packed // which the entry's sum is of
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !own.lost && own.w.State() == lane.StateOpen && !own.w.Room() && ctx.Err() == nil {
		s.hurry()
		s.changed.Wait()
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if s.laneOf(batches) != own {
		return nil, 0, lane.ErrNotOpen
	}
	var n lane.Seq
	var out lane.Output
	var err error
	if spill != nil {
		n, out, err = own.w.AppendSpilled(s.wall(), batches, *spill)
	} else {
		n, out, err = own.w.AppendPacked(s.wall(), batches, packed)
	}
	if err != nil {
		return nil, 0, err
	}
	e := &sentEntry{n: n, spill: spill}
	if e.effects, err = entryIn(out).EffectsOf(body); err != nil {
		panic("cqlstore: an entry that was just made cannot be read: " + err.Error())
	}
	for _, b := range batches {
		e.shards = append(e.shards, s.tenure(b.Shard))
	}
	own.sent, own.appended = append(own.sent, e), s.cfg.Now()
	s.figures.entries.Add(1)
	s.figures.batches.Add(int64(len(batches)))
	s.figures.bytes.Add(int64(size))
	s.send(own, out)
	return own, n, nil
}

// laneOf answers the lane that the shards of all batches are owned through, nil if
// there is none: it was lost since they were checked. What went into the next lane
// would be looked for by nobody, as the rows of the shards name the one before. It
// is called with s.mu held.
func (s *Store) laneOf(batches []*persistence.Batch) *ownLane {
	own := s.own
	if own == nil || own.lost {
		return nil
	}
	for _, b := range batches {
		if t := s.tenure(b.Shard); t == nil || t.own != own || t.epoch != b.Epoch || t.pending != b.Seq {
			return nil
		}
	}
	return own
}

// entryIn answers the entry that an append sends.
func entryIn(out lane.Output) *lane.Entry {
	for _, to := range out.Send {
		switch to := to.(type) {
		case lane.WriteSlot:
			return to.Entry
		case lane.AppendEntry:
			return to.Entry
		}
	}
	panic("cqlstore: an append that sends no entry")
}

// The chunks of a spilled body.
const (
	chunkBytes   = 512 << 10
	chunksAtOnce = 4
)

// spill writes a body into chunks, until a quorum has them all.
func (s *Store) spill(ctx context.Context, id lane.ID, body []byte) (*lane.Spill, error) {
	spill := &lane.Spill{Chunks: freshID(), Bytes: len(body), Sum: lane.SumBody(body)}
	slots := make(chan struct{}, chunksAtOnce)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for from := 0; from < len(body); from += chunkBytes {
		number, data := spill.Parts, body[from:min(from+chunkBytes, len(body))]
		spill.Parts++
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := untilDone(ctx, func() error {
				return s.lanes.exec(ctx, stmtChunkWrite, gocql.UUID(id), gocql.UUID(spill.Chunks), number, data, int64(1))
			})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return nil, describe(stmtChunkWrite, failed)
	}
	s.figures.spilled.Add(1)
	return spill, nil
}

// untilDone repeats a plain write until a quorum has it, it is refused, or ctx
// ends.
func untilDone(ctx context.Context, write func() error) error {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		err := write()
		if err == nil || refused(err) || sleep(ctx, jitter(pause)) != nil {
			return err
		}
	}
}

// readSpill reads a body from its chunks.
func (s *Store) readSpill(ctx context.Context, id lane.ID, spill lane.Spill) ([]byte, error) {
	var body []byte
	err := again(ctx, func() error {
		body = make([]byte, 0, spill.Bytes)
		iter := s.bulk.query(ctx, stmtChunksRead, gocql.UUID(id), gocql.UUID(spill.Chunks)).PageSize(chunksAtOnce).Iter()
		var data []byte
		for iter.Scan(&data) {
			body = append(body, data...)
			data = nil
		}
		return iter.Close()
	})
	return body, err
}

// Resolve implements [persistence.Store].
func (s *Store) Resolve(ctx context.Context, batches []*persistence.Batch) []error {
	verdicts := make([]error, len(batches))
	wake := context.AfterFunc(ctx, s.wake)
	defer wake()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range batches {
		for {
			if verdicts[i] = s.usable(ctx); verdicts[i] != nil {
				break
			}
			if int(b.Shard) >= len(s.tenures) {
				verdicts[i] = persistence.ErrFenced
				break
			}
			if verdicts[i] = s.verdict(b); !errors.Is(verdicts[i], errUndecided) {
				break
			}
			s.changed.Wait()
		}
	}
	return verdicts
}

// Pressure implements [persistence.Store]: how much of the ring waits to be
// applied, from half of it on. It is 1 while something waits for more than
// UnappliedMax.
func (s *Store) Pressure() float64 {
	if s.stuck.Load() {
		return 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil {
		return 0
	}
	const free = 0.5
	used := float64(s.own.w.Sent()-s.own.appliedTo) / float64(s.own.ring)
	return min(1, max(0, (used-free)/(1-free)))
}

// Fence implements [persistence.Fencer]: it reads the head of the lane, once for all
// who wait, as nobody takes a shard from a lane that is not sealed.
func (s *Store) Fence(ctx context.Context) error {
	wake := context.AfterFunc(ctx, s.wake)
	defer wake()
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own
	switch err := s.usable(ctx); {
	case err != nil:
		return err
	case own == nil || own.lost:
		return persistence.ErrFenced
	}
	ticket, out := own.w.Strict()
	s.send(own, out)
	for {
		switch err := s.usable(ctx); {
		case err != nil:
			return err
		case own.w.Passed() >= ticket:
			return nil
		case own.lost:
			return persistence.ErrFenced
		}
		s.changed.Wait()
	}
}

// flushEvery is how often the flusher looks for what is old enough.
const flushEvery = 50 * time.Millisecond
