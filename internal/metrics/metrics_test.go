package metrics

import (
	"crypto/x509"
	"errors"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func newMetrics() (*Metrics, *clock) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	return New("v1.2.3", func() time.Time { return c.now }), c
}

func leaf(c *clock) *x509.Certificate {
	return &x509.Certificate{NotBefore: c.now.Add(-time.Hour), NotAfter: c.now.Add(time.Hour)}
}

// written are the lines of this package's own series.
func written(m *Metrics) string {
	var text, own strings.Builder
	m.Write(&text)
	for line := range strings.Lines(text.String()) {
		if strings.Contains(line, "certfetcher_") {
			own.WriteString(line)
		}
	}
	return regexp.MustCompile(`go_version="go1\.[^"]*"`).ReplaceAllString(own.String(), `go_version="go1"`)
}

func golden(t *testing.T, name string) string {
	t.Helper()
	content := fixture.Must(os.ReadFile("testdata/" + name))
	return string(content)
}

func TestMetrics_Write(t *testing.T) {
	m, c := newMetrics()
	m.Expect([]string{"file"}, []string{"exec", "url"}, []string{"success", "failure"})
	assert.Equal(t, golden(t, "start.txt"), written(m), "counters begin at 0")
	m.SetCertificate(leaf(c))
	m.SetIdentity(leaf(c))
	m.CountIdentityReload(nil)
	m.CountIdentityReload(errors.New("unusable"))
	m.SetPlan(c.now.Add(-90*time.Second), c.now.Add(500*time.Millisecond), 3)
	m.CountRenewal("updated")
	m.CountFailure("file")
	m.CountFailure("connection")
	m.CountFailure("connection")
	m.CountRestoration()
	m.CountNotification("exec", "failure")
	m.SetServed(true)
	assert.Equal(t, golden(t, "all.txt"), written(m))
	m.SetServed(false)
	m.SetIdentity(leaf(c))
	c.now = c.now.Add(-time.Hour)
	text := written(m)
	assert.Contains(t, text, "\ncertfetcher_served_certificate_matches 0\n")
	assert.Contains(t, text, "\ncertfetcher_mtls_identity_last_reload_successful 1\n")
	assert.Contains(t, text, "\ncertfetcher_renewal_overdue_seconds 0\n")
}

// Prometheus' conventions: lower case, a unit at the end, counters alone in _total.
func TestMetrics_names_followTheConventions(t *testing.T) {
	types := 0
	for line := range strings.Lines(golden(t, "all.txt")) {
		words := strings.Fields(line)
		if words[1] != "TYPE" {
			continue
		}
		types++
		assert.Regexp(t, `^certfetcher_[a-z_]+(_seconds|_total|_info|_tries|_matches|_successful)$`, words[2])
		assert.Equal(t, strings.HasSuffix(words[2], "_total"), words[3] == "counter", words[2])
	}
	assert.Equal(t, 16, types)
}

func TestMetrics_certificateToTheYear9999_isNotOverdue(t *testing.T) {
	m, c := newMetrics()
	end := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	m.SetCertificate(&x509.Certificate{NotBefore: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: end})
	m.SetPlan(end.AddDate(-2600, 0, 0), end.AddDate(-2600, 0, 0), 0)
	text := written(m)
	assert.Contains(t, text, "\ncertfetcher_renewal_overdue_seconds 0\n")
	assert.Contains(t, text, "\ncertfetcher_certificate_expiry_timestamp_seconds 253402300799\n")
	assert.Contains(t, text, "\ncertfetcher_certificate_not_before_timestamp_seconds -631152000\n")
	require.NoError(t, m.Ready())
	c.now = end.Add(time.Second)
	require.Error(t, m.Ready())
}

func TestHandler_paths(t *testing.T) {
	m, c := newMetrics()
	renewals, published := 0, leaf(c)
	handler := m.Handler(func() { renewals++ })
	publish := func() { m.SetCertificate(published) }
	damage, repair := func() { m.SetVolume(errors.New("no space left")) }, func() { m.SetVolume(nil) }
	move := func(d time.Duration) func() { return func() { c.now = published.NotAfter.Add(d) } }
	for _, row := range []struct {
		sentence      string
		before        func()
		request, peer string
		status        int
		text          string
	}{
		{"it lives", nil, "GET /livez", "192.0.2.1:1", 200, "ok\n"},
		{"nothing is there", nil, "GET /readyz", "192.0.2.1:1", 503, "no certificate is published yet\n"},
		{"it is published", publish, "GET /readyz", "192.0.2.1:1", 200, "ok\n"},
		{"a file is missing", damage, "GET /readyz", "192.0.2.1:1", 503, "no space left\n"},
		{"it is back", repair, "GET /readyz", "192.0.2.1:1", 200, "ok\n"},
		{"it has expired", move(time.Second), "GET /readyz", "192.0.2.1:1", 503,
			"the certificate expired at 2027-01-15T09:00:00Z\n"},
		{"our clock is behind by a little", move(-2*time.Hour - time.Minute), "GET /readyz",
			"192.0.2.1:1", 200, "ok\n"},
		{"our clock is wrong", move(-3 * time.Hour), "GET /readyz", "192.0.2.1:1", 503,
			"the certificate becomes valid only at 2027-01-15T07:00:00Z: is this machine's clock right?\n"},
		{"a peer far away", nil, "POST /renew", "192.0.2.1:1", 403, "a renewal can be requested from loopback only\n"},
		{"the wrong method", nil, "GET /renew", "127.0.0.1:1", 405, "Method Not Allowed\n"},
		{"IPv4", nil, "POST /renew", "127.0.0.1:1", 202, "a renewal begins\n"},
		{"IPv6", nil, "POST /renew", "[::1]:1", 202, "a renewal begins\n"},
		{"IPv4 in IPv6", nil, "POST /renew", "[::ffff:127.0.0.1]:1", 202, "a renewal begins\n"},
	} {
		if row.before != nil {
			row.before()
		}
		method, path, _ := strings.Cut(row.request, " ")
		request := httptest.NewRequest(method, path, nil)
		request.RemoteAddr = row.peer
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		assert.Equal(t, row.status, recorder.Code, row.sentence)
		assert.Equal(t, row.text, recorder.Body.String(), row.sentence)
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	assert.Contains(t, recorder.Body.String(), "certfetcher_certificate_expiry_timestamp_seconds 1800003600\n")
	assert.Equal(t, 3, renewals)
}
