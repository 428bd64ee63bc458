package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/internal/files"
)

const (
	// commBytes is TASK_COMM_LEN less its NUL.
	commBytes = 15
	// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat. It is part of the kernel's
	// interface, and 100 on every architecture that Go has.
	ticksPerSecond = 100
	// startTolerance is by how much a process may seem to be younger than its PID file: file
	// systems and the kernel's coarse clock round times, and the wall clock is slewed.
	startTolerance = 2 * time.Second
)

// process is what proc(5) says about one.
type process struct {
	pid, parent int
	start       uint64 // ticks since boot; with pid, it distinguishes a process from a later one
	state       byte
	comm        string
	args        []string // the first few
}

func supportsSignals() error {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return fmt.Errorf("finding processes needs /proc: %w", err)
	}
	return nil
}

// find returns the processes that the signal goes to now, at least one: the one that the file
// names, or all that have the name, less those whose parent has it too.
func (s *signaller) find() ([]process, error) {
	if s.pidFile != "" {
		return s.findByFile()
	}
	all, err := listProcesses(s.proc)
	if err != nil {
		return nil, fmt.Errorf("finding process %q: %w", s.process, err)
	}
	chosen := chooseNamed(all, s.process, s.self)
	if len(chosen) == 0 {
		return nil, &absentError{fmt.Errorf(
			"finding process %q: none of that name in this process namespace, which has %s: "+
				"is the application up, and shareProcessNamespace set?", s.process, listNames(all))}
	}
	return chosen, nil
}

// ownComm is this process's name as proc(5) has it; empty where it cannot be read.
func ownComm() string {
	comm, _ := os.ReadFile("/proc/self/comm")
	return strings.TrimSuffix(string(comm), "\n")
}

// findByFile returns the process that the PID file names, unless the file is stale.
func (s *signaller) findByFile() ([]process, error) {
	file := s.pidFile
	pid, written, err := readPIDFile(file)
	if err != nil {
		return nil, err
	}
	p, err := readProcess(s.proc, pid)
	switch {
	// Without a shared process namespace the sidecar is process 1, beside which doctor is another.
	case pid == s.self || err == nil && pid == 1 && p.comm == ownComm():
		return nil, fmt.Errorf(
			"the PID file %q has %d, which is certfetcher itself: the application wrote a "+
				"number of its own process namespace; set shareProcessNamespace", file, pid)
	case errors.Is(err, fs.ErrNotExist) || err == nil && p.hasEnded():
		return nil, &absentError{fmt.Errorf("the PID file %q is stale: it has %d, "+
			"and there is no such process in this process namespace", file, pid)}
	case err != nil:
		return nil, fmt.Errorf("looking at process %d of the PID file %q: %w", pid, file, err)
	}
	if name := s.process; name != "" {
		// The name is the better proof: it holds although the wall clock has been set since.
		if !p.hasName(name) {
			return nil, fmt.Errorf("the PID file %q is stale: process %d is %q, want %q", file, pid, p.comm, name)
		}
		return []process{p}, nil
	}
	started, err := p.startTime()
	if err != nil {
		return nil, err
	}
	if started.After(written.Add(startTolerance)) {
		return nil, fmt.Errorf(
			"the PID file %q is stale: it was written at %s, and process %d (%q) was started "+
				"later, at %s; if the clock was set meanwhile, name the process as well",
			file, written.UTC().Format(time.RFC3339), pid, p.comm, started.UTC().Format(time.RFC3339))
	}
	return []process{p}, nil
}

// send signals p, and no process that was given its number since: the handle is taken first (where
// the kernel has pidfds it stays with one process), then what it stands for is looked at again.
func (s *signaller) send(p process) error {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return explainKill(p.pid, err)
	}
	defer func() { _ = handle.Release() }()
	again, err := readProcess(s.proc, p.pid)
	if err != nil || again.start != p.start {
		return explainKill(p.pid, os.ErrProcessDone)
	}
	if err := handle.Signal(s.signal); err != nil {
		return explainKill(p.pid, err)
	}
	return nil
}

// maxPIDFileBytes is more than any program writes; PostgreSQL's has eight lines.
const maxPIDFileBytes = 4096

// readPIDFile returns the number in the file's first line, and when the file was written.
func readPIDFile(path string) (pid int, written time.Time, err error) {
	content, info, err := files.Read(path, maxPIDFileBytes)
	if err != nil {
		return 0, time.Time{}, absentIf(fs.ErrNotExist, fmt.Errorf("reading the PID file: %w", err))
	}
	pid, err = parsePID(content)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the PID file %q: %w", path, err)
	}
	return pid, info.ModTime(), nil
}

