package wasmhost_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

type hostCall struct{ line, operation, request, reply string }

func hostCalls(t testing.TB) []hostCall {
	t.Helper()
	var calls []hostCall
	lines := bufio.NewScanner(bytes.NewReader(readFile(t, "../testdata/guests/hostcalls.txt")))
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

// zeros is a random stream for golden files.
type zeros struct{ *world }

func (zeros) Random(b []byte) { clear(b) }

// TestHostCallEncodings runs the golden file from end to end in one turn's
// world, and looks at what the host was asked.
func TestHostCallEncodings(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{Env: map[string]string{"greeting": "hello"}}))
	w := newWorld()
	w.inv.Operation = "host"
	w.inv.Kind = nola.KindReminder
	w.inv.Attempt = 2
	w.inv.Deadline = w.now.Add(10 * time.Second)
	w.inv.Caller = nola.Caller{
		Actor: nola.ActorRef{Namespace: "default", Type: "bank", ID: "p"}, Parent: nola.InvocationID{7},
		Name: "r", Nominal: w.now.Truncate(time.Second), Identity: "alice",
	}
	w.answer = func(c nola.OutCall) ([]byte, error) {
		if c.Create {
			return []byte("what STARTUP answered"), nil
		}
		return fmt.Appendf(nil, "%s of %s/%s, %s", c.Operation, c.Type, c.ID, c.Payload), nil
	}
	carry := &nola.Carry{
		Result: []byte("hi"), ResultBytes: 2, ResultNominal: w.now.Truncate(time.Second),
		Failure: "no", FailureBytes: 2000, FailureReason: nola.ReasonGuestError, FailureNominal: w.now.Truncate(time.Second).Add(time.Second),
	}
	seen := map[string]bool{}
	for _, c := range hostCalls(t) {
		seen[c.operation] = true
		reply, err := i.Invoke(&nola.Turn{Operation: "host", Payload: []byte(c.operation + "\x00" + c.request), Deadline: time.Now().Add(10 * time.Second), Carry: carry}, zeros{w})
		got := string(reply)
		if err != nil || got != c.reply {
			t.Errorf("%s\ngot %q, %v", c.line, got, err)
		}
	}
	if got := mustInvoke(t, i, w, "host", "CARRY\x00"); got != "{}" {
		t.Errorf("CARRY of a turn without a schedule = %s, want {}", got)
	}
	if len(seen) != 23 {
		t.Errorf("the golden file has %d operations of 23", len(seen))
	}
	self := "self-timer-" + w.inv.Identity().String() + "-1"
	for _, check := range []struct{ what, got, want any }{
		{"calls", w.calls, []nola.OutCall{{Type: "bank", ID: "b", Operation: "balance", Payload: []byte("hi")}, {ID: "new", Payload: []byte("init"), Create: true}}},
		{"casts", w.casts, []nola.OutCall{
			{ID: "b", Operation: "inc"},
			{ID: "b", Operation: "inc", Delay: 1500 * time.Millisecond},
			{ID: "a", Operation: "inc", Payload: []byte("hi"), Delay: 10 * time.Millisecond},
		}},
		{"timer by time", w.timers["u"].Due.UnixNano(), int64(1800000000000000001)},
		{"self timer", w.timers[self], nola.Timer{Name: self, Operation: "inc", Payload: []byte("hi"), Due: w.now.Add(20 * time.Millisecond)}},
		{"reminders", w.reminders, map[string]nola.Reminder{"s": {Name: "s", Operation: "tick", Payload: []byte("hi"), Spec: nola.Spec{Interval: []nola.Interval{{Every: time.Minute}}}}}},
		{"deferred", w.deferred, []time.Duration{2 * time.Second}},
		{"completed", w.completed, []nola.Completion{
			{Token: nola.Token{7, 8, 9}, Payload: []byte("hi")},
			{Token: nola.Token{15: 1}, Err: &nola.Error{Reason: nola.ReasonGuestError, Message: "no"}},
		}},
		{"logs", w.logs, []string{"warn: mind the gap"}},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s: got %v, want %v", check.what, check.got, check.want)
		}
	}
}

