package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// bench is one run of the program: what it was told, and the servers it has
// started.
type bench struct {
	rows      *regexp.Regexp // of the rows to measure
	each      time.Duration  // of a slice of load
	rounds    int
	nolad     string
	noladArgs []string
	guest     string
	kitchen   string // empty: rows that need it are left out
	pprof     string // directory; empty: no profiles
	dir       string // temporary, holds all data
	log       io.Writer

	limits *machineLimits
	now    bounds // the limits at the start of the round
	first  bool   // this is the first round, which is the one that is profiled
	node   *node  // that the experiments of a block share; nil before one asks
}

// limitSlice is how long a limit is measured.
func (b *bench) limitSlice() time.Duration { return max(b.each/3, 200*time.Millisecond) }

// measure measures the blocks and returns what came out. On an error it returns
// the blocks that are complete.
func (b *bench) measure(ctx context.Context, blocks []block) (results []blockResult, err error) {
	if b.limits, err = newMachineLimits(ctx, b.dir, b.limitSlice()); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.limits.close()) }()
	for _, bl := range blocks {
		bl, left := b.selected(bl)
		for _, why := range left {
			b.say("%s", why)
		}
		if len(bl.experiments) == 0 {
			continue
		}
		r, err := b.block(ctx, bl)
		if err != nil {
			return results, fmt.Errorf("block %q: %w", bl.name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// selected keeps the experiments that the caller wants and can have, and says what
// is left out for want of something.
func (b *bench) selected(bl block) (kept block, left []string) {
	kept.name, kept.also = bl.name, bl.also
	for _, e := range bl.experiments {
		if !slices.ContainsFunc(e.rows, func(r row) bool { return b.rows.MatchString(r.name) }) {
			continue
		}
		if e.needs != nil {
			if why := e.needs(b); why != "" {
				left = append(left, fmt.Sprintf("left out: %s: %s", e.rows[0].name, why))
				continue
			}
		}
		kept.experiments = append(kept.experiments, e)
	}
	return kept, left
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// block measures a block: limits, every row once, limits, and so on.
func (b *bench) block(ctx context.Context, bl block) (_ blockResult, err error) {
	defer func() {
		if b.node != nil {
			err = errors.Join(err, b.node.close())
			b.node = nil
		}
	}()
	names := bl.limits()
	c := collector{block: bl}
	if b.now, err = b.limits.measure(ctx, names...); err != nil {
		return blockResult{}, err
	}
	c.limits = append(c.limits, b.now)
	for round := range b.rounds {
		b.first = round == 0
		b.say("%s: round %d of %d", bl.name, round+1, b.rounds)
		samples := map[string]sample{}
		for _, e := range bl.experiments {
			got, err := e.run(ctx, b)
			if ctx.Err() != nil {
				return blockResult{}, ctx.Err()
			}
			for _, r := range e.rows {
				s := got[r.name]
				if err != nil { // the row has failed; the others may be fine
					s = sample{Errors: 1, Error: err.Error()}
				}
				samples[r.name] = s
				b.say("  %-52s %12s%s", r.name, figure(s.Value, r.unit), problem(s))
			}
		}
		after, err := b.limits.measure(ctx, names...)
		if err != nil {
			return blockResult{}, err
		}
		c.add(samples, mean(b.now, after))
		c.limits = append(c.limits, after)
		b.now = after
	}
	return c.result(), nil
}

func problem(s sample) string {
	if s.Errors == 0 {
		return ""
	}
	return "  FAILED: " + s.Error
}

// shared is the block's server, started when first asked for.
func (b *bench) shared(ctx context.Context) (*node, error) {
	if b.node == nil {
		n, err := b.fresh(ctx)
		if err != nil {
			return nil, err
		}
		b.node = n
	}
	return b.node, nil
}

// fresh starts a server of the caller's own with the counter module.
func (b *bench) fresh(ctx context.Context) (*node, error) {
	n, _, err := startNode(ctx, b.nolad, b.noladArgs, b.dir, b.pprof != "")
	if err != nil {
		return nil, err
	}
	if err := n.pushCounter(ctx, b.guest); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// freshKitchen starts a server that has the misbehaving module too.
func (b *bench) freshKitchen(ctx context.Context) (*node, error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.pushKitchen(ctx, namespace, b.kitchen); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

var notInFileName = regexp.MustCompile(`[^a-z0-9]+`)

// profile starts a CPU profile of the coming slice, in the first round if profiles
// are wanted. The function it returns waits for it.
func (b *bench) profile(ctx context.Context, n *node, name string) (wait func() error) {
	if b.pprof == "" || !b.first {
		return func() error { return nil }
	}
	file := filepath.Join(b.pprof, strings.Trim(notInFileName.ReplaceAllString(strings.ToLower(name), "-"), "-")+".pprof")
	done := make(chan error, 1)
	go func() { done <- n.profile(ctx, b.each, file) }() // ends with the slice
	return func() error { return <-done }
}

// collector gathers the rounds of a block.
type collector struct {
	block   block
	limits  []bounds
	rounds  []map[string]sample
	between []bounds // the limits of each round
}

func (c *collector) add(samples map[string]sample, limits bounds) {
	c.rounds = append(c.rounds, samples)
	c.between = append(c.between, limits)
}

// voidShare is by how much a limit may move during a block.
const voidShare = 0.20

func (c *collector) result() blockResult {
	r := blockResult{Name: c.block.name, Limits: c.limits}
	if share, name := moved(c.limits[0], c.limits[len(c.limits)-1]); share > voidShare {
		r.Void = fmt.Sprintf("%s moved by %.0f %% between the block's start and its end, at most %.0f %% is a quiet machine", name, share*100, voidShare*100)
	}
	for _, e := range c.block.experiments {
		for _, row := range e.rows {
			r.Rows = append(r.Rows, c.row(row))
		}
	}
	return r
}

func (c *collector) row(r row) rowResult {
	out := rowResult{Name: r.name, Unit: r.unit}
	var values, shares, p50, p99, p999 []float64
	for i, round := range c.rounds {
		s := round[r.name]
		out.Rounds = append(out.Rounds, s)
		out.Errors += s.Errors
		if out.Error == "" {
			out.Error = s.Error
		}
		if s.Note != "" {
			out.Note = s.Note
		}
		values = append(values, s.Value)
		if l := c.between[i][r.limit]; l > 0 {
			shares = append(shares, s.Value/l)
		}
		if s.Latency != nil {
			p50, p99, p999 = append(p50, s.Latency.P50), append(p99, s.Latency.P99), append(p999, s.Latency.P999)
			if out.Latency == nil {
				out.Latency = &latency{}
			}
			out.Latency.Max = max(out.Latency.Max, s.Latency.Max)
		}
	}
	out.Value = spreadOf(values)
	if out.Latency != nil {
		out.Latency.P50, out.Latency.P99, out.Latency.P999 = median(p50), median(p99), median(p999)
	}
	if len(shares) > 0 {
		s := spreadOf(shares)
		out.Limit, out.Share = r.limit, &s
	}
	for _, t := range r.targets {
		out.Targets = append(out.Targets, c.target(r, t))
	}
	return out
}

// target compares the medians of what is bounded and of its bound.
func (c *collector) target(r row, t target) targetResult {
	out := targetResult{Text: t.text}
	var actual, bound []float64
	for i, round := range c.rounds {
		if a, b, ok := t.of(view{own: round[r.name], bounds: c.between[i], rows: round}); ok {
			actual, bound = append(actual, a), append(bound, b)
		}
	}
	if len(actual) == 0 {
		out.Verdict = notMeasured
		return out
	}
	out.Actual, out.Bound = median(actual), median(bound)
	out.Verdict = missed
	if t.met(out.Actual, out.Bound) {
		out.Verdict = pass
	}
	return out
}

func median(v []float64) float64 { return spreadOf(v).Median }

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	v = slices.Sorted(slices.Values(v))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (v[len(v)/2-1] + m) / 2
	}
	return spread{Median: m, Min: v[0], Max: v[len(v)-1]}
}

// tempDir makes the directory of all data, below the current one unless told
// otherwise: the system's own may lie in memory, where a disk costs nothing.
func tempDir(below string) (string, error) {
	if err := os.MkdirAll(below, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(below, "bench")
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}
