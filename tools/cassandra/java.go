package cassandra

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// javaMajor is the only Java that this Cassandra is supported on and that has all
// it uses: later ones lack the security manager.
const javaMajor = "17"

var javaVersion = regexp.MustCompile(`version "([0-9]+)`)

// findJava returns the first Java 17 of JAVA_HOME, the PATH and the places given,
// which are patterns of the program's path.
func findJava(ctx context.Context, places []string) (string, error) {
	var candidates []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append(candidates, filepath.Join(home, "bin", "java"))
	}
	if java, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, java)
	}
	for _, pattern := range places {
		found, err := filepath.Glob(pattern)
		if err != nil {
			panic(fmt.Sprintf("cassandra: the pattern %q: %v", pattern, err))
		}
		candidates = append(candidates, found...)
	}
	others := ""
	for _, java := range slices.Compact(candidates) {
		// The version is printed to the standard error.
		out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
		if err != nil {
			continue // a broken link, or the stub of a system without Java
		}
		m := javaVersion.FindSubmatch(out)
		if m != nil && string(m[1]) == javaMajor {
			return java, nil
		}
		if m != nil {
			others += fmt.Sprintf(" (%s is version %s)", java, m[1])
		}
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("look for Java: %w", err)
	}
	return "", fmt.Errorf("%w: it needs Java %s exactly, and there is none%s; install it (Debian: apt install openjdk-17-jdk-headless) or name it in JAVA_HOME", ErrMissing, javaMajor, others)
}

// javaPlaces are where systems install Java, by operating system.
var javaPlaces = map[string][]string{
	"linux":  {"/usr/lib/jvm/*17*/bin/java"},
	"darwin": {"/Library/Java/JavaVirtualMachines/*17*/Contents/Home/bin/java", "/opt/homebrew/opt/openjdk@17/bin/java", "/usr/local/opt/openjdk@17/bin/java"},
}
