package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSerial_hasTwoDigitsToAnOctet(t *testing.T) {
	for want, serial := range map[string]int64{"00": 0, "0A": 10, "0A1B": 0xA1B, "FF00": 0xFF00} {
		assert.Equal(t, want, Serial(&x509.Certificate{SerialNumber: big.NewInt(serial)}))
	}
}

func TestDN_keepsTheOrderOfTheDER(t *testing.T) {
	// L, OU, O, ST, C, CN, as package config encodes a subject.
	raw, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 7}, Value: "l"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "ou"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "o, inc"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 8}, Value: "st"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "SE"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "cn"}},
	})
	require.NoError(t, err)
	assert.Equal(t, `CN=cn,C=SE,ST=st,O=o\, inc,OU=ou,L=l`, DN(raw))
	assert.Equal(t, "a name that cannot be read (asn1: syntax error: sequence truncated)", DN(nil))
}

func TestNames_areSortedAndSayTheirKind(t *testing.T) {
	cert := &x509.Certificate{
		DNSNames: []string{"B.example", "a.example"}, EmailAddresses: []string{"X@Example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/x"}},
	}
	want := []string{"DNS:a.example", "DNS:b.example", "IP Address:192.0.2.1", "URI:spiffe://td/x",
		"email:X@example.org"}
	assert.Equal(t, want, Names(cert))
	assert.Equal(t, want, RequestNames(&x509.CertificateRequest{
		DNSNames: cert.DNSNames, EmailAddresses: cert.EmailAddresses, IPAddresses: cert.IPAddresses, URIs: cert.URIs,
	}))
}
