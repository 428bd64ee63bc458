// Package metrics lets operators see how a sidecar is: its series in the Prometheus text format,
// and the probes that a kubelet asks. The names follow Prometheus' conventions: base units,
// counters that end in _total, moments as Unix time in seconds.
//
// It watches nothing by itself: its methods set and count. It serves plain HTTP and no secret.
//
// To add a series, define it below and write the method that counts or sets it.
package metrics

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/verify"
)

var (
	buildInfo = program.DefineGauge("certfetcher_build_info",
		"Always 1; the labels are the program's version and that of Go.", "version", "go_version")
	certificateEnd = program.DefineGauge("certfetcher_certificate_expiry_timestamp_seconds",
		"End of the published certificate, in Unix time.")
	certificateBegin = program.DefineGauge("certfetcher_certificate_not_before_timestamp_seconds",
		"Beginning of the published certificate, in Unix time.")
	identityEnd = program.DefineGauge("certfetcher_mtls_identity_expiry_timestamp_seconds",
		"End of the certificate shown to the CertService, in Unix time.")
	identityBegin = program.DefineGauge("certfetcher_mtls_identity_not_before_timestamp_seconds",
		"Beginning of the certificate shown to the CertService, in Unix time.")
	// It is 0 for as long as the files are not what is in use. identityReloads does not show that:
	// it rises once for each change of the files, however long they stay unusable.
	identityReloaded = program.DefineGauge("certfetcher_mtls_identity_last_reload_successful",
		"Whether the mutual TLS files could be used when they were last read: 1 or 0.")
	identityReloads = program.DefineCounter("certfetcher_mtls_identity_reloads_total",
		"Replacements of the mutual TLS files, by outcome: ok, or failed when the old identity was kept.", "outcome")
	nextRenewal = program.DefineGauge("certfetcher_next_renewal_timestamp_seconds",
		"When the certificate is renewed, or that is tried again, in Unix time.")
	notifications = program.DefineCounter("certfetcher_notifications_total",
		"Tries to notify the application of a certificate, or to see it served, by kind and outcome.",
		"kind", "outcome")
	renewalTries = program.DefineGauge("certfetcher_renewal_failed_tries",
		"Tries to renew that have failed since the last success.")
	renewalFailures = program.DefineCounter("certfetcher_renewal_failures_total",
		"Failed tries to renew, by the stage that failed.", "stage")
	renewalLastFailure = program.DefineGauge("certfetcher_renewal_last_failure_timestamp_seconds",
		"When a try to renew last failed, in Unix time, by the stage that failed; missing before the first.", "stage")
	renewalOverdue = program.DefineGauge("certfetcher_renewal_overdue_seconds",
		"For how long the renewal has been due; 0 before.")
	renewals = program.DefineCounter("certfetcher_renewals_total",
		"Tries to renew, by outcome: updated, enrolled, or failed.", "outcome")
	restorations = program.DefineCounter("certfetcher_restorations_total",
		"Times that published files had vanished or changed and were put back.")
	served = program.DefineGauge("certfetcher_served_certificate_matches",
		"Whether the application was last seen to serve the published certificate: 1 or 0.")
)

// Metrics are the series of one process, in a set of their own. It is safe for concurrent use.
type Metrics struct {
	*program.SeriesSet
	now   func() time.Time
	valid atomic.Pointer[x509.Certificate] // nil: nothing is published
	fault atomic.Pointer[string]           // of the published files; nil: none
	due   atomic.Pointer[time.Time]
	stage string // of CountFailure's last call
}

// New makes the series that are there from the beginning, so that the first event is seen as an
// increase from 0. version is the program's.
func New(version string, now func() time.Time) *Metrics {
	m := &Metrics{SeriesSet: program.NewSeriesSet(), now: now}
	m.gauge(buildInfo, 1, version, runtime.Version())
	for _, outcome := range []string{"updated", "enrolled", "failed"} {
		m.Counter(renewals, outcome)
	}
	for _, outcome := range []string{"ok", "failed"} {
		m.Counter(identityReloads, outcome)
	}
	m.Counter(restorations)
	return m
}

// Expect makes the series of what will be counted: the stages of CountFailure, the kinds and
// outcomes of CountNotification.
func (m *Metrics) Expect(stages, kinds, outcomes []string) {
	for _, stage := range stages {
		m.Counter(renewalFailures, stage)
	}
	for _, kind := range kinds {
		for _, outcome := range outcomes {
			m.Counter(notifications, kind, outcome)
		}
	}
}

func (m *Metrics) gauge(s *program.Series, value float64, labels ...any) {
	m.Gauge(s, nil, labels...).Set(value)
}

