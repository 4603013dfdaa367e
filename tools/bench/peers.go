package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The peer: workerd runs Durable Objects, which keep each object's state on disk
// before a reply leaves.
const (
	workerdVersion = "1.20261117.1"
	peersDefault   = "bin/peers"
	installTimeout = 5 * time.Minute
)

//go:embed workerd
var workerdFiles embed.FS

func peersCommand(ctx context.Context, args []string) (err error) {
	f := newFlags("peers")
	cache := f.String("cache", peersDefault, "directory that the peers are installed into")
	if err := f.parse(args); err != nil {
		return err
	}
	program, why, err := installWorkerd(ctx, *cache)
	if err != nil {
		return err
	}
	if why != "" {
		fmt.Println("peers: skipped,", why)
		return nil
	}
	root, err := tempDir(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	p, err := startWorkerd(ctx, program, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	return f.measure(ctx, []block{peersBlock(p)})
}

// installWorkerd makes sure that the pinned version is in the cache and returns
// its program, or why there is none.
func installWorkerd(ctx context.Context, cache string) (program, why string, err error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", tool + " is not installed, and workerd comes through npm", nil
		}
	}
	dir, err := filepath.Abs(filepath.Join(cache, "workerd-"+workerdVersion))
	if err != nil {
		return "", "", err
	}
	if program, err = workerdIn(dir); err == nil {
		return program, "", nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--no-save", "workerd@"+workerdVersion)
	if said, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("npm cannot install workerd %s: %v: %s", workerdVersion, err, lastLine(said)), nil
	}
	program, err = workerdIn(dir)
	return program, "", err
}

// workerdIn finds the program itself: what npm links is a script that starts it,
// and a signal to the script does not reach it.
func workerdIn(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "node_modules", "@cloudflare", "workerd-*", "bin", "workerd"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("workerd in %s: %w", dir, os.ErrNotExist)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

func lastLine(said []byte) string {
	t := tail{}
	_, _ = t.Write(said) // never fails
	text := []rune(t.String())
	const keep = 300
	return string(text[max(len(text)-keep, 0):])
}

func startWorkerd(ctx context.Context, program, root string) (*process, error) {
	if err := os.CopyFS(root, workerdFiles); err != nil {
		return nil, err
	}
	state := filepath.Join(root, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := spawn("workerd", address, program, "serve", filepath.Join(root, "workerd", "config.capnp"),
		"--directory-path=state="+state, "--socket-addr=http="+address)
	if err != nil {
		return nil, err
	}
	if _, err := p.ready(ctx, "/"); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// duel is a workload that ours and the peer run in turn.
type duel struct {
	name            string
	callers, actors int
	operation       string
	unit            unit
	target          func(theirs string) target
}

func peersBlock(p *process) block {
	const theirs = "workerd"
	times := func(factor float64) func(string) target {
		return func(row string) target { return shareOfRow(row, theirs, factor) }
	}
	b := block{name: "peers", also: []string{fsyncOne}}
	for _, d := range []duel{
		{"durable call, 64 callers, 1,000 actors", manyCaller, manyActors, opInc, perSecond, times(10)},
		{"durable call, 64 callers, one actor", manyCaller, 1, opInc, perSecond, times(5)},
		{"durable call, one caller", 1, 1, opInc, millis, func(row string) target { return notAboveRow(row, "workerd's") }},
		{"read, 64 callers, 1,000 actors", manyCaller, manyActors, opGet, perSecond, times(1)},
	} {
		own, other := "nola: "+d.name, theirs+": "+d.name
		limit := ""
		if d.unit == perSecond {
			limit = echoMany
		}
		b.experiments = append(b.experiments, experiment{
			rows: []row{{own, d.unit, limit, []target{d.target(other)}}, {other, d.unit, limit, nil}},
			run: func(ctx context.Context, b *bench) (map[string]sample, error) {
				n, err := b.shared(ctx)
				if err != nil {
					return nil, err
				}
				ids := actorNames(fmt.Sprintf("p%d-%d-", d.callers, d.actors), d.actors)
				mine, err := d.run(ctx, b, n.address, ids, func(id, operation string) []byte { return n.invoke(counterModule, id, operation) })
				if err != nil {
					return nil, err
				}
				theirs, err := d.run(ctx, b, p.address, ids, func(id, operation string) []byte {
					return post(p.address, "/"+id+"/"+operation, "", nil)
				})
				if err != nil {
					return nil, err
				}
				return map[string]sample{own: mine, other: theirs}, nil
			},
		})
	}
	return b
}

// run measures one side. Both get the same client and the same checks.
func (d duel) run(ctx context.Context, b *bench, address string, ids []string, request func(id, operation string) []byte) (sample, error) {
	all := func(operation string) [][]byte {
		requests := make([][]byte, len(ids))
		for i, id := range ids {
			requests[i] = request(id, operation)
		}
		return requests
	}
	before, _, err := readCounters(ctx, address, all(opGet))
	if err != nil {
		return sample{}, err
	}
	caller := calling(ctx, address, gatewayInc, all(d.operation), func(_, _ int, _ int64) error { return nil })
	warm, err := drive(ctx, d.callers, b.each/warmupShare, caller)
	if err != nil {
		return sample{}, err
	}
	t, err := drive(ctx, d.callers, b.each, caller)
	if err != nil {
		return sample{}, err
	}
	after, _, err := readCounters(ctx, address, all(opGet))
	if err != nil {
		return sample{}, err
	}
	if d.operation == opInc {
		checkSum(t, after-before, warm, t)
	}
	if d.unit == millis {
		return latencySample(t), nil
	}
	return rateSample(t), nil
}
