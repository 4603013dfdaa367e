package server_test

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestPageTokensBelongToTheirList: a token that is garbage, or of another list,
// is refused with the field's name, and does not lead somewhere in the list.
func TestPageTokensBelongToTheirList(t *testing.T) {
	w := newWorld(t)
	w.push("", "small")
	w.backups = t.TempDir()
	actor := &nolav1.ActorRef{Type: "small", Id: "a"}
	ctx := context.Background()
	lists := map[string]func(token string) error{
		"actors": func(token string) error {
			_, err := w.Actors.ListActors(ctx, connect.NewRequest(&nolav1.ListActorsRequest{PageToken: token}))
			return err
		},
		"state": func(token string) error {
			_, err := w.Actors.ListState(ctx, connect.NewRequest(&nolav1.ListStateRequest{Actor: actor, PageToken: token}))
			return err
		},
		"timers": func(token string) error {
			_, err := w.Actors.ListTimers(ctx, connect.NewRequest(&nolav1.ListTimersRequest{Actor: actor, PageToken: token}))
			return err
		},
		"modules": func(token string) error {
			_, err := w.Modules.ListModules(ctx, connect.NewRequest(&nolav1.ListModulesRequest{PageToken: token}))
			return err
		},
		"versions": func(token string) error {
			_, err := w.Modules.ListModuleVersions(ctx, connect.NewRequest(&nolav1.ListModuleVersionsRequest{Name: "small", PageToken: token}))
			return err
		},
		"namespaces": func(token string) error {
			_, err := w.Namespaces.ListNamespaces(ctx, connect.NewRequest(&nolav1.ListNamespacesRequest{PageToken: token}))
			return err
		},
		"schedules": func(token string) error {
			_, err := w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{PageToken: token}))
			return err
		},
		"calendars": func(token string) error {
			_, err := w.Calendars.ListCalendars(ctx, connect.NewRequest(&nolav1.ListCalendarsRequest{PageToken: token}))
			return err
		},
		"nodes": func(token string) error {
			_, err := w.Cluster.ListNodes(ctx, connect.NewRequest(&nolav1.ListNodesRequest{PageToken: token}))
			return err
		},
		"shards": func(token string) error {
			_, err := w.Cluster.ListShards(ctx, connect.NewRequest(&nolav1.ListShardsRequest{PageToken: token}))
			return err
		},
	}
	for kind, list := range lists {
		if err := list(""); err != nil {
			t.Errorf("%s from the start: %v", kind, err)
		}
		tokens := []string{"!", "AAAA", base64.RawURLEncoding.EncodeToString([]byte("7"))}
		for other := range lists {
			if other != kind {
				tokens = append(tokens, base64.RawURLEncoding.EncodeToString([]byte(other+"\x007")))
			}
		}
		for _, token := range tokens {
			var e *nola.Error
			if err := list(token); !errors.As(err, &e) || e.Reason != nola.ReasonInvalidArgument || e.Metadata["field"] != "page_token" {
				t.Errorf("%s behind %q: %v, want INVALID_ARGUMENT that names page_token", kind, token, err)
			}
		}
	}
}
