package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/server"
	"github.com/nolaproject/nola/server/cluster"
	"github.com/nolaproject/nola/shard"
	"github.com/nolaproject/nola/wasmhost"
)

// codeDir is where, in the data directory, compiled code is kept. It can be
// deleted at any time while no server runs.
const codeDir = "code"

// closeTimeout is how long requests may go on after the drain, to take their
// answers or to end their streams.
const (
	closeTimeout  = 5 * time.Second
	streamTimeout = 250 * time.Millisecond
)

// running is a server at work.
type running struct {
	*server.Node
	cfg   config
	log   *slog.Logger
	store persistence.Store
	guest *wasmhost.Runtime
	// ballast is held as long as the node runs; see newBallast.
	ballast []byte

	cancel  context.CancelFunc // ends requests
	serving sync.WaitGroup
	failed  chan error // of a listener that broke
	public  *http.Server
	admin   *http.Server
	peers   *http.Server
	address net.Addr
	secure  bool
}

// instanceBytesHard times limits.instance_bytes is what guests cannot exceed.
const instanceBytesHard = 2

// newLogger makes the logger that c describes, of a valid configuration.
func newLogger(c logConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// start opens everything and serves. What was opened is closed again if it
// fails. fired, if it is not nil, is told of firings.
func start(ctx context.Context, cfg config, log *slog.Logger, fired func(nola.ScheduleRef, nola.Occurrence, []byte)) (r *running, err error) {
	var undo []func() error
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
	}()
	memory := memoryLimit()
	cfg.Limits = cfg.Limits.withMemory(memory)
	r = &running{cfg: cfg, log: log, failed: make(chan error, 3), ballast: newBallast()}
	var conf *tls.Config
	if cfg.TLSCert != "" {
		if conf, err = loadTLS(cfg.TLSCert, cfg.TLSKey, log); err != nil {
			return nil, err
		}
		r.secure = true
	}
	var tokens *server.Tokens
	if cfg.TokenFile != "" {
		if tokens, err = server.LoadTokens(cfg.TokenFile); err != nil {
			return nil, err
		}
	}
	// Ports first: it is quick, and two servers on one port are the usual mistake.
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, err
	}
	undo = append(undo, listener.Close)
	r.address = listener.Addr()
	var adminListener net.Listener
	if cfg.AdminListen != "" {
		if adminListener, err = net.Listen("tcp", cfg.AdminListen); err != nil {
			return nil, err
		}
		undo = append(undo, adminListener.Close)
	}
	advertised := cfg.Advertise
	if advertised == "" {
		advertised = r.address.String()
	}
	var peerListener net.Listener
	if cfg = cfg.settle(); cfg.Cluster.Listen != "" {
		if peerListener, err = net.Listen("tcp", cfg.Cluster.Listen); err != nil {
			return nil, err
		}
		undo = append(undo, peerListener.Close)
	}
	if r.store, err = openStore(ctx, cfg, advertised, log); err != nil {
		return nil, err
	}
	undo = append(undo, r.store.Close)
	// Idle actors leave above the limit; what they cannot free in time meets a
	// hard one.
	host := wasmhost.Config{Logger: log, InstancesBytesMax: instanceBytesHard * cfg.Limits.InstanceBytes}
	if cfg.clock != nil {
		host.Now = cfg.clock.Now
	}
	if cfg.Store == storePebble || cfg.Store == storeCQL && cfg.DataDir != "" {
		host.CacheDir = filepath.Join(cfg.DataDir, codeDir)
	}
	if r.guest, err = wasmhost.New(ctx, host); err != nil {
		return nil, err
	}
	undo = append(undo, r.guest.Close)
	backups := cfg.BackupDir
	if backups != "" {
		if backups, err = filepath.Abs(backups); err != nil {
			return nil, err
		}
	}
	var part *cluster.Member
	if peerListener != nil {
		peer := cmp.Or(cfg.Cluster.Advertise, peerListener.Addr().String())
		if part, err = cfg.member(r.store, advertised, peer, log); err != nil {
			return nil, err
		}
	}
	r.Node, err = server.OpenNode(ctx, server.NodeConfig{
		Cluster: part,
		Store:   r.store, Runtime: r.guest, StoreName: cfg.Store, Version: buildVersion(), Address: advertised, BackupDir: backups,
		Tokens: tokens, AllowedOrigins: cfg.AllowedOrigins, Virtual: cfg.clock, Logger: log,
		Shards: shard.Config{
			Tokens:   processors(),
			CallsMax: cfg.Limits.Calls, CallBytesMax: cfg.Limits.CallBytes,
			InstanceBytesMax: cfg.Limits.InstanceBytes, LogBytesMax: cfg.Limits.LogBytes,
			Events: shard.Events{Fired: fired}, Strict: cfg.CQL.StrictReads,
		},
	})
	if err != nil {
		return nil, err
	}
	requests, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.serving.Go(func() { keepBudget(requests, memory) })
	r.public = server.HTTPServer(requests, r.Handler(), conf, log)
	r.serve(r.public, listener)
	if part != nil {
		r.peers = server.HTTPServer(requests, part.Handler(), conf, log)
		r.serve(r.peers, peerListener)
	}
	if adminListener != nil {
		r.admin = server.HTTPServer(requests, r.AdminHandler(), nil, log)
		r.serve(r.admin, adminListener)
	}
	return r, nil
}

