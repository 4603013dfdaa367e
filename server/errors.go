package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "nola"

// codes says which Connect code each reason has.
var codes = map[nola.Reason]connect.Code{
	nola.ReasonInvalidName:        connect.CodeInvalidArgument,
	nola.ReasonInvalidArgument:    connect.CodeInvalidArgument,
	nola.ReasonInvalidSpec:        connect.CodeInvalidArgument,
	nola.ReasonInvalidModule:      connect.CodeInvalidArgument,
	nola.ReasonInvalidKey:         connect.CodeInvalidArgument,
	nola.ReasonModuleNotFound:     connect.CodeNotFound,
	nola.ReasonVersionNotFound:    connect.CodeNotFound,
	nola.ReasonActorNotFound:      connect.CodeNotFound,
	nola.ReasonScheduleNotFound:   connect.CodeNotFound,
	nola.ReasonCalendarNotFound:   connect.CodeNotFound,
	nola.ReasonBackfillNotFound:   connect.CodeNotFound,
	nola.ReasonDeadLetterNotFound: connect.CodeNotFound,
	nola.ReasonNamespaceNotFound:  connect.CodeNotFound,
	nola.ReasonInvocationNotFound: connect.CodeNotFound,
	nola.ReasonAlreadyExists:      connect.CodeAlreadyExists,
	nola.ReasonOperationNotFound:  connect.CodeUnimplemented,
	nola.ReasonGuestError:         connect.CodeUnknown,
	nola.ReasonGuestTrap:          connect.CodeInternal,
	nola.ReasonCPUBudget:          connect.CodeResourceExhausted,
	nola.ReasonMemoryLimit:        connect.CodeResourceExhausted,
	nola.ReasonLimitExceeded:      connect.CodeResourceExhausted,
	nola.ReasonMailboxFull:        connect.CodeResourceExhausted,
	nola.ReasonBacklogFull:        connect.CodeResourceExhausted,
	nola.ReasonShardOverloaded:    connect.CodeResourceExhausted,
	nola.ReasonNodeOverloaded:     connect.CodeResourceExhausted,
	nola.ReasonNestedCalls:        connect.CodeResourceExhausted,
	nola.ReasonDedupFull:          connect.CodeResourceExhausted,
	nola.ReasonDeadlineExceeded:   connect.CodeDeadlineExceeded,
	nola.ReasonCanceled:           connect.CodeCanceled,
	nola.ReasonTerminated:         connect.CodeAborted,
	nola.ReasonCallCycle:          connect.CodeFailedPrecondition,
	nola.ReasonCalendarInUse:      connect.CodeFailedPrecondition,
	nola.ReasonModuleInUse:        connect.CodeFailedPrecondition,
	nola.ReasonNamespaceDeleting:  connect.CodeFailedPrecondition,
	nola.ReasonKeyReused:          connect.CodeFailedPrecondition,
	nola.ReasonKeyExpired:         connect.CodeFailedPrecondition,
	nola.ReasonNondeterministic:   connect.CodeFailedPrecondition,
	nola.ReasonETagMismatch:       connect.CodeAborted,
	nola.ReasonShardMoving:        connect.CodeUnavailable,
	nola.ReasonNoOwner:            connect.CodeUnavailable,
	nola.ReasonOutcomeUnknown:     connect.CodeUnavailable,
	nola.ReasonBackupsDisabled:    connect.CodeFailedPrecondition,
	nola.ReasonTimeNotVirtual:     connect.CodeFailedPrecondition,
	nola.ReasonUpgradeRefused:     connect.CodeFailedPrecondition,
	nola.ReasonUnavailable:        connect.CodeUnavailable,
	nola.ReasonPermissionDenied:   connect.CodePermissionDenied,
	nola.ReasonUnauthenticated:    connect.CodeUnauthenticated,
	nola.ReasonInternal:           connect.CodeInternal,
}

// codeOf is the Connect code of a reason.
func codeOf(r nola.Reason) connect.Code {
	if c, ok := codes[r]; ok {
		return c
	}
	return connect.CodeInternal
}

// asNola is err as clients may see it. What is not meant for them is logged
// under an id that they get instead.
func asNola(log *slog.Logger, err error) *nola.Error {
	var e *nola.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return nola.Errorf(nola.ReasonCanceled, "the caller left")
	case errors.Is(err, context.DeadlineExceeded):
		return nola.Errorf(nola.ReasonDeadlineExceeded, "the deadline passed")
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	log.Error("internal error", "id", hex.EncodeToString(id[:]), "error", err)
	return nola.Errorf(nola.ReasonInternal, "internal error %s; the server's log says more under this id", hex.EncodeToString(id[:]))
}

// faultBytesMax bounds the SpecFaults of an error: under gRPC they are a header.
const faultBytesMax = 8 << 10

// asConnect maps err to the Connect error that clients get: the message as it
// is, the reason and its metadata as ErrorInfo, RetryInfo where waiting helps,
// and a SpecFault for each fault of a spec.
func asConnect(log *slog.Logger, err error) *connect.Error {
	var done *connect.Error
	if errors.As(err, &done) {
		return done
	}
	e := asNola(log, err)
	out := connect.NewError(codeOf(e.Reason), errors.New(e.Message))
	add := func(m proto.Message) {
		if d, err := connect.NewErrorDetail(m); err == nil {
			out.AddDetail(d)
		}
	}
	add(&errdetails.ErrorInfo{Reason: string(e.Reason), Domain: errorDomain, Metadata: e.Metadata})
	if e.RetryAfter > 0 {
		add(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	var spec *scheduler.SpecError
	if errors.As(err, &spec) {
		room := faultBytesMax
		for i := range spec.Faults {
			m := faultMessage(&spec.Faults[i])
			if room -= proto.Size(m); room < 0 {
				break
			}
			add(m)
		}
	}
	return out
}

func faultMessage(f *scheduler.Fault) *nolav1.SpecFault {
	return &nolav1.SpecFault{
		Field: f.Field, Expression: f.Expression, Index: uint32(f.Index), Begin: uint32(f.Start), End: uint32(f.End),
		Legal: f.Legal, Suggestion: f.Suggestion, Message: f.Message,
	}
}

// asMessage is err as a part of an answer.
func asMessage(log *slog.Logger, err error) *nolav1.Error {
	e := asNola(log, err)
	out := &nolav1.Error{Reason: string(e.Reason), Code: codeOf(e.Reason).String(), Message: e.Message, Metadata: e.Metadata}
	if e.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return out
}

// retrySeconds is a Retry-After header's value: whole seconds, at least one.
func retrySeconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }
