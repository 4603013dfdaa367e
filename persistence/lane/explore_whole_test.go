package lane

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// The bounds of a wholeWorld.
const (
	wholeShards = 2
	wholeLanes  = 8
	wholeSteps  = 900
)

// wholeRules are the rules that a wholeWorld breaks on purpose.
type wholeRules struct {
	lane  rule
	claim claimRule
	named bool // that no row names a lane may be read before it has ended
}

// wholeOp is a write of the one key of a shard, which an entry has.
type wholeOp struct {
	lane  int // from 0
	seq   Seq
	epoch nola.Epoch
	ts    Timestamp
	done  bool // it is committed
}

// wholeTenure is what a node has of a shard.
type wholeTenure struct {
	own     uint8 // 1 serves it, 2 releases it
	epoch   nola.Epoch
	claimer *Claimer
	release *Releaser
	told    *ShardRow // what an owner has told of a shard that it has passed on
}

type wholeNode struct {
	awake  bool
	lane   int // from 0, or -1
	shards [wholeShards]wholeTenure
	named  [wholeLanes]bool // of each lane: no row names it, as was read
}

// wholeSights counts what random ways came past.
type wholeSights struct {
	done, starts, released, lanes, trimmed int
	// Shards passed on, to lanes that had ended or were trimmed by then, and those taken
	// up as they were told and as their rows said.
	passed, ended, cleared, told, adopted int

	lane laneSights
}

// wholeWorld is the whole protocol: three nodes with a lane each, and another one
// whenever theirs was sealed, as a laneWorld each; two shards, whose writes go in
// one entry; their rows; and a keeper on each node. Nodes fall asleep for a while or
// for ever, and then others recover their lanes; some do so without a reason.
type wholeWorld struct {
	broken wholeRules
	chance *rand.Rand
	mode   Mode
	ring   int
	now    Timestamp
	speed  int // of the store
	lanes  []*laneWorld
	nodes  [3]wholeNode
	rows   [wholeShards]ShardRow
	ops    [wholeShards][]wholeOp
	cells  [replicas][wholeShards]int // the operation that each replica holds, from 1
	work   []claimWork
	bad    string
	seen   *wholeSights
}

func newWholeWorld(broken wholeRules, seed uint64, seen *wholeSights) *wholeWorld {
	w := &wholeWorld{seen: seen, speed: 4, broken: broken, chance: rand.New(rand.NewPCG(seed, 1)), mode: ModeQuorum, ring: 1 + int(seed%modelRing)}
	if seed%3 == 0 {
		w.mode = ModeLWT
	}
	for k := range w.nodes {
		w.nodes[k].awake = true
		w.open(k)
	}
	for s := range w.rows {
		w.rows[s] = ShardRow{Epoch: 1, Lane: laneOf(0)}
		w.nodes[0].shards[s] = wholeTenure{own: 1, epoch: 1}
	}
	return w
}

// open has a node create a lane (headWorld opens that up).
func (w *wholeWorld) open(k int) {
	i := len(w.lanes)
	l := &laneWorld{
		id: laneOf(i), names: "XBC"[k:] + "XBC"[:k], broken: w.broken.lane, lossy: true,
		mode: w.mode, ring: w.ring, final: Undecided, seen: &w.seen.lane,
	}
	l.create()
	w.lanes = append(w.lanes, l)
	w.seen.lanes++
	w.nodes[k].lane = i
}

// owner is the node that writes a lane, and in is the place of a node in its
// recoverers.
func (w *wholeWorld) owner(i int) int    { return strings.IndexByte("XBC", w.lanes[i].names[atX]) }
func (w *wholeWorld) in(i, k int) int    { return strings.IndexByte(w.lanes[i].names, "XBC"[k]) }
func (w *wholeWorld) node(i, in int) int { return strings.IndexByte("XBC", w.lanes[i].names[in]) }

// indexOf is the lane that a row names.
func indexOf(id ID) int { return int(id[0]) - 1 }

func (w *wholeWorld) fault() string { return w.bad }

func (w *wholeWorld) ended(i, k int) bool {
	r := w.lanes[i].rec[w.in(i, k)]
	return r != nil && r.phase == PhaseEnded
}

