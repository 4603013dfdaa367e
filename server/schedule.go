package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

const (
	// previewDefault and previewMax bound the times of a preview.
	previewDefault = 10
	previewMax     = 1_000
	// tidyTimeout bounds what must be put in order after a request has failed,
	// whether or not its caller still waits.
	tidyTimeout = 5 * time.Second
)

// schedules serves ScheduleService.
//
// A schedule lives in the shard of its target; the catalogue says which target
// that is, and keeps its id unique in the namespace. To create one is to
// reserve the id in the catalogue, and then to make the schedule in its shard.
// To delete one is to delete it in its shard, and then to free the id. So every
// schedule has its id, also after a crash between the two, but not every id has
// its schedule. The reservation leaves the disk to the commit of the shard, for
// which alone it is made: a crash that loses it loses the schedule. The shard decides whether a schedule exists: an id whose shard
// knows no such schedule is free, and who creates a schedule may take it over.
// It asks the shard under the id's lock, and so behind every create that was
// given up: what the shard does not know then, nobody is about to make.
type schedules struct{ s *Server }

// CreateSchedule makes a schedule.
func (h *schedules) CreateSchedule(ctx context.Context, req *connect.Request[nolav1.CreateScheduleRequest]) (*connect.Response[nolav1.CreateScheduleResponse], error) {
	sd, err := scheduleOf(req.Msg.GetSchedule())
	if err != nil {
		return nil, err
	}
	if sd.Paused {
		sd.PausedBy = h.s.callerName(req.Header())
	}
	if err := h.s.namespaceExists(ctx, sd.Namespace); err != nil {
		return nil, err
	}
	if sd.Calendars, err = h.s.calendarsOf(ctx, sd.Namespace, &sd.Spec); err != nil {
		return nil, err
	}
	warnings, err := h.check(&sd)
	if err != nil {
		return nil, err
	}
	more, err := h.targetWarnings(ctx, &sd)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, more...)
	unlock, err := h.s.ids.lock(ctx, sd.Namespace, sd.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	info, err := h.create(ctx, sd, req.Msg.GetRequestId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CreateScheduleResponse{Schedule: scheduleMessage(&info), Warnings: warnings}), nil
}

// create makes sd unless its id is taken. The caller holds the id's lock.
func (h *schedules) create(ctx context.Context, sd nola.Schedule, requestID string) (nola.ScheduleInfo, error) {
	version := uint64(0) // most ids are new; the reservation finds out if this one is not
	for range catalogTries {
		sd.Incarnation = newIncarnation()
		sd.ETag = sd.Incarnation >> 1 // counts from there: no other schedule of this id has one of them
		entry := persistence.ScheduleEntry{
			Namespace: sd.Namespace, ID: sd.ID, Incarnation: sd.Incarnation, Target: sd.Target,
			RequestID: requestID, Created: h.s.cfg.Now(), Calendars: sd.Spec.CalendarNames(),
		}
		reserved, err := h.s.catalog.ReserveScheduleEntry(ctx, version, entry)
		if errors.Is(err, persistence.ErrConflict) {
			var info nola.ScheduleInfo
			if info, version, err = h.holder(ctx, &sd, requestID); err != nil || info.Schedule.ID != "" {
				return info, err
			}
			continue
		}
		if err != nil {
			return nola.ScheduleInfo{}, fmt.Errorf("reserve schedule %s: %w", sd.ID, err)
		}
		// Read behind the reservation: who deletes the namespace or changes a
		// calendar from here on finds the entry.
		if err = h.s.namespaceActive(ctx, sd.Namespace); err == nil {
			sd.Calendars, err = h.s.calendarsOf(ctx, sd.Namespace, &sd.Spec)
		}
		if err != nil {
			h.free(ctx, reserved, &entry)
			return nola.ScheduleInfo{}, err
		}
		info, err := h.s.cfg.Shards.CreateSchedule(ctx, sd, requestID)
		if err != nil && !mayHaveHappened(err) {
			h.free(ctx, reserved, &entry)
		}
		return info, err
	}
	return nola.ScheduleInfo{}, errContended("schedule", sd.ID)
}

// holder asks who has sd's id. It answers the schedule, if this very request made
// it, and ALREADY_EXISTS if another did; otherwise the id is free, as the shard of
// whoever reserved it knows no such schedule, and the entry has that version.
func (h *schedules) holder(ctx context.Context, sd *nola.Schedule, requestID string) (nola.ScheduleInfo, uint64, error) {
	entry, version, err := h.s.catalog.ScheduleEntry(ctx, sd.Namespace, sd.ID)
	if err != nil {
		return nola.ScheduleInfo{}, 0, fmt.Errorf("schedule %s: %w", sd.ID, err)
	}
	if version == 0 { // freed meanwhile
		return nola.ScheduleInfo{}, 0, nil
	}
	info, err := h.s.cfg.Shards.GetSchedule(ctx, refOfEntry(&entry))
	switch {
	case hasReason(err, nola.ReasonScheduleNotFound):
		return nola.ScheduleInfo{}, version, nil
	case err != nil:
		return nola.ScheduleInfo{}, 0, err
	case info.Schedule.Incarnation != entry.Incarnation:
		return nola.ScheduleInfo{}, version, nil
	case entry.Incarnation == sd.Incarnation || requestID != "" && entry.RequestID == requestID:
		return info, version, nil
	}
	return nola.ScheduleInfo{}, 0, nola.Errorf(nola.ReasonAlreadyExists, "schedule %q exists already, with target %s; update it, or choose another id", sd.ID, entry.Target)
}

