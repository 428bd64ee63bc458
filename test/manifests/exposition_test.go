package manifests

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	for _, text := range expositions(t) {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families := fixture.Must(parser.TextToMetricFamilies(strings.NewReader(text)))
		require.Greater(t, len(families), 10)
		for name, family := range families {
			if strings.HasPrefix(name, "cert") {
				assert.NotEmpty(t, family.GetHelp(), name)
			}
			labels := all[name]
			if labels == nil {
				labels = map[string][]string{}
			}
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

// expositions are what both programs serve when everything has happened once; certfetcher's comes first.
func expositions(t *testing.T) []string {
	t.Helper()
	var asked bytes.Buffer
	certserviceMetrics(t).Write(&asked)
	return []string{readFile(t, "../../internal/metrics/testdata/all.txt"), asked.String(), servedMetrics(t)}
}

// servedMetrics is what a certservice serves that has a policy, CRLs, and keys of tokens, after it refused a request,
// a token and a handshake.
func servedMetrics(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	mounted := newFiles(t)
	server := map[string]any{"url": "http://127.0.0.1:1/", "issuerDN": "CN=CA",
		"authentication": map[string]string{"iak": "a", "rv": "b"}}
	s := fixture.Must(fixture.StartCertService(binaries, dir, server,
		"CLIENT_CREDENTIALS=any", "TOKEN_ISSUER=https://issuer", "TOKEN_AUDIENCE=certservice",
		"TOKEN_JWKS_PATH="+write("keys.json", mounted.byKey["keys.json"]),
		"CLIENT_CRL_PATH="+write("clients.crl", mounted.byKey["clients.crl"]), "CLIENT_CRL_PROBLEM=warn",
		"POLICY_PATH="+write("policy.yaml", `rules: [{name: reload, clients: [{subject: {commonName: client}}],
			cas: [RA], operations: [reload]}]`)))
	defer s.Stop()

	roots := x509.NewCertPool()
	roots.AddCert(s.Transport.Root)
	identity := fixture.Must(tls.LoadX509KeyPair(s.Dir+"/client-certificate.pem", s.Dir+"/client-key.pem"))
	get := func(url, token string, identities ...tls.Certificate) (string, error) {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: roots, ServerName: "localhost", Certificates: identities}}}
		defer client.CloseIdleConnections()
		request := fixture.Must(http.NewRequest("GET", url, nil))
		request.Header = update(t)
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		return string(fixture.Must(io.ReadAll(response.Body))), nil
	}
	fixture.Must(get(s.URL+fixture.CAName, "", identity))
	fixture.Must(get(s.URL+fixture.CAName, "no.token.atall"))
	roots = x509.NewCertPool()
	_, err := get(s.URL, "")
	require.Error(t, err)
	var text string
	require.Eventually(t, func() bool { // it counts the handshake after the client has gone
		text = fixture.Must(get("http://"+s.Operations+"/metrics", ""))
		return strings.Contains(text, "certservice_handshake_failures_total{")
	}, time.Minute, 10*time.Millisecond)
	return text
}

// update are the headers of an update, with all that an enrolment needs as well.
func update(t *testing.T) http.Header {
	t.Helper()
	var golden struct{ Headers map[string]string }
	require.NoError(t, json.Unmarshal([]byte(readFile(t, "../testdata/wire/update.request.json")), &golden))
	header := http.Header{}
	for name, value := range golden.Headers {
		header.Set(name, value)
	}
	return header
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
	for path, status := range map[string]int{
		"certificate/RA": 200, "certificate-update/RA": 500, "certificate/panics": 500,
	} {
		request := httptest.NewRequest("GET", "/v1/"+path, nil)
		request.TLS = &tls.ConnectionState{PeerCertificates: chain}
		request.Header = update(t)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		require.Equal(t, status, answer.Code, "%s: %s", path, answer.Body)
	}
	return m
}
