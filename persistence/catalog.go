package persistence

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	storev1 "github.com/nolaproject/nola/proto/nola/store/v1"
)

// Catalog says what the entries of the catalogue mean. Its methods may be called
// at once. Get methods answer the entry's version, 0 if there is none; Put and
// Delete methods take the version that was read and answer ErrConflict if the
// entry has changed since: read it again.
type Catalog struct{ Store }

// NamespaceState says whether a namespace may be used. The numbers are storage
// format.
type NamespaceState uint8

// The states of a namespace.
const (
	NamespaceActive   NamespaceState = 1
	NamespaceDeleting NamespaceState = 2
)

// Namespace is a namespace that exists.
type Namespace struct {
	Name    string
	State   NamespaceState
	Created time.Time
	Updated time.Time // by somebody's request; zero in records that are older than this field
	// Incarnation tells two namespaces apart that bear one name one after another.
	Incarnation uint64
	Description string
	Labels      map[string]string
	// Limits are upper bounds of what its modules may ask for; zero fields bound
	// nothing.
	Limits nola.Limits
}

// Module is a module that exists in a namespace.
type Module struct {
	Namespace string
	Name      string
	Default   uint64 // the version that actors run, 0 if none
	Latest    uint64 // the newest version ever made
}

// ModuleVersion is one version of a module. Its bytes are the object Digest.
type ModuleVersion struct {
	Namespace string
	Name      string
	Version   uint64 // at most ModuleVersionMax
	Digest    [32]byte
	Size      int64
	Created   time.Time
	Manifest  nola.Manifest
}

// ModuleVersionMax is the highest number of a module's version.
const ModuleVersionMax = 1<<32 - 1

// ScheduleEntry says who has a schedule's id in a namespace. Whether there is
// such a schedule says the shard of its target: it may not know it yet, or no
// longer.
type ScheduleEntry struct {
	Namespace   string
	ID          string
	Incarnation uint64
	Target      nola.ActorRef
	RequestID   string
	Created     time.Time
	// Calendars are the names of the calendars that the schedule may use, sorted:
	// all that it does use, and perhaps some that it has used before.
	Calendars []string
}

// Namespace answers a namespace.
func (c Catalog) Namespace(ctx context.Context, name string) (Namespace, uint64, error) {
	return catalogGet(ctx, c, SpaceNamespace, name, decodeNamespace)
}

// PutNamespace creates or changes a namespace.
func (c Catalog) PutNamespace(ctx context.Context, version uint64, rec Namespace) (uint64, error) {
	return c.CatalogPut(ctx, SpaceNamespace, rec.Name, version, encodeNamespace(nil, rec))
}

// DeleteNamespace forgets a namespace.
func (c Catalog) DeleteNamespace(ctx context.Context, version uint64, name string) error {
	_, err := c.CatalogPut(ctx, SpaceNamespace, name, version, nil)
	return err
}

// Namespaces answers namespaces whose names lie behind after, in order, at most
// limit.
func (c Catalog) Namespaces(ctx context.Context, after string, limit int) ([]Namespace, error) {
	return catalogList(ctx, c, SpaceNamespace, "", after, limit, decodeNamespace)
}

// Module answers a module.
func (c Catalog) Module(ctx context.Context, namespace, name string) (Module, uint64, error) {
	return catalogGet(ctx, c, SpaceModule, catalogKey(namespace, name), decodeModule)
}

// PutModule creates or changes a module.
func (c Catalog) PutModule(ctx context.Context, version uint64, rec Module) (uint64, error) {
	return c.CatalogPut(ctx, SpaceModule, catalogKey(rec.Namespace, rec.Name), version, encodeModule(nil, rec))
}

// DeleteModule forgets a module. Its versions are entries of their own.
func (c Catalog) DeleteModule(ctx context.Context, version uint64, namespace, name string) error {
	_, err := c.CatalogPut(ctx, SpaceModule, catalogKey(namespace, name), version, nil)
	return err
}

