package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

const (
	// namespaceTrust is how long a namespace that was seen to be active counts
	// as active without another look at the catalogue. What this node changes
	// counts at once.
	namespaceTrust = 1 * time.Second
	// catalogTries bounds how often a change of the catalogue is tried again
	// after somebody else changed the same entry.
	catalogTries = 8
	// limitsEvery is how often a node looks for limits of namespaces that other nodes
	// have changed.
	limitsEvery = 5 * time.Second
	// sweepPage is how many things a sweep lists at once.
	sweepPage = 200
	// sweepRetry is the wait after a sweep that failed.
	sweepRetry = 10 * time.Second
)

// namespaces serves NamespaceService.
type namespaces struct{ s *Server }

// namespaceCache remembers which namespaces were seen active, and wakes who
// removes deleted ones.
type namespaceCache struct {
	active  sync.Map // name -> time.Time until which it is trusted
	mu      sync.Mutex
	changes atomic.Uint64 // under mu when written; counts what this node changed
	once    sync.Once
	deleted chan struct{} // holds one; see wake
	limits  sync.Map      // name -> nola.Limits as the catalogue last had them
}

// relimited reports whether the limits of a namespace differ from those at the last
// look.
func (c *namespaceCache) relimited(name string, limits nola.Limits) bool {
	old, seen := c.limits.Swap(name, limits)
	return seen && old != limits
}

func (c *namespaceCache) wake() chan struct{} {
	c.once.Do(func() { c.deleted = make(chan struct{}, 1) })
	return c.deleted
}

func (c *namespaceCache) forget(name string) {
	c.mu.Lock()
	c.changes.Add(1)
	c.active.Delete(name)
	c.mu.Unlock()
}

// remember notes that the namespace was active when there had been so many
// changes.
func (c *namespaceCache) remember(name string, until time.Time, changes uint64) {
	c.mu.Lock()
	if c.changes.Load() == changes {
		c.active.Store(name, until)
	}
	c.mu.Unlock()
}

// ensureDefaultNamespace makes the default namespace unless it exists.
func (s *Server) ensureDefaultNamespace(ctx context.Context) error {
	_, version, err := s.catalog.Namespace(ctx, nola.DefaultNamespace)
	if err != nil || version != 0 {
		return err
	}
	now := s.cfg.Now()
	_, err = s.catalog.PutNamespace(ctx, 0, persistence.Namespace{
		Name: nola.DefaultNamespace, State: persistence.NamespaceActive, Created: now, Updated: now, Incarnation: newIncarnation(),
	})
	if errors.Is(err, persistence.ErrConflict) {
		return nil // somebody else made it
	}
	return err
}

// namespaceExists answers nil if the namespace may be used, and otherwise
// NAMESPACE_NOT_FOUND or NAMESPACE_DELETING. Mostly it is one look into memory.
func (s *Server) namespaceExists(ctx context.Context, name string) error {
	now := s.cfg.Now()
	if until, ok := s.spaces.active.Load(name); ok && now.Before(until.(time.Time)) {
		return nil
	}
	changes := s.spaces.changes.Load()
	if err := s.namespaceActive(ctx, name); err != nil {
		return err
	}
	s.spaces.remember(name, now.Add(namespaceTrust), changes)
	return nil
}

// namespaceLimits are the upper bounds for a namespace's modules.
func (s *Server) namespaceLimits(ctx context.Context, name string) (nola.Limits, error) {
	rec, _, err := s.catalog.Namespace(ctx, name)
	if err != nil {
		return nola.Limits{}, fmt.Errorf("namespace %s: %w", name, err)
	}
	return rec.Limits, nil
}

// checkLimits refuses limits that no module can have.
func checkLimits(l nola.Limits) error {
	var e *nola.Error
	if err := (nola.Manifest{Limits: l}).Validate(); errors.As(err, &e) {
		return nola.Errorf(nola.ReasonInvalidArgument, "namespace: %s", strings.TrimPrefix(e.Message, "manifest: "))
	}
	return nil
}

// namespaceActive does so by the catalogue. Who asks behind an entry that it has
// made in the namespace, and gives that up after an error, leaves nothing in a
// namespace that was deleted meanwhile: removeNamespace finds all entries that
// were made before the namespace closed.
func (s *Server) namespaceActive(ctx context.Context, name string) error {
	rec, version, err := s.catalog.Namespace(ctx, name)
	switch {
	case err != nil:
		return fmt.Errorf("namespace %s: %w", name, err)
	case version == 0:
		return errNamespaceNotFound(name)
	case rec.State == persistence.NamespaceDeleting:
		return errNamespaceDeleting(name)
	}
	return nil
}

