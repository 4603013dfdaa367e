package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"path/filepath"
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

// TestEveryReasonIsGiven: no reason is promised that nothing answers with.
func TestEveryReasonIsGiven(t *testing.T) {
	names := map[string]bool{} // whether code outside of the two tables of reasons has it
	look := func(file string, visit func(id *ast.Ident)) {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				visit(id)
			}
			return true
		})
	}
	look("../errors.go", func(id *ast.Ident) {
		if id.Name != "Reason" && strings.HasPrefix(id.Name, "Reason") {
			names[id.Name] = false
		}
	})
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") || file == "../errors.go" || file == "../server/errors.go" {
			return err
		}
		look(file, func(id *ast.Ident) {
			if _, ok := names[id.Name]; ok {
				names[id.Name] = true
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, given := range names {
		if !given {
			t.Errorf("nola.%s is declared, and nothing answers it", name)
		}
	}
	if len(names) < 40 {
		t.Errorf("only %d reasons were found", len(names))
	}
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
