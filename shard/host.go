package shard

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/scheduler"
	"github.com/nolaproject/nola/shard/core"
)

// host is the world as one turn sees it: it reads the actor's state as all turns
// before left it, and keeps what this one does.
type host struct {
	r   *runner
	b   *box
	t   *core.Turn
	g   *guest
	inv *nola.Invocation

	own       map[string]nola.Write // what this turn wrote
	bytes     int
	casts     []*nola.Invocation
	timers    []nola.TimerChange
	timersSet int // how many more timers there are by them, or fewer
	reminders []nola.ReminderChange
	calls     int
	steps     uint64

	waited  time.Duration // in the pool and for a token, before the turn began
	yielded uint64        // steps of the operation that runs, when it last yielded
	rested  uint64        // the same, when it last rested or might have
	worked  time.Duration // with a run token, since then
	others  uint64        // turns begun on the node by then
	alone   time.Duration // that it rested since others began, up to aloneTime

	memory *nola.MemoryChange // nil: nothing to write
	began  bool               // an instance was started in this turn
	anew   bool               // for another version: nothing of the old memory is left

	deferral    *nola.Deferral
	completions []nola.Completion

	random    *rand.ChaCha8
	started   bool
	startedAt time.Time
	lost      error         // a nested call reached nobody: the turn is rolled back
	away      time.Duration // in nested calls

	turn   nola.Turn
	writes []nola.Write // memory for effects
}

// reset readies h for another turn; the one before has been folded or dropped.
func (h *host) reset(r *runner, b *box, t *core.Turn, g *guest) {
	own, writes := h.own, h.writes
	clear(own)
	clear(writes)
	*h = host{r: r, b: b, t: t, g: g, own: own, writes: writes[:0]}
}

// invoke runs one operation of the guest within the turn.
func (h *host) invoke(operation string, payload []byte) ([]byte, error) {
	if err := h.g.stopped(); err != nil {
		return nil, err
	}
	h.turn = nola.Turn{Operation: operation, Payload: payload, Deadline: h.deadline(), Carry: h.t.Carry, Worker: h.r.token.number}
	h.yielded, h.rested, h.worked = 0, 0, 0
	h.others, h.alone = h.r.m.begun.Load(), aloneTime
	reply, err := h.g.instance.Invoke(&h.turn, h)
	h.steps += h.turn.Steps
	h.r.steps += max(h.turn.Steps, h.yielded) - h.yielded
	return reply, err
}

func (h *host) deadline() time.Time {
	limit := h.t.Now.Add(h.waited + h.g.module.Manifest().Limits.TurnTimeout)
	if d := h.until(); !d.IsZero() && d.Before(limit) {
		return d
	}
	return limit
}

// until is the deadline of the call, zero if it has none. That of an attempt which no
// caller waits for does not run while the turn waits to begin.
func (h *host) until() time.Time {
	d := h.inv.Deadline
	if !d.IsZero() && h.t.Unawaited() {
		d = d.Add(h.waited)
	}
	return d
}

// effects hands over what the turn did.
func (h *host) effects(e *nola.Effects) {
	for _, w := range h.own {
		h.writes = append(h.writes, w)
	}
	if len(h.writes) > 1 {
		slices.SortFunc(h.writes, func(x, y nola.Write) int { return strings.Compare(x.Key, y.Key) })
	}
	e.Writes = h.writes
	e.Casts, e.Timers, e.Reminders = h.casts, h.timers, h.reminders
	e.Deferral, e.Completions, e.Memory = h.deferral, h.completions, h.memory
}

func (h *host) Invocation() *nola.Invocation { return h.inv }

func (h *host) Now() time.Time { return h.t.Now }

