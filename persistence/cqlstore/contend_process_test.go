package cqlstore_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/tools/child"
)

// TestCrashContenders has eight processes fight for 64 shards. They are stopped for a
// while, or killed, at random; what a stopped one had under way goes on when it is let
// go. It looks at each lane and epoch what the server saw.
func TestCrashContenders(t *testing.T) {
	for name, tt := range map[string]struct {
		server cqlfake.Config
		mode   cqlstore.Mode
	}{
		"cassandra, quorum": {cqlfake.Config{}, cqlstore.ModeQuorum},
		"scylla, lwt":       {cqlfake.Config{Flavour: cqlfake.Scylla}, cqlstore.ModeLWT},
	} {
		t.Run("fake "+name, func(t *testing.T) {
			server, c := fakeCluster(t, tt.server, contendShards)
			c.Mode, c.Timeout = tt.mode, 250*time.Millisecond
			saw := &witness{ended: map[string]bool{}}
			server.Inject(saw.request)
			contendProcesses(t, c, saw)
		})
	}
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		t.Run("real "+string(mode), func(t *testing.T) {
			hosts(t)
			c := fresh(t, contendShards)
			c.Mode, c.Timeout = mode, 2*time.Second
			contendProcesses(t, c, nil)
		})
	}
}

func contendProcesses(t *testing.T, c cqlstore.Config, saw *witness) {
	f := &brawl{ledger: newLedger(t, saw), r: rand.New(rand.NewPCG(contendSeed(t), 0)), left: contenders * 25}
	if os.Getenv("NOLA_SLOW") != "" {
		f.left = contenders * 60
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	court := rpc.NewServer()
	if err := court.RegisterName("Court", &Court{f}); err != nil {
		t.Fatal(err)
	}
	go func() { // until the listener is closed
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go court.ServeConn(conn)
		}
	}()
	var wg sync.WaitGroup
	for i := range contenders {
		wg.Go(func() {
			for life := 0; f.more(); life++ {
				f.live(i, life, c, listener.Addr().String())
			}
		})
	}
	wg.Wait()
	if f.stops < contenders || f.kills < contenders/2 {
		t.Errorf("%d processes were stopped and %d killed: too few to tell anything", f.stops, f.kills)
	}
	t.Logf("%d times a process was stopped, %d times killed", f.stops, f.kills)
	f.close(contending(c))
}

// brawl is the fight: its processes, and what they were told.
type brawl struct {
	*ledger

	mu      sync.Mutex // guards the fields below
	r       *rand.Rand
	left    int // rounds
	stops   int
	kills   int
	alive   []*child.Process
	stopped []*child.Process
}

func (f *brawl) more() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left > 0
}

// live is one process, from its start to its end.
func (f *brawl) live(number, life int, c cqlstore.Config, court string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashContender$")
	cmd.Env = append(
		os.Environ(), "NOLA_CONTEND_COURT="+court, "NOLA_CONTEND_HOST="+c.Hosts[0], "NOLA_CONTEND_KEYSPACE="+c.Keyspace,
		"NOLA_CONTEND_MODE="+string(c.Mode), "NOLA_CONTEND_TIMEOUT="+c.Timeout.String(), fmt.Sprint("NOLA_CONTEND_NUMBER=", number), fmt.Sprint("NOLA_CONTEND_LIFE=", life),
	)
	cmd.Stderr = os.Stderr
	f.mu.Lock()
	process, err := child.Spawn(cmd, false)
	if err != nil {
		f.t.Error(err)
		f.left = 0
		f.mu.Unlock()
		return
	}
	f.alive = append(f.alive, process)
	f.mu.Unlock()
	<-process.Ended()
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := func(p *child.Process) bool { return p == process }
	f.alive, f.stopped = slices.DeleteFunc(f.alive, gone), slices.DeleteFunc(f.stopped, gone)
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.ExitStatus() != 0 && status.Signal() != syscall.SIGKILL {
		f.t.Errorf("contender %d: %v", number, cmd.ProcessState)
		f.left = 0
	}
}

