//go:build wasip1

// Counter-memory is the counter without a store: its number is a variable of the
// program. The manifest asks for mode memory, so the variable survives.
package main

import (
	"strconv"

	"github.com/nolaproject/nola/guest"
)

// n is the number. Every actor has its own.
var n int64

func init() {
	guest.Register("inc", inc)
	guest.Register("get", get)
	guest.Register("reset", reset)
	guest.Register("EXPORT", get)
	guest.Register("UPGRADE", upgrade)
}

func main() {}

// inc adds the amount in the payload, 1 if it is empty, and answers the sum.
func inc(c *guest.Context) ([]byte, error) {
	amount, err := c.PayloadInt(1)
	if err != nil {
		return nil, err
	}
	n += amount
	return guest.Text(n), nil
}

// get answers the number. It is also what a new version is given.
func get(*guest.Context) ([]byte, error) { return guest.Text(n), nil }

// reset sets the number back to 0 and answers what it was.
func reset(*guest.Context) ([]byte, error) {
	was := n
	n = 0
	return guest.Text(was), nil
}

// upgrade takes over the number of the version before.
func upgrade(c *guest.Context) (_ []byte, err error) {
	n, err = strconv.ParseInt(string(c.Payload), 10, 64)
	return nil, err
}
