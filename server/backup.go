package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// backupsMax bounds the backups that lie in one directory; whoever may call may
// make them, and each keeps files of the store alive.
const backupsMax = 1_000

// backupRetry is when one who met another backup should ask again.
const backupRetry = 5 * time.Second

// An unfinished backup lies under a name that no backup can have.
const (
	unfinishedPrefix = "."
	unfinishedSuffix = ".unfinished"
)

// CreateBackup copies the store into a directory below that for backups.
func (c *clusters) CreateBackup(ctx context.Context, req *connect.Request[nolav1.CreateBackupRequest]) (*connect.Response[nolav1.CreateBackupResponse], error) {
	store, err := c.s.backuper()
	if err != nil {
		return nil, err
	}
	name := req.Msg.GetName()
	if name == "" {
		name = c.s.cfg.Now().UTC().Format("20060102t150405z")
	}
	// A name has no separator and no dot at its ends, so that it cannot lead out
	// of the directory.
	if err := nola.ValidateName("backup name", name); err != nil {
		return nil, err
	}
	select {
	case c.s.backing <- struct{}{}:
	default:
		e := nola.Errorf(nola.ReasonUnavailable, "another backup is being made; one is made at a time")
		e.RetryAfter = backupRetry
		return nil, e
	}
	defer func() { <-c.s.backing }()
	b, err := c.s.backup(ctx, store, name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CreateBackupResponse{Backup: b}), nil
}

// backuper is the store, if it and the configuration allow backups.
func (s *Server) backuper() (persistence.Backuper, error) {
	store, ok := s.cfg.Store.(persistence.Backuper)
	switch {
	case !ok:
		return nil, nola.Errorf(nola.ReasonBackupsDisabled, "the store is of kind %q, which cannot be backed up while it works", s.cfg.StoreName)
	case s.cfg.BackupDir == "":
		return nil, nola.Errorf(nola.ReasonBackupsDisabled, "this server has no directory for backups; start it with backup_dir in its configuration, or --backup-dir")
	}
	return store, nil
}

// backup makes a backup of that name. The caller holds backing.
func (s *Server) backup(ctx context.Context, store persistence.Backuper, name string) (*nolav1.Backup, error) {
	there, err := s.backups()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.cfg.BackupDir, name)
	if _, err := os.Lstat(dir); err == nil {
		return nil, nola.Errorf(nola.ReasonAlreadyExists, "there is a backup or another file called %q in %s; choose another name", name, s.cfg.BackupDir)
	}
	if len(there) >= backupsMax {
		return nil, nola.LimitError(nola.ReasonLimitExceeded, "backups", backupsMax, "%s holds %d backups, the limit; remove old ones on the server's machine", s.cfg.BackupDir, len(there))
	}
	// It gets its name when it is complete, so that what has one can be restored.
	making := filepath.Join(s.cfg.BackupDir, unfinishedPrefix+name+unfinishedSuffix)
	began := time.Now()
	err = os.RemoveAll(making) // left by a process that ended in between
	if err == nil {
		err = os.MkdirAll(s.cfg.BackupDir, 0o700)
	}
	if err == nil {
		err = store.Backup(ctx, making)
	}
	if err == nil {
		err = os.Rename(making, dir)
	}
	if err == nil {
		err = syncDir(s.cfg.BackupDir)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(making))
		s.log.Error("backup failed", "name", name, "directory", dir, "error", err)
		return nil, nola.Errorf(nola.ReasonInternal, "the backup %q failed: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	b, err := backupOf(s.cfg.BackupDir, name)
	if err != nil {
		return nil, err
	}
	s.log.Info("backed up", "name", name, "directory", dir, "bytes", b.GetBytes(), "took", time.Since(began))
	return b, nil
}

// syncDir makes a change of names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// endBackups waits for the backup that is being made and lets none begin after
// it. It is called once, before the store is closed.
func (s *Server) endBackups() { s.backing <- struct{}{} }

// ListBackups lists what lies in the directory for backups.
func (c *clusters) ListBackups(_ context.Context, req *connect.Request[nolav1.ListBackupsRequest]) (*connect.Response[nolav1.ListBackupsResponse], error) {
	if _, err := c.s.backuper(); err != nil {
		return nil, err
	}
	after, err := parseCursor("backups", req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	names, err := c.s.backups()
	if err != nil {
		return nil, err
	}
	if after != nil {
		i, found := slices.BinarySearch(names, after[0])
		if found {
			i++
		}
		names = names[i:]
	}
	size := pageSize(req.Msg.GetPageSize())
	out := &nolav1.ListBackupsResponse{}
	for _, name := range names[:min(size, len(names))] {
		b, err := backupOf(c.s.cfg.BackupDir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in between
		}
		if err != nil {
			return nil, err
		}
		out.Backups = append(out.Backups, b)
	}
	if len(names) > size {
		out.NextPageToken = formatCursor("backups", names[size-1])
	}
	return connect.NewResponse(out), nil
}

// backups are the names of the complete backups, in order.
func (s *Server) backups() ([]string, error) {
	entries, err := os.ReadDir(s.cfg.BackupDir) // in the order of names
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("server: list backups: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && nola.ValidateName("backup name", e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// backupOf describes a backup that is complete.
func backupOf(parent, name string) (*nolav1.Backup, error) {
	dir := filepath.Join(parent, name)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("server: backup %s: %w", name, err)
	}
	b := &nolav1.Backup{Name: name, Directory: dir, Created: timestamppb.New(info.ModTime())}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			b.Bytes += uint64(info.Size())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("server: backup %s: %w", name, err)
	}
	return b, nil
}
