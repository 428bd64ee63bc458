package sidecar

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/port"
	"github.com/certfetcher/certfetcher/test/service"
)

// once runs certfetcher to its end, and returns its exit code with what it printed.
func once(t *testing.T, variables []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	command := exec.Command(filepath.Join(binDir, "certfetcher"), args...)
	command.Env = variables
	var out, errs strings.Builder
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return command.ProcessState.ExitCode(), out.String(), errs.String()
}

func isUpdate(r *http.Request) bool { return strings.Contains(r.URL.Path, "certificate-update") }

func inspected(t *testing.T, volume string) *inspect.Report {
	t.Helper()
	report, err := inspect.Dir(volume)
	require.NoError(t, err)
	return report
}

// snapshot is the content of every published file.
func snapshot(t *testing.T, volume string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range inspected(t, volume).Files {
		content, err := os.ReadFile(filepath.Join(volume, f.Name))
		require.NoError(t, err)
		files[f.Name] = string(content)
	}
	return files
}

func TestSidecar_afterAnInitContainer_takesItsFilesOver(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	variables := environment(s.URL, s.Dir, volume)
	code, _, stderr := once(t, append(variables, "MODE=init"))
	require.Zero(t, code, stderr)
	files := snapshot(t, volume)

	p := run(t, volume, append(variables, "NOTIFY_EXEC=/usr/bin/env"))
	p.await(1, planned)
	assert.Equal(t, 1, s.Requests())
	assert.Equal(t, files, snapshot(t, volume))
	assert.Zero(t, p.count(published))
	p.renew()
	p.await(2, planned)
	assert.Equal(t, files["keystore.pass"], snapshot(t, volume)["keystore.pass"], "the password stays")
	p.await(1, "notified the application")
	assert.Equal(t, 1, p.count("notified the application"), "only of what is new")
	p.end()
}

func TestSidecar_restartWithACertificateThatIsDue_updatesIt(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	variables := environment(s.URL, s.Dir, volume)
	p := run(t, volume, variables)
	p.await(1, planned)
	p.end()
	p = run(t, volume, append(variables, "RENEW_AT=0.000001")) // so it is due by now
	p.await(1, updated)
	assert.Zero(t, p.count("enrolling"))
	p.end()
}

func TestSidecar_updateThatIsNoWay_enrolsAnewAndSaysWhy(t *testing.T) {
	for name, row := range map[string]struct {
		status  int
		message string
		reason  string
	}{
		"refused":          {500, `{"errorMessage":"CMPv2 server returned following error: unknown certificate"}`, "CMPv2 server returned following error: unknown certificate"},
		"endpoint missing": {404, "404 page not found", "404 Not Found"},
	} {
		refuse := func(_ *service.Service, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isUpdate(r) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(row.status)
					_, _ = io.WriteString(w, row.message)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, startService(t, time.Hour, refuse))
			p.await(1, planned)
			p.renew()
			assert.Contains(t, p.await(1, anew).text("error"), row.reason)
			p.await(2, planned)
			assert.Equal(t, 1., p.metric(`certfetcher_renewals_total{outcome="enrolled"}`))
			p.end()
		})
		t.Run(name+", and enrolling is forbidden", func(t *testing.T) {
			t.Parallel()
			s := startService(t, time.Hour, refuse)
			p := start(t, s, "RENEW_FALLBACK=false")
			p.await(1, planned)
			files := snapshot(t, p.volume)
			p.renew()
			failure := p.awaitFailure(1)
			assert.Contains(t, failure.text("error"), row.reason)
			assert.Equal(t, "certservice", failure.text("stage"))
			assert.Equal(t, 2, s.Requests())
			assert.Equal(t, files, snapshot(t, p.volume))
			assert.Equal(t, 1., p.metric(`certfetcher_renewal_failures_total{stage="certservice"}`))
			p.end()
		})
	}
}