// Random draws from ChaCha8 keyed by HMAC-SHA-256 of the cluster's secret over
// the actor and the invocation's identity: a retried turn draws the same, and
// no client can choose it.
func (h *host) Random(b []byte) {
	if h.random == nil {
		mac := hmac.New(sha256.New, h.r.m.info.Secret[:])
		id := h.inv.Identity()
		mac.Write(h.t.Act.Ref().AppendCanonical(nil))
		mac.Write(id[:])
		h.random = rand.NewChaCha8([32]byte(mac.Sum(nil)))
	}
	_, _ = h.random.Read(b) // never fails (math/rand/v2)
}

func (h *host) Log(level, message string) {
	h.r.m.logs.add(h.t.Act.Ref(), nola.LogRecord{Time: h.r.m.cfg.Now(), Level: level, Message: message, Invocation: h.inv.ID})
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > nola.KeyBytesMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "key_bytes", nola.KeyBytesMax, "a state key has %d bytes, it must have 1 to %d", len(key), nola.KeyBytesMax)
	}
	return nil
}

func (h *host) Get(key []byte) ([]byte, bool, error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	if w, ok := h.own[string(key)]; ok {
		return w.Value, !w.Deleted, nil
	}
	value, found, known := h.t.Act.Lookup(string(key))
	if known {
		return value, found, nil
	}
	value, found, err := h.r.m.reader.State(h.b.id, h.t.Act.Ref(), string(key))
	if err != nil {
		return nil, false, errStore(err)
	}
	return value, found, nil
}

func errStore(err error) error {
	return nola.Errorf(nola.ReasonUnavailable, "the store cannot be read: %v", err)
}

func (h *host) Put(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > nola.ValueBytesMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "value_bytes", nola.ValueBytesMax, "the value of key %q has %d bytes, at most %d are allowed; spread it over several keys", clip(key), len(value), nola.ValueBytesMax)
	}
	return h.write(nola.Write{Key: string(key), Value: append(make([]byte, 0, len(value)), value...)})
}

func (h *host) Delete(key []byte) (bool, error) {
	_, found, err := h.Get(key)
	if err != nil || !found {
		return false, err
	}
	return true, h.write(nola.Write{Key: string(key), Deleted: true})
}

func (h *host) write(w nola.Write) error {
	old, again := h.own[w.Key]
	if !again && len(h.own) >= nola.TurnWritesMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "turn_writes", nola.TurnWritesMax, "the turn has written %d keys, its limit", len(h.own))
	}
	if again {
		h.bytes -= len(old.Key) + len(old.Value)
	}
	if err := h.spend(len(w.Key) + len(w.Value)); err != nil {
		return err
	}
	if h.own == nil {
		h.own = make(map[string]nola.Write)
	}
	h.own[w.Key] = w
	return nil
}

// spend counts bytes against what a turn may write and send.
func (h *host) spend(n int) error {
	if h.bytes+n > nola.TurnBytesMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "turn_bytes", nola.TurnBytesMax, "the turn writes and sends more than %d bytes, its limit; spread it over several turns", nola.TurnBytesMax)
	}
	h.bytes += n
	return nil
}

func clip(b []byte) string {
	const most = 64
	if len(b) > most {
		return string(b[:most]) + "..."
	}
	return string(b)
}

