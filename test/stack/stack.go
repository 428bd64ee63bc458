// Package stack runs the built programs together on loopback, for the demo, the load benchmark and
// tests: certservice with mutual TLS on one side, devca answering its CMP on the other.
package stack

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/test/ca"
)

// CAName is the name under which certservice knows devca.
const CAName = ca.CAName

// secret is shared by certservice and devca.
const secret = "demonstration"

// Stack is a running certservice and devca.
type Stack struct {
	// URL is what REQUEST_URL should be.
	URL string
	// Dir holds the client's identity, under the names that ca.WriteIdentity documents.
	Dir string
	// Operations is the address of certservice's plain port.
	Operations string
	// CertService and DevCA are the processes.
	CertService, DevCA *Process
	// Transport signed the identities of mutual TLS.
	Transport *ca.CA
}

// Start starts devca and certservice from the directory bin with files in dir; the additional
// environment goes to both.
func Start(bin, dir string, environment ...string) (*Stack, error) {
	authority, server, err := StartCA(bin, dir, environment...)
	if err != nil {
		return nil, err
	}
	s, err := StartService(bin, dir, server, environment...)
	if err != nil {
		authority.stop()
		return nil, err
	}
	s.DevCA = authority
	return s, nil
}

// StartCA starts devca alone. It returns the entry of cmpServers.json with which StartService asks it; the url may be
// changed, to that of a proxy.
func StartCA(bin, dir string, environment ...string) (*Process, map[string]any, error) {
	root := filepath.Join(dir, "devca-root.pem")
	authority, err := startProcess(filepath.Join(bin, "devca"), append([]string{
		"DEVCA_ADDR=127.0.0.1:0", "DEVCA_RV=" + CAName, "DEVCA_IAK=" + secret, "DEVCA_CA_FILE=" + root,
	}, environment...))
	if err != nil {
		return nil, nil, err
	}
	address, err := authority.await("address")
	if err != nil {
		authority.stop()
		return nil, nil, err
	}
	return authority, map[string]any{
		"url": "http://" + address + "/pkix/", "issuerDN": "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"authentication": map[string]string{"iak": secret, "rv": CAName}, "trustAnchors": root,
	}, nil
}

// StartService starts certservice alone, for the CMP server of an entry of cmpServers.json, whose caName is CAName.
func StartService(bin, dir string, server map[string]any, environment ...string) (*Stack, error) {
	return StartServiceOf(bin, dir, []map[string]any{server}, environment...)
}

// StartServiceOf is StartService for several entries. Those without a caName have CAName.
func StartServiceOf(bin, dir string, entries []map[string]any, environment ...string) (*Stack, error) {
	s := &Stack{Dir: filepath.Join(dir, "client")}
	var err error
	if s.Transport, err = ca.New("Transport"); err != nil {
		return nil, err
	}
	if err := s.writeIdentities(dir); err != nil {
		return nil, err
	}
	servers := filepath.Join(dir, "cmpServers.json")
	if err := writeServers(servers, entries); err != nil {
		return nil, err
	}
	s.CertService, err = startProcess(filepath.Join(bin, "certservice"), append([]string{
		"HTTPS_PORT=0", "METRICS_ADDR=127.0.0.1:0", "CMP_SERVERS_PATH=" + servers,
		"KEYSTORE_PATH=" + filepath.Join(dir, "server", "client.p12"), "KEYSTORE_PASSWORD=" + ca.Password,
		"TRUSTSTORE_PATH=" + filepath.Join(dir, "server", "truststore.p12"), "TRUSTSTORE_PASSWORD=" + ca.Password,
	}, environment...))
	if err != nil {
		return nil, err
	}
	if _, err := s.CertService.await("https"); err != nil {
		s.Stop()
		return nil, err
	}
	s.URL = "https://" + s.CertService.Address() + "/v1/certificate/"
	s.Operations = s.CertService.event["http"]
	return s, nil
}

