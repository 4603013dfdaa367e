// Hostile writes the corpus of hostile modules into testdata/hostile: one binary
// for each misdeed, and corpus.json, which says of each what must come of it.
// The tests of the host and of the server read them there.
//
//	go run ./tools/hostile
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	// directory is where the corpus lies, from the root of the repository.
	directory = "testdata/hostile"
	// plainBytesMax is how large a module may be that is kept as it is; larger
	// ones repeat themselves and are kept compressed.
	plainBytesMax = 4 << 10
)

func main() {
	if err := write(directory); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

// write makes the corpus anew in dir.
func write(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "*.wasm*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	guests := corpus()
	for i := range guests {
		g := &guests[i]
		code := g.code
		g.File = g.Name + ".wasm"
		if len(code) > plainBytesMax {
			g.File += ".gz"
			if code, err = compress(code); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, g.File), code, 0o644); err != nil {
			return err
		}
	}
	list, err := json.MarshalIndent(guests, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "corpus.json"), append(list, '\n'), 0o644)
}

func compress(code []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(code); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func expand(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
