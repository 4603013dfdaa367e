package persistence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	storev1 "github.com/nolaproject/nola/proto/nola/store/v1"
)

// formatOne is the format byte in front of every value: behind it stands a
// message of proto/nola/store/v1, or an actor's own bytes.
const formatOne = 1

// FormatError says that a stored record has a format that this version does not
// know: a newer version has written it, or the bytes are damaged.
type FormatError struct {
	Record string // what it should be
	Found  byte
	Known  byte
}

// Error names the record, the format found and the one known.
func (e *FormatError) Error() string {
	return fmt.Sprintf("persistence: %s record has format %d, this version knows format %d: run the version that wrote it, or a newer one", e.Record, e.Found, e.Known)
}

// body answers what stands behind the format byte.
func body(record string, value []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, damaged(record, errors.New("it is empty"))
	}
	if value[0] != formatOne {
		return nil, &FormatError{Record: record, Found: value[0], Known: formatOne}
	}
	return value[1:], nil
}

func decodeMessage(record string, value []byte, m proto.Message) error {
	b, err := body(record, value)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return damaged(record, err)
	}
	return nil
}

func damaged(record string, err error) error {
	return fmt.Errorf("persistence: %s record cannot be read: %w", record, err)
}

// encodeMessage appends a value. Messages of this schema cannot fail to encode:
// no field is required and no string is checked.
func encodeMessage(b []byte, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(b, formatOne), m)
	if err != nil {
		panic(fmt.Sprintf("persistence: encode %T: %v", m, err))
	}
	return b
}

func encodeMeta(b []byte, m Meta) []byte {
	return encodeMessage(b, &storev1.Actor{Created: stamp(m.Created), Incarnation: m.Incarnation, InitPayload: m.InitPayload, KeepsMemory: m.KeepsMemory})
}

func decodeMeta(value []byte) (Meta, error) {
	var m storev1.Actor
	if err := decodeMessage("actor", value, &m); err != nil {
		return Meta{}, err
	}
	return Meta{Created: moment(m.Created), Incarnation: m.Incarnation, InitPayload: m.InitPayload, KeepsMemory: m.KeepsMemory}, nil
}

func encodeMemory(b []byte, m *nola.Memory) []byte {
	out := &storev1.Memory{
		Image: m.Image[:], Version: m.Version, Bytes: m.Bytes, Clock: m.Clock, Globals: m.Globals,
		Pages: uint32(len(m.Pages)), Size: int64(m.Size()), InRows: !m.Inline,
	}
	if m.Inline {
		for _, n := range m.Numbers() {
			out.Inline = append(out.Inline, &storev1.MemoryPage{Number: n, Difference: m.Pages[n]})
		}
	}
	return encodeMessage(b, out)
}

// storedMemory is a row of the memory, and what its pages must come to.
type storedMemory struct {
	nola.Memory
	pages int
	size  int64
}

// complete answers the memory if all its pages are there.
func (m *storedMemory) complete() (*nola.Memory, error) {
	if len(m.Pages) != m.pages || int64(m.Size()) != m.size {
		return nil, damaged("memory", fmt.Errorf("it has %d pages of together %d bytes, %d of %d were written", len(m.Pages), m.Size(), m.pages, m.size))
	}
	return &m.Memory, nil
}

func decodeMemory(value []byte) (*storedMemory, error) {
	var m storev1.Memory
	if err := decodeMessage("memory", value, &m); err != nil {
		return nil, err
	}
	rec := &storedMemory{pages: int(m.Pages), size: m.Size}
	rec.Version, rec.Bytes, rec.Clock, rec.Globals, rec.Inline = m.Version, m.Bytes, m.Clock, m.Globals, !m.InRows
	if err := fill(rec.Image[:], m.Image, "image"); err != nil {
		return nil, damaged("memory", err)
	}
	for _, p := range m.Inline {
		rec.Set(p.GetNumber(), p.GetDifference())
	}
	return rec, nil
}

func decodeMemoryPage(key, value []byte) (number uint32, difference []byte, err error) {
	if len(key) != 4 {
		return 0, nil, damaged("memory page", errKey)
	}
	difference, err = body("memory page", value)
	return binary.BigEndian.Uint32(key), difference, err
}

func encodeTimer(b []byte, rec TimerRecord) []byte {
	return encodeMessage(b, &storev1.Timer{Operation: rec.Operation, Due: stamp(rec.Due)})
}

