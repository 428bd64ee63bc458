package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long the end of the output is waited for after the command has ended, when a process
// that it left behind keeps the pipe open.
const outputGrace = 500 * time.Millisecond

// ExecConfig says what is run.
type ExecConfig struct {
	// Command is the program and its arguments, as ParseCommand returns them. A program without a
	// slash is looked up in PATH.
	Command []string
	// Timeout bounds each run; more than 0.
	Timeout time.Duration
	// Environ is certfetcher's own environment, as os.Environ returns it. Of it the command sees PATH,
	// HOME, TMPDIR, TZ, LANG, LANGUAGE and LC_* only: certfetcher's variables hold passwords.
	Environ []string
	Log     *slog.Logger
}

// Exec runs a command, without a shell, in a process group of its own. The group is killed when the
// time is over or certfetcher ends; a process that the command leaves behind when it ends by itself
// is let live. The output of both goes to the log, 100 lines of 1024 bytes at most for each run, and
// beyond that is read all the same, so that nobody is held up or ended by a full or broken pipe. Besides
// what ExecConfig lets through, the command's environment has:
//
//	CERTFETCHER_REASON      Event.Reason
//	CERTFETCHER_SERIAL      Event.Serial
//	CERTFETCHER_NOT_BEFORE  RFC 3339, UTC
//	CERTFETCHER_NOT_AFTER   RFC 3339, UTC
//	CERTFETCHER_DIR         Event.Dir
//	CERTFETCHER_<FILE>      the path of each published file, <FILE> being its name in upper case with
//	                        _ for what is not a letter or digit: CERTFETCHER_KEYSTORE_P12,
//	                        CERTFETCHER_KEYSTORE_PASS, CERTFETCHER_KEY_PEM, …
type Exec struct {
	config    ExecConfig
	inherited []string
	grace     time.Duration // outputGrace, but in tests
}

// NewExec makes an Exec.
func NewExec(config ExecConfig) *Exec {
	return &Exec{config: config, inherited: innocuous(config.Environ), grace: outputGrace}
}

// Kind is KindExec.
func (e *Exec) Kind() string { return KindExec }

// Notify runs the command and waits for its end. Errors name the program, not its arguments, which
// may hold a secret.
func (e *Exec) Notify(ctx context.Context, event Event) error {
	timed, cancel := context.WithTimeout(ctx, e.config.Timeout)
	defer cancel()
	program := e.config.Command[0]
	output := newCommandOutput(e.config.Log.With("program", program))
	cmd := exec.CommandContext(timed, program, e.config.Command[1:]...)
	cmd.Env = append(e.inherited[:len(e.inherited):len(e.inherited)], variables(event)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killed := false
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if err == syscall.ESRCH {
			return os.ErrProcessDone
		}
		killed = true
		return err
	}
	ended, err := output.start(cmd)
	if err != nil {
		return fmt.Errorf("starting %q: %w", program, startReason(err))
	}
	err = cmd.Wait()
	ended()
	select {
	case <-output.complete:
	case <-time.After(e.grace):
		output.log.Warn("the command left a process behind that holds its output, which goes on to be read")
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("running %q: killed, because certfetcher ends: %w", program, ctx.Err())
	case killed:
		return fmt.Errorf("running %q: killed, because it has not ended within %v", program, e.config.Timeout)
	case errors.As(err, &exit):
		return fmt.Errorf("running %q: %s, want exit code 0", program, describeExit(exit))
	default:
		return fmt.Errorf("running %q: %w", program, err)
	}
}

// startReason drops the program, which the error already names.
func startReason(err error) error {
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		return lookup.Err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func describeExit(exit *exec.ExitError) string {
	status, ok := exit.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return fmt.Sprintf("ended by signal %s (%d)", unix.SignalName(status.Signal()), status.Signal())
	}
	return fmt.Sprintf("has exit code %d", exit.ExitCode())
}

// innocuous picks the variables that a program commonly needs and that are no setting of ours.
func innocuous(environ []string) []string {
	var picked []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE":
			picked = append(picked, entry)
		default:
			if strings.HasPrefix(name, "LC_") {
				picked = append(picked, entry)
			}
		}
	}
	return picked
}

// variables are what the command learns about the event.
func variables(event Event) []string {
	list := []string{
		"CERTFETCHER_REASON=" + event.Reason,
		"CERTFETCHER_SERIAL=" + event.Serial,
		"CERTFETCHER_NOT_BEFORE=" + event.NotBefore.UTC().Format(time.RFC3339),
		"CERTFETCHER_NOT_AFTER=" + event.NotAfter.UTC().Format(time.RFC3339),
		"CERTFETCHER_DIR=" + event.Dir,
	}
	for _, path := range event.Paths {
		name := strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, strings.ToUpper(filepath.Base(path)))
		list = append(list, "CERTFETCHER_"+name+"="+path)
	}
	return list
}
