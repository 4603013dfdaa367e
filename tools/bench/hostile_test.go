package main

import (
	"bytes"
	"testing"
)

// TestReadHostile reads the corpus as it is in the repository: whole modules, those
// that are compressed as well.
func TestReadHostile(t *testing.T) {
	corpus, err := readHostile("../../" + hostileDefault)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range corpus {
		if !bytes.HasPrefix(h.code, []byte("\x00asm")) {
			t.Errorf("%s begins with %q", h.Name, h.code[:min(4, len(h.code))])
		}
	}
	if len(corpus) < 60 {
		t.Errorf("%d modules misbehave in a turn", len(corpus))
	}
	if _, err := readHostile(t.TempDir()); err == nil {
		t.Error("an empty directory has a corpus")
	}
}
