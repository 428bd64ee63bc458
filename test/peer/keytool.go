package peer

import (
	"os/exec"
	"testing"
)

// Keytool prepares a run of keytool. It speaks English, and its JVM is one that starts quickly: a compiler that never
// pays off takes half the time.
func Keytool(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	quick := []string{"-J-Duser.language=en", "-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC"}
	return exec.Command(Require(t, "keytool")[0], append(quick, args...)...)
}
