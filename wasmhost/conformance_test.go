package wasmhost_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/wapc/wapc-go"
	reference "github.com/wapc/wapc-go/engines/wazero"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// conformanceGuests is the conformance guest in every language; what it answers
// stands in testdata/guests/README.md.
func conformanceGuests(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"assemblyscript": builtGuest(t, "assemblyscript"),
		"go":             goGuest(t, "../testdata/guests/go"),
		"rust":           builtGuest(t, "rust"),
		"small":          smallGuest(t),
		"tinygo":         builtGuest(t, "tinygo"),
		"wat":            builtGuest(t, "wat"),
	}
}

// call is one invocation.
type call struct{ op, payload string }

// conformance is what every guest is asked, in this order, and what it must
// answer. An error begins with a mark of its own; … stands for any end.
var conformance = []struct {
	call
	want string
}{
	{call{"echo", ""}, ""},
	{call{"echo", "hello"}, "hello"},
	{call{"echo", "\x00\x01\xfe\xff binary \x80"}, "\x00\x01\xfe\xff binary \x80"},
	{call{"echo", aPage}, aPage},
	{call{"echo", fivePages}, fivePages}, // small guests must grow
	{call{"echo", "short again"}, "short again"},
	{call{"noop", "x"}, ""},
	{call{"nope", "x"}, failed + "No!"},
	{call{"fly", ""}, failed + `Could not find function "fly"`},
	{call{"", "no name"}, failed + `Could not find function ""`},
	{call{longName, "x"}, failed + `Could not find function "` + longName + `"`},
	{call{"remember", ""}, "1"},
	{call{"get", ""}, "0"},
	{call{"inc", ""}, "1"},
	{call{"inc", "41"}, "42"},
	{call{"inc", "-50"}, "-8"},
	{call{"inc", "+9"}, "1"},
	{call{"inc", "x"}, failed + "inc: the payload must be empty or a decimal number"},
	{call{"inc", "1x"}, failed + "inc: the payload must be empty or a decimal number"},
	{call{"inc", "-"}, failed + "inc: the payload must be empty or a decimal number"},
	{call{"inc", "900000000000000000"}, "900000000000000001"},
	{call{"get", "ignored"}, "900000000000000001"},
	{call{"host", "KV-GET\x00n"}, "\x01900000000000000001"},
	{call{"reset", ""}, "900000000000000001"},
	{call{"host", "KV-GET\x00n"}, "\x00"},
	{call{"host", "KV-PUT\x00\x02bvalue \x00 of bytes"}, ""},
	{call{"host", "KV-GET\x00b"}, "\x01value \x00 of bytes"},
	{call{"host", "KV-PUT\x00\x02l" + fivePages}, ""},
	{call{"host", "KV-GET\x00l"}, "\x01" + fivePages},
	{call{"host", "KV-LIST\x00{\"limit\":1}"}, "\x02b\x20value \x00 of bytes\x01"},
	{call{"host", "KV-DELETE\x00l"}, "\x01"},
	{call{"host", "KV-PUT\x00"}, failed + "KV-PUT: want a varint, the length of what follows, got 0 bytes"},
	{call{"host", "NOT-THERE\x00x"}, failed + "unknown host operation \"NOT-THERE\"; known are …"},
	{call{"host", "NOW"}, "\x18\x99\x8b\x01\x85\x9e\xb6\b"},
	{call{"inc", "7"}, "7"},
	{call{"remember", ""}, "2"},
	{call{"echo", "after all that"}, "after all that"},
}

const failed = "failed: "

var (
	aPage     = strings.Repeat("0123456789abcdef", 4096)
	fivePages = strings.Repeat(aPage, 5)
	longName  = strings.Repeat("long", 500)
)

// outcome is all that a guest leaves behind.
type outcome struct {
	answers    []string
	steps      []uint64 // of the turns, where they are compared
	logs       []string
	state      map[string][]byte
	memory     []byte
	generators []int // places in memory that are to differ: seeded for each activation
}

// calls are those of the conformance suite.
func calls() (list []call) {
	for _, c := range conformance {
		list = append(list, c.call)
	}
	return list
}

// TestConformance runs the guest of each language in every way in which a guest
// can run: raw under the protocol's reference host, with the meter, with the
// meter from an image, and in a slot that others have used. All must answer the
// same, and each leave the same memory in all ways.
func TestConformance(t *testing.T) {
	for name, code := range conformanceGuests(t) {
		t.Run(name, func(t *testing.T) {
			raw := runReference(t, code, calls())
			raw.check(t)
			for memory, config := range memories {
				for how, got := range runOurs(t, code, config) {
					t.Run(memory+"/"+how, func(t *testing.T) {
						got.check(t)
						if !slices.Equal(got.answers, raw.answers) {
							t.Errorf("the answers are %.500q, under the reference %.500q", got.answers, raw.answers)
						}
						if !maps.EqualFunc(got.state, raw.state, bytes.Equal) {
							t.Errorf("the state is %.200q, under the reference %.200q", got.state, raw.state)
						}
						got.checkMemory(t, raw.memory)
					})
				}
			}
		})
	}
}

func (o outcome) check(t *testing.T) {
	t.Helper()
	for i, c := range conformance {
		head, open := strings.CutSuffix(c.want, "…")
		if fits := o.answers[i] == c.want || open && strings.HasPrefix(o.answers[i], head); !fits {
			t.Errorf("%s(%.40q)\n got %.200q\nwant %.200q", c.op, c.payload, o.answers[i], c.want)
		}
	}
}

