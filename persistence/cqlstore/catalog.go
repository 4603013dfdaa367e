package cqlstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence"
)

// An entry of the catalogue is a row that conditional statements alone touch. Its
// version is drawn by chance from 63 bits, so that none is given twice, and so that
// a writer whose answer was lost knows its own. An entry that goes is first marked,
// with a version of its own, and then removed by who marked it: a marked row that
// is gone was not removed by anybody else.
//
// The part of a key up to its first NUL, the namespace, is the partition. Those of
// schedules, which are many, are split further.

const scheduleBuckets = 16

func catalogBuckets(space persistence.Space) int {
	if space == persistence.SpaceSchedule {
		return scheduleBuckets
	}
	return 1
}

type entryKey struct {
	space  int8
	part   []byte
	bucket int16
	key    []byte
}

func entryAt(space persistence.Space, key string) entryKey {
	e := entryKey{space: int8(space), part: []byte{}, key: []byte(key)} //nolint:gosec // spaces are few
	if before, _, found := strings.Cut(key, "\x00"); found {
		e.part = []byte(before)
	}
	e.bucket = int16(int(crc32.ChecksumIEEE(e.key)) % catalogBuckets(space)) //nolint:gosec // below 16
	return e
}

func (e entryKey) args(before ...any) []any {
	return append(before, e.space, e.part, e.bucket, e.key)
}

// CatalogGet implements [persistence.Store].
func (s *Store) CatalogGet(ctx context.Context, space persistence.Space, key string) ([]byte, uint64, error) {
	if err := s.usable(ctx); err != nil {
		return nil, 0, err
	}
	ctx, stop := s.within(ctx)
	defer stop()
	value, version, live, err := s.entry(ctx, entryAt(space, key))
	if err != nil {
		return nil, 0, s.entryError("read", key, err)
	}
	if !live {
		return nil, 0, nil
	}
	return value, version, nil
}

func (s *Store) entryError(what, key string, err error) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	return fmt.Errorf("cqlstore: %s catalogue entry %q: %w", what, key, err)
}

// entry reads a row. version is 0 if there is none; live is false if it is
// marked.
func (s *Store) entry(ctx context.Context, at entryKey) (value []byte, version uint64, live bool, err error) {
	var v int64
	var alive int
	err = again(ctx, func() error { return s.bulk.query(ctx, stmtEntryRead, at.args()...).Scan(&v, &alive, &value) })
	if errors.Is(err, gocql.ErrNotFound) {
		return nil, 0, false, nil
	}
	return blob(value), uint64(v), alive != 0, err //nolint:gosec // versions have 63 bits
}

func freshVersion() int64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		if v := int64(binary.BigEndian.Uint64(b[:]) >> 1); v != 0 {
			return v
		}
	}
}

// CatalogPut implements [persistence.Store].
func (s *Store) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	ctx, stop := s.within(ctx)
	defer stop()
	at := entryAt(space, key)
	next, err := s.put(ctx, at, version, value)
	if err != nil && !errors.Is(err, persistence.ErrConflict) {
		return 0, s.entryError("write", key, err)
	}
	return next, err
}

// CatalogReserve implements [persistence.Store]. Catalogue and journal have no
// order of their own, so it is as durable as a put.
func (s *Store) CatalogReserve(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	return s.CatalogPut(ctx, space, key, version, value)
}

func (s *Store) put(ctx context.Context, at entryKey, version uint64, value []byte) (uint64, error) {
	fresh := freshVersion()
	if version == 0 {
		if value == nil {
			_, _, live, err := s.entry(ctx, at)
			if err == nil && live {
				err = persistence.ErrConflict
			}
			return 0, err
		}
		now, err := s.swap(ctx, fresh, stmtEntryCreate, append(at.args(), fresh, value)...)
		if err == nil && now != fresh {
			// A marked row stands for none.
			var old uint64
			var live bool
			if _, old, live, err = s.entry(ctx, at); err == nil && (live || old == 0) {
				err = persistence.ErrConflict
			}
			if err == nil {
				now, err = s.swap(ctx, fresh, stmtEntryWrite, append([]any{fresh, 1, value}, append(at.args(), int64(old))...)...) //nolint:gosec // 63 bits
			}
		}
		return done(now, fresh, err)
	}
	live := number(value != nil)
	now, err := s.swap(ctx, fresh, stmtEntryWrite, append([]any{fresh, live, blob(value)}, append(at.args(), int64(version))...)...) //nolint:gosec // 63 bits
	next, err := done(now, fresh, err)
	if err == nil && value == nil {
		// Who cannot remove the mark leaves it: it stands for no entry.
		_, _, _ = s.bulk.cas(ctx, stmtEntryDelete, at.args(fresh)...)
		next = 0
	}
	return next, err
}

