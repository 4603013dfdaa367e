package nola

import (
	"maps"
	"slices"
	"time"
)

// Limits of schedules.
const (
	ScheduleIDBytesMax = 256
	SpecEntriesMax     = 100   // entries of one spec of all kinds, together
	SpecExcludesMax    = 100   // excludes of one spec
	LabelsMax          = 32    // of one schedule
	LabelBytesMax      = 256   // a label's name or value
	OccurrencesMax     = 1_000 // records kept of one schedule, the last ones
	RunningMax         = 100   // firings of one schedule that may run at once
)

// Spec says at which nominal times a schedule is due: the union of its entries
// between Start and End, without what Exclude takes away. Compile it with
// scheduler.Compile.
type Spec struct {
	Cron             []Cron
	Calendar         []CalendarSpec
	Interval         []Interval
	CalendarInterval []CalendarInterval
	At               []time.Time
	Exclude          []Exclude
	// HolidayCalendar names the [Calendar] whose dates are no business days (nB,
	// L-nB and B in a day-of-month field). Empty: Monday to Friday are business
	// days.
	HolidayCalendar string
	// TimeZone is the IANA name used where an entry names none; empty is UTC.
	TimeZone string
	// Start and End bound the nominal times, both inclusive; zero is unbounded.
	Start, End time.Time
	// Jitter is added to each nominal time, evenly spread in [0, Jitter); it is
	// the same for the same schedule and nominal time and never passes the next
	// nominal time.
	Jitter     time.Duration
	DSTGap     DSTGap
	DSTOverlap DSTOverlap
}

// Cron is a cron expression.
type Cron struct {
	Expression string
	Dialect    CronDialect
	DayMatch   DayMatch
	TimeZone   string
	Comment    string
}

// Interval is due at every multiple of Every, counted from an origin plus Phase.
// The origin is the Unix epoch, unless Anchor or Anchored say otherwise.
type Interval struct {
	Every time.Duration // >= 100 ms
	Phase time.Duration // 0 <= Phase < Every
	// Anchor is the origin. Zero: see Anchored.
	Anchor time.Time
	// Anchored makes the spec's Start the origin or, without one, the moment in
	// which the schedule was created.
	Anchored bool
}

// CronDialect says how an expression's fields are read.
type CronDialect uint8

// The dialects. The numbers are storage format.
const (
	DialectAuto     CronDialect = 0 // five fields are unix; others are refused unless unambiguous
	DialectUnix     CronDialect = 1 // min hour dom month dow
	DialectSeconds  CronDialect = 2 // sec min hour dom month dow
	DialectTemporal CronDialect = 3
	DialectQuartz   CronDialect = 4
	DialectCroniter CronDialect = 5
	DialectFull     CronDialect = 6 // sec min hour dom month dow year
)

// DayMatch says how the two day fields combine when both are restricted.
type DayMatch uint8

// The ways to combine day fields. The numbers are storage format.
const (
	DayMatchDefault DayMatch = 0 // the dialect's own: OR in unix, AND in full
	DayMatchAnd     DayMatch = 1
	DayMatchOr      DayMatch = 2
)

// DSTGap says what becomes of wall-clock times that a change of offset skips.
type DSTGap uint8

// The gap policies. The numbers are storage format.
const (
	GapSkip       DSTGap = 0 // they do not happen
	GapFirstAfter DSTGap = 1 // once, at the first instant after the gap
	GapShift      DSTGap = 2 // later by the length of the gap
)

// DSTOverlap says which of two equal wall-clock times counts.
type DSTOverlap uint8

// The overlap policies. The numbers are storage format.
const (
	OverlapBoth                DSTOverlap = 0
	OverlapFirst               DSTOverlap = 1
	OverlapLast                DSTOverlap = 2
	OverlapFirstUnlessInterval DSTOverlap = 3 // first, but both where second, minute or hour has *, a range or a step
)

// Policy says what becomes of nominal times that cannot simply fire.
type Policy struct {
	Overlap Overlap
	Catchup Catchup
	// BufferLimit bounds how many occurrences wait for an earlier one to end;
	// zero means BufferLimitDefault. What does not fit is recorded as dropped.
	BufferLimit int
	// MaxConcurrent is how many firings may run at once before Overlap decides;
	// zero means one, and RunningMax with OverlapAllowAll.
	MaxConcurrent int
	// PauseAfterFailures pauses the schedule when so many firings failed one
	// after another; zero means never.
	PauseAfterFailures int
	Retry              Retry
}