// List merges what this turn wrote over what turns before it wrote over what is
// stored.
func (h *host) List(q nola.ListQuery) ([]nola.KeyValue, bool, error) {
	limit := q.Limit
	switch {
	case limit == 0:
		limit = nola.ListLimitDefault
	case limit < 0 || limit > nola.ListLimitMax:
		return nil, false, nola.LimitError(nola.ReasonLimitExceeded, "list_limit", nola.ListLimitMax, "a listing may ask for 1 to %d entries, not %d", nola.ListLimitMax, limit)
	}
	from, to := q.Prefix, after(q.Prefix)
	switch {
	case len(q.Start) == 0:
	case q.Reverse:
		if end := append(slices.Clone(q.Start), 0); len(to) == 0 || bytes.Compare(end, to) < 0 {
			to = end
		}
	case bytes.Compare(q.Start, from) > 0:
		from = q.Start
	}
	pending := h.pending(string(q.Prefix), from, to, q.Reverse)
	var list []nola.KeyValue
	size, more := 0, false
	add := func(key, value []byte) bool {
		if len(list) == limit || size > 0 && size+len(key)+len(value) > nola.ListBytesMax {
			more = true
			return false
		}
		size += len(key) + len(value)
		list = append(list, nola.KeyValue{Key: bytes.Clone(key), Value: bytes.Clone(value)})
		return true
	}
	before := func(x, y string) bool { return x < y != q.Reverse && x != y }
	next := 0
	flush := func(until string, all bool) bool { // pending entries before until
		for next < len(pending) && (all || before(pending[next].Key, until)) {
			w := pending[next]
			next++
			if !w.Deleted && !add([]byte(w.Key), w.Value) {
				return false
			}
		}
		return true
	}
	err := h.r.m.reader.ScanState(h.b.id, h.t.Act.Ref(), from, to, q.Reverse, func(key, value []byte) bool {
		k := string(key)
		if !flush(k, false) {
			return false
		}
		if next < len(pending) && pending[next].Key == k {
			w := pending[next]
			next++
			return w.Deleted || add([]byte(w.Key), w.Value)
		}
		return add(key, value)
	})
	if err != nil {
		return nil, false, errStore(err)
	}
	if !more {
		flush("", true)
	}
	return list, more, nil
}

