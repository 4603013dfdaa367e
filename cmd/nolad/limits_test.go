package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// overloadBytes is how much memory an overloaded server may take on top of what
// it has while idle. Garbage that may gather for longer is not counted: GOGC is set.
const overloadBytes = 200 << 20

// posted is the gateway's answer.
type posted struct {
	status int
	header http.Header
	body   string
	fault  struct {
		Code, Reason, Message string
		Metadata              map[string]string
	}
}

// post calls an actor through the gateway.
func post(t testing.TB, url, body string, headers ...string) posted {
	t.Helper()
	return request(t, http.MethodPost, url, body, headers...)
}

func request(t testing.TB, method, url, body string, headers ...string) (p posted) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	p.status, p.header, p.body = res.StatusCode, res.Header, string(text)
	if p.status >= 400 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(text, &p.fault); err != nil {
			t.Errorf("%s %s: the error is not JSON: %q", method, url, text)
		}
	}
	return p
}

// TestOverload: one actor is busy and 3,000 callers want it. Those for whom
// there is no room are refused at once, others are served, and memory is bounded.
func TestOverload(t *testing.T) {
	t.Setenv("GOGC", "100")
	p := serve(t, t.TempDir())
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "kitchen", "counter")
	invoke(t, c, "counter", "other", "inc", "")
	invoke(t, c, "kitchen", "busy", "echo", "")
	idle := p.residentBytes()
	var reasons sync.Map // nola.Reason -> *atomic.Int64
	var wg sync.WaitGroup
	call := func() error {
		_, err := c.Actors.Invoke(t.Context(), connect.NewRequest(&nolav1.InvokeRequest{
			Actor: actorMessage("kitchen", "busy"), Operation: "loop", Timeout: durationpb.New(6 * time.Second),
		}))
		return err
	}
	const callers = 3_000
	for range callers {
		wg.Go(func() {
			n, _ := reasons.LoadOrStore(reasonOf(call()), new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
		})
	}
	full := int64(1024)
	eventually(t, 5*time.Second, "the mailbox is full", func() bool { return int64(unanswered(t, c)) >= full })
	var refusals, others []time.Duration
	for i := range 50 {
		began := time.Now()
		err := call()
		refusals = append(refusals, time.Since(began))
		if connect.CodeOf(err) != connect.CodeResourceExhausted || reasonOf(err) != nola.ReasonMailboxFull || retryInfo(err) <= 0 {
			t.Fatalf("refusal %d: %v, code %s, RetryInfo %s", i, err, connect.CodeOf(err), retryInfo(err))
		}
		began = time.Now()
		invoke(t, c, "counter", "other", "inc", "")
		others = append(others, time.Since(began))
	}
	if now := p.residentBytes(); now > idle+overloadBytes {
		t.Errorf("the server has %d MiB, idle %d MiB", now>>20, idle>>20)
	} else {
		t.Logf("memory: %d MiB, idle %d MiB", now>>20, idle>>20)
	}
	slices.Sort(refusals)
	slices.Sort(others)
	t.Logf("refusals: median %s, last %s; other actor: median %s, last %s", refusals[25], refusals[49], others[25], others[49])
	if refusals[25] > 100*time.Millisecond {
		t.Errorf("half of the refusals took more than %s", refusals[25])
	}
	if others[25] > 500*time.Millisecond {
		t.Errorf("half of the calls to another actor took more than %s", others[25])
	}
	wg.Wait()
	total := int64(0)
	reasons.Range(func(reason, n any) bool {
		t.Logf("%s: %d", reason, n.(*atomic.Int64).Load())
		total += n.(*atomic.Int64).Load()
		if !slices.Contains([]nola.Reason{nola.ReasonMailboxFull, nola.ReasonDeadlineExceeded, nola.ReasonCPUBudget}, reason.(nola.Reason)) {
			t.Errorf("%d calls ended in %q", n.(*atomic.Int64).Load(), reason)
		}
		return true
	})
	if n, ok := reasons.Load(nola.ReasonMailboxFull); !ok || n.(*atomic.Int64).Load() < callers-full-100 {
		t.Errorf("too few were refused")
	}
	if total != callers {
		t.Errorf("%d answers, want %d", total, callers)
	}
	if got := invoke(t, c, "kitchen", "busy", "echo", "again"); got != "again" {
		t.Errorf("afterwards the actor answers %q", got)
	}
}

