package applications

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// listening is where the guides have their servers listen.
var listening = regexp.MustCompile(`\b(?:listen |bind :|127\.0\.0\.1:)(?:8443|5432)\b`)

// adapt is a guide's file, or a value of a variable, for a server of this pod at an address.
func (p *pod) adapt(text, address string) string {
	text = listening.ReplaceAllStringFunc(text, func(found string) string {
		before, _, _ := strings.Cut(found, " ")
		switch before {
		case "listen", "bind":
			return before + " " + address
		}
		return address
	})
	return strings.ReplaceAll(text, mounted, p.volume)
}

// file writes a file that the guide shows, put into what the test has around it.
func (p *pod) file(g guide, name, around, address string) string {
	p.t.Helper()
	require.Contains(p.t, g.files, name)
	return p.write(name, strings.Replace(around, "HERE", p.adapt(g.files[name], address), 1))
}

func (p *pod) haproxy(g guide, address string) []string {
	return []string{"-W", "-f", p.file(g, "haproxy.cfg", "HERE", address)}
}

// nginx has the directories that only root may write to elsewhere, as the example for Kubernetes has.
func (p *pod) nginx(g guide, address string) []string {
	around, _, _ := strings.Cut(exampleData(p.t, "nginx.yaml")["nginx.conf"], "  server {\n")
	around = strings.ReplaceAll(around, "/tmp/", p.dir+"/") + "HERE}\n"
	return []string{"-c", p.file(g, "nginx.conf", around, address), "-g", "daemon off;", "-e", "stderr"}
}

// nginxExample is what the example for Kubernetes configures.
func (p *pod) nginxExample(_ guide, address string) []string {
	content := strings.ReplaceAll(exampleData(p.t, "nginx.yaml")["nginx.conf"], "/tmp/", p.dir+"/")
	return []string{"-c", p.write("nginx.conf", p.adapt(content, address)), "-g", "daemon off;", "-e", "stderr"}
}

// envoy has what the example for Kubernetes configures, with the guide's secret.
func (p *pod) envoy(g guide, address string) []string {
	host, port, _ := strings.Cut(address, ":")
	content := strings.NewReplacer("address: 0.0.0.0, port_value: 8443", "address: "+host+", port_value: "+port,
		"/etc/app/certificate.yaml", p.file(g, "certificate.yaml", "HERE", address)).
		Replace(exampleData(p.t, "envoy.yaml")["envoy.yaml"])
	return []string{"-c", p.write("envoy.yaml", content), "-l", "warning", "--concurrency", "1",
		"--disable-hot-restart"}
}

func (p *pod) write(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(p.t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// A sidecar with the guide's variables renews beside the server, and looks whether it serves the new certificate.
func TestApplications_servers_serveAndReload(t *testing.T) {
	for i, row := range []struct {
		name, program string
		arguments     func(p *pod, g guide, address string) []string
		user          *syscall.Credential
		greet         greeting
	}{
		{"envoy", "envoy", (*pod).envoy, nil, nil},
		{"haproxy", "haproxy", (*pod).haproxy, nil, nil},
		{"nginx", "nginx", (*pod).nginx, nil, nil},
		{"nginx, the example for Kubernetes", "nginx", (*pod).nginxExample, nil, nil},
		{"postgresql", "postgres", (*pod).postgres, nobody(t), sslRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			program := serverProgram(t, row.program)
			document, _, _ := strings.Cut(row.name, ",")
			g := readGuide(t, document)
			p := newPod(t, row.user, g.settings("OUTPUT_")...)
			// Under a name of its own, so that no other process of this machine is signalled.
			name := fmt.Sprintf("%.3s%d-%d", row.program, i, os.Getpid())
			require.NoError(t, os.Symlink(program, filepath.Join(p.dir, name)))
			address := fixture.FreeAddress(t)
			p.background(p.command(filepath.Join(p.dir, name), row.arguments(p, g, address)...))
			first := p.awaitServed(address, "", row.greet)
			variables := g.settings("")
			for i, variable := range variables {
				variables[i] = p.adapt(variable, address)
				if strings.HasPrefix(variable, "NOTIFY_PROCESS=") {
					variables[i] = "NOTIFY_PROCESS=" + name
				}
			}
			sidecar := p.background(p.certfetcher(variables...))
			p.awaitServed(address, first, row.greet)
			require.True(t, sidecar.Await("the application serves the new certificate"))
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

// serverProgram finds a program. Debian does not put PostgreSQL's into PATH, and has no Envoy: .ci/run installs that
// from PyPI.
func serverProgram(t *testing.T, name string) string {
	t.Helper()
	if paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(paths) > 0 {
		return paths[len(paths)-1]
	}
	if path := fixture.Must(filepath.Abs("../../dist/envoy/envoy/_bin/" + name)); name == "envoy" {
		if _, err := os.Stat(path); err == nil {
			return path
		}
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
func (p *pod) postgres(g guide, address string) []string {
	p.t.Helper()
	data := filepath.Join(p.dir, "data")
	initdb := p.command(serverProgram(p.t, "initdb"), "--no-sync", "--auth=trust",
		"--username=postgres", "--pgdata="+data)
	out, err := initdb.CombinedOutput()
	require.NoError(p.t, err, "%s", out)
	configuration := filepath.Join(data, "postgresql.conf")
	content := string(fixture.Must(os.ReadFile(configuration))) + p.adapt(g.files["postgresql.conf"], address)
	require.NoError(p.t, os.WriteFile(configuration, []byte(content), 0o600))
	return []string{"-D", data, "-k", p.dir, "-h", "127.0.0.1", "-p", strings.TrimPrefix(address, "127.0.0.1:"),
		"-c", "fsync=off"}
}

// What the document warns of: the server looks at the key's owner and mode before it opens it.
func TestApplications_postgresql_refusesAKeyThatItsGroupMayRead(t *testing.T) {
	t.Parallel()
	server := serverProgram(t, "postgres")
	p := newPod(t, nobody(t), "OUTPUT_TYPE=PEM", "OUTPUT_FILE_MODE=0640")
	arguments := p.postgres(readGuide(t, "postgresql"), fixture.FreeAddress(t))
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
