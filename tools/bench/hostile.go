package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

const (
	hostileDefault   = "testdata/hostile"
	hostileCallers   = 2                // of each module: as many as there are processors
	hostileTurn      = time.Second      // how long a turn of what spins may take
	hostilePayload   = 64 << 10         // bytes
	hostileEnd       = 10 * time.Second // in which each turn ends
	hostileEvery     = 8                // modules, between two slices of calls alone
	hostileSlowDown  = 2                // of the calls' p99
	hostileAlone     = "durable call at 30 % load, nobody beside it"
	hostileBesideRow = "durable call at 30 % load beside two callers of "
	// hostilePeaceful misbehaves in nothing: it has no such operation, and says so.
	// What its callers cost the others, those of every module do.
	hostilePeaceful = "the-counter-which-refuses"
)

// hostile is a module of the corpus, see tools/hostile.
type hostile struct {
	Name, File, At     string
	Steps, MemoryBytes uint64
	HostCalls          uint32

	code []byte
}

// readHostile reads the modules of the corpus that misbehave in a turn.
func readHostile(dir string) (corpus []hostile, err error) {
	list, err := os.ReadFile(filepath.Join(dir, "corpus.json"))
	if err != nil {
		return nil, fmt.Errorf("read the list of hostile modules: %w", err)
	}
	var all []hostile
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, fmt.Errorf("read the list of hostile modules: %w", err)
	}
	for _, h := range all {
		if h.At != "turn" {
			continue
		}
		if h.code, err = readModule(filepath.Join(dir, h.File)); err != nil {
			return nil, fmt.Errorf("read hostile module %s: %w", h.Name, err)
		}
		corpus = append(corpus, h)
	}
	return corpus, nil
}

// readModule reads a module that may be compressed.
func readModule(file string) ([]byte, error) {
	code, err := os.ReadFile(file)
	if err != nil || !strings.HasSuffix(file, ".gz") {
		return code, err
	}
	r, err := gzip.NewReader(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func hostileCommand(ctx context.Context, args []string) error {
	f := newFlags("hostile")
	dir := f.String("corpus", hostileDefault, "directory of the hostile modules")
	f.StringVar(&f.b.pprof, "pprof", "", "directory for CPU profiles of the server, one per row")
	if err := f.parse(args); err != nil {
		return err
	}
	corpus, err := readHostile(*dir)
	if err != nil {
		return err
	}
	corpus = slices.DeleteFunc(corpus, func(h hostile) bool { return !f.b.rows.MatchString(hostileBesideRow + h.Name) })
	peaceful := hostile{Name: hostilePeaceful}
	if peaceful.code, err = readModule(f.b.guest); err != nil {
		return err
	}
	rows := []row{{hostileAlone, millis, "", nil}, {hostileBesideRow + hostilePeaceful, millis, "", nil}}
	targets := []target{
		p99WithinRow(hostileAlone, "alone", hostileSlowDown),
		p99WithinRow(hostileBesideRow+hostilePeaceful, "beside "+hostilePeaceful, hostileSlowDown),
	}
	for _, h := range corpus {
		rows = append(rows, row{hostileBesideRow + h.Name, millis, "", targets})
	}
	return f.measure(ctx, []block{{name: "hostile guests", also: []string{echoMany, fsyncOne}, experiments: []experiment{{
		rows: rows,
		run: func(ctx context.Context, b *bench) (map[string]sample, error) {
			return b.besideHostile(ctx, append([]hostile{peaceful}, corpus...))
		},
	}}}})
}

// besideHostile measures calls at a modest load, alone and beside each hostile module,
// which is in another namespace.
func (b *bench) besideHostile(ctx context.Context, corpus []hostile) (_ map[string]sample, err error) {
	n, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(n, &err)
	if err := n.createNamespace(ctx, loudNamespace); err != nil {
		return nil, err
	}
	for _, h := range corpus {
		limits := &nolav1.ModuleLimits{StepsPerTurn: h.Steps, HostCalls: h.HostCalls, MemoryBytes: h.MemoryBytes}
		if err := n.pushCode(ctx, loudNamespace, h.Name, h.code, &nolav1.ModuleManifest{Limits: limits}); err != nil {
			return nil, err
		}
	}
	ids := actorNames("q", manyActors)
	caller := calling(ctx, n.address, gatewayInc, requests(n, gatewayInc, ids, opInc), func(_, _ int, _ int64) error { return nil })
	full, err := b.atFullSpeed(ctx, caller)
	if err != nil {
		return nil, err
	}
	rate := full.rate() * neighbourShare
	made := []*tally{full}
	alone, samples := &tally{}, map[string]sample{}
	for i, h := range corpus {
		if i%hostileEvery == 0 {
			slice, err := pace(ctx, manyCaller, b.each, rate, caller)
			if err == nil {
				err = slice.err
			}
			if err != nil {
				return nil, err
			}
			made = append(made, slice)
			alone.hist.merge(&slice.hist)
			alone.took += slice.took
		}
		misbehaving, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for c := range hostileCallers {
			wg.Go(func() { h.misbehave(misbehaving, n, strconv.Itoa(c)) })
		}
		profiled := b.profile(ctx, n, hostileBesideRow+h.Name)
		beside, err := pace(ctx, manyCaller, b.each, rate, caller)
		err = errors.Join(err, profiled())
		stop()
		wg.Wait()
		if err != nil {
			return nil, err
		}
		made = append(made, beside)
		samples[hostileBesideRow+h.Name] = latencySample(beside)
	}
	total, _, err := sum(ctx, n, ids)
	if err != nil {
		return nil, err
	}
	checkSum(alone, total, made...)
	if alone.err != nil {
		return nil, alone.err
	}
	samples[hostileAlone] = latencySample(alone)
	return samples, nil
}

// misbehave calls an actor of the module, one call after the other, until ctx ends.
func (h hostile) misbehave(ctx context.Context, n *node, id string) {
	request := post(n.address, "/v1/"+loudNamespace+"/"+h.Name+"/"+id+"/op", "", bytes.Repeat([]byte("p"), hostilePayload),
		fmt.Sprintf("Connect-Timeout-Ms: %d", hostileTurn.Milliseconds()))
	for ctx.Err() == nil {
		c, err := dial(ctx, n.address)
		if err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = c.until(time.Now()) })
		for ctx.Err() == nil && c.conn.SetDeadline(time.Now().Add(hostileEnd)) == nil {
			if _, _, err := c.do(request); err != nil {
				break
			}
		}
		stop()
		c.close()
	}
}
