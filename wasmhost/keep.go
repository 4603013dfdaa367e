package wasmhost

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/nolaproject/nola"
)

// What an instance has become since it began as its image can be kept, and given
// to another instance: the pages of its memory that differ, its size, the mutable
// globals that differ, and how far the guest saw its clock go. There is nothing
// else: a module with an image does not change its tables or segments, and the
// meter's own globals are not the guest's.

var _ nola.Keeper = (*instance)(nil)

// Image implements [nola.Keeper]. It is zero for a module without one.
func (i *instance) Image() (id [32]byte) {
	if image := i.module.compiled.image; image != nil {
		id = image.id()
	}
	return id
}

// Restore implements [nola.Keeper].
func (i *instance) Restore(m *nola.Memory) error {
	s := i.slot
	if s == nil || i.begun || i.broken {
		return nola.Errorf(nola.ReasonInternal, "%s: memory can be restored in a fresh instance only", i.self)
	}
	i.begun, i.broken = true, true // until all of it is there
	if have := i.Image(); m.Image != have {
		return nola.Errorf(nola.ReasonInternal, "%s: its memory was kept of image %x, this is image %x", i.self, m.Image, have)
	}
	if err := i.grow(m.Bytes); err != nil {
		return err
	}
	for n, d := range m.Pages {
		at := int64(n) * nola.MemoryPageBytes
		if at >= m.Bytes {
			return i.damaged(errDifference)
		}
		if err := applyDifference(s.memory.bytes[at:at+nola.MemoryPageBytes], d); err != nil {
			return i.damaged(err)
		}
	}
	if err := s.restoreGlobals(m.Globals); err != nil {
		return i.damaged(err)
	}
	s.turn.clock = clock{monotonic: m.Clock}
	i.broken = false
	return nil
}

func (i *instance) damaged(err error) error {
	return nola.Errorf(nola.ReasonInternal, "%s: its kept memory cannot be read: %v", i.self, err)
}

// grow makes a fresh memory as large as the one that was kept.
func (i *instance) grow(size int64) error {
	s := i.slot
	have := int64(len(s.memory.bytes))
	if size < have || size%pageBytes != 0 {
		return i.damaged(errDifference)
	}
	if size == have {
		return nil
	}
	if limit := int64(s.memory.max); size > limit {
		return nola.LimitError(nola.ReasonMemoryLimit, "memory_bytes", limit, "the actor keeps %d bytes of memory, limits.memory_bytes of the manifest allows %d; raise it again", size, limit)
	}
	if _, ok := s.engine.Memory().Grow(uint32((size - have) / pageBytes)); !ok {
		return s.code.runtime.overloaded(size - have)
	}
	return nil
}

// zeros is what a page begins as that the image does not have.
var zeros [nola.MemoryPageBytes]byte

// Keep implements [nola.Keeper].
func (i *instance) Keep(before *nola.Memory) *nola.MemoryChange {
	s := i.slot
	if before == nil {
		before = &nola.Memory{MemoryHead: nola.MemoryHead{Bytes: int64(len(s.code.image.bytes)), Clock: s.code.image.monotonic}}
	}
	c := &nola.MemoryChange{MemoryHead: nola.MemoryHead{
		Image: i.Image(), Bytes: int64(len(s.memory.bytes)), Clock: s.turn.clock.monotonic, Globals: s.changedGlobals(),
	}}
	k := keeping{memory: s.memory.bytes, image: s.code.image.bytes, before: before, change: c}
	view := s.code.image.view
	if s.memory.mapped == nil || !view.written(k.memory, k.compare) {
		c.Pages, k.known = nil, 0
		k.compare(0, len(k.memory))
	}
	k.others()
	if len(c.Pages) == 0 && c.Bytes == before.Bytes && bytes.Equal(c.Globals, before.Globals) {
		s.turn.clock.monotonic = before.Clock // nothing remembers that it went on
		return nil
	}
	return c
}

