//go:build !linux

package cluster

import "time"

var started = time.Now()

// now reads the clock that leases go by. It may stand still while the machine
// sleeps: do not let machines of a cluster sleep.
func now() time.Duration { return time.Since(started) }
