package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// lineBytesMax bounds one line of input. A test that prints a longer line stops
// the reading, which is reported.
const lineBytesMax = 16 << 20

func main() {
	keep := flag.String("o", "", "`file` that keeps a copy of the input")
	total := flag.Bool("total", false, "add up the files named as arguments")
	flag.Parse()

	var (
		sum summary
		err error
	)
	if *total {
		sum, err = totalOf(flag.Args())
		fmt.Println(sum)
	} else {
		sum, err = follow(os.Stdin, os.Stdout, *keep)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	case sum.failed > 0:
		os.Exit(1)
	}
}

// event is one line of `go test -json`; `go doc test2json` describes it.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// summary counts results.
type summary struct{ passed, failed, skipped int }

// String says all three counts, so that the line can be searched for.
func (s summary) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.passed, s.failed, s.skipped)
}

func (s *summary) add(other summary) {
	s.passed += other.passed
	s.failed += other.failed
	s.skipped += other.skipped
}

func (s *summary) count(action string) {
	switch action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
	case "skip":
		s.skipped++
	}
}

// reader folds events into counts and writes what is worth reading.
type reader struct {
	out    io.Writer
	sum    summary
	counts map[string]*summary // by package
	output map[string][]string // by package and test, until the test has ended
	builds map[string][]string // by import path: what the compiler said
}

// follow reads events to the end. It copies them to the file called keep, if any.
func follow(in io.Reader, out io.Writer, keep string) (sum summary, err error) {
	if keep != "" {
		file, err := os.Create(keep)
		if err != nil {
			return sum, fmt.Errorf("keep the input: %w", err)
		}
		defer func() {
			if closing := file.Close(); err == nil && closing != nil {
				err = fmt.Errorf("keep the input: %w", closing)
			}
		}()
		in = io.TeeReader(in, file)
	}
	r := reader{
		out:    out,
		counts: map[string]*summary{},
		output: map[string][]string{},
		builds: map[string][]string{},
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), lineBytesMax)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(out, lines.Text()) // go itself, or make, speaks
			continue
		}
		r.step(e)
	}
	if err := lines.Err(); err != nil {
		return r.sum, fmt.Errorf("read test events: %w", err)
	}
	return r.sum, nil
}

func (r *reader) step(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnded(e)
		} else {
			r.sum.count(e.Action)
			r.ofPackage(e.Package).count(e.Action)
			if e.Action != "pass" {
				fmt.Fprint(r.out, strings.Join(r.output[key], ""))
			}
		}
		delete(r.output, key)
	}
}

func (r *reader) ofPackage(name string) *summary {
	if r.counts[name] == nil {
		r.counts[name] = &summary{}
	}
	return r.counts[name]
}

func (r *reader) packageEnded(e event) {
	counts := r.ofPackage(e.Package)
	if e.Action == "fail" && counts.failed == 0 {
		r.sum.failed++
		counts.failed++
	}
	if e.Action == "fail" {
		fmt.Fprint(r.out, strings.Join(r.builds[e.FailedBuild], ""), strings.Join(r.output[e.Package+" "], ""))
		for key, lines := range r.output { // tests cut off by a panic or the time limit
			if strings.HasPrefix(key, e.Package+" Test") || strings.HasPrefix(key, e.Package+" Fuzz") {
				fmt.Fprint(r.out, strings.Join(lines, ""))
			}
		}
	}
	if *counts == (summary{}) {
		return // a package without tests
	}
	fmt.Fprintf(r.out, "%-4s  %s  %.1fs  %s\n", e.Action, e.Package, e.Elapsed, counts)
}

// totalOf adds up kept inputs.
func totalOf(files []string) (summary, error) {
	var total summary
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return total, fmt.Errorf("add up results: %w", err)
		}
		sum, err := follow(file, io.Discard, "")
		file.Close()
		if err != nil {
			return total, fmt.Errorf("add up %s: %w", name, err)
		}
		total.add(sum)
	}
	return total, nil
}