// Limits of policies.
const (
	BufferLimitDefault = 100
	BufferLimitMax     = 1_000
	FailuresMax        = 1_000_000 // of PauseAfterFailures
	RetryAttemptsMax   = 1_000_000
	RetryDeadlineMax   = 365 * 24 * time.Hour
	RetryBackoffMin    = 10 * time.Millisecond // the shortest that may be asked for
)

// Backoff defaults of Retry.
const (
	RetryBackoffMinDefault = 1 * time.Second
	RetryBackoffMaxDefault = 1 * time.Minute
)

// Retry says how long a firing that failed is tried again. With the zero value
// the node's own few attempts apply, to errors that are not the operation's own,
// and nothing becomes a dead letter.
type Retry struct {
	// Deadline, if not zero, has any failure tried again until so long after the
	// first attempt; a firing that has not gone well by then is a dead letter.
	Deadline time.Duration
	// The pause before the second attempt is BackoffMin, doubled before each
	// further one up to BackoffMax; zero means the defaults.
	BackoffMin, BackoffMax time.Duration
	// AttemptsMax ends the attempts before Deadline; zero means Deadline alone.
	AttemptsMax int
}

// Overlap says what happens when a nominal time comes while an earlier firing
// of the schedule still runs.
type Overlap uint8

// The overlap policies, numbered as in the API. The numbers are storage format.
const (
	OverlapSkip      Overlap = 1 // the new one is recorded as skipped
	OverlapBufferOne Overlap = 2 // the first new one waits, the others are skipped
	OverlapBufferAll Overlap = 3 // new ones wait, in order
	// OverlapCancelOther takes back the earlier one if its turn has not begun,
	// and waits for it otherwise. Of several that wait the newest fires.
	OverlapCancelOther Overlap = 4
	// OverlapTerminateOther takes it back even then: its turn is interrupted, and
	// nothing that it did stays.
	OverlapTerminateOther Overlap = 5
	OverlapAllowAll       Overlap = 6 // both run; the actor still takes them one after the other
)

// CatchupMode says which of the nominal times that passed unattended fire late.
type CatchupMode uint8

// The catch-up modes, numbered as in the API. The numbers are storage format.
const (
	CatchupAll   CatchupMode = 1
	CatchupLast  CatchupMode = 2 // the default
	CatchupFirst CatchupMode = 3
	CatchupNone  CatchupMode = 4
)

// Catch-up defaults.
const (
	CatchupWindowDefault = 365 * 24 * time.Hour
	CatchupWindowMin     = 10 * time.Second
	CatchupMaxDefault    = 1_000 // occurrences one catch-up fires at most
)

// CatchupGrace is how late an occurrence may be without counting as unattended.
const CatchupGrace = 1 * time.Second

// Catchup is the policy for nominal times that passed while the schedule could
// not be served. Those older than Window, beyond Max, or not chosen by Mode are
// recorded as missed.
type Catchup struct {
	Mode   CatchupMode   // zero means CatchupLast
	Window time.Duration // zero means CatchupWindowDefault, at least CatchupWindowMin
	Max    int           // zero means CatchupMaxDefault
	// Spacing is the least distance between the starts of two late occurrences.
	Spacing time.Duration
}

// CatchupSpacingMax is the greatest Catchup.Spacing.
const CatchupSpacingMax = 24 * time.Hour

// Outcome is what became of one nominal time.
type Outcome uint8

// The outcomes, numbered as in the API. The numbers are storage format.
const (
	OutcomeRunning        Outcome = 1
	OutcomeFired          Outcome = 2
	OutcomeSkippedOverlap Outcome = 3
	OutcomeBufferDropped  Outcome = 4
	OutcomeMissedWindow   Outcome = 5
	OutcomePaused         Outcome = 6
	OutcomeExcludedByUser Outcome = 7
	OutcomeExhausted      Outcome = 8
	OutcomeFailedStart    Outcome = 9
	OutcomeBuffered       Outcome = 10 // waits for an earlier firing to end; never recorded
	OutcomeTerminated     Outcome = 11 // a later one took its place, whatever it was at
)

// String is the outcome's name in the API, without its prefix.
func (o Outcome) String() string {
	names := [...]string{"UNSPECIFIED", "RUNNING", "FIRED", "SKIPPED_OVERLAP", "BUFFER_DROPPED", "MISSED_WINDOW", "PAUSED", "EXCLUDED_BY_USER", "EXHAUSTED", "FAILED_START", "BUFFERED", "TERMINATED"}
	if int(o) < len(names) {
		return names[o]
	}
	return "UNKNOWN"
}

