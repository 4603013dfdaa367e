package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/nolaproject/nola/tools/child"
)

const (
	// NodesMax is how many nodes a cluster may have: one, or three for what needs
	// a quorum.
	NodesMax = 3
	// HeapMiBDefault is the heap of a node; it holds about twice that in all.
	HeapMiBDefault = 512
	// heapMiBMin is what a node needs to start at all.
	heapMiBMin = 256

	portTries = 20
)

// Config says what to start. Dir is needed, the rest has defaults.
type Config struct {
	// Dir is the directory of the cluster. It is made if need be.
	Dir string
	// Nodes is 1, the default, or 3. Three nodes take three times the memory.
	Nodes int
	// Keep starts with the data that Dir holds of an earlier run; without it they
	// are deleted. What a run leaves in Dir stays there either way.
	Keep bool
	// CQLPort is the port of all nodes for clients; 0 means the one of the kept
	// cluster, or else a free one.
	CQLPort int
	// HeapMiB is the heap of one node in MiB; 0 means HeapMiBDefault.
	HeapMiB int
	// Secure has the nodes ask clients for TLS, with a certificate of their own
	// (Cluster.Certificate), and for a login: the role Superuser, whose password is its
	// name, and those that it makes. What roles may do is checked.
	Secure bool
	// Detached lets the nodes run on when this program has ended. StopDir ends them.
	Detached bool
}

func (c Config) withDefaults() (Config, error) {
	if c.Nodes == 0 {
		c.Nodes = 1
	}
	if c.HeapMiB == 0 {
		c.HeapMiB = HeapMiBDefault
	}
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("no directory is given"))
	}
	if c.Nodes != 1 && c.Nodes != NodesMax {
		faults = append(faults, fmt.Errorf("%d nodes; choose 1 or %d", c.Nodes, NodesMax))
	}
	if c.CQLPort < 0 || c.CQLPort > 65535 {
		faults = append(faults, fmt.Errorf("the port %d is not between 0 and 65535", c.CQLPort))
	}
	if c.HeapMiB < heapMiBMin {
		faults = append(faults, fmt.Errorf("a heap of %d MiB is too small; give at least %d", c.HeapMiB, heapMiBMin))
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		faults = append(faults, err)
	}
	if strings.ContainsRune(dir, filepath.ListSeparator) {
		faults = append(faults, fmt.Errorf("the directory %s has a %c in its name, which Java takes for the end of a path", dir, filepath.ListSeparator))
	}
	c.Dir = dir
	return c, errors.Join(faults...)
}

// Superuser is the role that a secure cluster begins with.
const Superuser = "cassandra"

// Cluster is a running Cassandra. Its methods are called by one goroutine at a time.
type Cluster struct {
	nodes []*Node
}

// Start starts a cluster and returns when every node answers CQL and sees the
// others. On an error nothing is left running. An error that wraps ErrMissing
// says what this machine lacks.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start Cassandra: %w", err)
	}
	java, err := findJava(ctx, javaPlaces[runtime.GOOS])
	if err != nil {
		return nil, err
	}
	repository, err := localRepository()
	if err != nil {
		return nil, err
	}
	all, err := artifacts(sums)
	if err != nil {
		return nil, err
	}
	files, err := classPath(ctx, repository, all)
	if err != nil {
		return nil, err
	}
	record, err := prepare(config)
	if err != nil {
		return nil, fmt.Errorf("start Cassandra in %s: %w", config.Dir, err)
	}
	c := &Cluster{}
	for i := range config.Nodes {
		c.nodes = append(c.nodes, &Node{
			settings: record.settings(config.Dir, i+1, config.HeapMiB).securely(config.Secure),
			java:     java, classPath: files,
			outlives: config.Detached,
			record:   record, dir: config.Dir,
		})
	}
	for _, n := range c.nodes { // one after the other, as each must find the ones before
		err = errors.Join(err, n.Start(ctx))
		if err != nil {
			break
		}
	}
	if err == nil {
		err = c.meet(ctx)
	}
	if err != nil {
		for _, n := range c.nodes {
			n.Kill()
		}
		return nil, err
	}
	return c, nil
}

