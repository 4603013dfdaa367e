package cqlstore_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

const (
	contenders    = 8
	contendShards = 64
)

// TestContendedOnFake has eight stores fight for 64 shards, whose connections are
// held and cut at random, and looks at each lane and epoch what the server saw.
func TestContendedOnFake(t *testing.T) {
	for name, tt := range map[string]struct {
		server cqlfake.Config
		mode   cqlstore.Mode
	}{
		"cassandra, quorum": {cqlfake.Config{}, cqlstore.ModeQuorum},
		"scylla, lwt":       {cqlfake.Config{Flavour: cqlfake.Scylla}, cqlstore.ModeLWT},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := fakeCluster(t, tt.server, contendShards)
			c.Mode, c.Timeout = tt.mode, 250*time.Millisecond
			saw := &witness{ended: map[string]bool{}}
			server.Inject(saw.request)
			contend(t, c, saw)
		})
	}
}

// TestContended is the same on a real Cassandra.
func TestContended(t *testing.T) {
	hosts(t)
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run(string(mode), func(t *testing.T) {
			c := fresh(t, contendShards)
			c.Mode, c.Timeout = mode, 2*time.Second
			contend(t, c, nil)
		})
	}
}

// claimed names one tenure.
type claimed struct {
	shard nola.ShardID
	epoch nola.Epoch
}

// witness is told what a server is about to execute, in that order.
type witness struct {
	mu    sync.Mutex      // guards the field below
	ended map[string]bool // by what the id of a node ends with, which is the start of its lane's
}

func (w *witness) request(r cqlfake.Request) cqlfake.Fault {
	if strings.Contains(r.Statements[0], "SET final_seq = ?") {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended[hex.EncodeToString(r.Values[0][2][:6])] = true
	}
	return cqlfake.None
}

// endedBefore reports whether the end of a node's lane was decided already. What
// is sent between the seal and that may still be found, and be done.
func (w *witness) endedBefore(node string) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended[node[strings.LastIndexByte(node, '#')+1:]]
}

// notary is whom contenders tell what they were told, and ask what others were.
type notary interface {
	// epoch is the greatest epoch of a shard that a claim was answered with.
	epoch(shard nola.ShardID) nola.Epoch
	// ended reports whether the end of a node's lane was decided already.
	ended(node string) bool
	claim(Claimed)
	verdict(Verdict)
}

// Claimed is that a shard was claimed, from a row, when Before was the greatest epoch
// that had been answered as the claim began.
type Claimed struct {
	Node      string
	Before    nola.Epoch
	FromNode  string
	FromEpoch nola.Epoch
	Head      persistence.Head
}

// Verdict is what became of a batch. As its commit began, its lane had ended or not,
// and Before was the greatest epoch that had been answered.
type Verdict struct {
	Shard        nola.ShardID
	Seq          nola.Seq
	Epoch        nola.Epoch
	Done, Fenced bool
	Ended        bool
	Before       nola.Epoch
}

// ledger is what all stores together were told.
type ledger struct {
	t   *testing.T
	saw *witness // of the fake server

	mu     sync.Mutex // guards the fields below
	owners map[claimed]string
	starts map[claimed]nola.Seq
	top    map[nola.ShardID]nola.Epoch // of the claims that were answered
	done   map[nola.ShardID]map[nola.Seq]nola.Epoch
	never  map[nola.ShardID]map[nola.Seq]map[nola.Epoch]bool
	taken  int // from another store
	events int
	held   []*wire
	busy   int // contenders that have rounds left
}

func (l *ledger) epoch(shard nola.ShardID) nola.Epoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.top[shard]
}

func (l *ledger) ended(node string) bool { return l.saw.endedBefore(node) }

func (l *ledger) claim(c Claimed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := c.Head
	at := claimed{h.Shard, h.Epoch}
	if owner, twice := l.owners[at]; twice {
		l.t.Errorf("shard %d: epoch %d was claimed by %s and by %s", h.Shard, h.Epoch, owner, c.Node)
	}
	// A shard that was passed to the node is taken up as it stands.
	if h.Epoch <= c.Before || h.Epoch < c.FromEpoch || h.Epoch == c.FromEpoch && c.FromNode != c.Node {
		l.t.Errorf("shard %d: claimed at epoch %d, when %d was there already", h.Shard, h.Epoch, max(c.Before, c.FromEpoch))
	}
	l.owners[at], l.starts[at] = c.Node, h.Seq
	l.top[h.Shard] = max(l.top[h.Shard], h.Epoch)
	if c.FromNode != "" && c.FromNode != c.Node {
		l.taken++
	}
}

