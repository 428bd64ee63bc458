package volume

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/service"
)

// GEN stands for the directory that ..data points to, or for another generation in the inplace layout.
var foreignNames = []string{
	"..commit/..files", "..commit", "..commit/key.pem", "..data", "..data_tmp", "..link_tmp",
	"..stage", "..stage/key.pem",
	"..untold", "..request", "..lock", "..foreign-1", "GEN", "GEN/key.pem", "GEN/..request",
	"..2020_01_01_00_00_00.000",
	"key.pem", "keystore.pem", "truststore.pem", "keystore.jks",
}

const outsideSecret = "a secret that is none of certfetcher's"

// foreignKinds make an object there; outside is a directory outside of the volume with the file "secret" in it.
var foreignKinds = map[string]func(at, outside string) error{
	"FIFO": func(at, _ string) error { return syscall.Mkfifo(at, 0o666) },
	"socket": func(at, _ string) error { // bound by a short at, as the kernel takes 107 bytes
		dir, err := os.MkdirTemp("/tmp", "s")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		link := dir + "/d"
		if err := os.Symlink(filepath.Dir(at), link); err != nil {
			return err
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(link, filepath.Base(at)), Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return l.Close()
	},
	// /dev/zero
	"device":          func(at, _ string) error { return syscall.Mknod(at, syscall.S_IFCHR|0o666, 1<<8|5) },
	"empty directory": func(at, _ string) error { return os.Mkdir(at, 0o755) },
	"directory": func(at, _ string) error {
		if err := os.MkdirAll(at+"/a/b", 0o755); err != nil {
			return err
		}
		return syscall.Mkfifo(at+"/key.pem", 0o666)
	},
	"link to a secret":    func(at, outside string) error { return os.Symlink(outside+"/secret", at) },
	"link to a directory": func(at, outside string) error { return os.Symlink(outside, at) },
	"link to nothing":     func(at, outside string) error { return os.Symlink(outside+"/nothing", at) },
	"link to itself":      func(at, _ string) error { return os.Symlink(filepath.Base(at), at) },
	"hard link":           func(at, outside string) error { return os.Link(outside+"/secret", at) },
	"file of 8 GiB": func(at, _ string) error {
		f, err := os.Create(at)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(8 << 30)
	},
	"closed file": func(at, _ string) error { // as root it belongs to another user, which is told from ours below
		return os.WriteFile(at, []byte("x"), 0)
	}}

// commands are what is run on the volume, with the exit codes that are documented for it.
var foreignCommands = map[string]struct {
	args, environment []string
	codes             []int
}{
	"init":    {nil, []string{force}, []int{0, 10}},
	"sidecar": {nil, []string{"MODE=sidecar"}, []int{0, 10}},
	"probe":   {[]string{"probe"}, nil, []int{0, 1}},
	"inspect": {[]string{"inspect"}, nil, []int{0, 1}},
	"doctor":  {[]string{"doctor"}, nil, []int{0, 10}},
	"postprocess": {[]string{"postprocess"}, []string{
		"TRUSTSTORES_PATHS=VOLUME/../merged.pem:VOLUME/truststore.pem", "TRUSTSTORES_PASSWORDS_PATHS=:",
		"KEYSTORE_SOURCE_PATHS=VOLUME/key.pem", "KEYSTORE_DESTINATION_PATHS=VOLUME/../copied.pem",
	}, []int{0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}}}

// place is a volume with an object of another's on it.
type place struct {
	volume, outside, object, kind string
}

func newPlace(t *testing.T, template, layout, name, kind string) (p place) {
	t.Helper()
	top := t.TempDir()
	for dir := top; dir != "/dev/shm" && dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	p = place{volume: top + "/volume", outside: top + "/outside", kind: kind}
	out, err := exec.Command("cp", "-a", template, p.volume).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.Mkdir(p.outside, 0o755))
	require.NoError(t, os.WriteFile(p.outside+"/secret", []byte(outsideSecret), 0o640))
	generation := "..2021_01_01_00_00_00.000"
	if target, err := os.Readlink(p.volume + "/..data"); err == nil {
		generation = target
	}
	p.object = filepath.Join(p.volume, strings.Replace(name, "GEN", generation, 1))
	if parent := filepath.Dir(p.object); parent != p.volume {
		require.NoError(t, os.MkdirAll(parent, 0o755))
	}
	require.NoError(t, os.RemoveAll(p.object))
	require.NoError(t, foreignKinds[kind](p.object, p.outside))
	return p
}

// untouched tells whether what is outside of the volume is as it was.
func (p place) untouched(t *testing.T, where string) {
	t.Helper()
	entries, err := os.ReadDir(p.outside)
	require.NoError(t, err)
	require.Len(t, entries, 1, where)
	info, err := os.Lstat(p.outside + "/secret")
	require.NoError(t, err)
	require.Equal(t, "-rw-r-----", info.Mode().String(), where)
	data, err := os.ReadFile(p.outside + "/secret")
	require.NoError(t, err)
	require.Equal(t, outsideSecret, string(data), where)
}

