package metrics

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stand is a time that tests move.
type stand struct{ now time.Time }

func newMetrics() (*Metrics, *stand) {
	s := &stand{time.Unix(1_800_000_000, 0)}
	return New("v1.2.3", func() time.Time { return s.now }), s
}

func leaf(s *stand) *x509.Certificate {
	return &x509.Certificate{NotBefore: s.now.Add(-time.Hour), NotAfter: s.now.Add(time.Hour)}
}

// series are the lines of this package's own series.
func series(m *Metrics) []string {
	var text strings.Builder
	m.Write(&text)
	var own []string
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "certfetcher_") {
			own = append(own, strings.TrimSpace(line))
		}
	}
	return own
}

func TestMetrics_Write_atTheStart_hasCountersAtZero(t *testing.T) {
	m, _ := newMetrics()
	lines := series(m)
	require.Len(t, lines, 7)
	assert.Regexp(t, `^certfetcher_build_info\{version="v1\.2\.3",go_version="go1\..*"\} 1$`, lines[0])
	assert.Equal(t, []string{
		`certfetcher_mtls_identity_reloads_total{outcome="failed"} 0`, `certfetcher_mtls_identity_reloads_total{outcome="ok"} 0`,
		`certfetcher_renewals_total{outcome="enrolled"} 0`, `certfetcher_renewals_total{outcome="failed"} 0`,
		`certfetcher_renewals_total{outcome="updated"} 0`, `certfetcher_restorations_total 0`,
	}, lines[1:])

	m.Expect([]string{"file"}, []string{"exec", "url"}, []string{"success", "failure"})
	for _, want := range []string{
		`certfetcher_renewal_failures_total{stage="file"} 0`,
		`certfetcher_notifications_total{kind="exec",outcome="success"} 0`, `certfetcher_notifications_total{kind="exec",outcome="failure"} 0`,
		`certfetcher_notifications_total{kind="url",outcome="success"} 0`, `certfetcher_notifications_total{kind="url",outcome="failure"} 0`,
	} {
		assert.Contains(t, series(m), want)
	}
}

func TestMetrics_Write_showsWhatItWasTold(t *testing.T) {
	m, s := newMetrics()
	m.SetCertificate(leaf(s))
	m.SetIdentity(leaf(s))
	m.CountIdentityReload(nil)
	m.CountIdentityReload(errors.New("unusable"))
	m.SetPlan(s.now.Add(-90*time.Second), s.now.Add(500*time.Millisecond), 3)
	m.CountRenewal("updated")
	m.CountFailure("connection")
	m.CountFailure("connection")
	m.CountRestoration()
	m.CountNotification("exec", "failure")
	m.SetServed(true)
	lines := series(m)
	for _, want := range []string{
		`certfetcher_certificate_not_before_timestamp_seconds 1799996400`,
		`certfetcher_certificate_expiry_timestamp_seconds 1800003600`,
		`certfetcher_mtls_identity_not_before_timestamp_seconds 1799996400`,
		`certfetcher_mtls_identity_expiry_timestamp_seconds 1800003600`,
		`certfetcher_mtls_identity_last_reload_successful 0`,
		`certfetcher_mtls_identity_reloads_total{outcome="ok"} 1`,
		`certfetcher_mtls_identity_reloads_total{outcome="failed"} 1`,
		`certfetcher_next_renewal_timestamp_seconds 1.8000000005e+09`,
		`certfetcher_renewal_overdue_seconds 90`,
		`certfetcher_renewal_failed_tries 3`,
		`certfetcher_renewals_total{outcome="updated"} 1`,
		`certfetcher_renewals_total{outcome="failed"} 2`,
		`certfetcher_renewal_failures_total{stage="connection"} 2`,
		`certfetcher_restorations_total 1`,
		`certfetcher_notifications_total{kind="exec",outcome="failure"} 1`,
		`certfetcher_served_certificate_matches 1`,
	} {
		assert.Contains(t, lines, want)
	}
	m.SetServed(false)
	assert.Contains(t, series(m), `certfetcher_served_certificate_matches 0`)
	m.SetIdentity(leaf(s))
	assert.Contains(t, series(m), `certfetcher_mtls_identity_last_reload_successful 1`)

	s.now = s.now.Add(-time.Hour)
	assert.Contains(t, series(m), `certfetcher_renewal_overdue_seconds 0`)
	var text strings.Builder
	m.Write(&text)
	assert.Contains(t, text.String(), "# HELP certfetcher_restorations_total Times that published files had vanished or changed and were put back.\n"+
		"# TYPE certfetcher_restorations_total counter\ncertfetcher_restorations_total 1\n")
	assert.Contains(t, text.String(), "# TYPE certfetcher_renewals_total counter\n")
	assert.Contains(t, text.String(), "# TYPE certfetcher_certificate_expiry_timestamp_seconds gauge\n")
}

