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
		"help":               {"-help", "1 or 3, on 127.0.0.1 to 127.0.0.3", ""},
		"unknown flag":       {"-shards 3", "", "not defined: -shards"},
		"argument":           {"now", "", `"now" is no flag`},
		"impossible cluster": {"-nodes 2 -dir DIR", "", "2 nodes; choose 1 or 3"},
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
