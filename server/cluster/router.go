package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	peerv1 "github.com/nolaproject/nola/proto/nola/peer/v1"
	"github.com/nolaproject/nola/shard"
)

// How a request finds the owner of its shard.
const (
	// routeTries is how often it is asked again, once it may be known better who owns
	// the shard.
	routeTries = 2
	// refreshWait is how long that look may take.
	refreshWait = 250 * time.Millisecond
	// movingRetry is what callers are told to wait while a shard has no owner.
	movingRetry = 50 * time.Millisecond
)

// route says who serves a shard, as far as this node knows.
type route struct {
	epoch nola.Epoch
	node  string // or who shall have it; empty: nobody
}

func (m *Member) shardOf(ref nola.ActorRef) nola.ShardID { return nola.ShardOf(ref, len(m.routes)) }

// learn takes in who serves a shard. A later epoch wins.
func (m *Member) learn(id nola.ShardID, owner *peerv1.Owner) {
	if owner != nil {
		m.route(id, route{nola.Epoch(owner.GetEpoch()), owner.GetNode()}, false)
	}
}

// route takes in a route. read says that it comes from the shard's row, which
// knows better than hints of the same epoch.
func (m *Member) route(id nola.ShardID, r route, read bool) {
	at := &m.routes[id]
	for {
		old := at.Load()
		if old != nil && (r.epoch < old.epoch || r.epoch == old.epoch && !read || *old == r) {
			return
		}
		if at.CompareAndSwap(old, &r) {
			return
		}
	}
}

// at does something at the owner of a shard: here if that is this node, otherwise
// there. Neither may have done anything when it answers SHARD_MOVING or NO_OWNER. It
// waits for another owner until ctx ends.
func (m *Member) at(ctx context.Context, id nola.ShardID, here func() error, there func(*link) error) error {
	for try := 0; ; try++ {
		var err error
		was := m.routes[id].Load()
		if m.shards.Serving(id) != 0 {
			err = here()
		} else if l, found := m.linkTo(id); found {
			err = there(l)
		} else {
			err = errNoOwner(id)
		}
		if err == nil || try == routeTries || !moved(err) || !m.settle(ctx, id, was) {
			return err
		}
	}
}

// moved reports whether a request has missed the owner, and was not executed.
func moved(err error) bool {
	var e *nola.Error
	return errors.As(err, &e) && (e.Reason == nola.ReasonShardMoving || e.Reason == nola.ReasonNoOwner)
}

func errNoOwner(id nola.ShardID) error {
	e := nola.Errorf(nola.ReasonNoOwner, "no node serves shard %d at the moment; it was not executed, try again", id)
	e.RetryAfter = movingRetry
	return e
}

// linkTo is the way to the owner of a shard.
func (m *Member) linkTo(id nola.ShardID) (*link, bool) {
	r := m.routes[id].Load()
	if r == nil || r.node == "" {
		return nil, false
	}
	return m.linkOf(r.node)
}

// linkOf is the way to a node.
func (m *Member) linkOf(node string) (*link, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.links[node]; l != nil {
		return l, true
	}
	row, known := m.peers[node]
	if !known || m.ended {
		return nil, false
	}
	l := newLink(row, m.cfg.Token, m.cluster, m.cfg.TLS)
	m.links[node] = l
	return l, true
}

// settle waits until it may be known better who owns a shard than was says: for the end of
// a step of it here, otherwise, unless somebody has said who owns it, for another look at the directory. It
// reports whether there was one of these.
func (m *Member) settle(ctx context.Context, id nola.ShardID, was *route) bool {
	return m.await(ctx, id) || m.routes[id].Load() != was || m.refresh(ctx)
}

