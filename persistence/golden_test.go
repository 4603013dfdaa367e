package persistence_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/storetest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; then read the difference, for it is a new storage format")

var opNames = map[persistence.OpKind]string{
	persistence.OpPut:         "put",
	persistence.OpDelete:      "delete",
	persistence.OpDeleteRange: "delete range",
	persistence.OpDeleteActor: "delete actor",
	persistence.OpList:        "list",
}

func dump(out *strings.Builder, name string, write func(b *persistence.Batch)) {
	b := new(persistence.Batch)
	b.Reset(storetest.Shard, 1, 1)
	write(b)
	fmt.Fprintf(out, "# %s\n", name)
	for _, op := range b.Ops() {
		actor := "-"
		if !op.Actor.IsZero() {
			actor = op.Actor.String()
		}
		fmt.Fprintf(out, "%s table %d actor %s\n  key   %x\n  value %x\n", opNames[op.Kind], uint8(op.Table), actor, op.Key, op.Value)
	}
}

// TestOperations pins down what every typed write stores.
func TestOperations(t *testing.T) {
	var out strings.Builder
	for _, rec := range storetest.Records() {
		dump(&out, rec.Name, rec.Write)
	}
	dump(&out, "schedule of which is not known who paused it", func(b *persistence.Batch) {
		sd := storetest.Schedule()
		sd.PausedBy = ""
		b.PutSchedule(sd.Target, &sd)
	})
	at := time.Unix(1_800_000_000, 123_456_789)
	ref := storetest.Actor
	dump(&out, "deletions", func(b *persistence.Batch) {
		b.ListActor(ref)
		b.DeleteActor(ref)
		b.DeleteState(ref, "k")
		b.DeleteMemory(ref)
		b.DeleteMemoryPage(ref, 258)
		b.DeleteTimer(ref, "wake")
		b.DeleteDeferred(ref, nola.Token{1, 2})
		b.DeleteDue(at, ref, persistence.DueReminder, "tick")
		b.DeleteBacklog(ref, 258)
		b.DeleteSchedule(ref, true, "tick")
		b.DeleteOutcomesBefore(at)
		b.DeleteSessionsBefore(false, at)
		b.DeleteSessionsBefore(true, at)
		b.DeleteUserKey(ref, persistence.UserKeyHash("order-1"))
		b.DeleteOutbox(7, 513)
	})
	golden(t, "operations.golden", out.String())
}

// TestEncodingsOfZero pins down that empty records are small, and come back.
func TestEncodingsOfZero(t *testing.T) {
	var out strings.Builder
	dump(&out, "zero records", func(b *persistence.Batch) {
		ref := storetest.Actor
		b.PutMeta(ref, persistence.Meta{})
		b.PutState(ref, "", nil)
		b.PutMemory(ref, &nola.Memory{})
		b.PutTimer(ref, persistence.TimerRecord{})
		b.PutDue(persistence.DueRow{Target: ref})
		b.PutDeferred(ref, &persistence.DeferredRecord{Invocation: &nola.Invocation{}})
		b.PutBacklog(ref, persistence.BacklogRow{Invocation: &nola.Invocation{}})
		b.PutSchedule(ref, &nola.Schedule{})
		b.PutProgress(ref, false, "", &nola.Progress{}, 0)
		b.PutOccurrence(ref, false, "", 0, nola.Occurrence{})
		b.PutOutcome(persistence.OutcomeRecord{})
		b.PutSession(ref, nola.Key{}, persistence.OutcomeRecord{})
		b.PutUserKey(ref, "", persistence.OutcomeRecord{Err: &nola.Error{}})
		b.PutUserKeys(ref, persistence.UserKeys{})
		b.PutOutbox(persistence.OutboxRow{})
		b.PutInbox(persistence.InboxRow{})
		b.PutFloors(persistence.Floors{})
	})
	golden(t, "zero.golden", out.String())
}

var placement = persistence.Placement{
	Drained: []string{"n2"},
	Rules: []persistence.PlacementRule{
		{Namespace: "shop", Require: map[string]string{"zone": "a"}},
		{Namespace: "shop", Type: "cart", Prefer: map[string]string{"disk": "fast"}, Avoid: map[string]string{"spot": "yes"}},
	},
}

// TestCatalogue pins down what entries of the catalogue store for schedules and
// calendars.
func TestCatalogue(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{Shards: storetest.Shards})
	if err != nil {
		t.Fatal(err)
	}
	c := persistence.Catalog{Store: store}
	sd := storetest.Schedule()
	if _, err := c.PutScheduleEntry(t.Context(), 0, persistence.ScheduleEntry{
		Namespace: sd.Namespace, ID: sd.ID, Incarnation: sd.Incarnation, Target: sd.Target, RequestID: "r",
		Created: sd.Created, Calendars: sd.Spec.CalendarNames(),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutCalendar(t.Context(), 0, persistence.CalendarEntry{
		Calendar: sd.Calendars[0], State: persistence.CalendarSettled, Incarnation: 6,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutPlacement(t.Context(), 0, placement); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, space := range []persistence.Space{persistence.SpaceSchedule, persistence.SpaceCalendar, persistence.SpacePlacement} {
		entries, err := c.CatalogList(t.Context(), space, "", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			fmt.Fprintf(&out, "space %d\n  key   %x\n  value %x\n", space, e.Key, e.Value)
		}
	}
	golden(t, "catalogue.golden", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Fatalf("%s:%d: the storage format has changed:\n got %s\nwant %s", path, i+1, g, w)
		}
	}
}

// TestReuse fills one batch again and again and looks whether an earlier
// content shows, or a slice is overwritten while it is in use.
func TestReuse(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{Shards: storetest.Shards})
	if err != nil {
		t.Fatal(err)
	}
	heads, err := store.Acquire(t.Context(), []nola.ShardID{storetest.Shard})
	if err != nil {
		t.Fatal(err)
	}
	b := new(persistence.Batch)
	r := persistence.Reader{Store: store}
	for round := range 50 {
		b.Reset(storetest.Shard, heads[0].Epoch, heads[0].Seq+1+nola.Seq(round))
		value := bytes.Repeat([]byte{byte(round)}, round*100)
		for key := range 20 {
			b.PutState(storetest.Actor, fmt.Sprint(key), value)
		}
		clear(value) // the batch has copied it
		if err := store.Commit([]*persistence.Batch{b})[0]; err != nil {
			t.Fatal(err)
		}
		for key := range 20 {
			got, _, err := r.State(storetest.Shard, storetest.Actor, fmt.Sprint(key))
			if want := bytes.Repeat([]byte{byte(round)}, round*100); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d, key %d: %d other bytes, %v", round, key, len(got), err)
			}
		}
	}
}
