package cqlfake

import (
	"crypto/md5" //nolint:gosec // names what is prepared, as real servers do
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/datastax/go-cassandra-native-protocol/frame"
	"github.com/datastax/go-cassandra-native-protocol/message"
	"github.com/datastax/go-cassandra-native-protocol/primitive"
)

// Flavour is which server is played. They differ in what they say to conditional
// statements, and in their own tables.
type Flavour uint8

// The flavours.
const (
	Cassandra Flavour = iota
	Scylla
)

// Tablets is what a Scylla has of them.
type Tablets uint8

// The ways with tablets. A keyspace has some unless it says that it wants none.
const (
	NoTablets   Tablets = iota
	BareTablets         // without conditional writes, as before 2025.4
	FullTablets
)

// Config says how a server behaves. The zero value is a Cassandra that syncs
// before it acknowledges and lets everybody in.
type Config struct {
	Flavour Flavour
	Tablets Tablets // of Scylla
	// CommitlogSync is what the server says when it is asked: default batch.
	CommitlogSync string
	// Username and Password are asked for, if there are any.
	Username, Password string
	// TLS, if set, is the server's side of all connections.
	TLS *tls.Config
}

// Server is a running server. Its methods may be called at once.
type Server struct {
	config   Config
	listener net.Listener
	codec    frame.Codec
	serving  sync.WaitGroup

	mu       sync.Mutex
	engine   engine
	prepared map[string]*prepared
	inject   func(Request) Fault
	seen     []Request
	numbered int
	held     []func() // by faults, until Release
	conns    map[net.Conn]bool
	down     bool
}

type prepared struct {
	text      string
	statement any
	binds     int
}

// Start starts a server on a free port of 127.0.0.1. Close ends it.
func Start(config Config) (*Server, error) {
	if config.CommitlogSync == "" {
		config.CommitlogSync = "batch"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // Close ends it
	if err != nil {
		return nil, fmt.Errorf("cqlfake: %w", err)
	}
	if config.TLS != nil {
		l = tls.NewListener(l, config.TLS)
	}
	s := &Server{
		config: config, listener: l, codec: frame.NewCodec(), prepared: map[string]*prepared{}, conns: map[net.Conn]bool{},
		engine: engine{flavour: config.Flavour, tablets: config.Tablets, inTablets: map[string]bool{}, keyspaces: map[string]map[string]*table{}},
	}
	s.engine.system(config)
	s.serving.Go(s.accept)
	return s, nil
}

// Address returns where the server answers, as host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Inject has f decide on every request from now on; nil: no faults. f is called
// by one goroutine at a time and must not call the server.
func (s *Server) Inject(f func(Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inject = f
}

// Requests answers the requests so far, in their order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.seen...)
}

// Release executes and answers what faults have held back, in its order.
func (s *Server) Release() {
	s.mu.Lock()
	held := s.held
	s.held = nil
	for _, f := range held {
		f()
	}
	s.mu.Unlock()
}

// Down has the server end all connections, and refuse new ones until it is up
// again. Its rows stay.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if down {
		for c := range s.conns {
			_ = c.Close()
		}
	}
}

// Close ends the server and waits for its goroutines.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.Down(true)
	s.serving.Wait()
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.down {
			_ = c.Close()
		} else {
			s.conns[c] = true
			s.serving.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
	}
}

// connection is one client. Its writes are under the server's mutex, in the order
// in which requests were executed.
type connection struct {
	net.Conn
	version primitive.ProtocolVersion
	known   bool // who it is
}

func (s *Server) serve(conn net.Conn) {
	c := &connection{Conn: conn, version: primitive.ProtocolVersion4, known: s.config.Username == ""}
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	for {
		f, err := s.codec.DecodeFrame(c)
		if err != nil {
			var version *frame.ProtocolVersionErr
			if errors.As(err, &version) { // clients ask for newer ones first
				s.answer(c, 0, &message.ProtocolError{ErrorMessage: "Invalid or unsupported protocol version; the lowest supported version is 4 and the greatest is 4"})
				_, _ = io.Copy(io.Discard, c)
			}
			return
		}
		s.mu.Lock()
		s.handle(c, f)
		s.mu.Unlock()
	}
}

