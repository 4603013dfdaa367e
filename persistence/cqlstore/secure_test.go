package cqlstore_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/storetest"
	"github.com/nolaproject/nola/tools/cassandra"
)

// TestSecureCluster works on a real Cassandra that asks for TLS and a login and
// checks rights, with the roles that operators are told to make, and wants an
// error that says what to do for each way in which that goes wrong.
func TestSecureCluster(t *testing.T) {
	if os.Getenv("NOLA_SLOW") == "" {
		t.Skip("starts a Cassandra of its own: make test-cassandra does")
	}
	cluster, err := cassandra.Start(t.Context(), cassandra.Config{Dir: t.TempDir(), Secure: true})
	if errors.Is(err, cassandra.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range cluster.Nodes() {
			n.Kill()
		}
	})
	pem, err := os.ReadFile(cluster.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	c := cqlstore.Config{
		Hosts: cluster.Addresses(), TLS: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}, Name: "one",
		ConnectTimeout: 5 * time.Second, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	as := func(role, password string) cqlstore.Config {
		with := c
		with.Username, with.Password = role, password
		return with
	}
	script, err := os.ReadFile("../../deploy/cassandra/roles.cql")
	if err != nil {
		t.Fatal(err)
	}
	super := secureSession(t, as(cassandra.Superuser, cassandra.Superuser))
	// The first time the keyspace is not there yet.
	run := func(may bool) {
		t.Helper()
		var plain strings.Builder
		for line := range strings.Lines(string(script)) {
			line, _, _ = strings.Cut(line, "--")
			plain.WriteString(line + " ")
		}
		for text := range strings.SplitSeq(plain.String(), ";") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			if err := super.Query(text).Exec(); err != nil && (!may || !strings.Contains(text, "KEYSPACE nola ")) {
				t.Fatalf("%s: %v", text, err)
			}
		}
	}
	run(true)
	if _, err := cqlstore.SetupSchema(t.Context(), as("nola_admin", "choose one"), cqlstore.Schema{Replicas: 1, Shards: storetest.Shards}); err != nil {
		t.Fatal("set up by the role for it: ", err)
	}
	if _, err := cqlstore.Open(t.Context(), as("nola", "choose another")); !errors.Is(err, cqlstore.ErrCredentials) || !strings.Contains(err.Error(), "docs/operations.md") {
		t.Errorf("a role without rights: %v", err)
	}
	run(false)
	until(t, "what was granted is in force", func() bool { // servers remember rights for 2 s
		store, err := cqlstore.Open(t.Context(), as("nola", "choose another"))
		if err == nil {
			store.Close()
		}
		return err == nil
	})

	storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
		for _, table := range []string{"lane_log", "lane_chunks", "lanes", "actor_rows", "shard_rows", "buckets", "shard_numbers", "listing", "objects", "object_parts", "catalogue"} {
			if err := super.Query("TRUNCATE nola." + table).Exec(); err != nil {
				t.Fatal(err)
			}
		}
		for shard := range storetest.Shards {
			if err := super.Query("UPDATE nola.shards SET epoch = 0, lane = ?, node = '', addr = '', handoff_to = '', ts_floor = 0 WHERE shard = ? IF EXISTS", gocql.UUID{}, shard).Exec(); err != nil {
				t.Fatal(err)
			}
		}
		store := open(t, as("nola", "choose another"))
		return store, func(t *testing.T) persistence.Store {
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			store = open(t, as("nola", "choose another"))
			return store
		}
	})
	store := open(t, as("nola", "choose another"))
	if server := store.Server(); server.Sync != "batch" || server.Warning != "" {
		t.Errorf("the role may not see how commits are synced: %+v", server)
	}
	if _, err := store.Acquire(t.Context(), []nola.ShardID{0}); err != nil {
		t.Fatal(err)
	}
	if err := store.Tidy(t.Context()); err != nil {
		t.Error(err)
	}

	served := secureSession(t, as("nola", "choose another"))
	for _, text := range []string{
		"CREATE TABLE nola.other (k int PRIMARY KEY)", "DROP TABLE nola.nodes", "ALTER TABLE nola.nodes ADD more int", "DROP KEYSPACE nola",
		"CREATE KEYSPACE other WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}", "SELECT * FROM system_auth.roles",
		"CREATE ROLE mallory", "GRANT SELECT ON ALL KEYSPACES TO nola",
	} {
		var e gocql.RequestError
		if err := served.Query(text).Exec(); !errors.As(err, &e) || e.Code() != gocql.ErrCodeUnauthorized {
			t.Errorf("the role that serves may %s: %v", text, err)
		}
	}
	if err := secureSession(t, as("nola_admin", "choose one")).Query("SELECT * FROM system_auth.roles").Exec(); err == nil {
		t.Error("the role for the schema reads other keyspaces")
	}

	for name, tt := range map[string]struct {
		change func(*cqlstore.Config)
		err    error
		says   string
	}{
		"a wrong password":         {func(c *cqlstore.Config) { c.Password = "wrong" }, cqlstore.ErrCredentials, "password"},
		"an unknown role":          {func(c *cqlstore.Config) { c.Username = "nobody" }, cqlstore.ErrCredentials, "password"},
		"no login":                 {func(c *cqlstore.Config) { c.Username, c.Password = "", "" }, cqlstore.ErrCredentials, "password"},
		"no encryption":            {func(c *cqlstore.Config) { c.TLS = nil }, cqlstore.ErrAway, "TLS"},
		"a certificate of others":  {func(c *cqlstore.Config) { c.TLS = &tls.Config{RootCAs: x509.NewCertPool()} }, cqlstore.ErrAway, "certificate"}, //nolint:gosec // not spoken
		"a host that is not in it": {func(c *cqlstore.Config) { c.TLS = c.TLS.Clone(); c.TLS.ServerName = "db.example" }, cqlstore.ErrAway, "certificate"},
	} {
		wrong := as("nola", "choose another")
		tt.change(&wrong)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		store, err := cqlstore.Open(ctx, wrong)
		cancel()
		if err == nil {
			store.Close()
		}
		if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v, want %v that says %q", name, err, tt.err, tt.says)
		}
	}
}

// secureSession is one beside the store's, on its cluster.
func secureSession(t *testing.T, c cqlstore.Config) *gocql.Session {
	t.Helper()
	cluster := gocql.NewCluster(c.Hosts...)
	cluster.ProtoVersion, cluster.Timeout, cluster.ConnectTimeout = 4, 20*time.Second, 20*time.Second
	cluster.Authenticator = gocql.PasswordAuthenticator{Username: c.Username, Password: c.Password}
	cluster.SslOpts = &gocql.SslOptions{Config: c.TLS.Clone(), EnableHostVerification: true}
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}
