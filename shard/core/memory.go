package core

import "github.com/nolaproject/nola"

// keepMemory writes what a turn changed of its actor's memory: all of it into one
// row as long as that is small, and into rows of the pages otherwise, of which a
// turn writes those that changed. A memory in rows moves back once it is half as
// large as it may be, so that it does not do so again and again.
func (s *Shard) keepMemory(a *Activation, c *nola.MemoryChange) {
	b := &s.open().batch
	rows := a.memory != nil && !a.memory.Inline
	had := a.memory != nil
	a.memory = a.memory.Apply(c)
	m := a.memory
	if m == nil {
		if had {
			b.DeleteMemory(a.ref)
		}
		return
	}
	limit := c.InlineMax
	if rows && !c.Anew {
		limit /= 2
	}
	m.Inline = m.Size() <= limit
	if rows && (m.Inline || c.Anew) {
		b.DeleteMemory(a.ref)
	}
	b.PutMemory(a.ref, m)
	switch {
	case m.Inline:
	case rows && !c.Anew:
		for _, p := range c.Pages {
			if len(p.Difference) == 0 {
				b.DeleteMemoryPage(a.ref, p.Number)
			} else {
				b.PutMemoryPage(a.ref, p.Number, p.Difference)
			}
		}
	default:
		for _, n := range m.Numbers() {
			b.PutMemoryPage(a.ref, n, m.Pages[n])
		}
	}
}
