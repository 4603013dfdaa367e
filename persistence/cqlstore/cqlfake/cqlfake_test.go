package cqlfake

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"

	"github.com/nolaproject/nola/tools/cassandra"
)

var seed = flag.Uint64("seed", 1, "first seed of the random conversations")

// connect opens a session as stores do.
func connect(t *testing.T, address string, adjust ...func(*gocql.ClusterConfig)) (*gocql.Session, error) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	config := gocql.NewCluster(host)
	config.Port, err = strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	config.Timeout, config.ConnectTimeout = 10*time.Second, 10*time.Second
	config.WriteCoalesceWaitTime = 0
	config.DisableSkipMetadata = true
	config.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	config.Logger = quiet{}
	for _, f := range adjust {
		f(config)
	}
	session, err := config.CreateSession()
	if err == nil {
		t.Cleanup(session.Close)
	}
	return session, err
}

type quiet struct{}

func (quiet) Print(...any)          {}
func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func start(t *testing.T, config Config) (*Server, *gocql.Session) {
	t.Helper()
	s, err := Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	session, err := connect(t, s.Address(), func(c *gocql.ClusterConfig) {
		if config.Username != "" {
			c.Authenticator = gocql.PasswordAuthenticator{Username: config.Username, Password: config.Password}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, session
}

var tables = []string{
	"CREATE KEYSPACE IF NOT EXISTS fake WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND durable_writes = true",
	"CREATE TABLE IF NOT EXISTS fake.r (p int, q text, a tinyint, k blob, v blob, w bigint, PRIMARY KEY ((p, q), a, k)) WITH CLUSTERING ORDER BY (a DESC, k ASC) AND compaction = {'class': 'LeveledCompactionStrategy'}",
	"CREATE TABLE IF NOT EXISTS fake.l (id uuid, n int, sealed int, last bigint, name text, PRIMARY KEY ((id), n))",
	"CREATE TABLE IF NOT EXISTS fake.s (id int PRIMARY KEY, labels map<text, text>)",
}

func create(t *testing.T, session *gocql.Session) {
	t.Helper()
	for _, statement := range tables {
		if err := session.Query(statement).Exec(); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// tell runs a statement and answers what it says, in one line.
func tell(session *gocql.Session, statement string, values ...any) string {
	rows, err := session.Query(statement, values...).Consistency(gocql.Quorum).SerialConsistency(gocql.Serial).Iter().SliceMap()
	if err != nil {
		var r gocql.RequestError
		if errors.As(err, &r) {
			return fmt.Sprintf("error %#x", r.Code())
		}
		return err.Error()
	}
	return fmt.Sprint(rows)
}

// conversation has a session do what a seed says, on rows of a partition of its
// own, and answers all that was said.
func conversation(session *gocql.Session, seed uint64) (said []string) {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // replayed by its seed
	say := func(statement string, values ...any) {
		said = append(said, fmt.Sprintf("%s %v\n\t%s", statement, values, tell(session, statement, values...)))
	}
	p, q := int(seed), "q" //nolint:gosec // small
	key := func() []byte { return []byte{0, 1, 0, 0xff}[:random.IntN(5)] }
	order := func() int { return random.IntN(3) - 1 }
	stamp := func() int64 { return 1 + random.Int64N(30) }
	id := gocql.UUID{15: byte(seed), 14: byte(seed >> 8)}
	for range 60 {
		switch random.IntN(16) {
		case 0, 1, 2:
			say("INSERT INTO fake.r (p, q, a, k, v) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?", p, q, order(), key(), key(), stamp())
		case 3:
			say("UPDATE fake.r USING TIMESTAMP ? SET w = ?, v = ? WHERE p = ? AND q = ? AND a = ? AND k = ?", stamp(), random.Int64N(5), key(), p, q, order(), key())
		case 4:
			say("DELETE FROM fake.r USING TIMESTAMP ? WHERE p = ? AND q = ? AND a = ? AND k = ?", stamp(), p, q, order(), key())
		case 5:
			say("DELETE FROM fake.r USING TIMESTAMP ? WHERE p = ? AND q = ? AND a = ? AND k >= ? AND k < ?", stamp(), p, q, order(), key(), []byte{0, 1})
		case 6:
			say("DELETE FROM fake.r USING TIMESTAMP ? WHERE p = ? AND q = ? AND a < ?", stamp(), p, q, order())
		case 7:
			say("DELETE w FROM fake.r USING TIMESTAMP ? WHERE p = ? AND q = ? AND a = ? AND k = ?", stamp(), p, q, order(), key())
		case 8:
			say("SELECT a, k, v, w FROM fake.r WHERE p = ? AND q = ?", p, q)
		case 9:
			say("SELECT k FROM fake.r WHERE p = ? AND q = ? AND a = ? AND k >= ? LIMIT ?", p, q, order(), key(), 1+random.IntN(3))
		case 10:
			say("SELECT a, k FROM fake.r WHERE p = ? AND q = ? ORDER BY a ASC, k DESC", p, q)
		case 11:
			say("SELECT * FROM fake.r WHERE p = ? AND q = ? AND a = ? AND k < ? ORDER BY a ASC, k DESC LIMIT 2", p, q, order(), key())
		case 12:
			say("INSERT INTO fake.l (id, n, sealed, last, name) VALUES (?, ?, 0, 0, 'x') IF NOT EXISTS", id, random.IntN(2))
		case 13:
			say("UPDATE fake.l SET last = ? WHERE id = ? AND n = ? IF sealed = 0 AND last = ?", random.Int64N(3), id, random.IntN(2), random.Int64N(3))
		case 14:
			say("DELETE FROM fake.l WHERE id = ? AND n = ? IF last = ?", id, random.IntN(2), random.Int64N(3))
		case 15:
			b := session.NewBatch(gocql.UnloggedBatch)
			b.SetConsistency(gocql.Quorum)
			b.Query("UPDATE fake.l SET last = ? WHERE id = ? AND n = 0 IF sealed = 0 AND last = ?", random.Int64N(3), id, random.Int64N(3))
			b.Query("INSERT INTO fake.l (id, n, name) VALUES (?, 1, ?)", id, strconv.Itoa(random.IntN(9)))
			columns := map[string]any{}
			applied, iter, err := session.MapExecuteBatchCAS(b, columns)
			said = append(said, fmt.Sprintf("batch: %v %v %v %v", applied, columns, err, iter.Close()))
		}
	}
	say("SELECT * FROM fake.r WHERE p = ? AND q = ?", p, q)
	say("SELECT * FROM fake.l WHERE id = ?", id)
	return said
}

// TestSpeaksAsCassandra has the same conversations with this server and with a
// real one and demands the same answers.
func TestSpeaksAsCassandra(t *testing.T) {
	if os.Getenv("NOLA_SLOW") == "" {
		t.Skip("a real Cassandra is started by make test-cassandra alone, which sets NOLA_SLOW=1")
	}
	c, err := cassandra.Start(t.Context(), cassandra.Config{Dir: t.TempDir()})
	if errors.Is(err, cassandra.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Nodes()[0].Kill() })
	real, err := connect(t, c.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	_, fake := start(t, Config{})
	create(t, real)
	create(t, fake)
	for n := *seed; n < *seed+60; n++ {
		if diff := cmp.Diff(conversation(real, n), conversation(fake, n)); diff != "" {
			t.Fatalf("-seed %d: Cassandra says -, the fake says +:\n%s", n, diff)
		}
	}
	for _, statement := range refusedStatements {
		if a, b := tell(real, statement), tell(fake, statement); a != b {
			t.Errorf("%s: Cassandra says %s, the fake says %s", statement, a, b)
		}
	}
}

// refusedStatements are refused by Cassandra, and so by its double.
var refusedStatements = []string{
	"SELECT v FROM fake.r WHERE p = 1",
	"SELECT v FROM fake.r WHERE p = 1 AND q = 'q' AND k = 0x00",
	"SELECT v FROM fake.r WHERE p = 1 AND q = 'q' AND v = 0x00",
	"SELECT nothing FROM fake.r",
	"SELECT v FROM fake.nothing",
	"SELECT v FROM nothing.r",
	"SELECT v FROM fake.r WHERE p = 1 AND q = 'q' LIMIT 0",
	"INSERT INTO fake.r (p, q, a) VALUES (1, 'q', 1)",
	"UPDATE fake.r SET a = 2 WHERE p = 1 AND q = 'q' AND a = 1 AND k = 0x00",
	"INSERT INTO fake.s (id) VALUES (1) IF NOT EXISTS USING TIMESTAMP 1",
	"CREATE TABLE fake.r (p int PRIMARY KEY)",
	"CREATE TABLE fake.none (p int)",
	"SELEC v FROM fake.r",
}

func TestRefuses(t *testing.T) {
	_, session := start(t, Config{})
	create(t, session)
	for _, statement := range refusedStatements {
		if got := tell(session, statement); !strings.HasPrefix(got, "error ") {
			t.Errorf("%s: %s", statement, got)
		}
	}
}

func TestMergesByTimestamp(t *testing.T) {
	_, session := start(t, Config{})
	create(t, session)
	for _, c := range []struct{ statement, want string }{
		{"INSERT INTO fake.r (p, q, a, k, v) VALUES (1, 'q', 0, 0x00, 0x01) USING TIMESTAMP 5", "[map[v:[1]]]"},
		{"INSERT INTO fake.r (p, q, a, k, v) VALUES (1, 'q', 0, 0x00, 0x02) USING TIMESTAMP 4", "[map[v:[1]]]"},
		{"INSERT INTO fake.r (p, q, a, k, v) VALUES (1, 'q', 0, 0x00, 0x02) USING TIMESTAMP 5", "[map[v:[2]]]"},
		{"DELETE FROM fake.r USING TIMESTAMP 5 WHERE p = 1 AND q = 'q' AND a = 0 AND k = 0x00", "[]"},
		{"INSERT INTO fake.r (p, q, a, k, v) VALUES (1, 'q', 0, 0x00, 0x03) USING TIMESTAMP 5", "[]"},
		{"INSERT INTO fake.r (p, q, a, k, v) VALUES (1, 'q', 0, 0x00, 0x04) USING TIMESTAMP 7", "[map[v:[4]]]"},
		{"DELETE FROM fake.r USING TIMESTAMP 6 WHERE p = 1 AND q = 'q' AND a = 0 AND k >= 0x AND k < 0x01", "[map[v:[4]]]"},
		{"DELETE FROM fake.r USING TIMESTAMP 9 WHERE p = 1 AND q = 'q' AND a = 0 AND k >= 0x00", "[]"},
		{"INSERT INTO fake.r (p, q, a, k, v) VALUES (1, 'q', 0, 0x00, 0x05) USING TIMESTAMP 8", "[]"},
	} {
		if got := tell(session, c.statement); got != "[]" {
			t.Fatalf("%s: %s", c.statement, got)
		}
		if got := tell(session, "SELECT v FROM fake.r WHERE p = 1 AND q = 'q' AND a = 0 AND k = 0x00"); got != c.want {
			t.Errorf("%s: then read %s, want %s", c.statement, got, c.want)
		}
	}
}

func TestPages(t *testing.T) {
	_, session := start(t, Config{})
	create(t, session)
	const rows = 25
	for i := range rows {
		if got := tell(session, "INSERT INTO fake.s (id, labels) VALUES (?, ?)", i, map[string]string{"n": strconv.Itoa(i)}); got != "[]" {
			t.Fatal(got)
		}
		tell(session, "INSERT INTO fake.r (p, q, a, k) VALUES (1, 'q', 0, ?)", []byte{byte(i)})
	}
	seen := map[int]bool{}
	iter := session.Query("SELECT id, labels FROM fake.s").PageSize(7).Iter()
	var id int
	var labels map[string]string
	for iter.Scan(&id, &labels) {
		if seen[id] || labels["n"] != strconv.Itoa(id) {
			t.Errorf("row %d twice or with labels %v", id, labels)
		}
		seen[id] = true
	}
	if err := iter.Close(); err != nil || len(seen) != rows {
		t.Errorf("%d rows, error %v; want %d", len(seen), err, rows)
	}
	iter = session.Query("SELECT k FROM fake.r WHERE p = 1 AND q = 'q' AND a = 0 ORDER BY a ASC, k DESC LIMIT 20").PageSize(6).Iter()
	var k []byte
	next := rows - 1
	for iter.Scan(&k) {
		if k[0] != byte(next) {
			t.Errorf("key %d where %d is due", k[0], next)
		}
		next--
	}
	if err := iter.Close(); err != nil || next != rows-1-20 {
		t.Errorf("stopped before %d, error %v; want 20 rows", next, err)
	}
}

// TestFaults asks of each fault what the client hears, and what is in the table
// then, and after what was held back is released.
func TestFaults(t *testing.T) {
	const patience = 300 * time.Millisecond // of the client, for what is never answered
	for _, c := range []struct {
		fault       Fault
		hears       string
		now, later  bool
		conditional string
	}{
		{None, "", true, true, "[map[[applied]:true]]"},
		{LostThenDropped, "closed|EOF|no connections|reset", false, false, "closed|EOF|no connections|reset"},
		{DoneThenDropped, "closed|EOF|no connections|reset", true, true, "closed|EOF|no connections|reset"},
		{LostThenTimeout, "error 0x1100", false, false, "error 0x1100"},
		{DoneThenTimeout, "error 0x1100", true, true, "error 0x1100"},
		{LateThenTimeout, "error 0x1100", false, true, "error 0x1100"},
		{LateThenSilence, "no response|timeout", false, true, "no response|timeout"},
		{DoneThenSilence, "no response|timeout", true, true, "no response|timeout"},
		{Unavailable, "error 0x1000", false, false, "error 0x1000"},
		{DoneThenUnavailable, "error 0x1000", true, true, "error 0x1000"},
		{Overloaded, "error 0x1001", false, false, "error 0x1001"},
		{DoneThenDenied, "", true, true, "[applied]:false"},
		{Forgotten, "", true, true, "[map[[applied]:true]]"}, // the driver prepares it again
		{Refused, "error 0x2200", false, false, "error 0x2200"},
	} {
		t.Run(strconv.Itoa(int(c.fault)), func(t *testing.T) {
			s, err := Start(Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			reader, err := connect(t, s.Address())
			if err != nil {
				t.Fatal(err)
			}
			create(t, reader)
			for _, statement := range []struct{ text, hears string }{
				{"INSERT INTO fake.l (id, n, name) VALUES (?, 1, 'x')", c.hears},
				{"INSERT INTO fake.l (id, n, name) VALUES (?, 2, 'x') IF NOT EXISTS", c.conditional},
			} {
				// One each: after a drop the pool is empty for a moment.
				session, err := connect(t, s.Address(), func(config *gocql.ClusterConfig) { config.Timeout = patience })
				if err != nil {
					t.Fatal(err)
				}
				id := gocql.MustRandomUUID()
				fault := c.fault
				s.Inject(func(Request) Fault {
					f := fault
					fault = None // the statement that is sent again is left alone
					return f
				})
				got := tell(session, statement.text, id)
				heard := statement.hears == "" && got == "[]"
				for _, want := range strings.Split(statement.hears, "|") {
					heard = heard || want != "" && strings.Contains(got, want)
				}
				if !heard {
					t.Errorf("%s: heard %s, want %s", statement.text, got, statement.hears)
				}
				s.Inject(nil)
				there := func() bool { return tell(reader, "SELECT name FROM fake.l WHERE id = ?", id) != "[]" }
				if there() != c.now {
					t.Errorf("%s: executed %v, want %v", statement.text, there(), c.now)
				}
				s.Release()
				if there() != c.later {
					t.Errorf("%s: executed after the release %v, want %v", statement.text, there(), c.later)
				}
			}
		})
	}
}

func TestRequests(t *testing.T) {
	s, session := start(t, Config{})
	create(t, session)
	tell(session, "SELECT v FROM fake.r WHERE p = ? AND q = ?", 1, "q")
	tell(session, "INSERT INTO fake.l (id, n) VALUES (?, 1) IF NOT EXISTS", gocql.UUID{})
	want := []Request{
		{Number: 1, Statements: []string{"SELECT v FROM fake.r WHERE p = ? AND q = ?"}, Consistency: "QUORUM", Serial: "SERIAL", Timestamp: true, Read: true},
		{Number: 2, Statements: []string{"INSERT INTO fake.l (id, n) VALUES (?, 1) IF NOT EXISTS"}, Consistency: "QUORUM", Serial: "SERIAL", Timestamp: true, Conditional: true},
	}
	if diff := cmp.Diff(want, s.Requests()); diff != "" {
		t.Error(diff)
	}
}

func TestScylla(t *testing.T) {
	_, session := start(t, Config{Flavour: Scylla, CommitlogSync: "periodic"})
	create(t, session)
	if got := tell(session, "INSERT INTO fake.l (id, n, sealed) VALUES (?, 1, 0) IF NOT EXISTS", gocql.UUID{}); !strings.Contains(got, "[applied]:true") || !strings.Contains(got, "sealed:0") {
		t.Errorf("an applied insert says %s, want a row with all columns", got)
	}
	if got := tell(session, "UPDATE fake.l SET sealed = 1 WHERE id = ? AND n = 1 IF sealed = 0", gocql.UUID{}); !strings.Contains(got, "[applied]:true") || !strings.Contains(got, "sealed:0") {
		t.Errorf("an applied update says %s, want the old values", got)
	}
	if got, want := tell(session, "SELECT value FROM system.config WHERE name = 'commitlog_sync'"), "[map[value:periodic]]"; got != want {
		t.Errorf("the setting is %s, want %s", got, want)
	}
}

func TestTablets(t *testing.T) {
	const replicated = " WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
	for _, tt := range []struct {
		tablets  Tablets
		with     string
		initial  bool // whether the keyspace has some
		accepted bool // a conditional write
	}{
		{NoTablets, "", false, true},
		{BareTablets, "", true, false},
		{BareTablets, " AND tablets = {'enabled': false}", false, true},
		{FullTablets, "", true, true},
		{FullTablets, " AND tablets = {'enabled': false}", false, true},
	} {
		_, session := start(t, Config{Flavour: Scylla, Tablets: tt.tablets})
		for _, text := range []string{"CREATE KEYSPACE k" + replicated + tt.with, "CREATE TABLE k.t (k int PRIMARY KEY, v int)", "INSERT INTO k.t (k, v) VALUES (1, 1)"} {
			if err := session.Query(text).Exec(); err != nil {
				t.Fatalf("tablets %d: %s: %v", tt.tablets, text, err)
			}
		}
		var initial *int
		err := session.Query("SELECT initial_tablets FROM system_schema.scylla_keyspaces WHERE keyspace_name = 'k'").Scan(&initial)
		if (initial != nil) != tt.initial || tt.initial != (err == nil) {
			t.Errorf("tablets %d%s: the keyspace has %v, error %v", tt.tablets, tt.with, initial, err)
		}
		if err := session.Query("INSERT INTO k.t (k, v) VALUES (2, 1) IF NOT EXISTS").Exec(); (err == nil) != tt.accepted {
			t.Errorf("tablets %d%s: a conditional write: %v", tt.tablets, tt.with, err)
		}
	}
	_, session := start(t, Config{})
	if err := session.Query("CREATE KEYSPACE k" + replicated + " AND tablets = {'enabled': false}").Exec(); err == nil {
		t.Error("a Cassandra knows tablets")
	}
}

func TestCredentialsAndOutage(t *testing.T) {
	s, session := start(t, Config{Username: "nola", Password: "secret"})
	create(t, session)
	if _, err := connect(t, s.Address(), func(c *gocql.ClusterConfig) {
		c.Authenticator = gocql.PasswordAuthenticator{Username: "nola", Password: "wrong"}
	}); err == nil || !strings.Contains(err.Error(), "incorrect") {
		t.Errorf("a wrong password: error %v", err)
	}
	s.Down(true)
	if got := tell(session, "SELECT id FROM fake.s"); got == "[]" {
		t.Error("a server that is down answers")
	}
	s.Down(false)
	again, err := connect(t, s.Address(), func(c *gocql.ClusterConfig) {
		c.Authenticator = gocql.PasswordAuthenticator{Username: "nola", Password: "secret"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := tell(again, "SELECT id FROM fake.s"); got != "[]" {
		t.Errorf("a server that is up again says %s", got)
	}
}
