package main

import (
	"os"
	"runtime"
	"sync"
)

// processors answers how many guests run at once, one for each processor, and sees
// to it that Go has one more for everything else. A guest that computes is always
// ready: if each of Go's processors had one, nobody would look at the network for
// up to 10 ms. One that is left over waits for the network, and the system then
// shares the real processors out. Who sets GOMAXPROCS gets what it says.
var processors = sync.OnceValue(func() int {
	n := runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(n + 1)
	}
	return n
})
