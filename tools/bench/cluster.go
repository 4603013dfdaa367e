package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
	"github.com/nolaproject/nola/tools/cassandra"
	"github.com/nolaproject/nola/tools/cluster"
)

// lwtRow is what one does without us.
const lwtRow = "one LWT per call, many callers"

// The gaps of bench cluster.
const (
	probesMax   = 16 // shards of the server that is disturbed, each called by one caller
	probeEvery  = 25 * time.Millisecond
	probeTail   = 500 * time.Millisecond // calls go on so long after all has settled
	undisturbed = 5 * time.Second        // about as long as a drain
	ownersMax   = time.Minute
	ownersPoll  = 20 * time.Millisecond
)

// clusterBench is three servers on three nodes of Cassandra.
type clusterBench struct {
	f       *flags
	c       *cluster.Cluster
	nodes   []*node // the servers, as the load knows them
	clients []*client.Client
	w       *tabwriter.Writer
}

// clusterCommand measures servers that share a Cassandra: rates beside a loop that
// makes one conditional write per call on the same cluster, and how long a shard
// is not served when its owner is killed, drained or restarted.
func clusterCommand(ctx context.Context, args []string) (err error) {
	f := newFlags("cluster")
	mode := f.String("mode", "quorum", "how commits are made: quorum or lwt")
	actors := f.Int("actors", clusterActors, "actors that are called")
	callers := f.Int("callers", clusterCallers, "callers of the row with many")
	shards := f.Int("shards", clusterShards, "shards of the cluster")
	kills := f.Int("kills", 0, "how often a server is killed")
	drains := f.Int("drains", 0, "how often a server is drained and taken back")
	restarts := f.Int("restarts", 0, "how often each server is restarted")
	warm := f.Duration("warm", 0, "how long each row runs before the first round, while Cassandra's code is compiled; then each server is drained once before gaps are measured, too")
	pprof := f.String("pprof", "", "directory for CPU profiles of the first server")
	if err := f.parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(f.data, 0o755); err != nil {
		return err
	}
	root, err := os.MkdirTemp(f.data, "cluster")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	db, err := cassandra.Start(ctx, cassandra.Config{Dir: filepath.Join(root, "cassandra"), Nodes: cassandra.NodesMax})
	if err != nil {
		return err
	}
	defer func() {
		for _, n := range db.Nodes() {
			n.Kill()
		}
	}()
	b := &clusterBench{f: f, w: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
	if b.c, err = cluster.Start(ctx, cluster.Config{Dir: filepath.Join(root, "servers"), Program: f.b.nolad, CQL: db.Addresses(), Shards: *shards, Mode: *mode}); err != nil {
		return err
	}
	defer b.c.Kill()
	for _, s := range b.c.Servers() {
		c, err := client.New(s.URL(), client.Options{})
		if err != nil {
			return err
		}
		defer c.Close()
		b.clients = append(b.clients, c)
		n := &node{process: &process{address: strings.TrimPrefix(s.URL(), "http://")}, admin: strings.TrimPrefix(s.Admin(), "http://"), http: &http.Client{Timeout: 2 * answerGrace}}
		n.modules = nolav1connect.NewModuleServiceClient(n.http, s.URL())
		b.nodes = append(b.nodes, n)
	}
	if err := b.nodes[0].pushCounter(ctx, f.b.guest); err != nil {
		return err
	}
	if err := b.settle(ctx, -1); err != nil {
		return err
	}
	fmt.Printf("3 servers, 3 nodes of Cassandra %s with 3 replicas, %d shards, mode %s\n\n", cassandra.Version, *shards, *mode)
	if err := b.rates(ctx, strings.Join(db.Addresses(), ","), *actors, *callers, *warm, *pprof); err != nil {
		return err
	}
	if *warm > 0 && *kills+*drains+*restarts > 0 {
		if err := b.drainEach(ctx); err != nil {
			return err
		}
	}
	return b.gaps(ctx, *kills, *drains, *restarts)
}

// rates measures calls, spread over all servers and then passed on to the owner.
func (b *clusterBench) rates(ctx context.Context, hosts string, actors, callers int, warm time.Duration, pprof string) error {
	base, err := newBaseLine(hosts, "nola")
	if err != nil {
		return err
	}
	defer base.session.Close()
	// spread gives each caller the next server.
	spread := func(ids []string) func(int) (call, func(), error) {
		var to []func(int) (call, func(), error)
		for _, n := range b.nodes {
			to = append(to, calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(int, int, int64) error { return nil }))
		}
		return func(caller int) (call, func(), error) { return to[caller%len(to)](caller) }
	}
	fmt.Fprintf(b.w, "ROW\tROUND\t/s\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\tbatches per entry\tturns per entry\tcommit ms\tLWTs per 1,000 turns\n")
	for round := range b.f.b.rounds {
		for _, r := range []struct {
			name    string
			callers int
			caller  func(int) (call, func(), error)
		}{
			{"durable call, many callers", callers, spread(actorNames("c", actors))},
			{"durable call, one caller", 1, spread(actorNames("one", 3))},
			{lwtRow, callers, base.caller},
		} {
			if !b.f.b.rows.MatchString(r.name) {
				continue
			}
			before := b.f.b.each / warmupShare
			if round == 0 {
				before = max(before, warm)
			}
			if _, err := drive(ctx, r.callers, before, r.caller); err != nil {
				return err
			}
			profiled := make(chan error, 1)
			profiled <- nil
			if pprof != "" && round == 0 {
				profiled = make(chan error, 1)
				file := filepath.Join(pprof, strings.ReplaceAll(r.name, " ", "-")+".pprof")
				go func() { profiled <- b.nodes[0].profile(ctx, b.f.b.each, file) }() // ends with the slice
			}
			then, err := b.figures(ctx)
			if err != nil {
				return err
			}
			t, err := drive(ctx, r.callers, b.f.b.each, r.caller)
			if err := errors.Join(err, <-profiled); err != nil {
				return err
			}
			after, err := b.figures(ctx)
			if err != nil {
				return err
			}
			l := latencyOf(&t.hist)
			fmt.Fprintf(b.w, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f", r.name, round+1, t.rate(), l.P50, l.P99, l.P999, l.Max)
			of := func(name string) float64 { return after[name] - then[name] }
			if entries := of("nola_store_entries_total"); entries > 0 && r.name != lwtRow {
				fmt.Fprintf(b.w, "\t%.1f\t%.1f\t%.2f\t%.2f", of("nola_store_batches_total")/entries, of("nola_turns_total")/entries,
					1_000*of("nola_commit_seconds_sum")/max(1, of("nola_commit_seconds_count")), 1_000*of("nola_store_lwts_total")/max(1, of("nola_turns_total")))
			}
			fmt.Fprintln(b.w)
			if t.errors > 0 {
				fmt.Fprintf(b.w, "\tFAILED %d: %v\n", t.errors, t.err)
			}
			if err := b.w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// figures adds up the metrics of all servers, over their labels.
func (b *clusterBench) figures(ctx context.Context) (map[string]float64, error) {
	all := map[string]float64{}
	for _, n := range b.nodes {
		text, err := n.metrics(ctx, "nola_")
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(strings.NewReader(text))
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), " ")
			name, labels, labelled := strings.Cut(name, "{")
			if labelled { // a label may have a space in it
				_, value, _ = strings.Cut(lines.Text()[len(name)+1:], "} ")
				_ = labels
			}
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				all[name] += v
			}
		}
	}
	return all, nil
}