// refresh waits for a look at the rows of the directory that begins from now on.
// It reports whether there was one.
func (m *Member) refresh(ctx context.Context) bool {
	m.mu.Lock()
	next := m.look
	m.mu.Unlock()
	m.poke()
	timer := time.NewTimer(refreshWait)
	defer timer.Stop()
	select {
	case <-next:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func request[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, askTimeout)
}

// Invoke runs a call at the owner of its actor and answers when its effects are
// durable.
func (m *Member) Invoke(ctx context.Context, inv *nola.Invocation) (result nola.Result, err error) {
	wait, cancel := m.within(ctx, inv)
	defer cancel()
	err = m.at(wait, m.shardOf(inv.Target), func() error {
		attempt := *inv
		result, err = m.shards.Invoke(ctx, &attempt)
		return err
	}, func(l *link) error {
		f, err := m.forward(l, inv)
		if err == nil {
			result, err = m.land(ctx, f, inv)
		}
		return err
	})
	return result, err
}

// within ends with the deadline of a call, which may be nearer than that of ctx.
func (m *Member) within(ctx context.Context, inv *nola.Invocation) (context.Context, context.CancelFunc) {
	if inv.Deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, inv.Deadline.Sub(m.cfg.Now()))
}

// Begin puts a call into the mailbox of its actor, wherever that is: calls begun
// one after another reach an actor in that order, unless its shard moves
// meanwhile.
func (m *Member) Begin(ctx context.Context, inv *nola.Invocation, done func(nola.Result, error)) (err error) {
	id := m.shardOf(inv.Target)
	was := m.routes[id].Load()
	landed := func(result nola.Result, err error) {
		if err == nil || !moved(err) {
			done(result, err)
			return
		}
		go func() { // bounded by the calls that the caller has begun
			wait, cancel := m.within(ctx, inv)
			defer cancel()
			if m.settle(wait, id, was) {
				result, err = m.Invoke(ctx, inv)
			}
			done(result, err)
		}()
	}
	if m.shards.Serving(id) != 0 {
		attempt := *inv
		err = m.shards.Begin(ctx, &attempt, landed)
	} else if l, found := m.linkTo(id); found {
		var f *flight
		if f, err = m.forward(l, inv); err == nil {
			go func() { landed(m.land(ctx, f, inv)) }()
		}
	} else {
		err = errNoOwner(id)
	}
	if err != nil && moved(err) {
		landed(nola.Result{}, err)
		return nil
	}
	return err
}

// forward sends a call to the owner of its actor.
func (m *Member) forward(l *link, inv *nola.Invocation) (*flight, error) {
	attempt := *inv
	now := m.cfg.Now()
	if attempt.Deadline.IsZero() {
		attempt.Deadline = now.Add(nola.CallTimeoutDefault)
	}
	attempt.Kind = nola.KindCall
	return l.begin(m.shardOf(inv.Target), invocationMessage(now, &attempt))
}

// land waits for the answer of a call that was sent. Its deadline is the owner's
// to keep.
func (m *Member) land(ctx context.Context, f *flight, inv *nola.Invocation) (nola.Result, error) {
	var r *peerv1.Result
	select {
	case r = <-f.done:
	case <-ctx.Done():
		f.cancel()
		patience := time.NewTimer(cancelWait)
		defer patience.Stop()
		select {
		case r = <-f.done:
		case <-patience.C:
			return nola.Result{ID: inv.ID}, nola.Errorf(nola.ReasonOutcomeUnknown, "the caller's wait ended (%v) before node %s, which serves the shard, answered; it may have happened: ask with the key of the call", ctx.Err(), f.flow.l.name)
		}
	}
	result := nola.Result{Payload: r.GetPayload(), Replayed: r.GetReplayed()}
	copy(result.ID[:], r.GetId())
	if r.GetError() != nil {
		m.learn(m.shardOf(inv.Target), r.GetError().GetOwner())
		return result, errorOf(r.GetError())
	}
	return result, nil
}

// cancelWait is how long the owner may take to say what became of a call whose
// caller has left.
const cancelWait = 100 * time.Millisecond

