package devca

import (
	"crypto/x509"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// requester is who protected a message: exactly one field is set, or none for nobody yet.
type requester struct {
	mac    *cmp.MAC          // knows the shared secret
	signer *x509.Certificate // has the key of this certificate
}

// same says whether two messages come from the same requester.
func (r requester) same(other requester) bool {
	if r.signer == nil || other.signer == nil {
		return r.signer == other.signer && (r.mac == nil) == (other.mac == nil)
	}
	return r.signer.Equal(other.signer)
}

// authenticate verifies the protection of the message (RFC 9810, 5.1.3; RFC 9483, 3.5). The opener of the
// transaction, if there is one, matters because the later messages of a transaction may leave the
// signer's certificate out (RFC 9483, 3.3).
func (e *exchange) authenticate(opener requester) (requester, error) {
	m := e.request
	switch {
	case m.Header.ProtectionAlg == nil || m.Protection == nil:
		return requester{}, refuse(cmp.FailBadMessageCheck, "the message is not protected")
	case m.CheckProtectionAlg() != nil:
		return requester{}, refuse(cmp.FailBadAlg, "protectionAlg: %v", m.CheckProtectionAlg())
	case m.MACProtected():
		return e.authenticateMAC()
	case len(m.ExtraCerts) > 0:
		signer, err := e.knownSigner(m.ExtraCerts[0])
		if err != nil {
			return requester{}, err
		}
		return e.authenticateSignature(signer)
	case opener.signer != nil:
		return e.authenticateSignature(opener.signer)
	}
	return requester{}, refuse(cmp.FailBadMessageCheck, "the message is signed, but the signer's certificate is not the first of extraCerts")
}

func (e *exchange) authenticateMAC() (requester, error) {
	if reference := string(e.request.Header.SenderKID); reference != e.ca.config.Reference {
		return requester{}, refuse(cmp.FailBadMessageCheck, "no shared secret is known by the reference %.64q in senderKID", reference)
	}
	mac, err := e.ca.macKeys.Verify(e.request)
	if err != nil {
		return requester{}, refuse(cmp.FailBadMessageCheck, "the protection is wrong: %v", err)
	}
	return requester{mac: &mac}, nil
}

func (e *exchange) authenticateSignature(signer *x509.Certificate) (requester, error) {
	sender, isName := e.request.Header.Sender.Name()
	if !isName || !cmp.SameName(sender, signer.RawSubject) {
		return requester{}, refuse(cmp.FailBadMessageCheck, "the sender is %.200q, but the message is signed by %.200q",
			e.request.Header.Sender, cmp.DirectoryName(signer.RawSubject))
	}
	if err := cmp.VerifySignature(e.request, signer.PublicKey); err != nil {
		return requester{}, refuse(cmp.FailBadMessageCheck, "the protection is wrong: %v", err)
	}
	return requester{signer: signer}, nil
}

// knownSigner returns the signer's certificate if it was issued here and is good. The issuing key is as old as
// the process, so that its signature proves what other CAs look up.
func (e *exchange) knownSigner(der []byte) (*x509.Certificate, error) {
	signer, err := pki.ParseAnyPrintable(der)
	if err != nil {
		return nil, refuse(cmp.FailBadMessageCheck, "the signer's certificate cannot be read: %v", err)
	}
	switch err := signer.CheckSignatureFrom(e.ca.issuing); {
	case err != nil:
		return nil, refuse(cmp.FailSignerNotTrusted, "the signer's certificate was not issued by this CA since it was started")
	case e.now.Before(signer.NotBefore), e.now.After(signer.NotAfter):
		return nil, refuse(cmp.FailSignerNotTrusted, "the signer's certificate is valid from %s to %s, which is not now",
			signer.NotBefore.UTC(), signer.NotAfter.UTC())
	case e.ca.revocations.has(signer.SerialNumber):
		return nil, refuse(cmp.FailCertRevoked, "the signer's certificate is revoked")
	}
	return signer, nil
}
