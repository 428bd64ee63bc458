package doctor_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/sidecar"
	"github.com/certfetcher/certfetcher/test/service"
)

func makeNotifiers(t *testing.T, settings notify.Settings) notify.Config {
	t.Helper()
	made, faults := notify.New(settings, notify.Options{Log: slog.New(slog.DiscardHandler)})
	require.Empty(t, faults)
	return made
}

func TestRun_hooks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	script, data := write("reload", "#!/bin/sh\n", 0o755), write("data", "", 0o600)
	// It waits for the end of its input, under a name that nobody else has.
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	child := &exec.Cmd{Path: shell, Args: []string{"doctor-test-app", "-c", "read line"}}
	input, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = input.Close()
		_ = child.Wait()
	})
	alive, words := write("alive.pid", fmt.Sprintln(child.Process.Pid), 0o600), write("words.pid", "swordfish\n", 0o600)
	stale := write("stale.pid", "2147483647\n", 0o600) // more than Linux ever gives out
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	address := listener.Addr().String()

	for sentence, row := range map[string]struct {
		notify  notify.Settings
		trigger string
		check   string
		status  doctor.Status
		found   string
		code    int
	}{
		"a command that can be run": {notify.Settings{Exec: script + " swordfish"}, "", "notify command", doctor.OK, fmt.Sprintf("%q can be run", script), 0},
		"a command without a file":  {notify.Settings{Exec: dir + "/none swordfish"}, "", "notify command", doctor.Failed, fmt.Sprintf("%q cannot be run: no such file or directory", dir+"/none"), 1},
		"a command not executable":  {notify.Settings{Exec: data}, "", "notify command", doctor.Failed, fmt.Sprintf("%q cannot be run: permission denied", data), 1},
		"a command not in PATH":     {notify.Settings{Exec: "no-such-program-anywhere"}, "", "notify command", doctor.Failed, `"no-such-program-anywhere" cannot be run: executable file not found in $PATH`, 1},

		"a signal to a PID file":            {notify.Settings{Signal: "hup", PIDFile: alive}, "", "notify signal", doctor.OK, fmt.Sprintf("SIGHUP can be sent to the process of %q", alive), 0},
		"a signal to a missing PID file":    {notify.Settings{Signal: "1", PIDFile: dir + "/none"}, "", "notify signal", doctor.Warning, "reading the PID file: open " + dir + "/none: no such file or directory", 0},
		"a signal to a PID file of words":   {notify.Settings{Signal: "1", PIDFile: words}, "", "notify signal", doctor.Warning, fmt.Sprintf(`reading the PID file %q: has no process ID in its first line`, words), 0},
		"a signal to a stale PID file":      {notify.Settings{Signal: "1", PIDFile: stale}, "", "notify signal", doctor.Warning, fmt.Sprintf("the PID file %q is stale: it has 2147483647, and there is no such process in this process namespace", stale), 0},
		"a signal to a process":             {notify.Settings{Signal: "HUP", Process: "doctor-test-app"}, "", "notify signal", doctor.OK, `SIGHUP can be sent to the process "doctor-test-app"`, 0},
		"a signal to a process not running": {notify.Settings{Signal: "HUP", Process: "no-such-program"}, "", "notify signal", doctor.Warning, `finding process "no-such-program": none of that name in this process namespace, which has …: is the application up, and shareProcessNamespace set?`, 0},

		"a URL that connects":        {notify.Settings{URL: "http://me:swordfish@" + address + "/swordfish"}, "", "notify url", doctor.OK, address + " connects", 0},
		"a URL where nobody listens": {notify.Settings{URL: "http://127.0.0.9:1/"}, "", "notify url", doctor.Warning, "127.0.0.9:1 does not connect: connection refused", 0},
		"nobody to look at":          {notify.Settings{Verify: "postgres://127.0.0.9:1"}, "", "notify verify", doctor.Warning, "postgres://127.0.0.9:1 shows no certificate: connection refused", 0},

		"a trigger file":                     {notify.Settings{}, dir + "/renew", "trigger file", doctor.OK, fmt.Sprintf("%q can be watched", dir+"/renew"), 0},
		"a trigger file without a directory": {notify.Settings{}, dir + "/none/renew", "trigger file", doctor.Warning, fmt.Sprintf("the directory %q: no such file or directory", dir+"/none"), 0},
		"a trigger file in a file":           {notify.Settings{}, data + "/renew", "trigger file", doctor.Warning, fmt.Sprintf("%q is a file, want a directory", data), 0},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			o.Config.Sidecar = sidecar.Settings{Enabled: true, TriggerFile: row.trigger}
			o.Notify = makeNotifiers(t, row.notify)
			report, checks := run(t, o)
			assert.Equal(t, row.status, checks[row.check].Status)
			requireText(t, row.found, checks[row.check].Found)
			assert.Equal(t, row.code, report.ExitCode())
			assert.NotContains(t, text(t, report), "swordfish")
		})
	}
}

func TestRun_notifyVerify_looksAtWhatIsServed(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Sidecar.Enabled = true
	serving, err := url.Parse(o.Config.Request.URL)
	require.NoError(t, err)
	o.Notify = makeNotifiers(t, notify.Settings{Verify: serving.Host})
	_, checks := run(t, o)
	assert.Equal(t, doctor.OK, checks["notify verify"].Status, checks["notify verify"].Found)
	assert.Regexp(t, `^127\.0\.0\.1:\d+ serves the certificate of "CN=certservice" with serial number [0-9A-F]+, valid until 20`, checks["notify verify"].Found)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprint(conn, "220 mail.example ESMTP\r\n")
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	address := listener.Addr().String()
	o.Notify = makeNotifiers(t, notify.Settings{Verify: address})
	report, checks := run(t, o)
	assert.Equal(t, doctor.Warning, checks["notify verify"].Status)
	assert.Equal(t, address+" shows no certificate: the server speaks SMTP before TLS: write smtp://"+address, checks["notify verify"].Found)
	assert.Zero(t, report.ExitCode())
}

func TestRun_signal_toAProcessOfAnotherUser(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Sidecar.Enabled = true
	path := filepath.Join(t.TempDir(), "init.pid")
	require.NoError(t, os.WriteFile(path, []byte("1\n"), 0o600))
	o.Notify = makeNotifiers(t, notify.Settings{Signal: "HUP", PIDFile: path})
	_, checks := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, doctor.OK, checks["notify signal"].Status)
		return
	}
	assert.Equal(t, doctor.Warning, checks["notify signal"].Status)
	assert.Equal(t, fmt.Sprintf("the process of %q may not be signalled", path), checks["notify signal"].Found)
}

func TestRun_hooks_areLeftOutWhenTheyAreNotUsed(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Notify = makeNotifiers(t, notify.Settings{Exec: "/does/not/exist"})
	_, checks := run(t, o)
	assert.NotContains(t, checks, "notify command", "an init container tells nobody")

	o.Config.Sidecar.Enabled = true
	o.Faults = config.Faults{{Stage: enroll.StageClientConfiguration, Variable: "NOTIFY_EXEC", Problem: "cannot be used"}, {Stage: enroll.StageClientConfiguration, Variable: "NOTIFY_PROCESS", Problem: "cannot be used"}}
	_, checks = run(t, o)
	assert.Equal(t, "NOTIFY_PROCESS has a fault", checks["notify signal"].Found)
	assert.Equal(t, doctor.Check{Name: "notify command", Status: doctor.Skipped, Found: "NOTIFY_EXEC has a fault"}, checks["notify command"])
	assert.NotContains(t, checks, "notify url")
}
