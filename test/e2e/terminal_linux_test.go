package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

var clock = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\dZ|\d{4}-[\d-]+T[\d:.]+Z`)

// TestTerminal reads testdata/terminal.txt: a program with variables before it, its exit code, and what a person sees.
// ESC is the escape character.
func TestTerminal(t *testing.T) {
	golden.Play(t, "terminal.txt", func(t *testing.T, _, commands string) (text string) {
		for line := range strings.Lines(commands) {
			words := strings.Fields(line[2:])
			env := []string{"TERM=xterm"}
			for strings.Contains(words[0], "=") {
				env, words = append(env, words[0]), words[1:]
			}
			cmd := exec.Command(filepath.Join(binDir, words[0]), words[1:]...)
			cmd.Env, cmd.Dir = env, t.TempDir()
			seen, code := fixture.RunOnTerminal(t, cmd)
			seen = clock.ReplaceAllString(strings.ReplaceAll(seen, "\x1b", "ESC"), "…")
			text += line + fmt.Sprintf("exit code %d\n%s", code, seen)
		}
		return text
	})
}
