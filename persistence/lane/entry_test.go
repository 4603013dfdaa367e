package lane_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
	"github.com/nolaproject/nola/persistence/storetest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; then read the difference, for it is a new storage format")

// group is two batches with every kind of operation, and two actors that take turns.
func group() []*persistence.Batch {
	other := nola.ActorRef{Namespace: "shop", Type: "cart", ID: "ä/7"}
	a, b := new(persistence.Batch), new(persistence.Batch)
	a.Reset(3, 7, 41)
	a.PutState(storetest.Actor, "k", []byte("value"))
	a.DeleteState(storetest.Actor, "gone")
	a.ListActor(other)
	a.PutState(storetest.Actor, "", nil)
	a.DeleteActor(other)
	a.DeleteOutbox(7, 513)
	b.Reset(300, 1, 1)
	b.Add(persistence.Op{Kind: persistence.OpDeleteRange, Table: persistence.TableOutcome, Value: []byte{9}})
	return []*persistence.Batch{a, b}
}

// open answers a writer whose lane exists.
func open(t *testing.T, id lane.ID, mode lane.Mode, ring int) *lane.Writer {
	t.Helper()
	w, out := lane.NewWriter(id, lane.Head{Node: "n1", Address: "a", Mode: mode, RingSize: ring})
	w.Step(lane.Answer{To: out.Send[0], Outcome: lane.Done})
	if w.State() != lane.StateOpen {
		t.Fatalf("a new writer is %s", w.State())
	}
	return w
}

// entryOf answers the entry that a statement writes.
func entryOf(t *testing.T, s lane.Statement) *lane.Entry {
	t.Helper()
	switch s := s.(type) {
	case lane.WriteSlot:
		return s.Entry
	case lane.AppendEntry:
		return s.Entry
	}
	t.Fatalf("%T writes no entry", s)
	return nil
}

// TestStoredEntries pins down what a lane stores.
func TestStoredEntries(t *testing.T) {
	w := open(t, lane.ID{0xab, 15: 1}, lane.ModeQuorum, 4)
	var out strings.Builder
	for _, batches := range [][]*persistence.Batch{group(), nil, group()[1:]} {
		_, o, err := w.Append(1_800_000_000_000_000, batches)
		if err != nil {
			t.Fatal(err)
		}
		e := entryOf(t, o.Send[0])
		fmt.Fprintf(&out, "slot %d: seq %d prev %016x ts %d applied %d committed %d sum %016x\n  body %x\n",
			o.Send[0].(lane.WriteSlot).Slot, e.Seq, e.Prev, e.TS, e.Applied, e.Committed, e.Sum, e.Body)
	}
	_, o, err := w.AppendSpilled(1_800_000_000_000_000, group(), lane.Spill{Chunks: lane.ID{0xcd, 15: 2}, Parts: 2, Bytes: 300_000, Sum: 0x0102030405060708})
	if err != nil {
		t.Fatal(err)
	}
	e := entryOf(t, o.Send[0])
	fmt.Fprintf(&out, "slot %d: seq %d prev %016x ts %d sum %016x\n  body %x\n", o.Send[0].(lane.WriteSlot).Slot, e.Seq, e.Prev, e.TS, e.Sum, e.Body)
	path := filepath.Join("testdata", "entries.golden")
	if *rewrite {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("%s: the storage format has changed:\n got %s\nwant %s", path, out.String(), want)
	}
}

func sameBatches(t *testing.T, got, want []*persistence.Batch) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d batches came back of %d", len(got), len(want))
	}
	for i, b := range got {
		if b.Shard != want[i].Shard || b.Epoch != want[i].Epoch || b.Seq != want[i].Seq || b.Len() != want[i].Len() {
			t.Errorf("batch %d came back as shard %d epoch %d number %d with %d operations", i, b.Shard, b.Epoch, b.Seq, b.Len())
			continue
		}
		for k, op := range b.Ops() {
			w := want[i].Ops()[k]
			if op.Kind != w.Kind || op.Table != w.Table || op.Actor != w.Actor || string(op.Key) != string(w.Key) || string(op.Value) != string(w.Value) {
				t.Errorf("operation %d of batch %d came back as %+v, want %+v", k, i, op, w)
			}
		}
	}
}

func TestBodyComesBack(t *testing.T) {
	got, err := lane.DecodeBody(lane.EncodeBody(group()))
	if err != nil {
		t.Fatal(err)
	}
	sameBatches(t, got, group())
}

