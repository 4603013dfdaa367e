//go:build wasip1

// Kitchen is a guest for tests: it does on request what actors do, and what they
// should not do.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/nolaproject/nola/guest"
)

func main() {}

func init() {
	// What a host call answers is the reply, or its error the turn's error.
	for operation, host := range map[string]string{
		"put": "KV-PUT", "get": "KV-GET", "delete": "KV-DELETE", "list": "KV-LIST",
		"invokeActor": "INVOKE-ACTOR", "createActor": "CREATE-ACTOR", "castActor": "CAST-ACTOR",
		"scheduleInvocation": "SCHEDULE-INVOCATION", "scheduleSelfTimer": "SCHEDULE-SELF-TIMER",
		"timerSet": "TIMER-SET", "timerCancel": "TIMER-CANCEL", "timerList": "TIMER-LIST",
		"reminderSet": "REMINDER-SET", "reminderCancel": "REMINDER-CANCEL",
		"defer": "DEFER", "replyTo": "REPLY",
		"log": "LOG", "now": "NOW", "random": "RANDOM", "self": "SELF", "caller": "CALLER", "carry": "CARRY", "config": "CONFIG",
	} {
		guest.Register(operation, func(c *guest.Context) ([]byte, error) { return c.Host(host, c.Payload) })
	}
	for operation, h := range map[string]guest.Handler{
		guest.Startup:          record("startup"),
		"deferAndKeep":         deferAndKeep,
		"kept":                 kept,
		"relay":                relay,
		guest.Shutdown:         record("shutdown"),
		"host":                 host,
		"library":              library,
		"echo":                 func(c *guest.Context) ([]byte, error) { return c.Payload, nil },
		"nope":                 func(*guest.Context) ([]byte, error) { return nil, errors.New("No!") },
		"inc":                  inc,
		"set":                  guest.JSON(set),
		"value":                value,
		"call":                 guest.JSON(call),
		"cast":                 guest.JSON(cast),
		"setTimer":             guest.JSON(setTimer),
		"putTimerCastThenFail": putTimerCastThenFail,
		"putTimerCastThenTrap": putTimerCastThenTrap,
		"putThenTrap":          putThenTrap,
		"fill":                 fill,
		"loop":                 loop,
		"spin":                 spin,
		"recurse":              recurse,
		"grow":                 grow,
		"logFlood":             logFlood,
		"print":                printOut,
		"sleep":                sleep,
		"dice":                 dice,
		"clock":                clock,
		"block":                func(*guest.Context) ([]byte, error) { select {} },
		"exit":                 exit,
		"reply":                reply,
		"remember":             remember,
	} {
		guest.Register(operation, h)
	}
}

// record keeps what STARTUP and SHUTDOWN were given.
func record(key string) guest.Handler {
	return func(c *guest.Context) ([]byte, error) { return nil, c.Put(key, c.Payload) }
}

// host makes any host call: the payload is its name, a zero byte, the request.
func host(c *guest.Context) ([]byte, error) {
	name, request, _ := bytes.Cut(c.Payload, []byte{0})
	return c.Host(string(name), request)
}

// inc counts under the key in the payload, "n" if it is empty.
func inc(c *guest.Context) ([]byte, error) {
	key := string(c.Payload)
	if key == "" {
		key = "n"
	}
	n, err := c.AddInt(key, 1)
	return guest.Text(n), err
}

type entry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// set puts an entry and answers what a get in the same turn finds.
func set(c *guest.Context, e entry) (string, error) {
	if err := c.Put(e.Key, []byte(e.Value)); err != nil {
		return "", err
	}
	v, found, err := c.Get(e.Key)
	if err == nil && !found {
		err = errors.New("put, but not found")
	}
	return string(v), err
}

// value answers the value of the key in the payload.
func value(c *guest.Context) ([]byte, error) {
	v, found, err := c.Get(string(c.Payload))
	if err == nil && !found {
		err = fmt.Errorf("key %q is not set", c.Payload)
	}
	return v, err
}

type message struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	Operation string `json:"operation"`
	Payload   string `json:"payload"`
	Count     int    `json:"count"`
	After     int64  `json:"after_millis"`
}

// call calls another actor and answers what it answered.
func call(c *guest.Context, m message) (string, error) {
	reply, err := c.Call(guest.Actor{Type: m.Type, ID: m.ID}, m.Operation, []byte(m.Payload))
	return string(reply), err
}

// cast sends count casts, numbered from 0 if the payload is empty.
func cast(c *guest.Context, m message) (int, error) {
	for i := range max(m.Count, 1) {
		payload := m.Payload
		if payload == "" {
			payload = strconv.Itoa(i)
		}
		if _, err := c.CastAfter(time.Duration(m.After)*time.Millisecond, guest.Actor{Type: m.Type, ID: m.ID}, m.Operation, []byte(payload)); err != nil {
			return i, err
		}
	}
	return max(m.Count, 1), nil
}

// setTimer sets count timers, ID-0, ID-1 and so on.
func setTimer(c *guest.Context, m message) (int, error) {
	for i := range max(m.Count, 1) {
		if err := c.SetTimer(fmt.Sprintf("%s-%d", m.ID, i), time.Duration(m.After)*time.Millisecond, m.Operation, []byte(m.Payload)); err != nil {
			return i, err
		}
	}
	return max(m.Count, 1), nil
}

