package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func createBackup(t testing.TB, c *client.Client, name string) (*nolav1.Backup, error) {
	t.Helper()
	res, err := c.Cluster.CreateBackup(t.Context(), connect.NewRequest(&nolav1.CreateBackupRequest{Name: name}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetBackup(), nil
}

// TestCrashBackupUnderLoad backs a server up while clients call and cast, timers
// run and schedules fire. What was acknowledged before the request for a backup is
// in the restored store, with its keys; what happened later is there whole or not
// at all; nothing happened twice.
func TestCrashBackupUnderLoad(t *testing.T) {
	dir, backups := t.TempDir(), filepath.Join(t.TempDir(), "made", "on", "demand")
	p := serve(t, dir, "--backup-dir", backups)
	c := p.dial()
	push(t, c, "witness")
	invoke(t, c, "witness", "chain", "chain", "0")
	createSchedule(t, c, "skip", "mark", "", crashEvery, nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{t: t, c: c, ctx: ctx, once: make(map[string]map[string]bool), replies: make(map[string]map[string]string)}
	for i := range 4 {
		actor := fmt.Sprintf("acc-%d", i%3)
		l.wg.Go(func() { l.userKeys(i, actor) })
		l.wg.Go(func() { l.sessionKeys(i, actor) })
		l.wg.Go(func() { l.casts(i, fmt.Sprint("mail-", i%2)) })
	}
	defer l.wg.Wait()
	defer stop()

	type copied struct {
		dir    string
		before map[string]map[string]bool // acknowledged before the request
		links  int
	}
	var all []copied
	for round := range sized(2, 10) {
		acked := l.acked.Load() + 500
		eventually(t, time.Minute, "calls are acknowledged", func() bool { return l.acked.Load() >= acked })
		links := len(state(t, c, "witness", "chain", "link/"))
		l.mu.Lock()
		before := make(map[string]map[string]bool)
		for actor, keys := range l.once {
			before[actor] = maps.Clone(keys)
		}
		l.mu.Unlock()
		name := fmt.Sprintf("round-%d", round)
		b, err := createBackup(t, c, name)
		if err != nil {
			t.Fatal(err)
		}
		if b.GetDirectory() != filepath.Join(backups, name) || b.GetBytes() == 0 {
			t.Errorf("the backup is %v, want one in %s", b, filepath.Join(backups, name))
		}
		all = append(all, copied{b.GetDirectory(), before, links})
	}
	stop()
	l.wg.Wait()
	p.kill()

	for _, b := range all {
		restored := filepath.Join(t.TempDir(), "restored")
		if code, out, errOut := nolad(t, "restore", b.dir, "--data-dir", restored); code != 0 {
			t.Fatalf("restore %s: exit code %d\n%s%s", b.dir, code, out, errOut)
		}
		if code, out, errOut := nolad(t, "doctor", "--data-dir", restored); code != 0 {
			t.Errorf("doctor of %s: exit code %d\n%s%s", b.dir, code, out, errOut)
		}
		began := time.Now()
		p := serve(t, restored)
		c := p.dial()
		for _, actor := range slices.Sorted(maps.Keys(b.before)) {
			eventually(t, time.Minute, "the backlog of witness/"+actor+" is worked off", func() bool {
				res, err := c.Actors.DescribeActor(t.Context(), connect.NewRequest(&nolav1.DescribeActorRequest{Actor: actorMessage("witness", actor)}))
				return err == nil && res.Msg.GetBacklogEntries() == 0 && res.Msg.GetActivation().GetMailboxEntries() == 0
			})
			have, sum := state(t, c, "witness", actor, "k/"), 0
			for key := range b.before[actor] {
				if have["k/"+key] == "" {
					t.Errorf("%s: witness/%s: %s was acknowledged before the backup and is lost", b.dir, actor, key)
				}
			}
			for name, count := range have {
				if count != "1" || !l.once[actor][strings.TrimPrefix(name, "k/")] {
					t.Errorf("%s: witness/%s: %s happened %s times; acknowledged: %v", b.dir, actor, name, count, l.once[actor][strings.TrimPrefix(name, "k/")])
				}
				sum++
			}
			if total := state(t, c, "witness", actor, "total")["total"]; sum > 0 && total != strconv.Itoa(sum) {
				t.Errorf("%s: witness/%s: the total is %s, its parts make %d: half a turn was kept", b.dir, actor, total, sum)
			}
			for key := range b.before[actor] {
				if !strings.HasPrefix(key, "user-") {
					continue
				}
				res, err := c.Invoke(t.Context(), actorRef("witness", actor), "add", []byte(key), client.WithIdempotencyKey(key))
				if err != nil || !res.Replayed || l.replies[actor][string(res.Payload)] != key {
					t.Errorf("%s: witness/%s: %s again: reply %q, replayed %v, error %v", b.dir, actor, key, res.Payload, res.Replayed, err)
				}
				break // one of an actor is enough
			}
		}
		if links := state(t, c, "witness", "chain", "link/"); len(links) < b.links {
			t.Errorf("%s: the chain of timers has %d links, %d were seen before the backup", b.dir, len(links), b.links)
		} else {
			checkChain(t, links)
		}
		checkOccurrences(t, c, "skip", began)
		p.terminate()
	}
	t.Logf("%d acknowledged, %d backups", l.acked.Load(), len(all))
}

// TestBackupNames: no name leads out of the directory for backups, overwrites
// what is there, or makes something that is not complete look like a backup.
func TestBackupNames(t *testing.T) {
	above := t.TempDir()
	backups, data := filepath.Join(above, "backups"), filepath.Join(above, "data")
	if err := os.MkdirAll(filepath.Join(backups, ".late.unfinished", "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(above, filepath.Join(backups, "linked")); err != nil {
		t.Fatal(err)
	}
	p := serve(t, data, "--backup-dir", backups)
	c := p.dial()
	for _, name := range []string{".", "..", "../escaped", "a/../../escaped", "/escaped", "a/b", ".hidden", "late.", "Upper", "a b", "a\x00b", `a\b`, strings.Repeat("x", 129)} {
		var e *nola.Error
		if _, err := createBackup(t, c, name); !errors.As(err, &e) || e.Reason != nola.ReasonInvalidName && e.Reason != nola.ReasonInvalidArgument {
			t.Errorf("a backup called %q: %v", name, err)
		}
	}
	for _, name := range []string{"monday", "late", ""} {
		if _, err := createBackup(t, c, name); err != nil {
			t.Errorf("a backup called %q: %v", name, err)
		}
	}
	for _, name := range []string{"monday", "linked"} {
		if _, err := createBackup(t, c, name); !errors.Is(err, &nola.Error{Reason: nola.ReasonAlreadyExists}) {
			t.Errorf("a second backup called %q: %v, want ALREADY_EXISTS", name, err)
		}
	}
	var names []string
	for token := ""; ; {
		res, err := c.Cluster.ListBackups(t.Context(), connect.NewRequest(&nolav1.ListBackupsRequest{PageSize: 2, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range res.Msg.GetBackups() {
			names = append(names, b.GetName())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(names) != 3 || names[1] != "late" || names[2] != "monday" || !slices.IsSorted(names) {
		t.Errorf("the backups are %q, want one called after the time, late and monday", names)
	}
	for dir, want := range map[string][]string{above: {"backups", "data"}, backups: append([]string{"linked"}, names...)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", dir, got, want)
		}
	}
	p.terminate()

	p = serve(t, data)
	if _, err := createBackup(t, p.dial(), "tuesday"); !errors.Is(err, &nola.Error{Reason: nola.ReasonBackupsDisabled}) || !strings.Contains(err.Error(), "backup_dir") {
		t.Errorf("a backup without a directory: %v, want BACKUPS_DISABLED that names backup_dir", err)
	}
	code, _, errOut := nolad(t, "backup", "--data-dir", data, filepath.Join(above, "offline"))
	if code != exitFailure || !strings.Contains(errOut, "nolactl backup create") {
		t.Errorf("nolad backup of a running server: exit code %d\n%s", code, errOut)
	}
	p.terminate()
	if code, _, errOut := nolad(t, "serve", "--data-dir", data, "--backup-dir", filepath.Join(data, "backups")); code != exitUsage || !strings.Contains(errOut, "backup_dir") {
		t.Errorf("a directory for backups in the data directory: exit code %d\n%s", code, errOut)
	}
}
