package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/server"
)

// small is the guest of these tests; its source says what it can do.
const small = "../testdata/guests/small/small.wasm"

func start(t *testing.T, options ...nolatest.Options) *nolatest.Server {
	t.Helper()
	s := nolatest.Start(t, options...)
	s.PushFile("small", small)
	return s
}

// answer is what a plain HTTP request got.
type answer struct {
	status int
	header http.Header
	body   string
	fault  struct{ Code, Reason, Message string }
}

// post sends a request as curl would. Headers are given as name, value, ….
func post(t *testing.T, address, body string, headers ...string) answer {
	t.Helper()
	return send(t, http.MethodPost, address, strings.NewReader(body), headers...)
}

func send(t *testing.T, method, address string, body io.Reader, headers ...string) (a answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a.status, a.header, a.body = res.StatusCode, res.Header, string(b)
	if a.status >= 400 && strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(b, &a.fault); err != nil {
			t.Fatalf("%s %s: the error is no JSON: %v in %q", method, address, err, b)
		}
	}
	return a
}

func TestGateway(t *testing.T) {
	s := start(t)
	at := s.URL + "/v1/default/small/"
	huge := strings.Repeat("x", nola.PayloadBytesMax+1)
	for _, tt := range []struct {
		name    string
		path    string
		body    string
		headers []string
		status  int
		want    string // the body, or the reason
	}{
		{"a call", at + "alice/inc", "", nil, 200, "1"},
		{"a call with a payload", at + "alice/inc", "41", nil, 200, "42"},
		{"any bytes", at + "alice/echo", "\x00\xff", []string{"Content-Type", "image/png"}, 200, "\x00\xff"},
		{"an id with a slash", at + "a%2Fb/inc", "", nil, 200, "1"},
		{"the same id again", at + "a%2fb/inc", "", nil, 200, "2"},
		{"decoded once", at + "a%252Fb/inc", "", nil, 200, "1"},
		{"a timeout", at + "alice/get", "", []string{"Connect-Timeout-Ms", "5000"}, 200, "42"},
		{"a timeout too long", at + "alice/get", "", []string{"Connect-Timeout-Ms", "300001"}, 400, "INVALID_ARGUMENT"},
		{"a timeout that is none", at + "alice/get", "", []string{"Connect-Timeout-Ms", "soon"}, 400, "INVALID_ARGUMENT"},
		{"too few parts", at + "alice", "", nil, 400, "INVALID_ARGUMENT"},
		{"too many parts", at + "alice/inc/more", "", nil, 400, "INVALID_ARGUMENT"},
		{"no operation", at + "alice/", "", nil, 400, "INVALID_ARGUMENT"},
		{"an upper-case type", s.URL + "/v1/default/Small/alice/inc", "", nil, 400, "INVALID_NAME"},
		{"a control character", at + "a%0Ab/inc", "", nil, 400, "INVALID_NAME"},
		{"an operation that is no text", at + "alice/%ff", "", []string{"Prefer", "respond-async"}, 400, "INVALID_NAME"},
		{"an id that is no text", at + "%ff/inc", "", nil, 400, "INVALID_NAME"},
		{"no such module", s.URL + "/v1/default/absent/alice/inc", "", nil, 404, "MODULE_NOT_FOUND"},
		{"no such operation", at + "alice/absent", "", nil, 501, "OPERATION_NOT_FOUND"},
		{"the guest's error", at + "alice/nope", "", nil, 500, "GUEST_ERROR"},
		{"a payload too large", at + "alice/echo", huge, nil, 429, "LIMIT_EXCEEDED"},
		{"a key too long", at + "alice/inc", "", []string{"Idempotency-Key", strings.Repeat("k", nola.UserKeyBytesMax+1)}, 400, "INVALID_KEY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := post(t, tt.path, tt.body, tt.headers...)
			if a.status != tt.status {
				t.Fatalf("status %d, want %d: %.200s", a.status, tt.status, a.body)
			}
			if got := a.fault.Reason; a.status >= 400 && (got != tt.want || a.fault.Code == "" || a.fault.Message == "") {
				t.Errorf("error %+v, want the reason %s", a.fault, tt.want)
			}
			if a.status < 400 && a.body != tt.want {
				t.Errorf("body %q, want %q", a.body, tt.want)
			}
		})
	}
	if a := send(t, http.MethodPut, at+"alice/inc", nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
		t.Errorf("PUT answered %d with Allow %q", a.status, a.header.Get("Allow"))
	}
}

