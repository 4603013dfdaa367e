package wasmhost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/nolaproject/nola"
)

// Config says how a Runtime works. The zero value works.
type Config struct {
	// CacheDir is where compiled code is kept between processes. It is made if it
	// does not exist. Empty means in memory alone.
	CacheDir string
	// InstancesBytesMax is the memory that all instances may hold together, idle
	// slots included: default 2 GiB, at least 1 MiB. Beyond it Instantiate and
	// guests that grow are refused as NODE_OVERLOADED.
	InstancesBytesMax int64
	// IdleBytesMax is what slots may hold that wait for their next activation:
	// default a quarter of InstancesBytesMax. They give way when the memory is
	// needed.
	IdleBytesMax int64
	// IdleAfter is how long a slot waits for its next activation before it is
	// closed, which the release of another one notices: default 5 min.
	IdleAfter time.Duration
	// HeapMemory keeps the memory of guests on the heap of the process, so that
	// GOMEMLIMIT counts it. Without it, where the system allows, instances share
	// the pages that they have not written, which is faster and smaller.
	HeapMemory bool
	// PlainEngine uses nothing of the engine beyond its documentation. Without it,
	// where a self-test finds the engine as expected, instances of modules with
	// large tables, such as those of Go, are made several times faster.
	PlainEngine bool
	// CompileTimeout bounds one Prepare, with its wait for others: default 60 s.
	CompileTimeout time.Duration
	// CompileConcurrency is how many modules are compiled at once: default 1, at
	// most 64.
	CompileConcurrency int
	// Now is the clock by which deadlines pass: default time.Now. The time that
	// guests see is nola.Host's.
	Now func() time.Time
	// Logger gets changes of state: default none.
	Logger *slog.Logger
}

// callDepthMax keeps the native stack of a guest below some 100 MiB.
const callDepthMax = 100_000

func (c Config) withDefaults() Config {
	if c.InstancesBytesMax == 0 {
		c.InstancesBytesMax = 2 << 30
	}
	if c.IdleBytesMax == 0 {
		c.IdleBytesMax = c.InstancesBytesMax / 4
	}
	if c.IdleAfter == 0 {
		c.IdleAfter = 5 * time.Minute
	}
	if c.CompileTimeout == 0 {
		c.CompileTimeout = 60 * time.Second
	}
	if c.CompileConcurrency == 0 {
		c.CompileConcurrency = 1
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(c.InstancesBytesMax >= 1<<20, "InstancesBytesMax %d: must be at least 1 MiB", c.InstancesBytesMax)
	check(c.IdleBytesMax >= 0 && c.IdleBytesMax <= c.InstancesBytesMax, "IdleBytesMax %d: must lie between 0 and InstancesBytesMax, %d", c.IdleBytesMax, c.InstancesBytesMax)
	check(c.IdleAfter > 0, "IdleAfter %s: must be above 0", c.IdleAfter)
	check(c.CompileTimeout > 0, "CompileTimeout %s: must be above 0", c.CompileTimeout)
	check(c.CompileConcurrency >= 1 && c.CompileConcurrency <= 64, "CompileConcurrency %d: must lie between 1 and 64", c.CompileConcurrency)
	return errors.Join(faults...)
}

// Runtime runs guests. It implements [nola.Runtime]; its methods may be called
// at once.
type Runtime struct {
	config    Config
	engine    wazero.Runtime
	cache     wazero.CompilationCache
	compiling chan struct{} // has a place for each compilation at once
	bytes     atomic.Int64  // held by slots
	idleBytes atomic.Int64  // of these, by idle ones
	views     atomic.Int64  // held by slots

	slotsMade, slotsReused, slotsDropped, slotsEvicted atomic.Uint64

	workers sync.WaitGroup // that compile; none begins once the runtime is closed

	mu             sync.Mutex // guards the fields below
	compiled       map[codeKey]*compiled
	newest, oldest *slot // of those idle
	closed         bool
}

var _ nola.Runtime = (*Runtime)(nil)

// codeKey names compiled code: the bytes it came from and the limits that the
// meter builds in.
type codeKey struct {
	digest        [sha256.Size]byte
	tableElements int
	depth         int
	memoryBytes   int64
}

// compiled is compiled code, shared by all modules made of the same bytes.
type compiled struct {
	runtime *Runtime
	key     codeKey
	ready   chan struct{} // closed when the fields below are set
	code    wazero.CompiledModule
	shape   *parsed
	layout  *layout // with image
	tables  *tables // with image, if they are filled here
	image   *image  // nil: every instance runs the initialisers
	err     error

	// Without an image: where generators stand once the initialisers ran, if they
	// were searched.
	generators []int
	searched   bool

	shares int     // modules, instances and waiters; guarded by Runtime.mu
	idle   []*slot // from the one released first; guarded by Runtime.mu
}

// failed says that the code was found not to compile, or not in time.
func (c *compiled) failed() bool {
	select {
	case <-c.ready:
		return c.err != nil
	default:
		return false
	}
}

// memoryMax is the least of what the module and its manifest allow.
func (c *compiled) memoryMax() uint64 {
	return min(uint64(c.shape.memory.max), uint64(c.key.memoryBytes)/pageBytes) * pageBytes
}

// New makes a Runtime. Close it when all its instances are closed. Close waits for
// what is still compiled for callers that have left, one function at most.
func New(ctx context.Context, config Config) (*Runtime, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("wasmhost: config: %w", err)
	}
	rc := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2).WithDebugInfoEnabled(false)
	r := &Runtime{config: config, compiling: make(chan struct{}, config.CompileConcurrency), compiled: map[codeKey]*compiled{}}
	if config.CacheDir != "" {
		if err := openDerived(config.CacheDir); err != nil {
			return nil, fmt.Errorf("wasmhost: open the cache of modules in %s: %w", config.CacheDir, err)
		}
		cache, err := wazero.NewCompilationCacheWithDir(config.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("wasmhost: open the cache of compiled code in %s: %w", config.CacheDir, err)
		}
		r.cache, rc = cache, rc.WithCompilationCache(cache)
	}
	r.engine = wazero.NewRuntimeWithConfig(ctx, rc)
	if err := r.defineImports(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("wasmhost: define host functions: %w", err), r.Close())
	}
	return r, nil
}

