package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// setLock takes a lock that belongs to the open file:
// closing another one of the same process does not end it.
func setLock(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if err == unix.EINVAL {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
	}
	return err
}

// IsMounted tells whether a name in a directory is a mount of its own,
// which no rename can replace: a file that was mounted alone, as with
// a subPath or in Docker. A system that does not tell counts as no.
func IsMounted(dir *os.File, name string) bool {
	mountOf := func(name string) (id uint64, ok bool) {
		var stat unix.Statx_t
		err := unix.Statx(int(dir.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &stat)
		return stat.Mnt_id, err == nil && stat.Mask&unix.STATX_MNT_ID != 0
	}
	directory, ok := mountOf(".")
	file, exists := mountOf(name)
	return ok && exists && file != directory
}
