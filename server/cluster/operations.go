package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
	"github.com/nolaproject/nola/shard"
)

// operation is something other than a call that the owner of an actor does. What
// is rarely asked travels as JSON of its Go types.
type operation[A, R any] struct {
	name string
	// reads says that asking twice does no harm.
	reads bool
	run   func(ctx context.Context, m *shard.Manager, args A) (R, error)
}

// carried carries an operation out whose arguments came from another node.
type carried func(ctx context.Context, m *shard.Manager, arguments []byte) ([]byte, error)

// operations are those that nodes ask of each other, by name.
var operations = map[string]carried{}

func define[A, R any](op operation[A, R]) operation[A, R] {
	operations[op.name] = func(ctx context.Context, m *shard.Manager, arguments []byte) ([]byte, error) {
		var args A
		if err := json.Unmarshal(arguments, &args); err != nil {
			return nil, fmt.Errorf("arguments of %s: %w", op.name, err)
		}
		result, err := op.run(ctx, m, args)
		if err != nil {
			return nil, err
		}
		return json.Marshal(result)
	}
	return op
}

// none is the result of what answers nothing.
type none struct{}

// ask carries an operation out at the owner of the actor.
func ask[A, R any](ctx context.Context, m *Member, ref nola.ActorRef, op operation[A, R], args A) (result R, err error) {
	err = m.at(ctx, m.shardOf(ref), func() error {
		result, err = op.run(ctx, m.shards, args)
		return err
	}, func(l *link) error {
		arguments, err := json.Marshal(args)
		if err != nil {
			return fmt.Errorf("arguments of %s: %w", op.name, err)
		}
		ctx, cancel := withTimeout(ctx)
		defer cancel()
		deadline, _ := ctx.Deadline()
		res, err := l.client.Ask(ctx, request(&peerv1.AskRequest{
			Shard: uint32(m.shardOf(ref)), Operation: op.name, Arguments: arguments, Timeout: durationpb.New(time.Until(deadline)),
		}))
		switch {
		case err != nil && ctx.Err() != nil && op.reads:
			return ctx.Err()
		case err != nil:
			return l.failed(err, !op.reads)
		case res.Msg.GetError() != nil:
			m.learn(m.shardOf(ref), res.Msg.GetError().GetOwner())
			return errorOf(res.Msg.GetError())
		}
		return json.Unmarshal(res.Msg.GetResult(), &result)
	})
	return result, err
}

// The arguments of operations that have several.
type (
	invocationArgs struct {
		Ref nola.ActorRef
		ID  nola.InvocationID
		Key nola.Key
	}
	castArgs struct {
		Invocation nola.Invocation
		Due        time.Time
	}
	completionArgs struct {
		Ref        nola.ActorRef
		Completion nola.Completion
	}
	timerArgs struct {
		Ref   nola.ActorRef
		Timer nola.Timer
	}
	reminderArgs struct {
		Ref      nola.ActorRef
		Reminder nola.Reminder
	}
	nameArgs struct {
		Ref  nola.ActorRef
		Name string
	}
	logArgs struct {
		Ref   nola.ActorRef
		Limit int
	}
	scheduleArgs struct {
		Ref       nola.ScheduleRef
		Schedule  nola.Schedule
		Change    nola.ScheduleChange
		ETag      uint64
		RequestID string
		Overlap   nola.Overlap
		Payload   []byte
		Backfill  nola.Backfill
		ID        string
		Nominal   time.Time
		To        time.Time
		Number    uint64
	}
)

