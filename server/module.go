package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// Modules is a node's registry of modules: what was pushed, as the catalogue has
// it, and what is ready to run. It may be used at once from many goroutines.
type Modules struct {
	store   persistence.Store
	catalog persistence.Catalog
	runtime nola.Runtime

	// current is what the hot path reads: it is replaced, never changed.
	current atomic.Pointer[map[moduleName]*readyModule]
	mu      sync.Mutex    // serialises changes of the catalogue and of current
	changes atomic.Uint64 // of namespaces' limits, see closeNamespace
	loading map[moduleName]*loading
	failed  map[moduleName]failure // loads that failed a moment ago, at most failuresMax
	older   []olderModule          // versions that are not the default one, the newest asked for last
	now     func() time.Time
	exists  func(ctx context.Context, namespace string) error
	bounds  func(ctx context.Context, namespace string) (nola.Limits, error)
}

type moduleName struct{ namespace, name string }

// readyModule is a default version, prepared.
type readyModule struct {
	module  nola.Module
	version uint64
	bounds  uint64 // changes of namespaces' limits when it was prepared
}

// olderModule is a version that actors leave, which may keep their memory.
type olderModule struct {
	key moduleName
	readyModule
}

// loading is a load under way.
type loading struct {
	done chan struct{} // closed when it has ended
	err  error         // why it failed; set before done is closed
}

// failure is why a load failed, and until when that is the answer.
type failure struct {
	err   error
	until time.Time
}

// close gives the module up. Instances of it go on.
func (r *readyModule) close() {
	if r != nil {
		_ = r.module.Close() // it has nothing that can fail
	}
}

// Limits of the registry.
const (
	ModuleBytesMax   = nolaModuleBytesMax
	ModulesReadyMax  = 10_000 // default versions kept ready to run on a node
	moduleVersionMax = 1 << 20
	loadBackoff      = 200 * time.Millisecond // after a load that failed, until it is tried again
	failuresMax      = 1_000                  // failed loads that are remembered at once
	versionsPage     = 100                    // versions read at once from the catalogue
	olderMax         = 8                      // versions that are not the default one, kept ready to run
)

// NewModules makes the registry over what the store's catalogue holds.
func NewModules(store persistence.Store, runtime nola.Runtime) *Modules {
	m := &Modules{store: store, catalog: persistence.Catalog{Store: store}, runtime: runtime, loading: make(map[moduleName]*loading), failed: make(map[moduleName]failure), now: time.Now}
	m.current.Store(&map[moduleName]*readyModule{})
	return m
}

// Module answers the default version of a module, ready to run. A module that is
// ready already costs one look into a map.
func (m *Modules) Module(namespace, name string) (nola.Module, uint64, error) {
	key := moduleName{namespace, name}
	if r := (*m.current.Load())[key]; r != nil {
		return r.module, r.version, nil
	}
	return m.load(key)
}

// ready reports whether a module is ready to run, by one look into a map. If not,
// it may exist all the same.
func (m *Modules) ready(namespace, name string) bool {
	return (*m.current.Load())[moduleName{namespace, name}] != nil
}

// load reads a module from the store and prepares it, once for all who ask. If
// that fails, it is the answer of all of them, and of who asks within
// loadBackoff, for preparing takes its time.
func (m *Modules) load(key moduleName) (nola.Module, uint64, error) {
	m.mu.Lock()
	if r := (*m.current.Load())[key]; r != nil {
		m.mu.Unlock()
		return r.module, r.version, nil
	}
	if f, ok := m.failed[key]; ok && m.now().Before(f.until) {
		m.mu.Unlock()
		return nil, 0, f.err
	}
	if l := m.loading[key]; l != nil {
		m.mu.Unlock()
		<-l.done
		if l.err != nil {
			return nil, 0, l.err
		}
		return m.Module(key.namespace, key.name) // which may have been replaced by now
	}
	l := &loading{done: make(chan struct{})}
	m.loading[key] = l
	m.mu.Unlock()

	r, err := m.prepare(key)
	m.mu.Lock()
	if err == nil {
		r, err = m.publish(key, r)
	}
	l.err = err
	if err != nil {
		m.remember(key, err)
	}
	delete(m.loading, key)
	close(l.done)
	m.mu.Unlock()
	if err != nil {
		r.close()
		return nil, 0, err
	}
	return r.module, r.version, nil
}

