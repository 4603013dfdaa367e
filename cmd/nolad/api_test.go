package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

// TestGateway: what people with curl may rely on.
func TestGateway(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	push(t, c, "counter", "kitchen")
	base := p.url + "/v1/default/"

	if a := post(t, base+"counter/alice/inc", ""); a.status != http.StatusOK || a.body != "1" {
		t.Errorf("inc: %d %q", a.status, a.body)
	}
	key := []string{"Idempotency-Key", "order-7"}
	if a := post(t, base+"counter/alice/inc", "10", key...); a.body != "11" || a.header.Get("Nola-Replayed") != "" {
		t.Errorf("first call under a key: %d %q %v", a.status, a.body, a.header)
	}
	if a := post(t, base+"counter/alice/inc", "10", key...); a.body != "11" || a.header.Get("Nola-Replayed") != "true" {
		t.Errorf("second call under a key: %d %q %v", a.status, a.body, a.header)
	}
	if a := post(t, base+"counter/alice/inc", "20", key...); a.status != http.StatusBadRequest || a.fault.Reason != string(nola.ReasonKeyReused) {
		t.Errorf("another payload under the key: %d %q", a.status, a.body)
	}

	a := post(t, base+"counter/alice/inc", "", "Prefer", "respond-async")
	var accepted struct{ InvocationID string }
	if err := json.Unmarshal([]byte(a.body), &accepted); err != nil || a.status != http.StatusAccepted || accepted.InvocationID == "" {
		t.Errorf("async: %d %q %v", a.status, a.body, err)
	}
	if want := "/v1/default/counter/alice/invocations/" + accepted.InvocationID; a.header.Get("Location") != want {
		t.Errorf("async: Location %q, want %q", a.header.Get("Location"), want)
	}
	if got := post(t, base+"counter/alice/get", ""); got.body != "12" { // behind the cast
		t.Errorf("after the cast: %q, want 12", got.body)
	}

	for _, id := range []string{"a/b", "a b", "100%", "Ünïcode/☃", "..", ".", "a?b#c", "a+b", "invocations"} {
		path := base + "kitchen/" + url.PathEscape(id)
		if id == ".." || id == "." {
			path = base + "kitchen/" + strings.ReplaceAll(id, ".", "%2E")
		}
		if got := post(t, path+"/self", ""); got.status != http.StatusOK || !strings.Contains(got.body, fmt.Sprintf("%q", id)) {
			t.Errorf("id %q: %d %q", id, got.status, got.body)
		}
		if got := post(t, path+"/echo", "\x00binary\xff"); got.body != "\x00binary\xff" {
			t.Errorf("id %q: echo answers %q", id, got.body)
		}
		if a := post(t, path+"/echo", "", "Prefer", "respond-async"); !strings.Contains(a.header.Get("Location"), "/kitchen/"+url.PathEscape(id)+"/invocations/") {
			t.Errorf("id %q: Location %q", id, a.header.Get("Location"))
		}
	}

	for name, tt := range map[string]struct {
		method, path string
		headers      []string
		status       int
		reason       nola.Reason
	}{
		"too short":           {"POST", "/v1/default/counter/alice", nil, 400, nola.ReasonInvalidArgument},
		"too long":            {"POST", "/v1/default/counter/alice/inc/now", nil, 400, nola.ReasonInvalidArgument},
		"prefix alone":        {"POST", "/v1/", nil, 404, ""},
		"empty id":            {"POST", "/v1/default/counter//inc", nil, 400, nola.ReasonInvalidName},
		"empty operation":     {"POST", "/v1/default/counter/alice/", nil, 400, ""},
		"control character":   {"POST", "/v1/default/counter/a%00b/inc", nil, 400, nola.ReasonInvalidName},
		"not UTF-8":           {"POST", "/v1/default/counter/%ff/inc", nil, 400, nola.ReasonInvalidName},
		"long id":             {"POST", "/v1/default/counter/" + strings.Repeat("x", nola.OperationBytesMax*4+1) + "/inc", nil, 400, nola.ReasonInvalidName},
		"GET":                 {"GET", "/v1/default/counter/alice/inc", nil, 405, nola.ReasonInvalidArgument},
		"no such module":      {"POST", "/v1/default/nothing/alice/inc", nil, 404, nola.ReasonModuleNotFound},
		"no such namespace":   {"POST", "/v1/elsewhere/counter/alice/inc", nil, 404, nola.ReasonNamespaceNotFound},
		"no such operation":   {"POST", "/v1/default/counter/alice/fly", nil, 501, nola.ReasonOperationNotFound},
		"the guest's error":   {"POST", "/v1/default/kitchen/alice/nope", nil, 500, nola.ReasonGuestError},
		"a bad timeout":       {"POST", "/v1/default/counter/alice/inc", []string{"Connect-Timeout-Ms", "soon"}, 400, nola.ReasonInvalidArgument},
		"a timeout of 0":      {"POST", "/v1/default/counter/alice/inc", []string{"Connect-Timeout-Ms", "0"}, 400, nola.ReasonInvalidArgument},
		"a timeout too long":  {"POST", "/v1/default/counter/alice/inc", []string{"Connect-Timeout-Ms", "9223372036854775807"}, 400, nola.ReasonInvalidArgument},
		"a key too long":      {"POST", "/v1/default/counter/alice/inc", []string{"Idempotency-Key", strings.Repeat("k", nola.UserKeyBytesMax+1)}, 400, ""},
		"an unknown path":     {"POST", "/v2/default/counter/alice/inc", nil, 404, ""},
		"an unknown service":  {"POST", "/nola.v1.NoService/Invoke", nil, 404, ""},
		"an unknown RPC":      {"POST", "/nola.v1.ActorService/Fly", nil, 404, ""},
		"the admin's metrics": {"GET", "/metrics", nil, 404, ""},
		"the admin's pprof":   {"GET", "/debug/pprof/", nil, 404, ""},
	} {
		a := request(t, tt.method, p.url+tt.path, "", tt.headers...)
		if a.status != tt.status || tt.reason != "" && a.fault.Reason != string(tt.reason) {
			t.Errorf("%s: %d %q, want %d %s", name, a.status, a.body, tt.status, tt.reason)
		}
		if a.fault.Reason == string(nola.ReasonInternal) || strings.Contains(a.body, "goroutine") {
			t.Errorf("%s: %q", name, a.body)
		}
	}
	if a := post(t, base+"kitchen/big/echo", strings.Repeat("x", nola.PayloadBytesMax)); a.status != http.StatusOK || len(a.body) != nola.PayloadBytesMax {
		t.Errorf("the largest payload: %d, %d bytes", a.status, len(a.body))
	}
	if a := post(t, base+"kitchen/big/echo", strings.Repeat("x", nola.PayloadBytesMax+1)); a.fault.Reason != string(nola.ReasonLimitExceeded) || a.fault.Metadata["limit"] != "payload_bytes" {
		t.Errorf("a payload too large: %d %.200q", a.status, a.body)
	}
	if got := post(t, base+"counter/alice/get", ""); got.body != "12" {
		t.Errorf("a refused request had an effect: the counter is %q, want 12", got.body)
	}
}

