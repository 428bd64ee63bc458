package manifests

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// mostSamples is what a sidecar may cost a Prometheus: a fleet has one in each pod.
const mostSamples = 60

// checkMetrics holds what is scraped against Prometheus' conventions.
func checkMetrics(t *testing.T, text string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
	for _, name := range strings.Fields(`process_cpu_seconds_total process_max_fds process_open_fds
		process_resident_memory_bytes process_start_time_seconds process_virtual_memory_bytes go_goroutines
		go_threads go_info go_memstats_alloc_bytes go_gc_duration_seconds_count`) {
		value := regexp.MustCompile(`(?m)^` + name + `(\{.*\})? ([0-9.e+]+)$`).FindStringSubmatch(text)
		if assert.NotNil(t, value, name) && name != "go_gc_duration_seconds_count" &&
			name != "process_cpu_seconds_total" {
			assert.NotEqual(t, "0", value[2], name)
		}
	}
}

func TestCertservice_metrics_arePromlintClean(t *testing.T) {
	var text strings.Builder
	certserviceMetrics(t).Write(&text)
	checkMetrics(t, text.String())
	checkMetrics(t, servedMetrics(t))
}

// The sidecar has all ways to notify, an application that serves, and renewals that succeed and fail.
func TestSidecar_metrics_arePromlintCleanAndFew(t *testing.T) {
	dir := t.TempDir()
	stack := fixture.Must(fixture.StartStack(binaries, dir))
	defer stack.Stop()
	application := httptest.NewUnstartedServer(http.NotFoundHandler())
	application.Config.ErrorLog = log.New(io.Discard, "", 0) // the sidecar hangs up
	application.StartTLS()
	defer application.Close()
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	own := filepath.Join(dir, "own.pem")
	require.NoError(t, os.WriteFile(own, []byte(readFile(t, stack.Dir+"/truststore.pem")), 0o600))
	address, identity := fixture.FreeAddress(t), filepath.Join(stack.Dir, "client.p12")
	sidecar := fixture.Must(fixture.Start(binary("certfetcher"), "MODE=sidecar", "HEALTH_ADDR="+address,
		"REQUEST_URL="+stack.URL, "CA_NAME="+fixture.CAName, "COMMON_NAME=app", "ORGANIZATION=O", "STATE=S",
		"COUNTRY=SE", "SANS=localhost", "OUTPUT_PATH="+dir+"/volume", "OUTPUT_TYPE=PEM",
		"KEYSTORE_PATH="+identity, "KEYSTORE_PASSWORD="+fixture.Password,
		"TRUSTSTORE_PATH="+filepath.Join(stack.Dir, "truststore.p12"), "TRUSTSTORE_PASSWORD="+fixture.Password,
		"TRUSTSTORES_PATHS="+own+":"+dir+"/volume/truststore.pem", "TRUSTSTORES_PASSWORDS_PATHS=:",
		"NOTIFY_EXEC=/bin/true", "NOTIFY_SIGNAL=HUP", "NOTIFY_PROCESS=no-such-process",
		"NOTIFY_URL="+hook.URL, "NOTIFY_VERIFY="+application.Listener.Addr().String(), "NOTIFY_VERIFY_FOR=10ms"))
	defer sidecar.Stop()
	scrape := func(want ...string) (text string) {
		require.Eventually(t, func() bool {
			response, err := http.Get("http://" + address + "/metrics")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			text = string(fixture.Must(io.ReadAll(response.Body)))
			for _, line := range want {
				if !strings.Contains(text, line) {
					return false
				}
			}
			return true
		}, time.Minute, 10*time.Millisecond, "%s", want)
		return text
	}
	scrape(`{kind="postprocess",outcome="success"} 1`, `{kind="exec",outcome="success"} 1`,
		`{kind="url",outcome="success"} 1`,
		"certfetcher_served_certificate_matches 0")
	stack.CertService.Stop()
	status, body := chaos.Send("POST", "http://"+address+"/renew")
	require.Equal(t, http.StatusAccepted, status, body)
	text := scrape(`certfetcher_renewals_total{outcome="failed"} 1`)
	checkMetrics(t, text)
	samples := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			samples++
		}
	}
	t.Logf("%d samples, %d bytes", samples, len(text))
	assert.LessOrEqual(t, samples, mostSamples)
}
