package wasmhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nolaproject/nola"
)

// pipelineVersion says how this package makes of a module what it runs. Raise it
// with every change of what the meter writes, of what an image is, or of the
// engine's version: what another version made is thrown away then, and made anew.
// testdata/pipeline.golden notices what was forgotten.
const pipelineVersion = 2

// derived is what was made of a module: all that it takes to run it. It is kept
// on disk beside the engine's code, under the digest of the module's bytes and
// the limits that are built in. A damaged one is made anew.
type derived struct {
	Key           []byte // of the code, so that it is not taken for other
	Metered       []byte
	MemoryMin     uint32
	MemoryMax     uint32
	TableElements int
	Segments      int
	Imports       int
	Globals       []uint32 // numbers of the mutable ones
	Elements      []uint32 // of tables that are filled here, as numbersOf writes them

	Image      []byte
	Values     []uint64 // of the globals
	Depth      uint64
	Monotonic  int64
	Generators []int

	// Engine are the files of the engine's cache that were made with it.
	Engine []string
}

const (
	derivedPrefix = "derived-"
	derivedMagic  = "nola derived\n"
	enginePrefix  = "wazero-"
	cacheMode     = 0o600 // of files
	cacheDirMode  = 0o700
)

// openDerived throws away what another version of the pipeline left in dir, and
// makes a place for what this one will leave.
func openDerived(dir string) error {
	own := derivedPrefix + strconv.Itoa(pipelineVersion)
	if _, err := os.Stat(filepath.Join(dir, own)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), derivedPrefix) || strings.HasPrefix(e.Name(), enginePrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.MkdirAll(filepath.Join(dir, own), cacheDirMode))
}

func (r *Runtime) derivedDir() string {
	return filepath.Join(r.config.CacheDir, derivedPrefix+strconv.Itoa(pipelineVersion))
}

// derivedKey names what is made of a module here.
func (r *Runtime) derivedKey(k codeKey) []byte {
	b := binary.AppendUvarint(k.digest[:], pipelineVersion)
	b = binary.AppendVarint(b, int64(k.tableElements))
	b = binary.AppendVarint(b, int64(k.depth))
	b = binary.AppendVarint(b, k.memoryBytes)
	if r.fillsTables() {
		return append(b, 1)
	}
	return append(b, 0)
}

func (r *Runtime) derivedFile(k codeKey) string {
	sum := sha256.Sum256(r.derivedKey(k))
	return filepath.Join(r.derivedDir(), hex.EncodeToString(k.digest[:])+"-"+hex.EncodeToString(sum[:8]))
}

