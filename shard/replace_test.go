package shard_test

import (
	"testing"

	"github.com/nolaproject/nola"
)

// replaced is a module that is replaced, and closed, just before it is to make
// an instance.
type replaced struct {
	*module
	w    *world
	next nola.Module
}

func (r *replaced) Instantiate(nola.ActorRef) (nola.Instance, error) {
	r.w.current = r.next
	return nil, nola.Errorf(nola.ReasonUnavailable, "the module was closed meanwhile")
}

// TestTurnAsksAgainForAReplacedModule demands that a push under a turn that is
// about to begin is not seen by its caller.
func TestTurnAsksAgainForAReplacedModule(t *testing.T) {
	w := newWorld(t, 1)
	w.current = &replaced{newModule(), w, w.code}
	if got := w.must("a", "inc", ""); got != "1" {
		t.Errorf("inc = %q", got)
	}
	// A module that stays the same and makes no instances is not asked for ever.
	stuck := &replaced{module: newModule(), w: w}
	stuck.next = stuck
	w.current = stuck
	if _, err := w.invoke("b", "inc", ""); err == nil {
		t.Error("it answered without an instance")
	}
}
