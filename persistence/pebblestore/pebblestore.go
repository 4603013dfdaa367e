package pebblestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// ShardsDefault is how many shards a new store gets unless told.
const ShardsDefault = 256

// Options say how a store is opened. The zero value works.
type Options struct {
	// Shards is the number of shards of a new store: default ShardsDefault. A
	// store that exists is refused if it has another number, unless zero.
	Shards int
	// CacheBytes bounds the cache of blocks read from disk: default 16 MiB.
	CacheBytes int64
	// MemTableBytes is how much is written before a table is flushed: default 16
	// MiB, of which two may be in memory.
	MemTableBytes int
	// FS is the file system: default the machine's.
	FS vfs.FS
	// Fatal is called with what to tell the operator when the store cannot go on,
	// for example after a failed sync of its log. It must end the process: default
	// is to print the message to standard error and exit with code 1. Until it
	// does so, the caller of Commit waits; if it returns, the store is broken and
	// nothing that it answers may be trusted.
	Fatal func(message string)
	// Log receives the engine's own messages: default none.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Fatal == nil {
		o.Fatal = func(message string) {
			fmt.Fprintln(os.Stderr, message)
			os.Exit(1)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Store is a persistence.Store in a directory. It is a persistence.Backuper and
// a persistence.Metricser as well.
type Store struct {
	*persistence.Sorted
	m   *sortedMap
	dir directory

	measured atomic.Int64 // when pressure was measured last, Unix nanoseconds
	pressure atomic.Int64 // in thousandths
}

// Open opens the store in dir, which is made if it does not exist. The errors
// that are of the directory are ErrInUse, ErrNotStore and ErrNewerFormat, and
// those of the file system.
func Open(dir string, o Options) (*Store, error) {
	o = o.withDefaults()
	d, err := openDirectory(o.FS, dir, true)
	if err != nil {
		return nil, err
	}
	store, err := open(d, o, false)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return store, nil
}

func open(d directory, o Options, readOnly bool) (*Store, error) {
	m, err := openMap(d, o, readOnly)
	if err != nil {
		return nil, err
	}
	sorted, err := openSorted(d, m, o)
	if err != nil {
		return nil, errors.Join(err, m.db.Close())
	}
	return &Store{Sorted: sorted, m: m, dir: d}, nil
}

func openSorted(d directory, m *sortedMap, o Options) (*persistence.Sorted, error) {
	fresh := persistence.ClusterInfo{Shards: o.Shards}
	if !d.created {
		if fresh.Shards == 0 {
			fresh.Shards = ShardsDefault
		}
		rand.Read(fresh.ID[:])
		rand.Read(fresh.Secret[:])
	}
	sorted, err := persistence.OpenSorted(m, fresh)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: directory %s: %w", d.path, err)
	}
	if !d.created {
		err = d.finish()
	}
	return sorted, err
}

// Close ends the store and lets the directory go.
func (s *Store) Close() error {
	return errors.Join(s.Sorted.Close(), s.dir.close())
}

// Backup implements persistence.Backuper: it links or copies the files into a
// directory that Restore makes a store of. A directory whose backup was not
// finished is not a store.
func (s *Store) Backup(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := s.dir.make(dir)
	if err != nil {
		return fmt.Errorf("pebblestore: back up to %s: %w", dir, err)
	}
	err = s.m.db.Checkpoint(d.db(), pebble.WithFlushedWAL())
	if err == nil {
		err = d.finish()
	}
	if err != nil {
		return fmt.Errorf("pebblestore: back up to %s: %w; remove it and try again", dir, err)
	}
	return nil
}

// pressureAge is how old a measurement of the pressure may be.
const pressureAge = 100 * time.Millisecond

// Pressure implements persistence.Store. It rises with the tables that wait to
// be flushed and to be compacted, and is 1 where Pebble would hold writers back.
func (s *Store) Pressure() float64 {
	now := time.Now().UnixNano()
	last := s.measured.Load()
	if now-last > int64(pressureAge) && s.measured.CompareAndSwap(last, now) {
		s.pressure.Store(int64(1000 * s.m.pressure()))
	}
	return float64(s.pressure.Load()) / 1000
}

// sortedMap is Pebble as a persistence.SortedMap.
type sortedMap struct {
	db       *pebble.DB
	memTable int
	figures  figures
	stalled  atomic.Bool
}

// The bounds at which Pebble holds writers back.
const (
	memTablesMax  = 2
	l0StopWrites  = 24 // sublevels that wait to be compacted
	filterBitsKey = 10 // about one in a hundred misses reads a block
)

// When Pebble merges tables. A merge takes a processor for a quarter of a second, and
// what is written is spread over all tables, so that little that is new is merged with
// much that is old: by Pebble's own rules twice as often, and as often again for the
// tombstones of rows that were due.
const (
	l0Compaction    = 8   // of which half are sublevels: Pebble counts each twice
	tombstonesDense = 0.5 // of a table's blocks, from which it is merged for them alone
)

// formatMajorVersion is the format of Pebble's files. Raising it raises
// storeFormat as well.
const formatMajorVersion = pebble.FormatTableFormatV6

func openMap(d directory, o Options, readOnly bool) (*sortedMap, error) {
	m := &sortedMap{memTable: o.MemTableBytes}
	po := &pebble.Options{
		FS:                          orderedMarkers{o.FS},
		FormatMajorVersion:          formatMajorVersion,
		CacheSize:                   o.CacheBytes + memTablesMax*int64(o.MemTableBytes), // Pebble takes its memtables out of it
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: memTablesMax,
		L0CompactionThreshold:       l0Compaction,
		L0StopWritesThreshold:       l0StopWrites,
		ErrorIfNotExists:            d.created,
		ReadOnly:                    readOnly,
		Logger:                      logger{o: o, path: d.path},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { backgroundError(o, d.path, err) },
			DataCorruption:  func(info pebble.DataCorruptionInfo) { corrupted(o, d.path, info) },
			WriteStallBegin: func(pebble.WriteStallBeginInfo) { m.stalled.Store(true); m.figures.stalls.Add(1) },
			WriteStallEnd:   func() { m.stalled.Store(false) },
		},
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBitsKey)
	}
	po.Experimental.TombstoneDenseCompactionThreshold = tombstonesDense
	db, err := pebble.Open(d.db(), po)
	if err != nil {
		if strings.Contains(err.Error(), "unknown format major version") {
			return nil, fmt.Errorf("pebblestore: directory %s: %w: %w", d.path, ErrNewerFormat, err)
		}
		if damaged(err) {
			return nil, fmt.Errorf("pebblestore: directory %s: %w: %w", d.path, ErrDamaged, err)
		}
		return nil, fmt.Errorf("pebblestore: open %s: %w", d.path, err)
	}
	m.db = db
	return m, nil
}

