package files

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRead_givesOneByteMoreThanAllowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("12345"), 0o640))
	for most, want := range map[int64]string{3: "1234", 4: "12345", 5: "12345"} {
		data, info, err := Read(path, most)
		require.NoError(t, err)
		assert.Equal(t, want, string(data))
		assert.Equal(t, os.FileMode(0o640), info.Mode())
	}
}

func TestRead_ofWhatIsNoFile_doesNotWait(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for path, want := range map[string]string{
		pipe:           "read " + pipe + ": is a device, pipe or socket, want a file",
		dir:            "read " + dir + ": is a directory, want a file",
		"/dev/null":    "read /dev/null: is a device, pipe or socket, want a file",
		dir + "/none":  "open " + dir + "/none: no such file or directory",
		pipe + "/none": "open " + pipe + "/none: not a directory",
	} {
		_, _, err := Read(path, 1)
		assert.EqualError(t, err, want)
	}
	require.NoError(t, os.Symlink("pipe", filepath.Join(dir, "link")))
	_, _, err := Read(filepath.Join(dir, "link"), 1)
	require.Error(t, err)
	assert.True(t, strings.HasSuffix(err.Error(), "is a device, pipe or socket, want a file"), err)
}

func TestReadIn_leavesTheRootByNoWayAndWaitsForNobody(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("content"), 0o600))
	require.NoError(t, os.Symlink("../secret", filepath.Join(dir, "outside")))
	require.NoError(t, os.Symlink("sub/file", filepath.Join(dir, "inside")))
	require.NoError(t, os.Symlink("sub", filepath.Join(dir, "directory")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	for _, name := range []string{"outside", "inside", "directory/file", "pipe", "pipe/file", "sub",
		"../secret", "sub/../sub/file", "", "none"} {
		data, _, err := ReadIn(root, name, 100)
		assert.Error(t, err, name)
		assert.Empty(t, data, name)
	}
	data, info, err := ReadIn(root, "sub/file", 3)
	require.NoError(t, err)
	assert.Equal(t, "cont", string(data), "one byte more than asked for")
	assert.EqualValues(t, 7, info.Size())
}
