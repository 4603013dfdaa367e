package wasmhost

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"
)

// What this file relies on, and [viewsWork] tries before anything is built on
// it: a memory file can be mapped privately, so that pages are shared until they
// are written; and PAGEMAP_SCAN (Linux 6.7) tells which ones were.

// imageView is an image as a file in memory.
type imageView struct {
	fd    int
	bytes []byte // the file, mapped to be read
}

// memfdCreate is the number of the system call, which package syscall lacks.
var memfdCreate = map[string]uintptr{"amd64": 319, "arm64": 279}[runtime.GOARCH]

// newImageView makes a view of b, or nil if the system cannot.
func newImageView(b []byte) *imageView {
	if !viewsWork() {
		return nil
	}
	return makeImageView(b)
}

func makeImageView(b []byte) *imageView {
	name := []byte("nola-image\x00")
	const closeOnExec = 1
	fd, _, errno := syscall.Syscall(memfdCreate, uintptr(unsafe.Pointer(&name[0])), closeOnExec, 0)
	if errno != 0 {
		return nil
	}
	v := &imageView{fd: int(fd)}
	for at := 0; at < len(b); {
		n, err := syscall.Pwrite(v.fd, b[at:], int64(at))
		if err != nil {
			v.close()
			return nil
		}
		at += n
	}
	var err error
	if v.bytes, err = syscall.Mmap(v.fd, 0, len(b), syscall.PROT_READ, syscall.MAP_SHARED); err != nil {
		v.close()
		return nil
	}
	return v
}

func (v *imageView) close() {
	if v.bytes != nil {
		_ = syscall.Munmap(v.bytes) // of what Mmap answered
		v.bytes = nil
	}
	_ = syscall.Close(v.fd) // nothing is written through it
}

// private maps a memory that begins as the image and may become size bytes
// long, or answers nil. Only the part that the image covers can be used until
// extendView.
func (v *imageView) private(size uint64) []byte {
	b, err := syscall.Mmap(v.fd, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return b
}

// extendView makes what lies behind the first size bytes of a view zeros that
// can be written. It may be done once, before that part is used.
func extendView(mapped []byte, size int) bool {
	if size == len(mapped) {
		return true
	}
	at := uintptr(unsafe.Pointer(&mapped[0])) + uintptr(size)
	_, _, errno := syscall.Syscall6(syscall.SYS_MMAP, at, uintptr(len(mapped)-size), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_FIXED|syscall.MAP_NORESERVE, ^uintptr(0), 0)
	return errno == 0
}

func unmapView(mapped []byte) {
	_ = syscall.Munmap(mapped) // of what Mmap answered
}

// dirtyBytesMax is how much of a view may have become its own. Beyond it, to
// drop all of it costs less than to copy it back, now and at every later reset.
const dirtyBytesMax = 512 << 10

// restore makes a view the image again, and reports whether it could.
func (v *imageView) restore(view []byte) bool {
	if len(view) == 0 {
		return true
	}
	base := uintptr(unsafe.Pointer(&view[0]))
	regions := regionLists.Get().(*regionList)
	defer regionLists.Put(regions)
	written := uint64(0)
	for from, end := base, base+uintptr(len(view)); from < end; {
		n, next, ok := scanWritten(from, end, regions)
		if !ok {
			return false
		}
		for _, r := range regions[:n] {
			copy(view[uintptr(r.start)-base:uintptr(r.end)-base], v.bytes[uintptr(r.start)-base:])
			written += r.end - r.start
		}
		from = next
	}
	if written > dirtyBytesMax {
		return syscall.Madvise(view, syscall.MADV_DONTNEED) == nil
	}
	return true
}

// written calls fn with the parts of a view that are perhaps no longer the
// image's, and reports whether it could tell.
func (v *imageView) written(view []byte, fn func(from, to int)) bool {
	base := uintptr(unsafe.Pointer(unsafe.SliceData(view)))
	regions := regionLists.Get().(*regionList)
	defer regionLists.Put(regions)
	for from, end := base, base+uintptr(len(view)); from < end; {
		n, next, ok := scanWritten(from, end, regions)
		if !ok {
			return false
		}
		for _, r := range regions[:n] {
			fn(int(uintptr(r.start)-base), int(uintptr(r.end)-base))
		}
		from = next
	}
	return true
}

// pageRegion is the kernel's struct page_region.
type pageRegion struct{ start, end, categories uint64 }

// regionList is where the kernel writes regions. It is told their address as a
// number, so they must not lie on a stack, which moves.
type regionList [64]pageRegion

var regionLists = sync.Pool{New: func() any { return new(regionList) }}

// scanArguments is the kernel's struct pm_scan_arg.
type scanArguments struct {
	size, flags, start, end, walkEnd, regions, regionsLen, pagesMax uint64
	inverted, mask, anyOf, returned                                 uint64
}

const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)
	pageFile    = 1 << 2
	pagePresent = 1 << 3
	pageSwapped = 1 << 4
)

