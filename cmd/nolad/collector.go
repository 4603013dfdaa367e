package main

import (
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// How much garbage may gather, at least, before the collector runs: a part of the
// memory that the process may have, within bounds. By Go's own rule it is as much as
// there is live data: a node with little in memory under much load would collect
// every few milliseconds.
const (
	garbagePart            = 32
	garbageMin, garbageMax = 32 << 20, 512 << 20
)

// newBallast makes what keeps the collector from running too often: it counts as
// live, and as it is never touched the system gives no memory for it. Who sets
// GOGC or GOMEMLIMIT wants to say it all himself; then there is none.
func newBallast() []byte {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if os.Getenv(name) != "" {
			return nil
		}
	}
	return make([]byte, garbageOf(availableMemory()))
}

// garbageOf is how much garbage a process gathers that may have so much memory.
func garbageOf(memory uint64) uint64 {
	return min(max(memory/garbagePart, garbageMin), garbageMax)
}

// availableMemory is that of the machine, or of the container if it has less; 0 if the
// system tells neither.
func availableMemory() uint64 {
	machine, _ := memlimit.FromSystem()
	container, err := memlimit.FromCgroup()
	if err != nil || container == 0 { // there is none, or it has no limit
		return machine
	}
	if machine == 0 {
		return container
	}
	return min(machine, container)
}