func decodeTimer(name, value []byte) (TimerRecord, error) {
	var m storev1.Timer
	if err := decodeMessage("timer", value, &m); err != nil {
		return TimerRecord{}, err
	}
	return TimerRecord{Name: string(name), Operation: m.Operation, Due: moment(m.Due)}, nil
}

func encodeDeferred(b []byte, rec *DeferredRecord) []byte {
	b = appendTimeField(append(b, formatOne), 1, rec.Deadline)
	b = appendInvocationField(b, 2, rec.Invocation)
	if rec.Hash != [16]byte{} {
		b = appendBytesField(b, 3, rec.Hash[:])
	}
	b = appendStringField(b, 4, rec.Schedule)
	b = appendVarintField(b, 5, uint64(rec.Kind))
	return appendStringField(b, 6, rec.RequestID)
}

func decodeDeferred(key, value []byte) (DeferredRecord, error) {
	rec := DeferredRecord{}
	if len(key) != len(rec.Token) {
		return DeferredRecord{}, damaged("deferred", errKey)
	}
	var m storev1.Deferred
	if err := decodeMessage("deferred", value, &m); err != nil {
		return DeferredRecord{}, err
	}
	inv, err := invocationOf(m.Invocation)
	if err == nil && inv == nil {
		err = errors.New("it has no invocation")
	}
	rec = DeferredRecord{
		Token: nola.Token(key), Deadline: moment(m.Deadline), Invocation: inv,
		Schedule: m.Schedule, Kind: nola.OccurrenceKind(m.OccurrenceKind), RequestID: m.RequestId,
	}
	if err = errors.Join(err, fill(rec.Hash[:], m.Hash, "hash")); err != nil {
		return DeferredRecord{}, damaged("deferred", err)
	}
	return rec, nil
}

func encodeDue(b []byte, row DueRow) []byte {
	return appendInvocationField(append(b, formatOne), 1, row.Invocation)
}

func decodeDue(key, value []byte) (DueRow, error) {
	row, err := parseDueKey(key)
	if err != nil {
		return DueRow{}, damaged("due", err)
	}
	var m storev1.Due
	if err := decodeMessage("due", value, &m); err != nil {
		return DueRow{}, err
	}
	row.Invocation, err = invocationOf(m.Invocation)
	if err != nil {
		return DueRow{}, damaged("due", err)
	}
	return row, nil
}

func encodeBacklog(b []byte, row BacklogRow) []byte {
	b = appendVarintField(append(b, formatOne), 1, row.Total)
	return appendInvocationField(b, 2, row.Invocation)
}

func decodeBacklog(key, value []byte) (BacklogRow, error) {
	_, number, err := parseBacklogKey(key)
	if err != nil {
		return BacklogRow{}, damaged("backlog", err)
	}
	var m storev1.Backlog
	if err := decodeMessage("backlog", value, &m); err != nil {
		return BacklogRow{}, err
	}
	inv, err := invocationOf(m.Invocation)
	if err != nil {
		return BacklogRow{}, damaged("backlog", err)
	}
	return BacklogRow{Number: number, Total: m.Total, Invocation: inv}, nil
}

func encodeOutbox(b []byte, row OutboxRow) []byte {
	return appendInvocationField(append(b, formatOne), 1, row.Invocation)
}

func decodeOutbox(key, value []byte) (OutboxRow, error) {
	to, number, err := parseOutboxKey(key)
	if err != nil {
		return OutboxRow{}, damaged("outbox", err)
	}
	var m storev1.Outbox
	if err := decodeMessage("outbox", value, &m); err != nil {
		return OutboxRow{}, err
	}
	inv, err := invocationOf(m.Invocation)
	if err != nil {
		return OutboxRow{}, damaged("outbox", err)
	}
	return OutboxRow{To: to, Number: number, Invocation: inv}, nil
}

func encodeInbox(b []byte, row InboxRow) []byte {
	return encodeMessage(b, &storev1.Inbox{Epoch: uint64(row.Epoch), Low: row.Low, Seen: row.Seen[:]})
}

func decodeInbox(from nola.ShardID, value []byte) (InboxRow, error) {
	var m storev1.Inbox
	if err := decodeMessage("inbox", value, &m); err != nil {
		return InboxRow{}, err
	}
	row := InboxRow{From: from, Epoch: nola.Epoch(m.Epoch), Low: m.Low}
	if len(m.Seen) != len(row.Seen) {
		return InboxRow{}, damaged("inbox", fmt.Errorf("it has %d words of seen numbers, want %d", len(m.Seen), len(row.Seen)))
	}
	copy(row.Seen[:], m.Seen)
	return row, nil
}

