package containers

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/cassandra"
	"github.com/testcontainers/testcontainers-go/modules/scylladb"
)

const (
	scyllaImage    = "scylladb/scylla:2025.4.2"
	cassandraImage = "cassandra:5.0.6"
)

// TestStore runs the tests of the store on each server. Both commit modes are met:
// a server that acknowledges before it syncs is committed to by conditional
// writes.
func TestStore(t *testing.T) {
	testcontainers.SkipIfProviderIsNotHealthy(t)
	for name, run := range map[string]func(*testing.T) string{
		"scylla, periodic sync": func(t *testing.T) string { return scylla(t) },
		"scylla, batch sync":    func(t *testing.T) string { return scylla(t, "--commitlog-sync=batch") },
		"cassandra": func(t *testing.T) string {
			c, err := cassandra.Run(t.Context(), cassandraImage)
			testcontainers.CleanupContainer(t, c)
			if err != nil {
				t.Fatal(err)
			}
			return address(t, c.ConnectionHost)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tests := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=20m", "./persistence/cqlstore")
			tests.Dir = "../.."
			tests.Env = append(os.Environ(), "NOLA_SLOW=1", "NOLA_TEST_CQL="+run(t))
			if out, err := tests.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func scylla(t *testing.T, flags ...string) string {
	t.Helper()
	c, err := scylladb.Run(t.Context(), scyllaImage, scylladb.WithCustomCommands(flags...))
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return address(t, c.NonShardAwareConnectionHost)
}

func address(t *testing.T, of func(context.Context) (string, error)) string {
	t.Helper()
	a, err := of(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}
