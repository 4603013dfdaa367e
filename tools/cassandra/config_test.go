package cassandra

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of testdata anew")

// second is the second of three nodes, with a directory that needs quoting.
func second() settings {
	return settings{dir: "/data/it's #1/node2", number: 2, nodes: 3, cqlPort: 9042, storagePort: 7000, heapMiB: 300}
}

func TestConfiguration(t *testing.T) {
	got, err := second().yaml()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cassandra.yaml", string(got))
}

func TestArguments(t *testing.T) {
	got, err := second().arguments([]string{"/m2/a.jar", "/m2/jamm-0.4.0.jar", "/m2/b.jar"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "arguments.txt", strings.Join(got, "\n")+"\n")
	if !slices.Contains(got, second().mark()) {
		t.Errorf("the arguments do not hold %s, by which a running node is recognised", second().mark())
	}
	if got, err := second().arguments([]string{"/m2/a.jar"}); err == nil {
		t.Errorf("arguments %q without the agent that Cassandra needs", got)
	}
}

func TestTokensAreSpread(t *testing.T) {
	for nodes, want := range map[int][]int64{
		1: {-9223372036854775808},
		3: {-9223372036854775808, -3074457345618258603, 3074457345618258602},
	} {
		for i := range nodes {
			if got := token(i+1, nodes); got != want[i] {
				t.Errorf("node %d of %d has token %d, want %d", i+1, nodes, got, want[i])
			}
		}
	}
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test ./tools/cassandra -rewrite accepts it):\n%s\nwant:\n%s", name, got, want)
	}
}