func TestSidecar_keyIsNewEachTime_unlessReused(t *testing.T) {
	for reuse, same := range map[string]bool{"true": true, "false": false} {
		t.Run("REUSE_KEY="+reuse, func(t *testing.T) {
			t.Parallel()
			p := start(t, startService(t, time.Hour, nil), "REUSE_KEY="+reuse, "OUTPUT_TYPE=PEM")
			p.await(1, planned)
			before := snapshot(t, p.volume)
			p.renew()
			p.await(1, updated)
			p.await(2, planned)
			after := snapshot(t, p.volume)
			assert.Equal(t, same, before["key.pem"] == after["key.pem"])
			assert.NotEqual(t, before["keystore.pem"], after["keystore.pem"])
			p.end()
		})
	}
}

func TestSidecar_renewsNow_whenAsked(t *testing.T) {
	t.Parallel()
	trigger := filepath.Join(t.TempDir(), "renew")
	p := start(t, startService(t, time.Hour, nil), "RENEW_TRIGGER_FILE="+trigger)
	p.await(1, planned)
	p.renew()
	assert.Equal(t, "POST /renew", p.await(1, "renewing").text("trigger"))
	p.await(2, planned)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	assert.Equal(t, "SIGHUP", p.await(2, "renewing").text("trigger"))
	p.await(3, planned)
	require.NoError(t, os.WriteFile(trigger, nil, 0o600))
	assert.Equal(t, "trigger file", p.await(3, "renewing").text("trigger"))
	assert.NoFileExists(t, trigger)
	p.await(4, planned)
	assert.Equal(t, 3., p.metric(`certfetcher_renewals_total{outcome="updated"}`))
	p.end()
}

func TestSidecar_publishedFilesThatVanishOrChange_arePutBack(t *testing.T) {
	for _, layout := range []string{"symlink", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			p := start(t, startService(t, time.Hour, nil), "OUTPUT_LAYOUT="+layout, "NOTIFY_EXEC=/usr/bin/env")
			p.await(1, planned)
			p.await(1, "notified the application")
			files := snapshot(t, p.volume)
			for n, harm := range []struct {
				do         func() error // at one blow, so that it is mended once
				difference string
			}{
				{func() error { return os.Remove(filepath.Join(p.volume, "keystore.p12")) }, "keystore.p12 is missing"},
				{func() error { return os.Truncate(filepath.Join(p.volume, "truststore.p12"), 1) }, "truststore.p12 has another content"},
				{func() error { return os.Rename(p.volume, filepath.Join(t.TempDir(), "gone")) }, "keystore.pass is missing"},
			} {
				require.NoError(t, harm.do())
				assert.Contains(t, p.await(n+1, putBack)["differences"], harm.difference)
				assert.Equal(t, files, snapshot(t, p.volume))
				p.await(n+2, "notified the application")
			}
			assert.Equal(t, 3., p.metric("certfetcher_restorations_total"))
			// There from the start, so that a first failure is an increase.
			assert.Zero(t, p.metric(`certfetcher_notifications_total{kind="exec",outcome="failure"}`))
			assert.Zero(t, p.metric(`certfetcher_renewal_failures_total{stage="connection"}`))
			assert.Zero(t, p.metric(`certfetcher_renewals_total{outcome="updated"}`))
			p.renew()
			p.await(1, updated)
			p.end()
		})
	}
}

