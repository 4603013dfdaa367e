package guest

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

type hostCall struct{ line, operation, request, reply string }

// hostCalls reads the golden file that the host's tests read too.
func hostCalls(t *testing.T) []hostCall {
	t.Helper()
	b, err := os.ReadFile("../testdata/guests/hostcalls.txt")
	if err != nil {
		t.Fatal(err)
	}
	var calls []hostCall
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		operation, rest, _ := strings.Cut(line, " ")
		request, err := strconv.QuotedPrefix(rest)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		reply, err := strconv.Unquote(strings.TrimSpace(rest[len(request):]))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		request, _ = strconv.Unquote(request)
		calls = append(calls, hostCall{line, operation, request, reply})
	}
	return calls
}

// TestEncodings makes the calls of the golden file, in its order, through the
// methods of Context.
func TestEncodings(t *testing.T) {
	golden := hostCalls(t)
	next := 0
	c := &Context{host: func(operation string, request []byte) ([]byte, error) {
		want := golden[next]
		if operation != want.operation || string(request) != want.request {
			t.Errorf("asked %s %q\nwant  %s", operation, request, want.line)
		}
		return []byte(want.reply), nil
	}}
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	check := func(got any, want any, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot %+v, %v, want %+v", golden[next].line, got, err, want)
		}
		next++
	}
	skip := func(operation string) { // the library has no method for it
		t.Helper()
		if golden[next].operation != operation {
			t.Fatalf("line %d is %s, want %s", next, golden[next].line, operation)
		}
		next++
	}
	get := func(key string) any {
		v, found, err := c.Get(key)
		return []any{string(v), found, err}
	}
	list := func(q Query) any {
		e, more, err := c.List(q)
		return []any{e, more, err}
	}
	flag := func(found bool, err error) any { return []any{found, err} }
	text := func(b []byte, err error) any { return []any{string(b), err} }
	none := error(nil)

	check(nil, nil, c.Put("n", []byte("value")))
	check(nil, nil, c.Put("longname", []byte("\x00\xff")))
	check(get("n"), []any{"value", true, none})
	check(get("none"), []any{"", false, none})
	check(flag(c.Delete("none")), []any{false, none})
	check(list(Query{Prefix: "l", Start: "lo", Limit: 1}), []any{[]Entry{{"longname", []byte("\x00\xff")}}, false, none})
	check(list(Query{Reverse: true, Limit: 1}), []any{[]Entry{{"n", []byte("value")}}, true, none})
	check(flag(c.Delete("longname")), []any{true, none})
	check(text(c.Call(Actor{"bank", "b"}, "balance", []byte("hi"))), []any{"balance of bank/b, hi", none})
	check(nil, nil, c.Create(Actor{ID: "new"}, []byte("init")))
	id, err := c.Cast(Actor{ID: "b"}, "inc", nil)
	check(id, "09010000000000000000000000000000", err)
	id, err = c.CastAfter(1500*time.Millisecond-time.Nanosecond, Actor{ID: "b"}, "inc", nil)
	check(id, "09020000000000000000000000000000", err)
	skip("SCHEDULE-INVOCATION")
	skip("SCHEDULE-SELF-TIMER")
	check(nil, nil, c.SetTimer("t", 2*time.Second, "tick", []byte("hi")))
	check(nil, nil, c.SetTimerAt("u", time.Unix(0, 1800000000000000001), "tick", nil))
	timers, err := c.Timers("t", 5)
	check(timers, []Timer{{"t", "tick", []byte("hi"), now.Add(2 * time.Second)}}, err)
	check(flag(c.CancelTimer("t")), []any{true, none})
	check(flag(c.CancelTimer("t")), []any{false, none})
	check(nil, nil, c.SetReminder(Reminder{Name: "r", Operation: "tick", Cron: "0 3 * * *", TimeZone: "Europe/Berlin"}))
	check(nil, nil, c.SetReminder(Reminder{Name: "s", Operation: "tick", Payload: []byte("hi"), Every: time.Minute}))
	check(flag(c.CancelReminder("r")), []any{true, none})
	token, err := c.Defer(2 * time.Second)
	check(token, "07080900000000000000000000000000", err)
	check(flag(c.Reply(token, []byte("hi"))), []any{true, none})
	check(flag(c.ReplyError("00000000000000000000000000000001", "no")), []any{false, none})
	check(nil, nil, c.Log(Warn, "mind the gap"))
	at, err := c.Now()
	check(at, now, err)
	check(text(c.Random(4)), []any{"\x00\x00\x00\x00", none})
	self, err := c.Self()
	check(self, Self{"default", "test", "a", "host", "01020300000000000000000000000000"}, err)
	caller, err := c.Caller()
	check(caller, Caller{
		Kind: KindReminder, Namespace: "default", Actor: Actor{"bank", "p"}, Name: "r", Nominal: now.Truncate(time.Second),
		Identity: "alice", InvocationID: "01020300000000000000000000000000", ParentID: "07000000000000000000000000000000",
		Key: "01020300000000000000000000000000", Attempt: 2, Deadline: now.Add(10 * time.Second),
	}, err)
	value, found, err := c.Config("greeting")
	check([]any{value, found}, []any{"hello", true}, err)
	value, found, err = c.Config("none")
	check([]any{value, found}, []any{"", false}, err)
	carry, err := c.Carry()
	check(carry, Carry{
		Result: []byte("hi"), ResultBytes: 2, ResultNominal: now.Truncate(time.Second),
		Failure: "no", FailureBytes: 2000, FailureReason: "GUEST_ERROR", FailureNominal: now.Truncate(time.Second).Add(time.Second),
	}, err)
	if next != len(golden) {
		t.Errorf("%d of %d lines were used", next, len(golden))
	}
}

