package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets that grow with the duration: each power
// of two is cut into subBuckets, so a quantile is off by less than 1/subBuckets of
// its value. What is longer than durationMax counts as durationMax. The zero value
// is empty. It is not for use by two goroutines at once: every caller has its own,
// and merge adds them up.
type histogram struct {
	counts [bucketCount]uint32
	n      uint64
	max    time.Duration
}

const (
	subBits     = 7
	subBuckets  = 1 << subBits // values below are exact, in nanoseconds
	exponentMax = 38           // durationMax has this many bits
	durationMax = time.Duration(1<<exponentMax - 1)
	bucketCount = (exponentMax - subBits + 1) * subBuckets
)

func bucketOf(d time.Duration) int {
	v := uint64(min(max(d, 0), durationMax))
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subBuckets + int(v>>shift)
}

// upperEdge is the longest duration that falls into a bucket.
func upperEdge(bucket int) time.Duration {
	if bucket < 2*subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket/subBuckets - 1
	return time.Duration(uint64(bucket%subBuckets+subBuckets+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns a duration that the share q of all does not exceed, 0 when
// there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.999999), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= rank {
			return min(upperEdge(i), h.max)
		}
	}
	return h.max
}
