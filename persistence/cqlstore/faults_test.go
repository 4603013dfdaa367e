package cqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/storetest"
)

// fakeServer starts a server with the schema of 8 shards.
func fakeServer(t testing.TB, config cqlfake.Config) (*cqlfake.Server, cqlstore.Config) {
	t.Helper()
	return fakeCluster(t, config, storetest.Shards)
}

func fakeCluster(t testing.TB, config cqlfake.Config, shards int) (*cqlfake.Server, cqlstore.Config) {
	t.Helper()
	s, c := emptyServer(t, config)
	if _, err := cqlstore.SetupSchema(t.Context(), c, cqlstore.Schema{Replicas: 1, Shards: shards}); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// emptyServer starts a server without a schema.
func emptyServer(t testing.TB, config cqlfake.Config) (*cqlfake.Server, cqlstore.Config) {
	t.Helper()
	s, err := cqlfake.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, cqlstore.Config{
		Hosts: []string{s.Address()}, OnlyHosts: true, Name: "one", Username: config.Username, Password: config.Password,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

// TestStoreOnFake runs the suite of all stores where no Cassandra is, in both
// modes and with the answers of both servers.
func TestStoreOnFake(t *testing.T) {
	for name, tt := range map[string]struct {
		server cqlfake.Config
		mode   cqlstore.Mode
	}{
		"cassandra, quorum": {cqlfake.Config{}, cqlstore.ModeQuorum},
		"cassandra, lwt":    {cqlfake.Config{}, cqlstore.ModeLWT},
		"scylla, auto":      {cqlfake.Config{Flavour: cqlfake.Scylla, CommitlogSync: "periodic"}, cqlstore.ModeAuto},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (persistence.Store, func(*testing.T) persistence.Store) {
				_, c := fakeServer(t, tt.server)
				c.Mode = tt.mode
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

// faults are all that can become of a request.
var faults = []cqlfake.Fault{
	cqlfake.LostThenDropped, cqlfake.DoneThenDropped, cqlfake.LostThenTimeout, cqlfake.DoneThenTimeout,
	cqlfake.LateThenTimeout, cqlfake.LateThenSilence, cqlfake.DoneThenSilence, cqlfake.Unavailable,
	cqlfake.DoneThenUnavailable, cqlfake.Overloaded, cqlfake.DoneThenDenied, cqlfake.Forgotten,
}

// TestCrashFaults has faults happen to each request of a workload, a few to each,
// and looks whether every verdict was right: what was committed is there, what was fenced is
// not, and what was unknown is resolved as either. Entries that are sent again are the
// same, with the same timestamp.
func TestCrashFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		server cqlfake.Config
		mode   cqlstore.Mode
	}{
		"quorum":      {cqlfake.Config{}, cqlstore.ModeQuorum},
		"lwt":         {cqlfake.Config{}, cqlstore.ModeLWT},
		"lwt, scylla": {cqlfake.Config{Flavour: cqlfake.Scylla}, cqlstore.ModeLWT},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests, _ := workload(t, tt.server, tt.mode, 0, cqlfake.None)
			step, each := 19, 1 // of no common factor with the number of faults
			if os.Getenv("NOLA_SLOW") != "" {
				step, each = 1, 2
			}
			f, repeats := 0, 0
			for at := 1; at <= requests; at += step {
				for range each {
					_, again := workload(t, tt.server, tt.mode, at, faults[f%len(faults)])
					repeats += again
					if f++; t.Failed() {
						return
					}
				}
				if step == 1 {
					f++ // so that neighbours, which are much alike, meet others
				}
			}
			t.Logf("%d entries sent again", repeats)
		})
	}
}

// workload commits to three shards through a store, loses it without a close,
// takes the shards over with another one and reads. The request of the given
// number meets a fault. It answers how many requests there were, and how many entries
// were sent again.
func workload(t *testing.T, server cqlfake.Config, mode cqlstore.Mode, at int, fault cqlfake.Fault) (requests, repeats int) {
	s, c := fakeServer(t, server)
	c.Mode, c.Timeout, c.ApplyAge = mode, 400*time.Millisecond, 10*time.Millisecond
	before := len(s.Requests())
	var hit cqlfake.Request
	entries := newSentEntries(t)
	s.Inject(func(r cqlfake.Request) cqlfake.Fault {
		entries.look(r)
		if r.Number-before != at {
			return cqlfake.None
		}
		hit = r
		return fault
	})
	failed := func(format string, args ...any) {
		t.Helper()
		t.Errorf("mode %s, fault %d at request %d of the workload, %v: %s", mode, fault, at, hit.Statements, fmt.Sprintf(format, args...))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	shards := []nola.ShardID{1, 2, 5}
	want := map[nola.ShardID]map[string]bool{1: {}, 2: {}, 5: {}}
	heads := map[nola.ShardID]persistence.Head{}
	acquire := func(store *cqlstore.Store) bool {
		for range 5 {
			got, err := store.Acquire(ctx, shards)
			s.Release()
			if err == nil {
				for _, h := range got {
					heads[h.Shard] = h
				}
				return true
			}
		}
		failed("the shards cannot be acquired")
		return false
	}
	commit := func(store *cqlstore.Store, value string) {
		var batches []*persistence.Batch
		for _, shard := range shards {
			h := heads[shard]
			b := new(persistence.Batch)
			b.Reset(shard, h.Epoch, h.Seq+1)
			b.PutState(storetest.Actor, value, []byte(value))
			batches = append(batches, b)
		}
		verdicts := store.Commit(batches)
		s.Release()
		for i, v := range verdicts {
			if v != nil && !errors.Is(v, persistence.ErrFenced) {
				v = store.Resolve(ctx, batches[i:i+1])[0]
				s.Release()
			}
			switch shard := batches[i].Shard; {
			case v == nil:
				want[shard][value] = true
				heads[shard] = persistence.Head{Shard: shard, Epoch: batches[i].Epoch, Seq: batches[i].Seq}
			case errors.Is(v, persistence.ErrFenced):
				want[shard][value] = false
			default:
				failed("commit of %s to shard %d: no verdict but %v", value, shard, v)
			}
		}
	}
	read := func(store *cqlstore.Store) {
		for shard, values := range want {
			for value, committed := range values {
				if _, found, err := (persistence.Reader{Store: store}).State(shard, storetest.Actor, value); err != nil || found != committed {
					failed("%s in shard %d: found %v, error %v; want %v", value, shard, found, err, committed)
				}
			}
		}
	}

	opened := func() *cqlstore.Store {
		var err error
		for range 3 {
			var store *cqlstore.Store
			if store, err = cqlstore.Open(ctx, c); err == nil {
				t.Cleanup(func() { store.Close() })
				return store
			}
			s.Release()
		}
		failed("the store cannot be opened: %v", err)
		return nil
	}

	first := opened()
	if first == nil || !acquire(first) {
		return 0, 0
	}
	for n := range 4 {
		commit(first, fmt.Sprintf("first %d", n))
	}
	version, err := first.CatalogPut(ctx, persistence.SpaceNamespace, "name", 0, []byte("one"))
	s.Release()
	if value, now, again := first.CatalogGet(ctx, persistence.SpaceNamespace, "name"); err == nil && (again == nil && (now != version || string(value) != "one")) {
		failed("the catalogue answers %q in version %d, error %v; want one in version %d", value, now, again, version)
	}
	second := opened() // it takes over from who has the same name
	if second == nil || !acquire(second) {
		return 0, 0
	}
	for shard, h := range heads {
		committed := 0
		for _, is := range want[shard] {
			if is {
				committed++
			}
		}
		if int(h.Seq) != committed {
			failed("shard %d stands at %d, want %d", shard, h.Seq, committed)
		}
	}
	old := new(persistence.Batch)
	old.Reset(1, heads[1].Epoch-1, heads[1].Seq+1)
	old.PutState(storetest.Actor, "late", nil)
	want[1]["late"] = false
	if v := first.Commit([]*persistence.Batch{old})[0]; v == nil {
		failed("the store that was fenced commits")
	}
	commit(second, "second")
	read(second)
	if err := second.Close(); err != nil {
		failed("close: %v", err)
	}
	s.Release()
	third := opened()
	if third == nil || !acquire(third) {
		return 0, 0
	}
	read(third)
	third.Close()
	return len(s.Requests()) - before, entries.repeats()
}

// TestOutage takes the server away while a commit is under way, and wants it to be
// made once the server is back.
func TestOutage(t *testing.T) {
	s, c := fakeServer(t, cqlfake.Config{})
	c.Timeout = 200 * time.Millisecond
	store := open(t, c)
	heads, err := store.Acquire(t.Context(), []nola.ShardID{3})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	var once sync.Once
	s.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if strings.Contains(r.Statements[0], "lane_log") {
			once.Do(func() { close(asked) })
			return cqlfake.LostThenDropped
		}
		return cqlfake.None
	})
	b := new(persistence.Batch)
	b.Reset(3, heads[0].Epoch, heads[0].Seq+1)
	b.PutState(storetest.Actor, "k", []byte("v"))
	verdict := make(chan error, 1)
	go func() { verdict <- store.Commit([]*persistence.Batch{b})[0] }()
	<-asked
	s.Down(true)
	s.Inject(nil)
	select {
	case v := <-verdict:
		t.Fatalf("a verdict while the server is away: %v", v)
	default:
	}
	if _, _, err := store.Get(persistence.Row{Table: persistence.TableState, Shard: 3, Actor: storetest.Actor, Key: []byte("other")}); err == nil {
		t.Error("a row that is not in memory is read while the server is away")
	}
	s.Down(false)
	if v := <-verdict; v != nil {
		t.Errorf("the commit ended with %v once the server was back", v)
	}
	if _, found, err := (persistence.Reader{Store: store}).State(3, storetest.Actor, "k"); !found || err != nil {
		t.Errorf("found %v, error %v", found, err)
	}
}

// TestOpenRefuses wants an error that says what to do for each way in which a
// server can be wrong.
func TestOpenRefuses(t *testing.T) {
	s, c := fakeServer(t, cqlfake.Config{Username: "nola", Password: "right"})
	for name, tt := range map[string]struct {
		change func(*cqlstore.Config)
		err    error
		says   string
	}{
		"a wrong password":   {func(c *cqlstore.Config) { c.Password = "wrong" }, cqlstore.ErrCredentials, "password"},
		"no login":           {func(c *cqlstore.Config) { c.Username, c.Password = "", "" }, cqlstore.ErrCredentials, "password"},
		"a missing keyspace": {func(c *cqlstore.Config) { c.Keyspace = "other" }, cqlstore.ErrNoSchema, "nolad schema setup"},
		"nobody there":       {func(c *cqlstore.Config) { c.Hosts = []string{"127.0.0.1:1"} }, cqlstore.ErrAway, "127.0.0.1:1"},
		"other shards":       {func(c *cqlstore.Config) { c.Shards = 9 }, nil, "made with 8 shards"},
	} {
		wrong := c
		tt.change(&wrong)
		store, err := cqlstore.Open(t.Context(), wrong)
		if err == nil {
			store.Close()
		}
		if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v, want %v that says %q", name, err, tt.err, tt.says)
		}
	}
	newer := session(t, c)
	if err := newer.Query("INSERT INTO nola.schema_history (component, version, needs, applied_at) VALUES ('nola', 99, 99, 0)").Exec(); err != nil {
		t.Fatal(err)
	}
	if _, err := cqlstore.Open(t.Context(), c); !errors.Is(err, cqlstore.ErrSchema) || !strings.Contains(err.Error(), "newer nolad") {
		t.Errorf("a schema of a newer version: error %v", err)
	}
	s.Down(true)
	if _, err := cqlstore.Open(t.Context(), c); !errors.Is(err, cqlstore.ErrAway) {
		t.Errorf("a server that is away: error %v", err)
	}
	s.Down(false)
}

