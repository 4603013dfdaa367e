//go:build wasip1

// Ticker counts how often a schedule, a timer or a reminder woke it.
package main

import (
	"fmt"
	"time"

	"github.com/nolaproject/nola/guest"
)

func init() {
	guest.Register("tick", tick)
	guest.Register("status", guest.JSON(status))
}

func main() {}

// Status is what status answers.
type Status struct {
	Ticks   int64     `json:"ticks"`
	Nominal time.Time `json:"nominal"` // when the last tick was due
	Fired   time.Time `json:"fired"`   // when it came
	By      string    `json:"by"`
}

// tick counts, and notes when it was due and when it came.
func tick(c *guest.Context) ([]byte, error) {
	caller, err := c.Caller()
	if err != nil {
		return nil, err
	}
	now, err := c.Now()
	if err != nil {
		return nil, err
	}
	n, err := c.AddInt("ticks", 1)
	if err != nil {
		return nil, err
	}
	s := Status{Nominal: caller.Nominal, Fired: now, By: caller.Kind}
	if caller.Name != "" {
		s.By += " " + caller.Name
	}
	if s.Nominal.IsZero() { // called by hand
		s.Nominal = now
	}
	if err := c.PutJSON("last", s); err != nil {
		return nil, err
	}
	line := fmt.Sprintf("tick %d by %s, due %s, %s late", n, s.By, s.Nominal.Format(time.RFC3339Nano), now.Sub(s.Nominal).Round(time.Millisecond))
	return []byte(line), c.Log(guest.Info, line)
}

// status answers how many ticks there were, and the last one.
func status(c *guest.Context, _ struct{}) (s Status, err error) {
	if _, err := c.GetJSON("last", &s); err != nil {
		return s, err
	}
	s.Ticks, err = c.Int("ticks")
	return s, err
}
