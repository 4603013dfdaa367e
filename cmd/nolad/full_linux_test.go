package main

import (
	"fmt"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of fullDiskBytes for the test, which takes the
// right to mount.
func smallDisk(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", fullDiskBytes)); err != nil {
		t.Skipf("a small file system cannot be mounted here (root can): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
