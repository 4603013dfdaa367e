package cqlstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence"
)

// An object is a row under its digest, touched by conditional statements alone,
// which names an upload: parts under a fresh id that are written once. So an object
// that is deleted and stored again meets nothing of its former self, whatever the
// clocks say.

const (
	partBytes   = 256 << 10
	partsAtOnce = 4
)

// PutObject implements [persistence.Store].
func (s *Store) PutObject(ctx context.Context, digest [32]byte, data []byte) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if sum := sha256.Sum256(data); sum != digest {
		return fmt.Errorf("cqlstore: store object %x: its bytes have the digest %x", digest, sum)
	}
	ctx, stop := s.within(ctx)
	defer stop()
	fail := func(err error) error { return s.objectError("store", digest, err) }
	switch _, _, _, err := s.object(ctx, digest); {
	case err == nil:
		return nil
	case !errors.Is(err, persistence.ErrNotFound):
		return fail(err)
	}
	upload := gocql.UUID(freshID())
	parts := max(1, (len(data)+partBytes-1)/partBytes)
	err := s.eachPart(parts, func(i int) error {
		part := data[min(i*partBytes, len(data)):min((i+1)*partBytes, len(data))]
		return untilDone(ctx, func() error { return s.bulk.exec(ctx, stmtPartWrite, upload, i, blob(part)) })
	})
	if err != nil {
		return fail(err)
	}
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		applied, r, err := s.bulk.cas(ctx, stmtObjectCreate, digest[:], upload, int64(len(data)), parts)
		switch {
		case err == nil && (applied || deref(r.upload) == upload):
			return nil
		case err == nil: // somebody else has stored the same
			s.dropParts(ctx, upload, parts)
			return nil
		case refused(err) || sleep(ctx, jitter(pause)) != nil:
			return fail(err)
		}
	}
}

func (s *Store) objectError(what string, digest [32]byte, err error) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	return fmt.Errorf("cqlstore: %s object %x: %w", what, digest, err)
}

// object reads where the bytes lie.
func (s *Store) object(ctx context.Context, digest [32]byte) (upload gocql.UUID, size int64, parts int, err error) {
	err = again(ctx, func() error { return s.bulk.query(ctx, stmtObjectRead, digest[:]).Scan(&upload, &size, &parts) })
	if errors.Is(err, gocql.ErrNotFound) {
		err = persistence.ErrNotFound
	}
	return upload, size, parts, err
}

// eachPart calls fn for each part, some at once, and answers the first error.
func (s *Store) eachPart(parts int, fn func(i int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed error
	slots := make(chan struct{}, partsAtOnce)
	for i := range parts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := fn(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	wg.Wait()
	return failed
}

// dropParts deletes an upload that nothing names. What it misses stays unseen.
func (s *Store) dropParts(ctx context.Context, upload gocql.UUID, parts int) {
	_ = s.eachPart(parts, func(i int) error { return s.bulk.exec(ctx, stmtPartsDelete, upload, i) })
}

// GetObject implements [persistence.Store].
func (s *Store) GetObject(ctx context.Context, digest [32]byte) ([]byte, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	ctx, stop := s.within(ctx)
	defer stop()
	upload, size, parts, err := s.object(ctx, digest)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil, err
	}
	if err == nil && (size < 0 || int64(parts) != max(1, (size+partBytes-1)/partBytes)) {
		err = fmt.Errorf("its row says that %d bytes lie in %d parts", size, parts)
	}
	if err != nil {
		return nil, s.objectError("read", digest, err)
	}
	data := make([]byte, size)
	err = s.eachPart(parts, func(i int) error {
		var part []byte
		if err := again(ctx, func() error { return s.bulk.query(ctx, stmtPartRead, upload, i).Scan(&part) }); err != nil {
			return err
		}
		copy(data[min(i*partBytes, len(data)):], part)
		return nil
	})
	if err == nil && sha256.Sum256(data) != digest {
		err = errors.New("its bytes have another digest: the store has damaged it, push the module again")
	}
	if errors.Is(err, gocql.ErrNotFound) { // deleted while it was read
		return nil, persistence.ErrNotFound
	}
	if err != nil {
		return nil, s.objectError("read", digest, err)
	}
	return data, nil
}

// DeleteObject implements [persistence.Store].
func (s *Store) DeleteObject(ctx context.Context, digest [32]byte) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	ctx, stop := s.within(ctx)
	defer stop()
	upload, _, parts, err := s.object(ctx, digest)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	for pause := pauseMin; err == nil; pause = min(2*pause, pauseMax) {
		// Not applied means that it is gone, or is another upload, stored later.
		_, _, err = s.bulk.cas(ctx, stmtObjectDelete, digest[:], upload)
		if err == nil {
			s.dropParts(ctx, upload, parts)
			return nil
		}
		if !refused(err) && sleep(ctx, jitter(pause)) == nil {
			err = nil
		}
	}
	return s.objectError("delete", digest, err)
}