// Stop ends both programs and waits for them.
func (s *Stack) Stop() {
	s.CertService.stop()
	s.DevCA.stop()
}

func (s *Stack) writeIdentities(dir string) error {
	for _, side := range []string{"client", "server"} {
		if err := os.MkdirAll(filepath.Join(dir, side), 0o700); err != nil {
			return err
		}
		key, chain, err := s.Transport.Identity(side)
		if err != nil {
			return err
		}
		if err := ca.WriteIdentity(filepath.Join(dir, side), key, chain, s.Transport.Root); err != nil {
			return err
		}
	}
	return nil
}

// writeServers writes certservice's cmpServers.json; it holds the secret.
func writeServers(path string, servers []map[string]any) error {
	var entries []map[string]any
	for _, server := range servers {
		entry := map[string]any{"caName": CAName}
		maps.Copy(entry, server)
		entries = append(entries, entry)
	}
	content, err := json.MarshalIndent(map[string]any{"cmpv2Servers": entries}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

// Process is a program under way.
type Process struct {
	*exec.Cmd
	lines chan string
	event map[string]string // the log line that await found

	mu     sync.Mutex
	logged strings.Builder // of the first maxLogged bytes
}

// maxLogged bounds what is kept of a program's log.
const maxLogged = 1 << 20

// Logged returns what the program has logged so far.
func (p *Process) Logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logged.String()
}

func (p *Process) keep(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logged.Len() < maxLogged {
		p.logged.WriteString(line + "\n")
	}
}

func startProcess(path string, environment []string) (*Process, error) {
	p := &Process{Cmd: exec.Command(path), lines: make(chan string, 1000)}
	p.Env = environment
	stderr, err := p.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("starting %s (make build makes it): %w", path, err)
	}
	go p.read(stderr)
	return p, nil
}

// read takes the log as it comes; what nobody waits for is dropped, so that the program never blocks.
func (p *Process) read(log io.Reader) {
	defer close(p.lines)
	scanner := bufio.NewScanner(log)
	for scanner.Scan() {
		p.keep(scanner.Text())
		select {
		case p.lines <- scanner.Text():
		default:
		}
	}
}

// await waits for the first log line that has the attribute, and returns its value.
func (p *Process) await(attribute string) (string, error) {
	timeout := time.After(20 * time.Second)
	var seen []string
	for {
		select {
		case line, open := <-p.lines:
			if !open {
				return "", fmt.Errorf("%s ended: %s", p.Path, strings.Join(seen, "\n"))
			}
			seen = append(seen, line)
			var event map[string]any
			if json.Unmarshal([]byte(line), &event) != nil || event[attribute] == nil {
				continue
			}
			p.event = map[string]string{}
			for name, value := range event {
				p.event[name] = fmt.Sprint(value)
			}
			return p.event[attribute], nil
		case <-timeout:
			return "", fmt.Errorf("%s has not said its %s in 20 s: %s", p.Path, attribute, strings.Join(seen, "\n"))
		}
	}
}

// Again starts the program once more, with the same environment and what is added, and waits until it serves. The first
// may be running still.
func (p *Process) Again(environment ...string) (*Process, error) {
	again, err := startProcess(p.Path, slices.Concat(p.Env, environment))
	if err != nil {
		return nil, err
	}
	if _, err := again.await("https"); err != nil {
		again.stop()
		return nil, err
	}
	return again, nil
}

// Address is where a certservice serves the REST API, host:port.
func (p *Process) Address() string {
	return "127.0.0.1:" + p.event["https"][strings.LastIndexByte(p.event["https"], ':')+1:]
}

// Stop ends the program and waits for it.
func (p *Process) Stop() { p.stop() }

func (p *Process) stop() {
	if p == nil || p.Process == nil {
		return
	}
	_ = p.Process.Signal(os.Interrupt)
	_ = p.Wait()
}

// Roots are the trust anchors of mutual TLS.
func (s *Stack) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Transport.Root)
	return pool
}
