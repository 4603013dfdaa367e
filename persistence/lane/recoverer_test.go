package lane_test

import (
	"strings"
	"testing"

	"github.com/nolaproject/nola/persistence/lane"
)

// written answers n entries of a lane, empty ones, which say what was applied.
func written(t *testing.T, id lane.ID, ring, n int, applied lane.Seq) []*lane.Entry {
	t.Helper()
	w := open(t, id, lane.ModeLWT, ring)
	var entries []*lane.Entry
	for i := range n {
		s := send(t, w)
		entries = append(entries, entryOf(t, s))
		step(t, w, done(s), 0, 0)
		if lane.Seq(i+1) <= applied {
			w.Applied(lane.Seq(i + 1))
		}
	}
	return entries
}

// reading answers a recoverer that has sealed its lane, and its read of the ring.
func reading(t *testing.T, id lane.ID) (*lane.Recoverer, lane.Statement) {
	t.Helper()
	r, out := lane.NewRecoverer(id)
	return r, step(t, r, done(out.Send[0]), 1, 0)[0]
}

func ring(s lane.Statement, h lane.Head, entries ...*lane.Entry) lane.Answer {
	return lane.Answer{To: s, Outcome: lane.Done, Found: true, Head: h, Slots: entries}
}

// TestRecoverMissingHead puts a sealed head where there is none, and looks what
// becomes of answers that get lost on the way.
func TestRecoverMissingHead(t *testing.T) {
	r, out := lane.NewRecoverer(lane.ID{1})
	again := step(t, r, lane.Answer{To: out.Send[0]}, 0, 1)
	insert := step(t, r, lane.Answer{To: again[0], Outcome: lane.NotApplied}, 1, 0)
	if h := insert[0].(lane.InsertSealed).Head; !h.Sealed || h.FinalSeq != 0 || h.RingSize != 0 {
		t.Errorf("the head that is inserted is %+v", h)
	}
	insert = step(t, r, lane.Answer{To: insert[0]}, 0, 1)
	seal := step(t, r, lane.Answer{To: insert[0], Outcome: lane.NotApplied}, 1, 0) // the first attempt was executed
	read := step(t, r, head(seal[0], lane.NotApplied, lane.Head{Sealed: true}), 1, 0)
	inserted := lane.Head{Mode: lane.ModeQuorum, Sealed: true}
	step(t, r, ring(read[0], inserted), 0, 0)
	if got := r.Result(); got.Final != 0 || len(got.Suffix) != 0 || !got.Missing {
		t.Errorf("the lane without a head ends with %+v", got)
	}
	// So does one whose inserted head was trimmed since.
	r, whole := reading(t, lane.ID{1})
	trimmed := inserted
	trimmed.Trimmed = true
	step(t, r, ring(whole, trimmed), 0, 0)
	if !r.Result().Missing {
		t.Error("a lane without a head is said to have had one, as it was trimmed")
	}
	// One that has entries has lost its head.
	r, out = lane.NewRecoverer(lane.ID{1})
	insert = step(t, r, lane.Answer{To: out.Send[0], Outcome: lane.NotApplied}, 1, 0)
	read = step(t, r, done(insert[0]), 1, 0)
	step(t, r, ring(read[0], inserted, written(t, lane.ID{1}, 4, 1, 0)...), 0, 0)
	if r.Phase() != lane.PhaseDamaged || !strings.Contains(r.Err().Error(), "1 entries, and its head was lost") {
		t.Errorf("entries without a head leave the recovery %s, %v", r.Phase(), r.Err())
	}
}

// TestRecoverRewritesWhatMayBeOpen has entries behind the greatest committed
// written again, unchanged, and no others.
func TestRecoverRewritesWhatMayBeOpen(t *testing.T) {
	id := lane.ID{1}
	w := open(t, id, lane.ModeQuorum, 4)
	first := send(t, w)
	fence := step(t, w, done(first), 1, 0)
	step(t, w, head(fence[0], lane.Done, lane.Head{}), 0, 0)
	var entries []*lane.Entry
	for _, s := range []lane.Statement{first, send(t, w), send(t, w)} {
		entries = append(entries, entryOf(t, s))
	}
	r, read := reading(t, id)
	writes := step(t, r, ring(read, lane.Head{Mode: lane.ModeQuorum, RingSize: 4}, entries...), 2, 0)
	for i, s := range writes {
		if s := s.(lane.WriteSlot); s.Entry != entries[i+1] || s.Slot != i+2 {
			t.Errorf("slot %d gets entry %+v", s.Slot, s.Entry)
		}
	}
	step(t, r, done(writes[1]), 0, 0)
	step(t, r, lane.Answer{To: writes[0]}, 0, 1)
	decide := step(t, r, done(writes[0]), 1, 0)
	if d := decide[0].(lane.DecideFinal); d.Final != 3 || d.TS != entries[2].TS {
		t.Errorf("the decision is %+v", d)
	}
	// The answer to the decision that was made by its first copy.
	again := step(t, r, lane.Answer{To: decide[0]}, 0, 1)
	step(t, r, head(again[0], lane.NotApplied, lane.Head{FinalSeq: 3, FinalTS: entries[2].TS}), 0, 0)
	if got := r.Result(); got.Final != 3 || len(got.Suffix) != 3 || got.Suffix[0] != entries[0] {
		t.Errorf("the lane ends with %+v", got)
	}
}

