package manifests

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/metrics"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/test/ca"
)

var promQL = parser.NewParser(parser.Options{})

// targetLabels are put on every series by the monitors, not by the programs.
var targetLabels = []string{"namespace", "pod", "job", "instance", "container", "endpoint"}

// series are the labels of one metric with the values seen: name, label, value.
type series map[string]map[string]map[string]bool

// add reads the Prometheus text format.
func (s series) add(t *testing.T, exposition []byte) {
	t.Helper()
	for line := range strings.Lines(string(exposition)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		metric, err := promQL.ParseMetric(line[:strings.LastIndexByte(line, ' ')])
		require.NoError(t, err, line)
		name := metric.Get(labels.MetricName)
		if s[name] == nil {
			s[name] = map[string]map[string]bool{}
		}
		metric.Range(func(l labels.Label) {
			if s[name][l.Name] == nil {
				s[name][l.Name] = map[string]bool{}
			}
			s[name][l.Name][l.Value] = true
		})
	}
}

// exported are the series of both programs when everything has happened once.
func exported(t *testing.T) series {
	t.Helper()
	all := series{}
	all.add(t, fetcherExposition(t))
	all.add(t, certserviceExposition(t))
	return all
}

func fetcherExposition(t *testing.T) []byte {
	t.Helper()
	now := time.Now()
	m := metrics.New("test", time.Now)
	m.SetCertificate(&x509.Certificate{NotBefore: now, NotAfter: now.Add(time.Hour)})
	m.SetIdentity(now.Add(time.Hour))
	m.SetPlan(now, now, 1)
	for _, err := range []error{nil, errors.New("broken")} {
		m.CountIdentityReload(err)
	}
	m.CountRenewal(enroll.Updated)
	m.CountRenewal(enroll.Enrolled)
	m.CountFailure(enroll.StageConnection.String())
	m.CountRestoration()
	for _, kind := range []string{notify.KindExec, notify.KindSignal, notify.KindURL, notify.KindVerify} {
		for _, outcome := range []notify.Outcome{notify.OutcomeSuccess, notify.OutcomeFailure} {
			m.CountNotification(kind, string(outcome))
		}
	}
	m.SetServed(true)
	var text bytes.Buffer
	m.Write(&text)
	return text.Bytes()
}

// authority does what its name says.
type authority struct {
	name   string
	issued certservice.Issued
}

func (a authority) Enroll(context.Context, certservice.Request) (certservice.Issued, error) {
	switch a.name {
	case "issues":
		return a.issued, nil
	case "refuses":
		return certservice.Issued{}, &certservice.RefusedError{FailInfo: []string{"badPOP"}}
	case "panics":
		panic("as it should")
	}
	return certservice.Issued{}, errors.New("the CA cannot be reached")
}

func (a authority) Update(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	return a.Enroll(ctx, r)
}

func certserviceExposition(t *testing.T) []byte {
	t.Helper()
	transport, err := ca.New("Transport")
	require.NoError(t, err)
	_, chain, err := transport.Identity("client")
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(transport.Root)

	m := certservice.NewMetrics("test")
	m.ObserveCertificate(time.Now)
	m.CountIdentityReload(nil)
	m.CountIdentityReload(errors.New("broken"))
	discard := slog.New(slog.DiscardHandler)
	servers := filepath.Join(t.TempDir(), "cmpServers.json")
	configuration := certservice.NewConfiguration(servers, certservice.CMPBuilder(certservice.CMPOptions{Log: discard}), m, discard)
	require.Error(t, configuration.Reload("test"))
	require.NoError(t, os.WriteFile(servers, []byte(`{"cmpv2Servers": [{"caName": "RA", "url": "http://ca/", "issuerDN": "CN=CA", "authentication": {"iak": "a", "rv": "b"}}]}`), 0o600))
	require.NoError(t, configuration.Reload("test"))

	directory := certservice.Static{}
	for _, name := range []string{"issues", "refuses", "fails", "panics"} {
		directory[name] = authority{name, certservice.Issued{Chain: chain, Trusted: []*x509.Certificate{transport.Root}}}
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	directory["waits"] = waiting{entered, leave}
	handler := certservice.NewHandler(certservice.HandlerConfig{
		Directory: directory, ClientRoots: func() *x509.CertPool { return roots }, MaxInFlight: 1, Metrics: m, Log: discard,
	})
	ask := func(path string) string {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, wireRequest(t, path, &tls.ConnectionState{PeerCertificates: chain}))
		return answer.Body.String()
	}
	for name := range directory {
		if name != "waits" {
			ask("/v1/certificate/" + name)
			ask("/v1/certificate-update/" + name)
		}
	}
	done := make(chan string)
	go func() { done <- ask("/v1/certificate/waits") }()
	select {
	case <-entered:
	case answer := <-done:
		require.Fail(t, "the request did not reach the authority", answer)
	}
	ask("/v1/certificate/issues") // one too many
	close(leave)
	<-done

	var text bytes.Buffer
	m.Write(&text)
	return text.Bytes()
}

