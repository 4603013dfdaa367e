package cluster

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
)

// Between the words of the domain and the messages between nodes.

func actorMessage(r nola.ActorRef) *peerv1.Actor {
	if r.IsZero() {
		return nil
	}
	return &peerv1.Actor{Namespace: r.Namespace, Type: r.Type, Id: r.ID}
}

func actorOf(m *peerv1.Actor) nola.ActorRef {
	return nola.ActorRef{Namespace: m.GetNamespace(), Type: m.GetType(), ID: m.GetId()}
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func invocationMessage(now time.Time, inv *nola.Invocation) *peerv1.Invocation {
	m := &peerv1.Invocation{
		Kind: uint32(inv.Kind), Target: actorMessage(inv.Target), Operation: inv.Operation, Payload: inv.Payload,
		Caller: actorMessage(inv.Caller.Actor), CallerName: inv.Caller.Name, CallerNominal: stamp(inv.Caller.Nominal),
		CallerIdentity: inv.Caller.Identity, Due: stamp(inv.Due), Started: stamp(inv.Started), Attempt: uint32(inv.Attempt), Create: inv.Create,
	}
	if !inv.ID.IsZero() {
		m.Id = inv.ID[:]
	}
	if !inv.Caller.Parent.IsZero() {
		m.CallerParent = inv.Caller.Parent[:]
	}
	if k := &inv.Key; !k.IsZero() {
		m.Key = &peerv1.Key{
			Session: k.Session[:], Seq: k.Seq, AckedBelow: k.AckedBelow, FirstAttempt: stamp(k.FirstAttempt), Nested: k.Nested, User: k.User,
		}
	}
	for _, r := range inv.Chain {
		m.Chain = append(m.Chain, actorMessage(r))
	}
	if !inv.Deadline.IsZero() {
		m.Timeout = durationpb.New(inv.Deadline.Sub(now))
	}
	return m
}

func invocationOf(now time.Time, m *peerv1.Invocation) *nola.Invocation {
	inv := &nola.Invocation{
		Kind: nola.Kind(m.GetKind()), Target: actorOf(m.GetTarget()), Operation: m.GetOperation(), Payload: m.GetPayload(),
		Caller: nola.Caller{Actor: actorOf(m.GetCaller()), Name: m.GetCallerName(), Nominal: moment(m.GetCallerNominal()), Identity: m.GetCallerIdentity()},
		Due:    moment(m.GetDue()), Started: moment(m.GetStarted()), Attempt: int(m.GetAttempt()), Create: m.GetCreate(),
	}
	copy(inv.ID[:], m.GetId())
	copy(inv.Caller.Parent[:], m.GetCallerParent())
	if k := m.GetKey(); k != nil {
		inv.Key = nola.Key{Seq: k.GetSeq(), AckedBelow: k.GetAckedBelow(), FirstAttempt: moment(k.GetFirstAttempt()), Nested: k.GetNested(), User: k.GetUser()}
		copy(inv.Key.Session[:], k.GetSession())
	}
	for _, r := range m.GetChain() {
		inv.Chain = append(inv.Chain, actorOf(r))
	}
	if m.GetTimeout() != nil {
		inv.Deadline = now.Add(m.GetTimeout().AsDuration())
	}
	return inv
}

// asNola is err as clients see it.
func asNola(err error) *nola.Error {
	var e *nola.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return nola.Errorf(nola.ReasonDeadlineExceeded, "the deadline passed before the node that serves the shard answered")
	case errors.Is(err, context.Canceled):
		return nola.Errorf(nola.ReasonCanceled, "the caller left")
	}
	return nola.Errorf(nola.ReasonInternal, "%v", err)
}

func errorMessage(err error) *peerv1.Error {
	if err == nil {
		return nil
	}
	e := asNola(err)
	m := &peerv1.Error{Reason: string(e.Reason), Message: e.Message, Metadata: e.Metadata}
	if e.RetryAfter > 0 {
		m.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return m
}

func errorOf(m *peerv1.Error) error {
	if m == nil {
		return nil
	}
	return &nola.Error{Reason: nola.Reason(m.GetReason()), Message: m.GetMessage(), Metadata: m.GetMetadata(), RetryAfter: m.GetRetryAfter().AsDuration()}
}