// keeping compares a memory with its image and with what was kept of it before.
type keeping struct {
	memory, image []byte
	before        *nola.Memory
	change        *nola.MemoryChange
	known         int // pages seen of those that differed before
	scratch       []byte
}

// compare looks at the pages of a part of the memory.
func (k *keeping) compare(from, to int) {
	for at := from / nola.MemoryPageBytes * nola.MemoryPageBytes; at < to; at += nola.MemoryPageBytes {
		k.page(at)
	}
}

func (k *keeping) page(at int) {
	page, base := k.memory[at:at+nola.MemoryPageBytes], zeros[:]
	if at < len(k.image) {
		base = k.image[at : at+nola.MemoryPageBytes]
	}
	number := uint32(at / nola.MemoryPageBytes)
	old, known := k.before.Pages[number]
	if known {
		k.known++
	}
	if bytes.Equal(page, base) {
		if known {
			k.change.Pages = append(k.change.Pages, nola.MemoryPage{Number: number})
		}
		return
	}
	if k.scratch = appendDifference(k.scratch[:0], page, base); !bytes.Equal(k.scratch, old) {
		k.change.Pages = append(k.change.Pages, nola.MemoryPage{Number: number, Difference: bytes.Clone(k.scratch)})
	}
}

// others looks at pages that differed before and that the system does not call
// written. There should be none.
func (k *keeping) others() {
	if k.known == len(k.before.Pages) {
		return
	}
	k.change.Pages, k.known = nil, 0
	k.compare(0, len(k.memory))
}

// changedGlobals writes the number in the layout and the value of each global
// that is not as in the image.
func (s *slot) changedGlobals() (b []byte) {
	for n, g := range s.globals {
		if v := g.Get(); v != s.code.image.globals[n] {
			b = binary.LittleEndian.AppendUint64(binary.AppendUvarint(b, uint64(n)), v)
		}
	}
	return b
}

func (s *slot) restoreGlobals(b []byte) error {
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || len(b) < size+8 || n >= uint64(len(s.globals)) {
			return errDifference
		}
		s.globals[n].Set(binary.LittleEndian.Uint64(b[size:]))
		b = b[size+8:]
	}
	return nil
}

// The difference of a page is a row of runs of words that differ:
//
//	words left out, words that follow (unsigned varints), the words
//
// It is stored: another form needs another name of the image.
const (
	wordBytes = 8
	pageWords = nola.MemoryPageBytes / wordBytes
)

var errDifference = errors.New("it does not fit the memory")

// appendDifference appends how page differs from base.
func appendDifference(b, page, base []byte) []byte {
	page, base = page[:nola.MemoryPageBytes], base[:nola.MemoryPageBytes]
	differs := func(w int) bool {
		return binary.LittleEndian.Uint64(page[w*wordBytes:]) != binary.LittleEndian.Uint64(base[w*wordBytes:])
	}
	end := 0 // of the run before
	for w := 0; w < pageWords; w++ {
		if !differs(w) {
			continue
		}
		start := w
		for w < pageWords && differs(w) {
			w++
		}
		b = binary.AppendUvarint(b, uint64(start-end))
		b = binary.AppendUvarint(b, uint64(w-start))
		b = append(b, page[start*wordBytes:w*wordBytes]...)
		end = w
	}
	return b
}

// applyDifference makes a page, which is its base, the one that differed by d.
func applyDifference(page, d []byte) error {
	at := uint64(0) // in words
	for len(d) > 0 {
		skip, n := binary.Uvarint(d)
		if n <= 0 {
			return errDifference
		}
		count, n2 := binary.Uvarint(d[n:])
		if n2 <= 0 || skip > pageWords-at || count > pageWords-at-skip || uint64(len(d)-n-n2) < count*wordBytes {
			return errDifference
		}
		at += skip
		d = d[n+n2:]
		copy(page[at*wordBytes:], d[:count*wordBytes])
		at, d = at+count, d[count*wordBytes:]
	}
	return nil
}
