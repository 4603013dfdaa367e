package lane_test

import (
	"strings"
	"testing"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// TestSpilledBody looks whether an entry whose body lies in chunks has the same
// effects as one that holds it, and refuses chunks that are not its own.
func TestSpilledBody(t *testing.T) {
	body := lane.EncodeBody(group())
	spill := lane.Spill{Chunks: lane.ID{7, 15: 9}, Parts: 3, Bytes: len(body), Sum: lane.SumBody(body)}
	held, spilled := open(t, lane.ID{1}, lane.ModeQuorum, 4), open(t, lane.ID{2}, lane.ModeQuorum, 4)
	_, out, err := held.Append(100, group())
	if err != nil {
		t.Fatal(err)
	}
	want, err := entryOf(t, out.Send[0]).Effects()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := entryOf(t, out.Send[0]).Spill(); ok || err != nil {
		t.Errorf("an entry that holds its body: spilled %v, %v", ok, err)
	}
	_, out, err = spilled.AppendSpilled(100, group(), spill)
	if err != nil {
		t.Fatal(err)
	}
	e := entryOf(t, out.Send[0])
	if got, ok, err := e.Spill(); !ok || err != nil || got != spill {
		t.Fatalf("spilled as %+v, %v, %v; want %+v", got, ok, err, spill)
	}
	ended := lane.Ended{Lane: lane.ID{2}, Final: 1, Suffix: []*lane.Entry{e}, Bodies: map[lane.Seq][]byte{1: body}}
	got, err := ended.ByShard()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range want {
		back := got[f.Batch.Shard]
		if len(back) != 1 || back[0].First != f.First {
			t.Fatalf("shard %d: %+v, want first timestamp %d", f.Batch.Shard, back, f.First)
		}
		sameBatches(t, []*persistence.Batch{back[0].Batch}, []*persistence.Batch{f.Batch})
	}
	ended.Bodies = nil
	other := append([]byte{}, body...)
	other[len(other)-1]++
	for name, wrong := range map[string]func() error{
		"no chunks":     func() error { _, err := ended.ByShard(); return err },
		"another body":  func() error { _, err := e.EffectsOf(other); return err },
		"not its chunk": func() error { _, err := e.EffectsOf(body[:len(body)-1]); return err },
	} {
		if err := wrong(); err == nil || !strings.Contains(err.Error(), "chunks are damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	cut := *e
	for cut.Body = e.Body; len(cut.Body) > 1; {
		cut.Body = cut.Body[:len(cut.Body)-1]
		if _, ok, err := cut.Spill(); !ok || err == nil {
			t.Errorf("a reference of %d bytes: spilled %v, %v", len(cut.Body), ok, err)
		}
	}
}
