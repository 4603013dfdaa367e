package nola

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Manifest says how a version of a module wants to be run. The zero value
// works: every field has a default.
type Manifest struct {
	// Mode is how state is kept: ModeKV (default) or ModeMemory.
	Mode string
	// Operations are those that the module declares, for error messages and
	// describe; empty means unknown. Calling others is not refused.
	Operations []string
	// ReadonlyOperations must not write: a turn of theirs that does is refused.
	ReadonlyOperations []string
	// Env is what the guest's CONFIG operation reads.
	Env map[string]string
	// Capabilities are the host operations granted; empty means all.
	Capabilities []string
	Limits       Limits
}

// Limits bound one turn and one instance. Zero fields take the default.
type Limits struct {
	MemoryBytes   int64         // linear memory of an instance: default 16 MiB, at most 1 GiB
	Steps         uint64        // function entries and loop heads in one turn: default 1e9
	TurnTimeout   time.Duration // one turn: default CallTimeoutMax, that is, the call's own deadline
	HostCalls     int           // in one turn: default 100,000
	LogBytes      int           // in one turn: default 64 KiB; what goes beyond is dropped and counted
	Casts         int           // in one turn: default and at most TurnCastsMax
	ReplyBytes    int           // default and at most PayloadBytesMax
	TableElements int           // default 65,536
	CallDepth     int           // nested guest frames: default 10,000, at most 100,000
	// MemoryInline is how many bytes of changed memory are kept in one row, in
	// memory mode: default 16 KiB, at most 256 KiB. What goes beyond is kept in a
	// row for each page of 4 KiB that differs.
	MemoryInline int
}

// The modes.
const (
	// ModeKV keeps durable state through host operations alone; memory is a cache.
	ModeKV = "kv"
	// ModeMemory keeps the memory of the guest besides: what a turn changed of it
	// is committed with the turn.
	ModeMemory = "memory"
)

