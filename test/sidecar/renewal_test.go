package sidecar

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/port"
	"github.com/certfetcher/certfetcher/test/stack"
)

// renewals in a row, each of its own accord.
const renewals = 12

// startStack runs certservice and devca, whose certificates live for the given time.
func startStack(t *testing.T, dir, life string) *stack.Stack {
	t.Helper()
	s, err := stack.Start(binDir, dir, "DEVCA_VALIDITY="+life)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

func TestSidecar_renewalsInARow_underAReader(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"symlink", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := startStack(t, t.TempDir(), "20s")
			volume := filepath.Join(t.TempDir(), "volume")
			p := run(t, volume, append(environment(s.URL, s.Dir, volume), "RENEW_AT=3%", "OUTPUT_LAYOUT="+layout, "OUTPUT_TYPE=P12,JKS,PEM"))
			p.await(1, planned)
			r := startReader(volume, layout == "symlink")
			for n := 1; n <= renewals; n++ {
				p.await(n, updated)
			}
			p.await(renewals+1, planned)
			p.end()
			r.check(t, renewals)
			assert.Zero(t, p.count(anew))
			assert.Zero(t, p.count(putBack), "its own publications disturb nobody")
		})
	}
}

// door is an address that can be opened and closed, in front of a CertService that is not always the same.
type door struct {
	t        *testing.T
	address  string
	listener net.Listener
}

func (d *door) open(behind string) {
	d.t.Helper()
	var err error
	d.listener, err = net.Listen("tcp", d.address)
	require.NoError(d.t, err)
	listener := d.listener
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", behind)
			if err != nil {
				from.Close()
				continue
			}
			go pipe(from, to)
			go pipe(to, from)
		}
	}()
}

func pipe(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (d *door) close() { d.listener.Close() }

// host is that of a URL of a stack.
func host(url string) string { return url[len("https://") : len(url)-len("/v1/certificate/")] }

func TestSidecar_outageThroughTheExpiry_healsByItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startStack(t, dir, "16s")
	d := &door{t: t, address: port.Free(t)}
	d.open(host(s.URL))
	volume := filepath.Join(t.TempDir(), "volume")
	p := run(t, volume, append(environment("https://"+d.address+"/v1/certificate/", s.Dir, volume), "RENEW_AT=9/10"))
	p.await(1, planned)
	before, err := inspect.Dir(volume)
	require.NoError(t, err)
	status, text := p.get("/readyz")
	require.Equal(t, http.StatusOK, status, text)

	d.close()
	s.Stop()
	p.renew() // it would do so by itself, but at the end of the certificate's life
	p.awaitFailure(4)
	status, _ = p.get("/readyz")
	assert.Equal(t, http.StatusOK, status, "it is still valid")
	p.await(5, "renewing failed, and the certificate has expired; trying again")
	status, text = p.get("/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, text, "the certificate expired at ")
	assert.Positive(t, p.metric("certfetcher_renewal_overdue_seconds"))
	assert.GreaterOrEqual(t, p.metric(`certfetcher_renewal_failures_total{stage="connection"}`), 9.)
	assert.GreaterOrEqual(t, p.metric("certfetcher_renewal_failed_tries"), 9.)
	status, _ = p.get("/livez")
	assert.Equal(t, http.StatusOK, status)
	still, err := inspect.Dir(volume)
	require.NoError(t, err)
	assert.Equal(t, before, still, "what is on the volume stays")

	// What comes back is another CA behind another certservice, with another identity for its clients.
	s = startStack(t, dir, "1h")
	d.open(host(s.URL))
	t.Cleanup(func() { d.close() })
	reason := p.await(1, anew).text("error")
	assert.Contains(t, reason, "it expired at ")
	p.await(2, planned)
	status, text = p.get("/readyz")
	assert.Equal(t, http.StatusOK, status, text)
	assert.Zero(t, p.metric("certfetcher_renewal_failed_tries"))
	assert.Equal(t, 1., p.metric(`certfetcher_renewals_total{outcome="enrolled"}`))
	after, err := inspect.Dir(volume)
	require.NoError(t, err)
	assert.NotEqual(t, before.Certificate.Serial, after.Certificate.Serial)
	p.end()
	_, err = os.Stat(volume)
	assert.NoError(t, err)
}
