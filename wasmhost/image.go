package wasmhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/nolaproject/nola"
)

// image is what an instance of a module holds once its initialisers have run.
// It depends on nothing but the module's bytes and its limits.
type image struct {
	bytes      []byte
	view       *imageView // where bytes lie, if the system has views
	globals    []uint64   // as in the layout
	depth      uint64
	monotonic  int64 // how far the guest saw its clock go
	generators []int // where random number generators stand, see findGenerators
	id         func() [sha256.Size]byte
}

// name makes the id of the image, once it is asked for. It names what an
// instance begins as and the code that goes on from there, and is a part of what
// actors in memory mode have stored: another one means that they cannot wake.
func (i *image) name(c *compiled) {
	i.id = sync.OnceValue(func() (id [sha256.Size]byte) {
		h := sha256.New()
		put := func(b []byte) { _, _ = h.Write(b) } // never fails (hash.Hash)
		number := func(n uint64) { put(binary.LittleEndian.AppendUint64(nil, n)) }
		put([]byte("nola image 1\n"))
		put(c.key.digest[:])
		number(uint64(i.monotonic))
		number(uint64(len(i.globals)))
		for n, v := range i.globals {
			number(uint64(c.layout.globals[n]))
			number(v)
		}
		number(uint64(len(i.bytes)))
		put(i.bytes)
		h.Sum(id[:0])
		return id
	})
}

func (i *image) close() {
	if i.view != nil {
		i.view.close()
	}
}

// share lets instances share the image's pages, if the system can.
func (i *image) share(r *Runtime) {
	if r.config.HeapMemory {
		return
	}
	if i.view = newImageView(i.bytes); i.view != nil {
		i.bytes = i.view.bytes
	}
}

// errNoRoom says that the memory could not be made as large as the image.
var errNoRoom = errors.New("no room for the image")

// makeImage runs the initialisers of c, once for all instances. It answers nil
// without an error for a module that fails there: then every instance runs them
// itself, and says why.
func (r *Runtime) makeImage(ctx context.Context, c *compiled) (*image, error) {
	made, err := r.runInitialisers(c, c.key.digest)
	if err != nil || made == nil {
		return nil, err
	}
	if made.generators, err = r.unseeded(ctx, c, made); err != nil {
		return nil, err
	}
	made.share(r)
	made.name(c)
	return made, nil
}

// unseeded returns where generators stand in made that the host has to seed. Those
// that the module seeded with constants of its own keep them.
func (r *Runtime) unseeded(ctx context.Context, c *compiled, made *image) (generators []int, err error) {
	found, err := findGenerators(ctx, made.bytes)
	switch {
	case ctx.Err() != nil:
		return nil, r.tooSlow(ctx)
	case err != nil || len(found) == 0:
		return nil, err
	}
	other, err := r.runInitialisers(c, sha256.Sum256(c.key.digest[:]))
	if err != nil {
		return nil, err
	}
	for _, at := range found {
		if other == nil || len(other.bytes) != len(made.bytes) || !bytes.Equal(generatorSeed(other.bytes, at), generatorSeed(made.bytes, at)) {
			generators = append(generators, at)
		}
	}
	return generators, nil
}

// searchWhole looks for generators in what the initialisers of a module without an
// image leave in every instance.
func (r *Runtime) searchWhole(ctx context.Context, c *compiled) error {
	made, err := r.runInitialisers(c, c.key.digest)
	if err != nil || made == nil {
		return err
	}
	c.searched = true
	c.generators, err = r.unseeded(ctx, c, made)
	return err
}

// runInitialisers makes an image with a random stream of seed.
func (r *Runtime) runInitialisers(c *compiled, seed [32]byte) (*image, error) {
	manifest := nola.Manifest{}.WithDefaults()
	i := &instance{module: &module{runtime: r, compiled: c, manifest: manifest}}
	s, err := r.newSlot(c)
	if err != nil {
		return nil, err
	}
	defer s.close()
	t := &s.turn
	t.beginInit(i)
	t.random = rand.NewChaCha8(seed)
	err = func() error {
		if err := s.instantiate(); err != nil {
			return err
		}
		mem := s.engine.Memory()
		l := c.layout
		if l == nil {
			return s.initialise()
		}
		for _, d := range l.data {
			if !mem.Write(d.at, d.bytes) {
				return errNoRoom
			}
		}
		if l.hasStart {
			if err := s.engine.ExportedFunction(startExport).CallWithStack(t, nil); err != nil {
				return err
			}
		}
		return s.initialise()
	}()
	monotonic, crowded := t.clock.monotonic, s.memory.crowded
	t.finish()
	switch {
	case crowded:
		return nil, r.overloaded(int64(c.shape.memory.min) * pageBytes)
	case err != nil:
		r.config.Logger.Info("the module's initialisers failed, each instance will run them", "error", err)
		return nil, nil
	}
	made := &image{bytes: bytes.Clone(s.memory.bytes), monotonic: monotonic, globals: make([]uint64, len(s.globals))}
	for n, g := range s.globals {
		made.globals[n] = g.Get()
	}
	made.depth = uint64(c.key.depth) // whatever _start left open
	return made, nil
}