// TestInvalidRequests: a request that breaks the schema's rules is refused, also
// where it is not looked at twice.
func TestInvalidRequests(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	push(t, c, "counter")
	now := timestamppb.Now()
	id := []byte("0123456789abcdef")
	alice := actorMessage("counter", "alice")
	for name, req := range map[string]*nolav1.InvokeRequest{
		"no actor":            {Operation: "inc"},
		"no type":             {Actor: &nolav1.ActorRef{Id: "a"}, Operation: "inc"},
		"no id":               {Actor: &nolav1.ActorRef{Type: "counter"}, Operation: "inc"},
		"a bad namespace":     {Actor: &nolav1.ActorRef{Namespace: "A b", Type: "counter", Id: "a"}, Operation: "inc"},
		"a bad type":          {Actor: &nolav1.ActorRef{Type: "../counter", Id: "a"}, Operation: "inc"},
		"a control character": {Actor: &nolav1.ActorRef{Type: "counter", Id: "a\nb"}, Operation: "inc"},
		"no operation":        {Actor: alice},
		"a long operation":    {Actor: alice, Operation: strings.Repeat("x", nola.OperationBytesMax+1)},
		"two keys":            {Actor: alice, Operation: "inc", IdempotencyKey: "k", Session: &nolav1.SessionKey{Id: id, FirstAttempt: now}},
		"a long key":          {Actor: alice, Operation: "inc", IdempotencyKey: strings.Repeat("k", nola.UserKeyBytesMax+1)},
		"a short session":     {Actor: alice, Operation: "inc", Session: &nolav1.SessionKey{Id: id[:4], FirstAttempt: now}},
		"no first attempt":    {Actor: alice, Operation: "inc", Session: &nolav1.SessionKey{Id: id}},
		"acked above seq":     {Actor: alice, Operation: "inc", Session: &nolav1.SessionKey{Id: id, Seq: 1, AckedBelow: 2, FirstAttempt: now}},
		"beyond the window":   {Actor: alice, Operation: "inc", Session: &nolav1.SessionKey{Id: id, Seq: nola.SessionWindow, FirstAttempt: now}},
		"no time":             {Actor: alice, Operation: "inc", Timeout: durationpb.New(0)},
		"a negative time":     {Actor: alice, Operation: "inc", Timeout: durationpb.New(-1)},
		"too much time":       {Actor: alice, Operation: "inc", Timeout: durationpb.New(nola.CallTimeoutMax + 1)},
		"a large payload":     {Actor: alice, Operation: "inc", Payload: make([]byte, nola.PayloadBytesMax+1)},
	} {
		_, err := c.Actors.Invoke(t.Context(), connect.NewRequest(req))
		if code := connect.CodeOf(err); code != connect.CodeInvalidArgument && (name != "a large payload" || code != connect.CodeResourceExhausted) {
			t.Errorf("%s: %v (%s), want invalid_argument", name, err, code)
		}
	}
	if left := state(t, c, "counter", "alice", ""); len(left) > 0 {
		t.Errorf("a refused request had an effect: %v", left)
	}
}

