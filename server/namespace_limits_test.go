package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (w *world) limit(namespace string, l *nolav1.ModuleLimits) error {
	w.t.Helper()
	_, err := w.Namespaces.UpdateNamespace(context.Background(), connect.NewRequest(&nolav1.UpdateNamespaceRequest{
		Namespace: namespace, Limits: l, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"limits"}},
	}))
	return err
}

func (w *world) pushWith(namespace, name string, l *nolav1.ModuleLimits) error {
	w.t.Helper()
	_, err := w.Modules.PushModule(context.Background(), connect.NewRequest(&nolav1.PushModuleRequest{
		Namespace: namespace, Name: name, Wasm: []byte("code of " + name), Manifest: &nolav1.ModuleManifest{Limits: l},
	}))
	return err
}

// limitsInForce are those under which a module's next turn runs.
func (w *world) limitsInForce(namespace, name string) nola.Limits {
	w.t.Helper()
	m, _, err := w.node.Modules().Module(namespace, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return m.Manifest().Limits
}

// TestNamespaceLimits bounds each limit of a namespace's modules in turn: a module
// that asks for more is refused by its name, one that asks for nothing gets the
// bound, and one that was there before runs under the bound from now on.
func TestNamespaceLimits(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name      string
		low, high *nolav1.ModuleLimits
		of        func(nola.Limits) int64
		want      int64
	}{
		{"memory_bytes", &nolav1.ModuleLimits{MemoryBytes: 1 << 20}, &nolav1.ModuleLimits{MemoryBytes: 2 << 20}, func(l nola.Limits) int64 { return l.MemoryBytes }, 1 << 20},
		{"steps_per_turn", &nolav1.ModuleLimits{StepsPerTurn: 1000}, &nolav1.ModuleLimits{StepsPerTurn: 1001}, func(l nola.Limits) int64 { return int64(l.Steps) }, 1000},
		{"turn_timeout", &nolav1.ModuleLimits{TurnTimeout: durationpb.New(time.Second)}, &nolav1.ModuleLimits{TurnTimeout: durationpb.New(time.Minute)}, func(l nola.Limits) int64 { return int64(l.TurnTimeout) }, int64(time.Second)},
		{"host_calls", &nolav1.ModuleLimits{HostCalls: 10}, &nolav1.ModuleLimits{HostCalls: 11}, func(l nola.Limits) int64 { return int64(l.HostCalls) }, 10},
		{"log_bytes", &nolav1.ModuleLimits{LogBytes: 10}, &nolav1.ModuleLimits{LogBytes: 11}, func(l nola.Limits) int64 { return int64(l.LogBytes) }, 10},
		{"casts", &nolav1.ModuleLimits{Casts: 10}, &nolav1.ModuleLimits{Casts: 11}, func(l nola.Limits) int64 { return int64(l.Casts) }, 10},
		{"reply_bytes", &nolav1.ModuleLimits{ReplyBytes: 10}, &nolav1.ModuleLimits{ReplyBytes: 11}, func(l nola.Limits) int64 { return int64(l.ReplyBytes) }, 10},
		{"table_elements", &nolav1.ModuleLimits{TableElements: 10}, &nolav1.ModuleLimits{TableElements: 11}, func(l nola.Limits) int64 { return int64(l.TableElements) }, 10},
		{"call_depth", &nolav1.ModuleLimits{CallDepth: 10}, &nolav1.ModuleLimits{CallDepth: 11}, func(l nola.Limits) int64 { return int64(l.CallDepth) }, 10},
		{"memory_inline", &nolav1.ModuleLimits{MemoryInline: 10}, &nolav1.ModuleLimits{MemoryInline: 11}, func(l nola.Limits) int64 { return int64(l.MemoryInline) }, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := strings.ReplaceAll(tt.name, "_", "-")
			if _, err := w.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: ns})); err != nil {
				t.Fatal(err)
			}
			if err := w.pushWith(ns, "before", tt.high); err != nil {
				t.Fatalf("without a bound: %v", err)
			}
			if err := w.limit(ns, tt.low); err != nil {
				t.Fatal(err)
			}
			err := w.pushWith(ns, "after", tt.high)
			w.want(nola.ReasonInvalidArgument, "a push above the bound", err)
			if err != nil && !strings.Contains(err.Error(), "limits."+tt.name) {
				t.Errorf("the refusal does not name limits.%s: %v", tt.name, err)
			}
			if err := w.pushWith(ns, "equal", tt.low); err != nil {
				t.Errorf("a push at the bound: %v", err)
			}
			if err := w.pushWith(ns, "silent", nil); err != nil {
				t.Errorf("a push that asks for nothing: %v", err)
			}
			for _, name := range []string{"before", "equal", "silent"} {
				if got := tt.of(w.limitsInForce(ns, name)); got != tt.want {
					t.Errorf("%s runs under %d, want %d", name, got, tt.want)
				}
			}
			res, err := w.Namespaces.GetNamespace(t.Context(), connect.NewRequest(&nolav1.GetNamespaceRequest{Namespace: ns}))
			if err != nil || res.Msg.Namespace.Limits == nil {
				t.Errorf("the namespace shows %v, %v, want its limits", res, err)
			}
			if err := w.limit(ns, nil); err != nil {
				t.Fatal(err)
			}
			if got := tt.of(w.limitsInForce(ns, "before")); got <= tt.want {
				t.Errorf("bounded no more, the module runs under %d", got)
			}
		})
	}
	w.want(nola.ReasonInvalidArgument, "a bound that no module can have", w.limit("default", &nolav1.ModuleLimits{MemoryBytes: 1}))
}

// TestNamespaceLimitsOfAnotherNode changes the limits behind the node's back, as
// another node does.
func TestNamespaceLimitsOfAnotherNode(t *testing.T) {
	w := newWorld(t)
	w.push("default", "m")
	if got := w.limitsInForce("default", "m").HostCalls; got == 5 {
		t.Fatal("the default is the bound")
	}
	if err := w.node.ResumeDeletes(t.Context()); err != nil { // a first look
		t.Fatal(err)
	}
	catalog := persistence.Catalog{Store: w.store}
	rec, version, err := catalog.Namespace(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	rec.Limits.HostCalls = 5
	if _, err := catalog.PutNamespace(t.Context(), version, rec); err != nil {
		t.Fatal(err)
	}
	if err := w.node.ResumeDeletes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.limitsInForce("default", "m").HostCalls; got != 5 {
		t.Errorf("the module runs under %d host calls, want 5", got)
	}
}
