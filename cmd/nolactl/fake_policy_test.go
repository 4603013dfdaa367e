package main

import (
	"context"

	"connectrpc.com/connect"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (f *fake) BackfillSchedule(_ context.Context, req *connect.Request[nolav1.BackfillScheduleRequest]) (*connect.Response[nolav1.BackfillScheduleResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.BackfillScheduleResponse{Backfill: &nolav1.Backfill{BackfillId: req.Msg.RequestId, State: nolav1.BackfillState_BACKFILL_STATE_RUNNING, Total: 3}})
}

func (f *fake) ListBackfills(_ context.Context, req *connect.Request[nolav1.ListBackfillsRequest]) (*connect.Response[nolav1.ListBackfillsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.ListBackfillsResponse{Backfills: []*nolav1.Backfill{{BackfillId: "repair-17", State: nolav1.BackfillState_BACKFILL_STATE_RUNNING, StartTime: ago(2), EndTime: ago(1), Total: 3, Started: 1}}})
}

func (f *fake) CancelBackfill(_ context.Context, req *connect.Request[nolav1.CancelBackfillRequest]) (*connect.Response[nolav1.CancelBackfillResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.CancelBackfillResponse{Backfill: &nolav1.Backfill{BackfillId: req.Msg.BackfillId, State: nolav1.BackfillState_BACKFILL_STATE_CANCELED, Total: 3, Started: 1}})
}

func (f *fake) SkipOccurrence(_ context.Context, req *connect.Request[nolav1.SkipOccurrenceRequest]) (*connect.Response[nolav1.SkipOccurrenceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.SkipOccurrenceResponse{})
}

func (f *fake) UnskipOccurrence(_ context.Context, req *connect.Request[nolav1.UnskipOccurrenceRequest]) (*connect.Response[nolav1.UnskipOccurrenceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.UnskipOccurrenceResponse{})
}

func (f *fake) MoveOccurrence(_ context.Context, req *connect.Request[nolav1.MoveOccurrenceRequest]) (*connect.Response[nolav1.MoveOccurrenceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.MoveOccurrenceResponse{})
}

func (f *fake) ExplainOccurrence(_ context.Context, req *connect.Request[nolav1.ExplainOccurrenceRequest]) (*connect.Response[nolav1.ExplainOccurrenceResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.ExplainOccurrenceResponse{NominalTime: req.Msg.Time, Rule: "COMING", Explanation: "it comes, and fires then"})
}

func (f *fake) ListDeadLetters(_ context.Context, req *connect.Request[nolav1.ListDeadLettersRequest]) (*connect.Response[nolav1.ListDeadLettersResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.ListDeadLettersResponse{DeadLetters: []*nolav1.DeadLetter{{Number: 1, NominalTime: ago(1), Attempts: 4, FailTime: ago(0), Error: &nolav1.Error{Reason: "GUEST_ERROR", Message: "no stock"}}}})
}

func (f *fake) RedriveDeadLetter(_ context.Context, req *connect.Request[nolav1.RedriveDeadLetterRequest]) (*connect.Response[nolav1.RedriveDeadLetterResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.schedule(req.Msg.Namespace, req.Msg.ScheduleId); err != nil {
		return nil, err
	}
	return answer(&nolav1.RedriveDeadLetterResponse{Occurrence: &nolav1.Occurrence{NominalTime: ago(1), Kind: nolav1.OccurrenceKind_OCCURRENCE_KIND_REDRIVE, Outcome: nolav1.Outcome_OUTCOME_RUNNING, Count: 1}})
}
