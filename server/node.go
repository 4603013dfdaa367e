package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/server/cluster"
	"github.com/nolaproject/nola/shard"
)

// NodeConfig says what a node is made of. Store and Runtime are required, and
// stay the caller's: they are closed after the node.
type NodeConfig struct {
	Store   persistence.Store
	Runtime nola.Runtime
	// StoreName, Version, Address, BackupDir, Tokens and AllowedOrigins are as in
	// Config.
	StoreName      string
	Version        string
	Address        string
	BackupDir      string
	Tokens         *Tokens
	AllowedOrigins []string
	// Cluster, if set, is this node's part in a cluster: a new member, which the node
	// runs and ends.
	Cluster *cluster.Member
	// Shards bounds the work of the shards. Its Store, Modules, Now, Virtual and
	// Logger are filled in; its Events are told as well as the metrics.
	Shards shard.Config
	// Now is the clock: default time.Now.
	Now func() time.Time
	// Virtual, if set, is the clock instead; the Runtime has to go by it too.
	Virtual *shard.VirtualClock
	// Logger hears of changes of state: default slog.Default.
	Logger *slog.Logger
}

// Node is a store's shards at work, with the API over them. Its states are
// starting (nothing is served until Ready), ready, draining and closed.
type Node struct {
	*Server
	modules *Modules
	shards  *shard.Manager
	cluster *cluster.Member // nil for a node alone

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// OpenNode takes the store's shards over and starts to serve them. Close ends
// everything that it starts.
func OpenNode(ctx context.Context, cfg NodeConfig) (*Node, error) {
	if cfg.Store == nil || cfg.Runtime == nil {
		return nil, errors.New("server: NodeConfig needs Store and Runtime")
	}
	if cfg.Virtual != nil {
		cfg.Now = cfg.Virtual.Now
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	metrics := NewMetrics()
	if held, ok := cfg.Runtime.(interface{ Bytes() int64 }); ok {
		metrics.SetInstanceBytes(held.Bytes)
	}
	if runtime, ok := cfg.Runtime.(persistence.Metricser); ok {
		metrics.SetRuntime(runtime.Metrics)
	}
	n := &Node{modules: NewModules(cfg.Store, cfg.Runtime), cluster: cfg.Cluster}
	sc := cfg.Shards
	sc.Store, sc.Modules, sc.Now, sc.Virtual, sc.Logger = cfg.Store, n.modules, cfg.Now, cfg.Virtual, cfg.Logger
	sc.Events = counted(sc.Events, metrics)
	if n.cluster != nil {
		sc.Peers = n.cluster
		sc.Events = lookWhenFenced(sc.Events, n.cluster)
	}
	var err error
	if n.shards, err = shard.Open(ctx, sc); err != nil {
		return nil, fmt.Errorf("server: open the shards: %w", err)
	}
	if n.cluster != nil {
		n.cluster.Attach(n.shards)
	}
	n.Server, err = New(Config{
		Store: cfg.Store, Modules: n.modules, Shards: n.shards, Cluster: n.cluster, Metrics: metrics,
		StoreName: cfg.StoreName, Version: cfg.Version, Address: cfg.Address, BackupDir: cfg.BackupDir,
		Tokens: cfg.Tokens, AllowedOrigins: cfg.AllowedOrigins, Now: cfg.Now, VirtualTime: cfg.Virtual != nil, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, n.shards.Close())
	}
	var background context.Context
	background, n.stop = context.WithCancel(context.Background())
	n.wg.Go(func() { n.RunDeletes(background) })
	n.wg.Go(func() { n.RunCalendars(background) })
	if n.cluster != nil {
		n.wg.Go(func() { n.cluster.Run(background) })
		n.wg.Go(func() { n.modules.runRefresh(background) })
	}
	return n, nil
}

// Advance moves virtual time to a later time and answers the time that was
// reached; see shard.Manager.Advance.
func (n *Node) Advance(ctx context.Context, to time.Time) (time.Time, error) {
	return n.shards.Advance(ctx, to)
}

// Modules is the node's registry of modules.
func (n *Node) Modules() *Modules { return n.modules }

// Drain stops the intake and waits until what was admitted is answered and
// durable, or ctx ends. Requests are refused as UNAVAILABLE from then on. In a
// cluster the node gives its shards away before, and passes requests on meanwhile.
func (n *Node) Drain(ctx context.Context) error {
	n.SetReady(false)
	if n.cluster != nil {
		n.cluster.Leave(ctx)
	}
	return n.shards.Drain(ctx)
}

// Close ends the node, once. What was not drained is interrupted and rolled back;
// a backup that is being made is completed.
func (n *Node) Close() error {
	n.SetReady(false)
	n.stop()
	n.wg.Wait()
	n.endBackups()
	return n.shards.Close()
}

// lookWhenFenced has the node look who owns a shard that was fenced.
func lookWhenFenced(tell shard.Events, m *cluster.Member) shard.Events {
	fenced := tell.Fenced
	tell.Fenced = func(id nola.ShardID, err error) {
		m.Look()
		if fenced != nil {
			fenced(id, err)
		}
	}
	return tell
}

// counted has the metrics count what the shards tell, in front of whoever else
// wants to hear it.
func counted(tell shard.Events, m *Metrics) shard.Events {
	turn, rested, commit, fired := tell.Turn, tell.Rested, tell.Commit, tell.Fired
	tell.Turn = func(kind nola.Kind, ref nola.ActorRef, took time.Duration, steps uint64, err error) {
		m.Turn(kind, reasonOf(err), took)
		if turn != nil {
			turn(kind, ref, took, steps, err)
		}
	}
	tell.Rested = func(ref nola.ActorRef) {
		m.Rested(ref)
		if rested != nil {
			rested(ref)
		}
	}
	tell.Commit = func(batches, bytes int, took time.Duration) {
		m.Commit(batches, bytes, took)
		if commit != nil {
			commit(batches, bytes, took)
		}
	}
	tell.Fired = func(ref nola.ScheduleRef, o nola.Occurrence, reply []byte) {
		m.Firing(o.Outcome, o.Count, o.OK, o.Started.Sub(o.Nominal))
		if fired != nil {
			fired(ref, o, reply)
		}
	}
	return tell
}

// reasonOf is why something failed, empty if it did not.
func reasonOf(err error) nola.Reason {
	var e *nola.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Reason
	default:
		return nola.ReasonInternal
	}
}
