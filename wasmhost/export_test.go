package wasmhost

import (
	"bytes"
	"context"
	"crypto/sha256"

	"github.com/nolaproject/nola"
)

// What tests outside of the package see of it.

// CopyMemory is what an instance's memory holds.
func CopyMemory(i nola.Instance) []byte { return bytes.Clone(i.(*instance).slot.memory.bytes) }

// InitEpoch is what initialisers take for the time, and GeneratorBytes how large
// a random number generator is in memory.
var InitEpoch = initEpoch

const GeneratorBytes = generatorBytes

// HasImage says whether instances of a module begin as its image, and where in
// it the generators stand that are seeded anew for each.
func HasImage(m nola.Module) (ok bool, generators []int) {
	image := m.(*module).compiled.image
	if image == nil {
		return false, nil
	}
	return true, image.generators
}

// PrepareWhole is Prepare without an image: every instance of the metered code
// runs the initialisers itself.
func (r *Runtime) PrepareWhole(ctx context.Context, code []byte, manifest nola.Manifest) (nola.Module, error) {
	manifest = manifest.WithDefaults()
	c, err := r.compileWhole(ctx, code, codeKey{
		tableElements: manifest.Limits.TableElements, depth: manifest.Limits.CallDepth, memoryBytes: manifest.Limits.MemoryBytes,
	})
	if err != nil {
		return nil, err
	}
	granted, err := grant(nil)
	if err != nil {
		return nil, err
	}
	return &module{runtime: r, compiled: c, manifest: manifest, operations: granted}, nil
}

func (r *Runtime) compileWhole(ctx context.Context, code []byte, key codeKey) (*compiled, error) {
	key.digest = sha256.Sum256(code)
	c := &compiled{runtime: r, ready: make(chan struct{}), key: key, shares: 1}
	shape, err := parse(code, key.tableElements)
	if err != nil {
		return nil, err
	}
	metered, _, err := shape.meter(key.depth, nil)
	if err != nil {
		return nil, err
	}
	c.shape = shape
	c.code, err = r.compileMetered(ctx, metered)
	return c, err
}
