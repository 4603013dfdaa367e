package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/nolaproject/nola"
)

// everyReasonOf reads the reasons out of the source that declares them.
func everyReasonOf(t *testing.T, file string) []nola.Reason {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []nola.Reason
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			reasons = append(reasons, nola.Reason(text))
		}
		return true
	})
	return reasons
}

func TestEveryReasonHasACode(t *testing.T) {
	reasons := everyReasonOf(t, "../errors.go")
	if len(reasons) != len(codes) {
		t.Errorf("%d reasons are declared, %d have a code", len(reasons), len(codes))
	}
	for _, r := range reasons {
		code, ok := codes[r]
		if !ok {
			t.Errorf("reason %s has no code", r)
			continue
		}
		e := &nola.Error{Reason: r, Message: "what happened", Metadata: map[string]string{"limit": "x"}, RetryAfter: 50 * time.Millisecond}
		got := asConnect(slog.New(slog.DiscardHandler), fmt.Errorf("wrapped: %w", e))
		if got.Code() != code || got.Message() != "what happened" {
			t.Errorf("%s became %v", r, got)
		}
		var info *errdetails.ErrorInfo
		var retry *errdetails.RetryInfo
		for _, d := range got.Details() {
			switch m := must(t, d).(type) {
			case *errdetails.ErrorInfo:
				info = m
			case *errdetails.RetryInfo:
				retry = m
			}
		}
		if info.GetReason() != string(r) || info.GetDomain() != "nola" || info.GetMetadata()["limit"] != "x" {
			t.Errorf("%s has the ErrorInfo %v", r, info)
		}
		if retry.GetRetryDelay().AsDuration() != 50*time.Millisecond {
			t.Errorf("%s has the RetryInfo %v", r, retry)
		}
		if m := asMessage(slog.New(slog.DiscardHandler), e); m.GetReason() != string(r) || m.GetCode() != code.String() || m.GetRetryAfter().AsDuration() != e.RetryAfter {
			t.Errorf("%s became the message %v", r, m)
		}
	}
}

func must(t *testing.T, d *connect.ErrorDetail) any {
	t.Helper()
	m, err := d.Value()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestInternalErrorsStayInside checks that clients see an id, and the log the rest.
func TestInternalErrorsStayInside(t *testing.T) {
	var log bytes.Buffer
	got := asConnect(slog.New(slog.NewTextHandler(&log, nil)), errors.New("secret of the store"))
	if got.Code() != connect.CodeInternal || strings.Contains(got.Message(), "secret") {
		t.Errorf("clients see %v", got)
	}
	id := strings.TrimSuffix(strings.Fields(got.Message())[2], ";")
	if !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "secret of the store") {
		t.Errorf("the log says %q and the client %q", log.String(), got.Message())
	}
	for err, want := range map[error]connect.Code{context.Canceled: connect.CodeCanceled, context.DeadlineExceeded: connect.CodeDeadlineExceeded} {
		if got := asConnect(slog.New(slog.DiscardHandler), err); got.Code() != want {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestRetrySeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{time.Nanosecond: 1, 50 * time.Millisecond: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90} {
		if got := retrySeconds(d); got != want {
			t.Errorf("Retry-After of %s is %d, want %d", d, got, want)
		}
	}
}
