package sidecar

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	told     = "notified the application"
	verified = "the application serves the new certificate"
)

// nginx is a running one with a name of its own, so that no other of this machine is meant.
type nginx struct {
	name, pidFile, address string
}

// startNginx serves the PEM files of a volume, which must be there.
func startNginx(t *testing.T, name, address, volume string) *nginx {
	t.Helper()
	dir := t.TempDir()
	n := &nginx{name: name, pidFile: filepath.Join(dir, "nginx.pid"), address: address}
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config,
		[]byte(strings.NewReplacer("DIR", dir, "ADDRESS", address, "VOLUME", volume).Replace(`
daemon off; worker_processes 2; pid DIR/nginx.pid; error_log DIR/error.log notice;
events {}
http {
  access_log off;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server { listen ADDRESS ssl; ssl_certificate VOLUME/keystore.pem; ssl_certificate_key VOLUME/key.pem; }
}`)), 0o600))
	program := filepath.Join(dir, name)
	require.NoError(t, os.Symlink(fixture.RequirePrograms(t, "nginx")[0], program))
	server := exec.Command(program, "-c", config, "-e", filepath.Join(dir, "error.log"))
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx logged:\n%s", log)
		}
	})
	eventually(t, "nginx listens and has written its PID file", func() bool {
		pid, err := os.ReadFile(n.pidFile)
		conn, dialErr := net.Dial("tcp", address)
		if dialErr == nil {
			conn.Close()
		}
		return err == nil && len(pid) > 0 && dialErr == nil
	})
	return n
}

func TestSidecar_nginx_isReloadedAndSeenToServeTheNewCertificate(t *testing.T) {
	t.Parallel()
	fixture.RequirePrograms(t, "nginx")
	for n, by := range []string{"process name", "PID file", "both"} {
		t.Run("signal by "+by, func(t *testing.T) {
			t.Parallel()
			name, address := fmt.Sprintf("ngx%d-%d", os.Getpid(), n), fixture.FreeAddress(t)
			pidFile := filepath.Join(t.TempDir(), "link.pid") // known before nginx is
			variables := []string{"OUTPUT_TYPE=PEM", "NOTIFY_SIGNAL=HUP", "NOTIFY_VERIFY=" + address}
			if by != "PID file" {
				variables = append(variables, "NOTIFY_PROCESS="+name)
			}
			if by != "process name" {
				variables = append(variables, "NOTIFY_PID_FILE="+pidFile)
			}
			p := start(t, startService(t, time.Hour), variables...)
			p.await(1, planned)
			// The application comes after its certificate, so the first attempts find no one, which is no failure.
			p.await(1, "the application is not there yet, trying again until it is")
			server := startNginx(t, name, address, p.volume)
			require.NoError(t, os.Symlink(server.pidFile, pidFile))
			for round := 1; round <= 3; round++ {
				if round > 1 {
					p.renew()
				}
				p.await(round, planned)
				serial := inspected(t, p.volume).Certificate.Serial
				assert.Equal(t, serial, p.await(round, told).text("serial"))
				assert.Equal(t, serial, p.await(round, verified).text("serial"))
			}
			assert.Equal(t, 1., p.metric("certfetcher_served_certificate_matches"))
			assert.Equal(t, 3., p.metric(`certfetcher_notifications_total{kind="verify",outcome="success"}`))
			assert.Zero(t, p.metric(`certfetcher_notifications_total{kind="signal",outcome="failure"}`))
			assert.Zero(t, p.count("notifying the application failed"))
			p.end()
		})
	}
}

func TestSidecar_javaServer_takesTheNewStoreUp(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour)
	volume := filepath.Join(t.TempDir(), "volume")
	variables := append(environment(s.URL, s.Dir, volume), "OUTPUT_TYPE=P12", "OUTPUT_LAYOUT=inplace")
	// An init container makes the store that the server begins with.
	code, _, stderr := once(t, append(variables, "MODE=init"))
	require.Zero(t, code, stderr)

	server := fixture.Java(t, "", "../java/ReloadingServer.java",
		filepath.Join(volume, "keystore.p12"), filepath.Join(volume, "keystore.pass"))
	stdin := fixture.Must(server.StdinPipe())
	stdout := fixture.Must(server.StdoutPipe())
	require.NoError(t, server.Start())
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		for range lines {
		}
		_ = server.Wait()
	})
	served, started := "", time.After(4*patience) // a JVM that compiles its program first
	for served == "" {
		select {
		case line, open := <-lines:
			require.True(t, open, "the Java server ended")
			if number, ok := strings.CutPrefix(line, "serving "); ok {
				served = "127.0.0.1:" + number
			}
		case <-started:
			require.Fail(t, "the Java server does not start")
		}
	}

	p := run(t, volume, append(variables, "NOTIFY_VERIFY="+served))
	p.await(1, planned)
	p.await(1, verified) // of what was there at the start
	for round := 1; round <= 5; round++ {
		p.renew()
		p.await(round+1, planned)
		assert.Equal(t, inspected(t, volume).Certificate.Serial, p.await(round+1, verified).text("serial"))
	}
	p.end()
	for len(lines) > 0 {
		assert.NotContains(t, <-lines, "failed", "the server never meets a store that it cannot open")
	}
}