func (m *Metrics) setTime(s *program.Series, t time.Time) { m.gauge(s, float64(t.UnixMilli())/1000) }

// SetCertificate sets which certificate is published.
func (m *Metrics) SetCertificate(leaf *x509.Certificate) {
	m.valid.Store(leaf)
	m.setTime(certificateBegin, leaf.NotBefore)
	m.setTime(certificateEnd, leaf.NotAfter)
}

// SetVolume sets whether the published files are there as
// they were published, or why they cannot be put back.
func (m *Metrics) SetVolume(err error) {
	if err == nil {
		m.fault.Store(nil)
		return
	}
	m.fault.Store(new(err.Error()))
}

// SetIdentity sets which identity of mutual TLS is in use, the one that its files hold.
func (m *Metrics) SetIdentity(leaf *x509.Certificate) {
	m.setTime(identityBegin, leaf.NotBefore)
	m.setTime(identityEnd, leaf.NotAfter)
	m.gauge(identityReloaded, 1)
}

// CountIdentityReload counts a replacement of that identity's files, and one that was unusable.
func (m *Metrics) CountIdentityReload(err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
		m.gauge(identityReloaded, 0)
	}
	m.Counter(identityReloads, outcome).Inc()
}

// SetPlan sets when the renewal is due, when the next try
// will be, and how many have failed since the last success.
func (m *Metrics) SetPlan(due, next time.Time, failures int) {
	m.due.Store(&due) // years from 2262 on have no Unix time in nanoseconds
	m.Gauge(renewalOverdue, func() float64 {
		return max(0, m.now().Round(0).Sub(*m.due.Load()).Seconds())
	})
	m.setTime(nextRenewal, next)
	m.gauge(renewalTries, float64(failures))
}

// CountRenewal counts a renewal by how it was done, "updated" or "enrolled".
func (m *Metrics) CountRenewal(how string) { m.Counter(renewals, how).Inc() }

// CountFailure counts a failed try of a renewal, by the stage that failed. It is called by one
// goroutine at a time.
func (m *Metrics) CountFailure(stage string) {
	m.Remove(renewalLastFailure, m.stage)
	m.stage = stage
	m.Gauge(renewalLastFailure, nil, stage).Set(float64(m.now().Unix()))
	m.Counter(renewals, "failed").Inc()
	m.Counter(renewalFailures, stage).Inc()
}

// CountRestoration counts that published files were put back.
func (m *Metrics) CountRestoration() { m.Counter(restorations).Inc() }

// CountNotification counts a try to notify the application, or to look at what it serves.
func (m *Metrics) CountNotification(kind, outcome string) {
	m.Counter(notifications, kind, outcome).Inc()
}

// SetServed sets whether the application serves the certificate that was published last. Before it
// is called, there is no such series.
func (m *Metrics) SetServed(matches bool) {
	value := 0.0
	if matches {
		value = 1
	}
	m.gauge(served, value)
}

// Ready says why the application cannot count on a valid certificate; nil when it can.
func (m *Metrics) Ready() error {
	leaf, fault := m.valid.Load(), m.fault.Load()
	switch now := m.now().Round(0); {
	case leaf == nil:
		return errors.New("no certificate is published yet")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(verify.Skew)):
		return fmt.Errorf("the certificate becomes valid only at %s: is this machine's clock right?",
			leaf.NotBefore.UTC().Format(time.RFC3339))
	case fault != nil:
		return errors.New(*fault)
	}
	return nil
}

// Handler serves
//
//	GET  /livez    200 while the process serves
//	GET  /readyz   200 when a valid certificate is published; else 503 and why
//	GET  /metrics  the series
//	POST /renew    202: renew is called, and a renewal begins; 403 for peers that are not on loopback
func (m *Metrics) Handler(renew func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := m.Ready(); err != nil {
			respond(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		respond(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", program.SeriesContentType)
		m.Write(w)
	})
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !peer.Addr().IsLoopback() {
			respond(w, http.StatusForbidden, "a renewal can be requested from loopback only")
			return
		}
		renew()
		respond(w, http.StatusAccepted, "a renewal begins")
	})
	return mux
}

func respond(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a peer that has gone needs no answer
}

// maxConnections is more than a kubelet and a Prometheus or
// two need. All the cluster may reach the port.
const maxConnections = 32

// Serve serves the handler until ctx ends. It then closes what is in flight: a probe of a process
// that ends has no answer worth waiting for.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	bounded := program.ListenFairly(listener, maxConnections, nil)
	server := &http.Server{
		Handler: handler, ConnState: bounded.ConnState, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(bounded); ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", listener.Addr(), err)
	}
	return nil
}
