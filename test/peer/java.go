package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/programs"
)

// quick are the options of a JVM that starts quickly: a compiler that never pays off takes half the time.
var quick = []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}

// Java prepares a run of a Java program of one source file. It is compiled once for all tests; the class path may be
// empty.
func Java(t testing.TB, classPath, source string, args ...string) *exec.Cmd {
	t.Helper()
	java := Require(t, "java")[0]
	content, err := os.ReadFile(source)
	require.NoError(t, err)
	dir, err := programs.Compiled(content, func(dir string) error {
		compile := append(quick, "-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", dir, "-cp", classPath, source)
		if out, err := exec.Command(java, compile...).CombinedOutput(); err != nil {
			return fmt.Errorf("compiling %s: %w\n%s", source, err, out)
		}
		return nil
	})
	require.NoError(t, err)
	main := strings.TrimSuffix(filepath.Base(source), ".java")
	return exec.Command(java, append(append(quick, "-cp", dir+":"+classPath, main), args...)...)
}

// Keytool prepares a run of keytool, which speaks English.
func Keytool(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	options := []string{"-J-Duser.language=en"}
	for _, option := range quick {
		options = append(options, "-J"+option)
	}
	return exec.Command(Require(t, "keytool")[0], append(options, args...)...)
}
