package certservice

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/certfetcher/certfetcher/internal/program"
)

// latencyBuckets reach from an answer out of memory to a CA where people approve requests, in seconds.
var latencyBuckets = []float64{0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// help describes each series.
var help = map[string]string{
	"certservice_build_info":                               "Always 1; the labels are the program's version and that of Go.",
	"certservice_ca_in_flight_requests":                    "Enrolments and updates in progress for a CA.",
	"certservice_certificate_expiry_timestamp_seconds":     "End of the service's own certificate, in Unix time.",
	"certservice_certificate_not_before_timestamp_seconds": "Beginning of the service's own certificate, in Unix time.",
	"certservice_cmp_duration_seconds":                     "Duration of CMP transactions, in seconds.",
	"certservice_cmp_refusals_total":                       "Refusals by a CA, by the reasons that it gave (RFC 4210, PKIFailureInfo); a refusal with several reasons is counted for each, and one that is not authenticated as not_authenticated.",
	"certservice_config_faulty_servers":                    "Entries of cmpServers.json with a fault when it was last loaded; each keeps its last good version, or is missing.",
	"certservice_config_last_reload_successful":            "Whether cmpServers.json could be loaded as a whole when it was last read: 1 or 0.",
	"certservice_config_last_success_timestamp_seconds":    "When cmpServers.json was last loaded, in Unix time.",
	"certservice_config_reloads_total":                     "Readings of cmpServers.json, by outcome: ok, or failed when the last good one, or an entry of it, was kept.",
	"certservice_config_servers":                           "CMP servers in the configuration in use.",
	"certservice_connections":                              "Open connections, by the port's clients (verified, unverified, plain) and what they do: busy with a handshake or sending a request, idle, or active while a request is answered.",
	"certservice_connections_closed_total":                 "Connections closed for others, by clients (verified, unverified, plain) and reason: too many connections, too many bytes in memory, or a handshake that stalled.",
	"certservice_handshake_failures_total":                 "TLS handshakes that failed, by reason.",
	"certservice_identity_last_reload_successful":          "Whether the service's TLS files could be used when they were last read: 1 or 0.",
	"certservice_identity_reloads_total":                   "Replacements of the service's TLS files, by outcome: ok, or failed when the old identity was kept.",
	"certservice_in_flight_requests":                       "Enrolments and updates in progress.",
	"certservice_overloads_total":                          "Enrolments and updates refused with status 503, by CA and by the limit that was reached: total, ca (its maxInFlight), client, or cpu.",
	"certservice_request_duration_seconds":                 "Time to answer requests, in seconds.",
	"certservice_requests_total":                           "Requests answered, by CA (empty: none that is configured), operation (doctor: trials by certfetcher doctor) and outcome.",
}

// Metrics are the service's series, in a set of their own.
type Metrics struct {
	set        *metrics.Set
	inFlightOf atomic.Pointer[func(ca string) float64] // nil: no handler yet
}

// NewMetrics returns the series that exist from the start. version is the program's, for certservice_build_info.
func NewMetrics(version string) *Metrics {
	m := &Metrics{set: metrics.NewSet()}
	name := fmt.Sprintf("certservice_build_info{version=%q,go_version=%q}", version, runtime.Version())
	m.set.NewGauge(name, func() float64 { return 1 })
	m.set.NewGauge(identityReloaded, nil).Set(1) // the service does not start on files that it cannot use
	for _, counter := range []string{identityReloads, configReloads} {
		for _, outcome := range []string{"ok", "failed"} { // so that the first one is seen as an increase
			m.counter("%s{outcome=%q}", counter, outcome)
		}
	}
	return m
}

func (m *Metrics) counter(format string, args ...any) *metrics.Counter {
	return m.set.GetOrCreateCounter(fmt.Sprintf(format, args...))
}

func (m *Metrics) gauge(value func() float64, format string, args ...any) *metrics.Gauge {
	return m.set.GetOrCreateGauge(fmt.Sprintf(format, args...), value)
}

// Two gauges have the outcome of the last reading of files, 1 or 0. The counters cannot tell: they increase once for
// each change of the files, however long those stay unusable.
const (
	identityReloaded = "certservice_identity_last_reload_successful"
	configReloaded   = "certservice_config_last_reload_successful"
	identityReloads  = "certservice_identity_reloads_total"
	configReloads    = "certservice_config_reloads_total"
	configFaulty     = "certservice_config_faulty_servers"
)

// ObserveCertificate adds the validity of the service's own certificate, which leaf returns at every scrape.
func (m *Metrics) ObserveCertificate(leaf func() *x509.Certificate) {
	m.set.NewGauge("certservice_certificate_not_before_timestamp_seconds", func() float64 {
		return float64(leaf().NotBefore.Unix())
	})
	m.set.NewGauge("certservice_certificate_expiry_timestamp_seconds", func() float64 {
		return float64(leaf().NotAfter.Unix())
	})
}

// CountIdentityReload counts a replacement of the service's TLS identity, and an attempt that failed.
func (m *Metrics) CountIdentityReload(err error) {
	m.countReload(identityReloads, identityReloaded, err == nil)
}

func (m *Metrics) countReload(counter, last string, ok bool) {
	outcome, successful := "ok", 1.0
	if !ok {
		outcome, successful = "failed", 0
	}
	m.counter("%s{outcome=%q}", counter, outcome).Inc()
	m.set.GetOrCreateGauge(last, nil).Set(successful)
}

// Write writes all series in the Prometheus text format, the process's own (CPU, memory, files) at the end.
func (m *Metrics) Write(w io.Writer) {
	program.WriteSeries(w, m.set, help)
}

func (m *Metrics) text() []byte {
	var text bytes.Buffer
	m.Write(&text)
	return text.Bytes()
}

// observeConnections counts the connections of a pool by their state.
func (m *Metrics) observeConnections(clients string, p *pool) {
	for name, state := range map[string]connState{"busy": connBusy, "idle": connIdle, "active": connActive} {
		if clients == "unverified" && state != connBusy {
			continue // they send one request and disconnect
		}
		count := func() float64 { return p.count(state) }
		m.gauge(count, "certservice_connections{clients=%q,state=%q}", clients, name)
	}
	for _, reason := range []lossReason{lostToNumber, lostToBytes} { // so that the first one is seen as an increase
		m.lost(clients, reason)
	}
}

// observePlain counts the connections of the plain port by their state.
func (m *Metrics) observePlain(count func() (idle, active int)) {
	idle := func() float64 { n, _ := count(); return float64(n) }
	active := func() float64 { _, n := count(); return float64(n) }
	m.gauge(idle, `certservice_connections{clients="plain",state="idle"}`)
	m.gauge(active, `certservice_connections{clients="plain",state="active"}`)
	m.lost("plain", lostToNumber)
}

func (m *Metrics) lost(clients string, reason lossReason) *metrics.Counter {
	return m.counter("certservice_connections_closed_total{clients=%q,reason=%q}", clients, reason)
}

// observeInFlight adds how many requests are in progress, in total and for a CA.
func (m *Metrics) observeInFlight(count func() float64, countOf func(ca string) float64) {
	m.set.GetOrCreateGauge("certservice_in_flight_requests", count)
	m.inFlightOf.Store(&countOf)
}

// overloads counts requests refused by a bound.
func (m *Metrics) overloads(ca string, limit limitKind) *metrics.Counter {
	return m.counter("certservice_overloads_total{ca=%q,limit=%q}", ca, limit)
}

// observeRequest counts every request. The label ca is empty for names that are not configured: any client
// can make those up.
func (m *Metrics) observeRequest(e *event) {
	ca := ""
	if e.caKnown {
		ca = e.caName
	}
	operation := e.operation
	switch {
	case e.trial:
		operation = "doctor"
	case operation == "":
		operation = "none"
	}
	m.requests(ca, operation, e.outcome).Inc()
	m.histogram(fmt.Sprintf("certservice_request_duration_seconds{operation=%q}", operation), e.duration)
}

func (m *Metrics) requests(ca, operation string, o outcome) *metrics.Counter {
	return m.counter("certservice_requests_total{ca=%q,operation=%q,outcome=%q}", ca, operation, o)
}

// observeAuthority measures the CMP transaction alone.
func (m *Metrics) observeAuthority(e *event, took time.Duration, err error) {
	m.histogram(fmt.Sprintf("certservice_cmp_duration_seconds{ca=%q,operation=%q}", e.caName, e.operation), took)
	for _, info := range failInfoOf(err) {
		m.counter("certservice_cmp_refusals_total{ca=%q,fail_info=%q}", e.caName, info).Inc()
	}
}

func (m *Metrics) histogram(name string, took time.Duration) {
	m.set.GetOrCreatePrometheusHistogramExt(name, latencyBuckets).Update(took.Seconds())
}

// observeReload counts a reading of the configuration file. One that was loaded in part counts as failed, and another
// gauge says how many entries have faults.
func (m *Metrics) observeReload(l loading) {
	if l.err == nil {
		m.set.GetOrCreateGauge("certservice_config_servers", nil).Set(float64(len(l.authorities)))
		m.set.GetOrCreateGauge(configFaulty, nil).Set(float64(len(l.file.leftOut)))
		for ca := range l.authorities {
			m.expect(ca)
		}
	}
	ok := l.err == nil && len(l.file.leftOut) == 0
	if ok {
		m.set.GetOrCreateGauge("certservice_config_last_success_timestamp_seconds", nil).Set(float64(time.Now().Unix()))
	}
	m.countReload(configReloads, configReloaded, ok)
}

// expect creates the series of a CA, so that the first failure is seen as an increase.
func (m *Metrics) expect(ca string) {
	for _, operation := range []string{operationEnroll, operationUpdate} {
		for _, o := range []outcome{outcomeIssued, outcomeFailed, outcomeRefused} {
			m.requests(ca, operation, o)
		}
	}
	for _, limit := range []limitKind{limitTotal, limitCA, limitClient, limitCPU} {
		m.overloads(ca, limit)
	}
	m.gauge(func() float64 {
		if count := m.inFlightOf.Load(); count != nil {
			return (*count)(ca)
		}
		return 0
	}, "certservice_ca_in_flight_requests{ca=%q}", ca)
}
