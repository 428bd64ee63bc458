package doctor

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileSystems are the types that volumes commonly have, by the numbers of statfs(2).
var fileSystems = map[uint32]struct {
	name string
	kind kind
}{
	unix.TMPFS_MAGIC:           {"tmpfs", kindMemory},
	unix.RAMFS_MAGIC:           {"ramfs", kindMemory},
	unix.EXT4_SUPER_MAGIC:      {"ext4", kindDisk}, // and ext2, ext3
	unix.XFS_SUPER_MAGIC:       {"xfs", kindDisk},
	unix.BTRFS_SUPER_MAGIC:     {"btrfs", kindDisk},
	unix.F2FS_SUPER_MAGIC:      {"f2fs", kindDisk},
	0x2fc12fc1:                 {"zfs", kindDisk},
	unix.NFS_SUPER_MAGIC:       {"nfs", kindNetwork},
	unix.CIFS_SUPER_MAGIC:      {"cifs", kindNetwork},
	unix.SMB2_SUPER_MAGIC:      {"smb2", kindNetwork},
	unix.CEPH_SUPER_MAGIC:      {"ceph", kindNetwork},
	unix.V9FS_MAGIC:            {"9p", kindNetwork},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlay", kindContainer},
}

// statFileSystem says what dir is on, and how much room is left there for us, in bytes and in
// files; inodes is nil where the file system does not count them.
func statFileSystem(dir string) (name string, kind kind, free uint64, inodes *uint64, err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return "", kindUnknown, 0, nil, err
	}
	known, ok := fileSystems[uint32(stat.Type)]
	if !ok {
		known.name = fmt.Sprintf("a file system of type %#x", uint32(stat.Type))
	}
	if stat.Files > 0 {
		inodes = &stat.Ffree
	}
	return known.name, known.kind, stat.Bavail * uint64(stat.Bsize), inodes, nil
}
