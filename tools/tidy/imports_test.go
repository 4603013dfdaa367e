package tidy

import (
	"fmt"
	"strings"
	"testing"
)

// row says what one package, or a family of packages, may import. Test files are
// free: they bring real stores and guests together.
type row struct {
	packages string   // directory; "/..." at the end means it and all below, "/*" each one directly below
	ours     []string // directories under the same notation, "." is the root package
	others   []string // modules or packages of third parties, each with all below
	free     bool     // may import everything
	why      string   // printed with a violation
}

// table is the import table of ARCHITECTURE.md. The first row that fits decides.
var table = []row{
	{
		packages: ".",
		why:      "the root package says the domain's words and the treaty between code that runs actors and code that owns them; everybody depends on it, so it depends on the standard library alone",
	},
	{
		packages: "proto/...",
		ours:     []string{"proto/..."},
		others:   []string{"google.golang.org/protobuf", "connectrpc.com/connect", "buf.build/gen/go/bufbuild/protovalidate"},
		why:      "the schema says the wire and the stored records and knows nobody who uses them",
	},
	{
		packages: "scheduler",
		ours:     []string{"."},
		others:   []string{"github.com/robfig/cron/v3"},
		why:      "deciding when something fires is a calculation: no store, no wire, no clock; the cron module is for the dialect adapter only",
	},
	{
		packages: "wasmhost/...",
		ours:     []string{".", "wasmhost/..."},
		others:   []string{"github.com/go-json-experiment/json", "github.com/tetratelabs/wazero", "github.com/wapc/wapc-go"},
		why:      "running one guest call needs nothing of shards or stores; both sides meet in the root package",
	},
	{
		packages: "persistence",
		ours:     []string{".", "proto/nola/store/..."},
		others:   []string{"google.golang.org/protobuf"},
		why:      "the store contract knows neither what a shard decides nor which engine keeps it",
	},
	{
		packages: "persistence/storetest",
		ours:     []string{".", "persistence"},
		others:   []string{"github.com/google/go-cmp", "pgregory.net/rapid"},
		why:      "one conformance suite serves all engines, so it may know none of them",
	},
	{
		packages: "persistence/pebblestore",
		ours:     []string{".", "persistence"},
		others:   []string{"github.com/cockroachdb/pebble/v2"},
		why:      "an engine maps the store contract onto one database and knows nothing else",
	},
	{
		packages: "persistence/pebblestore/powercut",
		others:   []string{"github.com/cockroachdb/pebble/v2"},
		why:      "a disk knows nothing of what is written to it",
	},
	{
		packages: "persistence/memstore",
		ours:     []string{".", "persistence"},
		others:   []string{"github.com/tidwall/btree"},
		why:      "an engine maps the store contract onto one database and knows nothing else",
	},
	{
		packages: "persistence/cqlstore",
		ours:     []string{".", "persistence", "persistence/lane"},
		others:   []string{"github.com/gocql/gocql", "github.com/tidwall/btree", "golang.org/x/sync"},
		why:      "the engine does the I/O of the protocol in persistence/lane, on one driver, and knows nothing else",
	},
	{
		packages: "persistence/cqlstore/cqlfake",
		others:   []string{"github.com/datastax/go-cassandra-native-protocol", "github.com/tidwall/btree"},
		why:      "a server for tests knows nothing of who speaks to it",
	},
	{
		packages: "persistence/lane",
		ours:     []string{".", "persistence"},
		others:   []string{"github.com/klauspost/compress"},
		why:      "the protocol is stepped by the engine, the simulator and the model explorer alike: it sends nothing itself, so it knows no driver",
	},
	{
		packages: "persistence/*",
		ours:     []string{".", "persistence"},
		why:      "an engine maps the store contract onto one database and knows nothing else",
	},
	{
		packages: "shard/core",
		ours:     []string{".", "persistence", "scheduler"},
		why:      "the core is stepped by the shell and by the simulator alike; whatever it imports must be pure",
	},
	{
		packages: "shard",
		ours:     []string{".", "shard/core", "persistence", "scheduler"},
		others:   []string{"golang.org/x/sync"},
		why:      "the shell gets store and runtime handed in; it meets wasmhost only in the root package, and no engine at all",
	},
	{
		packages: "client/nolatest",
		free:     true,
	},
	{
		packages: "client",
		ours:     []string{".", "proto/nola/v1/..."},
		others:   []string{"connectrpc.com/connect", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc"},
		why:      "users link the client into their programs: it brings the wire and nothing of the server",
	},
	{
		packages: "server/...",
		ours:     []string{".", "server/...", "shard", "client", "scheduler", "persistence", "persistence/lane", "proto/nola/v1/...", "proto/nola/peer/..."},
		others: []string{
			"connectrpc.com", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc",
			"buf.build/go/protovalidate", "buf.build/gen/go/bufbuild/protovalidate", "github.com/rs/cors",
			"github.com/prometheus/client_golang", "golang.org/x/sync", "golang.org/x/time",
		},
		why: "a node gets its store and its runtime handed in and speaks to shards through the shell; stored records are private to persistence",
	},
	{
		packages: "cmd/nolactl",
		ours:     []string{".", "client", "scheduler", "proto/nola/v1/..."},
		others: []string{
			"github.com/spf13/cobra", "github.com/spf13/pflag", "go.yaml.in/yaml/v3",
			"connectrpc.com/connect", "google.golang.org/protobuf",
		},
		why: "the command line turns words into calls of every service and shows the answers in the wire's own JSON, so it knows the wire; it knows nothing of the server, and asks the scheduler only for what needs no server",
	},
	{
		packages: "cmd/nolad",
		free:     true,
	},
	{
		packages: "guest/...",
		ours:     []string{"guest/..."},
		why:      "it is compiled into every actor: each import is weight in each module, and TinyGo must take it",
	},
	{
		packages: "examples/...",
		ours:     []string{".", "guest", "client"},
		why:      "an example shows what a user can do with what a user may import",
	},
	{
		packages: "testdata/...",
		ours:     []string{"guest"},
		why:      "a test guest is an actor like any other",
	},
	{
		packages: "tools/...",
		free:     true,
	},
}

// matches reports whether a directory fits the notation of a row.
func matches(dir, pattern string) bool {
	if family, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(dir, family)
	}
	if family, ok := strings.CutSuffix(pattern, "/*"); ok {
		rest, below := strings.CutPrefix(dir, family+"/")
		return below && !strings.Contains(rest, "/")
	}
	return dir == pattern
}