// WithDefaults returns m with each zero field set to its default.
func (m Manifest) WithDefaults() Manifest {
	if m.Mode == "" {
		m.Mode = ModeKV
	}
	l := &m.Limits
	setDefault(&l.MemoryBytes, 16<<20)
	setDefault(&l.Steps, 1_000_000_000)
	setDefault(&l.TurnTimeout, CallTimeoutMax)
	setDefault(&l.HostCalls, 100_000)
	setDefault(&l.LogBytes, 64<<10)
	setDefault(&l.Casts, TurnCastsMax)
	setDefault(&l.ReplyBytes, PayloadBytesMax)
	setDefault(&l.TableElements, 65_536)
	setDefault(&l.CallDepth, 10_000)
	setDefault(&l.MemoryInline, MemoryInlineDefault)
	return m
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports all faults of m at once, as INVALID_ARGUMENT.
func (m Manifest) Validate() error {
	var faults []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	m = m.WithDefaults()
	l := m.Limits
	check(m.Mode == ModeKV || m.Mode == ModeMemory, "mode %q: known are %q and %q", m.Mode, ModeKV, ModeMemory)
	check(m.Mode != ModeMemory || l.MemoryBytes <= KeptMemoryMax, "limits.memory_bytes %d: in mode %q at most 64 MiB, for an actor's memory is read whole when it wakes", l.MemoryBytes, ModeMemory)
	check(l.MemoryInline > 0 && l.MemoryInline <= MemoryInlineMax, "limits.memory_inline %d: must lie between 1 and 256 KiB", l.MemoryInline)
	check(l.MemoryBytes >= 64<<10 && l.MemoryBytes <= 1<<30, "limits.memory_bytes %d: must lie between 64 KiB and 1 GiB", l.MemoryBytes)
	check(l.TurnTimeout > 0 && l.TurnTimeout <= CallTimeoutMax, "limits.turn_timeout %s: must lie between 0 and %s", l.TurnTimeout, CallTimeoutMax)
	check(l.HostCalls > 0 && l.HostCalls <= 10_000_000, "limits.host_calls %d: must lie between 1 and 10,000,000", l.HostCalls)
	check(l.LogBytes > 0 && l.LogBytes <= 1<<20, "limits.log_bytes %d: must lie between 1 and 1 MiB", l.LogBytes)
	check(l.Casts > 0 && l.Casts <= TurnCastsMax, "limits.casts %d: must lie between 1 and %d", l.Casts, TurnCastsMax)
	check(l.ReplyBytes > 0 && l.ReplyBytes <= PayloadBytesMax, "limits.reply_bytes %d: must lie between 1 and %d", l.ReplyBytes, PayloadBytesMax)
	check(l.TableElements > 0 && l.TableElements <= 10_000_000, "limits.table_elements %d: must lie between 1 and 10,000,000", l.TableElements)
	check(l.CallDepth > 0 && l.CallDepth <= 100_000, "limits.call_depth %d: must lie between 1 and 100,000", l.CallDepth)
	check(len(m.Env) <= 256, "env has %d entries: at most 256", len(m.Env))
	check(len(m.Operations) <= 1024 && len(m.ReadonlyOperations) <= 1024, "operations: at most 1,024 may be declared")
	for _, op := range slices.Concat(m.Operations, m.ReadonlyOperations) {
		check(op != "" && len(op) <= OperationBytesMax, "operation %q: must have 1 to %d bytes", op, OperationBytesMax)
	}
	if len(faults) == 0 {
		return nil
	}
	e := Errorf(ReasonInvalidArgument, "manifest: %s", faults[0])
	for _, f := range faults[1:] {
		e.Message += "; " + f
	}
	return e
}

// Within is l with every field that is above its bound in most set to that bound;
// zero fields of l take their defaults first, and zero fields of most bound
// nothing.
func (l Limits) Within(most Limits) Limits {
	l = Manifest{Limits: l}.WithDefaults().Limits
	for _, b := range l.bounds(&most) {
		b.lower()
	}
	return l
}

// CheckWithin refuses limits that a manifest sets above their bounds in most, all
// at once. Fields that are zero in either are not looked at.
func (l Limits) CheckWithin(most Limits) error {
	var faults []string
	first := ""
	for _, b := range l.bounds(&most) {
		if b.asked > b.most {
			faults = append(faults, fmt.Sprintf("limits.%s %s is above %s", b.name, b.text(b.asked), b.text(b.most)))
			if first == "" {
				first = b.name
			}
		}
	}
	if first == "" {
		return nil
	}
	e := Errorf(ReasonInvalidArgument, "%s", strings.Join(faults, "; "))
	e.Metadata = map[string]string{"limit": first}
	return e
}

// bound is one limit beside its upper bound.
type bound struct {
	name        string
	asked, most uint64
	lower       func()
	duration    bool
}

func (b bound) text(n uint64) string {
	if b.duration {
		return time.Duration(n).String()
	}
	return strconv.FormatUint(n, 10)
}

// bounds are the fields of l that most bounds.
func (l *Limits) bounds(most *Limits) []bound {
	var list []bound
	add := func(name string, asked, most uint64, lower func()) {
		if most == 0 {
			return
		}
		list = append(list, bound{name: name, asked: asked, most: most, duration: name == "turn_timeout", lower: func() {
			if asked > most {
				lower()
			}
		}})
	}
	add("memory_bytes", uint64(l.MemoryBytes), uint64(most.MemoryBytes), func() { l.MemoryBytes = most.MemoryBytes })
	add("steps_per_turn", l.Steps, most.Steps, func() { l.Steps = most.Steps })
	add("turn_timeout", uint64(l.TurnTimeout), uint64(most.TurnTimeout), func() { l.TurnTimeout = most.TurnTimeout })
	add("host_calls", uint64(l.HostCalls), uint64(most.HostCalls), func() { l.HostCalls = most.HostCalls })
	add("log_bytes", uint64(l.LogBytes), uint64(most.LogBytes), func() { l.LogBytes = most.LogBytes })
	add("casts", uint64(l.Casts), uint64(most.Casts), func() { l.Casts = most.Casts })
	add("reply_bytes", uint64(l.ReplyBytes), uint64(most.ReplyBytes), func() { l.ReplyBytes = most.ReplyBytes })
	add("table_elements", uint64(l.TableElements), uint64(most.TableElements), func() { l.TableElements = most.TableElements })
	add("call_depth", uint64(l.CallDepth), uint64(most.CallDepth), func() { l.CallDepth = most.CallDepth })
	add("memory_inline", uint64(l.MemoryInline), uint64(most.MemoryInline), func() { l.MemoryInline = most.MemoryInline })
	return list
}
