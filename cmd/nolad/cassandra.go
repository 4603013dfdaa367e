package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nolaproject/nola/persistence/cqlstore"
)

// passwordVariable names the environment variable that holds the password, if no
// file does.
const passwordVariable = "NOLA_CQL_PASSWORD"

// cqlConfig says how to reach a Cassandra or ScyllaDB cluster, for store cql.
type cqlConfig struct {
	// Hosts are some of its nodes, HOST or HOST:PORT: default 127.0.0.1:9042.
	Hosts []string `yaml:"hosts"`
	// Keyspace holds the tables: default nola.
	Keyspace string `yaml:"keyspace"`
	// Datacenter is the one whose nodes are asked: default any.
	Datacenter string `yaml:"datacenter"`
	// Username and PasswordFile are for a cluster that wants a login. Without a file
	// the password is that of the environment variable NOLA_CQL_PASSWORD.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// TLS encrypts the connections, as does any of what follows. TLSCA is a file (PEM) of who is trusted: default
	// the system's. TLSCert and TLSKey are shown to the cluster. TLSServerName is the
	// name in its certificates, if it is not the host.
	TLS           bool   `yaml:"tls"`
	TLSCA         string `yaml:"tls_ca"`
	TLSCert       string `yaml:"tls_cert"`
	TLSKey        string `yaml:"tls_key"`
	TLSServerName string `yaml:"tls_server_name"`
	// Translate says where nodes are reached that tell other addresses of themselves,
	// IP:PORT to IP:PORT.
	Translate map[string]string `yaml:"translate"`
	// Mode is how commits are made: auto (default), quorum or lwt.
	Mode string `yaml:"mode"`
	// NodeName tells this node from all others: default the machine's name and the
	// process. A server that starts under the name of one that ended takes its shards
	// at once; two at a time take them from each other.
	NodeName string `yaml:"node_name"`
	// Lease is how long others wait for a sign of life: default 10s.
	Lease time.Duration `yaml:"lease"`
	// ApplyAge is how long what was committed may wait in memory, and in the node's
	// log, before it is written into the tables: default 5s.
	ApplyAge time.Duration `yaml:"apply_age"`
	// StrictReads has answers of turns that wrote nothing wait for a read of the
	// cluster that began after them: no clock decides whether they are of the present.
	StrictReads bool `yaml:"strict_reads"`
}

const hostDefault = "127.0.0.1:9042"

// flags adds the flags of c that one needs on a command line.
func (c *cqlConfig) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.Hosts, "cql-host", nil, "node of the Cassandra or Scylla cluster, HOST:PORT; may be repeated (default "+hostDefault+")")
	f.StringVar(&c.Keyspace, "cql-keyspace", "", "keyspace of the tables (default "+cqlstore.KeyspaceDefault+")")
	f.StringVar(&c.Datacenter, "cql-datacenter", "", "data centre whose nodes are asked (default any)")
	f.StringVar(&c.Username, "cql-username", "", "role to log in as")
	f.StringVar(&c.PasswordFile, "cql-password-file", "", "file with its password (default: environment variable "+passwordVariable+")")
	f.BoolVar(&c.TLS, "cql-tls", false, "encrypt the connections to the cluster")
	f.StringVar(&c.TLSCA, "cql-tls-ca", "", "file with the certificates that are trusted (PEM; default: the system's)")
	f.StringVar(&c.Mode, "cql-mode", "", "how commits are made: auto, quorum or lwt (default auto)")
	f.StringVar(&c.NodeName, "cql-node-name", "", "name of this node, which no other running one has (default: machine and process)")
}

// over is c with every flag that was given in its place.
func (c cqlConfig) over(flags *pflag.FlagSet, set cqlConfig) cqlConfig {
	given := map[string]func(){
		"cql-host":          func() { c.Hosts = set.Hosts },
		"cql-keyspace":      func() { c.Keyspace = set.Keyspace },
		"cql-datacenter":    func() { c.Datacenter = set.Datacenter },
		"cql-username":      func() { c.Username = set.Username },
		"cql-password-file": func() { c.PasswordFile = set.PasswordFile },
		"cql-tls":           func() { c.TLS = set.TLS },
		"cql-tls-ca":        func() { c.TLSCA = set.TLSCA },
		"cql-mode":          func() { c.Mode = set.Mode },
		"cql-node-name":     func() { c.NodeName = set.NodeName },
	}
	flags.Visit(func(f *pflag.Flag) {
		if apply := given[f.Name]; apply != nil {
			apply()
		}
	})
	return c
}

// store makes the configuration of a store. It reads the files that c names.
func (c cqlConfig) store(shards int, address string, log *slog.Logger) (cqlstore.Config, error) {
	hosts := c.Hosts
	if len(hosts) == 0 {
		hosts = []string{hostDefault}
	}
	out := cqlstore.Config{
		Hosts: hosts, Keyspace: c.Keyspace, Datacenter: c.Datacenter, Translate: c.Translate, Username: c.Username, Mode: cqlstore.Mode(c.Mode),
		Name: c.NodeName, Address: address, Shards: shards, Lease: c.Lease, ApplyAge: c.ApplyAge, Log: log,
	}
	if c.Username != "" {
		out.Password = os.Getenv(passwordVariable)
		if c.PasswordFile != "" {
			text, err := os.ReadFile(c.PasswordFile)
			if err != nil {
				return out, fmt.Errorf("read cql.password_file: %w", err)
			}
			out.Password = strings.TrimRight(string(text), "\r\n")
		}
	}
	var err error
	if out.TLS, err = c.tls(); err != nil {
		return out, err
	}
	if err := out.Validate(); err != nil {
		return out, usageError{err}
	}
	return out, nil
}

