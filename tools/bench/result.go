package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// resultFormat is the version of the result file's layout.
const resultFormat = 1

// result is a result file.
type result struct {
	Format  int           `json:"format"`
	Time    time.Time     `json:"time"`
	Machine machine       `json:"machine"`
	Commit  string        `json:"commit"` // of the product; with a + if files were changed
	Slice   string        `json:"slice"`
	Rounds  int           `json:"rounds"`
	Blocks  []blockResult `json:"blocks"`
}

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

type blockResult struct {
	Name   string      `json:"name"`
	Void   string      `json:"void,omitempty"` // why the block's figures say nothing
	Limits []bounds    `json:"limits"`         // before the first round and after each
	Rows   []rowResult `json:"rows"`
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

type rowResult struct {
	Name    string         `json:"name"`
	Unit    unit           `json:"unit"`
	Value   spread         `json:"value"`
	Latency *latency       `json:"latency,omitempty"` // medians of the rounds, and the highest of all
	Limit   string         `json:"limit,omitempty"`
	Share   *spread        `json:"share,omitempty"` // of the limit
	Errors  int            `json:"errors"`
	Error   string         `json:"error,omitempty"`
	Note    string         `json:"note,omitempty"`
	Targets []targetResult `json:"targets,omitempty"`
	Rounds  []sample       `json:"rounds"`
}

type targetResult struct {
	Text    string  `json:"text"`
	Actual  float64 `json:"actual"`
	Bound   float64 `json:"bound"`
	Verdict verdict `json:"verdict"`
}

// computed reports whether the bound stands nowhere in the target's text.
func (t targetResult) computed() bool {
	return !strings.Contains(t.Text, strconv.FormatFloat(t.Bound, 'g', -1, 64))
}

type verdict string

const (
	pass        verdict = "pass"
	missed      verdict = "short"
	failed      verdict = "FAILED" // an error or a wrong answer: the figure does not count
	void        verdict = "void"
	notMeasured verdict = "-"
)

// verdict of a target of the row, given the block.
func (r rowResult) verdict(b blockResult, t targetResult) verdict {
	switch {
	case r.Errors > 0:
		return failed
	case b.Void != "":
		return void
	default:
		return t.Verdict
	}
}

// figure prints a value so that three digits can be read.
func figure(v float64, u unit) string {
	var n string
	switch {
	case v >= 1000:
		n = thousands(fmt.Sprintf("%.0f", v))
	case v >= 100:
		n = fmt.Sprintf("%.0f", v)
	case v >= 10:
		n = fmt.Sprintf("%.1f", v)
	case v >= 1:
		n = fmt.Sprintf("%.2f", v)
	default:
		n = fmt.Sprintf("%.3f", v)
	}
	if u == perSecond {
		return n + "/s"
	}
	return strings.TrimSpace(n + " " + string(u))
}

func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// print writes the table for people.
func (r result) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %d cores, %s, %s, commit %s, %s a slice, %d rounds\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Commit, r.Slice, r.Rounds)
	for _, b := range r.Blocks {
		fmt.Fprintf(out, "\n%s\n", strings.ToUpper(b.Name))
		if b.Void != "" {
			fmt.Fprintf(out, "void: %s\n", b.Void)
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "row\tmedian\tlowest..highest\tp50\tp99\tp99.9\tmax ms\tshare of limit\ttarget\thave\t")
		for _, n := range limitNames {
			if _, ok := b.Limits[0][n]; ok {
				s := b.limit(n)
				fmt.Fprintf(w, "%s\t%s\t%s\t\t\t\t\t\t\t\t\n", n, figure(s.Median, limitUnits[n]), s.text(limitUnits[n]))
			}
		}
		for _, row := range b.Rows {
			row.print(w, b)
		}
		_ = w.Flush() // to the user's terminal
		for _, row := range b.Rows {
			switch {
			case row.Errors > 0:
				fmt.Fprintf(out, "FAILED %s: %d errors, one: %s\n", row.Name, row.Errors, row.Error)
			case row.Note != "":
				fmt.Fprintf(out, "%s: %s\n", row.Name, row.Note)
			}
		}
	}
}

func (b blockResult) limit(name string) spread {
	var v []float64
	for _, l := range b.Limits {
		v = append(v, l[name])
	}
	return spreadOf(v)
}

func (s spread) text(u unit) string {
	return figure(s.Min, "") + ".." + figure(s.Max, "") + map[bool]string{true: "/s"}[u == perSecond]
}