func encodeUserKeys(b []byte, rec UserKeys) []byte {
	return encodeMessage(b, &storev1.UserKeys{Count: int64(rec.Count), Expiry: stamp(rec.Expiry), Delayed: int64(rec.Delayed)})
}

func decodeUserKeys(value []byte) (UserKeys, error) {
	var m storev1.UserKeys
	if err := decodeMessage("user keys", value, &m); err != nil {
		return UserKeys{}, err
	}
	return UserKeys{Count: int(m.Count), Expiry: moment(m.Expiry), Delayed: int(m.Delayed)}, nil
}

func encodeFloors(b []byte, rec Floors) []byte {
	return encodeMessage(b, &storev1.Floors{Sessions: stamp(rec.Sessions), Nested: stamp(rec.Nested), Outcomes: stamp(rec.Outcomes)})
}

func decodeFloors(value []byte) (Floors, error) {
	var m storev1.Floors
	if err := decodeMessage("floors", value, &m); err != nil {
		return Floors{}, err
	}
	return Floors{Sessions: moment(m.Sessions), Nested: moment(m.Nested), Outcomes: moment(m.Outcomes)}, nil
}

// encodeOutcome appends rec. The target is left out where the row's key has it.
func encodeOutcome(b []byte, rec *OutcomeRecord, byID bool) []byte {
	return appendOutcome(append(b, formatOne), rec, byID)
}

func decodeOutcome(value []byte) (OutcomeRecord, error) {
	var m storev1.Outcome
	if err := decodeMessage("outcome", value, &m); err != nil {
		return OutcomeRecord{}, err
	}
	rec := OutcomeRecord{
		Target:   refOf(m.Target),
		Seq:      m.Seq,
		Time:     moment(m.Time),
		State:    InvocationState(m.State),
		Reply:    m.Reply,
		Err:      errorOf(m.Error),
		Attempts: int(m.Attempts),
	}
	err := errors.Join(fill(rec.ID[:], m.Id, "id"), fill(rec.Hash[:], m.Hash, "hash"), fill(rec.Deferred[:], m.Deferred, "deferred"))
	if err != nil {
		return OutcomeRecord{}, damaged("outcome", err)
	}
	return rec, nil
}

func encodeSchedule(b []byte, s *nola.Schedule) []byte {
	m := &storev1.Schedule{
		Namespace:   s.Namespace,
		Incarnation: s.Incarnation,
		Operation:   s.Operation,
		Payload:     s.Payload,
		Spec: &storev1.Spec{
			TimeZone:    s.Spec.TimeZone,
			Start:       stamp(s.Spec.Start),
			End:         stamp(s.Spec.End),
			JitterNanos: int64(s.Spec.Jitter),
			DstGap:      uint32(s.Spec.DSTGap),
			DstOverlap:  uint32(s.Spec.DSTOverlap),
		},
		Policy: &storev1.Policy{
			Overlap:              uint32(s.Policy.Overlap),
			CatchupMode:          uint32(s.Policy.Catchup.Mode),
			CatchupWindowNanos:   int64(s.Policy.Catchup.Window),
			CatchupMax:           int64(s.Policy.Catchup.Max),
			BufferLimit:          int64(s.Policy.BufferLimit),
			MaxConcurrent:        int64(s.Policy.MaxConcurrent),
			PauseAfterFailures:   int64(s.Policy.PauseAfterFailures),
			CatchupSpacingNanos:  int64(s.Policy.Catchup.Spacing),
			RetryDeadlineNanos:   int64(s.Policy.Retry.Deadline),
			RetryBackoffMinNanos: int64(s.Policy.Retry.BackoffMin),
			RetryBackoffMaxNanos: int64(s.Policy.Retry.BackoffMax),
			RetryAttemptsMax:     int64(s.Policy.Retry.AttemptsMax),
		},
		PauseReason: s.PauseReason,
		PausedBy:    s.PausedBy,
		Paused:      s.Paused,
		PausedUntil: stamp(s.PausedUntil),
		Note:        s.Note,
		Limited:     s.Limited,
		Remaining:   s.Remaining,
		Labels:      s.Labels,
		Etag:        s.ETag,
		Created:     stamp(s.Created),
		Updated:     stamp(s.Updated),
	}
	for _, c := range s.Spec.Cron {
		m.Spec.Cron = append(m.Spec.Cron, &storev1.Cron{
			Expression: c.Expression,
			Dialect:    uint32(c.Dialect),
			DayMatch:   uint32(c.DayMatch),
			TimeZone:   c.TimeZone,
			Comment:    c.Comment,
		})
	}
	for _, i := range s.Spec.Interval {
		m.Spec.Interval = append(m.Spec.Interval, &storev1.Interval{EveryNanos: int64(i.Every), PhaseNanos: int64(i.Phase), Anchor: stamp(i.Anchor), Anchored: i.Anchored})
	}
	for _, t := range s.Spec.At {
		m.Spec.At = append(m.Spec.At, timestamppb.New(t))
	}
	calendarsMessage(m, s)
	return encodeMessage(b, m)
}

