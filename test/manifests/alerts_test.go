package manifests

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// history is series and their values, one a minute, the last one now. "_" is a minute without the series.
// A value that starts with "+" or "-" is a moment, so long after or before now.
type history map[string]string

// Each alert is silent on an ordinary day, and fires when what it is for happens.
func TestAlerts_fireWhenTheyShould(t *testing.T) {
	const pod = `{namespace="shop",pod="app-1"}`
	life := func(passed, left time.Duration) history {
		return history{
			"certfetcher_certificate_not_before_timestamp_seconds" + pod: signed(-passed),
			"certfetcher_certificate_expiry_timestamp_seconds" + pod:     signed(left),
			"certfetcher_renewal_overdue_seconds" + pod:                  "0",
			"certfetcher_renewal_failed_tries" + pod:                     "0",
		}
	}
	with := func(h history, pairs ...string) history {
		for pair := range slices.Chunk(pairs, 2) {
			h[pair[0]] = pair[1]
		}
		return h
	}
	overdue := "certfetcher_renewal_overdue_seconds" + pod
	tries := "certfetcher_renewal_failed_tries" + pod
	served := "certfetcher_served_certificate_matches" + pod
	told := func(outcome string) string {
		return `certfetcher_notifications_total{namespace="shop",pod="app-1",kind="exec",outcome="` + outcome + `"}`
	}
	const service = `namespace="certs",pod="certservice-1"`
	up := func() history {
		return history{"certservice_build_info{" + service + "}": "1", "certservice_config_servers{" + service + "}": "2"}
	}
	requests := func(outcome string) string {
		return `certservice_requests_total{` + service + `,ca="RA",operation="enroll",outcome="` + outcome + `"}`
	}
	rising := func(perMinute int) string {
		values := make([]string, 61)
		for i := range values {
			values[i] = strconv.Itoa(i * perMinute)
		}
		return strings.Join(values, " ")
	}
	born := strings.Repeat("_ ", 50) + strings.Repeat("1 ", 11) // a counter that appears with its first event

	for _, row := range []struct {
		name  string
		given history
		fires []string
	}{
		{"a certificate in the middle of its life", life(30*day, 60*day), nil},
		{"a certificate of an hour, just renewed", life(time.Minute, time.Hour), nil},
		{"one that is renewed late by choice, and not due yet", life(85*day, 5*day), nil},
		{"one that is due and not yet late", with(life(60*day, 30*day), overdue, "3600"), nil},
		{"one that is late", with(life(65*day, 25*day), overdue, "432000"), []string{"CertfetcherRenewalOverdue"}},
		{"one of an hour that is late", with(life(44*time.Minute, 16*time.Minute), overdue, "240"), []string{"CertfetcherRenewalOverdue"}},
		{"one that is late and at its end", with(life(85*day, 5*day), overdue, "2160000"),
			[]string{"CertfetcherRenewalOverdue", "CertfetcherCertificateExpiresSoon"}},
		{"one that has expired", with(life(91*day, -time.Hour), overdue, "2700000"),
			[]string{"CertfetcherRenewalOverdue", "CertfetcherCertificateExpiresSoon", "CertfetcherCertificateExpired"}},
		{"two failed tries", with(life(60*day, 30*day), tries, "2"), nil},
		{"three failed tries", with(life(60*day, 30*day), tries, "3"), []string{"CertfetcherRenewalFailing"}},
		{"the new certificate served", with(life(day, 89*day), served, "1"), nil},
		{"an old certificate served", with(life(day, 89*day), served, "0"), []string{"CertfetcherCertificateNotServed"}},
		{"a notification that failed the first time", with(life(day, 89*day), told("failure"), born), []string{"CertfetcherNotificationFailing"}},
		{"one that failed again", with(life(day, 89*day), told("failure"), rising(1)), []string{"CertfetcherNotificationFailing"}},
		{"one that failed and then succeeded", with(life(day, 89*day), told("failure"), born, told("success"), strings.Repeat("_ ", 55)+"1 1 1 1 1 1"), nil},
		{"one that failed long ago", with(life(day, 89*day), told("failure"), strings.Repeat("1 ", 61)), nil},
		{"an identity for a month", history{"certfetcher_mtls_identity_expiry_timestamp_seconds" + pod: signed(30 * day)}, nil},
		{"an identity for a day", history{"certfetcher_mtls_identity_expiry_timestamp_seconds" + pod: signed(day)}, []string{"CertfetcherIdentityExpiresSoon"}},
		{"an identity that could not be read", history{`certfetcher_mtls_identity_reloads_total{namespace="shop",pod="app-1",outcome="failed"}`: born}, []string{"CertfetcherIdentityUnusable"}},
		{"files put back once", history{"certfetcher_restorations_total" + pod: strings.Repeat("0 ", 30) + strings.Repeat("1 ", 31)}, nil},
		{"files put back all the time", history{"certfetcher_restorations_total" + pod: rising(1)}, []string{"CertfetcherVolumeDisturbed"}},

		{"certservice at work", with(up(), requests("issued"), rising(60), requests("bad_request"), rising(60), requests("refused"), rising(6)), nil},
		{"no certservice", history{}, []string{"CertserviceAbsent"}},
		{"one without configuration", history{"certservice_build_info{" + service + "}": "1"}, []string{"CertserviceNotConfigured"}},
		{"a configuration refused", with(up(), `certservice_config_reloads_total{`+service+`,outcome="failed"}`, born), []string{"CertserviceConfigurationBroken"}},
		{"a CA that fails now and then", with(up(), requests("issued"), rising(60), requests("failed"), rising(6)), nil},
		{"a CA that is down", with(up(), requests("failed"), rising(6)), []string{"CertserviceCAFailing"}},
		{"a slow CA", with(up(), bucket("10"), rising(1), bucket("30"), rising(10), bucket("+Inf"), rising(10)), []string{"CertserviceCASlow"}},
		{"a quick CA", with(up(), bucket("1"), rising(10), bucket("10"), rising(10), bucket("+Inf"), rising(10)), nil},
		{"requests turned away", with(up(), requests("overloaded"), rising(1)), []string{"CertserviceOverloaded"}},
		{"a panic", with(up(), requests("panic"), born), []string{"CertservicePanicking"}},
		{"its certificate for a month", with(up(), "certservice_certificate_expiry_timestamp_seconds{"+service+"}", signed(30*day)), nil},
		{"its certificate for a day", with(up(), "certservice_certificate_expiry_timestamp_seconds{"+service+"}", signed(day)), []string{"CertserviceCertificateExpiresSoon"}},
		{"an identity of its own that could not be read", with(up(), `certservice_identity_reloads_total{`+service+`,outcome="failed"}`, born), []string{"CertserviceIdentityUnusable"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := "certservice-rules.yaml"
			for name := range row.given {
				if strings.HasPrefix(name, "certfetcher_") {
					file = "certfetcher-rules.yaml"
				}
			}
			assert.ElementsMatch(t, row.fires, firing(t, file, row.given))
		})
	}
}

