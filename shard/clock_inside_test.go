package shard

import "testing"

// TestOneTickAtATime: a shard whose tick waits behind other work gets no other one,
// however often it notes meanwhile that it wants to be woken.
func TestOneTickAtATime(t *testing.T) {
	m := new(Manager)
	m.pool.init(m, 0, 1) // nobody takes a task up
	a, b := new(box), new(box)
	for range 100 {
		m.tick(a)
		m.tick(b)
	}
	if n := m.pool.due.n; n != 2 {
		t.Errorf("%d ticks wait for two shards", n)
	}
}

// TestFIFO: a queue keeps its order and uses its memory again, also while it is never
// empty.
func TestFIFO(t *testing.T) {
	const long = 10
	var q fifo[int]
	next := 0
	for i := range 10_000 {
		q.push(i)
		for q.len() > long {
			if got := q.pop(); got != next {
				t.Fatalf("got %d, want %d", got, next)
			}
			next++
		}
	}
	if c := cap(q.items); c > 8*long {
		t.Errorf("for %d items there is room for %d", long, c)
	}
}
