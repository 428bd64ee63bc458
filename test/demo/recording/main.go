// Command recording writes the pictures of a terminal that the documents show: it runs the programs of bin for real, as
// make demo does, and draws what they say. make recording runs it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// sessions are the pictures, by their files' names: what is typed one after the other, with the variables of the
// README's manifest set. Each says the same on every machine, so that a test can hold it.
var sessions = map[string][]string{
	"terminal": {"SANS=app.example.org:8443 certfetcher check", "certfetcher", "certfetcher inspect"},
}

const (
	// directory is where a session takes place: paths that a reader sees should be short.
	directory = "/tmp/demo"
	title     = "certfetcher on a terminal"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "recording:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := os.Mkdir(directory, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	for name, commands := range sessions {
		steps, err := record(bin, directory, commands)
		if err == nil {
			err = os.WriteFile(filepath.Join("docs/images", name+".svg"), []byte(draw(title, steps)), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// record types the commands, and returns what the terminal shows. Paths of the directory are shown as if it were the
// usual one.
func record(bin, dir string, commands []string) (steps []step, err error) {
	stack, err := fixture.StartStack(bin, dir)
	if err != nil {
		return nil, err
	}
	defer stack.Stop()
	defer os.RemoveAll(filepath.Join(dir, "certs"))
	environment := fixture.Environment(stack.URL, stack.Dir, filepath.Join(dir, "certs"), "TERM=xterm-256color",
		"SANS=app.example.org", "PATH="+bin+":"+os.Getenv("PATH"))
	for _, command := range commands {
		run := exec.Command("sh", "-c", command)
		run.Env = environment
		shown, err := fixture.ShowOnTerminal(run)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step{command, strings.ReplaceAll(shown, dir, directory)})
	}
	return steps, nil
}
