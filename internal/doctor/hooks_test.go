package doctor_test

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	// It waits for the end of its input, under a name that no other process has.
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
	notified := func(n notify.Settings) row {
		check, made := "notify command,notify signal,notify url,notify verify", makeNotifiers(t, n)
		return changed(check, func(o *doctor.Options) { o.Config.Sidecar.Enabled, o.Notify = true, made })
	}
	triggered := func(path string) row {
		return changed("trigger file", func(o *doctor.Options) {
			o.Config.Sidecar = sidecar.Settings{Enabled: true,
				TriggerFile: path}
		})
	}
	signalled := func(n notify.Settings) row {
		n.Signal = cmp.Or(n.Signal, "HUP")
		return notified(n)
	}
	requireReports(t, "hooks.txt", map[string]row{
		"a command that can be run": notified(notify.Settings{Exec: script + " swordfish"}),
		"a command without a file":  notified(notify.Settings{Exec: dir + "/none swordfish"}),
		"a command not executable":  notified(notify.Settings{Exec: data}),
		"a command not in PATH":     notified(notify.Settings{Exec: "no-such-program-anywhere"}),

		"a signal to a PID file":            signalled(notify.Settings{Signal: "hup", PIDFile: alive}),
		"a signal to a missing PID file":    signalled(notify.Settings{Signal: "1", PIDFile: dir + "/none"}),
		"a signal to a PID file of words":   signalled(notify.Settings{PIDFile: words}),
		"a signal to a stale PID file":      signalled(notify.Settings{PIDFile: stale}),
		"a signal to a process":             signalled(notify.Settings{Process: "doctor-test-app"}),
		"a signal to a process not running": signalled(notify.Settings{Process: "no-such-program"}),

		"a URL that connects": notified(
			notify.Settings{URL: "http://me:swordfish@" + address + "/swordfish"}),
		"a URL where nothing listens":      notified(notify.Settings{URL: "http://127.0.0.9:1/"}),
		"an address where nothing listens": notified(notify.Settings{Verify: "postgres://127.0.0.9:1"}),
		"an address of a mail server":      notified(notify.Settings{Verify: mail(t)}),
		"an address that serves TLS": {show: "notify verify",
			change: func(_ *testing.T, s *service.Service, o *doctor.Options) {
				o.Config.Sidecar.Enabled, o.Notify = true,
					makeNotifiers(t, notify.Settings{Verify: strings.Split(s.URL, "/")[2]})
			}},

		"a trigger file":                     triggered(dir + "/renew"),
		"a trigger file without a directory": triggered(dir + "/none/renew"),
		"a trigger file in a file":           triggered(data + "/renew"),

		"a command without a sidecar": changed("",
			func(o *doctor.Options) { o.Notify = makeNotifiers(t, notify.Settings{Exec: "/does/not/exist"}) }),
		"a command with a fault": changed("", func(o *doctor.Options) {
			o.Config.Sidecar.Enabled = true
			o.Faults = config.Faults{{Stage: enroll.StageClientConfiguration,
				Variable: "NOTIFY_EXEC", Problem: "cannot be used"},
				{Stage: enroll.StageClientConfiguration, Variable: "NOTIFY_PROCESS", Problem: "cannot be used"}}
		}),
	})
}

// mail is the address of a server that greets as SMTP does.
func mail(t *testing.T) string {
	t.Helper()
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
	return listener.Addr().String()
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