// TestHostCallRefusals sends what does not follow the encodings.
func TestHostCallRefusals(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{}))
	for _, tt := range []struct{ operation, request, want string }{
		{"KV-PUT", "", "KV-PUT: want a varint"},
		{"KV-PUT", "\x10abc", "KV-PUT: a length of 8, but 3 bytes follow"},
		{"KV-PUT", "\x01abc", "KV-PUT: a length of -1"},
		{"KV-LIST", "", "KV-LIST: the payload is empty"},
		{"KV-LIST", "{", "KV-LIST: the payload is not the JSON object wanted"},
		{"KV-LIST", `{"prefix":"%"}`, `within "/prefix"`},
		{"INVOKE-ACTOR", `{"actor_id":"b"}`, "INVOKE-ACTOR: operation is empty"},
		{"INVOKE-ACTOR", `{"actor_id":"b","operation":"x","create_if_not_exist":{"InstantiatePayload":"aGk="}}`, "CREATE-ACTOR first"},
		{"CAST-ACTOR", `{"actor_id":"b","operation":"x","after_millis":-1}`, "-1 milliseconds"},
		{"CAST-ACTOR", `{"actor_id":"b","operation":"x","after_millis":9223372036854775807}`, "9223372036854775807 milliseconds"},
		{"SCHEDULE-SELF-TIMER", `{"operation":"x"}`, "after_millis 0: must be above 0"},
		{"TIMER-SET", `{"operation":"x"}`, "TIMER-SET: name is empty"},
		{"TIMER-SET", `{"name":"t"}`, "TIMER-SET: operation is empty"},
		{"TIMER-SET", `{"name":"t","operation":"x","after_millis":1,"at_unix_nanos":1}`, "send one of them"},
		{"REMINDER-SET", `{"name":"t","operation":"x"}`, "want either cron or every_millis"},
		{"REMINDER-SET", `{"name":"t","operation":"x","cron":"* * * * *","every_millis":1}`, "want either cron or every_millis"},
		{"LOG", `{"level":"loud"}`, `level "loud": want one of`},
		{"RANDOM", "123", "RANDOM: want 4 bytes"},
		{"RANDOM", "\xff\xff\xff\xff", "at most 65536"},
		{"FLY", "", `unknown host operation "FLY"; known are CALLER, CARRY, CAST-ACTOR`},
		{"", "", `unknown host operation ""`},
	} {
		_, err := invoke(i, newWorld(), "host", tt.operation+"\x00"+tt.request)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: got %v, want %q", tt.operation, tt.request, err, tt.want)
		}
	}
	if got := mustInvoke(t, i, newWorld(), "echo", "fine"); got != "fine" {
		t.Errorf("after refusals the instance answers %q", got)
	}
}

