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
)

// SignalConfig says which signal goes to whom. Process or PIDFile, or both, must be set.
type SignalConfig struct {
	Signal syscall.Signal
	// Process is a program's name without directory, such as "nginx". Without PIDFile, the signal goes
	// to the processes of that name, except certfetcher itself and those whose parent has the name
	// too: of nginx that is the master and not its workers. Two masters in two containers both get it.
	//
	// A process has a name when it is its comm, as ps shows it, or the base of its argv[0]. Linux cuts
	// comm off after 15 bytes; a longer name, of a script say, matches the cut comm when it is also the
	// base of one of the first three arguments.
	Process string
	// PIDFile is the path of a file whose first line is a process ID; it is read anew each time. The
	// ID is not trusted blindly, as a file outlives its writer and numbers are used again: with
	// Process set, the process must have that name; without, it must not have been started after the
	// file was written.
	PIDFile string
}

// Signal sends a signal to the application. It needs Linux's /proc, a process namespace shared with
// the application, and the application's UID or CAP_KILL.
type Signal struct {
	config SignalConfig
	proc   string // where proc(5) is mounted
	self   int
}

// NewSignal makes a Signal. It fails where there is no /proc to look into.
func NewSignal(config SignalConfig) (*Signal, error) {
	if err := supportsSignals(); err != nil {
		return nil, err
	}
	if config.Process == "" && config.PIDFile == "" {
		return nil, errors.New("a signal needs a process name or a PID file")
	}
	return &Signal{config: config, proc: "/proc", self: os.Getpid()}, nil
}

// Kind is KindSignal.
func (s *Signal) Kind() string { return KindSignal }

// Notify sends the signal to the process that the file names or to all that have the name.
func (s *Signal) Notify(context.Context, Event) error {
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

// Find returns the IDs of the processes that the signal would go to now, at least one.
func (s *Signal) Find() ([]int, error) {
	found, err := s.find()
	var pids []int
	for _, p := range found {
		pids = append(pids, p.pid)
	}
	return pids, err
}

func (s *Signal) find() ([]process, error) {
	if s.config.PIDFile != "" {
		return s.findByFile()
	}
	return s.findNamed()
}

// ParseSignal reads a signal's name, with or without SIG in front and in any case, or its number,
// 1 to 64.
func ParseSignal(text string) (syscall.Signal, error) {
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
