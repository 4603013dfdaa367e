package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestBackupRestoreDoctor: a backup holds what was acknowledged before it, a
// restored store serves it under higher epochs, and the old one stays as it is.
func TestBackupRestoreDoctor(t *testing.T) {
	p := serve(t, t.TempDir())
	c := p.dial()
	push(t, c, "counter", "witness")
	for range 5 {
		invoke(t, c, "counter", "alice", "inc", "")
	}
	keyed := func(c *client.Client) *nolav1.InvokeResponse {
		res, err := c.Actors.Invoke(t.Context(), connect.NewRequest(&nolav1.InvokeRequest{Actor: actorMessage("counter", "alice"), Operation: "inc", IdempotencyKey: "once"}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	keyed(c)
	createSchedule(t, c, "nightly", "mark", "", 1e9*3600, nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP)
	invoke(t, c, "witness", "alarm", "arm", "3600000")
	before := listShards(t, c)
	p.kill() // a backup of what a crash left is as good

	backup, restored := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	run := func(want int, args ...string) string {
		t.Helper()
		code, out, errOut := nolad(t, args...)
		if code != want {
			t.Fatalf("nolad %q: exit code %d, want %d\n%s%s", args, code, want, out, errOut)
		}
		return out + errOut
	}
	if out := run(0, "doctor", "--data-dir", p.dir); !strings.Contains(out, "no faults") {
		t.Errorf("doctor: %s", out)
	}
	if out := run(0, "backup", "--data-dir", p.dir, backup); !strings.Contains(out, "nolad restore "+backup) {
		t.Errorf("backup does not say how it is restored: %s", out)
	}
	run(exitFailure, "backup", "--data-dir", p.dir, backup) // it never overwrites one

	p = serve(t, p.dir) // the old one goes on
	if got := invoke(t, p.dial(), "counter", "alice", "inc", ""); got != "7" {
		t.Errorf("after the backup the old store answers %s, want 7", got)
	}
	p.terminate()

	if out := run(0, "restore", backup, "--data-dir", restored); !strings.Contains(out, restored) {
		t.Errorf("restore: %s", out)
	}
	run(exitFailure, "restore", backup, "--data-dir", restored) // nor does it
	if out := run(0, "doctor", "--data-dir", restored); !strings.Contains(out, "no faults") {
		t.Errorf("doctor of the restored store: %s", out)
	}
	r := serve(t, restored)
	c = r.dial()
	if res := keyed(c); !res.GetReplayed() || string(res.GetPayload()) != "6" {
		t.Errorf("a key from before the backup is answered %v", res)
	}
	if got := invoke(t, c, "counter", "alice", "inc", ""); got != "7" {
		t.Errorf("the restored counter answers %s, want 7", got)
	}
	getSchedule(t, c, "nightly")
	timers, err := c.Actors.ListTimers(t.Context(), connect.NewRequest(&nolav1.ListTimersRequest{Actor: actorMessage("witness", "alarm")}))
	if err != nil || len(timers.Msg.GetTimers()) != 2 {
		t.Errorf("timers of the restored store: %v %v", timers, err)
	}
	for i, s := range listShards(t, c) {
		if s.GetEpoch() <= before[i].GetEpoch() {
			t.Errorf("shard %d has epoch %d, before the backup it had %d", i, s.GetEpoch(), before[i].GetEpoch())
			break
		}
	}
	r.terminate()

	// A store that lost a part of itself is not served as if it were whole.
	tables, err := filepath.Glob(filepath.Join(restored, "db", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) == 0 {
		t.Skip("the store has no table files")
	}
	for _, table := range tables {
		if err := os.WriteFile(table, []byte("gone"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := run(exitFailure, "doctor", "--data-dir", restored)
	if strings.Contains(out, "goroutine ") {
		t.Errorf("doctor panics: %s", out)
	}
	t.Logf("doctor of a damaged store: %s", out)
}
