package main

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nolaproject/nola"
)

// firingsQueue is how many lines may wait for a slow terminal; what comes on top
// is counted and not shown.
const firingsQueue = 1024

// firings prints a line for every firing. tell may be called at once from many
// goroutines and never waits.
type firings struct {
	lines   chan string
	dropped atomic.Int64
	done    chan struct{}
}

// printFirings starts to print to w; close ends it.
func printFirings(w io.Writer) *firings {
	f := &firings{lines: make(chan string, firingsQueue), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for line := range f.lines {
			fmt.Fprintln(w, line)
			if n := f.dropped.Swap(0); n > 0 {
				fmt.Fprintf(w, "(%d firings more)\n", n)
			}
		}
	}()
	return f
}

// tell prints what became of an occurrence.
func (f *firings) tell(ref nola.ScheduleRef, o nola.Occurrence, reply []byte) {
	select {
	case f.lines <- firingLine(ref, o, reply):
	default:
		f.dropped.Add(1)
	}
}

// close ends the printing. Nobody tells any more.
func (f *firings) close() {
	close(f.lines)
	<-f.done
}

const replyRunesMax = 60 // of a reply, in a line

func firingLine(ref nola.ScheduleRef, o nola.Occurrence, reply []byte) string {
	what := "schedule"
	if ref.Reminder {
		what = "reminder"
	}
	line := fmt.Sprintf("%s  %s %s -> %s  ", o.Nominal.Local().Format("15:04:05.000"), what, ref.ID, ref.Target)
	switch {
	case o.Outcome != nola.OutcomeFired:
		line += o.Outcome.String()
		if o.Count > 1 {
			line += fmt.Sprintf(" (%d times, until %s)", o.Count, o.Last.Local().Format("15:04:05"))
		}
	case !o.OK:
		line += fmt.Sprintf("FAILED after %d attempts: %s", o.Attempts, printable([]byte(o.Error)))
	default:
		line += fmt.Sprintf("fired %s late, took %s", rough(o.Started.Sub(o.Nominal)), rough(o.Ended.Sub(o.Started)))
		if len(reply) > 0 {
			line += ": " + printable(reply)
		}
	}
	return line
}

// rough keeps of a duration what people read.
func rough(d time.Duration) time.Duration {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < time.Second:
		return d.Round(100 * time.Microsecond)
	default:
		return d.Round(time.Millisecond)
	}
}

// printable is the start of a text on one line, or its size if it is none.
func printable(b []byte) string {
	if !utf8.Valid(b) {
		return fmt.Sprintf("(%d bytes)", len(b))
	}
	runes := []rune(strings.TrimSpace(string(b)))
	cut := len(runes) > replyRunesMax
	if cut {
		runes = runes[:replyRunesMax]
	}
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = ' '
		}
	}
	if cut {
		return string(runes) + "…"
	}
	return string(runes)
}
