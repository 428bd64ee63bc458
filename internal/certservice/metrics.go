package certservice

import (
	"bytes"
	"crypto/x509"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
)

// latencyBuckets reach from an answer out of memory to a CA
// where people approve requests, in seconds.
var latencyBuckets = []float64{0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// The gauges of the last reading of files say 1 or 0. The counters of readings cannot tell: they
// increase once for each change of the files, however long those stay unusable.
var (
	buildInfo = program.DefineGauge("certservice_build_info",
		"Always 1; the labels are the program's version and that of Go.", "version", "go_version")
	caInFlight = program.DefineGauge("certservice_ca_in_flight_requests",
		"Enrolments and updates in progress for a CA.", "ca")
	caQueued = program.DefineGauge("certservice_ca_queued_requests",
		"Enrolments and updates that wait for a CA to have room.", "ca")
	caRate = program.DefineGauge("certservice_ca_requests_per_second",
		"Enrolments and updates that a CA answers in a second while it has enough to do, as measured "+
			"when it last had; 0: not known yet.", "ca")
	certificateEnd = program.DefineGauge("certservice_certificate_expiry_timestamp_seconds",
		"End of the service's own certificate, in Unix time.")
	certificateBegin = program.DefineGauge("certservice_certificate_not_before_timestamp_seconds",
		"Beginning of the service's own certificate, in Unix time.")
	crlEnd = program.DefineGauge("certservice_client_crl_next_update_timestamp_seconds",
		"End of the newest CRL of an issuer (nextUpdate), in Unix time; the first to end where it"+
			" has several, as for two keys.", "issuer")
	crlReloaded = program.DefineGauge("certservice_client_crl_last_reload_successful",
		"Whether all files of CLIENT_CRL_PATH could be used when they were last read: 1 or 0.")
	crlReloads = program.DefineCounter("certservice_client_crl_reloads_total",
		"Readings of CLIENT_CRL_PATH, by outcome: ok, or failed when the last good CRLs of a file"+
			" were kept.", "outcome")
	cmpDuration = program.DefineHistogram("certservice_cmp_duration_seconds",
		"Duration of CMP transactions, in seconds.", "ca", "operation")
	cmpRefusals = program.DefineCounter("certservice_cmp_refusals_total",
		"Refusals by a CA, by the reasons that it gave (RFC 4210, PKIFailureInfo); a refusal "+
			"with several reasons is counted for each, and one that is not authenticated as "+
			"not_authenticated.", "ca", "fail_info")
	configFaulty = program.DefineGauge("certservice_config_faulty_servers",
		"Entries of cmpServers.json with a fault when it was last loaded; each keeps its last"+
			" good version, or is missing.")
	configReloaded = program.DefineGauge("certservice_config_last_reload_successful",
		"Whether cmpServers.json could be loaded as a whole when it was last read: 1 or 0.")
	configSuccess = program.DefineGauge("certservice_config_last_success_timestamp_seconds",
		"When cmpServers.json was last loaded, in Unix time.")
	configReloads = program.DefineCounter("certservice_config_reloads_total",
		"Readings of cmpServers.json, by outcome: ok, or failed when the last good one, or an"+
			" entry of it, was kept.", "outcome")
	configServers = program.DefineGauge("certservice_config_servers",
		"CMP servers in the configuration in use.")
	connectionsOpen = program.DefineGauge("certservice_connections",
		"Open connections, by the port's clients (verified, unverified, plain) and what they "+
			"do: busy with a handshake or sending a request, idle, or active while a request is "+
			"answered.", "clients", "state")
	connectionsLost = program.DefineCounter("certservice_connections_closed_total",
		"Connections closed for others, by clients (verified, unverified, plain) and reason: "+
			"too many connections, too many bytes in memory, or a handshake that stalled.", "clients", "reason")
	handshakeFailures = program.DefineCounter("certservice_handshake_failures_total",
		"TLS handshakes that failed, by reason.", "reason")
	identityReloaded = program.DefineGauge("certservice_identity_last_reload_successful",
		"Whether the service's TLS files could be used when they were last read: 1 or 0.")
	identityReloads = program.DefineCounter("certservice_identity_reloads_total",
		"Replacements of the service's TLS files, by outcome: ok, or failed when the old "+
			"identity was kept.", "outcome")
	inFlight = program.DefineGauge("certservice_in_flight_requests",
		"Enrolments and updates in progress.")
	overloads = program.DefineCounter("certservice_overloads_total",
		"Enrolments and updates refused with status 503, by CA and by the limit that was reached: "+
			"wait (the answer would come too late), total, ca (its share), client, or cpu.", "ca", "limit")
	policyDecisions = program.DefineCounter("certservice_policy_decisions_total",
		"Decisions of the policy, by rule (empty: none fits), operation and decision: allowed, "+
			"warned (the policy only warns), refused, or limited by the rule's rate.", "rule", "operation", "decision")
	policyLoaded = program.DefineGauge("certservice_policy_loaded",
		"1, or 0 when the service runs without a policy, so that every client may ask for every name.")
	policyReloaded = program.DefineGauge("certservice_policy_last_reload_successful",
		"Whether the policy could be loaded when it was last read: 1 or 0.")
	policyReloads = program.DefineCounter("certservice_policy_reloads_total",
		"Readings of the policy, by outcome: ok, or failed when the last good one was kept.", "outcome")
	policyRules = program.DefineGauge("certservice_policy_rules",
		"Rules of the policy in use.")
	policySuccess = program.DefineGauge("certservice_policy_last_success_timestamp_seconds",
		"When the policy was last loaded, in Unix time.")
	policyWarnOnly = program.DefineGauge("certservice_policy_warn_only",
		"1 when the policy in use only warns (mode: warn), else 0.")
	requestDuration = program.DefineHistogram("certservice_request_duration_seconds",
		"Time to answer requests, in seconds.", "operation")
	requestsTotal = program.DefineCounter("certservice_requests_total",
		"Requests answered, by CA (empty: none that is configured), operation (doctor: trials"+
			" by certfetcher doctor) and outcome.", "ca", "operation", "outcome")
	tokenKeys = program.DefineGauge("certservice_token_keys",
		"Keys of the token issuer that are in use.")
	tokenKeysRead = program.DefineGauge("certservice_token_keys_last_read_successful",
		"Whether the keys of the token issuer could be read the last time: 1 or 0.")
	tokenKeysSuccess = program.DefineGauge("certservice_token_keys_last_success_timestamp_seconds",
		"When the keys of the token issuer were last read, in Unix time.")
	tokenRejections = program.DefineCounter("certservice_token_rejections_total",
		"Tokens of clients that were not valid, by reason.", "reason")
)

// Metrics are the service's series, in a set of their own.
type Metrics struct {
	*program.SeriesSet
	admission   atomic.Pointer[admission.Queue[clientKey]] // nil: no handler yet
	version     string                                     // of the program
	rules       ruleLabels
	readings    readings // for the status page
	connections connectionCounts
}

// NewMetrics returns the series that exist from the start. version is the program's, for
// certservice_build_info.
func NewMetrics(version string) *Metrics {
	m := &Metrics{SeriesSet: program.NewSeriesSet(), version: version}
	m.Gauge(buildInfo, nil, version, runtime.Version()).Set(1)
	m.Gauge(policyLoaded, nil).Set(0)
	m.Gauge(identityReloaded, nil).Set(1) // the service does not start with files that it cannot use
	for _, counter := range []*program.Series{identityReloads, configReloads} {
		for _, outcome := range []string{"ok", "failed"} { // so that the first one is seen as an increase
			m.Counter(counter, outcome)
		}
	}
	return m
}

// ObserveCertificate adds the validity of the service's own
// certificate, which leaf returns at every scrape.
func (m *Metrics) ObserveCertificate(leaf func() *x509.Certificate) {
	m.Gauge(certificateBegin, func() float64 { return float64(leaf().NotBefore.Unix()) })
	m.Gauge(certificateEnd, func() float64 { return float64(leaf().NotAfter.Unix()) })
}

// CountIdentityReload counts a replacement of the service's
// TLS identity, and an attempt that failed.
func (m *Metrics) CountIdentityReload(err error) {
	m.countReload(identityReloads, identityReloaded, err == nil)
	m.readings.note(readIdentity, attempt{ok: err == nil, fault: faultText(err)})
}

func (m *Metrics) countReload(counter, last *program.Series, ok bool) {
	outcome, successful := "ok", 1.0
	if !ok {
		outcome, successful = "failed", 0
	}
	m.Counter(counter, outcome).Inc()
	m.Gauge(last, nil).Set(successful)
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
		m.Gauge(connectionsOpen, count, clients, name)
		m.connections.add(clients, name, count)
	}
	for _, reason := range []lossReason{lostToNumber, lostToBytes} { // so that the first one is seen as an increase
		m.Counter(connectionsLost, clients, reason)
	}
}