// OccurrenceKind says why an occurrence exists. The numbers are storage format.
type OccurrenceKind uint8

// The kinds of occurrences.
const (
	OccurrenceRegular  OccurrenceKind = 1 // a nominal time of the spec
	OccurrenceTrigger  OccurrenceKind = 2 // somebody asked for it
	OccurrenceBackfill OccurrenceKind = 3 // a nominal time of the spec that somebody asked for again
	OccurrenceRedrive  OccurrenceKind = 4 // a dead letter that somebody sent again
)

// Occurrence is one nominal time of a schedule and what became of it. A run of
// adjacent nominal times with one outcome that did not fire is one record:
// Count of them, from Nominal to Last.
type Occurrence struct {
	Nominal time.Time
	Kind    OccurrenceKind
	Outcome Outcome
	// OK is false for a fired occurrence whose operation failed; Error and Reason
	// say why. A firing that was taken back before its turn began has
	// ReasonCanceled.
	OK     bool
	Error  string
	Reason Reason
	// RequestID is that of the trigger, the id of the backfill, or what stands for
	// the number of the dead letter.
	RequestID string
	Started   time.Time
	Ended     time.Time
	Attempts  int
	Last      time.Time
	Count     int
	// Number counts the records of the schedule in the order of their making, from
	// 1. It is 0 until it was read from a record.
	Number uint64
}

// ScheduleRef names a schedule, or a reminder of an actor.
type ScheduleRef struct {
	Target   ActorRef
	ID       string
	Reminder bool
}

// Schedule is what a user asked for. It lives in the shard of its target.
type Schedule struct {
	Namespace string
	ID        string
	// Incarnation tells two schedules apart that bear one id one after another.
	Incarnation uint64
	Target      ActorRef
	Operation   string
	Payload     []byte
	Spec        Spec
	// Calendars are the named calendars that Spec uses, as they stood when the
	// schedule or one of them was last changed.
	Calendars   []Calendar
	Policy      Policy
	Paused      bool
	PausedUntil time.Time // zero: until unpaused
	PauseReason string    // why the schedule paused itself; empty if somebody did
	PausedBy    string    // who paused it, by the name of the token; empty if that is not known
	Note        string
	// Limited counts Remaining down with each firing; at zero the schedule rests.
	Limited   bool
	Remaining int64
	Labels    map[string]string
	ETag      uint64 // changes with each change by a user, never by firing; never 0
	Created   time.Time
	Updated   time.Time
	Reminder  bool
}

// Running is a firing whose turn has not been committed yet, or an occurrence
// that waits to become one.
type Running struct {
	Nominal   time.Time
	Kind      OccurrenceKind
	Started   time.Time
	Attempts  int
	RequestID string
	// Payload replaces the schedule's, for a trigger that brought its own.
	Payload []byte
	// Overlap is the policy of this occurrence alone; zero means the schedule's.
	Overlap Overlap
	// Late says that a catch-up started it.
	Late bool
	// RetryAt is when the next attempt begins, zero if one runs.
	RetryAt time.Time
	// Canceled says that a later occurrence takes its place: it ends as canceled
	// unless its turn has begun, and with Terminated as terminated, even then.
	Canceled, Terminated bool
	// Deferred says that its turn has been committed, and ended without a reply:
	// it runs until somebody answers it.
	Deferred bool
}

// Span is a run of nominal times that wait for their catch-up.
type Span struct {
	First, Last time.Time
	Count       int
}

// Exception takes one nominal time out of its row.
type Exception struct {
	Nominal time.Time
	// Moved is when it fires instead; zero means that it does not.
	Moved time.Time
}

// Request is a trigger that was carried out.
type Request struct {
	ID      string
	Nominal time.Time
}

// BackfillState says where a backfill stands. The numbers are storage format.
type BackfillState uint8

// The states of a backfill.
const (
	BackfillRunning  BackfillState = 1
	BackfillDone     BackfillState = 2
	BackfillCanceled BackfillState = 3
)

// Backfill fires the nominal times of a range that lies in the past. Both ends
// are inclusive.
type Backfill struct {
	ID         string // the request's
	Start, End time.Time
	// Overlap is OverlapBufferAll, one after the other, or OverlapAllowAll.
	Overlap Overlap
	Rate    int  // starts a second, at most
	Reverse bool // the newest first
	State   BackfillState
	// Total is how many nominal times the range had when the backfill was made.
	Total int
	// Started, OK and Failed count what has become of them so far.
	Started, OK, Failed int
	// Cursor is the last nominal time that was started, zero if none was.
	Cursor  time.Time
	Ready   time.Time // the rate allows no start before
	Created time.Time
	Ended   time.Time
}

