package cassandra

import (
	"strings"
	"testing"
)

func TestLastWords(t *testing.T) {
	after := strings.Repeat("INFO  flushing\n", outputMax)
	for _, c := range []struct{ name, log, want string }{
		{"nothing", "", "  nothing"},
		{"no error", "INFO  one\nINFO  two\n", "INFO  two"},
		{"an error long before the end", "INFO  one\n12:00 ERROR Daemon cannot\n" + after, "12:00 ERROR Daemon cannot"},
		{"an exception at the start", "INFO  one\nException (X) encountered during startup: no seeds\n" + after, "no seeds"},
	} {
		got := string(lastWords([]byte(c.log)))
		if !strings.Contains(got, c.want) || len(got) > outputMax {
			t.Errorf("%s: %d bytes without %q: %.200q", c.name, len(got), c.want, got)
		}
	}
}