func TestGatewayKeys(t *testing.T) {
	s := start(t)
	at := s.URL + "/v1/default/small/alice/inc"
	key := []string{"Idempotency-Key", "order-17"}
	first, again := post(t, at, "5", key...), post(t, at, "5", key...)
	if first.body != "5" || again.body != "5" || first.header.Get("Nola-Replayed") != "" || again.header.Get("Nola-Replayed") != "true" {
		t.Errorf("first %q (replayed %q), again %q (replayed %q)", first.body, first.header.Get("Nola-Replayed"), again.body, again.header.Get("Nola-Replayed"))
	}
	if a := post(t, at, "6", key...); a.fault.Reason != "KEY_REUSED" {
		t.Errorf("another payload under the key answered %d %s", a.status, a.body)
	}
	s.Crash()
	at = s.URL + "/v1/default/small/alice/inc"
	if a := post(t, at, "5", key...); a.body != "5" || a.header.Get("Nola-Replayed") != "true" {
		t.Errorf("after a crash: %q, replayed %q", a.body, a.header.Get("Nola-Replayed"))
	}
	if a := post(t, at, ""); a.body != "6" {
		t.Errorf("the value is %q afterwards, want 5 and this one", a.body)
	}
}

func TestGatewayAsync(t *testing.T) {
	s := start(t)
	a := post(t, s.URL+"/v1/default/small/a%2Fb/inc", "7", "Prefer", "respond-async")
	var body struct{ InvocationID string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != http.StatusAccepted {
		t.Fatalf("answered %d %q: %v", a.status, a.body, err)
	}
	want := "/v1/default/small/a%2Fb/invocations/" + body.InvocationID
	if got := a.header.Get("Location"); got != want {
		t.Errorf("Location %q, want %q", got, want)
	}
	// A call sees every cast that was sent before it.
	if got := s.Invoke("small/a/b", "get", ""); got != "7" {
		t.Errorf("the value is %q", got)
	}
	done := send(t, http.MethodGet, s.URL+want, nil)
	if done.status != http.StatusOK || done.body != "7" {
		t.Errorf("the outcome at Location is %d %q", done.status, done.body)
	}
	failing := post(t, s.URL+"/v1/default/small/bob/nope", "", "Prefer", "wait=5, respond-async").header.Get("Location")
	s.Invoke("small/bob", "get", "")
	if a := send(t, http.MethodGet, s.URL+failing, nil); a.fault.Reason != "GUEST_ERROR" {
		t.Errorf("the outcome of a failure is %d %q", a.status, a.body)
	}
	absent := s.URL + "/v1/default/small/bob/invocations/" + strings.Repeat("0", 32)
	if a := send(t, http.MethodGet, absent, nil); a.status != http.StatusNotFound || a.fault.Reason != "INVOCATION_NOT_FOUND" {
		t.Errorf("an invocation that never was is %d %q", a.status, a.body)
	}
	if a := send(t, http.MethodGet, s.URL+"/v1/default/small/bob/get", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("GET of an operation answered %d", a.status)
	}
}

// TestConnectJSON is what people do with curl.
func TestConnectJSON(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		name, procedure, body string
		status                int
		want                  string // a part of the body
	}{
		{"invoke", "ActorService/Invoke", `{"actor":{"type":"small","id":"alice"},"operation":"inc"}`, 200, `"payload":"MQ=="`},
		{"no actor", "ActorService/Invoke", `{"operation":"inc"}`, 400, "actor"},
		{"no operation", "ActorService/Invoke", `{"actor":{"type":"small","id":"alice"}}`, 400, "operation"},
		{"timeout beyond", "ActorService/Invoke", `{"actor":{"type":"small","id":"a"},"operation":"inc","timeout":"301s"}`, 400, "timeout"},
		{"bad name of a namespace", "NamespaceService/CreateNamespace", `{"namespace":"Upper"}`, 400, "namespace"},
		{"no JSON", "ActorService/Invoke", `{"actor":`, 400, "invalid_argument"},
		{"unknown field", "ActorService/Invoke", `{"actor":{"type":"small","id":"alice"},"operatoin":"inc"}`, 400, `operatoin`},
		{"unknown field, the known", "ActorService/Invoke", `{"actor":{"type":"small","id":"alice"},"operatoin":"inc"}`, 400, `actor, operation, payload`},
		{"unknown field within", "ActorService/Invoke", `{"actor":{"typ":"small","id":"alice"},"operation":"inc"}`, 400, `unknown field \"typ\"`},
		{"no body", "ActorService/Invoke", ``, 400, `want a JSON object`},
		{"GetState of nothing", "ActorService/GetState", `{"actor":{"type":"small","id":"nobody"},"key":"bg=="}`, 200, "{}"},
		{"list with a bad token", "ActorService/ListActors", `{"pageToken":"%%%"}`, 400, "page_token"},
		{"cluster", "ClusterService/GetCluster", `{}`, 200, `"numShards":16`},
		{"preview", "ScheduleService/PreviewSchedule", `{"spec":{"cron":[{"expression":"0 3 * * *","timeZone":"Europe/Berlin"}]},"count":2}`, 200, `"times":[`},
		{"bad cron", "ScheduleService/PreviewSchedule", `{"spec":{"cron":[{"expression":"0 25 * * *"}]}}`, 400, "hour"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := post(t, s.URL+"/nola.v1."+tt.procedure, tt.body, "Content-Type", "application/json")
			body := strings.ReplaceAll(a.body, ": ", ":")
			if a.status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("answered %d %s, want %d with %s", a.status, a.body, tt.status, tt.want)
			}
			if nanos, err := strconv.ParseInt(a.header.Get(server.TimeHeader), 10, 64); err != nil || nanos <= 0 {
				// What cannot be decoded does not reach the handlers.
				if decoded := !strings.Contains(a.body, "unmarshal"); decoded {
					t.Errorf("header %s is %q", server.TimeHeader, a.header.Get(server.TimeHeader))
				}
			}
		})
	}
}

