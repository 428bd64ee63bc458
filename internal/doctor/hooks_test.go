package doctor_test

import (
	"cmp"
	"fmt"
	"io"
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
	"github.com/certfetcher/certfetcher/test/service"
)

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
	notified := func(n config.Notify) row {
		check := "notify command,notify signal,notify url,notify verify"
		return changed(check, func(o *doctor.Options) { o.Config.Sidecar.Enabled, o.Config.Notify = true, n })
	}
	triggered := func(path string) row {
		return changed("trigger file", func(o *doctor.Options) { o.Config.Sidecar = config.Sidecar{Enabled: true, TriggerFile: path} })
	}
	signalled := func(n config.Notify) row {
		n.Signal = cmp.Or(n.Signal, "HUP")
		return notified(n)
	}
	requireReports(t, "hooks.txt", map[string]row{
		"a command that can be run":  notified(config.Notify{Exec: script + " swordfish"}),
		"a command without a file":   notified(config.Notify{Exec: dir + "/none swordfish"}),
		"a command not executable":   notified(config.Notify{Exec: data}),
		"a command not in PATH":      notified(config.Notify{Exec: "no-such-program-anywhere"}),
		"a command with half quotes": notified(config.Notify{Exec: "'x"}),

		"a signal to a PID file":            signalled(config.Notify{Signal: "hup", PIDFile: alive}),
		"a signal to a missing PID file":    signalled(config.Notify{Signal: "1", PIDFile: dir + "/none"}),
		"a signal to a PID file of words":   signalled(config.Notify{PIDFile: words}),
		"a signal to a stale PID file":      signalled(config.Notify{PIDFile: stale}),
		"a signal to a process":             signalled(config.Notify{Process: "doctor-test-app"}),
		"a signal to a process not running": signalled(config.Notify{Process: "no-such-program"}),
		"a signal that there is not":        signalled(config.Notify{Signal: "FOO", Process: "doctor-test-app"}),

		"a URL that connects":              notified(config.Notify{URL: "http://me:swordfish@" + address + "/swordfish"}),
		"a URL where nothing listens":      notified(config.Notify{URL: "http://127.0.0.9:1/"}),
		"a URL elsewhere":                  notified(config.Notify{URL: "http://192.0.2.1/swordfish"}),
		"an address of no protocol":        notified(config.Notify{Verify: "pop3://h"}),
		"an address where nothing listens": notified(config.Notify{Verify: "postgres://127.0.0.9:1"}),
		"an address of a mail server":      notified(config.Notify{Verify: mail(t)}),
		"an address that serves TLS": {show: "notify verify", change: func(_ *testing.T, s *service.Service, o *doctor.Options) {
			o.Config.Sidecar.Enabled, o.Config.Notify.Verify = true, strings.Split(s.URL, "/")[2]
		}},

		"a trigger file":                     triggered(dir + "/renew"),
		"a trigger file without a directory": triggered(dir + "/none/renew"),
		"a trigger file in a file":           triggered(data + "/renew"),

		"a command without a sidecar": changed("", func(o *doctor.Options) { o.Config.Notify.Exec = "/does/not/exist" }),
		"a command with a fault": changed("", func(o *doctor.Options) {
			o.Config.Sidecar.Enabled = true
			o.Faults = config.Faults{{Variable: "NOTIFY_EXEC", Problem: "cannot be used"}}
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
	o.Config.Notify = config.Notify{Signal: "HUP", PIDFile: path}
	_, checks := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, doctor.OK, checks["notify signal"].Status)
		return
	}
	assert.Equal(t, doctor.Warning, checks["notify signal"].Status)
	assert.Equal(t, fmt.Sprintf("the process of %q may not be signalled", path), checks["notify signal"].Found)
}
