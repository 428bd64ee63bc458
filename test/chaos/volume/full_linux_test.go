package volume

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// exitVolume is the exit code for a volume that cannot be written to.
const exitVolume = 10

// mountMemory mounts a file system in memory; without the right to, the test is skipped.
func mountMemory(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir() + "/mounted"
	require.NoError(t, os.Mkdir(dir, 0o750))
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to mount")
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// requireSet wants a whole set on the volume, and nothing half done.
func requireSet(t *testing.T, volume, where string) (certificate []byte) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(volume+"/keystore.pem", volume+"/key.pem")
	require.NoError(t, err, where)
	requireNothingHalfDone(t, volume)
	return pair.Certificate[0]
}

func requireNothingHalfDone(t *testing.T, volume string) {
	t.Helper()
	entries, _ := os.ReadDir(volume)
	for _, entry := range entries {
		require.NotContains(t, []string{"..stage", "..commit", "..data_tmp", "..link_tmp"}, entry.Name())
	}
}

// A volume without room, of bytes or of names, is told of before a certificate is asked for; what is on it stays.
func TestFull_volumeWithoutRoom_costsNoCertificate(t *testing.T) {
	s := startService(t)
	for _, layout := range layouts {
		asked, refused := 0, 0
		for _, limit := range []string{"size=%dk", "nr_inodes=%d"} {
			for n := 4; n <= 68; n += chaos.Amount(16, 4, 2) {
				volume := mountMemory(t, fmt.Sprintf(limit, n))
				for _, try := range []string{"first", "another"} {
					where := fmt.Sprintf("%s, "+limit+", %s certificate", layout, n, try)
					before := s.Requests()
					code, out := run(t, s, volume, layout, force)
					if code == 0 {
						asked++
						requireSet(t, volume, where)
						continue
					}
					refused++
					require.Equal(t, exitVolume, code, where, out)
					require.Equal(t, before, s.Requests(), "%s: asked in vain: %s", where, out)
					require.Contains(t, out, "no space left on device", where)
					if try == "another" {
						requireSet(t, volume, where)
					}
					break
				}
			}
		}
		assert.NotZero(t, asked)
		assert.NotZero(t, refused)
		chaos.Record(t, layout, layout, asked, refused, exitVolume)
	}
}

func TestFull_readOnlyVolume_costsNoCertificate(t *testing.T) {
	s := startService(t)
	for _, layout := range layouts {
		volume := mountMemory(t, "size=1m")
		publish(t, s, volume, layout)
		certificate := requireSet(t, volume, layout)
		require.NoError(t, syscall.Mount("", volume, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1m"))
		before := s.Requests()
		code, out := run(t, s, volume, layout, force)
		assert.Equal(t, exitVolume, code, out)
		assert.Contains(t, out, "mount the volume without readOnly")
		publish(t, s, volume, layout) // a set that is there and valid will do
		assert.Equal(t, before, s.Requests())
		assert.Equal(t, certificate, requireSet(t, volume, layout))
		require.NoError(t, syscall.Mount("", volume, "", syscall.MS_REMOUNT, "size=1m"))
		publish(t, s, volume, layout, force)
		assert.NotEqual(t, certificate, requireSet(t, volume, layout))
	}
	chaos.Record(t, "", exitVolume)
}

// limited runs a program with a limit of the shell's ulimit.
func limited(limit string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Args = append([]string{"sh", "-c", "ulimit " + limit + `; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return cmd
}

// A limit on the size of files sends a signal, whose default is to end the program.
func TestLimits_sizeOfFiles(t *testing.T) {
	s := startService(t)
	for _, layout := range layouts {
		volume := t.TempDir() + "/volume"
		publish(t, s, volume, layout)
		certificate := requireSet(t, volume, layout)
		before := s.Requests()
		// Blocks of 512 bytes: no certificate is smaller.
		code, out := chaos.Run(t, limited("-f 1", program(s, volume, layout, nil, force)))
		assert.Equal(t, exitVolume, code, out)
		assert.Contains(t, out, "ulimit -f")
		assert.Equal(t, before, s.Requests(), out)
		assert.Equal(t, certificate, requireSet(t, volume, layout))
		publish(t, s, volume, layout, force)
	}
	chaos.Record(t, "", exitVolume)
}

// With few descriptors a run ends with a set or with an exit code of its own, and never with half a set.
func TestLimits_openFiles(t *testing.T) {
	s := startService(t)
	codes := map[int]int{}
	for _, layout := range layouts {
		for n := 9; n <= 30; n += chaos.Amount(5, 1, 1) {
			volume := t.TempDir() + "/volume"
			publish(t, s, volume, layout)
			where := fmt.Sprintf("%s, %d descriptors", layout, n)
			code, out := chaos.Run(t, limited(fmt.Sprintf("-n %d", n),
				program(s, volume, layout, nil, force, "RETRY_MAX_ELAPSED=1s")))
			codes[code]++
			require.Contains(t, []int{0, 1, 3, 4, 5, 6, 9, exitVolume, 99}, code, "%s: %s", where, out)
			said := strings.Contains(out, "too many open files") || strings.Contains(out, "too few files may be open")
			require.True(t, code == 0 || said, "%s: %s", where, out)
			publish(t, s, volume, layout)
			requireSet(t, volume, where)
		}
	}
	chaos.Record(t, "", codes)
}
