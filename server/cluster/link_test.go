package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

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

// TestLinkOverTLS calls a node that speaks TLS alone: it is reached with a certificate
// that is trusted, under the name that it is called by, and not otherwise.
func TestLinkOverTLS(t *testing.T) {
	var asked atomic.Int64
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.EnableHTTP2 = true
	node.StartTLS()
	t.Cleanup(node.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(node.Certificate())
	for name, tt := range map[string]struct {
		conf    *tls.Config
		reached bool
	}{
		"trusted":     {&tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}, true},
		"not trusted": {&tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}, false},
		"another's":   {&tls.Config{RootCAs: trusted, ServerName: "other.test", MinVersion: tls.VersionTLS12}, false},
		"without TLS": {nil, false},
	} {
		asked.Store(0)
		l := newLink(NodeRow{ID: "a#1", Name: "a", Peer: node.Listener.Addr().String()}, "token", "cluster", tt.conf)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := l.client.Read(ctx, connect.NewRequest(&peerv1.ReadRequest{}))
		cancel()
		l.close()
		if reached := connect.CodeOf(err) == connect.CodeUnimplemented && asked.Load() == 1; err == nil || reached != tt.reached || !tt.reached && asked.Load() != 0 {
			t.Errorf("%s: asked %d times, error %v; want it reached %v", name, asked.Load(), err, tt.reached)
		}
		if !tt.reached && tt.conf != nil && !neverSent(err) {
			t.Errorf("%s: %v counts as one that may have been executed", name, err)
		}
	}
}
