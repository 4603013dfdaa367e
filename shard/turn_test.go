package shard_test

import (
	"strconv"
	"testing"

	"github.com/nolaproject/nola"
)

// slow is a module that takes its time to make an instance of one actor.
type slow struct {
	*module
	id           string
	begun, going chan struct{}
}

func (s *slow) Instantiate(ref nola.ActorRef) (nola.Instance, error) {
	if ref.ID == s.id {
		close(s.begun)
		<-s.going
	}
	return s.module.Instantiate(ref)
}

// TestNoTurnBeginsOnceTheShardIsLost closes the node while an instance is made
// for a turn: nobody can interrupt it then, and it must not reach its guest.
func TestNoTurnBeginsOnceTheShardIsLost(t *testing.T) {
	w := newWorld(t, 2)
	ids := make(map[nola.ShardID]string, 2) // an actor of each shard
	for i := 0; len(ids) < 2; i++ {
		id := strconv.Itoa(i)
		ids[nola.ShardOf(ref(id), 2)] = id
	}
	s := &slow{module: w.code, id: ids[0], begun: make(chan struct{}), going: make(chan struct{})}
	w.current = s
	w.must(ids[1], "inc", "")
	turns := w.code.turns.Load()
	answered := make(chan error, 1)
	go func() { _, err := w.invoke(ids[0], "inc", ""); answered <- err }()
	<-s.begun
	m, closed := w.m, make(chan error, 1)
	go func() { closed <- m.Close() }()
	// Shards are closed in their order: behind that of the turn that begins.
	eventually(t, "the other shard is closed", func() bool { return w.code.live.Load() == 0 })
	close(s.going)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-answered; reason(err) != nola.ReasonShardMoving {
		t.Errorf("the caller is answered %v, want SHARD_MOVING", err)
	}
	if n := w.code.turns.Load() - turns; n != 0 {
		t.Errorf("the guest was called %d times", n)
	}
	if n := w.code.live.Load(); n != 0 {
		t.Errorf("%d instances are left", n)
	}
}
