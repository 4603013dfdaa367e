package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

// Limits of one page of ListSchedules.
const (
	// scheduleScanMax bounds how many schedules a page in the order of ids looks
	// at. A filter that few pass may so answer a short page with a token.
	scheduleScanMax = 10_000
	// scheduleSortMax bounds how many a page in the order of next due times looks
	// at. It looks at all of them, whatever passes, and beyond that refuses.
	scheduleSortMax = 100_000
	// scheduleScanPage is how many entries of the catalogue are read at once.
	scheduleScanPage = 1_000
	// scheduleListBytesMax ends a page once its schedules are that long together;
	// one of them may reach beyond.
	scheduleListBytesMax = 8 << 20
	// nextTimesMax bounds ScheduleInfo.next_times.
	nextTimesMax = 10
)

// ListSchedules lists what passes the filter, in the order of ids or of next due
// times. It answers committed state, and asks no shard: a schedule that is looked
// at costs two point reads, one that is listed one more for each recent outcome.
func (h *schedules) ListSchedules(ctx context.Context, req *connect.Request[nolav1.ListSchedulesRequest]) (*connect.Response[nolav1.ListSchedulesResponse], error) {
	f, err := parseFilter(req.Msg.GetFilter())
	if err != nil {
		return nil, err
	}
	l := scheduleList{
		schedules: h, namespace: namespaceOr(req.Msg.GetNamespace()), filter: f, now: h.s.cfg.Now(),
		size: pageSize(req.Msg.GetPageSize()), recent: int(req.Msg.GetRecent()),
	}
	if err := h.s.namespaceExists(ctx, l.namespace); err != nil && !hasReason(err, nola.ReasonNamespaceDeleting) {
		return nil, err
	}
	var out *nolav1.ListSchedulesResponse
	if req.Msg.GetOrder() == nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE {
		out, err = l.byNextDue(ctx, req.Msg.GetPageToken())
	} else {
		out, err = l.byID(ctx, req.Msg.GetPageToken())
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// scheduleList is one page of ListSchedules in the making.
type scheduleList struct {
	*schedules
	namespace string
	filter    filter
	now       time.Time
	size      int // of the page
	recent    int // outcomes of each schedule
	zones     scheduler.Zones
}

// byID goes on behind the id in the token.
func (l *scheduleList) byID(ctx context.Context, token string) (*nolav1.ListSchedulesResponse, error) {
	cursor, err := parseCursor("schedules", token, 1)
	if err != nil {
		return nil, err
	}
	out, after, seen, bytes := &nolav1.ListSchedulesResponse{}, strings.Join(cursor, ""), 0, 0
	err = l.scan(ctx, after, l.size+1, func(entry *persistence.ScheduleEntry) (bool, error) {
		if seen++; len(out.Schedules) == l.size || seen > scheduleScanMax || bytes >= scheduleListBytesMax {
			out.NextPageToken = formatCursor("schedules", after)
			return false, nil
		}
		after = entry.ID
		row, ok, err := l.look(entry)
		if err != nil || !ok {
			return true, err
		}
		m, err := l.message(&row)
		if err != nil {
			return false, err
		}
		out.Schedules = append(out.Schedules, m)
		bytes += proto.Size(m)
		return true, nil
	})
	return out, err
}

// dueSchedule is a schedule by its place in the order of next due times.
type dueSchedule struct {
	due   time.Time // zero if it is never due, which is last
	entry persistence.ScheduleEntry
}

func dueFirst(a, b dueSchedule) int {
	if a.due.IsZero() != b.due.IsZero() {
		if a.due.IsZero() {
			return 1
		}
		return -1
	}
	return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.entry.ID, b.entry.ID))
}

