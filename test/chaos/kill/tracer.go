//go:build linux && amd64

package kill

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call that changes a file, or locks one.
type call struct {
	number int    // in the order in which they begin, from 1
	name   string // such as "renameat"
	path   string // of its descriptor, where it has one
}

// verdict is what becomes of a call.
type verdict struct {
	kill  moment
	errno syscall.Errno // the call is not made and fails with this; 0: it is made
}

// moment is when the program is killed.
type moment int

const (
	never moment = iota
	before
	after
)

func (m moment) String() string { return [...]string{"never", "before", "after"}[m] }

// run is a traced program.
type run struct {
	program   string
	arguments []string
	env       []string
	root      string // writes to files below it count
	decide    func(call) verdict
	started   func(pid int) // nil: not called

	// The results.
	calls  []call
	status syscall.WaitStatus
	output string
}

// changing are the calls that count. Those "of" a descriptor count only where it is a file below root.
var changing = map[uint64]string{
	unix.SYS_OPENAT: "openat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINKAT: "unlinkat",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat",
	unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_FCHMODAT: "fchmodat", unix.SYS_FCHOWNAT: "fchownat",
	unix.SYS_UTIMENSAT: "utimensat", unix.SYS_MKNODAT: "mknodat", unix.SYS_FCHMODAT2: "fchmodat2",
	unix.SYS_RENAME: "rename", unix.SYS_UNLINK: "unlink", unix.SYS_MKDIR: "mkdir",
	unix.SYS_RMDIR: "rmdir", unix.SYS_SYMLINK: "symlink", unix.SYS_LINK: "link",
	unix.SYS_CHMOD: "chmod", unix.SYS_CHOWN: "chown", unix.SYS_LCHOWN: "lchown",
	unix.SYS_TRUNCATE: "truncate",
	unix.SYS_WRITE:    "write of", unix.SYS_PWRITE64: "pwrite64 of", unix.SYS_WRITEV: "writev of",
	unix.SYS_FTRUNCATE: "ftruncate of", unix.SYS_FCHMOD: "fchmod of", unix.SYS_FCHOWN: "fchown of",
	unix.SYS_FSYNC: "fsync of", unix.SYS_FDATASYNC: "fdatasync of",
	unix.SYS_FALLOCATE: "fallocate of", unix.SYS_COPY_FILE_RANGE: "copy_file_range of",
	unix.SYS_FLOCK: "flock of", unix.SYS_FCNTL: "fcntl of"}

const (
	getSyscallInfo = 0x420e     // PTRACE_GET_SYSCALL_INFO
	ownChildren    = 0x20000000 // __WNOTHREAD: those that this thread traces, and no other's
	systemCallStop = syscall.SIGTRAP | 0x80
)

// syscallInfo is the head of struct ptrace_syscall_info, for an entry.
type syscallInfo struct {
	op        uint8
	_         [3]uint8
	_         uint32
	_, _      uint64
	number    uint64
	arguments [6]uint64
}

// trace runs the program to its end. An error is one of tracing; how the program ended is in the results.
func (r *run) trace() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the kernel knows threads as tracers; this one ends with the goroutine
		done <- r.traceHere()
	}()
	return <-done
}

func (r *run) traceHere() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	reading, writing, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reading.Close()
	process, err := os.StartProcess(r.program, append([]string{r.program}, r.arguments...), &os.ProcAttr{
		Env: r.env, Files: []*os.File{null, writing, writing}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	writing.Close()
	if err != nil {
		return err
	}
	pid := process.Pid
	_ = process.Release()
	var output bytes.Buffer
	copied := make(chan struct{})
	go func() { _, _ = io.Copy(&output, reading); close(copied) }()
	err = r.follow(pid)
	if err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-copied
	r.output = output.String()
	return err
}

func (r *run) follow(pid int) error {
	var status syscall.WaitStatus
	if _, err := wait(pid, &status); err != nil {
		return err
	}
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		return fmt.Errorf("PTRACE_SETOPTIONS: %w", err)
	}
	if r.started != nil {
		r.started(pid)
	}
	proceed(pid, 0)
	// What was decided for the call that a thread is in.
	pending := map[int]verdict{}
	for {
		thread, err := wait(-1, &status)
		if err != nil {
			return fmt.Errorf("wait4: %w", err)
		}
		switch {
		case status.Exited() || status.Signaled():
			if thread == pid {
				r.status = status
				return nil
			}
		case !status.Stopped():
		case status.StopSignal() == systemCallStop:
			r.systemCall(pid, thread, pending)
			proceed(thread, 0)
		case status.StopSignal() == syscall.SIGTRAP, status.StopSignal() == syscall.SIGSTOP:
			proceed(thread, 0) // a thread was made, or begins
		default:
			proceed(thread, status.StopSignal())
		}
	}
}

// systemCall is at the entry or exit of a call of the thread.
func (r *run) systemCall(pid, thread int, pending map[int]verdict) {
	var info syscallInfo
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(thread), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return // it was killed
	}
	const entry = 1
	if info.op != entry {
		made := pending[thread]
		delete(pending, thread)
		if made.errno != 0 {
			change(thread, func(registers *syscall.PtraceRegs) { registers.Rax = uint64(-int64(made.errno)) })
		}
		if made.kill == after {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return
	}
	c, counts := r.changes(thread, info)
	if !counts {
		return
	}
	c.number = len(r.calls) + 1
	r.calls = append(r.calls, c)
	decided := r.decide(c)
	pending[thread] = decided
	if decided.errno != 0 || decided.kill == before {
		change(thread, func(registers *syscall.PtraceRegs) { registers.Orig_rax = ^uint64(0) })
	}
	if decided.kill == before {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// changes says whether a call counts.
func (r *run) changes(thread int, info syscallInfo) (call, bool) {
	kind, ok := changing[info.number]
	name, hasDescriptor := strings.CutSuffix(kind, " of")
	c := call{name: name}
	const writes = unix.O_CREAT | unix.O_TRUNC | unix.O_WRONLY | unix.O_RDWR
	switch info.number {
	case unix.SYS_OPENAT:
		return c, info.arguments[2]&writes != 0
	case unix.SYS_FCNTL:
		locks := info.arguments[1] == unix.F_OFD_SETLK || info.arguments[1] == unix.F_SETLK
		if !locks {
			return c, false
		}
	}
	if !hasDescriptor {
		return c, ok
	}
	c.path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", thread, int32(info.arguments[0])))
	return c, strings.HasPrefix(c.path, r.root)
}

func wait(pid int, status *syscall.WaitStatus) (thread int, err error) {
	for {
		thread, err = syscall.Wait4(pid, status, syscall.WALL|ownChildren, nil)
		if err != syscall.EINTR {
			return thread, err
		}
	}
}

// proceed lets a thread run to its next stop. One that was killed meanwhile is not an error: it is reported later.
func proceed(thread int, signal syscall.Signal) { _ = syscall.PtraceSyscall(thread, int(signal)) }

func change(thread int, edit func(*syscall.PtraceRegs)) {
	var registers syscall.PtraceRegs
	if syscall.PtraceGetRegs(thread, &registers) == nil {
		edit(&registers)
		_ = syscall.PtraceSetRegs(thread, &registers)
	}
}
