package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

// BackfillSchedule fires the nominal times of a range again.
func (h *schedules) BackfillSchedule(ctx context.Context, req *connect.Request[nolav1.BackfillScheduleRequest]) (*connect.Response[nolav1.BackfillScheduleResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	b := nola.Backfill{
		ID: req.Msg.GetRequestId(), Start: timeOf(req.Msg.GetStartTime()), End: timeOf(req.Msg.GetEndTime()),
		Overlap: nola.Overlap(req.Msg.GetOverlap()), Rate: int(req.Msg.GetRate()), Reverse: req.Msg.GetReverse(),
	}
	if b.ID == "" {
		b.ID = rand.Text()
	}
	if req.Msg.GetDryRun() {
		return h.backfillPlan(ref, b)
	}
	if b, err = h.s.cfg.Shards.BackfillSchedule(ctx, ref, b); err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.BackfillScheduleResponse{Backfill: backfillMessage(&b)}), nil
}

// backfillPlan says what a backfill would fire.
func (h *schedules) backfillPlan(ref nola.ScheduleRef, b nola.Backfill) (*connect.Response[nolav1.BackfillScheduleResponse], error) {
	row, err := h.row(ref)
	if err != nil {
		return nil, err
	}
	plan, _, err := scheduler.NewPlan(&row.Schedule)
	if err != nil {
		return nil, err
	}
	n, first, last, err := plan.CountBackfill(&b, h.s.cfg.Now())
	if err != nil {
		return nil, err
	}
	b.Total = n
	out := &nolav1.BackfillScheduleResponse{Backfill: backfillMessage(&b)}
	if n > 0 {
		out.FirstTime, out.LastTime = timeMessage(first), timeMessage(last)
	}
	return connect.NewResponse(out), nil
}

// row is what is committed of a schedule.
func (h *schedules) row(ref nola.ScheduleRef) (persistence.ScheduleRow, error) {
	row, found, err := h.s.reader.Schedule(h.s.shardOf(ref.Target), ref.Target, false, ref.ID)
	if err != nil {
		return row, fmt.Errorf("schedule %s: %w", ref.ID, err)
	}
	if !found {
		return row, errScheduleNotFound(ref.Target.Namespace, ref.ID)
	}
	return row, nil
}

