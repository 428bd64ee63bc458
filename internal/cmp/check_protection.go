package cmp

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// checkProtection: the answer is protected, by the shared secret or by a signer that is trusted,
// and no weaker than configured (RFC 9810, 5.1.3; RFC 9483, 3.5).
func (t *transaction) checkProtection(m *PKIMessage) error {
	switch {
	case m.Protection == nil || m.Header.ProtectionAlg == nil:
		return &CheckError{Check: "protection", Got: "none", Want: "a MAC or a signature"}
	case m.MACProtected():
		return t.checkMAC(m)
	default:
		return t.checkSignature(m)
	}
}

// checkMAC: made with our secret, and no signature came
// earlier in this transaction (RFC 9810, 5.1.3.1).
func (t *transaction) checkMAC(m *PKIMessage) error {
	if t.peer != nil {
		return &CheckError{Check: "protection", Got: "a MAC", Want: "a signature, as before in the transaction"}
	}
	if t.c.cfg.Protection == ProtectionSignature || t.c.cfg.Protection == ProtectionNone {
		return &CheckError{Check: "protection", Got: "a MAC", Want: "a signature, as configured"}
	}
	mac, err := t.c.keys.verify(m, &t.macWork)
	if err != nil {
		return &CheckError{Check: "MAC", Got: "one that does not verify (" + err.Error() + ")",
			Want: "one made with the shared secret"}
	}
	if err := checkMACStrength(mac, t.c.cfg.Protection); err != nil {
		return err
	}
	t.macVerified = true
	return nil
}

// macStrength orders the kinds of MAC. PBM counts by its one-way function: OpenSSL answers by
// default with SHA-256 there and HMAC-SHA1 over the message, which is not known to be forgeable.
var macStrength = map[Protection]int{ProtectionPBMSHA1: 1, ProtectionPBMSHA256: 2, ProtectionPBMAC1: 3}

// checkMACStrength: the MAC is not weaker than the one that
// requests are protected with (RFC 9483, 3.2).
func checkMACStrength(mac MAC, configured Protection) error {
	if macStrength[mac.Protection] >= macStrength[configured] {
		return nil
	}
	return &CheckError{Check: "protection", Got: fmt.Sprintf("%q", mac.Protection),
		Want: fmt.Sprintf("%q, as configured, or stronger", configured)}
}

// checkSignature: made by the signer that is known from earlier in
// the transaction, or else by one that is to be trusted (RFC 9810,
// 5.1.3.3; RFC 9483, 3.5). Later answers may come without extraCerts.
func (t *transaction) checkSignature(m *PKIMessage) error {
	if t.macVerified {
		return &CheckError{Check: "protection", Got: "a signature", Want: "a MAC, as before in the transaction"}
	}
	if err := checkSignatureAlgorithm(m); err != nil {
		return err
	}
	if t.peer != nil {
		if err := VerifySignature(m, t.peer.PublicKey); err != nil && !t.byAnotherReplica(m) {
			return &CheckError{Check: "signer", Got: "a signature that does not verify (" + err.Error() + ")",
				Want: fmt.Sprintf("one by %q, as before in the transaction", t.peer.Subject)}
		}
		return nil
	}
	signer, err := t.findSigner(m)
	if err != nil {
		return err
	}
	if err := t.checkNotOurKey(signer); err != nil {
		return err
	}
	doubt := t.checkSigner(m, signer)
	if doubt != nil && t.checkServer(m, signer) == nil {
		doubt = nil
	}
	if doubt != nil && t.c.cfg.ResponseTrust != ResponseTrustONAP {
		return doubt
	}
	t.peer, t.peerDoubt = signer, doubt
	t.warnOfKeyUsage(signer)
	return nil
}