func rowOf(dir string) (row, bool) {
	for _, r := range table {
		if matches(dir, r.packages) {
			return r, true
		}
	}
	return row{}, false
}

// checkImports holds every import against the table.
func checkImports(tr tree) []string {
	var problems []string
	unknown := map[string]bool{}
	for _, s := range tr.sources() {
		if s.test {
			continue
		}
		r, ok := rowOf(s.dir)
		if !ok {
			if !unknown[s.dir] {
				problems = append(problems, fmt.Sprintf("%s: the package has no row in the import table: decide what it may know and add one (tools/tidy/imports_test.go, ARCHITECTURE.md)", s.dir))
			}
			unknown[s.dir] = true
			continue
		}
		if r.free {
			continue
		}
		for _, spec := range s.ast.Imports {
			if imported := importPath(spec); !r.allows(imported) {
				problems = append(problems, s.at(spec.Pos(), "%s may not import %s: %s", s.dir, imported, r.why))
			}
		}
	}
	return problems
}

func (r row) allows(imported string) bool {
	if within(imported, module) {
		dir := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
		if dir == "" {
			dir = "."
		}
		for _, pattern := range r.ours {
			if matches(dir, pattern) {
				return true
			}
		}
		return false
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") {
		return true // the standard library
	}
	for _, other := range r.others {
		if within(imported, other) {
			return true
		}
	}
	return false
}

func TestImports(t *testing.T) { holds(t, checkImports) }

func TestImportsCanFail(t *testing.T) {
	importing := func(file, imported string) tree {
		return tree{file: "package p\n\nimport _ \"" + imported + "\"\n"}
	}
	canFail(t, checkImports, map[string]example{
		"ours upward":           {importing("scheduler/a.go", module+"/shard"), "scheduler/a.go:3: scheduler may not import " + module + "/shard: deciding when"},
		"ours sideways":         {importing("shard/a.go", module+"/wasmhost"), "meets wasmhost only in the root package"},
		"concrete store":        {importing("server/a.go", module+"/persistence/pebblestore"), "handed in"},
		"stored records":        {importing("server/a.go", module+"/proto/nola/store/v1"), "private to persistence"},
		"third party":           {importing("shard/core/a.go", "github.com/google/go-cmp/cmp"), "must be pure"},
		"root is bare":          {importing("a.go", "google.golang.org/protobuf/proto"), "standard library alone"},
		"engine of another":     {importing("persistence/memstore/a.go", "github.com/cockroachdb/pebble/v2"), "one database"},
		"engine of the sibling": {importing("persistence/memstore/a.go", module+"/persistence/pebblestore"), "one database"},
		"prefix is no parent":   {importing("client/a.go", "connectrpc.com/connectors"), "nothing of the server"},
		"no row":                {importing("queue/a.go", "fmt"), "queue: the package has no row"},
		"standard library":      {importing("shard/core/a.go", "go/token"), ""},
		"allowed":               {importing("persistence/pebblestore/a.go", "github.com/cockroachdb/pebble/v2/vfs"), ""},
		"allowed family":        {importing("client/a.go", module+"/proto/nola/v1/nolav1connect"), ""},
		"tests are free":        {importing("shard/a_test.go", module+"/persistence/pebblestore"), ""},
	})
}
