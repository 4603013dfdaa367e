package powercut

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Point is a moment before an operation of a disk. It is valid while the
// function runs that it is given to.
type Point struct {
	Op   int    // the operation's number, from 1
	What string // the operation and the path it is about
	disk *vfs.MemFS
}

// Survivors copies what the disk may hold if the power goes now: everything
// synced, and each block that was not with a chance of percent in 100, drawn
// from seed.
func (p Point) Survivors(percent int, seed uint64) *vfs.MemFS {
	return p.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, uint64(p.Op)))})
}

// NewDisk returns a file system in memory that calls before ahead of each of
// its operations that write, one at a time.
func NewDisk(before func(Point)) vfs.FS {
	d := &disk{MemFS: vfs.NewCrashableMem()}
	ops := 0
	return errorfs.Wrap(d, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			d.mu.Lock()
			defer d.mu.Unlock()
			ops++
			before(Point{Op: ops, What: fmt.Sprintf("%d of %s", op.Kind, op.Path), disk: d.MemFS})
		}
		return nil
	}))
}

type disk struct {
	*vfs.MemFS
	mu sync.Mutex // held while before runs
}

// ReuseForWrite keeps copies away: MemFS takes its read lock twice here, and a
// copy that asks for the write lock in between stops both for ever.
func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.MemFS.ReuseForWrite(oldname, newname, category)
}