// free gives up a reservation. If that fails, the entry stays and the next who
// creates the schedule takes it over.
func (h *schedules) free(ctx context.Context, version uint64, entry *persistence.ScheduleEntry) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	if err := h.s.catalog.DeleteScheduleEntry(ctx, version, entry.Namespace, entry.ID); err != nil {
		h.s.log.Warn("the id of a schedule that was refused stays reserved until it is created again", "namespace", entry.Namespace, "schedule", entry.ID, "error", err)
	}
}

// mayHaveHappened reports whether what failed with err may have been done
// nevertheless.
func mayHaveHappened(err error) bool {
	var e *nola.Error
	if !errors.As(err, &e) {
		return true
	}
	switch e.Reason {
	case nola.ReasonOutcomeUnknown, nola.ReasonCanceled, nola.ReasonDeadlineExceeded, nola.ReasonUnavailable, nola.ReasonInternal:
		return true
	}
	return false
}

// GetSchedule shows a schedule.
func (h *schedules) GetSchedule(ctx context.Context, req *connect.Request[nolav1.GetScheduleRequest]) (*connect.Response[nolav1.GetScheduleResponse], error) {
	info, err := h.get(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	m := scheduleMessage(&info)
	m.Info.Carry = carryMessage(&info)
	return connect.NewResponse(&nolav1.GetScheduleResponse{Schedule: m}), nil
}

// find answers where the schedule lives.
func (h *schedules) find(ctx context.Context, namespace, id string) (nola.ScheduleRef, error) {
	namespace = namespaceOr(namespace)
	entry, version, err := h.s.catalog.ScheduleEntry(ctx, namespace, id)
	if err != nil {
		return nola.ScheduleRef{}, fmt.Errorf("schedule %s: %w", id, err)
	}
	if version == 0 {
		return nola.ScheduleRef{}, errScheduleNotFound(namespace, id)
	}
	return refOfEntry(&entry), nil
}

func (h *schedules) get(ctx context.Context, namespace, id string) (nola.ScheduleInfo, error) {
	ref, err := h.find(ctx, namespace, id)
	if err != nil {
		return nola.ScheduleInfo{}, err
	}
	return h.s.cfg.Shards.GetSchedule(ctx, ref)
}

// UpdateSchedule changes what the mask names.
func (h *schedules) UpdateSchedule(ctx context.Context, req *connect.Request[nolav1.UpdateScheduleRequest]) (*connect.Response[nolav1.UpdateScheduleResponse], error) {
	asked := req.Msg.GetSchedule()
	etag, err := parseETag(req.Msg.GetEtag())
	if err != nil {
		return nil, err
	}
	paths := req.Msg.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		if paths = partsOf(asked); len(paths) == 0 {
			return nil, nola.Errorf(nola.ReasonInvalidArgument, "there is nothing to update: set target, spec, policy, state or labels of the schedule, or name what to change in update_mask")
		}
	}
	ref, err := h.find(ctx, asked.GetNamespace(), asked.GetScheduleId())
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(paths, func(path string) bool { return path == "spec" || strings.HasPrefix(path, "spec.") }) {
		unlock, err := h.s.ids.lock(ctx, ref.Target.Namespace, ref.ID) // see calendars
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	for range catalogTries {
		have, err := h.s.cfg.Shards.GetSchedule(ctx, ref)
		if err != nil {
			return nil, err
		}
		if etag != 0 && etag != have.Schedule.ETag {
			return nil, errETag(&have.Schedule, req.Msg.GetEtag())
		}
		change, want, err := changeOf(&have, asked, paths)
		if err != nil {
			return nil, err
		}
		var warnings []*nolav1.ScheduleWarning
		if change.Spec != nil {
			if err := h.useCalendars(ctx, &have.Schedule, &want, &change); err != nil {
				return nil, err
			}
			if warnings, err = h.check(&want); err != nil {
				return nil, err
			}
		}
		change.PausedBy = h.s.callerName(req.Header())
		change.ETag = have.Schedule.ETag // what was merged with must still stand
		info, err := h.s.cfg.Shards.UpdateSchedule(ctx, ref, change)
		if etag == 0 && hasReason(err, nola.ReasonETagMismatch) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if used := want.Spec.CalendarNames(); change.Calendars != nil && !slices.Equal(used, have.Schedule.Spec.CalendarNames()) {
			if err := h.s.mayUse(ctx, ref.Target.Namespace, ref.ID, used, true); err != nil {
				h.s.log.Warn("the entry of a schedule names calendars that it no longer uses", "namespace", ref.Target.Namespace, "schedule", ref.ID, "error", err)
			}
		}
		return connect.NewResponse(&nolav1.UpdateScheduleResponse{Schedule: scheduleMessage(&info), Warnings: warnings}), nil
	}
	return nil, errContended("schedule", asked.GetScheduleId())
}

// useCalendars puts the calendars that the new spec names into want and change.
// The caller holds the lock of the schedule's id.
func (h *schedules) useCalendars(ctx context.Context, have, want *nola.Schedule, change *nola.ScheduleChange) (err error) {
	names := want.Spec.CalendarNames()
	if len(names) == 0 && len(have.Calendars) == 0 {
		return nil
	}
	if err := h.s.mayUse(ctx, have.Namespace, have.ID, names, false); err != nil {
		return err
	}
	if want.Calendars, err = h.s.calendarsOf(ctx, have.Namespace, &want.Spec); err != nil {
		return err
	}
	change.Calendars = &want.Calendars
	return nil
}

// partsOf lists the parts of a schedule that are set.
func partsOf(m *nolav1.Schedule) (paths []string) {
	for _, name := range []string{"target", "spec", "policy", "state", "labels"} {
		if m.ProtoReflect().Has(m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))) {
			paths = append(paths, name)
		}
	}
	return paths
}

