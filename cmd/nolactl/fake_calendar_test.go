package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

// fillCalendars makes the calendars that the examples of the help name.
func (f *fake) fillCalendars() {
	for _, m := range []*nolav1.Calendar{
		{
			Name: "bank", Comment: "closed", Dates: []*nolav1.DateRange{{From: "2026-12-24", To: "2026-12-26"}, {From: "2027-01-01"}},
			Rules: []*nolav1.HolidayRule{{Easter: nolav1.Easter_EASTER_WESTERN, Offset: -2}, {Month: "5", DayOfMonth: "1", Comment: "work"}},
		},
		{Name: "old"},
	} {
		m.Namespace, m.Version, m.Etag, m.Created, m.Updated = "default", 3, "3-a", ago(72*time.Hour), ago(time.Hour)
		f.calendars["default/"+m.Name] = m
	}
}

// known are the calendars of a namespace as the scheduler takes them.
func (f *fake) known(namespace string) (all []nola.Calendar) {
	for _, key := range slices.Sorted(maps.Keys(f.calendars)) {
		if f.calendars[key].Namespace != cmp.Or(namespace, "default") {
			continue
		}
		if cal, err := calendarOf(f.calendars[key]); err == nil {
			all = append(all, cal)
		}
	}
	return all
}

func (f *fake) PutCalendar(_ context.Context, req *connect.Request[nolav1.PutCalendarRequest]) (*connect.Response[nolav1.PutCalendarResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := proto.CloneOf(req.Msg.Calendar)
	key := m.Namespace + "/" + m.Name
	old := f.calendars[key]
	if etag := req.Msg.Etag; etag != "" && etag != old.GetEtag() {
		return nil, failure(connect.CodeAborted, "ETAG_MISMATCH", "calendar "+m.Name+" was changed by somebody else")
	}
	if len(m.Dates)+len(m.Rules) == 0 && len(old.GetDates()) > 0 && !req.Msg.AllowEmpty {
		return nil, failure(connect.CodeInvalidArgument, "INVALID_ARGUMENT", "the new one holds none; put it with allow_empty if that is meant")
	}
	if m.Version = old.GetVersion() + 1; req.Msg.DryRun {
		m = old
	} else {
		f.calendars[key] = m
	}
	return answer(&nolav1.PutCalendarResponse{Calendar: m, UseCount: 2, Uses: []*nolav1.CalendarUse{
		{ScheduleId: "nightly", NextTime: ago(-time.Hour), FirstChange: ago(-48 * time.Hour)}, {ScheduleId: "tick", NextTime: ago(-time.Second)},
	}})
}

func (f *fake) calendar(namespace, name string) (*nolav1.Calendar, error) {
	if m := f.calendars[namespace+"/"+name]; m != nil {
		return m, nil
	}
	return nil, failure(connect.CodeNotFound, "CALENDAR_NOT_FOUND", "there is no calendar "+name)
}

func (f *fake) GetCalendar(_ context.Context, req *connect.Request[nolav1.GetCalendarRequest]) (*connect.Response[nolav1.GetCalendarResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.calendar(req.Msg.Namespace, req.Msg.Name)
	if err != nil {
		return nil, err
	}
	return answer(&nolav1.GetCalendarResponse{Calendar: m})
}

func (f *fake) ListCalendars(_ context.Context, req *connect.Request[nolav1.ListCalendarsRequest]) (*connect.Response[nolav1.ListCalendarsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &nolav1.ListCalendarsResponse{}
	for _, key := range slices.Sorted(maps.Keys(f.calendars)) {
		if m := f.calendars[key]; m.Namespace == req.Msg.Namespace {
			res.Calendars = append(res.Calendars, m)
		}
	}
	return answer(res)
}

func (f *fake) ListCalendarDays(_ context.Context, req *connect.Request[nolav1.ListCalendarDaysRequest]) (*connect.Response[nolav1.ListCalendarDaysResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.calendar(req.Msg.Namespace, req.Msg.Name)
	if err != nil {
		return nil, err
	}
	cal, err := calendarOf(m)
	if err != nil {
		return nil, err
	}
	from, to := nola.DateOf(start), nola.DateOf(start.AddDate(1, 0, 0))
	if req.Msg.From != "" {
		if from, err = nola.ParseDate(req.Msg.From); err != nil {
			return nil, err
		}
	}
	if req.Msg.To != "" {
		if to, err = nola.ParseDate(req.Msg.To); err != nil {
			return nil, err
		}
	}
	res := &nolav1.ListCalendarDaysResponse{}
	for _, d := range scheduler.CalendarDays(&cal, from, to, int(req.Msg.Limit)) {
		res.Days = append(res.Days, d.String())
	}
	return answer(res)
}

func (f *fake) DeleteCalendar(_ context.Context, req *connect.Request[nolav1.DeleteCalendarRequest]) (*connect.Response[nolav1.DeleteCalendarResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.calendar(req.Msg.Namespace, req.Msg.Name); err != nil {
		return nil, err
	}
	if req.Msg.Name == "bank" {
		return nil, failure(connect.CodeFailedPrecondition, "CALENDAR_IN_USE", `calendar "bank" is used by schedule "nightly"`, "schedules", "nightly")
	}
	delete(f.calendars, req.Msg.Namespace+"/"+req.Msg.Name)
	return answer(&nolav1.DeleteCalendarResponse{})
}