// templates makes a volume of each layout to begin with.
func templates(t *testing.T, s *service.Service) map[string]string {
	t.Helper()
	made := map[string]string{}
	for _, layout := range layouts {
		made[layout] = filepath.Join(t.TempDir(), layout)
		publish(t, s, made[layout], layout)
	}
	return made
}

// Whatever somebody puts under the names on a volume: each command ends in time with an exit code that it documents,
// touches nothing outside of the volume, and names the object where it cannot help it; and when the object is gone,
// the next run publishes.
func TestForeignObjects_underEachName_endNoProgramAndHoldNoneUp(t *testing.T) {
	t.Parallel()
	s := startService(t)
	template := templates(t, s)
	kinds := slices.Sorted(maps.Keys(foreignKinds))
	commands := slices.Sorted(maps.Keys(foreignCommands))
	tried, moved, reported, slowest, n := 0, 0, 0, time.Duration(0), 0
	every := chaos.Amount(211, 11, 1) // of the table; the first rows are the known worst
	for _, name := range foreignNames {
		for _, kind := range kinds {
			for _, layout := range layouts {
				for _, command := range commands {
					n++
					worst := name == "..commit/..files" && kind == "FIFO" && command == "init"
					if n%every != 0 && !worst || kind == "device" && os.Geteuid() != 0 {
						continue
					}
					where := fmt.Sprintf("%s at %s, layout %s, %s", kind, name, layout, command)
					began := time.Now()
					p := newPlace(t, template[layout], layout, name, kind)
					code, out := runOn(t, s, p, layout, command, where)
					took := time.Since(began)
					slowest = max(slowest, took)
					t.Logf("%s: exit code %d, %.2f s", where, code, took.Seconds())
					tried++
					if strings.Contains(out, "moved aside") {
						moved++
					}
					if code == 10 {
						reported++
					}
				}
			}
		}
	}
	chaos.Record(t, "table", tried, slowest.Seconds(), moved, reported)
}

func runOn(t *testing.T, s *service.Service, p place, layout, command, where string) (int, string) {
	t.Helper()
	row := foreignCommands[command]
	environment := []string{"OUTPUT_LAYOUT=" + layout}
	for _, variable := range row.environment {
		environment = append(environment, strings.ReplaceAll(variable, "VOLUME", p.volume))
	}
	if command == "postprocess" {
		pem, err := os.ReadFile(s.Dir + "/truststore.pem")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(p.volume), "merged.pem"), pem, 0o600))
	}
	r := chaos.Start(t, program(s, p.volume, layout, row.args, environment...))
	if command == "sidecar" && r.Await(`"msg":"the volume already holds`, `"msg":"published"`) {
		_ = r.Process.Signal(syscall.SIGTERM)
	}
	code, out := r.Wait(chaos.Deadline), r.Printed()
	require.NotEqual(t, chaos.Hung, code, "%s: hangs\n%s", where, out)
	assert.Contains(t, row.codes, code, "%s\n%s", where, out)
	if code == 10 {
		assert.Contains(t, out, p.object, where)
	}
	assert.NotContains(t, out, outsideSecret, where)
	p.untouched(t, where)

	_ = os.RemoveAll(p.object)
	publish(t, s, p.volume, layout, force)
	probe(t, s, p.volume, layout, where+", then removed")
	return code, out
}

// The same under a sidecar that runs: it goes on, and renews when it is asked to.
func TestForeignObjects_underARunningSidecar_doNotKeepItFromRenewing(t *testing.T) {
	t.Parallel()
	s := startService(t)
	for _, layout := range layouts {
		volume, outside := t.TempDir()+"/volume", t.TempDir()
		require.NoError(t, os.WriteFile(outside+"/secret", []byte(outsideSecret), 0o640))
		r := chaos.Start(t, program(s, volume, layout, nil, "MODE=sidecar"))
		published := func() int { return strings.Count(r.Printed(), `"msg":"published"`) }
		require.True(t, r.Await(`"msg":"published"`), r.Printed())
		all := slices.Sorted(maps.Keys(foreignKinds))
		kinds := chaos.Amount([]string{"FIFO"}, []string{"FIFO", "directory", "link to a secret"}, all)
		for _, kind := range kinds {
			for _, name := range []string{
				"..commit/..files", "..commit", "..data_tmp", "..link_tmp", "..stage", "..lock", "..request", "..data",
			} {
				object := filepath.Join(volume, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(object), 0o755))
				_ = os.RemoveAll(object)
				if err := foreignKinds[kind](object, outside); err != nil {
					continue // the sidecar has tidied up in between
				}
				before := published()
				r.Signal(t, syscall.SIGHUP)
				require.Eventually(t, func() bool { return published() > before }, chaos.Deadline, 5*time.Millisecond,
					"%s at %s, layout %s: %s", kind, name, layout, r.Printed())
			}
			entries, err := filepath.Glob(volume + "/..foreign-*")
			require.NoError(t, err)
			for _, entry := range entries { // as an operator would
				require.NoError(t, os.RemoveAll(entry))
			}
		}
		r.End(t)
		place{outside: outside}.untouched(t, layout)
	}
}
