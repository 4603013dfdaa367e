package persistence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nolaproject/nola"
	storev1 "github.com/nolaproject/nola/proto/nola/store/v1"
)

// SortedMap is what an engine on one machine offers: keys and values in the
// order of the keys. Its methods may be called at once. Sorted makes a Store of
// it.
type SortedMap interface {
	// Get answers a value, which belongs to the caller.
	Get(key []byte) (value []byte, found bool, err error)
	// Scan calls fn with from <= key < to in order (from the end, in reverse),
	// until fn answers false. An empty to is unbounded. It sees one state of the
	// map. The slices are valid during the call only.
	Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error
	// NewWrite starts a group of changes.
	NewWrite() SortedWrite
	// Close ends the map.
	Close() error
}

// SortedViewer is a SortedMap in which many reads cost less together.
type SortedViewer interface {
	// View starts some reads. They see all that was committed by now.
	View() SortedView
}

// SortedView is reads of keys that lie close to each other, at best in their order.
// One goroutine uses it.
type SortedView interface {
	// Get answers a value, which belongs to the caller.
	Get(key []byte) (value []byte, found bool, err error)
	// Close ends the reads.
	Close() error
}

// SortedWrite is a group of changes, a later one wins. It copies what it is
// given. One goroutine uses it.
type SortedWrite interface {
	// Put makes value the key's.
	Put(key, value []byte)
	// Delete removes the key, if it is there.
	Delete(key []byte)
	// DeleteRange deletes from <= key < to; an empty to is unbounded.
	DeleteRange(from, to []byte)
	// Commit makes the changes durable, all or none, and ends the group.
	Commit() error
	// Stage makes the changes visible, all or none, and ends the group. Nothing that
	// is committed or staged after it has returned survives a crash without them.
	Stage() error
}

// Sorted is a Store on a SortedMap. Batches hold effects and the shard's head,
// so the map's own log is the only one. Heads are in memory: Commit reads
// nothing.
type Sorted struct {
	m       SortedMap
	cluster ClusterInfo
	closed  atomic.Bool

	// mu orders what moves heads: Acquire, Commit and Resolve.
	mu    sync.Mutex
	heads []sortedHead
	key   []byte // scratch of Commit

	catalogKeys     [catalogStripes]sync.Mutex // by hash of the key: one writer per entry
	catalogMu       sync.Mutex                 // guards the fields below
	catalogLast     uint64                     // newest version ever given
	catalogReserved uint64                     // versions up to here may have been given, says the disk
}

// sortedHead is where a shard stands, in memory.
type sortedHead struct {
	tenure
	// stopped is set when nothing more may be committed under this epoch: it was
	// not acquired by this process, or an answer said so.
	stopped bool
	// unknown is set between a write that failed and the look at what became of
	// it. Nothing is committed meanwhile.
	unknown bool
	// past are earlier tenures of this process, oldest first.
	past []tenure
}

// tenure is what one epoch of a shard committed: numbers above start, to last.
type tenure struct {
	epoch       nola.Epoch
	start, last nola.Seq
}

// tenuresMax is how many earlier tenures of a shard Resolve can tell about.
const tenuresMax = 16

// OpenSorted opens the store in m. A map without one becomes the cluster told by
// fresh; otherwise fresh.Shards must be the number of shards that the store was
// created with, or zero.
func OpenSorted(m SortedMap, fresh ClusterInfo) (*Sorted, error) {
	s := &Sorted{m: m}
	value, found, err := m.Get(clusterKey)
	if err != nil {
		return nil, fmt.Errorf("persistence: read the cluster's facts: %w", err)
	}
	if found {
		s.cluster, err = decodeCluster(value)
	} else {
		s.cluster, err = fresh, s.create(fresh)
	}
	if err != nil {
		return nil, err
	}
	if fresh.Shards != 0 && fresh.Shards != s.cluster.Shards {
		return nil, fmt.Errorf("persistence: the store was created with %d shards, %d are asked for: the number never changes, ask for %d or for none", s.cluster.Shards, fresh.Shards, s.cluster.Shards)
	}
	return s, s.load()
}

