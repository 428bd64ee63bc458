package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
)

// NegativeSerial returns a certificate with a negative serial number, which crypto/x509 refuses. Its signature does not fit
// any more.
func NegativeSerial(cert *x509.Certificate) []byte {
	der := bytes.Clone(cert.Raw)
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		panic(err)
	}
	first := bytes.Index(der, serial) + 2 // behind tag and length
	der[first] = 0x80 | der[first]&0x3f   // never 0xff, after which a byte might be one too many
	return der
}
