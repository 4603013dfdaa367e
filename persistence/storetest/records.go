package storetest

import (
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Shard is the shard that the records of Records live in.
const Shard nola.ShardID = 3

// Actor is whom the records of Records belong to.
var Actor = nola.ActorRef{Namespace: "shop", Type: "cart", ID: "user/17 {é}"}

// Record is one kind of stored record: how it is written, read and what must
// come back.
type Record struct {
	Name  string
	Write func(b *persistence.Batch)
	Read  func(r persistence.Reader) (any, bool, error)
	Want  any
}

func at(seconds int64, nanos int64) time.Time { return time.Unix(1_800_000_000+seconds, nanos).UTC() }

func id(first byte) (id nola.InvocationID) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

// Invocation has every field set.
func Invocation() *nola.Invocation {
	return &nola.Invocation{
		ID:        nola.MakeInvocationID(at(0, 0), [10]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}),
		Kind:      nola.KindCast,
		Key:       nola.Key{Session: nola.SessionID{9, 8, 7}, Seq: 1030, AckedBelow: 1000, FirstAttempt: at(-1, 1), Nested: true},
		Target:    Actor,
		Operation: "add\xff", // guests may name operations as they like
		Payload:   []byte{0, 1, 2},
		Caller: nola.Caller{
			Actor:    nola.ActorRef{Namespace: "shop", Type: "user", ID: "17"},
			Parent:   id(1),
			Name:     "nightly",
			Nominal:  at(60, 0),
			Identity: "alice",
		},
		Chain:    []nola.ActorRef{{Namespace: "shop", Type: "user", ID: "17"}, {Namespace: "shop", Type: "user", ID: "18"}},
		Deadline: at(15, 0),
		Due:      at(5, 999_999_999),
		Started:  at(6, 0),
		Attempt:  2,
		Create:   true,
	}
}

func failure() persistence.OutcomeRecord {
	return persistence.OutcomeRecord{
		ID:     id(3),
		Target: Actor,
		Hash:   [16]byte(id(4)),
		Time:   at(7, 7),
		State:  persistence.StateFailed,
		Err: &nola.Error{
			Reason:     nola.ReasonGuestError,
			Message:    "no such \xff item",
			Metadata:   map[string]string{"limit": "mailbox", "value": "1"},
			RetryAfter: 50 * time.Millisecond,
		},
		Attempts: 3,
	}
}

// Deferred has every field set.
func Deferred() persistence.DeferredRecord {
	return persistence.DeferredRecord{
		Token: nola.Token(id(5)), Deadline: at(15, 0), Invocation: Invocation(), Hash: [16]byte(id(4)),
		Schedule: "nightly", Kind: nola.OccurrenceTrigger, RequestID: "r1",
	}
}

// Memory has every field set.
func Memory() *nola.Memory {
	m := &nola.Memory{
		MemoryHead: nola.MemoryHead{Image: [32]byte{1, 31: 2}, Version: 3, Bytes: 1 << 17, Clock: 1_800_000_000_000_000_001, Globals: []byte{0, 1}},
		Inline:     true,
	}
	m.Set(7, []byte{1, 2, 3})
	m.Set(258, []byte{0})
	return m
}

