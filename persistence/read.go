package persistence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// Reader says what rows mean, coming out. Its methods may be called at once and
// read what is committed; those that read several rows may see commits that are
// made meanwhile in some of them. What they answer belongs to the caller.
//
// A record in a format that is not known is a *FormatError.
type Reader struct{ Store }

// Viewer is a Store in which many reads cost less together.
type Viewer interface {
	// View starts some reads; nil says that they would cost no less.
	View() View
}

// View is reads that see all that was committed when it was made, and may see no
// more. One goroutine uses it, for a short while: it holds up what the engine would
// free.
type View interface {
	// Get is that of the Store.
	Get(row Row) (value []byte, found bool, err error)
	// Close ends the reads.
	Close() error
}

// Together answers a Reader for many reads of single rows that are neighbours, in
// the order of their keys at best. One goroutine uses it, until it calls end. It sees
// all that is committed by now, and may see no more.
func (r Reader) Together() (together Reader, end func() error) {
	if v, ok := r.Store.(Viewer); ok {
		if view := v.View(); view != nil {
			return Reader{viewed{r.Store, view}}, view.Close
		}
	}
	return r, func() error { return nil }
}

type viewed struct {
	Store
	view View
}

// Get implements [Store].
func (v viewed) Get(row Row) ([]byte, bool, error) { return v.view.Get(row) }

// Meta answers the row that makes the actor exist.
func (r Reader) Meta(shard nola.ShardID, ref nola.ActorRef) (Meta, bool, error) {
	value, found, err := r.Get(Row{Table: TableMeta, Shard: shard, Actor: ref})
	if !found || err != nil {
		return Meta{}, false, err
	}
	rec, err := decodeMeta(value)
	return rec, err == nil, of(ref, err)
}

// State answers the value of one of the actor's keys.
func (r Reader) State(shard nola.ShardID, ref nola.ActorRef, key string) ([]byte, bool, error) {
	value, found, err := r.Get(Row{Table: TableState, Shard: shard, Actor: ref, Key: []byte(key)})
	if !found || err != nil {
		return nil, false, err
	}
	value, err = body("state", value)
	return value, err == nil, of(ref, err)
}

// ScanState calls fn with the actor's keys from <= key < to and their values
// (from the end, in reverse), until fn answers false. An empty to is unbounded.
// The slices are valid during the call only, and fn must not call the store.
func (r Reader) ScanState(shard nola.ShardID, ref nola.ActorRef, from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	return scan(r, Range{Table: TableState, Shard: shard, Actor: ref, From: from, To: to, Reverse: reverse}, func(key, value []byte) (bool, error) {
		value, err := body("state", value)
		return err == nil && fn(key, value), of(ref, err)
	})
}

// Memory answers the memory that the actor keeps. Nothing of it may be committed
// meanwhile.
func (r Reader) Memory(shard nola.ShardID, ref nola.ActorRef) (*nola.Memory, bool, error) {
	var rec *storedMemory
	err := scan(r, Range{Table: TableMemory, Shard: shard, Actor: ref}, func(key, value []byte) (bool, error) {
		var err error
		if len(key) == 0 {
			rec, err = decodeMemory(value)
			return err == nil && !rec.Inline, of(ref, err)
		}
		if rec == nil {
			return false, of(ref, damaged("memory", errors.New("it has pages and no head")))
		}
		number, difference, err := decodeMemoryPage(key, value)
		rec.Set(number, bytes.Clone(difference))
		return err == nil, of(ref, err)
	})
	if err != nil || rec == nil {
		return nil, false, err
	}
	m, err := rec.complete()
	return m, err == nil, of(ref, err)
}

// Timer answers the actor's timer of that name.
func (r Reader) Timer(shard nola.ShardID, ref nola.ActorRef, name string) (TimerRecord, bool, error) {
	value, found, err := r.Get(Row{Table: TableTimer, Shard: shard, Actor: ref, Key: []byte(name)})
	if !found || err != nil {
		return TimerRecord{}, false, err
	}
	rec, err := decodeTimer([]byte(name), value)
	return rec, err == nil, of(ref, err)
}

