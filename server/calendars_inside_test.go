package server

import (
	"fmt"
	"testing"
)

func TestSomeIDs(t *testing.T) {
	var s someIDs
	for i := range 1_000_000 {
		s.add(fmt.Sprint("s", i))
	}
	if len(s.first) != calendarUsesMax || s.count != 1_000_000 {
		t.Errorf("%d of %d ids are kept, want %d of a million", len(s.first), s.count, calendarUsesMax)
	}
	if got, want := s.String(), `schedules "s0", "s1", "s2", "s3", "s4" and 999995 more`; got != want {
		t.Errorf("the text is %s, want %s", got, want)
	}
}
