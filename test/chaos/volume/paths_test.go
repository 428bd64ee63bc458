package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
		environment, text string
		code              int
	}{
		"TERMINATION_MESSAGE_PATH":          {"CA_NAME=none", "termination message could not be written", 5},
		"KEYSTORE_PATH":                     {"", "is a device, pipe or socket", 9},
		"KEYSTORE_KEY_PATH":                 {"", "is a device, pipe or socket", 9},
		"TRUSTSTORE_PATH":                   {"", "is a device, pipe or socket", 9},
		"KEYSTORE_PASSWORD_FILE":            {"", "which is empty", 9},
		"OUTPUT_PATH":                       {"", "not a directory", 10},
		"OUTPUT_KEYSTORE_PASSWORD_FILE":     {"", "OUTPUT_KEYSTORE_PASSWORD_FILE", 1},
		"OUTPUT_TRUSTSTORE_PASSWORD_FILE":   {"", "OUTPUT_TRUSTSTORE_PASSWORD_FILE", 1},
		"RENEW_TRIGGER_FILE of a sidecar":   {"MODE=sidecar", "the trigger file asks for a renewal", 0},
		"NOTIFY_PID_FILE of a sidecar":      {"MODE=sidecar", "is a device, pipe or socket", 0},
		"TERMINATION_MESSAGE_PATH, as link": {"CA_NAME=none", "termination message could not be written", 5},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, victim := dir+"/path", dir+"/victim"
			require.NoError(t, os.WriteFile(victim, []byte("as it was"), 0o600))
			if strings.HasSuffix(variable, "link") {
				require.NoError(t, os.Symlink(victim, path))
			} else {
				require.NoError(t, syscall.Mkfifo(path, 0o666))
			}
			name, _, _ := strings.Cut(strings.Split(variable, ",")[0], " ")
			r := chaos.Start(t, program(s, dir+"/volume", "symlink", nil, name+"="+path,
				want.environment, "NOTIFY_SIGNAL="+map[bool]string{true: "HUP"}[name == "NOTIFY_PID_FILE"]))
			found := r.Await(want.text)
			if want.environment == "MODE=sidecar" {
				r.Signal(t, syscall.SIGTERM)
			}
			assert.Equal(t, want.code, r.Wait(chaos.Deadline), r.Printed())
			assert.True(t, found, r.Printed())
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
		"links in ..stage":  func(t *testing.T, volume string) { fill(t, volume+"/..stage") },
		"links in ..commit": func(t *testing.T, volume string) { fill(t, volume+"/..commit") },
		"links on ..lock": func(t *testing.T, volume string) {
			_ = os.Remove(volume + "/..lock")
			fill(t, volume+"/..lock")
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
				volume := t.TempDir() + "/volume"
				t.Cleanup(func() { _ = exec.Command("rm", "-rf", volume).Run() })
				out, err := exec.Command("cp", "-a", template[layout], volume).CombinedOutput()
				require.NoError(t, err, string(out))
				spoil(t, volume)
				r := chaos.Start(t, program(s, volume, layout, nil, force))
				assert.Zero(t, r.Wait(chaos.Deadline), r.Printed())
				assert.Less(t, r.Peak>>10, 100, "MiB")
				probe(t, s, volume, layout, name)
				chaos.Record(t, name+layout, many, name, layout, r.Took.Seconds(), r.Peak>>10)
			})
		}
	}
}
