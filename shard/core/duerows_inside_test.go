package core

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// rowAt is a row of one of a few actors, so that rows meet others of their name.
func rowAt(r *rand.Rand, start time.Time) persistence.DueRow {
	row := persistence.DueRow{
		Due:    start.Add(time.Duration(r.IntN(50)) * time.Second),
		Target: nola.ActorRef{Namespace: fmt.Sprint("n", r.IntN(3)), Type: "t", ID: fmt.Sprint(r.IntN(40))},
		Kind:   persistence.DueSchedule, Name: fmt.Sprint(r.IntN(5)),
	}
	if r.IntN(4) == 0 {
		row.Kind = persistence.DueTimer
		row.Invocation = &nola.Invocation{Target: row.Target, Payload: make([]byte, r.IntN(10))}
	}
	return row
}

// TestDueIndexAgainstAMap sets, changes, removes and takes rows, and looks after each
// step whether the index has what a map has, and what is due first.
func TestDueIndexAgainstAMap(t *testing.T) {
	const steps = 20_000
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	type entry struct {
		row    persistence.DueRow
		at     time.Time
		serial int
	}
	var d dueIndex
	d.init(Limits{}.WithDefaults())
	d.locals = nil
	model := map[dueKey]entry{}
	first := func() (e entry) {
		entries := make([]entry, 0, len(model))
		for _, e := range model {
			entries = append(entries, e)
		}
		return slices.MinFunc(entries, func(x, y entry) int { return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.serial, y.serial)) })
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s", seed, fmt.Sprintf(format, args...))
	}
	for n := range steps {
		grow := n/2000%2 == 0 // it becomes large, and empty, by turns
		switch row := rowAt(r, start); {
		case grow && r.IntN(4) > 0 || len(model) == 0:
			at := row.Due.Add(time.Duration(r.IntN(3)) * time.Nanosecond)
			serial := n
			if e, ok := model[keyOf(row)]; ok {
				serial = e.serial
			}
			model[keyOf(row)] = entry{row, at, serial}
			d.set(row, at, 0)
		case r.IntN(2) == 0:
			delete(model, keyOf(row))
			d.remove(row)
		default:
			want := first()
			o, sp, ok := d.first(false)
			if !ok || !o.at.time().Equal(want.at) {
				fail("step %d: first is at %v (%t), want %v", n, o.at.time(), ok, want.at)
			}
			got := d.take(sp, sp.rows[0])
			if got != want.row {
				fail("step %d: first is %+v, want %+v", n, got, want.row)
			}
			delete(model, keyOf(want.row))
		}
		bytes := 0
		for _, e := range model {
			bytes += rowBytes(e.row.Invocation)
		}
		if d.len() != len(model) || d.bytes != bytes {
			fail("step %d: %d rows with %d bytes, want %d with %d", n, d.len(), d.bytes, len(model), bytes)
		}
		if n%100 > 0 {
			continue
		}
		d.rows.all(func(id rowID) {
			if row := d.rows.get(id); model[keyOf(row)].row != row {
				fail("step %d: row %+v, want %+v", n, row, model[keyOf(row)].row)
			}
		})
	}
}

// TestRowsOfTheDueIndexAreNoObjects: what a herd leaves in memory is nothing for the
// garbage collector to follow.
func TestRowsOfTheDueIndexAreNoObjects(t *testing.T) {
	const count = 10_000
	objects := func() int {
		runtime.GC()
		runtime.GC() // pools are empty only then
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapObjects)
	}
	var d dueIndex
	d.init(Limits{}.WithDefaults())
	before := objects()
	for i := range count {
		target := nola.ActorRef{Namespace: "default", Type: "clock", ID: fmt.Sprint(i)}
		d.set(persistence.DueRow{Due: time.Unix(1, 0), Target: target, Kind: persistence.DueSchedule, Name: "s"}, time.Unix(1, 0), 0)
	}
	if n := objects() - before; n > count/10 {
		t.Errorf("%d rows are %d objects, want a few", count, n)
	}
	if d.len() != count {
		t.Errorf("%d rows are in memory, want %d", d.len(), count)
	}
}