// Records are examples of every kind of record that belongs to an actor or a
// shard, with all fields set.
func Records() []Record {
	success := persistence.OutcomeRecord{ID: id(2), Target: Actor, Time: at(7, 0), State: persistence.StateSucceeded, Reply: []byte("ok"), Attempts: 1}
	sessionKey := nola.Key{Session: nola.SessionID{1, 2}, Seq: 1025, FirstAttempt: at(0, 0)}
	nestedKey := nola.Key{Session: nola.SessionID{3}, Seq: 2, FirstAttempt: at(0, 0), Nested: true}
	session, nested, user := success, failure(), failure()
	session.Seq, nested.Seq = sessionKey.Seq, nestedKey.Seq
	meta := persistence.Meta{Created: at(0, 5), Incarnation: 77, InitPayload: []byte("init"), KeepsMemory: true}
	timer := persistence.TimerRecord{Name: "wake", Operation: "ring", Due: at(9, 1)}
	due := persistence.DueRow{Due: at(9, 1), Target: Actor, Kind: persistence.DueTimer, Name: "wake", Invocation: Invocation()}
	expiry := persistence.DueRow{Due: at(10, 0), Target: Actor, Kind: persistence.DueKeyExpiry}
	backlog := persistence.BacklogRow{Number: 258, Total: 1 << 40, Invocation: Invocation()}
	outbox := persistence.OutboxRow{To: 7, Number: 513, Invocation: Invocation()}
	inbox := persistence.InboxRow{From: 9, Epoch: 4, Low: 1000, Seen: [persistence.StreamWindow / 64]uint64{1, 0, 1 << 63, 5}}
	userKeys := persistence.UserKeys{Count: 12, Delayed: 3, Expiry: at(86_400, 0)}
	floors := persistence.Floors{Sessions: at(1, 0), Nested: at(2, 0), Outcomes: at(3, 0)}
	deferred := Deferred()
	waits := persistence.OutcomeRecord{ID: id(6), Target: Actor, Time: at(7, 0), State: persistence.StatePending, Attempts: 1, Deferred: deferred.Token}
	inline, spread := Memory(), Memory()
	spread.Inline = false
	schedule, progress := Schedule(), Progress()
	reminder := nola.Schedule{Namespace: "shop", ID: "tick", Target: Actor, Operation: "tick", Reminder: true}
	occurrence := nola.Occurrence{
		Nominal: at(60, 0), Kind: nola.OccurrenceRegular, Outcome: nola.OutcomeFired, OK: true, Error: "none",
		Started: at(60, 1), Ended: at(61, 0), Attempts: 1, Last: at(62, 0), Count: 2, Number: 1003,
	}
	older := nola.Occurrence{Nominal: at(0, 0), Kind: nola.OccurrenceTrigger, Outcome: nola.OutcomeSkippedOverlap, Count: 1, Number: 1002}

	return []Record{
		{
			"meta", func(b *persistence.Batch) { b.PutMeta(Actor, meta) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Meta(Shard, Actor)) }, meta,
		},
		{
			"state", func(b *persistence.Batch) { b.PutState(Actor, "k\x00\xff", []byte{0, 1}) },
			func(r persistence.Reader) (any, bool, error) { return three(r.State(Shard, Actor, "k\x00\xff")) },
			[]byte{0, 1},
		},
		{"memory", func(b *persistence.Batch) {
			b.PutMemory(Actor, inline) // which the rows replace
			b.DeleteMemory(Actor)
			b.PutMemory(Actor, spread)
			for _, n := range spread.Numbers() {
				b.PutMemoryPage(Actor, n, spread.Pages[n])
			}
			b.PutMemoryPage(Actor, 9, []byte{1})
			b.DeleteMemoryPage(Actor, 9)
		}, func(r persistence.Reader) (any, bool, error) { return three(r.Memory(Shard, Actor)) }, spread},
		{
			"timer", func(b *persistence.Batch) { b.PutTimer(Actor, timer) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Timer(Shard, Actor, "wake")) }, timer,
		},
		{
			"deferred", func(b *persistence.Batch) { b.PutDeferred(Actor, &deferred) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Deferred(Shard, Actor, deferred.Token)) }, deferred,
		},
		{
			"deferred outcome", func(b *persistence.Batch) { b.PutOutcome(waits) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Outcome(Shard, waits.ID)) }, waits,
		},
		{
			"due", func(b *persistence.Batch) { b.PutDue(due); b.PutDue(expiry) },
			func(r persistence.Reader) (any, bool, error) {
				return two(r.Due(Shard, persistence.DueRow{}, at(10, 0), 9))
			},
			[]persistence.DueRow{due, expiry},
		},
		{
			"backlog", func(b *persistence.Batch) { b.PutBacklog(Actor, backlog) },
			func(r persistence.Reader) (any, bool, error) { return two(r.Backlog(Shard, Actor, 258, 9, 1<<20)) },
			[]persistence.BacklogRow{backlog},
		},
		{"schedule", func(b *persistence.Batch) {
			b.PutSchedule(Actor, &schedule)
			b.PutProgress(Actor, false, schedule.ID, &progress, 5)
		}, func(r persistence.Reader) (any, bool, error) {
			return three(r.Schedule(Shard, Actor, false, schedule.ID))
		}, persistence.ScheduleRow{Schedule: schedule, Progress: progress, Records: 5}},
		{
			"reminder", func(b *persistence.Batch) { b.PutSchedule(Actor, &reminder) },
			func(r persistence.Reader) (any, bool, error) { return two(r.Schedules(Shard, Actor, true, "", 9)) },
			[]persistence.ScheduleRow{{Schedule: reminder}},
		},
		{"occurrence", func(b *persistence.Batch) {
			b.PutOccurrence(Actor, false, schedule.ID, 1001, older)
			b.PutOccurrence(Actor, false, schedule.ID, 1002, occurrence)
		}, func(r persistence.Reader) (any, bool, error) {
			return two(r.Occurrences(Shard, Actor, false, schedule.ID))
		}, []nola.Occurrence{occurrence, older}},
		{
			"outcome", func(b *persistence.Batch) { b.PutOutcome(success) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Outcome(Shard, success.ID)) }, success,
		},
		{
			"session", func(b *persistence.Batch) { b.PutSession(Actor, sessionKey, success) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Session(Shard, Actor, sessionKey)) }, session,
		},
		{
			"nested", func(b *persistence.Batch) { b.PutSession(Actor, nestedKey, nested) },
			func(r persistence.Reader) (any, bool, error) { return three(r.Session(Shard, Actor, nestedKey)) }, nested,
		},
		{
			"user key", func(b *persistence.Batch) { b.PutUserKey(Actor, "order-1", user) },
			func(r persistence.Reader) (any, bool, error) { return three(r.UserKey(Shard, Actor, "order-1")) }, user,
		},
		{
			"user keys", func(b *persistence.Batch) { b.PutUserKeys(Actor, userKeys) },
			func(r persistence.Reader) (any, bool, error) { return two(r.UserKeys(Shard, Actor)) }, userKeys,
		},
		{
			"outbox", func(b *persistence.Batch) { b.PutOutbox(outbox) },
			func(r persistence.Reader) (any, bool, error) { return two(r.Outbox(Shard, 7, 0, 9)) },
			[]persistence.OutboxRow{outbox},
		},
		{
			"inbox", func(b *persistence.Batch) { b.PutInbox(inbox) },
			func(r persistence.Reader) (any, bool, error) { return two(r.Inbox(Shard)) },
			[]persistence.InboxRow{inbox},
		},
		{
			"floors", func(b *persistence.Batch) { b.PutFloors(floors) },
			func(r persistence.Reader) (any, bool, error) { return two(r.Floors(Shard)) }, floors,
		},
	}
}