func (l *ledger) verdict(b Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case b.Done:
		if b.Before > b.Epoch {
			l.t.Errorf("shard %d: batch %d of epoch %d is done, and epoch %d was there before it was committed", b.Shard, b.Seq, b.Epoch, b.Before)
		}
		if b.Ended {
			l.t.Errorf("shard %d: batch %d of epoch %d is done, through a lane that had ended before it was committed", b.Shard, b.Seq, b.Epoch)
		}
		if l.done[b.Shard] == nil {
			l.done[b.Shard] = map[nola.Seq]nola.Epoch{}
		}
		if epoch, twice := l.done[b.Shard][b.Seq]; twice {
			l.t.Errorf("shard %d: batch %d is done in epoch %d and in epoch %d", b.Shard, b.Seq, epoch, b.Epoch)
		}
		l.done[b.Shard][b.Seq] = b.Epoch
	case b.Fenced:
		if l.never[b.Shard] == nil {
			l.never[b.Shard] = map[nola.Seq]map[nola.Epoch]bool{}
		}
		if l.never[b.Shard][b.Seq] == nil {
			l.never[b.Shard][b.Seq] = map[nola.Epoch]bool{}
		}
		l.never[b.Shard][b.Seq][b.Epoch] = true
	}
}

// heldMax is how many wires are held at a time, so that the others go on.
const heldMax = 3

// event counts what was done, and now and then holds, lets go or cuts a wire.
func (l *ledger) event(r *rand.Rand, wires []*wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events++
	for len(l.held) > l.busy/2 { // the last ones would wait for nobody
		l.held[0].set(true, 0)
		l.held = l.held[1:]
	}
	if l.events%5 != 0 || l.busy < 2 {
		return
	}
	if len(l.held) == heldMax || len(l.held) > 0 && r.IntN(2) == 0 {
		l.held[0].set(true, 0)
		l.held = l.held[1:]
		return
	}
	w := wires[r.IntN(len(wires))]
	if slices.Contains(l.held, w) {
		return
	}
	l.held = append(l.held, w)
	if r.IntN(3) == 0 {
		w.set(false, wireCut)
	} else {
		w.set(false, wireHeld)
	}
}

// check holds what the tables have at the end against what was told.
func (l *ledger) check(store *cqlstore.Store, heads []persistence.Head) {
	l.t.Helper()
	batches, tenures := 0, len(l.owners)
	for _, h := range heads {
		history := map[nola.Seq]nola.Epoch{}
		last := nola.Epoch(0)
		err := (persistence.Reader{Store: store}).ScanState(h.Shard, counter, []byte("0"), []byte("a"), false, func(key, value []byte) bool {
			var seq nola.Seq
			var epoch nola.Epoch
			if _, err := fmt.Sscanf(string(value), "%d of %d", &seq, &epoch); err != nil || fmt.Sprintf("%08d", seq) != string(key) {
				l.t.Errorf("shard %d: row %q has %q", h.Shard, key, value)
			}
			if seq != nola.Seq(len(history)+1) || epoch < last {
				l.t.Errorf("shard %d: batch %d of epoch %d comes behind batch %d of epoch %d", h.Shard, seq, epoch, len(history), last)
			}
			last = epoch
			history[seq] = epoch
			return true
		})
		if err != nil {
			l.t.Fatal(err)
		}
		batches += len(history)
		if h.Seq != nola.Seq(len(history)) {
			l.t.Errorf("shard %d stands at %d and has %d batches", h.Shard, h.Seq, len(history))
		}
		for seq, epoch := range l.done[h.Shard] {
			if history[seq] != epoch {
				l.t.Errorf("shard %d: batch %d of epoch %d is done, and the tables have that of epoch %d", h.Shard, seq, epoch, history[seq])
			}
			for at, start := range l.starts {
				if at.shard == h.Shard && (at.epoch > epoch && start < seq || at.epoch == epoch && start >= seq) {
					l.t.Errorf("shard %d: batch %d of epoch %d is done, and epoch %d began behind batch %d", h.Shard, seq, epoch, at.epoch, start)
				}
			}
		}
		for seq, epochs := range l.never[h.Shard] {
			if epochs[history[seq]] {
				l.t.Errorf("shard %d: batch %d of epoch %d was never executed, and the tables have it", h.Shard, seq, history[seq])
			}
		}
	}
	if l.taken < contendShards || batches < 2*contendShards {
		l.t.Errorf("%d shards were taken from others and %d batches committed: too few to tell anything", l.taken, batches)
	}
	l.t.Logf("%d tenures, %d taken from others, %d batches", tenures, l.taken, batches)
}