func reasonOf(err error) nola.Reason {
	var e *nola.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func retryInfo(err error) time.Duration {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return 0
	}
	for _, d := range ce.Details() {
		if m, err := d.Value(); err == nil {
			if info, ok := m.(*errdetails.RetryInfo); ok {
				return info.GetRetryDelay().AsDuration()
			}
		}
	}
	return 0
}

// TestMissingModuleFlood: calls to modules that do not exist, of one name and of
// many, find nothing and leave nothing: no actor, no row, no name in the metrics,
// no memory.
func TestMissingModuleFlood(t *testing.T) {
	t.Setenv("GOGC", "100")
	const callers = 10_000
	admin := steadyAddress(t)
	p := serve(t, t.TempDir(), "--admin-listen", admin)
	c := dial(t, p.url, client.Options{Retries: -1, Timeout: time.Minute})
	figures := func() string { return request(t, http.MethodGet, "http://"+admin+"/metrics", "").body }
	missing := func(i int) error {
		ref := actorRef("nothing", fmt.Sprint("a", i%5_000))
		if i%2 == 1 {
			ref.Type = fmt.Sprint("nothing-", i)
		}
		var err error
		switch i % 5 {
		case 0:
			_, err = c.Cast(t.Context(), ref, "inc", nil, client.WithIdempotencyKey(fmt.Sprint("k", i)))
		case 1:
			_, err = c.Create(t.Context(), ref, nil)
		default:
			_, err = c.Invoke(t.Context(), ref, "inc", nil, client.WithIdempotencyKey(fmt.Sprint("k", i)))
		}
		return err
	}
	for i := range 5 { // what one of each kind leaves is not counted against the others
		if err := missing(i); reasonOf(err) != nola.ReasonModuleNotFound {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	unanswered(t, c)
	idle, lines := p.residentBytes(), strings.Count(figures(), "\n")
	var wg sync.WaitGroup
	var wrong atomic.Int64
	for i := range callers {
		wg.Go(func() {
			if err := missing(i); reasonOf(err) != nola.ReasonModuleNotFound && wrong.Add(1) <= 5 {
				t.Errorf("call %d: %v (%s)", i, err, reasonOf(err))
			}
		})
	}
	wg.Wait()
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d of %d calls did not end in MODULE_NOT_FOUND", n, callers)
	}
	for _, s := range listShards(t, c) {
		if s.GetActivations() != 0 || s.GetUnanswered() != 0 || s.GetSeq() != 0 {
			t.Errorf("state is left in shard %d: %v", s.GetShard(), s)
			break
		}
	}
	actors, err := c.Actors.ListActors(t.Context(), connect.NewRequest(&nolav1.ListActorsRequest{}))
	if err != nil || len(actors.Msg.GetActors()) > 0 {
		t.Errorf("actors are left: %v %v", actors, err)
	}
	text := figures()
	if strings.Contains(text, "nothing") {
		t.Errorf("the metrics name a module that does not exist")
	}
	const newLines = 200 // histograms and codes that were not met before
	if now := strings.Count(text, "\n"); now > lines+newLines {
		t.Errorf("the metrics have %d lines, %d before", now, lines)
	}
	if now := p.residentBytes(); now > idle+overloadBytes {
		t.Errorf("the server has %d MiB, idle %d MiB", now>>20, idle>>20)
	}
	p.terminate()
	if code, out, errOut := nolad(t, "doctor", "--data-dir", p.dir); code != 0 || !strings.Contains(out, "no faults") {
		t.Errorf("doctor: %d %s%s", code, out, errOut)
	}
}

// TestHostileGuests: a guest that does what it should not ends its own call, for
// a reason that names it, and nothing else.
func TestHostileGuests(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	push(t, c, "kitchen", "counter")
	const deadline = time.Second
	invoke(t, c, "counter", "other", "inc", "")
	for name, tt := range map[string]struct {
		operation, payload string
		status             int
		reasons            []nola.Reason // one of them; none: it answers well
		text               string
	}{
		"loop for ever":    {"loop", "", http.StatusGatewayTimeout, []nola.Reason{nola.ReasonDeadlineExceeded}, ""},
		"recurse for ever": {"recurse", "", 0, []nola.Reason{nola.ReasonGuestTrap, nola.ReasonMemoryLimit, nola.ReasonLimitExceeded}, ""},
		"512 MiB":          {"grow", "", http.StatusTooManyRequests, []nola.Reason{nola.ReasonMemoryLimit}, "bytes"},
		"a flood of logs":  {"logFlood", "20000", http.StatusOK, nil, "20000"},
		"logs for ever":    {"logFlood", "100000000", 0, []nola.Reason{nola.ReasonDeadlineExceeded, nola.ReasonCPUBudget, nola.ReasonLimitExceeded}, ""},
		"sleep":            {"sleep", "3600000", http.StatusOK, nil, "3600000"},
		"block":            {"block", "", http.StatusInternalServerError, []nola.Reason{nola.ReasonGuestTrap}, "deadlock"},
		"exit":             {"exit", "3", http.StatusInternalServerError, []nola.Reason{nola.ReasonGuestTrap}, "exit code 3"},
		"panic":            {"putThenTrap", "", http.StatusInternalServerError, []nola.Reason{nola.ReasonGuestTrap}, "planned trap"},
		"a huge reply":     {"reply", fmt.Sprint(nola.PayloadBytesMax + 1), http.StatusTooManyRequests, []nola.Reason{nola.ReasonLimitExceeded}, "reply"},
	} {
		t.Run(name, func(t *testing.T) {
			deadline := deadline
			if tt.operation == "loop" {
				deadline /= 5 // before a fast machine has spent its budget of steps
			}
			id := strings.ReplaceAll(name, " ", "-")
			url := p.url + "/v1/default/kitchen/" + id
			done := make(chan posted, 1)
			began := time.Now()
			go func() {
				done <- post(t, url+"/"+tt.operation, tt.payload, "Connect-Timeout-Ms", fmt.Sprint(deadline.Milliseconds()))
			}()
			if got := invoke(t, c, "counter", "other", "get", ""); got != "1" {
				t.Errorf("another actor answers %q meanwhile", got)
			}
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("another actor answered after %s", took)
			}
			answer := <-done
			took := time.Since(began)
			if took > deadline+time.Second {
				t.Errorf("it ended after %s, the deadline was %s", took, deadline)
			}
			if tt.reasons == nil && (answer.status != http.StatusOK || answer.body != tt.text) {
				t.Errorf("answer %d %s, want %s", answer.status, answer.body, tt.text)
			}
			if tt.reasons != nil && (!slices.Contains(tt.reasons, nola.Reason(answer.fault.Reason)) || !strings.Contains(answer.fault.Message, tt.text)) {
				t.Errorf("answer %d %s, want one of %v that says %q", answer.status, answer.body, tt.reasons, tt.text)
			}
			if tt.status != 0 && answer.status != tt.status {
				t.Errorf("status %d, want %d", answer.status, tt.status)
			}
			if left := state(t, c, "kitchen", id, ""); tt.reasons != nil && len(left) > 0 {
				t.Errorf("its turn left %v", left)
			}
			if again := post(t, url+"/echo", "well?"); again.body != "well?" {
				t.Errorf("the next call to it: %d %s", again.status, again.body)
			}
		})
	}
}

