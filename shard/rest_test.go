package shard

import (
	"testing"
	"time"
)

// TestRestsWhileCrowded looks at how long what is due rests on end: as long as asked
// for while processors are free, and longer while they are not, but within a limit,
// so that it goes on however crowded it is.
func TestRestsWhileCrowded(t *testing.T) {
	for name, tt := range map[string]struct{ first, waited, want time.Duration }{
		"a processor is free":      {dueSlice, 0, dueSlice},
		"nearly free":              {dueSlice, dueCrowded - 1, dueSlice},
		"crowded":                  {dueSlice, dueCrowded, dueCrowdedRestMax},
		"very crowded":             {dueSlice, time.Second, dueCrowdedRestMax},
		"crowded after a long one": {dueRestMax, dueCrowded, dueCrowdedRestMax},
		"as long as may be":        {dueCrowdedRestMax, time.Second, dueCrowdedRestMax},
	} {
		t.Run(name, func(t *testing.T) {
			rested := tt.first
			for rests := 1; ; rests++ {
				d := restAgain(rested, tt.waited)
				if d == 0 {
					break
				}
				if d < 0 || rests > int(dueCrowdedRestMax/dueSlice) {
					t.Fatalf("after %d rests and %s it rests again for %s", rests, rested, d)
				}
				rested += d
			}
			if rested != tt.want {
				t.Errorf("it rests for %s in all, want %s", rested, tt.want)
			}
		})
	}
}
