package lane

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// leaseRule is a rule of leases that a history breaks on purpose.
type leaseRule int

const (
	leaseRuleNone   leaseRule = iota
	leaseRuleLapse            // an acknowledgement that comes too late revives the lease
	leaseRuleSend             // the lease counts from the acknowledgement
	leaseRuleMargin           // the keeper keeps it for all of its length, the watcher waits for just that
	leaseRuleFirst            // nothing counts before the first acknowledgement
	leaseRuleBegan            // the watcher counts to the end of its read
	leaseRuleSince            // the lease counts from the first beat, not from when the node was known
	leaseRuleOwn              // the watcher goes by its own length
)

// leaseHistory is a random life of one keeper and one watcher whose clocks differ
// in rate. It answers when the watcher called the node dead and when, in the same
// true time, the lease was held after that; both 0 if all is well. Some watchers have
// a shorter lease themselves.
func leaseHistory(seed uint64, broken leaseRule) (dead, held time.Duration) {
	const length, every = 10 * time.Second, 2 * time.Second
	chance := rand.New(rand.NewPCG(seed, 1))
	upTo := func(d time.Duration) time.Duration { return time.Duration(chance.Int64N(int64(d))) }
	rate := func() float64 { return 0.98 + 0.04*chance.Float64() }
	mine, theirs := rate(), rate()
	local := func(t time.Duration, rate float64) time.Duration { return time.Duration(float64(t) * rate) }

	theirLength := length
	if chance.IntN(4) == 0 {
		theirLength = length / 2
	}
	k, w := NewKeeper("n", length, every, 0), NewWatcher(theirLength)
	said := length
	if broken == leaseRuleOwn {
		said = 0
	}
	if broken == leaseRuleMargin {
		k.length, said = length*100/keepPercent, length*100/watchPercent
	}
	type event struct {
		at     time.Duration
		number uint64 // acknowledged; 0: a tick
	}
	type landed struct {
		at     time.Duration
		number uint64
	}
	var writes []landed
	var spans [][2]time.Duration                  // in which the lease was held
	stall := upTo(22*time.Second) - 2*time.Second // from now on answers are slow or lost
	begins := time.Duration(0)                    // of the beats; the lane can be seen from the start
	if chance.IntN(4) == 0 {
		begins = upTo(15 * time.Second)
	}
	events := []event{{at: begins}}
	for len(events) > 0 && events[0].at < time.Minute {
		e := events[0]
		events = events[1:]
		now := local(e.at, mine)
		if e.number > 0 {
			if broken == leaseRuleLapse && k.phase == LeaseLapsed {
				k.phase, k.until = LeaseHeld, now+1
			}
			if broken == leaseRuleFirst && len(spans) == 0 {
				k.phase, k.until = LeaseStarting, now+1
			}
			for i := range k.open {
				if k.open[i].number == e.number && broken == leaseRuleSend {
					k.open[i].sent = now
				}
			}
			k.Step(now, Answer{To: Beat{Node: "n", Number: e.number}, Outcome: Done})
			if k.Phase(now) == LeaseHeld {
				spans = append(spans, [2]time.Duration{e.at, time.Duration(float64(k.Until()) / mine)})
			}
			continue
		}
		if broken == leaseRuleSince && k.number == 0 {
			k.phase, k.until = LeaseStarting, now+k.kept()
		}
		for range k.Tick(now).Send {
			took := 5*time.Millisecond + upTo(50*time.Millisecond)
			if e.at > stall && chance.IntN(5) > 0 {
				took = upTo(25 * time.Second)
			}
			writes = append(writes, landed{e.at + upTo(took), k.number})
			if e.at <= stall || chance.IntN(3) > 0 {
				events = append(events, event{e.at + took, k.number})
			}
		}
		next := every
		if chance.IntN(20) == 0 {
			next += upTo(15 * time.Second) // the process stands still
		}
		events = append(events, event{at: e.at + next})
		slices.SortStableFunc(events, func(p, q event) int { return int(p.at - q.at) })
	}
	for at := upTo(time.Second); at < 100*time.Second; at += 200*time.Millisecond + upTo(1500*time.Millisecond) {
		took := 5*time.Millisecond + upTo(100*time.Millisecond)
		if chance.IntN(20) == 0 {
			took = upTo(5 * time.Second)
		}
		var number uint64
		for _, l := range writes {
			// A write that has landed before the read began is seen, and one that
			// lands meanwhile may be.
			if l.at <= at || l.at <= at+took && chance.IntN(2) == 0 {
				number = max(number, l.number)
			}
		}
		began := local(at, theirs)
		if theirLength == length {
			w.Expect("n", began) // by its lane; how long its lease is only its row says
		}
		if broken == leaseRuleBegan {
			began = local(at+took, theirs)
		}
		var rows []Sighting
		if number > 0 {
			rows = []Sighting{{Node: "n", Number: number, Lease: said}}
		}
		w.Read(began, local(at+took, theirs), rows)
		if !w.Dead("n") {
			continue
		}
		for _, s := range spans {
			if s[1] > at+took {
				return at + took, s[1]
			}
		}
		return 0, 0
	}
	return 0, 0
}

