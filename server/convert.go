package server

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// namespaceOr fills in the default namespace.
func namespaceOr(s string) string {
	if s == "" {
		return nola.DefaultNamespace
	}
	return s
}

func refOf(r *nolav1.ActorRef) nola.ActorRef {
	return nola.ActorRef{Namespace: namespaceOr(r.GetNamespace()), Type: r.GetType(), ID: r.GetId()}
}

func refMessage(r nola.ActorRef) *nolav1.ActorRef {
	return &nolav1.ActorRef{Namespace: r.Namespace, Type: r.Type, Id: r.ID}
}

// keyOf is the key of a request: a user's, a session's, or none.
func keyOf(user string, s *nolav1.SessionKey) (nola.Key, error) {
	if s == nil {
		return nola.Key{User: user}, nil
	}
	k := nola.Key{User: user, Seq: s.GetSeq(), AckedBelow: s.GetAckedBelow(), FirstAttempt: timeOf(s.GetFirstAttempt())}
	if len(s.GetId()) != len(k.Session) {
		return k, nola.Errorf(nola.ReasonInvalidKey, "session.id has %d bytes, it must have %d", len(s.GetId()), len(k.Session))
	}
	copy(k.Session[:], s.GetId())
	if k.FirstAttempt.IsZero() {
		return k, nola.Errorf(nola.ReasonInvalidKey, "session.first_attempt is not set; take the server's clock from the answer header %s", TimeHeader)
	}
	return k, nil
}

// checkOperation refuses names of operations that the rules of the messages
// refuse, for requests that are not held against those. That one is there, and
// how long it is, the shards check.
func checkOperation(name string) error {
	at := strings.IndexFunc(name, unicode.IsControl)
	if at < 0 && utf8.ValidString(name) {
		return nil
	}
	what := "is not UTF-8"
	if at >= 0 {
		what = fmt.Sprintf("has a control character at byte %d", at)
	}
	e := nola.Errorf(nola.ReasonInvalidName, "operation %.64q %s", name, what)
	e.Metadata = map[string]string{"field": "operation"}
	return e
}

// deadlineOf is when a call ends that asks for so long.
func deadlineOf(now time.Time, timeout *durationpb.Duration) (time.Time, error) {
	if timeout == nil {
		return now.Add(nola.CallTimeoutDefault), nil
	}
	d := timeout.AsDuration()
	if d <= 0 || d > nola.CallTimeoutMax {
		return time.Time{}, nola.Errorf(nola.ReasonInvalidArgument, "timeout is %s, it must be above zero and at most %s", d, nola.CallTimeoutMax)
	}
	return now.Add(d), nil
}

// headerDeadline tightens a deadline to what the protocol's own header asks for,
// which connect has turned into the context's deadline.
func headerDeadline(h http.Header, now, deadline time.Time) time.Time {
	if v := h.Get("Connect-Timeout-Ms"); v != "" {
		if d, err := parseTimeout(v); err == nil && now.Add(d).Before(deadline) {
			return now.Add(d)
		}
	}
	return deadline
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// pageSize is how many entries a page has that asks for n.
func pageSize(n int32) int {
	const usual = 100
	if n == 0 {
		return usual
	}
	return int(n)
}

// formatCursor makes the opaque page token of a list of that kind: where the
// page ended.
func formatCursor(kind string, parts ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + "\x00" + strings.Join(parts, "\x00")))
}

// parseCursor reads what formatCursor wrote, n parts; nil for an empty token.
func parseCursor(kind, token string, n int) ([]string, error) {
	if token == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	parts := strings.SplitN(string(b), "\x00", n+1)
	if err != nil || len(parts) != n+1 || parts[0] != kind || slices.Contains(parts[1:], "") {
		return nil, errPageToken()
	}
	return parts[1:], nil
}

func errPageToken() error {
	e := nola.Errorf(nola.ReasonInvalidArgument, "page_token is not one that this list answered; send next_page_token as it came, with the same request, or leave it empty to start anew")
	e.Metadata = map[string]string{"field": "page_token"}
	return e
}
