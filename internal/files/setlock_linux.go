package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// setLock takes a lock that belongs to the open file: closing another one of the same process does not end it.
func setLock(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if err == unix.EINVAL {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
	}
	return err
}
