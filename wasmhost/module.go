package wasmhost

import (
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/nolaproject/nola"
)

// initTimeout bounds a module's initialisers.
const initTimeout = 5 * time.Second

// nodeRetryAfter is when a node without room may have some again.
const nodeRetryAfter = time.Second

// What an instance costs besides its memory, about.
const (
	instanceBytes = 24 << 10
	elementBytes  = 64
	segmentBytes  = 24
)

// module implements nola.Module.
type module struct {
	runtime    *Runtime
	compiled   *compiled
	manifest   nola.Manifest
	operations map[string]*operation // granted
	readonly   map[string]struct{}
	closed     atomic.Bool
}

// fit checks the module against its manifest.
func (m *module) fit() error {
	need, limit := int64(m.compiled.shape.memory.min)*pageBytes, m.manifest.Limits.MemoryBytes
	if need > limit {
		return nola.LimitError(nola.ReasonInvalidModule, "memory_bytes", limit, "invalid module: its memory begins with %d bytes, limits.memory_bytes of the manifest allows %d; raise the limit or build the module with a smaller memory", need, limit)
	}
	if m.manifest.Mode == nola.ModeMemory && m.compiled.image == nil {
		return invalid("mode %q cannot keep the memory of this module: it changes its tables or uses passive segments, has more than %d mutable globals or some of a vector or reference type, or its initialisers fail; build it otherwise, or use mode %q", nola.ModeMemory, globalsResetMax, nola.ModeKV)
	}
	return nil
}

// Manifest implements [nola.Module].
func (m *module) Manifest() *nola.Manifest { return &m.manifest }

// Close implements [nola.Module]. Instances go on; the code is released with the
// last of them.
func (m *module) Close() error {
	if m.closed.CompareAndSwap(false, true) {
		m.runtime.unshare(m.compiled)
	}
	return nil
}

// Instantiate implements [nola.Module]. It costs little if a slot of the module
// is idle.
func (m *module) Instantiate(self nola.ActorRef) (nola.Instance, error) {
	i := &instance{module: m, self: self}
	s, err := m.runtime.acquire(i)
	if err != nil {
		return nil, err
	}
	i.slot = s
	return i, nil
}

// moduleConfig is for all instances. Nothing of the engine's own WASI is used,
// but its default random source would be seeded for each instance.
var moduleConfig = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(noRandom{})

type noRandom struct{}

func (noRandom) Read(b []byte) (int, error) { clear(b); return len(b), nil }