func (s *Server) answer(c *connection, stream int16, m message.Message) {
	_ = s.codec.EncodeFrame(frame.NewFrame(c.version, stream, m), c) // a client that went hears nothing
}

func (s *Server) handle(c *connection, f *frame.Frame) {
	answer := func(m message.Message) { s.answer(c, f.Header.StreamId, m) }
	switch m := f.Body.Message.(type) {
	case *message.Options:
		answer(&message.Supported{Options: s.supported()})
		return
	case *message.Startup:
		if c.known {
			answer(&message.Ready{})
		} else {
			answer(&message.Authenticate{Authenticator: "org.apache.cassandra.auth.PasswordAuthenticator"})
		}
		return
	case *message.AuthResponse:
		if c.known = string(m.Token) == "\x00"+s.config.Username+"\x00"+s.config.Password; c.known {
			answer(&message.AuthSuccess{})
		} else {
			answer(&message.AuthenticationError{ErrorMessage: "Provided username " + s.config.Username + " and/or password are incorrect"})
		}
		return
	case *message.Register:
		answer(&message.Ready{})
		return
	}
	if !c.known {
		answer(&message.ProtocolError{ErrorMessage: "the connection is not authenticated"})
		return
	}
	switch m := f.Body.Message.(type) {
	case *message.Prepare:
		answer(s.prepare(m.Query))
	case *message.Query:
		s.request(c, m.Options, answer, []part{{text: m.Query}})
	case *message.Execute:
		s.request(c, m.Options, answer, []part{{id: string(m.QueryId)}})
	case *message.Batch:
		var parts []part
		for _, child := range m.Children {
			parts = append(parts, part{text: child.Query, id: string(child.Id), values: contents(child.Values)})
		}
		options := &message.QueryOptions{Consistency: m.Consistency, SerialConsistency: m.SerialConsistency, DefaultTimestamp: m.DefaultTimestamp}
		s.request(c, options, answer, parts)
	default:
		answer(&message.ProtocolError{ErrorMessage: fmt.Sprintf("%s is not known", f.Header.OpCode)})
	}
}

func (s *Server) supported() map[string][]string {
	options := map[string][]string{"CQL_VERSION": {"3.4.7"}, "COMPRESSION": {}}
	if s.config.Flavour == Scylla {
		options["SCYLLA_NR_SHARDS"] = []string{"1"}
	}
	return options
}

func (s *Server) prepare(text string) message.Message {
	statement, binds, err := parse(text)
	if err != nil {
		return &message.SyntaxError{ErrorMessage: err.Error()}
	}
	var answer message.Message
	if refused := run(func() {
		variables, rows := s.engine.describe(statement, binds)
		id := md5.Sum([]byte(text)) //nolint:gosec // as above
		s.prepared[string(id[:])] = &prepared{text, statement, binds}
		answer = &message.PreparedResult{PreparedQueryId: id[:], VariablesMetadata: &variables, ResultMetadata: &rows}
	}); refused != nil {
		return refused
	}
	return answer
}

// part is one statement of a request.
type part struct {
	text      string
	id        string // of what was prepared, instead of the text
	statement any
	values    [][]byte
}

func contents(values []*primitive.Value) (all [][]byte) {
	for _, v := range values {
		if v.Type == primitive.ValueTypeRegular && v.Contents == nil {
			v.Contents = []byte{}
		}
		all = append(all, v.Contents)
	}
	return all
}

