package files

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
		data, err := os.ReadFile(at(name))
		require.NoError(t, err)
		assert.Equal(t, want, string(data), name)
	}
	assert.NoFileExists(t, at("new"))

	reader, err := os.OpenFile(at("pipe"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer reader.Close()
	assert.ErrorContains(t, Write(at("pipe"), []byte("text"), 0o644), "is a device, pipe or socket", "one that is read")
}