// ModuleVersion answers a version of a module, ready to run. Unless it is the
// default one, it may be closed as soon as others are asked for.
func (m *Modules) ModuleVersion(namespace, name string, version uint64) (nola.Module, error) {
	key := moduleName{namespace, name}
	m.mu.Lock()
	if r := (*m.current.Load())[key]; r != nil && r.version == version {
		m.mu.Unlock()
		return r.module, nil
	}
	if r := m.takeOlder(key, version); r != nil {
		m.older = append(m.older, *r)
		m.mu.Unlock()
		return r.module, nil
	}
	m.mu.Unlock()
	r, err := m.prepareVersion(context.Background(), key, version)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if other := m.takeOlder(key, version); other != nil {
		r.close()
		r = &other.readyModule
	} else if len(m.older) >= olderMax {
		m.older[0].close()
		m.older = slices.Delete(m.older, 0, 1)
	}
	m.older = append(m.older, olderModule{key, *r})
	return r.module, nil
}

// takeOlder takes a version out of those kept ready. The mutex is held.
func (m *Modules) takeOlder(key moduleName, version uint64) *olderModule {
	for i, r := range m.older {
		if r.key == key && r.version == version {
			m.older = slices.Delete(m.older, i, i+1)
			return &r
		}
	}
	return nil
}

// closeOlder gives up the versions of which gone is true. The mutex is held.
func (m *Modules) closeOlder(gone func(moduleName) bool) {
	m.older = slices.DeleteFunc(m.older, func(r olderModule) bool {
		if gone(r.key) {
			r.close()
		}
		return gone(r.key)
	})
}

