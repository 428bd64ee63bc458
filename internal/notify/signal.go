package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/internal/program"
)

// signaller sends a signal to the application. It needs Linux's /proc, a process namespace shared
// with the application, and the application's UID or CAP_KILL.
type signaller struct {
	signal syscall.Signal
	// process is a program's name without directory, such as "nginx". Without
	// pidFile, the signal goes to the processes of that name, except certfetcher
	// itself and those whose parent has the name too: of nginx that is the
	// master and not its workers. Two masters in two containers both get it.
	//
	// A process has a name when it is its comm, as ps shows it, or the base of its argv[0]. Linux
	// cuts comm off after 15 bytes; a longer name, of a script say, matches the cut comm when it
	// is also the base of one of the first three arguments.
	process string
	// pidFile is the path of a file whose first line is a process ID; it is read again each time.
	// The ID is not trusted blindly, as a file outlives its writer and numbers are used again:
	// with process set, the process must have that name; without, it must not have been started
	// after the file was written.
	pidFile string
	proc    string // where proc(5) is mounted
	self    int
}

// Conflict returns what does not fit together in the settings for a signal, if anything.
// internal/config reports it, in an init container as well, which makes no notifiers.
func (s Settings) Conflict() (fault program.Fault, conflict bool) {
	refuse := func(variable, value, why string) (program.Fault, bool) {
		return program.Fault{Variable: variable, Problem: fmt.Sprintf("has %q, %s", value, why)}, true
	}
	switch {
	case s.Signal == "" && s.Process != "":
		return refuse("NOTIFY_PROCESS", s.Process, "but NOTIFY_SIGNAL is not set")
	case s.Signal == "" && s.PIDFile != "":
		return refuse("NOTIFY_PID_FILE", s.PIDFile, "but NOTIFY_SIGNAL is not set")
	case s.Signal != "" && s.Process == "" && s.PIDFile == "":
		return refuse("NOTIFY_SIGNAL", s.Signal, "but neither NOTIFY_PROCESS nor NOTIFY_PID_FILE is set")
	case strings.ContainsRune(s.Process, '/'):
		return refuse("NOTIFY_PROCESS", s.Process, "want a program's name without directory")
	}
	return program.Fault{}, false
}

func newSignaller(s Settings, _ Options) (Notifier, error) {
	if _, conflict := s.Conflict(); conflict || s.Signal == "" {
		return nil, nil
	}
	number, err := parseSignal(s.Signal)
	if err != nil {
		return nil, err
	}
	if err := supportsSignals(); err != nil {
		return nil, err
	}
	return &signaller{number, s.Process, s.PIDFile, "/proc", os.Getpid()}, nil
}

// Kind is KindSignal.
func (s *signaller) Kind() string { return KindSignal }

const killAdvice = "run certfetcher with the application's UID (runAsUser), or give it the capability KILL"

// Check finds the processes and asks the kernel by signal 0, which reaches no process.
func (s *signaller) Check(context.Context, []string) Finding {
	found, err := s.find()
	if err != nil {
		return Finding{Found: err.Error(),
			Advice: "is the application up? The pod needs shareProcessNamespace: true; " +
				"a PID file has to be on a volume that this container mounts"}
	}
	target := fmt.Sprintf("the process %q", s.process)
	if s.pidFile != "" {
		target = fmt.Sprintf("the process of %q", s.pidFile)
	}
	for _, p := range found {
		if syscall.Kill(p.pid, 0) == syscall.EPERM {
			return Finding{Found: target + " may not be signalled", Advice: killAdvice}
		}
	}
	return Finding{Found: fmt.Sprintf("%s can be sent to %s", unix.SignalName(s.signal), target)}
}

// Notify sends the signal to the process that the file names or to all that have the name.
func (s *signaller) Notify(context.Context, Event) error {
	found, err := s.find()
	if err != nil {
		return err
	}
	var failures []error
	for _, p := range found {
		failures = append(failures, s.send(p))
	}
	return errors.Join(failures...)
}

// parseSignal reads a signal's name, with or without SIG in
// front and in any case, or its number, 1 to 64.
func parseSignal(text string) (syscall.Signal, error) {
	if number, err := strconv.Atoi(text); err == nil {
		if number < 1 || number > 64 {
			return 0, fmt.Errorf("has signal number %d, want 1 to 64", number)
		}
		return syscall.Signal(number), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	signal := unix.SignalNum(name)
	if signal == 0 {
		return 0, fmt.Errorf("has unknown signal %q, want a name such as HUP or SIGHUP, or a number", text)
	}
	return signal, nil
}
