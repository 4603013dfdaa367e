package nolatest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/persistence/pebblestore"
	"github.com/nolaproject/nola/server"
	"github.com/nolaproject/nola/shard"
	"github.com/nolaproject/nola/wasmhost"
)

const (
	// ShardsDefault is how many shards the store has unless told: few, for tests
	// start often.
	ShardsDefault = 16
	// stopTimeout bounds how long a server may take to finish what it has.
	stopTimeout = 30 * time.Second
)

// Options say what server to run. The zero Options are good for most tests.
type Options struct {
	// Dir keeps the store on disk, in this directory: default in memory. A
	// directory that holds a store already is opened.
	Dir string
	// Shards is the number of shards of a new store: default ShardsDefault.
	Shards int
	// Runtime runs the guests: default the one for WebAssembly. It stays the
	// caller's, and is closed after the test.
	Runtime nola.Runtime
	// Limits bound what the node holds, and may hear of events; see shard.Config.
	Limits shard.Config
	// Tokens are what clients must show one of: default none is asked for.
	Tokens *server.Tokens
	// AllowedOrigins are the origins that browsers may call from.
	AllowedOrigins []string
	// Now is the server's clock: default time.Now.
	Now func() time.Time
	// VirtualTime has the server live in virtual time instead, which stands still
	// but for Advance.
	VirtualTime bool
	// StartTime is when virtual time begins: default 2026-01-01 00:00 UTC.
	StartTime time.Time
	// Log hears what the server logs: default nobody does. What fails is reported
	// to the test in any case.
	Log io.Writer
}

// Server is a server in a test. Its methods fail the test if they cannot do what
// they are asked; they may be called at once, except Restart and Stop.
type Server struct {
	// URL is where the server listens; it changes with Restart.
	URL string
	// Client is a client of the server; it changes with Restart.
	Client *client.Client
	// Node is the server's inside; it changes with Restart.
	Node *server.Node

	t      testing.TB
	opts   Options
	log    *slog.Logger
	disk   *memstore.Disk      // what survives in memory
	clock  *shard.VirtualClock // nil in real time
	store  persistence.Store
	guest  *wasmhost.Runtime // nil if the caller brought a runtime
	http   *http.Server
	cancel context.CancelFunc
	served chan error
}

// Start runs a server until the test ends.
func Start(t testing.TB, options ...Options) *Server {
	t.Helper()
	s := &Server{t: t, log: slog.New(slog.DiscardHandler)}
	switch len(options) {
	case 0:
	case 1:
		s.opts = options[0]
	default:
		t.Fatalf("nolatest: Start takes one Options, got %d", len(options))
	}
	if s.opts.Shards == 0 {
		s.opts.Shards = ShardsDefault
	}
	if s.opts.Log != nil {
		s.log = slog.New(slog.NewTextHandler(s.opts.Log, nil))
	}
	if s.opts.VirtualTime {
		if s.opts.StartTime.IsZero() {
			s.opts.StartTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		s.clock = shard.NewVirtualClock(s.opts.StartTime)
		s.opts.Now = s.clock.Now
	}
	if s.opts.Dir == "" {
		fresh := persistence.ClusterInfo{Shards: s.opts.Shards}
		_, _ = rand.Read(fresh.ID[:])     // never fails (crypto/rand)
		_, _ = rand.Read(fresh.Secret[:]) // never fails (crypto/rand)
		s.disk = memstore.NewDisk(fresh)
	}
	s.start()
	t.Cleanup(func() {
		if s.Node != nil {
			s.Stop()
		}
	})
	return s
}

func (s *Server) start() {
	s.t.Helper()
	if err := s.open(); err != nil {
		s.t.Fatalf("nolatest: start a server: %v", err)
	}
}

func (s *Server) open() (err error) {
	var undo []func() error
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	undo = append(undo, listener.Close)
	if s.store, err = s.openStore(); err != nil {
		return err
	}
	undo = append(undo, s.store.Close)
	runtime := s.opts.Runtime
	if runtime == nil {
		if s.guest, err = wasmhost.New(context.Background(), wasmhost.Config{CacheDir: codeCache(), Now: s.opts.Now, Logger: s.log}); err != nil {
			return err
		}
		undo = append(undo, s.guest.Close)
		runtime = s.guest
	}
	s.URL = "http://" + listener.Addr().String()
	s.Node, err = server.OpenNode(context.Background(), server.NodeConfig{
		Store: s.store, Runtime: runtime, StoreName: "test", Version: "test", Address: listener.Addr().String(),
		Tokens: s.opts.Tokens, AllowedOrigins: s.opts.AllowedOrigins, Shards: s.opts.Limits, Now: s.opts.Now, Virtual: s.clock, Logger: s.log,
	})
	if err != nil {
		return err
	}
	undo = append(undo, s.Node.Close)
	if s.Client, err = client.New(s.URL, client.Options{}); err != nil {
		return err
	}
	requests, cancel := context.WithCancel(context.Background())
	s.cancel, s.served = cancel, make(chan error, 1)
	s.http = server.HTTPServer(requests, s.Node.Handler(), nil, s.log)
	go func() { s.served <- s.http.Serve(listener) }()
	s.Node.SetReady(true)
	return nil
}

func (s *Server) openStore() (persistence.Store, error) {
	if s.disk != nil {
		return s.disk.Open()
	}
	return pebblestore.Open(s.opts.Dir, pebblestore.Options{Shards: s.opts.Shards, Log: s.log})
}

// codeCache is where compiled code is kept between tests: compiling a guest in Go
// takes a second. Empty if the machine has no place for it.
func codeCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir = filepath.Join(dir, "nola", "code")
	if os.MkdirAll(dir, 0o700) != nil {
		return ""
	}
	return dir
}