// decodeSchedule reads a schedule; the key says the reminder flag and the id.
func decodeSchedule(ref nola.ActorRef, key, value []byte) (nola.Schedule, error) {
	if len(key) == 0 {
		return nola.Schedule{}, damaged("schedule", errKey)
	}
	var m storev1.Schedule
	if err := decodeMessage("schedule", value, &m); err != nil {
		return nola.Schedule{}, err
	}
	s := nola.Schedule{
		Namespace:   m.Namespace,
		ID:          string(key[1:]),
		Incarnation: m.Incarnation,
		Target:      ref,
		Operation:   m.Operation,
		Payload:     m.Payload,
		Spec: nola.Spec{
			TimeZone:   m.GetSpec().GetTimeZone(),
			Start:      moment(m.GetSpec().GetStart()),
			End:        moment(m.GetSpec().GetEnd()),
			Jitter:     time.Duration(m.GetSpec().GetJitterNanos()),
			DSTGap:     nola.DSTGap(m.GetSpec().GetDstGap()),
			DSTOverlap: nola.DSTOverlap(m.GetSpec().GetDstOverlap()),
		},
		Policy: nola.Policy{
			Overlap: nola.Overlap(m.GetPolicy().GetOverlap()),
			Catchup: nola.Catchup{
				Mode:    nola.CatchupMode(m.GetPolicy().GetCatchupMode()),
				Window:  time.Duration(m.GetPolicy().GetCatchupWindowNanos()),
				Max:     int(m.GetPolicy().GetCatchupMax()),
				Spacing: time.Duration(m.GetPolicy().GetCatchupSpacingNanos()),
			},
			BufferLimit:        int(m.GetPolicy().GetBufferLimit()),
			MaxConcurrent:      int(m.GetPolicy().GetMaxConcurrent()),
			PauseAfterFailures: int(m.GetPolicy().GetPauseAfterFailures()),
			Retry: nola.Retry{
				Deadline:    time.Duration(m.GetPolicy().GetRetryDeadlineNanos()),
				BackoffMin:  time.Duration(m.GetPolicy().GetRetryBackoffMinNanos()),
				BackoffMax:  time.Duration(m.GetPolicy().GetRetryBackoffMaxNanos()),
				AttemptsMax: int(m.GetPolicy().GetRetryAttemptsMax()),
			},
		},
		PauseReason: m.PauseReason,
		PausedBy:    m.PausedBy,
		Paused:      m.Paused,
		PausedUntil: moment(m.PausedUntil),
		Note:        m.Note,
		Limited:     m.Limited,
		Remaining:   m.Remaining,
		Labels:      m.Labels,
		ETag:        m.Etag,
		Created:     moment(m.Created),
		Updated:     moment(m.Updated),
		Reminder:    key[0] != 0,
	}
	for _, c := range m.GetSpec().GetCron() {
		s.Spec.Cron = append(s.Spec.Cron, nola.Cron{
			Expression: c.Expression,
			Dialect:    nola.CronDialect(c.Dialect),
			DayMatch:   nola.DayMatch(c.DayMatch),
			TimeZone:   c.TimeZone,
			Comment:    c.Comment,
		})
	}
	for _, i := range m.GetSpec().GetInterval() {
		s.Spec.Interval = append(s.Spec.Interval, nola.Interval{Every: time.Duration(i.EveryNanos), Phase: time.Duration(i.PhaseNanos), Anchor: moment(i.Anchor), Anchored: i.Anchored})
	}
	for _, t := range m.GetSpec().GetAt() {
		s.Spec.At = append(s.Spec.At, t.AsTime())
	}
	if err := calendarsOf(&s, &m); err != nil {
		return nola.Schedule{}, damaged("schedule", err)
	}
	return s, nil
}