func TestAlerts_eachIsWordedForPeople_andHasARunbook(t *testing.T) {
	const runbook = "docs/operations.md"
	content, err := os.ReadFile("../../" + runbook)
	require.NoError(t, err)
	var documented, alerts []string
	for _, heading := range alertHeading.FindAllStringSubmatch(string(content), -1) {
		documented = append(documented, heading[1])
	}
	for _, file := range []string{"certfetcher-rules.yaml", "certservice-rules.yaml"} {
		for _, rule := range rules(t, file) {
			alerts = append(alerts, rule.Alert)
			assert.Contains(t, []string{"warning", "critical"}, rule.Labels["severity"], rule.Alert)
			assert.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			assert.NotEmpty(t, rule.Annotations["description"], rule.Alert)
			want := "https://github.com/certfetcher/certfetcher/blob/main/" + runbook + "#" + strings.ToLower(rule.Alert)
			assert.Equal(t, want, rule.Annotations["runbook_url"])
		}
	}
	assert.ElementsMatch(t, alerts, documented, runbook)
}

var alertHeading = regexp.MustCompile(`(?m)^#+ (Cert(?:fetcher|service)[A-Z][A-Za-z]+)$`)

func signed(d time.Duration) string { return fmt.Sprintf("%+ds", int(d.Seconds())) }

func bucket(le string) string {
	return `certservice_cmp_duration_seconds_bucket{namespace="certs",pod="certservice-1",ca="RA",operation="enroll",le="` + le + `"}`
}

// firing returns the alerts whose expression has a result now.
func firing(t *testing.T, file string, given history) []string {
	t.Helper()
	now := time.Now().Truncate(time.Minute)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL})
	var names []string
	for _, rule := range rules(t, file) {
		query, err := engine.NewInstantQuery(t.Context(), given.storage(t, now), nil, rule.Expr, now)
		require.NoError(t, err)
		result := query.Exec(t.Context())
		require.NoError(t, result.Err, rule.Alert)
		vector, err := result.Vector()
		require.NoError(t, err)
		if len(vector) > 0 {
			names = append(names, rule.Alert)
		}
	}
	return names
}