// round counts a round, and now and then stops a process, lets one go on, or kills one.
func (f *brawl) round() (more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left <= 0 {
		for _, p := range f.stopped {
			_ = p.Signal(syscall.SIGCONT)
		}
		f.stopped = nil
		return false
	}
	if f.left%3 != 0 || len(f.alive) == 0 {
		return true
	}
	if len(f.stopped) == heldMax || len(f.stopped) > 0 && f.r.IntN(2) == 0 {
		_ = f.stopped[0].Signal(syscall.SIGCONT)
		f.stopped = f.stopped[1:]
		return true
	}
	p := f.alive[f.r.IntN(len(f.alive))]
	switch {
	case f.r.IntN(3) == 0:
		p.Kill()
		f.kills++
	case !slices.Contains(f.stopped, p):
		_ = p.Signal(syscall.SIGSTOP)
		f.stopped = append(f.stopped, p)
		f.stops++
	}
	return true
}

// Court is the notary of processes, as net/rpc wants it.
type Court struct{ f *brawl }

// Epoch implements notary.
func (c *Court) Epoch(shard nola.ShardID, epoch *nola.Epoch) error {
	*epoch = c.f.epoch(shard)
	return nil
}

// Ended implements notary.
func (c *Court) Ended(node string, ended *bool) error {
	*ended = c.f.ended(node)
	return nil
}

// Claim implements notary.
func (c *Court) Claim(claim Claimed, _ *bool) error {
	c.f.claim(claim)
	return nil
}

// Verdict implements notary.
func (c *Court) Verdict(v Verdict, _ *bool) error {
	c.f.verdict(v)
	return nil
}

// Round ends a round of a process, and tells it whether to go on.
func (c *Court) Round(_ int, more *bool) error {
	*more = c.f.round()
	return nil
}

// TestCrashContender is one of the processes that TestCrashContenders starts.
func TestCrashContender(t *testing.T) {
	address := os.Getenv("NOLA_CONTEND_COURT")
	if address == "" {
		t.Skip("a process that TestCrashContenders starts")
	}
	conn, err := rpc.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	timeout, err := time.ParseDuration(os.Getenv("NOLA_CONTEND_TIMEOUT"))
	if err != nil {
		t.Fatal(err)
	}
	number, _ := strconv.ParseUint(os.Getenv("NOLA_CONTEND_NUMBER"), 10, 64)
	life, _ := strconv.ParseUint(os.Getenv("NOLA_CONTEND_LIFE"), 10, 64)
	l := remote{t, conn}
	p := &contender{l: l, r: rand.New(rand.NewPCG(number, life)), c: contending(cqlstore.Config{
		Hosts: []string{os.Getenv("NOLA_CONTEND_HOST")}, Keyspace: os.Getenv("NOLA_CONTEND_KEYSPACE"), Mode: cqlstore.Mode(os.Getenv("NOLA_CONTEND_MODE")),
		Timeout: timeout, Name: fmt.Sprint("contender ", number), Log: slog.New(slog.DiscardHandler),
	})}
	for more := true; more; {
		p.round(t)
		l.ask("Round", 0, &more)
	}
	p.over()
}

// remote is the notary of another process.
type remote struct {
	t    *testing.T
	conn *rpc.Client
}

func (r remote) ask(what string, args, reply any) {
	if err := r.conn.Call("Court."+what, args, reply); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

func (r remote) epoch(shard nola.ShardID) (epoch nola.Epoch) {
	r.ask("Epoch", shard, &epoch)
	return epoch
}

func (r remote) ended(node string) (ended bool) {
	r.ask("Ended", node, &ended)
	return ended
}

func (r remote) claim(c Claimed)   { r.ask("Claim", c, new(bool)) }
func (r remote) verdict(v Verdict) { r.ask("Verdict", v, new(bool)) }
