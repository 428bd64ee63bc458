package ejbca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

const (
	recordings  = "../testdata/ejbca"
	composeCA   = "CN=Compose CA,O=Example"
	composeCA2  = "CN=Compose CA 2,O=Example"
	subCA       = "CN=Sub CA,O=Example"
	managing    = "CN=ManagementCA,O=EJBCA Container Quickstart"
	raSecret    = "2QYQUJO4VGOTUYAEZD5TG5MP4J"
	keyIDSecret = "seciak"
)

// The aliases of the recordings.
var (
	cmpRA    = Config{Alias: "cmpRA", Subject: composeCA, Secret: raSecret, CertificateProfile: Custom}
	cmpKeyID = Config{Alias: "cmpKeyId", Subject: composeCA, Secret: keyIDSecret,
		CertificateProfile: Custom, Modules: SecretFirst}
	cmpSub = Config{Alias: "cmpSub", Subject: subCA, SubCA: true, Secret: keyIDSecret, CertificateProfile: KeyID}
	cmpPbe = Config{Alias: "cmpPbe", Subject: composeCA, Secret: keyIDSecret,
		CertificateProfile: Custom, PBE: true}
	cmpRA2    = Config{Alias: "cmpRA2", Subject: composeCA2, Secret: raSecret, PBE: true}
	cmpClient = Config{Alias: "cmp", Subject: managing, Modules: SecretFirst,
		CertificateProfile: ENDUSER, Passwords: passwords}
	cmpPbClient = Config{Alias: "cmpPbeClient", Subject: managing, PBE: true,
		CertificateProfile: ENDUSER, Passwords: passwords}

	passwords = map[string]string{"app1": "app1-secret", "cl1": "cl1-secret", "cl5": "cl5-secret"}
)

// with changes an alias.
func with(config Config, changes ...func(*Config)) Config {
	for _, change := range changes {
		change(&config)
	}
	return config
}

func server(c *Config)      { c.CertificateProfile = SERVER }
func noRole(c *Config)      { c.NoRole = true }
func secretFirst(c *Config) { c.Modules = SecretFirst }
func onapProfile(c *Config) { c.RequiredFields = []string{"STATEORPROVINCE"} }

