// Package applications tries what docs/applications.md says: other people's servers read the files that the built
// certfetcher publishes, serve TLS with them, and take up a renewed certificate.
package applications

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestMain(m *testing.M) { chaos.Main(m, nil) }

// pod is a volume, and what certfetcher is given to fill it.
type pod struct {
	t         *testing.T
	service   *service.Service
	dir       string // the pod's own, which all of its programs may read
	volume    string
	variables []string
	user      *syscall.Credential // nil: that of the test
}

// newPod returns one whose volume is filled.
func newPod(t *testing.T, user *syscall.Credential, variables ...string) *pod {
	t.Helper()
	dir := fixture.Must(os.MkdirTemp("", "certfetcher-pod-")) // t.TempDir is for its owner only
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := fixture.Must(service.Start(dir, service.Options{}))
	t.Cleanup(s.Stop)
	p := &pod{t: t, service: s, dir: dir, volume: filepath.Join(dir, "volume"), user: user}
	p.variables = s.Environment(p.volume, append(variables, "COMMON_NAME=localhost", "SANS=localhost",
		"KEY_ALGORITHM=RSA-2048", "HEALTH_ADDR=off", "NOTIFY_VERIFY_FOR=10s")...)
	if user != nil {
		for _, path := range append(fixture.Must(filepath.Glob(dir+"/*")), dir) {
			require.NoError(t, os.Chown(path, int(user.Uid), int(user.Gid)))
		}
	}
	p.fetch()
	return p
}

// command prepares a program that runs as the pod's user.
func (p *pod) command(program string, arguments ...string) *exec.Cmd {
	c := exec.Command(program, arguments...)
	c.Dir = p.dir
	if p.user != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: p.user}
	}
	return c
}

// certfetcher prepares one that gets a new certificate, whatever the volume holds.
func (p *pod) certfetcher(variables ...string) *exec.Cmd {
	c := p.command(chaos.Bin + "/certfetcher")
	c.Env = slices.Concat(p.variables, variables, []string{chaos.Force})
	return c
}

// fetch has one do so.
func (p *pod) fetch() {
	p.t.Helper()
	code, printed := chaos.Run(p.t, p.certfetcher())
	require.Zero(p.t, code, printed)
}

// serial is that of the certificate in keystore.pem.
func (p *pod) serial() (string, error) {
	pair, err := tls.LoadX509KeyPair(p.volume+"/keystore.pem", p.volume+"/key.pem")
	if err != nil {
		return "", err
	}
	return pair.Leaf.SerialNumber.Text(16), nil
}

// background runs a program until the test ends, and shows what it said when the test fails.
func (p *pod) background(c *exec.Cmd) *chaos.Process {
	p.t.Helper()
	running := chaos.Start(p.t, c)
	p.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		running.Wait(chaos.Deadline)
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", c.Path, running.Printed())
		}
	})
	return running
}

// greeting is what a protocol says before TLS begins.
type greeting func(net.Conn) error

// served is the serial number of the certificate that is served at the address, verified as a client does it.
func (p *pod) served(address string, greet greeting) (string, error) {
	roots := x509.NewCertPool()
	roots.AddCert(p.service.CA.Root)
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	client := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if greet != nil {
		err = greet(conn)
	}
	if err == nil {
		err = client.Handshake()
	}
	if err != nil {
		return "", err
	}
	return client.ConnectionState().PeerCertificates[0].SerialNumber.Text(16), nil
}

// awaitServed waits until the volume's certificate is served, and is another than the one before.
func (p *pod) awaitServed(address, before string, greet greeting) (serial string) {
	p.t.Helper()
	require.EventuallyWithT(p.t, func(c *assert.CollectT) {
		published, err := p.serial()
		require.NoError(c, err) // one file may be newer than the other
		serial, err = p.served(address, greet)
		require.NoError(c, err)
		require.Equal(c, published, serial)
		require.NotEqual(c, before, serial)
	}, chaos.Deadline, 20*time.Millisecond)
	return serial
}