// Timers answers the actor's timers whose names start with prefix and lie
// behind after, in the order of names, at most limit.
func (r Reader) Timers(shard nola.ShardID, ref nola.ActorRef, prefix, after string, limit int) (list []TimerRecord, err error) {
	from := []byte(prefix)
	if after != "" && after >= prefix {
		from = append([]byte(after), 0)
	}
	err = scanSome(r, Range{Table: TableTimer, Shard: shard, Actor: ref, From: from, To: successor(nil, []byte(prefix))}, limit, func(key, value []byte) error {
		rec, err := decodeTimer(key, value)
		list = append(list, rec)
		return of(ref, err)
	})
	return list, err
}

// Deferred answers the actor's deferred invocation of that token.
func (r Reader) Deferred(shard nola.ShardID, ref nola.ActorRef, token nola.Token) (DeferredRecord, bool, error) {
	value, found, err := r.Get(Row{Table: TableDeferred, Shard: shard, Actor: ref, Key: token[:]})
	if !found || err != nil {
		return DeferredRecord{}, false, err
	}
	rec, err := decodeDeferred(token[:], value)
	return rec, err == nil, of(ref, err)
}

// DeferredAll answers the actor's deferred invocations in the order of their
// tokens, at most limit.
func (r Reader) DeferredAll(shard nola.ShardID, ref nola.ActorRef, limit int) (list []DeferredRecord, err error) {
	err = scanSome(r, Range{Table: TableDeferred, Shard: shard, Actor: ref}, limit, func(key, value []byte) error {
		rec, err := decodeDeferred(key, value)
		list = append(list, rec)
		return of(ref, err)
	})
	return list, err
}

// DueAt answers one entry of the due index: what fires for a timer, for example.
func (r Reader) DueAt(shard nola.ShardID, due time.Time, target nola.ActorRef, kind DueKind, name string) (DueRow, bool, error) {
	key := appendDueKey(nil, due, target, kind, name)
	value, found, err := r.Get(Row{Table: TableDue, Shard: shard, Key: key})
	if !found || err != nil {
		return DueRow{}, false, err
	}
	row, err := decodeDue(key, value)
	return row, err == nil, of(target, err)
}

// BacklogBounds answers the first and the last entry of the actor's backlog.
func (r Reader) BacklogBounds(shard nola.ShardID, ref nola.ActorRef) (first, last BacklogRow, found bool, err error) {
	prefix := ref.AppendCanonical(nil)
	for _, reverse := range []bool{false, true} {
		err = scanSome(r, Range{Table: TableBacklog, Shard: shard, From: prefix, To: successor(nil, prefix), Reverse: reverse}, 1, func(key, value []byte) (err error) {
			last, err = decodeBacklog(key, value)
			found = true
			return of(ref, err)
		})
		if err != nil || !found {
			return BacklogRow{}, BacklogRow{}, false, err
		}
		if !reverse {
			first = last
		}
	}
	return first, last, true, nil
}

// Backlog answers the actor's backlog from that number on, at most limit
// entries of together bytesMax stored bytes, but at least one if there is any.
func (r Reader) Backlog(shard nola.ShardID, ref nola.ActorRef, from uint64, limit, bytesMax int) (list []BacklogRow, err error) {
	prefix := ref.AppendCanonical(nil)
	err = scan(r, Range{Table: TableBacklog, Shard: shard, From: appendBacklogKey(nil, ref, from), To: successor(nil, prefix)}, func(key, value []byte) (bool, error) {
		bytesMax -= len(value)
		if len(list) >= limit || len(list) > 0 && bytesMax < 0 {
			return false, nil
		}
		row, err := decodeBacklog(key, value)
		list = append(list, row)
		return true, of(ref, err)
	})
	return list, err
}