// TestReflectionHealthCORSMetrics: what tools around the server rely on.
func TestReflectionHealthCORSMetrics(t *testing.T) {
	admin := steadyAddress(t)
	config := "admin_listen: " + admin + "\nallowed_origins: [https://console.example.com]\n"
	p := serve(t, t.TempDir(), "--config", writeFile(t, "nolad.yaml", config))
	c := p.dial()
	push(t, c, "counter")
	invoke(t, c, "counter", "alice", "inc", "")

	// Over HTTP/2 without TLS, as grpcurl does.
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	stream := grpcreflect.NewClient(&http.Client{Transport: h2}, p.url, connect.WithGRPC()).NewStream(t.Context())
	names, err := stream.ListServices()
	if err != nil {
		t.Fatalf("reflection: %v", err)
	}
	for _, service := range []string{
		nolav1connect.ActorServiceName, nolav1connect.ModuleServiceName, nolav1connect.ScheduleServiceName,
		nolav1connect.CalendarServiceName, nolav1connect.NamespaceServiceName, nolav1connect.ClusterServiceName,
	} {
		found := false
		for _, n := range names {
			found = found || string(n) == service
		}
		if !found {
			t.Errorf("reflection does not list %s, but %v", service, names)
		}
	}
	if files, err := stream.FileContainingSymbol("nola.v1.ActorService"); err != nil || len(files) == 0 {
		t.Errorf("reflection of the ActorService: %v", err)
	}
	_, _ = stream.Close() // it was read to its end

	for _, service := range []string{"", nolav1connect.ActorServiceName} {
		body, err := json.Marshal(map[string]string{"service": service})
		if err != nil {
			t.Fatal(err)
		}
		a := post(t, p.url+"/"+grpchealth.HealthV1ServiceName+"/Check", string(body), "Content-Type", "application/json")
		if a.status != http.StatusOK || !strings.Contains(a.body, `"SERVING`) {
			t.Errorf("health of %q: %d %s", service, a.status, a.body)
		}
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/": "NOLA"} {
		for _, base := range []string{p.url, "http://" + admin} {
			if path == "/" && base != p.url {
				continue
			}
			if a := request(t, http.MethodGet, base+path, ""); a.status != http.StatusOK || !strings.Contains(a.body, want) {
				t.Errorf("GET %s%s: %d %q", base, path, a.status, a.body)
			}
		}
	}

	const origin = "https://console.example.com"
	for _, path := range []string{"/nola.v1.ActorService/Invoke", "/v1/default/counter/alice/inc"} {
		ask := []string{"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "connect-protocol-version,content-type"}
		if path[1] == 'v' {
			ask[5] = "idempotency-key,prefer"
		}
		a := request(t, http.MethodOptions, p.url+path, "", ask...)
		if a.header.Get("Access-Control-Allow-Origin") != origin || a.header.Get("Access-Control-Allow-Headers") == "" {
			t.Errorf("preflight of %s: %d %v", path, a.status, a.header)
		}
		ask[1] = "https://evil.example.com"
		if a := request(t, http.MethodOptions, p.url+path, "", ask...); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("another origin may call %s: %v", path, a.header)
		}
	}
	if a := post(t, p.url+"/v1/default/counter/alice/inc", "", "Origin", origin); a.body != "2" || a.header.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("a call from a browser: %d %q %v", a.status, a.body, a.header)
	}

	metrics := request(t, http.MethodGet, "http://"+admin+"/metrics", "")
	for _, want := range []string{
		`nola_gateway_total{reason="OK"} 1`,
		`nola_rpc_total{code="ok",procedure="/nola.v1.ActorService/Invoke"} 1`,
		`nola_turns_total{kind="call",reason="OK"} 2`,
		"nola_activations 1", "nola_shards 256", "nola_commits_total", "go_goroutines", "process_resident_memory_bytes",
		"nola_slots_made_total 1\n", "\nnola_slots_dropped_total 0\n", "\nnola_slots_evicted_total 0\n",
	} {
		if !strings.Contains(metrics.body, want) {
			t.Errorf("/metrics has no %q", want)
		}
	}
	// Who comes gets the slot of one that has left.
	reused := func() (n int) {
		text := request(t, http.MethodGet, "http://"+admin+"/metrics", "").body
		_, rest, _ := strings.Cut(text, "\nnola_slots_reused_total ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatalf("nola_slots_reused_total: %v in\n%s", err, text)
		}
		return n
	}
	before := reused()
	eventually(t, 10*time.Second, "a slot is used again", func() bool {
		invoke(t, c, "counter", "bob", "inc", "")
		if _, err := c.Actors.DeleteActor(t.Context(), connect.NewRequest(&nolav1.DeleteActorRequest{Actor: actorMessage("counter", "bob")})); err != nil {
			t.Fatal(err)
		}
		return reused() > before
	})
	if a := request(t, http.MethodGet, "http://"+admin+"/debug/pprof/goroutine?debug=1", ""); a.status != http.StatusOK {
		t.Errorf("pprof: %d", a.status)
	}
}

