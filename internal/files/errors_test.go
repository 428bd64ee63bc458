package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExplain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(path, nil, 0o400))
	uid := os.Geteuid()
	for _, row := range []struct {
		path string
		err  error
		want string
	}{
		{path, syscall.ENOENT,
			"does not exist: check the path and the volume mounted there (no such file or directory)"},
		{path, syscall.EACCES,
			fmt.Sprintf(
				"may not be read by user %d: its mode is -r--------; set fsGroup in the pod's securityContext, or "+
					"another defaultMode of its volume (permission denied)", uid)},
		{path + "/behind", syscall.EACCES,
			fmt.Sprintf("may not be reached by user %d: check the modes of its directories (permission denied)", uid)},
		{path, KindError(fs.ModeDir), "is a directory, want a file"},
		{path, syscall.EMFILE, "cannot be read: too many open files"},
	} {
		err := Explain(row.path, row.err)
		assert.EqualError(t, err, row.want)
		assert.ErrorIs(t, err, row.err)
	}
}

func TestReason_leavesOutThePath(t *testing.T) {
	assert.Equal(t, syscall.ENOSPC,
		Reason(fmt.Errorf("x: %w", &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC})))
	other := errors.New("other")
	assert.Equal(t, other, Reason(other))
}

func TestExistingDir(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Symlink("nothing", link))
	for path, want := range map[string]string{dir: dir, dir + "/a/b": dir} {
		got, err := ExistingDir(path)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for path, want := range map[string]string{
		file:            fmt.Sprintf("%q is a file, want a directory", file),
		file + "/below": fmt.Sprintf("%q is a file, want a directory", file),
		link + "/below": fmt.Sprintf("%q is a link to a directory that does not exist", link),
	} {
		_, err := ExistingDir(path)
		assert.EqualError(t, err, want)
	}
}

func TestWithin(t *testing.T) {
	for path, want := range map[string]bool{"/v": true, "/v/a": true, "/v/..data/a": true,
		"/v/../a": false, "/w/a": false, "/vv/a": false} {
		assert.Equal(t, want, Within("/v", path), path)
	}
}

func TestError_saysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o750))
	me := identity()
	stat := fmt.Sprintf("uid %d, gid %d", os.Geteuid(), os.Getegid())
	for _, row := range []struct {
		op   string
		err  syscall.Errno
		want string
	}{
		{OpCreate, syscall.EROFS,
			"read-only file system (the file system is read-only: mount the volume without readOnly)"},
		{OpWrite, syscall.ENOSPC, "no space left on device (the volume is full: enlarge it or make room)"},
		{OpWrite, syscall.EDQUOT, "disk quota exceeded (the quota is used up: enlarge it or make room)"},
		{OpCreate, syscall.EACCES,
			"permission denied (" + me + `; directory "` + dir + `" has mode drwxr-x---, ` + stat +
				": give that user or group the right to write, in Kubernetes by fsGroup)"},
		{OpGroup, syscall.EPERM, "operation not permitted (" + me +
			"; only a member of a group may give files to it: add the process to the group, in " +
			"Kubernetes by fsGroup or supplementalGroups)"},
		{OpLink, syscall.EOPNOTSUPP,
			"operation not supported (symbolic links do not work on this volume: set " +
				"OUTPUT_LAYOUT=inplace, or use another volume)"},
		{OpLink, syscall.EPERM,
			"operation not permitted (symbolic links do not work on this volume: set " +
				"OUTPUT_LAYOUT=inplace, or use another volume)"},
		{OpLink, syscall.EIO, "input/output error"},
		{OpSync, syscall.EIO, "input/output error"},
	} {
		err := NewError(row.op, filepath.Join(dir, "missing"), &fs.PathError{Op: "x", Path: "y", Err: row.err})
		assert.EqualError(t, err, row.op+` "`+dir+`/missing": `+row.want)
		assert.ErrorIs(t, err, row.err)
	}
	require.Regexp(t, `^running as uid \d+, gid \d+`, me)
}
