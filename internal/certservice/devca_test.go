package certservice

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
)

// newDevCAService starts a service with the development CA behind it, configured by a cmpServers.json as
// ONAP writes it and the extra fields given.
func newDevCAService(t *testing.T, protection devca.ResponseProtection, extra string) (*service, *devca.CA) {
	t.Helper()
	development, err := devca.New(devca.Config{ResponseProtection: protection})
	require.NoError(t, err)
	server := httptest.NewServer(development)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "root.pem"), development.RootPEM(), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "next.pem"), append(golden(t, "pem/root-ca.pem"), development.RootPEM()...), 0o600))
	path := filepath.Join(dir, "cmpServers.json")
	writeFile(t, path, fmt.Sprintf(`{"cmpv2Servers": [{"caName": "RA", "url": "%s/ejbca/publicweb/cmp/cmpRA", "caMode": "RA",
		"issuerDN": "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"authentication": {"iak": "mypassword", "rv": "mypassword"}%s}]}`, server.URL, extra))
	log := slog.New(slog.DiscardHandler)
	c := NewConfiguration(path, CMPBuilder(CMPOptions{Connections: 10, Log: log}), nil, log)
	require.NoError(t, c.Reload("start"))
	return newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c }), development
}

const anchored = `, "trustAnchors": "root.pem"`

// updateHeader turns an enrolment's headers and answer into the headers of an update.
func updateHeader(t *testing.T, enrolled http.Header, answer string, dnsNames ...string) http.Header {
	t.Helper()
	var issued struct{ CertificateChain []string }
	require.NoError(t, json.Unmarshal([]byte(answer), &issued))
	key := newKey(t)
	block, _ := pem.Decode([]byte(issued.CertificateChain[0]))
	old, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: old.RawSubject, DNSNames: dnsNames}, key)
	require.NoError(t, err)
	return http.Header{
		"Csr":      {headerValue("CERTIFICATE REQUEST", der)},
		"Pk":       {headerValue("PRIVATE KEY", pkcs8(t, key))},
		"Old_cert": {base64.StdEncoding.EncodeToString([]byte(issued.CertificateChain[0] + issued.CertificateChain[1]))},
		"Old_pk":   enrolled["Pk"],
	}
}

func TestService_devCA_enrolsAndUpdates(t *testing.T) {
	for _, protection := range []devca.ResponseProtection{devca.RespondMAC, devca.RespondSignature} {
		for _, kind := range []string{cmpProtection(ProtectionPBMSHA256), cmpProtection(ProtectionPBMSHA1), cmpProtection(ProtectionPBMAC1)} {
			t.Run(string(protection)+kind, func(t *testing.T) {
				s, development := newDevCAService(t, protection, anchored+kind)
				header := enrollHeader(t)

				first := s.get(t, "/v1/certificate/RA", header)
				require.Equal(t, http.StatusOK, first.StatusCode, first.text)
				assert.Contains(t, first.text, `"trustedCertificates":`+jsonText(t, []string{string(development.RootPEM())}))
				same := s.get(t, "/v1/certificate-update/RA", updateHeader(t, header, first.text, "app.example"))
				require.Equal(t, http.StatusOK, same.StatusCode, same.text)
				assert.Equal(t, uint64(1), development.Stats().Updated)
				other := s.get(t, "/v1/certificate-update/RA", updateHeader(t, header, first.text, "other.example"))
				require.Equal(t, http.StatusOK, other.StatusCode, other.text)
				assert.Equal(t, uint64(1), development.Stats().Updated, "other names are asked for with a certification request")
			})
		}
	}
}

func cmpProtection(name string) string { return `, "protection": "` + name + `"` }

func jsonText(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

func TestService_devCA_faultsAreAnsweredWithoutACertificate(t *testing.T) {
	for _, row := range []struct {
		name   string
		faults devca.Faults
		want   string
	}{
		{"a refusal", devca.Faults{Reject: true, FailInfo: []cmp.FailureBit{cmp.FailBadRequest}}, "CMPv2 server returned following error: this rejection was ordered as a fault"},
		{"an error that is not protected", devca.Faults{Unprotected: true}, "CMPv2 server returned following error: (not authenticated) this error was ordered as a fault"},
		{"another nonce", devca.Faults{WrongNonce: true}, "Exception occurred during call to cmp client: checking recipNonce"},
		{"a certificate for another key", devca.Faults{WrongKey: true}, "Exception occurred during call to cmp client: checking public key"},
		{"a certificate that has expired", devca.Faults{Expired: true}, "Exception occurred during call to cmp client: checking validity"},
		{"a connection dropped", devca.Faults{Drop: true}, "Exception occurred during call to cmp client: the CMP server did not answer; the log of the CertService has more"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, development := newDevCAService(t, devca.RespondMAC, anchored)
			development.SetFaults(row.faults)

			r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

			assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
			assert.Contains(t, r.text, `{"errorMessage":"`+row.want)
			assert.NotContains(t, r.text, "mypassword")
			assert.NotContains(t, r.text, "127.0.0.1", "where the CA is")
		})
	}
}

func TestService_devCA_waitsWhenItIsTold(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored)
	development.SetFaults(devca.Faults{Waiting: 1})

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusOK, r.StatusCode, r.text)
	assert.NotZero(t, development.Stats().Polls)
}

func TestService_devCA_withoutAnchors(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, "")
	header := enrollHeader(t)
	first := s.get(t, "/v1/certificate/RA", header)
	require.Equal(t, http.StatusOK, first.StatusCode, first.text)
	update := s.get(t, "/v1/certificate-update/RA", updateHeader(t, header, first.text, "app.example"))
	assert.Equal(t, http.StatusOK, update.StatusCode, "its answer is signed, and verified by the root that the first one brought: "+update.text)
	assert.Equal(t, uint64(1), development.Stats().Updated)

	lax, _ := newDevCAService(t, devca.RespondSignature, `, "responseTrust": "onap"`)
	first = lax.get(t, "/v1/certificate/RA", header)
	require.Equal(t, http.StatusOK, first.StatusCode, first.text)
	update = lax.get(t, "/v1/certificate-update/RA", updateHeader(t, header, first.text, "app.example"))
	assert.Equal(t, http.StatusOK, update.StatusCode, update.text)
}

// During a rollover clients must trust the next root before certificates of it come.
func TestService_devCA_additionalRoots_reachTheClient(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored+`, "additionalRoots": "next.pem"`)

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	require.Equal(t, http.StatusOK, r.StatusCode, r.text)
	var issued struct{ TrustedCertificates []string }
	require.NoError(t, json.Unmarshal([]byte(r.text), &issued))
	assert.Equal(t, []string{string(development.RootPEM()), string(golden(t, "pem/root-ca.pem"))}, issued.TrustedCertificates,
		"the signing root first, and each once")
}
