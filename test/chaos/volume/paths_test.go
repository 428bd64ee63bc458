package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// A named pipe, or a link, in the place of any file that a neighbour may write to, holds nobody up and leads nobody
// astray.
func TestNamedPipes_inThePlaceOfOtherFiles_holdNobodyUp(t *testing.T) {
	t.Parallel()
	s := startService(t)
	for variable, want := range map[string]struct {
		environment []string
		code        int
		text        string
	}{
		"TERMINATION_MESSAGE_PATH": {[]string{"CA_NAME=none"}, 5,
			"the termination message could not be written"},
		"KEYSTORE_PATH":                   {nil, 9, "is a device, pipe or socket, want a file"},
		"KEYSTORE_KEY_PATH":               {nil, 9, "is a device, pipe or socket, want a file"},
		"TRUSTSTORE_PATH":                 {nil, 9, "is a device, pipe or socket, want a file"},
		"KEYSTORE_PASSWORD_FILE":          {nil, 9, "which is empty"},
		"OUTPUT_PATH":                     {nil, 10, "not a directory"},
		"OUTPUT_KEYSTORE_PASSWORD_FILE":   {nil, 1, "OUTPUT_KEYSTORE_PASSWORD_FILE"},
		"OUTPUT_TRUSTSTORE_PASSWORD_FILE": {nil, 1, "OUTPUT_TRUSTSTORE_PASSWORD_FILE"},
		"RENEW_TRIGGER_FILE of a sidecar": {[]string{"MODE=sidecar"}, 0, "the trigger file asks for a renewal"},
		"NOTIFY_PID_FILE of a sidecar": {[]string{"MODE=sidecar", "NOTIFY_SIGNAL=HUP"}, 0,
			"is a device, pipe or socket, want a file"},
		"TERMINATION_MESSAGE_PATH, as link": {[]string{"CA_NAME=none"}, 5,
			"the termination message could not be written"},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, victim := filepath.Join(dir, "path"), filepath.Join(dir, "victim")
			require.NoError(t, os.WriteFile(victim, []byte("as it was"), 0o600))
			if strings.HasSuffix(variable, "link") {
				require.NoError(t, os.Symlink(victim, path))
			} else {
				require.NoError(t, syscall.Mkfifo(path, 0o666))
			}
			name, _, _ := strings.Cut(strings.Split(variable, ",")[0], " ")
			r := start(t, program(s, filepath.Join(dir, "volume"), nil, append(want.environment, name+"="+path)...))
			found := r.await(want.text)
			if len(want.environment) > 0 && want.environment[0] == "MODE=sidecar" {
				require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
			}
			assert.Equal(t, want.code, r.wait(deadline), r.printed())
			assert.True(t, found, r.printed())
			data, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, "as it was", string(data))
		})
	}
}

// Whoever may make names on a volume can make many.
func TestManyNames_onAVolume_takeLittleTimeAndMemory(t *testing.T) {
	t.Parallel()
	s := startService(t)
	template := templates(t, s)
	many := chaos.Amount(2000, 20000, 100000)
	// Others do it, as the peak of this process's memory would count as that of the programs that it starts.
	make := func(t *testing.T, dir, name string, command ...string) {
		require.NoError(t, os.MkdirAll(dir, 0o755))
		cmd := exec.Command("sh", "-c", fmt.Sprintf("seq -f '%s' %d | xargs -n 5000 %s", name, many,
			strings.Join(command, " ")))
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	fill := func(t *testing.T, dir string) { make(t, dir, "..data/x%.0f", "ln -s -t .") }
	for name, spoil := range map[string]func(t *testing.T, volume string){
		"nothing":           func(*testing.T, string) {},
		"links in ..stage":  func(t *testing.T, volume string) { fill(t, filepath.Join(volume, "..stage")) },
		"links in ..commit": func(t *testing.T, volume string) { fill(t, filepath.Join(volume, "..commit")) },
		"links on ..lock": func(t *testing.T, volume string) {
			_ = os.Remove(volume + "/..lock")
			fill(t,
				volume+"/..lock")
		},
		"links beside files": func(t *testing.T, volume string) { fill(t, volume) },
		"files beside files": func(t *testing.T, volume string) { make(t, volume, "x%.0f", "touch") },
		"a deep tree in ..stage": func(t *testing.T, volume string) {
			require.NoError(t, os.MkdirAll(filepath.Join(volume, "..stage", strings.Repeat("d/", 1800)), 0o755))
		},
		"generations": func(t *testing.T, volume string) { make(t, volume, "..2020_01_01_00_00_00.%.0f", "mkdir") },
	} {
		for _, layout := range layouts {
			t.Run(name+" "+layout, func(t *testing.T) {
				volume := filepath.Join(t.TempDir(), "volume")
				t.Cleanup(func() { _ = exec.Command("rm", "-rf", volume).Run() })
				out, err := exec.Command("cp", "-a", template[layout], volume).CombinedOutput()
				require.NoError(t, err, string(out))
				spoil(t, volume)
				began := time.Now()
				r := start(t, program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "FORCE_ENROLL=true"))
				code := r.wait(deadline)
				took := time.Since(began)
				assert.Zero(t, code, r.printed())
				memory := r.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
				// A process begins with the peak of the one that started it: what is not above that says nothing.
				var own syscall.Rusage
				require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &own))
				if memory > own.Maxrss>>10 {
					assert.Less(t, memory, int64(100), "MiB")
				}
				code, printed := once(t, program(s, volume, []string{"probe"}, "OUTPUT_LAYOUT="+layout))
				assert.Zero(t, code, printed)
				chaos.Record(t, name+layout, fmt.Sprintf("%d %s, layout %s", many, name, layout),
					fmt.Sprintf("published in %.2f s with %d MiB resident", took.Seconds(), memory))
			})
		}
	}
}