// Schedule has every field set.
func Schedule() nola.Schedule {
	return nola.Schedule{
		Namespace: "shop", ID: "nightly/é", Incarnation: 5, Target: Actor, Operation: "sweep", Payload: []byte("p"),
		Spec: nola.Spec{
			Cron:     []nola.Cron{{Expression: "0 3 * * *", Dialect: nola.DialectUnix, DayMatch: nola.DayMatchOr, TimeZone: "Europe/Vienna", Comment: "night"}},
			Interval: []nola.Interval{{Every: time.Hour, Phase: time.Minute}, {Every: time.Minute, Anchor: at(3, 4)}, {Every: time.Second, Anchored: true}},
			Calendar: []nola.CalendarSpec{{
				Second: "1", Minute: "2", Hour: "3", DayOfMonth: "4", Month: "5", DayOfWeek: "6", Year: "2030",
				Dialect: nola.DialectFull, DayMatch: nola.DayMatchOr, TimeZone: "Asia/Tokyo", Comment: "once",
			}},
			CalendarInterval: []nola.CalendarInterval{
				{Every: 2, Unit: nola.UnitMonth, At: 9 * time.Hour, From: nola.Date{Year: 2026, Month: 1, Day: 31}, TimeZone: "Asia/Tokyo", Comment: "rent"},
				{Every: 1, Unit: nola.UnitDay},
			},
			Exclude: []nola.Exclude{
				{Calendar: &nola.CalendarSpec{Month: "12"}, TimeZone: "Europe/Paris", Comment: "quiet"},
				{HolidayCalendar: "bank"},
				{Dates: nola.DateRange{From: nola.Date{Year: 2026, Month: 2, Day: 3}, To: nola.Date{Year: 2026, Month: 2, Day: 5}}},
			},
			HolidayCalendar: "bank",
			At:              []time.Time{at(100, 0), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)},
			TimeZone:        "UTC", Start: at(0, 0), End: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
			Jitter: time.Second, DSTGap: nola.GapShift, DSTOverlap: nola.OverlapLast,
		},
		Calendars: []nola.Calendar{{
			Namespace: "shop", Name: "bank", Version: 3, Comment: "closed", Created: at(0, 0), Updated: at(1, 0),
			Dates: []nola.DateRange{{From: nola.Date{Year: 2026, Month: 5, Day: 1}}},
			Rules: []nola.HolidayRule{{DayOfMonth: "1", Month: "2", DayOfWeek: "3", Year: "2026", Comment: "new"}, {Easter: nola.EasterWestern, Offset: -2}},
		}},
		Policy: nola.Policy{
			Overlap: nola.OverlapAllowAll, Catchup: nola.Catchup{Mode: nola.CatchupFirst, Window: time.Hour, Max: 10, Spacing: time.Second},
			BufferLimit: 7, MaxConcurrent: 3, PauseAfterFailures: 4,
			Retry: nola.Retry{Deadline: time.Hour, BackoffMin: time.Second, BackoffMax: time.Minute, AttemptsMax: 9},
		},
		Paused: true, PausedUntil: at(500, 0), Note: "holiday", PauseReason: "2 firings failed", PausedBy: "ops", Limited: true, Remaining: 3,
		Labels: map[string]string{"team": "ops", "a": "b"}, ETag: 8, Created: at(0, 1), Updated: at(2, 0),
	}
}

