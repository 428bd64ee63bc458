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
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const recordings = "../testdata/ejbca"

// recorded are the recordings, by the alias that they were made with, and what EJBCA had in its database.
type recorded struct {
	Aliases    map[string]Config
	Recordings []struct {
		Name, Alias string
		With        yaml.Node
		Database    struct {
			Used, Renamed, Resubjected string // a user, another name, another subject
			Revoked, Offline           bool
		}
	}
}

func readRecorded(t *testing.T) recorded {
	t.Helper()
	var all recorded
	require.NoError(t, yaml.Unmarshal(fixture.Must(os.ReadFile("testdata/recorded.yaml")), &all))
	return all
}

// The server answers the recorded requests as EJBCA did: everything but keys, times, numbers and signatures.
func TestServer_answersAsRecorded(t *testing.T) {
	all := readRecorded(t)
	for _, row := range all.Recordings {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			request := recording(row.Name + ".request.der")
			want := parse(recording(row.Name + ".response.der"))
			sent := parse(request)
			config, database := all.Aliases[row.Alias], row.Database
			if !row.With.IsZero() {
				require.NoError(t, row.With.Decode(&config))
			}
			config.Now = func() time.Time { return sent.Header.MessageTime }
			for _, name := range []string{"compose-ca.pem", "sub-ca.pem"} {
				config.KnownIssuers = append(config.KnownIssuers, certificate(name))
			}
			s := fixture.Must(New(config))
			if len(sent.ExtraCerts) > 0 {
				signer := fixture.Must(x509.ParseCertificate(sent.ExtraCerts[0]))
				entity := Entity{signer.RawSubject, subjectAltName(signer.Extensions)}
				if name := database.Renamed; name != "" {
					length := byte(len(name))
					entity.Names = append([]byte{0x30, length + 2, 0x82, length}, name...)
				}
				if database.Resubjected != "" {
					entity.Subject = fixture.Must(cmp.ParseDN(database.Resubjected))
				}
				s.entities[commonName(entity.Subject)] = entity
				if database.Revoked {
					s.config.Revoked = [][]byte{signer.Raw}
				}
			}
			s.used[database.Used], s.offline = true, database.Offline

			response := post(s, path+config.Alias, request)

			body := fixture.Must(io.ReadAll(response.Body))
			require.Equal(t, http.StatusOK, response.StatusCode, string(body))
			assert.Equal(t, cmp.MediaType, response.Header.Get("Content-Type"))
			assert.NotContains(t, shape(sent, want), "0x", "a pointer")
			assert.Equal(t, shape(sent, want), shape(sent, parse(body)))
		})
	}
}

// Every recording is in the list, but for the one with a page.
func TestServer_answersEveryRecording(t *testing.T) {
	var listed []string
	for _, row := range readRecorded(t).Recordings {
		listed = append(listed, filepath.Join(recordings, row.Name+".response.der"))
	}
	assert.ElementsMatch(t, fixture.Must(filepath.Glob(filepath.Join(recordings, "*.response.der"))), listed)
}

func TestServer_unknownAlias_isAnsweredWithThePageRecorded(t *testing.T) {
	response := post(fixture.Must(New(Config{})), path+"nosuch", recording("unknown-alias.request.der"))
	body := fixture.Must(io.ReadAll(response.Body))
	assert.Equal(t, http.StatusNotFound, response.StatusCode)
	assert.Equal(t, "text/html;charset=UTF-8", response.Header.Get("Content-Type"))
	assert.Equal(t, string(recording("unknown-alias.response.html")), string(body))
}

func post(s *Server, path string, body []byte) *http.Response {
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	request.Header.Set("Content-Type", cmp.MediaType)
	s.ServeHTTP(recorder, request)
	return recorder.Result()
}

func recording(name string) []byte {
	return fixture.Must(os.ReadFile(filepath.Join(recordings, name)))
}

func certificate(name string) *x509.Certificate {
	block, _ := pem.Decode(recording(name))
	return fixture.Must(x509.ParseCertificate(block.Bytes))
}

func parse(der []byte) *cmp.PKIMessage {
	return fixture.Must(cmp.ParsePKIMessage(bytes.Clone(der)))
}

// shape is all of an answer that does not change from one run to the next.
func shape(request, m *cmp.PKIMessage) string {
	var b strings.Builder
	line := func(name string, values ...any) { fmt.Fprintln(&b, append([]any{name}, values...)...) }
	h := m.Header
	line("header", m.Body.Type, h.PVNO, h.Sender, h.Recipient, h.RecipKID, h.FreeText, h.GeneralInfo)
	line("times and nonces", !h.MessageTime.IsZero(), len(h.SenderNonce),
		bytes.Equal(h.TransactionID, request.Header.TransactionID),
		bytes.Equal(h.RecipNonce, request.Header.SenderNonce))
	switch {
	case m.MACProtected():
		same := h.ProtectionAlg.Algorithm.Equal(request.Header.ProtectionAlg.Algorithm)
		line(withMAC, same, string(h.SenderKID), m.Protection != nil)
	case h.ProtectionAlg != nil:
		line(signed, len(h.SenderKID), m.Protection != nil)
	}
	for _, der := range m.ExtraCerts {
		line("extraCerts", name(der))
	}
	content, isAnswer := m.Body.Content.(*cmp.CertRepMessage)
	if !isAnswer {
		line(fmt.Sprintf("%+v", m.Body.Content))
		return b.String()
	}
	for _, der := range content.CAPubs {
		line("caPubs", name(der))
	}
	for _, response := range content.Response {
		line(fmt.Sprintf("response %d %+v", response.CertReqID, response.Status))
		if pair := response.CertifiedKeyPair; pair != nil {
			shapeCertificate(line, pair.Certificate)
		}
	}
	return b.String()
}

// shapeCertificate leaves key identifiers out.
func shapeCertificate(line func(string, ...any), der []byte) {
	cert := fixture.Must(x509.ParseCertificate(der))
	line("certificate", asWritten(cert.RawSubject), asWritten(cert.RawIssuer))
	for _, extension := range cert.Extensions {
		value := fmt.Sprintf("%x", extension.Value)
		if extension.Id.Equal(oidSubjectKeyID) || extension.Id.Equal(oidAuthorityKeyID) {
			value = fmt.Sprint(len(extension.Value))
		}
		line("extension", extension.Id, extension.Critical, value)
	}
}

func name(der []byte) string {
	return asWritten(fixture.Must(x509.ParseCertificate(der)).RawSubject)
}
