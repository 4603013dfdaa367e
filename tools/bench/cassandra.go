package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
	"github.com/nolaproject/nola/tools/cassandra"
)

// The load of bench cassandra.
const (
	clusterCallers = 256
	clusterActors  = 10_000
	clusterShards  = 256
)

// cassandraCommand measures a server on a Cassandra cluster, beside a loop that
// makes one conditional write per call on the same cluster.
func cassandraCommand(ctx context.Context, args []string) (err error) {
	f := newFlags("cassandra")
	hosts := f.String("cql", "", "cluster to use, HOST:PORT (default: one is started)")
	nodes := f.Int("nodes", 1, "nodes of the cluster that is started, 1 or 3")
	actors := f.Int("actors", clusterActors, "actors that are called")
	callers := f.Int("callers", clusterCallers, "callers of the row with many")
	pprof := f.String("pprof", "", "directory for CPU profiles of the server")
	if err := f.parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(f.data, 0o755); err != nil {
		return err
	}
	root, err := os.MkdirTemp(f.data, "cassandra")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	var pids []int // of the cluster, if it is ours
	if *hosts == "" {
		c, err := cassandra.Start(ctx, cassandra.Config{Dir: root, Nodes: *nodes})
		if err != nil {
			return err
		}
		defer func() {
			for _, n := range c.Nodes() {
				n.Kill()
			}
		}()
		for _, n := range c.Nodes() {
			pids = append(pids, n.PID())
		}
		*hosts = strings.Join(c.Addresses(), ",")
	}
	keyspace := "bench_" + strconv.Itoa(os.Getpid())
	setup := exec.CommandContext(ctx, f.b.nolad, "schema", "setup", "--cql-host", *hosts, "--cql-keyspace", keyspace, "--replicas", strconv.Itoa(*nodes), "--shards", strconv.Itoa(clusterShards)) //nolint:gosec // the caller names the program
	if out, err := setup.CombinedOutput(); err != nil {
		return fmt.Errorf("nolad schema setup: %w; it said:\n%s", err, out)
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	admin, err := freeAddress()
	if err != nil {
		return err
	}
	n := &node{program: f.b.nolad, dataDir: filepath.Join(root, "data"), admin: admin}
	n.args = append([]string{"serve", "--listen", address, "--admin-listen", admin, "--store", "cql", "--cql-host", *hosts, "--cql-keyspace", keyspace}, strings.Fields(f.noladArgs)...)
	n.http = &http.Client{Timeout: 2 * answerGrace}
	n.modules = nolav1connect.NewModuleServiceClient(n.http, "http://"+address)
	n.actors = nolav1connect.NewActorServiceClient(n.http, "http://"+address, connect.WithProtoJSON())
	took, err := n.start(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.pushCounter(ctx, f.b.guest); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ready after\t%s\n\nROW\tROUND\t/s\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\tCPU µs per call: cluster\tserver\n", took.Round(time.Millisecond))
	many := requests(n, gatewayInc, actorNames("c", *actors), opInc)
	one := requests(n, gatewayInc, actorNames("one", 1), opInc)
	base, err := newBaseLine(*hosts, keyspace)
	if err != nil {
		return err
	}
	defer base.session.Close()
	for round := range f.b.rounds {
		for _, r := range []struct {
			name    string
			callers int
			caller  func(int) (call, func(), error)
		}{
			{"durable call, many callers", *callers, calling(ctx, address, gatewayInc, many, func(int, int, int64) error { return nil })},
			{"durable call, one caller", 1, calling(ctx, address, gatewayInc, one, func(int, int, int64) error { return nil })},
			{"one LWT per call, many callers", *callers, base.caller},
		} {
			if !f.b.rows.MatchString(r.name) {
				continue
			}
			if _, err := drive(ctx, r.callers, f.b.each/warmupShare, r.caller); err != nil {
				return err
			}
			done := make(chan error, 1)
			done <- nil
			if *pprof != "" && round == 0 {
				done = make(chan error, 1)
				file := filepath.Join(*pprof, strings.ReplaceAll(r.name, " ", "-")+".pprof")
				go func() { done <- n.profile(ctx, f.b.each, file) }() // ends with the slice
			}
			cluster, server := cpuOf(pids...), cpuOf(n.cmd.Process.Pid)
			t, err := drive(ctx, r.callers, f.b.each, r.caller)
			if err := errors.Join(err, <-done); err != nil {
				return err
			}
			cluster, server = cpuOf(pids...)-cluster, cpuOf(n.cmd.Process.Pid)-server
			l := latencyOf(&t.hist)
			fmt.Fprintf(w, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\n", r.name, round+1, t.rate(), l.P50, l.P99, l.P999, l.Max, perCall(cluster, t), perCall(server, t))
			if t.errors > 0 {
				fmt.Fprintf(w, "\tFAILED %d: %v\n", t.errors, t.err)
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	figures, err := n.metrics(ctx, "nola_store_")
	if err != nil {
		return err
	}
	_, err = fmt.Println("\n" + figures)
	return err
}

// cpuOf is the processor time that processes have used, 0 where that cannot be read
// (elsewhere than on Linux).
func cpuOf(pids ...int) (used time.Duration) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0
		}
		// Behind the name, which may hold anything and ends with the last bracket:
		// the fields from the third on. The 14th and 15th are ticks of 10 ms.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, at := range []int{14, 15} {
			if n, err := strconv.Atoi(fields[at-3]); err == nil {
				used += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	return used
}

func perCall(used time.Duration, t *tally) float64 {
	return float64(used.Microseconds()) / float64(max(1, t.hist.n))
}

// metrics answers the lines of the server's metrics that start so.
func (n *node) metrics(ctx context.Context, prefix string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/metrics", nil)
	if err != nil {
		return "", err
	}
	res, err := n.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	var lines []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n"), err
}

// baseLine is what one does without us: a conditional write per call.
type baseLine struct {
	session *gocql.Session
	text    string
	next    atomic.Int64
}

func newBaseLine(hosts, keyspace string) (*baseLine, error) {
	c := gocql.NewCluster(strings.Split(hosts, ",")...)
	c.ProtoVersion, c.Timeout, c.ConnectTimeout = 4, 10*time.Second, 10*time.Second
	c.WriteCoalesceWaitTime = 0
	c.Logger = mute{}
	session, err := c.CreateSession()
	if err != nil {
		return nil, err
	}
	table := keyspace + ".base"
	err = session.Query("CREATE TABLE IF NOT EXISTS " + table + " (id int PRIMARY KEY, version bigint, v blob)").Exec()
	if err != nil {
		session.Close()
		return nil, err
	}
	return &baseLine{session: session, text: table}, nil
}

type mute struct{}

func (mute) Print(...any)          {}
func (mute) Printf(string, ...any) {}
func (mute) Println(...any)        {}

// caller reads nothing: it counts in rows of its own, and knows their versions.
func (b *baseLine) caller(int) (call, func(), error) {
	versions := map[int]int64{}
	me := int(b.next.Add(1)) * clusterActors
	body := make([]byte, 64)
	return func(int) error {
		id := me + rand.IntN(clusterActors/clusterCallers) //nolint:gosec // an even spread is all it is for
		v := versions[id]
		q := b.session.Query("UPDATE "+b.text+" SET version = ?, v = ? WHERE id = ? IF version = ?", v+1, body, id, v)
		if v == 0 {
			q = b.session.Query("INSERT INTO "+b.text+" (id, version, v) VALUES (?, ?, ?) IF NOT EXISTS", id, v+1, body)
		}
		applied, err := q.Consistency(gocql.LocalQuorum).SerialConsistency(gocql.LocalSerial).MapScanCAS(map[string]any{})
		if err == nil && !applied {
			err = fmt.Errorf("row %d is not at version %d", id, v)
		}
		versions[id] = v + 1
		return err
	}, nil, nil
}
