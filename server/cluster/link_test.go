package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
)

// TestCallOverAClosedLink begins calls on links that are closed already, as when a
// node is found dead while a call is on its way to it. Each is answered.
func TestCallOverAClosedLink(t *testing.T) {
	for n := range 50 { // a stream that is closed has something to send, too
		l := newLink(NodeRow{ID: "a#1", Name: "a", Peer: "127.0.0.1:1"}, "token", "cluster", nil)
		l.close()
		f, err := l.begin(0, &peerv1.Invocation{})
		if err == nil {
			select {
			case r := <-f.done:
				err = errorOf(r.GetError())
			case <-time.After(20 * time.Second):
				t.Fatalf("call %d is not answered", n)
			}
		}
		var e *nola.Error
		if !errors.As(err, &e) || e.Reason != nola.ReasonNoOwner && e.Reason != nola.ReasonOutcomeUnknown {
			t.Errorf("call %d is answered with %v", n, err)
		}
	}
}