func TestInvokeMany(t *testing.T) {
	s := start(t)
	stream := s.Client.Actors.InvokeMany(t.Context())
	const calls, actors = 3000, 3 // more than may be unanswered
	sent := make(chan error, 1)
	go func() {
		for i := range calls {
			err := stream.Send(&nolav1.InvokeManyRequest{Calls: []*nolav1.InvokeManyCall{{
				Tag: uint64(i), Actor: &nolav1.ActorRef{Type: "small", Id: fmt.Sprint(i % actors)}, Operation: "inc",
			}}})
			if err != nil {
				sent <- err
				return
			}
		}
		// One that is refused leaves the others alone.
		err := stream.Send(&nolav1.InvokeManyRequest{Calls: []*nolav1.InvokeManyCall{{Tag: calls, Operation: "inc"}}})
		if err == nil {
			err = stream.CloseRequest()
		}
		sent <- err
	}()
	seen := make(map[uint64]bool)
	for len(seen) < calls+1 {
		res, err := stream.Receive()
		if err != nil {
			t.Fatalf("after %d answers: %v", len(seen), err)
		}
		for _, r := range res.GetResults() {
			if seen[r.GetTag()] {
				t.Fatalf("tag %d was answered twice", r.GetTag())
			}
			seen[r.GetTag()] = true
			if r.GetTag() == calls {
				if r.GetError().GetReason() != "INVALID_ARGUMENT" {
					t.Errorf("the refused call got %v", r)
				}
				continue
			}
			// Calls to one actor started in the order in which they were sent.
			if want := fmt.Sprint(r.GetTag()/actors + 1); string(r.GetPayload()) != want || len(r.GetInvocationId()) != 16 {
				t.Fatalf("call %d answered %q, want %s: %v", r.GetTag(), r.GetPayload(), want, r.GetError())
			}
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); !errorIsEOF(err) {
		t.Errorf("the stream ended with %v", err)
	}
}

func errorIsEOF(err error) bool { return err != nil && strings.Contains(err.Error(), io.EOF.Error()) }

func TestPages(t *testing.T) {
	s := start(t)
	const n = 7
	var want []string
	for i := range n {
		id := fmt.Sprintf("a%d", i)
		want = append(want, id)
		s.Invoke("small/"+id, "inc", "")
		s.PushFile(fmt.Sprintf("m%d", i), small)
	}
	for size := int32(1); size <= n+1; size++ {
		var actors, modules []string
		for token, more := "", true; more; more = token != "" {
			res, err := s.Client.Actors.ListActors(t.Context(), connect.NewRequest(&nolav1.ListActorsRequest{Type: "small", IdPrefix: "a", PageSize: size, PageToken: token}))
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range res.Msg.GetActors() {
				actors = append(actors, a.GetId())
			}
			token = res.Msg.GetNextPageToken()
		}
		for token, more := "", true; more; more = token != "" {
			res, err := s.Client.Modules.ListModules(t.Context(), connect.NewRequest(&nolav1.ListModulesRequest{PageSize: size, PageToken: token}))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range res.Msg.GetModules() {
				modules = append(modules, m.GetName())
			}
			token = res.Msg.GetNextPageToken()
		}
		if !slices.Equal(actors, want) || len(modules) != n+1 || !slices.IsSorted(modules) {
			t.Errorf("in pages of %d: actors %q, modules %q", size, actors, modules)
		}
	}
}

func TestModuleVersions(t *testing.T) {
	s := start(t)
	code, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	if v := s.Push("small", code, nola.Manifest{Env: map[string]string{"a": "1"}}); v != 2 {
		t.Errorf("another manifest became version %d", v)
	}
	if v := s.Push("small", code, nola.Manifest{Env: map[string]string{"a": "1"}}); v != 2 {
		t.Errorf("the same again became version %d", v)
	}
	s.Invoke("small/alice", "inc", "")
	_, err = s.Client.Modules.DeleteModule(t.Context(), connect.NewRequest(&nolav1.DeleteModuleRequest{Name: "small"}))
	wantReason(t, err, nola.ReasonModuleInUse)
	if _, err := s.Client.Modules.DeleteModule(t.Context(), connect.NewRequest(&nolav1.DeleteModuleRequest{Name: "small", Force: true})); err != nil {
		t.Fatal(err)
	}
	_, err = s.Call("small/alice", "inc", "")
	wantReason(t, err, nola.ReasonModuleNotFound)
	s.PushFile("small", small)
	if got := s.Invoke("small/alice", "inc", ""); got != "2" {
		t.Errorf("with the module back the actor answered %q", got)
	}
	for name, bad := range map[string][]byte{"garbage": []byte("not wasm"), "truncated": code[:len(code)/2]} {
		_, err := s.Client.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "bad", Wasm: bad}))
		wantReason(t, err, nola.ReasonInvalidModule)
		_, err = s.Client.Modules.GetModule(t.Context(), connect.NewRequest(&nolav1.GetModuleRequest{Name: "bad"}))
		if err == nil {
			t.Errorf("%s: something was left behind", name)
		}
	}
}

