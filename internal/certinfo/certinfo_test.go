package certinfo

import (
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSerial_hasTwoDigitsToAnOctet(t *testing.T) {
	for want, serial := range map[string]int64{"0A": 10, "0A1B": 0xA1B, "FF00": 0xFF00} {
		assert.Equal(t, want, Serial(&x509.Certificate{SerialNumber: big.NewInt(serial)}))
	}
}

func TestNames_areSortedAndSayTheirKind(t *testing.T) {
	cert := &x509.Certificate{
		DNSNames: []string{"B.example", "a.example"}, EmailAddresses: []string{"x@example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/x"}},
	}
	want := []string{"DNS:a.example", "DNS:b.example", "IP Address:192.0.2.1", "URI:spiffe://td/x", "email:x@example.org"}
	assert.Equal(t, want, Names(cert))
	assert.Equal(t, want, RequestNames(&x509.CertificateRequest{
		DNSNames: cert.DNSNames, EmailAddresses: cert.EmailAddresses, IPAddresses: cert.IPAddresses, URIs: cert.URIs,
	}))
}