func parsePID(content []byte) (int, error) {
	line, _, _ := bytes.Cut(content, []byte{'\n'})
	// 0 and negative numbers would be process groups, this one's among them.
	pid, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 32)
	if err != nil || pid < 1 {
		// What it has instead may be a secret, if the path is that of another file.
		return 0, errors.New("has no process ID in its first line")
	}
	return int(pid), nil
}

// explainKill adds what to do about a signal that could not be sent.
func explainKill(pid int, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("signalling process %d: %w: "+killAdvice, pid, err)
	}
	return fmt.Errorf("signalling process %d: %w", pid, err)
}

// chooseNamed returns the processes called name whose parents are not.
func chooseNamed(all []process, name string, self int) []process {
	named := map[int]bool{}
	for _, p := range all {
		named[p.pid] = p.pid != self && !p.hasEnded() && p.hasName(name)
	}
	return slices.DeleteFunc(slices.Clone(all), func(p process) bool { return !named[p.pid] || named[p.parent] })
}

// listNames lists some of the names there are, for an error.
func listNames(all []process) string {
	const most = 10
	var names []string
	for _, p := range all {
		names = append(names, strconv.Quote(p.comm))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// hasName says whether the process has the name, by the rules of signaller.process.
func (p process) hasName(name string) bool {
	if p.comm == name {
		return true
	}
	for i, arg := range p.args {
		if path.Base(arg) != name {
			continue
		}
		if i == 0 || len(name) > commBytes && p.comm == name[:commBytes] {
			return true
		}
	}
	return false
}

// hasEnded is true for one that has ended and has not been waited for yet.
func (p process) hasEnded() bool { return p.state == 'Z' || p.state == 'X' }

// startTime returns the wall-clock time at which the process
// was started, as seen from today's clock.
func (p process) startTime() (time.Time, error) {
	var sinceBoot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &sinceBoot); err != nil {
		return time.Time{}, fmt.Errorf("reading the time since boot: %w", err)
	}
	age := time.Duration(sinceBoot.Nano()) - time.Duration(p.start)*(time.Second/ticksPerSecond)
	return time.Now().Add(-age), nil
}

// listProcesses lists what proc shows, by ascending ID. Processes that end meanwhile are left out.
func listProcesses(proc string) ([]process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, err := readProcess(proc, pid); err == nil {
			all = append(all, p)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].pid < all[j].pid })
	return all, nil
}

func readProcess(proc string, pid int) (process, error) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		// A process that ends between open and read gives ESRCH.
		if errors.Is(err, syscall.ESRCH) {
			err = fs.ErrNotExist
		}
		return process{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return process{}, fmt.Errorf("reading %s/stat: %w", dir, err)
	}
	p.pid = pid
	// Kernel threads and zombies have no command line; one that cannot be read matches nothing.
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0}) {
		if p.args = append(p.args, string(arg)); len(p.args) == 3 {
			break
		}
	}
	return p, nil
}

// parseStat reads comm, state, parent and start time: fields 2, 3,
// 4 and 22 of proc_pid_stat(5). A process chooses its comm, and may
// put brackets, spaces and digits there; the last bracket ends it.
func parseStat(stat []byte) (process, error) {
	begin, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	if begin >= 0 && begin < end && len(fields) >= 20 && len(fields[0]) == 1 {
		parent, parentErr := strconv.Atoi(string(fields[1]))
		start, startErr := strconv.ParseUint(string(fields[19]), 10, 63)
		if parentErr == nil && startErr == nil {
			return process{parent: parent, start: start, state: fields[0][0], comm: string(stat[begin+1 : end])}, nil
		}
	}
	return process{}, fmt.Errorf("has %q, want the fields of proc_pid_stat(5)", stat)
}

// commands are the children that notifiers wait for. It is
// one set because a process has its children in one.
var commands = struct {
	sync.Mutex
	pids map[int]bool
}{pids: map[int]bool{}}

// startCommand starts cmd, whose end ReapOrphans leaves to
// the caller. ended must be called after that.
func startCommand(cmd *exec.Cmd) (ended func(), err error) {
	commands.Lock()
	defer commands.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	commands.pids[pid] = true
	return func() {
		commands.Lock()
		defer commands.Unlock()
		delete(commands.pids, pid)
	}, nil
}

// ReapOrphans takes away ended processes that nothing waits for, until ctx
// is done. Where certfetcher is process 1 of its container, as it is without
// a shared process namespace, whatever a command leaves behind becomes its
// child, and would stay as a zombie. Elsewhere there are no such children.
func ReapOrphans(ctx context.Context) {
	ended := make(chan os.Signal, 1) // one that waits there stands for all that have ended since
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		reapOrphans()
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

func reapOrphans() {
	commands.Lock() // so that every child that is started meanwhile is known
	defer commands.Unlock()
	all, _ := listProcesses("/proc") // without it nothing is known
	self := os.Getpid()
	for _, p := range all {
		if p.parent == self && p.hasEnded() && !commands.pids[p.pid] {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		}
	}
}
