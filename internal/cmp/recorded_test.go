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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		messages[strings.TrimSuffix(filepath.Base(file), ".der")] = readRecorded(t, filepath.Base(file))
	}
	return messages
}

func readRecorded(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(recordings, name))
	require.NoError(t, err)
	return content
}

func recordedAnchors(t testing.TB) (anchors []*x509.Certificate) {
	t.Helper()
	for _, name := range []string{"compose-ca.pem", "compose-ca-2.pem", "management-ca.pem"} {
		block, _ := pem.Decode(readRecorded(t, name))
		require.NotNil(t, block)
		anchor, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		anchors = append(anchors, anchor)
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

// unprotected are the refusals by the end entity profile, which EJBCA does not protect.
var unprotected = []string{"ir-refused.response", "p10cr-refused.response", "ir-two-ou-refused.response", "unknown-profile-refused.response"}

func TestRecorded_protection_verifies(t *testing.T) {
	secrets := map[string]string{
		"client-ir.request": "app1-secret", "client-ir-certconf.request": "app1-secret", "client-ir-password-used.request": "cl1-secret",
		"client-pbe-ir.request": "cl5-secret", "client-pbe-certconf.request": "cl5-secret",
	}
	keys := map[string]*MACKeys{}
	for _, secret := range []string{secretCmpRA, secretCmpKeyID, "app1-secret", "cl1-secret", "cl5-secret"} {
		keys[secret] = NewMACKeys([]byte(secret))
	}
	macs, signatures := 0, 0
	anchors := recordedAnchors(t)
	for name, der := range recordedMessages(t) {
		m, err := ParsePKIMessage(der)
		require.NoError(t, err, name)
		switch {
		case m.Protection == nil:
			assert.Contains(t, unprotected, name)
		case m.MACProtected() && strings.HasPrefix(name, "wrong-secret"):
			for _, key := range keys {
				_, err := key.Verify(m)
				assert.ErrorContains(t, err, "MAC does not match", name)
			}
		case m.MACProtected():
			macs++
			candidates := []string{secretCmpRA, secretCmpKeyID}
			if secret, known := secrets[name]; known {
				candidates = []string{secret}
			}
			if name == "client-pbe-certconf.response" {
				continue // EJBCA's own fault: made with no secret that the client could know
			}
			verified := false
			for _, secret := range candidates {
				_, err := keys[secret].Verify(m)
				verified = verified || err == nil
			}
			assert.True(t, verified, name)
		default:
			signatures++
			c, _ := testClient(t, http.NotFoundHandler(), func(c *Config) { c.TrustAnchors = anchors })
			signer, err := c.begin(nil, nil).findSigner(m)
			require.NoError(t, err, name)
			isRequest := strings.HasSuffix(name, ".request")
			assert.Equal(t, !isRequest, signer.IsCA, name)
		}
	}
	assert.Greater(t, macs, 25)
	assert.Greater(t, signatures, 35)
}
