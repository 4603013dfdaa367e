package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"
)

// The parts of the process's memory, if GOMEMLIMIT names one, that limits take
// at most when they are not set.
const (
	instanceBytesPart = 4 // idle actors leave above it; guests cannot exceed twice as much
	callBytesPart     = 8
)

const (
	instanceBytesDefault = 1 << 30
	callBytesDefault     = 256 << 20
)

// memoryLimit is what GOMEMLIMIT allows; math.MaxInt64 is no limit.
func memoryLimit() int64 { return debug.SetMemoryLimit(-1) }

// withMemory fills in what the limits in bytes default to in a process that may
// use so much memory.
func (c limitsConfig) withMemory(limit int64) limitsConfig {
	setDefault(&c.InstanceBytes, max(1<<20, min(instanceBytesDefault, limit/instanceBytesPart)))
	setDefault(&c.CallBytes, max(1<<20, min(callBytesDefault, limit/callBytesPart)))
	return c
}

const (
	budgetEvery = 100 * time.Millisecond // how often the memory of the process is looked at
	budgetStep  = 64                     // part of the limit by which a change is worth it
	heapPartMin = 4                      // part of the limit that is the heap's in any case
)

// keepBudget keeps the whole process within limit, which the Go runtime takes for
// its own part alone: what it does not know of, the memory of guests and of the
// store, is taken off. It ends with ctx, and leaves limit as it was.
func keepBudget(ctx context.Context, limit int64) {
	if limit == math.MaxInt64 {
		return
	}
	tick := time.NewTicker(budgetEvery)
	defer tick.Stop()
	defer debug.SetMemoryLimit(limit)
	for current := limit; ; {
		others, ok := othersBytes()
		if !ok {
			return // this system does not tell
		}
		want := max(limit-others, limit/heapPartMin)
		if change := want - current; change > limit/budgetStep || change < -limit/budgetStep {
			debug.SetMemoryLimit(want)
			current = want
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// othersBytes is the resident memory of the process that the Go runtime does not
// account for.
func othersBytes() (n int64, ok bool) {
	text, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, false
	}
	known := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(known)
	if known[0].Value.Kind() != metrics.KindUint64 || known[1].Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return max(0, pages*int64(os.Getpagesize())-int64(known[0].Value.Uint64())+int64(known[1].Value.Uint64())), true
}
