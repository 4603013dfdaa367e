//go:build wasip1

// Go is the conformance guest with our library; ../README.md says what it is to
// answer. TinyGo builds it too.
package main

import (
	"bytes"

	"github.com/nolaproject/nola/guest"
)

func main() {}

func init() {
	guest.Register("echo", func(c *guest.Context) ([]byte, error) { return c.Payload, nil })
	guest.Register("noop", func(*guest.Context) ([]byte, error) { return nil, nil })
	guest.Register("nope", func(*guest.Context) ([]byte, error) { return nil, guest.Error("No!") })
	guest.Register("inc", inc)
	guest.Register("get", get)
	guest.Register("reset", reset)
	guest.Register("host", host)
	guest.Register("remember", remember)
}

func inc(c *guest.Context) ([]byte, error) {
	amount, err := c.PayloadInt(1)
	if err != nil {
		return nil, err
	}
	n, err := c.AddInt("n", amount)
	return guest.Text(n), err
}

func get(c *guest.Context) ([]byte, error) {
	n, err := c.Int("n")
	return guest.Text(n), err
}

func reset(c *guest.Context) ([]byte, error) {
	n, err := c.Int("n")
	if err == nil {
		_, err = c.Delete("n")
	}
	return guest.Text(n), err
}

func host(c *guest.Context) ([]byte, error) {
	name, request, _ := bytes.Cut(c.Payload, []byte{0})
	return c.Host(string(name), request)
}

var remembered int64

func remember(*guest.Context) ([]byte, error) {
	remembered++
	return guest.Text(remembered), nil
}
