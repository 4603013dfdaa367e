package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/server/cluster"
)

// clusterConfig says who a node is among the nodes that share a store. Without
// listen the node is alone.
type clusterConfig struct {
	// Listen is where other nodes are served, HOST:PORT.
	Listen string `yaml:"listen"`
	// Advertise is the address at which other nodes reach this one: default Listen.
	Advertise string `yaml:"advertise"`
	// Name is the node's own among the others, the same after a restart.
	Name string `yaml:"name"`
	// Weight is its share of the shards, in proportion to the others', 1 to 1,000:
	// default 100.
	Weight int `yaml:"weight"`
	// Labels are what rules of placement go by.
	Labels map[string]string `yaml:"labels"`
	// TokenFile holds the secret that the nodes show each other.
	TokenFile string `yaml:"token_file"`
	// TLSCA is a file (PEM) of who is trusted at the other nodes: default the
	// system's. Nodes use TLS among themselves if tls_cert is given.
	TLSCA string `yaml:"tls_ca"`
	// Lease is how long the others wait for a sign of life before they take the
	// shards: 1s to 1m, default 3s; the same on all nodes.
	Lease time.Duration `yaml:"lease"`
}

func (c *clusterConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "cluster-listen", "", "address to serve other nodes on, HOST:PORT (default: the node is alone)")
	f.StringVar(&c.Advertise, "cluster-advertise", "", "address at which other nodes reach this one (default: that of --cluster-listen)")
	f.StringVar(&c.Name, "node-name", "", "name of this node among the others, the same after a restart")
	f.IntVar(&c.Weight, "node-weight", 0, "its share of the shards, in proportion to the others' (default 100)")
	f.StringToStringVar(&c.Labels, "node-label", nil, "label of this node that rules of placement go by, NAME=VALUE; may be repeated")
	f.StringVar(&c.TokenFile, "cluster-token-file", "", "file with the secret that the nodes show each other")
}

// over is c with every flag that was given in its place.
func (c clusterConfig) over(flags *pflag.FlagSet, set clusterConfig) clusterConfig {
	given := map[string]func(){
		"cluster-listen":     func() { c.Listen = set.Listen },
		"cluster-advertise":  func() { c.Advertise = set.Advertise },
		"node-name":          func() { c.Name = set.Name },
		"node-weight":        func() { c.Weight = set.Weight },
		"node-label":         func() { c.Labels = set.Labels },
		"cluster-token-file": func() { c.TokenFile = set.TokenFile },
	}
	flags.Visit(func(f *pflag.Flag) {
		if apply := given[f.Name]; apply != nil {
			apply()
		}
	})
	return c
}

// validateCluster calls check for everything that may be wrong with c's cluster.
func (c config) validateCluster(check func(ok bool, format string, args ...any)) {
	k := c.Cluster
	if k.Listen == "" {
		check(k.Name == "" && k.Advertise == "" && k.TokenFile == "" && k.Weight == 0, "cluster.listen is missing: it is where other nodes reach this one, for example 127.0.0.1:7468")
		return
	}
	host, _, err := net.SplitHostPort(k.Listen)
	check(err == nil, "cluster.listen %q: write HOST:PORT, for example 127.0.0.1:7468", k.Listen)
	check(k.Listen != c.Listen && k.Listen != c.AdminListen || strings.HasSuffix(k.Listen, ":0"), "cluster.listen %s is the address of another listener: nodes need a port of their own", k.Listen)
	check(c.Store == storeCQL, "cluster.listen is given, but a store %q belongs to one node: nodes of a cluster share a store %q", c.Store, storeCQL)
	err2 := nola.ValidateName("cluster.name", k.Name)
	check(err2 == nil, "%v; each node needs a name of its own, the same after a restart", err2)
	check(c.CQL.NodeName == "" || c.CQL.NodeName == k.Name, "cluster.name %q and cql.node_name %q differ: give one", k.Name, c.CQL.NodeName)
	check(c.CQL.Lease == 0 || k.Lease == 0 || c.CQL.Lease == k.Lease, "cluster.lease %s and cql.lease %s differ: give one", k.Lease, c.CQL.Lease)
	check(k.Weight >= 0 && k.Weight <= cluster.WeightMax, "cluster.weight %d: must lie between 1 and %d; `nolactl node drain` empties a node", k.Weight, cluster.WeightMax)
	check(k.Lease == 0 || k.Lease >= time.Second && k.Lease <= cluster.LeaseMax, "cluster.lease %s: must lie between 1s and %s", k.Lease, cluster.LeaseMax)
	check(len(k.Labels) <= cluster.LabelsMax, "cluster.labels: %d labels, at most %d are allowed", len(k.Labels), cluster.LabelsMax)
	for name := range k.Labels {
		check(nola.ValidateName("label", name) == nil, "cluster.labels: %q is no name: lower-case letters, digits, '.', '-' and '_'", name)
	}
	check(k.TokenFile != "", "cluster.token_file is missing: it holds the secret that nodes show each other; `openssl rand -hex 32` makes a good one")
	ip := net.ParseIP(host)
	check(err != nil || k.Advertise != "" || host != "" && (ip == nil || !ip.IsUnspecified()), "cluster.listen %s is no address that others can call: give cluster.advertise", k.Listen)
	if k.Advertise != "" {
		_, _, err := net.SplitHostPort(k.Advertise)
		check(err == nil, "cluster.advertise %q: write HOST:PORT", k.Advertise)
	}
	check(err != nil || isLoopback(host) || c.Insecure || c.TLSCert != "", "cluster.listen %s can be reached by others, so traffic must be encrypted: give tls_cert and tls_key, listen on a loopback address, or say insecure", k.Listen)
}

// settle has the store agree with the cluster about the node's name and lease.
func (c config) settle() config {
	if c.Cluster.Listen == "" {
		return c
	}
	setDefault(&c.Cluster.Lease, c.CQL.Lease)
	setDefault(&c.Cluster.Lease, cluster.LeaseDefault)
	c.CQL.NodeName, c.CQL.Lease = c.Cluster.Name, c.Cluster.Lease
	return c
}

// member makes the node's part in its cluster. address is where clients reach it,
// peer where nodes do.
func (c config) member(store persistence.Store, address, peer string, log *slog.Logger) (*cluster.Member, error) {
	k := c.Cluster
	token, err := os.ReadFile(k.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read cluster.token_file: %w", err)
	}
	conf := cluster.Config{
		Store: store, Directory: &directory{store: store.(*cqlstore.Store)},
		Name: k.Name, Address: address, Peer: peer, Version: buildVersion(), Weight: k.Weight, Labels: k.Labels,
		Token: strings.TrimSpace(string(token)), Lease: k.Lease, Logger: log,
	}
	if c.TLSCert != "" {
		conf.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if k.TLSCA != "" {
			pem, err := os.ReadFile(k.TLSCA)
			if err != nil {
				return nil, fmt.Errorf("read cluster.tls_ca: %w", err)
			}
			conf.TLS.RootCAs = x509.NewCertPool()
			if !conf.TLS.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("cluster.tls_ca %s: it holds no certificate in PEM form", k.TLSCA)
			}
		}
	}
	if len(conf.Token) < cluster.TokenBytesMin {
		return nil, usageError{fmt.Errorf("cluster.token_file %s: the token has %d bytes, at least %d are needed; `openssl rand -hex 32` makes a good one", k.TokenFile, len(conf.Token), cluster.TokenBytesMin)}
	}
	return cluster.New(conf)
}
