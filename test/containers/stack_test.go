//go:build containers

package containers

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// secret is that of certservice and devca.
const secret = "throwaway-secret"

// stack is a certservice with devca behind it, each in a container.
type stack struct {
	network string
	client  string // directory with the client's files, as the Kubernetes example mounts it
	root    *x509.Certificate
}

// startStack starts certservice under the name that is the default of REQUEST_URL.
func startStack(t *testing.T) stack {
	t.Helper()
	setup(t)
	const host = "oom-cert-service"
	transport := fixture.Must(fixture.NewCA("Transport"))
	s := stack{network: "stack-" + strings.ToLower(t.Name()), client: writeIdentity(t, transport, "client")}
	server := writeIdentity(t, transport, host)
	write(t, filepath.Join(server, "cmpServers.json"), []byte(`{"cmpv2Servers": [{
		"caName": "RA", "url": "http://devca:8829/pkix/", "trustAnchors": "/var/lib/devca/root.pem",
		"issuerDN": "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"authentication": {"iak": "`+secret+`", "rv": "RA"}
	}]}`))

	podman(t, "network", "create", s.network)
	t.Cleanup(func() { podman(t, "network", "rm", "--force", s.network) })
	roots := s.network + "-roots"
	t.Cleanup(func() { podman(t, "volume", "rm", "--force", roots) })
	start(t, "devca", "--network", s.network, "--volume", roots+":/var/lib/devca",
		"--env-file", variables("devca"), "--env", "DEVCA_IAK="+secret, "devca")
	eventually(t, 10*time.Second, "devca", func() error { return run("exec", "devca", "/devca", "probe") })
	start(t, "certservice", "--network", s.network, "--network-alias", host,
		"--volume", roots+":/var/lib/devca:ro", "--volume", server+":/etc/certservice:ro",
		"--env-file", variables("certservice"), "certservice")
	eventually(t, 10*time.Second, "certservice",
		func() error { return run("exec", "certservice", "/certservice", "probe") })

	var err error
	s.root, err = rootIn(t, roots)
	require.NoError(t, err)
	return s
}

// variables is the file with those of a program.
func variables(program string) string { return "test/containers/testdata/" + program + ".env" }

// run runs podman for its exit code.
func run(arguments ...string) error {
	_, err := command("podman", arguments...)
	return err
}

// writeIdentity writes one side of mutual TLS into a new directory, as the keys of the Secrets for Kubernetes.
func writeIdentity(t *testing.T, transport *fixture.CA, name string) string {
	t.Helper()
	into := fixture.Must(os.MkdirTemp(dir, name))
	key, chain, err := transport.Identity(name, name)
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(into, key, chain, transport.Root))
	for from, to := range map[string]string{
		"client.jks": "keystore.jks", "client-key.pem": "tls.key", "client-certificate.pem": "tls.crt",
		"truststore.pem": "ca.crt",
	} {
		require.NoError(t, os.Rename(filepath.Join(into, from), filepath.Join(into, to)))
	}
	write(t, filepath.Join(into, "keystore-password"), []byte(fixture.Password))
	write(t, filepath.Join(into, "truststore-password"), []byte(fixture.Password))
	for _, path := range append(fixture.Must(filepath.Glob(into+"/*")), into) {
		require.NoError(t, os.Chmod(path, 0o755))
	}
	return into
}

// rootIn is the certificate that devca writes to a volume.
func rootIn(t *testing.T, name string) (*x509.Certificate, error) {
	t.Helper()
	block, _ := pem.Decode(volume(t, name)["root.pem"].content)
	if block == nil {
		return nil, errors.New("the root is not there")
	}
	return x509.ParseCertificate(block.Bytes)
}

// write writes a file that all users may read, such as that of the containers, whatever the umask.
func write(t *testing.T, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, content, 0o644))
	require.NoError(t, os.Chmod(path, 0o644))
}

// get asks the application as a client that trusts the root alone, and returns its certificate.
func get(address, name string, root *x509.Certificate) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}}
	response, err := client.Get("https://" + address)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	leaf := response.TLS.PeerCertificates[0]
	want := fmt.Sprintf("serial %X\n", leaf.SerialNumber)
	if err == nil && !strings.Contains(string(body), want) {
		err = fmt.Errorf("the application says %q, want %q in it", body, want)
	}
	return leaf, err
}

// assertConfined looks at a running container from outside: what the kernel says of its process.
func assertConfined(t *testing.T, container string) {
	t.Helper()
	pid := podman(t, "inspect", "--format", "{{.State.Pid}}", container)
	status := string(fixture.Must(os.ReadFile(filepath.Join("/proc", pid, "status"))))
	for _, line := range []string{
		"Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
		"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		assert.Contains(t, status, "\n"+line+"\n", container)
	}
	readOnly := podman(t, "inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", container)
	assert.Equal(t, "true", readOnly, container)
}
