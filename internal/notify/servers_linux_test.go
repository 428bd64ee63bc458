package notify

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
	"github.com/certfetcher/certfetcher/test/port"
)

// started runs a server until the test ends. Its output is shown when the test fails.
func started(t *testing.T, command *exec.Cmd, end os.Signal) {
	t.Helper()
	var output strings.Builder
	command.Stdout, command.Stderr = &output, &output
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Signal(end)
		_ = command.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
}

// listens waits until a server takes connections.
func listens(t *testing.T, verify *Verify) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := verify.config.Dial(ctx, "tcp", verify.address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			require.NoError(t, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

const nginxMailModule = "/usr/lib/nginx/modules/ngx_mail_module.so"

func TestNginx_mail_servers_are_seen_to_serve_the_certificate(t *testing.T) {
	nginx := peer.Require(t, "nginx")[0]
	if _, err := os.Stat(nginxMailModule); err != nil {
		peer.Missing(t, "nginx's mail module (libnginx-mod-mail)")
	}
	dir := t.TempDir()
	cert, event := issue(t, newCA(t))
	writePEM(t, dir, cert)
	smtp, imap, pop3 := port.Free(t), port.Free(t), port.Free(t)
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config, []byte(strings.NewReplacer("DIR", dir, "SMTP", smtp, "IMAP", imap, "POP3", pop3, "MODULE", nginxMailModule).Replace(`
load_module MODULE;
daemon off; master_process off; pid DIR/nginx.pid; error_log DIR/error.log notice;
events {}
mail {
  server_name mail.example; auth_http 127.0.0.1:1/; starttls on;
  ssl_certificate DIR/keystore.pem; ssl_certificate_key DIR/key.pem;
  server { listen SMTP; protocol smtp; smtp_auth none; }
  server { listen IMAP; protocol imap; }
  server { listen POP3; protocol pop3; }
}`)), 0o600))
	started(t, exec.Command(nginx, "-c", config, "-e", filepath.Join(dir, "error.log")), syscall.SIGTERM)
	for scheme, address := range map[string]string{"smtp": smtp, "imap": imap} {
		verify := newVerify(t, scheme+"://"+address, newLines())
		listens(t, verify)
		require.NoError(t, verify.Notify(t.Context(), event), scheme)
		_, err := newVerify(t, address, newLines()).Served(t.Context(), event.Names)
		require.EqualError(t, err, "the server speaks "+strings.ToUpper(scheme)+" before TLS: write "+scheme+"://"+address)
	}
	_, err := newVerify(t, pop3, newLines()).Served(t.Context(), event.Names)
	require.ErrorContains(t, err, "the server speaks POP3 before TLS, or none at all: want a port where TLS begins at once")
}

// postgreSQL finds a program of PostgreSQL, which Debian keeps out of PATH.
func postgreSQL(t *testing.T, name string) string {
	t.Helper()
	if found, err := exec.LookPath(name); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil {
			return found // for it looks for its own files beside itself
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		peer.Missing(t, "PostgreSQL's "+name)
	}
	return found[len(found)-1]
}

func TestPostgreSQL_is_seen_to_serve_the_certificate(t *testing.T) {
	initdb, postgres := postgreSQL(t, "initdb"), postgreSQL(t, "postgres")
	// Root may not run it, and then nobody else may enter the test's directories.
	dir, err := os.MkdirTemp("", "postgresql-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{}
	cert, event := issue(t, newCA(t))
	writePEM(t, dir, cert)
	if os.Geteuid() == 0 {
		const nobody = 65534
		as.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		for _, path := range []string{dir, filepath.Join(dir, "key.pem"), filepath.Join(dir, "keystore.pem")} {
			require.NoError(t, os.Chown(path, nobody, nobody))
		}
	}
	data := filepath.Join(dir, "data")
	make := exec.Command(initdb, "-D", data, "--no-sync", "-A", "trust", "-U", "postgres", "-E", "SQL_ASCII", "--locale=C")
	make.SysProcAttr, make.Dir = as, dir
	out, err := make.CombinedOutput()
	require.NoError(t, err, string(out))
	address := port.Free(t)
	run := func(t *testing.T, options ...string) {
		_, number, _ := strings.Cut(address, ":")
		server := exec.Command(postgres, append([]string{"-D", data, "-k", dir, "-h", "127.0.0.1", "-p", number, "-F"}, options...)...)
		server.SysProcAttr, server.Dir = as, dir
		started(t, server, syscall.SIGQUIT)
	}
	verify := newVerify(t, "postgres://"+address, newLines())
	t.Run("with TLS", func(t *testing.T) {
		run(t, "-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(dir, "keystore.pem"), "-c", "ssl_key_file="+filepath.Join(dir, "key.pem"))
		listens(t, verify)
		require.NoError(t, verify.Notify(t.Context(), event))
		_, err := newVerify(t, address, newLines()).Served(t.Context(), event.Names)
		assert.EqualError(t, err, "the server speaks PostgreSQL's protocol before TLS: write postgres://"+address)
	})
	t.Run("with a key that its group may read", func(t *testing.T) {
		require.NoError(t, os.Chmod(filepath.Join(dir, "key.pem"), 0o640))
		server := exec.Command(postgres, "-D", data, "-k", dir, "-h", "127.0.0.1", "-F", "-c", "ssl=on",
			"-c", "ssl_cert_file="+filepath.Join(dir, "keystore.pem"), "-c", "ssl_key_file="+filepath.Join(dir, "key.pem"))
		server.SysProcAttr, server.Dir = as, dir
		out, err := server.CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "permissions", "which internal/doctor knows")
	})
	t.Run("without", func(t *testing.T) {
		run(t)
		listens(t, verify)
		_, err := verify.Served(t.Context(), event.Names)
		assert.ErrorContains(t, err, "PostgreSQL does without TLS: set ssl = on")
	})
}
