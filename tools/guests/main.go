// Guests builds the guests of testdata/guests that other compilers than Go's
// make, where these compilers are, and says in one line what it skipped. The
// binaries are kept in the repository, so that the tests need none of them.
//
// Beside each binary stands NAME.wasm.sha256, in the form that sha256sum -c
// reads: the compiler's version, the digest of the binary, those of what it is
// made of. A binary is built anew when one of the latter has changed, and by the
// compiler that made it before; with -rewrite all are, by what this machine has.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	rewrite := flag.Bool("rewrite", false, "build all guests with the compilers of this machine, whatever made them before")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	summary, err := update(ctx, filepath.Join("testdata", "guests"), all, *rewrite)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guests:", err)
		os.Exit(1)
	}
	fmt.Println(summary)
}

// guest is one guest and how it is built. Paths are relative to its directory,
// and commands run there.
type guest struct {
	name    string
	sources []string // its own, as patterns
	library []string // what else goes into it
	// compiler names itself in the first line of what it prints for version.
	compiler func(dir string) string
	version  []string
	helpers  [][]string // other programs that it needs, with the same
	// ready says what is missing besides the compiler, empty if nothing is.
	ready func(ctx context.Context, compiler string) string
	// build are the arguments that put the binary into out.
	build func(out string) []string
	get   string // how to get the compiler
}

// all are the guests of the repository.
var all = []guest{
	{
		name:     "assemblyscript",
		sources:  []string{"assembly/*.ts", "package.json"},
		compiler: local("node_modules/.bin/asc"),
		version:  []string{"--version"},
		build: func(out string) []string {
			return []string{"assembly/index.ts", "-O3", "--noAssert", "--runtime", "minimal", "--use", "abort=assembly/index/abort", "-o", out}
		},
		get: "make guest-tools installs it with npm",
	},
	{
		name:     "rust",
		sources:  []string{"rust.rs"},
		compiler: inPath("rustc"),
		version:  []string{"--version"},
		ready:    rustTarget,
		build: func(out string) []string {
			return []string{
				"--edition", "2021", "--target", rustWasm, "--crate-type", "cdylib", "-C", "opt-level=s", "-C", "panic=abort",
				"-C", "lto=fat", "-C", "strip=symbols", "-C", "link-arg=-zstack-size=16384", "-o", out, "rust.rs",
			}
		},
		get: "rustup installs it",
	},
	{
		name:     "small",
		sources:  []string{"small.c"},
		compiler: inPath("clang-19", "clang"),
		version:  []string{"--version"},
		build: func(out string) []string {
			return []string{
				"--target=wasm32", "-O2", "-mbulk-memory", "-nostdlib", "-Wall", "-Wextra", "-Wl,--no-entry", "-Wl,--strip-all",
				"-Wl,-z,stack-size=8192", "-Wl,--stack-first", "-o", out, "small.c",
			}
		},
		get: "Debian has it in clang-19 and lld-19",
	},
	{
		// The stock targets want parts that TinyGo's Go module lacks; this one
		// takes them from the system.
		name:     "tinygo",
		sources:  []string{"../go/main.go", "target.json"},
		library:  []string{"../../../guest/*.go"},
		compiler: firstOf(cached("nola/tinygo-*/bin/tinygo"), inPath("tinygo")),
		version:  []string{"version"},
		helpers:  [][]string{{"wasm-opt", "--version"}},
		ready:    wasiLibrary,
		build: func(out string) []string {
			return []string{"build", "-target", "target.json", "-opt=z", "-no-debug", "-buildmode=c-shared", "-o", out, "../go"}
		},
		get: "make guest-tools builds it where LLVM 19 is",
	},
	{
		name:     "wat",
		sources:  []string{"wat.wat"},
		compiler: inPath("wat2wasm"),
		version:  []string{"--version"},
		build:    func(out string) []string { return []string{"wat.wat", "-o", out} },
		get:      "Debian has it in wabt",
	},
}

// inPath finds the first of some programs.
func inPath(names ...string) func(string) string {
	return func(string) string {
		for _, name := range names {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		return ""
	}
}

// local finds a program at a place relative to the guest, a pattern.
func local(pattern string) func(string) string {
	return func(dir string) string {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return ""
		}
		found, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
		if err != nil || len(found) == 0 {
			return ""
		}
		return found[len(found)-1]
	}
}

// cached finds a program where make guest-tools puts it.
func cached(pattern string) func(string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return inPath()
	}
	return func(string) string { return local(pattern)(cache) }
}

func firstOf(ways ...func(string) string) func(string) string {
	return func(dir string) string {
		for _, find := range ways {
			if path := find(dir); path != "" {
				return path
			}
		}
		return ""
	}
}

// wasiLibrary looks for what target.json of the TinyGo guest names.
func wasiLibrary(context.Context, string) string {
	for _, file := range []string{
		"/usr/include/wasm32-wasi/stdio.h", "/usr/lib/wasm32-wasi/libc.a",
		"/usr/lib/llvm-19/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a",
	} {
		if _, err := os.Stat(file); err != nil {
			return "no " + file + ": Debian has it in wasi-libc and libclang-rt-19-dev-wasm32"
		}
	}
	return ""
}

