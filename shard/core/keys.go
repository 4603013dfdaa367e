package core

import (
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// keyID is what recognises the retries of a call to one actor.
type keyID struct {
	session nola.SessionID
	seq     uint64
	nested  bool
	user    string
}

func idOf(k nola.Key) keyID {
	return keyID{session: k.Session, seq: k.Seq, nested: k.Nested, user: k.User}
}

// keyEntry is a key in memory: being looked up, or its call waits or runs, or
// its outcome is in a group that is not committed. Afterwards the store has it.
type keyEntry struct {
	id        keyID
	key       nola.Key
	hash      [16]byte
	call      *Call   // the first
	waiters   []*Call // its retries
	looking   bool
	cancelled bool     // the first caller left while looking
	overtaken bool     // the call that has the same slot, a window ahead, came while looking
	started   bool     // a row says that it has started
	startSeq  nola.Seq // of the group that holds this row, if of this tenure
	startedAt time.Time
	seq       nola.Seq // of the group that holds the outcome, or the start if there is none
	record    persistence.OutcomeRecord
}

// recognise finds out whether c's key was seen before. It enters c when it is
// new, after a look into the store.
func (s *Shard) recognise(a *Activation, c *Call, out *Output) {
	k := c.Inv.Key
	if err := s.checkAge(k); err != nil {
		s.release(c)
		s.refuse(&c.Ticket, err, out)
		return
	}
	id := idOf(k)
	if e := a.keys[id]; e != nil {
		switch {
		case e.seq != 0 && e.record.State == persistence.StatePending && e.hash == c.Hash:
			// It started, failed, and may be tried again.
			again := &keyEntry{id: id, key: k, hash: c.Hash, call: c, started: true, startedAt: e.startedAt, startSeq: e.startSeq}
			a.keys[id], c.entry = again, again
			s.enter(a, c, out)
		case e.hash != c.Hash:
			s.release(c)
			s.refuse(&c.Ticket, errReused(k), out)
		case e.seq != 0:
			s.release(c)
			s.replay(c, &e.record)
			s.answerAt(c, e.seq, out)
		default:
			c.entry = e
			e.waiters = append(e.waiters, c)
		}
		return
	}
	e := &keyEntry{id: id, key: k, hash: c.Hash, call: c, looking: true, overtaken: a.overtakes(id)}
	c.entry = e
	if a.keys == nil {
		a.keys = make(map[keyID]*keyEntry)
	}
	a.keys[id] = e
	if l := c.seen; l != nil && c.asked == a {
		if c.seen = nil; l.Err == nil {
			s.loadedKey(l, out)
			return
		}
		c.asked = nil // the actor could be read, perhaps the key can now, too
	}
	s.lookUp(a, c, out)
}

// lookUp asks what the store remembers of c's key, once for an activation.
func (s *Shard) lookUp(a *Activation, c *Call, out *Output) {
	if c.asked != a {
		c.asked, c.seen = a, nil
		s.ask(out, Load{Kind: LoadKey, Ref: a.ref, Key: c.Inv.Key, act: a, call: c})
	}
}

// overtakes reports whether the call is here that takes the slot of the session key
// id, and tells the one whose slot id takes. The store knows of those before.
func (a *Activation) overtakes(id keyID) bool {
	if id.user != "" || id.nested {
		return false
	}
	behind := id
	behind.seq -= nola.SessionWindow
	if e := a.keys[behind]; e != nil && e.looking {
		e.overtaken = true
	}
	id.seq += nola.SessionWindow
	return a.keys[id] != nil
}

// checkAge refuses keys that may have been forgotten.
func (s *Shard) checkAge(k nola.Key) error {
	if k.IsUser() {
		return nil
	}
	floor := s.sweep.floors.Sessions
	if k.Nested {
		floor = s.sweep.floors.Nested
	}
	if s.now.Sub(k.FirstAttempt) <= k.Retention() && !k.FirstAttempt.Before(floor) {
		return nil
	}
	e := nola.Errorf(nola.ReasonKeyExpired, "the first attempt was made at %s, keys are remembered for %s; it was not executed now, whether it was then cannot be known any more", k.FirstAttempt.UTC().Format(time.RFC3339), k.Retention())
	e.Metadata = map[string]string{"retention": k.Retention().String()}
	return e
}

func errReused(k nola.Key) *nola.Error {
	if k.Nested {
		return nola.Errorf(nola.ReasonNondeterministic, "call %d of the retried turn differs from the one recorded at the first attempt; a turn that calls other actors must ask the same of them when it is tried again", k.Seq)
	}
	return nola.Errorf(nola.ReasonKeyReused, "this key was used before with another operation or payload; use a new key for a new request")
}

// replay gives c the outcome that an earlier attempt had.
func (s *Shard) replay(c *Call, r *persistence.OutcomeRecord) {
	c.Result = nola.Result{ID: r.ID, Payload: r.Reply, Replayed: true}
	if r.Err != nil {
		c.Err = r.Err
	}
}

// loadedKey takes in what the store remembers of a key.
func (s *Shard) loadedKey(l *Load, out *Output) {
	a, c := l.act, l.call
	if s.acts[a.ref] == a && a.loading { // no turn of the actor can change it until then
		seen := *l
		c.seen = &seen
		return
	}
	e := c.entry
	if s.acts[a.ref] != a || e == nil || a.keys[e.id] != e || !e.looking {
		return
	}
	e.looking = false
	if !a.userKeysRead && l.Key.IsUser() && l.Err == nil {
		a.userKeys, a.userKeysRead = l.UserKeys, true
	}
	r := &l.Record
	var err error
	switch {
	case l.Err != nil:
		err = nola.Errorf(nola.ReasonUnavailable, "cannot read the keys of %s from the store: %v", a.ref, l.Err)
	case l.Found && !l.Key.IsUser() && r.Seq > l.Key.Seq, e.overtaken && (!l.Found || r.Seq != l.Key.Seq):
		err = nola.Errorf(nola.ReasonKeyExpired, "the answer of call %d was acknowledged before; it is not executed again", l.Key.Seq)
	case l.Found && r.Hash != e.hash && (l.Key.IsUser() || r.Seq == l.Key.Seq):
		err = errReused(l.Key)
	case l.Found && !r.Deferred.IsZero() && (l.Key.IsUser() || r.Seq == l.Key.Seq):
		// The deadline of the deferral ends the wait, at the latest.
		e.started = true
		if s.rejoin(e); len(e.waiters) == 0 {
			delete(a.keys, e.id)
		}
		s.runNext(a, out)
		return
	case l.Found && r.State == persistence.StatePending:
		e.started, e.startedAt = true, r.Time
	case l.Found && (l.Key.IsUser() || r.Seq == l.Key.Seq):
		s.conclude(a, e, func(c *Call) { s.replay(c, r) }, s.committed, out)
		return
	case l.Key.IsUser() && a.userKeys.Count+a.openUserKeys(nola.UserKeysMax-a.userKeys.Count) > nola.UserKeysMax:
		err = nola.LimitError(nola.ReasonDedupFull, "user_keys", nola.UserKeysMax, "%s remembers %d idempotency keys, its limit; it was not executed, use session keys or wait until keys of %s ago are forgotten", a.ref, a.userKeys.Count, nola.UserKeyRetention)
	}
	if err != nil {
		s.conclude(a, e, func(c *Call) { c.Err = err }, s.committed, out)
		s.runNext(a, out)
		return
	}
	if e.cancelled {
		// The first caller left; a retry that waits takes its place.
		if len(e.waiters) == 0 {
			delete(a.keys, e.id)
			s.runNext(a, out)
			return
		}
		e.call, e.waiters = e.waiters[0], e.waiters[1:]
		e.cancelled = false
	}
	s.enter(a, e.call, out)
	s.runNext(a, out)
}

// openUserKeys counts the users' keys that may come to be remembered: their calls
// wait or run. It counts no further than it can matter: room is how many more may
// be remembered.
func (a *Activation) openUserKeys(room int) (n int) {
	if len(a.keys) <= room {
		return len(a.keys)
	}
	for _, e := range a.keys {
		if e.key.IsUser() && !e.looking && !e.started && e.seq == 0 {
			n++
		}
	}
	return n
}

// conclude answers everybody who waits for e's key, and drops the entry.
func (s *Shard) conclude(a *Activation, e *keyEntry, set func(*Call), seq nola.Seq, out *Output) {
	delete(a.keys, e.id)
	for _, c := range append([]*Call{e.call}, e.waiters...) {
		if c == e.call && e.cancelled {
			continue
		}
		s.release(c)
		set(c)
		s.answerAt(c, seq, out)
	}
	e.waiters = nil
	s.runNext(a, out)
}

// succeed lets a retry that waits take the place of the first call, which left
// before its turn. Without one the key is free again.
func (s *Shard) succeed(a *Activation, e *keyEntry, out *Output) {
	if len(e.waiters) == 0 {
		delete(a.keys, e.id)
		return
	}
	e.call, e.waiters = e.waiters[0], e.waiters[1:]
	s.enter(a, e.call, out)
}

// forget drops the key of a call that was refused: it is free to be tried again.
func (s *Shard) forget(a *Activation, e *keyEntry, err error, out *Output) {
	delete(a.keys, e.id)
	for _, c := range e.waiters {
		s.release(c)
		c.Err = err
		s.answerAt(c, a.dep, out)
	}
	e.waiters = nil
}

// concluded answers the retries that waited for the call that just ended, and
// keeps the entry while its outcome is not committed.
func (s *Shard) concluded(a *Activation, e *keyEntry, first *Call, seq nola.Seq, out *Output) {
	for _, c := range e.waiters {
		s.release(c)
		c.Result, c.Err, c.Unwritten = first.Result, first.Err, first.Unwritten
		c.Result.Replayed = true
		s.answerAt(c, seq, out)
	}
	e.waiters = nil
	if e.seq == 0 && e.startSeq > s.committed {
		e.seq, e.record = e.startSeq, persistence.OutcomeRecord{State: persistence.StatePending}
	}
	if e.seq == 0 {
		delete(a.keys, e.id)
	}
}

// remember writes the outcome of a keyed call into the open group.
func (s *Shard) remember(a *Activation, e *keyEntry, r persistence.OutcomeRecord) {
	b := &s.open().batch
	if e.key.IsUser() {
		s.countUserKey(a, e)
		b.PutUserKey(a.ref, e.key.User, r)
	} else {
		b.PutSession(a.ref, e.key, r)
		s.sweep.recorded(s)
	}
	if c := e.call; c != nil && c.Inv.Kind == nola.KindCall && !e.key.Nested {
		b.PutOutcome(r) // so that it is found by its id, too
		s.sweep.recorded(s)
	}
	e.seq, e.record = s.openSeq(), r
	s.touched(a)
}

// rememberStart writes that a call with a user's key has begun to call others.
func (s *Shard) rememberStart(a *Activation, c *Call, at time.Time) {
	e := c.entry
	if e == nil || !e.key.IsUser() || e.started {
		return
	}
	s.countUserKey(a, e)
	e.started, e.startedAt, e.startSeq = true, at, s.openSeq()
	s.open().batch.PutUserKey(a.ref, e.key.User, persistence.OutcomeRecord{
		ID: c.Inv.ID, Target: a.ref, Hash: e.hash, Time: at, State: persistence.StatePending,
	})
}

// countUserKey counts one more remembered key, and sees to its expiry.
func (s *Shard) countUserKey(a *Activation, e *keyEntry) {
	if e.started {
		return // counted when it started
	}
	b := &s.open().batch
	a.userKeys.Count++
	if a.userKeys.Expiry.IsZero() {
		a.userKeys.Expiry = s.now.Add(nola.UserKeyRetention + userKeyMargin)
		s.putDue(persistence.DueRow{Due: a.userKeys.Expiry, Target: a.ref, Kind: persistence.DueKeyExpiry})
	}
	b.PutUserKeys(a.ref, a.userKeys)
}

// userKeyMargin is how much longer than promised a user's key is kept, so that a
// clock that was an hour ahead for a while does not make it go early.
const userKeyMargin = time.Hour

// expiredKeys takes in which user keys of an actor are old enough to go.
func (s *Shard) expiredKeys(l *Load, out *Output) {
	a := l.act
	if l.Err != nil || s.acts[a.ref] != a {
		s.due.after(s.now.Add(ioRetry), &localDue{row: persistence.DueRow{Target: a.ref, Kind: persistence.DueKeyExpiry}})
		return
	}
	before := s.open().batch.Bytes()
	b := &s.open().batch
	if !a.userKeysRead {
		a.userKeys, a.userKeysRead = l.UserKeys, true
	}
	for _, hash := range l.Expired {
		b.DeleteUserKey(a.ref, hash)
	}
	a.userKeys.Count = max(0, a.userKeys.Count-len(l.Expired))
	old := a.userKeys.Expiry
	if !old.IsZero() {
		row := persistence.DueRow{Due: old, Target: a.ref, Kind: persistence.DueKeyExpiry}
		b.DeleteDue(row.Due, row.Target, row.Kind, row.Name)
		s.forgetDue(row)
		a.userKeys.Expiry = time.Time{}
	}
	if a.userKeys.Count > 0 {
		const again = time.Hour
		wait := again
		if len(l.Expired) == l.Limit {
			wait = ioRetry
		}
		a.userKeys.Expiry = s.now.Add(wait)
		s.putDue(persistence.DueRow{Due: a.userKeys.Expiry, Target: a.ref, Kind: persistence.DueKeyExpiry})
	}
	b.PutUserKeys(a.ref, a.userKeys)
	s.touched(a)
	s.folded(before)
	s.runNext(a, out)
}

// sweep forgets old session keys and outcomes.
type sweep struct {
	floors persistence.Floors
	at     time.Time // when to look next, zero if there is nothing
	last   time.Time // when something was recorded last, as far as is known
}

// How often, and how long after their retention, old rows are forgotten.
const (
	sweepFirst  = time.Minute
	sweepEvery  = 10 * time.Minute
	sweepMargin = 2 * time.Minute
)

func (w *sweep) init(f persistence.Floors) {
	w.floors = f
	w.at = time.Unix(1, 0) // an earlier tenure may have left something
}

// recorded says that there is something that will be old one day.
func (w *sweep) recorded(s *Shard) {
	w.last = s.now
	if w.at.IsZero() {
		w.at = s.now.Add(nola.SessionRetention + sweepMargin)
	}
}

// sweepOld deletes what is older than its retention. Keys from below the floors
// are refused from then on, also if the clock is set back.
func (s *Shard) sweepOld() {
	w := &s.sweep
	if w.at.IsZero() || s.now.Before(w.at) {
		return
	}
	if w.last.IsZero() {
		w.last = s.now
		w.at = s.now.Add(sweepFirst)
		return
	}
	advance := func(floor *time.Time, retention time.Duration) bool {
		to := s.now.Add(-retention - sweepMargin)
		if !to.After(*floor) {
			return false
		}
		*floor = to
		return true
	}
	before := s.open().batch.Bytes()
	b := &s.open().batch
	if advance(&w.floors.Sessions, nola.SessionRetention) {
		b.DeleteSessionsBefore(false, w.floors.Sessions)
	}
	if advance(&w.floors.Nested, nola.NestedRetention) {
		b.DeleteSessionsBefore(true, w.floors.Nested)
	}
	if advance(&w.floors.Outcomes, outcomeRetention) {
		b.DeleteOutcomesBefore(w.floors.Outcomes)
	}
	b.PutFloors(w.floors)
	s.folded(before)
	w.at = s.now.Add(sweepEvery)
	if s.now.Sub(w.last) > outcomeRetention+2*sweepEvery {
		w.at = time.Time{} // nothing is left
	}
}

// outcomeRetention is how long it is known how a cast, timer or firing ended.
const outcomeRetention = 24 * time.Hour
