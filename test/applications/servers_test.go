package applications

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// alias links a program under a name of its own, so that no other process of this machine is signalled.
func (p *pod) alias(program, name string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, fmt.Sprintf("%s%d", name, os.Getpid()))
	require.NoError(p.t, os.Symlink(program, path))
	return path
}

func (p *pod) write(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(p.t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func TestApplications_haproxy_servesTheCombinedFileAndReloads(t *testing.T) {
	t.Parallel()
	haproxy := fixture.RequirePrograms(t, "haproxy")[0]
	p := newPod(t, nil, "OUTPUT_TYPE=PEM")
	program, address := p.alias(haproxy, "hap"), fixture.FreeAddress(t)
	configuration := p.write("haproxy.cfg", strings.NewReplacer("ADDRESS", address, "VOLUME", p.volume).Replace(`
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend https
  bind ADDRESS ssl crt VOLUME/keystore-combined.pem ca-file VOLUME/truststore.pem verify optional
  http-request return status 200
`))
	p.background(p.command(program, "-W", "-f", configuration))
	first := p.awaitServed(address, "", nil)
	p.sidecar("NOTIFY_SIGNAL=USR2", "NOTIFY_PROCESS="+filepath.Base(program), "NOTIFY_VERIFY="+address)
	p.renew()
	p.awaitServed(address, first, nil)
}

func TestApplications_nginx_servesChainAndKeyAndReloads(t *testing.T) {
	t.Parallel()
	nginx := fixture.RequirePrograms(t, "nginx")[0]
	p := newPod(t, nil, "OUTPUT_TYPE=PEM")
	program, address := p.alias(nginx, "ngx"), fixture.FreeAddress(t)
	configuration := p.write("nginx.conf",
		strings.NewReplacer("DIR", p.dir, "ADDRESS", address, "VOLUME", p.volume).Replace(`
daemon off; pid DIR/nginx.pid; error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server {
    listen ADDRESS ssl; ssl_certificate VOLUME/keystore.pem; ssl_certificate_key VOLUME/key.pem;
    ssl_client_certificate VOLUME/truststore.pem; ssl_verify_client optional;
  }
}`))
	p.background(p.command(program, "-c", configuration, "-e", "stderr"))
	first := p.awaitServed(address, "", nil)
	p.sidecar("NOTIFY_SIGNAL=HUP", "NOTIFY_PROCESS="+filepath.Base(program), "NOTIFY_VERIFY="+address)
	p.renew()
	p.awaitServed(address, first, nil)
}

// renew asks the sidecar for a new certificate.
func (p *pod) renew() {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, "renew"), nil, 0o600))
}

// sslRequest asks a PostgreSQL server for TLS.
func sslRequest(conn net.Conn) error {
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return fmt.Errorf("the server answers %q to SSLRequest", answer)
	}
	return nil
}

// postgresProgram finds a program of the server, which Debian does not put into PATH.
func postgresProgram(t *testing.T, name string) string {
	t.Helper()
	if paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(paths) > 0 {
		return paths[len(paths)-1]
	}
	return fixture.RequirePrograms(t, name)[0]
}

// unprivileged is a user that is not root, whom PostgreSQL would refuse; nil where the test is none either.
func unprivileged(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, err := strconv.Atoi(nobody.Uid)
	require.NoError(t, err)
	gid, err := strconv.Atoi(nobody.Gid)
	require.NoError(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// postgres makes a cluster and returns the arguments that serve TLS with the volume.
func (p *pod) postgres(address string) []string {
	p.t.Helper()
	data := filepath.Join(p.dir, "data")
	initdb := p.command(postgresProgram(p.t, "initdb"), "--no-sync", "--auth=trust",
		"--username=postgres", "--pgdata="+data)
	out, err := initdb.CombinedOutput()
	require.NoError(p.t, err, "%s", out)
	_, number, err := net.SplitHostPort(address)
	require.NoError(p.t, err)
	return []string{
		"-D", data, "-k", p.dir, "-h", "127.0.0.1", "-p", number, "-c", "fsync=off", "-c", "ssl=on",
		"-c", "ssl_cert_file=" + p.volume + "/keystore.pem", "-c", "ssl_key_file=" + p.volume + "/key.pem",
		"-c", "ssl_ca_file=" + p.volume + "/truststore.pem",
	}
}

func TestApplications_postgresql_servesAKeyOfItsOwnUserAndReloads(t *testing.T) {
	t.Parallel()
	server := postgresProgram(t, "postgres")
	p := newPod(t, unprivileged(t), "OUTPUT_TYPE=PEM", "OUTPUT_FILE_MODE=0600")
	program, address := p.alias(server, "pgs"), fixture.FreeAddress(t)
	p.background(p.command(program, p.postgres(address)...))
	first := p.awaitServed(address, "", sslRequest)
	p.sidecar("NOTIFY_SIGNAL=HUP", "NOTIFY_PROCESS="+filepath.Base(program), "NOTIFY_VERIFY=postgres://"+address)
	p.renew()
	p.awaitServed(address, first, sslRequest)
}

// What the document warns of: the server looks at the key's owner and mode before it opens it.
func TestApplications_postgresql_refusesAKeyThatItsGroupMayRead(t *testing.T) {
	t.Parallel()
	server := postgresProgram(t, "postgres")
	p := newPod(t, unprivileged(t), "OUTPUT_TYPE=PEM", "OUTPUT_FILE_MODE=0640")
	arguments := p.postgres(fixture.FreeAddress(t))
	out, err := p.command(server, arguments...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "has group or world access")

	if os.Geteuid() != 0 {
		return // only root can give a file away
	}
	key, err := filepath.EvalSymlinks(filepath.Join(p.volume, "key.pem"))
	require.NoError(t, err)
	require.NoError(t, os.Chown(key, 65532, 65532))
	out, err = p.command(server, arguments...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "must be owned by the database user or root")
}
