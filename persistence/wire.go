package persistence

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
)

// The two messages of the hot path, Outcome and Invocation, are encoded by hand:
// the same bytes as the generated code makes of them, which golden files hold,
// in a quarter of the time and without garbage. They are decoded by the
// generated code.

func appendOutcome(b []byte, rec *OutcomeRecord, byID bool) []byte {
	if byID {
		b = appendRefField(b, 2, rec.Target)
	} else {
		b = appendIDField(b, 1, rec.ID)
	}
	b = appendVarintField(b, 3, rec.Seq)
	if rec.Hash != [16]byte{} {
		b = appendBytesField(b, 4, rec.Hash[:])
	}
	b = appendTimeField(b, 5, rec.Time)
	b = appendVarintField(b, 6, uint64(rec.State))
	b = appendBytesField(b, 7, rec.Reply)
	if rec.Err != nil {
		b = appendNested(b, 8, func(b []byte) []byte { return appendError(b, rec.Err) })
	}
	b = appendVarintField(b, 9, uint64(int64(rec.Attempts)))
	if !rec.Deferred.IsZero() {
		b = appendBytesField(b, 10, rec.Deferred[:])
	}
	return b
}

// appendError leaves errors, which are rare, to the generated code.
func appendError(b []byte, e *nola.Error) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, errorMessage(e))
	if err != nil {
		panic(fmt.Sprintf("persistence: encode an error: %v", err))
	}
	return b
}

func appendInvocationField(b []byte, number protowire.Number, inv *nola.Invocation) []byte {
	if inv == nil {
		return b
	}
	return appendNested(b, number, func(b []byte) []byte { return appendInvocation(b, inv) })
}

func appendInvocation(b []byte, inv *nola.Invocation) []byte {
	b = appendIDField(b, 1, inv.ID)
	b = appendVarintField(b, 2, uint64(inv.Kind))
	if k := &inv.Key; *k != (nola.Key{}) {
		b = appendNested(b, 3, func(b []byte) []byte {
			b = appendIDField(b, 1, nola.InvocationID(k.Session))
			b = appendVarintField(b, 2, k.Seq)
			b = appendVarintField(b, 3, k.AckedBelow)
			b = appendTimeField(b, 4, k.FirstAttempt)
			b = appendBoolField(b, 5, k.Nested)
			return appendStringField(b, 6, k.User)
		})
	}
	b = appendRefField(b, 4, inv.Target)
	b = appendStringField(b, 5, inv.Operation)
	b = appendBytesField(b, 6, inv.Payload)
	if c := &inv.Caller; *c != (nola.Caller{}) {
		b = appendNested(b, 7, func(b []byte) []byte {
			b = appendRefField(b, 1, c.Actor)
			b = appendIDField(b, 2, c.Parent)
			b = appendStringField(b, 3, c.Name)
			b = appendTimeField(b, 4, c.Nominal)
			return appendStringField(b, 5, c.Identity)
		})
	}
	for i := range inv.Chain {
		b = appendNested(b, 8, func(b []byte) []byte { return appendRef(b, inv.Chain[i]) })
	}
	b = appendTimeField(b, 9, inv.Deadline)
	b = appendTimeField(b, 10, inv.Due)
	b = appendTimeField(b, 11, inv.Started)
	b = appendVarintField(b, 12, uint64(int64(inv.Attempt)))
	return appendBoolField(b, 13, inv.Create)
}

func appendRefField(b []byte, number protowire.Number, ref nola.ActorRef) []byte {
	if ref.IsZero() {
		return b
	}
	return appendNested(b, number, func(b []byte) []byte { return appendRef(b, ref) })
}

func appendRef(b []byte, ref nola.ActorRef) []byte {
	b = appendStringField(b, 1, ref.Namespace)
	b = appendStringField(b, 2, ref.Type)
	return appendStringField(b, 3, ref.ID)
}

func appendIDField(b []byte, number protowire.Number, id nola.InvocationID) []byte {
	if id.IsZero() {
		return b
	}
	return appendBytesField(b, number, id[:])
}

func appendTimeField(b []byte, number protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendNested(b, number, func(b []byte) []byte {
		b = appendVarintField(b, 1, uint64(t.Unix()))
		return appendVarintField(b, 2, uint64(t.Nanosecond()))
	})
}

func appendVarintField(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func appendBoolField(b []byte, number protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendVarintField(b, number, 1)
}

func appendBytesField(b []byte, number protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
}

func appendStringField(b []byte, number protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), v)
}

// appendNested appends a message of yet unknown length. Short ones, which are
// the rule, are written where they stay.
func appendNested(b []byte, number protowire.Number, message func([]byte) []byte) []byte {
	b = append(protowire.AppendTag(b, number, protowire.BytesType), 0)
	start := len(b)
	b = message(b)
	n := len(b) - start
	if more := protowire.SizeVarint(uint64(n)) - 1; more > 0 {
		b = append(b, "0123456789"[:more]...)
		copy(b[start+more:], b[start:start+n])
	}
	protowire.AppendVarint(b[:start-1], uint64(n))
	return b
}
