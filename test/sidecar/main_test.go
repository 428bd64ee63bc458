// Package sidecar runs the built certfetcher with MODE=sidecar as a pod would, against a real CertService
// on loopback whose certificates live for seconds, and looks at what a user sees: files, log, probes,
// metrics, and what applications serve.
package sidecar

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// binDir holds the programs under test, built once.
var binDir string

// roles are what the test binary is when its first argument says so.
var roles = map[string]func(args []string){}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		roles[os.Args[1]](os.Args[2:])
	}
	fixture.RunTests(m, &binDir)
}

// patience bounds waits for what happens at once unless something is wrong.
const patience = 30 * time.Second

// line is one line of a program's log.
type line map[string]any

func (l line) text(attribute string) string { return fmt.Sprint(l[attribute]) }

// duration is that of an attribute key, which the log has as key_ms.
func (l line) duration(key string) time.Duration {
	milliseconds, _ := l[key+"_ms"].(float64)
	return time.Duration(milliseconds * float64(time.Millisecond))
}

// sidecar is a running certfetcher.
type sidecar struct {
	t       tester
	cmd     *exec.Cmd
	volume  string
	address string // of the probes; empty: as logged

	mu    sync.Mutex
	log   []line
	grown chan struct{} // closed at the next line, and then another
	ended chan error
}

// environment is the least with which certfetcher runs against a CertService whose client identity is in dir.
func environment(url, dir, volume string) []string {
	return fixture.Environment(url, dir, volume,
		"MODE=sidecar", "HEALTH_ADDR=127.0.0.1:0", "POD_UID=test", "SANS=localhost,127.0.0.1",
		"KEYSTORE_PATH="+filepath.Join(dir, "client.p12"), "KEYSTORE_PASSWORD="+fixture.Password,
		"TRUSTSTORE_PATH="+filepath.Join(dir, "truststore.p12"), "TRUSTSTORE_PASSWORD="+fixture.Password,
		"RETRY_INITIAL_INTERVAL=5ms", "RETRY_MAX_INTERVAL=20ms", "RETRY_MAX_ELAPSED=300ms",
	)
}

// start runs certfetcher with a volume of its own; later variables take the place of earlier ones.
func start(t *testing.T, s *service.Service, variables ...string) *sidecar {
	t.Helper()
	volume := filepath.Join(t.TempDir(), "volume")
	return run(t, volume, append(environment(s.URL, s.Dir, volume), variables...))
}

// run runs certfetcher, by way of another program where there is one.
func run(t *testing.T, volume string, variables []string, by ...string) *sidecar {
	t.Helper()
	command := append(by, filepath.Join(binDir, "certfetcher"))
	p := newSidecar(t, volume, exec.Command(command[0], command[1:]...))
	p.cmd.Env = variables
	require.NoError(t, p.begin())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // where the test has not ended it
		if t.Failed() {
			t.Logf("certfetcher logged:\n%s", p.text())
		}
	})
	return p
}

// tester is what a test in Go and a script are alike in.
type tester interface {
	require.TestingT
	Helper()
}

func newSidecar(t tester, volume string, cmd *exec.Cmd) *sidecar {
	return &sidecar{t: t, volume: volume, cmd: cmd, grown: make(chan struct{}), ended: make(chan error, 1)}
}

func (p *sidecar) begin() error {
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			fields := line{}
			if json.Unmarshal(scanner.Bytes(), &fields) != nil {
				fields = line{"msg": scanner.Text()}
			}
			p.mu.Lock()
			p.log = append(p.log, fields)
			close(p.grown)
			p.grown = make(chan struct{})
			p.mu.Unlock()
		}
		p.ended <- p.cmd.Wait()
	}()
	return nil
}

func (p *sidecar) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, l := range p.log {
		encoded, _ := json.Marshal(l)
		fmt.Fprintf(&text, "%s\n", encoded)
	}
	return text.String()
}