// pending answers the writes in a range that the store may not have, in the
// order of the listing.
func (h *host) pending(prefix string, from, to []byte, reverse bool) []nola.Write {
	merged := make(map[string]nola.Write)
	for _, w := range h.t.Act.OverlayRange(prefix) {
		merged[w.Key] = w
	}
	for k, w := range h.own {
		if strings.HasPrefix(k, prefix) {
			merged[k] = w
		}
	}
	var list []nola.Write
	for k, w := range merged {
		if k >= string(from) && (len(to) == 0 || k < string(to)) {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(x, y nola.Write) int {
		if reverse {
			x, y = y, x
		}
		return strings.Compare(x.Key, y.Key)
	})
	return list
}

// after is the smallest key above all that start with prefix; empty if there is
// none.
func after(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for len(end) > 0 {
		if end[len(end)-1]++; end[len(end)-1] != 0 {
			return end
		}
		end = end[:len(end)-1]
	}
	return nil
}

// target makes the ref that a guest means.
func (h *host) target(c *nola.OutCall) (nola.ActorRef, error) {
	self := h.t.Act.Ref()
	ref := nola.ActorRef{Namespace: self.Namespace, Type: c.Type, ID: c.ID}
	if ref.Type == "" {
		ref.Type = self.Type
	}
	if err := ref.Validate(); err != nil {
		return ref, err
	}
	if c.Operation == "" && !c.Create || len(c.Operation) > nola.OperationBytesMax {
		return ref, nola.Errorf(nola.ReasonInvalidArgument, "an operation must have 1 to %d bytes, not %d", nola.OperationBytesMax, len(c.Operation))
	}
	if len(c.Payload) > nola.PayloadBytesMax {
		return ref, nola.LimitError(nola.ReasonLimitExceeded, "payload_bytes", nola.PayloadBytesMax, "the payload has %d bytes, at most %d are allowed", len(c.Payload), nola.PayloadBytesMax)
	}
	return ref, nil
}

func (h *host) Cast(c nola.OutCall) (nola.InvocationID, error) {
	ref, err := h.target(&c)
	if err != nil {
		return nola.InvocationID{}, err
	}
	if len(h.casts) >= nola.TurnCastsMax {
		return nola.InvocationID{}, nola.LimitError(nola.ReasonLimitExceeded, "turn_casts", nola.TurnCastsMax, "the turn has sent %d casts, its limit", len(h.casts))
	}
	if c.Delay < 0 || c.Delay > 0 && len(c.Payload) > nola.TimerPayloadMax {
		return nola.InvocationID{}, nola.LimitError(nola.ReasonLimitExceeded, "delayed_payload_bytes", nola.TimerPayloadMax, "a delayed cast needs a delay above zero and a payload of at most %d bytes", nola.TimerPayloadMax)
	}
	if err := h.spend(len(c.Payload) + len(c.Operation)); err != nil {
		return nola.InvocationID{}, err
	}
	inv := &nola.Invocation{
		ID: h.derived("cast", len(h.casts)), Kind: nola.KindCast, Target: ref, Operation: c.Operation,
		Payload: bytes.Clone(c.Payload), Caller: nola.Caller{Actor: h.t.Act.Ref(), Parent: h.inv.ID},
	}
	if c.Delay > 0 {
		inv.Due = h.t.Now.Add(c.Delay)
	}
	h.casts = append(h.casts, inv)
	return inv.ID, nil
}

// derived makes the id of the n-th thing of its kind that this turn sends.
func (h *host) derived(what string, n int) nola.InvocationID {
	id := h.inv.Identity()
	sum := sha256.Sum256(fmt.Appendf(h.t.Act.Ref().AppendCanonical(nil), "%s%s%d", id[:], what, n))
	return nola.MakeInvocationID(h.t.Now, [10]byte(sum[:10]))
}

func checkTimer(name, operation string, payload []byte) error {
	switch {
	case name == "" || len(name) > nola.TimerNameBytesMax:
		return nola.LimitError(nola.ReasonLimitExceeded, "timer_name_bytes", nola.TimerNameBytesMax, "the name of a timer or reminder must have 1 to %d bytes, not %d", nola.TimerNameBytesMax, len(name))
	case operation == "" || len(operation) > nola.OperationBytesMax:
		return nola.Errorf(nola.ReasonInvalidArgument, "an operation must have 1 to %d bytes, not %d", nola.OperationBytesMax, len(operation))
	case len(payload) > nola.TimerPayloadMax:
		return nola.LimitError(nola.ReasonLimitExceeded, "timer_payload_bytes", nola.TimerPayloadMax, "the payload of a timer or reminder has %d bytes, at most %d are allowed", len(payload), nola.TimerPayloadMax)
	}
	return nil
}

func (h *host) SetTimer(t nola.Timer) error {
	if t.Name == "" {
		t.Name = fmt.Sprintf("%s-%d", h.inv.ID, len(h.timers)) // a timer nobody means to cancel
	}
	if err := checkTimer(t.Name, t.Operation, t.Payload); err != nil {
		return err
	}
	if err := checkDue(t.Due); err != nil {
		return err
	}
	due, err := h.timerDue(t.Name)
	if err != nil {
		return err
	}
	if due.IsZero() {
		if err := h.countTimers(); err != nil {
			return err
		}
	}
	t.Payload = bytes.Clone(t.Payload)
	if err := h.changeTimer(nola.TimerChange{Timer: t}); err != nil {
		return err
	}
	if due.IsZero() {
		h.timersSet++
	}
	return nil
}

// checkDue refuses times that the due index cannot hold.
func checkDue(due time.Time) error {
	if y := due.Year(); y < 1970 || y > 2261 {
		return nola.Errorf(nola.ReasonInvalidArgument, "a timer may be due in the years 1970 to 2261, not in %d", y)
	}
	return nil
}

func (h *host) CancelTimer(name string) (bool, error) {
	due, err := h.timerDue(name)
	if err != nil || due.IsZero() {
		return false, err
	}
	if err := h.changeTimer(nola.TimerChange{Timer: nola.Timer{Name: name}, Cancel: true}); err != nil {
		return false, err
	}
	h.timersSet--
	return true, nil
}

func (h *host) changeTimer(ch nola.TimerChange) error {
	if len(h.timers) >= nola.TurnTimersMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "turn_timers", nola.TurnTimersMax, "the turn has changed %d timers, its limit", len(h.timers))
	}
	if err := h.spend(len(ch.Name) + len(ch.Operation) + len(ch.Payload)); err != nil {
		return err
	}
	h.timers = append(h.timers, ch)
	return nil
}