// session is one beside the store's.
func session(t *testing.T, c cqlstore.Config) *gocql.Session {
	t.Helper()
	host, port, _ := strings.Cut(c.Hosts[0], ":")
	cluster := gocql.NewCluster(host)
	if _, err := fmt.Sscan(port, &cluster.Port); err != nil {
		t.Fatal(err)
	}
	cluster.ProtoVersion, cluster.DisableInitialHostLookup = 4, true
	if c.Username != "" {
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: c.Username, Password: c.Password}
	}
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

// TestModes asks what auto makes of what servers say about themselves.
func TestModes(t *testing.T) {
	for _, tt := range []struct {
		flavour cqlfake.Flavour
		sync    string
		lwt     bool
		warns   bool
	}{
		{cqlfake.Cassandra, "batch", false, false},
		{cqlfake.Cassandra, "group", false, false},
		{cqlfake.Cassandra, "periodic", false, true},
		{cqlfake.Scylla, "batch", false, false},
		{cqlfake.Scylla, "periodic", true, false},
	} {
		s, c := fakeServer(t, cqlfake.Config{Flavour: tt.flavour, CommitlogSync: tt.sync})
		store := open(t, c)
		if warns := store.Server().Warning != ""; warns != tt.warns {
			t.Errorf("flavour %d, sync %s: warning %q", tt.flavour, tt.sync, store.Server().Warning)
		}
		heads, err := store.Acquire(t.Context(), []nola.ShardID{0})
		if err != nil {
			t.Fatal(err)
		}
		before := len(s.Requests())
		b := new(persistence.Batch)
		b.Reset(0, heads[0].Epoch, heads[0].Seq+1)
		b.PutState(storetest.Actor, "k", nil)
		if v := store.Commit([]*persistence.Batch{b})[0]; v != nil {
			t.Fatal(v)
		}
		if lwt := slices.ContainsFunc(s.Requests()[before:], func(r cqlfake.Request) bool { return r.Conditional }); lwt != tt.lwt {
			t.Errorf("flavour %d, sync %s: a conditional commit %v, want %v", tt.flavour, tt.sync, lwt, tt.lwt)
		}
	}
}

