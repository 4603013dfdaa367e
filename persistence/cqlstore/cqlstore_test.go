package cqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/storetest"
	"github.com/nolaproject/nola/tools/cassandra"
)

var _ persistence.Store = (*cqlstore.Store)(nil)

// TestMain stops the Cassandra that the tests have started, if any.
func TestMain(m *testing.M) {
	code := m.Run()
	if server.cluster != nil {
		for _, n := range server.cluster.Nodes() {
			n.Kill()
		}
		os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

// server is the cluster that all tests of this package share.
var server struct {
	sync.Mutex
	hosts   []string
	cluster *cassandra.Cluster
	dir     string
	err     error
}

// hosts answers where a cluster is: the one of NOLA_TEST_CQL, or a real Cassandra
// that is started for these tests. Where there is none the test is skipped.
func hosts(t testing.TB) []string {
	t.Helper()
	if given := os.Getenv("NOLA_TEST_CQL"); given != "" {
		return strings.Split(given, ",")
	}
	if os.Getenv("NOLA_SLOW") == "" {
		t.Skip("needs a Cassandra: make test-cassandra starts one, NOLA_TEST_CQL=host:port names one")
	}
	server.Lock()
	defer server.Unlock()
	if server.hosts == nil && server.err == nil {
		var err error
		if server.dir, err = os.MkdirTemp("", "cqlstore"); err != nil { //nolint:usetesting // it outlives the test
			t.Fatal(err)
		}
		server.cluster, server.err = cassandra.Start(context.Background(), cassandra.Config{Dir: server.dir})
		if server.err == nil {
			server.hosts = server.cluster.Addresses()
		}
	}
	if errors.Is(server.err, cassandra.ErrMissing) {
		t.Skip(server.err)
	}
	if server.err != nil {
		t.Fatal(server.err)
	}
	return server.hosts
}

var keyspaces atomic.Int64

// fresh makes a keyspace of its own for a test, with one replica.
func fresh(t testing.TB, shards int) cqlstore.Config {
	t.Helper()
	c := cqlstore.Config{
		Hosts: hosts(t), Keyspace: fmt.Sprintf("nola_test_%d_%d", os.Getpid(), keyspaces.Add(1)),
		Name: "one", Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if _, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, Shards: shards}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		session := raw(t, c)
		defer session.Close()
		if err := session.Query("DROP KEYSPACE " + c.Keyspace).Exec(); err != nil {
			t.Log(err)
		}
	})
	return c
}

// raw is a session beside the store's.
func raw(t testing.TB, c cqlstore.Config) *gocql.Session {
	t.Helper()
	cluster := gocql.NewCluster(c.Hosts...)
	cluster.ProtoVersion, cluster.Timeout, cluster.ConnectTimeout = 4, 20*time.Second, 20*time.Second
	if c.Username != "" {
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: c.Username, Password: c.Password}
	}
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	return session
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if testing.Verbose() {
		os.Stderr.Write(b)
	}
	return len(b), nil
}

func open(t testing.TB, c cqlstore.Config) *cqlstore.Store {
	t.Helper()
	store, err := cqlstore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func TestStore(t *testing.T) {
	hosts(t)
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run(string(mode), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
				c := fresh(t, storetest.Shards)
				c.Mode = mode
				store := open(t, c)
				return store, func(t *testing.T) persistence.Store {
					if err := store.Close(); err != nil {
						t.Fatal(err)
					}
					store = open(t, c)
					return store
				}
			})
		})
	}
}