// changeOf puts the paths of asked over what the schedule is, and answers the
// change and the schedule that it makes.
func changeOf(have *nola.ScheduleInfo, asked *nolav1.Schedule, paths []string) (c nola.ScheduleChange, want nola.Schedule, err error) {
	merged := scheduleMessage(have)
	asked = proto.CloneOf(asked)
	asked.Namespace = have.Schedule.Namespace
	for _, path := range paths {
		if err := copyPath(merged.ProtoReflect(), asked.ProtoReflect(), path); err != nil {
			return c, want, err
		}
	}
	want, err = scheduleOf(merged)
	if err != nil {
		return c, want, err
	}
	if want.Target != have.Schedule.Target {
		e := nola.Errorf(nola.ReasonInvalidArgument, "target.actor: the target of schedule %q is %s and cannot become %s; delete the schedule and create it anew, or give the new one another id", want.ID, have.Schedule.Target, want.Target)
		e.Metadata = map[string]string{"field": "schedule.target.actor"}
		return c, want, e
	}
	for _, path := range paths {
		part, sub, _ := strings.Cut(path, ".")
		all := sub == ""
		switch part {
		case "target":
			if all || sub == "operation" {
				c.Operation = &want.Operation
			}
			if all || sub == "payload" {
				c.Payload = &want.Payload
			}
		case "spec":
			c.Spec = &want.Spec
		case "policy":
			c.Policy = &want.Policy
		case "labels":
			c.Labels = &want.Labels
		case "state":
			if all || sub == "paused" {
				c.Paused, c.PausedUntil = &want.Paused, &want.PausedUntil
			}
			if all || sub == "paused_until" {
				c.PausedUntil = &want.PausedUntil
			}
			if all || sub == "note" {
				c.Note = &want.Note
			}
			if all || sub == "limited" {
				c.Limited = &want.Limited
			}
			if all || sub == "remaining_actions" {
				c.Remaining = &want.Remaining
			}
		}
	}
	return c, want, nil
}

// copyPath makes dst have what src has at the path: set, or not set.
func copyPath(dst, src protoreflect.Message, path string) error {
	names := strings.Split(path, ".")
	if !slices.Contains([]string{"target", "spec", "policy", "state", "labels"}, names[0]) {
		return errMask(path, "target", "spec", "policy", "state", "labels", "and what these hold")
	}
	for i, name := range names {
		field := src.Descriptor().Fields().ByName(protoreflect.Name(name))
		last := i == len(names)-1
		switch {
		case field == nil, !last && (field.Kind() != protoreflect.MessageKind || field.Cardinality() == protoreflect.Repeated):
			return errMask(path, "target", "spec", "policy", "state", "labels", "and what these hold")
		case !last:
			dst, src = dst.Mutable(field).Message(), src.Get(field).Message()
		case src.Has(field):
			dst.Set(field, src.Get(field))
		default:
			dst.Clear(field)
		}
	}
	return nil
}

// DeleteSchedule removes a schedule.
func (h *schedules) DeleteSchedule(ctx context.Context, req *connect.Request[nolav1.DeleteScheduleRequest]) (*connect.Response[nolav1.DeleteScheduleResponse], error) {
	etag, err := parseETag(req.Msg.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := h.remove(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId(), etag); err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.DeleteScheduleResponse{}), nil
}

