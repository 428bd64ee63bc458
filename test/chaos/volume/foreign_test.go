package volume

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// foreignKinds make an object there; out is a directory outside of the volume with the file "secret" in it.
var foreignKinds = map[string]func(at, out string) error{
	"FIFO":            node(syscall.S_IFIFO, 0),
	"socket":          node(syscall.S_IFSOCK, 0),
	"device":          node(syscall.S_IFCHR, 1<<8|5), // /dev/zero
	"empty directory": func(at, _ string) error { return os.Mkdir(at, 0o755) },
	"directory": func(at, _ string) error {
		return errors.Join(os.MkdirAll(at+"/a/b", 0o755), syscall.Mkfifo(at+"/key.pem", 0o666))
	},
	"link to a secret":    func(at, out string) error { return os.Symlink(out+"/secret", at) },
	"link to a directory": func(at, out string) error { return os.Symlink(out, at) },
	"link to nothing":     func(at, out string) error { return os.Symlink(out+"/nothing", at) },
	"link to itself":      func(at, _ string) error { return os.Symlink(filepath.Base(at), at) },
	"hard link":           func(at, out string) error { return os.Link(out+"/secret", at) },
	"file of 8 GiB": func(at, _ string) error {
		return errors.Join(os.WriteFile(at, nil, 0o644), os.Truncate(at, 8<<30))
	},
	"closed file": func(at, _ string) error { return os.WriteFile(at, []byte("x"), 0) },
}

func node(kind uint32, device int) func(at, outside string) error {
	return func(at, _ string) error { return syscall.Mknod(at, kind|0o666, device) }
}

const secret = "a secret that is none of certfetcher's"

// newOutside makes a directory with a secret, which stays as it is.
func newOutside(t *testing.T) (dir string, requireUntouched func(where string)) {
	t.Helper()
	dir = t.TempDir()
	chaos.Show(t, dir)
	require.NoError(t, os.WriteFile(dir+"/secret", []byte(secret), 0o640))
	return dir, func(where string) {
		t.Helper()
		seen, err := exec.Command("sh", "-c", `cd "$0"; stat -c '%n %A' *; cat *`, dir).CombinedOutput()
		require.NoError(t, err, where)
		require.Equal(t, "secret -rw-r-----\n"+secret, string(seen), where)
	}
}

// put puts a foreign object on a volume, and returns its path.
func put(t *testing.T, volume, name, kind, outside string) (object string) {
	t.Helper()
	generation, err := os.Readlink(volume + "/..data")
	if err != nil {
		generation = "..2021_01_01_00_00_00.000"
	}
	object = filepath.Join(volume, strings.Replace(name, "GEN", generation, 1))
	require.NoError(t, os.MkdirAll(filepath.Dir(object), 0o755))
	require.NoError(t, os.RemoveAll(object))
	require.NoError(t, foreignKinds[kind](object, outside))
	return object
}

// Whatever someone puts under the names on a volume: each command ends in time with an exit code that it documents,
// touches nothing outside of the volume, and names the object where it cannot help it; and when the object is gone,
// the next run publishes.
func TestForeignObjects_underEachName_endNoProgramAndHoldNoneUp(t *testing.T) {
	t.Parallel()
	s := start(t)
	template := ofEachLayout(t, s)
	pem := fixture.Must(os.ReadFile(s.Dir + "/truststore.pem"))
	var seen chaos.Seen
	n, tried, moved := 0, 0, 0
	every := chaos.Amount(211, 11, 1) // of the table; the first row is the known worst
	try := func(name, kind, layout, command, words, codes string) {
		where := fmt.Sprintf("%s at %s, layout %s, %s", kind, name, layout, command)
		began := time.Now()
		v := on(t, s, layout)
		chaos.Copy(t, template[layout].Path, v.Path)
		outside, requireUntouched := newOutside(t)
		object := put(t, v.Path, name, kind, outside)
		chaos.Write(t, v.Path+"/../merged.pem", string(pem))
		r := v.Start(strings.Fields(strings.ReplaceAll(words, "VOLUME", v.Path))...)
		if command == "sidecar" && r.Await(`"msg":"the volume already holds`, `"msg":"published"`) {
			_ = r.Process.Signal(syscall.SIGTERM)
		}
		code, printed := r.Wait(chaos.Deadline), r.Printed()
		require.NotEqual(t, chaos.Hung, code, "%s: hangs\n%s", where, printed)
		assert.Contains(t, strings.Fields(codes), strconv.Itoa(code), "%s\n%s", where, printed)
		if code == exitVolume {
			assert.Contains(t, printed, object, where)
		}
		assert.NotContains(t, printed, secret, where)
		requireUntouched(where)

		_ = os.RemoveAll(object)
		v.Publish(chaos.Force)
		v.Publish("probe")
		t.Logf("%s: exit code %d, %.2f s", where, code, time.Since(began).Seconds())
		seen.Add(code, time.Since(began), 0)
		tried++
		moved += min(1, strings.Count(printed, "moved aside"))
	}
	// GEN stands for the directory that ..data points to, or for another generation in the inplace layout. What is
	// run on the volume comes with the exit codes that are documented for it.
	names, commands := chaos.Rows(t, "names.txt", 1, nil), chaos.Rows(t, "commands.txt", 3, nil)
	for i, name := range names {
		for _, kind := range slices.Sorted(maps.Keys(foreignKinds)) {
			for _, layout := range chaos.Layouts {
				for _, command := range commands {
					n++
					worst := i == 0 && kind == "FIFO" && command[0] == "init"
					if (n%every == 0 || worst) && (kind != "device" || os.Geteuid() == 0) {
						try(name[0], kind, layout, command[0], command[1], command[2])
					}
				}
			}
		}
	}
	chaos.Record(t, "table", tried, seen.Longest.Seconds(), moved, seen.Counts[exitVolume])
}

// The same under a sidecar that runs: it goes on, and renews when it is asked to.
func TestForeignObjects_underARunningSidecar_doNotKeepItFromRenewing(t *testing.T) {
	t.Parallel()
	s := start(t)
	names := strings.Fields("..commit/..files ..commit ..data_tmp ..link_tmp " +
		"..stage ..lock ..request ..data")
	few := []string{"FIFO", "directory", "link to a secret"}
	kinds := chaos.Amount(few[:1], few, slices.Sorted(maps.Keys(foreignKinds)))
	for _, layout := range chaos.Layouts {
		outside, requireUntouched := newOutside(t)
		v := on(t, s, layout)
		r := v.Sidecar()
		published := func() int { return strings.Count(r.Printed(), `"msg":"published"`) }
		for _, kind := range kinds {
			for _, name := range names {
				object := filepath.Join(v.Path, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(object), 0o755))
				_ = os.RemoveAll(object)
				if foreignKinds[kind](object, outside) != nil {
					continue // the sidecar has tidied up in between
				}
				before := published()
				r.Signal(t, syscall.SIGHUP)
				renewed := func() bool { return published() > before }
				require.Eventually(t, renewed, chaos.Deadline, 5*time.Millisecond,
					"%s at %s, layout %s: %s", kind, name, layout, r.Printed())
			}
			chaos.Shell(t, v.Path, "rm -rf ..foreign-*") // as an operator would
		}
		r.End(t)
		requireUntouched(layout)
	}
}
