package cqlstore

import "hash/maphash"

// filter says which keys were never added, mostly. It grows with what is added.
type filter struct {
	stages []filterStage
}

type filterStage struct {
	bits  []uint64
	added int
}

const (
	filterFirst = 64 // keys of the first stage; each further one holds twice as many
	filterBits  = 12 // per key
	filterTries = 6
)

var filterSeed = maphash.MakeSeed()

func (f *filter) add(key string) {
	n := len(f.stages)
	if n == 0 || f.stages[n-1].added >= filterFirst<<(n-1) {
		f.stages = append(f.stages, filterStage{bits: make([]uint64, (filterFirst<<n)*filterBits/64)})
		n++
	}
	s := &f.stages[n-1]
	s.added++
	s.each(key, func(word *uint64, bit uint64) bool { *word |= bit; return true })
}

// has reports false only if the key was never added.
func (f *filter) has(key string) bool {
	for i := range f.stages {
		if f.stages[i].each(key, func(word *uint64, bit uint64) bool { return *word&bit != 0 }) {
			return true
		}
	}
	return false
}

func (s *filterStage) each(key string, fn func(word *uint64, bit uint64) bool) bool {
	h := maphash.String(filterSeed, key)
	step := h>>32 | 1
	for range filterTries {
		at := h % uint64(len(s.bits)*64)
		if !fn(&s.bits[at/64], 1<<(at%64)) {
			return false
		}
		h += step * 0x9e3779b97f4a7c15
	}
	return true
}