func TestSidecar_volumeThatCannotBeWritten_costsNoCertificate(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	p := start(t, s, "OUTPUT_LAYOUT=inplace")
	p.await(1, planned)
	path := filepath.Join(p.volume, "keystore.p12")
	for n := range 16 { // a directory is in the way, and as many as may be were moved aside before
		require.NoError(t, os.Mkdir(filepath.Join(p.volume, fmt.Sprintf("..foreign-%d", n+1)), 0o700))
	}
	require.NoError(t, os.Rename(path, path+".old"))
	require.NoError(t, os.Mkdir(path, 0o700))
	p.await(1, "restoring published files failed; trying again")
	status, text := p.get("/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, text, path)
	p.renew()
	assert.Contains(t, p.awaitFailure(1).text("error"), path)
	assert.Equal(t, 1, s.Requests())
	assert.Equal(t, 1., p.metric(`certfetcher_renewal_failures_total{stage="file"}`))
	require.NoError(t, os.Remove(path))
	p.await(1, putBack)
	status, text = p.get("/readyz")
	assert.Equal(t, http.StatusOK, status, text)
	p.renew()
	p.await(1, updated)
	p.end()
}

func TestSidecar_rootThatDisappears_isKeptForTheOverlap(t *testing.T) {
	for overlap, kept := range map[string]int{"": 2, "0": 1, "1h": 2} {
		t.Run("TRUST_OVERLAP="+overlap, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex // between the service and this test, which changes its CA
			s := startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					next.ServeHTTP(w, r)
				})
			})
			p := start(t, s, "TRUST_OVERLAP="+overlap)
			p.await(1, planned)
			second, err := ca.New("Second")
			require.NoError(t, err)
			mu.Lock()
			*s.CA = *second
			mu.Unlock()
			p.renew()
			p.await(1, anew) // as a CA must that does not know the certificate
			p.await(2, planned)
			trusted := inspected(t, p.volume).Trusted
			require.Len(t, trusted, kept)
			assert.Equal(t, "CN=Second Root CA,O=Throwaway", trusted[0])
			p.renew()
			p.await(3, planned)
			assert.Len(t, inspected(t, p.volume).Trusted, kept, "the overlap is not over")
			p.end()
		})
	}
}

// The next renewal may be months away.
func TestSidecar_overlapThatIsOver_endsWithoutARenewal(t *testing.T) {
	t.Parallel()
	next, err := ca.New("Next")
	require.NoError(t, err)
	var rolling atomic.Bool
	rolling.Store(true)
	p := start(t, startService(t, time.Hour, withAnotherRoot(&rolling, next.Root)), "TRUST_OVERLAP=1s", "NOTIFY_EXEC=/usr/bin/env")
	p.await(1, planned)
	require.Len(t, inspected(t, p.volume).Trusted, 2)
	rolling.Store(false)
	p.renew()
	p.await(2, planned)
	assert.EqualValues(t, 1, p.await(1, "keeping trusted certificates that the CertService no longer sends")["count"])
	serial := inspected(t, p.volume).Certificate.Serial
	eventually(t, "the application is told", func() bool {
		return slices.ContainsFunc(p.lines(told), func(l line) bool { return l["trigger"] == "pruned" && l["serial"] == serial })
	})
	after := inspected(t, p.volume)
	assert.Equal(t, serial, after.Certificate.Serial)
	assert.Len(t, after.Trusted, 1)
	assert.NotNil(t, enroll.ReadRecord(p.volume, after.Certificate.Leaf()), "the record goes with the certificate")
	assert.Zero(t, p.count(putBack))
	p.end()
}