// TestTop: nolactl shows what the turns of an actor have cost.
func TestTop(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	push(t, c, "counter")
	for range 3 {
		invoke(t, c, "counter", "alice", "inc", "")
	}
	invoke(t, c, "counter", "bob", "inc", "")
	nolactl := filepath.Join(t.TempDir(), "nolactl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", nolactl, "../nolactl").CombinedOutput(); err != nil {
		t.Fatalf("building nolactl: %v\n%s", err, out)
	}
	top := func(by string) string {
		out, err := exec.CommandContext(t.Context(), nolactl, "top", by, "--server", p.url, "--sort", "turns").Output()
		if err != nil {
			t.Fatalf("nolactl top %s: %v\n%s", by, err, out)
		}
		return string(out)
	}
	for by, want := range map[string]string{
		"actor":     `(?m)^default:counter/alice +3 +[1-9]\d* +[1-9]\d*% +\S*[1-9]\S*s\n^default:counter/bob +1 `,
		"type":      `(?m)^default:counter +4 +[1-9]\d* +100% `,
		"namespace": `(?m)^default +4 +[1-9]\d* +100% `,
	} {
		if got := top(by); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("nolactl top %s says\n%s", by, got)
		}
	}
}

// TestNamespacesDoNotMeet: what bears the same name in two namespaces has nothing
// in common, and what goes with one stays in the other.
func TestNamespacesDoNotMeet(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	for _, ns := range []string{"one", "two"} {
		if _, err := c.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: ns})); err != nil {
			t.Fatal(err)
		}
	}
	pushTo := func(ns, guest string) {
		if _, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Namespace: ns, Name: "same", Wasm: guestCode(t, guest)})); err != nil {
			t.Fatal(err)
		}
	}
	pushTo("one", "counter")
	call := func(ns, operation, payload string) (string, error) {
		res, err := c.Invoke(t.Context(), nola.ActorRef{Namespace: ns, Type: "same", ID: "a"}, operation, []byte(payload), client.WithIdempotencyKey("key-"+operation+payload))
		return string(res.Payload), err
	}
	if got, err := call("one", "inc", "5"); got != "5" {
		t.Fatalf("one: %q %v", got, err)
	}
	if _, err := call("two", "inc", "5"); reasonOf(err) != nola.ReasonModuleNotFound {
		t.Errorf("the module of one namespace runs in another: %v", err)
	}
	pushTo("two", "counter")
	if got, err := call("two", "inc", "7"); got != "7" {
		t.Errorf("two: %q %v", got, err)
	}
	if got, err := call("two", "inc", "5"); got != "12" { // the key of the other one is not its own
		t.Errorf("two, under a key that one knows: %q %v", got, err)
	}
	_, err := c.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		Namespace: "one", ScheduleId: "s", Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Namespace: "two", Type: "same", Id: "a"}, Operation: "inc"},
		Spec: &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Second)}}},
	}}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a schedule that reaches into another namespace: %v", err)
	}
	list := func(ns string) int {
		res, err := c.Actors.ListActors(t.Context(), connect.NewRequest(&nolav1.ListActorsRequest{Namespace: ns}))
		if err != nil {
			t.Fatal(err)
		}
		return len(res.Msg.GetActors())
	}
	if one, two, other := list("one"), list("two"), list("default"); one != 1 || two != 1 || other != 0 {
		t.Errorf("actors: one has %d, two has %d, default has %d", one, two, other)
	}
	if _, err := c.Namespaces.DeleteNamespace(t.Context(), connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "one"})); err != nil {
		t.Fatal(err)
	}
	if got, err := call("one", "get", ""); reasonOf(err) != nola.ReasonNamespaceDeleting && reasonOf(err) != nola.ReasonNamespaceNotFound {
		t.Errorf("an actor of a namespace that is deleted answers %q %v", got, err)
	}
	eventually(t, 20*time.Second, "the namespace is gone", func() bool {
		_, err := c.Namespaces.GetNamespace(t.Context(), connect.NewRequest(&nolav1.GetNamespaceRequest{Namespace: "one"}))
		return reasonOf(err) == nola.ReasonNamespaceNotFound
	})
	if got, err := call("two", "get", ""); got != "12" {
		t.Errorf("two after one was deleted: %q %v", got, err)
	}
	if _, err := c.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: "one"})); err != nil {
		t.Fatal(err)
	}
	pushTo("one", "counter")
	if got, err := call("one", "get", ""); got != "0" {
		t.Errorf("the namespace of a deleted one's name begins with %q %v", got, err)
	}
}