func newLedger(t *testing.T, saw *witness) *ledger {
	return &ledger{
		t: t, saw: saw, owners: map[claimed]string{}, starts: map[claimed]nola.Seq{}, top: map[nola.ShardID]nola.Epoch{},
		done: map[nola.ShardID]map[nola.Seq]nola.Epoch{}, never: map[nola.ShardID]map[nola.Seq]map[nola.Epoch]bool{},
	}
}

// contending is c as contenders have it.
func contending(c cqlstore.Config) cqlstore.Config {
	c.External, c.OnlyHosts, c.RingSize, c.ApplyAge, c.CommitTimeout = true, true, 16, 10*time.Millisecond, time.Second
	return c
}

// contendSeed is the seed of a fight, which is told if the test fails.
func contendSeed(t *testing.T) uint64 {
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("-seed %d", seed)
		}
	})
	return seed
}

func contend(t *testing.T, c cqlstore.Config, saw *witness) {
	seed, l := contendSeed(t), newLedger(t, saw)
	c = contending(c)
	rounds := 25
	if os.Getenv("NOLA_SLOW") != "" {
		rounds = 60
	}
	l.busy = contenders
	wires := make([]*wire, contenders)
	for i := range wires {
		wires[i] = newWire(t, c.Hosts[0])
	}
	var wg sync.WaitGroup
	for i := range contenders {
		wg.Go(func() {
			p := &contender{l: l, c: c, r: rand.New(rand.NewPCG(seed, uint64(i)))}
			p.c.Name, p.c.Hosts = fmt.Sprintf("contender %d", i), []string{wires[i].address()}
			for range rounds {
				p.round(t)
				l.event(p.r, wires)
			}
			l.mu.Lock()
			l.busy--
			wires[i].set(true, 0) // for good
			l.held = slices.DeleteFunc(l.held, func(w *wire) bool { return w == wires[i] })
			l.mu.Unlock()
			p.over()
		})
	}
	wg.Wait()
	l.close(c)
}

// close claims all shards, and holds what the tables have against what was told.
func (l *ledger) close(c cqlstore.Config) {
	t := l.t
	t.Helper()
	c.Name = "last"
	last := open(t, c)
	node, err := last.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := last.ShardRows(t.Context())
	if err != nil || len(rows) != contendShards {
		t.Fatal(len(rows), err)
	}
	heads := make([]persistence.Head, contendShards)
	for i, row := range rows {
		if owner := l.owners[claimed{row.Shard, row.Epoch}]; row.Node != "" && owner != "" && owner != row.Node {
			t.Errorf("shard %d: epoch %d belongs to %s, and %s was told so", row.Shard, row.Epoch, row.Node, owner)
		}
		if heads[i], err = last.Claim(t.Context(), node, row); err != nil {
			t.Fatal(err)
		}
		if heads[i].Epoch <= l.top[row.Shard] {
			t.Errorf("shard %d: claimed at epoch %d at the end, when %d was there already", row.Shard, heads[i].Epoch, l.top[row.Shard])
		}
	}
	l.check(last, heads)
}

// contender is one of those who fight. Its stores die, and others take their
// place, while what the dead have sent still arrives.
type contender struct {
	l notary
	c cqlstore.Config
	r *rand.Rand

	store *cqlstore.Store // nil: none
	node  string          // empty: not joined
	heads []persistence.Head
	dead  sync.WaitGroup
}

func (p *contender) over() {
	if p.store != nil {
		p.bury()
	}
	p.dead.Wait()
}

// bury drops a store. What it has under way goes on until it is closed, beside
// its successor.
func (p *contender) bury() {
	old := p.store
	p.store, p.node, p.heads = nil, "", nil
	p.dead.Go(func() { old.Close() })
}

