package client

import (
	"container/list"
	"context"
	"crypto/rand"
	"sync"

	"github.com/nolaproject/nola"
)

// sessionsMax bounds the sessions that a client keeps while no call of theirs is
// under way. Those with calls are kept in any case.
const sessionsMax = 10_000

// sessions holds a session for each actor that is called. A session that is
// dropped is not missed: the next call to its actor begins another one, so that
// no key ever comes twice.
type sessions struct {
	mu   sync.Mutex // guards everything, also inside of the sessions
	of   map[nola.ActorRef]*session
	idle list.List // of *session, the one that is idle for longest in front
}

// session numbers the calls to one actor.
type session struct {
	ref    nola.ActorRef
	id     nola.SessionID
	next   uint64 // the number of the next call
	low    uint64 // the lowest number that is not answered; next if all are
	done   [nola.SessionWindow / 64]uint64
	calls  int           // under way or waiting
	moved  chan struct{} // closed when low moves; nil if nobody waits
	parked *list.Element // in idle, if it is
}

// begin takes the next number of the actor's session, and waits while the window
// is full. first_attempt is the caller's to set. The caller calls end with what
// it got.
func (s *sessions) begin(ctx context.Context, ref nola.ActorRef) (*session, nola.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.of[ref]
	if x == nil {
		x = &session{ref: ref}
		_, _ = rand.Read(x.id[:]) // never fails (crypto/rand)
		if s.of == nil {
			s.of = make(map[nola.ActorRef]*session)
		}
		s.of[ref] = x
	}
	if x.parked != nil {
		s.idle.Remove(x.parked)
		x.parked = nil
	}
	x.calls++
	for x.next-x.low >= nola.SessionWindow {
		if x.moved == nil {
			x.moved = make(chan struct{})
		}
		moved := x.moved
		s.mu.Unlock()
		var err error
		select {
		case <-moved:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			s.leave(x)
			return nil, nola.Key{}, err
		}
	}
	key := nola.Key{Session: x.id, Seq: x.next, AckedBelow: x.low}
	x.next++
	return x, key, nil
}

// ackedBelow is the lowest number that is not answered.
func (s *sessions) ackedBelow(x *session) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return x.low
}

// end tells that the call of that number is over. If its outcome is not known,
// somebody may still ask for it: the session acknowledges nothing behind it, and
// the actor gets another session.
func (s *sessions) end(x *session, seq uint64, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known {
		x.done[seq/64%uint64(len(x.done))] |= 1 << (seq % 64)
		s.advance(x)
	} else if s.of[x.ref] == x {
		delete(s.of, x.ref)
	}
	s.leave(x)
}

func (s *sessions) advance(x *session) {
	from := x.low
	for x.low < x.next {
		word, bit := &x.done[x.low/64%uint64(len(x.done))], uint64(1)<<(x.low%64)
		if *word&bit == 0 {
			break
		}
		*word &^= bit
		x.low++
	}
	if x.low != from && x.moved != nil {
		close(x.moved)
		x.moved = nil
	}
}

// leave counts a call out, and drops the session that was idle for longest if
// there are too many.
func (s *sessions) leave(x *session) {
	x.calls--
	if x.calls > 0 || s.of[x.ref] != x {
		return
	}
	x.parked = s.idle.PushBack(x)
	if s.idle.Len() > sessionsMax {
		oldest := s.idle.Remove(s.idle.Front()).(*session)
		oldest.parked = nil
		delete(s.of, oldest.ref)
	}
}
