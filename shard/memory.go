package shard

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// memory reads what an actor keeps of its memory.
func (m *Manager) memory(b *box, ref nola.ActorRef) (*nola.Memory, error) {
	kept, found, err := m.reader.Memory(b.id, ref)
	if err == nil && !found {
		err = persistence.ErrNotFound
	}
	return kept, err
}

// keeps reports whether the module that runs keeps the memory of its actors.
func (g *guest) keeps() bool { return g.module.Manifest().Mode == nola.ModeMemory }

// readonly reports whether the turn runs an operation that must not write.
func (h *host) readonly() bool {
	return slices.Contains(h.g.module.Manifest().ReadonlyOperations, h.inv.Operation)
}

// recall reports whether the actor of a fresh instance keeps a memory. Such an actor
// goes on: it is not told that it begins. A memory of another version's has it move.
func (r *runner) recall(h *host) (bool, error) {
	kept, g := h.t.Act.Memory(), h.g
	if kept == nil || fits(g.instance, g.module, kept) {
		return kept != nil, nil
	}
	return true, r.upgrade(h, kept)
}

// upgrade has the version whose memory was kept say what it holds, and gives that
// to an instance of the version that is to run. All of it is part of the turn, which
// has one instance at a time.
func (r *runner) upgrade(h *host, kept *nola.Memory) error {
	g, ref := h.g, h.t.Act.Ref()
	refuse := func(format string, args ...any) error {
		return nola.Errorf(nola.ReasonUpgradeRefused, "%s keeps the memory of version %d of module %q, and cannot move to version %d: %s", ref, kept.Version, ref.Type, g.version, fmt.Sprintf(format, args...))
	}
	old, err := r.m.cfg.Modules.ModuleVersion(ref.Namespace, ref.Type, kept.Version)
	if err != nil {
		return refuse("the old version cannot be run: %v", err)
	}
	g.replace(nil)
	in, err := r.instantiate(h, old)
	if err != nil {
		return err
	}
	g.replace(in)
	if !fits(in, old, kept) {
		return refuse("what is version %d now begins with another memory; push the module that it was", kept.Version)
	}
	state, err := h.invoke(nola.OperationExport, nil)
	if errors.Is(err, errOperationNotFound) {
		return refuse("the old version has no operation %s; make it the default version again", nola.OperationExport)
	}
	if err != nil {
		return err
	}
	g.replace(nil)
	if in, err = r.instantiate(h, g.module); err != nil {
		return err
	}
	g.replace(in)
	h.anew = true
	_, err = h.invoke(nola.OperationUpgrade, state)
	if errors.Is(err, errOperationNotFound) {
		return refuse("the new version has no operation %s; push one that has, or make the old one the default again", nola.OperationUpgrade)
	}
	return err
}

// settle notes what the start of an activation left in its memory, before an
// operation that must not change it.
func (h *host) settle() error {
	if !h.g.keeps() || !h.began || !h.readonly() {
		return nil
	}
	return h.keepNow()
}

// keep notes what the turn has changed of its actor's memory. What an operation
// changes that must not write is forgotten, with its instance.
func (h *host) keep() error {
	g := h.g
	switch {
	case !g.keeps() && !h.anew:
		return nil
	case !g.keeps() || !h.readonly():
		return h.keepNow()
	case h.memory != nil || g.instance.(nola.Keeper).Keep(h.t.Act.Memory()) != nil:
		g.replace(nil)
	}
	return nil
}

func (h *host) keepNow() error {
	before := h.t.Act.Memory()
	if h.anew {
		before = nil
	}
	h.memory = nil
	if h.g.keeps() {
		k, ok := h.g.instance.(nola.Keeper)
		if !ok {
			return nola.Errorf(nola.ReasonInternal, "%s: the runtime cannot keep its memory", h.t.Act.Ref())
		}
		h.memory = k.Keep(before)
	}
	if h.memory == nil {
		if h.anew {
			h.memory = &nola.MemoryChange{Drop: true}
		}
		return nil
	}
	h.memory.Anew, h.memory.Version, h.memory.InlineMax = h.anew, h.g.version, h.g.module.Manifest().Limits.MemoryInline
	if n := h.memory.Size(); h.bytes+n > nola.TurnBytesMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "turn_bytes", nola.TurnBytesMax, "the turn changed %d bytes of its actor's memory, and writes and sends %d others, more than %d bytes together, its limit; change less in one turn", n, h.bytes, nola.TurnBytesMax)
	}
	return nil
}