func (o outcome) checkMemory(t *testing.T, want []byte) {
	t.Helper()
	want = bytes.Clone(want)
	for _, at := range o.generators {
		copy(want[at:at+wasmhost.GeneratorBytes], o.memory[at:])
	}
	if len(o.memory) != len(want) {
		t.Errorf("the memory has %d bytes, under the reference %d", len(o.memory), len(want))
	}
	differ, first := 0, 0
	for at := range min(len(o.memory), len(want)) {
		if o.memory[at] != want[at] {
			if differ == 0 {
				first = at
			}
			differ++
		}
	}
	if differ > 0 {
		t.Errorf("the memory differs from that under the reference in %d bytes, first at %#x: %x, want %x", differ, first, o.memory[first:min(first+16, len(o.memory))], want[first:min(first+16, len(want))])
	}
}

// runOurs runs a guest in all of our ways.
func runOurs(t *testing.T, code []byte, config wasmhost.Config) map[string]outcome {
	t.Helper()
	r := newRuntime(t, config)
	whole, err := r.PrepareWhole(context.Background(), code, nola.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	m := prepare(t, r, code, nola.Manifest{})
	ok, generators := wasmhost.HasImage(m)
	if !ok {
		t.Fatal("the module has no image")
	}
	ways := map[string]outcome{"metered": live(t, whole, calls()), "from an image": live(t, m, calls())}
	live(t, m, []call{{"remember", ""}, {"echo", "other"}, {"inc", "3"}, {"nope", ""}})
	before := r.Stats().SlotsReused
	ways["in a used slot"] = live(t, m, calls())
	if n := r.Stats().SlotsReused - before; n != 1 {
		t.Errorf("%d slots were used again, want 1", n)
	}
	if config.CacheDir == "" {
		// As a later process prepares it.
		config.CacheDir = t.TempDir()
		prepare(t, newRuntime(t, config), code, nola.Manifest{})
		ways["made before"] = live(t, prepare(t, newRuntime(t, config), code, nola.Manifest{}), calls())
	}
	for how, o := range ways {
		o.generators = generators
		ways[how] = o
	}
	return ways
}

// live takes an instance of m through its life.
func live(t *testing.T, m nola.Module, calls []call) (o outcome) {
	t.Helper()
	i, w := instantiate(t, m), newWorld()
	defer i.Close()
	for _, c := range calls {
		reply, err := invoke(i, w, c.op, c.payload)
		if err != nil {
			reply = failed + errorText(err, c.op)
		}
		o.answers = append(o.answers, reply)
	}
	o.memory, o.state, o.logs = wasmhost.CopyMemory(i), w.state, w.logs
	return o
}

// errorText is the text of an error as the guest gave it to the host.
func errorText(err error, op string) string {
	var e *nola.Error
	if errors.As(err, &e) && e.Reason == nola.ReasonOperationNotFound {
		return fmt.Sprintf("Could not find function %q", op)
	}
	return strings.TrimPrefix(err.Error(), "Host error: ")
}

// runReference runs a guest under wapc-go, over the same world and with the same
// clock and random stream. Its host calls are answered by an instance of ours,
// so that only the way differs in which guests run.
func runReference(t *testing.T, code []byte, calls []call) (o outcome) {
	t.Helper()
	ctx := context.Background()
	w := newWorld()
	proxy := instantiate(t, prepare(t, newRuntime(t, wasmhost.Config{}), smallGuest(t), nola.Manifest{}))
	host := func(_ context.Context, _, _, operation string, payload []byte) ([]byte, error) {
		reply, err := invoke(proxy, w, "host", operation+"\x00"+string(payload))
		return []byte(reply), err
	}
	m, err := reference.Engine().New(ctx, host, code, &wapc.ModuleConfig{
		Logger: func(msg string) { w.logs = append(w.logs, "info: "+msg) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(ctx)
	now := wasmhost.InitEpoch
	m.(*reference.Module).WithConfig(func(c wazero.ModuleConfig) wazero.ModuleConfig {
		return c.WithStartFunctions("_initialize").
			WithRandSource(rand.NewChaCha8(sha256.Sum256(code))).
			WithWalltime(func() (int64, int32) { return now.Unix(), int32(now.Nanosecond()) }, 1).
			WithNanotime(func() int64 { return now.UnixNano() }, 1)
	})
	i, err := m.Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close(ctx)
	now = w.now
	for _, c := range calls {
		reply, err := i.Invoke(ctx, c.op, []byte(c.payload))
		answer := string(bytes.Clone(reply)) // it aliases guest memory
		if err != nil {
			answer = failed + strings.TrimPrefix(err.Error(), "Host error: ")
		}
		o.answers = append(o.answers, answer)
	}
	memory := i.(*reference.Instance).UnwrapModule().Memory()
	b, _ := memory.Read(0, memory.Size())
	o.memory, o.state, o.logs = bytes.Clone(b), w.state, w.logs
	return o
}

// TestConsoleLog compares what a raw guest logs.
func TestConsoleLog(t *testing.T) {
	g := guestOf([][]byte{importOf("wapc", "__console_log", typeI32s)}, []byte{0x41, 0, 0x41, 7, 0x10, 0, 0x41, 1}).
		with(11, vector(append([]byte{0, 0x41, 0, 0x0b}, name("a\x01\xc3\xa4 b\x00")...)))
	calls := []call{{"log", ""}}
	ours := live(t, prepare(t, newRuntime(t, wasmhost.Config{}), g.bytes(), nola.Manifest{}), calls)
	theirs := runReference(t, g.bytes(), calls)
	const want = "info: a\x01ä b\x00"
	if got := strings.Join(ours.logs, "\n"); got != want {
		t.Errorf("ours logs %q, want %q", got, want)
	}
	if got := strings.Join(theirs.logs, "\n"); got != want {
		t.Errorf("the reference logs %q, want %q", got, want)
	}
}
