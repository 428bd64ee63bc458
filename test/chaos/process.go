package chaos

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Deadline is for what must end. It is far more than anything here takes, also on a loaded machine.
const Deadline = 60 * time.Second

// Hung is the exit code of a program that did not end in time.
const Hung = -1

// Process is a program with what it prints. The fields are set by Wait.
type Process struct {
	*exec.Cmd
	Code int // 128 and more for signals
	Took time.Duration
	Peak int // of its resident memory, in KiB, as last seen

	out   string // a file
	begin time.Time
	ended chan error
}

// Start starts a program, which is killed when the test ends.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	out := fixture.Must(os.CreateTemp(t.TempDir(), "out"))
	defer out.Close()
	if cmd.Stderr == nil {
		cmd.Stdout, cmd.Stderr = out, out
	}
	p := &Process{Cmd: cmd, out: out.Name(), begin: time.Now(), ended: make(chan error, 1)}
	require.NoError(t, cmd.Start())
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return p
}

// Run runs a program to its end.
func Run(t testing.TB, cmd *exec.Cmd) (code int, printed string) {
	t.Helper()
	p := Start(t, cmd)
	return p.Wait(Deadline), p.Printed()
}

// Printed is what the program has printed so far.
func (p *Process) Printed() string {
	data, _ := os.ReadFile(p.out)
	return string(data)
}

// Await waits until the program has printed one of the texts, or has ended; it tells which.
func (p *Process) Await(texts ...string) (found bool) {
	has := func(text string) bool { return strings.Contains(p.Printed(), text) }
	for end := time.Now().Add(Deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if slices.ContainsFunc(texts, has) {
			return true
		}
		select {
		case err := <-p.ended:
			p.ended <- err // for Wait
			return slices.ContainsFunc(texts, has)
		default:
		}
	}
	return false
}

// Signal sends a signal, and Wait then tells how the program ended.
func (p *Process) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	require.NoError(t, p.Process.Signal(signal), p.Printed())
}

// End ends the program by SIGTERM; its exit code must be 0.
func (p *Process) End(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGTERM)
	assert.Zero(t, p.Wait(Deadline), p.Printed())
}

// Wait returns the exit code. A program that does not end in time is killed.
func (p *Process) Wait(limit time.Duration) int {
	timeout := time.After(limit)
	for p.Code = Hung; ; {
		select {
		case <-timeout:
			_ = p.Process.Kill()
			p.Took = time.Since(p.begin)
			return p.Code
		case err := <-p.ended:
			p.ended <- err
			p.Took, p.Code = time.Since(p.begin), p.ProcessState.ExitCode()
			if status := p.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
				p.Code = 128 + int(status.Signal())
			}
			return p.Code
		case <-time.After(3 * time.Millisecond):
			p.Peak = max(p.Peak, Memory(p.Process.Pid, "VmHWM"))
		}
	}
}

// Memory is what /proc says of a process's memory, in KiB: VmRSS, or its peak VmHWM; 0 when it has ended.
func Memory(pid int, name string) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	found := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		return 0
	}
	kib, _ := strconv.Atoi(string(found[1]))
	return kib
}

// ProcessorTime is what a process has used so far, user and system, in steps of 10 ms (proc(5)); 0 when it has ended.
func ProcessorTime(pid int) (used time.Duration) {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name is in parentheses, and may hold some; user and system time are the 12th and 13th field behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	for _, ticks := range fields[11:13] {
		used += time.Duration(fixture.Must(strconv.Atoi(string(ticks)))) * 10 * time.Millisecond
	}
	return used
}

// Silent returns a host:port on loopback that takes connections and never answers.
func Silent(t testing.TB) string {
	t.Helper()
	listener := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

// WriteIdentity writes an identity of a CA for mutual TLS, as fixture.WriteIdentity does, and returns its Identity.
func WriteIdentity(t testing.TB, ca *fixture.CA, dir string) *tls.Config {
	t.Helper()
	require.NoError(t, ca.WriteIdentity(dir, "localhost"))
	return Identity(dir)
}

// Identity is for mutual TLS with what fixture.WriteIdentity wrote to dir.
func Identity(dir string) *tls.Config {
	pair := fixture.Must(tls.LoadX509KeyPair(dir+"/client.pem", dir+"/client.pem"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(fixture.Must(os.ReadFile(dir + "/truststore.pem")))
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
}

// Request makes a certificate signing request and its key, both in PEM.
func Request(algorithm string) (csr, key []byte) { return RequestFor("app.example.org", algorithm) }

// RequestFor is Request for a name.
func RequestFor(name, algorithm string) (csr, key []byte) {
	signer := fixture.Must(keygen.GenerateKey(algorithm))
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, signer))
	return keygen.CSRPEM(&x509.CertificateRequest{Raw: der}), fixture.Must(keygen.PrivateKeyPEM(signer))
}
