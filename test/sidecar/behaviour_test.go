package sidecar

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/fixture"
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

func inspected(t tester, volume string) *inspect.Report {
	t.Helper()
	report, err := inspect.Dir(volume)
	require.NoError(t, err)
	return report
}

// snapshot is the content of every published file.
func snapshot(t tester, volume string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range inspected(t, volume).Files {
		content := fixture.Must(os.ReadFile(filepath.Join(volume, f.Name)))
		files[f.Name] = string(content)
	}
	return files
}

func TestSidecar_logThatNobodyReads_endsNothing(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	address := fixture.FreeAddress(t)
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
	assert.NotContains(t, p.text(), fixture.Password, "the command's environment has no password")
	assert.Zero(t, p.count(serving))
}
