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

// holdLocks is what another user's process does that may read a directory: it takes every lock that it can get.
func holdLocks(dir string) int {
	for _, name := range []string{".", "..lock"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			fmt.Println(err)
			continue
		}
		read := syscall.Flock_t{Type: syscall.F_RDLCK}
		fmt.Println(name, "flock:", syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB),
			"read lock:", syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &read))
	}
	fmt.Println("holding")
	time.Sleep(time.Hour)
	return 0
}

// A process of another user that may only read a volume must not be able to keep anybody from publishing there.
func TestLock_heldByAReaderOfAnotherUser_keepsNobodyFromPublishing(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, layout := range chaos.Amount([]string{"symlink"}, chaos.Layouts, chaos.Layouts) {
		v := on(t, s, layout)
		require.NoError(t, os.Mkdir(v.Path, 0o755))
		chaos.Show(t, v.Path)
		v.Publish()
		holder := chaos.As(t, chaos.Nobody, chaos.Nobody, exec.Command(chaos.Self, "hold", v.Path))
		reader := chaos.Start(t, holder)
		require.True(t, reader.Await("holding"), reader.Printed())
		t.Log(reader.Printed())
		began := time.Now()
		v.Publish(chaos.Force)
		chaos.Record(t, layout, layout, time.Since(began).Seconds())
	}
}

// Processes of several users may share a volume; a lock that only one of them could open must not stop the others.
func TestLock_ofAnotherUser_stopsNobodyWhoMayWrite(t *testing.T) {
	t.Parallel()
	s := start(t)
	chaos.Show(t, s.Dir)
	for _, layout := range chaos.Amount([]string{"inplace"}, chaos.Layouts, chaos.Layouts) {
		for name, row := range map[string]struct {
			owner         int
			before, after os.FileMode
		}{
			"all may write":             {0, 0o777, 0o777},
			"a group may write":         {0, 0o770 | os.ModeSetgid, 0o770 | os.ModeSetgid},
			"all may write since later": {1001, 0o755, 0o777}, // the lock is made for its owner alone
		} {
			v := on(t, s, layout)
			require.NoError(t, os.Mkdir(v.Path, 0o755))
			chaos.Show(t, v.Path)
			_ = os.Chown(v.Path, row.owner, 2000)
			for i, uid := range []uint32{1001, 1002, 0, 1001} {
				require.NoError(t, os.Chmod(v.Path, []os.FileMode{row.before, row.after}[min(i, 1)]))
				code, printed := chaos.Run(t, chaos.As(t, uid, 2000, v.Program(chaos.Force)))
				assert.Zero(t, code, "%s, layout %s, user %d: %s", name, layout, uid, printed)
			}
		}
	}
}
