package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

var layouts = []string{"symlink", "inplace"}

// holdLock is what another user's process does that may read a directory: it takes every lock that it can get.
func holdLock(dir string) int {
	var held []string
	for _, name := range []string{".", "..lock"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			held = append(held, name+": "+err.Error())
			continue
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		held = append(held, fmt.Sprintf("%s: flock: %v", name, err))
		read := syscall.Flock_t{Type: syscall.F_RDLCK}
		held = append(held, fmt.Sprintf("%s: read lock: %v", name, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &read)))
	}
	fmt.Println("holding", held)
	time.Sleep(time.Hour)
	return 0
}

// A process of another user that may only read a volume must not be able to keep anybody from publishing there.
func TestLock_heldByAReaderOfAnotherUser_keepsNobodyFromPublishing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a process as another user")
	}
	t.Parallel()
	s := startService(t)
	for _, layout := range chaos.Amount([]string{"symlink"}, layouts, layouts) {
		volume := filepath.Join(t.TempDir(), "volume")
		require.NoError(t, os.Mkdir(volume, 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(volume), 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(volume)), 0o755))
		code, out := once(t, program(s, volume, nil, "OUTPUT_LAYOUT="+layout))
		require.Zero(t, code, out)

		holder := exec.Command(copyOfThis(t))
		holder.Env = []string{"VOLUME_TEST_LOCK=" + volume}
		holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		reader := start(t, holder)
		require.True(t, reader.await("holding"), reader.printed())
		t.Log(reader.printed())

		began := time.Now()
		code, out = once(t, program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "FORCE_ENROLL=true"))
		took := time.Since(began)
		assert.Equal(t, 0, code, out)
		chaos.Record(t, layout,
			fmt.Sprintf("another user's process that may read the volume (layout %s) holds all the locks that it gets",
				layout),
			fmt.Sprintf("published in %.1f s", took.Seconds()))
	}
}

// copyOfThis is the test binary where every user may run it.
func copyOfThis(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	data, err := os.ReadFile(self)
	require.NoError(t, err)
	dir, err := os.MkdirTemp(binDir, "holder")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "holder"), data, 0o755))
	return filepath.Join(dir, "holder")
}

// Processes of several users may share a volume; a lock that only one of them could open must not stop the others.
func TestLock_ofAnotherUser_stopsNobodyWhoMayWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run processes as other users")
	}
	t.Parallel()
	s := startService(t)
	require.NoError(t, os.Chmod(filepath.Dir(s.Dir), 0o755))
	require.NoError(t, os.Chmod(s.Dir, 0o755))
	for _, name := range []string{"client.pem", "truststore.pem"} {
		require.NoError(t, os.Chmod(filepath.Join(s.Dir, name), 0o644))
	}
	for _, layout := range chaos.Amount([]string{"inplace"}, layouts, layouts) {
		for name, row := range map[string]struct {
			owner         int
			before, after os.FileMode
		}{
			"all may write":             {0, 0o777, 0o777},
			"a group may write":         {0, 0o770 | os.ModeSetgid, 0o770 | os.ModeSetgid},
			"all may write since later": {1001, 0o755, 0o777}, // the lock is made for its owner alone
		} {
			volume := filepath.Join(t.TempDir(), "volume")
			require.NoError(t, os.Chmod(filepath.Dir(volume), 0o755))
			require.NoError(t, os.Mkdir(volume, 0o755))
			require.NoError(t, os.Chown(volume, row.owner, 2000))
			for i, uid := range []uint32{1001, 1002, 0, 1001} {
				require.NoError(t, os.Chmod(volume, []os.FileMode{row.before, row.after}[min(i, 1)]))
				cmd := program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "FORCE_ENROLL=true")
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 2000}}
				code, out := once(t, cmd)
				assert.Zero(t, code, "%s, layout %s, user %d: %s", name, layout, uid, out)
			}
		}
	}
}
