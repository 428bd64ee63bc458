package certservice

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSameSubjectAndNames(t *testing.T) {
	uri := func(text string) *url.URL {
		u, err := url.Parse(text)
		require.NoError(t, err)
		return u
	}
	sanOf := func(names ...asn1.RawValue) []pkix.Extension {
		value, err := asn1.Marshal(names)
		require.NoError(t, err)
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	registeredID := func(last byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, last}}
	}
	subject := pkix.Name{CommonName: "app", Organization: []string{"Org"}, Country: []string{"SE"}}
	type names struct {
		subject    pkix.Name
		rdns       pkix.RDNSequence // instead of subject
		dns        []string
		ips        []net.IP
		emails     []string
		uris       []*url.URL
		extensions []pkix.Extension // instead of the four before
	}
	rdn := func(oid asn1.ObjectIdentifier, value any) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}}
	}
	commonName, organization := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}

	for _, row := range []struct {
		name      string
		old, next names
		same      bool
	}{
		{"the same subject and no names", names{subject: subject}, names{subject: subject}, true},
		{"the same names", names{subject: subject, dns: []string{"a", "b"}}, names{subject: subject, dns: []string{"a", "b"}}, true},
		{"the same names in another order", names{subject: subject, dns: []string{"a", "b"}, emails: []string{"x@y"}}, names{subject: subject, dns: []string{"b", "a"}, emails: []string{"x@y"}}, true},
		{"a name twice", names{subject: subject, dns: []string{"a"}}, names{subject: subject, dns: []string{"a", "a"}}, true},
		{"DNS names in another case", names{subject: subject, dns: []string{"a.example"}}, names{subject: subject, dns: []string{"A.Example"}}, true},
		{"a name more", names{subject: subject, dns: []string{"a"}}, names{subject: subject, dns: []string{"a", "b"}}, false},
		{"a name less", names{subject: subject, dns: []string{"a", "b"}}, names{subject: subject, dns: []string{"a"}}, false},
		{"no names any more", names{subject: subject, dns: []string{"a"}}, names{subject: subject}, false},
		{"another address", names{subject: subject, ips: []net.IP{{10, 0, 0, 1}}}, names{subject: subject, ips: []net.IP{{10, 0, 0, 2}}}, false},
		{"another URI", names{subject: subject, uris: []*url.URL{uri("spiffe://a/b")}}, names{subject: subject, uris: []*url.URL{uri("spiffe://a/B")}}, false},
		{"the same text as another kind", names{subject: subject, dns: []string{"x@y"}}, names{subject: subject, emails: []string{"x@y"}}, false},
		{"a kind that crypto/x509 does not know", names{subject: subject, extensions: sanOf(registeredID(3))}, names{subject: subject, extensions: sanOf(registeredID(3))}, true},
		{"another one of a kind that crypto/x509 does not know", names{subject: subject, extensions: sanOf(registeredID(3))}, names{subject: subject, extensions: sanOf(registeredID(4))}, false},
		{"another subject", names{subject: subject}, names{subject: pkix.Name{CommonName: "app"}}, false},
		{"the subject's parts in another order", names{rdns: pkix.RDNSequence{rdn(commonName, "app"), rdn(organization, "Org")}}, names{rdns: pkix.RDNSequence{rdn(organization, "Org"), rdn(commonName, "app")}}, true},
		{"the subject in another string type", names{rdns: pkix.RDNSequence{rdn(commonName, "app")}}, names{rdns: pkix.RDNSequence{rdn(commonName, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("app")})}}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			key := newKey(t)
			rawSubject := func(n names) []byte {
				rdns := n.rdns
				if rdns == nil {
					rdns = n.subject.ToRDNSequence()
				}
				der, err := asn1.Marshal(rdns)
				require.NoError(t, err)
				return der
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
				RawSubject: rawSubject(row.next), DNSNames: row.next.dns, IPAddresses: row.next.ips,
				EmailAddresses: row.next.emails, URIs: row.next.uris, ExtraExtensions: row.next.extensions,
			}, key)
			require.NoError(t, err)
			csr, err := x509.ParseCertificateRequest(der)
			require.NoError(t, err)
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), RawSubject: rawSubject(row.old), DNSNames: row.old.dns, IPAddresses: row.old.ips,
				EmailAddresses: row.old.emails, URIs: row.old.uris, ExtraExtensions: row.old.extensions,
			}
			der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			require.NoError(t, err)
			cert, err := x509.ParseCertificate(der)
			require.NoError(t, err)

			assert.Equal(t, row.same, sameSubjectAndNames(csr, cert))
		})
	}
}

func TestSameSubjectAndNames_goldenUpdate_isAKeyUpdate(t *testing.T) {
	block, _ := pem.Decode(golden(t, "pem/csr.pem"))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)

	assert.True(t, sameSubjectAndNames(csr, goldenCert(t, "old-certificate.pem")))
}
