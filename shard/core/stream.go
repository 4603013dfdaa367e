package core

import (
	"slices"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// streams carry casts from this shard to others (and to itself), and remember
// what came from others. The casts of one stream have consecutive numbers; the
// receiver takes each once, in the same commit as what it causes.
type streams struct {
	out map[nola.ShardID]*outStream
	in  map[nola.ShardID]*persistence.InboxRow
}

// outStream is this shard's side of a stream that it sends.
type outStream struct {
	to     nola.ShardID
	next   uint64 // the number that the next cast gets
	read   uint64 // numbers below are in window or acknowledged
	window []outRow
	// newest is an acknowledged row that stays until a newer one exists, so that
	// the numbers go on after a restart; 0 if there is none.
	newest  uint64
	busy    bool // a delivery is under way
	loading bool
	waiting bool // something was refused and is sent again later
	inGroup nola.Seq
	refused int
}

type outRow struct {
	row persistence.OutboxRow
	seq nola.Seq // of the group that holds it
}

func (st *streams) init(o Opened) {
	st.out = make(map[nola.ShardID]*outStream)
	st.in = make(map[nola.ShardID]*persistence.InboxRow)
	for _, x := range o.Outbox {
		st.out[x.To] = &outStream{to: x.To, next: x.Last + 1, read: x.First}
	}
	for _, row := range o.Inbox {
		st.in[row.From] = &row
	}
}

func (st *streams) to(id nola.ShardID) *outStream {
	o := st.out[id]
	if o == nil {
		o = &outStream{to: id, next: 1, read: 1}
		st.out[id] = o
	}
	return o
}

// Resume starts the deliveries that an earlier tenure left undone. It is stepped
// once, after New.
type Resume struct{}

func (*Resume) step(s *Shard, out *Output) {
	for to := range nola.ShardID(s.shards) {
		if st := s.streams.out[to]; st != nil {
			s.pump(st, out)
		}
	}
}

// post writes a cast of a turn into the stream to its target's shard.
func (s *Shard) post(inv *nola.Invocation) {
	st := s.streams.to(nola.ShardOf(inv.Target, s.shards))
	g := s.open()
	row := persistence.OutboxRow{To: st.to, Number: st.next, Invocation: inv}
	st.next++
	g.batch.PutOutbox(row)
	if st.newest != 0 {
		g.batch.DeleteOutbox(st.to, st.newest)
		st.newest = 0
	}
	if st.read == row.Number && len(st.window) < persistence.StreamWindow {
		st.window = append(st.window, outRow{row: row, seq: g.batch.Seq})
		st.read++
	}
	if st.inGroup != g.batch.Seq {
		st.inGroup = g.batch.Seq
		g.sends = append(g.sends, st)
	}
}

// pump sends what is committed and not acknowledged, one delivery at a time.
func (s *Shard) pump(st *outStream, out *Output) {
	if st.busy || st.waiting || s.fenced != nil || s.leaving != nil {
		return
	}
	var rows []persistence.OutboxRow
	for _, r := range st.window {
		if r.seq > s.committed {
			break
		}
		rows = append(rows, r.row)
	}
	if len(rows) > 0 {
		st.busy = true
		out.Sends = append(out.Sends, &Delivery{From: s.id, To: st.to, Epoch: s.epoch, Rows: rows})
		return
	}
	if len(st.window) == 0 && st.read < st.next && !st.loading {
		st.loading = true
		s.ask(out, Load{Kind: LoadOutbox, To: st.to, Number: st.read, Limit: persistence.StreamWindow})
	}
}

func (s *Shard) loadedOutbox(l *Load, out *Output) {
	st := s.streams.out[l.To]
	st.loading = false
	for _, row := range l.Outbox {
		if row.Number < st.read {
			continue
		}
		// A gap was taken out of order before; what is not committed has no
		// committed row behind it.
		st.window = append(st.window, outRow{row: row})
		st.read = row.Number + 1
	}
	if len(st.window) == 0 && st.read < st.next {
		st.waiting = true
		s.due.after(s.now.Add(ioRetry/10), &localDue{stream: st})
		return
	}
	s.pump(st, out)
}

// Delivery is a group of casts on its way from one shard to another. The
// receiving shard answers it once what it took is durable.
type Delivery struct {
	Ticket
	From, To nola.ShardID
	Epoch    nola.Epoch // of the sender
	Rows     []persistence.OutboxRow
	// Taken tells for each row whether it was taken, now or before.
	Taken []bool

	held []*Activation // targets that have to stay in memory
}

// hold has the targets come into memory, and stay there until let. It answers one
// that is not there yet, nil if all are.
func (in *Delivery) hold(s *Shard, box *persistence.InboxRow, out *Output) (missing *Activation) {
	for _, row := range in.Rows {
		if box.Has(row.Number) {
			continue
		}
		a := s.activation(row.Invocation.Target, out)
		if a.held == 0 || !slices.Contains(in.held, a) {
			a.held++
			a.unlist()
			in.held = append(in.held, a)
		}
		if missing == nil && a.loading {
			missing = a
		}
	}
	return missing
}

// let ends hold. Who has got nothing leaves again.
func (in *Delivery) let(s *Shard, out *Output) {
	held := in.held
	in.held = nil
	for _, a := range held {
		a.held--
		s.runNext(a, out)
	}
}

// step takes the casts in, on the receiving side.
func (in *Delivery) step(s *Shard, out *Output) {
	if err := s.shut(); err != nil {
		in.let(s, out)
		s.refuse(&in.Ticket, err, out)
		return
	}
	box := s.streams.in[in.From]
	if box == nil {
		box = &persistence.InboxRow{From: in.From, Low: 1}
		s.streams.in[in.From] = box
	}
	if in.Epoch < box.Epoch {
		in.let(s, out)
		s.refuse(&in.Ticket, nola.Errorf(nola.ReasonShardMoving, "shard %d has a newer owner than the sender", in.From), out)
		return
	}
	if a := in.hold(s, box, out); a != nil {
		a.waiting = append(a.waiting, in) // and start over then
		return
	}
	defer in.let(s, out)
	in.Taken = make([]bool, len(in.Rows))
	var full map[nola.ActorRef]bool
	before := s.open().batch.Bytes()
	var touched []*Activation
	news := box.Epoch != in.Epoch
	box.Epoch = in.Epoch
	for i, row := range in.Rows {
		inv := row.Invocation
		if box.Has(row.Number) {
			in.Taken[i] = true
			continue
		}
		a := s.acts[inv.Target]
		if full[inv.Target] || !box.Fits(row.Number) || s.backlogRoom(a, inv) != nil {
			// Later casts to the same actor wait behind this one.
			if full == nil {
				full = make(map[nola.ActorRef]bool)
			}
			full[inv.Target] = true
			continue
		}
		s.takeCast(a, inv)
		s.touch(a)
		touched = append(touched, a)
		box.Take(row.Number)
		in.Taken[i] = true
		news = true
	}
	if news {
		s.open().batch.PutInbox(*box)
	}
	seq := s.openSeq()
	if s.open().empty() {
		seq-- // what was taken before may not be durable yet
	}
	s.folded(before)
	s.park(&in.Ticket, seq, out)
	for _, a := range touched {
		s.runNext(a, out)
	}
}

// Delivered brings the receiver's answer back to the sending shard.
type Delivered struct{ Delivery *Delivery }

func (in *Delivered) step(s *Shard, out *Output) {
	d := in.Delivery
	if s.fenced != nil || d.Epoch != s.epoch {
		return
	}
	st := s.streams.out[d.To]
	st.busy = false
	refused := d.Err != nil
	taken := make(map[uint64]bool, len(d.Rows))
	for i, row := range d.Rows {
		if d.Err == nil && d.Taken[i] {
			taken[row.Number] = true
		} else {
			refused = true
		}
	}
	if len(taken) > 0 {
		before := s.open().batch.Bytes()
		b := &s.open().batch
		keep := st.window[:0]
		for _, r := range st.window {
			switch n := r.row.Number; {
			case !taken[n]:
				keep = append(keep, r)
			case n == st.next-1:
				st.newest = n
			default:
				b.DeleteOutbox(st.to, n)
			}
		}
		clear(st.window[len(keep):])
		st.window = keep
		s.folded(before)
	}
	if refused {
		st.refused++
		st.waiting = true
		s.due.after(s.now.Add(min(s.limits.backoff(st.refused)/10, s.limits.BackoffMin)), &localDue{stream: st})
		return
	}
	st.refused = 0
	s.pump(st, out)
}
