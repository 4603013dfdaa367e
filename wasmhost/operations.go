package wasmhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/nolaproject/nola"
)

// Limits of host operations.
const (
	requestBytesMax = 8 << 20   // the payload of one host call
	jsonPartsMax    = 256 << 10 // see partsOf: a request is decoded in one go, which nothing can stop
	randomBytesMax  = 64 << 10  // drawn in one RANDOM
	randomCost      = 8         // a random byte weighs as much as so many moved
)

// operation is something a guest can ask the host for.
type operation struct {
	name   string
	writes bool // it changes what the turn commits
	// serve answers request, a view of guest memory, by appending to reply.
	serve func(t *turn, request, reply []byte) ([]byte, error)
}

// operations are all host operations. Binding and namespace of a call are
// ignored, the name decides.
var operations = tableOf([]operation{
	{"KV-PUT", true, kvPut},
	{"KV-GET", false, kvGet},
	{"KV-DELETE", true, kvDelete},
	{"KV-LIST", false, kvList},
	{"CREATE-ACTOR", true, createActor},
	{"INVOKE-ACTOR", false, invokeActor},
	{"CAST-ACTOR", true, castActor},
	{"SCHEDULE-INVOCATION", true, scheduleInvocation},
	{"SCHEDULE-SELF-TIMER", true, scheduleSelfTimer},
	{"TIMER-SET", true, timerSet},
	{"TIMER-CANCEL", true, timerCancel},
	{"TIMER-LIST", false, timerList},
	{"REMINDER-SET", true, reminderSet},
	{"REMINDER-CANCEL", true, reminderCancel},
	{"DEFER", true, deferReply},
	{"REPLY", true, reply},
	{"LOG", false, logMessage},
	{"NOW", false, now},
	{"RANDOM", false, random},
	{"SELF", false, self},
	{"CALLER", false, caller},
	{"CARRY", false, carry},
	{"CONFIG", false, config},
})

func tableOf(ops []operation) map[string]*operation {
	table := make(map[string]*operation, len(ops))
	for i := range ops {
		table[ops[i].name] = &ops[i]
	}
	return table
}

// grant returns the operations that a manifest's capabilities name.
func grant(capabilities []string) (map[string]*operation, error) {
	if len(capabilities) == 0 {
		return operations, nil
	}
	granted := map[string]*operation{}
	for _, name := range capabilities {
		op, ok := operations[name]
		if !ok {
			return nil, nola.Errorf(nola.ReasonInvalidArgument, "manifest: capability %q is unknown; known are %s", name, joinKeys(operations))
		}
		granted[name] = op
	}
	return granted, nil
}

// hostCall serves one host call and reports whether it succeeded. Its answer is
// kept for the guest to fetch.
func (t *turn) hostCall(name, request []byte) bool {
	t.hostReply, t.hostError, t.hostText = t.hostReply[:0], nil, ""
	t.hostCalls++
	if n := t.limits.HostCalls; t.hostCalls > n {
		t.end(nola.LimitError(nola.ReasonLimitExceeded, "host_calls", int64(n), "the turn made more than %d host calls (limits.host_calls of the manifest); do less in one turn, or raise the limit", n))
	}
	t.interrupted()
	if t.hostCalls%hostCallsPerClock == 0 || len(request) >= largeRequest {
		t.look()
	}
	t.charge(len(request))
	reply, err := t.serve(name, request)
	t.interrupted()
	if err != nil {
		t.hostError, t.hostText = err, err.Error()
		return false
	}
	t.hostReply = reply
	t.charge(len(reply))
	return true
}

