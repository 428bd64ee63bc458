// Package programs builds the programs of this repository for tests that run them.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Build builds the programs of cmd with the names, as they are shipped, into a directory that exists.
func Build(dir string, names ...string) error {
	_, here, _, _ := runtime.Caller(0)
	args := []string{"build", "-tags", "nethttpomithttp2", "-o", dir}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	build := exec.Command("go", args...)
	build.Dir = filepath.Join(filepath.Dir(here), "..", "..") // tests with a module of their own call it, too
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

// RunTests is for TestMain: it builds the programs into a new directory, which every user may search, and runs the tests
// after ready. It returns the exit code, and removes the directory.
func RunTests(m *testing.M, ready func(dir string) error, names ...string) int {
	dir, err := os.MkdirTemp("", "certfetcher-programs-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = Build(dir, names...)
	}
	if err == nil {
		err = ready(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