func done(now, fresh int64, err error) (uint64, error) {
	switch {
	case err != nil:
		return 0, err
	case now != fresh:
		return 0, persistence.ErrConflict
	}
	return uint64(fresh), nil //nolint:gosec // 63 bits
}

// swap sends a conditional write of an entry until its answer is definite, and
// answers the version that the row has: fresh if the write was executed.
func (s *Store) swap(ctx context.Context, fresh int64, stmt statement, args ...any) (int64, error) {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		applied, r, err := s.bulk.cas(ctx, stmt, args...)
		switch {
		case err == nil && applied:
			return fresh, nil
		case err == nil:
			return deref(r.version), nil
		case refused(err) || sleep(ctx, jitter(pause)) != nil:
			return 0, err
		}
	}
}

// CatalogList implements [persistence.Store].
func (s *Store) CatalogList(ctx context.Context, space persistence.Space, prefix, after string, limit int) (list []persistence.CatalogEntry, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if limit <= 0 {
		return nil, nil
	}
	ctx, stop := s.within(ctx)
	defer stop()
	from := []byte(prefix)
	if after != "" && after >= prefix {
		from = append([]byte(after), 0)
	}
	parts, err := s.parts(ctx, space, prefix)
	for _, part := range parts {
		if err != nil || len(list) >= limit {
			break
		}
		var some []persistence.CatalogEntry
		some, err = s.entries(ctx, space, part, from, prefix, limit-len(list))
		list = append(list, some...)
	}
	if err != nil {
		if s.closed.Load() {
			return nil, persistence.ErrClosed
		}
		return nil, fmt.Errorf("cqlstore: list the catalogue: %w", err)
	}
	return list, nil
}

// parts answers the partitions in which keys with that prefix lie, in the order of
// the keys.
func (s *Store) parts(ctx context.Context, space persistence.Space, prefix string) (list [][]byte, err error) {
	if before, _, found := strings.Cut(prefix, "\x00"); found {
		return [][]byte{[]byte(before)}, nil
	}
	if space == persistence.SpaceNamespace {
		return [][]byte{{}}, nil
	}
	err = again(ctx, func() error {
		list = list[:0]
		iter := s.bulk.query(ctx, stmtEntryParts).Iter()
		var of int8
		var part []byte
		var bucket int16
		for iter.Scan(&of, &part, &bucket) {
			if of == int8(space) && (strings.HasPrefix(string(part), prefix) || strings.HasPrefix(prefix, string(part))) { //nolint:gosec // spaces are few
				list = append(list, blob(part))
			}
			part = nil
		}
		return iter.Close()
	})
	// Behind each stands a NUL, which no namespace has.
	slices.SortFunc(list, bytes.Compare)
	return slices.CompactFunc(list, bytes.Equal), err
}

func (s *Store) entries(ctx context.Context, space persistence.Space, part, from []byte, prefix string, limit int) (list []persistence.CatalogEntry, err error) {
	for bucket := range catalogBuckets(space) {
		start, have := from, 0
		for have < limit {
			var page []persistence.CatalogEntry
			rows := 0
			size := min(limit, pageMost)
			err := again(ctx, func() error {
				page, rows = page[:0], 0
				iter := s.bulk.query(ctx, stmtEntriesRead, int8(space), part, int16(bucket), blob(start), size).PageSize(size).Iter() //nolint:gosec // small
				var key, value []byte
				var version int64
				var live int
				for iter.Scan(&key, &version, &live, &value) {
					rows++
					start = append(bytes.Clone(key), 0)
					if live != 0 && strings.HasPrefix(string(key), prefix) {
						page = append(page, persistence.CatalogEntry{Key: string(key), Value: blob(value), Version: uint64(version)}) //nolint:gosec // 63 bits
					}
					key, value = nil, nil
				}
				return iter.Close()
			})
			if err != nil {
				return nil, err
			}
			list = append(list, page...)
			have += len(page)
			if rows < size || len(prefix) > 0 && !bytes.HasPrefix(start, []byte(prefix)) {
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b persistence.CatalogEntry) int { return strings.Compare(a.Key, b.Key) })
	return list[:min(limit, len(list))], nil
}
