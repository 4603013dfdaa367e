package core

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/scheduler"
)

// dueIndex is the start of the shard's due index in memory: everything up to a
// position that moves ahead of the clock. What lies behind it stays on disk.
//
// Rows are brought about in the order of time, but for those of a namespace with as
// many due turns as it may have: they wait here, where they cost least, and hold up
// nobody else's.
type dueIndex struct {
	spaces  spaceHeap            // those with rows whose time may come
	byName  map[string]*dueSpace // those with rows or due turns
	locals  localHeap
	bytes   int         // payloads of rows
	turnMax int         // due turns of a namespace, while they end
	full    []*dueSpace // have come to have too many in this step
	flying  int         // rows that were popped, whose invocations wait or run
	rows    dueRows
	pos     persistence.DueRow // rows up to here, inclusive, are in memory
	loading bool
	// recent are changes behind pos that a scan may have missed or may find
	// undone: those of groups that were not committed when it began.
	recent []dueChange
	serial uint64
}

// dueSpace is what a namespace has in the index.
type dueSpace struct {
	name    string
	rows    rowHeap
	first   dueOrder // of rows
	index   int      // among spaces; -1 if there are no rows, or the namespace is busy
	turns   int      // due ones that wait to begin, or run
	last    *Turn    // where the one is that was given last
	number  uint64   // of it
	loads   int      // what is read from the store for such turns to begin
	most    int      // so many there may be, of both
	sated   bool     // has had as many, and still has more than half of them
	ended   uint64   // how many have ended
	watched bool     // there is something to come back for
}

// duePatience is how long a namespace keeps its due turns while none of them ends: if
// all have begun by then it gets twice as many, since they may wait for what is due
// behind them. As soon as one ends it gets no new ones until it has no more than it may.
const duePatience = 100 * time.Millisecond

// localDue is what the shard wants to do later, and no crash needs to survive.
type localDue struct {
	dueOrder
	call   *Call       // to be stepped in again
	act    *Activation // whose backlog is to be read again
	stream *outStream  // to be pumped again
	sched  *schedule   // whose operations that were put off go on
	row    persistence.DueRow
	load   bool          // the due index itself
	space  *dueSpace     // has so many turns that its rows wait
	ended  uint64        // of its turns, by then
	wake   nola.ActorRef // has a backlog from an earlier tenure
}

type dueKey struct {
	kind persistence.DueKind
	ref  nola.ActorRef
	name string
}

type dueChange struct {
	seq nola.Seq
	key dueKey
	row *persistence.DueRow // nil: removed
}

func keyOf(r persistence.DueRow) dueKey { return dueKey{r.Kind, r.Target, r.Name} }

// compareDue orders rows as their keys are ordered.
func compareDue(x, y persistence.DueRow) int {
	if c := x.Due.Compare(y.Due); c != 0 {
		return c
	}
	if x.Target != y.Target {
		return bytes.Compare(x.Target.AppendCanonical(nil), y.Target.AppendCanonical(nil))
	}
	return cmp.Or(cmp.Compare(x.Kind, y.Kind), strings.Compare(x.Name, y.Name))
}

func (d *dueIndex) init(limits Limits) {
	d.turnMax = limits.DueTurnsMax
	d.byName = make(map[string]*dueSpace)
	d.after(time.Unix(0, 1), &localDue{load: true})
}

func (d *dueIndex) len() int { return d.rows.n }

// first tells what is due first: the first row of a namespace, or, if that is nil,
// the first of locals. Nothing of the index itself is while full; ok is false if there
// is nothing.
func (d *dueIndex) first(full bool) (o dueOrder, sp *dueSpace, ok bool) {
	rows := !full && len(d.spaces) > 0
	switch {
	case len(d.locals) == 0 && !rows:
		return dueOrder{}, nil, false
	case !rows || len(d.locals) > 0 && d.locals[0].before(d.spaces[0].first):
		return d.locals[0].dueOrder, nil, true
	}
	return d.spaces[0].first, d.spaces[0], true
}

func (d *dueIndex) space(name string) *dueSpace {
	sp := d.byName[name]
	if sp == nil {
		sp = &dueSpace{name: name, index: -1, most: d.turnMax}
		d.byName[name] = sp
	}
	return sp
}

// place puts a namespace that has changed where it belongs.
func (d *dueIndex) place(sp *dueSpace) {
	if len(sp.rows) > 0 {
		sp.first = d.rows.order(sp.rows[0])
	}
	sp.sated = sp.busy()
	switch waits := len(sp.rows) > 0 && !sp.busy(); {
	case waits && sp.index < 0:
		heap.Push(&d.spaces, sp)
	case waits:
		heap.Fix(&d.spaces, sp.index)
	case sp.index >= 0:
		heap.Remove(&d.spaces, sp.index)
	}
	if len(sp.rows) == 0 && sp.turns+sp.loads == 0 {
		delete(d.byName, sp.name)
	}
	if len(sp.rows) > 0 && sp.busy() && !sp.watched {
		sp.watched = true
		d.full = append(d.full, sp)
	}
}