// observePlain counts the connections of the plain port by their state.
func (m *Metrics) observePlain(count func() (idle, active int)) {
	idle := func() float64 { n, _ := count(); return float64(n) }
	active := func() float64 { _, n := count(); return float64(n) }
	m.Gauge(connectionsOpen, idle, "plain", "idle")
	m.Gauge(connectionsOpen, active, "plain", "active")
	m.connections.add("plain", "idle", idle)
	m.connections.add("plain", "active", active)
	m.Counter(connectionsLost, "plain", lostToNumber)
}

// observeAdmission adds how many requests are in progress and wait, in total and for a CA.
func (m *Metrics) observeAdmission(q *admission.Queue[clientKey]) {
	m.admission.Store(q)
	m.Gauge(inFlight, m.ofAdmission((*admission.Queue[clientKey]).InProgress))
}

// ofAdmission is a number of the handler's queue; 0 as long as there is no handler.
func (m *Metrics) ofAdmission(number func(*admission.Queue[clientKey]) int) func() float64 {
	return func() float64 {
		if q := m.admission.Load(); q != nil {
			return float64(number(q))
		}
		return 0
	}
}

// observeRequest counts every request. The label ca is empty for names that are not configured:
// any client can make those up.
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
	m.Counter(requestsTotal, ca, operation, e.outcome).Inc()
	m.histogram(requestDuration, e.duration, operation)
}

