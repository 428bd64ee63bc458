package cmp

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Request is a request for a certificate.
type Request struct {
	CSR *x509.CertificateRequest // parsed: subject, names, key usages and public key are taken from it
	Key crypto.Signer            // the CSR's key, for the proof of possession
}

// Result is the outcome of a request.
type Result struct {
	Chain   []*x509.Certificate // leaf first, each next one its signer, without the root
	Trusted []*x509.Certificate // roots, the signing one first
	// Vouched are the self-signed CA certificates in caPubs
	// of an answer whose MAC was verified; see vouchedRoots.
	Vouched []*x509.Certificate
}

// Initialize sends an initialization request, ir (RFC 9483, 4.1.1).
func (c *Client) Initialize(ctx context.Context, r Request) (Result, error) {
	return c.Enrol(ctx, r, nil, &Pending{Request: "ir"}, noJournal{})
}

// Certify sends a certification request, cr (RFC 9483, 4.1.2).
func (c *Client) Certify(ctx context.Context, r Request) (Result, error) {
	return c.Enrol(ctx, r, nil, &Pending{Request: "cr"}, noJournal{})
}

// UpdateKey sends a key update request, kur, signed with the key of the certificate to be replaced
// (RFC 9483, 4.1.3), whatever protection the client is configured with.
func (c *Client) UpdateKey(ctx context.Context, r Request, old Signer) (Result, error) {
	return c.Enrol(ctx, r, &old, &Pending{Request: "kur"}, noJournal{})
}

// certReqMsg makes the CRMF request with certReqId 0 (RFC 9483, 4.1.1), and with the oldCertId
// control when a certificate is replaced (RFC 9483, 4.1.3).
func (c *Client) certReqMsg(r Request, old *x509.Certificate) (CertReqMsg, error) {
	if err := checkParsed(r.CSR); err != nil {
		return CertReqMsg{}, err
	}
	if r.Key == nil {
		return CertReqMsg{}, errors.New("request lacks its key")
	}
	if !pki.SameKey(r.Key.Public(), r.CSR.PublicKey) {
		return CertReqMsg{}, errors.New("key does not belong to the certificate signing request")
	}
	issuer := c.issuer
	if old != nil {
		issuer = old.RawIssuer // the CA that knows it; some find it by this name only (EJBCA)
	}
	m := CertReqMsg{CertReq: CertRequest{CertTemplate: CertTemplate{
		Issuer:     issuer,
		Subject:    r.CSR.RawSubject,
		PublicKey:  r.CSR.RawSubjectPublicKeyInfo,
		Extensions: templateExtensions(r.CSR),
	}}}
	if old != nil {
		id := CertID{Issuer: DirectoryName(old.RawIssuer), SerialNumber: old.SerialNumber}
		if err := m.CertReq.AddOldCertID(id); err != nil {
			return CertReqMsg{}, err
		}
	}
	if err := m.SignPOPO(r.Key); err != nil {
		return CertReqMsg{}, err
	}
	return m, nil
}

var (
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSAN         = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// defaultExtKeyUsage is asked for where the CSR asks for none, as the ONAP server did:
// id-kp-clientAuth 1.3.6.1.5.5.7.3.2, id-kp-serverAuth 1.3.6.1.5.5.7.3.1
var defaultExtKeyUsage = pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 20,
	6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}}

// templateExtensions returns key usage, extended key usage and names
// for the template. Nothing else of a CSR is passed on. Where it has
// no key usage, the one that fits the kind of key is asked for.
func templateExtensions(csr *x509.CertificateRequest) []pkix.Extension {
	extensions := []pkix.Extension{askedFor(csr, pki.LeafKeyUsage(csr.PublicKey)), askedFor(csr, defaultExtKeyUsage)}
	if found := find(oidSAN, csr.Extensions); found >= 0 {
		extensions = append(extensions, csr.Extensions[found])
	}
	return extensions
}

// askedFor is an extension as the CSR has it, or else as it is given.
func askedFor(csr *x509.CertificateRequest, otherwise pkix.Extension) pkix.Extension {
	if found := find(otherwise.Id, csr.Extensions); found >= 0 {
		return csr.Extensions[found]
	}
	return otherwise
}

// checkParsed refuses a CSR that was made by hand instead of parsed.
func checkParsed(csr *x509.CertificateRequest) error {
	if csr == nil || len(csr.Raw) == 0 || csr.PublicKey == nil {
		return errors.New("certificate signing request is missing or was not parsed")
	}
	return nil
}

// enrol runs a whole request for a certificate: polling, checks, confirmation
// (RFC 9483, 4.1.1).
func (t *transaction) enrol(ctx context.Context, body PKIBody, csr *x509.CertificateRequest) (Result, error) {
	defer t.end()
	if len(t.pending.Chain) > 0 {
		return t.complete(ctx, csr)
	}
	response, answer, err := t.decide(ctx, body)
	if err != nil {
		return Result{}, err
	}
	if err := checkGranted(response); err != nil {
		return Result{}, err
	}
	// A grant that was not asked for changes nothing: we still confirm (RFC 9810, 5.1.1.1).
	implicit := t.c.cfg.ImplicitConfirm && answer.Header.ImplicitConfirm()
	certificate, result, err := t.evaluate(answer, response, csr)
	if err == nil {
		err = t.accept(result)
	}
	if err != nil {
		if implicit {
			t.giveBack(ctx, certificate, csr)
		} else {
			t.reject(ctx, certificate, response.CertReqID, err)
		}
		return Result{}, err
	}
	t.warnOfCertificate(certificate, csr)
	if err := t.noteIssued(result, implicit); err != nil {
		return Result{}, err
	}
	return t.finish(ctx, result, response.CertReqID)
}

