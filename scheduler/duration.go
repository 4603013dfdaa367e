package scheduler

import (
	"fmt"
	"math"
	"time"
)

// ParseDuration reads a duration such as 90s, 1h30m, 250ms, 1.5h, 2d or 1w: the
// syntax of Go without a sign, plus days of 24 hours and weeks of 7 days.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no duration; write one like 90s, 1h30m, 250ms, 2d or 1w", clip(s))
	if s == "" || len(s) > 64 {
		return 0, bad
	}
	total := int64(0)
	for i := 0; i < len(s); {
		whole, fraction, scale, digits := int64(0), int64(0), int64(1), 0
		for ; i < len(s) && isDigit(s[i]); i++ {
			if whole > (math.MaxInt64-9)/10 {
				return 0, bad
			}
			whole, digits = whole*10+int64(s[i]-'0'), digits+1
		}
		if i < len(s) && s[i] == '.' {
			for i++; i < len(s) && isDigit(s[i]); i++ {
				if digits++; scale < 1e9 {
					fraction, scale = fraction*10+int64(s[i]-'0'), scale*10
				}
			}
		}
		j := i
		for j < len(s) && s[j] != '.' && !isDigit(s[j]) {
			j++
		}
		unit := int64(0)
		switch s[i:j] {
		case "ms":
			unit = int64(time.Millisecond)
		case "s":
			unit = int64(time.Second)
		case "m":
			unit = int64(time.Minute)
		case "h":
			unit = int64(time.Hour)
		case "d":
			unit = int64(24 * time.Hour)
		case "w":
			unit = int64(7 * 24 * time.Hour)
		}
		if digits == 0 || unit == 0 || whole > math.MaxInt64/unit {
			return 0, bad
		}
		// unit/scale first would lose digits, fraction*unit first could overflow
		part := whole*unit + int64(float64(fraction)*(float64(unit)/float64(scale)))
		if part < 0 || total > math.MaxInt64-part {
			return 0, bad
		}
		total += part
		i = j
	}
	return time.Duration(total), nil
}