// timerDue answers when a timer is due, as the turn sees it; zero if there is
// none of that name.
func (h *host) timerDue(name string) (time.Time, error) {
	for i := len(h.timers) - 1; i >= 0; i-- {
		if h.timers[i].Name == name {
			if h.timers[i].Cancel {
				return time.Time{}, nil
			}
			return h.timers[i].Due, nil
		}
	}
	if due, known := h.t.Act.LookupTimer(name); known {
		return due, nil
	}
	if due, read := h.t.TimerReads[name]; read {
		return due, nil
	}
	rec, _, err := h.r.m.reader.Timer(h.b.id, h.t.Act.Ref(), name)
	if err != nil {
		return time.Time{}, errStore(err)
	}
	if h.t.TimerReads == nil {
		h.t.TimerReads = make(map[string]time.Time)
	}
	h.t.TimerReads[name] = rec.Due
	return rec.Due, nil
}

// countTimers refuses one timer more than an actor may have.
func (h *host) countTimers() error {
	n, known := h.t.Act.TimerCount()
	if !known {
		if !h.t.Counted {
			before := h.timers
			h.timers = nil // as the turn found them
			list, err := h.allTimers("", nola.TimersMax)
			h.timers = before
			if err != nil {
				return err
			}
			h.t.Counted, h.t.TimerCount = true, len(list)
		}
		n = h.t.TimerCount
	}
	if n+h.timersSet >= nola.TimersMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "timers", nola.TimersMax, "the actor has %d timers, its limit; cancel some first", n+h.timersSet)
	}
	return nil
}

func (h *host) ListTimers(prefix string, limit int) ([]nola.Timer, error) {
	switch {
	case limit == 0:
		limit = nola.ListLimitDefault
	case limit < 0 || limit > nola.ListLimitMax:
		return nil, nola.LimitError(nola.ReasonLimitExceeded, "list_limit", nola.ListLimitMax, "a listing may ask for 1 to %d entries, not %d", nola.ListLimitMax, limit)
	}
	list, err := h.allTimers(prefix, limit)
	if err != nil {
		return nil, err
	}
	size := 0
	for i := range list {
		t := &list[i]
		if t.Payload, err = h.timerPayload(t); err != nil {
			return nil, err
		}
		if size += len(t.Name) + len(t.Operation) + len(t.Payload); size > nola.ListBytesMax && i > 0 {
			return list[:i], nil
		}
	}
	return list, nil
}

// timerPayload answers the payload of a listed timer. For one that the store
// has, it stands with its row of the due index.
func (h *host) timerPayload(t *nola.Timer) ([]byte, error) {
	for i := len(h.timers) - 1; i >= 0; i-- {
		if h.timers[i].Name == t.Name {
			return bytes.Clone(h.timers[i].Payload), nil
		}
	}
	if _, known := h.t.Act.LookupTimer(t.Name); known {
		return bytes.Clone(h.t.Act.TimerOf(t.Name).Payload), nil
	}
	row, found, err := h.r.m.reader.DueAt(h.b.id, t.Due, h.t.Act.Ref(), persistence.DueTimer, t.Name)
	if err != nil || !found || row.Invocation == nil {
		return nil, err
	}
	return row.Invocation.Payload, nil
}

