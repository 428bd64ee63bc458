package volume

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// stage is where a program is when a signal comes.
type stage struct {
	args, environment []string
	reached           string        // what it prints there; empty: it is there after pause
	pause             time.Duration // before the signal
	code              int
}

// endMost is what a program may take to end on a loaded machine. What it takes is recorded.
const endMost = 3 * time.Second

// The first signal ends a program within a second, whatever it is at, and it says so by exit code 99.
func TestSignal_atEachStage_endsTheProgram(t *testing.T) {
	t.Parallel()
	hanging := make(chan struct{})
	answering := startServiceThat(t, func(http.ResponseWriter, *http.Request) { <-hanging })
	t.Cleanup(func() { close(hanging) })
	busy := startServiceThat(t, func(w http.ResponseWriter,
		_ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	working := startService(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })

	dir := t.TempDir()
	pipe := filepath.Join(dir, "password")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { writer.Close() })

	volume, destination := filepath.Join(dir, "locked"), filepath.Join(dir, "destination")
	for _, locked := range []struct{ dir, name string }{{volume, "..lock"}, {destination, ".postprocess-lock"}} {
		require.NoError(t, os.Mkdir(locked.dir, 0o755))
		f, err := os.Open(locked.dir)
		require.NoError(t, err)
		unlock, err := files.Lock(f, locked.name, nil)
		require.NoError(t, err)
		t.Cleanup(func() { unlock(); f.Close() })
	}
	pem, err := os.ReadFile(filepath.Join(working.Dir, "truststore.pem"))
	require.NoError(t, err)
	other, err := os.ReadFile(filepath.Join(busy.Dir, "truststore.pem"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(destination, "merged.pem"), pem, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other.pem"), other, 0o600))

	with := func(of *service.Service, more ...string) []string {
		return append([]string{"REQUEST_URL=" + of.URL, "KEYSTORE_PATH=" + filepath.Join(of.Dir, "client.pem"),
			"TRUSTSTORE_PATH=" + filepath.Join(of.Dir, "truststore.pem"),
			"RETRY_INITIAL_INTERVAL=1m", "RETRY_MAX_INTERVAL=1m", "RETRY_MAX_ELAPSED=1h", "REQUEST_TIMEOUT=60000"},
			more...)
	}
	const requested = "made the certificate signing request"
	slowPassword := "OUTPUT_KEYSTORE_PASSWORD_FILE=" + pipe
	stages := map[string]stage{
		"reading the configuration": {nil, with(working, slowPassword), "", time.Second / 2, 99},
		"reading the mutual TLS material": {nil, with(working, "KEYSTORE_PASSWORD_FILE="+pipe),
			"", time.Second / 2, 99},
		"making a key of RSA-4096": {nil, with(answering, "KEY_ALGORITHM=RSA-4096"), "", time.Second / 2, 99},
		"the handshake": {nil, with(working,
			"REQUEST_URL=https://"+silent.Addr().String()+"/v1/certificate/"), requested, 0, 99},
		"waiting for the answer": {nil, with(answering), requested, 200 * time.Millisecond, 99},
		"waiting to try again":   {nil, with(busy), "trying again", 0, 99},
		"waiting for the lock":   {nil, with(working, "OUTPUT_PATH="+volume), "", time.Second / 2, 99},
		"waiting for the answer, sidecar": {nil, with(answering, "MODE=sidecar"), requested,
			200 * time.Millisecond, 99},
		"running the command of a sidecar": {nil, with(working, "MODE=sidecar", "NOTIFY_EXEC=sleep 1000"),
			`"msg":"published"`, 300 * time.Millisecond, 0},
		"a certservice that hangs, doctor": {[]string{"doctor"}, with(answering), "", time.Second / 2, 99},
		"reading the configuration, probe": {[]string{"probe"}, with(working, slowPassword), "", time.Second / 2, 99},
		"reading the configuration, inspect": {[]string{"inspect"}, with(working, slowPassword), "",
			time.Second / 2, 99},
		"waiting for the lock, postprocess": {[]string{"postprocess"}, []string{
			"TRUSTSTORES_PATHS=" + filepath.Join(destination, "merged.pem") + ":" + filepath.Join(dir, "other.pem"),
			"TRUSTSTORES_PASSWORDS_PATHS=:",
		}, "", time.Second / 2, 99},
	}
	if chaos.Amount(false, true, true) {
		openssl, slow := fixture.RequirePrograms(t, "openssl")[0], filepath.Join(dir, "slow.p12")
		out, err := exec.Command(openssl, "pkcs12", "-export", "-in",
			filepath.Join(working.Dir, "client.pem"), "-iter", "1600000",
			"-passout", "pass:"+fixture.Password, "-out", slow).CombinedOutput()
		require.NoError(t, err, string(out))
		stages["opening a store of 4,800,000 iterations"] = stage{
			nil, with(working, "KEYSTORE_PATH="+slow, "KEYSTORE_PASSWORD="+fixture.Password), "",
			300 * time.Millisecond, 99,
		}
	}
	both := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}
	few := []string{"reading the configuration", "making a key of RSA-4096", "waiting for the lock",
		"a certservice that hangs, doctor"}
	for name, at := range stages {
		for _, signal := range chaos.Amount(both[:1], both, both) {
			if chaos.Amount(!slices.Contains(few, name), false, false) {
				continue
			}
			t.Run(fmt.Sprintf("%s, %s", name, signal), func(t *testing.T) {
				t.Parallel()
				volume := filepath.Join(t.TempDir(), "volume")
				r := start(t, program(working, volume, at.args, at.environment...))
				if at.reached != "" {
					require.True(t, r.await(at.reached), r.printed())
				}
				time.Sleep(at.pause)
				began := time.Now()
				require.NoError(t, r.cmd.Process.Signal(signal), r.printed())
				code := r.wait(deadline)
				took := time.Since(began)
				assert.Equal(t, at.code, code, r.printed())
				assert.Less(t, took, endMost)
				entries, _ := os.ReadDir(volume)
				for _, entry := range entries {
					assert.NotContains(t, []string{"..stage", "..data_tmp", "..link_tmp", "..commit"}, entry.Name(),
						"half done")
				}
				chaos.Record(t, name+signal.String(), fmt.Sprintf("%s while %s", signal, name),
					fmt.Sprintf("ended after %.2f s with exit code %d", took.Seconds(), code))
			})
		}
	}
}

func startServiceThat(t *testing.T, does http.HandlerFunc) *service.Service {
	t.Helper()
	wrap := func(*service.Service, http.Handler) http.Handler { return does }
	s := service.Run(t, service.Options{Wrap: wrap})
	return s
}

// Whenever in a run the signal comes, it ends with 0 or 99, or is ended by the kernel before main, and the next run
// publishes.
func TestSignal_atAnyMoment_leavesAVolumeThatTheNextRunCompletes(t *testing.T) {
	t.Parallel()
	s := startService(t)
	for _, layout := range layouts {
		volume := filepath.Join(t.TempDir(), "volume")
		run := func() *exec.Cmd { return program(s, volume, nil, "OUTPUT_LAYOUT="+layout, "FORCE_ENROLL=true") }
		began := time.Now()
		code, out := once(t, run())
		require.Zero(t, code, out)
		whole, rounds := time.Since(began), chaos.Amount(3, 40, 400)
		codes, slowest := map[int]int{}, time.Duration(0)
		for i := range rounds {
			r := start(t, run())
			time.Sleep(whole * time.Duration(i) / time.Duration(rounds))
			began := time.Now()
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			code := r.wait(deadline)
			slowest = max(slowest, time.Since(began))
			codes[code]++
			require.Contains(t, []int{0, 99, 128 + int(syscall.SIGTERM)}, code, r.printed())
			code, out := once(t, program(s, volume, []string{"probe"}, "OUTPUT_LAYOUT="+layout))
			require.Zero(t, code, "the old set or the new one is whole: %s", out)
		}
		assert.Less(t, slowest, endMost)
		code, out = once(t, run())
		require.Zero(t, code, out)
		chaos.Record(t, layout, fmt.Sprintf("SIGTERM at %d moments of a run, layout %s", rounds, layout),
			fmt.Sprintf("ended after at most %.2f s, exit codes %v, each time with a whole set",
				slowest.Seconds(), codes))
	}
}