// damaged reports whether the engine does not find its files as it left them.
func damaged(err error) bool {
	return pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrDBDoesNotExist) || errors.Is(err, fs.ErrNotExist)
}

// Get implements persistence.SortedMap.
func (m *sortedMap) Get(key []byte) ([]byte, bool, error) {
	value, closer, err := m.db.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	value = append(make([]byte, 0, len(value)), value...)
	return value, true, closer.Close()
}

// View implements persistence.SortedViewer.
func (m *sortedMap) View() persistence.SortedView { return &view{db: m.db} }

// view keeps an iterator for each table that is read: where it stands, the next key's
// block is at hand, or the one behind it.
type view struct {
	db  *pebble.DB
	its []tableIterator
}

type tableIterator struct {
	table byte // what its keys begin with
	*pebble.Iterator
}

// Get implements persistence.SortedView.
func (v *view) Get(key []byte) ([]byte, bool, error) {
	i := slices.IndexFunc(v.its, func(it tableIterator) bool { return it.table == key[0] })
	if i < 0 {
		it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: key[:1], UpperBound: []byte{key[0] + 1}})
		if err != nil {
			return nil, false, err
		}
		i, v.its = len(v.its), append(v.its, tableIterator{key[0], it})
	}
	it := v.its[i]
	if !it.SeekPrefixGE(key) { // each key is a prefix of its own
		return nil, false, it.Error()
	}
	value, err := it.ValueAndErr()
	return append(make([]byte, 0, len(value)), value...), err == nil, err
}

// Close implements persistence.SortedView.
func (v *view) Close() (err error) {
	for _, it := range v.its {
		err = errors.Join(err, it.Close())
	}
	return err
}

// Scan implements persistence.SortedMap.
func (m *sortedMap) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	o := &pebble.IterOptions{LowerBound: from, UpperBound: to}
	if len(to) == 0 {
		o.UpperBound = nil
	}
	it, err := m.db.NewIter(o)
	if err != nil {
		return err
	}
	start, next := it.First, it.Next
	if reverse {
		start, next = it.Last, it.Prev
	}
	for ok := start(); ok; ok = next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !fn(it.Key(), value) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// NewWrite implements persistence.SortedMap.
func (m *sortedMap) NewWrite() persistence.SortedWrite { return &write{m: m, b: m.db.NewBatch()} }

// Close implements persistence.SortedMap.
func (m *sortedMap) Close() error { return m.db.Close() }

func (m *sortedMap) pressure() float64 {
	if m.stalled.Load() {
		return 1
	}
	pm := m.db.Metrics()
	tables := float64(pm.MemTable.Count-1) / memTablesMax
	levels := float64(pm.Levels[0].Sublevels) / l0StopWrites
	return min(1, max(tables, levels))
}

