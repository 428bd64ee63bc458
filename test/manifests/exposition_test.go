package manifests

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/metrics"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// series are the labels of one metric with the values seen: name, label, value.
type series map[string]map[string][]string

// add reads the Prometheus text format.
func (s series) add(t *testing.T, exposition []byte) {
	t.Helper()
	for line := range strings.Lines(string(exposition)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		metric, err := promQL.ParseMetric(line[:strings.LastIndexByte(line, ' ')])
		require.NoError(t, err, line)
		name := metric.Get(model.MetricNameLabel)
		if s[name] == nil {
			s[name] = map[string][]string{}
		}
		metric.Range(func(l labels.Label) { s[name][l.Name] = append(s[name][l.Name], l.Value) })
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

func TestSeries_sayWhatTheyAre(t *testing.T) {
	for prefix, exposition := range map[string][]byte{"certfetcher_": fetcherExposition(t),
		"certservice_": certserviceExposition(t)} {
		names := 0
		helped := ""
		for line := range strings.Lines(string(exposition)) {
			words := strings.Fields(line)
			assert.False(t, words[1] == "HELP" && len(words) < 4, "an empty text: %s", line)
			if words[1] == "HELP" {
				helped = words[2]
			}
			if words[1] == "TYPE" && strings.HasPrefix(words[2], prefix) {
				names++
				assert.Equal(t, words[2], helped, "a series without a text")
			}
		}
		assert.Greater(t, names, 9)
	}
}

func fetcherExposition(t *testing.T) []byte {
	t.Helper()
	now := time.Now()
	m := metrics.New("test", time.Now)
	m.SetCertificate(&x509.Certificate{NotBefore: now, NotAfter: now.Add(time.Hour)})
	m.SetIdentity(&x509.Certificate{NotBefore: now, NotAfter: now.Add(time.Hour)})
	m.SetPlan(now, now, 1)
	for _, err := range []error{nil, errors.New("broken")} {
		m.CountIdentityReload(err)
	}
	m.CountRenewal(enroll.Updated)
	m.CountRenewal(enroll.Enrolled)
	m.CountFailure(enroll.StageConnection.String())
	m.CountRestoration()
	for _, kind := range notify.Kinds {
		for _, outcome := range []notify.Outcome{notify.OutcomeSuccess, notify.OutcomeFailure} {
			m.CountNotification(kind.Name, string(outcome))
		}
	}
	m.SetServed(true)
	var text bytes.Buffer
	m.Write(&text)
	return text.Bytes()
}

// authority does what its name says.
type authority struct {
	name           string
	issued         certservice.Issued
	entered, leave chan struct{} // of a request in flight
}

func (a authority) Enroll(context.Context, certservice.Request) (certservice.Issued, error) {
	switch a.name {
	case "issues":
		return a.issued, nil
	case "refuses":
		return certservice.Issued{}, &certservice.RefusedError{FailInfo: []string{"badPOP"}}
	case "panics":
		panic("as it should")
	case "waits":
		close(a.entered)
		<-a.leave
	}
	return certservice.Issued{}, errors.New("the CA cannot be reached")
}

func (a authority) Update(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	return a.Enroll(ctx, r)
}

func certserviceExposition(t *testing.T) []byte {
	t.Helper()
	transport, err := fixture.NewCA("Transport")
	require.NoError(t, err)
	_, chain, err := transport.Identity("client")
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(transport.Root)

	m := certservice.NewMetrics("test")
	m.ObserveCertificate(func() *x509.Certificate { return transport.Root })
	m.CountIdentityReload(nil)
	m.CountIdentityReload(errors.New("broken"))
	discard := slog.New(slog.DiscardHandler)
	servers := filepath.Join(t.TempDir(), "cmpServers.json")
	configuration := certservice.NewConfiguration(servers,
		certservice.CMPBuilder(certservice.CMPOptions{Log: discard}), m, discard)
	require.Error(t, configuration.Reload("test"))
	require.NoError(t, os.WriteFile(servers,
		[]byte(`{"cmpv2Servers": [{"caName": "RA", "url": "http://ca/", "issuerDN": "CN=CA", `+
			`"authentication": {"iak": "a", "rv": "b"}}]}`), 0o600))
	require.NoError(t, configuration.Reload("test"))

	issued := certservice.Issued{Chain: chain, Trusted: []*x509.Certificate{transport.Root}}
	entered, leave := make(chan struct{}), make(chan struct{})
	directory := service.Static{}
	names := []string{"issues", "refuses", "fails", "panics", "waits"}
	for _, name := range names {
		directory[name] = authority{name, issued, entered, leave}
	}
	handler := certservice.NewHandler(certservice.HandlerConfig{
		Directory: directory, ClientRoots: func() *x509.CertPool { return roots }, MaxInFlight: 1,
		Metrics: m, Log: discard,
		MaxRSABits: certservice.MostMaxRSABits, CPU: certservice.NewCPU(), Strangers: certservice.NewStrangers(discard),
	})
	ask := func(path string) string {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, wireRequest(t, path, &tls.ConnectionState{PeerCertificates: chain}))
		return answer.Body.String()
	}
	for _, name := range names[:4] {
		ask("/v1/certificate/" + name)
		ask("/v1/certificate-update/" + name)
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
