package core_test

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

// commit makes everything durable.
func (l *leaver) commit() {
	for l.s.TakeBatch() != nil {
		l.step(&core.Committed{})
	}
}

// TestNothingBeginsEarly ticks a nanosecond before something is due, and when it is.
func TestNothingBeginsEarly(t *testing.T) {
	for name, prepare := range map[string]func(l *leaver, due time.Time){
		"timer": func(l *leaver, due time.Time) {
			l.step(l.call("a"))
			turn := l.turn()
			turn.Effects.Timers = []nola.TimerChange{{Timer: nola.Timer{Name: "f", Operation: "inc", Due: due}}}
			l.step(turn)
		},
		"delayed cast": func(l *leaver, due time.Time) {
			c := l.call("a")
			c.Inv.Kind, c.Inv.Due = nola.KindCast, due
			l.step(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLeaver(t)
			l.step(&core.Tick{}) // the start of the due index is read: nothing is there
			due := l.now.Add(10 * time.Second)
			prepare(l, due)
			l.commit()
			for _, at := range []time.Time{due.Add(-time.Second), due.Add(-1)} {
				l.now = at
				l.step(&core.Tick{})
				l.commit()
				if len(l.out.Turns) > 0 {
					t.Fatalf("a turn begins %s before its time", due.Sub(at))
				}
			}
			if wake := l.s.Wake(); !wake.Equal(due) {
				t.Errorf("it wants to be woken at %s, want %s", wake, due)
			}
			l.now = due
			l.step(&core.Tick{})
			l.commit()
			l.step(&core.Tick{})
			if len(l.out.Turns) != 1 {
				t.Errorf("%d turns begin when it is due, want one", len(l.out.Turns))
			}
		})
	}
}