// ShardsMax is how many shards a cluster may have.
const ShardsMax = 1 << 16

func (s *Sorted) create(fresh ClusterInfo) error {
	if fresh.Shards < 1 || fresh.Shards > ShardsMax {
		return fmt.Errorf("persistence: a store cannot have %d shards: ask for 1 to %d", fresh.Shards, ShardsMax)
	}
	w := s.m.NewWrite()
	w.Put(clusterKey, encodeCluster(nil, fresh))
	if err := w.Commit(); err != nil {
		return fmt.Errorf("persistence: write the cluster's facts: %w", err)
	}
	return nil
}

// load reads what is kept in memory: the heads and the catalogue's counter.
func (s *Sorted) load() error {
	s.heads = make([]sortedHead, s.cluster.Shards)
	for i := range s.heads {
		s.heads[i].stopped = true // until acquired
	}
	prefix := []byte{sortedHeads}
	err := scanMap(s.m, prefix, successor(nil, prefix), func(key, value []byte) error {
		shard, epoch, seq, err := decodeHead(key, value)
		if err == nil && int(shard) >= len(s.heads) {
			err = damaged("head", fmt.Errorf("it is of shard %d of %d", shard, len(s.heads)))
		}
		if err == nil {
			s.heads[shard].tenure = tenure{epoch: epoch, start: seq, last: seq}
		}
		return err
	})
	if err != nil {
		return err
	}
	value, found, err := s.m.Get(catalogCounterKey)
	if err != nil {
		return fmt.Errorf("persistence: read the catalogue's counter: %w", err)
	}
	if found {
		if len(value) != 9 || value[0] != formatOne {
			return damaged("catalogue counter", errKey)
		}
		s.catalogLast = binary.BigEndian.Uint64(value[1:])
		s.catalogReserved = s.catalogLast
	}
	return nil
}

// Cluster implements [Store].
func (s *Sorted) Cluster() ClusterInfo { return s.cluster }

// Acquire implements [Store].
func (s *Sorted) Acquire(ctx context.Context, shards []nola.ShardID) ([]Head, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, shard := range shards {
		if int(shard) >= len(s.heads) {
			return nil, fmt.Errorf("persistence: acquire shard %d: the cluster has %d", shard, len(s.heads))
		}
		if err := s.refresh(shard); err != nil {
			return nil, err
		}
	}
	heads := make([]Head, len(shards))
	w := s.m.NewWrite()
	for i, shard := range shards {
		h := &s.heads[shard]
		heads[i] = Head{Shard: shard, Epoch: h.epoch + 1, Seq: h.last}
		s.putHead(w, shard, h.epoch+1, h.last)
	}
	if err := w.Commit(); err != nil {
		for _, shard := range shards {
			s.heads[shard].stopped, s.heads[shard].unknown = true, true
		}
		return nil, fmt.Errorf("persistence: acquire %d shards: %w", len(shards), err)
	}
	for _, head := range heads {
		s.heads[head.Shard].begin(head)
	}
	return heads, nil
}

// RaiseEpochs raises the epoch of every shard by so much, in one durable step,
// without acquiring it: what was restored from a copy fences whoever has worked
// on the original since.
func (s *Sorted) RaiseEpochs(by nola.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.m.NewWrite()
	for i := range s.heads {
		h := &s.heads[i]
		h.stopped, h.unknown = true, true // to be read again
		s.putHead(w, nola.ShardID(i), h.epoch+by, h.last)
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("persistence: raise the epochs: %w", err)
	}
	return nil
}

// begin starts the tenure of a new epoch.
func (h *sortedHead) begin(head Head) {
	if h.epoch == head.Epoch { // the same shard twice in one Acquire
		return
	}
	if h.epoch != 0 {
		if len(h.past) == tenuresMax {
			h.past = append(h.past[:0], h.past[1:]...)
		}
		h.past = append(h.past, h.tenure)
	}
	h.tenure = tenure{epoch: head.Epoch, start: head.Seq, last: head.Seq}
	h.stopped = false
}