func (c cqlConfig) tls() (*tls.Config, error) {
	if !c.TLS && c.TLSCA == "" && c.TLSCert == "" && c.TLSKey == "" && c.TLSServerName == "" {
		return nil, nil // who says anything of it does not want to go without
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("read cql.tls_ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cql.tls_ca %s: it holds no certificate in PEM form", c.TLSCA)
		}
	}
	if c.TLSCert != "" || c.TLSKey != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("read cql.tls_cert and cql.tls_key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "schema",
		Short: "Make or change the tables of a Cassandra or ScyllaDB cluster",
		Long: `Make or change the tables of a Cassandra or ScyllaDB cluster, for servers with
--store cql. The commands take the section "cql" of a configuration file, and
flags over it. They need a role that may change the schema; servers do not.`,
		Example: "nolad schema setup --cql-host db1:9042 --replicas 3\nnolad schema status --config /etc/nola/nolad.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(schemaSetupCommand(), schemaUpdateCommand(), schemaStatusCommand())
	return c
}

// schemaTimeout bounds a command: on large clusters a change takes its time.
const schemaTimeout = 5 * time.Minute

// schemaRun makes a command that does something to the schema and shows what it
// is then.
func schemaRun(c *cobra.Command, do func(ctx context.Context, c cqlstore.Config) (cqlstore.SchemaStatus, error)) *cobra.Command {
	var file string
	var set cqlConfig
	c.Args = cobra.NoArgs
	c.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	set.flags(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var cfg config
		if file != "" {
			var err error
			if cfg, err = readConfig(file); err != nil {
				return err
			}
		}
		store, err := cfg.CQL.over(cmd.Flags(), set).store(0, "", newLogger(logConfig{Level: "warn"}, cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), schemaTimeout)
		defer cancel()
		status, err := do(ctx, store)
		if err != nil {
			return err
		}
		return showSchema(cmd.OutOrStdout(), status)
	}
	return c
}

func schemaSetupCommand() *cobra.Command {
	var schema cqlstore.Schema
	c := schemaRun(&cobra.Command{
		Use:   "setup",
		Short: "Make the keyspace, the tables and the cluster's facts",
		Long: `Make the keyspace, the tables and the cluster's facts, as far as they are missing.
It may be run again, and by several at once. What is there already stays as it is:
replication is changed with ALTER KEYSPACE, and the number of shards never.`,
		Example: "nolad schema setup --cql-host 127.0.0.1:9042 --replicas 1\nnolad schema setup --cql-host db1 --datacenter dc1 --datacenter dc2 --shards 1024",
	}, func(ctx context.Context, c cqlstore.Config) (cqlstore.SchemaStatus, error) {
		return cqlstore.SetupSchema(ctx, c, schema)
	})
	c.Flags().IntVar(&schema.Replicas, "replicas", 3, "copies of each row per data centre, 1 to 20")
	c.Flags().StringSliceVar(&schema.Datacenters, "datacenter", nil, "data centre of the keyspace; may be repeated (default: that of the node that answers)")
	c.Flags().IntVar(&schema.Shards, "shards", cqlstore.ShardsDefault, "number of shards, 1 to 65,536; it never changes")
	c.Flags().BoolVar(&schema.NoTablets, "no-tablets", false, "no tablets, for ScyllaDB before 2025.4, which refuses conditional writes in them")
	return c
}

func schemaUpdateCommand() *cobra.Command {
	return schemaRun(&cobra.Command{
		Use:     "update",
		Short:   "Bring the tables to the version that this program knows",
		Long:    "Bring the tables to the version that this program knows. Run it before servers of\na newer version start; those of the version before go on working.",
		Example: "nolad schema update --config /etc/nola/nolad.yaml",
	}, cqlstore.UpdateSchema)
}

func schemaStatusCommand() *cobra.Command {
	return schemaRun(&cobra.Command{
		Use:     "status",
		Short:   "Show what the keyspace holds, and whether this program can work with it",
		Long:    "Show what the keyspace holds, and whether this program can work with it. It changes\nnothing, and ends with 1 if it cannot.",
		Example: "nolad schema status --cql-host db1:9042",
	}, cqlstore.ReadSchema)
}

func showSchema(out io.Writer, s cqlstore.SchemaStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "server\t%s %s, data centre %s, commitlog_sync %s\n", s.Server.Flavour, s.Server.Version, s.Server.Datacenter, s.Server.Sync)
	fmt.Fprintf(w, "keyspace\t%s\n", s.Keyspace)
	if s.Exists {
		fmt.Fprintf(w, "replication\t%s\nversion\t%d of %d\n", s.Replication, s.Version, s.Known)
	}
	if s.Shards > 0 {
		fmt.Fprintf(w, "cluster\t%s\nshards\t%d\n", hex.EncodeToString(s.ClusterID[:]), s.Shards)
	}
	mode := "quorum"
	if s.Server.Mode != 1 {
		mode = "lwt"
	}
	fmt.Fprintf(w, "commits\t%s: %s\n", mode, s.Server.Why)
	if s.Server.Warning != "" {
		fmt.Fprintf(w, "WARNING\t%s\n", s.Server.Warning)
	}
	return errors.Join(w.Flush(), s.Usable())
}
