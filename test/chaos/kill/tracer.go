//go:build linux && amd64

package kill

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// call is a system call that changes a file, or locks one.
type call struct {
	name string // such as "renameat"
	path string // of its descriptor, where it has one
}

// sends tells whether it writes to a connection.
func (c call) sends() bool { return strings.HasPrefix(c.path, "socket:") }

// fate is what becomes of a call: the program is killed before or after it, or the call is not made and fails.
type fate struct {
	kill  string // "before" or "after"
	errno syscall.Errno
}

// run is a traced program.
type run struct {
	*exec.Cmd
	root    string // writes to files below it count
	sends   bool   // and so do those to connections
	number  int    // of the call that meets the fate; 0: none
	fate    fate
	started func(pid int)

	// The results.
	calls  int
	seen   []call
	met    call // the zero value when it did not come to that
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
	ownChildren    = 0x20000000 // __WNOTHREAD: those that this thread traces, and no other's
	systemCallStop = syscall.SIGTRAP | 0x80
)

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
	output, err := os.CreateTemp("", "traced")
	if err != nil {
		return err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	r.Stdout, r.Stderr, r.SysProcAttr = output, output, &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := r.Start(); err != nil {
		return err
	}
	pid := r.Process.Pid
	_ = r.Process.Release() // it is waited for below
	err = r.follow(pid)     // the kernel kills it when it is not followed to its end
	printed, _ := os.ReadFile(output.Name())
	r.output = string(printed)
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
	r.started(pid)
	proceed(pid, 0)
	inside := 0 // the thread that is in the call that meets the fate
	for {
		// Its group, not any child: this thread may have started programs before that others wait for.
		thread, err := wait(-pid, &status)
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
			inside = r.systemCall(pid, thread, inside)
			proceed(thread, 0)
		case status.StopSignal() == syscall.SIGTRAP, status.StopSignal() == syscall.SIGSTOP:
			proceed(thread, 0) // a thread was made, or begins
		default:
			proceed(thread, status.StopSignal())
		}
	}
}

// systemCall is at the beginning or end of a call of the thread. It returns the thread that is in the call that counts.
func (r *run) systemCall(pid, thread, inside int) int {
	var registers syscall.PtraceRegs
	if syscall.PtraceGetRegs(thread, &registers) != nil {
		return inside // it was killed
	}
	if thread == inside {
		if r.fate.errno != 0 {
			registers.Rax = uint64(-int64(r.fate.errno))
			_ = syscall.PtraceSetRegs(thread, &registers)
		}
		r.kill(pid, "after")
		return 0
	}
	if int64(registers.Rax) != -int64(syscall.ENOSYS) {
		return inside // the end of another call
	}
	c, counts := r.changes(thread, registers)
	if counts {
		r.calls++
		r.seen = append(r.seen, c)
	}
	if !counts || r.calls != r.number {
		return inside
	}
	r.met = c
	if r.fate.kill != "after" {
		registers.Orig_rax = ^uint64(0) // it is not made
		_ = syscall.PtraceSetRegs(thread, &registers)
	}
	r.kill(pid, "before")
	return thread
}

func (r *run) kill(pid int, when string) {
	if r.fate.kill == when {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// changes says whether a call counts.
func (r *run) changes(thread int, registers syscall.PtraceRegs) (call, bool) {
	kind, found := changing[registers.Orig_rax]
	name, hasDescriptor := strings.CutSuffix(kind, " of")
	c := call{name: name}
	const writes = unix.O_CREAT | unix.O_TRUNC | unix.O_WRONLY | unix.O_RDWR
	switch {
	case name == "openat":
		return c, registers.Rdx&writes != 0
	case name == "fcntl" && registers.Rsi != unix.F_OFD_SETLK && registers.Rsi != unix.F_SETLK:
		return c, false
	case !hasDescriptor:
		return c, found
	}
	c.path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", thread, int32(registers.Rdi)))
	return c, strings.HasPrefix(c.path, r.root) || r.sends && c.sends()
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
