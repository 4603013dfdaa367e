package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// reasons says which reason stands for an error that brought none: it came from
// the transport, or from something between client and server.
var reasons = map[connect.Code]nola.Reason{
	connect.CodeCanceled:           nola.ReasonCanceled,
	connect.CodeInvalidArgument:    nola.ReasonInvalidArgument,
	connect.CodeDeadlineExceeded:   nola.ReasonDeadlineExceeded,
	connect.CodeAlreadyExists:      nola.ReasonAlreadyExists,
	connect.CodePermissionDenied:   nola.ReasonPermissionDenied,
	connect.CodeResourceExhausted:  nola.ReasonLimitExceeded,
	connect.CodeAborted:            nola.ReasonUnavailable,
	connect.CodeUnavailable:        nola.ReasonUnavailable,
	connect.CodeUnauthenticated:    nola.ReasonUnauthenticated,
	connect.CodeOutOfRange:         nola.ReasonInvalidArgument,
	connect.CodeFailedPrecondition: nola.ReasonInvalidArgument,
}

// Error turns an error of a generated client into a *nola.Error: its reason and
// metadata come from the error's details. The clients of a Client do so by
// themselves; nil stays nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	e, _ := fromConnect(err, "")
	return e
}

// ErrorOf turns an error inside a message into a *nola.Error; nil stays nil.
func ErrorOf(m *nolav1.Error) *nola.Error {
	if m == nil {
		return nil
	}
	return &nola.Error{Reason: nola.Reason(m.GetReason()), Message: m.GetMessage(), Metadata: m.GetMetadata(), RetryAfter: m.GetRetryAfter().AsDuration()}
}

// fromConnect is err as a *nola.Error. answered reports whether the server sent
// it; if not, it came from the transport, and what was asked may have happened.
func fromConnect(err error, address string) (e *nola.Error, answered bool) {
	if errors.As(err, &e) {
		return e, true
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		switch {
		case errors.Is(err, context.Canceled):
			return nola.Errorf(nola.ReasonCanceled, "the caller gave up"), false
		case errors.Is(err, context.DeadlineExceeded):
			return nola.Errorf(nola.ReasonDeadlineExceeded, "the deadline passed before the server answered"), false
		}
		return nola.Errorf(nola.ReasonUnavailable, "%s: %v", address, err), false
	}
	e = &nola.Error{Message: ce.Message()}
	for _, d := range ce.Details() {
		m, err := d.Value()
		if err != nil {
			continue // of a newer server
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata, answered = nola.Reason(m.GetReason()), m.GetMetadata(), true
		case *errdetails.RetryInfo:
			e.RetryAfter = m.GetRetryDelay().AsDuration()
		}
	}
	if answered {
		return e, true
	}
	answered = definite(ce.Code(), connect.IsWireError(err))
	var ok bool
	if e.Reason, ok = reasons[ce.Code()]; !ok {
		e.Reason = nola.ReasonInternal
		if !connect.IsWireError(err) {
			e.Reason = nola.ReasonUnavailable // a stream or a connection that broke
		}
	}
	switch {
	case noTLS(err):
		e.Message = fmt.Sprintf("cannot agree with the server at %s on encryption: %s", address, ce.Message())
	case neverSent(err):
		e.Message = fmt.Sprintf("cannot reach the server at %s: %s; is it running there? `nolad dev` starts one", address, rootOf(err))
	case e.Reason == nola.ReasonDeadlineExceeded:
		e.Message = "the deadline passed before the server answered"
	case e.Reason == nola.ReasonCanceled:
		e.Message = "the caller gave up"
	case ce.Code() == connect.CodeUnimplemented:
		e.Message = fmt.Sprintf("the server at %s does not know this request (%s); it may be of an older release, or not a NOLA server", address, ce.Message())
	case e.Reason == nola.ReasonUnavailable && address != "":
		e.Message = fmt.Sprintf("the connection to %s failed: %s", address, ce.Message())
	}
	return e, answered
}

// definite reports whether an error without a reason of ours says that nothing
// ran: the server's own framework, or something before it, refused the request.
func definite(code connect.Code, wire bool) bool {
	switch code {
	case connect.CodeUnimplemented, connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeNotFound:
		return true
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return wire
	}
	return false
}

// neverSent reports whether no connection came about, so that nothing can have
// run.
func neverSent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial" || noTLS(err)
}

// noTLS reports whether the server speaks no TLS, or cannot be trusted.
func noTLS(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &untrusted) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch)
}

// rootOf is what the operating system said.
func rootOf(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		text := op.Err.Error()
		if _, after, ok := strings.Cut(text, ": "); ok {
			return after
		}
		return text
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Error()
	}
	return err.Error()
}

// unknown is the end of a call that may have run. last is the last error met.
func unknown(ref nola.ActorRef, k nola.Key, last *nola.Error) *nola.Error {
	e := nola.Errorf(nola.ReasonOutcomeUnknown, "the call to %s may have run, but its outcome did not arrive (%s); ask GetInvocation with its key", ref, last.Message)
	e.Metadata = keyMetadata(k)
	e.Metadata["last_reason"] = string(last.Reason)
	return e
}

// failure is the error of one attempt.
type failure struct {
	err *nola.Error
	// answered: the server said it. unsent: no connection came about.
	answered, unsent bool
	cause            error
}

// Error is the message alone, as that of a nola.Error.
func (f *failure) Error() string { return f.err.Message }

// Unwrap lets errors.As find both the *nola.Error and what the transport said.
func (f *failure) Unwrap() []error { return []error{f.err, f.cause} }
