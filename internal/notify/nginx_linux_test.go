package notify

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
	"github.com/certfetcher/certfetcher/test/port"
)

// TestNginx_is_reloaded_and_seen_to_serve_the_new_certificate does to nginx what the sidecar does:
// new files, a signal by name, by PID file, and by nginx's own command; each time the served
// certificate is compared.
func TestNginx_is_reloaded_and_seen_to_serve_the_new_certificate(t *testing.T) {
	nginx := peer.Require(t, "nginx")[0]
	dir := t.TempDir()
	// A name of its own, so that no other nginx of this machine is meant.
	name := fmt.Sprintf("nginx%d", os.Getpid())
	program := filepath.Join(dir, name)
	require.NoError(t, os.Symlink(nginx, program))
	pidFile, config := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "nginx.conf")
	address := port.Free(t)
	require.NoError(t, os.WriteFile(config, []byte(strings.NewReplacer("DIR", dir, "ADDRESS", address).Replace(`
daemon off; worker_processes 2; pid DIR/nginx.pid; error_log DIR/error.log notice;
events {}
http {
  access_log off;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server { listen ADDRESS ssl; ssl_certificate DIR/keystore.pem; ssl_certificate_key DIR/key.pem; }
}`)), 0o600))

	authority := newCA(t)
	publish := func() Event {
		cert, event := issue(t, authority)
		writePEM(t, dir, cert)
		return event
	}
	verify := newVerify(t, address, newLines())
	first := publish()
	server := exec.Command(program, "-c", config, "-e", filepath.Join(dir, "error.log"))
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		assert.NoError(t, server.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, server.Wait())
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx logged:\n%s", log)
		}
	})
	require.NoError(t, verify.Notify(t.Context(), first))

	for _, row := range []struct {
		name     string
		notifier Notifier
	}{
		{"a signal by name", newSignal(t, name, "")},
		{"a signal by PID file", newSignal(t, "", pidFile)},
		{"a signal by PID file and name", newSignal(t, name, pidFile)},
		{"its own command", NewExec(ExecConfig{Command: []string{program, "-c", config, "-e", filepath.Join(dir, "error.log"), "-s", "reload"}, Timeout: patience, Log: newLines().logger()})},
	} {
		event := publish()
		require.NoError(t, row.notifier.Notify(t.Context(), event), row.name)
		require.NoError(t, verify.Notify(t.Context(), event), row.name)
	}
}

func writePEM(t *testing.T, dir string, cert tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keystore.pem"), chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}