func wantReason(t *testing.T, err error, want nola.Reason) {
	t.Helper()
	e, ok := client.Error(err).(*nola.Error)
	if !ok || e.Reason != want {
		t.Errorf("got the error %v, want reason %s", err, want)
	}
}

func TestNamespacesNeverMeet(t *testing.T) {
	s := start(t)
	in := func(namespace string) nola.ActorRef {
		return nola.ActorRef{Namespace: namespace, Type: "small", ID: "alice"}
	}
	_, err := s.Client.Invoke(t.Context(), in("other"), "inc", nil)
	if err == nil {
		t.Fatal("an actor of a namespace that does not exist was called")
	}
	if _, err := s.Client.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: "other"})); err != nil {
		t.Fatal(err)
	}
	_, err = s.Client.Invoke(t.Context(), in("other"), "inc", nil)
	wantReason(t, err, nola.ReasonModuleNotFound)
	code, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Namespace: "other", Name: "small", Wasm: code})); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"other", "default"} {
		if r, err := s.Client.Invoke(t.Context(), in(namespace), "inc", nil); err != nil || string(r.Payload) != "1" {
			t.Errorf("%s: %q, %v", namespace, r.Payload, err)
		}
	}
}

const token = "0123456789abcdef0123456789abcdef"

func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("ci:"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := server.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, nolatest.Options{Tokens: tokens})
	invoke := `{"actor":{"type":"small","id":"alice"},"operation":"inc"}`
	for _, header := range []string{"", "Bearer ", "Bearer " + token + "x", "Basic " + token, token} {
		headers := []string{"Content-Type", "application/json"}
		if header != "" {
			headers = append(headers, "Authorization", header)
		}
		for _, path := range []string{"/v1/default/small/alice/inc", "/nola.v1.ActorService/Invoke", "/nola.v1.ModuleService/PushModule"} {
			if a := post(t, s.URL+path, invoke, headers...); a.status != http.StatusUnauthorized {
				t.Errorf("%s with %q answered %d %s", path, header, a.status, a.body)
			}
		}
		if a := send(t, http.MethodGet, s.URL+"/v1/default/small/alice/invocations/"+strings.Repeat("0", 32), nil, headers...); a.status != http.StatusUnauthorized {
			t.Errorf("an outcome with %q answered %d", header, a.status)
		}
	}
	with := []string{"Content-Type", "application/json", "Authorization", "Bearer " + token}
	if a := post(t, s.URL+"/v1/default/small/alice/inc", "", with...); a.body != "1" {
		t.Errorf("with the token the gateway answered %d %s", a.status, a.body)
	}
	if a := post(t, s.URL+"/nola.v1.ActorService/Invoke", invoke, with...); a.status != 200 {
		t.Errorf("with the token Invoke answered %d %s", a.status, a.body)
	}
	unasked, err := client.New(s.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer unasked.Close()
	stream := unasked.Actors.InvokeMany(t.Context())
	_ = stream.Send(&nolav1.InvokeManyRequest{}) // Receive says why
	_, err = stream.Receive()
	wantReason(t, err, nola.ReasonUnauthenticated)
	if a := send(t, http.MethodGet, s.URL+"/healthz", nil); a.status != 200 {
		t.Errorf("/healthz without a token answered %d", a.status)
	}
}

