package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// nolad runs the program to its end and answers its exit code and what it said.
func nolad(t testing.TB, args ...string) (code int, out, errOut string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("nolad %q: %v %v\n%s", args, err, ctx.Err(), stderr.String())
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// TestStartErrors: a server that cannot start says why and what to do, in words.
func TestStartErrors(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	running := serve(t, t.TempDir())
	write := func(name, text string) string { return writeFile(t, name, text) }
	other := filepath.Dir(write("letters.txt", "dear all"))
	file := write("store", "not a directory")
	newer := filepath.Dir(write(storeMarker, "nola store 9, pebble 13, created\n"))
	garbled := filepath.Dir(write(storeMarker, "who knows\n"))
	serveIt := func(dir string, args ...string) []string {
		return append([]string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0"}, args...)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	stopped := serve(t, t.TempDir())
	stopped.terminate()
	if code, _, errOut := nolad(t, "backup", "--data-dir", stopped.dir, backup); code != 0 {
		t.Fatalf("backup: %s", errOut)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	if code, _, errOut := nolad(t, "restore", backup, "--data-dir", damaged); code != 0 {
		t.Fatalf("restore: %s", errOut)
	}
	files, err := filepath.Glob(filepath.Join(damaged, "db", "MANIFEST-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifest in %s: %v", damaged, err)
	}
	for _, file := range files {
		if err := os.Truncate(file, 10); err != nil {
			t.Fatal(err)
		}
	}
	unreadable := filepath.Dir(write(storeMarker, "nola store 1, pebble 1, created\n"))
	if err := os.Chmod(unreadable, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(unreadable, 0o700) }) // so that it can be removed
	for name, c := range map[string]struct {
		args []string
		code int
		want []string // parts of the message, without regard to case
	}{
		"port in use":            {serveIt(t.TempDir(), "--listen", busy.Addr().String()), exitFailure, []string{busy.Addr().String(), "in use", "--listen"}},
		"dev: port in use":       {[]string{"dev", "--data-dir", t.TempDir(), "--listen", busy.Addr().String()}, exitFailure, []string{"in use", "--listen"}},
		"directory in use":       {serveIt(running.dir), exitFailure, []string{running.dir, "in use", "--data-dir"}},
		"backup while it runs":   {[]string{"backup", "--data-dir", running.dir, filepath.Join(t.TempDir(), "b")}, exitFailure, []string{running.dir, "in use"}},
		"doctor while it runs":   {[]string{"doctor", "--data-dir", running.dir}, exitFailure, []string{running.dir, "in use"}},
		"not a store":            {serveIt(other), exitFailure, []string{other, "not a store", "--data-dir"}},
		"not a directory":        {serveIt(file), exitFailure, []string{file, "not a directory"}},
		"garbled marker":         {serveIt(garbled), exitFailure, []string{garbled, "not a store", "--data-dir"}},
		"newer format":           {serveIt(newer), exitFailure, []string{newer, "newer version", "run that version"}},
		"damaged":                {serveIt(damaged), exitFailure, []string{damaged, "damaged", "nolad restore"}},
		"doctor: damaged":        {[]string{"doctor", "--data-dir", damaged}, exitFailure, []string{damaged, "damaged", "nolad restore"}},
		"unreadable":             {serveIt(unreadable), exitFailure, []string{unreadable, "permission denied", "the right to read"}},
		"doctor: nothing there":  {[]string{"doctor", "--data-dir", filepath.Join(t.TempDir(), "none")}, exitFailure, []string{"none", "no such file"}},
		"backup: nothing there":  {[]string{"backup", "--data-dir", filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "b")}, exitFailure, []string{"no store", "none"}},
		"restore: no backup":     {[]string{"restore", filepath.Join(t.TempDir(), "none"), "--data-dir", filepath.Join(t.TempDir(), "new")}, exitFailure, []string{"none"}},
		"restore over something": {[]string{"restore", backup, "--data-dir", other}, exitFailure, []string{other, "not empty"}},
		"no such configuration":  {[]string{"serve", "--config", filepath.Join(t.TempDir(), "none.yaml")}, exitUsage, []string{"none.yaml", "no such file"}},
		"unknown field":          {[]string{"serve", "--config", write("a.yaml", "listne: 127.0.0.1:0\n")}, exitUsage, []string{"a.yaml", "line 1", "listne"}},
		"not YAML":               {[]string{"serve", "--config", write("b.yaml", "listen: [\n")}, exitUsage, []string{"b.yaml", "line"}},
		"everything at once":     {[]string{"serve", "--config", write("c.yaml", "listen: nowhere\nshards: -1\nlog: {level: loud}\nlimits: {call_bytes: 5}\n")}, exitUsage, []string{"listen \"nowhere\"", "HOST:PORT", "shards", "log.level", "call_bytes", "at least"}},
		"open to others":         {serveIt(t.TempDir(), "--listen", "0.0.0.0:0"), exitUsage, []string{"tls_cert", "token_file", "insecure"}},
		"dev open to others":     {[]string{"dev", "--data-dir", t.TempDir(), "--listen", "0.0.0.0:0"}, exitUsage, []string{"127.0.0.1", "nolad serve"}},
		"no token file":          {serveIt(t.TempDir(), "--token-file", filepath.Join(t.TempDir(), "none")), exitFailure, []string{"none", "no such file"}},
		"no certificate":         {serveIt(t.TempDir(), "--tls-cert", filepath.Join(t.TempDir(), "none"), "--tls-key", file), exitFailure, []string{"certificate", "none"}},
		"unknown flag":           {[]string{"serve", "--lisen", "x"}, exitUsage, []string{"--lisen", "--help"}},
		"unknown command":        {[]string{"srve"}, exitUsage, []string{"srve"}},
		"dev: no modules":        {[]string{"dev", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--modules", filepath.Join(t.TempDir(), "none")}, exitUsage, []string{"--modules", "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "unreadable" && os.Geteuid() == 0 {
				t.Skip("root reads everything")
			}
			began := time.Now()
			code, out, errOut := nolad(t, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, part := range c.want {
				if !strings.Contains(strings.ToLower(errOut), strings.ToLower(part)) {
					t.Errorf("the message does not say %q", part)
				}
			}
			if !strings.HasPrefix(errOut, "nolad: ") && !strings.Contains(errOut, "\nnolad: ") {
				t.Error("the message does not start with the program's name")
			}
			for _, bad := range []string{"goroutine ", ".go:", "panic", "Usage:"} {
				if strings.Contains(out+errOut, bad) {
					t.Errorf("the message has %q in it", bad)
				}
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if t.Failed() {
				t.Logf("nolad %q said:\n%s%s", c.args, out, errOut)
			}
		})
	}
	if res, err := http.Get(running.url + "/readyz"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the server that was in the way does not serve any more: %v %v", res, err)
	}
}

// TestSIGTERM: what was admitted ends well, what comes later is refused, and the
// program ends with 0.
func TestSIGTERM(t *testing.T) {
	dir, address := t.TempDir(), steadyAddress(t)
	p := serve(t, dir, "--listen", address)
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "witness", "counter")
	const (
		callers = 4
		rounds  = "300000000" // of each: some hundred milliseconds
	)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ended := 0
	for i := range callers {
		wg.Go(func() {
			res, err := c.Invoke(t.Context(), actorRef("witness", fmt.Sprint("slow-", i)), "spin", []byte(rounds))
			if err != nil || string(res.Payload) != "1" {
				t.Errorf("call in flight %d: %v", i, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ended++
		})
	}
	eventually(t, 10*time.Second, "all calls are in flight", func() bool { return unanswered(t, c) >= callers })
	p.signal(syscall.SIGTERM)
	eventually(t, 10*time.Second, "readyz says no, or nobody listens", func() bool {
		res, err := http.Get(p.url + "/readyz")
		return err != nil || res.Body.Close() == nil && res.StatusCode == http.StatusServiceUnavailable
	})
	for range 3 {
		_, err := c.Invoke(t.Context(), actorRef("counter", "late"), "inc", nil)
		if !errors.Is(err, &nola.Error{Reason: nola.ReasonUnavailable}) {
			t.Errorf("a call after SIGTERM: %v, want UNAVAILABLE", err)
		}
	}
	wg.Wait()
	if code := p.end(20 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, p.printed)
	}
	if ended != callers {
		t.Errorf("%d of %d calls in flight ended well", ended, callers)
	}
	p = serve(t, dir, "--listen", address)
	if n := invoke(t, p.dial(), "counter", "late", "inc", ""); n != "1" {
		t.Errorf("a call that was refused had an effect: the next one answers %s", n)
	}
}

// TestSIGTERMEndsCasts: a cast whose turn runs, which no connection waits for, ends
// and is made durable before the program ends.
func TestSIGTERMEndsCasts(t *testing.T) {
	p := serve(t, t.TempDir())
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "witness")
	if _, err := c.Cast(t.Context(), actorRef("witness", "slow"), "spin", []byte("300000000")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the cast runs", func() bool {
		res, err := c.Actors.DescribeActor(t.Context(), connect.NewRequest(&nolav1.DescribeActorRequest{Actor: actorMessage("witness", "slow")}))
		return err == nil && res.Msg.GetBacklogEntries() == 0 && res.Msg.GetActivation().GetMailboxEntries() == 1
	})
	p.signal(syscall.SIGTERM)
	if code := p.end(20 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, p.printed)
	}
	code, out, errOut := nolad(t, "doctor", "--data-dir", p.dir)
	if code != 0 || !strings.Contains(out, "state ") || strings.Contains(out, "backlog") {
		t.Errorf("the cast is still in the store, or did nothing: doctor %d\n%s%s", code, out, errOut)
	}
}

// unanswered is how many calls the server has not answered.
func unanswered(t testing.TB, c *client.Client) (calls int) {
	t.Helper()
	for _, s := range listShards(t, c) {
		calls += int(s.GetUnanswered())
	}
	return calls
}

func listShards(t testing.TB, c *client.Client) (all []*nolav1.Shard) {
	t.Helper()
	for token := ""; ; {
		res, err := c.Cluster.ListShards(t.Context(), connect.NewRequest(&nolav1.ListShardsRequest{PageSize: 1000, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, res.Msg.GetShards()...)
		if token = res.Msg.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// TestSIGTERMTwice: a second signal ends the program at once.
func TestSIGTERMTwice(t *testing.T) {
	p := serve(t, t.TempDir())
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "kitchen")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := c.Actors.Invoke(t.Context(), connect.NewRequest(&nolav1.InvokeRequest{
			Actor: actorMessage("kitchen", "slow"), Operation: "loop", Timeout: durationpb.New(40 * time.Second),
		}))
		if err == nil {
			t.Error("the call ended well")
		}
	}()
	eventually(t, 10*time.Second, "the call is in flight", func() bool { return unanswered(t, c) > 0 })
	p.signal(syscall.SIGTERM)
	eventually(t, 10*time.Second, "it stops", func() bool { return strings.Contains(p.printed.String(), "msg=stopping") })
	p.signal(syscall.SIGTERM)
	if code := p.end(2 * time.Second); code == 0 {
		t.Error("exit code 0, want another one: not everything ended")
	}
	if !strings.Contains(p.printed.String(), "second signal") {
		t.Errorf("it does not say why it ended:\n%s", p.printed)
	}
	<-done
}

// TestDrainTimeout: what does not end in time is interrupted, and the program
// says so.
func TestDrainTimeout(t *testing.T) {
	p := serve(t, t.TempDir(), "--drain-timeout", "300ms")
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "kitchen")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := c.Invoke(t.Context(), actorRef("kitchen", "slow"), "loop", nil); err == nil || strings.Contains(err.Error(), "steps") {
			t.Errorf("the call was not interrupted, it ended with %v", err)
		}
	}()
	eventually(t, 10*time.Second, "the call is in flight", func() bool { return unanswered(t, c) > 0 })
	stopped := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.end(10 * time.Second); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if took := time.Since(stopped); took > 3*time.Second {
		t.Errorf("it took %s to end, with a drain timeout of 300 ms", took)
	}
	if !strings.Contains(p.printed.String(), "drain_timeout") {
		t.Errorf("it does not say what was in its way:\n%s", p.printed)
	}
	<-done
}
