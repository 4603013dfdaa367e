package wasmhost

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
)

// TestTricksWork demands that the faster ways are taken where they are known to
// work, so that a new engine or system that breaks one is noticed.
func TestTricksWork(t *testing.T) {
	if !tablesWork() {
		t.Error("the engine is not as tables.go takes it to be")
	}
	if runtime.GOOS == "linux" && !viewsWork() {
		t.Log("this system has no views of images that say what was written")
	}
}

// tableModule is a guest whose functions 1 to 4 answer 11 to 14, with three
// tables: elements of every active form, one over another, and gaps.
func tableModule(elements ...[]byte) []byte {
	vector := func(entries ...[]byte) []byte {
		return append([]byte{byte(len(entries))}, slices.Concat(entries...)...)
	}
	section := func(id byte, body []byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	function := func(code ...byte) []byte {
		return append([]byte{byte(len(code) + 2), 0}, append(code, 0x0b)...)
	}
	look := func(table byte) []byte { return function(0x20, 0, 0x11, 1, table) }
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vector([]byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 0, 1, 0x7f}, []byte{0x60, 1, 0x7f, 1, 0x7f})),
		section(2, vector(slices.Concat([]byte("\x04wapc\x13__host_response_len\x00"), []byte{1}))),
		section(3, []byte{8, 0, 1, 1, 1, 1, 2, 2, 2}),
		section(4, vector([]byte{0x70, 0, 6}, []byte{0x70, 0, 4}, []byte{0x6f, 0, 2})),
		section(5, []byte{1, 0, 1}),
		section(7, vector([]byte("\x06memory\x02\x00"), []byte("\x0c__guest_call\x00\x01"), []byte("\x01a\x00\x06"), []byte("\x01b\x00\x07"), []byte("\x01c\x00\x08"))),
		section(9, vector(elements...)),
		section(10, vector(function(0x41, 1), function(0x41, 11), function(0x41, 12), function(0x41, 13), function(0x41, 14), look(0), look(1),
			function(0x20, 0, 0x25, 2, 0xd1))), // whether the third table holds null
	)
}

// TestTablesBeginAsTheEngineHasThem calls through every element of every table,
// filled by the engine and by us, in the first slot and in later ones.
func TestTablesBeginAsTheEngineHasThem(t *testing.T) {
	for name, tt := range map[string]struct {
		code []byte
		ours bool
	}{
		"all forms": {tableModule(
			[]byte{0, 0x41, 1, 0x0b, 3, 2, 3, 4},
			[]byte{2, 1, 0x41, 0, 0x0b, 0, 2, 5, 0},
			[]byte{4, 0x41, 2, 0x0b, 2, 0xd2, 5, 0x0b, 0xd0, 0x70, 0x0b}, // over the first
			[]byte{6, 1, 0x41, 2, 0x0b, 0x70, 2, 0xd0, 0x70, 0x0b, 0xd2, 2, 0x0b},
			[]byte{0, 0x41, 0, 0x0b, 0},
		), true},
		"one is not active":    {tableModule([]byte{0, 0x41, 1, 0x0b, 1, 2}, []byte{1, 0, 1, 3}), false},
		"one is only declared": {tableModule([]byte{0, 0x41, 1, 0x0b, 1, 2}, []byte{3, 0, 1, 3}), false},
		"beyond the end":       {tableModule([]byte{0, 0x41, 1, 0x0b, 1, 2}, []byte{0, 0x41, 5, 0x0b, 2, 3, 3}), false},
		"of a host's table":    {tableModule([]byte{0, 0x41, 1, 0x0b, 1, 2}, []byte{6, 2, 0x41, 0, 0x0b, 0x6f, 1, 0xd0, 0x6f, 0x0b}), false},
	} {
		t.Run(name, func(t *testing.T) {
			observed := func(config Config) (lives []string, ours bool) {
				r, err := New(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				m, err := r.Prepare(t.Context(), tt.code, nola.Manifest{})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				for range 3 {
					opened, err := m.Instantiate(nola.ActorRef{})
					if err != nil {
						t.Fatal(err)
					}
					defer opened.Close()
					runtime.GC() // what nobody holds is gone
					i := opened.(*instance)
					i.slot.turn.beginInit(i)
					i.slot.turn.meter = i.slot.engine.ExportedGlobal(meterExport).(api.MutableGlobal)
					lives = append(lives, answersOf(&i.slot.turn, i.slot.engine))
				}
				return lives, m.(*module).compiled.tables != nil
			}
			want, _ := observed(Config{PlainEngine: true})
			got, ours := observed(Config{})
			for n := range want {
				if got[n] != want[n] || want[n] != want[0] {
					t.Errorf("slot %d answers\n%s\nof the engine's tables\n%s", n, got[n], want[n])
				}
			}
			if ours != tt.ours {
				t.Errorf("filled here: %t, want %t\n%s", ours, tt.ours, want[0])
			}
		})
	}
}

func answersOf(ctx context.Context, m api.Module) (all string) {
	for _, table := range []string{"a", "b", "c"} {
		for at := range uint64(7) {
			got, err := m.ExportedFunction(table).Call(ctx, at)
			if err != nil {
				got = nil
			}
			all += fmt.Sprintf("%s[%d] = %v\n", table, at, got)
		}
	}
	return all
}

// TestViewsAreLimited demands that an instance beyond the last view gets a
// memory all the same.
func TestViewsAreLimited(t *testing.T) {
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m, err := r.Prepare(t.Context(), tableModule([]byte{0, 0x41, 1, 0x0b, 1, 2}), nola.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.(*module).compiled.image.view == nil {
		t.Skip("this system has no views")
	}
	r.views.Add(viewsMax - 1)
	for n, want := range []bool{true, false, false} {
		i, err := m.Instantiate(nola.ActorRef{})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		if mapped := i.(*instance).slot.memory.mapped != nil; mapped != want {
			t.Errorf("instance %d has a view: %t, want %t", n, mapped, want)
		}
		if _, err := i.Invoke(&nola.Turn{Operation: "x"}, nowhere{}); err != nil {
			t.Errorf("instance %d: %v", n, err)
		}
	}
	if n := r.views.Load(); n != viewsMax {
		t.Errorf("%d views are counted, want %d", n, viewsMax)
	}
}

// nowhere is a host of which only the time is asked.
type nowhere struct{ nola.Host }

func (nowhere) Now() time.Time { return initEpoch }
