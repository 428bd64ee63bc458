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
		volume := t.TempDir() + "/volume"
		require.NoError(t, os.Mkdir(volume, 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(volume), 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(volume)), 0o755))
		publish(t, s, volume, layout)

		holder := exec.Command(self)
		holder.Env = []string{"VOLUME_TEST_LOCK=" + volume}
		holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		reader := chaos.Start(t, holder)
		require.True(t, reader.Await("holding"), reader.Printed())
		t.Log(reader.Printed())

		began := time.Now()
		publish(t, s, volume, layout, force)
		took := time.Since(began)
		chaos.Record(t, layout, layout, took.Seconds())
	}
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
			volume := t.TempDir() + "/volume"
			require.NoError(t, os.Chmod(filepath.Dir(volume), 0o755))
			require.NoError(t, os.Mkdir(volume, 0o755))
			require.NoError(t, os.Chown(volume, row.owner, 2000))
			for i, uid := range []uint32{1001, 1002, 0, 1001} {
				require.NoError(t, os.Chmod(volume, []os.FileMode{row.before, row.after}[min(i, 1)]))
				cmd := program(s, volume, layout, nil, force)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 2000}}
				code, out := chaos.Run(t, cmd)
				assert.Zero(t, code, "%s, layout %s, user %d: %s", name, layout, uid, out)
			}
		}
	}
}