func TestMetrics_certificateToTheYear9999_isNotOverdue(t *testing.T) {
	m, s := newMetrics()
	end := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	m.SetCertificate(&x509.Certificate{NotBefore: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: end})
	m.SetPlan(end.AddDate(-2600, 0, 0), end.AddDate(-2600, 0, 0), 0)
	lines := series(m)
	assert.Contains(t, lines, "certfetcher_renewal_overdue_seconds 0")
	assert.Contains(t, lines, "certfetcher_certificate_expiry_timestamp_seconds 253402300799")
	assert.Contains(t, lines, "certfetcher_certificate_not_before_timestamp_seconds -631152000")
	require.NoError(t, m.Ready())
	s.now = end.Add(time.Second)
	require.Error(t, m.Ready())
}

// Prometheus' conventions: lower case, a unit at the end, counters alone in _total.
func TestMetrics_names_followTheConventions(t *testing.T) {
	m, s := newMetrics()
	m.SetCertificate(leaf(s))
	m.SetIdentity(leaf(s))
	m.SetPlan(s.now, s.now, 0)
	m.CountFailure("file")
	m.CountNotification("url", "success")
	m.SetServed(false)
	for _, line := range series(m) {
		assert.Regexp(t, regexp.MustCompile(`^certfetcher_[a-z_]+(_seconds|_total|_info|_tries|_matches|_successful)(\{([a-z_]+="[^"]*",?)+\})? \S+$`), line)
	}
}

func TestHandler_paths(t *testing.T) {
	m, s := newMetrics()
	renewals := 0
	handler := m.Handler(func() { renewals++ })
	ask := func(method, path, peer string) (int, string) {
		request := httptest.NewRequest(method, path, nil)
		request.RemoteAddr = peer
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder.Code, recorder.Body.String()
	}
	const near, far = "127.0.0.1:1", "192.0.2.1:1"

	code, text := ask(http.MethodGet, "/livez", far)
	assert.Equal(t, http.StatusOK, code, text)
	code, text = ask(http.MethodGet, "/readyz", far)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "no certificate is published yet\n", text)
	m.SetCertificate(leaf(s))
	m.SetVolume(errors.New("no space left"))
	code, text = ask(http.MethodGet, "/readyz", far)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "no space left\n", text)
	m.SetVolume(nil)
	code, _ = ask(http.MethodGet, "/readyz", far)
	assert.Equal(t, http.StatusOK, code)
	s.now = s.now.Add(time.Hour + time.Second)
	code, text = ask(http.MethodGet, "/readyz", far)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "the certificate expired at 2027-01-15T09:00:00Z\n", text)
	s.now = s.now.Add(-2*time.Hour - time.Minute)
	code, _ = ask(http.MethodGet, "/readyz", far)
	assert.Equal(t, http.StatusOK, code, "a clock that is a little behind the CA's")
	s.now = s.now.Add(-time.Hour)
	code, text = ask(http.MethodGet, "/readyz", far)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "the certificate becomes valid only at 2027-01-15T07:00:00Z: is this machine's clock right?\n", text)
	code, text = ask(http.MethodGet, "/metrics", far)
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, text, "certfetcher_certificate_expiry_timestamp_seconds")

	code, text = ask(http.MethodPost, "/renew", far)
	assert.Equal(t, http.StatusForbidden, code)
	assert.Equal(t, "a renewal can be asked for from loopback only\n", text)
	code, _ = ask(http.MethodGet, "/renew", near)
	assert.Equal(t, http.StatusMethodNotAllowed, code)
	assert.Zero(t, renewals)
	for _, peer := range []string{near, "[::1]:1", "[::ffff:127.0.0.1]:1"} {
		code, _ = ask(http.MethodPost, "/renew", peer)
		assert.Equal(t, http.StatusAccepted, code, peer)
	}
	assert.Equal(t, 3, renewals)
}
