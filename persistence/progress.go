package persistence

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	storev1 "github.com/nolaproject/nola/proto/nola/store/v1"
)

func encodeProgress(b []byte, p *nola.Progress, records uint64) []byte {
	m := &storev1.Progress{
		Through: stamp(p.Through), Due: stamp(p.Due), Records: records,
		Running: runningMessages(p.Running), Buffer: runningMessages(p.Buffer),
		LateReady: stamp(p.LateReady), FirstTaken: p.FirstTaken, Failures: int64(p.Failures),
		LastResult: p.Carry.Result, LastResultBytes: int64(p.Carry.ResultBytes), LastResultNominal: stamp(p.Carry.ResultNominal),
		LastError: p.Carry.Failure, LastErrorBytes: int64(p.Carry.FailureBytes), LastErrorReason: string(p.Carry.FailureReason),
		LastErrorNominal: stamp(p.Carry.FailureNominal),
		LettersMade:      p.LettersMade, LettersLost: p.LettersLost,
	}
	for _, r := range p.Requests {
		m.Requests = append(m.Requests, r.ID)
		m.RequestTimes = append(m.RequestTimes, timestamppb.New(r.Nominal))
	}
	for _, outcome := range slices.Sorted(maps.Keys(p.Counters)) {
		c := p.Counters[outcome]
		m.Counters = append(m.Counters, &storev1.Counter{Outcome: uint32(outcome), Count: c.Count, First: stamp(c.First), Last: stamp(c.Last)})
	}
	for _, s := range p.Late {
		m.Late = append(m.Late, &storev1.Span{First: stamp(s.First), Last: stamp(s.Last), Count: int64(s.Count)})
	}
	for _, e := range p.Exceptions {
		m.Exceptions = append(m.Exceptions, &storev1.Exception{Nominal: stamp(e.Nominal), Moved: stamp(e.Moved)})
	}
	for i := range p.Backfills {
		m.Backfills = append(m.Backfills, backfillMessage(&p.Backfills[i]))
	}
	for i := range p.DeadLetters {
		l := &p.DeadLetters[i]
		m.DeadLetters = append(m.DeadLetters, &storev1.DeadLetter{
			Number: l.Number, Nominal: stamp(l.Nominal), Kind: uint32(l.Kind), RequestId: l.RequestID,
			Payload: l.Payload, OwnPayload: l.Payload != nil, Reason: string(l.Reason), Error: l.Error,
			Attempts: int64(l.Attempts), Started: stamp(l.Started), Failed: stamp(l.Failed),
		})
	}
	return encodeMessage(b, m)
}

func decodeProgress(value []byte) (p nola.Progress, records uint64, err error) {
	var m storev1.Progress
	if err := decodeMessage("progress", value, &m); err != nil {
		return nola.Progress{}, 0, err
	}
	p = nola.Progress{
		Through: moment(m.Through), Due: moment(m.Due), Running: runningOf(m.Running), Buffer: runningOf(m.Buffer),
		LateReady: moment(m.LateReady), FirstTaken: m.FirstTaken, Failures: int(m.Failures),
		Carry: nola.Carry{
			Result: m.LastResult, ResultBytes: max(int(m.LastResultBytes), len(m.LastResult)), ResultNominal: moment(m.LastResultNominal),
			Failure: m.LastError, FailureBytes: max(int(m.LastErrorBytes), len(m.LastError)), FailureReason: nola.Reason(m.LastErrorReason),
			FailureNominal: moment(m.LastErrorNominal),
		},
		LettersMade: m.LettersMade, LettersLost: m.LettersLost,
	}
	for i, id := range m.Requests {
		r := nola.Request{ID: id}
		if i < len(m.RequestTimes) {
			r.Nominal = moment(m.RequestTimes[i])
		}
		p.Requests = append(p.Requests, r)
	}
	for _, c := range m.Counters {
		if p.Counters == nil {
			p.Counters = make(map[nola.Outcome]nola.Counter, len(m.Counters))
		}
		p.Counters[nola.Outcome(c.Outcome)] = nola.Counter{Count: c.Count, First: moment(c.First), Last: moment(c.Last)}
	}
	for _, s := range m.Late {
		p.Late = append(p.Late, nola.Span{First: moment(s.First), Last: moment(s.Last), Count: int(s.Count)})
	}
	for _, e := range m.Exceptions {
		p.Exceptions = append(p.Exceptions, nola.Exception{Nominal: moment(e.Nominal), Moved: moment(e.Moved)})
	}
	for _, b := range m.Backfills {
		p.Backfills = append(p.Backfills, backfillOf(b))
	}
	for _, l := range m.DeadLetters {
		p.DeadLetters = append(p.DeadLetters, nola.DeadLetter{
			Number: l.Number, Nominal: moment(l.Nominal), Kind: nola.OccurrenceKind(l.Kind), RequestID: l.RequestId,
			Payload: ownPayload(l.Payload, l.OwnPayload), Reason: nola.Reason(l.Reason), Error: l.Error,
			Attempts: int(l.Attempts), Started: moment(l.Started), Failed: moment(l.Failed),
		})
	}
	return p, m.Records, nil
}

