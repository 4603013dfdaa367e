package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, seed))
	var a, b, all histogram
	var exact []time.Duration
	for i := range 20_000 {
		d := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		exact = append(exact, d)
		if i%3 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	all.merge(&a)
	all.merge(&b)
	slices.Sort(exact)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := exact[max(int(q*float64(len(exact))+0.999999), 1)-1]
		got := all.quantile(q)
		if got < want || float64(got-want) > float64(want)/subBuckets+1 {
			t.Errorf("seed %d: quantile %v = %s, want %s to 1/%d above it", seed, q, got, want, subBuckets)
		}
	}
	if all.n != uint64(len(exact)) || all.max != exact[len(exact)-1] {
		t.Errorf("n %d max %s, want %d and %s", all.n, all.max, len(exact), exact[len(exact)-1])
	}
}

func TestHistogramEdges(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("an empty histogram has a median of %s", got)
	}
	for _, d := range []time.Duration{-1, 0, 1, subBuckets - 1, subBuckets, 2*subBuckets - 1, 2 * subBuckets, time.Second, durationMax, durationMax + 1, time.Hour} {
		i := bucketOf(d)
		if i < 0 || i >= bucketCount {
			t.Fatalf("bucketOf(%d) = %d of %d", d, i, bucketCount)
		}
		in := min(max(d, 0), durationMax)
		if upperEdge(i) < in || i > 0 && upperEdge(i-1) >= in {
			t.Errorf("%d falls into bucket %d, which ends at %d after one that ends at %d", d, i, upperEdge(i), upperEdge(max(i-1, 0)))
		}
	}
	h.add(time.Hour)
	if h.max != time.Hour || h.quantile(1) < durationMax-durationMax/subBuckets {
		t.Errorf("an hour: max %s, quantile %s", h.max, h.quantile(1))
	}
}
