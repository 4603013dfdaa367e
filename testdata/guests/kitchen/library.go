//go:build wasip1

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nolaproject/nola/guest"
)

// library goes through all that the guest library offers, and answers what came
// of it, a line each.
func library(c *guest.Context) ([]byte, error) {
	var (
		out    strings.Builder
		faults []error
	)
	line := func(what string, values ...any) {
		fmt.Fprintf(&out, "%s:", what)
		for _, v := range values {
			switch v := v.(type) {
			case nil: // no error
			case error:
				faults = append(faults, fmt.Errorf("%s: %w", what, v))
			case []byte:
				fmt.Fprintf(&out, " %s", v)
			default:
				fmt.Fprintf(&out, " %v", v)
			}
		}
		out.WriteByte('\n')
	}

	line("Put", c.Put("n", []byte("41")))
	value, found, err := c.Get("n")
	line("Get", value, found, err)
	n, err := c.AddInt("n", 1)
	line("AddInt", n, err)
	line("PutJSON", c.PutJSON("j", entry{"a", "b"}))
	var e entry
	found, err = c.GetJSON("j", &e)
	line("GetJSON", e.Key, e.Value, found, err)
	entries, more, err := c.List(guest.Query{Prefix: "n", Start: "n", Reverse: true, Limit: 1})
	for _, e := range entries {
		line("List", e.Key, e.Value, more, err)
	}
	found, err = c.Delete("j")
	line("Delete", found, err)

	other := guest.Actor{ID: "other"}
	line("Create", c.Create(other, []byte("made")))
	reply, err := c.Call(other, "echo", []byte("hi"))
	line("Call", reply, err)
	_, err = c.Call(other, "nope", nil)
	line("Call of what fails", err != nil && err.Error() == "No!")
	id, err := c.Cast(other, "inc", nil)
	line("Cast", len(id), err)
	id, err = c.CastAfter(time.Hour, other, "inc", nil)
	line("CastAfter", len(id), err)

	now, err := c.Now()
	line("Now", now.Equal(time.Now()), err)
	line("SetTimer", c.SetTimer("t", time.Hour, "tick", []byte("hi")))
	timers, err := c.Timers("", 5)
	for _, t := range timers {
		line("Timers", t.Name, t.Operation, t.Payload, t.Due.Sub(now), err)
	}
	found, err = c.CancelTimer("t")
	line("CancelTimer", found, err)
	line("SetTimerAt", c.SetTimerAt("u", now.Add(time.Hour), "tick", nil))
	line("SetReminder", c.SetReminder(guest.Reminder{Name: "r", Operation: "tick", Cron: "0 3 * * *", TimeZone: "Europe/Berlin"}))
	found, err = c.CancelReminder("r")
	line("CancelReminder", found, err)

	random, err := c.Random(16)
	line("Random", len(random), err)
	self, err := c.Self()
	line("Self", self.Type, self.ID, self.Operation, err)
	caller, err := c.Caller()
	line("Caller", caller.Kind, caller.Attempt, caller.Deadline.After(now), err)
	text, found, err := c.Config("greeting")
	line("Config", text, found, err)
	line("Log", c.Log(guest.Info, "mind the gap"))
	found, err = c.ReplyError("00000000000000000000000000000001", "no")
	line("ReplyError", found, err)
	return []byte(out.String()), errors.Join(faults...)
}
