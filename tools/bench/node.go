package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
)

// The modules that are pushed, and what the small guest can do.
const (
	namespace     = "default"
	counterModule = "counter"
	kitchenModule = "kitchen"
	opInc         = "inc"
	opGet         = "get"
	kitchenTurn   = 8 * time.Second // how long a turn of the kitchen guest may take
)

// node is a server of ours with its data directory.
type node struct {
	*process
	program    string
	args       []string
	dataDir    string
	admin      string // address of its profiles; empty without
	http       *http.Client
	actors     nolav1connect.ActorServiceClient
	modules    nolav1connect.ModuleServiceClient
	schedules  nolav1connect.ScheduleServiceClient
	namespaces nolav1connect.NamespaceServiceClient
}

// startNode starts a server on a fresh data directory below dir and waits until it
// is ready.
func startNode(ctx context.Context, program string, extra []string, dir string, profiles bool) (*node, time.Duration, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, 0, err
	}
	root, err := os.MkdirTemp(dir, "node")
	if err != nil {
		return nil, 0, err
	}
	n := &node{program: program, dataDir: filepath.Join(root, "data")}
	modules := filepath.Join(root, "modules") // empty: the server brings none of its own
	if err := os.Mkdir(modules, 0o755); err != nil {
		return nil, 0, err
	}
	n.args = []string{"dev", "--listen", address, "--data-dir", n.dataDir, "--modules", modules, "--demo=false"}
	if profiles {
		if n.admin, err = freeAddress(); err != nil {
			return nil, 0, err
		}
		n.args = append(n.args, "--admin-listen", n.admin)
	}
	n.args = append(n.args, extra...)
	url := "http://" + address
	n.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: manyCaller}, Timeout: 2 * answerGrace}
	n.actors = nolav1connect.NewActorServiceClient(n.http, url, connect.WithProtoJSON())
	n.modules = nolav1connect.NewModuleServiceClient(n.http, url, connect.WithProtoJSON())
	n.namespaces = nolav1connect.NewNamespaceServiceClient(n.http, url)
	n.schedules = nolav1connect.NewScheduleServiceClient(n.http, url)
	took, err := n.start(ctx, address)
	if err != nil {
		return nil, 0, errors.Join(err, os.RemoveAll(root))
	}
	return n, took, nil
}

// start starts the server's process, the first one or another one on the same
// data, and returns how long it took to be ready.
func (n *node) start(ctx context.Context, address string) (took time.Duration, err error) {
	if n.process, err = spawn("nolad", address, n.program, n.args...); err != nil {
		return 0, err
	}
	if took, err = n.ready(ctx, "/readyz"); err != nil {
		n.kill()
	}
	return took, err
}

// close ends the server and removes its data.
func (n *node) close() error {
	n.http.CloseIdleConnections()
	return errors.Join(n.stop(), os.RemoveAll(filepath.Dir(n.dataDir)))
}

func (n *node) push(ctx context.Context, namespace, name, file string, m *nolav1.ModuleManifest) error {
	wasm, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read module %s: %w; `make guests` builds the guests", name, err)
	}
	return n.pushCode(ctx, namespace, name, wasm, m)
}

func (n *node) pushCode(ctx context.Context, namespace, name string, wasm []byte, m *nolav1.ModuleManifest) error {
	_, err := n.modules.PushModule(ctx, connect.NewRequest(&nolav1.PushModuleRequest{Namespace: namespace, Name: name, Wasm: wasm, Manifest: m}))
	if err != nil {
		return fmt.Errorf("push module %s: %w", name, err)
	}
	return nil
}

func (n *node) pushCounter(ctx context.Context, file string) error {
	return n.push(ctx, namespace, counterModule, file, &nolav1.ModuleManifest{ReadonlyOperations: []string{opGet}})
}

func (n *node) createNamespace(ctx context.Context, name string) error {
	if _, err := n.namespaces.CreateNamespace(ctx, connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: name})); err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

func (n *node) pushKitchen(ctx context.Context, namespace, file string) error {
	return n.push(ctx, namespace, kitchenModule, file, &nolav1.ModuleManifest{Limits: &nolav1.ModuleLimits{
		StepsPerTurn: 1 << 50, // its time is the limit
		TurnTimeout:  durationpb.New(kitchenTurn),
		MemoryBytes:  64 << 20,
	}})
}

// invoke is a request to the HTTP gateway.
func (n *node) invoke(module, id, operation string, headers ...string) []byte {
	return post(n.address, "/v1/"+namespace+"/"+module+"/"+id+"/"+operation, "", nil, headers...)
}

// profile stores a CPU profile of the server that covers the next d.
func (n *node) profile(ctx context.Context, d time.Duration, file string) error {
	seconds := max(int(d.Seconds()), 1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", n.admin, seconds), nil)
	if err != nil {
		return err
	}
	res, err := n.http.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %.200s", res.Status, body)
	}
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(file, body, 0o644)
}
