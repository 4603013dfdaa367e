package guest

import (
	"encoding/json"
	"strconv"
)

// Operations that the host calls by itself, if they are registered.
const (
	// Startup runs before the first turn of an activation, with the payload that
	// the actor was created with. An error fails the activation.
	Startup = "STARTUP"
	// Shutdown runs before the actor leaves memory, with the reason as payload.
	Shutdown = "SHUTDOWN"
)

// A Handler runs one operation. What it returns is the reply.
type Handler func(c *Context) ([]byte, error)

var handlers = map[string]Handler{}

// Register makes h run operation. Call it from an init function. It panics if
// operation is empty or registered already.
func Register(operation string, h Handler) {
	if operation == "" {
		panic("guest: an operation without a name")
	}
	if _, ok := handlers[operation]; ok {
		panic("guest: operation " + strconv.Quote(operation) + " is registered twice")
	}
	handlers[operation] = h
}

// JSON makes a Handler of a function of Go values. The payload is read as JSON
// (an empty one leaves In at zero), the reply written as JSON.
func JSON[In, Out any](f func(c *Context, in In) (Out, error)) Handler {
	return func(c *Context) ([]byte, error) {
		var in In
		if len(c.Payload) > 0 {
			if err := json.Unmarshal(c.Payload, &in); err != nil {
				return nil, Error(c.Operation + ": the payload is not the JSON value wanted: " + err.Error())
			}
		}
		out, err := f(c, in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	}
}

// Error is an error that is nothing but its text.
type Error string

// Error returns the text.
func (e Error) Error() string { return string(e) }

// Text is n in decimal digits.
func Text(n int64) []byte { return strconv.AppendInt(nil, n, 10) }

// Context is one turn: what was asked, and the host. Do not keep it.
type Context struct {
	Operation string
	Payload   []byte

	host func(operation string, request []byte) ([]byte, error)
}

// PayloadInt reads the payload as a decimal number; an empty one is fallback.
func (c *Context) PayloadInt(fallback int64) (int64, error) {
	if len(c.Payload) == 0 {
		return fallback, nil
	}
	n, err := strconv.ParseInt(string(c.Payload), 10, 64)
	if err != nil {
		return 0, Error(c.Operation + ": the payload must be empty or a decimal number")
	}
	return n, nil
}

// Host makes any host call by its name and encoding. The other methods of
// Context are for those that have one.
func (c *Context) Host(operation string, request []byte) ([]byte, error) {
	return c.host(operation, request)
}

// run runs one operation to its end.
func run(operation string, payload []byte, host func(string, []byte) ([]byte, error)) ([]byte, error) {
	h, ok := handlers[operation]
	if !ok {
		// The text is the protocol's sign for an operation that is not there.
		return nil, Error(`Could not find function "` + operation + `"`)
	}
	return h(&Context{Operation: operation, Payload: payload, host: host})
}