// publish makes the loaded r the default version that runs, unless the module was
// pushed, deleted or given another default version since r was read: then it
// answers what is so now. The mutex is held, but not while it reads again.
func (m *Modules) publish(key moduleName, r *readyModule) (*readyModule, error) {
	for {
		if now := (*m.current.Load())[key]; now != nil {
			r.close()
			return now, nil
		}
		if err := m.open(context.Background(), key.namespace); err != nil { // again: it may have closed meanwhile
			return r, err
		}
		mod, _, err := m.catalog.Module(context.Background(), key.namespace, key.name)
		switch {
		case err != nil:
			return r, fmt.Errorf("server: read module %s/%s: %w", key.namespace, key.name, err)
		case mod.Default == r.version && r.bounds == m.changes.Load():
			return r, m.setReady(key, r)
		}
		r.close()
		m.mu.Unlock()
		r, err = m.prepare(key)
		m.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
}

// remember makes err the answer for a moment. What costs nothing to find out is
// not remembered. The mutex is held.
func (m *Modules) remember(key moduleName, err error) {
	for _, cheap := range []nola.Reason{nola.ReasonModuleNotFound, nola.ReasonNamespaceNotFound, nola.ReasonNamespaceDeleting} {
		if hasReason(err, cheap) {
			return
		}
	}
	now := m.now()
	if len(m.failed) >= failuresMax {
		maps.DeleteFunc(m.failed, func(_ moduleName, f failure) bool { return !now.Before(f.until) })
	}
	if len(m.failed) < failuresMax {
		m.failed[key] = failure{err, now.Add(loadBackoff)}
	}
}

// checkSize refuses a module that is too large.
func checkSize(code []byte) error {
	if len(code) <= ModuleBytesMax {
		return nil
	}
	return nola.LimitError(nola.ReasonInvalidModule, "module_bytes", ModuleBytesMax, "the module has %d bytes, at most %d are allowed; strip debug information (-ldflags=\"-s -w\")", len(code), ModuleBytesMax)
}

func errNoModule(key moduleName) error {
	where := ""
	if key.namespace != nola.DefaultNamespace {
		where = " -n " + key.namespace
	}
	e := nola.Errorf(nola.ReasonModuleNotFound, "there is no module %q in namespace %q; push one: nolactl%s module push FILE.wasm --name %s", key.name, key.namespace, where, key.name)
	e.Metadata = map[string]string{"namespace": key.namespace, "module": key.name}
	return e
}

// errNoVersion is about a version that is not there; newest is the last one that
// is, 0 if that is not known.
func errNoVersion(key moduleName, number, newest uint64) error {
	e := nola.Errorf(nola.ReasonVersionNotFound, "module %q has no version %d", key.name, number)
	if newest != 0 {
		e.Message += fmt.Sprintf("; its newest is %d", newest)
	}
	e.Metadata = map[string]string{"namespace": key.namespace, "module": key.name}
	return e
}

func (m *Modules) prepare(key moduleName) (*readyModule, error) {
	ctx := context.Background()
	if err := m.open(ctx, key.namespace); err != nil {
		return nil, err
	}
	mod, version, err := m.catalog.Module(ctx, key.namespace, key.name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("server: read module %s/%s: %w", key.namespace, key.name, err)
	case version == 0 || mod.Default == 0:
		return nil, errNoModule(key)
	}
	return m.prepareVersion(ctx, key, mod.Default)
}

func (m *Modules) prepareVersion(ctx context.Context, key moduleName, number uint64) (*readyModule, error) {
	changes := m.changes.Load()
	rec, version, err := m.catalog.ModuleVersion(ctx, key.namespace, key.name, number)
	switch {
	case err != nil:
		return nil, fmt.Errorf("server: read version %d of module %s/%s: %w", number, key.namespace, key.name, err)
	case version == 0:
		return nil, errNoVersion(key, number, 0)
	}
	code, err := m.store.GetObject(ctx, rec.Digest)
	if err != nil {
		return nil, fmt.Errorf("server: read the bytes of module %s/%s: %w", key.namespace, key.name, err)
	}
	ready, err := m.prepareWithin(ctx, key.namespace, code, rec.Manifest)
	if err != nil {
		return nil, err
	}
	return &readyModule{module: ready, version: rec.Version, bounds: changes}, nil
}

// prepareWithin prepares a module under the limits of its namespace, which may be
// lower by now than what its manifest was allowed.
func (m *Modules) prepareWithin(ctx context.Context, namespace string, code []byte, manifest nola.Manifest) (nola.Module, error) {
	most, err := m.boundsOf(ctx, namespace)
	if err != nil {
		return nil, err
	}
	manifest.Limits = manifest.Limits.Within(most)
	return m.runtime.Prepare(ctx, code, manifest)
}

// boundsOf are the limits of a namespace.
func (m *Modules) boundsOf(ctx context.Context, namespace string) (nola.Limits, error) {
	if m.bounds == nil {
		return nola.Limits{}, nil
	}
	return m.bounds(ctx, namespace)
}

// checkBounds refuses a manifest that asks for more than its namespace allows.
func (m *Modules) checkBounds(ctx context.Context, namespace string, manifest nola.Manifest) error {
	most, err := m.boundsOf(ctx, namespace)
	if err != nil {
		return err
	}
	var e *nola.Error
	if err := manifest.Limits.CheckWithin(most); errors.As(err, &e) {
		e.Message = fmt.Sprintf("manifest: %s, which namespace %q allows its modules; ask for less, or have an operator raise it: nolactl namespace set %s --limit %s=…", e.Message, namespace, namespace, e.Metadata["limit"])
		return e
	}
	return nil
}

// open answers nil if modules of the namespace may run and be pushed.
func (m *Modules) open(ctx context.Context, namespace string) error {
	if m.exists == nil {
		return nil
	}
	return m.exists(ctx, namespace)
}

// closeNamespace makes modules of a namespace run no more, until they are loaded
// anew. Every turn asks for its module, so none starts once it has returned. The
// catalogue says already that the namespace is being deleted, or has other limits.
func (m *Modules) closeNamespace(namespace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes.Add(1)
	next := maps.Clone(*m.current.Load())
	var gone []*readyModule
	maps.DeleteFunc(next, func(key moduleName, r *readyModule) bool {
		if key.namespace == namespace {
			gone = append(gone, r)
		}
		return key.namespace == namespace
	})
	m.current.Store(&next)
	for _, r := range gone {
		r.close()
	}
	m.closeOlder(func(key moduleName) bool { return key.namespace == namespace })
}

// setReady publishes r as the default version of key; nil takes it away. The
// mutex is held. A module that is replaced is closed: its code goes with the last
// instance of it, and a turn that was about to make another one asks again.
func (m *Modules) setReady(key moduleName, r *readyModule) error {
	old := *m.current.Load()
	delete(m.failed, key)
	if r != nil && old[key] == nil && len(old) >= ModulesReadyMax {
		return nola.LimitError(nola.ReasonNodeOverloaded, "modules_ready", ModulesReadyMax, "the node has %d modules ready to run, its limit", len(old))
	}
	next := make(map[moduleName]*readyModule, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	if r == nil {
		delete(next, key)
		m.closeOlder(func(k moduleName) bool { return k == key })
	} else {
		next[key] = r
	}
	m.current.Store(&next)
	old[key].close()
	return nil
}

// Push checks and stores a module and makes it the default version. The bytes
// and manifest of the default version again answer that version.
func (m *Modules) Push(ctx context.Context, namespace, name string, code []byte, manifest nola.Manifest) (persistence.ModuleVersion, error) {
	var none persistence.ModuleVersion
	if err := nola.ValidateName("namespace", namespace); err != nil {
		return none, err
	}
	if err := nola.ValidateName("name", name); err != nil {
		return none, err
	}
	if err := manifest.Validate(); err != nil {
		return none, err
	}
	key := moduleName{namespace, name}
	if err := m.open(ctx, namespace); err != nil {
		return none, err
	}
	if err := checkSize(code); err != nil {
		return none, err
	}
	changes := m.changes.Load()
	if err := m.checkBounds(ctx, namespace, manifest); err != nil {
		return none, err
	}
	prepared, err := m.prepareWithin(ctx, namespace, code, manifest)
	if err != nil {
		return none, err
	}
	ready := &readyModule{module: prepared, bounds: changes}
	taken := false
	defer func() {
		if !taken {
			ready.close()
		}
	}()
	take := func(version uint64) error {
		if ready.bounds != m.changes.Load() {
			return m.setReady(key, nil) // it is loaded anew, under the limits of now
		}
		ready.version = version
		err := m.setReady(key, ready)
		taken = err == nil
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(ctx, namespace); err != nil { // again: preparing takes its time
		return none, err
	}
	mod, version, err := m.catalog.Module(ctx, namespace, name)
	if err != nil {
		return none, fmt.Errorf("server: read module %s/%s: %w", namespace, name, err)
	}
	rec := persistence.ModuleVersion{
		Namespace: namespace, Name: name, Version: mod.Latest + 1, Digest: sha256.Sum256(code), Size: int64(len(code)),
		Created: m.now(), Manifest: manifest,
	}
	if mod.Default != 0 {
		old, v, err := m.catalog.ModuleVersion(ctx, namespace, name, mod.Default)
		if err != nil {
			return none, fmt.Errorf("server: read module %s/%s: %w", namespace, name, err)
		}
		if v != 0 && old.Digest == rec.Digest && sameManifest(old.Manifest, manifest) {
			if r := (*m.current.Load())[key]; r != nil && r.version == old.Version {
				return old, nil // what runs goes on
			}
			return old, take(old.Version)
		}
	}
	if rec.Version > moduleVersionMax {
		return none, nola.LimitError(nola.ReasonLimitExceeded, "module_versions", moduleVersionMax, "module %s/%s has had %d versions, its limit", namespace, name, mod.Latest)
	}
	if err := m.store.PutObject(ctx, rec.Digest, code); err != nil {
		return none, fmt.Errorf("server: store module %s/%s: %w", namespace, name, err)
	}
	if _, err := m.catalog.PutModuleVersion(ctx, 0, rec); err != nil {
		return none, fmt.Errorf("server: store version %d of module %s/%s: %w", rec.Version, namespace, name, err)
	}
	mod = persistence.Module{Namespace: namespace, Name: name, Default: rec.Version, Latest: rec.Version}
	if _, err := m.catalog.PutModule(ctx, version, mod); err != nil {
		return none, fmt.Errorf("server: store module %s/%s: %w", namespace, name, err)
	}
	return rec, take(rec.Version)
}

func sameManifest(a, b nola.Manifest) bool {
	x, y := manifestMessage(a.WithDefaults()), manifestMessage(b.WithDefaults())
	return x.String() == y.String()
}

// SetDefault makes an older or newer version the one that actors run.
func (m *Modules) SetDefault(ctx context.Context, namespace, name string, number uint64) (persistence.Module, error) {
	key := moduleName{namespace, name}
	m.mu.Lock()
	defer m.mu.Unlock()
	mod, version, err := m.catalog.Module(ctx, namespace, name)
	switch {
	case err != nil:
		return mod, fmt.Errorf("server: read module %s/%s: %w", namespace, name, err)
	case version == 0:
		return mod, errNoModule(key)
	}
	rec, v, err := m.catalog.ModuleVersion(ctx, namespace, name, number)
	switch {
	case err != nil:
		return mod, fmt.Errorf("server: read module %s/%s: %w", namespace, name, err)
	case v == 0:
		return mod, errNoVersion(moduleName{namespace, name}, number, mod.Latest)
	}
	code, err := m.store.GetObject(ctx, rec.Digest)
	if err != nil {
		return mod, fmt.Errorf("server: read the bytes of module %s/%s: %w", namespace, name, err)
	}
	prepared, err := m.prepareWithin(ctx, namespace, code, rec.Manifest)
	if err != nil {
		return mod, err
	}
	ready := &readyModule{prepared, number, m.changes.Load()}
	mod.Default = number
	if _, err := m.catalog.PutModule(ctx, version, mod); err != nil {
		ready.close()
		return mod, fmt.Errorf("server: store module %s/%s: %w", namespace, name, err)
	}
	if err := m.setReady(key, ready); err != nil {
		ready.close()
		return mod, err
	}
	return mod, nil
}

// Delete removes a module with all its versions. Actors of that type must not
// exist, unless force: then they stay, and their calls answer MODULE_NOT_FOUND
// until a module of that name is pushed again. The bytes of a version go with it
// unless another module has the same. After an error, or a crash, no actor runs
// the module, and deleting it again does the rest.
func (m *Modules) Delete(ctx context.Context, namespace, name string, force bool) error {
	key := moduleName{namespace, name}
	m.mu.Lock()
	defer m.mu.Unlock()
	mod, version, err := m.catalog.Module(ctx, namespace, name)
	switch {
	case err != nil:
		return fmt.Errorf("server: read module %s/%s: %w", namespace, name, err)
	case version == 0:
		return errNoModule(key)
	}
	if !force {
		refs, err := m.store.ListActors(namespace, name, "", nola.ActorRef{}, 1)
		if err != nil {
			return fmt.Errorf("server: list actors of %s/%s: %w", namespace, name, err)
		}
		if len(refs) > 0 {
			return nola.Errorf(nola.ReasonModuleInUse, "module %q has actors, %s for one; delete them first, or use force: they stay then, and cannot be called until the module is pushed again", name, refs[0])
		}
	}
	// Without a default version it runs no more, whatever happens from here on; as
	// long as its entry stands, deleting it again goes on where this ended.
	mod.Default = 0
	if version, err = m.catalog.PutModule(ctx, version, mod); err != nil {
		return fmt.Errorf("server: delete module %s/%s: %w", namespace, name, err)
	}
	if err := m.setReady(key, nil); err != nil {
		return err
	}
	shared, err := m.digestsOfOthers(ctx, key)
	if err != nil {
		return err
	}
	for after := uint64(0); ; {
		list, err := m.catalog.ModuleVersions(ctx, namespace, name, after, versionsPage)
		if err != nil {
			return fmt.Errorf("server: list versions of %s/%s: %w", namespace, name, err)
		}
		for i := range list {
			if err := m.deleteVersion(ctx, &list[i], shared[list[i].Digest]); err != nil {
				return fmt.Errorf("server: delete version %d of %s/%s: %w", list[i].Version, namespace, name, err)
			}
			after = list[i].Version
		}
		if len(list) < versionsPage {
			break
		}
	}
	if err := m.catalog.DeleteModule(ctx, version, namespace, name); err != nil {
		return fmt.Errorf("server: delete module %s/%s: %w", namespace, name, err)
	}
	return nil
}

// deleteVersion forgets a version, behind its bytes unless other modules have
// the same: while the version stands, somebody knows that they are to go.
func (m *Modules) deleteVersion(ctx context.Context, rec *persistence.ModuleVersion, shared bool) error {
	_, version, err := m.catalog.ModuleVersion(ctx, rec.Namespace, rec.Name, rec.Version)
	if err != nil {
		return err
	}
	if !shared {
		if err := m.store.DeleteObject(ctx, rec.Digest); err != nil {
			return err
		}
		if f, ok := m.runtime.(nola.Forgetter); ok {
			if err := f.Forget(rec.Digest); err != nil {
				return err
			}
		}
	}
	return m.catalog.DeleteModuleVersion(ctx, version, rec.Namespace, rec.Name, rec.Version)
}

// digestsOfOthers are those of the bytes that the versions of all modules but
// key have. The mutex is held, so that nobody pushes some of them meanwhile.
func (m *Modules) digestsOfOthers(ctx context.Context, key moduleName) (map[[32]byte]bool, error) {
	digests := make(map[[32]byte]bool)
	var after persistence.ModuleVersion
	for {
		list, err := m.catalog.EveryModuleVersion(ctx, after, versionsPage)
		if err != nil {
			return nil, fmt.Errorf("server: list versions of modules: %w", err)
		}
		for i := range list {
			if after = list[i]; after.Namespace != key.namespace || after.Name != key.name {
				digests[after.Digest] = true
			}
		}
		if len(list) < versionsPage {
			return digests, nil
		}
	}
}

func digestText(d [32]byte) string { return "sha256:" + hex.EncodeToString(d[:]) }

func moduleMessage(m persistence.Module) *nolav1.Module {
	return &nolav1.Module{Namespace: m.Namespace, Name: m.Name, DefaultVersion: m.Default, LatestVersion: m.Latest}
}

func versionMessage(v persistence.ModuleVersion) *nolav1.ModuleVersion {
	return &nolav1.ModuleVersion{
		Version: v.Version, Digest: digestText(v.Digest), SizeBytes: uint64(v.Size), Created: timeMessage(v.Created),
		Manifest: manifestMessage(v.Manifest),
	}
}

// ManifestOf is the manifest that a client wrote; Manifest.Validate says whether
// it is legal.
func ManifestOf(m *nolav1.ModuleManifest) nola.Manifest {
	out := nola.Manifest{
		Operations: m.GetOperations(), ReadonlyOperations: m.GetReadonlyOperations(), Env: m.GetEnv(), Capabilities: m.GetCapabilities(),
		Limits: limitsOf(m.GetLimits()),
	}
	switch m.GetMode() {
	case nolav1.ModuleMode_MODULE_MODE_KV:
		out.Mode = nola.ModeKV
	case nolav1.ModuleMode_MODULE_MODE_MEMORY:
		out.Mode = nola.ModeMemory
	}
	return out
}

func manifestMessage(m nola.Manifest) *nolav1.ModuleManifest {
	mode := nolav1.ModuleMode_MODULE_MODE_KV
	if m.Mode == nola.ModeMemory {
		mode = nolav1.ModuleMode_MODULE_MODE_MEMORY
	}
	return &nolav1.ModuleManifest{
		Mode: mode, Operations: slices.Clone(m.Operations), ReadonlyOperations: slices.Clone(m.ReadonlyOperations),
		Env: m.Env, Capabilities: slices.Clone(m.Capabilities),
		Limits: limitsMessage(m.Limits),
	}
}

// limitsOf are the limits that a client wrote.
func limitsOf(l *nolav1.ModuleLimits) nola.Limits {
	return nola.Limits{
		MemoryBytes: int64(l.GetMemoryBytes()), Steps: l.GetStepsPerTurn(), TurnTimeout: l.GetTurnTimeout().AsDuration(),
		HostCalls: int(l.GetHostCalls()), LogBytes: int(l.GetLogBytes()), Casts: int(l.GetCasts()), ReplyBytes: int(l.GetReplyBytes()),
		TableElements: int(l.GetTableElements()), CallDepth: int(l.GetCallDepth()), MemoryInline: int(l.GetMemoryInline()),
	}
}

func limitsMessage(l nola.Limits) *nolav1.ModuleLimits {
	var timeout *durationpb.Duration // zero is not legal: it means the default
	if l.TurnTimeout > 0 {
		timeout = durationpb.New(l.TurnTimeout)
	}
	return &nolav1.ModuleLimits{
		MemoryBytes: uint64(l.MemoryBytes), StepsPerTurn: l.Steps, TurnTimeout: timeout,
		HostCalls: uint32(l.HostCalls), LogBytes: uint32(l.LogBytes), Casts: uint32(l.Casts), ReplyBytes: uint32(l.ReplyBytes),
		TableElements: uint32(l.TableElements), CallDepth: uint32(l.CallDepth), MemoryInline: uint32(l.MemoryInline),
	}
}

// modules is the ModuleService.
type modules struct{ s *Server }

func (h *modules) PushModule(ctx context.Context, req *connect.Request[nolav1.PushModuleRequest]) (*connect.Response[nolav1.PushModuleResponse], error) {
	m := req.Msg
	rec, err := h.s.cfg.Modules.Push(ctx, namespaceOr(m.GetNamespace()), m.GetName(), m.GetWasm(), ManifestOf(m.GetManifest()))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.PushModuleResponse{Digest: digestText(rec.Digest), Version: rec.Version}), nil
}

func (h *modules) GetModule(ctx context.Context, req *connect.Request[nolav1.GetModuleRequest]) (*connect.Response[nolav1.GetModuleResponse], error) {
	m := req.Msg
	key := moduleName{namespaceOr(m.GetNamespace()), m.GetName()}
	mod, version, err := h.s.catalog.Module(ctx, key.namespace, key.name)
	switch {
	case err != nil:
		return nil, err
	case version == 0:
		return nil, errNoModule(key)
	}
	number := m.GetVersion()
	if number == 0 {
		number = mod.Default
	}
	rec, version, err := h.s.catalog.ModuleVersion(ctx, key.namespace, key.name, number)
	switch {
	case err != nil:
		return nil, err
	case version == 0:
		return nil, errNoVersion(key, number, mod.Latest)
	}
	return connect.NewResponse(&nolav1.GetModuleResponse{Module: moduleMessage(mod), Version: versionMessage(rec)}), nil
}

func (h *modules) ListModules(ctx context.Context, req *connect.Request[nolav1.ListModulesRequest]) (*connect.Response[nolav1.ListModulesResponse], error) {
	cursor, err := parseCursor("modules", req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	after := ""
	if cursor != nil {
		after = cursor[0]
	}
	size := pageSize(req.Msg.GetPageSize())
	list, err := h.s.catalog.Modules(ctx, namespaceOr(req.Msg.GetNamespace()), after, size)
	if err != nil {
		return nil, err
	}
	res := &nolav1.ListModulesResponse{}
	for _, m := range list {
		res.Modules = append(res.Modules, moduleMessage(m))
	}
	if len(list) == size {
		res.NextPageToken = formatCursor("modules", list[size-1].Name)
	}
	return connect.NewResponse(res), nil
}

func (h *modules) ListModuleVersions(ctx context.Context, req *connect.Request[nolav1.ListModuleVersionsRequest]) (*connect.Response[nolav1.ListModuleVersionsResponse], error) {
	m := req.Msg
	cursor, err := parseCursor("versions", m.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	after := uint64(0)
	if cursor != nil {
		if after, err = strconv.ParseUint(cursor[0], 10, 64); err != nil {
			return nil, errPageToken()
		}
	}
	size := pageSize(m.GetPageSize())
	key := moduleName{namespaceOr(m.GetNamespace()), m.GetName()}
	list, err := h.s.catalog.ModuleVersions(ctx, key.namespace, key.name, after, size)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && after == 0 {
		return nil, errNoModule(key)
	}
	res := &nolav1.ListModuleVersionsResponse{}
	for _, v := range list {
		res.Versions = append(res.Versions, versionMessage(v))
	}
	if len(list) == size {
		res.NextPageToken = formatCursor("versions", strconv.FormatUint(list[size-1].Version, 10))
	}
	return connect.NewResponse(res), nil
}

func (h *modules) SetDefaultVersion(ctx context.Context, req *connect.Request[nolav1.SetDefaultVersionRequest]) (*connect.Response[nolav1.SetDefaultVersionResponse], error) {
	m := req.Msg
	mod, err := h.s.cfg.Modules.SetDefault(ctx, namespaceOr(m.GetNamespace()), m.GetName(), m.GetVersion())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.SetDefaultVersionResponse{Module: moduleMessage(mod)}), nil
}

func (h *modules) DeleteModule(ctx context.Context, req *connect.Request[nolav1.DeleteModuleRequest]) (*connect.Response[nolav1.DeleteModuleResponse], error) {
	m := req.Msg
	if err := h.s.cfg.Modules.Delete(ctx, namespaceOr(m.GetNamespace()), m.GetName(), m.GetForce()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.DeleteModuleResponse{}), nil
}

// refreshEvery is how often a node looks whether another one has changed the
// default version of a module that it runs.
const refreshEvery = 5 * time.Second

// runRefresh takes away what other nodes have replaced, until ctx ends.
func (m *Modules) runRefresh(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.refresh(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (m *Modules) refresh(ctx context.Context) {
	for key, r := range *m.current.Load() {
		mod, _, err := m.catalog.Module(ctx, key.namespace, key.name)
		if err != nil || mod.Default == r.version {
			continue // what cannot be read is looked at again
		}
		m.mu.Lock()
		if (*m.current.Load())[key] == r {
			_ = m.setReady(key, nil) // who asks next finds what is there now
		}
		m.mu.Unlock()
	}
}
