package manifests

import (
	"fmt"
	"maps"
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

// history is series and their values, one a minute, the last one now; a single value has been so all along.
// "_" is a minute without the series. A value that starts with "+" or "-" is a moment, so long after or before now.
type history map[string]string

// Each alert is silent on an ordinary day, and fires when what it is for happens.
func TestAlerts_fireWhenTheyShould(t *testing.T) {
	life := func(passed, left time.Duration) history {
		return history{
			"certfetcher_certificate_not_before_timestamp_seconds" + ofApp: signed(-passed),
			"certfetcher_certificate_expiry_timestamp_seconds" + ofApp:     signed(left),
			"certfetcher_renewal_overdue_seconds" + ofApp:                  "0",
			"certfetcher_renewal_failed_tries" + ofApp:                     "0",
		}
	}
	with := func(h history, pairs ...string) history {
		for pair := range slices.Chunk(pairs, 2) {
			h[pair[0]] = pair[1]
		}
		return h
	}
	overdue := "certfetcher_renewal_overdue_seconds" + ofApp
	tries := "certfetcher_renewal_failed_tries" + ofApp
	served := "certfetcher_served_certificate_matches" + ofApp
	told := func(outcome string) string {
		return `certfetcher_notifications_total{namespace="shop",pod="app-1",kind="exec",outcome="` + outcome + `"}`
	}
	rising := func(perMinute int) string {
		values := make([]string, 61)
		for i := range values {
			values[i] = strconv.Itoa(i * perMinute)
		}
		return strings.Join(values, " ")
	}
	identity := func(passed, left time.Duration) history {
		return history{
			"certfetcher_mtls_identity_not_before_timestamp_seconds" + ofApp: signed(-passed),
			"certfetcher_mtls_identity_expiry_timestamp_seconds" + ofApp:     signed(left),
		}
	}
	own := func(end string) string {
		return "certservice_certificate_" + end + "_timestamp_seconds{" + ofService + "}"
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
		{"one of an hour that is late", with(life(44*time.Minute, 16*time.Minute), overdue, "240"),
			[]string{"CertfetcherRenewalOverdue"}},
		{"one that is late and at its end", with(life(85*day, 5*day), overdue, "2160000"),
			[]string{"CertfetcherRenewalOverdue", "CertfetcherCertificateExpiresSoon"}},
		{"one that has expired", with(life(91*day, -time.Hour), overdue, "2700000"),
			[]string{"CertfetcherRenewalOverdue", "CertfetcherCertificateExpiresSoon",
				"CertfetcherCertificateExpired"}},
		{"two failed tries", with(life(60*day, 30*day), tries, "2"), nil},
		{"three failed tries", with(life(60*day, 30*day), tries, "3"), []string{"CertfetcherRenewalFailing"}},
		{"the new certificate served", with(life(day, 89*day), served, "1"), nil},
		{"an old certificate served", with(life(day, 89*day), served, "0"),
			[]string{"CertfetcherCertificateNotServed"}},
		{"a notification that failed the first time", with(life(day, 89*day), told("failure"), born),
			[]string{"CertfetcherNotificationFailing"}},
		{"one that failed again", with(life(day, 89*day), told("failure"), rising(1)),
			[]string{"CertfetcherNotificationFailing"}},
		{"one that failed and then succeeded", with(life(day, 89*day), told("failure"), born,
			told("success"), strings.Repeat("_ ", 55)+"1 1 1 1 1 1"), nil},
		{"one that failed long ago", with(life(day, 89*day), told("failure"), strings.Repeat("1 ", 61)), nil},
		{"an identity with a third of its 90 days left", identity(60*day, 30*day), nil},
		{"an identity with six of its 90 days left", identity(84*day, 6*day),
			[]string{"CertfetcherIdentityExpiresSoon"}},
		{"an identity of an hour, just replaced", identity(time.Minute, 59*time.Minute), nil},
		{"an identity of an hour that was not replaced", identity(59*time.Minute, time.Minute/2),
			[]string{"CertfetcherIdentityExpiresSoon"}},
		{"an identity of ten years with a month left", identity(3620*day, 30*day), nil},
		{"an identity that could not be read", with(identity(day, 89*day),
			"certfetcher_mtls_identity_last_reload_successful"+ofApp, "0"), []string{"CertfetcherIdentityUnusable"}},
		{"files put back once", history{"certfetcher_restorations_total" +
			ofApp: strings.Repeat("0 ", 30) + strings.Repeat("1 ", 31)}, nil},
		{"files put back all the time", history{"certfetcher_restorations_total" + ofApp: rising(1)},
			[]string{"CertfetcherVolumeDisturbed"}},

		{"certservice at work", with(up(), requests("issued"), rising(60), requests("bad_request"),
			rising(60), requests("refused"), rising(6)), nil},
		{"no certservice", history{}, []string{"CertserviceAbsent"}},
		{"one without configuration", history{"certservice_build_info{" + ofService + "}": "1"},
			[]string{"CertserviceNotConfigured"}},
		{"one whose first configuration was refused",
			history{"certservice_build_info{" + ofService + "}": "1",
				"certservice_config_last_reload_successful{" + ofService + "}": "0"},
			[]string{"CertserviceNotConfigured"}},
		{"a configuration refused", with(up(), "certservice_config_last_reload_successful{"+ofService+"}", "0"),
			[]string{"CertserviceConfigurationBroken"}},
		{"a CA that fails now and then", with(up(), requests("issued"), rising(60),
			requests("failed"), rising(6)), nil},
		{"a CA that is down", with(up(), requests("failed"), rising(6)), []string{"CertserviceCAFailing"}},
		{"a slow CA", with(up(), bucket("10"), rising(1), bucket("30"), rising(10), bucket("+Inf"), rising(10)),
			[]string{"CertserviceCASlow"}},
		{"a quick CA", with(up(), bucket("1"), rising(10), bucket("10"), rising(10), bucket("+Inf"), rising(10)), nil},
		{"requests turned away", with(up(), `certservice_overloads_total{`+ofService+`,ca="RA",limit="ca"}`,
			rising(1)), []string{"CertserviceOverloaded"}},
		{"a panic", with(up(), requests("panic"), born), []string{"CertservicePanicking"}},
		{"its certificate with a third of 90 days left",
			with(up(), own("not_before"), signed(-60*day), own("expiry"), signed(30*day)), nil},
		{"its certificate with a day of 90 left", with(up(), own("not_before"), signed(-89*day),
			own("expiry"), signed(day)), []string{"CertserviceCertificateExpiresSoon"}},
		{"an identity of its own that could not be read",
			with(up(), "certservice_identity_last_reload_successful{"+ofService+"}", "0"),
			[]string{"CertserviceIdentityUnusable"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var now []string
			for alert, minutes := range firing(t, row.given, 1) {
				if minutes[0] {
					now = append(now, alert)
				}
			}
			assert.ElementsMatch(t, row.fires, now)
		})
	}
}

const (
	ofApp     = `{namespace="shop",pod="app-1"}`
	ofService = `namespace="certs",pod="certservice-1"`
)

func up() history {
	return history{"certservice_build_info{" + ofService + "}": "1",
		"certservice_config_servers{" + ofService + "}": "2"}
}

func requests(outcome string) string {
	return `certservice_requests_total{` + ofService + `,ca="RA",operation="enroll",outcome="` + outcome + `"}`
}

func times(n int, value string) string { return strings.Repeat(value+" ", n) }

// Files are read when they change: what was refused once is not reported again, however long it stays in use.
func TestAlerts_filesThatStayUnusable_fireUntilTheyAreMended(t *testing.T) {
	const before, unusable, after = 30, 150, 30
	for alert, gauge := range map[string]string{
		"CertfetcherIdentityUnusable":    "certfetcher_mtls_identity_last_reload_successful" + ofApp,
		"CertserviceIdentityUnusable":    "certservice_identity_last_reload_successful{" + ofService + "}",
		"CertserviceConfigurationBroken": "certservice_config_last_reload_successful{" + ofService + "}",
	} {
		given := history{gauge: times(before, "1") + times(unusable, "0") + times(after, "1")}
		if strings.HasPrefix(gauge, "certservice_") {
			maps.Copy(given, up())
		}
		const wait = 5
		want := slices.Concat(make([]bool, before+wait), slices.Repeat([]bool{true}, unusable-wait),
			make([]bool, after))
		assert.Equal(t, want, firing(t, given, len(want))[alert], alert)
	}
}

// What a client's next try healed is no outage, neither alone nor when it happens again, and neither is a CA
// that was started anew; one that stays away is.
func TestAlerts_ofACA_wantFailuresThatGoOn(t *testing.T) {
	const quiet = 20
	// course are totals: nothing for some minutes, then so many more in each minute, then nothing again.
	course := func(start int, more ...int) string {
		total, values := start, times(quiet, strconv.Itoa(start))
		for _, n := range more {
			total += n
			values += strconv.Itoa(total) + " "
		}
		return values + times(60, strconv.Itoa(total))
	}
	always := func(n, more int) []int { return slices.Repeat([]int{more}, n) }
	each := func(minutes, n int) []int { return slices.Repeat(append([]int{1}, always(minutes-1, 0)...), n) }
	for _, row := range []struct {
		name           string
		failed, issued []int // in each minute
		within         int   // minutes after the first failure; 0: never
	}{
		{"one failed try, and the next one succeeds", []int{1}, []int{1}, 0},
		{"five failed tries in a minute, and the next one succeeds", []int{5}, []int{1}, 0},
		{"one failed try, and another one after twelve minutes", slices.Concat([]int{1}, always(11, 0), []int{1}),
			slices.Concat([]int{1}, always(11, 0), []int{1}), 0},
		{"a CA that is away for four minutes", always(4, 3), slices.Concat(always(4, 0), []int{1}), 0},
		{"a CA that fails one of twenty", always(60, 1), always(60, 19), 0},
		{"a CA that is away", always(60, 3), nil, 16},
		{"a CA that is away, asked each four minutes", each(4, 15), nil, 20},
		{"a CA that is away, asked each seven minutes", each(7, 15), nil, 26},
		{"a CA that is away, asked each quarter of an hour", each(15, 8), nil, 36},
		{"a CA that is away, asked by one client that waits longer and longer",
			slices.Concat([]int{4, 1, 1}, each(2, 1), each(4, 1), each(8, 1), each(15, 6)), nil, 16},
		{"a CA that fails each quarter of an hour, and the next try succeeds", each(15, 8),
			slices.Concat([]int{0}, each(15, 8)), 0},
		{"a CA that is started anew, asked by one client", []int{4, 1, 1, 0, 1},
			slices.Concat(always(12, 0), []int{1}), 0},
		{"two failed tries and no other one, 25 minutes apart", slices.Concat(each(25, 1), []int{1}), nil, 0},
		{"a CA that fails every other time", always(60, 2), always(60, 2), 16},
	} {
		t.Run(row.name, func(t *testing.T) {
			length := max(len(row.failed), len(row.issued))
			pad := func(counts []int) []int { return append(counts, always(length-len(counts), 0)...) }
			given := up()
			given[requests("failed")], given[requests("issued")] = course(5, pad(row.failed)...),
				course(100, pad(row.issued)...)
			minutes := firing(t, given, quiet+length+60)["CertserviceCAFailing"]
			require.Equal(t, row.within > 0, slices.Contains(minutes, true))
			if row.within == 0 {
				return
			}
			begun := slices.Index(minutes, true) - quiet
			assert.LessOrEqual(t, begun, row.within)
			assert.NotContains(t, minutes[quiet+begun:quiet+len(row.failed)], false, "interrupted while the CA is away")
			assert.NotContains(t, minutes[quiet+length+20:], true, "goes on after the CA is back")
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
			want := "https://github.com/certfetcher/certfetcher/blob/main/" + runbook + "#" +
				strings.ToLower(rule.Alert)
			assert.Equal(t, want, rule.Annotations["runbook_url"])
		}
	}
	assert.ElementsMatch(t, alerts, documented, runbook)
}

var alertHeading = regexp.MustCompile(`(?m)^#+ (Cert(?:fetcher|service)[A-Z][A-Za-z]+)$`)

func signed(d time.Duration) string { return fmt.Sprintf("%+ds", int(d.Seconds())) }

func bucket(le string) string {
	return `certservice_cmp_duration_seconds_bucket{namespace="certs",pod="certservice-1",ca="RA",` +
		`operation="enroll",le="` + le + `"}`
}

// firing returns, for each alert on the programs that the history is of, in which of the last minutes it fires:
// its expression has had the same result for as long as the rule says.
func firing(t *testing.T, given history, minutes int) map[string][]bool {
	t.Helper()
	file := "certservice-rules.yaml"
	for name := range given {
		if strings.HasPrefix(name, "certfetcher_") {
			file = "certfetcher-rules.yaml"
		}
	}
	now := time.Now().Truncate(time.Minute)
	first := now.Add(-time.Duration(minutes-1) * time.Minute)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL})
	storage := given.storage(t, now)
	alerts := map[string][]bool{}
	for _, rule := range rules(t, file) {
		wait := time.Duration(rule.For)
		query, err := engine.NewRangeQuery(t.Context(), storage, nil, rule.Expr, first.Add(-wait), now, time.Minute)
		require.NoError(t, err)
		result := query.Exec(t.Context())
		require.NoError(t, result.Err, rule.Alert)
		matrix, err := result.Matrix()
		require.NoError(t, err)
		fires := make([]bool, minutes)
		for _, series := range matrix {
			pending := map[int64]bool{}
			for _, point := range series.Floats {
				pending[point.T] = true
			}
			for i := range fires {
				at := first.Add(time.Duration(i) * time.Minute)
				held := true
				for since := at.Add(-wait); !since.After(at); since = since.Add(time.Minute) {
					held = held && pending[since.UnixMilli()]
				}
				fires[i] = fires[i] || held
			}
		}
		alerts[rule.Alert] = fires
	}
	return alerts
}
