package volume

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/service"
)

// inMemory is on a file system of its own in memory; without the right to mount one, the test is skipped.
func inMemory(t *testing.T, s *service.Service, layout, options string) *chaos.Volume {
	t.Helper()
	v := on(t, s, layout)
	require.NoError(t, os.Mkdir(v.Path, 0o750))
	err := syscall.Mount("tmpfs", v.Path, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to mount")
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Unmount(v.Path, syscall.MNT_DETACH) })
	return v
}

// A volume without room, of bytes or of names, is told of before a certificate is asked for; what is on it stays.
func TestFull_volumeWithoutRoom_costsNoCertificate(t *testing.T) {
	s := start(t)
	for _, layout := range chaos.Layouts {
		published, refused := 0, 0
		for _, limit := range []string{"size=%dk", "nr_inodes=%d"} {
			for n := 4; n <= 68; n += chaos.Amount(16, 4, 2) {
				v := inMemory(t, s, layout, fmt.Sprintf(limit, n))
				for range 2 { // the second certificate has to stand beside the first
					asked := s.Requests()
					where := fmt.Sprintf("%s, "+limit, layout, n)
					code, printed := v.Run(chaos.Force)
					if code == 0 {
						published++
						v.Set(where)
						continue
					}
					refused++
					require.Equal(t, exitVolume, code, where, printed)
					require.Equal(t, asked, s.Requests(), "%s: asked in vain: %s", where, printed)
					require.Contains(t, printed, "no space left on device", where)
					if entries, _ := os.ReadDir(v.Path); len(entries) > 1 { // than the lock
						v.Set(where)
					}
					break
				}
			}
		}
		assert.NotZero(t, published)
		assert.NotZero(t, refused)
		chaos.Record(t, layout, layout, published, refused, exitVolume)
	}
}

func TestFull_readOnlyVolume_costsNoCertificate(t *testing.T) {
	s := start(t)
	for _, layout := range chaos.Layouts {
		v := inMemory(t, s, layout, "size=1m")
		v.Publish()
		remount := func(flags uintptr) {
			require.NoError(t, syscall.Mount("", v.Path, "", syscall.MS_REMOUNT|flags, "size=1m"))
		}
		remount(syscall.MS_RDONLY)
		requireRefused(t, s, v, v.Program(chaos.Force), "mount the volume without readOnly")
		before, asked := v.Set(), s.Requests()
		v.Publish() // a set that is there and valid will do
		assert.Equal(t, asked, s.Requests())
		assert.Equal(t, before, v.Set())
		remount(0)
		v.Publish(chaos.Force)
		assert.NotEqual(t, before, v.Set())
	}
	chaos.Record(t, "", exitVolume)
}

// A limit on the size of files sends a signal, whose default is to end the program.
func TestLimits_sizeOfFiles(t *testing.T) {
	s := start(t)
	for _, v := range ofEachLayout(t, s) {
		// Blocks of 512 bytes: no certificate is smaller.
		requireRefused(t, s, v, chaos.Within("ulimit -f 1", v.Program(chaos.Force)), "ulimit -f")
		v.Publish(chaos.Force)
	}
	chaos.Record(t, "", exitVolume)
}

// With few descriptors a run ends with a set or with an exit code of its own, and never with half a set.
func TestLimits_openFiles(t *testing.T) {
	s := start(t)
	codes := map[int]int{}
	for _, layout := range chaos.Layouts {
		for n := 9; n <= 30; n += chaos.Amount(5, 1, 1) {
			v := on(t, s, layout)
			v.Publish()
			where := fmt.Sprintf("%s, %d descriptors", layout, n)
			code, printed := chaos.Run(t,
				chaos.Within(fmt.Sprintf("ulimit -n %d", n), v.Program(chaos.Force, "RETRY_MAX_ELAPSED=1s")))
			codes[code]++
			require.Contains(t, []int{0, 1, 3, 4, 5, 6, 9, exitVolume, 99}, code, "%s: %s", where, printed)
			if code != 0 {
				require.Regexp(t, "too many open files|too few files may be open", printed, where)
			}
			v.Publish()
			v.Set(where)
		}
	}
	chaos.Record(t, "", codes)
}
