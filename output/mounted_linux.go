package output

import (
	"golang.org/x/sys/unix"
)

// isMounted tells whether a name is a mount of its own, which no rename can replace. A system that does not tell
// counts as no.
func (d disk) isMounted(name string) bool {
	dir, err := d.root.Open(".")
	if err != nil {
		return false
	}
	defer dir.Close()
	mountOf := func(name string) (id uint64, ok bool) {
		var stat unix.Statx_t
		err := unix.Statx(int(dir.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &stat)
		return stat.Mnt_id, err == nil && stat.Mask&unix.STATX_MNT_ID != 0
	}
	volume, ok := mountOf(".")
	file, exists := mountOf(name)
	return ok && exists && file != volume
}