// TestRecoverDropsWhatLiesBeyondTheEnd has somebody else decide an earlier end.
func TestRecoverDropsWhatLiesBeyondTheEnd(t *testing.T) {
	id := lane.ID{1}
	entries := written(t, id, 4, 3, 1)
	r, read := reading(t, id)
	decide := step(t, r, ring(read, lane.Head{Mode: lane.ModeLWT, RingSize: 4, LastSeq: 3}, entries...), 1, 0)
	step(t, r, head(decide[0], lane.NotApplied, lane.Head{FinalSeq: 2, FinalTS: 9}), 0, 0)
	if got := r.Result(); got.Final != 2 || got.FinalTS != 9 || len(got.Suffix) != 1 || got.Suffix[0].Seq != 2 {
		t.Errorf("the lane ends with %+v", got)
	}
}

// TestRecoverMissingEntries has slots missing that must be there: a lane that
// was trimmed has lost them by right, any other is damaged.
func TestRecoverMissingEntries(t *testing.T) {
	id := lane.ID{1}
	entries := written(t, id, 4, 3, 0)
	for name, tt := range map[string]struct {
		mode    lane.Mode
		slots   []*lane.Entry
		trimmed bool
		want    string // of the error; empty: it ends
	}{
		"a hole below what is committed":     {lane.ModeQuorum, entries[2:], false, "entry 1 is missing, and 2 is committed"},
		"the last entry of conditional ones": {lane.ModeLWT, entries[:2], false, "its last entry is 2, and its head says 3"},
		"trimmed meanwhile":                  {lane.ModeQuorum, entries[2:], true, ""},
	} {
		r, read := reading(t, id)
		check := step(t, r, ring(read, lane.Head{Mode: tt.mode, RingSize: 4, LastSeq: 3}, tt.slots...), 1, 0)
		check = step(t, r, lane.Answer{To: check[0]}, 0, 1)
		step(t, r, head(check[0], lane.Done, lane.Head{RingSize: 4, FinalSeq: 3, FinalTS: 7, Trimmed: tt.trimmed}), 0, 0)
		switch {
		case tt.want == "" && (r.Phase() != lane.PhaseEnded || r.Result().Final != 3 || r.Result().FinalTS != 7 || r.Result().Missing || len(r.Result().Suffix) != 0):
			t.Errorf("%s: the recovery is %s, %v", name, r.Phase(), r.Err())
		case tt.want != "" && (r.Phase() != lane.PhaseDamaged || !strings.Contains(r.Err().Error(), tt.want)):
			t.Errorf("%s: the recovery is %s, %v", name, r.Phase(), r.Err())
		}
	}
}

// TestRecoverDamage has entries that are not whole, or do not follow each other.
func TestRecoverDamage(t *testing.T) {
	id := lane.ID{1}
	entries := written(t, id, 4, 3, 0)
	broken := *entries[1]
	broken.Body = []byte{9}
	other := open(t, id, lane.ModeQuorum, 4)
	other.Raise(100)
	foreign := entryOf(t, send(t, other))
	for name, tt := range map[string]struct {
		slots []*lane.Entry
		want  string
	}{
		"content":         {[]*lane.Entry{entries[0], &broken}, "has sum"},
		"another history": {[]*lane.Entry{foreign, entries[1]}, "entry 2 does not follow"},
	} {
		r, read := reading(t, id)
		step(t, r, ring(read, lane.Head{Mode: lane.ModeQuorum, RingSize: 4}, tt.slots...), 0, 0)
		if r.Phase() != lane.PhaseDamaged || !strings.Contains(r.Err().Error(), tt.want) {
			t.Errorf("%s: the recovery is %s, %v", name, r.Phase(), r.Err())
		}
	}
	r, read := reading(t, id)
	decide := step(t, r, ring(read, lane.Head{Mode: lane.ModeLWT, RingSize: 4, LastSeq: 3}, entries...), 1, 0)
	step(t, r, head(decide[0], lane.NotApplied, lane.Head{FinalSeq: 1}), 0, 0)
	if r.Phase() != lane.PhaseDamaged {
		t.Errorf("an end below what is committed leaves the recovery %s", r.Phase())
	}
}
