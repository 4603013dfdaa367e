package child

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

const (
	stopTimeout = 30 * time.Second // then a node is killed
	stopPoll    = 20 * time.Millisecond
)

// Process is a child of this program. Its methods may be called at once.
type Process struct {
	cmd      *exec.Cmd
	ended    chan struct{} // closed when the child is gone
	lifeline io.Closer     // whose end is the child's end; nil if it outlives this program
}

// Spawn starts a child. Unless it is to outlive this program, a watchdog kills it
// when this program is gone, even if that was killed itself.
func Spawn(cmd *exec.Cmd, outlives bool) (*Process, error) {
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	// Of its own session, so that an interrupt at the terminal does not reach it:
	// who started it ends it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var dog *exec.Cmd
	if outlives {
		if err := cmd.Start(); err != nil {
			return nil, err
		}
	} else {
		line, err := watchdog(&dog)
		if err != nil {
			return nil, fmt.Errorf("start a watchdog: %w", err)
		}
		p.lifeline = line
		if err = cmd.Start(); err == nil {
			_, err = fmt.Fprintln(line, cmd.Process.Pid)
		}
		if err != nil {
			if cmd.Process != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // killed; the error of the watchdog is the one to tell
			}
			_ = line.Close()
			_ = dog.Wait()
			return nil, err
		}
	}
	go func() { // ends with the child, which stop and kill wait for
		_ = cmd.Wait() // how it ended stands in its log
		if dog != nil {
			_ = dog.Process.Kill() // its charge is gone, and the number may be another's soon
			_ = dog.Wait()
			_ = p.lifeline.Close()
		}
		close(p.ended)
	}()
	return p, nil
}

// watchdog starts a shell that reads the number of a process from the pipe it
// returns, waits for the end of that pipe, and kills the process. The system
// closes the pipe when this program ends, in whatever way.
func watchdog(dog **exec.Cmd) (io.WriteCloser, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r pid && { read -r rest; kill -KILL "$pid"; }`) //nolint:noctx // the end of the pipe ends it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	line, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	*dog = cmd
	return line, cmd.Start()
}

// Ended is closed when the child is gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// PID is the child's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the child to end, also if it is stopped, waits for it, and kills it
// when that takes longer than 30 s, which is an error.
func (p *Process) Stop() error {
	if err := errors.Join(p.Signal(syscall.SIGCONT), p.Signal(syscall.SIGTERM)); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.Kill()
		return fmt.Errorf("process %d did not end within %s of SIGTERM and was killed", p.cmd.Process.Pid, stopTimeout)
	}
}

// Kill ends the child as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// Signal sends a signal to the child, if there still is one.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Runs reports whether the process of that number has the mark among its
// arguments: a number alone may have been given to another program since.
func Runs(pid int, mark string) bool {
	if pid <= 0 {
		return false
	}
	args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if _, none := os.Stat("/proc/self/cmdline"); errors.Is(none, fs.ErrNotExist) {
		args, err = exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output() //nolint:noctx // answers at once
	}
	return err == nil && bytes.Contains(args, []byte(mark))
}

// StopOther ends a process that this program did not start and that has the mark
// among its arguments, and reports whether it ran.
func StopOther(pid int, mark string) (bool, error) {
	if !Runs(pid, mark) {
		return false, nil
	}
	deadline := time.Now().Add(stopTimeout)
	err := errors.Join(syscall.Kill(pid, syscall.SIGCONT), syscall.Kill(pid, syscall.SIGTERM))
	for ; Runs(pid, mark); <-time.After(stopPoll) {
		if err == nil && time.Now().After(deadline) {
			err = syscall.Kill(pid, syscall.SIGKILL)
			deadline = deadline.Add(stopTimeout)
		}
		if err != nil || time.Now().After(deadline) {
			return true, fmt.Errorf("process %d does not end: %w", pid, err)
		}
	}
	return true, nil
}
