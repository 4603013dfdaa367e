package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = 60 * time.Second
	readyPoll    = time.Millisecond
	stopTimeout  = 30 * time.Second // then a child is killed
	outputMax    = 8 << 10          // of a child's output, kept for the error that needs it
)

// process is a child of this program that serves on a loopback address.
type process struct {
	name    string
	address string
	cmd     *exec.Cmd
	output  *tail
	ended   chan struct{} // closed when the child is gone
	began   time.Time
}

// spawn starts a child. It runs until stop or kill.
func spawn(name, address, program string, args ...string) (*process, error) {
	p := &process{name: name, address: address, output: &tail{}, ended: make(chan struct{})}
	p.cmd = exec.Command(program, args...) //nolint:noctx // stop ends it: gently, and by its id
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	// Of its own group, so that an interrupt at the terminal reaches this program
	// alone, which then ends its children in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the child, which stop and kill wait for
		_ = p.cmd.Wait() // how it ended does not matter; what it said is in output
		close(p.ended)
	}()
	return p, nil
}

// ready polls path until it is answered with 200, and returns the time since the
// child was started.
func (p *process) ready(ctx context.Context, path string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + p.address + "\r\n\r\n")
	var last error
	for {
		if last = p.probe(ctx, request); last == nil {
			return time.Since(p.began), nil
		}
		select {
		case <-p.ended:
			return 0, fmt.Errorf("%s ended before it was ready; it said:\n%s", p.name, p.output)
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is not ready after %s: %w; it said:\n%s", p.name, readyTimeout, last, p.output)
		case <-time.After(readyPoll):
		}
	}
}

func (p *process) probe(ctx context.Context, request []byte) error {
	c, err := dial(ctx, p.address)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.until(time.Now().Add(time.Second)); err != nil {
		return err
	}
	status, _, err := c.do(request)
	if err == nil && status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// stop asks the child to end and waits for it.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM and was killed; it said:\n%s", p.name, stopTimeout, p.output)
	}
}

// kill ends the child as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// rss is the memory that the child holds, in bytes.
func (p *process) rss() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("memory of %s: no VmRSS in its status", p.name)
}

// freeAddress finds a loopback address that nobody listens on. Another program may
// take it before it is used; then the child says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*outputMax {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-outputMax:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(bytes.TrimSpace(t.buf)) == 0 {
		return "  nothing\n"
	}
	return string(t.buf)
}

var _ io.Writer = (*tail)(nil)
