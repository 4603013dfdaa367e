package cqlstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence/lane"
)

// sender sends the statements of the lane's machines, each once, and says what
// became of it. Its methods may be called at once.
type sender struct {
	lane *link // entries, heads and shard rows
	bulk *link // everything else, so that it does not delay them
	node string
	addr string
	// apply writes the effects of batches of one shard into the tables.
	apply func(ctx context.Context, effects []lane.Effects) error
}

// send sends one statement and answers it.
func (s *sender) send(ctx context.Context, to lane.Statement) lane.Answer {
	a := lane.Answer{To: to}
	var err error
	applied, conditional := false, true
	var r row
	switch to := to.(type) {
	case lane.CreateHead:
		applied, r, err = s.createHead(ctx, to.Lane, to.Head)
	case lane.InsertSealed:
		to.Head.FinalSeq, to.Head.FinalTS = 0, 0
		applied, r, err = s.createHead(ctx, to.Lane, to.Head)
	case lane.SealHead:
		applied, r, err = s.lane.cas(ctx, stmtHeadSeal, gocql.UUID(to.Lane))
	case lane.DecideFinal:
		applied, r, err = s.lane.cas(ctx, stmtHeadDecide, int64(to.Final), int64(to.TS), gocql.UUID(to.Lane))
	case lane.ClaimShard:
		applied, r, err = s.lane.cas(ctx, stmtShardClaim, int64(to.To.Epoch), gocql.UUID(to.To.Lane), s.node, s.addr, int64(to.To.Floor), int(to.Shard), int64(to.From.Epoch), gocql.UUID(to.From.Lane))
	case lane.ReleaseShard:
		applied, r, err = s.lane.cas(ctx, stmtShardRelease, gocql.UUID(to.To.Lane), to.To.HandoffTo, int64(to.To.Floor), int(to.Shard), int64(to.From.Epoch), gocql.UUID(to.From.Lane))
	case lane.AppendEntry:
		applied, r, err = s.append(ctx, to)
	default:
		conditional = false
		err = s.plain(ctx, to, &a)
	}
	a.Outcome = outcome(err)
	if conditional && err == nil && !applied {
		a.Outcome = lane.NotApplied
	}
	if conditional && err == nil {
		a.Found = r.found()
		a.Head = r.head()
		a.Shard = lane.ShardRow{Epoch: epoch(r.epoch), Lane: lane.ID(deref(r.lane))}
	}
	return a
}

// outcome says what an error says of a statement: a time-out, a lost connection
// and everything else that is not a definite refusal leave it unknown.
func outcome(err error) lane.Outcome {
	switch {
	case err == nil:
		return lane.Done
	case refused(err):
		return lane.Refused
	}
	return lane.Unknown
}

