// Package load attacks and loads the built certservice inside a cgroup with the limits of the chart, and watches what
// well-behaved clients see meanwhile.
package load

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestMain(m *testing.M) { chaos.Main(m, map[string]func(string) int{"attack": attackOthers}) }

// service is certservice in its cgroup, with devca outside of it.
type service struct {
	*fixture.Stack
	t         *testing.T
	group     cgroup
	target    string      // its host:port
	trusted   *tls.Config // of a client with a certificate
	enrolment *http.Request
}

// chartLimit finds a limit in the chart's values.
func chartLimit(t *testing.T, pattern string) string {
	t.Helper()
	values := fixture.Must(os.ReadFile("../../../deploy/helm/certservice/values.yaml"))
	found := regexp.MustCompile("(?m)^" + pattern + "$").FindSubmatch(values)
	require.NotNil(t, found, pattern)
	return string(found[1])
}

// start runs certservice and devca, and CAs of the names that take connections and never answer.
func start(t *testing.T, hanging ...string) *service {
	t.Helper()
	return startWith(t, nil, hanging...)
}

func startWith(t *testing.T, environment []string, hanging ...string) *service {
	t.Helper()
	memory := chartLimit(t, `  limits: \{memory: (\d+M)i\}`) // as the kernel writes it
	s := &service{t: t, group: newCgroup(t, memory)}
	bin := t.TempDir()
	s.group.enter(t, bin+"/certservice", chaos.Bin+"/certservice")
	s.Stack = chaos.StartStack(t, bin, func(entry chaos.Server) []chaos.Server {
		all := []chaos.Server{entry}
		for _, name := range hanging {
			other := maps.Clone(entry)
			other["caName"], other["url"] = name, "http://"+chaos.Silent(t)+"/pkix/"
			all = append(all, other)
		}
		return all
	}, append(environment, "GOMEMLIMIT="+chartLimit(t, `goMemoryLimit: (\d+MiB)`))...)
	s.target = s.CertService.Address()
	s.trusted = chaos.Identity(s.Dir)
	s.enrolment = chaos.Enrolment(s.URL+"RA", "ECDSA-P256")
	return s
}

// memory is that of certservice in KiB, as the kernel counts it: VmRSS, or the peak VmHWM.
func (s *service) memory(name string) int { return chaos.Memory(s.CertService.Process.Pid, name) }

// asking is what a client does again and again, from an address of its own: on one connection, or on a fresh one for
// each request.
func asking(address string, config *tls.Config, fresh bool, request *http.Request, status int,
	seen *chaos.Latencies) func() {
	client := newClient(address, config, fresh)
	once := func() error { return chaos.Ask(client, request, status) }
	return func() { seen.Measure(once) }
}

func newClient(address string, config *tls.Config, fresh bool) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: from(address).DialContext, TLSClientConfig: config, DisableKeepAlives: fresh,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second}}
}

// observed is what well-behaved clients, and strangers that behave, see.
type observed struct{ trusted, strangers chaos.Latencies }

// observe has them ask for some seconds, during attacks.
func (s *service) observe(seconds int, attackers ...order) *observed {
	s.t.Helper()
	for _, one := range attackers {
		one.Target = s.target
		defer one.start(s.t)()
		time.Sleep(500 * time.Millisecond) // the attack first
	}
	w := &observed{}
	var clients, strangers []func()
	for i := range 8 {
		address := fmt.Sprintf("127.0.1.%d", 1+i)
		clients = append(clients, asking(address, s.trusted, i%4 == 3, s.enrolment, 200, &w.trusted))
	}
	for i := range 2 {
		address, config := fmt.Sprintf("127.0.2.%d", 1+i), &tls.Config{RootCAs: s.trusted.RootCAs}
		strangers = append(strangers, asking(address, config, true, s.enrolment, 401, &w.strangers))
	}
	endClients := chaos.Repeat(100*time.Millisecond, clients...)
	endStrangers := chaos.Repeat(250*time.Millisecond, strangers...)
	time.Sleep(time.Duration(seconds) * time.Second)
	endClients()
	endStrangers()
	require.NotEmpty(s.t, w.trusted.Took)
	return w
}

// underAttack observes the clients during attacks, which certservice survives, and serves the clients.
func (s *service) underAttack(seconds int, attackers ...order) *observed {
	s.t.Helper()
	w, name := s.observe(seconds, attackers...), attackers[0].Name
	s.requireAlive(name)
	for i, seen := range []*chaos.Latencies{&w.trusted, &w.strangers} {
		who := name + [...]string{", clients", ", strangers"}[i]
		failed := float64(len(seen.Failures)) / float64(len(seen.Took))
		assert.LessOrEqual(s.t, failed, mostFailures, "%s: %v", who, seen.Few())
		assert.Less(s.t, seen.Quantile(0.99), mostLatency, "%s: %v", who, seen)
	}
	return w
}

// requireAlive fails the test when certservice was ended.
func (s *service) requireAlive(where string) {
	s.t.Helper()
	require.Zero(s.t, s.group.oomKills(s.t), "%s: killed for want of memory", where)
	require.NotZero(s.t, s.memory("VmRSS"), "%s: certservice has ended: %s", where, s.CertService.Logged())
}