func (w *wholeWorld) ts(s, op int) Timestamp {
	if op == 0 {
		return 0
	}
	return w.ops[s][op-1].ts
}

func (w *wholeWorld) applied(s, op int) bool {
	n := 0
	for i := range w.cells {
		if w.ts(s, w.cells[i][s]) >= w.ts(s, op) {
			n++
		}
	}
	return n >= 2
}

// moves are those of the store or those of the nodes that are awake.
func (w *wholeWorld) moves() []move[*wholeWorld] {
	w.now++
	if w.chance.IntN(80) == 0 {
		w.nodes[w.chance.IntN(3)].awake = w.chance.IntN(3) > 0
		w.speed = 1 + w.chance.IntN(6)
	}
	all := make([]move[*wholeWorld], 0, 32)
	add := func(do func(w *wholeWorld), label string, args ...any) {
		all = append(all, move[*wholeWorld]{func(w *wholeWorld) {
			do(w)
			w.check()
		}, label, args})
	}
	if w.chance.IntN(8) < w.speed {
		w.storeMoves(add)
	}
	if len(all) == 0 {
		w.processMoves(add)
	}
	if len(all) == 0 {
		for k := range w.nodes {
			add(func(w *wholeWorld) { w.nodes[k].awake = true }, "%c wakes up", "XBC"[k])
		}
	}
	return all
}

func (w *wholeWorld) processMoves(add func(do func(w *wholeWorld), label string, args ...any)) {
	for k := range w.nodes {
		if w.nodes[k].awake {
			w.nodeMoves(k, add)
		}
	}
	for at := range w.work {
		w.workMoves(at, add)
	}
	for i, l := range w.lanes {
		for at := range l.work {
			if w.nodes[w.node(i, l.work[at].by)].awake {
				l.workMoves(at, w.inLane(i, add))
			}
		}
	}
}

// inLane adds the moves of a lane.
func (w *wholeWorld) inLane(i int, add func(do func(w *wholeWorld), label string, args ...any)) func(do func(w *laneWorld), label string, args ...any) {
	return func(do func(w *laneWorld), label string, args ...any) {
		add(func(w *wholeWorld) { do(w.lanes[i]) }, "lane %d of %c: "+label, append([]any{i, w.lanes[i].names[atX]}, args...)...)
	}
}

func (w *wholeWorld) storeMoves(add func(do func(w *wholeWorld), label string, args ...any)) {
	for i, l := range w.lanes {
		l.storeMoves(w.inLane(i, add))
	}
	for s := range w.ops {
		for n := max(1, len(w.ops[s])-4); n <= len(w.ops[s]); n++ {
			op := w.ops[s][n-1]
			l := w.lanes[op.lane]
			if op.seq > l.applicable() && (l.final == Undecided || op.seq > l.final) {
				continue
			}
			for i := range w.cells {
				if w.ts(s, w.cells[i][s]) < op.ts {
					add(func(w *wholeWorld) { w.cells[i][s] = n }, "write %d of shard %d reaches replica %d", n, s, i)
				}
			}
		}
	}
}

func (w *wholeWorld) nodeMoves(k int, add func(do func(w *wholeWorld), label string, args ...any)) {
	n, who := &w.nodes[k], "XBC"[k]
	if n.lane < 0 {
		if len(w.lanes) < wholeLanes {
			add(func(w *wholeWorld) { w.open(k) }, "%c opens a lane", who)
		}
	} else {
		w.laneMoves(k, add)
	}
	for i, l := range w.lanes {
		w.keeperMoves(k, i, add)
		named := w.rows[0].Lane == l.id || w.rows[1].Lane == l.id
		dead := !w.nodes[w.owner(i)].awake || w.nodes[w.owner(i)].lane != i
		if in := w.in(i, k); in != atX && l.rec[in] == nil && (named || dead) && w.chance.IntN(30) == 0 {
			add(func(w *wholeWorld) { w.lanes[i].start(in) }, "%c recovers lane %d", who, i)
		}
	}
	for s := range n.shards {
		w.shardMoves(k, s, add)
	}
}

