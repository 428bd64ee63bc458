package files

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
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
	root := fixture.Must(os.OpenRoot(dir))
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

func TestWrite_whatIsNoFileOfItsOwn_isLeftAlone(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("other"), []byte("other"), 0o644))
	require.NoError(t, os.Symlink("other", at("link")))
	require.NoError(t, os.Symlink("new", at("dangling")))
	require.NoError(t, os.Link(at("other"), at("hard link")))
	require.NoError(t, syscall.Mkfifo(at("pipe"), 0o666))
	require.NoError(t, os.WriteFile(at("file"), []byte("longer than what is written"), 0o644))
	for name, ok := range map[string]bool{"link": false, "dangling": false, "hard link": false,
		"pipe": false, "file": true, "absent": true} {
		err := Write(at(name), []byte("text"), 0o644)
		assert.Equal(t, ok, err == nil, "%s: %v", name, err)
	}
	assert.NoError(t, Write(os.DevNull, []byte("text"), 0o644))
	for name, want := range map[string]string{"other": "other", "file": "text", "absent": "text"} {
		data := fixture.Must(os.ReadFile(at(name)))
		assert.Equal(t, want, string(data), name)
	}
	assert.NoFileExists(t, at("new"))

	reader := fixture.Must(os.OpenFile(at("pipe"), os.O_RDONLY|syscall.O_NONBLOCK, 0))
	defer reader.Close()
	assert.ErrorContains(t, Write(at("pipe"), []byte("text"), 0o644), "is a device, pipe or socket", "one that is read")
}