// recorded are the recordings by the alias that they were made with, and what EJBCA had in its database.
var recorded = []struct {
	name   string
	config Config
	change func(s *Server, signer *x509.Certificate)
}{
	{"ir-rsa", with(cmpRA, server), nil},
	{"ir-p256", cmpRA, nil},
	{"ir-utf8-name", cmpRA, nil},
	{"ir-san-kinds", cmpRA, nil},
	{"ir-wildcard", cmpRA, nil},
	{"ir-ed25519", cmpKeyID, nil},
	{"ir-pbm-sha1", cmpRA, nil},
	{"ir-pbmac1", cmpRA, nil},
	{"ir-sub-ca", cmpSub, nil},
	{"ir-explicit", cmpRA, nil},
	{"ir-explicit-certconf", cmpRA, nil},
	{"ir-for-rejection", with(cmpKeyID, func(c *Config) { c.CommonNamePostfix = " (test)" }), nil},
	{"certconf-rejection", cmpKeyID, nil},
	{"ir-pbe-explicit", cmpRA2, nil},
	{"ir-pbe-explicit-certconf", cmpRA2, nil},
	{"p10cr-pbe-explicit", cmpRA2, nil},
	{"client-ir", cmpClient, nil},
	{"client-ir-certconf", cmpClient, nil},
	{"client-ir-password-used", cmpClient, func(s *Server, _ *x509.Certificate) { s.used["cl1"] = true }},
	{"client-pbe-ir", cmpPbClient, nil},
	{"client-pbe-certconf", cmpPbClient, nil},
	{"kur-rsa", cmpRA, nil},
	{"kur-p256", cmpRA, nil},
	{"kur-sub-ca", with(cmpSub, func(c *Config) { c.CertificateProfile = Custom }), nil},
	{"kur-pbe-signed", cmpPbe, nil},
	{"kur-names-of-another", cmpRA, func(s *Server, signer *x509.Certificate) {
		names := append([]byte{0x30, 0x0f, 0x82, 0x0d}, "sts-1.example"...)
		s.entities["sts"] = Entity{signer.RawSubject, names}
	}},
	{"kur-not-administrator", with(cmpRA, noRole), nil},
	{"kur-sub-ca-refused", with(cmpSub, noRole), nil},
	{"kur-expired", cmpRA, nil},
	{"kur-revoked", cmpRA, func(s *Server, signer *x509.Certificate) { s.config.Revoked = [][]byte{signer.Raw} }},
	{"kur-same-cn-refused", cmpRA, func(s *Server, _ *x509.Certificate) {
		subject, _ := cmp.ParseDN("CN=dup,OU=B,O=Example,ST=Skane,C=SE")
		s.entities["dup"] = Entity{Subject: subject}
	}},
	{"ir-refused", with(cmpRA, onapProfile), nil},
	{"p10cr-refused", with(cmpRA, onapProfile), nil},
	{"ir-two-ou-refused", with(cmpRA, onapProfile), nil},
	{"ir-ed25519-refused", with(cmpRA, func(c *Config) { c.Ed25519NotAllowed = true }), nil},
	{"ir-keyid-refused", with(cmpKeyID, func(c *Config) { c.Secret = "another" }), nil},
	{"unknown-profile-refused", with(cmpRA2, func(c *Config) { c.CertificateProfile = KeyID }), nil},
	{"wrong-secret", with(cmpRA, secretFirst, func(c *Config) { c.Secret = "another" }), nil},
	{"wrong-secret-certificate-first", with(cmpKeyID, func(c *Config) {
		c.Modules,
			c.Secret = CertificateFirst, "another"
	}), nil},
	{"ca-offline", cmpSub, func(s *Server, _ *x509.Certificate) { s.TakeOffline() }},
	{"genm-cacerts-refused", cmpRA, nil},
	{"genm-root-update-refused", cmpRA, nil},
	{"rr", cmpRA, nil},
	{"rr-signed-refused", with(cmpRA, noRole), nil},
}

// The server answers the recorded requests as EJBCA did: everything but keys, times, numbers and signatures.
func TestServer_answersAsRecorded(t *testing.T) {
	for _, row := range recorded {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			request := recording(t, row.name+".request.der")
			want := parse(t, recording(t, row.name+".response.der"))
			sent := parse(t, request)
			config := row.config
			config.Now = func() time.Time { return sent.Header.MessageTime }
			for _, name := range []string{"compose-ca.pem", "sub-ca.pem"} {
				config.KnownIssuers = append(config.KnownIssuers, certificate(t, name))
			}
			s, err := New(config)
			require.NoError(t, err)
			var signer *x509.Certificate
			if len(sent.ExtraCerts) > 0 {
				signer, err = x509.ParseCertificate(sent.ExtraCerts[0])
				require.NoError(t, err)
				s.entities[commonName(signer.RawSubject)] = Entity{signer.RawSubject, subjectAltName(signer.Extensions)}
			}
			if row.change != nil {
				row.change(s, signer)
			}

			response := post(t, s, path+row.config.Alias, request)

			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, response.StatusCode, string(body))
			assert.Equal(t, cmp.MediaType, response.Header.Get("Content-Type"))
			assert.Equal(t, shape(t, sent, want), shape(t, sent, parse(t, body)))
		})
	}
}

// Every recording is in the list, but for the one with a page.
func TestServer_answersEveryRecording(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(recordings, "*.response.der"))
	require.NoError(t, err)
	listed := map[string]bool{}
	for _, row := range recorded {
		listed[row.name] = true
	}
	for _, file := range files {
		assert.True(t, listed[strings.TrimSuffix(filepath.Base(file), ".response.der")], file)
	}
	assert.Len(t, files, len(recorded))
}