func (s *sender) createHead(ctx context.Context, id lane.ID, h lane.Head) (bool, row, error) {
	return s.lane.cas(ctx, stmtHeadCreate, gocql.UUID(id), h.Node, h.Address, int(h.Mode), h.RingSize, number(h.Sealed), int64(h.LastSeq), int64(h.FinalSeq), int64(h.FinalTS))
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// append sends head and slot as one conditional batch. The statement with the
// condition comes first: the driver takes the partition from it, and Scylla answers
// a row for each.
func (s *sender) append(ctx context.Context, to lane.AppendEntry) (bool, row, error) {
	b := s.lane.batch(ctx)
	b.SerialConsistency(gocql.LocalSerial)
	e := to.Entry
	id := gocql.UUID(to.Lane)
	b.Query(s.lane.texts[stmtHeadAppend], int64(e.Seq), id, int64(e.Seq)-1)
	b.Query(s.lane.texts[stmtSlotAppend], slotArgs(id, to.Slot, e)...)
	return s.lane.casBatch(b)
}

func slotArgs(id gocql.UUID, slot int, e *lane.Entry) []any {
	return []any{id, slot, int64(e.Seq), int64(e.Prev), int64(e.TS), int64(e.Applied), int64(e.Committed), int64(e.Sum), e.Body} //nolint:gosec // sums keep their bits
}

func (s *sender) plain(ctx context.Context, to lane.Statement, a *lane.Answer) error {
	switch to := to.(type) {
	case lane.WriteSlot:
		return s.lane.exec(ctx, stmtSlotWrite, append(slotArgs(gocql.UUID(to.Lane), to.Slot, to.Entry), int64(to.Entry.TS))...)
	case lane.ReadHead:
		return s.readFence(ctx, to.Lane, a)
	case lane.ReadLane:
		return s.readLane(ctx, to.Lane, a)
	case lane.ApplyEffects:
		return s.apply(ctx, []lane.Effects{to.Effects})
	}
	panic("cqlstore: a statement that is not known")
}

// readFence reads the whole head: the writer wants one column of it, and the
// recoverer others. Both are one row in memory.
func (s *sender) readFence(ctx context.Context, id lane.ID, a *lane.Answer) (err error) {
	a.Head, a.Found, err = s.lane.head(ctx, id)
	return err
}

func (l *link) head(ctx context.Context, id lane.ID) (h lane.Head, found bool, err error) {
	var mode, ring, sealed, trimmed int
	var last, final, ts int64
	err = l.query(ctx, stmtHeadRead, gocql.UUID(id)).Scan(&h.Node, &h.Address, &mode, &ring, &sealed, &last, &final, &ts, &trimmed)
	if errors.Is(err, gocql.ErrNotFound) {
		return h, false, nil
	}
	h.Mode, h.RingSize, h.Sealed, h.Trimmed = lane.Mode(mode), ring, sealed != 0, trimmed != 0
	h.LastSeq, h.FinalSeq, h.FinalTS = lane.Seq(last), lane.Seq(final), lane.Timestamp(ts)
	return h, err == nil, err
}

// slotsPage bounds how many slots come at once, as each may have lane.BodyBytesMax.
const slotsPage = 32

func (s *sender) readLane(ctx context.Context, id lane.ID, a *lane.Answer) (err error) {
	if a.Head, a.Found, err = s.bulk.head(ctx, id); err != nil || !a.Found {
		return err
	}
	iter := s.bulk.query(ctx, stmtSlotsRead, gocql.UUID(id)).PageSize(slotsPage).Iter()
	var seq, prev, ts, applied, committed, sum int64
	var body []byte
	for iter.Scan(&seq, &prev, &ts, &applied, &committed, &sum, &body) {
		a.Slots = append(a.Slots, &lane.Entry{
			Seq: lane.Seq(seq), Prev: uint64(prev), TS: lane.Timestamp(ts), Applied: lane.Seq(applied), //nolint:gosec // sums keep their bits
			Committed: lane.Seq(committed), Sum: uint64(sum), Body: body, //nolint:gosec // as above
		})
		body = nil
	}
	return iter.Close()
}

// drive sends what a machine wants sent until nothing is under way, or ctx ends.
// Of several applications to the tables one is made.
func (s *sender) drive(ctx context.Context, out lane.Output, step func(lane.Answer) lane.Output) error {
	answers := make(chan []lane.Answer)
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait() // runs after stop
	defer stop()
	open := 0
	send := func(statements []lane.Statement, pause time.Duration) {
		var effects []lane.Statement
		begin := func(statements []lane.Statement, send func() []lane.Answer) {
			open += len(statements)
			wg.Go(func() {
				if pause > 0 && sleep(ctx, pause) != nil {
					return
				}
				got := send()
				select {
				case answers <- got:
				case <-ctx.Done():
				}
			})
		}
		for _, to := range statements {
			if _, ok := to.(lane.ApplyEffects); ok {
				effects = append(effects, to)
				continue
			}
			begin([]lane.Statement{to}, func() []lane.Answer { return []lane.Answer{s.send(ctx, to)} })
		}
		if len(effects) > 0 {
			begin(effects, func() []lane.Answer { return s.sendEffects(ctx, effects) })
		}
	}
	send(out.Send, 0)
	pause := pauseMin
	for open > 0 {
		select {
		case got := <-answers:
			open -= len(got)
			for _, a := range got {
				out := step(a)
				send(out.Send, 0)
				if len(out.Again) > 0 {
					send(out.Again, jitter(pause))
					pause = min(2*pause, pauseMax)
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *sender) sendEffects(ctx context.Context, statements []lane.Statement) []lane.Answer {
	effects := make([]lane.Effects, len(statements))
	for i, to := range statements {
		effects[i] = to.(lane.ApplyEffects).Effects
	}
	result := outcome(s.apply(ctx, effects))
	answers := make([]lane.Answer, len(statements))
	for i, to := range statements {
		answers[i] = lane.Answer{To: to, Outcome: result}
	}
	return answers
}

// jitter keeps nodes that fail together from trying again together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) } //nolint:gosec // chance, no secret