// ListBackfills lists the backfills of a schedule, the newest first.
func (h *schedules) ListBackfills(ctx context.Context, req *connect.Request[nolav1.ListBackfillsRequest]) (*connect.Response[nolav1.ListBackfillsResponse], error) {
	info, err := h.get(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	out := &nolav1.ListBackfillsResponse{}
	for _, b := range slices.Backward(info.Progress.Backfills) {
		out.Backfills = append(out.Backfills, backfillMessage(&b))
	}
	return connect.NewResponse(out), nil
}

// GetBackfill shows one backfill.
func (h *schedules) GetBackfill(ctx context.Context, req *connect.Request[nolav1.GetBackfillRequest]) (*connect.Response[nolav1.GetBackfillResponse], error) {
	info, err := h.get(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	for i := range info.Progress.Backfills {
		if b := &info.Progress.Backfills[i]; b.ID == req.Msg.GetBackfillId() {
			return connect.NewResponse(&nolav1.GetBackfillResponse{Backfill: backfillMessage(b)}), nil
		}
	}
	return nil, nola.Errorf(nola.ReasonBackfillNotFound, "schedule %q has no backfill %q; the newest %d are kept", req.Msg.GetScheduleId(), req.Msg.GetBackfillId(), nola.BackfillsKept)
}

// CancelBackfill ends a backfill.
func (h *schedules) CancelBackfill(ctx context.Context, req *connect.Request[nolav1.CancelBackfillRequest]) (*connect.Response[nolav1.CancelBackfillResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	b, err := h.s.cfg.Shards.CancelBackfill(ctx, ref, req.Msg.GetBackfillId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CancelBackfillResponse{Backfill: backfillMessage(&b)}), nil
}

// SkipOccurrence takes one nominal time out.
func (h *schedules) SkipOccurrence(ctx context.Context, req *connect.Request[nolav1.SkipOccurrenceRequest]) (*connect.Response[nolav1.SkipOccurrenceResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err == nil {
		err = h.s.cfg.Shards.SkipOccurrence(ctx, ref, timeOf(req.Msg.GetNominalTime()))
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.SkipOccurrenceResponse{}), nil
}

// UnskipOccurrence takes back that a nominal time was skipped or moved.
func (h *schedules) UnskipOccurrence(ctx context.Context, req *connect.Request[nolav1.UnskipOccurrenceRequest]) (*connect.Response[nolav1.UnskipOccurrenceResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err == nil {
		err = h.s.cfg.Shards.UnskipOccurrence(ctx, ref, timeOf(req.Msg.GetNominalTime()))
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.UnskipOccurrenceResponse{}), nil
}

// MoveOccurrence has one nominal time fire at another instant.
func (h *schedules) MoveOccurrence(ctx context.Context, req *connect.Request[nolav1.MoveOccurrenceRequest]) (*connect.Response[nolav1.MoveOccurrenceResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err == nil {
		err = h.s.cfg.Shards.MoveOccurrence(ctx, ref, timeOf(req.Msg.GetNominalTime()), timeOf(req.Msg.GetTo()))
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.MoveOccurrenceResponse{}), nil
}

// ListDeadLetters lists the firings that failed for good, the newest first.
func (h *schedules) ListDeadLetters(ctx context.Context, req *connect.Request[nolav1.ListDeadLettersRequest]) (*connect.Response[nolav1.ListDeadLettersResponse], error) {
	info, err := h.get(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	out := &nolav1.ListDeadLettersResponse{Lost: info.Progress.LettersLost}
	for _, l := range slices.Backward(info.Progress.DeadLetters) {
		out.DeadLetters = append(out.DeadLetters, &nolav1.DeadLetter{
			Number: l.Number, NominalTime: timeMessage(l.Nominal), Kind: nolav1.OccurrenceKind(l.Kind), RequestId: l.RequestID,
			Error:    &nolav1.Error{Reason: string(l.Reason), Code: codeOf(l.Reason).String(), Message: l.Error},
			Attempts: uint32(l.Attempts), StartTime: timeMessage(l.Started), FailTime: timeMessage(l.Failed),
		})
	}
	return connect.NewResponse(out), nil
}

// RedriveDeadLetter fires a dead letter again.
func (h *schedules) RedriveDeadLetter(ctx context.Context, req *connect.Request[nolav1.RedriveDeadLetterRequest]) (*connect.Response[nolav1.RedriveDeadLetterResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	o, err := h.s.cfg.Shards.RedriveDeadLetter(ctx, ref, req.Msg.GetNumber())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.RedriveDeadLetterResponse{Occurrence: occurrenceMessage(&o)}), nil
}

// ExplainOccurrence says which rule let a time fire, or not.
func (h *schedules) ExplainOccurrence(ctx context.Context, req *connect.Request[nolav1.ExplainOccurrenceRequest]) (*connect.Response[nolav1.ExplainOccurrenceResponse], error) {
	ref, err := h.find(ctx, req.Msg.GetNamespace(), req.Msg.GetScheduleId())
	if err != nil {
		return nil, err
	}
	info, err := h.s.cfg.Shards.GetSchedule(ctx, ref)
	if err != nil {
		return nil, err
	}
	list, err := h.s.reader.Occurrences(h.s.shardOf(ref.Target), ref.Target, false, ref.ID)
	if err != nil {
		return nil, fmt.Errorf("schedule %s: occurrences: %w", ref.ID, err)
	}
	plan, _, err := scheduler.NewPlan(&info.Schedule)
	if err != nil {
		return nil, err
	}
	v := plan.Why(&info.Schedule, &info.Progress, list, timeOf(req.Msg.GetTime()), h.s.cfg.Now())
	out := &nolav1.ExplainOccurrenceResponse{NominalTime: timeMessage(v.Nominal), Rule: v.Rule, Explanation: v.Text}
	if v.Occurrence.Outcome != 0 {
		out.Occurrence = occurrenceMessage(&v.Occurrence)
	}
	return connect.NewResponse(out), nil
}

func backfillMessage(b *nola.Backfill) *nolav1.Backfill {
	return &nolav1.Backfill{
		BackfillId: b.ID, StartTime: timeMessage(b.Start), EndTime: timeMessage(b.End), Overlap: nolav1.OverlapPolicy(b.Overlap),
		Rate: uint32(b.Rate), Reverse: b.Reverse, State: nolav1.BackfillState(b.State), Total: uint32(b.Total), Started: uint32(b.Started),
		Succeeded: uint32(b.OK), Failed: uint32(b.Failed), LastNominalTime: timeMessage(b.Cursor),
		CreateTime: timeMessage(b.Created), FinishTime: timeMessage(b.Ended),
	}
}

func policyMessage(p *nola.Policy) *nolav1.SchedulePolicy {
	m := &nolav1.SchedulePolicy{
		Overlap:            nolav1.OverlapPolicy(p.Overlap),
		BufferLimit:        uint32(p.BufferLimit),
		MaxConcurrent:      uint32(p.MaxConcurrent),
		Catchup:            &nolav1.CatchupPolicy{Mode: nolav1.CatchupMode(p.Catchup.Mode), Max: uint32(p.Catchup.Max)},
		PauseAfterFailures: uint32(p.PauseAfterFailures),
	}
	m.Catchup.Window, m.Catchup.Spacing = span(p.Catchup.Window), span(p.Catchup.Spacing)
	if r := p.Retry; r != (nola.Retry{}) {
		m.Retry = &nolav1.RetryPolicy{Deadline: span(r.Deadline), BackoffMin: span(r.BackoffMin), BackoffMax: span(r.BackoffMax), MaxAttempts: uint32(r.AttemptsMax)}
	}
	return m
}

// span is d, or a field that is not set for zero.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// targetWarnings says what speaks against a schedule that will fire.
func (h *schedules) targetWarnings(ctx context.Context, sd *nola.Schedule) ([]*nolav1.ScheduleWarning, error) {
	if h.s.cfg.Modules.ready(sd.Namespace, sd.Target.Type) {
		return nil, nil
	}
	_, version, err := h.s.catalog.Module(ctx, sd.Namespace, sd.Target.Type)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", sd.Target.Type, err)
	}
	if version != 0 {
		return nil, nil
	}
	return []*nolav1.ScheduleWarning{{
		Code: string(nola.ReasonModuleNotFound), Field: "target.actor.type",
		Message: fmt.Sprintf("there is no module %q in namespace %q; until it is pushed every firing ends as FAILED_START", sd.Target.Type, sd.Namespace),
	}}, nil
}