// Restart ends the server as a stop by an operator would, and starts it again on
// what is durable.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.start()
}

// Stop lets what was admitted end, and then ends the server.
func (s *Server) Stop() {
	s.t.Helper()
	if s.Node == nil {
		s.t.Fatal("nolatest: the server is stopped already")
	}
	ctx, stop := context.WithTimeout(context.Background(), stopTimeout)
	defer stop()
	if err := s.Node.Drain(ctx); err != nil {
		s.t.Errorf("nolatest: drain: %v", err)
	}
	s.end()
}

// Crash ends the server without letting anything end, and starts it again on
// what is durable. Calls that wait are answered with an error, or not at all.
func (s *Server) Crash() {
	s.t.Helper()
	s.end()
	s.start()
}

func (s *Server) end() {
	s.t.Helper()
	s.cancel()
	s.Client.Close()
	err := errors.Join(s.Node.Close(), s.http.Close())
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if s.guest != nil {
		err = errors.Join(err, s.guest.Close())
		s.guest = nil
	}
	if err = errors.Join(err, s.store.Close()); err != nil {
		s.t.Errorf("nolatest: stop the server: %v", err)
	}
	s.Node = nil
}

// Push makes code the default version of a module in the default namespace, and
// answers the version.
func (s *Server) Push(name string, code []byte, manifest nola.Manifest) uint64 {
	s.t.Helper()
	rec, err := s.Node.Modules().Push(s.t.Context(), nola.DefaultNamespace, name, code, manifest)
	if err != nil {
		s.t.Fatalf("nolatest: push module %s: %v", name, err)
	}
	return rec.Version
}

// PushFile pushes the module in a file, with the manifest of all defaults.
func (s *Server) PushFile(name, file string) uint64 {
	s.t.Helper()
	code, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatalf("nolatest: module %s: %v", name, err)
	}
	return s.Push(name, code, nola.Manifest{})
}

// Ref reads TYPE/ID as an actor of the default namespace.
func Ref(actor string) (nola.ActorRef, error) {
	typ, id, ok := strings.Cut(actor, "/")
	if !ok {
		return nola.ActorRef{}, fmt.Errorf("nolatest: actor %q: want TYPE/ID", actor)
	}
	ref := nola.ActorRef{Namespace: nola.DefaultNamespace, Type: typ, ID: id}
	return ref, ref.Validate()
}

// Call runs an operation of an actor, named TYPE/ID, and answers its reply or
// error.
func (s *Server) Call(actor, operation, payload string) (string, error) {
	ref, err := Ref(actor)
	if err != nil {
		return "", err
	}
	result, err := s.Client.Invoke(s.t.Context(), ref, operation, []byte(payload))
	return string(result.Payload), err
}

// Invoke runs an operation of an actor, named TYPE/ID, and answers its reply. An
// error fails the test; a test that wants one uses Call.
func (s *Server) Invoke(actor, operation, payload string) string {
	s.t.Helper()
	reply, err := s.Call(actor, operation, payload)
	if err != nil {
		s.t.Fatalf("%s %s %q: %v", actor, operation, payload, err)
	}
	return reply
}
