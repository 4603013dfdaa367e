package nola

import (
	"maps"
	"slices"
)

// Limits of memory mode.
const (
	// MemoryPageBytes is the piece in which memory is compared and kept, and what
	// the numbers of pages in [Memory] count.
	MemoryPageBytes = 4 << 10
	// MemoryInlineDefault is how many bytes of changed memory are kept in one row
	// unless the manifest says otherwise.
	MemoryInlineDefault = 16 << 10
	// MemoryInlineMax bounds what a manifest may say there: the row is written
	// whole with every turn that changes something.
	MemoryInlineMax = 256 << 10
	// KeptMemoryMax bounds limits.memory_bytes in memory mode: an actor's memory
	// is read whole when it wakes.
	KeptMemoryMax = 64 << 20
)

// Memory is what an actor in memory mode keeps from turn to turn: how the memory
// of its instance differs from the image that the instances of its module begin
// with. It means nothing on another image.
type Memory struct {
	MemoryHead
	// Pages say how those that differ do so, by their numbers. What a page says is
	// the runtime's own.
	Pages map[uint32][]byte
	// Inline says that all of it is in one row of the store.
	Inline bool
	size   int
}

// MemoryHead is the part of a Memory that does not grow with what was changed.
type MemoryHead struct {
	// Image names the image and the code that made it.
	Image [32]byte
	// Version is that of the module whose turn kept the memory last.
	Version uint64
	// Bytes is the size of the linear memory.
	Bytes int64
	// Clock is how far the guest saw its monotonic clock go, in Unix nanoseconds.
	Clock int64
	// Globals are the mutable globals that differ from the image, as the runtime
	// writes them.
	Globals []byte
}

// MemoryPage is how one page differs from the image; not at all, if Difference
// is empty.
type MemoryPage struct {
	Number     uint32
	Difference []byte
}

// MemoryChange is what a turn changed of its actor's memory.
type MemoryChange struct {
	MemoryHead
	// Pages are those that changed, in ascending order.
	Pages []MemoryPage
	// InlineMax is how many bytes of differences may be kept in one row.
	InlineMax int
	// Anew says that nothing of what was kept before is left: Pages are all.
	Anew bool
	// Drop says that the memory is kept no longer; nothing else counts then.
	Drop bool
}

// Size is about what the change takes in the store, for limits.
func (c *MemoryChange) Size() int {
	n := len(c.Globals)
	for _, p := range c.Pages {
		n += len(p.Difference) + memoryPageOverhead
	}
	return n
}

const memoryPageOverhead = 8 // of a page beside its difference

// Size is about what m holds, in bytes.
func (m *Memory) Size() int {
	if m == nil {
		return 0
	}
	return m.size + len(m.Globals)
}

// Set makes d how page number differs from the image; nothing, if d is empty. m
// keeps d.
func (m *Memory) Set(number uint32, d []byte) {
	if old, ok := m.Pages[number]; ok {
		m.size -= len(old) + memoryPageOverhead
	}
	if len(d) == 0 {
		delete(m.Pages, number)
		return
	}
	if m.Pages == nil {
		m.Pages = make(map[uint32][]byte)
	}
	m.Pages[number] = d
	m.size += len(d) + memoryPageOverhead
}

// Apply answers the memory that a turn left, which found m and changed c of it:
// m itself, if there is one and c leaves something of it. m keeps what c holds.
func (m *Memory) Apply(c *MemoryChange) *Memory {
	switch {
	case c.Drop:
		return nil
	case m == nil || c.Anew:
		m = &Memory{}
	}
	m.MemoryHead = c.MemoryHead
	for _, p := range c.Pages {
		m.Set(p.Number, p.Difference)
	}
	return m
}

// Numbers are those of the pages that differ, in ascending order.
func (m *Memory) Numbers() []uint32 { return slices.Sorted(maps.Keys(m.Pages)) }
