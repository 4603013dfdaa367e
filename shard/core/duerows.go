package core

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// dueRows are the rows of the due index in memory. A herd leaves hundreds of
// thousands of them in the memory of a node, so what they are is kept in bytes and
// numbers that the garbage collector need not look at. Only invocations are apart.
type dueRows struct {
	n     int
	slots []dueSlot
	free  rowID  // the first slot without a row; the others follow by next
	keys  []byte // of all rows
	waste int    // so many of keys are of rows that are gone
	// byHash has the first row of each hash of a key; the others follow by next.
	byHash      map[uint64]rowID
	invocations map[rowID]*nola.Invocation
	key         []byte // of the row that is looked up
}

// rowID names a row while it is in memory: its slot, counted from 1. 0 names none.
type rowID int32

type dueSlot struct {
	due, at    instant  // at may differ from the row's own time
	seq        nola.Seq // of the group that wrote the row, zero if it was read
	serial     uint64   // equal times keep their order
	start, end uint32   // of its key
	index      int32    // in the heap of its namespace
	next       rowID
}

// instant is a time without its zone.
type instant struct {
	seconds int64
	nanos   int32
}

func instantOf(t time.Time) instant { return instant{t.Unix(), int32(t.Nanosecond())} }

func (i instant) time() time.Time { return time.Unix(i.seconds, int64(i.nanos)).UTC() }

func (i instant) compare(j instant) int {
	return cmp.Or(cmp.Compare(i.seconds, j.seconds), cmp.Compare(i.nanos, j.nanos))
}

// dueOrder is in which order things are due: by time, then as they came.
type dueOrder struct {
	at     instant
	serial uint64
}

func (x dueOrder) before(y dueOrder) bool {
	if c := x.at.compare(y.at); c != 0 {
		return c < 0
	}
	return x.serial < y.serial
}

// slotsKeptMax is how many slots are kept to be used again when no row is left.
const slotsKeptMax = 64

// keySeed decides where rows are found, and nothing else.
var keySeed = maphash.MakeSeed()

// appendRowKey appends what names a row, ordered as rows of one time are.
func appendRowKey(b []byte, row *persistence.DueRow) []byte {
	b = append(row.Target.AppendCanonical(b), byte(row.Kind))
	return append(b, row.Name...)
}

func (r *dueRows) slot(id rowID) *dueSlot { return &r.slots[id-1] }

func (r *dueRows) keyOf(s *dueSlot) []byte { return r.keys[s.start:s.end] }

func (r *dueRows) order(id rowID) dueOrder {
	s := r.slot(id)
	return dueOrder{s.at, s.serial}
}

// find answers the row that has the name of row, 0 if there is none.
func (r *dueRows) find(row *persistence.DueRow) rowID {
	r.key = appendRowKey(r.key[:0], row)
	id := r.byHash[maphash.Bytes(keySeed, r.key)]
	for id != 0 && !bytes.Equal(r.keyOf(r.slot(id)), r.key) {
		id = r.slot(id).next
	}
	return id
}

// add takes in a row of which there is none.
func (r *dueRows) add(row *persistence.DueRow) rowID {
	id := r.free
	if id == 0 {
		r.slots = append(r.slots, dueSlot{})
		id = rowID(len(r.slots)) //nolint:gosec // a shard holds some DueRowsMax rows
	} else {
		r.free = r.slot(id).next
	}
	if r.byHash == nil {
		r.byHash = make(map[uint64]rowID)
	}
	start := len(r.keys)
	r.keys = appendRowKey(r.keys, row)
	hash := maphash.Bytes(keySeed, r.keys[start:])
	*r.slot(id) = dueSlot{
		due: instantOf(row.Due), start: uint32(start), end: uint32(len(r.keys)), //nolint:gosec // some DueRowsMax keys, of a kilobyte or so
		next: r.byHash[hash],
	}
	r.byHash[hash] = id
	r.n++
	r.setInvocation(id, row.Invocation)
	return id
}

