package child

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	ownerVariable = "NOLA_CHILD_OWNER" // makes the test program the owner of a child
	patience      = 30 * time.Second
)

func TestMain(m *testing.M) {
	if outlives, err := strconv.ParseBool(os.Getenv(ownerVariable)); err == nil {
		own(outlives)
	}
	os.Exit(m.Run())
}

// own starts a child, says its number and waits to be killed.
func own(outlives bool) {
	cmd := exec.Command("sleep", "600.25")
	cmd.Stdout = os.Stdout // open until the child has ended too
	if _, err := Spawn(cmd, outlives); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(cmd.Process.Pid)
	select {}
}

// killedOwner starts an owner, kills it, and returns its child and what the
// child's output is read from.
func killedOwner(t *testing.T, outlives bool) (int, io.Reader) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	owner := exec.CommandContext(ctx, program)
	owner.Env = append(os.Environ(), ownerVariable+"="+strconv.FormatBool(outlives))
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	owner.Stdout = in
	err = owner.Start()
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, bad := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || bad != nil {
		t.Fatalf("the owner says %q (%v), not the number of its child", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed
	return pid, out
}

func TestChildEndsWithItsOwner(t *testing.T) {
	pid, output := killedOwner(t, false)
	if _, err := io.ReadAll(output); err != nil {
		t.Errorf("the child %d of a killed program still runs: %v", pid, err)
		_, _ = StopOther(pid, "600.25")
	}
}

func TestDetachedChildRunsOn(t *testing.T) {
	pid, output := killedOwner(t, true)
	if !Runs(pid, "600.25") {
		t.Errorf("the detached child %d has ended with its owner", pid)
	}
	if ran, err := StopOther(pid, "600.75"); ran || err != nil {
		t.Errorf("a process with other arguments was stopped: %v, error %v", ran, err)
	}
	if ran, err := StopOther(pid, "600.25"); !ran || err != nil {
		t.Errorf("stopped: %v, error %v", ran, err)
	}
	if _, err := io.ReadAll(output); err != nil {
		t.Errorf("the child %d still runs after it was stopped: %v", pid, err)
	}
}

func TestStopEndsAPausedChild(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	p, err := Spawn(cmd, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Error(err)
	}
	began := time.Now()
	if err := p.Stop(); err != nil || time.Since(began) > stopTimeout/2 {
		t.Errorf("stopped after %s, error %v", time.Since(began), err)
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Errorf("a signal to a child that is gone: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stop it again: %v", err)
	}
}
