package cqlstore_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

// sentEntries looks at the entries of lanes on their way to a server. That one may be sent
// again at any time, and executed late, stands on two things: each time it is the same
// to the byte, and a plain write of it has its own timestamp, which the store has chosen
// for good.
type sentEntries struct {
	t testing.TB

	mu    sync.Mutex // guards the fields below
	seen  map[string][][]byte
	again int // entries that came more than once
}

func newSentEntries(t testing.TB) *sentEntries {
	return &sentEntries{t: t, seen: map[string][][]byte{}}
}

// The values of the statement that writes an entry, in their order: lane, slot, seq,
// prev, ts, applied_seq, committed_seq, crc, body, and the timestamp if it is plain.
const (
	entryLane, entrySeq, entryTS = 0, 2, 4
	entryColumns                 = 9
)

func writesEntry(text string) bool { return strings.Contains(text, "crc, body) VALUES") }

// look is for [cqlfake.Server.Inject]: it sees each request before its fault.
func (s *sentEntries) look(q cqlfake.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, text := range q.Statements {
		if !writesEntry(text) {
			continue
		}
		values := q.Values[i]
		plain := strings.HasSuffix(text, "USING TIMESTAMP ?")
		switch {
		case plain == q.Conditional || plain && len(values) != entryColumns+1 || !plain && len(values) != entryColumns:
			s.t.Errorf("an entry of %d values, in a conditional batch %v: %s", len(values), q.Conditional, text)
			continue
		case plain && !bytes.Equal(values[entryColumns], values[entryTS]):
			s.t.Errorf("entry %x of lane %x was made at %x, and is written at %x", values[entrySeq], values[entryLane], values[entryTS], values[entryColumns])
		}
		key := fmt.Sprintf("%x/%x", values[entryLane], values[entrySeq])
		before, sent := s.seen[key]
		if !sent {
			for _, v := range values {
				s.seen[key] = append(s.seen[key], bytes.Clone(v))
			}
			continue
		}
		s.again++
		for column, v := range values {
			if column >= len(before) || !bytes.Equal(v, before[column]) {
				s.t.Errorf("entry %s is sent again with another value %d: %x, before it was %x", key, column, v, before[min(column, len(before)-1)])
			}
		}
	}
}

// repeats answers how many entries came more than once.
func (s *sentEntries) repeats() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		s.t.Error("no entry was seen: they are written by another statement than is looked for")
	}
	return s.again
}
