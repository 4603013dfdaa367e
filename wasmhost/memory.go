package wasmhost

import "bytes"

// memory is the linear memory of a slot, as the engine asks for it. It knows the
// true maximum, so that it sees when the guest is refused.
//
// A memory that begins as an image is a private view of the image's pages where
// the system has such views (pages_linux.go): it costs only the pages that the
// guest writes, and these can be asked for. Elsewhere it is a copy on the heap,
// and what changed is found by comparing all of it.
type memory struct {
	slot    *slot
	bytes   []byte
	mapped  []byte // all that a view may become
	grown   bool   // the view was extended
	charged uint64 // bytes of the node's budget
	max     uint64
	refused bool // in this turn, by max
	crowded bool // in this turn, by the node's budget
}

// Reallocate makes the memory size bytes long, or refuses with nil.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.max {
		m.refused = true
		return nil
	}
	switch {
	case m.mapped != nil:
		if size > m.charged {
			if !m.charge(size) || !m.grown && !extendView(m.mapped, len(m.slot.code.image.bytes)) {
				m.crowded = true
				return nil
			}
			m.grown = true
		}
		m.bytes = m.mapped[:size]
	case size > uint64(cap(m.bytes)):
		// A memory that grows will grow again.
		room := min(size+size/4, m.max)
		if !m.charge(room) {
			m.crowded = true
			return nil
		}
		grown := make([]byte, size, room)
		copy(grown, m.bytes)
		m.bytes = grown
	default:
		m.bytes = m.bytes[:size]
	}
	return m.bytes
}

// viewsMax is how many views there are at once. One takes two of the mappings
// that the system allows a process, 65,530 on Linux, and a process that has none
// left cannot even grow its heap.
const viewsMax = 20_000

// begin makes the first bytes: those of the image, or size of them. The engine
// can be refused more later, but not these, so they are made beforehand.
func (m *memory) begin(size uint64) bool {
	image := m.slot.code.image
	if image != nil {
		size = uint64(len(image.bytes))
	}
	if !m.charge(size) {
		return false
	}
	if image != nil && image.view != nil && m.slot.code.runtime.views.Add(1) <= viewsMax {
		if m.mapped = image.view.private(m.max); m.mapped != nil {
			m.bytes = m.mapped[:size]
			return true
		}
	}
	if image != nil && image.view != nil {
		m.slot.code.runtime.views.Add(-1)
	}
	m.bytes = make([]byte, size)
	if image != nil {
		copy(m.bytes, image.bytes)
	}
	return true
}

// charge makes the slot hold size bytes of memory.
func (m *memory) charge(size uint64) bool {
	more := int64(size) - int64(m.charged)
	if !m.slot.code.runtime.reserve(more) {
		return false
	}
	m.slot.held.Add(more)
	m.charged = size
	return true
}

// Free forgets the memory; unmap gives it back.
func (m *memory) Free() { m.bytes = nil }

func (m *memory) unmap() {
	m.bytes = nil
	if m.mapped != nil {
		unmapView(m.mapped)
		m.mapped = nil
		m.slot.code.runtime.views.Add(-1)
	}
}

// reset makes the memory the image again. One that grew is not worth it.
func (m *memory) reset() bool {
	image := m.slot.code.image
	if len(m.bytes) != len(image.bytes) {
		return false
	}
	if m.mapped != nil {
		return image.view.restore(m.bytes)
	}
	restoreCompared(m.bytes, image.bytes)
	return true
}

// comparedBytes is compared, and copied, at once.
const comparedBytes = 4 << 10

// restoreCompared makes b equal to image, which is as long.
func restoreCompared(b, image []byte) {
	for at := 0; at < len(b); at += comparedBytes {
		end := min(at+comparedBytes, len(b))
		if part := b[at:end]; !bytes.Equal(part, image[at:end]) {
			copy(part, image[at:end])
		}
	}
}
