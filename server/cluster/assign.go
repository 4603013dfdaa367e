package cluster

import (
	"math/bits"
	"slices"
	"strings"
)

// Share is a node's part in an assignment.
type Share struct {
	Name   string
	Weight int
}

// Assign answers the name of the node that each of n shards belongs to, empty if
// none has a weight. A node gets shards in proportion to its weight, and a change
// of the nodes moves only what it must: a shard moves to a node whose weight grew,
// or away from one whose weight fell. The order of shares does not count.
//
// It is weighted rendezvous hashing: each node draws a time for each shard, of an
// exponential distribution whose rate is the weight, and the earliest wins. All is
// done in integers, so that every node comes to the same result.
func Assign(n int, shares []Share) []string {
	type bidder struct {
		Share
		hash uint64
	}
	bidders := make([]bidder, 0, len(shares))
	for _, s := range shares {
		if s.Weight > 0 {
			bidders = append(bidders, bidder{s, hashName(s.Name)})
		}
	}
	slices.SortFunc(bidders, func(a, b bidder) int { return strings.Compare(a.Name, b.Name) })
	owners := make([]string, n)
	for shard := range owners {
		var best *bidder
		var least uint64
		for i := range bidders {
			b := &bidders[i]
			draw := negLog2(mix(mix(uint64(shard)+golden) ^ b.hash))
			// draw/b.Weight < least/best.Weight, without fractions: draws have 31 bits.
			if best == nil || draw*uint64(best.Weight) < least*uint64(b.Weight) {
				best, least = b, draw
			}
		}
		if best != nil {
			owners[shard] = best.Name
		}
	}
	return owners
}

// fractionBits is how exact a logarithm is.
const fractionBits = 24

// negLog2 is -log2((h+1)/2^64) as a fixed-point number with fractionBits.
func negLog2(h uint64) uint64 {
	h |= 1
	zeros := bits.LeadingZeros64(h)
	x := h << zeros // from 1/2 up to 1
	log := uint64(0)
	for range fractionBits {
		// The square of 1..2 is 1..4: its upper half is another bit of the logarithm.
		x, _ = bits.Mul64(x, x)
		log <<= 1
		if x>>63 != 0 {
			log |= 1
		} else {
			x <<= 1
		}
	}
	return uint64(zeros+1)<<fractionBits - log
}

const golden = 0x9e3779b97f4a7c15

// hashName is FNV-1a, mixed.
func hashName(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h + golden)
}

// mix is MurmurHash3's 64-bit mixer.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
