package network

import (
	"hash/fnv"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// bin has the programs under test, built once as for the images.
var bin string

func TestMain(m *testing.M) {
	fixture.UseMemory()
	fixture.RunTests(m, &bin)
}

// slack is what a loaded machine may take longer than the configured times say.
const slack = 20 * time.Second

// random returns a source of faults for the test and the n-th of its runs. CHAOS_SEED repeats a series.
func random(t testing.TB) func(n int) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("CHAOS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err, "CHAOS_SEED")
	}
	t.Logf("CHAOS_SEED=%d repeats these faults", seed)
	name := fnv.New64a()
	name.Write([]byte(t.Name()))
	return func(n int) *rand.Rand { return rand.New(rand.NewPCG(seed^name.Sum64(), uint64(n))) }
}

// broken is Listen for the time of the test.
func broken(t testing.TB, upstream string, draw func() Fault) *Broken {
	t.Helper()
	b, err := Listen(upstream, draw)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

// startStack starts devca, with a fault of its own unless that is empty, and certservice; toCA may put something
// between them: it gets the CA's address and returns the one to use. Nil: nothing.
func startStack(t testing.TB, fault string, toCA func(string) string, more ...string) *fixture.Stack {
	t.Helper()
	dir := t.TempDir()
	authority, server, err := fixture.StartDevCA(bin, dir, "DEVCA_FAULT="+fault)
	require.NoError(t, err)
	if toCA != nil {
		at, err := url.Parse(server["url"].(string))
		require.NoError(t, err)
		at.Host = toCA(at.Host)
		server["url"] = at.String()
		server["timeout"] = "3s"
	}
	s, err := fixture.StartCertService(bin, dir, server, more...)
	return with(t, s, err, authority)
}

// with makes the CA one of the stack, which ends with the test; err is that of starting the rest of it.
func with(t testing.TB, s *fixture.Stack, err error, authority *fixture.Process) *fixture.Stack {
	t.Helper()
	if err != nil {
		authority.Stop()
	}
	require.NoError(t, err)
	s.DevCA = authority
	t.Cleanup(s.Stop)
	return s
}

// host is the host:port of a CertService's URL.
func host(address string) string {
	return strings.TrimSuffix(strings.TrimPrefix(address, "https://"), "/v1/certificate/")
}

// issued is how many certificates the CA has issued.
func issued(s *fixture.Stack) int { return strings.Count(s.DevCA.Logged(), `"certificate issued"`) }

// fetcher returns a certfetcher that asks the CertService at the address, a host:port, with the identity in dir.
func fetcher(address, dir, volume string, variables ...string) *exec.Cmd {
	cmd := exec.Command(bin + "/certfetcher")
	cmd.Env = fixture.Environment("https://"+address+"/v1/certificate/", dir, volume,
		append([]string{"OUTPUT_TYPE=PEM", "SANS=app.example.org", "HEALTH_ADDR=off"}, variables...)...)
	return cmd
}

// run runs a program to its end, which is forced when it takes longer than the bound and the slack.
func run(t testing.TB, bound time.Duration, cmd *exec.Cmd) *chaos.Process {
	t.Helper()
	p := chaos.Start(t, cmd)
	p.Wait(bound + slack)
	return p
}

// longest is the longest of durations.
type longest struct {
	mu sync.Mutex
	d  time.Duration
}

// Add takes one of them.
func (l *longest) Add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.d = max(l.d, d)
}
