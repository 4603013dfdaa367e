package main

import "os"

// garbageMin is how much garbage may gather, at least, before the collector runs.
// By Go's own rule it is as much as there is live data: a node with little in
// memory under much load would collect every few milliseconds.
const garbageMin = 64 << 20

// newBallast makes what keeps the collector from running too often: it counts as
// live, and as it is never touched the system gives no memory for it. Who sets
// GOGC or GOMEMLIMIT wants to say it all himself; then there is none.
func newBallast() []byte {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if os.Getenv(name) != "" {
			return nil
		}
	}
	return make([]byte, garbageMin)
}