// TestDeleteStopsFiring: once a delete is acknowledged, nothing fires any more,
// also not after a crash.
func TestDeleteStopsFiring(t *testing.T) {
	dir, address := t.TempDir(), steadyAddress(t)
	p := serve(t, dir, "--listen", address)
	c := dial(t, p.url, client.Options{})
	push(t, c, "witness")
	const ids = 5
	marks := func(id string) int {
		sum := 0
		for _, n := range state(t, c, "witness", id, "at/") {
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			sum += count
		}
		return sum
	}
	for i := range ids {
		createSchedule(t, c, fmt.Sprint("s", i), "mark", "", 100*time.Millisecond, nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL)
		invoke(t, c, "witness", fmt.Sprint("a", i), "arm", "1000")
		invoke(t, c, "witness", fmt.Sprint("c", i), "chain", "0")
	}
	createSchedule(t, c, "clock", "mark", "", 100*time.Millisecond, nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL)
	eventually(t, 20*time.Second, "all schedules fire", func() bool {
		for i := range ids {
			if marks(fmt.Sprint("s", i)) < 2 {
				return false
			}
		}
		return true
	})
	before := make(map[string]int)
	for i := range ids {
		s, a, ch := fmt.Sprint("s", i), fmt.Sprint("a", i), fmt.Sprint("c", i)
		if _, err := c.Schedules.DeleteSchedule(t.Context(), connect.NewRequest(&nolav1.DeleteScheduleRequest{ScheduleId: s})); err != nil {
			t.Fatal(err)
		}
		before[s] = marks(s)
		for _, id := range []string{a, ch} {
			if _, err := c.Actors.DeleteActor(t.Context(), connect.NewRequest(&nolav1.DeleteActorRequest{Actor: actorMessage("witness", id)})); err != nil {
				t.Fatal(err)
			}
			if left := state(t, c, "witness", id, ""); len(left) > 0 {
				t.Errorf("the state of witness/%s, which is deleted: %v", id, left)
			}
		}
	}
	look := func(when string) {
		t.Helper()
		from := marks("clock")
		eventually(t, 30*time.Second, "another schedule fires 15 times "+when, func() bool { return marks("clock") >= from+15 })
		for i := range ids {
			s, a, ch := fmt.Sprint("s", i), fmt.Sprint("a", i), fmt.Sprint("c", i)
			if now := marks(s); now != before[s] {
				t.Errorf("schedule %s fired %d times after its delete was acknowledged (%s)", s, now-before[s], when)
			}
			for _, id := range []string{a, ch} {
				if left := state(t, c, "witness", id, ""); len(left) > 0 {
					t.Errorf("witness/%s was woken after its delete was acknowledged (%s): %v", id, when, left)
				}
				timers, err := c.Actors.ListTimers(t.Context(), connect.NewRequest(&nolav1.ListTimersRequest{Actor: actorMessage("witness", id)}))
				if err != nil || len(timers.Msg.GetTimers()) > 0 {
					t.Errorf("timers of witness/%s, which is deleted: %v %v", id, timers, err)
				}
			}
			if _, err := c.Schedules.GetSchedule(t.Context(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: s})); reasonOf(err) != nola.ReasonScheduleNotFound {
				t.Errorf("schedule %s: %v, want SCHEDULE_NOT_FOUND", s, err)
			}
		}
	}
	look("at once")
	p.kill()
	p = serve(t, dir, "--listen", address)
	look("after a crash")
	// A schedule of the same name begins anew.
	createSchedule(t, c, "s0", "mark", "", 100*time.Millisecond, nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL)
	made := time.Now()
	eventually(t, 10*time.Second, "the new schedule fires", func() bool { return marks("s0") > before["s0"] })
	for _, o := range occurrences(t, c, "s0") {
		if o.GetNominalTime().AsTime().Before(made.Add(-time.Second)) {
			t.Errorf("the new schedule has an occurrence of the old one: %v", o)
		}
	}
	p.terminate()
}

