package lane_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// send appends an empty entry.
func send(t *testing.T, w *lane.Writer) lane.Statement {
	t.Helper()
	_, out, err := w.Append(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out.Send[0]
}

// stepper is a machine that takes the answers of a store.
type stepper interface {
	Step(a lane.Answer) lane.Output
}

// step gives an answer and wants that many statements to follow, now and later.
func step(t *testing.T, m stepper, a lane.Answer, now, later int) []lane.Statement {
	t.Helper()
	out := m.Step(a)
	if len(out.Send) != now || len(out.Again) != later {
		t.Fatalf("after %T, outcome %d: %v now and %v later", a.To, a.Outcome, out.Send, out.Again)
	}
	return append(out.Send, out.Again...)
}

func done(s lane.Statement) lane.Answer { return lane.Answer{To: s, Outcome: lane.Done} }

func head(s lane.Statement, outcome lane.Outcome, h lane.Head) lane.Answer {
	return lane.Answer{To: s, Outcome: outcome, Found: true, Head: h}
}

func TestCreationWithoutDefiniteAnswer(t *testing.T) {
	for _, outcome := range []lane.Outcome{lane.Unknown, lane.NotApplied, lane.Refused} {
		w, out := lane.NewWriter(lane.ID{1}, lane.Head{Mode: lane.ModeQuorum})
		step(t, w, lane.Answer{To: out.Send[0], Outcome: outcome}, 0, 0)
		if w.State() != lane.StateAbandoned {
			t.Errorf("outcome %d of the creation leaves the writer %s", outcome, w.State())
		}
		if _, _, err := w.Append(1, nil); !errors.Is(err, lane.ErrNotOpen) {
			t.Errorf("outcome %d of the creation, then Append: %v", outcome, err)
		}
	}
}

// TestOneReadCommitsWhatWasAcknowledgedBefore has four entries acknowledged out
// of order around one read of the head.
func TestOneReadCommitsWhatWasAcknowledgedBefore(t *testing.T) {
	w := open(t, lane.ID{1}, lane.ModeQuorum, 8)
	var s []lane.Statement
	for range lane.FlightMax {
		s = append(s, send(t, w))
	}
	if _, _, err := w.Append(1, nil); !errors.Is(err, lane.ErrFull) {
		t.Fatalf("a fifth entry in flight: %v", err)
	}
	step(t, w, done(s[1]), 0, 0)
	fence := step(t, w, done(s[0]), 1, 0)
	step(t, w, done(s[2]), 0, 0) // after the read has started
	again := step(t, w, lane.Answer{To: fence[0]}, 0, 1)
	next := step(t, w, head(again[0], lane.Done, lane.Head{}), 1, 0)
	if w.Committed() != 2 {
		t.Fatalf("%d entries are committed, want those two whose acknowledgements came before the read", w.Committed())
	}
	step(t, w, done(s[3]), 0, 0)
	last := step(t, w, head(next[0], lane.Done, lane.Head{}), 1, 0)
	step(t, w, head(last[0], lane.Done, lane.Head{}), 0, 0)
	if w.Committed() != 4 {
		t.Errorf("%d of four entries are committed", w.Committed())
	}
}

func TestFailedWriteGoesAgainUnchanged(t *testing.T) {
	for _, mode := range []lane.Mode{lane.ModeQuorum, lane.ModeLWT} {
		w := open(t, lane.ID{1}, mode, 8)
		_, out, err := w.Append(1, group())
		if err != nil {
			t.Fatal(err)
		}
		first := *entryOf(t, out.Send[0])
		first.Body = bytes.Clone(first.Body)
		again := step(t, w, lane.Answer{To: out.Send[0]}, 0, 1)
		if got := entryOf(t, again[0]); got.Sum != first.Sum || !bytes.Equal(got.Body, first.Body) || got.TS != first.TS {
			t.Errorf("mode %d: entry %+v was sent again as %+v", mode, first, got)
		}
	}
}

func TestSealedOrMissingHeadEndsTheWriter(t *testing.T) {
	for name, seen := range map[string]lane.Answer{
		"sealed":  {Outcome: lane.Done, Found: true, Head: lane.Head{Sealed: true}},
		"missing": {Outcome: lane.Done},
	} {
		w := open(t, lane.ID{1}, lane.ModeQuorum, 8)
		first, second := send(t, w), send(t, w)
		seen.To = step(t, w, done(first), 1, 0)[0]
		step(t, w, seen, 0, 0)
		step(t, w, done(second), 0, 0)
		if w.State() != lane.StateSealed || w.Committed() != 0 {
			t.Errorf("%s: the writer is %s with %d committed", name, w.State(), w.Committed())
		}
		if !w.Settle(1) || w.Committed() != 1 {
			t.Errorf("%s: settled at 1, %d are committed", name, w.Committed())
		}
		if w.Settle(0) || w.State() != lane.StateDamaged {
			t.Errorf("%s: an end before what is committed leaves the writer %s", name, w.State())
		}
	}
}

func TestRefusedEntry(t *testing.T) {
	for _, mode := range []lane.Mode{lane.ModeQuorum, lane.ModeLWT} {
		w := open(t, lane.ID{1}, mode, 8)
		step(t, w, lane.Answer{To: send(t, w), Outcome: lane.Refused}, 0, 0)
		if w.State() != lane.StateRefused {
			t.Errorf("mode %d: the writer is %s", mode, w.State())
		}
	}
	w := open(t, lane.ID{1}, lane.ModeQuorum, 8)
	large := new(persistence.Batch)
	noise := make([]byte, lane.BodyBytesMax)
	rand.NewChaCha8([32]byte{}).Read(noise)
	large.Add(persistence.Op{Kind: persistence.OpPut, Value: noise})
	if _, _, err := w.Append(1, []*persistence.Batch{large}); !errors.Is(err, persistence.ErrTooLarge) || w.Sent() != 0 {
		t.Errorf("a body above the limit: %v, %d sent", err, w.Sent())
	}
}

// TestAnswersOfConditionalEntries has every answer that a conditional batch can get.
func TestAnswersOfConditionalEntries(t *testing.T) {
	for name, tt := range map[string]struct {
		answer    lane.Answer
		state     lane.State
		committed lane.Seq
	}{
		"done":                          {lane.Answer{Outcome: lane.Done}, lane.StateOpen, 1},
		"not applied, it was before":    {lane.Answer{Outcome: lane.NotApplied, Found: true, Head: lane.Head{LastSeq: 1}}, lane.StateOpen, 1},
		"not applied, sealed behind it": {lane.Answer{Outcome: lane.NotApplied, Found: true, Head: lane.Head{LastSeq: 1, Sealed: true}}, lane.StateSealed, 1},
		"not applied, sealed before it": {lane.Answer{Outcome: lane.NotApplied, Found: true, Head: lane.Head{Sealed: true}}, lane.StateSealed, 0},
		"not applied, head is gone":     {lane.Answer{Outcome: lane.NotApplied}, lane.StateSealed, 0},
		"not applied, and unsealed":     {lane.Answer{Outcome: lane.NotApplied, Found: true}, lane.StateDamaged, 0},
		"not applied, another writer":   {lane.Answer{Outcome: lane.NotApplied, Found: true, Head: lane.Head{LastSeq: 2}}, lane.StateDamaged, 0},
	} {
		w := open(t, lane.ID{1}, lane.ModeLWT, 8)
		tt.answer.To = send(t, w)
		if _, _, err := w.Append(1, nil); !errors.Is(err, lane.ErrFull) {
			t.Fatalf("a second conditional entry in flight: %v", err)
		}
		step(t, w, tt.answer, 0, 0)
		if w.State() != tt.state || w.Committed() != tt.committed {
			t.Errorf("%s: the writer is %s with %d committed, want %s with %d", name, w.State(), w.Committed(), tt.state, tt.committed)
		}
	}
}

// TestStrict looks whether a read of the head that started before Strict does
// not pass it.
func TestStrict(t *testing.T) {
	for _, mode := range []lane.Mode{lane.ModeQuorum, lane.ModeLWT} {
		w := open(t, lane.ID{1}, mode, 8)
		first, out := w.Strict()
		second, none := w.Strict()
		if len(out.Send) != 1 || len(none.Send) != 0 {
			t.Fatalf("mode %d: two strict reads sent %v and %v", mode, out.Send, none.Send)
		}
		next := step(t, w, head(out.Send[0], lane.Done, lane.Head{}), 1, 0)
		if w.Passed() != first {
			t.Errorf("mode %d: ticket %d passed, want %d", mode, w.Passed(), first)
		}
		step(t, w, head(next[0], lane.Done, lane.Head{}), 0, 0)
		if w.Passed() != second {
			t.Errorf("mode %d: ticket %d passed, want %d", mode, w.Passed(), second)
		}
	}
}

// TestRingIsNotOverrun looks whether no entry is sent into the slot of one that
// was not applied, and whether a closing entry is asked for once.
func TestRingIsNotOverrun(t *testing.T) {
	w := open(t, lane.ID{1}, lane.ModeLWT, 2)
	if w.Lags() {
		t.Error("an empty lane lags")
	}
	for range 2 {
		_, out, err := w.Append(1, group())
		if err != nil {
			t.Fatal(err)
		}
		step(t, w, done(out.Send[0]), 0, 0)
	}
	if _, _, err := w.Append(1, nil); !errors.Is(err, lane.ErrFull) {
		t.Fatalf("a third entry into two slots: %v", err)
	}
	w.Applied(1)
	if !w.Room() || w.Lags() {
		t.Fatalf("one of two applied: room %t, lags %t", w.Room(), w.Lags())
	}
	w.Applied(2)
	if !w.Lags() {
		t.Fatal("all is applied and no entry says so, but the lane does not lag")
	}
	s := send(t, w)
	if got := entryOf(t, s).Applied; got != 2 {
		t.Errorf("the closing entry says %d, want 2", got)
	}
	step(t, w, done(s), 0, 0)
	w.Applied(3)
	if w.Lags() {
		t.Error("a closing entry is to be followed by another")
	}
	defer func() {
		if recover() == nil {
			t.Error("an entry that is not committed was taken as applied")
		}
	}()
	w.Applied(4)
}