// busy reports whether the namespace gets no due turns for now. Once it has as many as
// it may it waits for half of them to end: several at a time cost less, for their rows
// are read together.
func (sp *dueSpace) busy() bool {
	n := sp.turns + sp.loads
	return n >= sp.most || sp.sated && n > sp.most/2
}

// Began is asked of the Shell of an activation: whether its turn of that number has
// begun, and does not only wait for its owner to have room for it.
type Began interface {
	// Began is called while the shard steps, and does not wait.
	Began(number uint64) bool
}

// begun reports whether the turn that was given last has begun, or ended.
func (sp *dueSpace) begun() bool {
	if sp.last == nil {
		return false
	}
	a := sp.last.Act
	if !a.running || a.turn.Number != sp.number {
		return true
	}
	shell, ok := a.Shell.(Began)
	return ok && shell.Began(sp.number)
}

// watchDue has the shard come back to namespaces that have come to have too many
// turns.
func (s *Shard) watchDue() {
	d := &s.due
	for _, sp := range d.full {
		d.after(s.now.Add(duePatience), &localDue{space: sp, ended: sp.ended})
	}
	d.full = d.full[:0]
}

// unstick lets a namespace have more turns if none has ended, and the last one, so all
// of them, has begun.
func (d *dueIndex) unstick(sp *dueSpace, ended uint64) {
	sp.watched = false
	if d.byName[sp.name] != sp {
		return
	}
	if sp.busy() && sp.ended == ended && sp.begun() {
		sp.most *= 2
	}
	d.place(sp)
}

// turned counts due turns of a namespace in and out.
func (d *dueIndex) turned(t *Turn, more int) {
	if t.WasDue() {
		sp := d.space(t.Act.ref.Namespace)
		if sp.turns += more; more < 0 {
			sp.ended++
			sp.most = max(d.turnMax, sp.turns+sp.loads)
		} else {
			sp.last, sp.number = t, t.Number
		}
		d.place(sp)
	}
}

// reads counts what is read from the store for due turns of a namespace.
func (d *dueIndex) reads(namespace string, more int) {
	if more != 0 {
		sp := d.space(namespace)
		sp.loads += more
		d.place(sp)
	}
}

// full reports whether so many popped rows are under way that the next ones wait.
func (s *Shard) dueFull() bool { return s.due.flying >= s.limits.DueRunningMax }

// land counts out an invocation that a row of the due index brought about. It
// may be called again.
func (s *Shard) land(c *Call) {
	if c.flies {
		c.flies = false
		s.due.flying--
	}
}

func (s *Shard) takeOff(c *Call) {
	c.flies = true
	s.due.flying++
}

func rowBytes(inv *nola.Invocation) int {
	if inv == nil {
		return 0
	}
	return len(inv.Payload)
}

// after puts something off.
func (d *dueIndex) after(at time.Time, l *localDue) {
	d.serial++
	l.dueOrder = dueOrder{instantOf(at), d.serial}
	heap.Push(&d.locals, l)
}

// set puts a row into memory, at a time that may differ from the row's own.
func (d *dueIndex) set(row persistence.DueRow, at time.Time, seq nola.Seq) {
	r, sp := &d.rows, d.space(row.Target.Namespace)
	id := r.find(&row)
	if id != 0 {
		d.bytes -= rowBytes(r.invocations[id])
		r.setInvocation(id, row.Invocation)
		e := r.slot(id)
		e.due, e.at, e.seq = instantOf(row.Due), instantOf(at), seq
		r.fix(sp.rows, int(e.index), id)
	} else {
		d.serial++
		id = r.add(&row)
		e := r.slot(id)
		e.at, e.seq, e.serial = instantOf(at), seq, d.serial
		r.push(&sp.rows, id)
	}
	d.bytes += rowBytes(row.Invocation)
	d.place(sp)
}

// remove takes the row of that name out of memory, if it is there.
func (d *dueIndex) remove(row persistence.DueRow) {
	if id := d.rows.find(&row); id != 0 {
		d.take(d.space(row.Target.Namespace), id)
	}
}

// take takes a row of a namespace out of memory.
func (d *dueIndex) take(sp *dueSpace, id rowID) persistence.DueRow {
	row := d.rows.get(id)
	d.bytes -= rowBytes(row.Invocation)
	d.rows.pull(&sp.rows, id)
	d.rows.drop(id)
	d.place(sp)
	return row
}

