package lane_test

import (
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// died answers the end of a lane in which shard 7 has batches of epochs 4 and 5,
// and shard 8 one.
func died(t *testing.T) lane.Ended {
	t.Helper()
	w := open(t, lane.ID{9}, lane.ModeLWT, 8)
	ended := lane.Ended{Lane: lane.ID{9}}
	for i, b := range []struct {
		shard nola.ShardID
		epoch nola.Epoch
	}{{7, 4}, {7, 5}, {8, 5}, {7, 5}} {
		batch := new(persistence.Batch)
		batch.Reset(b.shard, b.epoch, nola.Seq(i+1))
		batch.DeleteState(nola.ActorRef{Namespace: "n", Type: "t", ID: "i"}, "k")
		_, out, err := w.Append(100, []*persistence.Batch{batch})
		if err != nil {
			t.Fatal(err)
		}
		step(t, w, done(out.Send[0]), 0, 0)
		ended.Suffix = append(ended.Suffix, entryOf(t, out.Send[0]))
		ended.Final++
	}
	ended.FinalTS = w.Clock()
	return ended
}

func claimOf(t *testing.T, from lane.Ended, row lane.ShardRow) (*lane.Claimer, []lane.Statement) {
	t.Helper()
	effects, err := from.ByShard()
	if err != nil {
		t.Fatal(err)
	}
	c, out := lane.NewClaimer(lane.Claim{Shard: 7, Node: "b", Lane: lane.ID{2}, From: from, Effects: effects[7], Row: row})
	return c, out.Send
}

func row(s lane.Statement, outcome lane.Outcome, r lane.ShardRow) lane.Answer {
	return lane.Answer{To: s, Outcome: outcome, Found: true, Shard: r}
}

// TestClaimAppliesThePresentEpoch looks which effects are applied before the
// claim, what it says, and what its lost answer comes to.
func TestClaimAppliesThePresentEpoch(t *testing.T) {
	from := died(t)
	c, applies := claimOf(t, from, lane.ShardRow{Epoch: 5, Lane: from.Lane, Floor: 3})
	if len(applies) != 2 {
		t.Fatalf("it begins with %v", applies)
	}
	for i, s := range applies {
		if f := s.(lane.ApplyEffects).Effects; f.Batch.Epoch != 5 || f.Batch.Shard != 7 || f.Batch.Seq != nola.Seq(2+2*i) {
			t.Errorf("applies batch %d of shard %d, epoch %d", f.Batch.Seq, f.Batch.Shard, f.Batch.Epoch)
		}
	}
	step(t, c, done(applies[1]), 0, 0)
	step(t, c, lane.Answer{To: applies[0]}, 0, 1)
	claim := step(t, c, done(applies[0]), 1, 0)
	want := lane.ShardRow{Epoch: 6, Lane: lane.ID{2}, Floor: from.FinalTS}
	if got := claim[0].(lane.ClaimShard).To; got != want {
		t.Errorf("claims %+v, want %+v", got, want)
	}
	again := step(t, c, lane.Answer{To: claim[0]}, 0, 1)
	step(t, c, row(again[0], lane.NotApplied, lane.ShardRow{Epoch: 6, Lane: lane.ID{2}}), 0, 0)
	if c.Phase() != lane.ClaimOwned || c.Row() != want || c.LastSeq() != 4 {
		t.Errorf("the claim is %s with %+v, last batch %d", c.Phase(), c.Row(), c.LastSeq())
	}
}

// TestClaimNumbersOfEarlierEpochs claims a shard that came back to the dead lane,
// which has committed nothing for it since: others did meanwhile, and the tables say
// how far they came.
func TestClaimNumbersOfEarlierEpochs(t *testing.T) {
	from := died(t)
	c, claim := claimOf(t, from, lane.ShardRow{Epoch: 7, Lane: from.Lane})
	step(t, c, done(claim[0]), 0, 0)
	if c.Phase() != lane.ClaimOwned || c.LastSeq() != 0 {
		t.Errorf("the claim is %s, and the last batch is said to be %d", c.Phase(), c.LastSeq())
	}
}

// TestClaimIsLostWithTheRow has the epoch move under the dead lane: what was read of
// the shard may be out of date.
func TestClaimIsLostWithTheRow(t *testing.T) {
	from := died(t)
	c, applies := claimOf(t, from, lane.ShardRow{Epoch: 4, Lane: from.Lane})
	claim := step(t, c, done(applies[0]), 1, 0)
	now := lane.ShardRow{Epoch: 5, Lane: from.Lane}
	step(t, c, row(claim[0], lane.NotApplied, now), 0, 0)
	if c.Phase() != lane.ClaimLost || c.Row() != now {
		t.Errorf("the claim is %s, with %+v", c.Phase(), c.Row())
	}
}

// TestClaimOfWhatIsNotFree wants nothing to be sent for shards of others.
func TestClaimOfWhatIsNotFree(t *testing.T) {
	for name, tt := range map[string]struct {
		row     lane.ShardRow
		overdue bool
		phase   lane.ClaimPhase
	}{
		"another lane":          {lane.ShardRow{Epoch: 5, Lane: lane.ID{3}}, false, lane.ClaimLost},
		"released to another":   {lane.ShardRow{Epoch: 5, HandoffTo: "c"}, false, lane.ClaimLost},
		"released, not fetched": {lane.ShardRow{Epoch: 5, HandoffTo: "c"}, true, lane.ClaimClaiming},
		"released to us":        {lane.ShardRow{Epoch: 5, HandoffTo: "b"}, false, lane.ClaimClaiming},
		"released to anybody":   {lane.ShardRow{Epoch: 5}, false, lane.ClaimClaiming},
		"nobody's":              {lane.ShardRow{}, false, lane.ClaimClaiming},
	} {
		c, out := lane.NewClaimer(lane.Claim{Shard: 7, Node: "b", Lane: lane.ID{2}, Overdue: tt.overdue, Row: tt.row})
		if c.Phase() != tt.phase || (len(out.Send) > 0) != (tt.phase == lane.ClaimClaiming) {
			t.Errorf("%s: the claim is %s and sends %v, want %s", name, c.Phase(), out.Send, tt.phase)
		}
	}
}

// TestClaimBoundsItsApplies counts what is under way.
func TestClaimBoundsItsApplies(t *testing.T) {
	effects := make([]lane.Effects, 3*lane.AppliesMax)
	for i := range effects {
		effects[i] = lane.Effects{Batch: new(persistence.Batch), First: lane.Timestamp(i + 1)}
		effects[i].Batch.Reset(7, 1, nola.Seq(i+1))
	}
	c, out := lane.NewClaimer(lane.Claim{
		Shard: 7, Lane: lane.ID{2}, From: lane.Ended{Lane: lane.ID{9}}, Effects: effects, Row: lane.ShardRow{Epoch: 1, Lane: lane.ID{9}},
	})
	open := out.Send
	for n := 0; c.Phase() == lane.ClaimApplying; n++ {
		if len(open) > lane.AppliesMax {
			t.Fatalf("%d applies are under way", len(open))
		}
		open = append(open[1:], c.Step(done(open[0])).Send...)
		if n > len(effects) {
			t.Fatal("the applies do not end")
		}
	}
	if len(open) != 1 {
		t.Errorf("%v is sent at the end, want the claim", open)
	}
}

func TestRelease(t *testing.T) {
	mine, none := lane.ShardRow{Epoch: 5, Lane: lane.ID{1}}, lane.ShardRow{Epoch: 5}
	for name, tt := range map[string]struct {
		answers []lane.Answer
		phase   lane.ReleasePhase
	}{
		"done":                         {[]lane.Answer{{Outcome: lane.Done}}, lane.ReleaseGone},
		"no answer, then it was":       {[]lane.Answer{{}, {Outcome: lane.NotApplied, Found: true, Shard: none}}, lane.ReleaseGone},
		"no answer":                    {[]lane.Answer{{}}, lane.ReleaseOpen},
		"refused":                      {[]lane.Answer{{Outcome: lane.Refused}}, lane.ReleaseKept},
		"no answer, then refused":      {[]lane.Answer{{}, {Outcome: lane.Refused}}, lane.ReleaseOpen},
		"not applied, and still ours":  {[]lane.Answer{{Outcome: lane.NotApplied, Found: true, Shard: mine}}, lane.ReleaseOpen},
		"not applied, taken meanwhile": {[]lane.Answer{{Outcome: lane.NotApplied, Found: true, Shard: lane.ShardRow{Epoch: 6}}}, lane.ReleaseGone},
	} {
		w := open(t, lane.ID{1}, lane.ModeQuorum, 4)
		w.Raise(77)
		r, out := w.Release(7, 5, "c")
		if to := out.Send[0].(lane.ReleaseShard).To; to.Floor != 77 || to.HandoffTo != "c" || !to.Lane.IsZero() || to.Epoch != 5 {
			t.Fatalf("the release says %+v", to)
		}
		for _, a := range tt.answers {
			a.To = out.Send[0]
			r.Step(a)
		}
		if r.Phase() != tt.phase {
			t.Errorf("%s: the release is %s, want %s", name, r.Phase(), tt.phase)
		}
	}
}
