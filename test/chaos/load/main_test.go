// Package load attacks and loads the built certservice inside a cgroup with the limits of the chart, and watches what
// well-behaved clients see meanwhile.
package load

import (
	"crypto/tls"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// binDir holds the built programs.
var binDir string

func TestMain(m *testing.M) {
	if os.Getenv("LOAD_ATTACK") != "" {
		os.Exit(attackForOthers())
	}
	fixture.RunTests(m, &binDir)
}

// service is certservice in its cgroup, with devca outside of it.
type service struct {
	*fixture.Stack
	t      *testing.T
	group  *cgroup
	target string // host:port
	dir    string // with cmpServers.json
}

// chartLimits are those of the chart's values: the memory of the container, and GOMEMLIMIT.
func chartLimits(t *testing.T) (memory int64, goMemory string) {
	t.Helper()
	values, err := os.ReadFile("../../../deploy/helm/certservice/values.yaml")
	require.NoError(t, err)
	limit := regexp.MustCompile(`(?m)^  limits: \{memory: (\d+)Mi\}$`).FindSubmatch(values)
	runtime := regexp.MustCompile(`(?m)^goMemoryLimit: (\d+MiB)$`).FindSubmatch(values)
	require.NotNil(t, limit)
	require.NotNil(t, runtime)
	mebibytes, err := strconv.ParseInt(string(limit[1]), 10, 64)
	require.NoError(t, err)
	return mebibytes << 20, string(runtime[1])
}

// start runs certservice and devca.
func start(t *testing.T, environment ...string) *service {
	t.Helper()
	memory, goMemory := chartLimits(t)
	s := &service{t: t, group: newCgroup(t, memory)}
	s.dir = t.TempDir()
	bin := t.TempDir()
	require.NoError(t, os.Symlink(binDir+"/devca", bin+"/devca"))
	s.group.enter(t, bin+"/certservice", binDir+"/certservice")
	var err error
	s.Stack, err = fixture.StartStack(bin, s.dir, append([]string{"GOMEMLIMIT=" + goMemory}, environment...)...)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	address, err := url.Parse(s.URL)
	require.NoError(t, err)
	s.target = address.Host
	return s
}

// resident is the memory of certservice in KiB, as the kernel counts it.
func (s *service) resident() int { return chaos.Memory(s.CertService.Process.Pid, "VmRSS") }

// peak is the most that it ever had.
func (s *service) peak() int { return chaos.Memory(s.CertService.Process.Pid, "VmHWM") }

// requireAlive fails the test when certservice was ended.
func (s *service) requireAlive(where string) {
	s.t.Helper()
	require.Zero(s.t, s.group.oomKills(s.t), "%s: killed for want of memory", where)
	require.NotZero(s.t, s.resident(), "%s: certservice has ended: %s", where, s.CertService.Logged())
}

// clientTLS is the configuration of a client with a certificate.
func (s *service) clientTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{chaos.Identity(s.t, s.Dir)}, RootCAs: s.Roots()}
}