func TestSidecar_retryAfter_isObeyed(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isUpdate(r) {
				w.Header().Set("Retry-After", "600")
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	p := start(t, s)
	p.await(1, planned)
	p.renew()
	wait := p.awaitFailure(1).duration("next_in")
	assert.GreaterOrEqual(t, wait, 10*time.Minute)
	assert.LessOrEqual(t, wait, 11*time.Minute)
	next := time.Unix(int64(p.metric("certfetcher_next_renewal_timestamp_seconds")), 0)
	assert.WithinDuration(t, time.Now().Add(wait), next, 10*time.Second)
	p.end()
}

func TestSidecar_signalDuringARenewal_endsAtOnceAndLeavesTheVolume(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	s := startService(t, time.Hour, func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isUpdate(r) {
				asked <- struct{}{}
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	fastest := time.Hour
	for try := 1; try <= 5 && fastest >= time.Second; try++ { // a busy machine may be slow, but not always
		p := start(t, s)
		p.await(1, planned)
		files := snapshot(t, p.volume)
		p.renew()
		<-asked
		begin := time.Now()
		p.end()
		fastest = min(fastest, time.Since(begin))
		assert.Equal(t, files, snapshot(t, p.volume))
		assert.Zero(t, p.count("renewing failed, the certificate stays in use; trying again"))
	}
	assert.Less(t, fastest, time.Second)
}

func TestSidecar_logThatNobodyReads_endsNothing(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	address := port.Free(t)
	p := &sidecar{t: t, address: address, cmd: exec.Command(filepath.Join(binDir, "certfetcher"))}
	p.cmd.Env = append(environment(s.URL, s.Dir, filepath.Join(t.TempDir(), "volume")), "HEALTH_ADDR="+address)
	p.cmd.Stderr = writer
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	require.NoError(t, writer.Close())
	p.awaitReady()
	require.NoError(t, reader.Close())
	p.renew()
	eventually(t, "it renews", func() bool { return p.metric(`certfetcher_renewals_total{outcome="updated"}`) == 1 })
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.cmd.Wait())
}

func TestSidecar_everyPublication_isToldByCommandAndPOST(t *testing.T) {
	t.Parallel()
	posts := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- string(body)
	}))
	t.Cleanup(hook.Close)
	s := startService(t, time.Hour, nil)
	p := start(t, s, "HEALTH_ADDR=off", "NOTIFY_EXEC=/usr/bin/env", "NOTIFY_URL="+hook.URL+"/reload?token=hush")
	for n, reason := range []string{"enrolled", "renewed"} {
		p.await(n+1, planned)
		serial := inspected(t, p.volume).Certificate.Serial
		assert.Equal(t, "exec", p.await(2*n+1, told).text("kind"))
		assert.Equal(t, "url", p.await(2*n+2, told).text("kind"))
		post := <-posts
		assert.Contains(t, post, `"reason":"`+reason+`","serial":"`+serial+`"`)
		assert.Contains(t, post, `"`+filepath.Join(p.volume, "keystore.p12")+`"`)
		log := p.text()
		assert.Contains(t, log, "CERTFETCHER_REASON="+reason)
		assert.Contains(t, log, "CERTFETCHER_SERIAL="+serial)
		assert.Contains(t, log, "CERTFETCHER_KEYSTORE_P12="+filepath.Join(p.volume, "keystore.p12"))
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	}
	p.end()
	assert.NotContains(t, p.text(), "hush")
	assert.NotContains(t, p.text(), service.Password, "the command's environment has no password")
	assert.Zero(t, p.count(serving))
}

func TestSidecar_firstFetch_failsAsInInitMode(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	s.Stop()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { taken.Close() })
	for name, row := range map[string]struct {
		variables []string
		code      int
		reason    string
	}{
		"nothing listens":    {nil, 6, "connection refused"},
		"no identity":        {[]string{"KEYSTORE_PATH=/none"}, 9, "KEYSTORE_PATH"},
		"address is taken":   {[]string{"HEALTH_ADDR=" + taken.Addr().String()}, 1, "address already in use: another process of this pod has the port, a second sidecar perhaps: give another one, or off"},
		"unknown signal":     {[]string{"NOTIFY_SIGNAL=NONE", "NOTIFY_PROCESS=x"}, 1, `NOTIFY_SIGNAL cannot be used: has unknown signal`},
		"open quote":         {[]string{"NOTIFY_EXEC=reload 'secret"}, 1, `NOTIFY_EXEC cannot be used: the quote ' at byte 8 is not closed`},
		"hook elsewhere":     {[]string{"NOTIFY_URL=http://192.0.2.1/?secret"}, 1, `NOTIFY_URL cannot be used: has address 192.0.2.1`},
		"address of no form": {[]string{"NOTIFY_VERIFY=localhost"}, 1, `NOTIFY_VERIFY cannot be used: has address`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			volume := filepath.Join(t.TempDir(), "volume")
			variables := append(environment(s.URL, s.Dir, volume), row.variables...)
			code, _, stderr := once(t, variables)
			assert.Equal(t, row.code, code, stderr)
			assert.Contains(t, strings.ReplaceAll(stderr, `\"`, `"`), row.reason)
			assert.NotContains(t, stderr, "secret")
			if strings.HasPrefix(row.reason, "NOTIFY_") {
				checked, _, _ := once(t, variables, "--check")
				assert.Equal(t, row.code, checked, "--check finds it as well")
			}
		})
	}
}
