package core

import (
	"bytes"
	"maps"
	"slices"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// OrderKind says what an Order does.
type OrderKind uint8

// The kinds of orders.
const (
	CompleteInvocation OrderKind = iota + 1 // Completion; fills Found and ID
	SetTimer                                // Timer
	CancelTimer                             // Name; fills Found
	SetReminder                             // Reminder
	CancelReminder                          // Name; fills Found
	expireDeferred                          // Completion
)

// Order is something done to an actor without its guest: a turn of its own, in
// its place among the others. It is answered once what it did is durable.
type Order struct {
	Ticket
	Kind       OrderKind
	Ref        nola.ActorRef
	Timer      nola.Timer
	Reminder   nola.Reminder
	Name       string
	Completion nola.Completion

	Found bool
	ID    nola.InvocationID // of what was completed

	row persistence.DueRow // that brought about an expiry
}

// Expires reports whether the order ends a deferred invocation whose deadline
// has passed.
func (in *Order) Expires() bool { return in.Kind == expireDeferred }

func (in *Order) step(s *Shard, out *Output) {
	if err := s.shut(); err != nil {
		s.refuse(&in.Ticket, err, out)
		return
	}
	a := s.activation(in.Ref, out)
	n := a.queue.n
	if a.loading {
		n = len(a.waiting)
	}
	if n >= s.limits.MailboxMax && !in.Expires() { // of those there are as many as deferred invocations
		s.refuse(&in.Ticket, errMailboxFull(a.ref, s.limits.MailboxMax), out)
		return
	}
	if a.loading {
		a.waiting = append(a.waiting, in)
		return
	}
	s.touch(a)
	a.queue.push(&Call{order: in, act: a})
	a.hurry(out)
	s.runNext(a, out)
}

// expire brings about the end of a deferred invocation whose deadline is here.
func expireOrder(row persistence.DueRow) *Order {
	return &Order{
		Kind: expireDeferred, Ref: row.Target, row: row,
		Completion: nola.Completion{
			Token: nola.Token([]byte(row.Name)),
			Err: &nola.Error{
				Reason:   nola.ReasonDeadlineExceeded,
				Message:  "the turn ended without a reply, and nobody answered the deferred invocation before its deadline; what the turn did stands",
				Metadata: map[string]string{"where": "deferred", "actor": row.Target.String()},
			},
		},
	}
}

// endOrder takes in the end of an order's turn.
func (s *Shard) endOrder(t *Turn, out *Output) {
	in := t.Order
	seq := t.dep
	in.Err = t.Err
	switch {
	case t.Err != nil && in.Expires():
		s.due.after(s.now.Add(ioRetry), &localDue{row: in.row})
	case t.Err == nil && !t.Effects.Empty():
		s.fold(t, out)
		seq = s.openSeq()
	}
	s.park(&in.Ticket, seq, out)
}

func sortedTokens(m map[nola.Token]deferral) []nola.Token {
	return slices.SortedFunc(maps.Keys(m), func(x, y nola.Token) int { return bytes.Compare(x[:], y[:]) })
}