func (r *dueRows) setInvocation(id rowID, inv *nola.Invocation) {
	switch {
	case inv == nil:
		delete(r.invocations, id)
		return
	case r.invocations == nil:
		r.invocations = make(map[rowID]*nola.Invocation)
	}
	r.invocations[id] = inv
}

// get answers a row.
func (r *dueRows) get(id rowID) persistence.DueRow {
	s := r.slot(id)
	target, rest, err := nola.ParseCanonical(r.keyOf(s))
	if err != nil {
		panic("core: a row of the due index has no name: " + err.Error())
	}
	return persistence.DueRow{
		Due: s.due.time(), Target: target, Kind: persistence.DueKind(rest[0]), Name: string(rest[1:]),
		Invocation: r.invocations[id],
	}
}

// drop forgets a row.
func (r *dueRows) drop(id rowID) {
	s := r.slot(id)
	hash := maphash.Bytes(keySeed, r.keyOf(s))
	if first := r.byHash[hash]; first != id {
		for r.slot(first).next != id {
			first = r.slot(first).next
		}
		r.slot(first).next = s.next
	} else if s.next != 0 {
		r.byHash[hash] = s.next
	} else {
		delete(r.byHash, hash)
	}
	delete(r.invocations, id)
	r.waste += int(s.end - s.start)
	*s = dueSlot{next: r.free}
	r.free = id
	if r.n--; r.n == 0 {
		r.empty()
	} else if r.waste > len(r.keys)/2 {
		r.compact()
	}
}

func (r *dueRows) empty() {
	if cap(r.slots) > slotsKeptMax {
		*r = dueRows{}
		return
	}
	r.slots, r.keys, r.free, r.waste = r.slots[:0], r.keys[:0], 0, 0
}

// compact moves the keys together.
func (r *dueRows) compact() {
	keys := make([]byte, 0, len(r.keys)-r.waste)
	for i := range r.slots {
		if s := &r.slots[i]; s.end > 0 { // it has a row: no key is empty
			start := len(keys)
			keys = append(keys, r.keyOf(s)...)
			s.start, s.end = uint32(start), uint32(len(keys)) //nolint:gosec // some DueRowsMax keys, of a kilobyte or so
		}
	}
	r.keys, r.waste = keys, 0
}

// all calls fn with each row, in no order that means anything.
func (r *dueRows) all(fn func(id rowID)) {
	for i := range r.slots {
		if r.slots[i].end > 0 {
			fn(rowID(i + 1)) //nolint:gosec // a shard holds some DueRowsMax rows
		}
	}
}

// compare orders rows as compareDue does.
func (r *dueRows) compare(x, y rowID) int {
	a, b := r.slot(x), r.slot(y)
	if c := a.due.compare(b.due); c != 0 {
		return c
	}
	return bytes.Compare(r.keyOf(a), r.keyOf(b))
}

// rowHeap is a binary heap of rows in their order; slots know where in it they are.
type rowHeap []rowID

func (r *dueRows) put(h rowHeap, i int, id rowID) {
	h[i] = id
	r.slot(id).index = int32(i) //nolint:gosec // a shard holds some DueRowsMax rows
}

func (r *dueRows) push(h *rowHeap, id rowID) {
	*h = append(*h, id)
	r.fix(*h, len(*h)-1, id)
}

// pull takes a row out of the heap.
func (r *dueRows) pull(h *rowHeap, id rowID) {
	i, end := int(r.slot(id).index), len(*h)-1
	last := (*h)[end]
	if *h = (*h)[:end]; i < end {
		r.fix(*h, i, last)
	}
}

// fix puts a row where it belongs in the heap, in which place i is free.
func (r *dueRows) fix(h rowHeap, i int, id rowID) {
	o := r.order(id)
	for i > 0 && o.before(r.order(h[(i-1)/2])) {
		r.put(h, i, h[(i-1)/2])
		i = (i - 1) / 2
	}
	for {
		next := 2*i + 1
		if next+1 < len(h) && r.order(h[next+1]).before(r.order(h[next])) {
			next++
		}
		if next >= len(h) || !r.order(h[next]).before(o) {
			break
		}
		r.put(h, i, h[next])
		i = next
	}
	r.put(h, i, id)
}
