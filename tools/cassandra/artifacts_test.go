package cassandra

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	somePath = "org/example/a/1/a-1.jar"
	// The digest of "content".
	someSum = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
)

func TestArtifactsArePinned(t *testing.T) {
	all, err := artifacts(sums)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range all {
		if seen[a.path] || !strings.HasSuffix(a.path, ".jar") {
			t.Errorf("artifacts.sum lists %s twice, or it is no jar", a.path)
		}
		seen[a.path] = true
	}
	if server := "org/apache/cassandra/cassandra-all/" + Version + "/cassandra-all-" + Version + ".jar"; !seen[server] {
		t.Errorf("artifacts.sum does not list %s", server)
	}
	if !bytes.Contains(pom, []byte("<version>"+Version+"</version>")) {
		t.Errorf("pom.xml does not ask for version %s", Version)
	}
}

func TestArtifactsRefusesOtherLines(t *testing.T) {
	for name, line := range map[string]string{
		"no path":        someSum,
		"short digest":   someSum[2:] + "  " + somePath,
		"no digest":      strings.Repeat("x", 64) + "  " + somePath,
		"out of the dir": someSum + "  ../a.jar",
	} {
		if all, err := artifacts(someSum + "  " + somePath + "\n" + line + "\n"); err == nil {
			t.Errorf("%s: read as %v", name, all)
		}
	}
}

func TestClassPath(t *testing.T) {
	const (
		working = `for a; do case $a in -Dmaven.repo.local=*) r=${a#*=};; esac; done
/bin/mkdir -p "$r/org/example/a/1" && printf content > "$r/` + somePath + `"`
		forging = `for a; do case $a in -Dmaven.repo.local=*) r=${a#*=};; esac; done
/bin/mkdir -p "$r/org/example/a/1" && printf other > "$r/` + somePath + `"`
		failing = `echo "no route to host"; exit 1`
	)
	for name, tt := range map[string]struct {
		present string // content of the file before
		maven   string // script of mvn; none if empty
		want    string // part of the error
		missing bool
	}{
		"offline":             {present: "content"},
		"fetched":             {maven: working},
		"present, not wanted": {present: "forged", maven: working, want: "a-1.jar has the SHA-256 digest"},
		"fetched, not wanted": {maven: forging, want: "is pinned: delete the file"},
		"no Maven":            {want: "1 artifacts of Cassandra " + Version, missing: true},
		"no network":          {maven: failing, want: "no route to host"},
		"fetched nothing":     {maven: "exit 0", want: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			repository, programs := t.TempDir(), t.TempDir()
			t.Setenv("PATH", programs)
			if tt.maven != "" {
				script(t, filepath.Join(programs, "mvn"), tt.maven)
			}
			a := artifact{path: somePath, sha256: someSum}
			if tt.present != "" {
				if err := os.MkdirAll(filepath.Dir(a.file(repository)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(a.file(repository), []byte(tt.present), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := classPath(t.Context(), repository, []artifact{a})
			switch {
			case tt.want == "":
				if err != nil || len(got) != 1 || got[0] != a.file(repository) {
					t.Errorf("class path %q, error %v; want the file alone", got, err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %v, want one that says %q", err, tt.want)
			case errors.Is(err, ErrMissing) != tt.missing:
				t.Errorf("error %v: something is missing: %v", err, !tt.missing)
			case tt.missing && strings.Contains(err.Error(), "\n"):
				t.Errorf("%q is more than a line", err)
			}
		})
	}
}

func TestLocalRepository(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	want := func(want string) {
		t.Helper()
		if got, err := localRepository(); err != nil || got != want {
			t.Errorf("repository %s, error %v; want %s", got, err, want)
		}
	}
	want(filepath.Join(home, ".m2", "repository"))
	settings := filepath.Join(home, ".m2", "settings.xml")
	if err := os.Mkdir(filepath.Dir(settings), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, repository := range map[string]string{
		`<settings/>`: filepath.Join(home, ".m2", "repository"),
		`<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0"><localRepository> ${user.home}/jars </localRepository></settings>`: filepath.Join(home, "jars"),
	} {
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want(repository)
	}
}

// script writes a program.
func script(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}
