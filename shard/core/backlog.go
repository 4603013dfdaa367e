package core

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// acceptCast makes a cast from outside durable, and answers it with its id.
func (s *Shard) acceptCast(a *Activation, c *Call, out *Output) {
	s.release(c)
	inv := *c.Inv
	inv.Key, inv.Deadline = nola.Key{}, time.Time{}
	if err := s.backlogRoom(a, &inv); err != nil {
		c.Err = err
		if c.entry != nil {
			s.forget(a, c.entry, err, out)
		}
		s.answerAt(c, s.committed, out)
		return
	}
	before := s.open().batch.Bytes()
	s.takeCast(a, &inv)
	c.Result.ID = inv.ID
	if c.entry != nil {
		s.remember(a, c.entry, s.outcome(c, nil))
	}
	seq := s.openSeq()
	if c.entry != nil {
		s.concluded(a, c.entry, c, seq, out)
	}
	s.answerAt(c, seq, out)
	s.folded(before)
}

// backlogRoom refuses a cast for which a's backlog has no room.
func (s *Shard) backlogRoom(a *Activation, inv *nola.Invocation) error {
	if inv.Due.After(s.now) {
		if a.userKeys.Delayed >= s.limits.DelayedMax {
			return errBacklogFull(a.ref, int64(s.limits.DelayedMax), "delayed casts")
		}
		return nil
	}
	switch n := castBytes(inv); {
	case a.tail-a.head >= uint64(s.limits.BacklogMax):
		return errBacklogFull(a.ref, int64(s.limits.BacklogMax), "casts")
	case a.total-a.headTotal+n > uint64(s.limits.BacklogBytesMax):
		return errBacklogFull(a.ref, s.limits.BacklogBytesMax, "bytes")
	}
	return nil
}

// takeCast writes a cast into the backlog of its target, or into the due index
// if its time has not come.
func (s *Shard) takeCast(a *Activation, inv *nola.Invocation) {
	b := &s.open().batch
	b.PutOutcome(persistence.OutcomeRecord{ID: inv.ID, Target: a.ref, Time: s.now, State: persistence.StatePending})
	s.sweep.recorded(s)
	s.touched(a)
	if inv.Due.After(s.now) {
		s.putDue(persistence.DueRow{Due: inv.Due, Target: a.ref, Kind: persistence.DueCast, Name: string(inv.ID[:]), Invocation: inv})
		s.countDelayed(a, 1)
		return
	}
	a.total += castBytes(inv)
	row := persistence.BacklogRow{Number: a.tail, Total: a.total, Invocation: inv}
	a.tail++
	b.PutBacklog(a.ref, row)
	if a.loaded == row.Number && a.casts.n < s.limits.MailboxMax {
		a.casts.push(backlogCall(a, row))
		a.loaded++
	}
}

// countDelayed counts casts to a that wait in the due index.
func (s *Shard) countDelayed(a *Activation, n int) {
	// Rows of before there was a count may make it too low.
	a.userKeys.Delayed = max(0, a.userKeys.Delayed+n)
	s.open().batch.PutUserKeys(a.ref, a.userKeys)
}

// derive makes the id of an invocation that the shard itself brings about. The
// same cause makes the same id.
func (s *Shard) derive(at time.Time, what string, ref nola.ActorRef, name string) nola.InvocationID {
	b := append(make([]byte, 0, 128), what...)
	b = ref.AppendCanonical(append(b, 0))
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
	b = append(b, name...)
	sum := sha256.Sum256(b)
	return nola.MakeInvocationID(at, [10]byte(sum[:10]))
}