// observeAuthority measures the CMP transaction alone.
func (m *Metrics) observeAuthority(e *event, took time.Duration, err error) {
	m.histogram(cmpDuration, took, e.caName, e.operation)
	for _, info := range failInfoOf(err) {
		m.Counter(cmpRefusals, e.caName, info).Inc()
	}
}

func (m *Metrics) histogram(s *program.Series, took time.Duration, labels ...any) {
	m.Histogram(s, latencyBuckets, labels...).Update(took.Seconds())
}

// observeReload counts a reading of the configuration file. One that was loaded in part counts as
// failed, and another gauge says how many entries have faults.
func (m *Metrics) observeReload(l loading) {
	if l.err == nil {
		m.Gauge(configServers, nil).Set(float64(len(l.authorities)))
		m.Gauge(configFaulty, nil).Set(float64(len(l.file.leftOut)))
		for ca := range l.authorities {
			m.expect(ca)
		}
	}
	ok := l.err == nil && len(l.file.leftOut) == 0
	m.readings.note(readConfiguration, l.attempt())
	if ok {
		m.Gauge(configSuccess, nil).Set(float64(time.Now().Unix()))
	}
	m.countReload(configReloads, configReloaded, ok)
}

// observePolicy counts a reading of the policy. One with an error could not be used.
func (m *Metrics) observePolicy(p *policy.Policy, version digest, err error) {
	m.countReload(policyReloads, policyReloaded, err == nil)
	if err != nil {
		m.readings.note(readPolicy, attempt{fault: faultText(err)})
		return
	}
	m.readings.note(readPolicy, attempt{ok: true, version: version.String(), holds: counted(len(p.Rules), "rule")})
	warnOnly := 0.0
	if p.WarnOnly {
		warnOnly = 1
	}
	m.Gauge(policyLoaded, nil).Set(1)
	m.Gauge(policyWarnOnly, nil).Set(warnOnly)
	m.Gauge(policyRules, nil).Set(float64(len(p.Rules)))
	m.Gauge(policySuccess, nil).Set(float64(time.Now().Unix()))
}

