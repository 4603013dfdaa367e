package cqlstore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/storetest"
)

// TestOpenSays looks what is said of a data centre that is not there, and of a
// schema that was begun.
func TestOpenSays(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
	away := c
	away.Datacenter, away.ConnectTimeout = "mars", time.Second
	if _, err := cqlstore.Open(t.Context(), away); !errors.Is(err, cqlstore.ErrAway) || !strings.Contains(err.Error(), "mars") {
		t.Errorf("a data centre that is not there: %v", err)
	}
	executed(t, session(t, c), "CREATE KEYSPACE half WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
	c.Keyspace = "half"
	if _, err := cqlstore.Open(t.Context(), c); !errors.Is(err, cqlstore.ErrNoSchema) || !strings.Contains(err.Error(), "nolad schema setup") {
		t.Errorf("a keyspace without tables: %v", err)
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

// TestSchemaTool sets up, sets up again, refuses what it does not know, and works
// with a newer schema that lets it.
func TestSchemaTool(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
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
	db := session(t, c)
	executed(t, db, "DELETE FROM nola.schema_history WHERE component = 'nola' AND version = 2") // as a setup of version 1 has left it
	if _, err := cqlstore.Open(t.Context(), c); !errors.Is(err, cqlstore.ErrSchema) || !strings.Contains(err.Error(), "nolad schema update") {
		t.Errorf("a schema of an older version: %v", err)
	}
	if s, err := cqlstore.UpdateSchema(t.Context(), c); err != nil || s.Version != cqlstore.SchemaVersion || s.ClusterID != before.ClusterID {
		t.Errorf("updated: %+v, %v", s, err)
	}
	if err := open(t, c).Tidy(t.Context()); err != nil {
		t.Errorf("after the update: %v", err)
	}
	const newer = cqlstore.SchemaVersion + 1
	history(t, db, "nola", newer, 1)
	if s, err := cqlstore.ReadSchema(t.Context(), c); err != nil || s.Version != newer || s.Usable() != nil {
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

// TestTablets sets up on each kind of Scylla: where tablets take no conditional writes,
// nothing is made in them, and a keyspace that has them is refused; elsewhere they serve.
func TestTablets(t *testing.T) {
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, cqlstore.ErrTablets) || !strings.Contains(err.Error(), "--no-tablets") || !strings.Contains(err.Error(), "2025.4") {
			t.Errorf("%s: %v; want an error that says what to do", what, err)
		}
	}
	for _, tt := range []struct {
		tablets cqlfake.Tablets
		without bool
		good    bool
	}{
		{cqlfake.NoTablets, false, true},
		{cqlfake.NoTablets, true, true},
		{cqlfake.BareTablets, false, false},
		{cqlfake.BareTablets, true, true},
		{cqlfake.FullTablets, false, true},
		{cqlfake.FullTablets, true, true},
	} {
		_, c := emptyServer(t, cqlfake.Config{Flavour: cqlfake.Scylla, Tablets: tt.tablets})
		status, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, Shards: storetest.Shards, NoTablets: tt.without})
		if !tt.good {
			refused("a setup with tablets", err)
			if status, err = cqlstore.ReadSchema(t.Context(), c); err != nil || status.Exists {
				t.Errorf("a setup that was refused has left %+v, %v", status, err)
			}
			continue
		}
		if want := tt.tablets == cqlfake.FullTablets && !tt.without; err != nil || status.Server.Tablets != want {
			t.Errorf("tablets %d, without them %v: %+v, %v; want tablets %v", tt.tablets, tt.without, status.Server, err, want)
			continue
		}
		acquireAll(t, open(t, c), nil)
	}

	_, c := emptyServer(t, cqlfake.Config{Flavour: cqlfake.Scylla, Tablets: cqlfake.BareTablets})
	executed(t, session(t, c), "CREATE KEYSPACE nola WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}")
	_, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, NoTablets: true})
	refused("a setup in a keyspace that has tablets", err)
	_, err = cqlstore.UpdateSchema(t.Context(), c)
	refused("an update", err)
	_, err = cqlstore.Open(t.Context(), c)
	refused("a server", err)
	status, err := cqlstore.ReadSchema(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	refused("the status", status.Usable())
}