// TestUnreadableReplies answers everything with what no host would.
func TestUnreadableReplies(t *testing.T) {
	for _, reply := range []string{"", "?", "\x02"} {
		c := &Context{host: func(string, []byte) ([]byte, error) { return []byte(reply), nil }}
		for name, call := range map[string]func() error{
			"Self":   func() error { _, err := c.Self(); return err },
			"Caller": func() error { _, err := c.Caller(); return err },
			"Carry":  func() error { _, err := c.Carry(); return err },
			"Now":    func() error { _, err := c.Now(); return err },
			"Cast":   func() error { _, err := c.Cast(Actor{}, "x", nil); return err },
			"Timers": func() error { _, err := c.Timers("", 0); return err },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), "not in the form wanted") {
				t.Errorf("%s of %q: %v", name, reply, err)
			}
		}
	}
	for _, reply := range []string{"", "\x04a", "\x02a\x04b\x00"} {
		if _, _, err := readEntries([]byte(reply)); err == nil {
			t.Errorf("a list %q was read", reply)
		}
	}
}

// TestRun drives registered operations over a state in a map.
func TestRun(t *testing.T) {
	state := map[string]string{}
	host := func(operation string, request []byte) ([]byte, error) {
		switch operation {
		case "KV-GET":
			if v, ok := state[string(request)]; ok {
				return []byte("\x01" + v), nil
			}
			return []byte{0}, nil
		case "KV-PUT":
			state[string(request[1:2])] = string(request[2:])
			return nil, nil
		}
		return nil, Error("unknown host operation " + operation)
	}
	handlers = map[string]Handler{}
	t.Cleanup(func() { handlers = map[string]Handler{} })
	Register("add", func(c *Context) ([]byte, error) {
		by, err := c.PayloadInt(1)
		if err != nil {
			return nil, err
		}
		n, err := c.AddInt("n", by)
		return Text(n), err
	})
	type point struct{ X, Y int }
	Register("swap", JSON(func(_ *Context, p point) (point, error) { return point{p.Y, p.X}, nil }))
	Register("keep", JSON(func(c *Context, p point) (bool, error) {
		if err := c.PutJSON("p", p); err != nil {
			return false, err
		}
		var got point
		found, err := c.GetJSON("p", &got)
		return found && got == p, err
	}))
	for _, tt := range []struct{ op, payload, want, err string }{
		{"add", "", "1", ""},
		{"add", "41", "42", ""},
		{"add", "x", "", "add: the payload must be empty or a decimal number"},
		{"add", "9223372036854775807", "", `the value of "n" would leave the range of 64 bits`},
		{"add", "-42", "0", ""},
		{"swap", `{"X":1,"Y":2}`, `{"X":2,"Y":1}`, ""},
		{"swap", ``, `{"X":0,"Y":0}`, ""},
		{"swap", `[`, ``, "swap: the payload is not the JSON value wanted: unexpected end of JSON input"},
		{"keep", `{"X":1,"Y":2}`, "true", ""},
		{"fly", "", "", `Could not find function "fly"`},
	} {
		got, err := run(tt.op, []byte(tt.payload), host)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != tt.err || err == nil && string(got) != tt.want {
			t.Errorf("%s(%q) = %q, %q, want %q, %q", tt.op, tt.payload, got, text, tt.want, tt.err)
		}
	}
	for _, op := range []string{"", "add"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Register(%q) did not panic", op)
				}
			}()
			Register(op, nil)
		}()
	}
}