// TestInvokeMany: calls of one stream to one actor start in their order, as many
// as are promised may be unanswered, and an error ends its call alone.
func TestInvokeMany(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	push(t, c, "kitchen", "counter", "witness")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := c.Actors.InvokeMany(ctx)
	const unansweredMax, calls, actors = 1024, 6_000, 7
	go func() {
		for from := 0; from < calls; from += 500 {
			req := &nolav1.InvokeManyRequest{}
			for tag := from; tag < from+500; tag++ {
				call := &nolav1.InvokeManyCall{Tag: uint64(tag), Actor: actorMessage("counter", fmt.Sprint("m", tag%actors)), Operation: "inc", Timeout: durationpb.New(50 * time.Second)}
				switch {
				case tag%100 == 99:
					call.Operation = "fly"
				case tag%1000 == 50:
					call.Actor = nil
				}
				req.Calls = append(req.Calls, call)
			}
			if err := stream.Send(req); err != nil {
				return // Receive says why
			}
		}
		_ = stream.CloseRequest() // Receive says why
	}()
	answers := make(map[int]int)
	seen := make(map[uint64]bool)
	for {
		res, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d answers: %v", len(seen), err)
		}
		for _, r := range res.GetResults() {
			tag := int(r.GetTag())
			if seen[r.GetTag()] {
				t.Errorf("call %d is answered twice", tag)
			}
			seen[r.GetTag()] = true
			want := nola.Reason("")
			switch {
			case tag%100 == 99:
				want = nola.ReasonOperationNotFound
			case tag%1000 == 50:
				want = nola.ReasonInvalidArgument
			}
			if got := nola.Reason(r.GetError().GetReason()); got != want {
				t.Errorf("call %d: %v, want %q", tag, r.GetError(), want)
			}
			if want != "" || r.GetError() != nil {
				continue
			}
			n, err := strconv.Atoi(string(r.GetPayload()))
			if err != nil {
				t.Errorf("call %d answers %q", tag, r.GetPayload())
			}
			answers[tag] = n
		}
	}
	// Answers come as calls end; the numbers tell in which order they started.
	last := make(map[int]int)
	for tag := range calls {
		n, counted := answers[tag]
		if !counted {
			continue
		}
		if actor := tag % actors; n != last[actor]+1 {
			t.Fatalf("call %d to m%d counts %d after %d: not in the order of the stream", tag, actor, n, last[actor])
		}
		last[tag%actors] = n
	}
	if len(seen) != calls {
		t.Errorf("%d answers, want %d", len(seen), calls)
	}
	_ = stream.CloseResponse() // it was read to its end

	// As many as may be unanswered, all for one actor that is busy.
	stream = c.Actors.InvokeMany(ctx)
	req := &nolav1.InvokeManyRequest{}
	req.Calls = append(req.Calls, &nolav1.InvokeManyCall{Tag: 0, Actor: actorMessage("witness", "busy"), Operation: "spin", Payload: []byte("300000000")})
	for tag := uint64(1); tag < unansweredMax; tag++ {
		req.Calls = append(req.Calls, &nolav1.InvokeManyCall{Tag: tag, Actor: actorMessage("witness", "busy"), Operation: "add", Payload: []byte(fmt.Sprint(tag))})
	}
	if err := stream.Send(req); err != nil {
		t.Fatal(err)
	}
	// The stream goes on for others meanwhile, once there is room.
	if err := stream.Send(&nolav1.InvokeManyRequest{Calls: []*nolav1.InvokeManyCall{{Tag: unansweredMax, Actor: actorMessage("counter", "else"), Operation: "inc"}}}); err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseRequest() // Receive says why
	var order []uint64
	for {
		res, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res.GetResults() {
			if r.GetError() != nil {
				t.Errorf("call %d: %v", r.GetTag(), r.GetError())
			}
			if r.GetTag() < unansweredMax {
				order = append(order, r.GetTag())
			}
		}
	}
	if len(order) != unansweredMax {
		t.Errorf("%d answers of the busy actor, want %d", len(order), unansweredMax)
	}
	if got := state(t, c, "witness", "busy", "total")["total"]; got != strconv.Itoa(unansweredMax-1) {
		t.Errorf("the busy actor counted %s, want %d", got, unansweredMax-1)
	}
}
