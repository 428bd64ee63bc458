package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

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
	assert.Equal(t, `CN=cn,C=SE,ST=st,O=o\, inc,OU=ou,L=l`, DN(dn("/L=l/OU=ou/O=o, inc/ST=st/C=SE/CN=cn")))
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

func TestOf_foreignText_isOneShortPrintableLine(t *testing.T) {
	assert.Equal(t, "a b c", OneLine(" a\r\n\tb\x00\u202e c\xff ", 5))
	assert.Equal(t, "äöü…", OneLine("äöüß", 3))
	assert.Equal(t, "", OneLine("\n", 3))
}

var (
	year1950 = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
	year2026 = time.Date(2026, 11, 27, 12, 0, 0, 500, time.UTC)
	year9999 = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func TestMoment_ofAnySpan(t *testing.T) {
	const all = 0.9999999999999999
	assert.Equal(t, year2026.Add(40*time.Minute), Moment(year2026, year2026.Add(time.Hour), 2./3))
	assert.Equal(t, year2026.Add(-time.Hour), Moment(year2026, year2026.Add(-2*time.Hour), 0.5))
	assert.Equal(t, []int{7316, 9999, 7342, 2316}, []int{Moment(year1950, year9999, 2./3).Year(),
		Moment(year2026, year9999, all).Year(), Moment(year2026, year9999, 2./3).Year(),
		Moment(year2026, year2026.AddDate(290, 0, 0), all).Year()})
}

func TestDays_ofAnySpan(t *testing.T) {
	for end, want := range map[time.Time]int{
		year2026.Add(time.Hour): 0, year2026.AddDate(0, 0, 30): 30, year2026.AddDate(0, 0, 30).Add(-1): 29,
		year2026.Add(-1): -1, year2026.AddDate(0, 0, -1): -1, year2026.AddDate(0, 0, -1).Add(-1): -2, year9999: 2912112,
	} {
		assert.Equal(t, want, Days(year2026, end), end)
	}
}

func TestLeafKeyUsage_enciphermentIsForRSAOnly(t *testing.T) {
	signing := []x509.KeyUsage{x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment}
	assert.Equal(t, append(signing, x509.KeyUsageKeyEncipherment), bits(t, LeafKeyUsage(&rsa.PublicKey{}).Value))
	assert.Equal(t, signing, bits(t, LeafKeyUsage(&ecdsa.PublicKey{}).Value))
	assert.Equal(t, signing, bits(t, LeafKeyUsage(ed25519.PublicKey{}).Value))
}

// bits reads a KeyUsage, which as a named bit list has no zero bits at its end (X.690, 11.2.2).
func bits(t *testing.T, der []byte) (usages []x509.KeyUsage) {
	var list asn1.BitString
	rest, err := asn1.Unmarshal(der, &list)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, 1, list.At(list.BitLength-1))
	for bit := range list.BitLength {
		if list.At(bit) == 1 {
			usages = append(usages, x509.KeyUsage(1<<bit))
		}
	}
	return usages
}