// remove deletes a schedule, if it has the etag or that is zero, and frees its
// id. SCHEDULE_NOT_FOUND means that
// there was none, and that its id is free now.
func (h *schedules) remove(ctx context.Context, namespace, id string, etag uint64) error {
	namespace = namespaceOr(namespace)
	unlock, err := h.s.ids.lock(ctx, namespace, id)
	if err != nil {
		return err
	}
	defer unlock()
	missing := error(nil)
	for range catalogTries {
		entry, version, err := h.s.catalog.ScheduleEntry(ctx, namespace, id)
		if err != nil {
			return fmt.Errorf("schedule %s: %w", id, err)
		}
		if version == 0 {
			return cmp.Or(missing, errScheduleNotFound(namespace, id))
		}
		err = h.s.cfg.Shards.DeleteSchedule(ctx, refOfEntry(&entry), etag)
		if hasReason(err, nola.ReasonScheduleNotFound) {
			missing = err
		} else if err != nil {
			return err
		}
		switch err := h.s.catalog.DeleteScheduleEntry(ctx, version, namespace, id); {
		case err == nil:
			return missing
		case !errors.Is(err, persistence.ErrConflict):
			return fmt.Errorf("free the id of schedule %s: %w", id, err)
		}
	}
	return errContended("schedule", id)
}