// Modules answers the namespace's modules whose names lie behind after, in
// order, at most limit.
func (c Catalog) Modules(ctx context.Context, namespace, after string, limit int) ([]Module, error) {
	if after != "" {
		after = catalogKey(namespace, after)
	}
	return catalogList(ctx, c, SpaceModule, catalogKey(namespace, ""), after, limit, decodeModule)
}

// ModuleVersion answers a version of a module.
func (c Catalog) ModuleVersion(ctx context.Context, namespace, name string, number uint64) (ModuleVersion, uint64, error) {
	if number > ModuleVersionMax {
		return ModuleVersion{}, 0, nil
	}
	return catalogGet(ctx, c, SpaceVersion, versionKey(namespace, name, number), decodeModuleVersion)
}

// PutModuleVersion creates or changes a version of a module.
func (c Catalog) PutModuleVersion(ctx context.Context, version uint64, rec ModuleVersion) (uint64, error) {
	if rec.Version > ModuleVersionMax {
		return 0, fmt.Errorf("persistence: version %d of module %s: the highest number is %d", rec.Version, rec.Name, uint64(ModuleVersionMax))
	}
	return c.CatalogPut(ctx, SpaceVersion, versionKey(rec.Namespace, rec.Name, rec.Version), version, encodeModuleVersion(nil, rec))
}

// DeleteModuleVersion forgets a version of a module. Its bytes stay.
func (c Catalog) DeleteModuleVersion(ctx context.Context, version uint64, namespace, name string, number uint64) error {
	if number > ModuleVersionMax {
		return nil
	}
	_, err := c.CatalogPut(ctx, SpaceVersion, versionKey(namespace, name, number), version, nil)
	return err
}

// ModuleVersions answers the module's versions behind after, in order, at most
// limit.
func (c Catalog) ModuleVersions(ctx context.Context, namespace, name string, after uint64, limit int) ([]ModuleVersion, error) {
	if after >= ModuleVersionMax {
		return nil, nil
	}
	from := ""
	if after > 0 {
		from = versionKey(namespace, name, after)
	}
	return catalogList(ctx, c, SpaceVersion, catalogKey(namespace, name)+"\x00", from, limit, decodeModuleVersion)
}

// EveryModuleVersion answers versions of the modules of all namespaces that lie
// behind after, in the order of namespace, name and number, at most limit. The
// zero ModuleVersion lies before all.
func (c Catalog) EveryModuleVersion(ctx context.Context, after ModuleVersion, limit int) ([]ModuleVersion, error) {
	from := ""
	if after.Namespace != "" {
		from = versionKey(after.Namespace, after.Name, after.Version)
	}
	return catalogList(ctx, c, SpaceVersion, "", from, limit, decodeModuleVersion)
}

// ScheduleEntry answers who has a schedule's id.
func (c Catalog) ScheduleEntry(ctx context.Context, namespace, id string) (ScheduleEntry, uint64, error) {
	return catalogGet(ctx, c, SpaceSchedule, catalogKey(namespace, id), decodeScheduleEntry)
}

// ReserveScheduleEntry reserves the id of a schedule that is made next: after a
// crash there is not the schedule without the entry, as in Store.CatalogReserve.
func (c Catalog) ReserveScheduleEntry(ctx context.Context, version uint64, rec ScheduleEntry) (uint64, error) {
	return c.CatalogReserve(ctx, SpaceSchedule, catalogKey(rec.Namespace, rec.ID), version, encodeScheduleEntry(nil, rec))
}

// PutScheduleEntry changes who has a schedule's id.
func (c Catalog) PutScheduleEntry(ctx context.Context, version uint64, rec ScheduleEntry) (uint64, error) {
	return c.CatalogPut(ctx, SpaceSchedule, catalogKey(rec.Namespace, rec.ID), version, encodeScheduleEntry(nil, rec))
}

