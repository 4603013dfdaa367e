package cassandra

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Version is the Cassandra that is started. It stands in pom.xml too, and
	// artifacts.sum belongs to it.
	Version = "5.0.6"

	// mavenGoal puts what pom.xml asks for into the local repository.
	mavenGoal    = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:resolve"
	fetchTimeout = 10 * time.Minute
	outputMax    = 4 << 10 // of a program's output or a node's log, quoted in an error
)

// ErrMissing means that this machine lacks a program Cassandra cannot be started
// without. The error that wraps it says in one line which, and how to get it;
// a test skips with that line.
var ErrMissing = errors.New("cannot start Cassandra here")

var (
	//go:embed pom.xml
	pom []byte
	//go:embed artifacts.sum
	sums string
)

// artifact is one file of the local Maven repository.
type artifact struct {
	path   string // from the repository's root, with slashes
	sha256 string // in hexadecimal
}

// artifacts reads lines of the form that sha256sum writes.
func artifacts(text string) ([]artifact, error) {
	var all []artifact
	for line := range strings.Lines(text) {
		sum, path, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if digest, err := hex.DecodeString(sum); !ok || err != nil || len(digest) != sha256.Size || !filepath.IsLocal(path) {
			return nil, fmt.Errorf("artifacts.sum: the line %q is not a SHA-256 digest, two spaces and a path", strings.TrimSpace(line))
		}
		all = append(all, artifact{path: path, sha256: sum})
	}
	return all, nil
}

// classPath returns the files of the artifacts in the local Maven repository, each
// with the right digest. What is not there is fetched by Maven first.
func classPath(ctx context.Context, repository string, all []artifact) ([]string, error) {
	absent := 0
	for _, a := range all {
		if _, err := os.Stat(a.file(repository)); errors.Is(err, fs.ErrNotExist) {
			absent++
		}
	}
	if absent > 0 {
		if err := fetch(ctx, repository, absent); err != nil {
			return nil, err
		}
	}
	files := make([]string, 0, len(all))
	for _, a := range all {
		if err := a.verify(repository); err != nil {
			return nil, err
		}
		files = append(files, a.file(repository))
	}
	return files, nil
}

func (a artifact) file(repository string) string {
	return filepath.Join(repository, filepath.FromSlash(a.path))
}

// verify compares the file with its digest.
func (a artifact) verify(repository string) error {
	f, err := os.Open(a.file(repository))
	if err != nil {
		return fmt.Errorf("artifact of Cassandra %s: %w", Version, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("artifact of Cassandra %s: %w", Version, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != a.sha256 {
		return fmt.Errorf("%s has the SHA-256 digest %s, but %s is pinned: delete the file and start again; if it comes back the same, do not use that Maven repository", f.Name(), got, a.sha256)
	}
	return nil
}

// fetch has Maven put the artifacts into the local repository.
func fetch(ctx context.Context, repository string, absent int) error {
	maven, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: %d artifacts of Cassandra %s are not in %s, and there is no Maven to fetch them; put mvn on the PATH (Debian: apt install maven)", ErrMissing, absent, Version, repository)
	}
	dir, err := os.MkdirTemp("", "nola-cassandra-") // Maven leaves nothing there, but wants a file
	if err != nil {
		return fmt.Errorf("fetch Cassandra: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // two small files in the temporary directory
	file := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(file, pom, 0o600); err != nil {
		return fmt.Errorf("fetch Cassandra: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", file, "-Dmaven.repo.local="+repository, mavenGoal)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch the artifacts of Cassandra %s with Maven, which needs the network once: %w; it said:\n%s", Version, err, end(out))
	}
	return nil
}

// localRepository is where Maven keeps artifacts for this user.
func localRepository() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the local Maven repository: %w", err)
	}
	var settings struct {
		LocalRepository string `xml:"localRepository"`
	}
	text, err := os.ReadFile(filepath.Join(home, ".m2", "settings.xml"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", fmt.Errorf("find the local Maven repository: %w", err)
	default:
		if err := xml.Unmarshal(text, &settings); err != nil {
			return "", fmt.Errorf("find the local Maven repository: ~/.m2/settings.xml: %w", err)
		}
	}
	if dir := strings.ReplaceAll(strings.TrimSpace(settings.LocalRepository), "${user.home}", home); dir != "" {
		return dir, nil
	}
	return filepath.Join(home, ".m2", "repository"), nil
}

// end returns the last lines of an output.
func end(out []byte) []byte {
	out = bytes.TrimSpace(out)
	if len(out) > outputMax {
		out = out[len(out)-outputMax:]
	}
	if len(out) == 0 {
		return []byte("  nothing")
	}
	return out
}
