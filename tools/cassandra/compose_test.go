package cassandra

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// compose is what the compose files use of the format.
type compose struct {
	Name     string `yaml:"name"`
	Services map[string]struct {
		Image       string            `yaml:"image"`
		Entrypoint  []string          `yaml:"entrypoint"`
		Command     string            `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
		Healthcheck struct {
			Test     []string `yaml:"test"`
			Interval string   `yaml:"interval"`
			Timeout  string   `yaml:"timeout"`
			Retries  int      `yaml:"retries"`
		} `yaml:"healthcheck"`
		DependsOn map[string]struct {
			Condition string `yaml:"condition"`
		} `yaml:"depends_on"`
		Ports   []string `yaml:"ports"`
		Volumes []string `yaml:"volumes"`
	} `yaml:"services"`
	Volumes map[string]any `yaml:"volumes"`
}

// The compose files start what this package starts: as many nodes, one after the
// other, synced before they answer, and on loopback addresses alone.
func TestComposeFiles(t *testing.T) {
	for file, want := range map[string]struct {
		service string
		nodes   int
		image   string
		batch   string // what makes the commit log safe
	}{
		"cassandra.yaml":   {"cassandra", 1, "cassandra:" + Version, "commitlog_sync: batch"},
		"cassandra-3.yaml": {"cassandra", 3, "cassandra:" + Version, "commitlog_sync: batch"},
		"scylla.yaml":      {"scylla", 1, "scylladb/scylla:2025.4.2", "--commitlog-sync=batch"},
		"scylla-3.yaml":    {"scylla", 3, "scylladb/scylla:2025.4.2", "--commitlog-sync=batch"},
	} {
		t.Run(file, func(t *testing.T) {
			text, err := os.Open(filepath.Join("..", "..", "deploy", "compose", file))
			if err != nil {
				t.Fatal(err)
			}
			defer text.Close()
			var c compose
			decoder := yaml.NewDecoder(text)
			decoder.KnownFields(true)
			if err := decoder.Decode(&c); err != nil {
				t.Fatal(err)
			}
			if len(c.Services) != want.nodes {
				t.Errorf("%d services, want %d", len(c.Services), want.nodes)
			}
			for i := range want.nodes {
				name := fmt.Sprintf("%s%d", want.service, i+1)
				s, ok := c.Services[name]
				if !ok {
					t.Errorf("there is no service %s", name)
					continue
				}
				if s.Image != want.image {
					t.Errorf("%s: image %s, want %s", name, s.Image, want.image)
				}
				if start := strings.Join(s.Entrypoint, " ") + s.Command; !strings.Contains(start, want.batch) {
					t.Errorf("%s: started by %q, which does not say %s", name, start, want.batch)
				}
				if len(s.Ports) != 1 || s.Ports[0] != host(i+1)+":9042:9042" {
					t.Errorf("%s: ports %q, want the one of CQL on %s alone", name, s.Ports, host(i+1))
				}
				if len(s.Healthcheck.Test) != 2 || !strings.Contains(s.Healthcheck.Test[1], "SELECT") {
					t.Errorf("%s: the health check %q asks nothing by CQL", name, s.Healthcheck.Test)
				}
				if before := fmt.Sprintf("%s%d", want.service, i); i > 0 && s.DependsOn[before].Condition != "service_healthy" {
					t.Errorf("%s does not wait until %s answers", name, before)
				}
				volume := fmt.Sprintf("data%d", i+1)
				if _, ok := c.Volumes[volume]; !ok || len(s.Volumes) != 1 || !strings.HasPrefix(s.Volumes[0], volume+":") {
					t.Errorf("%s: volumes %q, want %s of its own", name, s.Volumes, volume)
				}
			}
		})
	}
}
