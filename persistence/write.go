package persistence

import (
	"encoding/binary"
	"time"

	"github.com/nolaproject/nola"
)

// What rows mean, going in. The methods copy what they are given: the caller
// may change it afterwards.

// PutMeta makes the actor exist, or says anew since when it does.
func (b *Batch) PutMeta(ref nola.ActorRef, meta Meta) {
	key := b.cut()
	b.arena = encodeMeta(b.arena, meta)
	b.put(TableMeta, ref, key)
}

// ListActor makes the actor appear in listings.
func (b *Batch) ListActor(ref nola.ActorRef) { b.Add(Op{Kind: OpList, Actor: ref}) }

// DeleteActor removes every row that goes with its actor (Table.GoesWithActor),
// and its listing. What others left for it stays: its backlog, its rows in the
// due index and the outcomes under its keys.
func (b *Batch) DeleteActor(ref nola.ActorRef) { b.Add(Op{Kind: OpDeleteActor, Actor: ref}) }

// PutState sets a key of the actor's state.
func (b *Batch) PutState(ref nola.ActorRef, key string, value []byte) {
	b.arena = append(b.arena, key...)
	k := b.cut()
	b.arena = append(append(b.arena, formatOne), value...)
	b.put(TableState, ref, k)
}

// DeleteState removes a key of the actor's state.
func (b *Batch) DeleteState(ref nola.ActorRef, key string) {
	b.arena = append(b.arena, key...)
	b.delete(TableState, ref)
}

// PutMemory stores the head of the actor's memory, with its pages if m is inline.
func (b *Batch) PutMemory(ref nola.ActorRef, m *nola.Memory) {
	key := b.cut()
	b.arena = encodeMemory(b.arena, m)
	b.put(TableMemory, ref, key)
}

// PutMemoryPage stores how a page of a memory that is not inline differs from the
// image.
func (b *Batch) PutMemoryPage(ref nola.ActorRef, number uint32, difference []byte) {
	b.arena = binary.BigEndian.AppendUint32(b.arena, number)
	key := b.cut()
	b.arena = append(append(b.arena, formatOne), difference...)
	b.put(TableMemory, ref, key)
}

// DeleteMemoryPage removes the row of a page that no longer differs.
func (b *Batch) DeleteMemoryPage(ref nola.ActorRef, number uint32) {
	b.arena = binary.BigEndian.AppendUint32(b.arena, number)
	b.delete(TableMemory, ref)
}

// DeleteMemory removes the actor's memory, the rows of its pages included.
func (b *Batch) DeleteMemory(ref nola.ActorRef) {
	b.Add(Op{Kind: OpDeleteRange, Table: TableMemory, Actor: ref})
}

// PutTimer remembers a timer under its name.
func (b *Batch) PutTimer(ref nola.ActorRef, rec TimerRecord) {
	b.arena = append(b.arena, rec.Name...)
	key := b.cut()
	b.arena = encodeTimer(b.arena, rec)
	b.put(TableTimer, ref, key)
}

// DeleteTimer forgets a timer.
func (b *Batch) DeleteTimer(ref nola.ActorRef, name string) {
	b.arena = append(b.arena, name...)
	b.delete(TableTimer, ref)
}

// PutDeferred remembers a deferred invocation under its token.
func (b *Batch) PutDeferred(ref nola.ActorRef, rec *DeferredRecord) {
	b.arena = append(b.arena, rec.Token[:]...)
	key := b.cut()
	b.arena = encodeDeferred(b.arena, rec)
	b.put(TableDeferred, ref, key)
}

// DeleteDeferred forgets a deferred invocation.
func (b *Batch) DeleteDeferred(ref nola.ActorRef, token nola.Token) {
	b.arena = append(b.arena, token[:]...)
	b.delete(TableDeferred, ref)
}

