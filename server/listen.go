package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of a connection.
const (
	headerTimeout = 10 * time.Second // to send a request's headers
	idleTimeout   = 2 * time.Minute  // between two requests
	streamsMax    = 1_000            // requests at once on one HTTP/2 connection
)

// HTTPServer makes the server for a handler of this package: HTTP/1.1 and
// HTTP/2 on one port, HTTP/2 without TLS too if conf is nil. Requests end when
// ctx does. The caller serves and shuts down.
func HTTPServer(ctx context.Context, h http.Handler, conf *tls.Config, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(conf == nil)
	return &http.Server{
		Handler:           h,
		TLSConfig:         conf,
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: streamsMax},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    HeaderBytesMax,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