func TestServer_unknownAlias_isAnsweredWithThePageRecorded(t *testing.T) {
	s, err := New(cmpRA)
	require.NoError(t, err)
	response := post(t, s, path+"nosuch", recording(t, "unknown-alias.request.der"))
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusNotFound, response.StatusCode)
	assert.Equal(t, "text/html;charset=UTF-8", response.Header.Get("Content-Type"))
	assert.Equal(t, string(recording(t, "unknown-alias.response.html")), string(body))
}

func post(t *testing.T, s *Server, path string, body []byte) *http.Response {
	t.Helper()
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	request.Header.Set("Content-Type", cmp.MediaType)
	s.ServeHTTP(recorder, request)
	return recorder.Result()
}

func recording(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(recordings, name))
	require.NoError(t, err)
	return content
}

func certificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(recording(t, name))
	require.NotNil(t, block)
	parsed, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return parsed
}

func parse(t *testing.T, der []byte) *cmp.PKIMessage {
	t.Helper()
	m, err := cmp.ParsePKIMessage(bytes.Clone(der))
	require.NoError(t, err)
	return m
}

// shape is all of an answer that does not change from one run to the next, one line for each part.
func shape(t *testing.T, request, m *cmp.PKIMessage) string {
	t.Helper()
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, "%s: %v\n", name, value) }
	h := m.Header
	line("body", m.Body.Type)
	line("pvno", h.PVNO)
	line("sender", h.Sender)
	line("recipient", h.Recipient)
	line("messageTime", !h.MessageTime.IsZero())
	protection := unprotected
	switch {
	case m.MACProtected():
		protection = withMAC
		line("the MAC is the request's", h.ProtectionAlg.Algorithm.Equal(request.Header.ProtectionAlg.Algorithm))
		line("senderKID", string(h.SenderKID))
	case h.ProtectionAlg != nil:
		protection = signed
		line("senderKID", len(h.SenderKID))
	}
	line("protected", protection)
	line("protection", m.Protection != nil)
	line("recipKID", h.RecipKID)
	line("transactionID", bytes.Equal(h.TransactionID, request.Header.TransactionID))
	line("senderNonce", len(h.SenderNonce))
	line("recipNonce", bytes.Equal(h.RecipNonce, request.Header.SenderNonce))
	line("freeText", h.FreeText)
	line("generalInfo", h.GeneralInfo)
	for _, der := range m.ExtraCerts {
		line("extraCerts", name(t, der))
	}
	switch content := m.Body.Content.(type) {
	case *cmp.ErrorMsgContent:
		line("error", info(content.StatusInfo))
		line("details", []any{content.ErrorCode, content.ErrorDetails})
	case *cmp.CertRepMessage:
		for _, der := range content.CAPubs {
			line("caPubs", name(t, der))
		}
		for _, response := range content.Response {
			line("certReqId", response.CertReqID)
			line("status", info(response.Status))
			if pair := response.CertifiedKeyPair; pair != nil {
				shapeCertificate(t, line, pair.Certificate)
			}
		}
	case *cmp.RevRepContent:
		for _, status := range content.Status {
			line("status", info(status))
		}
		line("revCerts", len(content.RevCerts))
	}
	return b.String()
}

// shapeCertificate leaves key identifiers out.
func shapeCertificate(t *testing.T, line func(string, any), der []byte) {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	line("subject", asWritten(cert.RawSubject))
	line("issuer", asWritten(cert.RawIssuer))
	for _, extension := range cert.Extensions {
		value := fmt.Sprintf("%x", extension.Value)
		if extension.Id.Equal(oidSubjectKeyID) || extension.Id.Equal(oidAuthorityKeyID) {
			value = fmt.Sprint(len(extension.Value))
		}
		line("extension", []any{extension.Id, extension.Critical, value})
	}
}

func name(t *testing.T, der []byte) string {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return asWritten(cert.RawSubject)
}

func info(i cmp.PKIStatusInfo) string {
	return fmt.Sprint(i.Status, " ", i.FailInfo.Names(), " ", i.StatusString)
}
