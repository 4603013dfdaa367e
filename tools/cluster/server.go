package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nolaproject/nola/tools/child"
)

const (
	readyTimeout = 2 * time.Minute
	readyPoll    = 20 * time.Millisecond
	probeTimeout = time.Second
	logEndBytes  = 4 << 10 // of a log, quoted in an error
)

// Server is one of a cluster's. Its methods are called by one goroutine at a time.
type Server struct {
	number   int
	program  string
	dir      string
	settings Settings
	process  *child.Process // nil before the first start and after the end
}

// Name is the server's name among the others.
func (s *Server) Name() string { return "nola-" + strconv.Itoa(s.number) }

// URL is where it serves clients.
func (s *Server) URL() string { return "http://" + s.settings.Listen }

// Admin is where it serves operators, as http://HOST:PORT.
func (s *Server) Admin() string { return "http://" + s.settings.AdminListen }

// Log returns the path of its log, that of all its runs.
func (s *Server) Log() string { return filepath.Join(s.dir, "log") }

// PID is the number of its process, 0 if it does not run.
func (s *Server) PID() int {
	if s.process == nil {
		return 0
	}
	return s.process.PID()
}

// Config is the path of its configuration file.
func (s *Server) Config() string { return filepath.Join(s.dir, "nolad.yaml") }

// Ended is closed when the process is gone that was started last. It must have been.
func (s *Server) Ended() <-chan struct{} { return s.process.Ended() }

// Start starts a server that was stopped or killed, and returns when it serves
// what belongs to it. On an error it does not run.
func (s *Server) Start(ctx context.Context) error {
	if s.process != nil {
		return fmt.Errorf("start %s: it runs already", s.Name())
	}
	if err := s.launch(); err != nil {
		return fmt.Errorf("start %s: %w", s.Name(), err)
	}
	if err := s.ready(ctx); err != nil {
		s.Kill()
		return err
	}
	return nil
}

// launch starts the process.
func (s *Server) launch() error {
	log, err := os.OpenFile(s.Log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.program, "serve", "--config", s.Config()) //nolint:noctx,gosec // Stop and Kill end it
	cmd.Stdout, cmd.Stderr = log, log
	s.process, err = child.Spawn(cmd, false)
	return err
}

// ready waits until the server says that it serves what belongs to it.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		last := s.probe(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-s.process.Ended():
			return fmt.Errorf("wait for %s: it ended before it was ready; from %s:\n%s", s.Name(), s.Log(), s.logEnd())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w); from %s:\n%s", s.Name(), ctx.Err(), last, s.Log(), s.logEnd())
		case <-time.After(readyPoll):
		}
	}
}

func (s *Server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin()+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s: %s", res.Status, body))
	}
	return nil
}

func (s *Server) logEnd() []byte {
	text, err := os.ReadFile(s.Log())
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-logEndBytes):]
}

// Stop has the server give its shards away, end what it has and exit, and waits
// for that. A server that does not run is left alone; one that does not end in
// time is killed, and the error says so.
func (s *Server) Stop() error {
	if s.process == nil {
		return nil
	}
	err := s.process.Stop()
	s.process = nil
	if err != nil {
		return fmt.Errorf("stop %s: %w; from %s:\n%s", s.Name(), err, s.Log(), s.logEnd())
	}
	return nil
}

// Kill ends the server as a crash would, and waits until it is gone.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Kill()
		s.process = nil
	}
}

// Pause freezes the server: its connections stay open, and nothing is answered
// until Resume.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP, "pause") }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT, "resume") }

func (s *Server) signal(sig syscall.Signal, what string) error {
	if s.process == nil {
		return fmt.Errorf("%s %s: it does not run", what, s.Name())
	}
	if err := s.process.Signal(sig); err != nil {
		return fmt.Errorf("%s %s: %w", what, s.Name(), err)
	}
	return nil
}
