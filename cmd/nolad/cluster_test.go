package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestClusterOnCQL starts three servers that share a store, and stops one after the
// other: calls by way of any of them reach the actors, and nothing is lost.
func TestClusterOnCQL(t *testing.T) {
	const shards = 12
	fake, err := cqlfake.Start(cqlfake.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fake.Close() })
	if _, err := cqlstore.SetupSchema(t.Context(), cqlstore.Config{Hosts: []string{fake.Address()}}, cqlstore.Schema{Replicas: 1, Shards: shards}); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a secret of the cluster\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var nodes []*running
	var clients []*client.Client
	stopped := 0
	t.Cleanup(func() {
		for _, r := range nodes[stopped:] {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 3 {
		cfg := config{
			Listen: "127.0.0.1:0", Store: storeCQL, DataDir: filepath.Join(dir, fmt.Sprint("n", i)), CQL: cqlConfig{Hosts: []string{fake.Address()}},
			Cluster: clusterConfig{Listen: "127.0.0.1:0", Name: fmt.Sprint("n", i), TokenFile: token, Lease: time.Second},
		}.withDefaults()
		if err := cfg.validate(); err != nil {
			t.Fatal(err)
		}
		r, err := start(t.Context(), cfg, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, r)
		r.SetReady(true)
		c, err := client.New(r.url(), client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	spread := func(want int) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			served, with := 0, 0
			list, err := clients[2].Cluster.ListNodes(t.Context(), connect.NewRequest(&nolav1.ListNodesRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list.Msg.GetNodes() {
				if served += int(n.GetShards()); n.GetShards() > 0 {
					with++
				}
			}
			if served == shards && with == want {
				tick.Stop()
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("not within 30 s: %d shards on %d nodes: %v", shards, want, list.Msg.GetNodes())
			}
		}
	}
	spread(3)
	lanes := func(nodes int) {
		t.Helper()
		open := nodes
		list, err := clients[2].Cluster.ListLanes(t.Context(), connect.NewRequest(&nolav1.ListLanesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		own := 0
		for _, l := range list.Msg.GetLanes() {
			switch {
			case !l.GetSealed():
				open--
			case l.FinalSeq == nil:
				t.Errorf("a lane that was ended has no last entry: %v", l)
			}
			if l.Unapplied != nil {
				own++
			}
		}
		if own -= nodes; open != 0 || own != 0 {
			t.Errorf("%d nodes more than open lanes, and %d lanes more whose nodes answer than nodes: %v", open, own, list.Msg.GetLanes())
		}
	}
	lanes(3)
	code, err := os.ReadFile("../../testdata/guests/small/small.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients[0].Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "small", Wasm: code})); err != nil {
		t.Fatal(err)
	}
	const actors = 12
	calls := 0
	inc := func(through []*client.Client) {
		t.Helper()
		for _, c := range through {
			calls++
			for i := range actors {
				r, err := c.Invoke(t.Context(), nola.ActorRef{Namespace: "default", Type: "small", ID: fmt.Sprint("a", i)}, "inc", nil)
				if err != nil || string(r.Payload) != fmt.Sprint(calls) {
					t.Fatalf("call %d of actor %d: %q, %v", calls, i, r.Payload, err)
				}
			}
		}
	}
	inc(clients)
	for i := range 2 {
		stopped++
		if err := nodes[i].stop(); err != nil {
			t.Fatal(err)
		}
		inc(clients[i+1:])
		spread(2 - i)
	}
	lanes(1)
	inc(clients[2:])
	for i := range 3 {
		if code, err := filepath.Glob(filepath.Join(dir, fmt.Sprint("n", i), codeDir, "*", "*")); len(code) == 0 {
			t.Errorf("server %d keeps no compiled code in its data directory (%v)", i, err)
		}
	}
}

// TestClusterOverTLS has two servers call each other with a certificate that cluster.tls_ca
// trusts and the system does not.
func TestClusterOverTLS(t *testing.T) {
	fake, err := cqlfake.Start(cqlfake.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fake.Close() })
	if _, err := cqlstore.SetupSchema(t.Context(), cqlstore.Config{Hosts: []string{fake.Address()}}, cqlstore.Schema{Replicas: 1, Shards: 4}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	writeCertificate(t, file("crt"), file("key"), 1, net.IPv4(127, 0, 0, 1))
	cfg := config{
		Listen: "127.0.0.1:0", Store: storeCQL, TLSCert: file("crt"), TLSKey: file("key"), CQL: cqlConfig{Hosts: []string{fake.Address()}},
		Cluster: clusterConfig{Listen: "127.0.0.1:0", TokenFile: writeFile(t, "token", "a secret of the cluster\n"), Lease: time.Second},
	}
	for ca, says := range map[string]string{file("none"): "read cluster.tls_ca", writeFile(t, "empty.crt", "nothing\n"): "it holds no certificate in PEM form"} {
		wrong := cfg
		wrong.Cluster.Name, wrong.Cluster.TLSCA = "n", ca
		if _, err := wrong.withDefaults().member((*cqlstore.Store)(nil), "", "", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("with cluster.tls_ca %s: %v, want %q", ca, err, says)
		}
	}
	pem, err := os.ReadFile(file("crt"))
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	cfg.Cluster.TLSCA = file("crt")
	clients := make([]*client.Client, 2)
	for i := range clients {
		own := cfg
		own.Cluster.Name, own.DataDir = fmt.Sprint("n", i), file(fmt.Sprint("n", i))
		own = own.withDefaults()
		if err := own.validate(); err != nil {
			t.Fatal(err)
		}
		r, err := start(t.Context(), own, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		})
		r.SetReady(true)
		if clients[i], err = client.New(r.url(), client.Options{TLS: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS13}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 30*time.Second, "each has two shards", func() bool {
		list, err := clients[0].Cluster.ListNodes(t.Context(), connect.NewRequest(&nolav1.ListNodesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		nodes := list.Msg.GetNodes()
		return len(nodes) == 2 && nodes[0].GetShards() == 2 && nodes[1].GetShards() == 2
	})
	code, err := os.ReadFile("../../testdata/guests/small/small.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients[0].Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "small", Wasm: code})); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for calls, c := range clients { // one of them always stands on the wrong side
		for i := range 12 {
			r, err := c.Invoke(ctx, nola.ActorRef{Namespace: "default", Type: "small", ID: fmt.Sprint("a", i)}, "inc", nil)
			if err != nil || string(r.Payload) != fmt.Sprint(calls+1) {
				t.Fatalf("by way of server %d, actor %d: %q, %v", calls, i, r.Payload, err)
			}
		}
	}
}

func TestClusterConfigFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*config)
		want   string
	}{
		"good":               {change: func(*config) {}},
		"no name":            {func(c *config) { c.Cluster.Name = "" }, "cluster.name"},
		"no token":           {func(c *config) { c.Cluster.TokenFile = "" }, "cluster.token_file is missing"},
		"a store of its own": {func(c *config) { c.Store = storePebble }, "nodes of a cluster share a store"},
		"no port":            {func(c *config) { c.Cluster.Listen = "127.0.0.1" }, "write HOST:PORT"},
		"the clients' port":  {func(c *config) { c.Cluster.Listen = c.Listen }, "a port of their own"},
		"in the open":        {func(c *config) { c.Cluster.Listen = "10.0.0.1:7468" }, "must be encrypted"},
		"no address":         {func(c *config) { c.Cluster.Listen, c.Insecure = "0.0.0.0:7468", true }, "give cluster.advertise"},
		"too heavy":          {func(c *config) { c.Cluster.Weight = 1001 }, "between 1 and 1000"},
		"two names":          {func(c *config) { c.CQL.NodeName = "other" }, "differ"},
		"a short lease":      {func(c *config) { c.Cluster.Lease = time.Millisecond }, "between 1s"},
		"a bad label":        {func(c *config) { c.Cluster.Labels = map[string]string{"nola/x": "1"} }, "is no name"},
		"no listener":        {func(c *config) { c.Cluster.Listen = "" }, "cluster.listen is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config{Store: storeCQL, Cluster: clusterConfig{Listen: "127.0.0.1:7468", Name: "n1", TokenFile: "token"}}.withDefaults()
			tt.change(&c)
			err := c.validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("validate answered %v, want %q", err, tt.want)
			}
		})
	}
}
