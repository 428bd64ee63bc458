package notify

import (
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/pki"
)

func TestNewEvent_describes_the_leaf(t *testing.T) {
	notBefore, notAfter := time.Unix(1, 0), time.Unix(2, 0)
	trusted := []*x509.Certificate{{}}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(0xABC), NotBefore: notBefore, NotAfter: notAfter,
		DNSNames: []string{"a.example", "b.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv6loopback},
	}
	event := NewEvent("renewed", "/certs", []string{"/certs/key.pem"}, leaf, trusted)
	assert.Equal(t, Event{
		Reason: "renewed", Serial: "0ABC", NotBefore: notBefore, NotAfter: notAfter, Dir: "/certs", Paths: []string{"/certs/key.pem"},
		Names: []string{"a.example", "b.example", "10.0.0.1", "::1"}, Trusted: trusted,
	}, event)
	assert.Equal(t, []string{"a.example", "b.example"}, leaf.DNSNames, "the certificate must be left as it is")
}

func TestSerialOf_is_what_openssl_prints(t *testing.T) {
	for serial, want := range map[int64]string{0: "00", 1: "01", 0xF: "0F", 0x10: "10", 0xFF: "FF", 0x100: "0100", 0xABCDEF: "ABCDEF"} {
		assert.Equal(t, want, pki.Serial(&x509.Certificate{SerialNumber: big.NewInt(serial)}))
	}
}