// PutDue adds an entry to the due index. Two entries are one if they agree in
// due time, target, kind and name.
func (b *Batch) PutDue(row DueRow) {
	b.arena = appendDueKey(b.arena, row.Due, row.Target, row.Kind, row.Name)
	key := b.cut()
	b.arena = encodeDue(b.arena, row)
	b.put(TableDue, nola.ActorRef{}, key)
}

// DeleteDue removes an entry of the due index.
func (b *Batch) DeleteDue(due time.Time, target nola.ActorRef, kind DueKind, name string) {
	b.arena = appendDueKey(b.arena, due, target, kind, name)
	b.delete(TableDue, nola.ActorRef{})
}

// PutBacklog adds a cast to the actor's backlog.
func (b *Batch) PutBacklog(ref nola.ActorRef, row BacklogRow) {
	b.arena = appendBacklogKey(b.arena, ref, row.Number)
	key := b.cut()
	b.arena = encodeBacklog(b.arena, row)
	b.put(TableBacklog, nola.ActorRef{}, key)
}

// DeleteBacklog removes a cast from the actor's backlog.
func (b *Batch) DeleteBacklog(ref nola.ActorRef, number uint64) {
	b.arena = appendBacklogKey(b.arena, ref, number)
	b.delete(TableBacklog, nola.ActorRef{})
}

// PutSchedule stores a schedule or reminder of the actor. s.Target must be ref.
func (b *Batch) PutSchedule(ref nola.ActorRef, s *nola.Schedule) {
	b.arena = appendScheduleKey(b.arena, s.Reminder, s.ID)
	key := b.cut()
	b.arena = encodeSchedule(b.arena, s)
	b.put(TableSchedule, ref, key)
}

// PutProgress stores where a schedule stands, and how many occurrence records
// it has written.
func (b *Batch) PutProgress(ref nola.ActorRef, reminder bool, id string, p *nola.Progress, records uint64) {
	b.arena = appendScheduleKey(b.arena, reminder, id)
	key := b.cut()
	b.arena = encodeProgress(b.arena, p, records)
	b.put(TableProgress, ref, key)
}

// DeleteSchedule removes a schedule, its progress and all its occurrences.
func (b *Batch) DeleteSchedule(ref nola.ActorRef, reminder bool, id string) {
	b.arena = appendScheduleKey(b.arena, reminder, id)
	key := b.cut()
	b.Add(Op{Kind: OpDelete, Table: TableSchedule, Actor: ref, Key: key})
	b.Add(Op{Kind: OpDelete, Table: TableProgress, Actor: ref, Key: key})
	b.arena = appendOccurrencePrefix(b.arena, reminder, id)
	from := b.cut()
	b.arena = successor(b.arena, from)
	b.Add(Op{Kind: OpDeleteRange, Table: TableOccurrence, Actor: ref, Key: from, Value: b.cut()})
}

// PutOccurrence stores the occurrence record of that number in the slot of the
// one nola.OccurrencesMax before it.
func (b *Batch) PutOccurrence(ref nola.ActorRef, reminder bool, id string, number uint64, o nola.Occurrence) {
	b.arena = appendOccurrenceKey(b.arena, reminder, id, number)
	key := b.cut()
	b.arena = encodeOccurrence(b.arena, number, o)
	b.put(TableOccurrence, ref, key)
}

// PutOutcome stores an outcome under its invocation id.
func (b *Batch) PutOutcome(rec OutcomeRecord) {
	b.arena = append(b.arena, rec.ID[:]...)
	key := b.cut()
	b.arena = encodeOutcome(b.arena, &rec, true)
	b.put(TableOutcome, nola.ActorRef{}, key)
}

// DeleteOutcomesBefore removes the outcomes of ids that were made before t.
func (b *Batch) DeleteOutcomesBefore(t time.Time) {
	b.arena = appendOutcomeBound(b.arena, t)
	b.Add(Op{Kind: OpDeleteRange, Table: TableOutcome, Value: b.cut()})
}

