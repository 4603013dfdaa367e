package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nolaproject/nola/shard"
)

const (
	listenDefault  = "127.0.0.1:7466"
	dataDirDefault = "./nola-data"
	configBytesMax = 1 << 20
)

// config is what a server is told: by flags, or by a file with flags over it.
type config struct {
	// Listen is where clients are served: default 127.0.0.1:7466.
	Listen string `yaml:"listen"`
	// Advertise is the address under which clients reach it: default Listen.
	Advertise string `yaml:"advertise"`
	// AdminListen is where /metrics and /debug/pprof are served; empty is nowhere.
	// It checks no tokens.
	AdminListen string `yaml:"admin_listen"`
	// Store is the kind of the store: pebble, or cql for a Cassandra or ScyllaDB
	// cluster. `nolad dev --ephemeral` keeps one in memory.
	Store string `yaml:"store"`
	// DataDir is the directory of the store: default ./nola-data. With store cql it
	// holds compiled code alone, which is not kept if it is empty, the default.
	DataDir string `yaml:"data_dir"`
	// clock, if set, is the virtual clock of nolad dev.
	clock *shard.VirtualClock
	// BackupDir is where clients may have backups made; empty is nowhere.
	BackupDir string `yaml:"backup_dir"`
	// CQL says how to reach the cluster of store cql.
	CQL cqlConfig `yaml:"cql"`
	// Cluster says who the node is among those that share the store.
	Cluster clusterConfig `yaml:"cluster"`
	// Shards is the number of shards of a new store, 1 to 65,536: default 256. It
	// never changes. For store cql `nolad schema setup` says it.
	Shards int `yaml:"shards"`
	// TLSCert and TLSKey are files in PEM form, read again when they change.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`
	// TokenFile holds bearer tokens, one NAME:TOKEN a line.
	TokenFile string `yaml:"token_file"`
	// AllowedOrigins are the origins that browsers may call from.
	AllowedOrigins []string `yaml:"allowed_origins"`
	// Insecure allows a listener that others can reach without TLS and tokens.
	Insecure bool `yaml:"insecure"`
	// DrainTimeout is how long a stop may take to finish what was admitted:
	// default 30s, at most 10m.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	Log          logConfig     `yaml:"log"`
	Limits       limitsConfig  `yaml:"limits"`
}

// logConfig says what is logged, to standard error.
type logConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn or error: default info
	Format string `yaml:"format"` // text or json: default text
}

// limitsConfig bounds what the node holds; zero fields take the default.
type limitsConfig struct {
	Calls         int   `yaml:"calls"`          // unanswered calls: default 65,536
	CallBytes     int64 `yaml:"call_bytes"`     // their payloads: default 256 MiB, or an eighth of GOMEMLIMIT
	InstanceBytes int64 `yaml:"instance_bytes"` // memory of guests above which idle actors leave: default 1 GiB, or a quarter of GOMEMLIMIT
	LogBytes      int64 `yaml:"log_bytes"`      // logs of all actors: default 16 MiB
	CacheBytes    int64 `yaml:"cache_bytes"`    // the store's cache: default 16 MiB
}

// The kinds of stores.
const (
	storePebble = "pebble"
	storeCQL    = "cql"
	storeMemory = "memory"
)

func (c config) withDefaults() config {
	setDefault(&c.Listen, listenDefault)
	setDefault(&c.Store, storePebble)
	if c.Store != storeCQL {
		setDefault(&c.DataDir, dataDirDefault)
	}
	setDefault(&c.DrainTimeout, 30*time.Second)
	setDefault(&c.Log.Level, "info")
	setDefault(&c.Log.Format, "text")
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// readConfig reads a configuration file. A field that is not known is an error.
func readConfig(path string) (config, error) {
	var c config
	f, err := os.Open(path)
	if err != nil {
		return c, usageError{fmt.Errorf("the configuration cannot be read: %w", err)}
	}
	defer f.Close()
	dec := yaml.NewDecoder(io.LimitReader(f, configBytesMax))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, usageError{fmt.Errorf("configuration %s: %s; docs list the fields, and `nolad serve --help` the flags", path, strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	return c, nil
}

// validate reports everything that is wrong with what a server for others is
// told, at once.
func (c config) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	host, _, err := net.SplitHostPort(c.Listen)
	check(err == nil, "listen %q: write HOST:PORT, for example %s", c.Listen, listenDefault)
	if c.AdminListen != "" {
		adminHost, _, err := net.SplitHostPort(c.AdminListen)
		check(err == nil, "admin_listen %q: write HOST:PORT, for example 127.0.0.1:7467", c.AdminListen)
		check(err != nil || isLoopback(adminHost) || c.Insecure, "admin_listen %s can be reached by others, and it checks no tokens: use a loopback address, or insecure if the network keeps others away", c.AdminListen)
		check(c.AdminListen != c.Listen || strings.HasSuffix(c.Listen, ":0"), "admin_listen and listen are both %s: the admin listener needs a port of its own", c.Listen)
	}
	check(c.Store == storePebble || c.Store == storeCQL, "store %q: must be %s or %s", c.Store, storePebble, storeCQL)
	check(c.BackupDir == "" || !within(c.DataDir, c.BackupDir), "backup_dir %s lies in data_dir: backups would go with the data they are made for; name a directory outside", c.BackupDir)
	check(c.Shards >= 0 && c.Shards <= 1<<16, "shards %d: must lie between 1 and 65,536", c.Shards)
	c.validateCluster(check)
	check((c.TLSCert == "") == (c.TLSKey == ""), "tls_cert and tls_key go together: give both or neither")
	check(c.DrainTimeout > 0 && c.DrainTimeout <= 10*time.Minute, "drain_timeout %s: must lie between 0 and 10m", c.DrainTimeout)
	check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level %q: must be debug, info, warn or error", c.Log.Level)
	check(c.Log.Format == "text" || c.Log.Format == "json", "log.format %q: must be text or json", c.Log.Format)
	l := c.Limits
	check(l.Calls >= 0, "limits.calls %d: must not be negative", l.Calls)
	for _, f := range []struct {
		name  string
		value int64
	}{{"call_bytes", l.CallBytes}, {"instance_bytes", l.InstanceBytes}, {"log_bytes", l.LogBytes}, {"cache_bytes", l.CacheBytes}} {
		check(f.value == 0 || f.value >= 1<<20, "limits.%s %d: must be at least 1 MiB (1048576), or 0 for the default", f.name, f.value)
	}
	if err == nil && !isLoopback(host) && !c.Insecure {
		check(c.TLSCert != "", "listen %s can be reached by others, so traffic must be encrypted: give tls_cert and tls_key, listen on a loopback address, or say insecure", c.Listen)
		check(c.TokenFile != "", "listen %s can be reached by others, so callers must show a token: give token_file, listen on a loopback address, or say insecure", c.Listen)
	}
	if len(faults) == 0 {
		return nil
	}
	return usageError{fmt.Errorf("the configuration is wrong:\n%w", errors.Join(faults...))}
}

// within reports whether path is dir or lies in it.
func within(dir, path string) bool {
	dir, err1 := filepath.Abs(dir)
	path, err2 := filepath.Abs(path)
	rel, err3 := filepath.Rel(dir, path)
	return errors.Join(err1, err2, err3) == nil && filepath.IsLocal(rel)
}

// isLoopback reports whether only this machine can reach host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
