package cassandra

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindJava(t *testing.T) {
	const (
		java17   = `echo 'openjdk version "17.0.15" 2025-04-15' >&2`
		java25   = `echo 'openjdk version "25.0.1" 2025-10-21' >&2`
		java8    = `echo 'java version "1.8.0_401"' >&2`
		noneHere = `echo 'Unable to locate a Java Runtime.' >&2; exit 1`
	)
	for name, tt := range map[string]struct {
		home, path, place string // scripts, none if empty
		want              string // which of them, or part of the error
	}{
		"home":               {home: java17, path: java17, place: java17, want: "home/bin/java"},
		"path":               {path: java17, place: java17, want: "path/java"},
		"place":              {place: java17, want: "jdk17/bin/java"},
		"others before":      {home: java25, path: java8, place: java17, want: "jdk17/bin/java"},
		"a stub before":      {path: noneHere, place: java17, want: "jdk17/bin/java"},
		"none":               {want: "needs Java 17 exactly, and there is none; install it"},
		"others alone":       {path: java25, want: "path/java is version 25)"},
		"old scheme of name": {path: java8, want: "path/java is version 1)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("JAVA_HOME", "")
			t.Setenv("PATH", filepath.Join(dir, "path"))
			if tt.home != "" {
				t.Setenv("JAVA_HOME", filepath.Join(dir, "home"))
				script(t, filepath.Join(dir, "home", "bin", "java"), tt.home)
			}
			if tt.path != "" {
				script(t, filepath.Join(dir, "path", "java"), tt.path)
			}
			if tt.place != "" {
				script(t, filepath.Join(dir, "jdk17", "bin", "java"), tt.place)
			}
			got, err := findJava(t.Context(), []string{filepath.Join(dir, "*17*", "bin", "java")})
			if strings.HasSuffix(tt.want, "java") {
				if err != nil || got != filepath.Join(dir, tt.want) {
					t.Errorf("found %s, error %v; want %s", got, err, tt.want)
				}
				return
			}
			if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("found %s, error %v; want one line that says %q", got, err, tt.want)
			}
		})
	}
}