// request executes and answers what was asked, as the faults have it.
func (s *Server) request(c *connection, options *message.QueryOptions, answer func(message.Message), parts []part) {
	if options == nil {
		options = &message.QueryOptions{}
	}
	if len(parts) == 1 && parts[0].values == nil {
		parts[0].values = contents(options.PositionalValues)
	}
	if unknown := s.resolve(parts); unknown != nil {
		answer(unknown)
		return
	}
	paging := page{int(options.PageSize), options.PagingState}
	execute := func() message.Message { return s.execute(parts, paging) }
	request, own := s.describe(options, parts)
	if own {
		answer(execute())
		return
	}
	fault := None
	if s.inject != nil {
		for _, p := range parts {
			request.Values = append(request.Values, p.values)
		}
		fault = s.inject(request)
	}
	switch fault {
	case None:
		answer(execute())
	case LostThenDropped, DoneThenDropped:
		if fault.Executed() {
			execute()
		}
		_ = c.Close()
	case LostThenTimeout, DoneThenTimeout, LateThenTimeout:
		switch fault {
		case DoneThenTimeout:
			execute()
		case LateThenTimeout:
			s.held = append(s.held, func() { execute() })
		}
		answer(request.timeout(options.Consistency))
	case LateThenSilence:
		s.held = append(s.held, func() { answer(execute()) })
	case DoneThenSilence:
		m := execute()
		s.held = append(s.held, func() { answer(m) })
	case Unavailable, DoneThenUnavailable:
		if fault.Executed() {
			execute()
		}
		answer(&message.Unavailable{ErrorMessage: "Cannot achieve consistency level", Consistency: options.Consistency, Required: 2, Alive: 1})
	case Overloaded:
		answer(&message.Overloaded{ErrorMessage: "the server is overloaded"})
	case DoneThenDenied:
		execute()
		answer(execute())
	case Forgotten:
		if parts[0].id == "" {
			answer(execute())
			return
		}
		delete(s.prepared, parts[0].id)
		answer(unprepared(parts[0].id))
	case Refused:
		answer(invalid("refused by a test"))
	}
}

func unprepared(id string) message.Message {
	return &message.Unprepared{ErrorMessage: "Prepared query with ID not found", Id: []byte(id)}
}

// resolve finds the statements of a request.
func (s *Server) resolve(parts []part) message.Message {
	for i := range parts {
		p := &parts[i]
		if p.id != "" {
			known, ok := s.prepared[p.id]
			if !ok {
				return unprepared(p.id)
			}
			p.text, p.statement = known.text, known.statement
			continue
		}
		statement, _, err := parse(p.text)
		if err != nil {
			return &message.SyntaxError{ErrorMessage: err.Error()}
		}
		p.statement = statement
	}
	return nil
}

// describe answers what faults see of a request; own: it is about the server's
// own tables, or about no rows.
func (s *Server) describe(options *message.QueryOptions, parts []part) (request Request, own bool) {
	request = Request{Consistency: level(options.Consistency), Timestamp: options.DefaultTimestamp != nil, Batch: len(parts) > 1}
	if options.SerialConsistency != nil {
		request.Serial = level(*options.SerialConsistency)
	}
	for _, p := range parts {
		request.Statements = append(request.Statements, p.text)
		switch statement := p.statement.(type) {
		case *choice:
			request.Read = true
			if strings.HasPrefix(statement.table.keyspace, "system") {
				return Request{}, true
			}
		case *change:
			request.Conditional = request.Conditional || statement.conditional()
		default:
			return Request{}, true
		}
	}
	s.numbered++
	request.Number = s.numbered
	s.seen = append(s.seen, request)
	return request, false
}

// level answers the bare name of a consistency level.
func level(l primitive.ConsistencyLevel) string { return strings.Fields(l.String())[1] }

// execute runs the statements and answers what came of them.
func (s *Server) execute(parts []part, paging page) (answer message.Message) {
	var out result
	refused := run(func() {
		if len(parts) == 1 {
			out = s.engine.execute(parts[0].statement, parts[0].values, paging)
			return
		}
		var changes []*change
		var values [][][]byte
		for _, p := range parts {
			c, ok := p.statement.(*change)
			if !ok {
				refuse("Invalid statement in batch: only UPDATE, INSERT and DELETE statements are allowed.")
			}
			changes, values = append(changes, c), append(values, p.values)
		}
		out = s.engine.change(changes, values)
	})
	switch {
	case refused != nil:
		return refused
	case out.change != nil:
		return out.change
	case out.columns == nil:
		return &message.VoidResult{}
	}
	return &message.RowsResult{
		Metadata: &message.RowsMetadata{ColumnCount: int32(len(out.columns)), Columns: out.columns, PagingState: out.paging}, //nolint:gosec // few
		Data:     out.rows,
	}
}
