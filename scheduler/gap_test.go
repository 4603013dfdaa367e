package scheduler_test

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// TestNextFromBehindAGap asks for the next time from every minute around the change to
// summer time, also from behind the gap: up to a time that the gap has moved, that one
// is the answer, whoever asks from where.
func TestNextFromBehindAGap(t *testing.T) {
	for name, tt := range map[string]struct {
		gap  nola.DSTGap
		want string
	}{
		"skip":         {nola.GapSkip, "2024-04-01T00:30:00Z"},
		"first_after":  {nola.GapFirstAfter, "2024-03-31T01:00:00Z"},
		"shift_by_gap": {nola.GapShift, "2024-03-31T01:30:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := scheduler.Compile(nola.Spec{
				Cron: []nola.Cron{{Expression: "30 2 * * *"}}, TimeZone: "Europe/Berlin", DSTGap: tt.gap,
			}, "")
			if err != nil {
				t.Fatal(err)
			}
			want, err := time.Parse(time.RFC3339, tt.want)
			if err != nil {
				t.Fatal(err)
			}
			for after := time.Date(2024, 3, 30, 1, 30, 0, 0, time.UTC); after.Before(want); after = after.Add(time.Minute) {
				if got, ok := c.Next(after); !ok || !got.Equal(want) {
					t.Fatalf("after %s comes %s (%t), want %s", after, got, ok, want)
				}
			}
		})
	}
}
