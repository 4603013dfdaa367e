package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

// The exit codes; doc.go says what each asks of the caller.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnavailable = 5
	exitConflict    = 6
	exitGuest       = 7
)

// problem is a failure as the user sees it.
type problem struct {
	code    int
	message string
	reason  string // the stable word, empty for what never left this program
	caret   string // a text with the faulty part marked, may be empty
	hints   []string
	general string // that of hints which fits the reason whatever the command was
}

func (p *problem) Error() string { return p.message }

// print writes the problem for people: what, where, why and what next.
func (p *problem) print(w io.Writer) {
	fmt.Fprintf(w, "error: %s\n", clean(p.message))
	if p.caret != "" {
		fmt.Fprintln(w, p.caret)
	}
	if p.reason != "" {
		fmt.Fprintf(w, "reason: %s\n", clean(p.reason))
	}
	for _, h := range p.hints {
		fmt.Fprintf(w, "hint: %s\n", clean(h))
	}
}

// usage is the refusal of a command line or of a file it names.
func usage(hint, format string, args ...any) error {
	p := &problem{code: exitUsage, message: fmt.Sprintf(format, args...)}
	if hint != "" {
		p.hints = []string{hint}
	}
	return p
}

// notFound is the answer to a name that means nothing.
func notFound(hint, format string, args ...any) error {
	return &problem{code: exitNotFound, message: fmt.Sprintf(format, args...), hints: []string{hint}}
}

// hinted is an error together with what its command knows to do about a reason.
type hinted struct {
	error
	hints map[nola.Reason]string
}

func (h hinted) Unwrap() error { return h.error }

// explain makes any error a problem.
func (c *cli) explain(err error) *problem {
	var p *problem
	var spec *scheduler.SpecError
	var remote *connect.Error
	var own *nola.Error
	switch {
	case errors.As(err, &p):
		copied := *p
		p = &copied
	case errors.As(err, &spec):
		p = &problem{code: exitUsage, reason: string(nola.ReasonInvalidSpec), message: "the spec is not legal", caret: clean(spec.Render())}
	case errors.As(err, &own) && errors.As(err, &remote):
		p = c.explainRemote(own, remote)
	case errors.As(err, &own):
		p = c.explainOwn(own)
	case errors.Is(err, context.Canceled):
		p = &problem{code: exitFailure, message: "interrupted"}
	default:
		p = &problem{code: exitFailure, message: err.Error()}
	}
	var h hinted
	if errors.As(err, &h) {
		if hint := h.hints[nola.Reason(p.reason)]; hint != "" {
			// The command knows the names, so its hint takes the place of the general one.
			p.hints = append([]string{hint}, slices.DeleteFunc(p.hints, func(h string) bool { return h == p.general })...)
		}
	}
	return p
}

// explainOwn reads what package client says by itself: what it refused to send,
// and a call whose outcome it could not learn.
func (c *cli) explainOwn(e *nola.Error) *problem {
	p := &problem{code: exitUsage, message: e.Message}
	switch e.Reason {
	case nola.ReasonOutcomeUnknown, nola.ReasonUnavailable, nola.ReasonDeadlineExceeded:
		p.code, p.reason = exitUnavailable, string(e.Reason)
	case nola.ReasonCanceled:
		return &problem{code: exitFailure, message: "interrupted", reason: string(e.Reason)}
	}
	if p.general = c.hint(e.Reason, e.Metadata); p.general != "" {
		p.hints = append(p.hints, p.general)
	}
	return p
}

// explainRemote reads what a server, or the way to it, answered.
func (c *cli) explainRemote(e *nola.Error, err *connect.Error) *problem {
	if !connect.IsWireError(err) {
		return c.explainTransport(e, err)
	}
	p := &problem{message: e.Message, reason: string(e.Reason), caret: caret(e.Metadata)}
	if spec := faultsOf(err); len(spec.Faults) > 0 {
		p.message, p.caret = "the spec is not legal", clean(spec.Render())
		if all, _ := strconv.Atoi(e.Metadata["faults"]); all > len(spec.Faults) {
			p.caret += fmt.Sprintf("\nand %d more", all-len(spec.Faults))
		}
	}
	if p.message == "" {
		p.message = "the server answered " + err.Code().String()
	}
	p.code = exitCode(e.Reason, err.Code(), e.RetryAfter > 0)
	if p.general = c.hint(e.Reason, e.Metadata); p.general != "" {
		p.hints = append(p.hints, p.general)
	}
	if e.RetryAfter > 0 {
		p.hints = append(p.hints, fmt.Sprintf("try again after %s", e.RetryAfter.Round(time.Millisecond)))
	}
	return p
}