// loadDerived reads what was made of a module before; nil if there is nothing
// that could be used.
func (r *Runtime) loadDerived(k codeKey) *derived {
	if r.config.CacheDir == "" {
		return nil
	}
	b, err := os.ReadFile(r.derivedFile(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var d *derived
	if err == nil {
		d, err = decodeDerived(b)
	}
	if err == nil && !bytes.Equal(d.Key, r.derivedKey(k)) {
		err = errors.New("it is of another module")
	}
	if err != nil {
		// With it is lost which file of the engine is this module's, so they all go.
		files, removal := r.removeEngineFiles()
		r.config.Logger.Warn("what was made of a module is damaged on disk, and is made anew", "file", r.derivedFile(k), "error", err, "files", files, "removal", removal)
		return nil
	}
	return d
}

func decodeDerived(b []byte) (*derived, error) {
	rest, ok := bytes.CutPrefix(b, []byte(derivedMagic))
	if !ok || len(rest) < sha256.Size {
		return nil, errors.New("it is cut short")
	}
	sum, rest := rest[:sha256.Size], rest[sha256.Size:]
	if want := sha256.Sum256(rest); !bytes.Equal(sum, want[:]) {
		return nil, fmt.Errorf("its digest is %x, it says %x", want, sum)
	}
	d := &derived{}
	if err := gob.NewDecoder(bytes.NewReader(rest)).Decode(d); err != nil {
		return nil, err
	}
	local := func(name string) bool { return filepath.IsLocal(name) && strings.HasPrefix(name, enginePrefix) }
	if len(d.Globals) != len(d.Values) || len(d.Image)%pageBytes != 0 || slices.ContainsFunc(d.Engine, func(name string) bool { return !local(name) }) {
		return nil, errors.New("its parts do not fit")
	}
	return d, nil
}

func encodeDerived(d *derived) ([]byte, error) {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(d); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body.Bytes())
	return slices.Concat([]byte(derivedMagic), sum[:], body.Bytes()), nil
}

// saveDerived keeps what was made of a module. That is not worth failing for. A
// module without an image is not kept: why it has none may pass.
func (r *Runtime) saveDerived(c *compiled, metered []byte, elements []element, engine []string) {
	if r.config.CacheDir == "" || c.image == nil {
		return
	}
	err := func() error {
		b, err := encodeDerived(&derived{
			Key: r.derivedKey(c.key), Metered: metered, MemoryMin: c.shape.memory.min, MemoryMax: c.shape.memory.max, TableElements: c.shape.elements, Segments: c.shape.segments,
			Imports: c.shape.imports, Elements: numbersOf(elements), Globals: c.layout.globals, Image: c.image.bytes, Values: c.image.globals, Depth: c.image.depth, Monotonic: c.image.monotonic,
			Generators: c.image.generators, Engine: engine,
		})
		if err != nil {
			return err
		}
		file, err := os.CreateTemp(r.derivedDir(), "*.tmp")
		if err != nil {
			return err
		}
		_, err = file.Write(b)
		if err = errors.Join(err, file.Chmod(cacheMode), file.Close()); err == nil {
			err = os.Rename(file.Name(), r.derivedFile(c.key)) // not synced: a torn file is seen
		}
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
		return err
	}()
	if err != nil {
		r.config.Logger.Warn("what was made of a module is not kept on disk", "dir", r.derivedDir(), "error", err)
	}
}

// revive makes c of what was made of its module before.
func (r *Runtime) revive(ctx context.Context, c *compiled, d *derived) error {
	code, err := r.compileMetered(ctx, d.Metered)
	if err != nil {
		return err
	}
	c.code = code
	c.shape = &parsed{imports: d.Imports, elements: d.TableElements, segments: d.Segments, memory: limits{min: d.MemoryMin, max: d.MemoryMax}}
	c.layout = &layout{elements: elementsOf(d.Elements)}
	for _, number := range d.Globals {
		c.layout.add(number)
	}
	c.image = &image{bytes: d.Image, globals: d.Values, depth: d.Depth, monotonic: d.Monotonic, generators: d.Generators}
	c.image.share(r)
	c.image.name(c)
	if len(c.layout.elements) == 0 {
		return nil
	}
	// The first instance has the engine's functions, of which tables are made.
	i := &instance{module: &module{runtime: r, compiled: c, manifest: nola.Manifest{}.WithDefaults()}}
	s, err := r.newSlot(c)
	if err == nil {
		err = s.open(i)
		s.close()
	}
	c.layout.elements = nil
	if err != nil {
		c.image.close()
		_ = code.Close(context.Background()) // it has nothing that can fail
		c.code, c.shape, c.layout, c.image, c.tables = nil, nil, nil, nil, nil
	}
	return err
}

// numbersOf writes elements, three numbers for each.
func numbersOf(elements []element) (numbers []uint32) {
	for _, e := range elements {
		if e.null {
			e.function = nullFunction
		}
		numbers = append(numbers, e.table, e.at, e.function)
	}
	return numbers
}

const nullFunction = 1<<32 - 1

func elementsOf(numbers []uint32) (elements []element) {
	for ; len(numbers) >= 3; numbers = numbers[3:] {
		e := element{table: numbers[0], at: numbers[1], function: numbers[2]}
		if e.null = e.function == nullFunction; e.null {
			e.function = 0
		}
		elements = append(elements, e)
	}
	return elements
}

// engineFiles are those in the engine's cache.
func (r *Runtime) engineFiles() map[string]bool {
	if r.config.CacheDir == "" {
		return nil
	}
	found := make(map[string]bool)
	files, _ := filepath.Glob(filepath.Join(r.config.CacheDir, enginePrefix+"*", "*")) // the pattern is fine
	for _, f := range files {
		if name, err := filepath.Rel(r.config.CacheDir, f); err == nil && filepath.Ext(f) == "" {
			found[name] = true
		}
	}
	return found
}

// Forget implements [nola.Forgetter]: what is kept on disk of these bytes goes,
// under all limits.
func (r *Runtime) Forget(digest [sha256.Size]byte) error {
	if r.config.CacheDir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(r.derivedDir(), hex.EncodeToString(digest[:])+"-*"))
	for _, f := range files {
		if b, readErr := os.ReadFile(f); readErr == nil {
			if d, damaged := decodeDerived(b); damaged == nil {
				for _, name := range d.Engine {
					if e := os.Remove(filepath.Join(r.config.CacheDir, name)); e != nil && !errors.Is(e, fs.ErrNotExist) {
						err = errors.Join(err, e)
					}
				}
			}
		}
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		return fmt.Errorf("wasmhost: forget module %x: %w", digest, err)
	}
	return nil
}
