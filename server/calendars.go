package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

const (
	// calendarUsesMax bounds the schedules that an answer or an error names.
	calendarUsesMax = 1_000
	// calendarIDsShown bounds those in the text of an error.
	calendarIDsShown = 5
	// calendarAhead is how many coming times of a schedule are held against those
	// under another version of a calendar.
	calendarAhead = 400
	// calendarDaysMax bounds the days of one answer.
	calendarDaysMax = 1_000
	// calendarGivesAtOnce is how many schedules get a changed calendar at once, so
	// that their commits come together.
	calendarGivesAtOnce = 32
	// calendarPage is how many calendars are read at once: each may have some
	// hundred kilobytes of dates.
	calendarPage = 20
	// calendarUsePage is how many entries a search for users reads at once.
	calendarUsePage = 1_000
)

// calendars serves CalendarService.
//
// A calendar is an entry of the catalogue, and each schedule holds a copy of
// those it uses. Who makes a schedule first writes into the schedule's entry
// which calendars it may use, and then reads them; who changes a calendar first
// writes it, and then looks for such entries. So one of the two sees the other,
// and the lock of the schedule's id decides who comes first. A calendar whose
// users may have an older copy is marked as spreading, one that is about to go
// as deleting; RunCalendars finishes what was cut off.
type calendars struct{ s *Server }

// PutCalendar makes or changes a calendar, and everything that uses it.
func (h *calendars) PutCalendar(ctx context.Context, req *connect.Request[nolav1.PutCalendarRequest]) (*connect.Response[nolav1.PutCalendarResponse], error) {
	cal := calendarOf(req.Msg.GetCalendar())
	if err := nola.ValidateCalendarName(cal.Name); err != nil {
		return nil, err
	}
	if err := scheduler.CheckCalendar(&cal); err != nil {
		return nil, err
	}
	if err := h.s.namespaceExists(ctx, cal.Namespace); err != nil {
		return nil, err
	}
	unlock, err := h.lock(ctx, cal.Namespace, cal.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, stored, err := h.s.catalog.Calendar(ctx, cal.Namespace, cal.Name)
	if err != nil {
		return nil, fmt.Errorf("calendar %s: %w", cal.Name, err)
	}
	same := stored != 0 && sameCalendar(&old.Calendar, &cal)
	switch etag := req.Msg.GetEtag(); {
	case stored != 0 && req.Msg.GetCreateOnly():
		return nil, nola.Errorf(nola.ReasonAlreadyExists, "calendar %q exists already, in version %d; put it without create_only to change it", cal.Name, old.Version)
	case etag != "" && stored == 0:
		return nil, errCalendarNotFound(cal.Namespace, cal.Name)
	case etag != "" && etag != calendarETag(&old) && !same:
		return nil, errCalendarETag(&old, etag)
	case stored != 0 && isEmpty(&cal) && !isEmpty(&old.Calendar) && !req.Msg.GetAllowEmpty():
		e := nola.Errorf(nola.ReasonInvalidArgument, "calendar %q holds %d dates and %d rules, and the new one holds none; put it with allow_empty if that is meant", cal.Name, len(old.Dates), len(old.Rules))
		e.Metadata = map[string]string{"field": "calendar.dates"}
		return nil, e
	}
	now := h.s.cfg.Now()
	rec := persistence.CalendarEntry{Calendar: cal, State: persistence.CalendarSettled, Incarnation: newIncarnation()}
	rec.Version, rec.Created, rec.Updated = 1, now, now
	if stored != 0 {
		rec.Version, rec.Created, rec.Incarnation, rec.State = old.Version+1, old.Created, old.Incarnation, persistence.CalendarSpreading
	}
	if same {
		rec.Calendar = old.Calendar
	}
	out := &nolav1.PutCalendarResponse{}
	if stored != 0 { // nobody uses what does not exist
		if err := h.effects(ctx, &rec.Calendar, out); err != nil {
			return nil, err
		}
	}
	if !req.Msg.GetDryRun() && (!same || old.State != persistence.CalendarSettled) {
		made := stored == 0
		if stored, err = h.s.catalog.PutCalendar(ctx, stored, rec); errors.Is(err, persistence.ErrConflict) {
			return nil, errContended("calendar", cal.Name)
		} else if err != nil {
			return nil, fmt.Errorf("put calendar %s: %w", cal.Name, err)
		}
		if made {
			if err := h.s.namespaceActive(ctx, cal.Namespace); err != nil {
				h.giveUp(ctx, stored, &rec)
				return nil, err
			}
		}
		if rec.State == persistence.CalendarSpreading {
			if err := h.spread(ctx, stored, &rec); err != nil {
				h.wake()
				return nil, err
			}
		}
	}
	if req.Msg.GetDryRun() && !same && stored != 0 {
		rec = old
	}
	if !req.Msg.GetDryRun() || stored != 0 {
		out.Calendar = calendarMessage(&rec)
	}
	return connect.NewResponse(out), nil
}

func isEmpty(c *nola.Calendar) bool { return len(c.Dates)+len(c.Rules) == 0 }

// giveUp takes back a calendar that was made a moment ago.
func (h *calendars) giveUp(ctx context.Context, stored uint64, rec *persistence.CalendarEntry) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	// In conflict with who removes the namespace: then it is gone already.
	if err := h.s.catalog.DeleteCalendar(ctx, stored, rec.Namespace, rec.Name); err != nil && !errors.Is(err, persistence.ErrConflict) {
		h.s.log.Warn("a calendar that was refused is still there; delete it", "namespace", rec.Namespace, "calendar", rec.Name, "error", err)
	}
}