// Deliver brings casts to the shard that they are for, and sets d.Taken.
func (m *Member) Deliver(ctx context.Context, d *shard.Delivery) error {
	return m.at(ctx, d.To, func() error {
		here := shard.Delivery{From: d.From, To: d.To, Epoch: d.Epoch, Rows: d.Rows}
		err := m.shards.Deliver(ctx, &here)
		d.Taken = here.Taken
		return err
	}, func(l *link) error {
		return m.deliverTo(ctx, l, d)
	})
}

// deliverTo sends as many casts at once as fit into a message. What was taken stays
// taken if a later message fails.
func (m *Member) deliverTo(ctx context.Context, l *link, d *shard.Delivery) error {
	d.Taken = make([]bool, len(d.Rows))
	now := m.cfg.Now()
	for first := 0; first < len(d.Rows); {
		req := &peerv1.DeliverRequest{From: uint32(d.From), To: uint32(d.To), Epoch: uint64(d.Epoch)}
		bytes := 0
		for _, row := range d.Rows[first:] {
			bytes += len(row.Invocation.Payload)
			if len(req.GetRows()) > 0 && bytes > batchBytesMax {
				break
			}
			req.Rows = append(req.Rows, &peerv1.DeliverRequest_Row{Number: row.Number, Invocation: invocationMessage(now, row.Invocation)})
		}
		if err := m.deliverSome(ctx, l, req, d.Taken[first:]); err != nil {
			if first > 0 {
				return nil // the rest is sent again as refused
			}
			return err
		}
		first += len(req.GetRows())
	}
	return nil
}

func (m *Member) deliverSome(ctx context.Context, l *link, req *peerv1.DeliverRequest, taken []bool) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	res, err := l.client.Deliver(ctx, request(req))
	switch {
	case err != nil:
		return l.failed(err, false) // the receiver takes each number once
	case res.Msg.GetError() != nil:
		m.learn(nola.ShardID(req.GetTo()), res.Msg.GetError().GetOwner())
		return errorOf(res.Msg.GetError())
	case len(res.Msg.GetTaken()) != len(req.GetRows()):
		return nola.Errorf(nola.ReasonInternal, "node %s answered %d casts of %d", l.name, len(res.Msg.GetTaken()), len(req.GetRows()))
	}
	copy(taken, res.Msg.GetTaken())
	return nil
}

// TailLogs follows an actor's log at its owner, until ctx ends or the shard moves.
func (m *Member) TailLogs(ctx context.Context, ref nola.ActorRef, limit int, fn func(nola.LogRecord) error) error {
	return m.at(ctx, m.shardOf(ref), func() error {
		return m.shards.TailLogs(ctx, ref, limit, fn)
	}, func(l *link) error {
		stream, err := l.client.Tail(ctx, request(&peerv1.TailRequest{Actor: actorMessage(ref), Limit: uint32(limit)}))
		if err != nil {
			return l.failed(err, false)
		}
		defer func() { _ = stream.Close() }() // what it has to say, Err says
		for stream.Receive() {
			if e := stream.Msg().GetError(); e != nil {
				return errorOf(e)
			}
			for _, line := range stream.Msg().GetEntries() {
				rec := nola.LogRecord{Time: moment(line.GetTime()), Level: line.GetLevel(), Message: line.GetMessage()}
				copy(rec.Invocation[:], line.GetInvocation())
				if err := fn(rec); err != nil {
					return err
				}
			}
		}
		if err := stream.Err(); err != nil && ctx.Err() == nil {
			return l.failed(err, false)
		}
		return ctx.Err()
	})
}

// Advance moves virtual time, which a cluster does not have.
func (m *Member) Advance(ctx context.Context, to time.Time) (time.Time, error) {
	return m.shards.Advance(ctx, to)
}

// Shards describes the shards that this node serves.
func (m *Member) Shards() []nola.ShardInfo { return m.shards.Shards() }

// TypeUsage is what the turns of each type of actors have cost on this node.
func (m *Member) TypeUsage() []nola.Usage { return m.shards.TypeUsage() }

// ActorUsage is the same of the actors whose turns have taken most steps.
func (m *Member) ActorUsage() []nola.Usage { return m.shards.ActorUsage() }