// leave writes one of everything; none of it may stay.
func leave(c *guest.Context) error {
	_, err := c.Cast(guest.Actor{ID: "other"}, "inc", nil)
	return errors.Join(
		c.Put("left", []byte("behind")),
		c.SetTimer("left", time.Millisecond, "inc", nil),
		c.SetReminder(guest.Reminder{Name: "left", Operation: "inc", Every: time.Second}),
		err,
	)
}

func putTimerCastThenFail(c *guest.Context) ([]byte, error) {
	if err := leave(c); err != nil {
		return nil, err
	}
	return nil, errors.New("planned failure")
}

func putTimerCastThenTrap(c *guest.Context) ([]byte, error) {
	if err := leave(c); err != nil {
		return nil, err
	}
	panic("planned trap")
}

func putThenTrap(c *guest.Context) ([]byte, error) {
	if err := c.Put("left", []byte("behind")); err != nil {
		return nil, err
	}
	panic("planned trap")
}

// fill puts as many keys as the payload says, k000000 and on.
func fill(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(1)
	if err != nil {
		return nil, err
	}
	for i := range n {
		if err := c.Put(fmt.Sprintf("k%06d", i), guest.Text(i)); err != nil {
			return nil, err
		}
	}
	return guest.Text(n), nil
}

var sink int

func loop(*guest.Context) ([]byte, error) {
	for {
		sink++
	}
}

// spin leaves one of everything and loops, unless the payload says that it is not
// to: then it counts under "spun".
func spin(c *guest.Context) ([]byte, error) {
	if len(c.Payload) > 0 {
		n, err := c.AddInt("spun", 1)
		return guest.Text(n), err
	}
	if err := leave(c); err != nil {
		return nil, err
	}
	return loop(c)
}

func recurse(*guest.Context) ([]byte, error) { return guest.Text(int64(deeper(1))), nil }

//go:noinline
func deeper(n int) int {
	var frame [16]int
	frame[n%16] = n
	return deeper(n+1) + frame[(n+1)%16] + 1
}

// grow holds as many bytes as the payload says, 512 MiB if it is empty.
func grow(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(512 << 20)
	if err != nil {
		return nil, err
	}
	held = make([]byte, n)
	for i := 0; i < len(held); i += 4096 {
		held[i] = byte(i)
	}
	return guest.Text(int64(len(held))), nil
}

var held []byte

// logFlood logs as many lines as the payload says, a million if it is empty.
func logFlood(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(1_000_000)
	if err != nil {
		return nil, err
	}
	for i := range n {
		fmt.Printf("line %d of a flood\n", i)
	}
	return guest.Text(n), nil
}

func printOut(c *guest.Context) ([]byte, error) {
	fmt.Fprintf(os.Stdout, "out %s\n", c.Payload)
	fmt.Fprintf(os.Stderr, "err %s\n", c.Payload)
	fmt.Fprint(os.Stdout, "unfinished")
	return nil, nil
}

// sleep sleeps as many milliseconds as the payload says and answers how long
// that was by its own clock.
func sleep(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(3_600_000)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	time.Sleep(time.Duration(n) * time.Millisecond)
	return guest.Text(time.Since(start).Milliseconds()), nil
}

func exit(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(0)
	if err != nil {
		return nil, err
	}
	os.Exit(int(n))
	return nil, nil
}

// reply answers as many bytes as the payload says.
func reply(c *guest.Context) ([]byte, error) {
	n, err := c.PayloadInt(0)
	return bytes.Repeat([]byte("r"), int(n)), err
}

// remember counts in memory alone: 1 says that the instance is fresh.
func remember(*guest.Context) ([]byte, error) {
	remembered++
	return json.Marshal(remembered)
}

var remembered int

// deferAndKeep ends without a reply and keeps its token; kept answers that.
func deferAndKeep(c *guest.Context) ([]byte, error) {
	token, err := c.Defer(0)
	if err != nil {
		return nil, err
	}
	return nil, c.Put("token", []byte(token))
}

func kept(c *guest.Context) ([]byte, error) {
	token, _, err := c.Get("token")
	return token, err
}

// relay keeps what earlier firings left to it under "left", and answers one more
// than their result. The key "answer", if it is set, has it answer as many bytes,
// and "fail" has it fail with as many.
func relay(c *guest.Context) ([]byte, error) {
	left, err := c.Carry()
	if err != nil {
		return nil, err
	}
	if n, err := c.Int("fail"); err != nil || n > 0 {
		return nil, errors.Join(err, guest.Error(bytes.Repeat([]byte("f"), int(n))))
	}
	if err := c.PutJSON("left", left); err != nil {
		return nil, err
	}
	if n, err := c.Int("answer"); err != nil || n > 0 {
		return bytes.Repeat([]byte("a"), int(n)), err
	}
	n, _ := strconv.ParseInt(string(left.Result), 10, 64)
	return guest.Text(n + 1), nil
}

// fixed has a seed of its own, the same in every instance.
var fixed = rand.NewChaCha8([32]byte{1, 2, 3})

// dice draws from Go's own generator, and from one with a seed of its own.
func dice(*guest.Context) ([]byte, error) {
	return fmt.Appendf(nil, "%d %d", rand.Uint64(), fixed.Uint64()), nil
}

// clock answers the time and how long ago that was.
func clock(*guest.Context) ([]byte, error) {
	now := time.Now()
	return fmt.Appendf(nil, "%d %d", now.UnixNano(), time.Since(now)), nil
}
