package cqlstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
)

// passing is stores of one cluster that pass a shard on.
type passing struct {
	t      *testing.T
	server *cqlfake.Server
	c      cqlstore.Config
}

const passed = nola.ShardID(2)

// join opens a store whose clock is ahead by so much.
func (p *passing) join(name string, ahead time.Duration) (*cqlstore.Store, cqlstore.Successor) {
	p.t.Helper()
	p.c.Name, p.c.Address, p.c.Now = name, name+":1", func() time.Time { return time.Now().Add(ahead) }
	s := open(p.t, p.c)
	if _, err := s.Join(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	return s, of(s, name)
}

func of(s *cqlstore.Store, name string) cqlstore.Successor {
	to := cqlstore.Successor{Address: name + ":1"}
	to.Node, to.Lane = s.Lane()
	return to
}

// claims has a store claim the shard whatever its row says.
func (p *passing) claims(s *cqlstore.Store) persistence.Head {
	p.t.Helper()
	head, err := s.Claim(p.t.Context(), s.NodeID(), p.row(s))
	if err != nil {
		p.t.Fatal(err)
	}
	return head
}

func (p *passing) row(s *cqlstore.Store) cqlstore.ShardRow {
	p.t.Helper()
	rows, err := s.ShardRows(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return rows[passed]
}

// works has the owner of the shard commit.
func (p *passing) works(s *cqlstore.Store, head *persistence.Head) {
	p.t.Helper()
	for range 3 {
		if _, verdicts := round(s, []persistence.Head{*head}); verdicts[0] != nil {
			p.t.Fatal(verdicts[0])
		}
		head.Seq++
	}
	checkHistory(p.t, s, passed, head.Seq)
}

func (p *passing) pass(s *cqlstore.Store, head persistence.Head, to cqlstore.Successor) cqlstore.Passed {
	p.t.Helper()
	told, err := s.Pass(p.t.Context(), passed, head.Epoch, to)
	if err != nil {
		p.t.Fatal(err)
	}
	return told
}

// sent counts the statements that have this in them.
func (p *passing) sent(part string) (n int) {
	for _, r := range p.server.Requests() {
		if strings.Contains(r.Statements[0], part) {
			n++
		}
	}
	return n
}

// TestPass has shards passed on: the next owner has them by one conditional statement,
// as it is told, as it reads, or not at all, and then others take them from it. Nothing
// is lost or taken twice, and what is written later is newer, although the owner before
// has a clock that is ahead.
func TestPass(t *testing.T) {
	for _, mode := range []cqlstore.Mode{cqlstore.ModeQuorum, cqlstore.ModeLWT} {
		begin := func(t *testing.T) (p *passing, a, b *cqlstore.Store, to cqlstore.Successor, head persistence.Head) {
			p = &passing{t: t}
			p.server, p.c = fakeServer(t, cqlfake.Config{})
			p.c.External, p.c.Mode = true, mode
			a, _ = p.join("a", time.Hour)
			b, to = p.join("b", 0)
			head = p.claims(a)
			p.works(a, &head)
			return p, a, b, to, head
		}
		takes := func(p *passing, b *cqlstore.Store, told cqlstore.Passed, before persistence.Head) persistence.Head {
			p.t.Helper()
			head, err := b.TakeUp(p.t.Context(), b.NodeID(), told)
			if want := (persistence.Head{Shard: passed, Epoch: before.Epoch + 1, Seq: before.Seq}); err != nil || head != want {
				p.t.Fatalf("taken up at %+v, %v; want %+v", head, err, want)
			}
			checkHistory(p.t, b, passed, head.Seq)
			return head
		}
		refuses := func(p *passing, b *cqlstore.Store, told cqlstore.Passed) {
			p.t.Helper()
			if head, err := b.TakeUp(p.t.Context(), b.NodeID(), told); !errors.Is(err, cqlstore.ErrMoved) {
				p.t.Errorf("taken up at %+v, %v; want ErrMoved", head, err)
			}
		}
		for name, run := range map[string]func(*testing.T){
			"told": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				claims, reads := p.sent("UPDATE nola.shards"), p.sent("FROM nola.buckets")
				told := p.pass(a, head, to)
				if row := p.row(b); row.Node != to.Node || row.Lane != to.Lane || row.Address != to.Address || row.Epoch != head.Epoch+1 || row.HandoffTo != "" {
					t.Errorf("the row is %+v", row)
				}
				next := takes(p, b, told, head)
				claims, reads = p.sent("UPDATE nola.shards")-claims, p.sent("FROM nola.buckets")-reads
				if claims != 1 || reads != 0 {
					t.Errorf("%d conditional statements and %d reads of what was told, want 1 and 0", claims, reads)
				}
				if _, verdicts := round(a, []persistence.Head{head}); !errors.Is(verdicts[0], persistence.ErrFenced) {
					t.Errorf("a commit of the owner before: %v", verdicts[0])
				}
				p.works(b, &next)
				refuses(p, b, told)
				// The word comes again, once the shard has gone on.
				back := p.pass(b, next, of(a, "a"))
				refuses(p, b, told)
				mine := takes(p, a, back, next)
				p.works(a, &mine)
			},
			"told too little": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				told := p.pass(a, head, to)
				told.Buckets = nil
				next := takes(p, b, told, head)
				p.works(b, &next)
			},
			"untold": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				told := p.pass(a, head, to)
				next := p.claims(b)
				if next.Epoch != head.Epoch+1 || next.Seq != head.Seq {
					t.Errorf("claimed at %+v, after %+v", next, head)
				}
				p.works(b, &next)
				refuses(p, b, told)
			},
			"the next owner is dead": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				told := p.pass(a, head, to)
				next := takes(p, b, told, head)
				p.works(b, &next)
				c, _ := p.join("c", 0)
				after := p.claims(c)
				if after.Epoch != next.Epoch+1 || after.Seq != next.Seq {
					t.Errorf("claimed at %+v, after %+v", after, next)
				}
				p.works(c, &after)
				if _, verdicts := round(b, []persistence.Head{next}); verdicts[0] == nil {
					t.Error("the one that was taken for dead commits")
				}
			},
			"its lane is another by now": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				if _, err := b.Join(t.Context()); err != nil {
					t.Fatal(err)
				}
				told := p.pass(a, head, to)
				refuses(p, b, told)
				next := p.claims(b)
				if next.Epoch != head.Epoch+2 || next.Seq != head.Seq {
					t.Errorf("claimed at %+v, after %+v", next, head)
				}
				p.works(b, &next)
			},
			"its lane is tidied away by now": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				if _, err := b.Join(t.Context()); err != nil {
					t.Fatal(err)
				}
				until(t, "the lane is gone", func() bool {
					if err := a.Tidy(t.Context()); err != nil {
						t.Fatal(err)
					}
					lanes, err := a.Lanes(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					for _, l := range lanes {
						if l.ID == to.Lane {
							return false
						}
					}
					return true
				})
				p.pass(a, head, to)
				c, _ := p.join("c", 0)
				next := p.claims(c)
				if next.Epoch != head.Epoch+2 || next.Seq != head.Seq {
					t.Errorf("claimed at %+v, after %+v", next, head)
				}
				p.works(c, &next)
			},
			"no lane of that id": func(t *testing.T) { // as when its head was deleted long ago
				p, a, b, to, head := begin(t)
				to.Lane[15]++
				refuses(p, b, p.pass(a, head, to))
				next := p.claims(b)
				if next.Epoch != head.Epoch+2 || next.Seq != head.Seq {
					t.Errorf("claimed at %+v, after %+v", next, head)
				}
				p.works(b, &next)
			},
			"refused": func(t *testing.T) {
				p, a, _, to, head := begin(t)
				p.fault(cqlfake.Refused)
				if told, err := a.Pass(t.Context(), passed, head.Epoch, to); err == nil {
					t.Errorf("what the cluster refuses is passed on: %+v", told)
				}
				p.works(a, &head) // it was never executed
			},
			"taken meanwhile": func(t *testing.T) {
				p, a, b, to, head := begin(t)
				c, _ := p.join("c", 0)
				var next persistence.Head
				var failed error
				done := make(chan struct{})
				row := p.row(c)
				p.once(func() cqlfake.Fault {
					go func() { // a's statement waits for its answer, and goes again
						defer close(done)
						next, failed = c.Claim(t.Context(), c.NodeID(), row)
					}()
					return cqlfake.LostThenTimeout
				})
				told, err := a.Pass(t.Context(), passed, head.Epoch, to)
				switch <-done; {
				case failed != nil && told.Epoch == 0: // whoever was first
					t.Errorf("neither passed on, %v, nor claimed by another, %v", err, failed)
				case failed == nil && err == nil && told.Epoch == next.Epoch:
					t.Errorf("passed on as %+v, and claimed by another at %+v", told, next)
				}
				if told.Epoch == 0 {
					refuses(p, b, told)
				}
			},
		} {
			t.Run(fmt.Sprintf("%s, %s", name, mode), run)
		}
		for _, fault := range []cqlfake.Fault{cqlfake.DoneThenTimeout, cqlfake.LostThenTimeout, cqlfake.DoneThenDropped, cqlfake.DoneThenDenied, cqlfake.Unavailable} {
			t.Run(fmt.Sprintf("an answer that says nothing (%v), %s", fault, mode), func(t *testing.T) {
				p, a, b, to, head := begin(t)
				p.fault(fault)
				next := takes(p, b, p.pass(a, head, to), head)
				p.works(b, &next)
			})
		}
	}
}

// fault has the next statement on the row of a shard fail.
func (p *passing) fault(f cqlfake.Fault) { p.once(func() cqlfake.Fault { return f }) }

// once calls f for the next statement on the row of a shard.
func (p *passing) once(f func() cqlfake.Fault) {
	var did atomic.Bool
	p.server.Inject(func(r cqlfake.Request) cqlfake.Fault {
		if !strings.HasPrefix(r.Statements[0], "UPDATE nola.shards") || did.Swap(true) {
			return cqlfake.None
		}
		return f()
	})
}
