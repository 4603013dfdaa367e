//go:build wasip1

// Witness is a guest for tests: it keeps on record what happened to it, so that
// a test sees what came twice and what never came.
package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/nolaproject/nola/guest"
)

func main() {}

func init() {
	guest.Register("add", add)
	guest.Register("relay", relay)
	guest.Register("mark", mark)
	guest.Register("chain", chain)
	guest.Register("arm", arm)
	guest.Register("spin", spin)
}

// add counts under the key in the payload, k/KEY, and in all, and answers the
// latter.
func add(c *guest.Context) ([]byte, error) {
	if _, err := c.AddInt("k/"+string(c.Payload), 1); err != nil {
		return nil, err
	}
	n, err := c.AddInt("total", 1)
	return guest.Text(n), err
}

// relay calls add of another actor, and counts here what it has called. The payload
// is the other's ID, a space, and the key.
func relay(c *guest.Context) ([]byte, error) {
	to, key, _ := bytes.Cut(c.Payload, []byte(" "))
	if _, err := c.Call(guest.Actor{ID: string(to)}, "add", key); err != nil {
		return nil, err
	}
	n, err := c.AddInt("r/"+string(key), 1)
	return guest.Text(n), err
}

// mark counts how often it was woken for a nominal time, at/NAME/NANOSECONDS,
// after as many rounds of work as the payload says.
func mark(c *guest.Context) ([]byte, error) {
	rounds, err := c.PayloadInt(0)
	if err != nil {
		return nil, err
	}
	work(rounds)
	caller, err := c.Caller()
	if err != nil {
		return nil, err
	}
	n, err := c.AddInt(fmt.Sprintf("at/%s/%020d", caller.Name, caller.Nominal.UnixNano()), 1)
	return guest.Text(n), err
}

// chainEvery is the time between two links of a chain.
const chainEvery = 20 * time.Millisecond

// chain counts how often its link was reached, link/NUMBER, and sets the timer
// for the next one.
func chain(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(0)
	if err != nil {
		return nil, err
	}
	if _, err := c.AddInt(fmt.Sprintf("link/%08d", n), 1); err != nil {
		return nil, err
	}
	return guest.Text(n), c.SetTimer("next", chainEvery, "chain", guest.Text(n+1))
}

// arm sets a timer and a reminder that mark, due after as many milliseconds as
// the payload says and every so many.
func arm(c *guest.Context) ([]byte, error) {
	n, err := strconv.ParseInt(string(c.Payload), 10, 64)
	if err != nil {
		return nil, err
	}
	after := time.Duration(n) * time.Millisecond
	if err := c.SetTimer("armed", after, "mark", nil); err != nil {
		return nil, err
	}
	return nil, c.SetReminder(guest.Reminder{Name: "again", Operation: "mark", Every: after})
}

var sink int64

func work(rounds int64) {
	for i := range rounds {
		sink ^= i
	}
}

// spin keeps the processor busy for as many rounds as the payload says, and
// counts that it got to its end, under spun.
func spin(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(1)
	if err != nil {
		return nil, err
	}
	work(n)
	done, err := c.AddInt("spun", 1)
	return guest.Text(done), err
}
