// Package volume runs the built certfetcher on volumes on which others do what they can: put foreign objects under its
// names, hold its locks, and end it at any stage.
package volume

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// binDir holds the program under test, built once; every user may run it.
var binDir string

func TestMain(m *testing.M) {
	if lockDir := os.Getenv("VOLUME_TEST_LOCK"); lockDir != "" {
		os.Exit(holdLock(lockDir))
	}
	fixture.UseMemory()
	fixture.RunTests(m, &binDir)
}

// deadline is for what must end. It is far more than anything here takes, also on a loaded machine.
const deadline = 20 * time.Second

func startService(t *testing.T) *service.Service {
	t.Helper()
	s := service.Run(t, service.Options{})
	return s
}

// program is a certfetcher for a volume.
func program(s *service.Service, volume string, args []string, environment ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binDir, "certfetcher"), args...)
	cmd.Env = s.Environment(volume, append([]string{"OUTPUT_TYPE=PEM", "HEALTH_ADDR=off"}, environment...)...)
	return cmd
}

// running is a program with what it prints.
type running struct {
	cmd   *exec.Cmd
	out   *os.File
	ended chan error
}

func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	r := &running{cmd, out, make(chan error, 1)}
	go func() { r.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		out.Close()
	})
	return r
}

func (r *running) printed() string {
	data, err := os.ReadFile(r.out.Name())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// await waits until the program has printed one of the texts, or has ended; it tells which.
func (r *running) await(texts ...string) (found bool) {
	has := func() bool {
		out := r.printed()
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(out, text) })
	}
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if has() {
			return true
		}
		select {
		case err := <-r.ended:
			r.ended <- err // for wait
			return has()
		default:
		}
	}
	return false
}

// hung is the exit code of a program that did not end in time.
const hung = -1

// wait returns the exit code, 128 and more for signals; hung when the program does not end.
func (r *running) wait(limit time.Duration) int {
	select {
	case err := <-r.ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
				return 128 + int(status.Signal())
			}
			return exit.ExitCode()
		}
		return 0
	case <-time.After(limit):
		_ = r.cmd.Process.Kill()
		return hung
	}
}

// once runs a program to its end.
func once(t *testing.T, cmd *exec.Cmd) (code int, out string) {
	t.Helper()
	r := start(t, cmd)
	code = r.wait(deadline)
	return code, r.printed()
}
