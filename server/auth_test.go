package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeTokens(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokensCheck(t *testing.T) {
	tokens, err := LoadTokens(writeTokens(t, "# who may call\n\nalice:0123456789abcdef\nbob: fedcba9876543210\nalice:another-of-alice-1\n"))
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"Bearer 0123456789abcdef":   "alice",
		"bearer 0123456789abcdef":   "alice",
		"Bearer fedcba9876543210":   "bob",
		"Bearer another-of-alice-1": "alice",
		"Bearer 0123456789abcdeF":   "",
		"Bearer 0123456789abcde":    "",
		"Basic 0123456789abcdef":    "",
		"Bearer ":                   "",
		"Bearer":                    "",
		"":                          "",
		"Bearer " + strings.Repeat("x", TokenBytesMax+1): "",
	} {
		if name, ok := tokens.Check(header); name != want || ok != (want != "") {
			t.Errorf("Check(%.40q) = %q, %v, want %q", header, name, ok, want)
		}
	}
}

func TestLoadTokensListsEveryFault(t *testing.T) {
	_, err := LoadTokens(writeTokens(t, "no colon here\nAlice:0123456789abcdef\nbob:short-secret\nx:0123456789abcdef\neve:0123456789 abcdefgh\n"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"line 1: ", `line 2: name "Alice"`, "line 3: the token has 12 bytes", "line 4: the token is that of line 2", "line 5: the token has a space"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "short-secret") || strings.Contains(err.Error(), "0123456789") {
		t.Errorf("error shows a token: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "comments only": "# nothing\n"} {
		if _, err := LoadTokens(writeTokens(t, text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := LoadTokens(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file is accepted")
	}
}