// refresh looks what became of a write of unknown outcome to the shard's head.
func (s *Sorted) refresh(shard nola.ShardID) error {
	h := &s.heads[shard]
	if !h.unknown {
		return nil
	}
	key := appendHeadKey(nil, shard)
	value, found, err := s.m.Get(key)
	if err != nil {
		return fmt.Errorf("persistence: read the head of shard %d: %w", shard, err)
	}
	if !found {
		h.unknown = false
		return nil
	}
	_, epoch, seq, err := decodeHead(key, value)
	if err != nil {
		return err
	}
	if epoch != h.epoch { // the write was an Acquire that answered an error
		h.begin(Head{Shard: shard, Epoch: epoch, Seq: seq})
		h.stopped = true
	}
	h.last, h.unknown = seq, false
	return nil
}

// sortedWriteMax is how many bytes of batches go into one write; a Commit of
// more makes several writes.
const sortedWriteMax = BatchBytesLimit

// Commit implements [Store].
func (s *Sorted) Commit(batches []*Batch) []error {
	verdicts := make([]error, len(batches))
	s.mu.Lock()
	defer s.mu.Unlock()
	var w SortedWrite
	first, size := 0, 0 // of the write that is open
	for i, b := range batches {
		if verdicts[i] = s.check(b); verdicts[i] != nil {
			continue
		}
		if w != nil && size+b.Bytes() > sortedWriteMax {
			s.finish(w, batches[first:i], verdicts[first:i])
			w, first, size = nil, i, 0
		}
		if w == nil {
			w = s.m.NewWrite()
		}
		s.apply(w, b)
		size += b.Bytes()
	}
	if w != nil {
		s.finish(w, batches[first:], verdicts[first:])
	}
	return verdicts
}

// check says whether b may be committed.
func (s *Sorted) check(b *Batch) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if int(b.Shard) >= len(s.heads) {
		return fmt.Errorf("persistence: commit to shard %d of %d: %w", b.Shard, len(s.heads), ErrFenced)
	}
	h := &s.heads[b.Shard]
	switch {
	case h.stopped || h.unknown || b.Epoch != h.epoch || b.Seq != h.last+1:
		return ErrFenced
	case b.Bytes() > BatchBytesLimit:
		return ErrTooLarge
	}
	return nil
}

// apply adds b's operations and its shard's new head to w.
func (s *Sorted) apply(w SortedWrite, b *Batch) {
	for i := range b.ops {
		op := &b.ops[i]
		switch op.Kind {
		case OpPut:
			w.Put(s.opKey(b.Shard, op, op.Key), op.Value)
		case OpDelete:
			w.Delete(s.opKey(b.Shard, op, op.Key))
		case OpDeleteRange:
			from := s.opKey(b.Shard, op, op.Key)
			n := len(from)
			s.key = appendRangeEnd(from, Range{Table: op.Table, Shard: b.Shard, Actor: op.Actor, To: op.Value})
			if bytes.Compare(s.key[:n], s.key[n:]) < 0 {
				w.DeleteRange(s.key[:n], s.key[n:])
			}
		case OpDeleteActor:
			for _, table := range actorTables {
				from := appendRowPrefix(s.key[:0], table, b.Shard, op.Actor)
				n := len(from)
				s.key = successor(from, from)
				w.DeleteRange(s.key[:n], s.key[n:])
			}
			s.key = appendListingKey(s.key[:0], op.Actor)
			w.Delete(s.key)
		case OpList:
			s.key = appendListingKey(s.key[:0], op.Actor)
			w.Put(s.key, listed)
		default:
			panic(fmt.Sprintf("persistence: operation of kind %d", op.Kind))
		}
	}
	s.putHead(w, b.Shard, b.Epoch, b.Seq)
}

