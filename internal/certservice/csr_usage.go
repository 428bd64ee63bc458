package certservice

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
)

// keyUsageNames are the bits of KeyUsage, in their order (RFC 5280, 4.2.1.3).
var keyUsageNames = [...]string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
	"keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// refusedKeyUsages are for a CA's keys.
var refusedKeyUsages = []string{"keyCertSign", "cRLSign"}

// refusedExtKeyUsages would let the holder act as a CA, or as anyone: sign revocation data, code, or CMP messages
// as an authority does, or be valid for everything.
var refusedExtKeyUsages = map[string]string{
	"2.5.29.37.0":        "anyExtendedKeyUsage",
	"1.3.6.1.5.5.7.3.3":  "codeSigning",
	"1.3.6.1.5.5.7.3.9":  "OCSPSigning",
	"1.3.6.1.5.5.7.3.27": "cmcCA",
	"1.3.6.1.5.5.7.3.28": "cmcRA",
}

// checkUsages refuses usages that no client of this service may have, whether or not the CA's profile would allow them.
// Extensions other than these and the names, basicConstraints among them, are not passed on at all.
func checkUsages(extensions []pkix.Extension) error {
	for _, e := range extensions {
		switch {
		case e.Id.Equal(oidKeyUsage):
			names, ok := keyUsages(e.Value)
			if !ok {
				return csrFault("asks for a keyUsage that cannot be read")
			}
			for _, refused := range refusedKeyUsages {
				if slices.Contains(names, refused) {
					return csrFault("asks for the key usage " + refused + ", which is not issued here")
				}
			}
		case e.Id.Equal(oidExtKeyUsage):
			var usages []asn1.ObjectIdentifier
			if rest, err := asn1.Unmarshal(e.Value, &usages); err != nil || len(rest) > 0 {
				return csrFault("asks for an extendedKeyUsage that cannot be read")
			}
			for _, usage := range usages {
				if name, refused := refusedExtKeyUsages[usage.String()]; refused {
					return csrFault("asks for the extended key usage " + name + ", which is not issued here")
				}
			}
		}
	}
	return nil
}

// keyUsages returns the names of the bits that are set.
func keyUsages(der []byte) ([]string, bool) {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(der, &bits); err != nil || len(rest) > 0 {
		return nil, false
	}
	var names []string
	for bit, name := range keyUsageNames {
		if bits.At(bit) == 1 {
			names = append(names, name)
		}
	}
	return names, true
}

// forbiddenUsages are those that a certificate with such a key must not have: RFC 8813, 3 for ECDSA keys, RFC 8410, 5
// for Ed25519. Strict CAs refuse a request for them.
func forbiddenUsages(key crypto.PublicKey) []string {
	switch key.(type) {
	case *rsa.PublicKey:
		return nil
	case ed25519.PublicKey:
		return []string{"keyEncipherment", "dataEncipherment", "keyAgreement", "encipherOnly", "decipherOnly"}
	default:
		return []string{"keyEncipherment", "dataEncipherment"}
	}
}

// withoutForbiddenUsages returns the request without the key usages that its kind of key must not have, and their
// names. If none is left, no key usage is requested. The original request is not changed.
func withoutForbiddenUsages(csr *x509.CertificateRequest) (*x509.CertificateRequest, []string) {
	at := slices.IndexFunc(csr.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidKeyUsage) })
	if at < 0 {
		return csr, nil
	}
	asked, _ := keyUsages(csr.Extensions[at].Value)
	var kept, dropped []string
	forbidden := forbiddenUsages(csr.PublicKey)
	for _, name := range asked {
		if slices.Contains(forbidden, name) {
			dropped = append(dropped, name)
		} else {
			kept = append(kept, name)
		}
	}
	if len(dropped) == 0 {
		return csr, nil
	}
	changed := *csr
	changed.Extensions = slices.Clone(csr.Extensions)
	if len(kept) == 0 {
		changed.Extensions = slices.Delete(changed.Extensions, at, at+1)
	} else {
		changed.Extensions[at].Value = keyUsageValue(kept)
	}
	return &changed, dropped
}

// keyUsageValue is the DER of a KeyUsage, a named bit list, which has no zero bits at its end (X.690, 11.2.2).
func keyUsageValue(names []string) []byte {
	var bits asn1.BitString
	for bit, name := range keyUsageNames {
		if slices.Contains(names, name) {
			for len(bits.Bytes) <= bit/8 {
				bits.Bytes = append(bits.Bytes, 0)
			}
			bits.Bytes[bit/8] |= 0x80 >> (bit % 8)
			bits.BitLength = bit + 1
		}
	}
	der, _ := asn1.Marshal(bits) // a BitString always encodes
	return der
}