// prepare makes the directory ready for a cluster and decides its ports.
func prepare(config Config) (*record, error) {
	old, err := readRecord(config.Dir)
	if err != nil {
		return nil, err
	}
	for i, pid := range old.PIDs {
		if child.Runs(pid, old.settings(config.Dir, i+1, 0).mark()) {
			return nil, fmt.Errorf("a cluster runs there already (process %d): stop it first (make cassandra-stop, or StopDir)", pid)
		}
	}
	r := &record{Version: Version, Nodes: config.Nodes, CQLPort: config.CQLPort}
	if config.Keep && old.Nodes > 0 {
		if old.Nodes != config.Nodes || old.Version != Version {
			return nil, fmt.Errorf("the data to keep are of %d nodes of Cassandra %s, not of %d of %s: choose another directory, or do not keep them", old.Nodes, old.Version, config.Nodes, Version)
		}
		r.StoragePort = old.StoragePort
		if r.CQLPort == 0 {
			r.CQLPort = old.CQLPort
		}
	} else {
		for i := range NodesMax {
			if err := os.RemoveAll(r.settings(config.Dir, i+1, 0).dir); err != nil {
				return nil, err
			}
		}
	}
	for _, port := range []*int{&r.CQLPort, &r.StoragePort} {
		if *port == 0 {
			if *port, err = freePort(config.Nodes, r.CQLPort); err != nil {
				return nil, err
			}
		}
	}
	r.PIDs = make([]int, config.Nodes)
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, err
	}
	return r, r.write(config.Dir)
}

// freePort finds a port that is free on the addresses of all nodes and is not the
// other one. Another program may take it before it is used; then the node's log
// says so.
func freePort(nodes, other int) (int, error) {
	var last error
	for range portTries {
		port, err := tryPort(nodes)
		if err == nil && port != other {
			return port, nil
		}
		last = err
	}
	return 0, fmt.Errorf("find a free port on %s to %s (macOS has only the first by itself: sudo ifconfig lo0 alias 127.0.0.2): %w", host(1), host(nodes), last)
}

func tryPort(nodes int) (int, error) {
	port := 0
	for i := range nodes {
		l, err := net.Listen("tcp", net.JoinHostPort(host(i+1), strconv.Itoa(port))) //nolint:noctx // closed at once
		if err != nil {
			return 0, err
		}
		defer l.Close()
		port = l.Addr().(*net.TCPAddr).Port
	}
	return port, nil
}

// meet waits until every node sees every other alive. A read of all replicas
// shows it: the keyspace has as many as there may be nodes.
func (c *Cluster) meet(ctx context.Context) error {
	if len(c.nodes) < NodesMax {
		return nil
	}
	for _, n := range c.nodes {
		if err := n.until(ctx, allAlive); err != nil {
			return err
		}
	}
	return nil
}

// Addresses returns where the nodes answer CQL, as host:port.
func (c *Cluster) Addresses() []string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.Address())
	}
	return all
}

// Certificate answers the path of the certificate, in PEM, that a client must trust
// to speak to the first node of a secure cluster.
func (c *Cluster) Certificate() string { return c.nodes[0].in(certificateFile) }

// Nodes returns the nodes in the order of their addresses.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Stop stops all nodes in order and waits until they are gone. The data stay in
// the directory.
func (c *Cluster) Stop() error {
	var faults []error
	for _, n := range c.nodes {
		faults = append(faults, n.Stop())
	}
	return errors.Join(faults...)
}

// StopDir stops the cluster that runs in a directory, whoever started it, and
// returns how many nodes it stopped: none if none runs there.
func StopDir(dir string) (int, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, fmt.Errorf("stop Cassandra: %w", err)
	}
	r, err := readRecord(dir)
	if err != nil {
		return 0, fmt.Errorf("stop Cassandra in %s: %w", dir, err)
	}
	stopped := 0
	var faults []error
	for i, pid := range r.PIDs {
		ran, err := child.StopOther(pid, r.settings(dir, i+1, 0).mark())
		if ran && err == nil {
			stopped++
		}
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return stopped, fmt.Errorf("stop Cassandra in %s: %w", dir, err)
	}
	return stopped, nil
}

// record is cluster.json: what the directory of a cluster holds.
type record struct {
	Version     string `json:"version"`
	Nodes       int    `json:"nodes"`
	CQLPort     int    `json:"cql_port"`
	StoragePort int    `json:"storage_port"` // part of the nodes' identity: kept with the data
	PIDs        []int  `json:"pids"`         // of the last start; 0 for a node that was not started
}

func (r *record) settings(dir string, number, heapMiB int) settings {
	return settings{
		dir: filepath.Join(dir, "node"+strconv.Itoa(number)), number: number, nodes: r.Nodes,
		cqlPort: r.CQLPort, storagePort: r.StoragePort, heapMiB: heapMiB,
	}
}

// readRecord reads the record of a directory, an empty one if there is none.
func readRecord(dir string) (*record, error) {
	text, err := os.ReadFile(recordFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return &record{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s is not readable (delete the directory if no Cassandra runs there): %w", recordFile(dir), err)
	}
	return r, nil
}

// write replaces the record at once, so that a crash leaves the old or the new one.
func (r *record) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(recordFile(dir)+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(recordFile(dir)+".new", recordFile(dir))
}

func recordFile(dir string) string { return filepath.Join(dir, "cluster.json") }
