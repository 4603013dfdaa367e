// Package guest is for authors of actors. A module registers its operations
// when it is initialised; the host runs them one at a time, each as a turn of
// one actor:
//
//	package main
//
//	import "github.com/nolaproject/nola/guest"
//
//	func init() {
//		guest.Register("inc", func(c *guest.Context) ([]byte, error) {
//			n, err := c.AddInt("n", 1)
//			return guest.Text(n), err
//		})
//	}
//
//	func main() {}
//
// Build it with Go, or with TinyGo for modules a tenth as large:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o counter.wasm .
//
// # A turn
//
// What a turn writes, sends and sets is committed together with its reply, or
// not at all: an operation that returns an error, or panics, leaves nothing
// behind. Keep state with the methods of [Context]; variables of the module are
// a cache that may be gone in the next turn. A call to another actor is that
// actor's own transaction and stands even if this turn fails.
//
// A turn may be run again, after a crash for example. It sees the same random
// bytes then, so take randomness from [Context.Random] and time from
// [Context.Now].
//
// # Errors
//
// An error that an operation returns reaches the caller with its own text, as
// GUEST_ERROR. An error of the host that an operation returns as it came (not
// wrapped) reaches the caller with the host's reason. An operation that is not
// registered answers OPERATION_NOT_FOUND.
//
// The package compiles for other platforms too, so that tools can read it, but
// there is no host there and nothing calls what is registered.
package guest
