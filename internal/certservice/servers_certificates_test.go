package certservice

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

// unreadable are certificates that crypto/x509 refuses or cannot verify with, and what it says of them.
var unreadable = map[string]string{
	"negative-serial": "it cannot be parsed: x509: negative serial number",
	"brainpool":       "it cannot be parsed: x509: unsupported elliptic curve",
	"ecacc":           "it cannot be parsed: x509: negative serial number",
	"ed448":           "its key is of an unsupported kind (Ed448)",
}

// parseOne parses a configuration with one server, one more field, and one file of certificates.
func parseOne(field string, file []byte) (Server, []string, error) {
	text := fmt.Sprintf(`{"cmpv2Servers": [{"caName": "RA", "url": "http://ca/cmp", "issuerDN": "CN=ca",
		"authentication": {"iak": "i", "rv": "r"}, %q: "certs.pem"}]}`, field)
	parsed, err := parseServers([]byte(text), func(string) ([]byte, error) { return file, nil })
	if err == nil && len(parsed.Faults) > 0 {
		err = parsed.Faults
	}
	if err != nil {
		return Server{}, nil, err
	}
	return parsed.Servers[0], parsed.Warnings, nil
}

func TestParseServers_trustAnchors_skipsWhatCanVerifyNothing(t *testing.T) {
	good := golden(t, "pem/root-ca.pem")
	for name, reason := range unreadable {
		bad := golden(t, "certificates/"+name+".pem")
		block, _ := pem.Decode(bad)
		parsed, err := pki.Parse(block.Bytes)
		require.NoError(t, err)
		for position, file := range [][]byte{slices.Concat(bad, good), slices.Concat(good, bad)} {
			s, warnings, err := parseOne("trustAnchors", file)
			require.NoError(t, err, name)
			require.Len(t, s.TrustAnchors, 1, name)
			assert.Equal(t, goldenCert(t, "root-ca.pem").Raw, s.TrustAnchors[0].Raw)
			assert.Equal(t, []string{fmt.Sprintf(`cmpv2Servers[0].trustAnchors: in "certs.pem", certificate %d, %q, can verify nothing here: %s; it is skipped`,
				position+1, pki.DN(parsed.RawSubject), reason)}, warnings)
		}
		_, _, err = parseOne("trustAnchors", bad)
		assert.EqualError(t, err, fmt.Sprintf(`cmpv2Servers[0].trustAnchors: has no certificate in "certs.pem" that can be used: `+
			`certificate 1, %q, can verify nothing here: %s`, pki.DN(parsed.RawSubject), reason))
	}
}

// A damaged block costs itself only, and blocks of other kinds nothing.
func TestParseServers_trustAnchors_damagedBlockIsSkipped(t *testing.T) {
	good := golden(t, "pem/root-ca.pem")
	other := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{0x30, 0}})
	s, warnings, err := parseOne("trustAnchors", slices.Concat(other, good, good[:200]))
	require.NoError(t, err)
	assert.Len(t, s.TrustAnchors, 1)
	require.Len(t, warnings, 1)
	assert.Regexp(t, `cmpv2Servers\[0\].trustAnchors: in "certs.pem", the PEM block "CERTIFICATE" at line \d+: it has no END line: `+
		`the file was cut short, or lines are missing; it is skipped`, warnings[0])
	_, _, err = parseOne("trustAnchors", good[:200])
	assert.EqualError(t, err, `cmpv2Servers[0].trustAnchors: has "certs.pem", which holds no certificate that can be read: `+
		`the PEM block "CERTIFICATE" at line 1: it has no END line: the file was cut short, or lines are missing`)
}

// Other characters in a PrintableString do no harm.
func TestParseServers_trustAnchors_underscoreIsNoFault(t *testing.T) {
	s, warnings, err := parseOne("trustAnchors", golden(t, "certificates/underscore.pem"))
	require.NoError(t, err)
	assert.Len(t, s.TrustAnchors, 1)
	assert.Empty(t, warnings)
}

// They are only handed on, so their DER is enough.
func TestParseServers_additionalRoots_keepsWhatCanVerifyNothing(t *testing.T) {
	for name, reason := range unreadable {
		bad := golden(t, "certificates/"+name+".pem")
		block, _ := pem.Decode(bad)
		s, warnings, err := parseOne("additionalRoots", slices.Concat(bad, golden(t, "pem/root-ca.pem")))
		require.NoError(t, err, name)
		require.Len(t, s.AdditionalRoots, 2)
		assert.Equal(t, block.Bytes, s.AdditionalRoots[0].Raw)
		require.Len(t, warnings, 1)
		assert.Contains(t, warnings[0], `certificate 1, "`)
		assert.Contains(t, warnings[0], "can verify nothing here, and is handed to clients as it is: "+reason)
	}
	made := newCA(t, "Large")
	large, err := x509.CreateCertificate(rand.Reader, made.Root, made.Root, ca.OversizedRSA().Public(), made.RootKey)
	require.NoError(t, err)
	_, warnings, err := parseOne("additionalRoots", pemOf(large))
	require.NoError(t, err)
	assert.Contains(t, warnings[0], "its RSA key has 8676 bits, want at most 8192")
}

func TestParseServers_trustAnchors_warnsOfAMissingRoot(t *testing.T) {
	issuing, root := golden(t, "pem/issuing-ca.pem"), golden(t, "pem/root-ca.pem")
	_, warnings, err := parseOne("trustAnchors", issuing)
	require.NoError(t, err)
	assert.Equal(t, []string{`cmpv2Servers[0].trustAnchors: has "CN=Example Issuing CA", but not the root above it, "CN=Example Root CA": clients get a truststore without ` +
		`a root, which openssl and others refuse; put the root into trustAnchors`}, warnings)
	for _, file := range [][]byte{root, slices.Concat(issuing, root)} {
		_, warnings, err = parseOne("trustAnchors", file)
		require.NoError(t, err)
		assert.Empty(t, warnings)
	}
}