// CreateNamespace makes a namespace.
func (n *namespaces) CreateNamespace(ctx context.Context, req *connect.Request[nolav1.CreateNamespaceRequest]) (*connect.Response[nolav1.CreateNamespaceResponse], error) {
	name := req.Msg.GetNamespace()
	if err := nola.ValidateName("namespace", name); err != nil {
		return nil, err
	}
	limits := limitsOf(req.Msg.GetLimits())
	if err := checkLimits(limits); err != nil {
		return nil, err
	}
	now := n.s.cfg.Now()
	rec := persistence.Namespace{
		Name: name, State: persistence.NamespaceActive, Created: now, Updated: now, Incarnation: newIncarnation(),
		Description: req.Msg.GetDescription(), Labels: req.Msg.GetLabels(), Limits: limits,
	}
	_, err := n.s.catalog.PutNamespace(ctx, 0, rec)
	if errors.Is(err, persistence.ErrConflict) {
		old, version, err := n.s.catalog.Namespace(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", name, err)
		}
		if version != 0 && old.State == persistence.NamespaceDeleting {
			return nil, errNamespaceDeleting(name)
		}
		return nil, nola.Errorf(nola.ReasonAlreadyExists, "namespace %q exists already", name)
	}
	if err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	return connect.NewResponse(&nolav1.CreateNamespaceResponse{Namespace: namespaceMessage(rec)}), nil
}

// GetNamespace shows a namespace, also one that is being removed.
func (n *namespaces) GetNamespace(ctx context.Context, req *connect.Request[nolav1.GetNamespaceRequest]) (*connect.Response[nolav1.GetNamespaceResponse], error) {
	rec, _, err := n.get(ctx, req.Msg.GetNamespace())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.GetNamespaceResponse{Namespace: namespaceMessage(rec)}), nil
}

// ListNamespaces lists all namespaces in the order of their names.
func (n *namespaces) ListNamespaces(ctx context.Context, req *connect.Request[nolav1.ListNamespacesRequest]) (*connect.Response[nolav1.ListNamespacesResponse], error) {
	after, err := parseCursor("namespaces", req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(req.Msg.GetPageSize())
	list, err := n.s.catalog.Namespaces(ctx, strings.Join(after, ""), size+1)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	out := &nolav1.ListNamespacesResponse{}
	if len(list) > size {
		list = list[:size]
		out.NextPageToken = formatCursor("namespaces", list[size-1].Name)
	}
	for _, rec := range list {
		out.Namespaces = append(out.Namespaces, namespaceMessage(rec))
	}
	return connect.NewResponse(out), nil
}

// UpdateNamespace changes what the mask names.
func (n *namespaces) UpdateNamespace(ctx context.Context, req *connect.Request[nolav1.UpdateNamespaceRequest]) (*connect.Response[nolav1.UpdateNamespaceResponse], error) {
	paths := req.Msg.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = []string{"description", "labels"}
	}
	limits := limitsOf(req.Msg.GetLimits())
	if err := checkLimits(limits); err != nil {
		return nil, err
	}
	limited := false
	rec, err := n.change(ctx, req.Msg.GetNamespace(), func(rec *persistence.Namespace) error {
		if rec.State == persistence.NamespaceDeleting {
			return errNamespaceDeleting(rec.Name)
		}
		for _, path := range paths {
			switch path {
			case "description":
				rec.Description = req.Msg.GetDescription()
			case "labels":
				rec.Labels = req.Msg.GetLabels()
			case "limits":
				limited = limited || rec.Limits != limits
				rec.Limits = limits
			default:
				return errMask(path, "description", "labels", "limits")
			}
		}
		rec.Updated = n.s.cfg.Now()
		return nil
	})
	if limited { // also if it failed: it may have happened
		n.s.cfg.Modules.closeNamespace(req.Msg.GetNamespace())
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.UpdateNamespaceResponse{Namespace: namespaceMessage(rec)}), nil
}