// checkServer: the signer is the server that we are connected to, as TLS would find it.
func (t *transaction) checkServer(m *PKIMessage, signer *x509.Certificate) error {
	if len(t.c.cfg.ServerAnchors) == 0 {
		return errors.New("no server certificates are trusted")
	}
	if err := t.checkSenderName(m, signer); err != nil {
		return err
	}
	if err := signer.VerifyHostname(t.c.cfg.ServerName); err != nil {
		return err
	}
	_, err := pki.VerifyPath(signer, pki.PathOptions{Anchors: t.c.cfg.ServerAnchors, At: t.c.cfg.Now(),
		Others: t.c.known.available(m.ExtraCerts), Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// byAnotherReplica takes a message signed by the server where the server signed before: each of its
// replicas may have a certificate of its own.
func (t *transaction) byAnotherReplica(m *PKIMessage) bool {
	signer, err := t.findSigner(m)
	if err != nil || t.checkNotOurKey(signer) != nil || t.checkServer(m, signer) != nil ||
		t.checkServer(&PKIMessage{Header: PKIHeader{Sender: DirectoryName(t.peer.RawSubject)},
			ExtraCerts: m.ExtraCerts}, t.peer) != nil {
		return false
	}
	t.peer = signer
	return true
}

// findSigner returns the certificate whose key made the signature, among those sent along and the
// trust anchors; those with the sender's name are tried first. senderKID does not help: servers
// echo the client's. Whether the signer is to be trusted is another matter; where no signer can be
// trusted, nothing is computed.
func (t *transaction) findSigner(m *PKIMessage) (*x509.Certificate, error) {
	if len(t.c.cfg.TrustAnchors)+len(t.c.cfg.ServerAnchors) == 0 && t.c.cfg.ResponseTrust == ResponseTrustAnchored {
		return nil, &CheckError{Check: "protection",
			Got: fmt.Sprintf("a signature by %q, and no trust anchors are configured for signed answers",
				m.Header.Sender),
			Want: "a MAC made with the shared secret", Err: ErrNoAnchors}
	}
	sender, _ := m.Header.Sender.Name()
	isSender := pki.SameNameAs(sender)
	var candidates, others []*x509.Certificate
	for _, certificate := range append(t.c.known.available(m.ExtraCerts), t.c.cfg.TrustAnchors...) {
		if isSender(certificate.RawSubject) {
			candidates = append(candidates, certificate)
		} else {
			others = append(others, certificate)
		}
	}
	candidates = append(candidates, others...)
	for _, candidate := range candidates[:min(len(candidates), maxSignerCandidates)] {
		if VerifySignature(m, candidate.PublicKey) == nil {
			return candidate, nil
		}
	}
	return nil, &CheckError{Check: "signature",
		Got:  fmt.Sprintf("one by %q that no certificate verifies", m.Header.Sender),
		Want: "the signer's certificate in extraCerts or among the trust anchors"}
}

// available returns those of the certificates that can
// be read and used. The others are ignored.
func (k *known) available(ders [][]byte) []*x509.Certificate {
	if len(ders) == 0 {
		return nil
	}
	certificates := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		if certificate, err := k.certificate(der); err == nil {
			certificates = append(certificates, certificate)
		}
	}
	return certificates
}

// checkNotOurKey: our own signature reflected at us is not an answer (RFC 9810, 5.1.3.3).
func (t *transaction) checkNotOurKey(signer *x509.Certificate) error {
	for _, key := range t.ownKeys {
		if pki.SameKey(key, signer.PublicKey) {
			return &CheckError{Check: "signer", Got: "our own key", Want: "the CA's"}
		}
	}
	return nil
}

// checkSigner runs the checks on a certificate that signed an answer.
func (t *transaction) checkSigner(m *PKIMessage, signer *x509.Certificate) error {
	for _, err := range []error{
		t.checkSenderName(m, signer),
		t.checkSignerName(signer),
		t.checkSignerKeyUsage(signer),
		t.checkSignerChain(m, signer),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkSenderName: the sender that the message names is the subject of the signer's certificate
// (RFC 9810, 5.1.1; RFC 9483, 3.1).
func (t *transaction) checkSenderName(m *PKIMessage, signer *x509.Certificate) error {
	if sender, ok := m.Header.Sender.Name(); ok && pki.SameName(sender, signer.RawSubject) {
		return nil
	}
	return &CheckError{Check: "sender", Got: fmt.Sprintf("%q", m.Header.Sender),
		Want: fmt.Sprintf("the signer's subject %q", pki.DN(signer.RawSubject))}
}

// checkSignerChain: the certificate is valid now and chains
// to a trust anchor (RFC 9810, 5.1.3.3; RFC 5280, 6).
func (t *transaction) checkSignerChain(m *PKIMessage, signer *x509.Certificate) error {
	_, err := t.c.known.verifyChain(signer, t.c.cfg.TrustAnchors, t.c.known.available(m.ExtraCerts), t.c.cfg.Now())
	if len(t.c.cfg.TrustAnchors) == 0 {
		err = errors.New("no trust anchors are configured for signed answers")
	}
	if err == nil {
		return nil
	}
	return &CheckError{Check: "signer's chain",
		Got:  fmt.Sprintf("%q, which does not verify (%v)", pki.DN(signer.RawSubject), err),
		Want: "a chain to a trust anchor"}
}

// maxSignerCandidates bounds how many certificates are
// tried, since each costs a signature verification.
const maxSignerCandidates = 8

// checkSignatureAlgorithm: the signature is of a kind that is verified here. Otherwise no
// certificate would verify it, and an error that said so would make operators look for one.
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

// checkSignerName: the signer is who the request was addressed to, and not just any certificate of
// the same PKI (RFC 9483, 3.5; RFC 9810, 4.5). A trust anchor that signs itself was named by the
// operator. An extended key usage alone does not make a certificate the signer's: another RA of
// the same PKI has it too.
func (t *transaction) checkSignerName(signer *x509.Certificate) error {
	isSigner := pki.SameNameAs(signer.RawSubject)
	if isSigner(t.c.recipient) || isSigner(t.c.issuer) || t.isAnchor(signer) {
		return nil
	}
	if t.c.signer == nil {
		return &CheckError{Check: "signer", Got: fmt.Sprintf("%q", pki.DN(signer.RawSubject)),
			Want: fmt.Sprintf("the recipient %q or a trust anchor", pki.DN(t.c.recipient))}
	}
	if !isSigner(t.c.signer) {
		return &CheckError{Check: "signer", Got: fmt.Sprintf("%q", pki.DN(signer.RawSubject)),
			Want: fmt.Sprintf("the configured signer %q, the recipient %q or a trust anchor",
				pki.DN(t.c.signer), pki.DN(t.c.recipient))}
	}
	return checkSignerExtKeyUsage(signer)
}

// Extended key usages of those that speak for a CA (RFC 9810, 4.5).
var (
	oidCMCCA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 27}
	oidCMCRA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 28}
)

// checkSignerExtKeyUsage: a signer that is known by its name only has no extended key usages, or
// one of those that speak for a CA (RFC 9810, 4.5). So a server's certificate under that name,
// which many may request, cannot sign an answer.
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
		return anchor.Equal(c) || pki.SameKey(anchor.PublicKey, c.PublicKey) &&
			pki.SameName(anchor.RawSubject, c.RawSubject)
	})
}

// checkSignerKeyUsage: the certificate may be used for signatures (RFC 9483, 3.5; RFC 5280,
// 4.2.1.3). Many CAs that sign their answers are certified for certificates and CRLs only; where
// the operator named such a CA as an anchor, that is enough, and warnOfKeyUsage logs it.
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
		t.log.Warn(
			"answer of the CMP server accepted although the key usage of its signer lacks digitalSignature, "+
				"since the signer is a trust anchor", "signer", show(pki.DN(signer.RawSubject)))
	}
}