var (
	opInvocation = define(operation[invocationArgs, nola.InvocationInfo]{"GetInvocation", true, func(ctx context.Context, m *shard.Manager, a invocationArgs) (nola.InvocationInfo, error) {
		return m.GetInvocation(ctx, a.Ref, a.ID, a.Key)
	}})
	opCast = define(operation[castArgs, nola.InvocationID]{"Cast", false, func(ctx context.Context, m *shard.Manager, a castArgs) (nola.InvocationID, error) {
		return m.Cast(ctx, &a.Invocation, a.Due)
	}})
	opDescribe = define(operation[nola.ActorRef, nola.ActorInfo]{"DescribeActor", true, func(ctx context.Context, m *shard.Manager, ref nola.ActorRef) (nola.ActorInfo, error) {
		return m.DescribeActor(ctx, ref)
	}})
	opPassivate = define(operation[nola.ActorRef, bool]{"PassivateActor", true, func(ctx context.Context, m *shard.Manager, ref nola.ActorRef) (bool, error) {
		return m.PassivateActor(ctx, ref)
	}})
	opDelete = define(operation[nola.ActorRef, none]{"DeleteActor", false, func(ctx context.Context, m *shard.Manager, ref nola.ActorRef) (none, error) {
		return none{}, m.DeleteActor(ctx, ref)
	}})
	opComplete = define(operation[completionArgs, nola.InvocationID]{"CompleteInvocation", false, func(ctx context.Context, m *shard.Manager, a completionArgs) (nola.InvocationID, error) {
		return m.CompleteInvocation(ctx, a.Ref, a.Completion)
	}})
	opSetTimer = define(operation[timerArgs, none]{"SetTimer", false, func(ctx context.Context, m *shard.Manager, a timerArgs) (none, error) {
		return none{}, m.SetTimer(ctx, a.Ref, a.Timer)
	}})
	opCancelTimer = define(operation[nameArgs, bool]{"CancelTimer", false, func(ctx context.Context, m *shard.Manager, a nameArgs) (bool, error) {
		return m.CancelTimer(ctx, a.Ref, a.Name)
	}})
	opSetReminder = define(operation[reminderArgs, none]{"SetReminder", false, func(ctx context.Context, m *shard.Manager, a reminderArgs) (none, error) {
		return none{}, m.SetReminder(ctx, a.Ref, a.Reminder)
	}})
	opCancelReminder = define(operation[nameArgs, bool]{"CancelReminder", false, func(ctx context.Context, m *shard.Manager, a nameArgs) (bool, error) {
		return m.CancelReminder(ctx, a.Ref, a.Name)
	}})
	opLogs = define(operation[logArgs, []nola.LogRecord]{"Logs", true, func(_ context.Context, m *shard.Manager, a logArgs) ([]nola.LogRecord, error) {
		return m.Logs(a.Ref, a.Limit), nil
	}})
	opCreateSchedule = define(operation[scheduleArgs, nola.ScheduleInfo]{"CreateSchedule", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.ScheduleInfo, error) {
		return m.CreateSchedule(ctx, a.Schedule, a.RequestID)
	}})
	opGetSchedule = define(operation[scheduleArgs, nola.ScheduleInfo]{"GetSchedule", true, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.ScheduleInfo, error) {
		return m.GetSchedule(ctx, a.Ref)
	}})
	opUpdateSchedule = define(operation[scheduleArgs, nola.ScheduleInfo]{"UpdateSchedule", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.ScheduleInfo, error) {
		return m.UpdateSchedule(ctx, a.Ref, a.Change)
	}})
	opDeleteSchedule = define(operation[scheduleArgs, none]{"DeleteSchedule", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (none, error) {
		return none{}, m.DeleteSchedule(ctx, a.Ref, a.ETag)
	}})
	opTrigger = define(operation[scheduleArgs, nola.Occurrence]{"TriggerSchedule", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.Occurrence, error) {
		return m.TriggerSchedule(ctx, a.Ref, a.RequestID, a.Overlap, a.Payload)
	}})
	opBackfill = define(operation[scheduleArgs, nola.Backfill]{"BackfillSchedule", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.Backfill, error) {
		return m.BackfillSchedule(ctx, a.Ref, a.Backfill)
	}})
	opCancelBackfill = define(operation[scheduleArgs, nola.Backfill]{"CancelBackfill", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.Backfill, error) {
		return m.CancelBackfill(ctx, a.Ref, a.ID)
	}})
	opSkip = define(operation[scheduleArgs, none]{"SkipOccurrence", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (none, error) {
		return none{}, m.SkipOccurrence(ctx, a.Ref, a.Nominal)
	}})
	opUnskip = define(operation[scheduleArgs, none]{"UnskipOccurrence", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (none, error) {
		return none{}, m.UnskipOccurrence(ctx, a.Ref, a.Nominal)
	}})
	opMove = define(operation[scheduleArgs, none]{"MoveOccurrence", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (none, error) {
		return none{}, m.MoveOccurrence(ctx, a.Ref, a.Nominal, a.To)
	}})
	opRedrive = define(operation[scheduleArgs, nola.Occurrence]{"RedriveDeadLetter", false, func(ctx context.Context, m *shard.Manager, a scheduleArgs) (nola.Occurrence, error) {
		return m.RedriveDeadLetter(ctx, a.Ref, a.Number)
	}})
)

// GetInvocation tells how an invocation ended, by its id or its key.
func (m *Member) GetInvocation(ctx context.Context, ref nola.ActorRef, id nola.InvocationID, key nola.Key) (nola.InvocationInfo, error) {
	return ask(ctx, m, ref, opInvocation, invocationArgs{ref, id, key})
}

// Cast answers once the cast is durable; a zero due time is now.
func (m *Member) Cast(ctx context.Context, inv *nola.Invocation, due time.Time) (nola.InvocationID, error) {
	return ask(ctx, m, inv.Target, opCast, castArgs{*inv, due})
}

// DescribeActor describes an actor that exists or is in memory.
func (m *Member) DescribeActor(ctx context.Context, ref nola.ActorRef) (nola.ActorInfo, error) {
	return ask(ctx, m, ref, opDescribe, ref)
}

// PassivateActor takes an actor out of memory, and reports whether it was there.
func (m *Member) PassivateActor(ctx context.Context, ref nola.ActorRef) (bool, error) {
	return ask(ctx, m, ref, opPassivate, ref)
}

// DeleteActor removes an actor with all it owns.
func (m *Member) DeleteActor(ctx context.Context, ref nola.ActorRef) error {
	_, err := ask(ctx, m, ref, opDelete, ref)
	return err
}

