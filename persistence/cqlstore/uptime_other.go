//go:build !linux

package cqlstore

import "time"

var started = time.Now()

// uptime reads a clock that may stand still while the machine sleeps: a node that
// was asleep may then believe for a while in a lease that is over. No commit rests
// on it.
func uptime() time.Duration { return time.Since(started) }
