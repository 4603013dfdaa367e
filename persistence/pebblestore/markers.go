package pebblestore

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// orderedMarkers is a file system on which a marker of Pebble never outlives
// the loss of what it names. Pebble makes a file, then the marker that names it,
// removes the old marker, and syncs the directory once at the end. A file system
// may keep any part of what was not synced: the new marker without the file, or
// neither marker. So the directory is synced before either step. It happens when
// a manifest or a format begins, that is seldom.
type orderedMarkers struct{ vfs.FS }

const markerPrefix = "marker."

func (o orderedMarkers) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := o.settle(name); err != nil {
		return nil, err
	}
	return o.FS.Create(name, category)
}

func (o orderedMarkers) Remove(name string) error {
	if err := o.settle(name); err != nil {
		return err
	}
	return o.FS.Remove(name)
}

// Unwrap is the file system below, for Pebble to find what the machine offers.
func (o orderedMarkers) Unwrap() vfs.FS { return o.FS }

// settle makes durable what the directory of a marker holds.
func (o orderedMarkers) settle(name string) error {
	if !strings.HasPrefix(o.PathBase(name), markerPrefix) {
		return nil
	}
	dir, err := o.OpenDir(o.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