func (h *host) allTimers(prefix string, limit int) ([]nola.Timer, error) {
	known := make(map[string]bool)
	for _, name := range h.t.Act.OverlayTimers() {
		known[name] = true
	}
	for _, ch := range h.timers {
		known[ch.Name] = true
	}
	// Every known one may hide a stored one.
	rows, err := h.r.m.reader.Timers(h.b.id, h.t.Act.Ref(), prefix, "", limit+len(known))
	if err != nil {
		return nil, errStore(err)
	}
	var list []nola.Timer
	stored := make(map[string]string, len(rows))
	for _, row := range rows {
		stored[row.Name] = row.Operation
		if !known[row.Name] {
			list = append(list, nola.Timer{Name: row.Name, Operation: row.Operation, Due: row.Due})
		}
	}
	for name := range known {
		due, err := h.timerDue(name)
		if err != nil {
			return nil, err
		}
		if !due.IsZero() && strings.HasPrefix(name, prefix) {
			list = append(list, nola.Timer{Name: name, Operation: h.timerOperation(name, stored[name]), Due: due})
		}
	}
	slices.SortFunc(list, func(x, y nola.Timer) int { return strings.Compare(x.Name, y.Name) })
	return list[:min(limit, len(list))], nil
}

func (h *host) timerOperation(name, stored string) string {
	for i := len(h.timers) - 1; i >= 0; i-- {
		if h.timers[i].Name == name {
			return h.timers[i].Operation
		}
	}
	if op := h.t.Act.TimerOf(name).Operation; op != "" {
		return op
	}
	return stored
}

func (h *host) SetReminder(rem nola.Reminder) error {
	if err := checkTimer(rem.Name, rem.Operation, rem.Payload); err != nil {
		return err
	}
	sd := nola.Schedule{Target: h.t.Act.Ref(), ID: rem.Name, Operation: rem.Operation, Spec: rem.Spec, Reminder: true}
	if _, _, err := scheduler.NewPlan(&sd); err != nil {
		return err
	}
	rows, err := h.r.m.reader.Schedules(h.b.id, h.t.Act.Ref(), true, "", nola.RemindersMax)
	if err != nil {
		return errStore(err)
	}
	names := make(map[string]bool)
	for i := range rows {
		names[rows[i].Schedule.ID] = true
	}
	h.t.Act.OverlayReminders(func(name string, exists bool) { names[name] = exists })
	for _, ch := range h.reminders {
		names[ch.Name] = !ch.Cancel
	}
	if n := count(names); n >= nola.RemindersMax && !names[rem.Name] {
		return nola.LimitError(nola.ReasonLimitExceeded, "reminders", nola.RemindersMax, "the actor has %d reminders, its limit; cancel some first", n)
	}
	rem.Payload = bytes.Clone(rem.Payload)
	return h.changeReminder(nola.ReminderChange{Reminder: rem})
}

func (h *host) CancelReminder(name string) (bool, error) {
	for i := len(h.reminders) - 1; i >= 0; i-- {
		if h.reminders[i].Name == name {
			if h.reminders[i].Cancel {
				return false, nil
			}
			return true, h.changeReminder(nola.ReminderChange{Reminder: nola.Reminder{Name: name}, Cancel: true})
		}
	}
	op, err := h.pin(name)
	if err != nil || !op.Exists {
		return false, err
	}
	return true, h.changeReminder(nola.ReminderChange{Reminder: nola.Reminder{Name: name}, Cancel: true})
}

func (h *host) changeReminder(ch nola.ReminderChange) error {
	if len(h.reminders) >= nola.RemindersMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "turn_reminders", nola.RemindersMax, "the turn has changed %d reminders, its limit", len(h.reminders))
	}
	if err := h.spend(len(ch.Name) + len(ch.Payload)); err != nil {
		return err
	}
	if _, err := h.pin(ch.Name); err != nil {
		return err
	}
	h.reminders = append(h.reminders, ch)
	return nil
}

// pin has a reminder kept in memory until the turn ends.
func (h *host) pin(name string) (*core.ScheduleOp, error) {
	op := core.Pin(h.t, name)
	err := h.r.ask(h.b, op, &op.Ticket)
	return op, err
}
