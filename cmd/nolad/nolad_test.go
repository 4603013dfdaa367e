package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// program is the nolad under test, and guestDir where guests are built that make
// has not built.
var program, guestDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nolad-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, guestDir = filepath.Join(dir, "nolad"), dir
	build := exec.Command("go", "build", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building nolad: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// slow reports whether the suites run at full size.
func slow() bool { return os.Getenv("NOLA_SLOW") != "" }

// sized is short, or full where the suites run at full size.
func sized(short, full int) int {
	if slow() {
		return full
	}
	return short
}

var guests sync.Map // name -> func() (string, error)

// guestCode is the code of a guest: the one that make built, or one built now.
func guestCode(t testing.TB, name string) []byte {
	t.Helper()
	file, _ := guests.LoadOrStore(name, sync.OnceValues(func() (string, error) { return buildGuest(name) }))
	path, err := file.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func buildGuest(name string) (string, error) {
	built, source := filepath.Join("../../testdata/guests", name+".wasm"), filepath.Join("../../testdata/guests", name)
	if name == "counter" || name == "counter-memory" || name == "bank" || name == "ticker" {
		built, source = filepath.Join("../../bin/modules", name+".wasm"), filepath.Join("../../examples", name)
	}
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	out := filepath.Join(guestDir, name+".wasm")
	build := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./"+source)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the guest %s: %w\n%s", name, err, text)
	}
	return out, nil
}

// transcript keeps the end of what a process prints.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const transcriptMax = 64 << 10

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() < transcriptMax {
		l.text.Write(p)
	}
	return len(p), nil
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// warnings is what was printed, without what is usual.
func (l *transcript) warnings() string {
	var b strings.Builder
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, "level=INFO") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// process is a nolad at work.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	dir     string
	url     string
	printed *transcript
	ready   chan struct{} // closed once it serves
	gone    chan struct{} // closed once it ended
	err     error         // of its end; valid after gone
}

// spawn starts `nolad serve` on dir and does not wait until it serves.
func spawn(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	return spawnCommand(t, dir, append([]string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0"}, args...)...)
}

// spawnCommand starts nolad with these arguments alone.
func spawnCommand(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, printed: &transcript{}, ready: make(chan struct{}), gone: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	r, w := io.Pipe()
	said := io.MultiWriter(p.printed, w)
	p.cmd.Stdout, p.cmd.Stderr = said, said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		serving := regexp.MustCompile(`(?:msg=serving url=|^ +URL +)(\S+)`) // of serve and of dev
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			if m := serving.FindStringSubmatch(line); m != nil {
				p.url = m[1]
				close(p.ready)
				_, _ = io.Copy(io.Discard, r) // until the process ends
				return
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		p.err = p.cmd.Wait()
		_ = w.Close() // never fails
		close(p.gone)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			if said := p.printed.warnings(); said != "" {
				t.Logf("data directory %s, nolad said:\n%s", dir, said)
			}
		}
	})
	return p
}

// serve starts `nolad serve` on dir and waits until it serves.
func serve(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	p := spawn(t, dir, args...)
	p.awaitReady()
	return p
}

func (p *process) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.gone:
		p.t.Fatalf("nolad ended at once: %v\n%s", p.err, p.printed)
	case <-time.After(30 * time.Second):
		p.t.Fatalf("nolad does not serve after 30 s\n%s", p.printed)
	}
}

// kill ends the process as a crash does, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.gone
}

// signal sends s.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits until the process has ended and answers its exit code.
func (p *process) end(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.gone:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("nolad has not ended after %s\n%s", within, p.printed)
		return -1
	}
}

// terminate stops the process as an operator does.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.end(40 * time.Second); code != 0 {
		p.t.Fatalf("exit code %d after SIGTERM\n%s", code, p.printed)
	}
}

// residentBytes is the memory that the process has now.
func (p *process) residentBytes() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skipf("no memory figures here: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// dial makes a client of the process.
func (p *process) dial() *client.Client { return dial(p.t, p.url, client.Options{}) }

func dial(t testing.TB, url string, opts client.Options) *client.Client {
	t.Helper()
	c, err := client.New(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// steadyAddress is a loopback address that a server can have again after a
// restart: its port is free, and below those that outgoing connections take.
func steadyAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close() // it is only looked at
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// push pushes guests, each under its own name.
func push(t testing.TB, c *client.Client, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: name, Wasm: guestCode(t, name)})); err != nil {
			t.Fatalf("push %s: %v", name, err)
		}
	}
}

func actorRef(typ, id string) nola.ActorRef {
	return nola.ActorRef{Namespace: nola.DefaultNamespace, Type: typ, ID: id}
}

func actorMessage(typ, id string) *nolav1.ActorRef { return &nolav1.ActorRef{Type: typ, Id: id} }

// invoke calls an actor and fails the test if that fails.
func invoke(t testing.TB, c *client.Client, typ, id, operation, payload string) string {
	t.Helper()
	res, err := c.Invoke(t.Context(), actorRef(typ, id), operation, []byte(payload))
	if err != nil {
		t.Fatalf("invoke %s/%s %s: %v", typ, id, operation, err)
	}
	return string(res.Payload)
}

// state reads all entries of an actor's state under a prefix.
func state(t testing.TB, c *client.Client, typ, id, prefix string) map[string]string {
	t.Helper()
	entries := make(map[string]string)
	for token := ""; ; {
		res, err := c.Actors.ListState(context.WithoutCancel(t.Context()), connect.NewRequest(&nolav1.ListStateRequest{
			Actor: actorMessage(typ, id), Prefix: []byte(prefix), Limit: 1000, PageToken: token,
		}))
		if err != nil {
			t.Fatalf("state of %s/%s: %v", typ, id, err)
		}
		for _, e := range res.Msg.GetEntries() {
			entries[string(e.GetKey())] = string(e.GetValue())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			return entries
		}
	}
}

// eventually polls until ok holds, for as long as within.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
}

// writeFile writes a file into a directory of its own and answers its path.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
