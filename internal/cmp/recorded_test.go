package cmp

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// recordings holds messages of a real CA; its README.md says what they are.
const recordings = "../../test/testdata/ejbca"

// Secrets of the recordings, by alias.
const (
	secretCmpRA    = "2QYQUJO4VGOTUYAEZD5TG5MP4J"
	secretCmpKeyID = "seciak"
)

// recordedMessages returns the recorded messages by their files' names.
func recordedMessages(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(recordings, "*.der"))
	require.NoError(t, err)
	require.Greater(t, len(files), 80)
	messages := map[string][]byte{}
	for _, file := range files {
		messages[strings.TrimSuffix(filepath.Base(file), ".der")] = readRecorded(filepath.Base(file))
	}
	return messages
}

func readRecorded(name string) []byte {
	return fixture.Must(os.ReadFile(filepath.Join(recordings, name)))
}

func recordedAnchors() (anchors []*x509.Certificate) {
	for _, name := range []string{"compose-ca.pem", "compose-ca-2.pem", "management-ca.pem"} {
		block, _ := pem.Decode(readRecorded(name))
		anchors = append(anchors, fixture.Must(x509.ParseCertificate(block.Bytes)))
	}
	return anchors
}

func TestRecorded_messages_marshalBackToTheSameBytes(t *testing.T) {
	for name, der := range recordedMessages(t) {
		m, err := ParsePKIMessage(der)
		require.NoError(t, err, name)
		again, err := m.Marshal()
		require.NoError(t, err, name)
		assert.True(t, bytes.Equal(der, again), name)
		if requests, ok := m.Body.Content.(CertReqMessages); ok {
			assert.NoError(t, requests[0].VerifyPOPO(), name)
		}
	}
}

// unprotectedRefusals are the refusals by the end entity profile, which EJBCA does not protect.
var unprotectedRefusals = []string{"ir-refused.response", "p10cr-refused.response",
	"ir-two-ou-refused.response", "unknown-profile-refused.response"}

func TestRecorded_protection_verifies(t *testing.T) {
	keys := fixture.Each([]string{secretCmpRA, secretCmpKeyID, "app1-secret", "cl1-secret", "cl5-secret"},
		func(secret string) *MACKeys { return NewMACKeys([]byte(secret)) })
	macs, signatures := 0, 0
	anchors := recordedAnchors()
	for name, der := range recordedMessages(t) {
		m, err := ParsePKIMessage(der)
		require.NoError(t, err, name)
		switch {
		case m.Protection == nil:
			assert.Contains(t, unprotectedRefusals, name)
		case m.MACProtected():
			verified := 0
			for _, key := range keys {
				if _, err := key.Verify(m); err == nil {
					verified++
				} else {
					assert.ErrorContains(t, err, "MAC does not match", name)
				}
			}
			macs += verified
			// A fault of EJBCA: in client mode the MAC of pkiConf is made with no secret that the
			// client could know.
			unknown := strings.HasPrefix(name, "wrong-secret") || name == "client-pbe-certconf.response"
			assert.Equal(t, !unknown, verified == 1, name)
		default:
			signatures++
			c, _ := testClient(http.NotFoundHandler(), func(c *Config) { c.TrustAnchors = anchors })
			signer, err := c.begin(nil, nil).findSigner(m)
			require.NoError(t, err, name)
			isRequest := strings.HasSuffix(name, ".request")
			assert.Equal(t, !isRequest, signer.IsCA, name)
		}
	}
	assert.Greater(t, macs, 25)
	assert.Greater(t, signatures, 35)
}

// What users see of a refusal, from the message to the error's text. Most are signed by the CA,
// which is the anchor; the end entity profile's are not protected, and say so.
func TestRecorded_answers_areAcceptedAndRefusalsShown(t *testing.T) {
	golden.Play(t, "recorded.txt", func(t *testing.T, name, _ string) string {
		certificate, err := replay(t, name)
		if err != nil {
			return err.Error()
		}
		return "accepted " + pki.DN(certificate.RawSubject)
	})
}

// replay has a client take a recorded answer to a recorded request, in the transaction of the two.
func replay(t *testing.T, name string) (*x509.Certificate, error) {
	t.Helper()
	request, err := ParsePKIMessage(readRecorded(name + ".request.der"))
	require.NoError(t, err)
	answer, err := ParsePKIMessage(readRecorded(name + ".response.der"))
	require.NoError(t, err)
	c, _ := testClient(http.NotFoundHandler(), func(c *Config) {
		c.TrustAnchors, c.Secret = recordedAnchors(), []byte(secretCmpRA)
		c.Recipient = request.Header.Recipient.String()
		c.Now = func() time.Time { return request.Header.MessageTime }
		if name == "ir-pbm-sha1" {
			c.Protection = ProtectionPBMSHA1
		}
	})
	tx := c.begin(nil, nil)
	tx.id, tx.lastNonce = request.Header.TransactionID, request.Header.SenderNonce
	if refusal := (&Config{}).refusalOf(answer); refusal != nil {
		return nil, tx.authenticateRefusal(answer, refusal)
	}
	if err := tx.check(answer, request.Body.Type); err != nil {
		return nil, err
	}
	response, err := certResponse(answer)
	require.NoError(t, err)
	certificate, _, err := tx.evaluate(answer, response, asked(t, request))
	return certificate, err
}

// asked returns what a recorded request asks for as a CSR would.
func asked(t *testing.T, request *PKIMessage) *x509.CertificateRequest {
	template := request.Body.Content.(CertReqMessages)[0].CertReq.CertTemplate
	key, err := template.Key()
	require.NoError(t, err)
	return &x509.CertificateRequest{RawSubject: template.Subject, PublicKey: key, Extensions: template.Extensions}
}