// Close implements [nola.Runtime].
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.workers.Wait()
	for r.evict() {
	}
	err := r.engine.Close(context.Background())
	if r.cache != nil {
		err = errors.Join(err, r.cache.Close(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("wasmhost: close: %w", err)
	}
	return nil
}

// Stats says how a Runtime fares. Counts are since it was made.
type Stats struct {
	Bytes     int64 // held by instances and idle slots
	IdleBytes int64 // of these, by idle slots
	Modules   int   // whose code is held

	SlotsMade    uint64 // activations that found no idle slot
	SlotsReused  uint64 // activations that found one
	SlotsDropped uint64 // slots not kept after an activation: it broke, grew, or cannot be set back
	SlotsEvicted uint64 // idle slots that gave way to the budget, or were idle for long
}

// Stats answers at once.
func (r *Runtime) Stats() Stats {
	r.mu.Lock()
	modules := len(r.compiled)
	r.mu.Unlock()
	return Stats{
		Bytes: r.bytes.Load(), IdleBytes: r.idleBytes.Load(), Modules: modules,
		SlotsMade: r.slotsMade.Load(), SlotsReused: r.slotsReused.Load(),
		SlotsDropped: r.slotsDropped.Load(), SlotsEvicted: r.slotsEvicted.Load(),
	}
}

// Bytes is the memory that instances and idle slots hold.
func (r *Runtime) Bytes() int64 { return r.bytes.Load() }

// Metrics writes the runtime's figures in the text format of Prometheus.
func (r *Runtime) Metrics(w io.Writer) error {
	s := r.Stats()
	var text []byte
	add := func(name, kind, help string, value any) {
		text = fmt.Appendf(text, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", name, help, name, kind, name, value)
	}
	add("nola_slot_idle_bytes", "gauge", "Memory of idle slots, a part of nola_instance_bytes.", s.IdleBytes)
	add("nola_modules_held", "gauge", "Modules whose compiled code is in memory.", s.Modules)
	add("nola_slots_made_total", "counter", "Activations that found no idle slot of their module.", s.SlotsMade)
	add("nola_slots_reused_total", "counter", "Activations that found an idle slot.", s.SlotsReused)
	add("nola_slots_dropped_total", "counter", "Slots not kept after an activation: they broke, grew, or cannot be set back.", s.SlotsDropped)
	add("nola_slots_evicted_total", "counter", "Idle slots that gave way to the memory budget, or were idle for long.", s.SlotsEvicted)
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("wasmhost: write metrics: %w", err)
	}
	return nil
}

// Prepare implements [nola.Runtime]. It returns when the code is compiled, when
// ctx ends, or after Config.CompileTimeout. The compiler ends soon after, with the
// function that it is at, and has its place among Config.CompileConcurrency until
// then.
func (r *Runtime) Prepare(ctx context.Context, code []byte, manifest nola.Manifest) (nola.Module, error) {
	manifest = manifest.WithDefaults()
	if err := manifest.Validate(); err != nil {
		return nil, err
	}
	if d := manifest.Limits.CallDepth; d > callDepthMax {
		return nil, nola.LimitError(nola.ReasonInvalidArgument, "call_depth", callDepthMax, "manifest: limits.call_depth %d: this runtime allows at most %d", d, callDepthMax)
	}
	granted, err := grant(manifest.Capabilities)
	if err != nil {
		return nil, err
	}
	if len(code) > ModuleBytesMax { // before anything is done for so many bytes
		_, err := parse(code, 0)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.config.CompileTimeout)
	defer cancel()
	key := codeKey{sha256.Sum256(code), manifest.Limits.TableElements, manifest.Limits.CallDepth, manifest.Limits.MemoryBytes}
	c, err := r.prepare(ctx, code, key)
	if err != nil {
		return nil, err
	}
	m := &module{runtime: r, compiled: c, manifest: manifest, operations: granted, readonly: map[string]struct{}{}}
	for _, op := range manifest.ReadonlyOperations {
		m.readonly[op] = struct{}{}
	}
	if err := m.fit(); err != nil {
		r.unshare(c)
		return nil, err
	}
	return m, nil
}

// prepare returns a share of the compiled code of key, which it compiles unless
// somebody else did or does.
func (r *Runtime) prepare(ctx context.Context, code []byte, key codeKey) (*compiled, error) {
	for {
		c, mine, err := r.share(key)
		if err != nil {
			return nil, err
		}
		if mine {
			go r.work(ctx, code, c)
		}
		select {
		case <-c.ready:
			if c.err == nil {
				return c, nil
			}
		case <-ctx.Done():
			r.unshare(c)
			return nil, r.tooSlow(ctx)
		}
		r.unshare(c)
		// Whoever compiled may have run out of its own time, not of ours.
		if mine || ctx.Err() != nil || errors.Is(c.err, &nola.Error{Reason: nola.ReasonInvalidModule}) {
			return nil, c.err
		}
	}
}

// work compiles c, for whoever waits for it. The runtime waits for it when it is
// closed. A module that makes the compiler panic is refused: it came from outside.
func (r *Runtime) work(ctx context.Context, code []byte, c *compiled) {
	defer r.workers.Done()
	defer close(c.ready)
	defer r.unshare(c) // before anybody goes on: a module that is closed then has the last share
	defer func() {
		if p := recover(); p != nil {
			r.config.Logger.Error("preparing a module failed in the host", "digest", hex.EncodeToString(c.key.digest[:]), "panic", p, "stack", string(debug.Stack()))
			c.err = nola.Errorf(nola.ReasonInternal, "preparing the module failed in the host: %v", p)
		}
	}()
	c.err = r.compile(ctx, code, c)
}

// share finds the compiled code of key, or makes a place for it that a worker of
// the caller's must fill, which has a share of its own.
func (r *Runtime) share(key codeKey) (c *compiled, mine bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, false, nola.Errorf(nola.ReasonUnavailable, "the runtime is closed")
	}
	c, ok := r.compiled[key]
	if !ok {
		c = &compiled{runtime: r, key: key, ready: make(chan struct{})}
		r.compiled[key] = c
		c.shares++
		r.workers.Add(1)
	}
	c.shares++
	return c, !ok, nil
}

