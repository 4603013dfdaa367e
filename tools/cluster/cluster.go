package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// ServersMax is how many servers a cluster may have.
	ServersMax = 9
	// ShardsDefault is the number of shards of a keyspace that is made.
	ShardsDefault = 64

	nodesDefault    = 3
	keyspaceDefault = "nola"
	setupTimeout    = 2 * time.Minute
	// portStep is how far the ports of one server are from those of the next. The
	// first of them is for clients; operators and other servers have the two after.
	portStep = 10
	// Where free ports are looked for, and how often.
	portMin, portMax, portTries = 20_000, 31_000, 100
)

// Config says what to start. Dir, Program and CQL are needed, the rest has
// defaults.
type Config struct {
	// Dir is where configurations and logs lie, one directory a server. It is made
	// if need be.
	Dir string
	// Program is the path of nolad.
	Program string
	// CQL is where the Cassandra or ScyllaDB answers, HOST:PORT.
	CQL []string
	// Servers is how many there are: default 3, at most ServersMax.
	Servers int
	// Keyspace holds the tables: default nola. They are made if need be, with
	// Replicas (default: as many as CQL has addresses) and Shards (default
	// ShardsDefault).
	Keyspace         string
	Replicas, Shards int
	// Lease is that of the cluster: default the server's own.
	Lease time.Duration
	// Mode is how commits are made: default the server's own.
	Mode string
	// Port is the first server's for clients; the next has its ports ten higher. 0
	// means free ones.
	Port int
	// Change, if it is not nil, has the last word on the configuration of a server
	// before it starts for the first time. Servers count from 1.
	Change func(server int, s *Settings)
}

// Settings are the configuration file of a server, as far as a local cluster needs
// one.
type Settings struct {
	Listen       string        `yaml:"listen"`
	AdminListen  string        `yaml:"admin_listen"`
	Store        string        `yaml:"store"`
	DataDir      string        `yaml:"data_dir"`
	DrainTimeout time.Duration `yaml:"drain_timeout,omitempty"`
	CQL          CQL           `yaml:"cql"`
	Cluster      Member        `yaml:"cluster"`
	Log          struct {
		Level string `yaml:"level,omitempty"`
	} `yaml:"log"`
}

// CQL is the section cql of the configuration.
type CQL struct {
	Hosts     []string          `yaml:"hosts"`
	Translate map[string]string `yaml:"translate,omitempty"`
	Keyspace  string            `yaml:"keyspace"`
	Mode      string            `yaml:"mode,omitempty"`
}

// Member is the section cluster of the configuration.
type Member struct {
	Listen    string        `yaml:"listen"`
	Advertise string        `yaml:"advertise,omitempty"`
	Name      string        `yaml:"name"`
	TokenFile string        `yaml:"token_file"`
	Lease     time.Duration `yaml:"lease,omitempty"`
}

func (c Config) withDefaults() (Config, error) {
	if c.Servers == 0 {
		c.Servers = nodesDefault
	}
	if c.Keyspace == "" {
		c.Keyspace = keyspaceDefault
	}
	if c.Replicas == 0 {
		c.Replicas = len(c.CQL)
	}
	if c.Shards == 0 {
		c.Shards = ShardsDefault
	}
	var faults []error
	if c.Dir == "" || c.Program == "" {
		faults = append(faults, errors.New("no directory or no program is given"))
	}
	if len(c.CQL) == 0 {
		faults = append(faults, errors.New("no address of a Cassandra is given"))
	}
	if c.Servers < 1 || c.Servers > ServersMax {
		faults = append(faults, fmt.Errorf("%d servers; choose 1 to %d", c.Servers, ServersMax))
	}
	if last := c.Port + ServersMax*portStep; c.Port < 0 || last > 1<<16 {
		faults = append(faults, fmt.Errorf("the first port %d is not between 0 and %d", c.Port, 1<<16-ServersMax*portStep))
	}
	if _, err := os.Stat(c.Program); c.Program != "" && err != nil {
		faults = append(faults, fmt.Errorf("%w; make build makes it", err))
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		faults = append(faults, err)
	}
	return c, errors.Join(faults...)
}

// Cluster is a number of servers that share a store. Its methods are called by one
// goroutine at a time.
type Cluster struct {
	servers []*Server
}