// TestJSONIsDecodedInBoundedTime gives a request of each kind as many parts as it may
// have, and one more. What they cost is bounded with their number, for a request is
// decoded in one go.
func TestJSONIsDecodedInBoundedTime(t *testing.T) {
	const partsMax = 256 << 10
	i := instantiate(t, prepare(t, newRuntime(t, wasmhost.Config{}), smallGuest(t), nola.Manifest{}))
	for _, tt := range []struct {
		name, start, part, end string
		own                    int // of start and end
	}{
		{"values", `{"x":[1`, ",1", `]}`, 3},
		{"fields", `{"x":1`, `,"":1`, `}`, 2},
		{"objects", `{"x":[1`, `,{}`, `]}`, 3},
		{"arrays", `{"x":[1`, `,[]`, `]}`, 3},
		{"escapes", `{"actor_id":"`, `\n`, `"}`, 2},
	} {
		parts := strings.Count(tt.part, ",") + strings.Count(tt.part, ":") + strings.Count(tt.part, "{") + strings.Count(tt.part, "[") + strings.Count(tt.part, `\`)
		fits := (partsMax - tt.own) / parts
		for _, more := range []int{0, 1} {
			_, err := invoke(i, newWorld(), "host", "INVOKE-ACTOR\x00"+tt.start+strings.Repeat(tt.part, fits+more)+tt.end)
			want := []string{"INVOKE-ACTOR: operation is empty", fmt.Sprintf("at most %d are allowed", partsMax)}[more]
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %d more than fit: got %v, want %q", tt.name, more, err, want)
			}
		}
	}
}

// TestGuestsMayWriteJSONLoosely sends what strict readers refuse and Go's takes.
func TestGuestsMayWriteJSONLoosely(t *testing.T) {
	i := instantiate(t, prepare(t, newRuntime(t, wasmhost.Config{}), smallGuest(t), nola.Manifest{}))
	for _, request := range []string{
		`{"ACTOR_ID":"b","Operation":"x","payload":"aGk="}`,
		`{"actor_id":"a","actor_id":"b","operation":"x","payload":"aGk="}`,
		`{"actor_id":"b","operation":"x","payload":"aG\r\nk="}`,
		`{"actor_id":"b","operation":"x","payload":"aGk=","more":{"of":[1,"\ud800",null]},"text":"` + "\xff" + `"}`,
		" {\t\"actor_id\":\"b\",\r\n\"operation\":\"x\",\"payload\":\"aGk=\",\"module_id\":null} ",
	} {
		w := newWorld()
		w.answer = func(c nola.OutCall) ([]byte, error) {
			if c.ID != "b" || c.Operation != "x" || string(c.Payload) != "hi" {
				t.Errorf("%s: the call is %+v", request, c)
			}
			return nil, nil
		}
		mustInvoke(t, i, w, "host", "INVOKE-ACTOR\x00"+request)
	}
}

func TestErrorsKeepTheirReason(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{Operations: []string{"echo", "inc"}}))
	full := &nola.Error{Reason: nola.ReasonMailboxFull, Message: "the mailbox is full", RetryAfter: time.Second}
	w := newWorld()
	w.answer = func(nola.OutCall) ([]byte, error) { return nil, full }
	if _, err := invoke(i, w, "call", `{"id":"b","operation":"x"}`); err != full {
		t.Errorf("an error handed on: got %v, want the host's own", err)
	}
	w.answer = func(nola.OutCall) ([]byte, error) { return nil, errors.New("disk on fire") }
	_, err := invoke(i, w, "call", `{"id":"b","operation":"x"}`)
	if reason, _ := reasonOf(t, err); reason != nola.ReasonInternal {
		t.Errorf("an error that is none of ours: %s %v", reason, err)
	}
	_, err = invoke(i, w, "nope", "")
	if reason, _ := reasonOf(t, err); reason != nola.ReasonGuestError || err.Error() != "No!" {
		t.Errorf("a guest's own error: %s %v", reason, err)
	}
	_, err = invoke(i, w, "fly", "")
	if reason, _ := reasonOf(t, err); reason != nola.ReasonOperationNotFound || err.Error() != `operation "fly" is not known to the module; it declares echo, inc` {
		t.Errorf("an unknown operation: %s %v", reason, err)
	}
}

// prefixed hands on host errors as the TinyGo SDK does.
func TestHostErrorPrefix(t *testing.T) {
	zero := []byte{0x41, 0}
	text := "Host error: KV-PUT: want a varint, the length of what follows, got 0 bytes"
	code := append([]byte{}, bytes.Repeat(zero, 5)...)
	code = append(code, 0x41, 6)
	code = append(code, zero...)
	code = append(code, 0x41, 0, 0x10, 0, 0x1a) // __host_call(…, "KV-PUT", 6, "", 0)
	code = append(code, 0x41, 8, 0x41, 0xca, 0, 0x10, 1, 0x41, 0)
	g := guestOf([][]byte{importOf("wapc", "__host_call", typeHost), importOf("wapc", "__guest_error", typeI32s)}, code).
		with(11, vector(append([]byte{0, 0x41, 0, 0x0b}, name("KV-PUT\x00\x00"+text)...)))
	r := newRuntime(t, wasmhost.Config{})
	_, err := invoke(instantiate(t, prepare(t, r, g.bytes(), nola.Manifest{})), newWorld(), "op", "")
	if reason, _ := reasonOf(t, err); reason != nola.ReasonInvalidArgument || err.Error() != text[len("Host error: "):] {
		t.Errorf("got %s %q", reason, err)
	}
}

func TestReadonlyAndCapabilities(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	w := newWorld()
	i := instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{ReadonlyOperations: []string{"inc", "get"}}))
	_, err := invoke(i, w, "inc", "")
	if reason, _ := reasonOf(t, err); reason != nola.ReasonPermissionDenied || !strings.Contains(err.Error(), `KV-PUT is refused: the manifest declares operation "inc" readonly`) {
		t.Errorf("a write in a readonly operation: %s %v", reason, err)
	}
	if got := mustInvoke(t, i, w, "get", ""); got != "0" || len(w.state) != 0 {
		t.Errorf("get = %q, state %v", got, w.state)
	}
	mustInvoke(t, i, w, "host", "KV-PUT\x00\x02nv")

	i = instantiate(t, prepare(t, r, smallGuest(t), nola.Manifest{Capabilities: []string{"KV-GET"}}))
	mustInvoke(t, i, w, "get", "")
	_, err = invoke(i, w, "inc", "")
	if reason, _ := reasonOf(t, err); reason != nola.ReasonPermissionDenied || !strings.Contains(err.Error(), "KV-PUT is not among the capabilities") {
		t.Errorf("an operation that is not granted: %s %v", reason, err)
	}
}

func TestWASIIsTheTurn(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	i := instantiate(t, prepare(t, r, kitchen(t), nola.Manifest{}))
	w := newWorld()
	mustInvoke(t, i, w, "print", "hello\nworld")
	want := []string{"info: out hello", "info: world", "warn: err hello", "warn: world", "info: unfinished"}
	if !reflect.DeepEqual(w.logs, want) {
		t.Errorf("logged %q, want %q", w.logs, want)
	}
}

// TestUnknownOperation has a guest fail with its payload as the text.
func TestUnknownOperation(t *testing.T) {
	code := guestOf([][]byte{importOf("wapc", "__guest_request", typeI32s), importOf("wapc", "__guest_error", typeI32s)}, []byte{
		0x41, 0, 0x41, 0x80, 8, 0x10, 0, // request 0, 1024
		0x41, 0x80, 8, 0x20, 1, 0x10, 1, // error 1024, length of the payload
		0x41, 0,
	}).bytes()
	i := instantiate(t, prepare(t, newRuntime(t, wasmhost.Config{}), code, nola.Manifest{}))
	for _, tt := range []struct {
		op, text string
		unknown  bool
	}{
		{"fly", `Could not find function "fly"`, true},
		{"fly", `Could not find function fly`, true},
		{"fly", `No handler registered for function fly`, true},
		{`fly"`, `Could not find function "fly""`, true},
		{"fly", `Could not find function "butterfly"`, false},
		{"fly", `No handler registered for function "fly"`, false},
		{"fly", `No handler registered for function butterfly`, false},
		{"fly", `No handler registered for function fly!`, false},
		{"fly", `fly`, false},
	} {
		want := nola.ReasonGuestError
		if tt.unknown {
			want = nola.ReasonOperationNotFound
		}
		_, err := invoke(i, newWorld(), tt.op, tt.text)
		if reason, _ := reasonOf(t, err); reason != want {
			t.Errorf("%s, %q: %s, want %s", tt.op, tt.text, reason, want)
		}
	}
}

func FuzzHostCalls(f *testing.F) {
	for _, c := range hostCalls(f) {
		f.Add(c.operation, []byte(c.request))
	}
	r, err := wasmhost.New(context.Background(), wasmhost.Config{})
	if err != nil {
		f.Fatal(err)
	}
	m, err := r.Prepare(context.Background(), smallGuest(f), nola.Manifest{})
	if err != nil {
		f.Fatal(err)
	}
	i, err := m.Instantiate(nola.ActorRef{Namespace: "default", Type: "test", ID: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, operation string, request []byte) {
		_, err := invoke(i, newWorld(), "host", operation+"\x00"+string(request))
		if err == nil {
			return
		}
		switch reason, _ := reasonOf(t, err); reason {
		case nola.ReasonInternal, nola.ReasonGuestTrap, nola.ReasonMemoryLimit:
			t.Errorf("%s: %v", reason, err)
		}
	})
}
