package cqlstore

import (
	"syscall"
	"time"
	"unsafe"
)

// uptime reads a clock that goes on while the machine sleeps.
func uptime() time.Duration {
	const boottime = 7 // CLOCK_BOOTTIME
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, boottime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("cqlstore: read CLOCK_BOOTTIME: " + errno.Error())
	}
	return time.Duration(ts.Nano())
}
