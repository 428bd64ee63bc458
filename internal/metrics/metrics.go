// Package metrics lets operators see how a sidecar is: its series in the Prometheus text format, and the
// probes that a kubelet asks. The names follow Prometheus' conventions: base units, counters that end in
// _total, moments as Unix time in seconds.
//
// It watches nothing by itself: all it knows it is told. It serves plain HTTP and no secret.
package metrics

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/verify"
)

// Metrics are the series of one process, in a set of their own. It is safe for concurrent use.
type Metrics struct {
	set   *metrics.Set
	now   func() time.Time
	valid atomic.Pointer[validity] // nil: nothing is published
	fault atomic.Pointer[string]   // of the published files; nil: none
	due   atomic.Pointer[time.Time]
}

type validity struct{ notBefore, notAfter time.Time }

// New makes the series that are there from the beginning. version is the program's.
func New(version string, now func() time.Time) *Metrics {
	m := &Metrics{set: metrics.NewSet(), now: now}
	m.set.NewGauge(fmt.Sprintf("certfetcher_build_info{version=%q,go_version=%q}", version, runtime.Version()), func() float64 { return 1 })
	for _, outcome := range []string{"updated", "enrolled", "failed"} {
		m.renewals(outcome)
	}
	for _, outcome := range []string{"ok", "failed"} {
		m.reloads(outcome)
	}
	m.set.NewCounter("certfetcher_restorations_total")
	return m
}

// Expect makes the series of what will be counted, so that the first event is seen as an increase from 0: the
// stages of CountFailure, the kinds and outcomes of CountNotification.
func (m *Metrics) Expect(stages, kinds, outcomes []string) {
	for _, stage := range stages {
		m.failures(stage)
	}
	for _, kind := range kinds {
		for _, outcome := range outcomes {
			m.notifications(kind, outcome)
		}
	}
}

// Write writes all series, the process's own (CPU, memory, files) at the end.
func (m *Metrics) Write(w io.Writer) {
	program.WriteSeries(w, m.set, help)
}

// SetCertificate tells which certificate is published.
func (m *Metrics) SetCertificate(leaf *x509.Certificate) {
	m.valid.Store(&validity{leaf.NotBefore, leaf.NotAfter})
	m.setTime("certfetcher_certificate_not_before_timestamp_seconds", leaf.NotBefore)
	m.setTime("certfetcher_certificate_expiry_timestamp_seconds", leaf.NotAfter)
}

// SetVolume tells whether the published files are there as they were published, or why they cannot be put back.
func (m *Metrics) SetVolume(err error) {
	if err == nil {
		m.fault.Store(nil)
		return
	}
	text := err.Error()
	m.fault.Store(&text)
}

// SetIdentity tells which identity of mutual TLS is in use, the one that its files hold.
func (m *Metrics) SetIdentity(leaf *x509.Certificate) {
	m.setTime("certfetcher_mtls_identity_not_before_timestamp_seconds", leaf.NotBefore)
	m.setTime("certfetcher_mtls_identity_expiry_timestamp_seconds", leaf.NotAfter)
	m.gauge(identityReloaded, 1)
}

// identityReloaded is 0 for as long as the files are not what is in use. The counter beside it cannot tell: it
// rises once for each change of the files, however long they stay unusable.
const identityReloaded = "certfetcher_mtls_identity_last_reload_successful"

// CountIdentityReload counts a replacement of that identity's files, and one that was unusable.
func (m *Metrics) CountIdentityReload(err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
		m.gauge(identityReloaded, 0)
	}
	m.reloads(outcome).Inc()
}

func (m *Metrics) reloads(outcome string) *metrics.Counter {
	return m.set.GetOrCreateCounter(fmt.Sprintf("certfetcher_mtls_identity_reloads_total{outcome=%q}", outcome))
}

// SetPlan tells when the renewal is due, when the next try will be, and how many have failed since the
// last success.
func (m *Metrics) SetPlan(due, next time.Time, failures int) {
	m.due.Store(&due) // years from 2262 on have no Unix time in nanoseconds
	m.set.GetOrCreateGauge("certfetcher_renewal_overdue_seconds", m.overdue)
	m.setTime("certfetcher_next_renewal_timestamp_seconds", next)
	m.gauge("certfetcher_renewal_failed_tries", float64(failures))
}

// overdue is for how long the renewal has been due.
func (m *Metrics) overdue() float64 {
	return max(0, m.now().Round(0).Sub(*m.due.Load()).Seconds())
}

// CountRenewal counts a renewal by how it was done, "updated" or "enrolled".
func (m *Metrics) CountRenewal(how string) { m.renewals(how).Inc() }

// CountFailure counts a failed try of a renewal, by the stage that failed.
func (m *Metrics) CountFailure(stage string) {
	m.renewals("failed").Inc()
	m.failures(stage).Inc()
}

func (m *Metrics) failures(stage string) *metrics.Counter {
	return m.set.GetOrCreateCounter(fmt.Sprintf("certfetcher_renewal_failures_total{stage=%q}", stage))
}

func (m *Metrics) renewals(outcome string) *metrics.Counter {
	return m.set.GetOrCreateCounter(fmt.Sprintf("certfetcher_renewals_total{outcome=%q}", outcome))
}

// CountRestoration counts that published files were put back.
func (m *Metrics) CountRestoration() {
	m.set.GetOrCreateCounter("certfetcher_restorations_total").Inc()
}

// CountNotification counts a try of telling the application, or of looking what it serves.
func (m *Metrics) CountNotification(kind, outcome string) {
	m.notifications(kind, outcome).Inc()
}

func (m *Metrics) notifications(kind, outcome string) *metrics.Counter {
	return m.set.GetOrCreateCounter(fmt.Sprintf("certfetcher_notifications_total{kind=%q,outcome=%q}", kind, outcome))
}

// SetServed tells whether the application serves the certificate that was published last. Before it is
// called, there is no such series.
func (m *Metrics) SetServed(matches bool) {
	value := 0.0
	if matches {
		value = 1
	}
	m.gauge("certfetcher_served_certificate_matches", value)
}

// Ready says why the application cannot count on a valid certificate; nil when it can.
func (m *Metrics) Ready() error {
	v := m.valid.Load()
	switch now := m.now().Round(0); {
	case v == nil:
		return errors.New("no certificate is published yet")
	case now.After(v.notAfter):
		return fmt.Errorf("the certificate expired at %s", v.notAfter.UTC().Format(time.RFC3339))
	case v.notBefore.After(now.Add(verify.Skew)):
		return fmt.Errorf("the certificate becomes valid only at %s: is this machine's clock right?", v.notBefore.UTC().Format(time.RFC3339))
	}
	if fault := m.fault.Load(); fault != nil {
		return errors.New(*fault)
	}
	return nil
}

func (m *Metrics) setTime(name string, t time.Time) { m.gauge(name, float64(t.UnixMilli())/1000) }

func (m *Metrics) gauge(name string, value float64) { m.set.GetOrCreateGauge(name, nil).Set(value) }