// laneMoves are those of a node in its own lane.
func (w *wholeWorld) laneMoves(k int, add func(do func(w *wholeWorld), label string, args ...any)) {
	i, who := w.nodes[k].lane, "XBC"[k]
	l := w.lanes[i]
	if l.Sent() < modelEntries && l.room() {
		add(func(w *wholeWorld) { w.send(k) }, "%c sends entry %d", who, l.Sent()+1)
	}
	if l.tables < l.applicable() && w.appliedEntry(i, l.tables+1) {
		add(func(w *wholeWorld) { w.lanes[i].apply() }, "%c knows that entry %d is applied", who, l.tables+1)
	}
	if l.writer.state == StateSealed && l.rec[atX] == nil {
		add(func(w *wholeWorld) { w.lanes[i].start(atX) }, "%c recovers its own lane", who)
	}
	if w.ended(i, k) {
		add(func(w *wholeWorld) {
			w.lanes[i].settle()
			w.nodes[k].lane = -1
			for s := range w.nodes[k].shards {
				w.nodes[k].shards[s] = wholeTenure{told: w.nodes[k].shards[s].told} // it may come late
			}
			for at := range w.work {
				w.work[at].lost = w.work[at].lost || w.work[at].by == k
			}
		}, "%c settles", who)
	}
}

// send makes an entry of writes of some of the node's shards, or of none.
func (w *wholeWorld) send(k int) {
	i := w.nodes[k].lane
	l := w.lanes[i]
	var batches []*persistence.Batch
	for s, own := range w.nodes[k].shards {
		if own.own == 1 && w.chance.IntN(3) > 0 {
			b := new(persistence.Batch)
			b.Reset(nola.ShardID(s), own.epoch, nola.Seq(len(w.ops[s])+1))
			batches = append(batches, b)
		}
	}
	l.append(w.now/8+20*claimWall[k], batches)
	e := l.sent[l.Sent()-1]
	effects, err := e.Effects()
	if err != nil {
		panic(err)
	}
	for _, f := range effects {
		s := f.Batch.Shard
		w.ops[s] = append(w.ops[s], wholeOp{lane: i, seq: e.Seq, epoch: f.Batch.Epoch, ts: f.First})
	}
}

func (w *wholeWorld) appliedEntry(i int, n Seq) bool {
	for s := range w.ops {
		for op, o := range w.ops[s] {
			if o.lane == i && o.seq == n && !w.applied(s, op+1) {
				return false
			}
		}
	}
	return true
}

// keeperMoves clear a lane away.
func (w *wholeWorld) keeperMoves(k, i int, add func(do func(w *wholeWorld), label string, args ...any)) {
	l, who, ended := w.lanes[i], "XBC"[k], w.ended(i, k)
	switch {
	case !w.nodes[k].named[i]:
		if w.rows[0].Lane != l.id && w.rows[1].Lane != l.id && (ended || w.broken.named) {
			add(func(w *wholeWorld) { w.nodes[k].named[i] = true }, "%c reads that no row names lane %d", who, i)
		}
	case !ended:
	case !l.trimmed:
		add(func(w *wholeWorld) {
			w.lanes[i].trimmed = true
			w.seen.trimmed++
		}, "%c trims lane %d", who, i)
	case !l.cut:
		add(func(w *wholeWorld) { w.lanes[i].cut, w.lanes[i].slots = true, [replicas]slots{} }, "%c deletes the slots of lane %d", who, i)
	}
}

