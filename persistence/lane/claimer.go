package lane

import (
	"fmt"

	"github.com/nolaproject/nola"
)

// ClaimPhase is where a claimer stands.
type ClaimPhase uint8

// The phases of a claimer. The last two are final.
const (
	ClaimApplying ClaimPhase = iota // what the dead lane has committed for the shard
	ClaimClaiming                   // until the answer to the claim is definite
	ClaimOwned                      // Row is ours
	ClaimLost                       // Row says who has the shard, as far as was seen
)

var claimNames = [...]string{"applying", "claiming", "owned", "lost"}

// String answers the phase's name.
func (p ClaimPhase) String() string { return claimNames[p] }

// AppliesMax is how many batches a claimer applies at once: all that a ring of
// RingSize can hold of one shard, so that an engine may write of several writes
// to one row the last alone.
const AppliesMax = RingSize

// ByShard answers the effects of the suffix by shard, in order. It fails if a
// newer version wrote the lane: then a node of that version must take the shards.
func (e Ended) ByShard() (map[nola.ShardID][]Effects, error) {
	all := map[nola.ShardID][]Effects{}
	for _, entry := range e.Suffix {
		body := entry.Body
		if spilled := e.Bodies[entry.Seq]; spilled != nil {
			body = spilled
		}
		effects, err := entry.EffectsOf(body)
		if err != nil {
			return nil, fmt.Errorf("lane: entry %d of lane %x: %w", entry.Seq, e.Lane, err)
		}
		for _, f := range effects {
			all[f.Batch.Shard] = append(all[f.Batch.Shard], f)
		}
	}
	return all, nil
}

// Claim says which shard to take over, and from whom.
type Claim struct {
	Shard nola.ShardID
	Node  string // who claims
	Lane  ID     // through which it will commit; its head exists
	// From is the lane of the dead owner, recovered; its zero value takes the shard
	// only if it was released.
	From Ended
	// Effects are those of From for this shard (Ended.ByShard).
	Effects []Effects
	// Overdue takes a shard also if it was released for another node, which has not
	// come for it.
	Overdue bool
	// Row is the row of the shard as it was read, before From was recovered. What else
	// was read of the shard since then holds if the claim succeeds: it is lost once the row
	// has changed.
	Row ShardRow
}

// Claimer takes one shard over. One goroutine at a time uses it; many claimers
// may work side by side.
type Claimer struct {
	claim   Claim
	phase   ClaimPhase
	row     ShardRow
	waiting []Effects // not sent yet
	open    int       // sent and not acknowledged
}

// NewClaimer starts to take a shard over.
func NewClaimer(c Claim) (*Claimer, Output) {
	if c.Lane.IsZero() || c.Lane == c.From.Lane {
		panic(fmt.Sprintf("lane: claim of shard %d with lane %x, from lane %x", c.Shard, c.Lane, c.From.Lane))
	}
	var out Output
	m := &Claimer{claim: c, row: c.Row}
	if !m.free(c.Row) {
		m.phase = ClaimLost
		return m, out
	}
	if !c.Row.Lane.IsZero() {
		// What older tenures left was applied before the shard was claimed from them.
		// Applying it again could bring back what was deleted, and whose deletion the
		// store has forgotten.
		for _, f := range c.Effects {
			if f.Batch.Epoch == c.Row.Epoch {
				m.waiting = append(m.waiting, f)
			}
		}
	}
	m.apply(&out)
	return m, out
}

// Phase answers where the claimer stands.
func (c *Claimer) Phase() ClaimPhase { return c.phase }

// Row is the row of the shard as last seen. If the shard is owned, raise the
// lane's clock to its floor (Writer.Raise) before the first batch.
func (c *Claimer) Row() ShardRow { return c.row }

// LastSeq is the number of the shard's last batch in what was applied, 0 if there
// was none: then the tables say it. What the lane has of earlier epochs says
// nothing, as others may have owned the shard since. The shard must be owned.
func (c *Claimer) LastSeq() nola.Seq {
	var last nola.Seq
	for _, f := range c.claim.Effects {
		if f.Batch.Epoch == c.row.Epoch-1 {
			last = max(last, f.Batch.Seq)
		}
	}
	return last
}

// Step takes an answer in.
func (c *Claimer) Step(a Answer) Output {
	var out Output
	switch to := a.To.(type) {
	case ApplyEffects:
		c.applied(a, &out)
	case ClaimShard:
		c.claimed(to, a, &out)
	default:
		panic(fmt.Sprintf("lane: a claimer got the answer to a %T", to))
	}
	return out
}

// free reports whether the shard may be claimed from who has it.
func (c *Claimer) free(row ShardRow) bool {
	if row.Lane.IsZero() {
		return row.HandoffTo == "" || row.HandoffTo == c.claim.Node || c.claim.Overdue
	}
	return row.Lane == c.claim.From.Lane
}

