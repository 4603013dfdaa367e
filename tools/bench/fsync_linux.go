package main

import (
	"os"
	"syscall"
)

// syncData makes what was written to f durable, without the times of its inode.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
