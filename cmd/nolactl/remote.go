package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola/client"
)

// Limits of the conversation with a server.
const (
	tokenBytesMax  = 4 << 10
	answerBytesMax = 64 << 20
)

// dial makes the client; nothing is sent yet. watch, if it is not nil, is told
// how much of each request has been sent.
func (c *cli) dial(watch func(sent int64)) (*client.Client, error) {
	if c.dialed != nil && watch == nil {
		return c.dialed, nil
	}
	u, err := url.Parse(c.server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, usage("write it like "+serverDefault, "the server %q is no http or https URL", c.server)
	}
	token, err := c.bearer()
	if err != nil {
		return nil, err
	}
	if token != "" && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		c.note("warning: the token goes to %s unencrypted; use https", u.Host)
	}
	opts := client.Options{Token: token, UserAgent: "nolactl/" + buildVersion(), ReadBytesMax: answerBytesMax, FailFast: true}
	if watch != nil {
		opts.Wrap = func(next http.RoundTripper) http.RoundTripper { return watcher{next, watch} }
	}
	r, err := client.New(c.server, opts)
	if err != nil {
		return nil, usage("write it like "+serverDefault, "%s", strings.TrimPrefix(err.Error(), "client: "))
	}
	c.dialed = r
	return r, nil
}

// present is the time by the server's clock, which may be virtual; by ours where
// no server is asked, or none answers.
func (c *cli) present() time.Time {
	if !c.offline {
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		defer cancel()
		if r, err := c.dial(nil); err == nil {
			if now, err := r.ServerTime(ctx); err == nil {
				return now.Truncate(time.Millisecond)
			}
		}
		c.offline = true // what the command wants of the server will fail, and say why
	}
	return c.now()
}

// bearer finds the token: flag, file, environment.
func (c *cli) bearer() (string, error) {
	token := c.token
	if c.tokenFile != "" {
		if token != "" {
			return "", usage("", "give --token or --token-file, not both")
		}
		f, err := os.Open(c.tokenFile)
		if err != nil {
			return "", usage("", "cannot read the token: %s", err)
		}
		defer f.Close()
		b, err := readAll(f, tokenBytesMax, c.tokenFile)
		if err != nil {
			return "", err
		}
		if token = string(bytes.TrimSpace(b)); token == "" {
			return "", usage("", "the token file %s is empty", c.tokenFile)
		}
	}
	if token == "" {
		token = c.env("NOLA_TOKEN")
	}
	for _, r := range token {
		if r <= ' ' || r >= 0x7f {
			return "", usage("a token file holds one token and nothing else", "the token holds a character that no token may hold")
		}
	}
	return token, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// watcher tells how much of each request has been sent.
type watcher struct {
	next  http.RoundTripper
	watch func(sent int64)
}

// RoundTrip sends one request.
func (w watcher) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = &watched{ReadCloser: r.Body, watch: w.watch}
	}
	return w.next.RoundTrip(r)
}

type watched struct {
	io.ReadCloser
	watch func(sent int64)
	sent  int64
}

// Read passes bytes on and tells their sum.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	w.sent += int64(n)
	w.watch(w.sent)
	return n, err
}

// ask sends one request and waits for its answer.
func ask[Req, Res any](ctx context.Context, wait time.Duration, method func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	res, err := method(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// confirm asks before something is removed. Where nobody can answer, --yes must
// have been said.
func (c *cli) confirm(format string, args ...any) error {
	if c.yes {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if !c.inIsTerminal || !c.errIsTerminal {
		return usage("add --yes if you mean it", "this would %s, and nobody is there to confirm it", what)
	}
	return c.consent("this will " + what + "; go on?")
}

// consent asks a yes-or-no question; everything but yes ends the command.
func (c *cli) consent(question string) error {
	fmt.Fprintf(c.errOut, "%s [y/N] ", clean(question))
	var line []byte
	one := make([]byte, 1)
	for len(line) < 16 {
		n, err := c.in.Read(one)
		if n == 0 && err != nil || n > 0 && one[0] == '\n' {
			break
		}
		line = append(line, one[:n]...)
	}
	if s := strings.ToLower(strings.TrimSpace(string(line))); s == "y" || s == "yes" {
		return nil
	}
	return &problem{code: exitFailure, message: "nothing was changed"}
}