// putDue writes a row of the due index into the open group.
func (s *Shard) putDue(row persistence.DueRow) {
	s.open().batch.PutDue(row)
	d := &s.due
	if compareDue(row, d.pos) <= 0 {
		d.set(row, row.Due, s.openSeq())
		return
	}
	d.recent = append(d.recent, dueChange{seq: s.openSeq(), key: keyOf(row), row: &row})
}

// forgetDue drops a row from memory whose deletion was written into the open
// group.
func (s *Shard) forgetDue(row persistence.DueRow) {
	d := &s.due
	if compareDue(row, d.pos) <= 0 {
		d.remove(row)
		return
	}
	d.recent = append(d.recent, dueChange{seq: s.openSeq(), key: keyOf(row)})
}

// spillDue keeps the rows in memory within their limits: the last ones leave it,
// and are read again when those before them are gone. What a schedule in memory
// knows of itself stays.
func (s *Shard) spillDue() {
	d := &s.due
	if d.loading || d.len() <= s.limits.DueRowsMax && d.bytes <= s.limits.DueBytesMax {
		return
	}
	r := &d.rows
	var ids []rowID
	r.all(func(id rowID) { // in any order: they are sorted below
		if !s.ownsDue(r.get(id)) {
			ids = append(ids, id)
		}
	})
	slices.SortFunc(ids, r.compare)
	n, bytes := 0, 0
	for n < len(ids) && (n == 0 || n < s.limits.DueRowsMax/2 && bytes < s.limits.DueBytesMax/2) {
		bytes += rowBytes(r.invocations[ids[n]])
		n++
	}
	if n >= len(ids) {
		return
	}
	d.pos = r.get(ids[n-1])
	for _, id := range ids[n:] {
		seq := r.slot(id).seq
		row := r.get(id)
		d.take(d.space(row.Target.Namespace), id)
		if seq > s.committed {
			d.recent = append(d.recent, dueChange{seq: seq, key: keyOf(row), row: &row})
		}
	}
	d.pos.Invocation = nil
	d.after(d.pos.Due, &localDue{load: true})
}

// popDue brings about what is due, so much at once. The rest waits for the next
// tick, and so does what becomes due by that, so that others come first.
func (s *Shard) popDue(out *Output) {
	if s.leaving != nil {
		return
	}
	d := &s.due
	last := d.serial
	for range s.limits.DueAtOnce {
		o, sp, ok := d.first(s.dueFull())
		if !ok || o.at.time().After(s.now) || o.serial > last {
			break
		}
		if sp == nil {
			s.popLocal(heap.Pop(&d.locals).(*localDue), out)
		} else {
			s.popRow(d.take(sp, sp.rows[0]), out)
		}
	}
	s.readDue(out)
}

func (s *Shard) popLocal(l *localDue, out *Output) {
	switch {
	case l.call != nil:
		if l.call.origin == fromSchedule {
			p := &l.call.sched.row.Progress
			if s.gone(l.call.sched) || !scheduler.Runs(p, l.call.run) {
				s.land(l.call) // deleted, or taken back meanwhile
				return
			}
			scheduler.Attempting(p, l.call.run)
		}
		l.call.step(s, out)
	case l.act != nil:
		if s.acts[l.act.ref] == l.act {
			s.refill(l.act, out)
			s.runNext(l.act, out)
		}
	case l.stream != nil:
		l.stream.waiting = false
		s.pump(l.stream, out)
	case l.sched != nil:
		s.goOn(l.sched, out)
	case l.space != nil:
		s.due.unstick(l.space, l.ended)
	case l.load:
		// readDue looks anyway.
	case !l.wake.IsZero():
		s.activation(l.wake, out)
	default:
		s.popRow(l.row, out)
	}
}

func (s *Shard) popRow(row persistence.DueRow, out *Output) {
	switch row.Kind {
	case persistence.DueTimer, persistence.DueCast:
		c := &Call{Inv: row.Invocation, origin: fromDue, due: row}
		s.takeOff(c)
		c.step(s, out)
	case persistence.DueSchedule, persistence.DueReminder:
		ref := nola.ScheduleRef{Target: row.Target, ID: row.Name, Reminder: row.Kind == persistence.DueReminder}
		sc := s.schedule(ref, out)
		if sc.loading && !sc.due {
			sc.due = true
			s.due.reads(ref.Target.Namespace, 1)
		}
		s.advance(sc, out)
	case persistence.DueDeferred:
		expireOrder(row).step(s, out)
	case persistence.DueKeyExpiry:
		a := s.activation(row.Target, out)
		in := &expire{act: a}
		if a.loading {
			a.waiting = append(a.waiting, in)
			return
		}
		in.step(s, out)
	}
}