// TestWhoPaused: a schedule tells who asked last for its pause, by the name of the
// token, whatever the request says, and nobody once it is unpaused.
func TestWhoPaused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("alice:"+token+"\nbob:of-bob-"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := server.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, nolatest.Options{Tokens: tokens})
	as := func(token string) *client.Client {
		c, err := client.New(s.URL, client.Options{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	alice, bob := as(token), as("of-bob-"+token)
	ctx := t.Context()
	update := func(c *client.Client, note string, paused bool, paths ...string) error {
		_, err := c.Schedules.UpdateSchedule(ctx, connect.NewRequest(&nolav1.UpdateScheduleRequest{
			Schedule:   &nolav1.Schedule{ScheduleId: "a", State: &nolav1.ScheduleState{Paused: paused, Note: note, PausedBy: "mallory"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		}))
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"bob creates it paused", func() error {
			sd := yearly("a", "one")
			sd.Target.Actor.Type = "small"
			sd.State = &nolav1.ScheduleState{Paused: true, PausedBy: "mallory"}
			_, err := bob.Schedules.CreateSchedule(ctx, connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: sd}))
			return err
		}, "bob"},
		{"alice changes another part", func() error { return update(alice, "later", true, "state.note") }, "bob"},
		{"alice pauses it, too", func() error {
			_, err := alice.Schedules.PauseSchedule(ctx, connect.NewRequest(&nolav1.PauseScheduleRequest{ScheduleId: "a"}))
			return err
		}, "alice"},
		{"bob unpauses it", func() error {
			_, err := bob.Schedules.UnpauseSchedule(ctx, connect.NewRequest(&nolav1.UnpauseScheduleRequest{ScheduleId: "a"}))
			return err
		}, ""},
		{"alice updates its state", func() error { return update(alice, "", true, "state") }, "alice"},
		{"bob updates it back", func() error { return update(bob, "", false, "state.paused") }, ""},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		res, err := alice.Schedules.GetSchedule(ctx, connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: "a"}))
		if err != nil {
			t.Fatal(err)
		}
		if state := res.Msg.GetSchedule().GetState(); state.GetPausedBy() != step.want || state.GetPaused() != (step.want != "") {
			t.Errorf("%s: %v, want it paused by %q", step.what, state, step.want)
		}
	}
}

