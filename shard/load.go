package shard

import (
	"golang.org/x/sync/errgroup"

	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

const (
	// readsTogether is from how many loads on they are read together.
	readsTogether = 4
	// readsAtOnce is how many loads of one step are under way at once in a store that
	// is reached over the network.
	readsAtOnce = 16
)

// fill reads what the core asks for. It blocks on the store and is called
// without a lock.
func (m *Manager) fill(b *box, loads ...*core.Load) {
	r := m.reader
	if _, local := m.cfg.Store.(persistence.Viewer); !local && len(loads) > 1 {
		var reads errgroup.Group
		reads.SetLimit(readsAtOnce)
		for _, l := range loads {
			reads.Go(func() error { m.fillOne(r, b, l); return nil }) // its error is in the load
		}
		_ = reads.Wait() // as above
		return
	}
	if len(loads) >= readsTogether {
		together, end := r.Together()
		defer end() //nolint:errcheck // what was read was answered with an error of its own
		r = together
	}
	for _, l := range loads {
		m.fillOne(r, b, l)
	}
}

func (m *Manager) fillOne(r persistence.Reader, b *box, l *core.Load) {
	switch l.Kind {
	case core.LoadActor:
		if l.UserKeys, l.Err = r.UserKeys(b.id, l.Ref); l.Err != nil {
			return
		}
		if l.Meta, l.Found, l.Err = r.Meta(b.id, l.Ref); l.Err != nil {
			return
		}
		if l.Meta.KeepsMemory {
			if l.Memory, l.Err = m.memory(b, l.Ref); l.Err != nil {
				return
			}
		}
		if l.Behind {
			l.First, l.Last, _, l.Err = r.BacklogBounds(b.id, l.Ref)
		}
	case core.LoadKey:
		if !l.Key.IsUser() {
			l.Record, l.Found, l.Err = r.SessionSlot(b.id, l.Ref, l.Key)
			return
		}
		if l.Record, l.Found, l.Err = r.UserKey(b.id, l.Ref, l.Key.User); l.Err != nil {
			return
		}
		l.UserKeys, l.Err = r.UserKeys(b.id, l.Ref)
	case core.LoadBacklog:
		l.Backlog, l.Err = r.Backlog(b.id, l.Ref, l.Number, l.Limit, l.Bytes)
	case core.LoadDue:
		m.fillDue(b, l)
	case core.LoadSchedule:
		*l.Row, l.Found, l.Err = r.Schedule(b.id, l.Ref, l.Schedule.Reminder, l.Schedule.ID)
	case core.LoadOutbox:
		l.Outbox, l.Err = r.Outbox(b.id, l.To, l.Number, l.Limit)
	case core.LoadOwned:
		if l.Timers, l.Err = r.Timers(b.id, l.Ref, "", "", l.Limit); l.Err != nil {
			return
		}
		if l.Deferred, l.Err = r.DeferredAll(b.id, l.Ref, l.Limit); l.Err != nil {
			return
		}
		for after := ""; ; {
			rows, err := r.Schedules(b.id, l.Ref, false, after, l.Limit)
			if l.Err = err; err != nil {
				return
			}
			l.Rows = append(l.Rows, rows...)
			if len(rows) < l.Limit {
				break
			}
			after = rows[len(rows)-1].Schedule.ID
		}
		l.Reminders, l.Err = r.Schedules(b.id, l.Ref, true, "", l.Limit)
	case core.LoadExpired:
		if l.Expired, l.Err = r.ExpiredUserKeys(b.id, l.Ref, l.Until, l.Limit); l.Err != nil {
			return
		}
		l.UserKeys, l.Err = r.UserKeys(b.id, l.Ref)
	}
}

// fillDue reads a page of the due index in small steps, as each row may have a
// payload.
func (m *Manager) fillDue(b *box, l *core.Load) {
	const step = 64
	bytes, after := 0, l.After
	for len(l.Due) < l.Limit && bytes < l.Bytes {
		n := min(step, l.Limit-len(l.Due))
		rows, err := m.reader.Due(b.id, after, l.Until, n)
		if l.Err = err; err != nil {
			return
		}
		l.Due = append(l.Due, rows...)
		if len(rows) < n {
			return
		}
		after = rows[n-1]
		for i := range rows {
			if inv := rows[i].Invocation; inv != nil {
				bytes += len(inv.Payload)
			}
		}
	}
	l.More = true
}
