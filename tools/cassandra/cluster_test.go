package cassandra

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/tools/child"
)

const patience = 30 * time.Second

func TestStartRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		config Config
		want   string
	}{
		"no directory":  {Config{}, "no directory"},
		"two nodes":     {Config{Dir: "d", Nodes: 2}, "2 nodes; choose 1 or 3"},
		"a bad port":    {Config{Dir: "d", CQLPort: 65536}, "port 65536"},
		"a small heap":  {Config{Dir: "d", HeapMiB: 64}, "give at least 256"},
		"a list":        {Config{Dir: "d:e"}, "has a : in its name"},
		"all at a time": {Config{Nodes: 7, HeapMiB: 1}, "1 MiB is too small"},
	} {
		if _, err := Start(t.Context(), tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, tt.want)
		}
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := prepare(Config{Dir: dir, Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if first.CQLPort == 0 || first.StoragePort == 0 || first.CQLPort == first.StoragePort {
		t.Fatalf("ports %d and %d", first.CQLPort, first.StoragePort)
	}
	data := filepath.Join(first.settings(dir, 1, 0).dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "notes") // of somebody else
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	kept, err := prepare(Config{Dir: dir, Nodes: 1, Keep: true})
	if err != nil || kept.CQLPort != first.CQLPort || kept.StoragePort != first.StoragePort {
		t.Errorf("kept as %+v, error %v; want the ports of %+v", kept, err, first)
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("data to be kept: %v", err)
	}
	moved, err := prepare(Config{Dir: dir, Nodes: 1, Keep: true, CQLPort: 9})
	if err != nil || moved.CQLPort != 9 || moved.StoragePort != first.StoragePort {
		t.Errorf("kept as %+v, error %v; want the port 9", moved, err)
	}
	if r, err := prepare(Config{Dir: dir, Nodes: 3, Keep: true}); err == nil || !strings.Contains(err.Error(), "are of 1 nodes") {
		t.Errorf("data of one node kept for three: %+v, error %v", r, err)
	}

	if _, err := prepare(Config{Dir: dir, Nodes: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data that nobody asked to keep: error %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("a file of somebody else: %v", err)
	}

	old := record{Version: "4.1.0", Nodes: 1}
	if err := old.write(dir); err != nil {
		t.Fatal(err)
	}
	if r, err := prepare(Config{Dir: dir, Nodes: 1, Keep: true}); err == nil || !strings.Contains(err.Error(), "Cassandra 4.1.0") {
		t.Errorf("data of another version kept: %+v, error %v", r, err)
	}
}

func TestOneClusterInADirectory(t *testing.T) {
	dir := t.TempDir()
	r, err := prepare(Config{Dir: dir, Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	// A shell that waits for input, under the arguments of a node.
	node := exec.Command("/bin/sh", "-c", "read -r line", r.settings(dir, 1, 0).mark())
	input, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	p, err := child.Spawn(node, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	r.PIDs[0] = node.Process.Pid
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		if _, err := prepare(Config{Dir: dir, Nodes: 1, Keep: keep}); err == nil || !strings.Contains(err.Error(), "stop it first") {
			t.Errorf("a second cluster beside a running one, keep %v: error %v", keep, err)
		}
	}
	if stopped, err := StopDir(dir); stopped != 1 || err != nil {
		t.Errorf("stopped %d, error %v; want 1", stopped, err)
	}
	if stopped, err := StopDir(dir); stopped != 0 || err != nil {
		t.Errorf("stopped %d, error %v; want none, as none runs", stopped, err)
	}
}

// start starts a cluster, or skips the test: where the machine lacks what it
// needs, and in an ordinary run, as a start takes 5 to 10 s.
func start(t *testing.T, config Config) *Cluster {
	t.Helper()
	if os.Getenv("NOLA_SLOW") == "" {
		t.Skip("a real Cassandra is started by make test-cassandra alone, which sets NOLA_SLOW=1")
	}
	c, err := Start(t.Context(), config)
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range c.Nodes() {
			n.Kill()
		}
	})
	return c
}

// connect opens a session with the first node of a cluster, and with no other.
func connect(t *testing.T, c *Cluster) *gocql.Session {
	t.Helper()
	first := c.Nodes()[0]
	config := gocql.NewCluster(first.Address())
	config.HostFilter = gocql.WhiteListHostFilter(host(first.number))
	config.Logger = silent{}
	config.ProtoVersion = 4
	config.Timeout, config.ConnectTimeout = patience, patience
	session, err := config.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

func execute(t *testing.T, session *gocql.Session, statement string, values ...any) {
	t.Helper()
	if err := session.Query(statement, values...).WithContext(t.Context()).Consistency(gocql.Quorum).Exec(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// create makes a table with as many replicas as there are nodes, and a row.
func create(t *testing.T, session *gocql.Session, replicas int) {
	t.Helper()
	execute(t, session, "CREATE KEYSPACE k WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': "+strconv.Itoa(replicas)+"}")
	execute(t, session, "CREATE TABLE k.t (id int PRIMARY KEY, text text)")
	execute(t, session, "INSERT INTO k.t (id, text) VALUES (1, 'kept')")
}

func TestKeepsWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	c := start(t, Config{Dir: dir})
	session := connect(t, c)
	for name, want := range map[string]string{"commitlog_sync": "batch", "paxos_variant": "v2"} {
		var got string
		if err := session.Query("SELECT value FROM system_views.settings WHERE name = ?", name).Scan(&got); err != nil || got != want {
			t.Errorf("setting %s is %q, error %v; want %s", name, got, err, want)
		}
	}
	reachable(t, c.nodes[0].settings)
	create(t, session, 1)
	session.Close()
	c.Nodes()[0].Kill() // at once, so that only what was synced is left

	again := start(t, Config{Dir: dir, Keep: true})
	if got, want := again.Addresses()[0], c.Addresses()[0]; got != want {
		t.Errorf("the address is %s after %s before", got, want)
	}
	session = connect(t, again)
	var text string
	if err := session.Query("SELECT text FROM k.t WHERE id = 1").Scan(&text); err != nil || text != "kept" {
		t.Errorf("read %q, error %v; want what was written before the crash", text, err)
	}
	session.Close()
	if err := again.Stop(); err != nil {
		t.Error(err)
	}
	if conn, err := net.DialTimeout("tcp", again.Addresses()[0], patience); err == nil {
		conn.Close()
		t.Errorf("%s is listened on after Stop", again.Addresses()[0])
	}
}

// reachable wants no port of the node open on an address other machines can reach.
func reachable(t *testing.T, s settings) {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		network, ok := a.(*net.IPNet)
		if !ok || network.IP.IsLoopback() || network.IP.To4() == nil {
			continue
		}
		for _, port := range []int{s.cqlPort, s.storagePort} {
			address := net.JoinHostPort(network.IP.String(), strconv.Itoa(port))
			if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
				conn.Close()
				t.Errorf("%s can be reached from other machines", address)
			}
		}
	}
}

func TestThreeNodesOutliveOne(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir(), Nodes: 3})
	session := connect(t, c)
	create(t, session, 3)
	last := c.Nodes()[2]
	if err := last.Pause(); err != nil {
		t.Fatal(err)
	}
	execute(t, session, "INSERT INTO k.t (id, text) VALUES (2, 'two of three')")
	if err := last.Resume(); err != nil {
		t.Fatal(err)
	}
	last.Kill()
	if err := last.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := last.until(t.Context(), func(ctx context.Context, s *gocql.Session) error {
		return s.Query("SELECT text FROM k.t WHERE id = 2").WithContext(ctx).Consistency(gocql.Quorum).Scan(&text)
	}); err != nil || text != "two of three" {
		t.Errorf("the node that was killed reads %q, error %v", text, err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if err := last.Resume(); err == nil {
		t.Error("a node that does not run was resumed")
	}
}