// TestLeases wants no history in which a node is called dead while its lease is
// held, and wants one for each rule that is broken.
func TestLeases(t *testing.T) {
	for i := range 20 * *deepRuns {
		seed := *deepSeed + uint64(i)
		if dead, held := leaseHistory(seed, leaseRuleNone); dead > 0 {
			t.Fatalf("dead at %v, held until %v\nagain: go test -run '^TestLeases$' -deep 1 -seed %d", dead, held, seed)
		}
	}
	for name, broken := range map[string]leaseRule{
		"a late acknowledgement revives":      leaseRuleLapse,
		"counted from the acknowledgement":    leaseRuleSend,
		"no margin":                           leaseRuleMargin,
		"nothing counts before the first one": leaseRuleFirst,
		"counted to the end of the read":      leaseRuleBegan,
		"counted from the first beat":         leaseRuleSince,
		"the watcher's own length":            leaseRuleOwn,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(400_000) {
				if dead, _ := leaseHistory(seed, broken); dead > 0 {
					t.Logf("found in history %d", seed)
					return
				}
			}
			t.Error("not found")
		})
	}
}

func TestKeeper(t *testing.T) {
	const length, every = 10 * time.Second, 2 * time.Second
	k := NewKeeper("n", length, every, 0)
	if got := k.Phase(time.Second); got != LeaseStarting {
		t.Errorf("before the first beat the lease is %s", got)
	}
	late := NewKeeper("n", length, every, 0)
	if sent := late.Tick(9 * time.Second).Send; late.Phase(9*time.Second) != LeaseLapsed || len(sent) != 0 {
		t.Errorf("a lease whose first beat comes at the end of it is %s, and sends %v", late.Phase(9*time.Second), sent)
	}
	first := k.Tick(0).Send
	if len(first) != 1 || k.Wake() != every || len(k.Tick(every-1).Send) != 0 {
		t.Fatalf("the first beat is %v, the next wanted at %v", first, k.Wake())
	}
	k.Step(time.Second, Answer{To: first[0], Outcome: Done})
	if k.Phase(9*time.Second-1) != LeaseHeld || k.Until() != 9*time.Second {
		t.Errorf("the lease is held until %v", k.Until())
	}
	second := k.Tick(2 * time.Second).Send
	k.Step(3*time.Second, Answer{To: second[0]}) // no answer
	if k.Until() != 9*time.Second {
		t.Errorf("a beat without an answer keeps the lease until %v", k.Until())
	}
	third := k.Tick(4 * time.Second).Send
	k.Step(9*time.Second, Answer{To: third[0], Outcome: Done})
	if k.Phase(9*time.Second) != LeaseLapsed || len(k.Tick(20*time.Second).Send) != 0 {
		t.Error("an acknowledgement at the end of the lease has kept it")
	}
}

func TestKeeperBoundsItsBeats(t *testing.T) {
	k := NewKeeper("n", time.Minute, time.Second, 0)
	sent := 0
	for now := time.Duration(0); now < 20*time.Second; now += time.Second {
		sent += len(k.Tick(now).Send)
	}
	if sent != BeatsMax {
		t.Errorf("%d beats are under way", sent)
	}
}

func TestWatcher(t *testing.T) {
	w := NewWatcher(10 * time.Second)
	w.Expect("gone", 0)
	w.Read(0, time.Second, []Sighting{{Node: "n", Number: 1}})
	for began, dead := range map[time.Duration]string{
		10 * time.Second:         "false false",
		10501 * time.Millisecond: "false true",
		11500 * time.Millisecond: "false true",
		11501 * time.Millisecond: "true true",
	} {
		c := *w
		c.nodes = map[string]*watched{}
		for name, n := range w.nodes {
			same := *n
			c.nodes[name] = &same
		}
		c.Read(began, began+time.Second, []Sighting{{Node: "n", Number: 1}})
		if got := fmt.Sprint(c.Dead("n"), " ", c.Dead("gone")); got != dead {
			t.Errorf("a read that began at %v: dead %s, want %s", began, got, dead)
		}
		c.Read(began+2*time.Second, began+3*time.Second, []Sighting{{Node: "n", Number: 2}})
		if dead == "true true" && !c.Dead("n") {
			t.Error("a dead node came back")
		}
		c.Forget("gone")
		if c.Dead("gone") {
			t.Error("a forgotten node is dead")
		}
	}
	if w.Dead("nobody") {
		t.Error("a node that was never seen is dead")
	}
}

// TestKeeperDoesNotAskToBeWokenForNothing: with as many beats under way as may be a
// driver that sleeps until Wake must not spin.
func TestKeeperDoesNotAskToBeWokenForNothing(t *testing.T) {
	const length, every = 100 * time.Second, time.Second
	k := NewKeeper("n", length, every, 0)
	now, sent := time.Duration(0), 0
	for range BeatsMax + 3 {
		sent += len(k.Tick(now).Send)
		if k.Wake() <= now {
			t.Fatalf("after %d beats at %v it wants to be woken at %v", sent, now, k.Wake())
		}
		now = k.Wake()
	}
	if sent != BeatsMax {
		t.Errorf("%d beats were sent, want %d", sent, BeatsMax)
	}
	k.Step(now, Answer{To: Beat{Node: "n", Number: 1}, Outcome: Done})
	if n := len(k.Tick(now).Send); n != 1 {
		t.Errorf("with room again %d beats were sent", n)
	}
}
