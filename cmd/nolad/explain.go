package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"github.com/nolaproject/nola/persistence/pebblestore"
)

// explain is an error with what to do next.
func explain(err error) string {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "listen" && errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("the address %s is in use, maybe by another nolad: stop that, or choose another with --listen (port 0 takes a free one)", op.Addr)
	case errors.As(err, &op) && op.Op == "listen":
		return fmt.Sprintf("cannot listen on %s: %v", op.Addr, op.Err)
	case errors.Is(err, pebblestore.ErrInUse):
		return indent(err.Error()) + "\n  Only one nolad may work on a directory: stop the one that does, or choose another with --data-dir"
	case errors.Is(err, pebblestore.ErrNotStore):
		return indent(err.Error()) + "\n  Name the directory of a store, or an empty or missing one for a new store, with --data-dir"
	case errors.Is(err, pebblestore.ErrDamaged):
		return indent(err.Error()) + "\n  Keep the directory, check the disk, and make a store of the newest backup elsewhere: nolad restore BACKUP --data-dir NEWDIR"
	case errors.Is(err, fs.ErrPermission):
		return indent(err.Error()) + "\n  Give the user that runs nolad the right to read and write it, or choose another place"
	}
	return indent(err.Error())
}
