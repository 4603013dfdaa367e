package wasmhost

import (
	"bytes"
	"testing"

	"github.com/nolaproject/nola"
)

// FuzzDifference applies what it is given as a difference, and demands that what
// comes of it is written and read again.
func FuzzDifference(f *testing.F) {
	page := make([]byte, nola.MemoryPageBytes)
	f.Add([]byte{}, byte(0))
	f.Add(appendDifference(nil, bytes.Repeat([]byte{1}, nola.MemoryPageBytes), page), byte(0))
	f.Add(append([]byte{3, 1}, make([]byte, 8)...), byte(7))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1}, byte(1))
	f.Add([]byte{0x80, 4, 0, 0, 1}, byte(2))
	f.Fuzz(func(t *testing.T, d []byte, fill byte) {
		base := bytes.Repeat([]byte{fill}, nola.MemoryPageBytes)
		page := bytes.Clone(base)
		_ = applyDifference(page, d)
		own := appendDifference(nil, page, base)
		if bytes.Equal(page, base) != (len(own) == 0) {
			t.Fatalf("the difference of equal pages has %d bytes", len(own))
		}
		again := bytes.Clone(base)
		if err := applyDifference(again, own); err != nil || !bytes.Equal(again, page) {
			t.Fatalf("%x is written, and does not come back: %v", own, err)
		}
	})
}