// TestClockWarning opens stores with right and wrong clocks: of a wrong one the log says
// by how much it is off, and in which direction.
func TestClockWarning(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
	for off, warns := range map[time.Duration]bool{0: false, 30 * time.Second: false, -30 * time.Second: false, time.Hour: true, -time.Hour: true} {
		var log saying
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Now = func() time.Time { return time.Now().Add(off) }
		store := open(t, c)
		ahead := store.Server().ClockAhead
		if (ahead - off).Abs() > 15*time.Second {
			t.Errorf("a clock off by %s is found %s ahead", off, ahead)
		}
		warned := log.has("level=WARN") && log.has("clock")
		if warned != warns || warned && !log.has("ahead="+ahead.Round(time.Second).String()) {
			t.Errorf("a clock off by %s: a warning %v, want %v, and one that says how far: %s", off, warned, warns, log.text.String())
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestClocksOff has nodes with clocks hours apart write one row after the other:
// the last one stands, whatever its clock says.
func TestClocksOff(t *testing.T) {
	_, c := fakeServer(t, cqlfake.Config{})
	for n, off := range []time.Duration{0, time.Hour, -time.Hour, 0, -24 * time.Hour} {
		c.Now = func() time.Time { return time.Now().Add(off) }
		c.Name = fmt.Sprint("node ", n)
		value := fmt.Sprint("of ", n)
		store := open(t, c)
		heads, err := store.Acquire(t.Context(), []nola.ShardID{7})
		if err != nil {
			t.Fatal(err)
		}
		b := new(persistence.Batch)
		b.Reset(7, heads[0].Epoch, heads[0].Seq+1)
		b.PutState(storetest.Actor, "k", []byte(value))
		if v := store.Commit([]*persistence.Batch{b})[0]; v != nil {
			t.Fatal(v)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		reader := open(t, c)
		if _, err := reader.Acquire(t.Context(), []nola.ShardID{7}); err != nil {
			t.Fatal(err)
		}
		if got, _, err := (persistence.Reader{Store: reader}).State(7, storetest.Actor, "k"); err != nil || string(got) != value {
			t.Errorf("a clock off by %s: read %q, error %v; want %q", off, got, err, value)
		}
		reader.Close()
	}
}