// PauseSchedule stops firing.
func (h *schedules) PauseSchedule(ctx context.Context, req *connect.Request[nolav1.PauseScheduleRequest]) (*connect.Response[nolav1.PauseScheduleResponse], error) {
	paused, until := true, timeOf(req.Msg.GetUntil())
	if now := h.s.cfg.Now(); !until.IsZero() && !until.After(now) {
		e := nola.Errorf(nola.ReasonInvalidArgument, "until is %s, which has passed; it is %s now", until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		e.Metadata = map[string]string{"field": "until"}
		return nil, e
	}
	note := req.Msg.GetNote()
	info, err := h.change(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId(), nola.ScheduleChange{
		Paused: &paused, PausedUntil: &until, PausedBy: h.s.callerName(req.Header()), Note: &note,
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.PauseScheduleResponse{Schedule: scheduleMessage(&info)}), nil
}

// UnpauseSchedule fires again, from the next nominal time on.
func (h *schedules) UnpauseSchedule(ctx context.Context, req *connect.Request[nolav1.UnpauseScheduleRequest]) (*connect.Response[nolav1.UnpauseScheduleResponse], error) {
	paused, until, note := false, time.Time{}, req.Msg.GetNote()
	info, err := h.change(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId(), nola.ScheduleChange{Paused: &paused, PausedUntil: &until, Note: &note})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.UnpauseScheduleResponse{Schedule: scheduleMessage(&info)}), nil
}

func (h *schedules) change(ctx context.Context, namespace, id string, c nola.ScheduleChange) (nola.ScheduleInfo, error) {
	ref, err := h.find(ctx, namespace, id)
	if err != nil {
		return nola.ScheduleInfo{}, err
	}
	return h.s.cfg.Shards.UpdateSchedule(ctx, ref, c)
}

// TriggerSchedule fires once, now.
func (h *schedules) TriggerSchedule(ctx context.Context, req *connect.Request[nolav1.TriggerScheduleRequest]) (*connect.Response[nolav1.TriggerScheduleResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	requestID := req.Msg.GetRequestId()
	if requestID == "" {
		requestID = rand.Text()
	}
	o, err := h.s.cfg.Shards.TriggerSchedule(ctx, ref, requestID, nola.Overlap(req.Msg.GetOverlap()), req.Msg.Payload)
	if err != nil {
		return nil, err
	}
	out := &nolav1.TriggerScheduleResponse{}
	if o.Outcome == 0 {
		if o, err = h.triggered(ref, o); err != nil {
			return nil, err
		}
	}
	out.Occurrence = occurrenceMessage(&o)
	return connect.NewResponse(out), nil
}

// triggered finds the record of an occurrence that a request made before and
// that has ended. Once the record has made room for newer ones, the nominal time
// is all that is known.
func (h *schedules) triggered(ref nola.ScheduleRef, o nola.Occurrence) (nola.Occurrence, error) {
	list, err := h.s.reader.Occurrences(h.s.shardOf(ref.Target), ref.Target, false, ref.ID)
	if err != nil {
		return o, fmt.Errorf("schedule %s: occurrences: %w", ref.ID, err)
	}
	for i := range list {
		if rec := &list[i]; rec.Kind == o.Kind && rec.RequestID == o.RequestID && rec.Nominal.Equal(o.Nominal) {
			return *rec, nil
		}
	}
	return o, nil
}

// PreviewSchedule tells when a spec would fire.
func (h *schedules) PreviewSchedule(ctx context.Context, req *connect.Request[nolav1.PreviewScheduleRequest]) (*connect.Response[nolav1.PreviewScheduleResponse], error) {
	spec := specOf(req.Msg.GetSpec())
	after, until := timeOf(req.Msg.GetAfter()), timeOf(req.Msg.GetUntil())
	if after.IsZero() {
		after = h.s.cfg.Now()
	}
	count := min(int(cmp.Or(req.Msg.GetCount(), previewDefault)), previewMax)
	calendars, err := h.s.calendarsOf(ctx, namespaceOr(req.Msg.GetNamespace()), &spec)
	if err != nil {
		return nil, err
	}
	if policy := req.Msg.GetPolicy(); policy != nil {
		whole := nola.Schedule{ID: req.Msg.GetScheduleId(), Spec: spec, Calendars: calendars, Policy: policyOf(policy), Created: after}
		if _, _, err := scheduler.NewPlan(&whole); err != nil {
			return nil, err
		}
	}
	p, err := preview(&spec, calendars, req.Msg.GetScheduleId(), after, after, until, count)
	if err != nil {
		return nil, err
	}
	out := &nolav1.PreviewScheduleResponse{Description: p.description, Warnings: p.warnings}
	for _, t := range p.times {
		out.Times = append(out.Times, timestamppb.New(t))
	}
	return connect.NewResponse(out), nil
}

// ListOccurrences lists what runs or waits and the recorded outcomes, newest first.
func (h *schedules) ListOccurrences(ctx context.Context, req *connect.Request[nolav1.ListOccurrencesRequest]) (*connect.Response[nolav1.ListOccurrencesResponse], error) {
	cursor, err := parseCursor("occurrences", req.Msg.GetPageToken(), 4)
	if err != nil {
		return nil, err
	}
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	shard := h.s.shardOf(ref.Target)
	row, found, err := h.s.reader.Schedule(shard, ref.Target, false, ref.ID)
	if err != nil {
		return nil, fmt.Errorf("schedule %s: %w", ref.ID, err)
	}
	if !found {
		return nil, errScheduleNotFound(ref.Target.Namespace, ref.ID)
	}
	list, err := h.s.reader.Occurrences(shard, ref.Target, false, ref.ID)
	if err != nil {
		return nil, fmt.Errorf("schedule %s: occurrences: %w", ref.ID, err)
	}
	// The records were read after the row: what it has running or waiting may be
	// among those that it does not count yet.
	late := slices.DeleteFunc(slices.Clone(list), func(o nola.Occurrence) bool { return o.Number <= row.Records })
	add := func(o nola.Occurrence) {
		if !slices.ContainsFunc(late, func(rec nola.Occurrence) bool { return sameOccurrence(rec, o) == 0 }) {
			list = append(list, o)
		}
	}
	for i := range row.Progress.Running {
		add(runningOccurrence(&row.Progress.Running[i]))
	}
	for i := range row.Progress.Buffer {
		add(bufferedOccurrence(&row.Progress.Buffer[i]))
	}
	slices.SortFunc(list, newestFirst)
	if cursor != nil {
		last, err := occurrenceCursor(cursor)
		if err != nil {
			return nil, err
		}
		start, found := slices.BinarySearchFunc(list, last, newestFirst)
		if found {
			start++
		}
		list = list[start:]
	}
	size := pageSize(req.Msg.GetPageSize())
	out := &nolav1.ListOccurrencesResponse{}
	for i := range list[:min(size, len(list))] {
		out.Occurrences = append(out.Occurrences, occurrenceMessage(&list[i]))
	}
	if len(list) > size {
		last := &list[size-1]
		out.NextPageToken = formatCursor("occurrences", last.Nominal.UTC().Format(time.RFC3339Nano), strconv.Itoa(int(last.Kind)), strconv.FormatUint(last.Number, 10), "="+last.RequestID)
	}
	return connect.NewResponse(out), nil
}

// newestFirst orders a list of occurrences. One that runs has its place already
// where its record will be: a list that is read page by page has it once, even if
// it ends between two pages.
func newestFirst(a, b nola.Occurrence) int {
	// What has no record yet stands behind the records of its like: its own will
	// be the newest.
	return cmp.Or(sameOccurrence(a, b), cmp.Compare(a.Number-1, b.Number-1))
}

// sameOccurrence orders by what names an occurrence. A backfill whose id was
// forgotten and used again makes a second one of the same name.
func sameOccurrence(a, b nola.Occurrence) int {
	return cmp.Or(b.Nominal.Compare(a.Nominal), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.RequestID, b.RequestID))
}

func occurrenceCursor(parts []string) (nola.Occurrence, error) {
	nominal, err := time.Parse(time.RFC3339Nano, parts[0])
	kind, err2 := strconv.ParseUint(parts[1], 10, 8)
	number, err3 := strconv.ParseUint(parts[2], 10, 64)
	requestID, whole := strings.CutPrefix(parts[3], "=") // no part of a cursor may be empty
	if err != nil || err2 != nil || err3 != nil || !whole {
		return nola.Occurrence{}, errPageToken()
	}
	return nola.Occurrence{Nominal: nominal, Kind: nola.OccurrenceKind(kind), RequestID: requestID, Number: number}, nil
}

// check refuses a schedule whose spec is faulty or has no time left.
func (h *schedules) check(sd *nola.Schedule) ([]*nolav1.ScheduleWarning, error) {
	now := h.s.cfg.Now()
	anchor := sd.Created
	if anchor.IsZero() {
		anchor = now // it is about to be created
	}
	p, err := preview(&sd.Spec, sd.Calendars, scheduler.Seed(sd), anchor, now, time.Time{}, 1)
	if err != nil {
		return nil, err
	}
	if len(p.times) == 0 {
		e := nola.Errorf(nola.ReasonInvalidSpec, "spec: no time is left at which the schedule would fire; check at, exclude, start_time and end_time")
		e.Metadata = map[string]string{"field": "schedule.spec"}
		return nil, e
	}
	return p.warnings, nil
}

// previewed is what a spec means.
type previewed struct {
	times       []time.Time
	description string
	warnings    []*nolav1.ScheduleWarning
}

// endOfTime lies behind every nominal time.
var endOfTime = time.Date(scheduler.YearMax+1, 1, 1, 0, 0, 0, 0, time.UTC)

// preview compiles a spec and lists at most count of its nominal times, those
// after after and until until (zero: without end).
// Anchored entries count from anchor.
func preview(spec *nola.Spec, calendars []nola.Calendar, seed string, anchor, after, until time.Time, count int) (previewed, error) {
	if len(spec.Cron)+len(spec.Calendar)+len(spec.Interval)+len(spec.CalendarInterval)+len(spec.At) == 0 {
		e := nola.Errorf(nola.ReasonInvalidSpec, "spec needs at least one entry: cron, calendar, interval, calendar_interval or at")
		e.Metadata = map[string]string{"field": "spec"}
		return previewed{}, e
	}
	compiled, warnings, err := scheduler.Compile(*spec, seed, scheduler.Anchored(anchor), scheduler.WithCalendars(calendars...))
	if err != nil {
		return previewed{}, err
	}
	if until.IsZero() {
		until = endOfTime
	}
	p := previewed{times: compiled.Between(after, until, count), description: scheduler.Describe(*spec, scheduler.Seeded(seed))}
	for _, w := range append(warnings, compiled.Warnings(after)...) {
		p.warnings = append(p.warnings, &nolav1.ScheduleWarning{Code: string(w.Code), Message: w.Message, Field: fieldOf(spec, w.Expression)})
	}
	return p, nil
}

// fieldOf names the entry of spec with that expression, if it is the only one.
func fieldOf(spec *nola.Spec, expression string) string {
	field := ""
	for i := range spec.Cron {
		if expression == "" || spec.Cron[i].Expression != expression {
			continue
		}
		if field != "" {
			return ""
		}
		field = fmt.Sprintf("cron[%d]", i)
	}
	return field
}

// idLocks let one request at a time create or delete a schedule of one id.
type idLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when it is let go
}