func runningMessages(list []nola.Running) []*storev1.Running {
	var out []*storev1.Running
	for i := range list {
		r := &list[i]
		out = append(out, &storev1.Running{
			Nominal:    stamp(r.Nominal),
			Kind:       uint32(r.Kind),
			Started:    stamp(r.Started),
			Attempts:   int64(r.Attempts),
			RequestId:  r.RequestID,
			Payload:    r.Payload,
			OwnPayload: r.Payload != nil,
			Deferred:   r.Deferred,
			Overlap:    uint32(r.Overlap),
			Late:       r.Late,
			RetryAt:    stamp(r.RetryAt),
			Canceled:   r.Canceled,
			Terminated: r.Terminated,
		})
	}
	return out
}

func runningOf(list []*storev1.Running) []nola.Running {
	var out []nola.Running
	for _, r := range list {
		out = append(out, nola.Running{
			Nominal:    moment(r.Nominal),
			Kind:       nola.OccurrenceKind(r.Kind),
			Started:    moment(r.Started),
			Attempts:   int(r.Attempts),
			RequestID:  r.RequestId,
			Payload:    ownPayload(r.Payload, r.OwnPayload),
			Deferred:   r.Deferred,
			Overlap:    nola.Overlap(r.Overlap),
			Late:       r.Late,
			RetryAt:    moment(r.RetryAt),
			Canceled:   r.Canceled,
			Terminated: r.Terminated,
		})
	}
	return out
}

// ownPayload tells a payload of no bytes from none.
func ownPayload(payload []byte, own bool) []byte {
	if own && payload == nil {
		return []byte{}
	}
	return payload
}

func backfillMessage(b *nola.Backfill) *storev1.Backfill {
	return &storev1.Backfill{
		Id: b.ID, Start: stamp(b.Start), End: stamp(b.End), Overlap: uint32(b.Overlap), Rate: int64(b.Rate), Reverse: b.Reverse,
		State: uint32(b.State), Total: int64(b.Total), Started: int64(b.Started), Ok: int64(b.OK), Failed: int64(b.Failed),
		Cursor: stamp(b.Cursor), Ready: stamp(b.Ready), Created: stamp(b.Created), Ended: stamp(b.Ended),
	}
}

func backfillOf(b *storev1.Backfill) nola.Backfill {
	return nola.Backfill{
		ID: b.Id, Start: moment(b.Start), End: moment(b.End), Overlap: nola.Overlap(b.Overlap), Rate: int(b.Rate), Reverse: b.Reverse,
		State: nola.BackfillState(b.State), Total: int(b.Total), Started: int(b.Started), OK: int(b.Ok), Failed: int(b.Failed),
		Cursor: moment(b.Cursor), Ready: moment(b.Ready), Created: moment(b.Created), Ended: moment(b.Ended),
	}
}
