package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
)

// gatewayPrefix starts the paths of the plain HTTP gateway:
// POST /v1/{namespace}/{type}/{id}/{operation}.
const gatewayPrefix = "/v1/"

// gateway is the API for people with curl: body in, body out.
type gateway struct{ s *Server }

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := g.s.cfg.Now()
	reason := g.serve(w, r, began)
	g.s.cfg.Metrics.gateway(reason, g.s.cfg.Now().Sub(began))
}

// serve answers one request and says why it failed, or "".
func (g *gateway) serve(w http.ResponseWriter, r *http.Request, now time.Time) nola.Reason {
	inv := &nola.Invocation{}
	if err := g.s.authorize(r.Header, inv); err != nil {
		return g.fail(w, err) // nothing is read from strangers
	}
	if r.Method == http.MethodGet {
		return g.outcome(w, r)
	}
	async, err := g.parse(r, now, inv)
	if err != nil {
		return g.fail(w, err)
	}
	if async {
		id, err := g.s.cfg.Shards.Cast(r.Context(), inv, time.Time{})
		if err != nil {
			return g.fail(w, err)
		}
		accepted(w, inv.Target, id)
		return ""
	}
	result, err := g.s.cfg.Shards.Invoke(r.Context(), inv)
	if err != nil {
		return g.fail(w, err)
	}
	if result.Replayed {
		w.Header().Set("Nola-Replayed", "true")
	}
	_, _ = w.Write(result.Payload) // the client may have gone
	return ""
}

// accepted answers that an invocation is durable, and where its outcome will be.
func accepted(w http.ResponseWriter, ref nola.ActorRef, id nola.InvocationID) {
	w.Header().Set("Location", gatewayPrefix+url.PathEscape(ref.Namespace)+"/"+url.PathEscape(ref.Type)+"/"+url.PathEscape(ref.ID)+outcomePart+id.String())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, "{\"invocationId\":%q}\n", id) // the client may have gone
}

// outcomePart stands in the path of an outcome, before the invocation's id.
const outcomePart = "/invocations/"

// outcome answers the reply or the error of an asynchronous call, found under
// the Location that it got: 202 while there is none.
func (g *gateway) outcome(w http.ResponseWriter, r *http.Request) nola.Reason {
	actor, text, ok := strings.Cut(r.URL.EscapedPath()[len(gatewayPrefix):], outcomePart)
	if !ok {
		return g.fail(w, errMethod)
	}
	var parts [4]string
	if err := splitPath(actor+"/", &parts); err != nil {
		return g.fail(w, errMethod)
	}
	id, err := nola.ParseInvocationID(text)
	if err != nil {
		return g.fail(w, err)
	}
	ref := nola.ActorRef{Namespace: parts[0], Type: parts[1], ID: parts[2]}
	info, err := g.s.cfg.Shards.GetInvocation(r.Context(), ref, id, nola.Key{})
	if err != nil {
		return g.fail(w, err)
	}
	switch info.State {
	case nola.InvocationPending:
		w.Header().Set("Retry-After", "1")
		accepted(w, ref, id)
	case nola.InvocationSucceeded:
		_, _ = w.Write(info.Payload) // the client may have gone
	case nola.InvocationFailed:
		return g.fail(w, info.Err)
	default:
		return g.fail(w, nola.Errorf(nola.ReasonInvocationNotFound, "%s knows of no invocation %s: it did not happen, or its outcome is no longer remembered", ref, id))
	}
	return ""
}

// parse makes inv the invocation that a request asks for.
func (g *gateway) parse(r *http.Request, now time.Time, inv *nola.Invocation) (async bool, err error) {
	if r.Method != http.MethodPost {
		return false, errMethod
	}
	var parts [4]string
	if err := splitPath(r.URL.EscapedPath()[len(gatewayPrefix):], &parts); err != nil {
		return false, err
	}
	inv.Target = nola.ActorRef{Namespace: parts[0], Type: parts[1], ID: parts[2]}
	inv.Operation = parts[3]
	if err := checkOperation(inv.Operation); err != nil {
		return false, err
	}
	inv.Deadline = now.Add(nola.CallTimeoutDefault)
	if v := r.Header.Get("Idempotency-Key"); v != "" {
		inv.Key.User = v
	}
	if v := r.Header.Get("Connect-Timeout-Ms"); v != "" {
		d, err := parseTimeout(v)
		if err != nil {
			return false, err
		}
		inv.Deadline = now.Add(d)
	}
	if v := r.Header["Prefer"]; len(v) > 0 {
		async = strings.Contains(strings.Join(v, ","), "respond-async")
	}
	inv.Payload, err = readBody(r)
	return async, err
}