// explainTransport says why no server answered.
func (c *cli) explainTransport(e *nola.Error, err *connect.Error) *problem {
	var op *net.OpError
	var dns *net.DNSError
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		return &problem{
			code: exitUnavailable, message: fmt.Sprintf("cannot reach the server at %s: %s", c.server, dns),
			hints: []string{"check the host name in --server or NOLA_SERVER"},
		}
	case errors.As(err, &op) && op.Op == "dial":
		return &problem{
			code: exitUnavailable, message: fmt.Sprintf("cannot reach the server at %s: %s", c.server, op.Err),
			hints: []string{"start a server with `nolad dev`, or name another one with --server or NOLA_SERVER"},
		}
	case errors.As(err, &untrusted):
		return &problem{
			code: exitUnavailable, message: fmt.Sprintf("cannot trust the server at %s: %s", c.server, untrusted.Err),
			hints: []string{"name the file with the authority's certificate in SSL_CERT_FILE"},
		}
	case errors.As(err, &plain) || errors.Is(err, http.ErrSchemeMismatch):
		return &problem{
			code: exitUnavailable, message: fmt.Sprintf("the server at %s does not speak TLS", c.server),
			hints: []string{"write http:// in --server or NOLA_SERVER, if it is meant to be reached without encryption"},
		}
	case e.Reason == nola.ReasonCanceled:
		return &problem{code: exitFailure, message: "interrupted", reason: string(nola.ReasonCanceled)}
	case errors.Is(err, context.DeadlineExceeded) || err.Code() == connect.CodeDeadlineExceeded:
		return &problem{
			code: exitUnavailable, message: fmt.Sprintf("the server at %s did not answer within %s", c.server, c.timeout),
			reason: string(nola.ReasonOutcomeUnknown), hints: []string{"wait longer with --timeout"},
		}
	case err.Code() == connect.CodeUnauthenticated, err.Code() == connect.CodePermissionDenied:
		return &problem{code: exitDenied, message: err.Message(), hints: []string{c.hint(nola.ReasonUnauthenticated, nil)}}
	case err.Code() == connect.CodeUnavailable, e.Reason == nola.ReasonUnavailable:
		return &problem{
			code: exitUnavailable, message: fmt.Sprintf("lost the server at %s: %s", c.server, err.Message()), reason: string(nola.ReasonOutcomeUnknown),
			general: c.hint(nola.ReasonOutcomeUnknown, nil),
			hints:   []string{c.hint(nola.ReasonOutcomeUnknown, nil), "if it never answers, check --server: it must speak HTTP/2, and http:// or https:// as written there"},
		}
	default:
		return &problem{
			code: exitFailure, message: fmt.Sprintf("%s does not answer as a NOLA server does: %s", c.server, err.Message()),
			hints: []string{"check --server and NOLA_SERVER: scheme, host and port, nothing behind"},
		}
	}
}

// exitCode sorts a server's answer. The reason decides where one code of the
// protocol serves several purposes.
func exitCode(reason nola.Reason, code connect.Code, retry bool) int {
	switch {
	case reason == nola.ReasonGuestError, reason == nola.ReasonGuestTrap:
		return exitGuest
	case strings.HasSuffix(string(reason), "_NOT_FOUND"):
		return exitNotFound
	}
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return exitUsage
	case connect.CodeNotFound:
		return exitNotFound
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return exitDenied
	case connect.CodeUnavailable:
		return exitUnavailable
	case connect.CodeAlreadyExists, connect.CodeAborted, connect.CodeFailedPrecondition:
		return exitConflict
	case connect.CodeResourceExhausted:
		if retry {
			return exitUnavailable
		}
		return exitFailure
	default:
		return exitFailure
	}
}