func (c *Claimer) apply(out *Output) {
	for len(c.waiting) > 0 && c.open < AppliesMax {
		out.send(ApplyEffects{Effects: c.waiting[0]})
		c.waiting = c.waiting[1:]
		c.open++
	}
	if c.open > 0 {
		return
	}
	c.phase = ClaimClaiming
	to := ShardRow{Epoch: c.row.Epoch + 1, Lane: c.claim.Lane, Floor: c.row.Floor}
	if !c.row.Lane.IsZero() {
		to.Floor = max(to.Floor, c.claim.From.FinalTS)
	}
	out.send(ClaimShard{Shard: c.claim.Shard, From: c.row, To: to})
}

func (c *Claimer) applied(a Answer, out *Output) {
	if a.Outcome != Done {
		out.again(a.To)
		return
	}
	c.open--
	c.apply(out)
}

// claimed knows that this epoch together with this lane is written by our claim, or by
// an owner that has passed the shard to us: a row that has both is ours, however the
// answer reads. The floor of the claim does in both cases: whoever passes a shard had all
// it has written for it in its lane, which was recovered for the claim.
func (c *Claimer) claimed(to ClaimShard, a Answer, out *Output) {
	switch {
	case a.Outcome == Unknown || a.Outcome == Refused:
		out.again(to)
	case a.Outcome == Done || a.Found && a.Shard.Epoch == to.To.Epoch && a.Shard.Lane == to.To.Lane:
		c.phase, c.row = ClaimOwned, to.To
	default:
		c.phase, c.row = ClaimLost, a.Shard
	}
}

// ReleasePhase is where a releaser stands.
type ReleasePhase uint8

// The phases of a releaser. The last two are final.
const (
	ReleaseOpen ReleasePhase = iota // until the answer is definite: the shard is not served
	ReleaseGone                     // the shard is not ours any more
	ReleaseKept                     // the release was never executed: the shard may be served again
)

var releaseNames = [...]string{"open", "gone", "kept"}

// String answers the phase's name.
func (p ReleasePhase) String() string { return releaseNames[p] }

// Releaser gives one shard away. One goroutine at a time uses it.
type Releaser struct {
	to      ShardRow
	phase   ReleasePhase
	passed  bool
	unknown bool // a copy may still be executed
}

// Release gives a shard of this lane away, to a node or, if that is empty, to
// any. From before this call on the shard is not served, and a quorum has the effects
// of all that the lane has committed for it.
func (w *Writer) Release(shard nola.ShardID, epoch nola.Epoch, to string) (*Releaser, Output) {
	var out Output
	r := &Releaser{to: ShardRow{Epoch: epoch, HandoffTo: to, Floor: w.clock}}
	out.send(ReleaseShard{Shard: shard, From: ShardRow{Epoch: epoch, Lane: w.lane}, To: r.to})
	return r, out
}

// Pass gives a shard of this lane to the lane of another node, which owns it from then
// on: it is the claim of that node, made for it. What holds for Release holds before
// this call. The lane that is named may have ended meanwhile, or be trimmed: then the
// shard is taken from it like from any other.
func (w *Writer) Pass(shard nola.ShardID, epoch nola.Epoch, to ID) (*Releaser, Output) {
	if to.IsZero() || to == w.lane {
		panic(fmt.Sprintf("lane: shard %d is passed from lane %x to lane %x", shard, w.lane, to))
	}
	var out Output
	r := &Releaser{to: ShardRow{Epoch: epoch + 1, Lane: to, Floor: w.clock}}
	out.send(ClaimShard{Shard: shard, From: ShardRow{Epoch: epoch, Lane: w.lane}, To: r.to})
	return r, out
}

// Phase answers where the releaser stands.
func (r *Releaser) Phase() ReleasePhase { return r.phase }

// Passed reports whether the row is known to have named the lane that the shard was
// passed to, and answers what it said. That lane owns the shard under this epoch,
// unless it has given it on or was sealed since.
func (r *Releaser) Passed() (ShardRow, bool) { return r.to, r.passed }

// Step takes an answer in.
func (r *Releaser) Step(a Answer) Output {
	var out Output
	var from ShardRow
	switch to := a.To.(type) {
	case ReleaseShard:
		from = to.From
	case ClaimShard:
		from = to.From
	default:
		panic(fmt.Sprintf("lane: a releaser got the answer to a %T", a.To))
	}
	is := func(row ShardRow) bool { return a.Found && a.Shard.Epoch == row.Epoch && a.Shard.Lane == row.Lane }
	switch {
	case a.Outcome == Done || a.Outcome == NotApplied && !is(from):
		r.phase = ReleaseGone
		// Whoever wrote this epoch together with this lane, it owns the shard by it.
		r.passed = !r.to.Lane.IsZero() && (a.Outcome == Done || is(r.to))
	case a.Outcome == Refused && !r.unknown:
		r.phase = ReleaseKept
	default:
		r.unknown = r.unknown || a.Outcome == Unknown
		out.again(a.To)
	}
	return out
}
