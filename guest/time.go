package guest

import (
	"encoding/binary"
	"encoding/json"
	"time"
)

// Now is the turn's time: the same throughout the turn.
func (c *Context) Now() (time.Time, error) {
	reply, err := c.host("NOW", nil)
	if err != nil {
		return time.Time{}, err
	}
	if len(reply) != 8 {
		return time.Time{}, unreadable("NOW")
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(reply))).UTC(), nil
}

// Random returns n random bytes, at most 64 KiB: the same on every retry of the
// turn, and unknown to clients beforehand.
func (c *Context) Random(n int) ([]byte, error) {
	if n < 0 || int64(n) > 1<<32-1 {
		return nil, Error("RANDOM: the count is out of range")
	}
	return c.host("RANDOM", binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// Timer is a durable one-shot wake-up of this actor.
type Timer struct {
	Name      string
	Operation string
	Payload   []byte
	Due       time.Time
}

// SetTimer makes the actor run operation once, after a while. A timer of the
// same name is replaced. Delays are counted in milliseconds, parts of one are
// rounded up.
func (c *Context) SetTimer(name string, after time.Duration, operation string, payload []byte) error {
	return c.setTimer(timerRequest{Name: name, Operation: operation, Payload: payload, AfterMillis: millis(after)})
}

// SetTimerAt is SetTimer for a moment in time.
func (c *Context) SetTimerAt(name string, at time.Time, operation string, payload []byte) error {
	return c.setTimer(timerRequest{Name: name, Operation: operation, Payload: payload, AtUnixNanos: at.UnixNano()})
}

func (c *Context) setTimer(r timerRequest) error {
	request, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = c.host("TIMER-SET", request)
	return err
}

// CancelTimer removes a timer and reports whether it was there.
func (c *Context) CancelTimer(name string) (found bool, err error) {
	return c.flag("TIMER-CANCEL", []byte(name))
}

// Timers returns the actor's timers whose names begin with prefix, in the order
// of their names. A limit of 0 means 100.
func (c *Context) Timers(prefix string, limit int) ([]Timer, error) {
	request, err := json.Marshal(struct {
		Prefix string `json:"prefix,omitempty"`
		Limit  int    `json:"limit,omitempty"`
	}{prefix, limit})
	if err != nil {
		return nil, err
	}
	reply, err := c.host("TIMER-LIST", request)
	if err != nil {
		return nil, err
	}
	var list struct {
		Timers []timerRequest `json:"timers"`
	}
	if err := json.Unmarshal(reply, &list); err != nil {
		return nil, unreadable("TIMER-LIST")
	}
	timers := make([]Timer, len(list.Timers))
	for i, t := range list.Timers {
		timers[i] = Timer{Name: t.Name, Operation: t.Operation, Payload: t.Payload, Due: unixNanos(t.AtUnixNanos)}
	}
	return timers, nil
}

type timerRequest struct {
	Name        string `json:"name"`
	Operation   string `json:"operation"`
	Payload     []byte `json:"payload,omitempty"`
	AfterMillis int64  `json:"after_millis,omitempty"`
	AtUnixNanos int64  `json:"at_unix_nanos,omitempty"`
}

// Reminder is a durable recurring wake-up of this actor: by a cron expression
// of five fields, or every so often.
type Reminder struct {
	Name      string
	Operation string
	Payload   []byte
	Cron      string
	Every     time.Duration
	TimeZone  string // an IANA name, empty for UTC
}

// SetReminder sets a reminder. One of the same name is replaced.
func (c *Context) SetReminder(r Reminder) error {
	request, err := json.Marshal(struct {
		Name        string `json:"name"`
		Operation   string `json:"operation"`
		Payload     []byte `json:"payload,omitempty"`
		Cron        string `json:"cron,omitempty"`
		EveryMillis int64  `json:"every_millis,omitempty"`
		TimeZone    string `json:"time_zone,omitempty"`
	}{r.Name, r.Operation, r.Payload, r.Cron, millis(r.Every), r.TimeZone})
	if err != nil {
		return err
	}
	_, err = c.host("REMINDER-SET", request)
	return err
}

// CancelReminder removes a reminder and reports whether it was there.
func (c *Context) CancelReminder(name string) (found bool, err error) {
	return c.flag("REMINDER-CANCEL", []byte(name))
}

// Levels of the actor's log.
const (
	Debug = "debug"
	Info  = "info"
	Warn  = "warn"
	Fail  = "error"
)

// Log appends to the actor's log, whatever becomes of the turn. What goes
// beyond the limit of one turn is dropped and counted. Output to stdout and
// stderr goes there as well.
func (c *Context) Log(level, message string) error {
	request, err := json.Marshal(struct {
		Level   string `json:"level"`
		Message string `json:"message"`
	}{level, message})
	if err != nil {
		return err
	}
	_, err = c.host("LOG", request)
	return err
}

// Config returns an entry of the module's manifest.
func (c *Context) Config(name string) (value string, found bool, err error) {
	reply, err := c.host("CONFIG", []byte(name))
	if err != nil {
		return "", false, err
	}
	b, found, err := readFlagged("CONFIG", reply)
	return string(b), found, err
}