// UsageSince is since when this node counts them.
func (m *Member) UsageSince() time.Time { return m.shards.UsageSince() }

// Reads is the store as seen from any node: rows are read where their shard is
// served, for only its owner has them as they were last committed.
func (m *Member) Reads(store persistence.Store) persistence.Store { return &reads{store, m} }

type reads struct {
	persistence.Store
	m *Member
}

// Get implements persistence.Store.
func (r *reads) Get(row persistence.Row) (value []byte, found bool, err error) {
	ctx, cancel := context.WithTimeout(r.m.ctx, askTimeout)
	defer cancel()
	err = r.m.at(ctx, row.Shard, func() error {
		if value, found, err = r.Store.Get(row); err == nil {
			err = r.m.confirm(row.Shard)
		}
		return err
	}, func(l *link) error {
		rows, _, err := r.page(ctx, l, &peerv1.ReadRequest{Shard: uint32(row.Shard), Table: uint32(row.Table), Actor: actorMessage(row.Actor), Key: row.Key})
		if found = len(rows) > 0; found {
			value = rows[0].GetValue()
		}
		return err
	})
	return value, found, err
}

// Scan implements persistence.Store.
func (r *reads) Scan(rg persistence.Range, fn func(key, value []byte) bool) error {
	ctx, cancel := context.WithTimeout(r.m.ctx, askTimeout)
	defer cancel()
	for {
		var rows []*peerv1.StoredRow
		var more bool
		err := r.m.at(ctx, rg.Shard, func() (err error) {
			if rows, more, err = scanPage(r.Store, rg); err == nil {
				err = r.m.confirm(rg.Shard)
			}
			return err
		}, func(l *link) (err error) {
			rows, more, err = r.page(ctx, l, &peerv1.ReadRequest{
				Shard: uint32(rg.Shard), Table: uint32(rg.Table), Actor: actorMessage(rg.Actor),
				Range: &peerv1.ReadRequest_Range{From: rg.From, To: rg.To, Reverse: rg.Reverse},
			})
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !fn(row.GetKey(), row.GetValue()) {
				return nil
			}
		}
		if !more || len(rows) == 0 {
			return nil
		}
		last := rows[len(rows)-1].GetKey()
		if rg.Reverse {
			rg.To = last
		} else {
			rg.From = append(slices.Clone(last), 0)
		}
	}
}

func (r *reads) page(ctx context.Context, l *link, req *peerv1.ReadRequest) (rows []*peerv1.StoredRow, more bool, err error) {
	res, err := l.client.Read(ctx, request(req))
	switch {
	case err != nil:
		return nil, false, l.failed(err, false)
	case res.Msg.GetError() != nil:
		r.m.learn(nola.ShardID(req.GetShard()), res.Msg.GetError().GetOwner())
		return nil, false, errorOf(res.Msg.GetError())
	}
	return res.Msg.GetRows(), res.Msg.GetMore(), nil
}

// The size of a page of rows.
const (
	pageRowsMax  = 512
	pageBytesMax = 1 << 20
)

func scanPage(store persistence.Store, rg persistence.Range) (rows []*peerv1.StoredRow, more bool, err error) {
	bytes := 0
	err = store.Scan(rg, func(key, value []byte) bool {
		if more = len(rows) == pageRowsMax || len(rows) > 0 && bytes+len(value) > pageBytesMax; more {
			return false
		}
		bytes += len(key) + len(value)
		rows = append(rows, &peerv1.StoredRow{Key: slices.Clone(key), Value: slices.Clone(value)})
		return true
	})
	return rows, more, err
}

// confirm reports whether what was just read here was the newest: the shard is
// still served and the lease trusted.
func (m *Member) confirm(id nola.ShardID) error {
	if m.shards.Serving(id) != 0 && m.Trusted() {
		return nil
	}
	e := nola.Errorf(nola.ReasonShardMoving, "shard %d is moving to another owner; nothing was read, try again", id)
	e.RetryAfter = movingRetry
	return e
}