// hint is the next step that fits a reason whatever the command was, with the
// names that the error tells.
func (c *cli) hint(reason nola.Reason, told map[string]string) string {
	switch reason {
	case nola.ReasonModuleNotFound:
		return c.there("module list", "module push FILE --name ", told["module"])
	case nola.ReasonVersionNotFound:
		if told["module"] == "" {
			return ""
		}
		return c.there("module versions "+quote(told["module"]), "", "")
	case nola.ReasonActorNotFound:
		return c.there("actor list", "", "") + "; an actor comes into being with its first call that writes"
	case nola.ReasonScheduleNotFound:
		return c.there("schedule list", "", "")
	case nola.ReasonCalendarNotFound:
		return c.there("calendar list", "calendar put -f FILE ", told["calendar"])
	case nola.ReasonCalendarInUse:
		first, _, _ := strings.Cut(told["schedules"], "\n")
		if first == "" {
			return ""
		}
		return "see how it is used with " + c.line("schedule describe "+quote(first))
	case nola.ReasonNamespaceNotFound:
		hint := "see what is there with `nolactl namespace list`"
		if name := told["namespace"]; name != "" {
			hint += fmt.Sprintf(", add it with `nolactl namespace create %s`", quote(name))
		}
		return hint
	case nola.ReasonETagMismatch:
		return "somebody else changed it in the meantime: look at it and run the command again"
	case nola.ReasonModuleInUse:
		return "it has actors; remove it all the same with --force, their state stays"
	case nola.ReasonKeyReused:
		return "use another --key for another request"
	case nola.ReasonOutcomeUnknown:
		return "it may have happened: look before you repeat it"
	case nola.ReasonUnauthenticated:
		return "give a token with --token-file FILE or NOLA_TOKEN"
	case nola.ReasonPermissionDenied:
		return "use a token that allows this, with --token-file FILE or NOLA_TOKEN"
	case nola.ReasonBackupsDisabled:
		return "if the server can be stopped, `nolad backup DIR` on its machine copies the store without it"
	default:
		return ""
	}
}

// there says how to list what is there, and how to add what is not, if it is
// known what.
func (c *cli) there(list, add, name string) string {
	hint := "see what is there with " + c.line(list)
	if name != "" {
		hint += ", add it with " + c.line(add+quote(name))
	}
	return hint
}

// line is a command line to type here, in the namespace of this command.
func (c *cli) line(words string) string {
	if c.namespace != nola.DefaultNamespace && c.namespaced {
		words += " -n " + c.namespace
	}
	return "`nolactl " + strings.TrimSpace(words) + "`"
}

// faultsOf are the faults of a spec that a server refused, to be drawn as those
// that are found here.
func faultsOf(err *connect.Error) scheduler.SpecError {
	var spec scheduler.SpecError
	for _, d := range err.Details() {
		m, err := d.Value()
		if err != nil {
			continue // of a newer server
		}
		if f, ok := m.(*nolav1.SpecFault); ok {
			spec.Faults = append(spec.Faults, scheduler.Fault{
				Expression: f.Expression, Field: f.Field, Index: int(f.Index), Start: int(f.Begin), End: int(f.End),
				Legal: f.Legal, Suggestion: f.Suggestion, Message: f.Message,
			})
		}
	}
	return spec
}

// caret draws the faulty part of an expression, from the metadata of an
// INVALID_SPEC error of an older server.
func caret(meta map[string]string) string {
	text := meta["expression"]
	start, err1 := strconv.Atoi(meta["start"])
	end, err2 := strconv.Atoi(meta["end"])
	if text == "" || err1 != nil || err2 != nil || start < 0 || end < start || end > len(text) {
		return ""
	}
	return "  " + clean(text) + "\n  " +
		strings.Repeat(" ", utf8.RuneCountInString(text[:start])) +
		strings.Repeat("^", max(1, utf8.RuneCountInString(text[start:end])))
}
