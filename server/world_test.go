package server_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/server"
	"github.com/nolaproject/nola/shard"
)

// world is a node on loopback over a store in memory, whose guests are Go.
type world struct {
	*client.Client
	t    *testing.T
	url  string
	disk *memstore.Disk
	wrap func(persistence.Store) persistence.Store
	// backups is the directory for backups, if not empty.
	backups string
	// runtime, if set, runs the guests in place of guests.
	runtime nola.Runtime
	// clock, if set, makes the node live in virtual time.
	clock *shard.VirtualClock

	store persistence.Store
	node  *server.Node
	stop  func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, disk: memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 4, Secret: [32]byte{2}})}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	mem, err := w.disk.Open()
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = mem
	if w.wrap != nil {
		w.store = w.wrap(mem)
	}
	log := slog.New(slog.DiscardHandler)
	if w.runtime == nil {
		w.runtime = guests{}
	}
	w.node, err = server.OpenNode(context.Background(), server.NodeConfig{Store: w.store, Runtime: w.runtime, StoreName: "memory", Version: "test", Address: "here", BackupDir: w.backups, Virtual: w.clock, Logger: log})
	if err != nil {
		w.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.node.SetReady(true)
	h := server.HTTPServer(context.Background(), w.node.Handler(), nil, log)
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	w.url = "http://" + listener.Addr().String()
	if w.Client, err = client.New(w.url, client.Options{}); err != nil {
		w.t.Fatal(err)
	}
	w.stop = func() {
		_ = h.Close()
		<-served
		w.Close()
		if err := w.node.Close(); err != nil {
			w.t.Errorf("close the node: %v", err)
		}
		_ = w.store.Close()
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// push makes a module; its bytes say nothing.
func (w *world) push(namespace, name string) {
	w.t.Helper()
	_, err := w.Modules.PushModule(context.Background(), connect.NewRequest(&nolav1.PushModuleRequest{Namespace: namespace, Name: name, Wasm: []byte("code of " + name)}))
	if err != nil {
		w.t.Fatalf("push %s: %v", name, err)
	}
}

func reasonOf(err error) nola.Reason {
	var e *nola.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func (w *world) want(reason nola.Reason, what string, err error) {
	w.t.Helper()
	if reasonOf(err) != reason {
		w.t.Errorf("%s: error %v (%s), want %s", what, err, reasonOf(err), reason)
	}
}

// eventually waits until ok answers true; what it waits for happens on other
// goroutines by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// guests is a runtime whose every module keeps what it was called with last:
// put stores the payload, get answers it, fail fails.
type guests struct{}

func (guests) Prepare(_ context.Context, _ []byte, m nola.Manifest) (nola.Module, error) {
	m = m.WithDefaults()
	return &guest{manifest: m}, nil
}

func (guests) Close() error { return nil }

type guest struct{ manifest nola.Manifest }

func (g *guest) Manifest() *nola.Manifest                         { return &g.manifest }
func (g *guest) Instantiate(nola.ActorRef) (nola.Instance, error) { return &instance{}, nil }
func (g *guest) Close() error                                     { return nil }

type instance struct{ stopped atomic.Pointer[error] }

func (*instance) Bytes() int64          { return 1 << 16 }
func (*instance) Close()                {}
func (i *instance) Interrupt(err error) { i.stopped.Store(&err) }
func (i *instance) Invoke(t *nola.Turn, h nola.Host) ([]byte, error) {
	switch t.Operation {
	case "put":
		return nil, h.Put([]byte("value"), t.Payload)
	case "get":
		v, _, err := h.Get([]byte("value"))
		return v, err
	case "fail":
		return nil, nola.Errorf(nola.ReasonGuestError, "as asked")
	case nola.OperationStartup, nola.OperationShutdown:
		return nil, nil
	}
	return nil, nola.Errorf(nola.ReasonOperationNotFound, "no operation %q", t.Operation)
}

func (w *world) get(path string) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	rec := &recorder{header: http.Header{}}
	w.node.AdminHandler().ServeHTTP(rec, req)
	return rec.body.String()
}

type recorder struct {
	header http.Header
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}