func encodeOccurrence(b []byte, number uint64, o nola.Occurrence) []byte {
	return encodeMessage(b, &storev1.Occurrence{
		Number:    number,
		Nominal:   stamp(o.Nominal),
		Kind:      uint32(o.Kind),
		Outcome:   uint32(o.Outcome),
		Ok:        o.OK,
		Error:     o.Error,
		Started:   stamp(o.Started),
		Ended:     stamp(o.Ended),
		Attempts:  int64(o.Attempts),
		Last:      stamp(o.Last),
		Count:     int64(o.Count),
		Reason:    string(o.Reason),
		RequestId: o.RequestID,
	})
}

func decodeOccurrence(value []byte) (number uint64, o nola.Occurrence, err error) {
	var m storev1.Occurrence
	if err := decodeMessage("occurrence", value, &m); err != nil {
		return 0, nola.Occurrence{}, err
	}
	return m.Number, nola.Occurrence{
		Nominal:   moment(m.Nominal),
		Kind:      nola.OccurrenceKind(m.Kind),
		Outcome:   nola.Outcome(m.Outcome),
		OK:        m.Ok,
		Error:     m.Error,
		Started:   moment(m.Started),
		Ended:     moment(m.Ended),
		Attempts:  int(m.Attempts),
		Last:      moment(m.Last),
		Count:     int(m.Count),
		Reason:    nola.Reason(m.Reason),
		RequestID: m.RequestId,
		Number:    m.Number + 1,
	}, nil
}

func invocationOf(m *storev1.Invocation) (*nola.Invocation, error) {
	if m == nil {
		return nil, nil
	}
	inv := &nola.Invocation{
		Kind:      nola.Kind(m.Kind),
		Target:    refOf(m.Target),
		Operation: m.Operation,
		Payload:   m.Payload,
		Deadline:  moment(m.Deadline),
		Due:       moment(m.Due),
		Started:   moment(m.Started),
		Attempt:   int(m.Attempt),
		Create:    m.Create,
	}
	err := fill(inv.ID[:], m.Id, "id")
	if k := m.Key; k != nil {
		inv.Key = nola.Key{Seq: k.Seq, AckedBelow: k.AckedBelow, FirstAttempt: moment(k.FirstAttempt), Nested: k.Nested, User: k.User}
		err = errors.Join(err, fill(inv.Key.Session[:], k.Session, "session"))
	}
	if c := m.Caller; c != nil {
		inv.Caller = nola.Caller{Actor: refOf(c.Actor), Name: c.Name, Nominal: moment(c.Nominal), Identity: c.Identity}
		err = errors.Join(err, fill(inv.Caller.Parent[:], c.Parent, "parent"))
	}
	for _, ref := range m.Chain {
		inv.Chain = append(inv.Chain, refOf(ref))
	}
	if err != nil {
		return nil, err
	}
	return inv, nil
}

func errorMessage(e *nola.Error) *storev1.Error {
	if e == nil {
		return nil
	}
	return &storev1.Error{Reason: string(e.Reason), Message: e.Message, Metadata: e.Metadata, RetryAfterNanos: int64(e.RetryAfter)}
}

func errorOf(m *storev1.Error) *nola.Error {
	if m == nil {
		return nil
	}
	return &nola.Error{Reason: nola.Reason(m.Reason), Message: m.Message, Metadata: m.Metadata, RetryAfter: time.Duration(m.RetryAfterNanos)}
}

func refMessage(r nola.ActorRef) *storev1.Ref {
	if r.IsZero() {
		return nil
	}
	return &storev1.Ref{Namespace: r.Namespace, Type: r.Type, Id: r.ID}
}

func refOf(m *storev1.Ref) nola.ActorRef {
	return nola.ActorRef{Namespace: m.GetNamespace(), Type: m.GetType(), ID: m.GetId()}
}

// fill copies a field of fixed length; a field that is not there is zeros.
func fill(to, from []byte, field string) error {
	if len(from) != 0 && len(from) != len(to) {
		return fmt.Errorf("%s has %d bytes, want %d", field, len(from), len(to))
	}
	copy(to, from)
	return nil
}

// stamp and moment carry times: the zero time is a field that is not there.
// Times come back in UTC.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