// DeadLetter is a firing that failed for good.
type DeadLetter struct {
	Number    uint64 // in the order of their failing, from 1
	Nominal   time.Time
	Kind      OccurrenceKind
	RequestID string
	Payload   []byte // of a trigger that brought its own
	Reason    Reason
	Error     string
	Attempts  int
	Started   time.Time
	Failed    time.Time
}

// Counter counts the occurrences of one outcome.
type Counter struct {
	Count       uint64
	First, Last time.Time
}

// Progress is where a schedule stands. It is committed with what moves it.
type Progress struct {
	// Through is the newest nominal time that has an outcome or runs.
	Through time.Time
	// Due is when the schedule must be looked at next, zero if never.
	Due      time.Time
	Running  []Running
	Counters map[Outcome]Counter
	// Requests are the recent triggers, newest last.
	Requests []Request
	// Buffer are occurrences whose time has come and that wait for an earlier
	// one to end, in order.
	Buffer []Running
	// Late are nominal times up to Through that wait for their catch-up.
	Late []Span
	// LateReady is when the spacing lets the next late one start.
	LateReady time.Time
	// FirstTaken says that a FIRST catch-up under way has fired its first.
	FirstTaken bool
	// Exceptions are sorted by nominal time.
	Exceptions []Exception
	// Failures is how many firings failed since one went well.
	Failures int
	// Carry is what the next firing learns of those that have ended.
	Carry     Carry
	Backfills []Backfill
	// DeadLetters are sorted by number; LettersMade numbers them, LettersLost
	// counts those that had to make room.
	DeadLetters []DeadLetter
	LettersMade uint64
	LettersLost uint64
}

// Carry is what a firing learns of those of its schedule that ended before it.
type Carry struct {
	// Result is what the newest firing that went well answered, ResultBytes how
	// long that is: one of more than CarryBytesMax is missing here.
	Result      []byte
	ResultBytes int
	// ResultNominal is that firing's nominal time; zero: none has gone well.
	ResultNominal time.Time
	// Failure is how the newest firing failed, if none has gone well since. It is
	// cut to CarryErrorMax; FailureBytes is its whole length.
	Failure       string
	FailureBytes  int
	FailureReason Reason
	// FailureNominal is that firing's nominal time; zero: none has failed since.
	FailureNominal time.Time
}

// IsZero reports whether there is nothing to be learned.
func (c *Carry) IsZero() bool {
	return c.ResultNominal.IsZero() && c.FailureNominal.IsZero() && c.ResultBytes == 0 && c.FailureBytes == 0
}

// Clone answers a copy that shares no list or map with p.
func (p *Progress) Clone() Progress {
	c := *p
	c.Running = slices.Clone(p.Running)
	c.Counters = maps.Clone(p.Counters)
	c.Requests = slices.Clone(p.Requests)
	c.Buffer = slices.Clone(p.Buffer)
	c.Late = slices.Clone(p.Late)
	c.Exceptions = slices.Clone(p.Exceptions)
	c.Backfills = slices.Clone(p.Backfills)
	c.DeadLetters = slices.Clone(p.DeadLetters)
	return c
}

// Limits of what a schedule's progress holds.
const (
	ExceptionsMax    = 100      // nominal times skipped or moved and not yet passed
	LateSpansMax     = 16       // runs of late times; what does not fit is missed
	BackfillsMax     = 10       // that run
	BackfillsKept    = 20       // that run, and the newest that have ended
	BackfillTimesMax = 100_000  // nominal times of one backfill
	BackfillRate     = 10       // starts a second, unless asked otherwise
	BackfillRateMax  = 1_000    // starts a second
	DeadLettersMax   = 50       // the oldest makes room
	CarryBytesMax    = 64 << 10 // a longer result is not carried to the next firing, its length is
	CarryErrorMax    = 1 << 10  // bytes of an error that is carried, or kept in a letter; a longer one is cut
	OwnPayloadsMax   = 4 << 20  // bytes of the triggers' own payloads that run or wait
)

// RequestsMax is how many request ids of triggers a schedule remembers: the
// newest. A trigger that comes again with an older one fires again.
const RequestsMax = 100