// await returns the nth line that has the message, counted from 1.
func (p *sidecar) await(n int, message string) line {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		count, grown := 0, p.grown
		for _, l := range p.log {
			if l["msg"] == message {
				if count++; count == n {
					p.mu.Unlock()
					return l
				}
			}
		}
		p.mu.Unlock()
		select {
		case <-grown:
		case <-deadline:
			require.Fail(p.t, "a line did not come", "%q, %d times; %d came", message, n, count)
		}
	}
}

// The messages that tests wait for.
const (
	serving   = "serving probes and metrics"
	planned   = "the next renewal is planned" // at the start and after each renewal
	updated   = "the CertService renewed the certificate"
	published = "published"
	again     = "the certificate cannot be renewed, enrolling again"
	putBack   = "published files had vanished or changed; restored them"
)

func (p *sidecar) count(message string) int { return len(p.lines(message)) }

// lines returns all that have the message.
func (p *sidecar) lines(message string) (found []line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.log {
		if l["msg"] == message {
			found = append(found, l)
		}
	}
	return found
}

func (p *sidecar) url(path string) string {
	if p.address == "" {
		p.address = p.await(1, serving).text("address")
	}
	return "http://" + p.address + path
}

// get asks for a path of HEALTH_ADDR.
func (p *sidecar) get(path string) (int, string) {
	p.t.Helper()
	response, err := http.Get(p.url(path))
	require.NoError(p.t, err)
	defer response.Body.Close()
	body := fixture.Must(io.ReadAll(response.Body))
	return response.StatusCode, string(body)
}

// awaitReady is for tests that do not read the log.
func (p *sidecar) awaitReady() {
	p.t.Helper()
	eventually(p.t, "it is ready", func() bool {
		response, err := http.Get(p.url("/readyz"))
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
}

// renew asks for a renewal now.
func (p *sidecar) renew() {
	p.t.Helper()
	response, err := http.Post(p.url("/renew"), "", nil)
	require.NoError(p.t, err)
	require.NoError(p.t, response.Body.Close())
	require.Equal(p.t, http.StatusAccepted, response.StatusCode)
}

// metric is the value of a series, which must be there.
func (p *sidecar) metric(series string) float64 {
	p.t.Helper()
	value, ok := p.lookup(series)
	require.True(p.t, ok, "there is no series %s", series)
	return value
}

func (p *sidecar) lookup(series string) (float64, bool) {
	p.t.Helper()
	_, body := p.get("/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		return 0, false
	}
	value := fixture.Must(strconv.ParseFloat(found[1], 64))
	return value, true
}

// eventually waits for something that leaves no line in the log.
func eventually(t tester, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 2*time.Millisecond, what)
}

// end sends SIGTERM; the exit code must be 0.
func (p *sidecar) end() {
	p.t.Helper()
	p.endBy(syscall.SIGTERM)
}

func (p *sidecar) endBy(signal syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(signal))
	select {
	case err := <-p.ended:
		require.NoError(p.t, err)
	case <-time.After(patience):
		require.Fail(p.t, "certfetcher does not end")
	}
}

// startService runs a CertService whose certificates live from now for the given time.
func startService(t *testing.T, life time.Duration) *service.Service {
	t.Helper()
	return service.Run(t, service.Options{Wrap: func(s *service.Service, next http.Handler) http.Handler {
		s.CA.Change = func(leaf *x509.Certificate) {
			leaf.NotBefore = time.Now()
			leaf.NotAfter = leaf.NotBefore.Add(life)
		}
		return next
	}})
}

// once runs certfetcher to its end, and returns its exit code with what it printed.
func once(t *testing.T, variables []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	command := exec.Command(filepath.Join(binDir, "certfetcher"), args...)
	command.Env = variables
	var out, errs strings.Builder
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return command.ProcessState.ExitCode(), out.String(), errs.String()
}

func inspected(t tester, volume string) *inspect.Report {
	t.Helper()
	report, err := inspect.Dir(volume)
	require.NoError(t, err)
	return report
}

// snapshot is the content of every published file.
func snapshot(t tester, volume string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range inspected(t, volume).Files {
		content := fixture.Must(os.ReadFile(filepath.Join(volume, f.Name)))
		files[f.Name] = string(content)
	}
	return files
}
