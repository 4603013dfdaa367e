package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestUsage calls actors and asks what that cost, in every way.
func TestUsage(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.push("default", "keeper")
	w.push("default", "other")
	if _, err := w.Namespaces.CreateNamespace(ctx, connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: "team"})); err != nil {
		t.Fatal(err)
	}
	w.push("team", "keeper")
	for _, c := range []struct {
		ref   nola.ActorRef
		calls int
	}{
		{nola.ActorRef{Type: "keeper", ID: "a"}, 3},
		{nola.ActorRef{Type: "keeper", ID: "b"}, 1},
		{nola.ActorRef{Type: "other", ID: "a"}, 2},
		{nola.ActorRef{Namespace: "team", Type: "keeper", ID: "a"}, 5},
	} {
		for range c.calls {
			if _, err := w.Invoke(ctx, c.ref, "put", []byte("v")); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask := func(req *nolav1.GetUsageRequest) string {
		t.Helper()
		res, err := w.Cluster.GetUsage(ctx, connect.NewRequest(req))
		if err != nil {
			return string(reasonOf(err))
		}
		m := res.Msg
		if m.GetSince() == nil || m.GetServerTime().AsTime().Before(m.GetSince().AsTime()) || m.GetNodeId() != "here" {
			t.Errorf("since %v, now %v, node %q", m.GetSince(), m.GetServerTime(), m.GetNodeId())
		}
		lines := []string{fmt.Sprint("all ", m.GetTotal().GetTurns())}
		for _, u := range m.GetUsage() {
			if u.GetRunTime().AsDuration() <= 0 || u.GetStepsError() != 0 {
				t.Errorf("usage %v", u)
			}
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%s:%s/%s", u.GetNamespace(), u.GetType(), u.GetId()), "/:")+fmt.Sprint(" ", u.GetTurns()))
		}
		return strings.Join(lines, ", ")
	}
	by, sort := nolav1.UsageBy_USAGE_BY_NAMESPACE, nolav1.UsageSort_USAGE_SORT_TURNS
	for _, tt := range []struct {
		req  *nolav1.GetUsageRequest
		want string
	}{
		{&nolav1.GetUsageRequest{By: by, Sort: sort}, "all 11, default 6, team 5"},
		{&nolav1.GetUsageRequest{Sort: sort}, "all 11, team:keeper 5, default:keeper 4, default:other 2"},
		{&nolav1.GetUsageRequest{By: nolav1.UsageBy_USAGE_BY_ACTOR, Sort: sort}, "all 11, team:keeper/a 5, default:keeper/a 3, default:other/a 2, default:keeper/b 1"},
		{&nolav1.GetUsageRequest{By: nolav1.UsageBy_USAGE_BY_ACTOR, Sort: sort, Limit: 2}, "all 11, team:keeper/a 5, default:keeper/a 3"},
		{&nolav1.GetUsageRequest{By: nolav1.UsageBy_USAGE_BY_ACTOR, Sort: sort, Namespace: "default", Limit: 1}, "all 6, default:keeper/a 3"},
		{&nolav1.GetUsageRequest{Namespace: "default", Sort: sort}, "all 6, default:keeper 4, default:other 2"},
		{&nolav1.GetUsageRequest{Namespace: "nobody"}, "all 0"},
		{&nolav1.GetUsageRequest{Namespace: "No Name"}, string(nola.ReasonInvalidName)},
		{&nolav1.GetUsageRequest{Limit: -1}, string(nola.ReasonInvalidArgument)},
	} {
		if got := ask(tt.req); got != tt.want {
			t.Errorf("%v\ngot  %s\nwant %s", tt.req, got, tt.want)
		}
	}
	metrics := w.get("/metrics")
	for _, want := range []string{`nola_type_turns_total{namespace="team",type="keeper"} 5`, `nola_type_run_seconds_total{namespace="default",type="other"} `} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