func (p *contender) round(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if p.store == nil {
		store, err := cqlstore.Open(ctx, p.c)
		if err != nil {
			return // its wire is cut
		}
		p.store = store
	}
	if p.node == "" {
		p.heads = nil
		var err error
		if p.node, err = p.store.Join(ctx); err != nil {
			p.node = ""
			return
		}
	}
	rows, err := p.store.ShardRows(ctx)
	if err != nil || len(rows) != contendShards {
		return
	}
	for range 1 + p.r.IntN(4) {
		row := rows[p.r.IntN(len(rows))]
		before := p.l.epoch(row.Shard)
		p.heads = slices.DeleteFunc(p.heads, func(h persistence.Head) bool { return h.Shard == row.Shard })
		if h, err := p.store.Claim(ctx, p.node, row); err == nil {
			p.l.claim(Claimed{p.node, before, row.Node, row.Epoch, h})
			p.heads = append(p.heads, h)
		}
	}
	for range 3 {
		if len(p.heads) > 0 {
			p.commit(ctx)
		}
	}
	switch p.r.IntN(8) {
	case 0:
		p.bury()
	case 1:
		p.store.Renounce()
		p.node = ""
	case 2:
		if len(p.heads) > 0 {
			_ = p.store.Release(ctx, p.heads[0].Shard, p.heads[0].Epoch, "")
			p.heads = p.heads[1:]
		}
	case 3, 4:
		// To whom a row named, which may be long ago by now, and who is told nothing.
		if to := rows[p.r.IntN(len(rows))]; len(p.heads) > 0 && to.Node != "" && to.Node != p.node {
			// It may fail, as its store is stopped at any time: what follows is checked for all.
			_, _ = p.store.Pass(ctx, p.heads[0].Shard, p.heads[0].Epoch, cqlstore.Successor{Node: to.Node, Address: to.Address, Lane: to.Lane})
			p.heads = p.heads[1:]
		}
	}
	if len(p.heads) == 0 {
		p.node = ""
	}
}

func (p *contender) commit(ctx context.Context) {
	ended := p.l.ended(p.node)
	batches := make([]*persistence.Batch, len(p.heads))
	before := make([]nola.Epoch, len(p.heads))
	for i, h := range p.heads {
		b := new(persistence.Batch)
		b.Reset(h.Shard, h.Epoch, h.Seq+1)
		numbered(b)
		b.PutState(counter, fmt.Sprintf("%08d", b.Seq), fmt.Appendf(nil, "%d of %d", b.Seq, b.Epoch))
		batches[i], before[i] = b, p.l.epoch(h.Shard)
	}
	verdicts := p.store.Commit(batches)
	var left []persistence.Head
	for i, err := range verdicts {
		if err != nil && !errors.Is(err, persistence.ErrFenced) {
			err = p.store.Resolve(ctx, batches[i:i+1])[0]
		}
		p.l.verdict(Verdict{
			Shard: batches[i].Shard, Seq: batches[i].Seq, Epoch: batches[i].Epoch,
			Done: err == nil, Fenced: errors.Is(err, persistence.ErrFenced), Ended: ended, Before: before[i],
		})
		if err == nil {
			h := p.heads[i]
			h.Seq = batches[i].Seq
			left = append(left, h)
		}
	}
	p.heads = left
}

// wire is between a store and its server.
type wire struct {
	listener net.Listener
	to       string
	busy     sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	open  *sync.Cond
	state wireState
	conns map[net.Conn]bool
}

type wireState uint8

const (
	wireHeld  wireState = 1 // what is sent arrives later
	wireCut   wireState = 2 // connections end, and others are refused
	wireEnded wireState = 3
)

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: to, conns: map[net.Conn]bool{}}
	w.open = sync.NewCond(&w.mu)
	w.busy.Go(w.accept)
	t.Cleanup(func() {
		l.Close()
		w.set(false, wireEnded)
		w.busy.Wait()
	})
	return w
}

func (w *wire) address() string { return w.listener.Addr().String() }

// set lets everything pass, or brings the wire into a state.
func (w *wire) set(pass bool, state wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == wireEnded {
		return
	}
	if w.state = state; pass {
		w.state = 0
	}
	if w.state >= wireCut {
		for c := range w.conns {
			c.Close()
		}
	}
	w.open.Broadcast()
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		cut := w.state >= wireCut
		w.mu.Unlock()
		if cut {
			near.Close()
			continue
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.conns[near], w.conns[far] = true, true
		if w.state >= wireCut {
			near.Close()
			far.Close()
		}
		w.mu.Unlock()
		w.busy.Go(func() { w.carry(near, far) })
		w.busy.Go(func() { w.carry(far, near) })
	}
}

func (w *wire) carry(from, to net.Conn) {
	defer func() {
		from.Close()
		to.Close()
		w.mu.Lock()
		delete(w.conns, from)
		w.mu.Unlock()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			w.mu.Lock()
			for w.state == wireHeld {
				w.open.Wait()
			}
			w.mu.Unlock()
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
