package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func serveCommand() *cobra.Command {
	var file string
	var set config
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve where others depend on it",
		Long: `Serve where others depend on it.

The configuration is a YAML file; flags go over what it says. A listener that
others can reach needs TLS and a token file, unless --insecure is given.

  listen: 0.0.0.0:7466
  advertise: nola-1.example.com:7466
  admin_listen: 127.0.0.1:7467        # /metrics, /debug/pprof, /healthz, /readyz
  data_dir: /var/lib/nola
  backup_dir: /var/backups/nola       # where nolactl backup create may write
  tls_cert: /etc/nola/tls.crt         # read again when it changes
  tls_key: /etc/nola/tls.key
  token_file: /etc/nola/tokens        # one NAME:TOKEN a line
  allowed_origins: [https://console.example.com]
  drain_timeout: 30s
  log: {level: info, format: json}
  limits: {calls: 65536, call_bytes: 268435456, instance_bytes: 1073741824}

With store cql everything durable lies in a Cassandra or ScyllaDB cluster, whose
tables "nolad schema setup" has made:

  store: cql
  cql:
    hosts: [db1:9042, db2:9042]
    username: nola
    password_file: /etc/nola/cql-password
    tls: true
    node_name: nola-1                 # the one that takes its place has the same

Several nodes share such a store when each knows where the others find it:

  cluster:
    listen: 0.0.0.0:7468              # for other nodes alone
    advertise: nola-1.internal:7468
    name: nola-1                      # takes the place of cql.node_name
    weight: 100                       # its share of the shards
    labels: {zone: a}
    token_file: /etc/nola/cluster-token
    lease: 3s

SIGTERM makes it take nothing more in, finish what it has, and end with 0; a
second one ends it at once.`,
		Example: `nolad serve --config /etc/nola/nolad.yaml
nolad serve --data-dir /var/lib/nola --listen 0.0.0.0:7466 --tls-cert tls.crt --tls-key tls.key --token-file tokens`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "configuration file (YAML)")
	set.flags(f)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var cfg config
		if file != "" {
			var err error
			if cfg, err = readConfig(file); err != nil {
				return err
			}
		}
		cfg = cfg.over(cmd.Flags(), set).withDefaults()
		if err := cfg.validate(); err != nil {
			return err
		}
		log := newLogger(cfg.Log, cmd.ErrOrStderr())
		r, err := start(cmd.Context(), cfg, log, nil)
		if err != nil {
			return err
		}
		log.Info("serving", "url", r.url(), "store", cfg.Store, "data_dir", cfg.DataDir, "version", buildVersion(), "tls", r.secure, "tokens", cfg.TokenFile != "", "admin", cfg.AdminListen)
		failed := r.wait(cmd.Context())
		log.Info("stopping")
		if err := errors.Join(failed, r.stop()); err != nil {
			return err
		}
		log.Info("stopped")
		return nil
	}
	return c
}

// flags adds the flags of c, which go over a configuration file.
func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", listenDefault, "address to serve clients on, HOST:PORT")
	f.StringVar(&c.Advertise, "advertise", "", "address under which clients reach it (default: that of --listen)")
	f.StringVar(&c.AdminListen, "admin-listen", "", "address for /metrics and /debug/pprof (default: none)")
	f.StringVar(&c.Store, "store", storePebble, "kind of the store: pebble or cql")
	f.StringVar(&c.DataDir, "data-dir", dataDirDefault, "directory of the store, or of compiled code with store cql")
	f.StringVar(&c.BackupDir, "backup-dir", "", "directory in which clients may have backups made (default: none)")
	c.CQL.flags(f)
	c.Cluster.flags(f)
	f.IntVar(&c.Shards, "shards", 0, "number of shards of a new store (default 256)")
	f.StringVar(&c.TLSCert, "tls-cert", "", "file with the TLS certificate chain (PEM)")
	f.StringVar(&c.TLSKey, "tls-key", "", "file with its key (PEM)")
	f.StringVar(&c.TokenFile, "token-file", "", "file with bearer tokens, one NAME:TOKEN a line")
	f.StringSliceVar(&c.AllowedOrigins, "allowed-origin", nil, "origin that browsers may call from; may be repeated")
	f.BoolVar(&c.Insecure, "insecure", false, "let others reach it without TLS or tokens")
	f.DurationVar(&c.DrainTimeout, "drain-timeout", 30*time.Second, "how long a stop may take to finish what was admitted")
	f.StringVar(&c.Log.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.Log.Format, "log-format", "text", "text or json")
}

// over is c with every flag that was given in its place.
func (c config) over(flags *pflag.FlagSet, set config) config {
	given := map[string]func(){
		"listen":         func() { c.Listen = set.Listen },
		"advertise":      func() { c.Advertise = set.Advertise },
		"admin-listen":   func() { c.AdminListen = set.AdminListen },
		"store":          func() { c.Store = set.Store },
		"data-dir":       func() { c.DataDir = set.DataDir },
		"backup-dir":     func() { c.BackupDir = set.BackupDir },
		"shards":         func() { c.Shards = set.Shards },
		"tls-cert":       func() { c.TLSCert = set.TLSCert },
		"tls-key":        func() { c.TLSKey = set.TLSKey },
		"token-file":     func() { c.TokenFile = set.TokenFile },
		"allowed-origin": func() { c.AllowedOrigins = set.AllowedOrigins },
		"insecure":       func() { c.Insecure = set.Insecure },
		"drain-timeout":  func() { c.DrainTimeout = set.DrainTimeout },
		"log-level":      func() { c.Log.Level = set.Log.Level },
		"log-format":     func() { c.Log.Format = set.Log.Format },
	}
	flags.Visit(func(f *pflag.Flag) {
		if apply := given[f.Name]; apply != nil {
			apply()
		}
	})
	c.CQL = c.CQL.over(flags, set.CQL)
	c.Cluster = c.Cluster.over(flags, set.Cluster)
	return c
}