// TestPackedBody has bodies above 1 KiB stored smaller, and read as before. What is
// stored today must be read by every version to come.
func TestPackedBody(t *testing.T) {
	small := lane.EncodeBody(group())
	if packed := lane.Pack(small); !bytes.Equal(packed, small) {
		t.Errorf("a body of %d bytes is packed", len(small))
	}
	batch := new(persistence.Batch)
	batch.Reset(7, 2, 9)
	for i := range 100 {
		batch.PutState(storetest.Actor, fmt.Sprint("key ", i), []byte(strings.Repeat("value ", i)))
	}
	body := lane.EncodeBody([]*persistence.Batch{batch})
	packed := lane.Pack(body)
	if len(packed) > len(body)/4 {
		t.Errorf("a body of %d bytes is packed to %d", len(body), len(packed))
	}
	back, err := lane.DecodeBody(packed)
	if err != nil {
		t.Fatal(err)
	}
	sameBatches(t, back, []*persistence.Batch{batch})
	noise := make([]byte, 4<<10)
	rand.NewChaCha8([32]byte{}).Read(noise)
	batch.Reset(7, 2, 9)
	batch.PutState(storetest.Actor, "k", noise)
	if body = lane.EncodeBody([]*persistence.Batch{batch}); !bytes.Equal(lane.Pack(body), body) {
		t.Error("a body that does not get smaller is packed")
	}
	path := filepath.Join("testdata", "packed.golden")
	if *rewrite {
		if err := os.WriteFile(path, fmt.Appendf(nil, "%x\n", packed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := lane.DecodeBody(stored); err != nil || len(got) != 1 || got[0].Len() != 100 || !strings.HasSuffix(string(got[0].Ops()[2].Value), "value value ") {
		t.Errorf("a body that was packed by an earlier version: %d batches, %v", len(got), err)
	}
	huge := append([]byte{3}, binary.AppendUvarint(nil, lane.SpillBytesMax+1)...)
	for name, wrong := range map[string][]byte{"cut": packed[:len(packed)/2], "nothing": {3}, "too long": huge} {
		if _, err := lane.DecodeBody(wrong); err == nil || !strings.Contains(err.Error(), "unpacked") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBodyOfNewerVersion(t *testing.T) {
	_, err := lane.DecodeBody([]byte{2, 0})
	var format *persistence.FormatError
	if !errors.As(err, &format) || format.Found != 2 {
		t.Errorf("a body of format 2: %v", err)
	}
}

func FuzzDecodeBody(f *testing.F) {
	whole := lane.EncodeBody(group())
	for n := range len(whole) + 1 {
		f.Add(whole[:n])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		batches, err := lane.DecodeBody(body)
		if err != nil {
			return
		}
		again, err := lane.DecodeBody(lane.EncodeBody(batches))
		if err != nil {
			t.Fatal(err)
		}
		sameBatches(t, again, batches)
	})
}

// TestTimestamps looks whether every operation has one of its own, above those
// before it and above the floor, also when the wall clock steps back.
func TestTimestamps(t *testing.T) {
	w := open(t, lane.ID{1}, lane.ModeQuorum, 4)
	last := lane.Timestamp(0)
	for i, step := range []struct{ now, floor lane.Timestamp }{{100, 0}, {50, 0}, {50, 5000}} {
		w.Raise(step.floor)
		last = max(last, step.floor)
		_, out, err := w.Append(step.now, group())
		if err != nil {
			t.Fatal(err)
		}
		e := entryOf(t, out.Send[0])
		effects, err := e.Effects()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range effects {
			if f.First <= last {
				t.Errorf("entry %d: a batch starts at %d, %d is in use", i, f.First, last)
			}
			last = f.First + lane.Timestamp(f.Batch.Len())
		}
		if e.TS != last || w.Clock() != last {
			t.Errorf("entry %d has timestamp %d, the clock stands at %d, the last operation at %d", i, e.TS, w.Clock(), last)
		}
	}
}

// TestDamageShows changes each field of an entry in turn.
func TestDamageShows(t *testing.T) {
	id := lane.ID{1}
	w := open(t, id, lane.ModeQuorum, 4)
	_, out, err := w.Append(1, group())
	if err != nil {
		t.Fatal(err)
	}
	whole := entryOf(t, out.Send[0])
	if err := whole.Check(id); err != nil {
		t.Fatal(err)
	}
	if whole.Check(lane.ID{2}) == nil {
		t.Error("the entry passes for one of another lane")
	}
	v := reflect.ValueOf(*whole)
	for i := range v.NumField() {
		damaged := *whole
		switch f := reflect.ValueOf(&damaged).Elem().Field(i); f.Kind() {
		case reflect.Slice:
			f.SetBytes(append([]byte{}, whole.Body[:len(whole.Body)-1]...))
		case reflect.Int64:
			f.SetInt(f.Int() + 1)
		default:
			f.SetUint(f.Uint() + 1)
		}
		if damaged.Check(id) == nil {
			t.Errorf("another %s does not show", v.Type().Field(i).Name)
		}
	}
}