func (s *Sorted) opKey(shard nola.ShardID, op *Op, key []byte) []byte {
	s.key = append(appendRowPrefix(s.key[:0], op.Table, shard, op.Actor), key...)
	return s.key
}

func (s *Sorted) putHead(w SortedWrite, shard nola.ShardID, epoch nola.Epoch, seq nola.Seq) {
	key := appendHeadKey(s.key[:0], shard)
	n := len(key)
	s.key = encodeHead(key, epoch, seq)
	w.Put(s.key[:n], s.key[n:])
}

// finish commits w and gives the batches in it, those without a verdict, theirs.
func (s *Sorted) finish(w SortedWrite, batches []*Batch, verdicts []error) {
	err := w.Commit()
	if err != nil {
		err = fmt.Errorf("persistence: commit %d batches: %w", len(batches), err)
	}
	for i, b := range batches {
		if verdicts[i] != nil {
			continue
		}
		verdicts[i] = err
		h := &s.heads[b.Shard]
		if err != nil {
			h.unknown = true
			continue
		}
		h.last = b.Seq
	}
}

// Resolve implements [Store].
func (s *Sorted) Resolve(ctx context.Context, batches []*Batch) []error {
	verdicts := make([]error, len(batches))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range batches {
		if verdicts[i] = s.usable(ctx); verdicts[i] == nil {
			verdicts[i] = s.resolve(b)
		}
	}
	return verdicts
}

func (s *Sorted) resolve(b *Batch) error {
	if int(b.Shard) >= len(s.heads) {
		return ErrFenced
	}
	if err := s.refresh(b.Shard); err != nil {
		return err
	}
	h := &s.heads[b.Shard]
	t := h.tenure
	for i := len(h.past) - 1; i >= 0 && b.Epoch < t.epoch; i-- {
		t = h.past[i]
	}
	switch {
	case b.Epoch < t.epoch:
		return fmt.Errorf("persistence: shard %d was acquired too often since epoch %d to tell what became of its batch %d", b.Shard, b.Epoch, b.Seq)
	case b.Epoch == t.epoch && t.start < b.Seq && b.Seq <= t.last:
		return nil
	}
	if b.Epoch == h.epoch && b.Seq > h.last {
		h.stopped = true // so that never executed stays true
	}
	return ErrFenced
}

// Pressure implements [Store]: a map that says nothing of it is never behind.
func (s *Sorted) Pressure() float64 { return 0 }

// Get implements [Store].
func (s *Sorted) Get(row Row) ([]byte, bool, error) { return s.get(s.m.Get, row) }

func (s *Sorted) get(from func([]byte) ([]byte, bool, error), row Row) ([]byte, bool, error) {
	if s.closed.Load() {
		return nil, false, ErrClosed
	}
	key := append(appendRowPrefix(make([]byte, 0, 128), row.Table, row.Shard, row.Actor), row.Key...)
	value, found, err := from(key)
	if err != nil {
		return nil, false, fmt.Errorf("persistence: read a row of shard %d: %w", row.Shard, err)
	}
	return value, found, nil
}

// View implements [Viewer].
func (s *Sorted) View() View {
	if v, ok := s.m.(SortedViewer); ok && !s.closed.Load() {
		return &sortedView{s, v.View()}
	}
	return nil
}

type sortedView struct {
	s *Sorted
	v SortedView
}

func (v *sortedView) Get(row Row) ([]byte, bool, error) { return v.s.get(v.v.Get, row) }

func (v *sortedView) Close() error { return v.v.Close() }

// Scan implements [Store].
func (s *Sorted) Scan(r Range, fn func(key, value []byte) bool) error {
	if s.closed.Load() {
		return ErrClosed
	}
	from := appendRowPrefix(nil, r.Table, r.Shard, r.Actor)
	prefix := len(from)
	from = append(from, r.From...)
	to := appendRangeEnd(nil, r)
	if bytes.Compare(from, to) >= 0 {
		return nil
	}
	err := s.m.Scan(from, to, r.Reverse, func(key, value []byte) bool { return fn(key[prefix:], value) })
	if err != nil {
		return fmt.Errorf("persistence: scan rows of shard %d: %w", r.Shard, err)
	}
	return nil
}