var errMethod = nola.Errorf(nola.ReasonInvalidArgument, "the gateway takes POST /v1/{namespace}/{type}/{id}/{operation}, and GET of the Location that an asynchronous call got")

// splitPath takes a path of four percent-encoded parts apart.
func splitPath(path string, parts *[4]string) error {
	for i := range parts {
		part, rest, more := strings.Cut(path, "/")
		if more != (i < len(parts)-1) {
			return nola.Errorf(nola.ReasonInvalidArgument, "the path must be /v1/{namespace}/{type}/{id}/{operation}; a slash inside a part is written %%2F")
		}
		if strings.IndexByte(part, '%') >= 0 {
			decoded, err := url.PathUnescape(part)
			if err != nil {
				return nola.Errorf(nola.ReasonInvalidArgument, "the path part %q is not percent-encoded correctly", part)
			}
			part = decoded
		}
		parts[i], path = part, rest
	}
	return nil
}

// parseTimeout reads a timeout in milliseconds.
func parseTimeout(v string) (time.Duration, error) {
	ms, err := strconv.ParseInt(v, 10, 64)
	if err != nil || ms <= 0 || time.Duration(ms) > nola.CallTimeoutMax/time.Millisecond {
		return 0, nola.Errorf(nola.ReasonInvalidArgument, "Connect-Timeout-Ms is %q, it must be a number of milliseconds from 1 to %d", v, nola.CallTimeoutMax/time.Millisecond)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > nola.PayloadBytesMax {
		return nil, errPayload(r.ContentLength)
	}
	if r.ContentLength > 0 {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, nola.Errorf(nola.ReasonInvalidArgument, "the request's body ended early: %v", err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, nola.PayloadBytesMax+1))
	if err != nil {
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "the request's body cannot be read: %v", err)
	}
	if len(body) > nola.PayloadBytesMax {
		return nil, errPayload(int64(len(body)))
	}
	return body, nil
}

func errPayload(n int64) error {
	return nola.LimitError(nola.ReasonLimitExceeded, "payload_bytes", nola.PayloadBytesMax, "the payload has %d bytes, at most %d are allowed", n, nola.PayloadBytesMax)
}

// httpStatus is the HTTP status of a Connect code, as Connect's protocol has it.
func httpStatus(c connect.Code) int {
	switch c {
	case connect.CodeCanceled:
		return 499
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return http.StatusBadRequest
	case connect.CodeDeadlineExceeded:
		return http.StatusGatewayTimeout
	case connect.CodeNotFound:
		return http.StatusNotFound
	case connect.CodeAlreadyExists, connect.CodeAborted:
		return http.StatusConflict
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	case connect.CodeUnimplemented:
		return http.StatusNotImplemented
	case connect.CodeUnavailable:
		return http.StatusServiceUnavailable
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	default:
		return http.StatusInternalServerError
	}
}

// gatewayError is an error's body.
type gatewayError struct {
	Code     string            `json:"code"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (g *gateway) fail(w http.ResponseWriter, err error) nola.Reason {
	e := asNola(g.s.log, err)
	code := codeOf(e.Reason)
	status := httpStatus(code)
	if errors.Is(err, errMethod) {
		status = http.StatusMethodNotAllowed
		w.Header().Set("Allow", http.MethodPost)
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds(e.RetryAfter)))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may have gone.
	_ = json.NewEncoder(w).Encode(gatewayError{Code: code.String(), Reason: string(e.Reason), Message: e.Message, Metadata: e.Metadata})
	return e.Reason
}
