package shard

import (
	"context"
	"sync"

	"github.com/nolaproject/nola"
)

// logs keeps the last lines of each actor that logged lately: a ring per actor,
// all of them within a budget; the actor that was silent for longest goes first.
type logs struct {
	mu     sync.Mutex // guards the fields below
	rings  map[nola.ActorRef]*ring
	oldest *ring // a list in the order of the last line
	newest *ring
	bytes  int64
	max    int64
	tails  map[*tail]struct{}
}

// LogLinesMax is how many lines of one actor's log are kept.
const LogLinesMax = 1000

type ring struct {
	ref        nola.ActorRef
	lines      []nola.LogRecord // from first, wrapping around
	first      int
	bytes      int64
	prev, next *ring
}

// tail is somebody who follows the log of an actor.
type tail struct {
	ref   nola.ActorRef
	lines chan nola.LogRecord
}

const tailLines = 256 // a follower that is further behind misses lines

func (l *logs) init(max int64) {
	l.rings, l.tails, l.max = make(map[nola.ActorRef]*ring), make(map[*tail]struct{}), max
}

func logBytes(r *nola.LogRecord) int64 {
	const overhead = 96
	return int64(len(r.Message)) + overhead
}

func (l *logs) add(ref nola.ActorRef, line nola.LogRecord) {
	if len(line.Message) > nola.LogMessageBytesMax {
		line.Message = line.Message[:nola.LogMessageBytesMax]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rings[ref]
	if r == nil {
		r = &ring{ref: ref}
		l.rings[ref] = r
	} else {
		l.unlink(r)
	}
	l.link(r)
	n := logBytes(&line)
	if len(r.lines) < LogLinesMax {
		r.lines = append(r.lines, line)
	} else {
		n -= logBytes(&r.lines[r.first])
		r.lines[r.first] = line
		r.first = (r.first + 1) % len(r.lines)
	}
	r.bytes += n
	l.bytes += n
	for l.bytes > l.max && l.oldest != r {
		old := l.oldest
		l.unlink(old)
		delete(l.rings, old.ref)
		l.bytes -= old.bytes
	}
	for t := range l.tails {
		if t.ref == ref {
			select {
			case t.lines <- line:
			default:
			}
		}
	}
}

func (l *logs) link(r *ring) {
	r.prev, r.next = l.newest, nil
	if l.newest == nil {
		l.oldest = r
	} else {
		l.newest.next = r
	}
	l.newest = r
}

func (l *logs) unlink(r *ring) {
	if r.prev == nil {
		l.oldest = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.newest = r.prev
	} else {
		r.next.prev = r.prev
	}
}

func (r *ring) last(limit int) []nola.LogRecord {
	n := len(r.lines)
	list := make([]nola.LogRecord, 0, min(limit, n))
	for i := max(0, n-limit); i < n; i++ {
		list = append(list, r.lines[(r.first+i)%n])
	}
	return list
}

// Logs answers the last lines of an actor's log, oldest first. Logs live in
// memory: they end with the node.
func (m *Manager) Logs(ref nola.ActorRef, limit int) []nola.LogRecord {
	m.logs.mu.Lock()
	defer m.logs.mu.Unlock()
	if r := m.logs.rings[ref]; r != nil {
		return r.last(limit)
	}
	return nil
}

// TailLogs calls fn with the last limit lines of an actor's log and then with
// each new one, until ctx ends or fn answers an error. A reader that is more
// than 256 lines behind misses some.
func (m *Manager) TailLogs(ctx context.Context, ref nola.ActorRef, limit int, fn func(nola.LogRecord) error) error {
	t := &tail{ref: ref, lines: make(chan nola.LogRecord, tailLines)}
	l := &m.logs
	l.mu.Lock()
	var lines []nola.LogRecord
	if r := l.rings[ref]; r != nil {
		lines = r.last(limit)
	}
	l.tails[t] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.tails, t)
		l.mu.Unlock()
	}()
	for _, line := range lines {
		if err := fn(line); err != nil {
			return err
		}
	}
	for {
		select {
		case line := <-t.lines:
			if err := fn(line); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-m.ctx.Done():
			return nil
		}
	}
}
