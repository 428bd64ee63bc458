// Package secrets runs the whole system at its most talkative with known keys and passwords, and searches all that it
// lets out for them.
package secrets

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// binDir holds the programs under test; childPath is this test as a command of the sidecar.
var binDir, childPath string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "child" {
		os.Exit(child(os.Args[1]))
	}
	fixture.RunTests(m, &binDir, chaos.Self(&childPath, "child"))
}

// child is a command that a sidecar runs: it appends all that it was given to a file.
func child(path string) int {
	text := strings.Join(os.Environ(), "\n") + "\n" + strings.Join(os.Args, "\n") + "\n"
	files, _ := os.ReadDir("/proc/self/fd")
	for _, file := range files {
		target, _ := os.Readlink("/proc/self/fd/" + file.Name())
		text += file.Name() + " " + target + "\n"
		// Whatever is open for reading would be the child's to read.
		if info, err := os.Stat("/proc/self/fd/" + file.Name()); err == nil && info.Mode().IsRegular() {
			content, _ := os.ReadFile("/proc/self/fd/" + file.Name())
			text += string(content)
		}
	}
	out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = out.WriteString(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
