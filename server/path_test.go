package server

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzSplitPath takes paths apart: those that were put together of four parts
// come back as they were, and others are refused or have four parts.
func FuzzSplitPath(f *testing.F) {
	f.Add("default", "counter", "alice", "inc", "default/counter/alice/inc")
	f.Add("a", "b", "{tag}/x y", "op%2F", "a/b/%7Btag%7D%2Fx/op")
	f.Add("", "ä", "\x00", "..", "//%zz/..")
	f.Fuzz(func(t *testing.T, a, b, c, d, raw string) {
		want := [4]string{a, b, c, d}
		var escaped []string
		for _, part := range want {
			escaped = append(escaped, url.PathEscape(part))
		}
		var got [4]string
		if err := splitPath(strings.Join(escaped, "/"), &got); err != nil || got != want {
			t.Fatalf("%q became %q, %v", want, got, err)
		}
		if err := splitPath(raw, &got); err == nil && strings.Count(raw, "/") != 3 {
			t.Fatalf("%q was taken for %q", raw, got)
		}
	})
}
