package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		in     string
		status int
		body   string
		err    error
	}{
		"length":           {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n17", 200, "17", nil},
		"case and space":   {"HTTP/1.1 200 OK\r\ncontent-length:   2  \r\n\r\n17", 200, "17", nil},
		"no reason":        {"HTTP/1.1 429\r\nContent-Length: 0\r\n\r\n", 429, "", nil},
		"bare line feeds":  {"HTTP/1.1 200 OK\nContent-Length: 1\n\n1", 200, "1", nil},
		"chunks":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", 200, "abcde", nil},
		"trailers":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n", 200, "a", nil},
		"nothing":          {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", nil},
		"closing":          {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1", 200, "1", errClosing},
		"gone":             {"", 0, "", io.EOF},
		"gone in headers":  {"HTTP/1.1 200 OK\r\nContent-", 200, "", io.ErrUnexpectedEOF},
		"gone in body":     {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n17", 200, "", io.ErrUnexpectedEOF},
		"not HTTP":         {"SSH-2.0-OpenSSH_9.2p1\r\n", 0, "", errMalformed},
		"no status":        {"HTTP/1.1 abc OK\r\n\r\n", 0, "", errMalformed},
		"no colon":         {"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", 200, "", errMalformed},
		"no length":        {"HTTP/1.1 200 OK\r\n\r\n", 200, "", errMalformed},
		"negative length":  {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 200, "", errMalformed},
		"too long":         {"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", 200, "", errMalformed},
		"bad chunk":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200, "", errMalformed},
		"chunk too long":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n", 200, "", errMalformed},
		"chunk runs over":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 200, "a", errMalformed},
		"endless headers":  {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", headerBytesMax), 200, "", errMalformed},
		"endless line":     {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", headerBytesMax), 200, "", bufio.ErrBufferFull},
		"next stays there": {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1", 200, "1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			status, body, err := readAnswer(bufio.NewReaderSize(strings.NewReader(tt.in), headerBytesMax), nil)
			if status != tt.status || string(body) != tt.body || !errors.Is(err, tt.err) {
				t.Errorf("%.80q = %d %q %v, want %d %q %v", tt.in, status, body, err, tt.status, tt.body, tt.err)
			}
		})
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n17"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, body, err := readAnswer(bufio.NewReaderSize(strings.NewReader(string(in)), headerBytesMax), nil)
		if err == nil && len(body) > len(in) {
			t.Errorf("%q has %d bytes, its body is said to have %d", in, len(in), len(body))
		}
	})
}

func TestJSONText(t *testing.T) {
	for in, want := range map[string]string{
		`{"payload":"MQ==","invocationId":"x"}`:  "MQ==",
		`{"a":"payload", "payload" :  "Mg=="}`:   "Mg==",
		`{"notpayload":"x","payload":"Mw=="}`:    "Mw==",
		`{"payloads":"x"}`:                       "-",
		`{"payload":7}`:                          "-",
		`{"payload":"unfinished`:                 "-",
		`{}`:                                     "-",
		`{"replayed":true, "payload":"", "b":1}`: "",
	} {
		got, ok := jsonText([]byte(in), "payload")
		if !ok {
			got = []byte("-")
		}
		if string(got) != want {
			t.Errorf("jsonText(%s) = %q, want %q", in, got, want)
		}
	}
	if v, err := jsonNumber([]byte(`{"payload":"MTIz"}`)); v != 123 || err != nil {
		t.Errorf("jsonNumber = %d, %v", v, err)
	}
	for _, in := range []string{`{}`, `{"payload":"!"}`, `{"payload":"eA=="}`, `{"payload":"` + strings.Repeat("MTIz", 30) + `"}`} {
		if v, err := jsonNumber([]byte(in)); err == nil {
			t.Errorf("jsonNumber(%s) = %d", in, v)
		}
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "17": 17, "999999999999999999": 999999999999999999} {
		if got, err := number([]byte(in)); got != want || err != nil {
			t.Errorf("number(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "1 ", "1x", "1000000000000000000"} {
		if got, err := number([]byte(in)); err == nil {
			t.Errorf("number(%q) = %d", in, got)
		}
	}
}
