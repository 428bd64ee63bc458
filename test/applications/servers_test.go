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

// haproxy returns the arguments that serve TLS with the volume, configured by a file in testdata.
func (p *pod) haproxy(address string) []string {
	content := string(fixture.Must(os.ReadFile("testdata/haproxy.cfg")))
	content = strings.NewReplacer("ADDRESS", address, "VOLUME", p.volume).Replace(content)
	return []string{"-W", "-f", p.write("haproxy.cfg", content)}
}

// nginx returns the arguments that serve TLS with the volume, configured as the example for Kubernetes is. It reads the
// truststore as well.
func (p *pod) nginx(address string) []string {
	trust := "ssl_client_certificate " + p.volume + "/truststore.pem; ssl_verify_client optional; "
	content := exampleData(p.t, "nginx.yaml")["nginx.conf"]
	content = strings.NewReplacer(mounted, p.volume, "/tmp/", p.dir+"/", "listen 8443",
		"listen "+address, "ssl_protocols", trust+"ssl_protocols").Replace(content)
	return []string{"-c", p.write("nginx.conf", content), "-g", "daemon off;", "-e", "stderr"}
}

func (p *pod) write(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(p.t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// A sidecar renews beside the server, sends it a signal, and looks whether it serves the new certificate.
func TestApplications_servers_serveAndReload(t *testing.T) {
	for _, row := range []struct {
		program, signal, verify, variable string
		arguments                         func(p *pod, address string) []string
		user                              *syscall.Credential
		greet                             greeting
	}{
		{"haproxy", "USR2", "", "", (*pod).haproxy, nil, nil},
		{"nginx", "HUP", "", "", (*pod).nginx, nil, nil},
		{"postgres", "HUP", "postgres://", "OUTPUT_FILE_MODE=0600", (*pod).postgres, nobody(t), sslRequest},
	} {
		t.Run(row.program, func(t *testing.T) {
			t.Parallel()
			program := serverProgram(t, row.program)
			p := newPod(t, row.user, "OUTPUT_TYPE=PEM", row.variable)
			// Under a name of its own, so that no other process of this machine is signalled.
			name := fmt.Sprintf("%.3s%d", row.program, os.Getpid())
			require.NoError(t, os.Symlink(program, filepath.Join(p.dir, name)))
			address := fixture.FreeAddress(t)
			p.background(p.command(filepath.Join(p.dir, name), row.arguments(p, address)...))
			first := p.awaitServed(address, "", row.greet)
			p.background(p.certfetcher("MODE=sidecar", "NOTIFY_SIGNAL="+row.signal, "NOTIFY_PROCESS="+name,
				"NOTIFY_VERIFY="+row.verify+address))
			p.awaitServed(address, first, row.greet)
		})
	}
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

// serverProgram finds a program. Debian does not put PostgreSQL's into PATH.
func serverProgram(t *testing.T, name string) string {
	t.Helper()
	if paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(paths) > 0 {
		return paths[len(paths)-1]
	}
	return fixture.RequirePrograms(t, name)[0]
}

// nobody is a user that is not root, whom PostgreSQL would refuse; nil where the test is none either.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u := fixture.Must(user.Lookup("nobody"))
	number := func(text string) uint32 { return uint32(fixture.Must(strconv.Atoi(text))) }
	return &syscall.Credential{Uid: number(u.Uid), Gid: number(u.Gid)}
}

// postgres makes a cluster and returns the arguments that serve TLS with the volume.
func (p *pod) postgres(address string) []string {
	p.t.Helper()
	data := filepath.Join(p.dir, "data")
	initdb := p.command(serverProgram(p.t, "initdb"), "--no-sync", "--auth=trust",
		"--username=postgres", "--pgdata="+data)
	out, err := initdb.CombinedOutput()
	require.NoError(p.t, err, "%s", out)
	return []string{
		"-D", data, "-k", p.dir, "-h", "127.0.0.1", "-p", strings.TrimPrefix(address, "127.0.0.1:"),
		"-c", "fsync=off", "-c", "ssl=on",
		"-c", "ssl_cert_file=" + p.volume + "/keystore.pem", "-c", "ssl_key_file=" + p.volume + "/key.pem",
		"-c", "ssl_ca_file=" + p.volume + "/truststore.pem",
	}
}

// What the document warns of: the server looks at the key's owner and mode before it opens it.
func TestApplications_postgresql_refusesAKeyThatItsGroupMayRead(t *testing.T) {
	t.Parallel()
	server := serverProgram(t, "postgres")
	p := newPod(t, nobody(t), "OUTPUT_TYPE=PEM", "OUTPUT_FILE_MODE=0640")
	arguments := p.postgres(fixture.FreeAddress(t))
	out, err := p.command(server, arguments...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "has group or world access")

	if os.Geteuid() != 0 {
		return // only root can give a file away
	}
	key := fixture.Must(filepath.EvalSymlinks(filepath.Join(p.volume, "key.pem")))
	require.NoError(t, os.Chown(key, 65532, 65532))
	out, err = p.command(server, arguments...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "must be owned by the database user or root")
}