// waiting holds a request in flight.
type waiting struct{ entered, leave chan struct{} }

func (w waiting) Enroll(context.Context, certservice.Request) (certservice.Issued, error) {
	close(w.entered)
	<-w.leave
	return certservice.Issued{}, errors.New("given up")
}

func (w waiting) Update(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	return w.Enroll(ctx, r)
}

// wireRequest is the golden update, which holds all that an enrolment needs as well.
func wireRequest(t *testing.T, path string, state *tls.ConnectionState) *http.Request {
	t.Helper()
	content, err := os.ReadFile("../testdata/wire/update.request.json")
	require.NoError(t, err)
	var golden struct{ Headers map[string]string }
	require.NoError(t, json.Unmarshal(content, &golden))
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.TLS = state
	for name, value := range golden.Headers {
		request.Header.Set(name, value)
	}
	return request
}

// rules returns the alerts of a file below deploy/monitoring, checked by Prometheus' own rules for them.
func rules(t *testing.T, file string) []rulefmt.Rule {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deploy, "monitoring", file))
	require.NoError(t, err)
	var manifest monitoring.PrometheusRule
	require.NoError(t, yaml.Unmarshal(content, &manifest))
	spec, err := yaml.Marshal(manifest.Spec)
	require.NoError(t, err)
	groups, faults := rulefmt.Parse(spec, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	require.Empty(t, faults, file)
	var all []rulefmt.Rule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// dashboard returns the queries of the Grafana dashboard by their panels' titles.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deploy, "monitoring/dashboard.json"))
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, W int }
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(content, &board))
	queries, ids := map[string]string{}, map[int]bool{}
	for _, panel := range board.Panels {
		assert.False(t, ids[panel.ID], "two panels have the id %d", panel.ID)
		ids[panel.ID] = true
		assert.LessOrEqual(t, panel.GridPos.X+panel.GridPos.W, 24, panel.Title)
		assert.Equal(t, panel.Type == "row", len(panel.Targets) == 0, panel.Title)
		for _, target := range panel.Targets {
			queries[panel.Title+": "+target.Expr] = strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*").Replace(target.Expr)
		}
	}
	require.NotEmpty(t, queries)
	return queries
}

// queries returns every PromQL expression under deploy/.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := dashboard(t)
	for _, file := range []string{"certfetcher-rules.yaml", "certservice-rules.yaml"} {
		for _, rule := range rules(t, file) {
			all[rule.Alert] = rule.Expr
		}
	}
	return all
}

func TestQueries_useWhatTheProgramsExport(t *testing.T) {
	known := exported(t)
	for place, query := range queries(t) {
		expression, err := promQL.ParseExpr(query)
		require.NoError(t, err, place)
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			switch n := node.(type) {
			case *parser.VectorSelector:
				if assert.Contains(t, known, n.Name, place) {
					assertMatchers(t, place, known[n.Name], n.LabelMatchers)
				}
			case *parser.AggregateExpr:
				for _, label := range n.Grouping {
					assert.True(t, labelOfOne(known, n.Expr, label), "%s: no metric has the label %s", place, label)
				}
			}
			return nil
		})
	}
}

func assertMatchers(t *testing.T, place string, metric map[string]map[string]bool, matchers []*labels.Matcher) {
	t.Helper()
	for _, m := range matchers {
		if m.Name == labels.MetricName || slices.Contains(targetLabels, m.Name) {
			continue
		}
		if !assert.Contains(t, metric, m.Name, "%s: the metric has no such label", place) || m.Value == "" {
			continue
		}
		for value := range strings.SplitSeq(m.Value, "|") {
			assert.Contains(t, metric[m.Name], value, "%s: the label %s has no such value", place, m.Name)
		}
	}
}

// labelOfOne says whether one of the metrics in the expression has the label.
func labelOfOne(known series, expression parser.Expr, label string) bool {
	found := slices.Contains(targetLabels, label)
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok && known[selector.Name][label] != nil {
			found = true
		}
		return nil
	})
	return found
}

// What is exported is looked at, or it need not be.
func TestDashboard_showsEveryMetric(t *testing.T) {
	text := strings.Join(slices.Collect(maps.Values(dashboard(t))), "\n")
	for name := range exported(t) {
		name = histogramPart.ReplaceAllString(name, "")
		if strings.HasPrefix(name, "certfetcher_") || (strings.HasPrefix(name, "certservice_") && name != "certservice_build_info") {
			assert.Contains(t, text, name)
		}
	}
}

var histogramPart = regexp.MustCompile(`_(bucket|sum|count)$`)
