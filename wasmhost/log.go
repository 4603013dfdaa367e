package wasmhost

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/nolaproject/nola"
)

// Log levels.
const (
	levelDebug = "debug"
	levelInfo  = "info"
	levelWarn  = "warn"
	levelError = "error"
)

// logMessageCost is what a message counts besides its bytes.
const logMessageCost = 16

// log carries a turn's messages to the host, within the limit. Text from
// stdout and stderr goes line by line.
type log struct {
	used    int // bytes
	dropped int // messages
	lines   [2]line
	last    string // line of stderr, or the first one that says how the guest died
	died    bool
}

// line gathers a line of one stream.
type line struct{ bytes []byte }

func (l *log) reset() {
	l.used, l.dropped, l.last, l.died = 0, 0, "", false
	for i := range l.lines {
		l.lines[i].bytes = l.lines[i].bytes[:0]
	}
}

// forget leaves nothing of what was logged.
func (l *log) forget() {
	l.reset()
	for i := range l.lines {
		b := l.lines[i].bytes
		clear(b[:cap(b)])
	}
}

// message logs b.
func (t *turn) message(level string, b []byte) {
	b = b[:min(len(b), nola.LogMessageBytesMax)]
	if t.log.used+len(b)+logMessageCost > t.limits.LogBytes {
		t.log.dropped++
		return
	}
	t.log.used += len(b) + logMessageCost
	text := strings.ToValidUTF8(string(b), "\uFFFD")
	if t.host == nil {
		t.instance.module.runtime.config.Logger.Debug("module initialiser", "actor", t.instance.self.String(), "message", text)
		return
	}
	t.host.Log(level, text)
}

// lastWordsMax bounds what an error quotes of stderr.
const lastWordsMax = 512

// deaths are how runtimes begin to say why they end.
var deaths = [][]byte{[]byte("panic: "), []byte("fatal error: "), []byte("thread '")}

// write takes bytes of stdout (0) or stderr (1).
func (t *turn) write(stream int, b []byte) {
	for len(b) > 0 {
		part, rest, whole := bytes.Cut(b, []byte("\n"))
		l := &t.log.lines[stream]
		room := nola.LogMessageBytesMax - len(l.bytes)
		l.bytes = append(l.bytes, part[:min(len(part), room)]...)
		if whole {
			t.flush(stream)
		}
		b = rest
	}
}

func (t *turn) flush(stream int) {
	l := &t.log.lines[stream]
	if len(l.bytes) == 0 {
		return
	}
	level := levelInfo
	if stream == 1 {
		level = levelWarn
		t.log.heed(l.bytes)
	}
	t.message(level, l.bytes)
	l.bytes = l.bytes[:0]
}

// heed remembers a line of stderr, for the error of a guest that ends itself.
func (l *log) heed(line []byte) {
	if l.died {
		return
	}
	l.died = slices.ContainsFunc(deaths, func(d []byte) bool { return bytes.HasPrefix(line, d) })
	l.last = strings.ToValidUTF8(string(line[:min(len(line), lastWordsMax)]), "\uFFFD")
}

// close logs what is left.
func (l *log) close(t *turn) {
	t.flush(0)
	t.flush(1)
	if l.dropped > 0 && t.host != nil {
		t.host.Log(levelWarn, fmt.Sprintf("%d log messages dropped: the turn logged more than %d bytes (limits.log_bytes of the manifest)", l.dropped, t.limits.LogBytes))
	}
	for i := range l.lines {
		if cap(l.lines[i].bytes) > 1<<10 {
			l.lines[i].bytes = nil
		}
	}
}