// CompleteInvocation answers a deferred invocation, once.
func (m *Member) CompleteInvocation(ctx context.Context, ref nola.ActorRef, c nola.Completion) (nola.InvocationID, error) {
	return ask(ctx, m, ref, opComplete, completionArgs{ref, c})
}

// SetTimer sets a timer of an actor, or replaces it.
func (m *Member) SetTimer(ctx context.Context, ref nola.ActorRef, t nola.Timer) error {
	_, err := ask(ctx, m, ref, opSetTimer, timerArgs{ref, t})
	return err
}

// CancelTimer reports whether there was such a timer.
func (m *Member) CancelTimer(ctx context.Context, ref nola.ActorRef, name string) (bool, error) {
	return ask(ctx, m, ref, opCancelTimer, nameArgs{ref, name})
}

// SetReminder sets a reminder of an actor, or replaces it.
func (m *Member) SetReminder(ctx context.Context, ref nola.ActorRef, r nola.Reminder) error {
	_, err := ask(ctx, m, ref, opSetReminder, reminderArgs{ref, r})
	return err
}

// CancelReminder reports whether there was such a reminder.
func (m *Member) CancelReminder(ctx context.Context, ref nola.ActorRef, name string) (bool, error) {
	return ask(ctx, m, ref, opCancelReminder, nameArgs{ref, name})
}

// Logs answers the last lines of an actor's log, oldest first; none if the node
// that has them cannot be asked.
func (m *Member) Logs(ref nola.ActorRef, limit int) []nola.LogRecord {
	list, _ := ask(context.Background(), m, ref, opLogs, logArgs{ref, limit}) // logs are not kept safe
	return list
}

// CreateSchedule makes a schedule, once per incarnation.
func (m *Member) CreateSchedule(ctx context.Context, s nola.Schedule, requestID string) (nola.ScheduleInfo, error) {
	return ask(ctx, m, s.Target, opCreateSchedule, scheduleArgs{Schedule: s, RequestID: requestID})
}

// GetSchedule describes a schedule or reminder.
func (m *Member) GetSchedule(ctx context.Context, ref nola.ScheduleRef) (nola.ScheduleInfo, error) {
	return ask(ctx, m, ref.Target, opGetSchedule, scheduleArgs{Ref: ref})
}

// UpdateSchedule changes a schedule, under its etag.
func (m *Member) UpdateSchedule(ctx context.Context, ref nola.ScheduleRef, c nola.ScheduleChange) (nola.ScheduleInfo, error) {
	return ask(ctx, m, ref.Target, opUpdateSchedule, scheduleArgs{Ref: ref, Change: c})
}

// DeleteSchedule removes a schedule whose etag is etag, or any if that is zero.
func (m *Member) DeleteSchedule(ctx context.Context, ref nola.ScheduleRef, etag uint64) error {
	_, err := ask(ctx, m, ref.Target, opDeleteSchedule, scheduleArgs{Ref: ref, ETag: etag})
	return err
}

// TriggerSchedule fires now, once per request id.
func (m *Member) TriggerSchedule(ctx context.Context, ref nola.ScheduleRef, requestID string, overlap nola.Overlap, payload []byte) (nola.Occurrence, error) {
	return ask(ctx, m, ref.Target, opTrigger, scheduleArgs{Ref: ref, RequestID: requestID, Overlap: overlap, Payload: payload})
}

// BackfillSchedule fires the nominal times of a range again, once per id.
func (m *Member) BackfillSchedule(ctx context.Context, ref nola.ScheduleRef, b nola.Backfill) (nola.Backfill, error) {
	return ask(ctx, m, ref.Target, opBackfill, scheduleArgs{Ref: ref, Backfill: b})
}

// CancelBackfill ends a backfill.
func (m *Member) CancelBackfill(ctx context.Context, ref nola.ScheduleRef, id string) (nola.Backfill, error) {
	return ask(ctx, m, ref.Target, opCancelBackfill, scheduleArgs{Ref: ref, ID: id})
}

// SkipOccurrence takes one nominal time to come out.
func (m *Member) SkipOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal time.Time) error {
	_, err := ask(ctx, m, ref.Target, opSkip, scheduleArgs{Ref: ref, Nominal: nominal})
	return err
}

// UnskipOccurrence takes back that a nominal time was skipped or moved.
func (m *Member) UnskipOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal time.Time) error {
	_, err := ask(ctx, m, ref.Target, opUnskip, scheduleArgs{Ref: ref, Nominal: nominal})
	return err
}

// MoveOccurrence has one nominal time to come fire at another instant.
func (m *Member) MoveOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal, to time.Time) error {
	_, err := ask(ctx, m, ref.Target, opMove, scheduleArgs{Ref: ref, Nominal: nominal, To: to})
	return err
}

// RedriveDeadLetter fires a dead letter again.
func (m *Member) RedriveDeadLetter(ctx context.Context, ref nola.ScheduleRef, number uint64) (nola.Occurrence, error) {
	return ask(ctx, m, ref.Target, opRedrive, scheduleArgs{Ref: ref, Number: number})
}
