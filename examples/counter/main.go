//go:build wasip1

// Counter is the smallest actor with a state: a number that survives.
package main

import "github.com/nolaproject/nola/guest"

// The key under which the number is kept.
const key = "n"

func init() {
	guest.Register("inc", inc)
	guest.Register("get", get)
	guest.Register("reset", reset)
}

func main() {}

// inc adds the amount in the payload, 1 if it is empty, and answers the sum.
func inc(c *guest.Context) ([]byte, error) {
	amount, err := c.PayloadInt(1)
	if err != nil {
		return nil, err
	}
	n, err := c.AddInt(key, amount)
	if err != nil {
		return nil, err
	}
	return guest.Text(n), nil
}

// get answers the number.
func get(c *guest.Context) ([]byte, error) {
	n, err := c.Int(key)
	if err != nil {
		return nil, err
	}
	return guest.Text(n), nil
}

// reset sets the number back to 0 and answers what it was.
func reset(c *guest.Context) ([]byte, error) {
	n, err := c.Int(key)
	if err != nil {
		return nil, err
	}
	if _, err := c.Delete(key); err != nil {
		return nil, err
	}
	return guest.Text(n), nil
}
