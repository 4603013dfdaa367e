package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for name, tt := range map[string]struct {
		args string
		out  string // part of the output
		err  string // part of the error
	}{
		"no command":         {"", "", "say start or stop"},
		"unknown command":    {"restart", "", `unknown command "restart"`},
		"unknown flag":       {"stop -nodes 3", "", "not defined: -nodes"},
		"argument":           {"start now", "", `"now" is no flag of start`},
		"nothing to stop":    {"stop -dir DIR", "stopped 0 nodes of ", ""},
		"help":               {"start -help", "1 or 3, on 127.0.0.1 to 127.0.0.3", ""},
		"impossible cluster": {"start -nodes 2 -dir DIR", "", "2 nodes; choose 1 or 3"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), strings.Fields(strings.ReplaceAll(tt.args, "DIR", t.TempDir())), &out)
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want one that says %q", err, tt.err)
			}
			if !strings.Contains(out.String(), tt.out) {
				t.Errorf("output %q does not say %q", out.String(), tt.out)
			}
		})
	}
}