// Progress has every field set.
func Progress() nola.Progress {
	return nola.Progress{
		Through: at(10, 0), Due: at(20, 0),
		Running: []nola.Running{
			{Nominal: at(10, 0), Kind: nola.OccurrenceTrigger, Started: at(11, 0), Attempts: 2, RequestID: "r1", Payload: []byte("own")},
			{Nominal: at(11, 0), Kind: nola.OccurrenceTrigger, Payload: []byte{}},
			{Nominal: at(12, 0), Kind: nola.OccurrenceRegular},
			{Nominal: at(13, 0), Kind: nola.OccurrenceRegular, Started: at(13, 0), Attempts: 1, Deferred: true},
		},
		Counters: map[nola.Outcome]nola.Counter{
			nola.OutcomeFired:        {Count: 9, First: at(1, 0), Last: at(9, 0)},
			nola.OutcomeMissedWindow: {Count: 1, First: at(3, 0), Last: at(3, 0)},
		},
		Requests: []nola.Request{{ID: "r0", Nominal: at(9, 0)}, {ID: "r1", Nominal: at(10, 0)}},
		Buffer:   []nola.Running{{Nominal: at(13, 0), Kind: nola.OccurrenceBackfill, RequestID: "b1", Overlap: nola.OverlapBufferAll, Started: at(13, 0), Late: true, RetryAt: at(14, 0), Canceled: true, Terminated: true}},
		Late:     []nola.Span{{First: at(4, 0), Last: at(6, 0), Count: 3}}, LateReady: at(21, 0), FirstTaken: true,
		Exceptions: []nola.Exception{{Nominal: at(30, 0)}, {Nominal: at(31, 0), Moved: at(32, 0)}},
		Failures:   2,
		Carry: nola.Carry{
			Result: []byte("done"), ResultBytes: 4, ResultNominal: at(8, 0),
			Failure: "no", FailureBytes: 2_000, FailureReason: nola.ReasonGuestError, FailureNominal: at(9, 0),
		},
		Backfills: []nola.Backfill{{
			ID: "b1", Start: at(1, 0), End: at(8, 0), Overlap: nola.OverlapAllowAll, Rate: 5, Reverse: true, State: nola.BackfillCanceled,
			Total: 8, Started: 3, OK: 1, Failed: 2, Cursor: at(6, 0), Ready: at(15, 0), Created: at(12, 0), Ended: at(16, 0),
		}},
		DeadLetters: []nola.DeadLetter{{
			Number: 4, Nominal: at(2, 0), Kind: nola.OccurrenceTrigger, RequestID: "r0", Payload: []byte{}, Reason: nola.ReasonGuestError,
			Error: "no", Attempts: 6, Started: at(2, 1), Failed: at(3, 0),
		}},
		LettersMade: 4, LettersLost: 1,
	}
}

func two[T any](v T, err error) (any, bool, error)               { return v, err == nil, err }
func three[T any](v T, found bool, err error) (any, bool, error) { return v, found, err }
