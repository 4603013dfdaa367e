package server_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// slowBackups is a store whose backups write a file, and end when the test says
// how.
type slowBackups struct {
	persistence.Store
	began chan string // the directory
	end   chan error
}

func (s *slowBackups) Backup(_ context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o600); err != nil {
		return err
	}
	s.began <- dir
	return <-s.end
}

// TestBackupIsWholeOrAbsent: a backup is listed when it is complete, a failed one
// leaves nothing, one is made at a time, and a node that closes waits for it.
func TestBackupIsWholeOrAbsent(t *testing.T) {
	slow := &slowBackups{began: make(chan string), end: make(chan error)}
	w := newWorld(t)
	w.stop()
	w.backups = t.TempDir()
	w.wrap = func(s persistence.Store) persistence.Store {
		slow.Store = s
		return slow
	}
	w.start()
	create := func() error {
		_, err := w.Cluster.CreateBackup(context.Background(), connect.NewRequest(&nolav1.CreateBackupRequest{Name: "monday"}))
		return err
	}
	listed := func() int {
		t.Helper()
		res, err := w.Cluster.ListBackups(t.Context(), connect.NewRequest(&nolav1.ListBackupsRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return len(res.Msg.GetBackups())
	}
	answers := make(chan error)
	for i, tt := range []struct {
		result error
		want   int
	}{{errors.New("the disk is full"), 0}, {nil, 1}} {
		go func() { answers <- create() }()
		dir := ""
		select {
		case dir = <-slow.began:
		case err := <-answers:
			t.Fatalf("attempt %d did not begin: %v", i, err)
		}
		if n := listed(); n != 0 {
			t.Errorf("attempt %d: %d backups are listed before one is complete", i, n)
		}
		var e *nola.Error
		if err := create(); !errors.As(err, &e) || e.Reason != nola.ReasonUnavailable || e.RetryAfter <= 0 {
			t.Errorf("attempt %d: a second backup meanwhile: %v, want UNAVAILABLE with a time to retry", i, err)
		}
		slow.end <- tt.result
		err := <-answers
		if (err == nil) != (tt.result == nil) || err != nil && !strings.Contains(err.Error(), tt.result.Error()) {
			t.Errorf("attempt %d ended with %v, the store's backup with %v", i, err, tt.result)
		}
		if n := listed(); n != tt.want {
			t.Errorf("attempt %d: %d backups are listed, want %d", i, n, tt.want)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("attempt %d left %s behind: %v", i, dir, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(w.backups, "monday")); err != nil {
		t.Fatal(err)
	}
	go func() { answers <- create() }()
	<-slow.began
	closed := make(chan struct{})
	go func() {
		w.stop()
		close(closed)
	}()
	<-answers // the connection is closed, and the backup goes on
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	early := false
	for i := 0; i < 25 && !early; i++ { // chances to go on that it must not take
		<-tick.C
		select {
		case <-closed:
			early = true
			t.Error("the node closed while its store was backed up")
		default:
		}
	}
	slow.end <- nil
	<-closed
	if _, err := os.Stat(filepath.Join(w.backups, "monday", "half")); err != nil {
		t.Errorf("the backup that was being made: %v", err)
	}
	w.start() // for the end of the test
}
