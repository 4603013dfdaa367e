package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola/client"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestServeOnCQL makes a schema on a server of CQL made for tests, serves on it, is killed, and serves on under
// the same name: what was acknowledged is there.
func TestServeOnCQL(t *testing.T) {
	db, err := cqlfake.Start(cqlfake.Config{Username: "nola", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	password := writeFile(t, "password", "secret\n")
	file := writeFile(t, "nolad.yaml", "store: cql\ncql:\n  hosts: ["+db.Address()+"]\n  username: nola\n  password_file: "+password+"\n  node_name: n1\n")
	tool := func(want int, says string, args ...string) {
		t.Helper()
		code, out, errOut := nolad(t, args...)
		if text := out + errOut; code != want || !strings.Contains(text, says) {
			t.Errorf("nolad %q: exit code %d, want %d and %q\n%s", args, code, want, says, text)
		}
	}
	tool(exitFailure, "nolad schema setup", "schema", "status", "--config", file)
	tool(0, "shards       8", "schema", "setup", "--config", file, "--replicas", "1", "--shards", "8")
	tool(0, "version      2 of 2", "schema", "update", "--config", file)
	tool(0, "commits      quorum: commitlog_sync is batch", "schema", "status", "--config", file)
	tool(exitFailure, "does not take the login", "schema", "status", "--cql-host", db.Address())
	tool(exitUsage, "mode \"fast\"", "schema", "status", "--cql-mode", "fast")

	p := serve(t, t.TempDir(), "--config", file)
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
	createSchedule(t, c, "nightly", "mark", "", time.Hour, nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP)
	p.kill()
	p = serve(t, t.TempDir(), "--config", file)
	c = p.dial()
	if res := keyed(c); !res.GetReplayed() || string(res.GetPayload()) != "6" {
		t.Errorf("a key from before the crash is answered %v", res)
	}
	if got := invoke(t, c, "counter", "alice", "inc", ""); got != "7" {
		t.Errorf("after the crash the counter answers %s, want 7", got)
	}
	getSchedule(t, c, "nightly")
	p.terminate()
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*data*")); len(left) > 0 {
		t.Errorf("a server on a cluster left %v on the disk", left)
	}
	db.Down(true)
	tool(exitFailure, "no node of the cluster answers", "schema", "status", "--config", file)
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	tool(exitFailure, "cql.password_file", "schema", "status", "--config", file)
}
