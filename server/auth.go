package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nolaproject/nola"
)

// Limits of a token file.
const (
	TokenBytesMin     = 16      // of one token, so that it cannot be guessed
	TokenBytesMax     = 4 << 10 // of one token, so that it fits into a header
	TokensMax         = 1_000
	tokenFileBytesMax = 8 << 20
)

const bearer = "Bearer "

// Tokens are static bearer tokens, each with the name of whoever holds it. They
// never change; any number of goroutines may check at once.
type Tokens struct {
	names  []string
	hashes [][sha256.Size]byte
}

// LoadTokens reads a token file: one NAME:TOKEN a line, where several lines may
// bear one name, so that a token can be replaced without a gap. Empty lines and
// lines that start with # are skipped. The error lists every fault with its
// line, and never shows a token.
func LoadTokens(path string) (*Tokens, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	if info.Size() > tokenFileBytesMax {
		return nil, fmt.Errorf("token file %s has %d bytes, at most %d are allowed", path, info.Size(), tokenFileBytesMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	t, err := parseTokens(data)
	if err != nil {
		return nil, fmt.Errorf("token file %s:\n%w", path, err)
	}
	return t, nil
}

func parseTokens(data []byte) (*Tokens, error) {
	t := &Tokens{}
	seen := make(map[[sha256.Size]byte]int)
	var faults []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("line %d: %s", number, fmt.Sprintf(format, args...)))
		}
		name, token, ok := strings.Cut(text, ":")
		if !ok {
			fault("want NAME:TOKEN, there is no colon")
			continue
		}
		name, token = strings.TrimSpace(name), strings.TrimSpace(token)
		if err := nola.ValidateName("name", name); err != nil {
			fault("%v", err)
		}
		switch {
		case len(token) < TokenBytesMin:
			fault("the token has %d bytes, at least %d are needed; `openssl rand -hex 32` makes a good one", len(token), TokenBytesMin)
			continue
		case len(token) > TokenBytesMax:
			fault("the token has %d bytes, at most %d are allowed", len(token), TokenBytesMax)
			continue
		}
		if at := strings.IndexFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }); at >= 0 {
			fault("the token has a space or a character outside of ASCII at byte %d; a header cannot carry it", at)
			continue
		}
		hash := sha256.Sum256([]byte(token))
		if first, ok := seen[hash]; ok {
			fault("the token is that of line %d; give each line its own", first)
			continue
		}
		seen[hash] = number
		t.names, t.hashes = append(t.names, name), append(t.hashes, hash)
	}
	if len(t.names) > TokensMax {
		faults = append(faults, fmt.Errorf("%d tokens, at most %d are allowed", len(t.names), TokensMax))
	}
	if len(t.names) == 0 && len(faults) == 0 {
		faults = append(faults, errors.New("there is no token, so nobody could call; add a line NAME:TOKEN"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return t, nil
}

// Check tells who shows the token of an Authorization header. How long it takes
// depends on the number of tokens, and on nothing that is secret.
func (t *Tokens) Check(header string) (name string, ok bool) {
	if len(header) < len(bearer) || !strings.EqualFold(header[:len(bearer)], bearer) {
		return "", false
	}
	token := strings.TrimSpace(header[len(bearer):])
	if len(token) > TokenBytesMax {
		return "", false
	}
	hash := sha256.Sum256([]byte(token))
	found := -1
	for i := range t.hashes {
		equal := subtle.ConstantTimeCompare(t.hashes[i][:], hash[:])
		found = subtle.ConstantTimeSelect(equal, i, found)
	}
	if found < 0 {
		return "", false
	}
	return t.names[found], true
}