// TestUnauthenticatedIsNotRead sends the start of a large body without a token:
// the refusal must come without the rest.
func TestUnauthenticatedIsNotRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("ci:"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := server.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, nolatest.Options{Tokens: tokens})
	for _, path := range []string{"/v1/default/small/alice/echo", "/nola.v1.ModuleService/PushModule"} {
		body, feed := io.Pipe()
		go func() {
			_, _ = feed.Write([]byte(`{"`)) // fails if nobody reads, which is as it should be
		}()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = 1 << 20
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s answered %d", path, res.StatusCode)
		}
		_ = res.Body.Close()
		_ = feed.Close()
	}
}

func TestHealth(t *testing.T) {
	s := start(t)
	check := func(path, body string, want string) {
		t.Helper()
		method := http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
		a := send(t, method, s.URL+path, strings.NewReader(body), "Content-Type", "application/json")
		if !strings.Contains(fmt.Sprintf("%d %s", a.status, a.body), want) {
			t.Errorf("%s answered %d %s, want %s", path, a.status, a.body, want)
		}
	}
	check("/healthz", "", "200 ok")
	check("/readyz", "", "200 ready")
	check("/grpc.health.v1.Health/Check", `{"service":"nola.v1.ActorService"}`, `SERVING`)
	s.Node.SetReady(false)
	check("/healthz", "", "200 ok")
	check("/readyz", "", "503")
	check("/grpc.health.v1.Health/Check", `{}`, `NOT_SERVING`)
	check("/", "", "NOLA")
}

func TestDrainRefuses(t *testing.T) {
	s := start(t)
	if err := s.Node.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	a := post(t, s.URL+"/v1/default/small/alice/inc", "")
	if a.status != http.StatusServiceUnavailable || a.fault.Reason != "UNAVAILABLE" || a.header.Get("Retry-After") == "" {
		t.Errorf("while draining: %d %s, Retry-After %q", a.status, a.body, a.header.Get("Retry-After"))
	}
}

func TestReflection(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"} {
		if a := post(t, s.URL+path, ""); a.status != http.StatusUnsupportedMediaType && a.status != http.StatusHTTPVersionNotSupported && a.status != http.StatusOK {
			t.Errorf("%s is not served: %d", path, a.status)
		}
	}
}

func TestCORS(t *testing.T) {
	s := start(t, nolatest.Options{AllowedOrigins: []string{"https://console.example"}})
	ask := func(origin string) http.Header {
		return send(t, http.MethodOptions, s.URL+"/nola.v1.ActorService/Invoke", nil, "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "connect-protocol-version,content-type").header
	}
	if got := ask("https://console.example").Get("Access-Control-Allow-Origin"); got != "https://console.example" {
		t.Errorf("an allowed origin gets %q", got)
	}
	if got := ask("https://elsewhere.example").Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("another origin gets %q", got)
	}
}

func TestAdmin(t *testing.T) {
	s := start(t)
	s.Invoke("small/alice", "inc", "")
	admin := httptest.NewRecorder()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Node.AdminHandler().ServeHTTP(admin, req)
	for _, want := range []string{
		`nola_rpc_total{code="ok",procedure="/nola.v1.ActorService/Invoke"} 1`, `nola_turns_total{kind="call",reason="OK"} 1`,
		"nola_commits_total", "nola_shards 16",
	} {
		if !strings.Contains(admin.Body.String(), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// BenchmarkGateway is the benchmarked path, over loopback.
func BenchmarkGateway(b *testing.B) {
	s := nolatest.Start(b)
	s.PushFile("small", small)
	at := s.URL + "/v1/default/small/" + url.PathEscape("alice") + "/noop"
	b.ReportAllocs()
	for b.Loop() {
		res, err := http.Post(at, "", nil)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}
