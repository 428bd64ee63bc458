package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limitedTo makes an authority with a critical name constraint: to the subtree of a GeneralName.
func limitedTo(t *testing.T, p *testPKI, base []byte) *identity {
	t.Helper()
	sequence := func(tag int, content []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: tag >> 6, IsCompound: true, Tag: tag & 0x1f, Bytes: content})
		require.NoError(t, err)
		return der
	}
	value := sequence(0x30, sequence(0xa0, sequence(0x30, base)))
	return newIdentity(t, "CN=Limited CA", p.root, func(c *x509.Certificate) {
		asCA(c)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: value}}
	})
}

// RFC 5280, 4.2.1.10: a constraint refuses the names of its kind only, and directory names are understood.
func TestClient_issuerWithNameConstraints(t *testing.T) {
	p := newPKI(t)
	upn := []byte{0xa0, 0x13, 0x06, 0x0a, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 20, 2, 3, 0xa0, 0x05, 0x0c, 3, '@', 'a', 'b'}
	for name, row := range map[string]struct {
		base []byte
		want string
	}{
		"on the leaf's directory name": {DirectoryName(dn(t, "CN=leaf")), ""},
		"on another directory name": {DirectoryName(dn(t, "C=SE")), `chain: "CN=leaf,O=Example" issued by "CN=Limited CA", which does not verify ` +
			`(the CA certificate "CN=Limited CA" does not permit the directory name "O=Example,CN=leaf": see the certificate "O=Example,CN=leaf" below it)`},
		"on a kind that the leaf has not": {upn, ""},
		"on the leaf's host name":         {[]byte{0x82, 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e'}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			limited := limitedTo(t, p, row.base)
			respond := with(p.leafBy(t, limited, nil), limited.cert.Raw)
			if row.want != "" {
				hostile{config: anchored, respond: respond, want: row.want}.run(t, p)
				return
			}
			r := &responder{t: t, testPKI: p}
			respond(p, r)
			result, _, err := initialize(t, p, r, func(c *Config) { anchored(p, c) })
			require.NoError(t, err)
			assert.Equal(t, limited.cert.Raw, result.Chain[1].Raw)
		})
	}
}

// Roots that crypto/x509 refuses or has no key for verify nothing, but clients may know better.
func TestClient_rootInCAPubsThatCanVerifyNothing_isHandedOn(t *testing.T) {
	p := newPKI(t)
	for _, name := range []string{"negative-serial", "brainpool", "ed448", "ecacc"} {
		text, err := os.ReadFile("../../test/testdata/certificates/" + name + ".pem")
		require.NoError(t, err)
		block, _ := pem.Decode(text)
		for _, signed := range []bool{false, true} {
			r := &responder{t: t, testPKI: p, signed: signed, body: func(_ *PKIMessage, honest PKIBody) PKIBody {
				if rep, ok := honest.Content.(*CertRepMessage); ok {
					rep.CAPubs = append(rep.CAPubs, block.Bytes, p.root.cert.Raw)
				}
				return honest
			}}

			result, log, err := initialize(t, p, r, func(c *Config) { anchored(p, c) })

			require.NoError(t, err, name)
			if signed { // nothing vouches for it
				assert.Equal(t, []*x509.Certificate{p.root.cert}, result.Trusted, name)
				continue
			}
			require.Len(t, result.Trusted, 2, name)
			assert.Equal(t, block.Bytes, result.Trusted[1].Raw)
			assert.Contains(t, log.String(), "a root in caPubs can verify nothing here, and is handed on as it is")
		}
	}
}

// A certificate that cannot be read harms nothing where it is not needed.
func TestClient_unreadableExtraCertificate_isPassedOver(t *testing.T) {
	p := newPKI(t)
	text, err := os.ReadFile("../../test/testdata/certificates/negative-serial.pem")
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	r := &responder{t: t, testPKI: p, signed: true, message: func(_, m *PKIMessage) { m.ExtraCerts = append([][]byte{block.Bytes}, m.ExtraCerts...) }}

	result, _, err := initialize(t, p, r, func(c *Config) { anchored(p, c) })

	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{p.root.cert}, result.Trusted)
}
