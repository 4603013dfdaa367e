package memstore

import (
	"context"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Disk holds what stores have committed. Its methods may be called at once.
type Disk struct {
	fresh persistence.ClusterInfo

	mu     sync.RWMutex // guards the fields below
	rows   *btree.BTreeG[row]
	newest *view
	shared *persistence.Sorted // of those who joined; nil if nobody did
}

type row struct {
	key   string
	value []byte
}

// NewDisk makes an empty disk. The store on it is the cluster that fresh tells.
func NewDisk(fresh persistence.ClusterInfo) *Disk {
	less := func(a, b row) bool { return a.key < b.key }
	return &Disk{fresh: fresh, rows: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})}
}

// Store is a persistence.Store in memory.
type Store struct{ *persistence.Sorted }

// Open opens the store on the disk. A store that was open on it is closed.
func (d *Disk) Open() (*Store, error) {
	v := &view{disk: d}
	d.mu.Lock()
	d.newest, d.shared = v, nil
	d.mu.Unlock()
	sorted, err := persistence.OpenSorted(v, d.fresh)
	if err != nil {
		return nil, err
	}
	return &Store{Sorted: sorted}, nil
}

// New opens a store on a disk of its own.
func New(fresh persistence.ClusterInfo) (*Store, error) { return NewDisk(fresh).Open() }

// Member is one of several stores at work on a disk at once, as those of the nodes
// of a cluster: a shard belongs to the member that acquired it last, and the others'
// batches are fenced.
type Member struct {
	*persistence.Sorted
	mu     sync.RWMutex // held to read while a call is under way that moves heads
	closed bool
}

// Join adds a store to those that joined before. One that was opened on the disk
// is closed.
func (d *Disk) Join() (*Member, error) {
	d.mu.Lock()
	shared := d.shared
	d.mu.Unlock()
	if shared == nil {
		store, err := d.Open()
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.shared, shared = store.Sorted, store.Sorted
		d.mu.Unlock()
	}
	return &Member{Sorted: shared}, nil
}

// Acquire implements persistence.Store.
func (m *Member) Acquire(ctx context.Context, shards []nola.ShardID) ([]persistence.Head, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, persistence.ErrClosed
	}
	return m.Sorted.Acquire(ctx, shards)
}

// Commit implements persistence.Store.
func (m *Member) Commit(batches []*persistence.Batch) []error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return slices.Repeat([]error{persistence.ErrClosed}, len(batches))
	}
	return m.Sorted.Commit(batches)
}

// Close implements persistence.Store. The other members go on.
func (m *Member) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// view is a disk as one store sees it: until the next one is opened.
type view struct{ disk *Disk }

// usable is called with the disk locked.
func (v *view) usable() error {
	if v.disk.newest != v {
		return persistence.ErrClosed
	}
	return nil
}

// Get implements persistence.SortedMap.
func (v *view) Get(key []byte) ([]byte, bool, error) {
	v.disk.mu.RLock()
	defer v.disk.mu.RUnlock()
	if err := v.usable(); err != nil {
		return nil, false, err
	}
	r, found := v.disk.rows.Get(row{key: string(key)})
	if !found {
		return nil, false, nil
	}
	return append(make([]byte, 0, len(r.value)), r.value...), true, nil
}

// Scan implements persistence.SortedMap.
func (v *view) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	v.disk.mu.RLock()
	defer v.disk.mu.RUnlock()
	if err := v.usable(); err != nil {
		return err
	}
	lo, hi := string(from), string(to)
	var key, value []byte // copies, so that fn cannot write into the map
	visit := func(r row) bool {
		key, value = append(key[:0], r.key...), append(value[:0], r.value...)
		return fn(key, value)
	}
	switch {
	case !reverse:
		v.disk.rows.Ascend(row{key: lo}, func(r row) bool { return (hi == "" || r.key < hi) && visit(r) })
	case hi == "":
		v.disk.rows.Reverse(func(r row) bool { return r.key >= lo && visit(r) })
	default:
		v.disk.rows.Descend(row{key: hi}, func(r row) bool { return r.key == hi || r.key >= lo && visit(r) })
	}
	return nil
}

// Close implements persistence.SortedMap.
func (v *view) Close() error { return nil }

// NewWrite implements persistence.SortedMap.
func (v *view) NewWrite() persistence.SortedWrite { return &write{view: v} }

type write struct {
	view    *view
	changes []change
}

type change struct {
	key, end string // end is of ranges
	value    []byte // nil deletes
	ranged   bool
}

// Put implements persistence.SortedWrite.
func (w *write) Put(key, value []byte) {
	w.changes = append(w.changes, change{key: string(key), value: append(make([]byte, 0, len(value)), value...)})
}

// Delete implements persistence.SortedWrite.
func (w *write) Delete(key []byte) { w.changes = append(w.changes, change{key: string(key)}) }

// DeleteRange implements persistence.SortedWrite.
func (w *write) DeleteRange(from, to []byte) {
	w.changes = append(w.changes, change{key: string(from), end: string(to), ranged: true})
}

// Stage implements persistence.SortedWrite.
func (w *write) Stage() error { return w.Commit() }

// Commit implements persistence.SortedWrite.
func (w *write) Commit() error {
	d := w.view.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := w.view.usable(); err != nil {
		return err
	}
	for _, c := range w.changes {
		switch {
		case c.ranged:
			var gone []string
			d.rows.Ascend(row{key: c.key}, func(r row) bool {
				if c.end != "" && r.key >= c.end {
					return false
				}
				gone = append(gone, r.key)
				return true
			})
			for _, key := range gone {
				d.rows.Delete(row{key: key})
			}
		case c.value == nil:
			d.rows.Delete(row{key: c.key})
		default:
			d.rows.Set(row{key: c.key, value: c.value})
		}
	}
	return nil
}
