package cmp

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// maxSignerCandidates bounds how many certificates are tried, since each costs a signature verification.
const maxSignerCandidates = 8

// checkSignatureAlgorithm: the signature is of a kind that is verified here. Else no certificate would verify it, and a
// text that said so would have operators look for one.
func checkSignatureAlgorithm(m *PKIMessage) error {
	if _, err := x509Algorithm(*m.Header.ProtectionAlg); err != nil {
		return &CheckError{Check: "protection algorithm", Got: protectionName(*m.Header.ProtectionAlg),
			Want: supportedProtection}
	}
	return nil
}

const supportedProtection = "RSA (PKCS #1 v1.5 or PSS) or ECDSA with SHA-256, SHA-384 or SHA-512, or Ed25519: " +
	"change it at the CMP server"

func protectionName(a AlgorithmIdentifier) string {
	switch {
	case a.Algorithm.Equal(oidDHBasedMAC):
		return "a MAC based on Diffie-Hellman (" + a.Algorithm.String() + ")"
	case a.Algorithm.Equal(oidKEMBasedMAC):
		return "a MAC based on key encapsulation (" + a.Algorithm.String() + ")"
	case a.Algorithm.Equal(oidRSAPSS):
		return "a signature by RSASSA-PSS with other parameters than one hash throughout and a salt of its length"
	}
	return "a signature by " + pki.SignatureAlgorithm(a.Algorithm)
}

// Kinds of protection that are not spoken (RFC 9810, 5.1.3.2 and 5.1.3.4).
var (
	oidDHBasedMAC  = asn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 30}
	oidKEMBasedMAC = asn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 16}
)

// checkSignerName: the signer is who the request was addressed to, and not just any certificate of the
// same PKI (RFC 9483, 3.5; RFC 9810, 4.5). A trust anchor that signs itself was named by the operator. An extended key
// usage alone makes nobody the signer: another RA of the same PKI has it as well.
func (t *transaction) checkSignerName(signer *x509.Certificate) error {
	isSigner := pki.SameNameAs(signer.RawSubject)
	if isSigner(t.c.recipient) || isSigner(t.c.issuer) || t.isAnchor(signer) {
		return nil
	}
	if t.c.signer == nil {
		return &CheckError{Check: "signer", Got: fmt.Sprintf("%q", nameString(signer.RawSubject)),
			Want: fmt.Sprintf("the recipient %q or a trust anchor", nameString(t.c.recipient))}
	}
	if !isSigner(t.c.signer) {
		return &CheckError{Check: "signer", Got: fmt.Sprintf("%q", nameString(signer.RawSubject)),
			Want: fmt.Sprintf("the configured signer %q, the recipient %q or a trust anchor",
				nameString(t.c.signer), nameString(t.c.recipient))}
	}
	return checkSignerExtKeyUsage(signer)
}

// Extended key usages of those that speak for a CA (RFC 9810, 4.5).
var (
	oidCMCCA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 27}
	oidCMCRA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 28}
)

// checkSignerExtKeyUsage: a signer that is known by its name only is not restricted to other things than to speak for a
// CA (RFC 9810, 4.5). So a server's certificate under that name, which many may request, signs no answer.
func checkSignerExtKeyUsage(signer *x509.Certificate) error {
	restricted := len(signer.ExtKeyUsage) > 0 || len(signer.UnknownExtKeyUsage) > 0
	if !restricted || slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageAny) ||
		slices.ContainsFunc(signer.UnknownExtKeyUsage, oidCMCRA.Equal) ||
		slices.ContainsFunc(signer.UnknownExtKeyUsage, oidCMCCA.Equal) {
		return nil
	}
	return &CheckError{Check: "signer's extended key usage", Got: "neither id-kp-cmcRA nor id-kp-cmcCA",
		Want: "one of them, no extended key usage at all, or the certificate itself among the trust anchors"}
}

// isAnchor says whether a certificate is a trust anchor, or has the name and the key of one.
func (t *transaction) isAnchor(c *x509.Certificate) bool {
	return slices.ContainsFunc(t.c.cfg.TrustAnchors, func(anchor *x509.Certificate) bool {
		return anchor.Equal(c) || pki.SameKey(anchor.PublicKey, c.PublicKey) && SameName(anchor.RawSubject, c.RawSubject)
	})
}

// checkSignerKeyUsage: the certificate may be used for signatures (RFC 9483, 3.5; RFC 5280, 4.2.1.3). Many CAs that
// sign their answers are certified for certificates and CRLs only; where the operator named such a CA as an anchor, that
// is enough, and warnOfKeyUsage tells.
func (t *transaction) checkSignerKeyUsage(signer *x509.Certificate) error {
	if !lacksDigitalSignature(signer) || t.authorityOnly(signer) {
		return nil
	}
	return &CheckError{Check: "signer's key usage", Got: "no digitalSignature",
		Want: "digitalSignature, no keyUsage at all, or a CA that is itself among the trust anchors"}
}

func lacksDigitalSignature(c *x509.Certificate) bool {
	return c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0
}

func (t *transaction) authorityOnly(signer *x509.Certificate) bool {
	return lacksDigitalSignature(signer) && signer.KeyUsage&x509.KeyUsageCertSign != 0 && t.isAnchor(signer)
}

func (t *transaction) warnOfKeyUsage(signer *x509.Certificate) {
	if t.authorityOnly(signer) {
		t.c.cfg.Log.Warn("answer of the CMP server accepted although the key usage of its signer lacks digitalSignature, "+
			"since the signer is a trust anchor", "signer", shown(nameString(signer.RawSubject)))
	}
}
