package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TimeHeader carries the server's clock, in Unix nanoseconds, with every answer:
// clients stamp the first attempts of their calls by it.
const TimeHeader = "Nola-Server-Time"

func newValidator() (protovalidate.Validator, error) { return protovalidate.New() }

// interceptor stands before every handler: authentication, validation, the
// clock, the mapping of errors, metrics.
type interceptor struct {
	s     *Server
	valid protovalidate.Validator
}

func (i *interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := i.s.cfg.Now()
		res, err := i.unary(ctx, req, next)
		now := i.s.cfg.Now()
		code := ""
		if err != nil {
			ce := asConnect(i.s.log, err)
			ce.Meta().Set(TimeHeader, strconv.FormatInt(now.UnixNano(), 10))
			code, err = ce.Code().String(), ce
		} else {
			res.Header().Set(TimeHeader, strconv.FormatInt(now.UnixNano(), 10))
		}
		i.s.cfg.Metrics.rpc(req.Spec().Procedure, code, now.Sub(began))
		return res, err
	}
}

func (i *interceptor) unary(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	if err := i.s.authorize(req.Header(), nil); err != nil {
		return nil, err
	}
	var err error
	switch m := req.Any().(type) {
	case *nolav1.InvokeRequest: // what the shards check anyway is not checked twice
	case *nolav1.PushModuleRequest:
		// The schema bounds the code too, but does not say what to do about it.
		if err = checkSize(m.GetWasm()); err == nil {
			err = i.check(m)
		}
	default:
		err = i.check(m)
	}
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (i *interceptor) check(msg any) error {
	m, ok := msg.(proto.Message)
	if !ok {
		return nil
	}
	return asInvalid(i.valid.Validate(m))
}

// asInvalid turns what validation found into one error that names each field.
func asInvalid(err error) error {
	var bad *protovalidate.ValidationError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &bad):
		return nola.Errorf(nola.ReasonInternal, "the request cannot be validated: %v", err)
	}
	var texts []string
	e := &nola.Error{Reason: nola.ReasonInvalidArgument}
	for _, v := range bad.Violations {
		field := protovalidate.FieldPathString(v.Proto.GetField())
		if e.Metadata == nil {
			e.Metadata = map[string]string{"field": field}
		}
		text := v.Proto.GetMessage()
		if v.Proto.GetRuleId() == "string.pattern" {
			text = illegal(v.FieldValue.String(), v.RuleValue.String())
		}
		if field != "" {
			text = field + ": " + text
		}
		texts = append(texts, text)
	}
	e.Message = strings.Join(texts, "; ")
	return e
}

// form is what a pattern of the schema means to a person.
type form struct{ legal, example string }

// forms holds all patterns of the schema.
var forms = map[string]form{
	"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$":    formName,
	"^([a-z0-9]([a-z0-9._-]*[a-z0-9])?)?$": formName,
	"^[A-Za-z0-9._-]+$":                    formLabel,
	"^[A-Za-z0-9._-]*$":                    formLabel,
	"^[^\\p{Cc}]+$":                        formText,
	"^[^\\p{Cc}]*$":                        formText,
	"^[0-9a-fA-F]{32}$":                    {"32 hexadecimal digits", "019ab6f0c4d27c1e8f3a5b6c7d8e9f01"},
	`^[^\p{Cc}=\s]+$`:                      {"text without spaces, '=' and control characters", "team"},
	"^[0-9]{4}-[0-9]{2}-[0-9]{2}$":         formDate,
	"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$":      formDate,
	"^[A-Z][A-Z0-9-]*$":                    {"upper-case letters, digits and '-', a letter first", "KV-GET"},
}

var (
	formName  = form{"lower-case letters, digits, and between them '.', '_' and '-'", "order-items"}
	formLabel = form{"letters, digits, '.', '_' and '-'", "bank-2026"}
	formDate  = form{"a date as year, month and day", "2026-12-24"}
	formText  = form{"text of at least one character and without control characters", "alice"}
)

// illegalShown bounds how much of a value an error repeats.
const illegalShown = 100

// illegal says what is legal in place of a value that a pattern refuses.
func illegal(value, pattern string) string {
	f, ok := forms[pattern]
	if !ok {
		return fmt.Sprintf("%.*q does not match %s", illegalShown, value, pattern)
	}
	return fmt.Sprintf("%.*q is not legal: write %s, for example %q", illegalShown, value, f.legal, f.example)
}

func (i *interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (i *interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		began := i.s.cfg.Now()
		conn.ResponseHeader().Set(TimeHeader, strconv.FormatInt(began.UnixNano(), 10))
		err := i.s.authorize(conn.RequestHeader(), nil)
		if err == nil {
			err = next(ctx, &checkedConn{conn, i})
		}
		code := ""
		if err != nil {
			ce := asConnect(i.s.log, err)
			code, err = ce.Code().String(), ce
		}
		i.s.cfg.Metrics.rpc(conn.Spec().Procedure, code, i.s.cfg.Now().Sub(began))
		return err
	}
}

// checkedConn validates what a stream brings.
type checkedConn struct {
	connect.StreamingHandlerConn
	i *interceptor
}

func (c *checkedConn) Receive(msg any) error {
	if err := c.StreamingHandlerConn.Receive(msg); err != nil {
		return err
	}
	return c.i.check(msg)
}

// authorize checks the caller's token, and puts its name into inv, if given.
func (s *Server) authorize(h http.Header, inv *nola.Invocation) error {
	if s.cfg.Tokens == nil {
		return nil
	}
	name, ok := s.cfg.Tokens.Check(h.Get("Authorization"))
	if !ok {
		return nola.Errorf(nola.ReasonUnauthenticated, "a token is needed: send the header \"Authorization: Bearer TOKEN\" with one from the server's token file")
	}
	if inv != nil {
		inv.Caller.Identity = name
	}
	return nil
}

// callerName is the name that the token file has for a caller who was let in;
// empty for a server without tokens.
func (s *Server) callerName(h http.Header) string {
	if s.cfg.Tokens == nil {
		return ""
	}
	name, _ := s.cfg.Tokens.Check(h.Get("Authorization"))
	return name
}

// withCORS lets browsers from the allowed origins call.
func (s *Server) withCORS(h http.Handler) http.Handler {
	if len(s.cfg.AllowedOrigins) == 0 {
		return h
	}
	return cors.New(cors.Options{
		AllowedOrigins: s.cfg.AllowedOrigins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Idempotency-Key", "Prefer", "Authorization"),
		ExposedHeaders: append(connectcors.ExposedHeaders(), TimeHeader, "Nola-Replayed", "Retry-After", "Location"),
		MaxAge:         7200,
	}).Handler(h)
}