// PutSession stores an outcome under a session key, in the slot of the key
// nola.SessionWindow before it. The record's Seq is the key's.
func (b *Batch) PutSession(ref nola.ActorRef, key nola.Key, rec OutcomeRecord) {
	rec.Seq = key.Seq
	b.arena = appendSessionKey(b.arena, ref, key)
	k := b.cut()
	b.arena = encodeOutcome(b.arena, &rec, false)
	b.put(TableSession, nola.ActorRef{}, k)
}

// DeleteSessionsBefore removes outcomes under keys whose first attempt lies
// before t: those of clients' sessions to the minute, those of nested calls to
// the hour. Some that are less than that older than t stay.
func (b *Batch) DeleteSessionsBefore(nested bool, t time.Time) {
	b.arena = appendBool(b.arena, nested)
	from := b.cut()
	b.arena = appendSessionBucket(b.arena, nested, t)
	b.Add(Op{Kind: OpDeleteRange, Table: TableSession, Key: from, Value: b.cut()})
}

// PutUserKey stores an outcome under a user's idempotency key.
func (b *Batch) PutUserKey(ref nola.ActorRef, key string, rec OutcomeRecord) {
	hash := UserKeyHash(key)
	b.arena = append(b.arena, hash[:]...)
	k := b.cut()
	b.arena = encodeOutcome(b.arena, &rec, false)
	b.put(TableUserKey, ref, k)
}

// DeleteUserKey forgets a user's idempotency key, named by its UserKeyHash.
func (b *Batch) DeleteUserKey(ref nola.ActorRef, hash [16]byte) {
	b.arena = append(b.arena, hash[:]...)
	b.delete(TableUserKey, ref)
}

// PutUserKeys stores the count of the actor's idempotency keys.
func (b *Batch) PutUserKeys(ref nola.ActorRef, rec UserKeys) {
	key := b.cut()
	b.arena = encodeUserKeys(b.arena, rec)
	b.put(TableUserKey, ref, key)
}

// PutOutbox stores a cast on its way to another shard.
func (b *Batch) PutOutbox(row OutboxRow) {
	b.arena = appendOutboxKey(b.arena, row.To, row.Number)
	key := b.cut()
	b.arena = encodeOutbox(b.arena, row)
	b.put(TableOutbox, nola.ActorRef{}, key)
}

// DeleteOutbox removes a cast that the other shard has taken.
func (b *Batch) DeleteOutbox(to nola.ShardID, number uint64) {
	b.arena = appendOutboxKey(b.arena, to, number)
	b.delete(TableOutbox, nola.ActorRef{})
}

// PutInbox stores what the shard took from another one.
func (b *Batch) PutInbox(row InboxRow) {
	b.arena = binary.BigEndian.AppendUint32(b.arena, uint32(row.From))
	key := b.cut()
	b.arena = encodeInbox(b.arena, row)
	b.put(TableInbox, nola.ActorRef{}, key)
}

// PutFloors stores what the shard may have forgotten.
func (b *Batch) PutFloors(rec Floors) {
	key := b.cut()
	b.arena = encodeFloors(b.arena, rec)
	b.put(TableFloors, nola.ActorRef{}, key)
}

// put adds a row whose value was appended to the arena behind its key.
func (b *Batch) put(table Table, actor nola.ActorRef, key []byte) {
	b.Add(Op{Kind: OpPut, Table: table, Actor: actor, Key: key, Value: b.cut()})
}

// delete removes a row whose key was appended to the arena.
func (b *Batch) delete(table Table, actor nola.ActorRef) {
	b.Add(Op{Kind: OpDelete, Table: table, Actor: actor, Key: b.cut()})
}

// cut answers what was appended to the arena since the last cut.
func (b *Batch) cut() []byte {
	end := len(b.arena)
	s := b.arena[b.cutAt:end:end]
	b.cutAt = end
	return s
}
