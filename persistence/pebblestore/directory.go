package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What may be wrong with a directory.
var (
	ErrInUse       = errors.New("the directory is in use by another process: stop it, or use a directory of your own")
	ErrNotStore    = errors.New("this is not a store of NOLA")
	ErrNewerFormat = errors.New("a newer version of NOLA has written the store: run that version or a newer one")
	ErrDamaged     = errors.New("files of the store are missing or damaged")
)

// storeFormat is the format of the directory. A store with a higher one is left
// alone.
const storeFormat = 1

const (
	markerName = "NOLA-STORE"
	dbName     = "db"
	// markerForm is what stands in the marker: our format, Pebble's, and whether
	// the store is still being created.
	markerForm   = "nola store %d, pebble %d, %s\n"
	stateMaking  = "unfinished"
	stateCreated = "created"
)

// directory is a data directory, locked.
type directory struct {
	fs      vfs.FS
	path    string
	created bool // its store exists; otherwise one may be made
	lock    io.Closer
}

// openDirectory locks dir and looks what it is. With create, an empty or missing
// directory becomes one whose store may be made.
func openDirectory(fsys vfs.FS, path string, create bool) (directory, error) {
	d := directory{fs: fsys, path: path}
	fail := func(err error) (directory, error) {
		return directory{}, errors.Join(fmt.Errorf("pebblestore: directory %s: %w", path, err), d.close())
	}
	if create {
		if err := fsys.MkdirAll(path, 0o700); err != nil {
			return fail(err)
		}
	}
	names, err := fsys.List(path)
	if err != nil {
		return fail(err)
	}
	if !slices.Contains(names, markerName) && (!create || !empty(names)) {
		return fail(ErrNotStore)
	}
	lock, err := pebble.LockDirectory(path, fsys)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fail(err)
		}
		return fail(fmt.Errorf("%w (%w)", ErrInUse, err))
	}
	d.lock = lock
	state, err := d.state()
	if err != nil {
		return fail(err)
	}
	switch state {
	case stateCreated:
		d.created = true
	case "":
		err = d.mark(stateMaking)
	}
	if err == nil && !d.created {
		err = d.syncAbove()
	}
	if err != nil {
		return fail(err)
	}
	return d, nil
}

// empty reports whether names are nothing that anybody would miss.
func empty(names []string) bool {
	for _, name := range names {
		if name != "lost+found" && name != "LOCK" && name != markerName+".new" {
			return false
		}
	}
	return true
}

// make makes a directory whose store comes from elsewhere. It is no store until
// finish. It shares the lock of d, for nobody opens what has no marker.
func (d directory) make(path string) (directory, error) {
	names, err := d.fs.List(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return directory{}, err
	case !empty(names):
		return directory{}, fmt.Errorf("directory %s is not empty", path)
	}
	if err := d.fs.MkdirAll(path, 0o700); err != nil {
		return directory{}, err
	}
	made := directory{fs: d.fs, path: path}
	return made, made.syncAbove()
}

// syncAbove makes it durable that the directory exists. It cannot know which of
// those above are new, perhaps made by a process that was killed, so it syncs
// them all; those that it may not read are older than it.
func (d directory) syncAbove() error {
	for path := d.path; ; {
		above := d.fs.PathDir(path)
		if above == path {
			return nil
		}
		err := d.syncDir(above)
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		path = above
	}
}

func (d directory) db() string { return d.fs.PathJoin(d.path, dbName) }

// finish says that the store of the directory exists.
func (d directory) finish() error { return d.mark(stateCreated) }

// close lets the directory go, once.
func (d *directory) close() error {
	lock := d.lock
	if d.lock = nil; lock == nil {
		return nil
	}
	return lock.Close()
}

// state reads the marker; there is none while the directory is empty.
func (d directory) state() (string, error) {
	f, err := d.fs.Open(d.fs.PathJoin(d.path, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	const markerBytesMax = 256
	text, err := io.ReadAll(io.LimitReader(f, markerBytesMax))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	var format, pebbleFormat int
	var state string
	if n, _ := fmt.Sscanf(string(text), strings.TrimSuffix(markerForm, "\n"), &format, &pebbleFormat, &state); n == 0 {
		return "", fmt.Errorf("%w: file %s in it says %q", ErrNotStore, markerName, text)
	}
	if format > storeFormat || pebbleFormat > int(formatMajorVersion) {
		return "", fmt.Errorf("%w (it has format %d with Pebble's %d, known are %d with %d)", ErrNewerFormat, format, pebbleFormat, storeFormat, int(formatMajorVersion))
	}
	if state != stateMaking && state != stateCreated {
		return "", fmt.Errorf("%w: file %s in it says %q", ErrNotStore, markerName, text)
	}
	return state, nil
}

// mark writes the marker so that a crash leaves the old one or the new one.
func (d directory) mark(state string) error {
	name := d.fs.PathJoin(d.path, markerName)
	f, err := d.fs.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, markerForm, storeFormat, int(formatMajorVersion), state)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.fs.Rename(name+".new", name); err != nil {
		return err
	}
	return d.syncDir(d.path)
}

func (d directory) syncDir(path string) error {
	dir, err := d.fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
