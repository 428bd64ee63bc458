package doctor_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/service"
)

// mountMemory mounts a tmpfs at dir; false without the right to.
func mountMemory(t *testing.T, dir, options string) bool {
	t.Helper()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Log("no right to mount: what cannot be written to is tested with sysfs only")
		return false
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return true
}

// No one creates a directory in sysfs, not even root.
func TestRun_volumeThatCannotBeWrittenTo(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Output.Dir = "/sys/kernel/certs"
	report := doctor.Run(t.Context(), o)
	assert.Equal(t, 10, report.ExitCode())
	for _, c := range report.Checks {
		switch c.Name {
		case "writing":
			assert.Equal(t, checks.Failed, c.Status)
			assert.Contains(t, c.Found, `creating directory "/sys/kernel/..doctor-`)
		case "layout", "reader":
			assert.Equal(t, checks.Skipped, c.Status)
		}
	}
}

func TestRun_volumeInMemory(t *testing.T) {
	_, o := start(t, service.Options{})
	dir := o.Config.Output.Dir
	if !mountMemory(t, dir, "size=2m,mode=0770") {
		return
	}
	// The directory above is no hindrance: the other container mounts the volume elsewhere.
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o700))
	o.Reader = &doctor.Reader{UID: os.Geteuid() + 1000, GID: os.Getegid()}
	report, found := run(t, o)
	assert.Equal(t, checks.OK, report.Status())
	for _, c := range report.Checks {
		assert.Equal(t, checks.OK, c.Status, c.Name)
	}
	assert.Equal(t, "tmpfs: keys are in memory, and gone with the pod", found["file system"].Found)
	assert.Equal(t, "2048 KiB free", found["free space"].Found)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 2<<20-32<<10), 0o600))
	report, found = run(t, o)
	assert.Equal(t, checks.Warning, found["free space"].Status)
	assert.Equal(t, "the volume is full: enlarge it or make room", found["writing"].Advice)
	assert.Equal(t, 10, report.ExitCode())

	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, found = run(t, o)
	assert.Contains(t, found["writing"].Found, `": read-only file system`)
	assert.Equal(t, "the file system is read-only: mount the volume without readOnly", found["writing"].Advice)
}