// Start makes the tables if need be, starts the servers, and returns when each
// serves what belongs to it. On an error nothing is left running. The servers end
// with this program.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	if err := config.setup(ctx); err != nil {
		return nil, err
	}
	token, err := config.token()
	if err != nil {
		return nil, fmt.Errorf("start a cluster in %s: %w", config.Dir, err)
	}
	ports, err := config.addresses()
	if err != nil {
		return nil, fmt.Errorf("find ports for a cluster: %w", err)
	}
	c := &Cluster{}
	for i := range config.Servers {
		s, err := config.server(i+1, ports[i], token)
		if err == nil {
			err = s.launch()
		}
		if err != nil {
			c.Kill()
			return nil, fmt.Errorf("start server %d of a cluster: %w", i+1, err)
		}
		c.servers = append(c.servers, s)
	}
	for _, s := range c.servers {
		if err := s.ready(ctx); err != nil {
			c.Kill()
			return nil, err
		}
	}
	return c, nil
}

// setup makes the tables.
func (c Config) setup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	args := []string{"schema", "setup", "--cql-keyspace", c.Keyspace, "--replicas", strconv.Itoa(c.Replicas), "--shards", strconv.Itoa(c.Shards)}
	for _, host := range c.CQL {
		args = append(args, "--cql-host", host)
	}
	if out, err := exec.CommandContext(ctx, c.Program, args...).CombinedOutput(); err != nil { //nolint:gosec // the caller names the program
		return fmt.Errorf("make the tables: %w; nolad schema setup said:\n%s", err, out)
	}
	return nil
}

// token makes the file with the secret that the servers show each other.
func (c Config) token() (string, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return "", err
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	file := filepath.Join(c.Dir, "token")
	return file, os.WriteFile(file, []byte(hex.EncodeToString(secret[:])+"\n"), 0o600)
}

// ports are the addresses that one server listens on.
type ports struct{ clients, operators, servers string }

// addresses are loopback addresses for all servers, free at this moment. Another
// program may take one before it is used; then the server's log says so.
func (c Config) addresses() (all []ports, err error) {
	if c.Port > 0 {
		return c.tryPorts(c.Port)
	}
	for range portTries {
		// Below those that outgoing connections take, so that a server that was killed
		// finds its own again.
		if all, err = c.tryPorts(portMin + mathrand.IntN(portMax-portMin)); err == nil { //nolint:gosec // any will do
			return all, nil
		}
	}
	return nil, err
}

func (c Config) tryPorts(first int) ([]ports, error) {
	all := make([]ports, c.Servers)
	for i := range all {
		for j, to := range []*string{&all[i].clients, &all[i].operators, &all[i].servers} {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first+i*portStep+j))) //nolint:noctx // closed at once
			if err != nil {
				return nil, err
			}
			defer l.Close()
			*to = l.Addr().String()
		}
	}
	return all, nil
}

// server writes the configuration of a server.
func (c Config) server(number int, ports ports, token string) (*Server, error) {
	s := &Server{number: number, program: c.Program, dir: filepath.Join(c.Dir, "server"+strconv.Itoa(number))}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	s.settings = Settings{
		Listen: ports.clients, AdminListen: ports.operators, Store: "cql", DataDir: filepath.Join(s.dir, "data"),
		CQL:     CQL{Hosts: c.CQL, Keyspace: c.Keyspace, Mode: c.Mode},
		Cluster: Member{Listen: ports.servers, Name: s.Name(), TokenFile: token, Lease: c.Lease},
	}
	if c.Change != nil {
		c.Change(number, &s.settings)
	}
	text, err := yaml.Marshal(s.settings)
	if err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.Config(), text, 0o600)
}

// Servers returns the servers in the order of their numbers.
func (c *Cluster) Servers() []*Server { return c.servers }

// Stop stops the servers that run one after the other, as an operator would, and
// waits until they are gone.
func (c *Cluster) Stop() error {
	var faults []error
	for _, s := range c.servers {
		faults = append(faults, s.Stop())
	}
	return errors.Join(faults...)
}

// Kill ends the servers as a crash would, and waits until they are gone.
func (c *Cluster) Kill() {
	for _, s := range c.servers {
		s.Kill()
	}
}
