package guest

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
)

// Get returns the value of key as this turn and all turns before it left it.
func (c *Context) Get(key string) (value []byte, found bool, err error) {
	reply, err := c.host("KV-GET", []byte(key))
	if err != nil {
		return nil, false, err
	}
	return readFlagged("KV-GET", reply)
}

// Put sets the value of key. A key has 1 to 1,024 bytes, a value at most 1 MiB.
func (c *Context) Put(key string, value []byte) error {
	_, err := c.host("KV-PUT", putRequest(key, value))
	return err
}

// Delete removes key and reports whether it was there.
func (c *Context) Delete(key string) (found bool, err error) {
	return c.flag("KV-DELETE", []byte(key))
}

// Query says which part of the state List returns.
type Query struct {
	Prefix string
	// Start is the first key wanted, in reverse order the last one; empty means
	// from the beginning, or the end.
	Start   string
	Limit   int // 0 means 100, at most 1,000
	Reverse bool
}

// Entry is a key of the state with its value.
type Entry struct {
	Key   string
	Value []byte
}

// List returns entries in the order of their keys, and whether there are more.
func (c *Context) List(q Query) (entries []Entry, more bool, err error) {
	request, err := q.request()
	if err != nil {
		return nil, false, err
	}
	reply, err := c.host("KV-LIST", request)
	if err != nil {
		return nil, false, err
	}
	return readEntries(reply)
}

// Int returns the number kept under key, 0 if there is none. Numbers are kept
// as decimal text.
func (c *Context) Int(key string) (int64, error) {
	value, found, err := c.Get(key)
	if err != nil || !found {
		return 0, err
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, Error("the value of " + strconv.Quote(key) + " is not a decimal number")
	}
	return n, nil
}

// PutInt keeps a number under key.
func (c *Context) PutInt(key string, n int64) error { return c.Put(key, Text(n)) }

// AddInt adds n to the number kept under key and returns the sum.
func (c *Context) AddInt(key string, n int64) (int64, error) {
	old, err := c.Int(key)
	if err != nil {
		return 0, err
	}
	if sum := old + n; (sum > old) == (n > 0) {
		return sum, c.PutInt(key, sum)
	}
	return 0, Error("the value of " + strconv.Quote(key) + " would leave the range of 64 bits")
}

// GetJSON reads the value of key as JSON into v, and reports whether there was
// one.
func (c *Context) GetJSON(key string, v any) (found bool, err error) {
	value, found, err := c.Get(key)
	if err != nil || !found {
		return found, err
	}
	if err := json.Unmarshal(value, v); err != nil {
		return true, Error("the value of " + strconv.Quote(key) + " is not the JSON value wanted: " + err.Error())
	}
	return true, nil
}

// PutJSON keeps v as JSON under key.
func (c *Context) PutJSON(key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Put(key, value)
}

func putRequest(key string, value []byte) []byte {
	b := make([]byte, 0, len(key)+len(value)+3)
	b = append(binary.AppendVarint(b, int64(len(key))), key...)
	return append(b, value...)
}

func (q Query) request() ([]byte, error) {
	return json.Marshal(struct {
		Prefix  []byte `json:"prefix,omitempty"`
		Start   []byte `json:"start,omitempty"`
		Limit   int    `json:"limit,omitempty"`
		Reverse bool   `json:"reverse,omitempty"`
	}{[]byte(q.Prefix), []byte(q.Start), q.Limit, q.Reverse})
}

func readEntries(b []byte) (entries []Entry, more bool, err error) {
	part := func() []byte {
		n, size := binary.Varint(b)
		if err != nil || size <= 0 || n < 0 || n > int64(len(b)-size) {
			err = unreadable("KV-LIST")
			return nil
		}
		p := b[size : size+int(n) : size+int(n)]
		b = b[size+int(n):]
		return p
	}
	for len(b) > 1 && err == nil {
		entries = append(entries, Entry{Key: string(part()), Value: part()})
	}
	if err != nil || len(b) != 1 {
		return nil, false, unreadable("KV-LIST")
	}
	return entries, b[0] == 1, nil
}

// readFlagged reads a byte that says whether something was found, and it.
func readFlagged(operation string, reply []byte) ([]byte, bool, error) {
	if len(reply) == 0 {
		return nil, false, unreadable(operation)
	}
	if reply[0] == 0 {
		return nil, false, nil
	}
	return reply[1:], true, nil
}

func (c *Context) flag(operation string, request []byte) (bool, error) {
	reply, err := c.host(operation, request)
	if err != nil {
		return false, err
	}
	_, found, err := readFlagged(operation, reply)
	return found, err
}

func unreadable(operation string) error {
	return Error(operation + ": the host's reply is not in the form wanted; is the guest library newer than the host?")
}
