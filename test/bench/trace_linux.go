package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// traced is what a debugger sees of a program.
type traced struct {
	kib                int // peak memory of the process that has the most
	processes, threads int // that it consists of, over its whole life
}

const (
	watched = syscall.PTRACE_O_TRACECLONE | syscall.PTRACE_O_TRACEFORK | syscall.PTRACE_O_TRACEVFORK |
		syscall.PTRACE_O_TRACEEXIT
	wall32 = 0x40000000 // __WALL of wait(2): threads as well
)

// peak runs a program, which must succeed, and looks at its processes when they end. What the kernel counts for
// wait4(2) is no use for that: it begins with the memory of the process that started the program, which is this one.
func peak(command *exec.Cmd) traced {
	runtime.LockOSThread() // who traces is a thread
	defer runtime.UnlockOSThread()
	command.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	fixture.Must(0, command.Start())
	defer command.Process.Release() //nolint:errcheck // it has been waited for
	pid := command.Process.Pid
	seen := traced{processes: 1, threads: 1}
	for begun := false; ; {
		var status syscall.WaitStatus
		child, err := syscall.Wait4(-pid, &status, wall32, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			panic(fmt.Sprintf("%s: %v", command.Path, err))
		case status.Exited() || status.Signaled():
			if child != pid {
				continue
			}
			if status.ExitStatus() != 0 {
				panic(fmt.Sprintf("%s ends with %d", command.Path, status.ExitStatus()))
			}
			return seen
		}
		signal := 0
		switch cause := status.TrapCause(); {
		case !begun:
			begun = true
			fixture.Must(0, syscall.PtraceSetOptions(pid, watched))
		case cause == syscall.PTRACE_EVENT_EXIT:
			seen.kib = max(seen.kib, chaos.Memory(child, "VmHWM"))
		case cause == syscall.PTRACE_EVENT_CLONE:
			seen.threads++
		case cause == syscall.PTRACE_EVENT_FORK || cause == syscall.PTRACE_EVENT_VFORK:
			seen.processes, seen.threads = seen.processes+1, seen.threads+1
		case status.StopSignal() != syscall.SIGTRAP && status.StopSignal() != syscall.SIGSTOP:
			signal = int(status.StopSignal())
		}
		_ = syscall.PtraceCont(child, signal) // it may have been killed
	}
}
