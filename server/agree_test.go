package server_test

import (
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestInvokeIsValidated holds the checks of Invoke, which are written by hand,
// against the rules of its message: both must refuse the same requests.
func TestInvokeIsValidated(t *testing.T) {
	s := start(t)
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	good := func() *nolav1.InvokeRequest {
		return &nolav1.InvokeRequest{Actor: &nolav1.ActorRef{Type: "small", Id: "alice"}, Operation: "get"}
	}
	session := func(size int, seq, acked uint64) *nolav1.SessionKey {
		return &nolav1.SessionKey{Id: []byte(strings.Repeat("s", size)), Seq: seq, AckedBelow: acked, FirstAttempt: timestamppb.Now()}
	}
	for name, change := range map[string]func(*nolav1.InvokeRequest){
		"good":                      func(*nolav1.InvokeRequest) {},
		"no actor":                  func(r *nolav1.InvokeRequest) { r.Actor = nil },
		"no type":                   func(r *nolav1.InvokeRequest) { r.Actor.Type = "" },
		"no id":                     func(r *nolav1.InvokeRequest) { r.Actor.Id = "" },
		"id with a control":         func(r *nolav1.InvokeRequest) { r.Actor.Id = "a\nb" },
		"id with a C1 control":      func(r *nolav1.InvokeRequest) { r.Actor.Id = "a\u0085b" },
		"id at its limit":           func(r *nolav1.InvokeRequest) { r.Actor.Id = strings.Repeat("x", 512) },
		"id beyond its limit":       func(r *nolav1.InvokeRequest) { r.Actor.Id = strings.Repeat("ä", 257) },
		"namespace in upper case":   func(r *nolav1.InvokeRequest) { r.Actor.Namespace = "Default" },
		"type ends with a dash":     func(r *nolav1.InvokeRequest) { r.Actor.Type = "small-" },
		"no operation":              func(r *nolav1.InvokeRequest) { r.Operation = "" },
		"operation with a control":  func(r *nolav1.InvokeRequest) { r.Operation = "a\x00b" },
		"operation beyond its size": func(r *nolav1.InvokeRequest) { r.Operation = strings.Repeat("x", 129) },
		"user key":                  func(r *nolav1.InvokeRequest) { r.IdempotencyKey = "k" },
		"user key beyond its size":  func(r *nolav1.InvokeRequest) { r.IdempotencyKey = strings.Repeat("k", 257) },
		"session":                   func(r *nolav1.InvokeRequest) { r.Session = session(16, 1023, 0) },
		"two keys":                  func(r *nolav1.InvokeRequest) { r.IdempotencyKey, r.Session = "k", session(16, 1, 0) },
		"session id too short":      func(r *nolav1.InvokeRequest) { r.Session = session(15, 1, 0) },
		"session window":            func(r *nolav1.InvokeRequest) { r.Session = session(16, 1024, 0) },
		"session acked above":       func(r *nolav1.InvokeRequest) { r.Session = session(16, 1, 2) },
		"session without a time":    func(r *nolav1.InvokeRequest) { r.Session = session(16, 1, 0); r.Session.FirstAttempt = nil },
		"timeout":                   func(r *nolav1.InvokeRequest) { r.Timeout = durationpb.New(5 * time.Minute) },
		"timeout of nothing":        func(r *nolav1.InvokeRequest) { r.Timeout = durationpb.New(0) },
		"timeout beyond":            func(r *nolav1.InvokeRequest) { r.Timeout = durationpb.New(5*time.Minute + 1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			change(r)
			rules := validator.Validate(r)
			_, err := s.Client.Actors.Invoke(t.Context(), connect.NewRequest(r))
			refused := connect.CodeOf(err) == connect.CodeInvalidArgument
			if (rules != nil) != refused {
				t.Errorf("the rules say %v, the server says %v", rules, err)
			}
		})
	}
}

func BenchmarkValidateInvoke(b *testing.B) {
	validator, err := protovalidate.New()
	if err != nil {
		b.Fatal(err)
	}
	r := &nolav1.InvokeRequest{Actor: &nolav1.ActorRef{Type: "small", Id: "alice"}, Operation: "get"}
	b.ReportAllocs()
	for b.Loop() {
		if err := validator.Validate(r); err != nil {
			b.Fatal(err)
		}
	}
}
