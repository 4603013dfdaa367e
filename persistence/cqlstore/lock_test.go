package cqlstore_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

// setups watch those who set a schema up, by what they ask of a server. While held is
// set, the rows of shards cannot be written: who has the lock stays at it.
type setups struct {
	mu       sync.Mutex // guards the fields below
	held     bool
	asked    map[string]bool // who has asked for the lock
	renewals map[string]int  // of the lock, by holder
	founded  int             // attempts to write the facts of a cluster
	rows     int             // attempts to write the row of a shard
}

// look is for [cqlfake.Server.Inject].
func (s *setups) look(q cqlfake.Request) cqlfake.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch text := q.Statements[0]; {
	case strings.HasPrefix(text, "INSERT INTO nola.schema_lock"):
		s.asked[string(q.Values[0][0])] = true
	case strings.HasPrefix(text, "UPDATE nola.schema_lock"):
		s.renewals[string(q.Values[0][1])]++
	case strings.HasPrefix(text, "INSERT INTO nola.cluster"):
		s.founded++
	case strings.HasPrefix(text, "INSERT INTO nola.shards"):
		s.rows++
		if s.held {
			return cqlfake.Unavailable
		}
	}
	return cqlfake.None
}

// sees makes a condition for until, which asks something of the server each time.
func (s *setups) sees(db *gocql.Session, holds func() bool) func() bool {
	return func() bool {
		var version string
		_ = db.Query("SELECT release_version FROM system.local").Scan(&version)
		s.mu.Lock()
		defer s.mu.Unlock()
		return holds()
	}
}

func (s *setups) hold(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
}

func watchSetups(server *cqlfake.Server) *setups {
	s := &setups{held: true, asked: map[string]bool{}, renewals: map[string]int{}}
	server.Inject(s.look)
	return s
}

// shardRows answers how many rows of shards there are.
func shardRows(t *testing.T, db *gocql.Session) int {
	t.Helper()
	iter := db.Query("SELECT shard FROM nola.shards").Iter()
	n := iter.NumRows()
	if err := iter.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSetupsAtOnce starts three setups where there is nothing, which want different
// numbers of shards: one makes the cluster, alone, and the others take what it made.
func TestSetupsAtOnce(t *testing.T) {
	server, c := emptyServer(t, cqlfake.Config{})
	db, seen := session(t, c), watchSetups(server)
	counts := []int{8, 9, 99}
	made := make([]cqlstore.SchemaStatus, len(counts))
	var wg sync.WaitGroup
	for i, shards := range counts {
		wg.Go(func() {
			var err error
			if made[i], err = cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, Shards: shards}); err != nil {
				t.Errorf("a setup of %d shards: %v", shards, err)
			}
		})
	}
	until(t, "one is at it, and the others have come", seen.sees(db, func() bool { return seen.rows > 0 && len(seen.asked) == len(counts) }))
	seen.hold(false)
	wg.Wait()
	winner := made[0]
	for i, shards := range counts {
		if made[i].Shards != winner.Shards || made[i].ClusterID != winner.ClusterID || made[i].Usable() != nil {
			t.Errorf("a setup of %d shards answers %+v, one of %d %+v", shards, made[i], counts[0], winner)
		}
	}
	if winner.Shards != 8 && winner.Shards != 9 && winner.Shards != 99 {
		t.Errorf("the cluster has %d shards, which nobody asked for", winner.Shards)
	}
	if n := shardRows(t, db); n != winner.Shards {
		t.Errorf("there are rows of %d shards, and the cluster says %d", n, winner.Shards)
	}
	if seen.founded != 1 {
		t.Errorf("%d have made the facts of the cluster", seen.founded)
	}
}

// TestSetupKeepsItsLock has a setup last longer than a lock does that is not renewed,
// while another one waits for it; and takes the lock away from one, which must stop.
func TestSetupKeepsItsLock(t *testing.T) {
	server, c := emptyServer(t, cqlfake.Config{})
	c.Timeout = 80 * time.Millisecond // the lock goes after 2 s
	db, seen := session(t, c), watchSetups(server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	setup := func(shards int) chan error {
		ended := make(chan error, 1)
		go func() {
			status, err := cqlstore.SetupSchema(ctx, c, cqlstore.Schema{Replicas: 1, Shards: shards})
			if err == nil && status.Shards != 9 {
				t.Errorf("the cluster has %d shards, want the 9 of who had the lock", status.Shards)
			}
			ended <- err
		}()
		return ended
	}
	locked := func() (holder string) {
		_ = db.Query("SELECT holder FROM nola.schema_lock WHERE k = 'ddl'").Scan(&holder)
		return holder
	}

	robbed := setup(8)
	until(t, "the first is at it", seen.sees(db, func() bool { return seen.rows > 0 }))
	executed(t, db, "DELETE FROM nola.schema_lock WHERE k = 'ddl' IF holder = ?", locked())
	if err := <-robbed; err == nil || !strings.Contains(err.Error(), "lock of the schema") || !strings.Contains(err.Error(), "again") {
		t.Errorf("a setup whose lock is gone ends with %v", err)
	}

	first := setup(9)
	until(t, "the second has the lock", func() bool { return locked() != "" })
	before := locked()
	second := setup(99)
	until(t, "the lock was renewed for longer than it lasts", seen.sees(db, func() bool { return len(seen.asked) == 3 && seen.renewals[before] > 12 }))
	if now := locked(); now != before {
		t.Errorf("%q has the lock while %q is at it", now, before)
	}
	seen.hold(false)
	for _, ended := range []chan error{first, second} {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if n := shardRows(t, db); n != 9 || seen.founded != 1 {
		t.Errorf("there are rows of %d shards, want 9; %d have made the facts of the cluster", n, seen.founded)
	}
}