func openStore(ctx context.Context, cfg config, address string, log *slog.Logger) (persistence.Store, error) {
	switch cfg.Store {
	case storePebble:
		return pebblestore.Open(cfg.DataDir, pebblestore.Options{Shards: cfg.Shards, CacheBytes: cfg.Limits.CacheBytes, Log: log})
	case storeCQL:
		c, err := cfg.CQL.store(cfg.Shards, address, log)
		if err != nil {
			return nil, err
		}
		c.CacheBytes = cfg.Limits.CacheBytes
		c.External = cfg.Cluster.Listen != "" // the member beats, joins and claims
		return cqlstore.Open(ctx, c)
	}
	fresh := persistence.ClusterInfo{Shards: cfg.Shards}
	setDefault(&fresh.Shards, pebblestore.ShardsDefault)
	_, _ = rand.Read(fresh.ID[:])     // never fails (crypto/rand)
	_, _ = rand.Read(fresh.Secret[:]) // never fails (crypto/rand)
	return memstore.New(fresh)
}

// serve serves l until the server is shut down.
func (r *running) serve(s *http.Server, l net.Listener) {
	r.serving.Go(func() {
		var err error
		if s.TLSConfig != nil {
			err = s.ServeTLS(l, "", "")
		} else {
			err = s.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			r.failed <- fmt.Errorf("the listener %s broke: %w", l.Addr(), err)
		}
	})
}

// url is where clients on this machine reach the server.
func (r *running) url() string {
	scheme := "http"
	if r.secure {
		scheme = "https"
	}
	return scheme + "://" + r.address.String()
}

// wait tells everybody that the node is ready, and blocks until ctx ends or a
// listener breaks.
func (r *running) wait(ctx context.Context) error {
	r.SetReady(true)
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.failed:
		return err
	}
}

// stop takes nothing more in, lets what was admitted end, and closes everything.
func (r *running) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.DrainTimeout)
	defer cancel()
	drained := r.Drain(ctx)
	var ended error
	if drained != nil {
		drained = fmt.Errorf("not everything ended within the %s of drain_timeout; what was not acknowledged was rolled back: %w", r.cfg.DrainTimeout, drained)
		ended = r.Close() // now: what still runs keeps its request open, and is waited for below
	}
	// What is still open are streams, and answers on their way.
	ctx, cancel = context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	end := time.AfterFunc(streamTimeout, r.cancel)
	defer end.Stop()
	var shut []error
	for _, s := range []*http.Server{r.public, r.admin} {
		if s == nil {
			continue
		}
		if err := s.Shutdown(ctx); err != nil {
			shut = append(shut, s.Close()) // whoever does not read gets no more time
		}
	}
	r.cancel()
	if r.peers != nil {
		shut = append(shut, r.peers.Close()) // streams between nodes do not end by themselves
	}
	r.serving.Wait()
	if drained == nil {
		ended = r.Close()
	}
	return errors.Join(drained, errors.Join(shut...), ended, r.guest.Close(), r.store.Close())
}
