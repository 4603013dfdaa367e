package wasmhost

import (
	"unicode/utf8"

	"github.com/nolaproject/nola"
)

// reader reads a part of a module. The first fault stays in err; from then on
// every method answers zero and reads nothing.
type reader struct {
	b    []byte
	at   int // in b
	base int // of b in the module
	what string
	err  *nola.Error
}

func newReader(v view, what string) *reader {
	return &reader{b: v.bytes, base: v.offset, what: what}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		args = append([]any{r.what, r.base + r.at}, args...)
		r.err = invalid("%s section, byte %d: "+format, args...)
	}
}

func (r *reader) u8() byte {
	if r.err != nil {
		return 0
	}
	if r.at >= len(r.b) {
		r.fail("cut short, want one more byte")
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b)-r.at {
		r.fail("cut short, want %d more bytes, have %d", n, len(r.b)-r.at)
		return nil
	}
	p := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return p
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() uint32 {
	// One byte is by far the most frequent.
	if r.err == nil && r.at < len(r.b) && r.b[r.at] < 0x80 {
		r.at++
		return uint32(r.b[r.at-1])
	}
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		c := r.u8()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > 1<<32-1 {
				break
			}
			return uint32(v)
		}
	}
	r.fail("a number of more than 32 bits")
	return 0
}

// signed reads a signed LEB128 number of at most width bits.
func (r *reader) signed(width int) int64 {
	var v int64
	for shift := 0; shift < width; shift += 7 {
		c := r.u8()
		v |= int64(c&0x7f) << shift
		if c >= 0x80 {
			continue
		}
		if rest := shift + 7; rest < 64 {
			v = v << (64 - rest) >> (64 - rest)
		}
		if width < 64 && (v >= 1<<(width-1) || v < -1<<(width-1)) {
			break
		}
		return v
	}
	r.fail("a number of more than %d bits", width)
	return 0
}

// count reads how many of something follow, each at least one byte long.
func (r *reader) count(what string, most int) int {
	n := r.count32(what, most)
	if r.err == nil && n > len(r.b)-r.at {
		r.fail("it claims %d %s, but only %d bytes are left", n, what, len(r.b)-r.at)
		return 0
	}
	return n
}

func (r *reader) count32(what string, most int) int {
	n := r.u32()
	if r.err == nil && int64(n) > int64(most) {
		r.fail("%d %s, at most %d are allowed", n, what, most)
		return 0
	}
	return int(n)
}

func (r *reader) name() string {
	n := r.count("bytes of a name", nameBytesMax)
	b := r.take(n)
	if r.err == nil && !utf8.Valid(b) {
		r.fail("a name that is not UTF-8")
	}
	return string(b)
}

func (r *reader) valueTypes(what string) string {
	b := r.take(r.count(what, signatureMax))
	for _, t := range b {
		if (t < typeV128 || t > typeI32) && t != typeFuncref && t != typeExtern {
			r.fail("value type %#x is not known in WebAssembly 2.0", t)
		}
	}
	return string(b)
}

func (r *reader) limits() limits {
	var l limits
	switch flag := r.u8(); {
	case r.err != nil:
	case flag == 2 || flag == 3:
		r.fail("it is shared; threads are not supported")
	case flag > 1:
		r.fail("limits of form %#x (64-bit memory?), want 0 or 1", flag)
	default:
		l.min = r.u32()
		if flag == 1 {
			l.max, l.hasMax = r.u32(), true
			if r.err == nil && l.max < l.min {
				r.fail("a maximum of %d below the minimum of %d", l.max, l.min)
			}
		}
	}
	return l
}

// end demands that everything was read.
func (r *reader) end() {
	if r.err == nil && r.at != len(r.b) {
		r.fail("%d bytes too many", len(r.b)-r.at)
	}
}

func appendUnsigned(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, s string) []byte {
	return append(appendUnsigned(b, uint64(len(s))), s...)
}