// initialise runs what a guest exports for it, in the order in which the guest
// SDKs rely on it.
func (s *slot) initialise() error {
	t := &s.turn
	for _, name := range []string{exportStart, exportInitialize, exportInit} {
		f := s.engine.ExportedFunction(name)
		if f == nil {
			continue
		}
		if err := f.CallWithStack(t, nil); err != nil {
			if name == exportStart && t.exited && t.exitCode == 0 {
				t.ended, t.exited = nil, false
				continue
			}
			return err
		}
	}
	return nil
}

// start makes the engine's part of a slot that has no image, for i: it runs the
// module's initialisers.
func (s *slot) start(i *instance) error {
	t := &s.turn
	t.beginInit(i)
	err := s.instantiate()
	if err == nil {
		err = s.initialise()
	}
	if err == nil {
		s.call = s.engine.ExportedFunction(exportCall)
	} else {
		err = t.classify(err)
	}
	t.finish()
	if s.generators = s.code.generators; err == nil && !s.code.searched {
		// They ended well here and not where they were run before.
		s.generators, err = findGenerators(context.Background(), s.memory.bytes)
	}
	return err
}

// Go's runtime draws random numbers from ChaCha8 generators, which it seeds from
// the host when the program begins: in an image, they are seeded already, and
// all actors of a module would draw the same numbers. So they would without an
// image, for initialisers have no other random stream anywhere. Go has no way to seed them
// again, so the host does, when an activation begins. A generator in memory
// proves itself: it holds its seed, a position, and the block of numbers that
// follows from both.
//
//	buffer [32]uint64; seed [4]uint64; next, numbers, counter uint32
const (
	generatorBlock   = 32 // numbers
	generatorSeedAt  = 8 * generatorBlock
	generatorSeedLen = 32
	generatorNextAt  = generatorSeedAt + generatorSeedLen
	generatorBytes   = generatorNextAt + 3*4
	generatorStep    = 4  // of the counter
	generatorLast    = 12 // counter of the block whose last four numbers are the next seed
)

// generatorsMax bounds the generators of an image: all are seeded when an
// activation begins. A Go program has two and those that it makes at its start.
const generatorsMax = 1_000

// generatorProofBytes is for how much memory one place may look like a generator
// and be none: a proof costs about what looking through so much does.
const generatorProofBytes = 1 << 10

// findGenerators returns where generators stand in memory. It refuses a memory
// that was filled with what looks like them: searched no further, it might hide
// one, and searched to its end, it would take a minute for a gigabyte.
func findGenerators(ctx context.Context, memory []byte) (found []int, err error) {
	const pause = 1 << 20 // bytes between two looks at ctx
	proofs := len(memory) / generatorProofBytes
	for at := 0; at+generatorBytes <= len(memory); at += 8 {
		if at%pause == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		head := memory[at+generatorNextAt : at+generatorBytes]
		next, numbers, counter := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
		want := uint32(generatorBlock)
		if counter == generatorLast {
			want -= generatorSeedLen / 8
		}
		if numbers != want || next > numbers || counter > generatorLast || counter%generatorStep != 0 {
			continue
		}
		if provesGenerator(memory[at:at+generatorNextAt], numbers, counter) {
			if found = append(found, at); len(found) > generatorsMax {
				return nil, invalid("the memory that its initialisers leave holds more than %d generators of random numbers", generatorsMax)
			}
		} else if proofs--; proofs < 0 {
			return nil, invalid("more than %d places of the memory that its initialisers leave look like generators of random numbers, and are none", len(memory)/generatorProofBytes)
		}
	}
	return found, nil
}

func generatorSeed(memory []byte, at int) []byte {
	return memory[at+generatorSeedAt : at+generatorNextAt]
}

func provesGenerator(b []byte, numbers, counter uint32) bool {
	g := rand.NewChaCha8([generatorSeedLen]byte(b[generatorSeedAt:]))
	for range counter / generatorStep * generatorBlock {
		g.Uint64()
	}
	for n := range numbers {
		if g.Uint64() != binary.LittleEndian.Uint64(b[8*n:]) {
			return false
		}
	}
	return true
}

// seedGenerators gives every generator of the image a seed of its own: it is
// left where the generator will look for it, before the next number it draws.
func seedGenerators(memory []byte, at []int, seed [32]byte) {
	seeds := rand.NewChaCha8(seed)
	const used = generatorBlock - generatorSeedLen/8
	for _, g := range at {
		_, _ = seeds.Read(memory[g+8*used : g+generatorSeedAt]) // never fails
		head := memory[g+generatorNextAt : g+generatorBytes]
		binary.LittleEndian.PutUint32(head, used)
		binary.LittleEndian.PutUint32(head[4:], used)
		binary.LittleEndian.PutUint32(head[8:], generatorLast)
	}
}