func (r rowResult) print(w io.Writer, b blockResult) {
	fmt.Fprintf(w, "%s\t%s\t%s\t", r.Name, figure(r.Value.Median, r.Unit), r.Value.text(r.Unit))
	if l := r.Latency; l != nil {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t", figure(l.P50, ""), figure(l.P99, ""), figure(l.P999, ""), figure(l.Max, ""))
	} else {
		fmt.Fprint(w, "\t\t\t\t")
	}
	if s := r.Share; s != nil {
		fmt.Fprintf(w, "%.2f %s (%.2f..%.2f)\t", s.Median, short(r.Limit), s.Min, s.Max)
	} else {
		fmt.Fprint(w, "\t")
	}
	if len(r.Targets) == 0 {
		state := notMeasured
		if v := r.verdict(b, targetResult{Verdict: notMeasured}); v != notMeasured {
			state = v
		}
		fmt.Fprintf(w, "\t\t%s\n", state)
		return
	}
	for i, t := range r.Targets {
		if i > 0 {
			fmt.Fprint(w, "\t\t\t\t\t\t\t\t")
		}
		have := ""
		if t.Verdict != notMeasured {
			have = figure(t.Actual, "")
			if t.computed() {
				have += " of " + figure(t.Bound, "")
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", t.Text, have, r.verdict(b, t))
	}
}

// failures counts rows with errors.
func (r result) failures() (n int) {
	for _, b := range r.Blocks {
		for _, row := range b.Rows {
			if row.Errors > 0 {
				n++
			}
		}
	}
	return n
}

func (r result) write(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}

func readResult(file string) (r result, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return r, fmt.Errorf("read results: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s is no result file of this program: %w", file, err)
	}
	if r.Format != resultFormat {
		return r, fmt.Errorf("%s has format %d, this program reads %d: measure again", file, r.Format, resultFormat)
	}
	return r, nil
}

// compare prints two results side by side, by row name.
func compare(out io.Writer, older, newer result) {
	fmt.Fprintf(out, "old: %s, %s, %d cores\nnew: %s, %s, %d cores\n", older.Commit, older.Machine.CPU, older.Machine.Cores, newer.Commit, newer.Machine.CPU, newer.Machine.Cores)
	if older.Machine.CPU != newer.Machine.CPU || older.Machine.Cores != newer.Machine.Cores {
		fmt.Fprintln(out, "the machines differ: compare the shares of the limits, not the values")
	}
	type found struct {
		block blockResult
		row   rowResult
	}
	before := map[string]found{}
	for _, b := range older.Blocks {
		for _, r := range b.Rows {
			before[r.Name] = found{b, r}
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nrow\told\tnew\tnew/old\told share\tnew share\told p99\tnew p99 ms\t")
	for _, b := range newer.Blocks {
		for _, r := range b.Rows {
			o, ok := before[r.Name]
			if !ok {
				fmt.Fprintf(w, "%s\t\t%s\t\t\t%s\t\t%s\tnew\n", r.Name, figure(r.Value.Median, r.Unit), r.shareText(), r.p99Text())
				continue
			}
			delete(before, r.Name)
			change := ""
			if o.row.Value.Median > 0 {
				change = fmt.Sprintf("%.2f", r.Value.Median/o.row.Value.Median)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, figure(o.row.Value.Median, o.row.Unit), figure(r.Value.Median, r.Unit),
				change, o.row.shareText(), r.shareText(), o.row.p99Text(), r.p99Text(), judge(o.row, r, o.block.Void != "" || b.Void != ""))
		}
	}
	for _, b := range older.Blocks {
		for _, r := range b.Rows {
			if _, left := before[r.Name]; left {
				fmt.Fprintf(w, "%s\t%s\t\t\t%s\t\t%s\t\tgone\n", r.Name, figure(r.Value.Median, r.Unit), r.shareText(), r.p99Text())
			}
		}
	}
	_ = w.Flush() // to the user's terminal
}

// judge says whether a row has changed by more than the rounds differ among
// themselves. It compares shares of a limit where there are any.
func judge(o, n rowResult, voided bool) string {
	switch {
	case o.Errors > 0 || n.Errors > 0:
		return string(failed)
	case voided:
		return string(void)
	}
	a, b := o.Value, n.Value
	if o.Share != nil && n.Share != nil {
		a, b = *o.Share, *n.Share
	}
	higher, lower := b.Min > a.Max, b.Max < a.Min
	switch {
	case !higher && !lower:
		return "same"
	case higher == n.Unit.moreIsBetter():
		return "better"
	default:
		return "worse"
	}
}

func (r rowResult) shareText() string {
	if r.Share == nil {
		return ""
	}
	return fmt.Sprintf("%.2f %s", r.Share.Median, short(r.Limit))
}

func (r rowResult) p99Text() string {
	if r.Latency == nil {
		return ""
	}
	return figure(r.Latency.P99, "")
}

// thisMachine describes the machine. What cannot be found out is "unknown".
func thisMachine() machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Kernel: runtime.GOOS, Go: runtime.Version()}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		m.CPU = cpuModel(f, m.CPU)
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel += " " + strings.TrimSpace(string(release))
	}
	return m
}

func cpuModel(r io.Reader, unknown string) string {
	for s := bufio.NewScanner(r); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

// commitOf is the commit of the working tree, "unknown" outside of one.
func commitOf() string {
	commit, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output() //nolint:noctx // a local look-up
	if err != nil {
		return "unknown"
	}
	name := string(bytes.TrimSpace(commit))
	changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output() //nolint:noctx // a local look-up
	if err == nil && len(changed) > 0 {
		name += "+"
	}
	return name
}
