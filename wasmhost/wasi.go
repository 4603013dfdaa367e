package wasmhost

import (
	"encoding/binary"

	"github.com/tetratelabs/wazero/api"
)

// Error numbers of WASI.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoNosys   = 52
	errnoSpipe   = 70
)

// wasiImports is a deterministic cut of wasi_snapshot_preview1: the turn's clock
// and random stream, stdout and stderr as log, no files, no arguments, no
// environment. What is not there answers as a system without it does.
var wasiImports = map[string]imported{
	"args_get":          wasi("ii", none),
	"args_sizes_get":    wasi("ii", sizes),
	"environ_get":       wasi("ii", none),
	"environ_sizes_get": wasi("ii", sizes),

	"clock_res_get": wasi("ii", func(_ *turn, mem api.Memory, s []uint64) uint32 {
		if uint32(s[0]) > 1 {
			return errnoInval
		}
		return fault(mem.WriteUint64Le(uint32(s[1]), 1))
	}),
	"clock_time_get": wasi("iIi", func(t *turn, mem api.Memory, s []uint64) uint32 {
		at, ok := t.clock.read(uint32(s[0]))
		if !ok {
			return errnoInval
		}
		return fault(mem.WriteUint64Le(uint32(s[2]), uint64(at)))
	}),
	"random_get": wasi("ii", func(t *turn, mem api.Memory, s []uint64) uint32 {
		b, ok := mem.Read(uint32(s[0]), uint32(s[1]))
		if !ok {
			return errnoFault
		}
		for len(b) > 0 {
			part := b[:min(len(b), randomBytesMax)]
			t.fill(part)
			t.charge(randomCost * len(part))
			b = b[len(part):]
		}
		return errnoSuccess
	}),
	"sched_yield": wasi("", none),
	"poll_oneoff": wasi("iiii", poll),
	"proc_exit": {sign("i", ""), func(t *turn, _ api.Module, s []uint64) {
		t.exited, t.exitCode = true, uint32(s[0])
		t.end(nil)
	}},
	"proc_raise": wasi("i", missing),

	"fd_write": wasi("iiii", write),
	"fd_read": wasi("iiii", func(_ *turn, mem api.Memory, s []uint64) uint32 {
		if uint32(s[0]) != 0 {
			return errnoBadf
		}
		return fault(mem.WriteUint32Le(uint32(s[3]), 0)) // stdin is at its end
	}),
	"fd_close":    wasi("i", stdio),
	"fd_sync":     wasi("i", stdio),
	"fd_datasync": wasi("i", stdio),
	"fd_seek":     wasi("iIii", pipe),
	"fd_tell":     wasi("ii", pipe),
	"fd_fdstat_get": wasi("ii", func(_ *turn, mem api.Memory, s []uint64) uint32 {
		// A character device with the right to read (stdin) or to write.
		var stat [24]byte
		stat[0] = 2
		switch uint32(s[0]) {
		case 0:
			stat[8] = 1 << 1
		case 1, 2:
			stat[2], stat[8] = 1, 1<<6
		default:
			return errnoBadf
		}
		return fault(mem.Write(uint32(s[1]), stat[:]))
	}),
	"fd_fdstat_set_flags": wasi("ii", stdio),
	"fd_filestat_get": wasi("ii", func(_ *turn, mem api.Memory, s []uint64) uint32 {
		if uint32(s[0]) > 2 {
			return errnoBadf
		}
		var stat [64]byte
		stat[16] = 2 // a character device
		return fault(mem.Write(uint32(s[1]), stat[:]))
	}),
	"fd_prestat_get":      wasi("ii", closed),
	"fd_prestat_dir_name": wasi("iii", closed),

	"fd_advise":             wasi("iIIi", closed),
	"fd_allocate":           wasi("iII", closed),
	"fd_fdstat_set_rights":  wasi("iII", closed),
	"fd_filestat_set_size":  wasi("iI", closed),
	"fd_filestat_set_times": wasi("iIIi", closed),
	"fd_pread":              wasi("iiiIi", closed),
	"fd_pwrite":             wasi("iiiIi", closed),
	"fd_readdir":            wasi("iiiIi", closed),
	"fd_renumber":           wasi("ii", closed),

	"path_create_directory":   wasi("iii", closed),
	"path_filestat_get":       wasi("iiiii", closed),
	"path_filestat_set_times": wasi("iiiiIIi", closed),
	"path_link":               wasi("iiiiiii", closed),
	"path_open":               wasi("iiiiiIIii", closed),
	"path_readlink":           wasi("iiiiii", closed),
	"path_remove_directory":   wasi("iii", closed),
	"path_rename":             wasi("iiiiii", closed),
	"path_symlink":            wasi("iiiii", closed),
	"path_unlink_file":        wasi("iii", closed),

	"sock_accept":   wasi("iii", missing),
	"sock_recv":     wasi("iiiiii", missing),
	"sock_send":     wasi("iiiii", missing),
	"sock_shutdown": wasi("ii", missing),
}

type wasiFunction func(t *turn, mem api.Memory, s []uint64) (errno uint32)

