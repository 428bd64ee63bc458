package network

import (
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// load is clients that ask one after the other for as long as certservice is killed and rolled.
type load struct {
	chaos.Latencies
	tries, unanswered atomic.Int64 // followed by another; of those, sent and not answered
}

// Write gets the log of the clients: a line for each try that is followed by another.
func (l *load) Write(line []byte) (int, error) {
	l.tries.Add(1)
	if unanswered.Match(line) {
		l.unanswered.Add(1)
	}
	return len(line), nil
}

var unanswered = regexp.MustCompile("without an answer|in the middle of the answer")

// ask starts clients at the address, a host:port. The end waits for what is under way.
func (l *load) ask(t testing.TB, s *fixture.Stack, address string, retry *client.Retry) (end func()) {
	t.Helper()
	var clients []func()
	log := slog.New(slog.NewJSONHandler(l, nil))
	for _, enroll := range newAskers(t, s, loadClients, address, fixture.CAName, retry, log) {
		clients = append(clients, func() { l.Measure(enroll) })
	}
	return chaos.Repeat(0, clients...)
}

const (
	loadClients = 16
	pause       = 300 * time.Millisecond // between two rolls
)

// again starts an instance in place of one that ends, on its port.
func again(t testing.TB, p *fixture.Process, port string) *fixture.Process {
	t.Helper()
	var next *fixture.Process
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var err error
		next, err = p.Again("HTTPS_PORT=" + port)
		require.NoError(c, err)
	}, slack, 20*time.Millisecond)
	return next
}

// TestRoll_twoInstances rolls as Kubernetes does: the next instance is ready, connections go to it, and then the first
// is told to end. No request fails, although none is tried again.
func TestRoll_twoInstances(t *testing.T) {
	s := startStack(t, nil, "DEVCA_FAULT=slow:200ms")
	front := broken(t, host(s.URL), None)
	var l load
	end := l.ask(t, s, front.Address, nil)
	rolls, longest := chaos.Amount(1, 4, 25), time.Duration(0)
	for range rolls {
		next := fixture.Must(s.CertService.Again())
		front.Lead(next.Address())
		time.Sleep(pause) // connections that were accepted before the change are let through
		begin := time.Now()
		require.NoError(t, s.CertService.Process.Signal(syscall.SIGTERM))
		require.NoError(t, s.CertService.Wait(), "certservice: %s", s.CertService.Logged())
		longest = max(longest, time.Since(begin))
		s.CertService = next
	}
	end()
	failed := len(l.Failures)
	answered := len(l.Took) - failed
	assert.Zero(t, failed, l.Few())
	assert.Equal(t, answered, issued(s.DevCA), "certificates for as many answers")
	chaos.Record(t, "", rolls, loadClients, answered, failed, issued(s.DevCA), longest.Seconds())
}

// TestRoll_onOnePort ends certservice, and starts it again on its port at once. What it has accepted is finished;
// clients that try again all succeed.
func TestRoll_onOnePort(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			s := startStack(t, nil, "DEVCA_FAULT=slow:200ms")
			_, port, _ := strings.Cut(host(s.URL), ":")
			var l load
			end := l.ask(t, s, host(s.URL), stubborn)
			rolls := chaos.Amount(1, 4, 25)
			for range rolls {
				time.Sleep(pause)
				old := s.CertService
				require.NoError(t, old.Process.Signal(signal))
				s.CertService = again(t, old, port)
				err := old.Wait()
				if signal == syscall.SIGTERM {
					require.NoError(t, err, old.Logged())
				}
			}
			end()
			failed := len(l.Failures)
			answered := len(l.Took) - failed
			assert.Zero(t, failed, l.Few())
			wasted := issued(s.DevCA) - answered
			if signal == syscall.SIGTERM {
				assert.Zero(t, wasted, "certificates issued and not handed out")
			}
			// Each kill loses what is in flight, which is no more than the clients.
			assert.LessOrEqual(t, wasted, rolls*loadClients)
			chaos.Record(t, "", signal, rolls, loadClients, answered, failed, l.tries.Load(),
				l.unanswered.Load(), wasted, l.Quantile(1).Seconds())
		})
	}
}