// write is a Pebble batch as a persistence.SortedWrite. Its first error is
// answered by Commit.
type write struct {
	m   *sortedMap
	b   *pebble.Batch
	err error
}

// Put implements persistence.SortedWrite.
func (w *write) Put(key, value []byte) { w.keep(w.b.Set(key, value, nil)) }

// Delete implements persistence.SortedWrite.
func (w *write) Delete(key []byte) { w.keep(w.b.Delete(key, nil)) }

// DeleteRange implements persistence.SortedWrite.
func (w *write) DeleteRange(from, to []byte) {
	if len(to) == 0 {
		to = endOfKeys
	}
	w.keep(w.b.DeleteRange(from, to, nil))
}

// endOfKeys lies behind every key: no table has that number.
var endOfKeys = []byte{0xff}

func (w *write) keep(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Commit implements persistence.SortedWrite.
func (w *write) Commit() error {
	size := w.b.Len()
	start := time.Now()
	w.keep(w.b.Commit(pebble.Sync))
	w.m.figures.commit(time.Since(start), size)
	w.keep(w.b.Close())
	return w.err
}

// Stage implements persistence.SortedWrite. There is one log, and a crash keeps a
// beginning of it.
func (w *write) Stage() error {
	w.keep(w.b.Commit(pebble.NoSync))
	w.keep(w.b.Close())
	return w.err
}

// logger hands Pebble's messages on, and the fatal ones to whoever ends the
// process.
type logger struct {
	o    Options
	path string
}

// Infof implements pebble.Logger.
func (l logger) Infof(format string, args ...any) {
	l.o.Log.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l logger) Errorf(format string, args ...any) {
	l.o.Log.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger.
func (l logger) Fatalf(format string, args ...any) {
	l.o.Fatal(fmt.Sprintf("nola: the store in %s cannot go on: %s; everything that was answered is on disk: check the disk and its free space, then start again", l.path, fmt.Sprintf(format, args...)))
}

// corrupted ends the process when a file is not what was written: what it held
// cannot be had from here any more.
func corrupted(o Options, path string, info pebble.DataCorruptionInfo) {
	o.Fatal(fmt.Sprintf("nola: the store in %s is damaged: file %s: %v; end what uses the disk, check it, and make a store of the newest backup in another directory", path, info.Path, info.Details))
}

// backgroundError ends the process when the disk is full: tables that cannot be
// flushed would hold writers back for ever.
func backgroundError(o Options, path string, err error) {
	if vfs.IsNoSpaceError(err) {
		o.Fatal(fmt.Sprintf("nola: the disk of the store in %s is full: %v; everything that was answered is on disk: make room, then start again", path, err))
		return
	}
	o.Log.Error("pebble: background work failed and is tried again", "error", err)
}

// Restore makes a store in dir, which must be empty or not exist, of a backup.
// It raises every epoch by so much that whoever worked on the store since the
// backup is fenced.
func Restore(backup, dir string, o Options) error {
	o = o.withDefaults()
	if err := restore(backup, dir, o); err != nil {
		return fmt.Errorf("pebblestore: restore %s into %s: %w", backup, dir, err)
	}
	return nil
}

// restoreEpochs is more tenures than a store sees between two backups.
const restoreEpochs nola.Epoch = 1 << 20

func restore(backup, dir string, o Options) (err error) {
	from, err := openDirectory(o.FS, backup, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	if !from.created {
		return fmt.Errorf("%w: the backup was not finished", ErrNotStore)
	}
	to, err := from.make(dir)
	if err != nil {
		return err
	}
	ok, err := vfs.Clone(o.FS, o.FS, from.db(), to.db(), vfs.CloneSync)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: the backup has no files", ErrNotStore)
	}
	to.created = true // so that Pebble finds a database, or fails
	store, err := open(to, o, false)
	if err != nil {
		return err
	}
	err = store.RaiseEpochs(restoreEpochs)
	err = errors.Join(err, store.Sorted.Close())
	if err == nil {
		err = to.finish()
	}
	return err
}

// Check reads everything in a store that nobody has open and reports what does
// not fit. It changes nothing.
func Check(ctx context.Context, dir string, o Options) (report *persistence.Report, err error) {
	o = o.withDefaults()
	d, err := openDirectory(o.FS, dir, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if !d.created {
		return nil, fmt.Errorf("pebblestore: directory %s: %w: its creation was not finished; it holds nothing", dir, ErrNotStore)
	}
	store, err := open(d, o, true)
	if err != nil {
		return nil, err
	}
	report, err = store.Sorted.Check(ctx) //nolint:staticcheck // QF1008: Check of the package is another function
	return report, errors.Join(err, store.Sorted.Close())
}

var (
	_ persistence.Store     = (*Store)(nil)
	_ persistence.Backuper  = (*Store)(nil)
	_ persistence.Metricser = (*Store)(nil)
)