// BacklogActors answers the actors behind after (zero: from the start) that
// have a backlog, at most limit, in the order of their canonical bytes.
func (r Reader) BacklogActors(shard nola.ShardID, after nola.ActorRef, limit int) (list []nola.ActorRef, err error) {
	var from []byte
	if !after.IsZero() {
		from = successor(nil, after.AppendCanonical(nil))
	}
	for len(list) < limit {
		var ref nola.ActorRef
		err := scanSome(r, Range{Table: TableBacklog, Shard: shard, From: from}, 1, func(key, _ []byte) (err error) {
			if ref, _, err = parseBacklogKey(key); err != nil {
				return damaged("backlog", err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if ref.IsZero() {
			break
		}
		list = append(list, ref)
		from = successor(from[:0], ref.AppendCanonical(nil))
	}
	return list, nil
}

// Schedule answers a schedule or reminder of the actor, with its progress.
func (r Reader) Schedule(shard nola.ShardID, ref nola.ActorRef, reminder bool, id string) (ScheduleRow, bool, error) {
	key := appendScheduleKey(nil, reminder, id)
	value, found, err := r.Get(Row{Table: TableSchedule, Shard: shard, Actor: ref, Key: key})
	if !found || err != nil {
		return ScheduleRow{}, false, err
	}
	s, err := decodeSchedule(ref, key, value)
	if err != nil {
		return ScheduleRow{}, false, of(ref, err)
	}
	row := ScheduleRow{Schedule: s}
	err = r.progress(shard, ref, &row)
	return row, err == nil, err
}

// Schedules answers the actor's schedules or its reminders, those whose ids lie
// behind after, in the order of ids, at most limit.
func (r Reader) Schedules(shard nola.ShardID, ref nola.ActorRef, reminder bool, after string, limit int) (list []ScheduleRow, err error) {
	from := appendScheduleKey(nil, reminder, after)
	if after != "" {
		from = append(from, 0)
	}
	to := successor(nil, appendScheduleKey(nil, reminder, ""))
	err = scanSome(r, Range{Table: TableSchedule, Shard: shard, Actor: ref, From: from, To: to}, limit, func(key, value []byte) error {
		s, err := decodeSchedule(ref, key, value)
		list = append(list, ScheduleRow{Schedule: s})
		return of(ref, err)
	})
	for i := 0; err == nil && i < len(list); i++ {
		err = r.progress(shard, ref, &list[i])
	}
	return list, err
}

func (r Reader) progress(shard nola.ShardID, ref nola.ActorRef, row *ScheduleRow) error {
	key := appendScheduleKey(nil, row.Schedule.Reminder, row.Schedule.ID)
	value, found, err := r.Get(Row{Table: TableProgress, Shard: shard, Actor: ref, Key: key})
	if !found || err != nil {
		return err
	}
	row.Progress, row.Records, err = decodeProgress(value)
	return of(ref, err)
}

// Occurrences answers the records of a schedule's occurrences, the one with the
// newest nominal time first.
func (r Reader) Occurrences(shard nola.ShardID, ref nola.ActorRef, reminder bool, id string) ([]nola.Occurrence, error) {
	type numbered struct {
		number uint64
		o      nola.Occurrence
	}
	var all []numbered
	prefix := appendOccurrencePrefix(nil, reminder, id)
	err := scanSome(r, Range{Table: TableOccurrence, Shard: shard, Actor: ref, From: prefix, To: successor(nil, prefix)}, nola.OccurrencesMax, func(_, value []byte) error {
		number, o, err := decodeOccurrence(value)
		all = append(all, numbered{number, o})
		return of(ref, err)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b numbered) int {
		if c := b.o.Nominal.Compare(a.o.Nominal); c != 0 {
			return c
		}
		if a.number > b.number {
			return -1
		}
		return 1
	})
	list := make([]nola.Occurrence, len(all))
	for i := range all {
		list[i] = all[i].o
	}
	return list, nil
}

// RecentOccurrences answers the n records of a schedule's occurrences that were
// begun last, the newest first, with one read for each. Unlike Occurrences it
// takes them in the order of their recording.
func (r Reader) RecentOccurrences(shard nola.ShardID, row *ScheduleRow, n int) (list []nola.Occurrence, err error) {
	s := &row.Schedule
	for number := row.Records; number > 0 && row.Records-number < uint64(min(n, nola.OccurrencesMax)); number-- {
		key := appendOccurrenceKey(nil, s.Reminder, s.ID, number-1)
		value, found, err := r.Get(Row{Table: TableOccurrence, Shard: shard, Actor: s.Target, Key: key})
		if err != nil {
			return nil, err
		}
		if !found {
			break // older ones are gone too
		}
		_, o, err := decodeOccurrence(value)
		if err != nil {
			return nil, of(s.Target, err)
		}
		list = append(list, o)
	}
	return list, nil
}

// Due answers entries of the due index that are due at until or before, in
// order, those behind after only (the zero DueRow: from the start), at most
// limit. Of after, only what makes the key counts. A due time outside of what
// 64 bits of nanoseconds hold comes back as the nearest one inside.
func (r Reader) Due(shard nola.ShardID, after DueRow, until time.Time, limit int) (list []DueRow, err error) {
	var from []byte
	if !after.Due.IsZero() || after.Kind != 0 {
		from = append(appendDueKey(nil, after.Due, after.Target, after.Kind, after.Name), 0)
	}
	to := successor(nil, appendDueTime(nil, until))
	err = scanSome(r, Range{Table: TableDue, Shard: shard, From: from, To: to}, limit, func(key, value []byte) error {
		row, err := decodeDue(key, value)
		list = append(list, row)
		return err
	})
	return list, err
}

// Outcome answers what is recorded under an invocation id.
func (r Reader) Outcome(shard nola.ShardID, id nola.InvocationID) (OutcomeRecord, bool, error) {
	rec, found, err := r.outcome(Row{Table: TableOutcome, Shard: shard, Key: id[:]})
	if found {
		rec.ID = id
	}
	return rec, found, err
}

// Session answers what is recorded under a session key. An outcome of another
// call in the key's slot is not found; see SessionSlot.
func (r Reader) Session(shard nola.ShardID, ref nola.ActorRef, key nola.Key) (OutcomeRecord, bool, error) {
	rec, found, err := r.SessionSlot(shard, ref, key)
	if rec.Seq != key.Seq {
		return OutcomeRecord{}, false, err
	}
	return rec, found, err
}

// SessionSlot answers what is recorded in the slot of a session key. Calls of
// one session that are nola.SessionWindow apart share a slot, so the record's
// Seq may differ from the key's: a higher one means that a later call has taken
// the slot.
func (r Reader) SessionSlot(shard nola.ShardID, ref nola.ActorRef, key nola.Key) (OutcomeRecord, bool, error) {
	rec, found, err := r.outcome(Row{Table: TableSession, Shard: shard, Key: appendSessionKey(nil, ref, key)})
	if found {
		rec.Target = ref
	}
	return rec, found, of(ref, err)
}

// UserKey answers what is recorded under a user's idempotency key.
func (r Reader) UserKey(shard nola.ShardID, ref nola.ActorRef, key string) (OutcomeRecord, bool, error) {
	hash := UserKeyHash(key)
	rec, found, err := r.outcome(Row{Table: TableUserKey, Shard: shard, Actor: ref, Key: hash[:]})
	if found {
		rec.Target = ref
	}
	return rec, found, of(ref, err)
}

func (r Reader) outcome(row Row) (OutcomeRecord, bool, error) {
	value, found, err := r.Get(row)
	if !found || err != nil {
		return OutcomeRecord{}, false, err
	}
	rec, err := decodeOutcome(value)
	return rec, err == nil, err
}

// UserKeys answers the count of the actor's idempotency keys, zero if it has
// none.
func (r Reader) UserKeys(shard nola.ShardID, ref nola.ActorRef) (UserKeys, error) {
	value, found, err := r.Get(Row{Table: TableUserKey, Shard: shard, Actor: ref})
	if !found || err != nil {
		return UserKeys{}, err
	}
	rec, err := decodeUserKeys(value)
	return rec, of(ref, err)
}

// ExpiredUserKeys answers the UserKeyHash of idempotency keys that were recorded
// before that time, at most limit. It reads all keys of the actor.
func (r Reader) ExpiredUserKeys(shard nola.ShardID, ref nola.ActorRef, before time.Time, limit int) (list [][16]byte, err error) {
	behindCount := []byte{0}
	err = scan(r, Range{Table: TableUserKey, Shard: shard, Actor: ref, From: behindCount}, func(key, value []byte) (bool, error) {
		if len(list) >= limit {
			return false, nil
		}
		rec, err := decodeOutcome(value)
		if err == nil && len(key) != 16 {
			err = damaged("user key", errKey)
		}
		if err == nil && rec.Time.Before(before) {
			list = append(list, [16]byte(key))
		}
		return true, of(ref, err)
	})
	return list, err
}

// Outbox answers the casts on their way to a shard, from that number on, at
// most limit.
func (r Reader) Outbox(shard, to nola.ShardID, from uint64, limit int) (list []OutboxRow, err error) {
	end := successor(nil, binary.BigEndian.AppendUint32(nil, uint32(to)))
	err = scanSome(r, Range{Table: TableOutbox, Shard: shard, From: appendOutboxKey(nil, to, from), To: end}, limit, func(key, value []byte) error {
		row, err := decodeOutbox(key, value)
		list = append(list, row)
		return err
	})
	return list, err
}

// OutboxBounds are the first and the last number of the casts on their way to a shard.
type OutboxBounds struct {
	To          nola.ShardID
	First, Last uint64
}

// OutboxBounds answers the bounds of the casts on their way to the shards from first
// to last, in order, at most limit. It takes two reads for each.
func (r Reader) OutboxBounds(shard, first, last nola.ShardID, limit int) (list []OutboxBounds, err error) {
	prefix := func(to nola.ShardID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(to)) }
	end := successor(nil, prefix(last))
	one := func(rng Range) (to nola.ShardID, n uint64, found bool, err error) {
		rng.Table, rng.Shard = TableOutbox, shard
		err = scanSome(r, rng, 1, func(key, _ []byte) (err error) {
			if to, n, err = parseOutboxKey(key); err != nil {
				return damaged("outbox", err)
			}
			found = true
			return nil
		})
		return to, n, found, err
	}
	for from := prefix(first); len(list) < limit && (len(end) == 0 || bytes.Compare(from, end) < 0); {
		var b OutboxBounds
		var found bool
		if b.To, b.First, found, err = one(Range{From: from, To: end}); err != nil || !found {
			return list, err
		}
		behind := successor(nil, prefix(b.To))
		if _, b.Last, found, err = one(Range{From: prefix(b.To), To: behind, Reverse: true}); err != nil {
			return list, err
		}
		if found { // else they were taken meanwhile
			list = append(list, b)
		}
		if len(behind) == 0 {
			return list, nil
		}
		from = behind
	}
	return list, nil
}

// Inbox answers what the shard took from all others, in their order.
func (r Reader) Inbox(shard nola.ShardID) (list []InboxRow, err error) {
	err = scan(r, Range{Table: TableInbox, Shard: shard}, func(key, value []byte) (bool, error) {
		if len(key) != 4 {
			return false, damaged("inbox", errKey)
		}
		row, err := decodeInbox(nola.ShardID(binary.BigEndian.Uint32(key)), value)
		list = append(list, row)
		return true, err
	})
	return list, err
}

// Floors answers what the shard may have forgotten; zero times if nothing.
func (r Reader) Floors(shard nola.ShardID) (Floors, error) {
	value, found, err := r.Get(Row{Table: TableFloors, Shard: shard})
	if !found || err != nil {
		return Floors{}, err
	}
	return decodeFloors(value)
}

// scan is Store.Scan with a function that may fail.
func scan(s Store, rng Range, fn func(key, value []byte) (bool, error)) error {
	var failed error
	err := s.Scan(rng, func(key, value []byte) bool {
		var more bool
		more, failed = fn(key, value)
		return more && failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// scanSome scans at most limit rows.
func scanSome(s Store, rng Range, limit int, fn func(key, value []byte) error) error {
	if limit <= 0 {
		return nil
	}
	return scan(s, rng, func(key, value []byte) (bool, error) {
		limit--
		return limit > 0, fn(key, value)
	})
}

// of names the actor whose record could not be read.
func of(ref nola.ActorRef, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", ref, err)
}
