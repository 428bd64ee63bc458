package volume

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// endMost is what a program may take to end on a loaded machine. What it takes is recorded.
const endMost = 3 * time.Second

// The first signal ends a program within a second, whatever it is at, and it says so by exit code 99.
func TestSignal_atEachStage_endsTheProgram(t *testing.T) {
	t.Parallel()
	hanging := make(chan struct{})
	answering := startServiceThat(t, func(http.ResponseWriter, *http.Request) { <-hanging })
	t.Cleanup(func() { close(hanging) })
	busy := startServiceThat(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	working := startService(t)
	dir := t.TempDir()
	pipe := dir + "/password"
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { writer.Close() })

	for dir, name := range map[string]string{dir + "/locked": "..lock", dir + "/destination": ".postprocess-lock"} {
		require.NoError(t, os.Mkdir(dir, 0o755))
		f, err := os.Open(dir)
		require.NoError(t, err)
		unlock, err := files.Lock(f, name, nil)
		require.NoError(t, err)
		t.Cleanup(func() { unlock(); f.Close() })
	}
	for path, s := range map[string]*service.Service{"destination/merged.pem": working, "other.pem": busy} {
		pem, err := os.ReadFile(s.Dir + "/truststore.pem")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, path), pem, 0o600))
	}
	asks := func(s *service.Service) string {
		identity := "KEYSTORE_PATH=" + s.Dir + "/client.pem;TRUSTSTORE_PATH=" + s.Dir + "/truststore.pem"
		return "REQUEST_URL=" + s.URL + ";" + identity
	}
	texts := map[string]string{"WORKING": asks(working), "ANSWERING": asks(answering), "BUSY": asks(busy), "PIPE": pipe,
		"DIR": dir, "SILENT": "https://" + chaos.Silent(t) + "/v1/certificate/"}
	if chaos.Amount(false, true, true) {
		openssl := fixture.RequirePrograms(t, "openssl")[0]
		out, err := exec.Command(openssl, "pkcs12", "-export", "-in", working.Dir+"/client.pem",
			"-iter", "1600000", "-passout", "pass:"+fixture.Password, "-out", dir+"/slow.p12").CombinedOutput()
		require.NoError(t, err, string(out))
	}
	// Rows with an asterisk run in make test: name | command | variables | what it prints there | pause | exit code.
	table, err := os.ReadFile("testdata/stages.txt")
	require.NoError(t, err)
	both := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}
	for line := range strings.Lines(string(table)) {
		name, often := strings.CutPrefix(line, "* ")
		if chaos.Amount(!often, false, false) {
			continue
		}
		row := strings.Split(os.Expand(name, func(name string) string { return texts[name] }), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		name = row[0]
		pause, err := time.ParseDuration(row[4])
		require.NoError(t, err)
		for _, signal := range chaos.Amount(both[:1], both, both) {
			t.Run(fmt.Sprintf("%s, %s", name, signal), func(t *testing.T) {
				t.Parallel()
				volume := t.TempDir() + "/volume"
				r := chaos.Start(t, program(working, volume, "symlink", strings.Fields(row[1]),
					append(strings.Split(row[2], ";"), "RETRY_INITIAL_INTERVAL=1m", "RETRY_MAX_INTERVAL=1m",
						"RETRY_MAX_ELAPSED=1h", "REQUEST_TIMEOUT=60000")...))
				require.True(t, r.Await(row[3]), r.Printed())
				time.Sleep(pause)
				began := time.Now()
				r.Signal(t, signal)
				code := r.Wait(chaos.Deadline)
				took := time.Since(began)
				assert.Equal(t, row[5], strconv.Itoa(code), r.Printed())
				assert.Less(t, took, endMost)
				requireNothingHalfDone(t, volume)
				chaos.Record(t, name+signal.String(), signal, name, took.Seconds(), code)
			})
		}
	}
}

func startServiceThat(t *testing.T, does http.HandlerFunc) *service.Service {
	t.Helper()
	wrap := func(*service.Service, http.Handler) http.Handler { return does }
	return service.Run(t, service.Options{Wrap: wrap})
}

// Whenever in a run the signal comes, it ends with 0 or 99, or is ended by the kernel before main, and the next run
// publishes.
func TestSignal_atAnyMoment_leavesAVolumeThatTheNextRunCompletes(t *testing.T) {
	t.Parallel()
	s := startService(t)
	for _, layout := range layouts {
		volume := t.TempDir() + "/volume"
		began := time.Now()
		publish(t, s, volume, layout, force)
		whole, rounds := time.Since(began), chaos.Amount(3, 40, 400)
		codes, slowest := map[int]int{}, time.Duration(0)
		for i := range rounds {
			r := chaos.Start(t, program(s, volume, layout, nil, force))
			time.Sleep(whole * time.Duration(i) / time.Duration(rounds))
			began := time.Now()
			_ = r.Process.Signal(syscall.SIGTERM)
			code := r.Wait(chaos.Deadline)
			slowest = max(slowest, time.Since(began))
			codes[code]++
			require.Contains(t, []int{0, 99, 128 + int(syscall.SIGTERM)}, code, r.Printed())
			probe(t, s, volume, layout, "the old set or the new one is whole")
		}
		assert.Less(t, slowest, endMost)
		publish(t, s, volume, layout, force)
		chaos.Record(t, layout, rounds, layout, slowest.Seconds(), codes)
	}
}