// evaluate decides whether the certificate is the one asked for. With an error the certificate
// is nil when it cannot even be read.
func (t *transaction) evaluate(answer *PKIMessage, response CertResponse,
	csr *x509.CertificateRequest) (*x509.Certificate, Result, error) {
	certificate, err := readCertificate(response.CertifiedKeyPair)
	if err != nil {
		return nil, Result{}, err
	}
	if err := t.c.checkCertificate(certificate, csr); err != nil {
		return certificate, Result{}, err
	}
	chain, trusted, err := t.chain(certificate, answer)
	if err == nil && len(chain) == 0 {
		err = &CheckError{Check: "chain", Got: fmt.Sprintf("%q, which is a trust anchor itself",
			pki.DN(certificate.RawSubject)), Want: "a certificate that an authority signed"}
	}
	if err != nil {
		return certificate, Result{}, err
	}
	return certificate, Result{Chain: chain, Trusted: trusted, Vouched: t.vouchedRoots(answer)}, nil
}

// certStatus accepts a certificate (RFC 9810, 5.3.18).
func certStatus(certificate *x509.Certificate, id int64) CertStatus {
	hash, hashAlg := CertHash(certificate)
	return CertStatus{CertHash: hash, CertReqID: id, HashAlg: hashAlg}
}

// confirm sends certConf and waits for pkiConf.
func (t *transaction) confirm(ctx context.Context, statuses CertConfirmContent) error {
	_, err := t.exchange(ctx, PKIBody{BodyCertConf, statuses})
	return err
}

// reject informs the CA that the certificate is not accepted, so that
// it can revoke it (RFC 9810, 5.3.18). A certificate that cannot be
// read has no hash; certConf without any status rejects them all.
func (t *transaction) reject(ctx context.Context, certificate *x509.Certificate, id int64, reason error) {
	statuses := CertConfirmContent{}
	if certificate != nil {
		status := certStatus(certificate, id)
		info := Rejection(reason.Error(), failureOf(reason))
		status.StatusInfo = &info
		statuses = append(statuses, status)
	}
	if err := t.confirm(ctx, statuses); err != nil {
		// The caller gets the reason for the rejection, which matters more.
		t.log.Warn("rejection of the certificate not confirmed by the CA", "error", err)
	}
}

// giveBack asks the CA to revoke a certificate that is not accepted, when the CA did not ask for a
// confirmation: it counts as issued, and the transaction is over, so that it cannot be rejected
// (RFC 9483, 4.1.1). The request is authenticated as configured, since the holder of a certificate
// may not revoke it at every CA. It is only made for a certificate that holds our key and came in
// a trusted answer: an attacker must not make us revoke another requester's certificate.
func (t *transaction) giveBack(ctx context.Context, certificate *x509.Certificate, csr *x509.CertificateRequest) {
	log := t.log
	if certificate == nil || csr == nil || !pki.SameKey(certificate.PublicKey, csr.PublicKey) || t.peerDoubt != nil {
		log.Warn("a certificate that was not accepted remains issued: the CA did not ask for a confirmation, " +
			"in which it could have been rejected")
		return
	}
	serial := pki.Serial(certificate)
	if err := t.c.Revoke(ctx, certificate); err != nil {
		log.Warn("a certificate that was not accepted remains issued: the CA did not ask for a "+
			"confirmation, and did not revoke it",
			"serial", serial, "error", err)
		return
	}
	log.Info("the CA revoked a certificate that was not accepted", "serial", serial)
}

// failureOf chooses the failInfo of a rejection.
func failureOf(reason error) FailureBit {
	if check, ok := errors.AsType[*CheckError](reason); ok && check.Check == "chain" {
		return FailSignerNotTrusted
	}
	return FailBadCertTemplate
}

// Revoke sends a revocation request, rr (RFC 9483, 4.2), protected as configured. The reason it
// gives is cessationOfOperation: the certificate is not used.
func (c *Client) Revoke(ctx context.Context, certificate *x509.Certificate) error {
	const cessationOfOperation = 5 // CRLReason (RFC 5280, 5.3.1)
	details := RevDetails{
		CertDetails:     CertTemplate{SerialNumber: certificate.SerialNumber, Issuer: certificate.RawIssuer},
		CRLEntryDetails: []pkix.Extension{{Id: oidReasonCode, Value: []byte{10, 1, cessationOfOperation}}},
	}
	t := c.begin(certificate.RawSubject, nil, certificate.PublicKey).about(ctx)
	defer t.end()
	answer, err := t.exchange(ctx, PKIBody{BodyRR, RevReqContent{details}})
	if err != nil {
		return err
	}
	return checkRevoked(answer.Body.Content.(*RevRepContent))
}

// oidReasonCode is id-ce-cRLReasons (RFC 5280, 5.3.1).
var oidReasonCode = asn1.ObjectIdentifier{2, 5, 29, 21}

// checkRevoked: one request, one status, and it says that
// the certificate is revoked (RFC 9483, 4.2).
func checkRevoked(content *RevRepContent) error {
	if len(content.Status) != 1 {
		return &CheckError{Check: "revocation status", Got: fmt.Sprint(len(content.Status)), Want: "exactly one"}
	}
	switch status := content.Status[0].Status; status {
	case StatusAccepted, StatusGrantedWithMods, StatusRevocationWarning, StatusRevocationNotification:
		return nil
	default:
		return &CheckError{Check: "revocation status", Got: status.String(), Want: "accepted"}
	}
}