// DeleteNamespace closes a namespace; RunDeletes removes what it holds.
// Deleting one that is being removed is no error.
func (n *namespaces) DeleteNamespace(ctx context.Context, req *connect.Request[nolav1.DeleteNamespaceRequest]) (*connect.Response[nolav1.DeleteNamespaceResponse], error) {
	name := req.Msg.GetNamespace()
	if name == nola.DefaultNamespace {
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "namespace %q cannot be deleted; delete its actors, schedules and modules instead", name)
	}
	_, err := n.change(ctx, name, func(rec *persistence.Namespace) error {
		rec.State = persistence.NamespaceDeleting
		return nil
	})
	n.s.spaces.forget(name) // also if it failed: it may have happened
	if err != nil {
		return nil, err
	}
	n.s.cfg.Modules.closeNamespace(name)
	select {
	case n.s.spaces.wake() <- struct{}{}:
	default: // somebody else's wish is waiting, and stands for this one
	}
	return connect.NewResponse(&nolav1.DeleteNamespaceResponse{}), nil
}

func (n *namespaces) get(ctx context.Context, name string) (persistence.Namespace, uint64, error) {
	rec, version, err := n.s.catalog.Namespace(ctx, name)
	if err != nil {
		return rec, 0, fmt.Errorf("namespace %s: %w", name, err)
	}
	if version == 0 {
		return rec, 0, errNamespaceNotFound(name)
	}
	return rec, version, nil
}

// change applies fn to the namespace's record, again if somebody else came
// between.
func (n *namespaces) change(ctx context.Context, name string, fn func(rec *persistence.Namespace) error) (persistence.Namespace, error) {
	for range catalogTries {
		rec, version, err := n.get(ctx, name)
		if err != nil {
			return rec, err
		}
		if err := fn(&rec); err != nil {
			return rec, err
		}
		_, err = n.s.catalog.PutNamespace(ctx, version, rec)
		if err == nil {
			return rec, nil
		}
		if !errors.Is(err, persistence.ErrConflict) {
			return rec, fmt.Errorf("change namespace %s: %w", name, err)
		}
	}
	return persistence.Namespace{}, errContended("namespace", name)
}