// TestHostileGuestsTogether: guests that loop for ever on more actors than there
// are processors may delay others of their namespace up to the deadline, and lose them
// nothing. TestHostileNeighbours has others in a namespace of their own.
func TestHostileGuestsTogether(t *testing.T) {
	p := serve(t, t.TempDir())
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "kitchen", "counter")
	invoke(t, c, "counter", "other", "inc", "")
	const loops = 8
	var wg sync.WaitGroup
	for i := range loops {
		wg.Go(func() {
			_, err := c.Actors.Invoke(t.Context(), connect.NewRequest(&nolav1.InvokeRequest{
				Actor: actorMessage("kitchen", fmt.Sprint("loop-", i)), Operation: "loop", Timeout: durationpb.New(3 * time.Second),
			}))
			if reasonOf(err) != nola.ReasonDeadlineExceeded && reasonOf(err) != nola.ReasonCPUBudget {
				t.Errorf("loop %d: %v", i, err)
			}
		})
	}
	eventually(t, 2*time.Second, "all loop", func() bool { return unanswered(t, c) >= loops })
	began := time.Now()
	for range 20 {
		invoke(t, c, "counter", "other", "inc", "")
	}
	t.Logf("20 calls beside %d loops took %s", loops, time.Since(began))
	wg.Wait()
}