// ListActors implements [Store].
func (s *Sorted) ListActors(namespace, typ, idPrefix string, after nola.ActorRef, limit int) (list []nola.ActorRef, err error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	prefix := appendListingPrefix(nil, namespace, typ)
	if typ != "" {
		prefix = append(prefix, idPrefix...)
	}
	from := prefix
	if !after.IsZero() {
		after.Namespace = namespace
		if from = append(appendListingKey(nil, after), 0); bytes.Compare(from, prefix) < 0 {
			from = prefix
		}
	}
	to := successor(nil, prefix)
	if limit <= 0 || bytes.Compare(from, to) >= 0 {
		return nil, nil
	}
	var failed error
	err = s.m.Scan(from, to, false, func(key, _ []byte) bool {
		ref, err := parseListingKey(key)
		if err != nil {
			failed = err
			return false
		}
		if strings.HasPrefix(ref.ID, idPrefix) {
			list = append(list, ref)
		}
		return len(list) < limit
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("persistence: list actors of namespace %s: %w", namespace, err)
	}
	return list, nil
}

// PutObject implements [Store].
func (s *Sorted) PutObject(ctx context.Context, digest [32]byte, data []byte) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if sum := sha256.Sum256(data); sum != digest {
		return fmt.Errorf("persistence: store object %x: its bytes have the digest %x", digest, sum)
	}
	w := s.m.NewWrite()
	w.Put(objectKey(digest), data)
	if err := w.Commit(); err != nil {
		return fmt.Errorf("persistence: store object %x: %w", digest, err)
	}
	return nil
}

// GetObject implements [Store].
func (s *Sorted) GetObject(ctx context.Context, digest [32]byte) ([]byte, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	data, found, err := s.m.Get(objectKey(digest))
	switch {
	case err != nil:
		return nil, fmt.Errorf("persistence: read object %x: %w", digest, err)
	case !found:
		return nil, ErrNotFound
	}
	return data, nil
}

// DeleteObject implements [Store].
func (s *Sorted) DeleteObject(ctx context.Context, digest [32]byte) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	w := s.m.NewWrite()
	w.Delete(objectKey(digest))
	if err := w.Commit(); err != nil {
		return fmt.Errorf("persistence: delete object %x: %w", digest, err)
	}
	return nil
}

// CatalogGet implements [Store].
func (s *Sorted) CatalogGet(ctx context.Context, space Space, key string) ([]byte, uint64, error) {
	if err := s.usable(ctx); err != nil {
		return nil, 0, err
	}
	value, found, err := s.m.Get(catalogRow(space, key))
	if err != nil {
		return nil, 0, fmt.Errorf("persistence: read catalogue entry %q: %w", key, err)
	}
	if !found {
		return nil, 0, nil
	}
	return decodeCatalogValue(value)
}

// CatalogPut implements [Store].
func (s *Sorted) CatalogPut(ctx context.Context, space Space, key string, version uint64, value []byte) (uint64, error) {
	return s.catalogPut(ctx, space, key, version, value, SortedWrite.Commit)
}

// CatalogReserve implements [Store].
func (s *Sorted) CatalogReserve(ctx context.Context, space Space, key string, version uint64, value []byte) (uint64, error) {
	return s.catalogPut(ctx, space, key, version, value, SortedWrite.Stage)
}

