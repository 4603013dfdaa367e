package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Limits of what a conn reads.
const (
	headerBytesMax = 16 << 10 // a status line and its headers, also the read buffer
	bodyBytesMax   = 16 << 20
	dialTimeout    = 5 * time.Second
)

// conn is one kept HTTP/1.1 connection of one caller. It sends requests that were
// made beforehand and reads status, length and body of the answers; of the other
// headers it only heeds Connection. It is not for use by two goroutines at once.
type conn struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
	body    []byte // of the last answer, reused
}

func dial(ctx context.Context, address string) (*conn, error) {
	c := &conn{address: address, in: bufio.NewReaderSize(nil, headerBytesMax)}
	return c, c.connect(ctx)
}

func (c *conn) connect(ctx context.Context) error {
	nc, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.conn = nc
	c.in.Reset(nc)
	return nil
}

// until bounds all that follows: a server that does not answer ends the call, not
// the program.
func (c *conn) until(t time.Time) error { return c.conn.SetDeadline(t) }

func (c *conn) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// do sends a request and returns the answer. body is valid until the next call.
// After an error the connection is of no more use.
func (c *conn) do(request []byte) (status int, body []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, fmt.Errorf("send: %w", err)
	}
	status, body, err = readAnswer(c.in, c.body[:0])
	c.body = body
	return status, body, err
}

var (
	errMalformed = errors.New("malformed answer")
	errClosing   = errors.New("the server closes the connection")
)

// readAnswer reads one answer and appends its body to into.
func readAnswer(in *bufio.Reader, into []byte) (status int, body []byte, err error) {
	line, err := readLine(in)
	if err != nil {
		return 0, into, fmt.Errorf("read the status line: %w", err)
	}
	// HTTP/1.1 200 OK
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, into, fmt.Errorf("status line %q: %w", line, errMalformed)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil || status < 100 {
		return 0, into, fmt.Errorf("status line %q: %w", line, errMalformed)
	}
	length, chunked, closing := int64(-1), false, false
	for header := 0; ; header += len(line) {
		if line, err = readLine(in); err != nil {
			return status, into, fmt.Errorf("read the headers: %w", err)
		}
		if len(line) == 0 {
			break
		}
		if header > headerBytesMax {
			return status, into, fmt.Errorf("more than %d bytes of headers: %w", headerBytesMax, errMalformed)
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return status, into, fmt.Errorf("header %q: %w", line, errMalformed)
		}
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil || length < 0 || length > bodyBytesMax {
				return status, into, fmt.Errorf("length %q, at most %d are read: %w", value, bodyBytesMax, errMalformed)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			closing = bytes.EqualFold(value, []byte("close"))
		}
	}
	switch {
	case status == 204 || status == 304:
	case chunked:
		body, err = readChunks(in, into)
	case length >= 0:
		body, err = readExactly(in, into, int(length))
	default:
		return status, into, fmt.Errorf("neither a length nor chunks: %w", errMalformed)
	}
	if err == nil && closing {
		err = errClosing
	}
	return status, body, err
}

// readLine reads up to CR LF and returns what is before. It aliases the buffer.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

func readExactly(in *bufio.Reader, into []byte, n int) ([]byte, error) {
	at := len(into)
	into = append(into, make([]byte, n)...)
	if _, err := io.ReadFull(in, into[at:]); err != nil {
		return into[:at], fmt.Errorf("read the body: %w", err)
	}
	return into, nil
}

func readChunks(in *bufio.Reader, into []byte) ([]byte, error) {
	for {
		line, err := readLine(in)
		if err != nil {
			return into, fmt.Errorf("read a chunk's length: %w", err)
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil || len(into)+int(n) > bodyBytesMax {
			return into, fmt.Errorf("chunk of length %q, at most %d bytes are read: %w", line, bodyBytesMax, errMalformed)
		}
		if into, err = readExactly(in, into, int(n)); err != nil {
			return into, err
		}
		for { // the line after a chunk, or the trailers after the last
			if line, err = readLine(in); err != nil {
				return into, fmt.Errorf("read the end of a chunk: %w", err)
			}
			if n > 0 && len(line) > 0 {
				return into, fmt.Errorf("%q after a chunk: %w", line, errMalformed)
			}
			if len(line) == 0 {
				break
			}
		}
		if n == 0 {
			return into, nil
		}
	}
}

// post makes a request with the headers that a server needs to answer it.
func post(address, path, contentType string, body []byte, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\n", path, address)
	if contentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", contentType)
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(body))
	b.Write(body)
	return b.Bytes()
}

// postJSON makes a unary Connect request.
func postJSON(address, procedure, body string) []byte {
	return post(address, procedure, "application/json", []byte(body), "Connect-Protocol-Version: 1")
}

// jsonText returns the text of a string field of a JSON object, as it stands: it
// is for numbers and base64, which hold no escapes. The field's name must occur
// nowhere else in the object.
func jsonText(object []byte, field string) ([]byte, bool) {
	for rest := object; ; {
		i := bytes.Index(rest, []byte(field))
		if i < 0 {
			return nil, false
		}
		quoted := i > 0 && rest[i-1] == '"'
		rest = rest[i+len(field):]
		if !quoted || len(rest) == 0 || rest[0] != '"' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != '"' {
			return nil, false
		}
		end := bytes.IndexByte(rest[1:], '"')
		if end < 0 {
			return nil, false
		}
		return rest[1 : 1+end], true
	}
}

// number reads the decimal number that is all of b.
func number(b []byte) (int64, error) {
	var v int64
	if len(b) == 0 || len(b) > 18 {
		return 0, fmt.Errorf("answer %.60q is not a number", b)
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("answer %.60q is not a number", b)
		}
		v = v*10 + int64(c-'0')
	}
	return v, nil
}