// RunDeletes removes namespaces that are marked for deletion, those that an
// earlier process left and those to come, and has modules run under the limits that
// other nodes have set, until ctx ends. One call at a time.
func (s *Server) RunDeletes(ctx context.Context) {
	for {
		var again <-chan time.Time
		if err := s.ResumeDeletes(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("removing deleted namespaces failed, will try again", "error", err, "retry_in", sweepRetry)
			again = time.After(sweepRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-s.spaces.wake():
		case <-time.After(limitsEvery):
		}
	}
}

// ResumeDeletes removes what the namespaces hold that are marked for deletion,
// and then frees their names. It goes on where an earlier call was cut off. Modules
// of namespaces whose limits have changed since the last call are loaded anew.
func (s *Server) ResumeDeletes(ctx context.Context) error {
	var failed []error
	for after := ""; ; {
		list, err := s.catalog.Namespaces(ctx, after, sweepPage)
		if err != nil {
			return fmt.Errorf("list namespaces: %w", err)
		}
		for _, rec := range list {
			if rec.State != persistence.NamespaceDeleting {
				if s.spaces.relimited(rec.Name, rec.Limits) {
					s.cfg.Modules.closeNamespace(rec.Name)
				}
				continue
			}
			s.spaces.limits.Delete(rec.Name)
			if err := s.removeNamespace(ctx, rec.Name); err != nil {
				failed = append(failed, fmt.Errorf("namespace %s: %w", rec.Name, err))
			}
		}
		if len(list) < sweepPage {
			return errors.Join(failed...)
		}
		after = list[len(list)-1].Name
	}
}

// removeNamespace sweeps until a pass finds nothing: a turn that was under way
// when the namespace closed may commit behind the first pass. Modules go last,
// and nothing new starts without them.
func (s *Server) removeNamespace(ctx context.Context, name string) error {
	s.spaces.forget(name)
	for {
		removed := 0
		for _, sweep := range []func(context.Context, string) (int, error){s.sweepSchedules, s.sweepActors, s.sweepModules, s.sweepCalendars} {
			n, err := sweep(ctx, name)
			if err != nil {
				return err
			}
			removed += n
		}
		if removed == 0 {
			break
		}
	}
	rec, version, err := s.catalog.Namespace(ctx, name)
	if err != nil || version == 0 || rec.State != persistence.NamespaceDeleting {
		return err
	}
	if err := s.catalog.DeleteNamespace(ctx, version, name); err != nil {
		return fmt.Errorf("free the name: %w", err)
	}
	s.log.Info("namespace removed", "namespace", name)
	return nil
}

func (s *Server) sweepSchedules(ctx context.Context, namespace string) (removed int, err error) {
	for {
		list, err := s.catalog.ScheduleEntries(ctx, namespace, "", "", sweepPage)
		if err != nil {
			return removed, fmt.Errorf("list schedules: %w", err)
		}
		for _, entry := range list {
			if err := (&schedules{s}).remove(ctx, entry.Namespace, entry.ID, 0); err != nil && !hasReason(err, nola.ReasonScheduleNotFound) {
				return removed, fmt.Errorf("schedule %s: %w", entry.ID, err)
			}
			removed++
		}
		if len(list) == 0 {
			return removed, nil
		}
	}
}

func (s *Server) sweepActors(ctx context.Context, namespace string) (removed int, err error) {
	var after nola.ActorRef
	for {
		list, err := s.cfg.Store.ListActors(namespace, "", "", after, sweepPage)
		if err != nil {
			return removed, fmt.Errorf("list actors: %w", err)
		}
		for _, ref := range list {
			if err := s.cfg.Shards.DeleteActor(ctx, ref); err != nil && !hasReason(err, nola.ReasonActorNotFound) {
				return removed, fmt.Errorf("actor %s: %w", ref, err)
			}
			removed++
		}
		if len(list) < sweepPage {
			return removed, nil
		}
		after = list[len(list)-1]
	}
}

func (s *Server) sweepModules(ctx context.Context, namespace string) (removed int, err error) {
	for {
		list, err := s.catalog.Modules(ctx, namespace, "", sweepPage)
		if err != nil {
			return removed, fmt.Errorf("list modules: %w", err)
		}
		for _, module := range list {
			if err := s.cfg.Modules.Delete(ctx, namespace, module.Name, true); err != nil && !hasReason(err, nola.ReasonModuleNotFound) {
				return removed, fmt.Errorf("module %s: %w", module.Name, err)
			}
			removed++
		}
		if len(list) == 0 {
			return removed, nil
		}
	}
}

func namespaceMessage(rec persistence.Namespace) *nolav1.Namespace {
	state := nolav1.NamespaceState_NAMESPACE_STATE_ACTIVE
	if rec.State == persistence.NamespaceDeleting {
		state = nolav1.NamespaceState_NAMESPACE_STATE_DELETING
	}
	updated := rec.Updated
	if updated.IsZero() {
		updated = rec.Created
	}
	var limits *nolav1.ModuleLimits
	if rec.Limits != (nola.Limits{}) {
		limits = limitsMessage(rec.Limits)
	}
	return &nolav1.Namespace{
		Limits: limits, Namespace: rec.Name, State: state, Description: rec.Description, Labels: rec.Labels,
		Created: timestamppb.New(rec.Created), Updated: timestamppb.New(updated),
	}
}

func errNamespaceNotFound(name string) error {
	e := nola.Errorf(nola.ReasonNamespaceNotFound, "namespace %q does not exist; CreateNamespace makes it", name)
	e.Metadata = map[string]string{"namespace": name}
	return e
}

func errNamespaceDeleting(name string) error {
	e := nola.Errorf(nola.ReasonNamespaceDeleting, "namespace %q is being deleted; its name is free when that is done", name)
	e.Metadata = map[string]string{"namespace": name}
	return e
}

// errContended is the answer when others changed an entry each time between
// reading and writing it.
func errContended(what, name string) error {
	e := nola.Errorf(nola.ReasonUnavailable, "%s %q is being changed by others all the time; nothing was done, try again", what, name)
	e.RetryAfter = 100 * time.Millisecond
	return e
}

func errMask(path string, legal ...string) error {
	e := nola.Errorf(nola.ReasonInvalidArgument, "update_mask: %q cannot be changed; legal are %s", path, strings.Join(legal, ", "))
	e.Metadata = map[string]string{"field": "update_mask"}
	return e
}

func hasReason(err error, reason nola.Reason) bool {
	return errors.Is(err, &nola.Error{Reason: reason})
}

// newIncarnation is a number that no other namespace or schedule has; never 0.
func newIncarnation() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}
