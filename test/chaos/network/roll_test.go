package network

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
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
	clients            sync.WaitGroup
	stop               atomic.Bool
	succeeded, tries   atomic.Int64
	failed, unanswered atomic.Int64 // requests that failed for good, and tries that were sent and not answered
	longest            longest
}

// Write gets the log of the clients: a line for each try that is followed by another.
func (l *load) Write(line []byte) (int, error) {
	l.tries.Add(1)
	if bytes.Contains(line, []byte("without an answer")) ||
		bytes.Contains(line, []byte("in the middle of the answer")) {
		l.unanswered.Add(1)
	}
	return len(line), nil
}

// ask starts clients at the address, a host:port.
func (l *load) ask(t testing.TB, askers []asker, address string, retry *client.Retry) {
	log := slog.New(slog.NewJSONHandler(l, nil))
	for _, a := range askers {
		l.clients.Go(func() {
			for !l.stop.Load() {
				begin := time.Now()
				err := a.enroll(context.Background(), address, fixture.CAName, 30*time.Second, retry, log)
				if err != nil {
					l.failed.Add(1)
					t.Logf("failed: %v", err)
					continue
				}
				l.succeeded.Add(1)
				l.longest.Add(time.Since(begin))
			}
		})
	}
}

// end waits for what is under way.
func (l *load) end() {
	l.stop.Store(true)
	l.clients.Wait()
}

const (
	loadClients = 16
	pause       = 300 * time.Millisecond // between two rolls
)

var stubborn = &client.Retry{InitialInterval: 50 * time.Millisecond, MaxInterval: 500 * time.Millisecond,
	MaxElapsed: time.Minute}

// again starts an instance in place of one that ends, on its port.
func again(t testing.TB, p *fixture.Process, port string) *fixture.Process {
	t.Helper()
	for end := time.Now().Add(slack); ; {
		next, err := p.Again("HTTPS_PORT=" + port)
		if err == nil {
			return next
		}
		require.True(t, time.Now().Before(end), "%v", err)
		time.Sleep(20 * time.Millisecond)
	}
}

// TestRoll_twoInstances rolls as Kubernetes does: the next instance is ready, connections go to it, and then the first
// is told to end. No request fails, although none is tried again.
func TestRoll_twoInstances(t *testing.T) {
	s := startStack(t, "slow:200ms", nil)
	front := broken(t, host(s.URL), None)
	var l load
	l.ask(t, newAskers(t, s, loadClients), front.Address, nil)
	rolls, longest := chaos.Amount(1, 4, 25), time.Duration(0)
	for range rolls {
		next, err := s.CertService.Again()
		require.NoError(t, err)
		front.Lead(next.Address())
		time.Sleep(pause) // connections that were accepted before the change are let through
		begin := time.Now()
		require.NoError(t, s.CertService.Process.Signal(syscall.SIGTERM))
		require.NoError(t, s.CertService.Wait(), "certservice: %s", s.CertService.Logged())
		longest = max(longest, time.Since(begin))
		s.CertService = next
	}
	l.end()
	assert.Zero(t, l.failed.Load())
	assert.EqualValues(t, l.succeeded.Load(), issued(s), "certificates for as many answers")
	chaos.Record(t, "", rolls, loadClients, l.succeeded.Load(), l.failed.Load(), issued(s), longest.Seconds())
}

// TestRoll_onOnePort ends certservice, and starts it again on its port at once. What it has accepted is finished;
// clients that try again all succeed.
func TestRoll_onOnePort(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			s := startStack(t, "slow:200ms", nil)
			_, port, _ := strings.Cut(host(s.URL), ":")
			var l load
			l.ask(t, newAskers(t, s, loadClients), host(s.URL), stubborn)
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
			l.end()
			assert.Zero(t, l.failed.Load())
			wasted := int64(issued(s)) - l.succeeded.Load()
			if signal == syscall.SIGTERM {
				assert.Zero(t, wasted, "certificates issued and not handed out")
			} else {
				// Each kill loses what is in flight, which is no more than the clients.
				assert.LessOrEqual(t, wasted, int64(rolls*loadClients))
			}
			chaos.Record(t, "", signal, rolls, loadClients, l.succeeded.Load(), l.failed.Load(), l.tries.Load(),
				l.unanswered.Load(), wasted, l.longest.d.Seconds())
		})
	}
}
