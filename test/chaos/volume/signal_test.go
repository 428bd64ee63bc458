package volume

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// endMost is what a program may take to end on a loaded machine. What it takes is recorded.
const endMost = 3 * time.Second

// The first signal ends a program within a second, whatever it is at, and it says so by exit code 99.
func TestSignal_atEachStage_endsTheProgram(t *testing.T) {
	t.Parallel()
	that := func(does http.HandlerFunc) *service.Service {
		wrap := func(*service.Service, http.Handler) http.Handler { return does }
		return service.Run(t, service.Options{Wrap: wrap})
	}
	hanging := make(chan struct{})
	services := map[string]*service.Service{"working": start(t),
		"answering": that(func(http.ResponseWriter, *http.Request) { <-hanging }),
		"busy":      that(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })}
	t.Cleanup(func() { close(hanging) })
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(dir+"/pipe", 0o600))
	writer := fixture.Must(os.OpenFile(dir+"/pipe", os.O_RDWR, 0))
	t.Cleanup(func() { writer.Close() })
	for path, name := range map[string]string{"/locked": "..lock", "/destination": ".postprocess-lock"} {
		require.NoError(t, os.Mkdir(dir+path, 0o755))
		f := fixture.Must(os.Open(dir + path))
		unlock := fixture.Must(files.Lock(f, name, nil))
		t.Cleanup(func() { unlock(); f.Close() })
	}
	working := services["working"].Dir
	chaos.Copy(t, working+"/truststore.pem", dir+"/destination/merged.pem")
	chaos.Copy(t, services["busy"].Dir+"/truststore.pem", dir+"/other.pem")
	texts := map[string]string{"DIR": dir, "SILENT": "https://" + chaos.Silent(t)}
	if chaos.Amount(false, true, true) {
		fixture.RequirePrograms(t, "openssl")
		chaos.Shell(t, dir, `openssl pkcs12 -export -in "$0" -iter 1600000 -passout "pass:$1" -out slow.p12`,
			working+"/client.pem", fixture.Password)
	}
	// Rows with an asterisk run in make test: name | CertService | arguments and variables | what it prints there |
	// pause | exit code.
	both := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}
	for _, row := range chaos.Rows(t, "stages.txt", 6, texts) {
		name, often := strings.CutPrefix(row[0], "* ")
		if chaos.Amount(!often, false, false) {
			continue
		}
		pause := fixture.Must(time.ParseDuration(row[4]))
		for _, signal := range chaos.Amount(both[:1], both, both) {
			t.Run(fmt.Sprintf("%s, %s", name, signal), func(t *testing.T) {
				t.Parallel()
				v := on(t, services[row[1]], "symlink")
				words := strings.FieldsFunc(row[2], func(r rune) bool { return r == ';' })
				r := v.Start(append(words, "RETRY_INITIAL_INTERVAL=1m", "RETRY_MAX_INTERVAL=1m",
					"RETRY_MAX_ELAPSED=1h", "REQUEST_TIMEOUT=60000")...)
				require.True(t, r.Await(row[3]), r.Printed())
				time.Sleep(pause)
				began := time.Now()
				r.Signal(t, signal)
				code := r.Wait(chaos.Deadline)
				took := time.Since(began)
				assert.Equal(t, row[5], strconv.Itoa(code), r.Printed())
				assert.Less(t, took, endMost)
				if _, err := os.Stat(v.Path); err == nil {
					left := set.LeftBehind(v.Path, v.Layout, v.Types)
					assert.Subset(t, []string{"..untold"}, left)
				}
				chaos.Record(t, name+signal.String(), signal, name, took.Seconds(), code)
			})
		}
	}
}

// Whenever in a run the signal comes, it ends with 0 or 99, or is ended by the kernel before main, and the next run
// publishes.
func TestSignal_atAnyMoment_leavesAVolumeThatTheNextRunCompletes(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, layout := range chaos.Layouts {
		v := on(t, s, layout)
		began := time.Now()
		v.Publish(chaos.Force)
		whole, rounds := time.Since(began), chaos.Amount(3, 40, 400)
		var seen chaos.Seen
		for i := range rounds {
			r := v.Start(chaos.Force)
			time.Sleep(whole * time.Duration(i) / time.Duration(rounds))
			began := time.Now()
			_ = r.Process.Signal(syscall.SIGTERM)
			code := r.Wait(chaos.Deadline)
			seen.Add(code, time.Since(began), 0)
			require.Contains(t, []int{0, 99, 128 + int(syscall.SIGTERM)}, code, r.Printed())
			v.Publish("probe") // the old set or the new one is whole
		}
		assert.Less(t, seen.Longest, endMost)
		v.Publish(chaos.Force)
		chaos.Record(t, layout, rounds, layout, seen.Longest.Seconds(), seen.Counts)
	}
}
