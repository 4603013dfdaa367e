package nolatest_test

import (
	"errors"
	"testing"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestDeferredThroughAGuest defers calls of a real guest, and answers one by the
// guest, one through the API, and one with an error.
func TestDeferredThroughAGuest(t *testing.T) {
	s := nolatest.Start(t)
	s.PushFile("kitchen", "../../testdata/guests/kitchen.wasm")
	for _, tt := range []struct {
		name   string
		answer func(ref nola.ActorRef, token nola.Token) error
		want   string
		reason nola.Reason
	}{
		{"guest", func(_ nola.ActorRef, token nola.Token) error {
			_, err := s.Call("kitchen/guest", "replyTo", `{"token":"`+token.String()+`","payload":"eWVz"}`)
			return err
		}, "yes", ""},
		{"api", func(ref nola.ActorRef, token nola.Token) error {
			return s.Client.Complete(t.Context(), ref, token, []byte("yes"), nil)
		}, "yes", ""},
		{"error", func(ref nola.ActorRef, token nola.Token) error {
			return s.Client.Complete(t.Context(), ref, token, nil, &nola.Error{Message: "no"})
		}, "no", nola.ReasonGuestError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ref, err := nolatest.Ref("kitchen/" + tt.name)
			if err != nil {
				t.Fatal(err)
			}
			type answer struct {
				reply string
				err   error
			}
			call := make(chan answer, 1)
			go func() {
				reply, err := s.Call("kitchen/"+tt.name, "deferAndKeep", "")
				call <- answer{reply, err}
			}()
			text := ""
			for text == "" { // each round is a turn of the actor, behind those before
				text = s.Invoke("kitchen/"+tt.name, "kept", "")
			}
			token, err := nola.ParseToken(text)
			if err != nil {
				t.Fatal(err)
			}
			list := func() (tokens []string) {
				t.Helper()
				res, err := s.Client.Actors.ListDeferred(t.Context(), connect.NewRequest(&nolav1.ListDeferredRequest{Actor: &nolav1.ActorRef{Type: "kitchen", Id: tt.name}}))
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range res.Msg.GetDeferred() {
					if d.GetOperation() != "deferAndKeep" || !d.GetDeadline().AsTime().After(s.Now()) || len(d.GetInvocationId()) == 0 || d.GetScheduleId() != "" {
						t.Errorf("listed %v", d)
					}
					tokens = append(tokens, d.GetToken())
				}
				return tokens
			}
			if got := list(); len(got) != 1 || got[0] != text {
				t.Errorf("the tokens that wait are %q, want %s", got, text)
			}
			if err := tt.answer(ref, token); err != nil {
				t.Fatal(err)
			}
			got := <-call
			if tt.reason == "" && (got.err != nil || got.reply != tt.want) || tt.reason != "" && (!errors.Is(got.err, &nola.Error{Reason: tt.reason}) || got.err.Error() != tt.want) {
				t.Errorf("the caller got %q, %v, want %q", got.reply, got.err, tt.want)
			}
			if got := list(); len(got) > 0 {
				t.Errorf("after the answer wait %q", got)
			}
			if err := s.Client.Complete(t.Context(), ref, token, nil, nil); !errors.Is(err, &nola.Error{Reason: nola.ReasonInvocationNotFound}) {
				t.Errorf("the token a second time: %v, want INVOCATION_NOT_FOUND", err)
			}
		})
	}
}