// scanWritten finds the pages of a view that are no longer the file's. It stops
// when regions, which must come from regionLists, is full; next is where to go on.
func scanWritten(from, to uintptr, regions *regionList) (n int, next uintptr, ok bool) {
	a := scanArguments{
		start: uint64(from), end: uint64(to),
		regions: uint64(uintptr(unsafe.Pointer(&regions[0]))), regionsLen: uint64(len(regions)),
		inverted: pageFile, mask: pageFile, anyOf: pagePresent | pageSwapped, returned: pagePresent,
	}
	a.size = uint64(unsafe.Sizeof(a))
	fd, err := pagemap()
	if err != nil {
		return 0, 0, false
	}
	got, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&a)))
	runtime.KeepAlive(regions)
	if errno != 0 || a.walkEnd <= uint64(from) {
		return 0, 0, false
	}
	return int(got), uintptr(a.walkEnd), true
}

// pagemap is this process's, open for as long as it lives.
var pagemap = sync.OnceValues(func() (int, error) {
	return syscall.Open("/proc/self/pagemap", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
})

// viewsWork tries once, before the first image, that this system does all that
// views rely on.
var viewsWork = sync.OnceValue(func() bool {
	if memfdCreate == 0 || pageBytes%syscall.Getpagesize() != 0 {
		return false
	}
	page := syscall.Getpagesize()
	want := make([]byte, 8*page)
	for i := range want {
		want[i] = byte(i/page) + 1
	}
	v := makeImageView(want)
	if v == nil {
		return false
	}
	defer v.close()
	mapped := v.private(uint64(16 * page))
	if mapped == nil {
		return false
	}
	defer unmapView(mapped)
	view := mapped[:len(want)]
	written := func() []pageRegion {
		base := uintptr(unsafe.Pointer(&view[0]))
		regions := regionLists.Get().(*regionList)
		defer regionLists.Put(regions)
		n, next, ok := scanWritten(base, base+uintptr(len(view)), regions)
		if !ok || next != base+uintptr(len(view)) {
			return []pageRegion{{}, {}} // none that is expected
		}
		found := slices.Clone(regions[:n])
		for i := range found {
			found[i].start -= uint64(base)
			found[i].end -= uint64(base)
		}
		return found
	}
	is := func(from, to int) bool {
		r := written()
		return len(r) == 1 && r[0].start == uint64(from*page) && r[0].end == uint64(to*page)
	}
	if !bytes.Equal(view, want) { // reads every page, and writes none
		return false
	}
	if len(written()) != 0 {
		return false
	}
	view[3*page]++
	view[5*page-1]++
	if !is(3, 5) || want[3*page] != v.bytes[3*page] || !v.restore(view) || !bytes.Equal(view, want) || !is(3, 5) {
		return false
	}
	if !extendView(mapped, len(want)) || mapped[len(want)] != 0 {
		return false
	}
	mapped[len(mapped)-1] = 1
	return syscall.Madvise(view, syscall.MADV_DONTNEED) == nil && bytes.Equal(view, want) && mapped[len(mapped)-1] == 1
})