// shardMoves are those of a node with a shard.
func (w *wholeWorld) shardMoves(k, s int, add func(do func(w *wholeWorld), label string, args ...any)) {
	n, who, row := &w.nodes[k], "XBC"[k], w.rows[s]
	own := &n.shards[s]
	if n.lane < 0 || w.lanes[n.lane].writer.state != StateOpen {
		return
	}
	switch {
	case own.own == 1:
		if w.chance.IntN(40) == 0 && w.free(k, s) {
			add(func(w *wholeWorld) {
				own := &w.nodes[k].shards[s]
				r, out := w.lanes[n.lane].writer.Release(nola.ShardID(s), own.epoch, "")
				own.own, own.release = 2, r
				w.take(k, out)
			}, "%c releases shard %d", who, s)
		}
		if i := w.chance.IntN(len(w.lanes)); w.chance.IntN(20) == 0 && w.owner(i) != k && (w.free(k, s) || w.broken.claim == claimRulePassApply) {
			add(func(w *wholeWorld) { // what k knows of the others' lanes may be long ago
				own := &w.nodes[k].shards[s]
				r, out := w.lanes[n.lane].writer.Pass(nola.ShardID(s), own.epoch, laneOf(i))
				own.own, own.release = 2, r
				w.take(k, out)
				if w.broken.claim == claimRulePassAnswer {
					w.tell(s, r.to)
				}
			}, "%c passes shard %d to lane %d", who, s, i)
		}
	case own.own == 2:
		if w.broken.claim == claimRuleReleaseAnswer {
			add(func(w *wholeWorld) { w.nodes[k].shards[s].own = 1 }, "%c serves shard %d again", who, s)
		}
	case own.claimer == nil && own.told != nil && own.told.Lane == laneOf(n.lane) && own.epoch < own.told.Epoch:
		add(func(w *wholeWorld) {
			w.takeUp(k, s, *own.told)
			w.seen.told++
		}, "%c takes shard %d up as it is told", who, s)
	case own.claimer == nil && row.Lane == laneOf(n.lane) && own.epoch < row.Epoch:
		add(func(w *wholeWorld) {
			w.takeUp(k, s, row)
			w.seen.adopted++
		}, "%c takes shard %d up, which is its own", who, s)
	case own.claimer == nil && row.Lane != laneOf(n.lane) && (row.Lane.IsZero() || w.ended(indexOf(row.Lane), k)):
		add(func(w *wholeWorld) { w.claim(k, s) }, "%c comes for shard %d", who, s)
	}
}

// takeUp has a node serve a shard whose row names its lane, or did.
func (w *wholeWorld) takeUp(k, s int, row ShardRow) {
	if w.broken.claim != claimRulePassFloor {
		w.lanes[w.nodes[k].lane].own().Raise(row.Floor)
	}
	own := &w.nodes[k].shards[s]
	own.own, own.epoch, own.told = 1, row.Epoch, nil
	w.seen.starts++
}

// tell tells the node that writes a lane of a shard that was passed to it.
func (w *wholeWorld) tell(s int, row ShardRow) {
	w.nodes[w.owner(indexOf(row.Lane))].shards[s].told = &row
}

// free reports whether all that a node has sent for its shard is committed and
// applied.
func (w *wholeWorld) free(k, s int) bool {
	l := w.lanes[w.nodes[k].lane]
	for op, o := range w.ops[s] {
		if o.lane == w.nodes[k].lane && (o.seq > l.writer.committed || !w.applied(s, op+1) && w.broken.claim != claimRuleReleaseApply) {
			return false
		}
	}
	return true
}

func (w *wholeWorld) claim(k, s int) {
	n := &w.nodes[k]
	c := Claim{Shard: nola.ShardID(s), Lane: laneOf(n.lane), Row: w.rows[s]}
	if from := c.Row.Lane; !from.IsZero() {
		i := indexOf(from)
		c.From = w.lanes[i].rec[w.in(i, k)].Result()
		all, err := c.From.ByShard()
		if err != nil {
			panic(err)
		}
		c.Effects = all[c.Shard]
		if w.broken.claim == claimRuleFinalTS {
			c.From.FinalTS = 0
		}
	}
	m, out := NewClaimer(c)
	n.shards[s].claimer = m
	w.take(k, out)
}

func (w *wholeWorld) take(k int, out Output) {
	for _, s := range append(out.Send, out.Again...) {
		w.work = append(w.work, claimWork{by: k, to: s})
	}
}

