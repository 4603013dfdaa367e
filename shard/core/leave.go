package core

import (
	"bytes"
	"maps"
	"slices"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Leave stops the intake, because the shard is to be served elsewhere: what comes
// is refused as SHARD_MOVING, but for calls from turns of this shard, and what
// waits in the store stays there. It is answered when every call that was admitted
// is answered and everything is durable. Fenced ends the shard then, or before:
// what has not been answered by then was never executed.
type Leave struct{ Ticket }

func (in *Leave) step(s *Shard, out *Output) {
	if s.fenced != nil {
		s.decide(&in.Ticket, out)
		return
	}
	s.leaving = in
	for _, a := range s.inOrder() {
		a.hurry(out)
	}
}

// inOrder answers the activations in the order of their names.
func (s *Shard) inOrder() []*Activation {
	return slices.SortedFunc(maps.Values(s.acts), func(x, y *Activation) int {
		return bytes.Compare(x.ref.AppendCanonical(nil), y.ref.AppendCanonical(nil))
	})
}

// shut is why nothing is taken in, nil while the shard is open.
func (s *Shard) shut() error {
	switch {
	case s.fenced != nil:
		return s.fenced
	case s.leaving != nil:
		return errMoving(s.id)
	}
	return nil
}

// leave answers Leave when nothing is left to wait for. Callers of deferred
// invocations may have to wait for long: they come back with their keys.
func (s *Shard) leave(out *Output) {
	if s.ended() || s.fenced != nil {
		s.decide(&s.leaving.Ticket, out)
	}
}

func (s *Shard) ended() bool {
	return s.turns == 0 && s.calls <= s.awaited && !s.inFlight && len(s.groups) == 1 && s.groups[0].empty()
}

// Left reports whether the shard takes nothing in any more, and has nothing left to end
// or to commit.
func (s *Shard) Left() bool { return s.leaving != nil && s.fenced == nil && s.ended() }

// Vacant makes the core of a shard that is served elsewhere: it refuses all there
// is as SHARD_MOVING.
func Vacant(id nola.ShardID, shards int, limits Limits) *Shard {
	s := New(Opened{Head: persistence.Head{Shard: id}}, shards, limits)
	s.fenced = errMoving(id)
	return s
}
