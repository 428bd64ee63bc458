package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// IsMounted tells whether a name in a directory is a mount of its own, which no rename can replace: a file that was
// mounted alone, as with a subPath or in Docker. A system that does not tell counts as no.
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