func (t *turn) serve(name, request []byte) ([]byte, error) {
	op, ok := t.instance.module.operations[string(name)]
	switch {
	case t.host == nil:
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "host operation %q: a module's initialisers run before there is an actor; do it in STARTUP or in an operation", name)
	case !ok && operations[string(name)] != nil:
		e := nola.Errorf(nola.ReasonPermissionDenied, "host operation %s is not among the capabilities of the module's manifest", name)
		e.Metadata = map[string]string{"capability": string(name)}
		return nil, e
	case !ok:
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "unknown host operation %q; known are %s", name[:min(len(name), nola.OperationBytesMax)], joinKeys(operations))
	case op.writes && t.readonly:
		return nil, t.readonlyError(op.name)
	case len(request) > requestBytesMax:
		return nil, nola.LimitError(nola.ReasonLimitExceeded, "host_call_bytes", requestBytesMax, "host operation %s: the payload has %d bytes, at most %d are allowed", op.name, len(request), requestBytesMax)
	}
	reply, err := op.serve(t, request, t.hostReply)
	if err == nil {
		return reply, nil
	}
	var known *nola.Error
	if !errors.As(err, &known) {
		known = nola.Errorf(nola.ReasonInternal, "host operation %s: %v", op.name, err)
	}
	return nil, known
}

func (t *turn) readonlyError(name string) error {
	e := nola.Errorf(nola.ReasonPermissionDenied, "host operation %s is refused: the manifest declares operation %q readonly", name, t.turn.Operation)
	e.Metadata = map[string]string{"host_operation": name, "operation": t.turn.Operation}
	return e
}

// malformed refuses a request that does not follow the encoding.
func malformed(name, format string, args ...any) error {
	return nola.Errorf(nola.ReasonInvalidArgument, name+": "+format, args...)
}

// Numbers before bytes are signed zig-zag varints, as encoding/binary writes
// them.

func cutLength(name string, b []byte) (part, rest []byte, err error) {
	n, size := binary.Varint(b)
	switch {
	case size <= 0:
		return nil, nil, malformed(name, "want a varint, the length of what follows, got %d bytes", len(b))
	case n < 0 || n > int64(len(b)-size):
		return nil, nil, malformed(name, "a length of %d, but %d bytes follow", n, len(b)-size)
	}
	return b[size : size+int(n)], b[size+int(n):], nil
}

func flag(reply []byte, found bool) []byte {
	if found {
		return append(reply, 1)
	}
	return append(reply, 0)
}

func kvPut(t *turn, request, reply []byte) ([]byte, error) {
	key, value, err := cutLength("KV-PUT", request)
	if err != nil {
		return nil, err
	}
	return reply, t.host.Put(key, value)
}

func kvGet(t *turn, request, reply []byte) ([]byte, error) {
	value, found, err := t.host.Get(request)
	if err != nil {
		return nil, err
	}
	return append(flag(reply, found), value...), nil
}

func kvDelete(t *turn, request, reply []byte) ([]byte, error) {
	found, err := t.host.Delete(request)
	if err != nil {
		return nil, err
	}
	return flag(reply, found), nil
}

type listRequest struct {
	Prefix  []byte `json:"prefix"`
	Start   []byte `json:"start"`
	Limit   int    `json:"limit"`
	Reverse bool   `json:"reverse"`
}

func kvList(t *turn, request, reply []byte) ([]byte, error) {
	var q listRequest
	if err := decode("KV-LIST", request, &q); err != nil {
		return nil, err
	}
	entries, more, err := t.host.List(nola.ListQuery{Prefix: q.Prefix, Start: q.Start, Limit: q.Limit, Reverse: q.Reverse})
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		reply = append(binary.AppendVarint(reply, int64(len(e.Key))), e.Key...)
		reply = append(binary.AppendVarint(reply, int64(len(e.Value))), e.Value...)
	}
	return flag(reply, more), nil
}

// leniently is how JSON is read and written: what Go's encoding/json takes, is taken,
// for guests are built with libraries of all kinds.
var leniently = json.JoinOptions(
	jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(true),
	json.MatchCaseInsensitiveNames(true),
	jsonv1.ParseBytesWithLooseRFC4648(true),
)