func (s *Sorted) catalogPut(ctx context.Context, space Space, key string, version uint64, value []byte, write func(SortedWrite) error) (uint64, error) {
	// One writer per entry; writers of different entries share a sync.
	mu := s.catalogStripe(key)
	mu.Lock()
	defer mu.Unlock()
	_, now, err := s.CatalogGet(ctx, space, key)
	switch {
	case err != nil:
		return 0, err
	case now != version:
		return 0, ErrConflict
	case value == nil && version == 0:
		return 0, nil
	}
	row := catalogRow(space, key)
	next := uint64(0)
	w := s.m.NewWrite()
	if value == nil {
		w.Delete(row)
	} else {
		if next, err = s.catalogVersion(); err != nil {
			return 0, fmt.Errorf("persistence: write catalogue entry %q: %w", key, err)
		}
		w.Put(row, encodeCatalogValue(nil, next, value))
	}
	if err := write(w); err != nil {
		return 0, fmt.Errorf("persistence: write catalogue entry %q: %w", key, err)
	}
	return next, nil
}

func (s *Sorted) catalogStripe(key string) *sync.Mutex {
	return &s.catalogKeys[crc32.ChecksumIEEE([]byte(key))%uint32(len(s.catalogKeys))]
}

// catalogStripes is how many entries can be written at once at best. A writer
// holds its stripe until the disk has answered, so it is far more than there are
// writers: two that share a stripe wait for each other's sync.
const catalogStripes = 1024

// catalogReserve is how many versions are set aside with one write.
const catalogReserve = 1024

// catalogVersion gives a version that was never given before, also not before
// the store was opened.
func (s *Sorted) catalogVersion() (uint64, error) {
	s.catalogMu.Lock()
	defer s.catalogMu.Unlock()
	if s.catalogLast == s.catalogReserved {
		w := s.m.NewWrite()
		w.Put(catalogCounterKey, binary.BigEndian.AppendUint64([]byte{formatOne}, s.catalogReserved+catalogReserve))
		if err := w.Commit(); err != nil {
			return 0, err
		}
		s.catalogReserved += catalogReserve
	}
	s.catalogLast++
	return s.catalogLast, nil
}

// CatalogList implements [Store].
func (s *Sorted) CatalogList(ctx context.Context, space Space, prefix, after string, limit int) (list []CatalogEntry, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	start := catalogRow(space, prefix)
	from := start
	if after != "" && after >= prefix {
		from = append(catalogRow(space, after), 0)
	}
	to := successor(nil, start)
	if limit <= 0 || bytes.Compare(from, to) >= 0 {
		return nil, nil
	}
	var failed error
	err = s.m.Scan(from, to, false, func(key, value []byte) bool {
		var entry CatalogEntry
		entry.Key = string(key[catalogPrefixBytes:])
		entry.Value, entry.Version, failed = decodeCatalogValue(bytes.Clone(value))
		list = append(list, entry)
		return failed == nil && len(list) < limit
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("persistence: list the catalogue: %w", err)
	}
	return list, nil
}

// Close implements [Store].
func (s *Sorted) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if err := s.m.Close(); err != nil {
		return fmt.Errorf("persistence: close the store: %w", err)
	}
	return nil
}

func (s *Sorted) usable(ctx context.Context) error {
	if s.closed.Load() {
		return ErrClosed
	}
	return ctx.Err()
}

// scanMap scans forward with a function that may fail.
func scanMap(m SortedMap, from, to []byte, fn func(key, value []byte) error) error {
	var failed error
	err := m.Scan(from, to, false, func(key, value []byte) bool {
		failed = fn(key, value)
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

func encodeCluster(b []byte, info ClusterInfo) []byte {
	return encodeMessage(b, &storev1.Cluster{Id: info.ID[:], Shards: uint32(info.Shards), Secret: info.Secret[:]})
}

func decodeCluster(value []byte) (info ClusterInfo, err error) {
	var m storev1.Cluster
	if err := decodeMessage("cluster", value, &m); err != nil {
		return ClusterInfo{}, err
	}
	err = errors.Join(fill(info.ID[:], m.Id, "id"), fill(info.Secret[:], m.Secret, "secret"))
	if m.Shards < 1 || m.Shards > ShardsMax {
		err = errors.Join(err, fmt.Errorf("it has %d shards", m.Shards))
	}
	if err != nil {
		return ClusterInfo{}, damaged("cluster", err)
	}
	info.Shards = int(m.Shards)
	return info, nil
}