// effects tells in out what cal would mean to the schedules that use it. A
// calendar that would leave one without times is refused.
func (h *calendars) effects(ctx context.Context, cal *nola.Calendar, out *nolav1.PutCalendarResponse) error {
	now, zones := h.s.cfg.Now(), new(scheduler.Zones)
	var refused someIDs
	var why error
	err := h.users(ctx, cal.Namespace, cal.Name, func(entry *persistence.ScheduleEntry) error {
		row, found, err := h.s.reader.Schedule(h.s.shardOf(entry.Target), entry.Target, false, entry.ID)
		if err != nil {
			return fmt.Errorf("schedule %s: %w", entry.ID, err)
		}
		sd := &row.Schedule
		if !found || sd.Incarnation != entry.Incarnation || !slices.Contains(sd.Spec.CalendarNames(), cal.Name) {
			return nil
		}
		after := *sd
		after.Calendars = withCalendar(sd.Calendars, cal)
		planned, _, err := zones.NewPlan(&after)
		if err != nil {
			if why == nil {
				why = err
			}
			refused.add(entry.ID)
			return nil
		}
		if out.UseCount++; out.UseCount > calendarUsesMax {
			return nil
		}
		use := &nolav1.CalendarUse{ScheduleId: entry.ID}
		then := planned.Compiled().Between(now, endOfTime, calendarAhead)
		if len(then) > 0 {
			use.NextTime = timeMessage(then[0])
		}
		if has, _, err := zones.NewPlan(sd); err == nil {
			use.FirstChange = timeMessage(firstDifference(has.Compiled().Between(now, endOfTime, calendarAhead), then))
		}
		out.Uses = append(out.Uses, use)
		return nil
	})
	if err != nil || refused.count == 0 {
		return err
	}
	e := nola.Errorf(nola.ReasonInvalidSpec, "calendar %q would make the spec of %s illegal, and was not changed: %s", cal.Name, &refused, why)
	e.Metadata = map[string]string{"schedules": strings.Join(refused.first, "\n"), "count": strconv.Itoa(refused.count)}
	return e
}