// gaps measures how long shards of a server are not served that is disturbed, as
// callers of the default client see it at the other two.
func (b *clusterBench) gaps(ctx context.Context, kills, drains, restarts int) error {
	servers := b.c.Servers()
	// What a gap is while nothing moves: a call waits for a slow commit then, too.
	quiet := func(int) error {
		select {
		case <-time.After(undisturbed):
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	for _, g := range []struct {
		name  string
		times int
		do    func(i int) error // and waits until others have the shards
		after func(i int) error // and waits until it has its own again
	}{
		{"undisturbed", max(drains, restarts*len(servers)), quiet, quiet},
		{"kill -9", kills, func(i int) error { servers[i].Kill(); return b.settle(ctx, i) }, func(i int) error { return servers[i].Start(ctx) }},
		{"drain", drains, func(i int) error { return errors.Join(b.drain(ctx, i, false), b.settle(ctx, i)) }, func(i int) error { return b.drain(ctx, i, true) }},
		{"restart", restarts * len(servers), func(i int) error { return errors.Join(servers[i].Stop(), b.settle(ctx, i)) }, func(i int) error { return servers[i].Start(ctx) }},
	} {
		var away, back gapTally
		for n := range g.times {
			i := n % len(servers)
			if err := b.settle(ctx, -1); err != nil {
				return err
			}
			refs, err := b.owned(ctx, i)
			if err != nil {
				return err
			}
			if err := b.probe(ctx, i, refs, &away, func() error { return g.do(i) }); err != nil {
				return err
			}
			if err := b.probe(ctx, i, refs, &back, func() error { return errors.Join(g.after(i), b.settle(ctx, -1)) }); err != nil {
				return err
			}
		}
		if g.times == 0 {
			continue
		}
		fmt.Printf("\n%s, %d times: gap of each shard that goes away\n%s", g.name, g.times, away.String())
		fmt.Printf("%s, %d times: gap of each shard that comes back\n%s", g.name, g.times, back.String())
	}
	return nil
}

// drain has a server give its shards away, or take its own back.
func (b *clusterBench) drain(ctx context.Context, i int, undo bool) error {
	_, err := b.clients[(i+1)%len(b.clients)].Cluster.DrainNode(ctx, connect.NewRequest(&nolav1.DrainNodeRequest{Node: b.c.Servers()[i].Name(), Undo: undo}))
	return err
}

// drainEach drains each server and takes it back, so that what this asks of Cassandra
// is compiled.
func (b *clusterBench) drainEach(ctx context.Context) error {
	for i := range b.nodes {
		if err := errors.Join(b.drain(ctx, i, false), b.settle(ctx, i), b.drain(ctx, i, true), b.settle(ctx, -1)); err != nil {
			return err
		}
	}
	return nil
}

// owned answers actors of different shards that a server owns.
func (b *clusterBench) owned(ctx context.Context, i int) ([]nola.ActorRef, error) {
	var refs []nola.ActorRef
	seen := map[uint32]bool{}
	for n := 0; len(refs) < probesMax && n < 100*probesMax; n++ {
		ref := nola.ActorRef{Namespace: namespace, Type: counterModule, ID: "p" + strconv.Itoa(n)}
		res, err := b.clients[i].Cluster.LocateActor(ctx, connect.NewRequest(&nolav1.LocateActorRequest{Actor: &nolav1.ActorRef{Namespace: namespace, Type: ref.Type, Id: ref.ID}}))
		if err != nil {
			return nil, err
		}
		if m := res.Msg; !seen[m.GetShard()] && m.GetNode().GetName() == b.c.Servers()[i].Name() {
			seen[m.GetShard()] = true
			refs = append(refs, ref)
		}
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("%s owns no shard", b.c.Servers()[i].Name())
	}
	return refs, nil
}

// settle waits until the servers see all shards owned, by all of them or by all
// but one.
func (b *clusterBench) settle(ctx context.Context, but int) error {
	ctx, cancel := context.WithTimeout(ctx, ownersMax)
	defer cancel()
	for {
		settled := true
		var seen []string
		for i, c := range b.clients {
			if i == but {
				continue
			}
			res, err := c.Cluster.ListNodes(ctx, connect.NewRequest(&nolav1.ListNodesRequest{}))
			if err != nil {
				return err
			}
			sum, with := 0, 0
			for _, n := range res.Msg.GetNodes() {
				seen = append(seen, fmt.Sprintf("%s sees %s %s with %d shards", b.c.Servers()[i].Name(), n.GetState(), n.GetName(), n.GetShards()))
				if sum += int(n.GetShards()); n.GetShards() > 0 {
					with++
				}
			}
			info, err := c.Cluster.GetCluster(ctx, connect.NewRequest(&nolav1.GetClusterRequest{}))
			if err != nil {
				return err
			}
			want := len(b.clients)
			if but >= 0 {
				want--
			}
			settled = settled && sum == int(info.Msg.GetCluster().GetNumShards()) && with == want
		}
		if settled {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the shards have no owners after %s: %w; %s", ownersMax, ctx.Err(), strings.Join(seen, ", "))
		case <-time.After(ownersPoll):
		}
	}
}

// gapTally is the longest time without an answer of each shard that was disturbed.
type gapTally struct {
	hist   histogram
	calls  int
	failed int
	err    error // one of them
}

func (g *gapTally) String() string {
	text := fmt.Sprintf("  %d shards: p50 %.0f ms, p90 %.0f ms, p99 %.0f ms, max %.0f ms; %d calls, %d failed\n",
		g.hist.n, ms(g.hist.quantile(.5)), ms(g.hist.quantile(.9)), ms(g.hist.quantile(.99)), ms(g.hist.max), g.calls, g.failed)
	if g.err != nil {
		text += fmt.Sprintf("  FAILED: %v\n", g.err)
	}
	return text
}

// probe calls each actor every probeEvery by way of the servers that stay, while
// one is disturbed.
func (b *clusterBench) probe(ctx context.Context, disturbed int, refs []nola.ActorRef, into *gapTally, disturb func() error) error {
	calls, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex // guards into
	var wg, warm sync.WaitGroup
	for n, ref := range refs {
		c := b.clients[(disturbed+1+n%2)%len(b.clients)]
		warm.Add(1)
		wg.Go(func() {
			tick := time.NewTicker(probeEvery)
			defer tick.Stop()
			var last time.Time
			var worst time.Duration
			count, failed := 0, 0
			var why error
			for calls.Err() == nil {
				_, err := c.Invoke(ctx, ref, opInc, nil)
				now := time.Now()
				switch {
				case err != nil:
					failed, why = failed+1, err
				case last.IsZero():
					warm.Done()
				default:
					worst = max(worst, now.Sub(last))
				}
				if err == nil {
					last = now
				}
				count++
				select {
				case <-tick.C:
				case <-calls.Done():
				}
			}
			if last.IsZero() {
				warm.Done()
			}
			mu.Lock()
			defer mu.Unlock()
			into.hist.add(worst)
			into.calls += count
			if into.failed += failed; into.err == nil {
				into.err = why
			}
		})
	}
	warm.Wait()
	err := disturb()
	select {
	case <-time.After(probeTail):
	case <-ctx.Done():
	}
	stop()
	wg.Wait()
	return err
}
