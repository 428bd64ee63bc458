package startup

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// spareFiles is how many files a program has to be able to open: one for Go's poller, one for
// waking it, two connections or directories, a file in each, and some for libraries.
const spareFiles = 10

// hide has the kernel treat the process as one that holds what its user may not see:
// /proc/PID/environ, mem, fd, maps and cwd are root's, ptrace(2) and process_vm_readv(2) are
// refused to all without CAP_SYS_PTRACE, and no core is written, whatever core_pattern is. It
// holds for this program and not for those that it runs. A kernel that refuses (a seccomp filter)
// leaves everything as it was.
func hide() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// enoughFiles tries, because it is not the limit alone that counts, but also what was inherited.
func enoughFiles() bool {
	var opened []int
	defer func() {
		for _, fd := range opened {
			_ = syscall.Close(fd)
		}
	}()
	for len(opened) < spareFiles {
		fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err != unix.EMFILE && err != unix.EINVAL // EINVAL: the limit is 3 or less
		}
		opened = append(opened, fd)
	}
	return true
}