// firstDifference is the first time that only one of two rows of times has, as
// far as both reach; zero if there is none.
func firstDifference(a, b []time.Time) time.Time {
	for i := range min(len(a), len(b)) {
		if !a[i].Equal(b[i]) {
			if a[i].Before(b[i]) {
				return a[i]
			}
			return b[i]
		}
	}
	if len(a) != len(b) && max(len(a), len(b)) <= calendarAhead {
		longer := a
		if len(b) > len(a) {
			longer = b
		}
		return longer[min(len(a), len(b))]
	}
	return time.Time{}
}

// users calls fn with the entry of every schedule that may use the calendar, in
// the order of ids.
func (h *calendars) users(ctx context.Context, namespace, name string, fn func(*persistence.ScheduleEntry) error) error {
	for after := ""; ; {
		list, err := h.s.catalog.ScheduleEntries(ctx, namespace, "", after, calendarUsePage)
		if err != nil {
			return fmt.Errorf("who uses calendar %s: %w", name, err)
		}
		for i := range list {
			if after = list[i].ID; slices.Contains(list[i].Calendars, name) {
				if err := fn(&list[i]); err != nil {
					return err
				}
			}
		}
		if len(list) < calendarUsePage {
			return nil
		}
	}
}

// spread gives a calendar that was stored as version stored to everybody who uses
// it, and settles it. Those that it has reached already stay as they are.
func (h *calendars) spread(ctx context.Context, stored uint64, rec *persistence.CalendarEntry) error {
	at, giving := errgroup.WithContext(ctx)
	at.SetLimit(calendarGivesAtOnce)
	err := h.users(giving, rec.Namespace, rec.Name, func(entry *persistence.ScheduleEntry) error {
		at.Go(func() error {
			if err := h.give(giving, entry, &rec.Calendar); err != nil {
				return fmt.Errorf("schedule %s: %w", entry.ID, err)
			}
			return nil
		})
		return nil
	})
	if given := at.Wait(); given != nil {
		err = given // if it ended the search, that is no error of its own
	}
	if err != nil {
		h.s.log.Warn("a calendar has changed, and some schedules still follow its older version", "namespace", rec.Namespace, "calendar", rec.Name, "error", err)
		e := nola.Errorf(nola.ReasonUnavailable, "calendar %q is stored in version %d, but not every schedule has it yet; that goes on by itself, or put it again", rec.Name, rec.Version)
		e.RetryAfter = sweepRetry
		return e
	}
	rec.State = persistence.CalendarSettled
	if _, err := h.s.catalog.PutCalendar(ctx, stored, *rec); errors.Is(err, persistence.ErrConflict) {
		e := nola.Errorf(nola.ReasonUnavailable, "calendar %q is stored in version %d and every schedule has it, but somebody else changed it at that moment; read it again", rec.Name, rec.Version)
		e.RetryAfter = 100 * time.Millisecond
		return e
	} else if err != nil {
		return fmt.Errorf("settle calendar %s: %w", rec.Name, err)
	}
	return nil
}

// give hands a calendar to one schedule, if that still uses it.
func (h *calendars) give(ctx context.Context, entry *persistence.ScheduleEntry, cal *nola.Calendar) error {
	unlock, err := h.s.ids.lock(ctx, entry.Namespace, entry.ID)
	if err != nil {
		return err
	}
	defer unlock()
	for range catalogTries {
		info, uses, err := h.uses(ctx, entry, cal.Name)
		if err != nil || !uses {
			return err
		}
		sd := &info.Schedule
		if i := slices.IndexFunc(sd.Calendars, func(c nola.Calendar) bool { return c.Name == cal.Name }); i >= 0 && sd.Calendars[i].Version == cal.Version {
			return nil
		}
		given := withCalendar(sd.Calendars, cal)
		_, err = h.s.cfg.Shards.UpdateSchedule(ctx, refOfEntry(entry), nola.ScheduleChange{ETag: sd.ETag, Calendars: &given})
		switch {
		case err == nil, hasReason(err, nola.ReasonScheduleNotFound):
			return nil
		case hasReason(err, nola.ReasonInvalidSpec):
			// Its spec came about beside this change; the schedule stays as it is.
			h.s.log.Warn("a schedule stays with an older version of a calendar, because its spec would be illegal with the new one", "namespace", entry.Namespace, "schedule", entry.ID, "calendar", cal.Name, "error", err)
			return nil
		case !hasReason(err, nola.ReasonETagMismatch):
			return err
		}
	}
	return errContended("schedule", entry.ID)
}