// unshare gives up a share. The last one closes the code.
func (r *Runtime) unshare(c *compiled) {
	r.mu.Lock()
	c.shares--
	last := c.shares == 0
	// A failure is not kept either: whoever comes next tries again.
	if (last || c.failed()) && r.compiled[c.key] == c {
		delete(r.compiled, c.key)
	}
	var idle []*slot
	if last {
		idle, c.idle = c.idle, nil
		for _, s := range idle {
			r.unlink(s)
		}
	}
	r.mu.Unlock()
	if !last {
		return
	}
	for _, s := range idle {
		s.close()
	}
	if c.image != nil {
		c.image.close()
	}
	if c.code != nil {
		_ = c.code.Close(context.Background()) // it has nothing that can fail
	}
}

func (r *Runtime) tooSlow(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nola.Errorf(nola.ReasonCanceled, "preparing the module was canceled")
	}
	e := nola.LimitError(nola.ReasonDeadlineExceeded, "compile_timeout", int64(r.config.CompileTimeout), "preparing the module took longer than the caller or the node's compile timeout of %s allows; push it again, or push a smaller module", r.config.CompileTimeout)
	e.Metadata["where"] = "queue" // no turn began
	e.RetryAfter = time.Second
	return e
}

// compile takes module bytes through all steps, into c.
func (r *Runtime) compile(ctx context.Context, code []byte, c *compiled) error {
	select {
	case r.compiling <- struct{}{}:
		defer func() { <-r.compiling }()
	case <-ctx.Done():
		return r.tooSlow(ctx)
	}
	start := time.Now()
	log := r.config.Logger.With("digest", hex.EncodeToString(c.key.digest[:]), "bytes", len(code))
	if d := r.loadDerived(c.key); d != nil && r.revive(ctx, c, d) == nil {
		log.Info("module prepared, as it was made before", "took", time.Since(start))
		return nil
	}
	before := r.engineFiles()
	shape, err := parse(code, c.key.tableElements)
	if err != nil {
		return err
	}
	c.shape = shape
	l := shape.layout()
	var elements []element
	if l != nil && r.fillsTables() {
		elements = shape.readElements()
		l.elements = elements
	}
	metered, l, err := shape.meter(c.key.depth, l)
	if err != nil {
		return err
	}
	if c.code, err = r.compileMetered(ctx, metered); err != nil {
		return err
	}
	if l != nil && uint64(shape.memory.min)*pageBytes <= c.memoryMax() {
		c.layout = l
		if c.image, err = r.makeImage(ctx, c); err != nil {
			return err
		}
	}
	if l != nil && c.image == nil {
		// What does not begin as an image has to begin by itself.
		_ = c.code.Close(context.Background())
		c.code, c.layout, c.tables = nil, nil, nil
		if metered, _, err = shape.meter(c.key.depth, nil); err != nil {
			return err
		}
		if c.code, err = r.compileMetered(ctx, metered); err != nil {
			return err
		}
	}
	if l == nil && uint64(shape.memory.min)*pageBytes <= c.memoryMax() {
		if err = r.searchWhole(ctx, c); err != nil {
			return err
		}
	}
	if l != nil {
		l.data, l.elements = nil, nil // the image has them
	}
	shape.release()
	var engine []string
	for name := range r.engineFiles() {
		if !before[name] {
			engine = append(engine, name)
		}
	}
	r.saveDerived(c, metered, elements, engine)
	log.Info("module prepared", "metered_bytes", len(metered), "image", c.image != nil, "took", time.Since(start))
	return nil
}

