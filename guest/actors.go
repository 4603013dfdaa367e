package guest

import (
	"encoding/json"
	"time"
)

// Actor names an actor of the same namespace. An empty Type is the caller's
// own.
type Actor struct {
	Type string
	ID   string
}

// Call runs an operation of another actor and waits for its reply. That turn is
// a transaction of its own: it stands even if this turn fails.
func (c *Context) Call(to Actor, operation string, payload []byte) ([]byte, error) {
	request, err := actorRequest(to, operation, payload, 0)
	if err != nil {
		return nil, err
	}
	return c.host("INVOKE-ACTOR", request)
}

// Cast sends an invocation without waiting for it. It leaves with the commit of
// this turn, exactly once, and returns the id it will have.
func (c *Context) Cast(to Actor, operation string, payload []byte) (invocationID string, err error) {
	return c.CastAfter(0, to, operation, payload)
}

// CastAfter is Cast held back for a while. Delays are counted in milliseconds,
// parts of one are rounded up.
func (c *Context) CastAfter(delay time.Duration, to Actor, operation string, payload []byte) (invocationID string, err error) {
	request, err := actorRequest(to, operation, payload, delay)
	if err != nil {
		return "", err
	}
	reply, err := c.host("CAST-ACTOR", request)
	if err != nil {
		return "", err
	}
	var answer struct {
		InvocationID string `json:"invocation_id"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
		return "", unreadable("CAST-ACTOR")
	}
	return answer.InvocationID, nil
}

// Create makes an actor that does not exist yet; payload is what its STARTUP
// gets. Actors need not be created to be called.
func (c *Context) Create(a Actor, payload []byte) error {
	request, err := actorRequest(a, "", payload, 0)
	if err != nil {
		return err
	}
	_, err = c.host("CREATE-ACTOR", request)
	return err
}

func actorRequest(to Actor, operation string, payload []byte, delay time.Duration) ([]byte, error) {
	return json.Marshal(struct {
		ActorID     string `json:"actor_id"`
		ModuleID    string `json:"module_id,omitempty"`
		Operation   string `json:"operation,omitempty"`
		Payload     []byte `json:"payload,omitempty"`
		AfterMillis int64  `json:"after_millis,omitempty"`
	}{to.ID, to.Type, operation, payload, millis(delay)})
}

func millis(d time.Duration) int64 {
	n := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		n++
	}
	return n
}

// Self is the actor whose turn this is.
type Self struct {
	Namespace    string `json:"namespace"`
	Type         string `json:"module_id"`
	ID           string `json:"actor_id"`
	Operation    string `json:"operation"`
	InvocationID string `json:"invocation_id"`
}

// Self says who this actor is.
func (c *Context) Self() (Self, error) {
	var s Self
	err := c.ask("SELF", &s) // not in the return: compilers differ in what they evaluate first
	return s, err
}

// Kinds of callers.
const (
	KindClient   = "client"
	KindActor    = "actor"
	KindTimer    = "timer"
	KindReminder = "reminder"
	KindSchedule = "schedule"
)

// Caller is on whose behalf the turn runs.
type Caller struct {
	Kind string
	// Namespace and Actor are set if an actor called or cast.
	Namespace string
	Actor     Actor
	// Name is that of the timer, reminder or schedule.
	Name string
	// Nominal is the time for which the occurrence was due, or the timer.
	Nominal time.Time
	// Identity is the authenticated client's.
	Identity     string
	InvocationID string
	ParentID     string // the invocation that called or cast
	// Key is the same on every retry. Send it along with calls to the outside
	// world.
	Key      string
	Attempt  int // turns that were started for the invocation before
	Deadline time.Time
}

// Caller says on whose behalf the turn runs.
func (c *Context) Caller() (Caller, error) {
	var a struct {
		Kind          string `json:"kind"`
		Namespace     string `json:"namespace"`
		ModuleID      string `json:"module_id"`
		ActorID       string `json:"actor_id"`
		Name          string `json:"name"`
		Identity      string `json:"identity"`
		InvocationID  string `json:"invocation_id"`
		ParentID      string `json:"parent_invocation_id"`
		Key           string `json:"key"`
		Attempt       int    `json:"attempt"`
		DeadlineNanos int64  `json:"deadline_unix_nanos"`
		NominalNanos  int64  `json:"nominal_unix_nanos"`
	}
	if err := c.ask("CALLER", &a); err != nil {
		return Caller{}, err
	}
	return Caller{
		Kind: a.Kind, Namespace: a.Namespace, Actor: Actor{a.ModuleID, a.ActorID}, Name: a.Name, Identity: a.Identity,
		InvocationID: a.InvocationID, ParentID: a.ParentID, Key: a.Key, Attempt: a.Attempt,
		Deadline: unixNanos(a.DeadlineNanos), Nominal: unixNanos(a.NominalNanos),
	}, nil
}

// Carry is what a firing of a schedule or reminder learns of those before it.
type Carry struct {
	// Result is what the newest firing that went well answered, ResultBytes how
	// long that is: one of more than 64 KiB is not carried, Result is empty then.
	Result      []byte
	ResultBytes int
	// ResultNominal is when that firing was due; zero if none has gone well.
	ResultNominal time.Time
	// Failure is how the newest firing failed, if none has gone well since. It is
	// cut to 1 KiB; FailureBytes is its whole length.
	Failure       string
	FailureBytes  int
	FailureReason string
	// FailureNominal is when that firing was due; zero if none has failed since.
	FailureNominal time.Time
}

// Carry says what the firings before this one leave to it. It is zero in a turn
// that no schedule or reminder is behind, in the first firing, and with the
// overlap policy ALLOW_ALL, under which firings do not follow each other. A
// firing that is tried again sees what there is when the attempt begins.
func (c *Context) Carry() (Carry, error) {
	var a struct {
		Result              []byte `json:"result"`
		ResultBytes         int    `json:"result_bytes"`
		ResultNominalNanos  int64  `json:"result_nominal_unix_nanos"`
		Failure             string `json:"failure"`
		FailureBytes        int    `json:"failure_bytes"`
		FailureReason       string `json:"failure_reason"`
		FailureNominalNanos int64  `json:"failure_nominal_unix_nanos"`
	}
	if err := c.ask("CARRY", &a); err != nil {
		return Carry{}, err
	}
	return Carry{
		Result: a.Result, ResultBytes: a.ResultBytes, ResultNominal: unixNanos(a.ResultNominalNanos),
		Failure: a.Failure, FailureBytes: a.FailureBytes, FailureReason: a.FailureReason,
		FailureNominal: unixNanos(a.FailureNominalNanos),
	}, nil
}

// ask reads a JSON reply to an empty request.
func (c *Context) ask(operation string, v any) error {
	reply, err := c.host(operation, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(reply, v); err != nil {
		return unreadable(operation)
	}
	return nil
}

func unixNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