// uses reports whether the schedule of an entry uses a calendar, and what it is.
// The caller holds the lock of the schedule's id.
func (h *calendars) uses(ctx context.Context, entry *persistence.ScheduleEntry, name string) (nola.ScheduleInfo, bool, error) {
	info, err := h.s.cfg.Shards.GetSchedule(ctx, refOfEntry(entry))
	if hasReason(err, nola.ReasonScheduleNotFound) {
		return info, false, nil
	}
	return info, err == nil && slices.Contains(info.Schedule.Spec.CalendarNames(), name), err
}

// withCalendar is list with cal in the place of the one of its name.
func withCalendar(list []nola.Calendar, cal *nola.Calendar) []nola.Calendar {
	out := slices.Clone(list)
	i, found := slices.BinarySearchFunc(out, cal.Name, func(c nola.Calendar, name string) int { return cmp.Compare(c.Name, name) })
	if found {
		out[i] = *cal
		return out
	}
	return slices.Insert(out, i, *cal)
}

// GetCalendar shows a calendar.
func (h *calendars) GetCalendar(ctx context.Context, req *connect.Request[nolav1.GetCalendarRequest]) (*connect.Response[nolav1.GetCalendarResponse], error) {
	rec, _, err := h.get(ctx, req.Msg.GetNamespace(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.GetCalendarResponse{Calendar: calendarMessage(&rec)}), nil
}

func (h *calendars) get(ctx context.Context, namespace, name string) (persistence.CalendarEntry, uint64, error) {
	namespace = namespaceOr(namespace)
	rec, stored, err := h.s.catalog.Calendar(ctx, namespace, name)
	if err != nil {
		return rec, 0, fmt.Errorf("calendar %s: %w", name, err)
	}
	if stored == 0 {
		return rec, 0, errCalendarNotFound(namespace, name)
	}
	return rec, stored, nil
}

// ListCalendars lists the calendars of a namespace, without what they hold.
func (h *calendars) ListCalendars(ctx context.Context, req *connect.Request[nolav1.ListCalendarsRequest]) (*connect.Response[nolav1.ListCalendarsResponse], error) {
	namespace := namespaceOr(req.Msg.GetNamespace())
	after, err := parseCursor("calendars", req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	if err := h.s.namespaceExists(ctx, namespace); err != nil && !hasReason(err, nola.ReasonNamespaceDeleting) {
		return nil, err
	}
	size, last := pageSize(req.Msg.GetPageSize()), strings.Join(after, "")
	out := &nolav1.ListCalendarsResponse{}
	for {
		list, err := h.s.catalog.Calendars(ctx, namespace, last, calendarPage)
		if err != nil {
			return nil, fmt.Errorf("list calendars of %s: %w", namespace, err)
		}
		for i := range list {
			if len(out.Calendars) == size {
				out.NextPageToken = formatCursor("calendars", last)
				return connect.NewResponse(out), nil
			}
			last = list[i].Name
			list[i].Dates, list[i].Rules = nil, nil
			out.Calendars = append(out.Calendars, calendarMessage(&list[i]))
		}
		if len(list) < calendarPage {
			return connect.NewResponse(out), nil
		}
	}
}

// DeleteCalendar removes a calendar that nobody uses.
func (h *calendars) DeleteCalendar(ctx context.Context, req *connect.Request[nolav1.DeleteCalendarRequest]) (*connect.Response[nolav1.DeleteCalendarResponse], error) {
	namespace, name := namespaceOr(req.Msg.GetNamespace()), req.Msg.GetName()
	unlock, err := h.lock(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	rec, stored, err := h.get(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	if etag := req.Msg.GetEtag(); etag != "" && etag != calendarETag(&rec) {
		return nil, errCalendarETag(&rec, etag)
	}
	before := rec.State
	rec.State = persistence.CalendarDeleting // from here on nobody begins to use it
	if stored, err = h.s.catalog.PutCalendar(ctx, stored, rec); errors.Is(err, persistence.ErrConflict) {
		return nil, errContended("calendar", name)
	} else if err != nil {
		h.wake() // it may be marked
		return nil, fmt.Errorf("delete calendar %s: %w", name, err)
	}
	if err := h.unused(ctx, namespace, name); err != nil {
		if rec.State = before; before == persistence.CalendarDeleting {
			rec.State = persistence.CalendarSpreading // an earlier delete was cut off
		}
		keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
		defer cancel()
		if _, undo := h.s.catalog.PutCalendar(keep, stored, rec); undo != nil {
			h.s.log.Warn("a calendar that stays is still marked as going", "namespace", namespace, "calendar", name, "error", undo)
			h.wake()
		} else if rec.State != persistence.CalendarSettled {
			h.wake()
		}
		return nil, err
	}
	if err := h.s.catalog.DeleteCalendar(ctx, stored, namespace, name); errors.Is(err, persistence.ErrConflict) {
		return nil, errContended("calendar", name)
	} else if err != nil {
		h.wake() // it may be there, and marked
		return nil, fmt.Errorf("delete calendar %s: %w", name, err)
	}
	return connect.NewResponse(&nolav1.DeleteCalendarResponse{}), nil
}

// unused answers CALENDAR_IN_USE if a schedule uses the calendar.
func (h *calendars) unused(ctx context.Context, namespace, name string) error {
	var ids someIDs
	err := h.users(ctx, namespace, name, func(entry *persistence.ScheduleEntry) error {
		unlock, err := h.s.ids.lock(ctx, entry.Namespace, entry.ID)
		if err != nil {
			return err
		}
		defer unlock()
		_, uses, err := h.uses(ctx, entry, name)
		if uses {
			ids.add(entry.ID)
		}
		return err
	})
	if err != nil || ids.count == 0 {
		return err
	}
	e := nola.Errorf(nola.ReasonCalendarInUse, "calendar %q is used by %s; update or delete these first", name, &ids)
	e.Metadata = map[string]string{"namespace": namespace, "calendar": name, "schedules": strings.Join(ids.first, "\n"), "count": strconv.Itoa(ids.count)}
	return e
}

// someIDs counts schedules, and keeps the ids of the first calendarUsesMax.
type someIDs struct {
	first []string
	count int
}

func (s *someIDs) add(id string) {
	if s.count++; len(s.first) < calendarUsesMax {
		s.first = append(s.first, id)
	}
}

// String names the first few.
func (s *someIDs) String() string {
	quoted := make([]string, min(len(s.first), calendarIDsShown))
	for i := range quoted {
		quoted[i] = strconv.Quote(s.first[i])
	}
	text := strings.Join(quoted, ", ")
	switch more := s.count - len(quoted); {
	case more > 0:
		return fmt.Sprintf("schedules %s and %d more", text, more)
	case s.count > 1:
		return "schedules " + text
	}
	return "schedule " + text
}

// ListCalendarDays lists the days of a calendar.
func (h *calendars) ListCalendarDays(ctx context.Context, req *connect.Request[nolav1.ListCalendarDaysRequest]) (*connect.Response[nolav1.ListCalendarDaysResponse], error) {
	from, to := dateOf(req.Msg.GetFrom()), dateOf(req.Msg.GetTo())
	if from.IsZero() {
		from = nola.DateOf(h.s.cfg.Now().UTC())
	}
	if to.IsZero() {
		to = nola.DateOf(time.Date(from.Year+1, from.Month, from.Day, 0, 0, 0, 0, time.UTC))
	}
	for field, d := range map[string]nola.Date{"from": from, "to": to} {
		if !d.Valid() {
			e := nola.Errorf(nola.ReasonInvalidArgument, "%s is a date that does not exist; write one like 2026-12-24", field)
			e.Metadata = map[string]string{"field": field}
			return nil, e
		}
	}
	if to.Compare(from) < 0 {
		e := nola.Errorf(nola.ReasonInvalidArgument, "to is %s, which lies before from, %s", to, from)
		e.Metadata = map[string]string{"field": "to"}
		return nil, e
	}
	rec, _, err := h.get(ctx, req.Msg.GetNamespace(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	limit := min(int(cmp.Or(req.Msg.GetLimit(), calendarDaysMax)), calendarDaysMax)
	out := &nolav1.ListCalendarDaysResponse{}
	for _, d := range scheduler.CalendarDays(&rec.Calendar, from, to, limit) {
		out.Days = append(out.Days, d.String())
	}
	return connect.NewResponse(out), nil
}

// RunCalendars finishes changes of calendars that were cut off, by an earlier
// process or in this one, until ctx ends. One call at a time.
func (s *Server) RunCalendars(ctx context.Context) {
	for {
		var again <-chan time.Time
		if err := s.ResumeCalendars(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("spreading changed calendars failed, will try again", "error", err, "retry_in", sweepRetry)
			again = time.After(sweepRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-s.unsettled:
		}
	}
}

func (h *calendars) wake() {
	select {
	case h.s.unsettled <- struct{}{}:
	default: // somebody else's wish is waiting, and stands for this one
	}
}

// ResumeCalendars gives every calendar whose change was cut off to who uses it.
func (s *Server) ResumeCalendars(ctx context.Context) error {
	var failed []error
	for after := ""; ; {
		spaces, err := s.catalog.Namespaces(ctx, after, sweepPage)
		if err != nil {
			return fmt.Errorf("list namespaces: %w", err)
		}
		for _, space := range spaces {
			after = space.Name
			if err := (&calendars{s}).resume(ctx, space.Name); err != nil {
				failed = append(failed, fmt.Errorf("namespace %s: %w", space.Name, err))
			}
		}
		if len(spaces) < sweepPage {
			return errors.Join(failed...)
		}
	}
}

func (h *calendars) resume(ctx context.Context, namespace string) error {
	for after := ""; ; {
		list, err := h.s.catalog.Calendars(ctx, namespace, after, calendarPage)
		if err != nil {
			return fmt.Errorf("list calendars: %w", err)
		}
		for i := range list {
			if after = list[i].Name; list[i].State == persistence.CalendarSettled {
				continue
			}
			if err := h.settle(ctx, namespace, after); err != nil {
				return err
			}
		}
		if len(list) < calendarPage {
			return nil
		}
	}
}

// settle finishes what was begun with one calendar. A deletion that nobody was
// told of is taken back.
func (h *calendars) settle(ctx context.Context, namespace, name string) error {
	unlock, err := h.lock(ctx, namespace, name)
	if err != nil {
		return err
	}
	defer unlock()
	rec, stored, err := h.s.catalog.Calendar(ctx, namespace, name)
	if err != nil || stored == 0 || rec.State == persistence.CalendarSettled {
		return err
	}
	return h.spread(ctx, stored, &rec)
}

// sweepCalendars removes the calendars of a namespace that goes.
func (s *Server) sweepCalendars(ctx context.Context, namespace string) (removed int, err error) {
	for {
		list, err := s.catalog.Calendars(ctx, namespace, "", calendarPage)
		if err != nil {
			return removed, fmt.Errorf("list calendars: %w", err)
		}
		for i := range list {
			_, stored, err := s.catalog.Calendar(ctx, namespace, list[i].Name)
			if err == nil && stored != 0 {
				err = s.catalog.DeleteCalendar(ctx, stored, namespace, list[i].Name)
			}
			if err != nil {
				return removed, fmt.Errorf("calendar %s: %w", list[i].Name, err)
			}
			removed++
		}
		if len(list) == 0 {
			return removed, nil
		}
	}
}

// lock lets one request at a time change a calendar. No schedule has the id that
// it takes, for that has a control character.
func (h *calendars) lock(ctx context.Context, namespace, name string) (unlock func(), err error) {
	return h.s.ids.lock(ctx, namespace, "\x00calendar\x00"+name)
}

// calendarsOf reads the calendars that a spec names, those that exist, sorted by
// name. Which one is missing the scheduler says, with its place in the spec.
func (s *Server) calendarsOf(ctx context.Context, namespace string, spec *nola.Spec) ([]nola.Calendar, error) {
	names := spec.CalendarNames()
	var out []nola.Calendar
	for _, name := range names[:min(len(names), nola.CalendarsPerSpecMax)] {
		rec, stored, err := s.catalog.Calendar(ctx, namespace, name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("calendar %s: %w", name, err)
		case stored != 0 && rec.State == persistence.CalendarDeleting:
			e := nola.Errorf(nola.ReasonUnavailable, "calendar %q is about to be deleted; nothing was done, try again", name)
			e.RetryAfter = 100 * time.Millisecond
			return nil, e
		case stored != 0:
			out = append(out, rec.Calendar)
		}
	}
	return out, nil
}

// mayUse notes in the schedule's entry that it may use the named calendars beside
// those that it names already or, with only, no others. The caller holds the
// lock of the schedule's id.
func (s *Server) mayUse(ctx context.Context, namespace, id string, names []string, only bool) error {
	for range catalogTries {
		entry, version, err := s.catalog.ScheduleEntry(ctx, namespace, id)
		if err != nil {
			return fmt.Errorf("schedule %s: %w", id, err)
		}
		if version == 0 {
			return errScheduleNotFound(namespace, id)
		}
		want := slices.Clone(names)
		if !only {
			want = append(want, entry.Calendars...)
			slices.Sort(want)
			want = slices.Compact(want)
		}
		if slices.Equal(want, entry.Calendars) {
			return nil
		}
		entry.Calendars = want
		if _, err = s.catalog.PutScheduleEntry(ctx, version, entry); err == nil {
			return nil
		} else if !errors.Is(err, persistence.ErrConflict) {
			return fmt.Errorf("schedule %s: %w", id, err)
		}
	}
	return errContended("schedule", id)
}

func errCalendarNotFound(namespace, name string) error {
	e := nola.Errorf(nola.ReasonCalendarNotFound, "calendar %q does not exist in namespace %q; PutCalendar makes it", name, namespace)
	e.Metadata = map[string]string{"namespace": namespace, "calendar": name}
	return e
}

func errCalendarETag(have *persistence.CalendarEntry, got string) error {
	e := nola.Errorf(nola.ReasonETagMismatch, "calendar %q was changed by somebody else: its etag is %s, not %.80s; read it again", have.Name, calendarETag(have), got)
	e.Metadata = map[string]string{"etag": calendarETag(have)}
	return e
}

// calendarETag tells apart the versions of all calendars that a name ever had.
func calendarETag(rec *persistence.CalendarEntry) string {
	return strconv.FormatUint(rec.Version, 10) + "-" + strconv.FormatUint(rec.Incarnation, 36)
}

// sameCalendar reports whether two calendars say the same.
func sameCalendar(a, b *nola.Calendar) bool {
	return a.Comment == b.Comment && slices.Equal(a.Dates, b.Dates) && slices.Equal(a.Rules, b.Rules)
}