// decode reads a JSON request. Fields it does not know are ignored.
func decode(name string, request []byte, into any) error {
	if len(request) == 0 {
		return malformed(name, "the payload is empty, want a JSON object")
	}
	if n := partsOf(request); n > jsonPartsMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "host_call_json", jsonPartsMax, "host operation %s: the JSON payload has %d commas, colons, opening brackets and backslashes, at most %d are allowed; leave fields out that the operation does not know", name, n, jsonPartsMax)
	}
	if err := json.Unmarshal(request, into, leniently); err != nil {
		return malformed(name, "the payload is not the JSON object wanted: %v", err)
	}
	return nil
}

// partsOf bounds the values and the escaped characters of a JSON text: each costs as
// much time as some hundred bytes of a long string.
func partsOf(text []byte) int {
	n := 0
	for _, mark := range []string{",", ":", "{", "[", `\`} {
		n += bytes.Count(text, []byte(mark))
	}
	return n
}

func encode(reply []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v, leniently)
	if err != nil {
		return nil, fmt.Errorf("encode the reply: %w", err)
	}
	return append(reply, b...), nil
}

func millis(name string, n int64) (time.Duration, error) {
	if n < 0 || n > int64(time.Duration(1<<63-1)/time.Millisecond) {
		return 0, malformed(name, "%d milliseconds: want a number of 0 to %d", n, int64(time.Duration(1<<63-1)/time.Millisecond))
	}
	return time.Duration(n) * time.Millisecond, nil
}

// actorRequest names an actor and what to ask of it.
type actorRequest struct {
	ActorID     string         `json:"actor_id"`
	ModuleID    string         `json:"module_id"`
	Operation   string         `json:"operation"`
	Payload     []byte         `json:"payload"`
	AfterMillis int64          `json:"after_millis"`
	Create      jsontext.Value `json:"create_if_not_exist"` // every actor exists when it is called
}

func (q *actorRequest) call(name string) (nola.OutCall, error) {
	delay, err := millis(name, q.AfterMillis)
	if err != nil {
		return nola.OutCall{}, err
	}
	var create struct{ InstantiatePayload []byte }
	if len(q.Create) > 0 && json.Unmarshal(q.Create, &create, leniently) == nil && len(create.InstantiatePayload) > 0 {
		return nola.OutCall{}, malformed(name, "create_if_not_exist with an InstantiatePayload is not supported; send it with CREATE-ACTOR first")
	}
	if q.Operation == "" {
		return nola.OutCall{}, malformed(name, "operation is empty")
	}
	return nola.OutCall{Type: q.ModuleID, ID: q.ActorID, Operation: q.Operation, Payload: q.Payload, Delay: delay}, nil
}

func createActor(t *turn, request, reply []byte) ([]byte, error) {
	var q actorRequest
	if err := decode("CREATE-ACTOR", request, &q); err != nil {
		return nil, err
	}
	_, err := t.host.Call(nola.OutCall{Type: q.ModuleID, ID: q.ActorID, Payload: q.Payload, Create: true})
	return reply, err
}

func invokeActor(t *turn, request, reply []byte) ([]byte, error) {
	var q actorRequest
	if err := decode("INVOKE-ACTOR", request, &q); err != nil {
		return nil, err
	}
	c, err := q.call("INVOKE-ACTOR")
	if err != nil {
		return nil, err
	}
	c.Delay = 0
	answer, err := t.host.Call(c)
	if err != nil {
		return nil, err
	}
	return append(reply, answer...), nil
}

// cast counts a cast and sends it.
func (t *turn) cast(c nola.OutCall) (nola.InvocationID, error) {
	if n := t.limits.Casts; t.casts >= n {
		return nola.InvocationID{}, nola.LimitError(nola.ReasonLimitExceeded, "casts", int64(n), "the turn sent %d casts already, limits.casts of the manifest allows no more; send the rest in a later turn", n)
	}
	id, err := t.host.Cast(c)
	if err == nil {
		t.casts++
	}
	return id, err
}

func castActor(t *turn, request, reply []byte) ([]byte, error) {
	var q actorRequest
	if err := decode("CAST-ACTOR", request, &q); err != nil {
		return nil, err
	}
	c, err := q.call("CAST-ACTOR")
	if err != nil {
		return nil, err
	}
	id, err := t.cast(c)
	if err != nil {
		return nil, err
	}
	return encode(reply, struct {
		InvocationID string `json:"invocation_id"`
	}{id.String()})
}

func scheduleInvocation(t *turn, request, reply []byte) ([]byte, error) {
	var q struct {
		Invocation  actorRequest `json:"invocation"`
		AfterMillis int64        `json:"after_millis"`
	}
	if err := decode("SCHEDULE-INVOCATION", request, &q); err != nil {
		return nil, err
	}
	q.Invocation.AfterMillis = q.AfterMillis
	if q.Invocation.ActorID == "" {
		q.Invocation.ActorID = t.host.Invocation().Target.ID
	}
	c, err := q.Invocation.call("SCHEDULE-INVOCATION")
	if err != nil {
		return nil, err
	}
	_, err = t.cast(c)
	return reply, err
}

// scheduleSelfTimer sets a timer under a name of its own, the same on a retry.
func scheduleSelfTimer(t *turn, request, reply []byte) ([]byte, error) {
	var q timerRequest
	if err := decode("SCHEDULE-SELF-TIMER", request, &q); err != nil {
		return nil, err
	}
	t.timers++
	q.Name = fmt.Sprintf("self-timer-%s-%d", t.host.Invocation().Identity(), t.timers)
	if q.AfterMillis <= 0 {
		return nil, malformed("SCHEDULE-SELF-TIMER", "after_millis %d: must be above 0", q.AfterMillis)
	}
	timer, err := q.timer("SCHEDULE-SELF-TIMER", t.host.Now())
	if err != nil {
		return nil, err
	}
	return reply, t.host.SetTimer(timer)
}

type timerRequest struct {
	Name        string `json:"name"`
	Operation   string `json:"operation"`
	Payload     []byte `json:"payload,omitempty"`
	AfterMillis int64  `json:"after_millis,omitzero"`
	AtUnixNanos int64  `json:"at_unix_nanos,omitzero"`
}

func (q *timerRequest) timer(name string, now time.Time) (nola.Timer, error) {
	timer := nola.Timer{Name: q.Name, Operation: q.Operation, Payload: q.Payload, Due: now}
	after, err := millis(name, q.AfterMillis)
	switch {
	case err != nil:
		return timer, err
	case q.Name == "":
		return timer, malformed(name, "name is empty")
	case q.Operation == "":
		return timer, malformed(name, "operation is empty")
	case q.AfterMillis != 0 && q.AtUnixNanos != 0:
		return timer, malformed(name, "after_millis and at_unix_nanos are both set; send one of them")
	case q.AtUnixNanos != 0:
		timer.Due = time.Unix(0, q.AtUnixNanos)
	default:
		timer.Due = now.Add(after)
	}
	return timer, nil
}

func timerSet(t *turn, request, reply []byte) ([]byte, error) {
	var q timerRequest
	if err := decode("TIMER-SET", request, &q); err != nil {
		return nil, err
	}
	timer, err := q.timer("TIMER-SET", t.host.Now())
	if err != nil {
		return nil, err
	}
	return reply, t.host.SetTimer(timer)
}

func timerCancel(t *turn, request, reply []byte) ([]byte, error) {
	found, err := t.host.CancelTimer(string(request))
	if err != nil {
		return nil, err
	}
	return flag(reply, found), nil
}

func timerList(t *turn, request, reply []byte) ([]byte, error) {
	var q struct {
		Prefix string `json:"prefix"`
		Limit  int    `json:"limit"`
	}
	if err := decode("TIMER-LIST", request, &q); err != nil {
		return nil, err
	}
	timers, err := t.host.ListTimers(q.Prefix, q.Limit)
	if err != nil {
		return nil, err
	}
	list := struct {
		Timers []timerRequest `json:"timers"`
	}{make([]timerRequest, len(timers))}
	for i, timer := range timers {
		list.Timers[i] = timerRequest{Name: timer.Name, Operation: timer.Operation, Payload: timer.Payload, AtUnixNanos: timer.Due.UnixNano()}
	}
	return encode(reply, list)
}

func reminderSet(t *turn, request, reply []byte) ([]byte, error) {
	var q struct {
		Name        string `json:"name"`
		Operation   string `json:"operation"`
		Payload     []byte `json:"payload"`
		Cron        string `json:"cron"`
		EveryMillis int64  `json:"every_millis"`
		TimeZone    string `json:"time_zone"`
	}
	if err := decode("REMINDER-SET", request, &q); err != nil {
		return nil, err
	}
	every, err := millis("REMINDER-SET", q.EveryMillis)
	switch {
	case err != nil:
		return nil, err
	case q.Name == "":
		return nil, malformed("REMINDER-SET", "name is empty")
	case q.Operation == "":
		return nil, malformed("REMINDER-SET", "operation is empty")
	case (q.Cron == "") == (every == 0):
		return nil, malformed("REMINDER-SET", "want either cron or every_millis")
	}
	spec := nola.Spec{TimeZone: q.TimeZone}
	if q.Cron != "" {
		spec.Cron = []nola.Cron{{Expression: q.Cron}}
	} else {
		spec.Interval = []nola.Interval{{Every: every}}
	}
	return reply, t.host.SetReminder(nola.Reminder{Name: q.Name, Operation: q.Operation, Payload: q.Payload, Spec: spec})
}

func reminderCancel(t *turn, request, reply []byte) ([]byte, error) {
	found, err := t.host.CancelReminder(string(request))
	if err != nil {
		return nil, err
	}
	return flag(reply, found), nil
}

func deferReply(t *turn, request, reply []byte) ([]byte, error) {
	var q struct {
		TimeoutMillis int64 `json:"timeout_millis"`
	}
	if len(request) > 0 {
		if err := decode("DEFER", request, &q); err != nil {
			return nil, err
		}
	}
	timeout, err := millis("DEFER", q.TimeoutMillis)
	if err != nil {
		return nil, err
	}
	token, err := t.host.Defer(timeout)
	if err != nil {
		return nil, err
	}
	return encode(reply, struct {
		Token string `json:"token"`
	}{token.String()})
}

func reply(t *turn, request, reply []byte) ([]byte, error) {
	var q struct {
		Token   string `json:"token"`
		Payload []byte `json:"payload"`
		Error   string `json:"error"`
	}
	if err := decode("REPLY", request, &q); err != nil {
		return nil, err
	}
	token, err := nola.ParseToken(q.Token)
	switch {
	case err != nil:
		return nil, malformed("REPLY", "%v", err)
	case q.Error != "" && len(q.Payload) > 0:
		return nil, malformed("REPLY", "payload and error are both set; send one of them")
	}
	c := nola.Completion{Token: token, Payload: q.Payload}
	if q.Error != "" {
		c.Err = &nola.Error{Reason: nola.ReasonGuestError, Message: q.Error}
	}
	found, err := t.host.Complete(c)
	if err != nil {
		return nil, err
	}
	return flag(reply, found), nil
}

func logMessage(t *turn, request, reply []byte) ([]byte, error) {
	var q struct {
		Level   string `json:"level"`
		Message string `json:"message"`
	}
	if err := decode("LOG", request, &q); err != nil {
		return nil, err
	}
	if levels := []string{levelDebug, levelInfo, levelWarn, levelError}; !slices.Contains(levels, q.Level) {
		return nil, malformed("LOG", "level %q: want one of %q", q.Level, levels)
	}
	t.message(q.Level, []byte(q.Message))
	return reply, nil
}

func now(t *turn, _, reply []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint64(reply, uint64(t.host.Now().UnixNano())), nil
}

func random(t *turn, request, reply []byte) ([]byte, error) {
	if len(request) != 4 {
		return nil, malformed("RANDOM", "want 4 bytes, a big-endian count, got %d", len(request))
	}
	n := binary.BigEndian.Uint32(request)
	if n > randomBytesMax {
		return nil, nola.LimitError(nola.ReasonLimitExceeded, "random_bytes", randomBytesMax, "RANDOM: %d bytes asked for, at most %d are drawn at once", n, randomBytesMax)
	}
	reply = slices.Grow(reply, int(n))[:len(reply)+int(n)]
	t.fill(reply[len(reply)-int(n):])
	t.charge(randomCost * int(n))
	return reply, nil
}

// actorReply says who somebody is.
type actorReply struct {
	Namespace string `json:"namespace,omitempty"`
	ModuleID  string `json:"module_id,omitempty"`
	ActorID   string `json:"actor_id,omitempty"`
}

func nameOf(r nola.ActorRef) actorReply { return actorReply{r.Namespace, r.Type, r.ID} }

func self(t *turn, _, reply []byte) ([]byte, error) {
	inv := t.host.Invocation()
	return encode(reply, struct {
		actorReply
		Operation    string `json:"operation"`
		InvocationID string `json:"invocation_id"`
	}{nameOf(inv.Target), inv.Operation, inv.ID.String()})
}

func caller(t *turn, _, reply []byte) ([]byte, error) {
	inv := t.host.Invocation()
	c := &inv.Caller
	answer := struct {
		Kind string `json:"kind"` // client, actor, timer, reminder or schedule
		actorReply
		Name          string `json:"name,omitempty"`     // of the timer, reminder or schedule
		Identity      string `json:"identity,omitempty"` // of the client
		InvocationID  string `json:"invocation_id"`
		ParentID      string `json:"parent_invocation_id,omitempty"`
		Key           string `json:"key"` // the same on every retry
		Attempt       int    `json:"attempt"`
		DeadlineNanos int64  `json:"deadline_unix_nanos,omitzero"`
		NominalNanos  int64  `json:"nominal_unix_nanos,omitzero"`
	}{
		Kind: inv.Kind.String(), actorReply: nameOf(c.Actor), Name: c.Name, Identity: c.Identity,
		InvocationID: inv.ID.String(), Key: inv.Identity().String(), Attempt: inv.Attempt,
		DeadlineNanos: unixNanos(inv.Deadline), NominalNanos: unixNanos(c.Nominal),
	}
	if inv.Kind == nola.KindCall || inv.Kind == nola.KindCast {
		answer.Kind = "client"
		if !c.Actor.IsZero() {
			answer.Kind = "actor"
		}
	}
	if !c.Parent.IsZero() {
		answer.ParentID = c.Parent.String()
	}
	return encode(reply, answer)
}

// carry says what earlier firings of the turn's schedule or reminder leave to
// this one. It says nothing in other turns.
func carry(t *turn, _, reply []byte) ([]byte, error) {
	c := t.turn.Carry
	if c == nil {
		c = new(nola.Carry)
	}
	return encode(reply, struct {
		Result              []byte      `json:"result,omitempty"`
		ResultBytes         int         `json:"result_bytes,omitzero"` // more than result has: it was too long to be carried
		ResultNominalNanos  int64       `json:"result_nominal_unix_nanos,omitzero"`
		Failure             string      `json:"failure,omitempty"`
		FailureBytes        int         `json:"failure_bytes,omitzero"` // more than failure has: it was cut
		FailureReason       nola.Reason `json:"failure_reason,omitempty"`
		FailureNominalNanos int64       `json:"failure_nominal_unix_nanos,omitzero"`
	}{
		c.Result, c.ResultBytes, unixNanos(c.ResultNominal),
		c.Failure, c.FailureBytes, c.FailureReason, unixNanos(c.FailureNominal),
	})
}

func unixNanos(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixNano()
}

func config(t *turn, request, reply []byte) ([]byte, error) {
	value, found := t.instance.module.manifest.Env[string(request)]
	return append(flag(reply, found), value...), nil
}
