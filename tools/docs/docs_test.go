package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Bounds of what documents run.
const (
	startTimeout   = time.Minute
	commandTimeout = 2 * time.Minute
	stopTimeout    = 30 * time.Second
)

// block is one fenced block of a document.
type block struct {
	line int    // of the fence
	kind string // the first word behind it
	name string // the second
	text string
}

var fence = regexp.MustCompile("^```(\\S*)\\s*(\\S*)\\s*$")

// blocks takes the fenced blocks out of a document. joined says of each whether
// nothing but empty lines parts it from the one before.
func blocks(doc string) (list []block, joined []bool) {
	var open *block
	near := false
	for i, line := range strings.Split(doc, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open == nil && m != nil:
			open = &block{line: i + 1, kind: m[1], name: m[2]}
			joined = append(joined, near)
		case open == nil:
			near = near && strings.TrimSpace(line) == ""
		case m != nil && m[1] == "":
			list = append(list, *open)
			open, near = nil, true
		default:
			open.text += line + "\n"
		}
	}
	return list, joined
}

// command is one command of a block, and what it prints if that is told.
type command struct {
	line int
	text string
	want string
	told bool
}

var arrow = regexp.MustCompile(`^(.*?)\s+# -> ?(.*)$`)

// commands takes a block apart: a command goes on behind a backslash.
func commands(b block) (list []command) {
	text, first := "", 0
	for i, line := range strings.Split(b.text, "\n") {
		if text == "" {
			first = b.line + 1 + i
			if t := strings.TrimSpace(line); t == "" || strings.HasPrefix(t, "#") {
				continue
			}
		}
		c := command{line: first}
		if m := arrow.FindStringSubmatch(line); m != nil {
			line, c.want, c.told = m[1], m[2], true
		}
		text += line
		if strings.HasSuffix(text, `\`) {
			text += "\n"
			continue
		}
		c.text, text = text, ""
		list = append(list, c)
	}
	return list
}

// pattern makes what is expected into a pattern for all of the output. Spaces at
// ends of lines do not count.
func pattern(want string) *regexp.Regexp {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(want) + "\n") {
		line = strings.TrimRight(line, " \n")
		if line == "…" {
			lines = append(lines, `(?:[^\n]*\n)*`)
			continue
		}
		lines = append(lines, strings.ReplaceAll(regexp.QuoteMeta(line), "…", `[^\n]*`)+`[ ]*\n`)
	}
	return regexp.MustCompile(`\A` + strings.Join(lines, "") + `\z`)
}

func matches(want, got string) bool {
	return pattern(want).MatchString(strings.TrimSpace(got) + "\n")
}

// place is a directory that looks to its reader like a clone in which make run
// was said, with a server at work.
type place struct {
	t    *testing.T
	dir  string
	env  []string
	swap *strings.Replacer // the ports of the documents for those that are free
}

// built is where the programs are, once for all documents.
var built = sync.OnceValues(func() (string, error) { return builtDir, build(builtDir) })

var builtDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if builtDir, err = os.MkdirTemp("", "nola-docs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builtDir)
	return m.Run()
}

// build builds into dir what make puts into bin/.
func build(dir string) error {
	run := func(env []string, args ...string) error {
		cmd := exec.Command("go", append([]string{"build", "-trimpath"}, args...)...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		return nil
	}
	if err := run(nil, "-o", dir+string(filepath.Separator), "./cmd/nolad", "./cmd/nolactl"); err != nil {
		return err
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples", "*", "main.go"))
	if err != nil {
		return err
	}
	for _, file := range examples {
		name := filepath.Base(filepath.Dir(file))
		out := filepath.Join(dir, "modules", name+".wasm")
		if err := run([]string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./examples/"+name); err != nil {
			return err
		}
		manifest, err := os.ReadFile(filepath.Join(filepath.Dir(file), "manifest.yaml"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "modules", name+".yaml"), manifest, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// root is the repository.
const root = "../.."

func newPlace(t *testing.T) *place {
	t.Helper()
	programs, err := built()
	if err != nil {
		t.Fatalf("build what the documents use: %v", err)
	}
	p := &place{t: t, dir: t.TempDir()}
	p.must(os.Mkdir(filepath.Join(p.dir, "bin"), 0o755))
	p.must(os.CopyFS(filepath.Join(p.dir, "bin"), os.DirFS(programs)))
	for _, name := range []string{"nolad", "nolactl"} {
		p.must(os.Chmod(filepath.Join(p.dir, "bin", name), 0o755))
	}
	for _, name := range []string{"go.mod", "go.sum", "guest"} {
		p.copy(name)
	}
	return p
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// copy copies a file of the repository, or a directory with its files.
func (p *place) copy(name string) {
	p.t.Helper()
	from := filepath.Join(root, name)
	info, err := os.Stat(from)
	p.must(err)
	if info.IsDir() {
		p.must(os.CopyFS(filepath.Join(p.dir, name), os.DirFS(from)))
		return
	}
	text, err := os.ReadFile(from)
	p.must(err)
	p.must(os.WriteFile(filepath.Join(p.dir, name), text, 0o644))
}

// serve starts the server that `make run` starts, and stops it after the test.
func (p *place) serve() {
	p.t.Helper()
	cmd := exec.Command("bin/nolad", "dev", "--listen", "127.0.0.1:0")
	cmd.Dir, cmd.Path = p.dir, filepath.Join(p.dir, "bin", "nolad")
	log, err := os.Create(filepath.Join(p.dir, "server.log"))
	p.must(err)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	p.must(err)
	p.must(cmd.Start())
	ready := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		url := ""
		for lines.Scan() {
			fmt.Fprintln(log, lines.Text())
			if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == "URL" {
				url = f[1]
			}
			if strings.HasPrefix(lines.Text(), "Stop with") {
				ready <- url
			}
		}
		_, _ = io.Copy(io.Discard, out) // a line too long to scan must not block the server
	}()
	p.t.Cleanup(func() {
		p.endAtOnce()
		kill := time.AfterFunc(stopTimeout, func() { _ = cmd.Process.Kill() }) // it may have ended
		defer kill.Stop()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			p.t.Errorf("stop the server: %v", err)
		}
		<-read
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("the server ended with %v", err)
		}
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && p.t.Failed() {
			p.t.Logf("the server said:\n%s", text)
		}
	})
	select {
	case url := <-ready:
		address := strings.TrimPrefix(url, "http://")
		spare, err := net.Listen("tcp", "127.0.0.1:0")
		p.must(err)
		other := spare.Addr().String()
		p.must(spare.Close())
		p.swap = strings.NewReplacer("localhost:7466", address, "127.0.0.1:7466", address, "localhost:7470", other, "127.0.0.1:7470", other)
		p.env = append(os.Environ(), "NOLA_SERVER="+url, "NOLA_NAMESPACE=", "NOLA_TOKEN=", "TZ=UTC")
	case <-read:
		p.t.Fatal("the server ended before it was ready")
	case <-time.After(startTimeout):
		p.t.Fatal("the server was not ready in time")
	}
}

// endAtOnce ends the servers that the document started itself and left, for
// example because a command failed: each has left its number in a file *.pid.
func (p *place) endAtOnce() {
	files, err := filepath.Glob(filepath.Join(p.dir, "*.pid"))
	p.must(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && dir == p.dir {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
	}
}

// run runs one command and answers what it printed.
func (p *place) run(text string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", p.swap.Replace(text))
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.WaitDelay = time.Second // for what a command left behind with our pipe
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestDocumentsRun(t *testing.T) {
	if _, err := exec.LookPath("bash"); errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no bash to run the commands with")
	}
	for _, name := range []string{"README.md", "docs/quickstart.md", "docs/schedules.md"} {
		t.Run(name, func(t *testing.T) {
			doc, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			p := newPlace(t)
			p.serve()
			work(p, name, string(doc))
		})
	}
}

// TestTestingGuideRuns works through docs/testing.md in a module of its own that
// requires this one, as a reader's does.
func TestTestingGuideRuns(t *testing.T) {
	if _, err := exec.LookPath("bash"); errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no bash to run the commands with")
	}
	const name = "docs/testing.md"
	doc, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	work(newModule(t), name, string(doc))
}

// TestGuideForAuthorsCompiles builds a module of each piece of docs/actors.md
// that registers operations.
func TestGuideForAuthorsCompiles(t *testing.T) {
	const name = "docs/actors.md"
	doc, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	p := newModule(t)
	list, _ := blocks(string(doc))
	built := 0
	for _, b := range list {
		if b.kind != "go" || !strings.HasPrefix(b.text, "guest.Register(") {
			continue
		}
		built++
		imports := `"github.com/nolaproject/nola/guest"`
		if strings.Contains(b.text, "strconv.") {
			imports = `"strconv";` + imports
		}
		file := filepath.Join(p.dir, fmt.Sprint("line", b.line), "main.go")
		p.must(os.MkdirAll(filepath.Dir(file), 0o755))
		p.must(os.WriteFile(file, fmt.Appendf(nil, "package main\n\nimport (%s)\n\nfunc main() {}\n\nfunc init() {\n//line %s:%d\n%s}\n", imports, name, b.line+1, b.text), 0o644))
	}
	if built == 0 {
		t.Fatalf("%s registers nothing", name)
	}
	cmd := exec.Command("go", "vet", "./...")
	cmd.Dir, cmd.Env = p.dir, append(p.env, "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// newModule is a directory with a module that requires this one.
func newModule(t *testing.T) *place {
	t.Helper()
	const module = "github.com/nolaproject/nola"
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, dir: t.TempDir(), env: append(os.Environ(), "GOWORK=off"), swap: strings.NewReplacer()}
	p.copy("go.mod") // for the versions of what it requires
	p.copy("go.sum")
	file := filepath.Join(p.dir, "go.mod")
	mod, err := os.ReadFile(file)
	p.must(err)
	text := strings.Replace(string(mod), "module "+module, "module example.com/letter", 1) +
		fmt.Sprintf("\nrequire %s v0.0.0\nreplace %s => %q\n", module, module, repository)
	p.must(os.WriteFile(file, []byte(text), 0o644))
	return p
}

// work does what a document says, from top to bottom.
func work(p *place, name, doc string) {
	list, joined := blocks(doc)
	last, ran := "", 0
	for i, b := range list {
		switch {
		case b.name != "":
			file := filepath.Join(p.dir, filepath.FromSlash(b.name))
			p.must(os.MkdirAll(filepath.Dir(file), 0o755))
			p.must(os.WriteFile(file, []byte(b.text), 0o644))
		case b.kind == "text" && joined[i] && list[i-1].kind == "sh":
			if !matches(b.text, last) {
				p.t.Errorf("%s:%d: want\n%s\ngot\n%s", name, b.line, b.text, last)
			}
		case b.kind == "sh":
			for _, c := range commands(b) {
				ran++
				got, err := p.run(c.text)
				last = got
				if err != nil {
					p.t.Fatalf("%s:%d: %s: %v\n%s", name, c.line, c.text, err, got)
				}
				if c.told && !matches(c.want, got) {
					p.t.Errorf("%s:%d: %s: want %q, got %q", name, c.line, c.text, c.want, got)
				}
			}
		}
	}
	if ran == 0 {
		p.t.Errorf("%s: nothing was run", name)
	}
}

func TestMatches(t *testing.T) {
	for name, tt := range map[string]struct {
		want, got string
		ok        bool
	}{
		"same":            {"1", "1\n", true},
		"other":           {"1", "2\n", false},
		"more":            {"1", "1\n2\n", false},
		"part":            {"1", "11", false},
		"any text":        {"at … done", "at noon done", true},
		"not over lines":  {"a…b", "a\nb", false},
		"any lines":       {"a\n…\nz\n", "a\nb\nc\nz\n", true},
		"no lines":        {"a\n…\nz\n", "a\nz\n", true},
		"pattern letters": {"a.c", "abc", false},
		"padding":         {"KEY   VALUE", "KEY   VALUE   \n", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := matches(tt.want, tt.got); got != tt.ok {
				t.Errorf("matches(%q, %q) = %t", tt.want, tt.got, got)
			}
		})
	}
}

func TestBlocks(t *testing.T) {
	doc := "```sh\na \\\n  b  # -> 1\n\n# a remark\nc\n```\n\n```text\nx\n```\nwords\n```text\ny\n```\n```go d/e.go\npackage e\n```\n"
	list, joined := blocks(doc)
	if len(list) != 4 || list[0].kind != "sh" || list[3].name != "d/e.go" || list[3].text != "package e\n" {
		t.Fatalf("blocks: %+v", list)
	}
	if joined[0] || !joined[1] || joined[2] || !joined[3] {
		t.Errorf("joined: %v", joined)
	}
	got := commands(list[0])
	if len(got) != 2 || got[0].text != "a \\\n  b" || got[0].want != "1" || !got[0].told || got[1].text != "c" || got[1].told || got[1].line != 6 {
		t.Errorf("commands: %+v", got)
	}
}
