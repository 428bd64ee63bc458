package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// usageNames are the bits of keyUsage (RFC 5280, 4.2.1.3).
var usageNames = []string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement",
	"keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// The bits that matter here.
const (
	bitKeyEncipherment  = 2
	bitDataEncipherment = 3
	bitKeyAgreement     = 4
	bitKeyCertSign      = 5
	bitCRLSign          = 6
	bitEncipherOnly     = 7
	bitDecipherOnly     = 8
)

// unfit are the usages that a kind of key cannot have: RFC 8813, 3 and RFC 8410, 5.
func unfit(key crypto.PublicKey) []int {
	switch key.(type) {
	case *ecdsa.PublicKey:
		return []int{bitKeyEncipherment, bitDataEncipherment}
	case ed25519.PublicKey:
		return []int{bitKeyEncipherment, bitDataEncipherment, bitKeyAgreement, bitEncipherOnly, bitDecipherOnly}
	}
	return nil
}

// grantKeyUsage grants the usages that an end entity's key can have. Those that its kind cannot are left out, or
// refused when the CA is strict.
func (w *wanted) grantKeyUsage(extension pkix.Extension, key crypto.PublicKey, strict bool) error {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(extension.Value, &bits); err != nil || len(rest) > 0 {
		return refuse(cmp.FailBadCertTemplate, "keyUsage is not a BIT STRING")
	}
	if bits.At(bitKeyCertSign) == 1 || bits.At(bitCRLSign) == 1 {
		return refuse(cmp.FailBadCertTemplate, "keyUsage asks for the signing of certificates or CRLs, which is for authorities")
	}
	var granted [2]byte
	for bit := range usageNames {
		if bits.At(bit) == 1 {
			granted[bit/8] |= 0x80 >> (bit % 8)
		}
	}
	var left []string
	for _, bit := range unfit(key) {
		if bits.At(bit) == 1 {
			granted[bit/8] &^= 0x80 >> (bit % 8)
			left = append(left, usageNames[bit])
		}
	}
	switch {
	case left == nil:
		w.extensions = append(w.extensions, extension)
		return nil
	case strict || granted == [2]byte{}:
		return refuse(cmp.FailBadCertTemplate, "keyUsage asks for %s, which a key of this kind cannot do", strings.Join(left, ", "))
	}
	w.modified = "the key usage " + strings.Join(left, ", ") + " is left out, which a key of this kind cannot do"
	extension.Value = keyUsage(granted)
	w.extensions = append(w.extensions, extension)
	return nil
}

// keyUsage encodes usages, of which there is at least one, without the zeros at the end.
func keyUsage(usages [2]byte) []byte {
	length := len(usageNames)
	for usages[(length-1)/8]&(0x80>>((length-1)%8)) == 0 {
		length--
	}
	der, _ := asn1.Marshal(asn1.BitString{Bytes: usages[:(length+7)/8], BitLength: length}) // never fails
	return der
}

// defaultKeyUsage is what a leaf gets that asks for none: as the ONAP server asks, as far as the key can do it.
func defaultKeyUsage(key crypto.PublicKey) pkix.Extension {
	usages := [2]byte{0xe0} // digitalSignature, nonRepudiation, keyEncipherment
	for _, bit := range unfit(key) {
		usages[bit/8] &^= 0x80 >> (bit % 8)
	}
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: keyUsage(usages)}
}