func (w *wholeWorld) workMoves(at int, add func(do func(w *wholeWorld), label string, args ...any)) {
	job := w.work[at]
	who := "XBC"[job.by]
	awake := w.nodes[job.by].awake
	switch to := job.to.(type) {
	case ApplyEffects:
		s, op := int(to.Effects.Batch.Shard), int(to.Effects.Batch.Seq)
		if awake && (w.applied(s, op) || w.broken.claim == claimRuleApply) {
			add(func(w *wholeWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c has write %d of shard %d applied", who, op, s)
		}
		return
	case ClaimShard:
		if job.acts == 0 {
			add(func(w *wholeWorld) { w.execute(at, to.Shard, to.From, to.To) }, "%c's claim of shard %d, epoch %d, is executed", who, to.Shard, to.To.Epoch)
		}
	case ReleaseShard:
		if job.acts == 0 {
			add(func(w *wholeWorld) { w.execute(at, to.Shard, to.From, to.To) }, "%c's release of shard %d is executed", who, to.Shard)
		}
	}
	switch {
	case !awake:
	case job.acts == 1:
		add(func(w *wholeWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c knows that its %T was applied", who, job.to)
		add(func(w *wholeWorld) { w.answer(at, Answer{Outcome: Unknown}) }, "the answer to %c's %T is lost", who, job.to)
	case job.acts == 2:
		add(func(w *wholeWorld) { w.answer(at, Answer{Outcome: NotApplied, Found: true, Shard: job.row}) }, "%c knows that its %T was not applied", who, job.to)
	}
}

func (w *wholeWorld) execute(at int, s nola.ShardID, from, to ShardRow) {
	job, row := &w.work[at], &w.rows[s]
	job.acts, job.row = 2, *row
	if row.Lane == from.Lane && (row.Epoch == from.Epoch || w.broken.claim == claimRuleEpoch) {
		job.acts = 1
		*row = to
		switch {
		case to.Lane.IsZero():
			w.seen.released++
		case w.owner(indexOf(to.Lane)) != job.by:
			l := w.lanes[indexOf(to.Lane)]
			w.seen.passed++
			if l.final != Undecided {
				w.seen.ended++
			}
			if l.trimmed {
				w.seen.cleared++
			}
		}
	}
}

func shardOf(s Statement) nola.ShardID {
	switch s := s.(type) {
	case ApplyEffects:
		return s.Effects.Batch.Shard
	case ClaimShard:
		return s.Shard
	case ReleaseShard:
		return s.Shard
	}
	panic(fmt.Sprintf("%T is of no shard", s))
}

func (w *wholeWorld) answer(at int, a Answer) {
	job := w.work[at]
	a.To = job.to
	w.work = slices.Delete(w.work, at, at+1)
	if job.lost {
		return
	}
	n := &w.nodes[job.by]
	own := &n.shards[shardOf(job.to)]
	if gives(job.to, laneOf(n.lane)) {
		if own.release == nil { // served again, and lost
			return
		}
		w.take(job.by, own.release.Step(a))
		if own.release.phase == ReleaseGone {
			if row, passed := own.release.Passed(); passed {
				w.tell(int(shardOf(job.to)), row)
			}
			own.own, own.release = 0, nil
		}
		return
	}
	w.take(job.by, own.claimer.Step(a))
	switch own.claimer.phase {
	case ClaimOwned:
		row := own.claimer.Row()
		if w.broken.claim != claimRuleRaise {
			w.lanes[n.lane].own().Raise(row.Floor)
		}
		own.own, own.epoch, own.claimer = 1, row.Epoch, nil
		w.seen.starts++
	case ClaimLost:
		own.claimer = nil
	}
}

// check looks whether a lane is as its recoverers and its writer say, and each
// shard as its owner must see it.
func (w *wholeWorld) check() {
	for i, l := range w.lanes {
		if l.bad != "" && w.bad == "" {
			w.bad = fmt.Sprintf("lane %d: %s", i, l.bad)
		}
	}
	for s := range w.rows {
		w.checkShard(s)
	}
}

func (w *wholeWorld) checkShard(s int) {
	row := w.rows[s]
	for i := range w.ops[s] {
		o := &w.ops[s][i]
		if l := w.lanes[o.lane]; !o.done && o.seq <= max(l.final, l.writer.committed) {
			o.done = true
			w.seen.done++
			if row.Epoch > o.epoch && w.bad == "" {
				w.bad = "a commit is accepted after a later claim of the shard"
			}
		}
	}
	for i := range w.nodes {
		for j := range i {
			a, b := w.nodes[i].shards[s], w.nodes[j].shards[s]
			if a.own != 0 && b.own != 0 && a.epoch == b.epoch && w.bad == "" {
				w.bad = "two nodes have one epoch"
			}
		}
	}
	if row.Lane.IsZero() || w.bad != "" {
		return
	}
	lane := indexOf(row.Lane)
	n := w.nodes[w.owner(lane)]
	if own := n.shards[s]; n.lane != lane || own.own != 1 || own.epoch != row.Epoch {
		return
	}
	last, memory := 0, 0
	for i, o := range w.ops[s] {
		if !o.done {
			continue
		}
		if last == 0 || o.epoch >= w.ops[s][last-1].epoch {
			last = i + 1
		}
		if o.lane == lane && o.epoch == row.Epoch && o.ts >= w.ts(s, memory) {
			memory = i + 1
		}
	}
	for skip := range replicas {
		best := memory
		for i := range w.cells {
			if c := w.cells[i][s]; i != skip && w.ts(s, c) > w.ts(s, best) {
				best = c
			}
		}
		if best != last {
			w.bad = "the owner does not see the last committed write"
		}
	}
}

// TestWanderWhole takes random ways through the whole protocol.
func TestWanderWhole(t *testing.T) {
	var seen wholeSights
	runs := (*deepRuns + 2) / 3 // each is worth more than one of the parts
	deep(t, runs, func(seed uint64) *wholeWorld { return newWholeWorld(wholeRules{}, seed, &seen) }, wholeSteps)
	if l := seen.lane; runs >= 1000 && (seen.starts == 0 || seen.released == 0 || seen.trimmed == 0 || seen.lanes <= 3*runs ||
		seen.passed == 0 || seen.ended == 0 || seen.cleared == 0 || seen.told == 0 || seen.adopted == 0 || seen.done < 10*runs ||
		l.overwritten == 0 || l.lostDecision == 0 || l.reread == 0 || l.ownLane == 0 || l.lostAnswer == 0) {
		t.Errorf("the random ways did not come past all that they should: %+v", seen)
	}
	t.Logf("%+v", seen)
}

// TestWholeRulesMatter breaks rules of lanes, claims and heads, and wants random
// ways through the whole protocol to come past what that leads to.
func TestWholeRulesMatter(t *testing.T) {
	for name, broken := range map[string]wholeRules{
		"an earlier entry is not acknowledged":              {lane: ruleAckInOrder},
		"no seal":                                           {lane: ruleSeal},
		"ring read before the seal":                         {lane: ruleSealFirst},
		"seal seen on one replica":                          {lane: ruleSealQuorum},
		"end decided before the re-write":                   {lane: ruleRewrite},
		"loser does not read again":                         {lane: ruleReread},
		"loser keeps its longer chain":                      {lane: ruleKeepChain},
		"end decided by a plain write":                      {lane: ruleDecideOnce},
		"applied is not carried":                            {lane: ruleCarryApplied},
		"applied before it was committed":                   {lane: ruleApplyCommitted},
		"timestamp of the chain":                            {lane: ruleEveryTimestamp},
		"conditional entry ignores the seal":                {lane: ruleUnsealedCondition},
		"no answer taken as never executed":                 {lane: ruleUnknownStaysOpen},
		"not there yet taken as never executed":             {lane: ruleSerialRead},
		"claim before applying":                             {claim: claimRuleApply},
		"clock is not raised":                               {claim: claimRuleRaise},
		"floor without the end of the lane":                 {claim: claimRuleFinalTS},
		"claim does not ask for the epoch":                  {claim: claimRuleEpoch},
		"release before applying":                           {claim: claimRuleReleaseApply},
		"served again without an answer":                    {claim: claimRuleReleaseAnswer},
		"passed before applying":                            {claim: claimRulePassApply},
		"served before the row says so":                     {claim: claimRulePassAnswer},
		"taken up without the floor":                        {claim: claimRulePassFloor},
		"that no row names the lane is read before it ends": {named: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3000) {
				r := wander(newWholeWorld(broken, seed, new(wholeSights)), seed, wholeSteps)
				if r.fault != "" {
					t.Logf("%s: found in run %d, after %d steps", r.fault, seed+1, len(r.trace))
					return
				}
			}
			t.Error("no promise was broken")
		})
	}
}
