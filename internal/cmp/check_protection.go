package cmp

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// checkProtection: the answer is protected, by the shared secret or by a signer that is trusted, and no
// weaker than configured (RFC 9810, 5.1.3; RFC 9483, 3.5).
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

// checkMAC: made with our secret, and nobody signed earlier in this transaction (RFC 9810, 5.1.3.1).
func (t *transaction) checkMAC(m *PKIMessage) error {
	if t.peer != nil {
		return &CheckError{Check: "protection", Got: "a MAC", Want: "a signature, as before in the transaction"}
	}
	if t.c.cfg.Protection == ProtectionSignature {
		return &CheckError{Check: "protection", Got: "a MAC", Want: "a signature, as configured"}
	}
	mac, err := t.c.keys.verify(m, &t.macWork)
	if err != nil {
		return &CheckError{Check: "MAC", Got: "one that does not verify (" + err.Error() + ")", Want: "one made with the shared secret"}
	}
	if err := checkMACStrength(mac, t.c.cfg.Protection); err != nil {
		return err
	}
	t.macVerified = true
	return nil
}

// macStrength orders the kinds of MAC. PBM counts by its one-way function: OpenSSL answers by default
// with SHA-256 there and HMAC-SHA1 over the message, which nobody knows how to forge.
var macStrength = map[Protection]int{ProtectionPBMSHA1: 1, ProtectionPBMSHA256: 2, ProtectionPBMAC1: 3}

// checkMACStrength: the MAC is no weaker than the one that requests are protected with (RFC 9483, 3.2).
func checkMACStrength(mac MAC, configured Protection) error {
	if macStrength[mac.Protection] >= macStrength[configured] {
		return nil
	}
	return &CheckError{Check: "protection", Got: fmt.Sprintf("%q", mac.Protection),
		Want: fmt.Sprintf("%q, as configured, or stronger", configured)}
}

// checkSignature: made by the signer that is known from earlier in the transaction, or else by one that is
// to be trusted (RFC 9810, 5.1.3.3; RFC 9483, 3.5). Later answers may come without extraCerts.
func (t *transaction) checkSignature(m *PKIMessage) error {
	if t.macVerified {
		return &CheckError{Check: "protection", Got: "a signature", Want: "a MAC, as before in the transaction"}
	}
	if err := checkSignatureAlgorithm(m); err != nil {
		return err
	}
	if t.peer != nil {
		if err := VerifySignature(m, t.peer.PublicKey); err != nil {
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
	if doubt != nil && t.c.cfg.ResponseTrust != ResponseTrustONAP {
		return doubt
	}
	t.peer, t.peerDoubt = signer, doubt
	t.warnOfKeyUsage(signer)
	return nil
}

// findSigner returns the certificate whose key made the signature, among those sent along and the
// trust anchors; those with the sender's name are tried first. senderKID is no help: servers echo the
// client's. Whether the signer is to be trusted is another matter; where nobody is, nothing is computed.
func (t *transaction) findSigner(m *PKIMessage) (*x509.Certificate, error) {
	if len(t.c.cfg.TrustAnchors) == 0 && t.c.cfg.ResponseTrust == ResponseTrustAnchored {
		return nil, &CheckError{Check: "protection", Got: fmt.Sprintf("a signature by %q, and no trust anchors are configured for signed answers", m.Header.Sender),
			Want: "a MAC made with the shared secret", Err: ErrNoAnchors}
	}
	sender, _ := m.Header.Sender.Name()
	isSender := pki.SameNameAs(sender)
	var candidates, others []*x509.Certificate
	for _, certificate := range append(parseAvailable(m.ExtraCerts), t.c.cfg.TrustAnchors...) {
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
	return nil, &CheckError{Check: "signature", Got: fmt.Sprintf("one by %q that no certificate verifies", m.Header.Sender),
		Want: "the signer's certificate in extraCerts or among the trust anchors"}
}

// parseAvailable returns those of the certificates that can be read and used. Who sends others harms only
// himself: nothing is found in them.
func parseAvailable(ders [][]byte) []*x509.Certificate {
	var certificates []*x509.Certificate
	for _, der := range ders {
		if certificate, err := parseCertificate(der); err == nil {
			certificates = append(certificates, certificate)
		}
	}
	return certificates
}

// checkNotOurKey: our own signature reflected at us is no answer (RFC 9810, 5.1.3.3).
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
	if sender, ok := m.Header.Sender.Name(); ok && SameName(sender, signer.RawSubject) {
		return nil
	}
	return &CheckError{Check: "sender", Got: fmt.Sprintf("%q", m.Header.Sender), Want: fmt.Sprintf("the signer's subject %q", nameString(signer.RawSubject))}
}

// checkSignerChain: the certificate is valid now and chains to a trust anchor (RFC 9810, 5.1.3.3; RFC 5280, 6).
func (t *transaction) checkSignerChain(m *PKIMessage, signer *x509.Certificate) error {
	_, err := verifyChain(signer, t.c.cfg.TrustAnchors, parseAvailable(m.ExtraCerts), t.c.cfg.Now())
	if len(t.c.cfg.TrustAnchors) == 0 {
		err = errors.New("no trust anchors are configured for signed answers")
	}
	if err == nil {
		return nil
	}
	return &CheckError{Check: "signer's chain", Got: fmt.Sprintf("%q, which does not verify (%v)", nameString(signer.RawSubject), err), Want: "a chain to a trust anchor"}
}
