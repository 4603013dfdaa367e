//go:build !linux

package wasmhost

// imageView is not to be had here: memories are copies on the heap.
type imageView struct{ bytes []byte }

func newImageView([]byte) *imageView                       { return nil }
func viewsWork() bool                                      { return false }
func (*imageView) close()                                  {}
func (*imageView) private(uint64) []byte                   { return nil }
func (*imageView) restore([]byte) bool                     { return false }
func (*imageView) written([]byte, func(from, to int)) bool { return false }
func extendView(mapped []byte, size int) bool              { return size == len(mapped) }
func unmapView([]byte)                                     {}