func wasi(params string, f wasiFunction) imported {
	return imported{sign(params, "i"), func(t *turn, m api.Module, s []uint64) {
		t.charge(0)
		s[0] = uint64(f(t, m.Memory(), s))
	}}
}

func fault(ok bool) uint32 {
	if ok {
		return errnoSuccess
	}
	return errnoFault
}

func none(*turn, api.Memory, []uint64) uint32    { return errnoSuccess }
func missing(*turn, api.Memory, []uint64) uint32 { return errnoNosys }
func closed(*turn, api.Memory, []uint64) uint32  { return errnoBadf }

func stdio(_ *turn, _ api.Memory, s []uint64) uint32 {
	if uint32(s[0]) > 2 {
		return errnoBadf
	}
	return errnoSuccess
}

func pipe(_ *turn, _ api.Memory, s []uint64) uint32 {
	if uint32(s[0]) > 2 {
		return errnoBadf
	}
	return errnoSpipe
}

// sizes says that a list is empty.
func sizes(_ *turn, mem api.Memory, s []uint64) uint32 {
	return fault(mem.WriteUint32Le(uint32(s[0]), 0) && mem.WriteUint32Le(uint32(s[1]), 0))
}

const (
	writtenBytesMax = 64 << 10 // that stdout and stderr take between two checks
	writtenCost     = 8        // a written byte weighs as much as so many moved: it may be a line
)

// vectorsMax bounds the parts of one write and the subscriptions of one poll.
const vectorsMax = 1024

func write(t *turn, mem api.Memory, s []uint64) uint32 {
	fd, vectors, n := uint32(s[0]), uint32(s[1]), uint32(s[2])
	if fd != 1 && fd != 2 {
		return errnoBadf
	}
	if n > vectorsMax {
		return errnoInval
	}
	total := 0
	for i := range n {
		at, ok1 := mem.ReadUint32Le(vectors + 8*i)
		size, ok2 := mem.ReadUint32Le(vectors + 8*i + 4)
		if !ok1 || !ok2 {
			return errnoFault
		}
		b, ok := mem.Read(at, size)
		if !ok {
			return errnoFault
		}
		total += len(b)
		for len(b) > 0 {
			part := b[:min(len(b), writtenBytesMax)]
			t.charge(writtenCost * len(part))
			t.write(int(fd-1), part)
			b = b[len(part):]
		}
	}
	return fault(mem.WriteUint32Le(uint32(s[3]), uint32(total)))
}

// read returns the time of a WASI clock: 0 realtime, 1 monotonic, 2 and 3 the
// processor times, which a turn does not show.
func (c *clock) read(id uint32) (int64, bool) {
	switch id {
	case 0:
		return c.wall, true
	case 1, 2, 3:
		return c.monotonic, true
	}
	return 0, false
}

// poll serves poll_oneoff: whoever waits for a stream gets it at once, and
// sleeping moves the clock to the earliest end.
func poll(t *turn, mem api.Memory, s []uint64) uint32 {
	in, out, n := uint32(s[0]), uint32(s[1]), uint32(s[2])
	if n == 0 || n > vectorsMax {
		return errnoInval
	}
	subscriptions, ok := mem.Read(in, n*48)
	if !ok {
		return errnoFault
	}
	type sleeper struct {
		user, left uint64
		errno      uint16
	}
	var (
		events   []byte
		sleepers []sleeper
		soonest  = ^uint64(0)
	)
	event := func(user uint64, errno uint16, kind byte) {
		var e [32]byte
		binary.LittleEndian.PutUint64(e[:], user)
		binary.LittleEndian.PutUint16(e[8:], errno)
		e[10] = kind
		events = append(events, e[:]...)
	}
	for i := range int(n) {
		sub := subscriptions[i*48 : i*48+48]
		user := binary.LittleEndian.Uint64(sub)
		if kind := sub[8]; kind != 0 {
			errno := uint16(errnoSuccess)
			if binary.LittleEndian.Uint32(sub[16:]) > 2 {
				errno = errnoBadf
			}
			event(user, errno, kind)
			continue
		}
		w := sleeper{user: user, left: binary.LittleEndian.Uint64(sub[24:])}
		now, ok := t.clock.read(binary.LittleEndian.Uint32(sub[16:]))
		switch absolute := binary.LittleEndian.Uint16(sub[40:])&1 != 0; {
		case !ok:
			w.left, w.errno = 0, errnoInval
		case absolute && w.left > uint64(now):
			w.left -= uint64(now)
		case absolute:
			w.left = 0
		}
		soonest = min(soonest, w.left)
		sleepers = append(sleepers, w)
	}
	if len(events) == 0 {
		if soonest < 1<<63 {
			t.clock.sleep(int64(soonest))
		}
		for _, w := range sleepers {
			if w.left <= soonest {
				event(w.user, w.errno, 0)
			}
		}
	}
	if !mem.Write(out, events) {
		return errnoFault
	}
	return fault(mem.WriteUint32Le(uint32(s[3]), uint32(len(events)/32)))
}