// expire looks for user keys of an actor that may be forgotten.
type expire struct{ act *Activation }

// row is what brings the look about again.
func (in *expire) row() persistence.DueRow {
	return persistence.DueRow{Target: in.act.ref, Kind: persistence.DueKeyExpiry}
}

func (in *expire) step(s *Shard, out *Output) {
	const atOnce = 1000
	s.ask(out, Load{
		Kind: LoadExpired, Ref: in.act.ref, Until: s.now.Add(-nola.UserKeyRetention - userKeyMargin + time.Second), Limit: atOnce, act: in.act,
	})
}

// readDue asks for the next rows when those in memory end soon.
func (s *Shard) readDue(out *Output) {
	d := &s.due
	if d.loading || d.len() > s.limits.DueRowsMax/2 || d.bytes > s.limits.DueBytesMax/2 {
		return
	}
	if d.pos.Due.After(s.now.Add(s.limits.DueWindow / 2)) {
		return
	}
	d.loading = true
	s.ask(out, Load{Kind: LoadDue, After: d.pos, Until: s.now.Add(s.limits.DueWindow), Limit: s.limits.DueMax, Bytes: s.limits.DueBytesMax / 4})
}

func (s *Shard) loadedDue(l *Load, out *Output) {
	d := &s.due
	d.loading = false
	if l.Err != nil {
		d.after(s.now.Add(ioRetry), &localDue{load: true})
		return
	}
	changed := make(map[dueKey]*persistence.DueRow, len(d.recent))
	for _, c := range d.recent {
		changed[c.key] = c.row
	}
	for _, row := range l.Due {
		if _, ok := changed[keyOf(row)]; ok {
			continue
		}
		if s.ownsDue(row) {
			continue
		}
		d.set(row, row.Due, 0)
	}
	d.pos = persistence.DueRow{Due: l.Until}
	if len(l.Due) == l.Limit || l.More {
		d.pos = l.Due[len(l.Due)-1]
	}
	keep := d.recent[:0]
	for _, c := range d.recent {
		switch row := changed[c.key]; {
		case c.row == nil || row != c.row: // removed, or changed again
			if c.seq > s.committed {
				keep = append(keep, c)
			}
		case compareDue(*row, d.pos) <= 0:
			if !s.ownsDue(*row) {
				d.set(*row, row.Due, c.seq)
			}
		default:
			if c.seq > s.committed {
				keep = append(keep, c)
			}
		}
	}
	d.recent = keep
	// Look again when half of the window has passed, or at once if there is more.
	again := d.pos.Due.Add(-s.limits.DueWindow / 2)
	d.after(again, &localDue{load: true})
	for _, sc := range s.lingering {
		sc.lingers = false
		s.evict(sc)
	}
	s.lingering = s.lingering[:0]
	s.popDue(out)
}

// ownsDue reports whether memory knows better than a row when it is due.
func (s *Shard) ownsDue(row persistence.DueRow) bool {
	if row.Kind != persistence.DueSchedule && row.Kind != persistence.DueReminder {
		return false
	}
	sc := s.schedules[nola.ScheduleRef{Target: row.Target, ID: row.Name, Reminder: row.Kind == persistence.DueReminder}]
	return sc != nil && !sc.loading
}

// forgetRecent drops changes that every later scan will see.
func (d *dueIndex) forgetRecent(committed nola.Seq) {
	if d.loading {
		return
	}
	n := 0
	for n < len(d.recent) && d.recent[n].seq <= committed {
		n++
	}
	d.recent = d.recent[n:]
}

// spaceHeap is a container/heap in the order of the first rows.
type spaceHeap []*dueSpace

func (h spaceHeap) Len() int { return len(h) }

func (h spaceHeap) Less(i, j int) bool { return h[i].first.before(h[j].first) }

func (h spaceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *spaceHeap) Push(x any) {
	sp := x.(*dueSpace)
	sp.index = len(*h)
	*h = append(*h, sp)
}

func (h *spaceHeap) Pop() any {
	old := *h
	n := len(old) - 1
	sp := old[n]
	old[n] = nil
	*h = old[:n]
	sp.index = -1
	return sp
}

// localHeap is a container/heap in the order of time, then of arrival.
type localHeap []*localDue

func (h localHeap) Len() int { return len(h) }

func (h localHeap) Less(i, j int) bool { return h[i].before(h[j].dueOrder) }

func (h localHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *localHeap) Push(x any) { *h = append(*h, x.(*localDue)) }

func (h *localHeap) Pop() any {
	old := *h
	n := len(old) - 1
	l := old[n]
	old[n] = nil
	*h = old[:n]
	return l
}