const rustWasm = "wasm32-unknown-unknown"

func rustTarget(ctx context.Context, rustc string) string {
	dir, err := exec.CommandContext(ctx, rustc, "--print", "target-libdir", "--target", rustWasm).Output()
	if err == nil {
		_, err = os.Stat(strings.TrimSpace(string(dir)))
	}
	if err != nil {
		return "no target " + rustWasm + ": rustup target add " + rustWasm
	}
	return ""
}

// update brings the binaries in dir up to date and says what it did.
func update(ctx context.Context, dir string, guests []guest, rewrite bool) (summary string, err error) {
	var fresh, built, skipped []string
	for _, g := range guests {
		at := filepath.Join(dir, g.name)
		have, err := readRecord(at, g.name)
		if err != nil && (!rewrite || !errors.Is(err, os.ErrNotExist)) {
			return "", err
		}
		inputs, err := g.inputs(at)
		if err != nil {
			return "", err
		}
		if !rewrite && have.sameInputs(inputs) {
			fresh = append(fresh, g.name)
			continue
		}
		compiler, version, missing := g.find(ctx, at)
		if missing == "" && !rewrite && version != have.compiler {
			missing = fmt.Sprintf("%s made it, here is %s: go run ./tools/guests -rewrite", have.compiler, version)
		}
		if missing != "" {
			skipped = append(skipped, fmt.Sprintf("%s (%s)", g.name, missing))
			continue
		}
		if err := g.make(ctx, at, compiler, filepath.Join(at, g.name+".wasm")); err != nil {
			return "", err
		}
		if err := (record{version, inputs}).write(at, g.name); err != nil {
			return "", err
		}
		built = append(built, g.name)
	}
	var parts []string
	for _, part := range []struct {
		what  string
		names []string
	}{{"up to date", fresh}, {"built", built}, {"skipped", skipped}} {
		if len(part.names) > 0 {
			parts = append(parts, part.what+" "+strings.Join(part.names, ", "))
		}
	}
	return "guests: " + strings.Join(parts, "; "), nil
}

// find returns the compiler and what it calls itself, or what is missing.
func (g guest) find(ctx context.Context, dir string) (compiler, version, missing string) {
	compiler = g.compiler(dir)
	if compiler == "" {
		return "", "", "no compiler: " + g.get
	}
	for _, program := range append([][]string{append([]string{compiler}, g.version...)}, g.helpers...) {
		out, err := exec.CommandContext(ctx, program[0], program[1:]...).Output()
		if err != nil {
			return "", "", fmt.Sprintf("%s does not tell its version: %v", program[0], err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		if version != "" {
			version += "; "
		}
		version += filepath.Base(program[0]) + ": " + strings.TrimSpace(line)
	}
	if g.ready != nil {
		missing = g.ready(ctx, compiler)
	}
	return compiler, version, missing
}

// make builds the guest of dir into out.
func (g guest) make(ctx context.Context, dir, compiler, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, compiler, g.build(out)...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", g.name, err, text)
	}
	return os.Chmod(out, 0o644)
}

// inputs are the digests of what the guest is made of.
func (g guest) inputs(dir string) ([]digest, error) {
	var found []digest
	for _, pattern := range slices.Concat(g.sources, g.library) {
		files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("no file is called so")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: source %s: %w", g.name, pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			name, err := filepath.Rel(dir, file)
			if err != nil {
				return nil, err
			}
			d, err := digestOf(dir, filepath.ToSlash(name))
			if err != nil {
				return nil, err
			}
			found = append(found, d)
		}
	}
	return found, nil
}

// digest is a file and what is in it.
type digest struct{ name, sum string }

func digestOf(dir, name string) (digest, error) {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	sum := sha256.Sum256(b)
	return digest{name, hex.EncodeToString(sum[:])}, err
}

// record is what stands beside a binary.
type record struct {
	compiler string
	files    []digest // with the binary first, when it was read
}

func (r record) sameInputs(inputs []digest) bool {
	return len(r.files) > 0 && slices.Equal(r.files[1:], inputs)
}

func recordFile(dir, name string) string { return filepath.Join(dir, name+".wasm.sha256") }

func readRecord(dir, name string) (r record, err error) {
	b, err := os.ReadFile(recordFile(dir, name))
	if err != nil {
		return record{}, err
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if made, ok := strings.CutPrefix(line, "# "); ok {
			r.compiler = made
			continue
		}
		sum, file, ok := strings.Cut(line, "  ")
		if !ok {
			return record{}, fmt.Errorf("%s: %q is not a digest and a name; go run ./tools/guests -rewrite writes it anew", recordFile(dir, name), line)
		}
		r.files = append(r.files, digest{file, sum})
	}
	return r, nil
}

// write adds the digest of the binary and writes the record beside it.
func (r record) write(dir, name string) error {
	binary, err := digestOf(dir, name+".wasm")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", r.compiler)
	for _, d := range slices.Concat([]digest{binary}, r.files) {
		fmt.Fprintf(&b, "%s  %s\n", d.sum, d.name)
	}
	return os.WriteFile(recordFile(dir, name), b.Bytes(), 0o644)
}
