// Package peer finds other people's programs (openssl, keytool, nginx, podman, …)
// that tests prove our files and messages against.
package peer

import (
	"os"
	"os/exec"
	"testing"
)

// Require returns the paths of the named programs, in order. Where one is missing the test is
// skipped, saying which; with CI=true in the environment it fails instead, because a check that
// CI silently passes over proves nothing.
func Require(t testing.TB, programs ...string) []string {
	t.Helper()
	paths := make([]string, len(programs))
	for i, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			Missing(t, "the program "+name)
		}
		paths[i] = path
	}
	return paths
}

// Missing skips the test for want of the named thing, or fails it with CI=true.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI must not pass without it", what)
	}
	t.Skipf("%s is not installed: not checked on this machine", what)
}
