package manifests

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// series are the labels of one metric with the values seen: name, label, value. A histogram has three names.
type series map[string]map[string][]string

// exported are the series of both programs when everything has happened once.
func exported(t *testing.T) series {
	t.Helper()
	all := series{}
	var asked bytes.Buffer
	certserviceMetrics(t).Write(&asked)
	for _, text := range []string{readFile(t, "../../internal/metrics/testdata/all.txt"), asked.String()} {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families := fixture.Must(parser.TextToMetricFamilies(strings.NewReader(text)))
		require.Greater(t, len(families), 10)
		for name, family := range families {
			if strings.HasPrefix(name, "cert") {
				assert.NotEmpty(t, family.GetHelp(), name)
			}
			labels := map[string][]string{}
			for _, metric := range family.Metric {
				for _, l := range metric.Label {
					labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
				}
			}
			all[name] = labels
			if family.GetType() == dto.MetricType_HISTOGRAM {
				all[name+"_bucket"], all[name+"_sum"], all[name+"_count"] = labels, labels, labels
			}
		}
	}
	kinds := all["certfetcher_notifications_total"]
	for _, kind := range notify.Kinds {
		kinds["kind"] = append(kinds["kind"], kind.Name)
	}
	return all
}

func certserviceMetrics(t *testing.T) *certservice.Metrics {
	t.Helper()
	ca := fixture.Must(fixture.NewCA("Test"))
	_, chain, err := ca.Identity("client")
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	m, discard := certservice.NewMetrics("test"), slog.New(slog.DiscardHandler)
	m.ObserveCertificate(func() *x509.Certificate { return ca.Root })
	servers := filepath.Join(t.TempDir(), "cmpServers.json")
	require.NoError(t, os.WriteFile(servers, []byte(`{"cmpv2Servers": [{"caName": "RA",
		"url": "http://ca/", "issuerDN": "CN=CA", "authentication": {"iak": "a", "rv": "b"}}]}`), 0o600))
	builder := certservice.CMPBuilder(certservice.CMPOptions{Log: discard})
	require.NoError(t, certservice.NewConfiguration(servers, builder, m, discard).Reload("test"))

	handler := certservice.NewHandler(certservice.HandlerConfig{
		Directory:   service.Static{"RA": service.Authority{CA: ca}, "panics": nil},
		ClientRoots: func() *x509.CertPool { return roots }, MaxRSABits: certservice.MostMaxRSABits,
		Strangers: certservice.NewStrangers(discard), CPU: certservice.NewCPU(), Metrics: m, Log: discard,
	})
	var update struct{ Headers map[string]string } // with all that an enrolment needs as well
	golden := readFile(t, "../testdata/wire/update.request.json")
	require.NoError(t, json.Unmarshal([]byte(golden), &update))
	for path, status := range map[string]int{
		"certificate/RA": 200, "certificate-update/RA": 500, "certificate/panics": 500,
	} {
		request := httptest.NewRequest("GET", "/v1/"+path, nil)
		request.TLS = &tls.ConnectionState{PeerCertificates: chain}
		for name, value := range update.Headers {
			request.Header.Set(name, value)
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		require.Equal(t, status, answer.Code, "%s: %s", path, answer.Body)
	}
	return m
}