// DeleteScheduleEntry frees a schedule's id.
func (c Catalog) DeleteScheduleEntry(ctx context.Context, version uint64, namespace, id string) error {
	_, err := c.CatalogPut(ctx, SpaceSchedule, catalogKey(namespace, id), version, nil)
	return err
}

// ScheduleEntries answers the namespace's schedules whose ids start with prefix
// and lie behind after, in the order of ids, at most limit.
func (c Catalog) ScheduleEntries(ctx context.Context, namespace, prefix, after string, limit int) ([]ScheduleEntry, error) {
	if after != "" {
		after = catalogKey(namespace, after)
	}
	return catalogList(ctx, c, SpaceSchedule, catalogKey(namespace, prefix), after, limit, decodeScheduleEntry)
}

func catalogGet[T any](ctx context.Context, c Catalog, space Space, key string, decode func(key string, value []byte) (T, error)) (rec T, version uint64, err error) {
	value, version, err := c.CatalogGet(ctx, space, key)
	if err != nil || version == 0 {
		return rec, 0, err
	}
	rec, err = decode(key, value)
	return rec, version, err
}

func catalogList[T any](ctx context.Context, c Catalog, space Space, prefix, after string, limit int, decode func(key string, value []byte) (T, error)) ([]T, error) {
	entries, err := c.CatalogList(ctx, space, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]T, len(entries))
	for i, entry := range entries {
		if list[i], err = decode(entry.Key, entry.Value); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func catalogKey(namespace, name string) string { return namespace + "\x00" + name }

func versionKey(namespace, name string, number uint64) string {
	return fmt.Sprintf("%s\x00%s\x00%08x", namespace, name, number)
}

func encodeNamespace(b []byte, rec Namespace) []byte {
	return encodeMessage(b, &storev1.Namespace{
		State:       uint32(rec.State),
		Created:     stamp(rec.Created),
		Incarnation: rec.Incarnation,
		Updated:     stamp(rec.Updated),
		Description: rec.Description,
		Labels:      rec.Labels,
		Limits:      encodeLimits(rec.Limits),
	})
}

// encodeLimits makes nothing of limits that say nothing.
func encodeLimits(l nola.Limits) *storev1.Limits {
	if l == (nola.Limits{}) {
		return nil
	}
	return limitsMessage(l)
}

func limitsMessage(l nola.Limits) *storev1.Limits {
	return &storev1.Limits{
		MemoryBytes:      l.MemoryBytes,
		Steps:            l.Steps,
		TurnTimeoutNanos: int64(l.TurnTimeout),
		HostCalls:        int64(l.HostCalls),
		LogBytes:         int64(l.LogBytes),
		Casts:            int64(l.Casts),
		ReplyBytes:       int64(l.ReplyBytes),
		TableElements:    int64(l.TableElements),
		CallDepth:        int64(l.CallDepth),
		MemoryInline:     int64(l.MemoryInline),
	}
}

func limitsOf(l *storev1.Limits) nola.Limits {
	return nola.Limits{
		MemoryBytes:   l.GetMemoryBytes(),
		Steps:         l.GetSteps(),
		TurnTimeout:   time.Duration(l.GetTurnTimeoutNanos()),
		HostCalls:     int(l.GetHostCalls()),
		LogBytes:      int(l.GetLogBytes()),
		Casts:         int(l.GetCasts()),
		ReplyBytes:    int(l.GetReplyBytes()),
		TableElements: int(l.GetTableElements()),
		CallDepth:     int(l.GetCallDepth()),
		MemoryInline:  int(l.GetMemoryInline()),
	}
}

func decodeNamespace(key string, value []byte) (Namespace, error) {
	var m storev1.Namespace
	if err := decodeMessage("namespace", value, &m); err != nil {
		return Namespace{}, err
	}
	return Namespace{
		Name:        key,
		State:       NamespaceState(m.State),
		Created:     moment(m.Created),
		Updated:     moment(m.Updated),
		Incarnation: m.Incarnation,
		Description: m.Description,
		Labels:      m.Labels,
		Limits:      limitsOf(m.GetLimits()),
	}, nil
}

func encodeModule(b []byte, rec Module) []byte {
	return encodeMessage(b, &storev1.Module{DefaultVersion: rec.Default, LatestVersion: rec.Latest})
}

func decodeModule(key string, value []byte) (Module, error) {
	namespace, name, ok := strings.Cut(key, "\x00")
	if !ok {
		return Module{}, damaged("module", errKey)
	}
	var m storev1.Module
	if err := decodeMessage("module", value, &m); err != nil {
		return Module{}, err
	}
	return Module{Namespace: namespace, Name: name, Default: m.DefaultVersion, Latest: m.LatestVersion}, nil
}

func encodeModuleVersion(b []byte, rec ModuleVersion) []byte {
	return encodeMessage(b, &storev1.ModuleVersion{
		Digest:  rec.Digest[:],
		Size:    rec.Size,
		Created: stamp(rec.Created),
		Manifest: &storev1.Manifest{
			Mode:               rec.Manifest.Mode,
			Operations:         rec.Manifest.Operations,
			ReadonlyOperations: rec.Manifest.ReadonlyOperations,
			Env:                rec.Manifest.Env,
			Capabilities:       rec.Manifest.Capabilities,
			Limits:             limitsMessage(rec.Manifest.Limits),
		},
	})
}

func decodeModuleVersion(key string, value []byte) (ModuleVersion, error) {
	namespace, rest, ok := strings.Cut(key, "\x00")
	name, number, ok2 := strings.Cut(rest, "\x00")
	rec := ModuleVersion{Namespace: namespace, Name: name}
	if _, err := fmt.Sscanf(number, "%08x", &rec.Version); err != nil || !ok || !ok2 {
		return ModuleVersion{}, damaged("module version", errKey)
	}
	var m storev1.ModuleVersion
	if err := decodeMessage("module version", value, &m); err != nil {
		return ModuleVersion{}, err
	}
	if err := fill(rec.Digest[:], m.Digest, "digest"); err != nil {
		return ModuleVersion{}, damaged("module version", err)
	}
	rec.Size, rec.Created = m.Size, moment(m.Created)
	rec.Manifest = nola.Manifest{
		Mode:               m.GetManifest().GetMode(),
		Operations:         m.GetManifest().GetOperations(),
		ReadonlyOperations: m.GetManifest().GetReadonlyOperations(),
		Env:                m.GetManifest().GetEnv(),
		Capabilities:       m.GetManifest().GetCapabilities(),
		Limits:             limitsOf(m.GetManifest().GetLimits()),
	}
	return rec, nil
}

func encodeScheduleEntry(b []byte, rec ScheduleEntry) []byte {
	return encodeMessage(b, &storev1.ScheduleEntry{
		Incarnation: rec.Incarnation,
		Target:      refMessage(rec.Target),
		RequestId:   rec.RequestID,
		Created:     stamp(rec.Created),
		Calendars:   rec.Calendars,
	})
}

func decodeScheduleEntry(key string, value []byte) (ScheduleEntry, error) {
	namespace, id, ok := strings.Cut(key, "\x00")
	if !ok {
		return ScheduleEntry{}, damaged("schedule entry", errKey)
	}
	var m storev1.ScheduleEntry
	if err := decodeMessage("schedule entry", value, &m); err != nil {
		return ScheduleEntry{}, err
	}
	return ScheduleEntry{
		Namespace:   namespace,
		ID:          id,
		Incarnation: m.Incarnation,
		Target:      refOf(m.Target),
		RequestID:   m.RequestId,
		Created:     moment(m.Created),
		Calendars:   m.Calendars,
	}, nil
}