// ObserveTokenKeys counts a reading of the token issuer's keys, of which so many are in use now; the
// version identifies those.
func (m *Metrics) ObserveTokenKeys(keys int, version string, err error) {
	m.readings.note(readTokenKeys, attempt{ok: err == nil, version: version, holds: counted(keys, "key"),
		fault: faultText(err)})
	successful := 0.0
	if err == nil {
		successful = 1
		m.Gauge(tokenKeysSuccess, nil).Set(float64(time.Now().Unix()))
	}
	m.Gauge(tokenKeys, nil).Set(float64(keys))
	m.Gauge(tokenKeysRead, nil).Set(successful)
}

// ExpectTokens creates the counters of tokens, where those count.
func (m *Metrics) ExpectTokens() {
	for _, reason := range token.Reasons { // so that the first one is seen as an increase
		m.Counter(tokenRejections, reason)
	}
}

// observeDecision counts a decision.
func (m *Metrics) observeDecision(operation policy.Operation, d policy.Decision) {
	m.Counter(policyDecisions, m.rules.label(d.Rule), operation, DecisionWord(d)).Inc()
}

// ruleLabels bounds the rules that have series of their own: policies are replaced, and a monitor
// has to keep what it once saw.
type ruleLabels struct {
	mu   sync.Mutex
	seen map[string]bool
}

const mostRuleLabels = 1000

func (l *ruleLabels) label(rule string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.seen[rule] {
		if len(l.seen) >= mostRuleLabels {
			return "others"
		}
		if l.seen == nil {
			l.seen = map[string]bool{}
		}
		l.seen[rule] = true
	}
	return rule
}

// expectCRLs creates the counters of readings of CRLs.
func (m *Metrics) expectCRLs() {
	for _, outcome := range []string{"ok", "failed"} { // so that the first one is seen as an increase
		m.Counter(crlReloads, outcome)
	}
}

// maxCRLLabels bounds the series: those who publish CRLs choose the names.
const maxCRLLabels = 64

// observeCRLs counts a reading of the CRLs and sets when those in use end. Labels that were set
// before and have no CRL any more are removed; those that have one are returned.
func (m *Metrics) observeCRLs(crls []*crl, before map[string]bool, ok bool) map[string]bool {
	ends := map[string]time.Time{}
	for _, c := range crls {
		if _, known := ends[c.issuer]; known || len(ends) < maxCRLLabels {
			ends[c.issuer] = earlier(ends[c.issuer], c.NextUpdate)
		}
	}
	for issuer := range before {
		if _, there := ends[issuer]; !there {
			m.Remove(crlEnd, issuer)
		}
	}
	labels := map[string]bool{}
	for issuer, end := range ends {
		labels[issuer] = true
		m.Gauge(crlEnd, nil, issuer).Set(float64(end.Unix()))
	}
	m.countReload(crlReloads, crlReloaded, ok)
	return labels
}

// expect creates the series of a CA, so that the first failure is seen as an increase.
func (m *Metrics) expect(ca string) {
	for _, operation := range []string{operationEnroll, operationUpdate} {
		for _, o := range []outcome{outcomeIssued, outcomeFailed, outcomeRefused} {
			m.Counter(requestsTotal, ca, operation, o)
		}
	}
	for limit := range limitMessages {
		m.Counter(overloads, ca, limit)
	}
	of := func(number func(*admission.Queue[clientKey], string) int) func() float64 {
		return m.ofAdmission(func(q *admission.Queue[clientKey]) int { return number(q, ca) })
	}
	m.Gauge(caInFlight, of((*admission.Queue[clientKey]).InProgressOf), ca)
	m.Gauge(caQueued, of((*admission.Queue[clientKey]).WaitingFor), ca)
	m.Gauge(caRate, func() float64 {
		if q := m.admission.Load(); q != nil {
			return q.Rate(ca)
		}
		return 0
	}, ca)
}
