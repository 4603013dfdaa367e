package main

import (
	"crypto/tls"
	"crypto/x509"
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

// TestCQLOverTLS works on a server of CQL made for tests that speaks TLS alone and wants
// a certificate of each client, with the keys of a configuration file, and wants an
// error for each way in which these can be wrong.
func TestCQLOverTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for serial, name := range []string{"db", "client", "stranger"} {
		writeCertificate(t, file(name+".crt"), file(name+".key"), int64(serial+1))
	}
	pair, err := tls.LoadX509KeyPair(file("db.crt"), file("db.key"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(file("client.crt"))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pem)
	db, err := cqlfake.Start(cqlfake.Config{TLS: &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	empty := writeFile(t, "empty.crt", "no certificate\n")
	const away = "no node of the cluster answers"
	for _, tt := range []struct {
		name, keys, says string
	}{
		{"all that is needed", "tls_ca: DIR/db.crt\n  tls_cert: DIR/client.crt\n  tls_key: DIR/client.key\n  tls_server_name: localhost", ""},
		{"said in so many words", "tls: true\n  tls_ca: DIR/db.crt\n  tls_cert: DIR/client.crt\n  tls_key: DIR/client.key\n  tls_server_name: localhost", ""},
		{"no TLS", "keyspace: nola", away},
		{"nobody but the system's trusted", "tls: true\n  tls_cert: DIR/client.crt\n  tls_key: DIR/client.key\n  tls_server_name: localhost", "certificate signed by unknown authority"},
		{"a name alone", "tls_server_name: localhost", "certificate signed by unknown authority"},
		{"another one trusted", "tls_ca: DIR/stranger.crt\n  tls_cert: DIR/client.crt\n  tls_key: DIR/client.key\n  tls_server_name: localhost", "certificate signed by unknown authority"},
		{"the host as the name", "tls_ca: DIR/db.crt\n  tls_cert: DIR/client.crt\n  tls_key: DIR/client.key", "127.0.0.1"},
		{"no certificate of its own", "tls_ca: DIR/db.crt\n  tls_server_name: localhost", "certificate"},
		{"a stranger's certificate", "tls_ca: DIR/db.crt\n  tls_cert: DIR/stranger.crt\n  tls_key: DIR/stranger.key\n  tls_server_name: localhost", "certificate"},
		{"a missing file", "tls_ca: DIR/none.crt", "read cql.tls_ca"},
		{"a file without any", "tls_ca: " + empty, "it holds no certificate in PEM form"},
		{"half a pair", "tls_key: DIR/client.key", "read cql.tls_cert and cql.tls_key"},
		{"a pair that is none", "tls_cert: DIR/client.crt\n  tls_key: DIR/stranger.key", "read cql.tls_cert and cql.tls_key"},
	} {
		conf := writeFile(t, "nolad.yaml", "store: cql\ncql:\n  hosts: ["+db.Address()+"]\n  "+strings.ReplaceAll(tt.keys, "DIR", dir)+"\n")
		code, out, errOut := nolad(t, "schema", "setup", "--config", conf, "--replicas", "1", "--shards", "2")
		if good := tt.says == ""; (code == 0) != good || !strings.Contains(out+errOut, tt.says) {
			t.Errorf("%s: exit code %d, want %q\n%s%s", tt.name, code, tt.says, out, errOut)
		}
	}
}