// lock waits for the id, or for ctx to end. The caller calls unlock.
func (l *idLocks) lock(ctx context.Context, namespace, id string) (unlock func(), err error) {
	key := namespace + "\x00" + id
	for {
		l.mu.Lock()
		busy, ok := l.held[key]
		if !ok {
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			done := make(chan struct{})
			l.held[key] = done
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(done)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func errScheduleNotFound(namespace, id string) error {
	e := nola.Errorf(nola.ReasonScheduleNotFound, "schedule %q does not exist in namespace %q", id, namespace)
	e.Metadata = map[string]string{"namespace": namespace, "schedule_id": id}
	return e
}

func errETag(have *nola.Schedule, got string) error {
	e := nola.Errorf(nola.ReasonETagMismatch, "schedule %q was changed by somebody else: its etag is %s, not %s; read it again", have.ID, formatETag(have.ETag), got)
	e.Metadata = map[string]string{"etag": formatETag(have.ETag)}
	return e
}

func formatETag(etag uint64) string { return strconv.FormatUint(etag, 10) }

// parseETag reads what formatETag wrote; 0 if there is none.
func parseETag(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	etag, err := strconv.ParseUint(text, 10, 64)
	if err != nil || etag == 0 {
		e := nola.Errorf(nola.ReasonInvalidArgument, "etag %.40q is not one that the server answered; send the schedule's etag as it came, or none", text)
		e.Metadata = map[string]string{"field": "etag"}
		return 0, e
	}
	return etag, nil
}

func refOfEntry(entry *persistence.ScheduleEntry) nola.ScheduleRef {
	return nola.ScheduleRef{Target: entry.Target, ID: entry.ID}
}

// scheduleOf is the schedule that a client wrote, without what the server adds.
func scheduleOf(m *nolav1.Schedule) (nola.Schedule, error) {
	target := refOf(m.GetTarget().GetActor())
	namespace := namespaceOr(m.GetNamespace())
	if m.GetTarget().GetActor().GetNamespace() == "" {
		target.Namespace = namespace
	}
	if target.Namespace != namespace {
		e := nola.Errorf(nola.ReasonInvalidArgument, "target.actor: the target of a schedule lives in the schedule's namespace, which is %q, not %q", namespace, target.Namespace)
		e.Metadata = map[string]string{"field": "schedule.target.actor.namespace"}
		return nola.Schedule{}, e
	}
	if err := target.Validate(); err != nil {
		return nola.Schedule{}, err
	}
	sd := nola.Schedule{
		Namespace: namespace,
		ID:        m.GetScheduleId(),
		Target:    target,
		Operation: m.GetTarget().GetOperation(),
		Payload:   m.GetTarget().GetPayload(),
		Spec:      specOf(m.GetSpec()),
		Policy:    policyOf(m.GetPolicy()),
		Paused:    m.GetState().GetPaused(),
		Note:      m.GetState().GetNote(),
		Limited:   m.GetState().GetLimited(),
		Remaining: m.GetState().GetRemainingActions(),
		Labels:    m.GetLabels(),
	}
	if sd.Paused {
		sd.PausedUntil = timeOf(m.GetState().GetPausedUntil())
	}
	return sd, nil
}

// The API numbers some enums from 1, with 0 for what is not said; in nola their
// defaults are 0.
func fromOne[E ~int32](e E) uint8 { return uint8(max(0, e-1)) }

func toOne[E ~int32, N ~uint8](n N) E { return E(n) + 1 }

func specOf(m *nolav1.ScheduleSpec) nola.Spec {
	spec := nola.Spec{
		TimeZone:   m.GetTimeZone(),
		Start:      timeOf(m.GetStartTime()),
		End:        timeOf(m.GetEndTime()),
		Jitter:     m.GetJitter().AsDuration(),
		DSTGap:     nola.DSTGap(fromOne(m.GetDstGap())),
		DSTOverlap: nola.DSTOverlap(fromOne(m.GetDstOverlap())),
	}
	for _, c := range m.GetCron() {
		spec.Cron = append(spec.Cron, nola.Cron{
			Expression: c.GetExpression(),
			Dialect:    nola.CronDialect(fromOne(c.GetDialect())),
			DayMatch:   nola.DayMatch(c.GetDayMatch()),
			TimeZone:   c.GetTimeZone(),
			Comment:    c.GetComment(),
		})
	}
	for _, iv := range m.GetInterval() {
		spec.Interval = append(spec.Interval, nola.Interval{
			Every: iv.GetEvery().AsDuration(), Phase: iv.GetPhase().AsDuration(), Anchor: timeOf(iv.GetAnchor()), Anchored: iv.GetAnchored(),
		})
	}
	calendarEntriesOf(&spec, m)
	for _, at := range m.GetAt() {
		spec.At = append(spec.At, at.AsTime())
	}
	return spec
}

func policyOf(m *nolav1.SchedulePolicy) nola.Policy {
	return nola.Policy{
		Overlap: cmp.Or(nola.Overlap(m.GetOverlap()), nola.OverlapSkip),
		Catchup: nola.Catchup{
			Mode:    cmp.Or(nola.CatchupMode(m.GetCatchup().GetMode()), nola.CatchupLast),
			Window:  m.GetCatchup().GetWindow().AsDuration(),
			Max:     int(m.GetCatchup().GetMax()),
			Spacing: m.GetCatchup().GetSpacing().AsDuration(),
		},
		BufferLimit:        int(m.GetBufferLimit()),
		MaxConcurrent:      int(m.GetMaxConcurrent()),
		PauseAfterFailures: int(m.GetPauseAfterFailures()),
		Retry: nola.Retry{
			Deadline:    m.GetRetry().GetDeadline().AsDuration(),
			BackoffMin:  m.GetRetry().GetBackoffMin().AsDuration(),
			BackoffMax:  m.GetRetry().GetBackoffMax().AsDuration(),
			AttemptsMax: int(m.GetRetry().GetMaxAttempts()),
		},
	}
}

// carryMessage is what the next firing is left, nil if that is nothing.
func carryMessage(info *nola.ScheduleInfo) *nolav1.ScheduleCarry {
	c := &info.Progress.Carry
	if c.IsZero() || info.Schedule.Policy.Overlap == nola.OverlapAllowAll {
		return nil
	}
	return &nolav1.ScheduleCarry{
		Result: c.Result, ResultTime: timeMessage(c.ResultNominal), ResultTooLong: c.ResultBytes > len(c.Result),
		Error: c.Failure, ErrorTime: timeMessage(c.FailureNominal),
	}
}

func scheduleMessage(info *nola.ScheduleInfo) *nolav1.Schedule {
	sd, pr := &info.Schedule, &info.Progress
	m := &nolav1.Schedule{
		Namespace:  sd.Namespace,
		ScheduleId: sd.ID,
		Target: &nolav1.ScheduleTarget{
			Actor:     refMessage(sd.Target),
			Operation: sd.Operation,
			Payload:   sd.Payload,
		},
		Spec:   specMessage(&sd.Spec),
		Policy: policyMessage(&sd.Policy),
		State: &nolav1.ScheduleState{
			Paused: sd.Paused, Note: sd.Note, PausedUntil: timeMessage(sd.PausedUntil),
			Limited: sd.Limited, RemainingActions: sd.Remaining, PauseReason: sd.PauseReason, PausedBy: sd.PausedBy,
		},
		Labels: sd.Labels,
		Etag:   formatETag(sd.ETag),
		Info:   &nolav1.ScheduleInfo{Created: timeMessage(sd.Created), Updated: timeMessage(sd.Updated)},
	}
	for _, t := range info.Next {
		m.Info.NextTimes = append(m.Info.NextTimes, timestamppb.New(t))
	}
	for i := range info.Recent {
		m.Info.Recent = append(m.Info.Recent, occurrenceMessage(&info.Recent[i]))
	}
	for i := range pr.Running {
		o := runningOccurrence(&pr.Running[i])
		m.Info.Running = append(m.Info.Running, occurrenceMessage(&o))
	}
	for i := range pr.Buffer {
		o := bufferedOccurrence(&pr.Buffer[i])
		m.Info.Buffered = append(m.Info.Buffered, occurrenceMessage(&o))
	}
	for _, e := range pr.Exceptions {
		m.Info.Exceptions = append(m.Info.Exceptions, &nolav1.ScheduleException{NominalTime: timeMessage(e.Nominal), MovedTo: timeMessage(e.Moved)})
	}
	m.Info.DeadLetters, m.Info.Failures = uint32(len(pr.DeadLetters)), uint32(pr.Failures)
	for outcome, c := range pr.Counters {
		m.Info.Counters = append(m.Info.Counters, &nolav1.OutcomeCounter{
			Outcome: nolav1.Outcome(outcome), Count: c.Count, FirstTime: timeMessage(c.First), LastTime: timeMessage(c.Last),
		})
	}
	slices.SortFunc(m.Info.Counters, func(a, b *nolav1.OutcomeCounter) int { return cmp.Compare(a.Outcome, b.Outcome) })
	return m
}

func specMessage(spec *nola.Spec) *nolav1.ScheduleSpec {
	m := &nolav1.ScheduleSpec{
		TimeZone:   spec.TimeZone,
		StartTime:  timeMessage(spec.Start),
		EndTime:    timeMessage(spec.End),
		DstGap:     toOne[nolav1.DstGap](spec.DSTGap),
		DstOverlap: toOne[nolav1.DstOverlap](spec.DSTOverlap),
	}
	if spec.Jitter != 0 {
		m.Jitter = durationpb.New(spec.Jitter)
	}
	for _, c := range spec.Cron {
		m.Cron = append(m.Cron, &nolav1.CronSpec{
			Expression: c.Expression, Dialect: toOne[nolav1.CronDialect](c.Dialect), DayMatch: nolav1.DayMatch(c.DayMatch),
			TimeZone: c.TimeZone, Comment: c.Comment,
		})
	}
	for _, iv := range spec.Interval {
		entry := &nolav1.IntervalSpec{Every: durationpb.New(iv.Every)}
		if iv.Phase != 0 {
			entry.Phase = durationpb.New(iv.Phase)
		}
		entry.Anchor, entry.Anchored = timeMessage(iv.Anchor), iv.Anchored
		m.Interval = append(m.Interval, entry)
	}
	calendarEntriesMessage(m, spec)
	for _, at := range spec.At {
		m.At = append(m.At, timestamppb.New(at))
	}
	return m
}

func occurrenceMessage(o *nola.Occurrence) *nolav1.Occurrence {
	m := &nolav1.Occurrence{
		NominalTime: timeMessage(o.Nominal),
		Kind:        nolav1.OccurrenceKind(o.Kind),
		RequestId:   o.RequestID,
		Outcome:     nolav1.Outcome(o.Outcome),
		StartTime:   timeMessage(o.Started),
		EndTime:     timeMessage(o.Ended),
		Attempts:    uint32(o.Attempts),
		Count:       uint64(max(1, o.Count)),
	}
	if m.Count > 1 {
		m.LastNominalTime = timeMessage(o.Last)
	}
	if o.Error != "" || o.Outcome == nola.OutcomeFired && !o.OK {
		reason := cmp.Or(o.Reason, nola.ReasonGuestError) // records of older versions have none
		m.Error = &nolav1.Error{Reason: string(reason), Code: codeOf(reason).String(), Message: o.Error}
	}
	return m
}

func runningOccurrence(run *nola.Running) nola.Occurrence {
	return nola.Occurrence{
		Nominal: run.Nominal, Kind: run.Kind, Outcome: nola.OutcomeRunning, RequestID: run.RequestID,
		Started: run.Started, Attempts: run.Attempts, Count: 1,
	}
}

func bufferedOccurrence(run *nola.Running) nola.Occurrence {
	o := runningOccurrence(run)
	o.Outcome, o.Started = nola.OutcomeBuffered, time.Time{}
	return o
}