// wasmModule is a module of (func (i32 i32) -> i32), exported under that name,
// with an import of that name.
func wasmModule(importName, exportName string) []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	text := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	imports := slices.Concat([]byte{1}, text("env"), text(importName), []byte{0, 0})
	index := byte(1)
	if importName == "" {
		imports, index = []byte{0}, 0
	}
	return slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 0, 0, 0x60, 2, 0x7f, 0x7f, 1, 0x7f),
		section(2, imports...),
		section(3, 1, 1),
		section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{2}, text("memory"), []byte{2, 0}, text(exportName), []byte{0, index})...),
		section(10, 1, 4, 0, 0x41, 1, 0x0b),
	)
}

// TestModulesRefused: what is no module of ours is refused with the reason, and
// nothing of it is stored.
func TestModulesRefused(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	code := guestCode(t, "counter")
	for name, tt := range map[string]struct {
		code []byte
		text string
	}{
		"garbage":         {bytes.Repeat([]byte("garbage "), 1000), ""},
		"text":            {[]byte("(module)"), ""},
		"magic alone":     {[]byte("\x00asm"), ""},
		"truncated":       {code[:len(code)/2], ""},
		"one byte less":   {code[:len(code)-1], ""},
		"one byte more":   {append(slices.Clone(code), 0xff), ""},
		"oversized":       {make([]byte, 64<<20+1), "67108864"},
		"no __guest_call": {wasmModule("", "other"), "__guest_call"},
		"empty module":    {[]byte("\x00asm\x01\x00\x00\x00"), "memory"},
		"unknown import":  {wasmModule("mystery", "__guest_call"), "mystery"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "bad", Wasm: tt.code}))
			if reasonOf(err) != nola.ReasonInvalidModule || connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("%s (%s, %s), want INVALID_MODULE that says %q", err, reasonOf(err), connect.CodeOf(err), tt.text)
			}
			t.Log(err)
		})
	}
	res, err := c.Modules.ListModules(t.Context(), connect.NewRequest(&nolav1.ListModulesRequest{}))
	if err != nil || len(res.Msg.GetModules()) > 0 {
		t.Errorf("modules are left: %v %v", res, err)
	}
	push(t, c, "counter")
	if _, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "counter", Wasm: code[:100]})); reasonOf(err) != nola.ReasonInvalidModule {
		t.Errorf("a bad version: %v", err)
	}
	if got := invoke(t, c, "counter", "a", "inc", ""); got != "1" {
		t.Errorf("the good version answers %q after a bad one was refused", got)
	}
	p.terminate()
	code2, out, errOut := nolad(t, "doctor", "--data-dir", p.dir)
	if code2 != 0 || !strings.Contains(out, "no faults") {
		t.Errorf("doctor: %d %s%s", code2, out, errOut)
	}
	if !regexp.MustCompile(`(?m)^object +1 `).MatchString(out) {
		t.Errorf("the store holds other bytes than those of the one good version:\n%s", out)
	}
}
