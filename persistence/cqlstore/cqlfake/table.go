package cqlfake

import (
	"bytes"
	"math"
	"slices"
	"time"

	"github.com/datastax/go-cassandra-native-protocol/primitive"
	"github.com/tidwall/btree"
)

// table is a table with its rows.
type table struct {
	name       name
	columns    []column // first those of the partition key, then those that order its rows, then the others
	keys       int      // of the columns that are the partition key
	orders     int      // of the columns after these that order the rows
	descending []bool   // of these
	partitions btree.Map[string, *partition]
}

func (t *table) index(column string) int {
	for i, c := range t.columns {
		if c.name == column {
			return i
		}
	}
	return -1
}

// partition holds the rows of one key, in their order.
type partition struct {
	key     [][]byte
	rows    btree.Map[string, *row]
	deleted []deletion
}

// row holds cells by the index of their column. The marker is the cell of an
// INSERT: a row exists as long as any of its cells does.
type row struct {
	key    [][]byte
	marker cell
	cells  map[int]cell
}

// cell is what was written last, by timestamp.
type cell struct {
	value   []byte // nil: deleted
	written int64
	expires time.Time // zero: never
}

// deletion of the rows of a partition from <= row < to, of whatever was written
// up to a timestamp.
type deletion struct {
	from, to string
	written  int64
}

func (c cell) live(now time.Time) bool {
	return c.value != nil && (c.expires.IsZero() || now.Before(c.expires))
}

// merge answers which of two writes of a cell stays.
func merge(a, b cell) cell {
	switch {
	case a.written != b.written:
		if a.written > b.written {
			return a
		}
		return b
	case a.value == nil:
		return a
	case b.value == nil || bytes.Compare(a.value, b.value) < 0:
		return b
	}
	return a
}

// partition answers the rows of a key, and makes them if need be.
func (t *table) partition(key [][]byte) *partition {
	id := partitionID(key)
	p, ok := t.partitions.Get(id)
	if !ok {
		p = &partition{key: key}
		t.partitions.Set(id, p)
	}
	return p
}

func partitionID(key [][]byte) string {
	var id []byte
	for _, value := range key {
		id = appendEscaped(id, value)
	}
	return string(id)
}

// put merges a cell into a row, the marker if the index is negative.
func (p *partition) put(id string, key [][]byte, index int, c cell) {
	for _, d := range p.deleted {
		if d.from <= id && id < d.to && d.written >= c.written {
			return
		}
	}
	r, ok := p.rows.Get(id)
	if !ok {
		r = &row{key: key, marker: cell{written: math.MinInt64}, cells: map[int]cell{}}
		p.rows.Set(id, r)
	}
	if index < 0 {
		r.marker = merge(r.marker, c)
	} else if old, ok := r.cells[index]; ok {
		r.cells[index] = merge(old, c)
	} else {
		r.cells[index] = c
	}
}

// remove deletes what was written to rows up to the deletion's timestamp, before
// now or later on.
func (p *partition) remove(d deletion) {
	var empty []string
	p.rows.Ascend(d.from, func(id string, r *row) bool {
		if id >= d.to {
			return false
		}
		if r.marker.written <= d.written {
			r.marker = cell{written: math.MinInt64}
		}
		for i, c := range r.cells {
			if c.written <= d.written {
				delete(r.cells, i)
			}
		}
		if r.marker.value == nil && len(r.cells) == 0 {
			empty = append(empty, id)
		}
		return true
	})
	for _, id := range empty {
		p.rows.Delete(id)
	}
	p.deleted = slices.DeleteFunc(p.deleted, func(old deletion) bool {
		return d.from <= old.from && old.to <= d.to && old.written <= d.written
	})
	p.deleted = append(p.deleted, d)
}

// live reports whether a row exists.
func (r *row) live(now time.Time) bool {
	if r.marker.live(now) {
		return true
	}
	for _, c := range r.cells {
		if c.live(now) {
			return true
		}
	}
	return false
}

// value answers a column of a row, nil if it has none.
func (t *table) value(p *partition, r *row, index int, now time.Time) []byte {
	switch {
	case index < t.keys:
		return p.key[index]
	case index < t.keys+t.orders:
		return r.key[index-t.keys]
	}
	if c := r.cells[index]; c.live(now) {
		return c.value
	}
	return nil
}

// appendOrdered encodes a value of a column that orders rows, such that the bytes
// compare as the values do.
func (t *table) appendOrdered(id []byte, order int, value []byte) []byte {
	from := len(id)
	switch t.columns[t.keys+order].kind.Code() {
	case primitive.DataTypeCodeBigint, primitive.DataTypeCodeInt, primitive.DataTypeCodeSmallint,
		primitive.DataTypeCodeTinyint, primitive.DataTypeCodeTimestamp:
		id = append(id, value...)
		id[from] ^= 0x80 // the sign
	default:
		id = appendEscaped(id, value)
	}
	if t.descending[order] {
		for i := from; i < len(id); i++ {
			id[i] ^= 0xff
		}
	}
	return id
}

// appendEscaped encodes bytes such that none is the start of another.
func appendEscaped(id, value []byte) []byte {
	for _, c := range value {
		id = append(id, c)
		if c == 0 {
			id = append(id, 0xff)
		}
	}
	return append(id, 0, 0)
}

// lastID is above every row.
const lastID = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

// after answers the first id behind all that start with this one.
func after(id string) string {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] != 0xff {
			return id[:i] + string([]byte{id[i] + 1})
		}
	}
	return lastID
}