// byNextDue finds the first behind the place in the token, of all that pass.
func (l *scheduleList) byNextDue(ctx context.Context, token string) (*nolav1.ListSchedulesResponse, error) {
	const kind, never = "schedules by next due", "never"
	cursor, err := parseCursor(kind, token, 2)
	if err != nil {
		return nil, err
	}
	var last dueSchedule
	if cursor != nil {
		last.entry.ID = cursor[1]
		if cursor[0] != never {
			if last.due, err = time.Parse(time.RFC3339Nano, cursor[0]); err != nil {
				return nil, errPageToken()
			}
		}
	}
	var first []dueSchedule // the first of those seen; more than needed until cut
	cut := func() {
		slices.SortFunc(first, dueFirst)
		first = first[:min(len(first), l.size+1)]
	}
	seen := 0
	err = l.scan(ctx, "", scheduleScanPage, func(entry *persistence.ScheduleEntry) (bool, error) {
		if seen++; seen > scheduleSortMax {
			return false, nola.LimitError(nola.ReasonLimitExceeded, "schedules_sorted", scheduleSortMax,
				"a list in the order of next due times looks at %d schedules at most, and there are more; narrow the filter with id=PREFIX*, or list in the order of ids", scheduleSortMax)
		}
		row, ok, err := l.look(entry)
		if err != nil || !ok {
			return true, err
		}
		d := dueSchedule{entry: *entry}
		if next := l.coming(&row, 1); len(next) > 0 {
			d.due = next[0]
		}
		if cursor != nil && dueFirst(d, last) <= 0 {
			return true, nil
		}
		if first = append(first, d); len(first) > 2*(l.size+1) {
			cut()
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	cut()
	out, bytes := &nolav1.ListSchedulesResponse{}, 0
	for i := range first {
		if i == l.size || bytes >= scheduleListBytesMax {
			place := never
			if at := first[i-1].due; !at.IsZero() {
				place = at.UTC().Format(time.RFC3339Nano)
			}
			out.NextPageToken = formatCursor(kind, place, first[i-1].entry.ID)
			break
		}
		// read again: to have kept the rows of a page would have no bound
		row, ok, err := l.look(&first[i].entry)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		m, err := l.message(&row)
		if err != nil {
			return nil, err
		}
		out.Schedules = append(out.Schedules, m)
		bytes += proto.Size(m)
	}
	return out, nil
}

// scan calls fn with the entries behind after, until it answers false: some at
// first, and more at a time the longer it goes on.
func (l *scheduleList) scan(ctx context.Context, after string, some int, fn func(*persistence.ScheduleEntry) (bool, error)) error {
	for {
		entries, err := l.s.catalog.ScheduleEntries(ctx, l.namespace, l.filter.prefix(), after, some)
		if err != nil {
			return fmt.Errorf("list schedules of %s: %w", l.namespace, err)
		}
		for i := range entries {
			if more, err := fn(&entries[i]); err != nil || !more {
				return err
			}
			after = entries[i].ID
		}
		if len(entries) < some {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		some = max(some, min(2*some, scheduleScanPage))
	}
}

// look reads a schedule, and reports whether it exists and passes the filter.
func (l *scheduleList) look(entry *persistence.ScheduleEntry) (persistence.ScheduleRow, bool, error) {
	if !l.filter.passesEntry(entry) {
		return persistence.ScheduleRow{}, false, nil
	}
	row, found, err := l.s.reader.Schedule(l.s.shardOf(entry.Target), entry.Target, false, entry.ID)
	if err != nil {
		return row, false, fmt.Errorf("list schedules of %s: %w", l.namespace, err)
	}
	return row, found && row.Schedule.Incarnation == entry.Incarnation && l.filter.passes(&row, l.now), nil
}

// coming are the next times of a schedule, those that GetSchedule answers.
func (l *scheduleList) coming(row *persistence.ScheduleRow, n int) []time.Time {
	plan, _, err := l.zones.NewPlan(&row.Schedule)
	if err != nil {
		return nil // a spec of another release: GetSchedule says more
	}
	return plan.Upcoming(&row.Schedule, &row.Progress, l.now, n)
}

func (l *scheduleList) message(row *persistence.ScheduleRow) (*nolav1.Schedule, error) {
	info := nola.ScheduleInfo{Schedule: row.Schedule, Progress: row.Progress, Next: l.coming(row, nextTimesMax)}
	if l.recent > 0 {
		var err error
		if info.Recent, err = l.s.reader.RecentOccurrences(l.s.shardOf(row.Schedule.Target), row, l.recent); err != nil {
			return nil, fmt.Errorf("list schedules of %s: %w", l.namespace, err)
		}
	}
	return scheduleMessage(&info), nil
}
