package pki

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// OIDKeyUsage is id-ce-keyUsage (RFC 5280, 4.2.1.3).
var OIDKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// LeafKeyUsage returns the key usage that an end entity's certificate is asked for with: digitalSignature and
// nonRepudiation, and with an RSA key keyEncipherment. Other keys encipher nothing, and their certificates must not say
// that they do (RFC 8813, 3; RFC 8410, 5; RFC 9295, 3): a strict CA refuses the request.
func LeafKeyUsage(public crypto.PublicKey) pkix.Extension {
	if _, isRSA := public.(*rsa.PublicKey); isRSA {
		return pkix.Extension{Id: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 5, 0xe0}}
	}
	return pkix.Extension{Id: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 6, 0xc0}}
}
