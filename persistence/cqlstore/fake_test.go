package cqlstore_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/storetest"
)

// TestStoreOnFake runs the suite on a server in this process.
func TestStoreOnFake(t *testing.T) {
	for name, config := range map[string]cqlfake.Config{
		"Cassandra": {},
		"Scylla":    {Flavour: cqlfake.Scylla, CommitlogSync: "periodic"},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
				c := onFake(t, config)
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

func onFake(t *testing.T, config cqlfake.Config) cqlstore.Config {
	t.Helper()
	server, err := cqlfake.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	c := cqlstore.Config{
		Hosts: []string{server.Address()}, Name: "one", Username: config.Username, Password: config.Password,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	if _, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, Shards: storetest.Shards}); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOpenSays looks what is said of the usual mistakes.
func TestOpenSays(t *testing.T) {
	c := onFake(t, cqlfake.Config{Username: "nola", Password: "secret"})
	open(t, c)
	session := raw(t, c)
	defer session.Close()
	for name, tt := range map[string]struct {
		change func(*cqlstore.Config)
		want   error
		says   string
	}{
		"wrong password":   {func(c *cqlstore.Config) { c.Password = "wrong" }, cqlstore.ErrCredentials, "give the name and the password"},
		"no login":         {func(c *cqlstore.Config) { c.Username, c.Password = "", "" }, cqlstore.ErrCredentials, "give the name and the password"},
		"nobody there":     {func(c *cqlstore.Config) { c.Hosts = []string{"127.0.0.1:1"} }, cqlstore.ErrAway, "127.0.0.1:1"},
		"no keyspace":      {func(c *cqlstore.Config) { c.Keyspace = "other" }, cqlstore.ErrNoSchema, "nolad schema setup"},
		"another number":   {func(c *cqlstore.Config) { c.Shards = 7 }, nil, "ask for 8 or for none"},
		"not a cluster's":  {func(c *cqlstore.Config) { c.Datacenter = "mars" }, cqlstore.ErrAway, "mars"},
		"a newer schema":   {func(c *cqlstore.Config) { history(t, session, "nola", 9, 9) }, cqlstore.ErrSchema, "run a newer nolad"},
		"half of a schema": {func(c *cqlstore.Config) { c.Keyspace = half(t, session) }, cqlstore.ErrNoSchema, "nolad schema setup"},
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			c.ConnectTimeout = time.Second
			if name == "a newer schema" {
				t.Cleanup(func() { executed(t, session, "DELETE FROM nola.schema_history WHERE component = 'nola' AND version = 9") })
			}
			tt.change(&c)
			store, err := cqlstore.Open(t.Context(), c)
			if err == nil {
				store.Close()
				t.Fatal("it was opened")
			}
			if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("it says %v, want %q", err, tt.says)
			}
		})
	}
	if _, err := cqlstore.Open(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func executed(t *testing.T, session *gocql.Session, text string, args ...any) {
	t.Helper()
	if err := session.Query(text, args...).Exec(); err != nil {
		t.Fatal(err)
	}
}

func history(t *testing.T, session *gocql.Session, keyspace string, version, needs int) {
	t.Helper()
	executed(t, session, "INSERT INTO "+keyspace+".schema_history (component, version, needs, applied_at) VALUES ('nola', ?, ?, 1)", version, needs)
}

func half(t *testing.T, session *gocql.Session) string {
	t.Helper()
	executed(t, session, "CREATE KEYSPACE half WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
	return "half"
}

// TestSchemaTool sets up, sets up again, refuses what it does not know, and works
// with a newer schema that lets it.
func TestSchemaTool(t *testing.T) {
	c := onFake(t, cqlfake.Config{})
	before, err := cqlstore.ReadSchema(t.Context(), c)
	if err != nil || before.Usable() != nil || before.Version != cqlstore.SchemaVersion || before.Shards != storetest.Shards {
		t.Fatalf("after setup: %+v, %v, %v", before, err, before.Usable())
	}
	var wg sync.WaitGroup
	for range 3 { // at once
		wg.Go(func() {
			again, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, Shards: 99})
			if err != nil || again.ClusterID != before.ClusterID || again.Shards != before.Shards {
				t.Errorf("set up again: %+v, %v; want the cluster of before", again, err)
			}
		})
	}
	wg.Wait()
	if _, err := cqlstore.UpdateSchema(t.Context(), c); err != nil {
		t.Error(err)
	}
	session := raw(t, c)
	defer session.Close()
	history(t, session, "nola", 2, 1)
	if s, err := cqlstore.ReadSchema(t.Context(), c); err != nil || s.Version != 2 || s.Usable() != nil {
		t.Errorf("a newer schema that older programs can work with: %+v, %v, %v", s, err, s.Usable())
	}
	for name, change := range map[string]func() error{
		"setup":  func() error { _, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1}); return err },
		"update": func() error { _, err := cqlstore.UpdateSchema(t.Context(), c); return err },
	} {
		if err := change(); !errors.Is(err, cqlstore.ErrSchema) {
			t.Errorf("%s of a schema that it does not know: %v", name, err)
		}
	}
	c.Keyspace = "other"
	if _, err := cqlstore.UpdateSchema(t.Context(), c); !errors.Is(err, cqlstore.ErrNoSchema) {
		t.Errorf("update of nothing: %v", err)
	}
	if _, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 99}); err == nil {
		t.Error("99 replicas were set up")
	}
}
