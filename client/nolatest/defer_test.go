package nolatest_test

import (
	"errors"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
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
			if err := tt.answer(ref, token); err != nil {
				t.Fatal(err)
			}
			got := <-call
			if tt.reason == "" && (got.err != nil || got.reply != tt.want) || tt.reason != "" && (!errors.Is(got.err, &nola.Error{Reason: tt.reason}) || got.err.Error() != tt.want) {
				t.Errorf("the caller got %q, %v, want %q", got.reply, got.err, tt.want)
			}
			if err := s.Client.Complete(t.Context(), ref, token, nil, nil); !errors.Is(err, &nola.Error{Reason: nola.ReasonInvocationNotFound}) {
				t.Errorf("the token a second time: %v, want INVOCATION_NOT_FOUND", err)
			}
		})
	}
}
