package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (w *world) createNamespace(name string) error {
	_, err := w.Namespaces.CreateNamespace(context.Background(), connect.NewRequest(&nolav1.CreateNamespaceRequest{
		Namespace: name, Description: "what " + name + " is for", Labels: map[string]string{"team": "shop"},
	}))
	return err
}

func (w *world) namespace(name string) (*nolav1.Namespace, error) {
	res, err := w.Namespaces.GetNamespace(context.Background(), connect.NewRequest(&nolav1.GetNamespaceRequest{Namespace: name}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetNamespace(), nil
}

func TestNamespaces(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, name := range []string{"shop", "bank", "zoo"} {
		if err := w.createNamespace(name); err != nil {
			t.Fatal(err)
		}
	}
	w.want(nola.ReasonAlreadyExists, "twice", w.createNamespace("shop"))
	w.want(nola.ReasonAlreadyExists, "default", w.createNamespace("default"))
	made, err := w.namespace("shop")
	if err != nil || made.GetDescription() != "what shop is for" || made.GetLabels()["team"] != "shop" || made.GetState() != nolav1.NamespaceState_NAMESPACE_STATE_ACTIVE {
		t.Errorf("namespace %v, error %v", made, err)
	}
	res, err := w.Namespaces.UpdateNamespace(ctx, connect.NewRequest(&nolav1.UpdateNamespaceRequest{
		Namespace: "shop", Description: "new", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if n := res.Msg.GetNamespace(); n.GetDescription() != "new" || n.GetLabels()["team"] != "shop" || !n.GetUpdated().AsTime().After(n.GetCreated().AsTime()) {
		t.Errorf("updated to %v", n)
	}
	w.restart()
	if n, err := w.namespace("shop"); err != nil || n.GetDescription() != "new" {
		t.Errorf("after a restart %v, error %v", n, err)
	}
	var names []string
	for token := ""; ; {
		res, err := w.Namespaces.ListNamespaces(ctx, connect.NewRequest(&nolav1.ListNamespacesRequest{PageSize: 3, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range res.Msg.GetNamespaces() {
			names = append(names, n.GetNamespace())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "bank default shop zoo" {
		t.Errorf("listed %s", got)
	}
	_, err = w.namespace("none")
	w.want(nola.ReasonNamespaceNotFound, "get", err)
	_, err = w.Namespaces.DeleteNamespace(ctx, connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "default"}))
	w.want(nola.ReasonInvalidArgument, "delete default", err)
	_, err = w.Namespaces.DeleteNamespace(ctx, connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "none"}))
	w.want(nola.ReasonNamespaceNotFound, "delete", err)
}

// fill puts actors, schedules and modules into a namespace.
func (w *world) fill(namespace string) {
	w.t.Helper()
	if err := w.createNamespace(namespace); err != nil {
		w.t.Fatal(err)
	}
	w.push(namespace, "keeper")
	for i := range 5 {
		ref := nola.ActorRef{Namespace: namespace, Type: "keeper", ID: fmt.Sprint(i)}
		if _, err := w.Invoke(context.Background(), ref, "put", []byte("v")); err != nil {
			w.t.Fatal(err)
		}
		s := yearly(fmt.Sprint(i), fmt.Sprint(i))
		s.Namespace, s.Target.Actor.Namespace = namespace, namespace
		if _, err := w.create(s, ""); err != nil {
			w.t.Fatal(err)
		}
	}
}

// gone reports that nothing of a namespace is left.
func (w *world) gone(namespace string) bool {
	w.t.Helper()
	ctx := context.Background()
	if _, err := w.namespace(namespace); reasonOf(err) != nola.ReasonNamespaceNotFound {
		return false
	}
	catalog := persistence.Catalog{Store: w.store}
	refs, err := w.store.ListActors(namespace, "", "", nola.ActorRef{}, 10)
	entries, err2 := catalog.ScheduleEntries(ctx, namespace, "", "", 10)
	modules, err3 := catalog.Modules(ctx, namespace, "", 10)
	if err != nil || err2 != nil || err3 != nil || len(refs)+len(entries)+len(modules) != 0 {
		w.t.Errorf("the name is free, but there are %v %v %v, errors %v %v %v", refs, entries, modules, err, err2, err3)
	}
	return true
}

func TestDeleteNamespace(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.fill("shop")
	w.fill("bank")
	if _, err := w.Namespaces.DeleteNamespace(ctx, connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "shop"})); err != nil {
		t.Fatal(err)
	}
	s := yearly("late", "late")
	s.Namespace, s.Target.Actor.Namespace = "shop", "shop"
	if _, err := w.create(s, ""); reasonOf(err) != nola.ReasonNamespaceDeleting && reasonOf(err) != nola.ReasonNamespaceNotFound {
		t.Errorf("a schedule in a namespace that was deleted: error %v", err)
	}
	eventually(t, "the namespace is gone", func() bool { return w.gone("shop") })
	if list, err := w.store.ListActors("bank", "", "", nola.ActorRef{}, 10); err != nil || len(list) != 5 {
		t.Errorf("the other namespace has actors %v, error %v", list, err)
	}
	w.fill("shop")
}

func TestDeleteNamespaceGoesOnAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.fill("shop")
	w.stop()
	store, err := w.disk.Open()
	if err != nil {
		t.Fatal(err)
	}
	catalog := persistence.Catalog{Store: store}
	rec, version, err := catalog.Namespace(context.Background(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	rec.State = persistence.NamespaceDeleting
	if _, err := catalog.PutNamespace(context.Background(), version, rec); err != nil {
		t.Fatal(err)
	}
	_ = store.Close()
	w.start()
	eventually(t, "the namespace is gone", func() bool { return w.gone("shop") })
}

func TestCluster(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	c, err := w.Cluster.GetCluster(ctx, connect.NewRequest(&nolav1.GetClusterRequest{}))
	if err != nil || c.Msg.GetCluster().GetNumShards() != 4 || c.Msg.GetCluster().GetStore() != "memory" || c.Msg.GetServerTime() == nil {
		t.Errorf("cluster %v, error %v", c, err)
	}
	nodes, err := w.Cluster.ListNodes(ctx, connect.NewRequest(&nolav1.ListNodesRequest{}))
	if err != nil || len(nodes.Msg.GetNodes()) != 1 || nodes.Msg.GetNodes()[0].GetShards() != 4 || nodes.Msg.GetNodes()[0].GetVersion() != "test" {
		t.Errorf("nodes %v, error %v", nodes, err)
	}
	var shards []uint32
	for token := ""; ; {
		res, err := w.Cluster.ListShards(ctx, connect.NewRequest(&nolav1.ListShardsRequest{PageSize: 3, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		for _, sh := range res.Msg.GetShards() {
			shards = append(shards, sh.GetShard())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			break
		}
	}
	if fmt.Sprint(shards) != "[0 1 2 3]" {
		t.Errorf("shards %v", shards)
	}
	ref := nola.ActorRef{Namespace: "default", Type: "keeper", ID: "a"}
	at, err := w.Cluster.LocateActor(ctx, connect.NewRequest(&nolav1.LocateActorRequest{Actor: &nolav1.ActorRef{Type: "keeper", Id: "a"}}))
	if err != nil || at.Msg.GetShard() != uint32(nola.ShardOf(ref, 4)) || at.Msg.GetEpoch() == 0 || at.Msg.GetNode() == nil {
		t.Errorf("located at %v, error %v", at, err)
	}
}

func TestAdminHandler(t *testing.T) {
	w := newWorld(t)
	w.push("default", "keeper")
	if _, err := w.Invoke(context.Background(), nola.ActorRef{Type: "keeper", ID: "a"}, "put", []byte("v")); err != nil {
		t.Fatal(err)
	}
	metrics := w.get("/metrics")
	for _, want := range []string{`nola_rpc_total{code="ok",procedure="/nola.v1.ActorService/Invoke"} 1`, `nola_turns_total{kind="call",reason="OK"}`, "nola_activations 1", "nola_shards 4", "go_goroutines"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/debug/pprof/": "goroutine"} {
		if got := w.get(path); !strings.Contains(got, want) {
			t.Errorf("%s answers %.80q, want %q in it", path, got, want)
		}
	}
}