// fillsTables says that the tables of instances are filled here.
func (r *Runtime) fillsTables() bool { return !r.config.PlainEngine && tablesWork() }

// compileMetered has the engine compile code.
func (r *Runtime) compileMetered(ctx context.Context, metered []byte) (wazero.CompiledModule, error) {
	// With two workers the engine looks at ctx between functions.
	ctx = experimental.WithCompilationWorkers(ctx, 2)
	c, err := r.engine.CompileModule(ctx, metered)
	if err != nil && r.repairCache(err) {
		c, err = r.engine.CompileModule(ctx, metered)
	}
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = c.Close(context.Background())
		}
		return nil, r.tooSlow(ctx)
	case err != nil:
		return nil, invalid("it does not compile (numbers of functions are one up from the first that is not imported): %v", err)
	}
	return c, nil
}

// repairCache reports whether err comes of the cache and not of the module, so
// that a second try will do: code that could not be written is in memory by
// then, and damaged files are removed, for all of them can be made again.
func (r *Runtime) repairCache(err error) bool {
	if r.cache == nil {
		return false
	}
	log := r.config.Logger.With("dir", r.config.CacheDir, "error", err)
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path), errors.As(err, &link):
		log.Warn("compiled code is not kept on disk")
		return true
	case !strings.HasPrefix(err.Error(), "compilationcache: "):
		return false
	}
	files, removal := r.removeEngineFiles()
	log.Warn("compiled code on disk is damaged and was removed", "files", files, "removal", removal)
	return true
}

// removeEngineFiles empties the engine's cache on disk. It is made again, under
// the same names.
func (r *Runtime) removeEngineFiles() (n int, err error) {
	files, err := filepath.Glob(filepath.Join(r.config.CacheDir, enginePrefix+"*", "*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return len(files), err
}
