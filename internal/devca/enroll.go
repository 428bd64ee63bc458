package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// p10crID is the certReqId of answers to p10cr, which has none of its own (RFC 9810, 5.3.4).
const p10crID = -1

// answerTypes gives the kind of answer to each kind of request.
var answerTypes = map[cmp.BodyType]cmp.BodyType{
	cmp.BodyIR: cmp.BodyIP, cmp.BodyCR: cmp.BodyCP, cmp.BodyP10CR: cmp.BodyCP, cmp.BodyKUR: cmp.BodyKUP,
}

// enroll answers ir, cr, kur and p10cr, and says what the transaction waits for next.
func (e *exchange) enroll() (cmp.PKIBody, transaction, error) {
	t := transaction{by: e.by, answer: answerTypes[e.request.Body.Type],
		implicit: e.request.Header.ImplicitConfirm() && !e.faults.Explicit}
	if e.request.Body.Type == cmp.BodyKUR && e.by.signer == nil {
		// RFC 9483, 4.1.3: the update is authenticated by the certificate it is for.
		return cmp.PKIBody{}, transaction{state: stateEnded},
			refuse(cmp.FailWrongIntegrity,
				"kur is protected by a shared secret, want a signature by the key of the certificate to update")
	}
	var err error
	if t.wanted, err = e.readWanted(); err != nil {
		return e.reject(t, err)
	}
	if e.faults.Reject {
		return e.reject(t, e.orderedRejection())
	}
	profile, known := e.request.Header.CertProfile(), e.ca.config.Profiles
	if profile != "" && len(known) > 0 && !slices.Contains(known, profile) {
		return e.reject(t, refuse(cmp.FailUnacceptedPolicy, "there is no certificate profile %q", profile))
	}
	if e.faults.Waiting == 0 && !e.ca.config.Approval {
		return e.grant(t)
	}
	t.state, t.polls, t.nonce = stateWaiting, e.faults.Waiting, e.header.SenderNonce
	return certResponse(t.answer, cmp.CertResponse{CertReqID: t.wanted.certReqID, Status: cmp.PKIStatusInfo{
		Status: cmp.StatusWaiting, StatusString: e.whyWaiting(),
	}}), t, nil
}

func (e *exchange) whyWaiting() cmp.PKIFreeText {
	if e.ca.config.Approval {
		return cmp.PKIFreeText{"a person has to approve the request: POST " + approvePath}
	}
	return cmp.PKIFreeText{"this wait was ordered as a fault"}
}

// orderedRejection is the refusal that the fault asks for.
func (e *exchange) orderedRejection() error {
	return &refusal{cmp.Rejection("this rejection was ordered as a fault", e.faults.FailInfo...)}
}

// reject answers with status rejection (RFC 9483, 3.6.2).
func (e *exchange) reject(t transaction, err error) (cmp.PKIBody, transaction, error) {
	ended := transaction{state: stateEnded}
	no, isRefusal := errors.AsType[*refusal](err)
	if !isRefusal {
		return cmp.PKIBody{}, ended, err
	}
	e.ca.counters.rejected.Add(1)
	e.ca.config.Log.Info("request rejected", "body", e.request.Body.Type.String(), "error", no.Error())
	return certResponse(t.answer, cmp.CertResponse{CertReqID: e.certReqID(), Status: no.info}), ended, nil
}

// certReqID is the one of the request, even if that is refused.
func (e *exchange) certReqID() int64 {
	if messages, ok := e.request.Body.Content.(cmp.CertReqMessages); ok {
		return messages[0].CertReq.CertReqID
	}
	return p10crID
}

// grant issues the certificate that a transaction is about.
func (e *exchange) grant(t transaction) (cmp.PKIBody, transaction, error) {
	w := *t.wanted
	certificate, err := e.issue(w)
	if err != nil {
		return e.reject(t, err)
	}
	e.ca.counters.issued.Add(1)
	if t.answer == cmp.BodyKUP {
		e.ca.counters.updated.Add(1)
	}
	e.ca.config.Log.Info("certificate issued", "body", t.answer.String(), "subject", pki.DN(certificate.RawSubject),
		"serial", pki.Serial(certificate), "not_after", certificate.NotAfter, "implicit_confirm", t.implicit,
		"profile", e.request.Header.CertProfile())

	status := cmp.PKIStatusInfo{Status: cmp.StatusAccepted}
	if w.modified != "" {
		status = cmp.PKIStatusInfo{Status: cmp.StatusGrantedWithMods, StatusString: cmp.PKIFreeText{w.modified}}
	}
	body := certResponse(t.answer, cmp.CertResponse{
		CertReqID: w.certReqID, Status: status, CertifiedKeyPair: &cmp.CertifiedKeyPair{Certificate: certificate.Raw},
	})
	// The root is worth trusting where the answer comes with the shared secret; an update's
	// requester has it already (RFC 9483, 4.1.1 and 4.1.3).
	if !e.signs() {
		body.Content.(*cmp.CertRepMessage).CAPubs = [][]byte{e.ca.root.Raw}
	}
	e.chain = [][]byte{e.ca.issuing.Raw, e.ca.root.Raw}
	if t.implicit {
		e.grantImplicit = true
		e.ca.counters.confirmed.Add(1)
		return body, transaction{state: stateEnded}, nil
	}
	t.state, t.nonce, t.wanted = stateUnconfirmed, e.header.SenderNonce, nil
	t.certReqID, t.certificate, t.serial, t.notAfter = w.certReqID, certificate.Raw,
		certificate.SerialNumber, certificate.NotAfter
	return body, t, nil
}

func certResponse(answer cmp.BodyType, response cmp.CertResponse) cmp.PKIBody {
	return cmp.PKIBody{Type: answer, Content: &cmp.CertRepMessage{Response: []cmp.CertResponse{response}}}
}

// poll answers pollReq (RFC 9810, 5.3.22).
func (e *exchange) poll(t transaction, content cmp.PollReqContent) (cmp.PKIBody, transaction, error) {
	if len(content) != 1 || !sameCertReqID(content[0], t.wanted.certReqID) {
		return cmp.PKIBody{}, transaction{state: stateEnded},
			refuse(cmp.FailBadRequest, "pollReq is for certReqIds %d, want %d", content, t.wanted.certReqID)
	}
	if t.polls == 0 && (!e.ca.config.Approval || t.started.UnixNano() <= e.ca.approved.Load()) {
		return e.grant(t)
	}
	t.polls = max(0, t.polls-1)
	t.putOff, t.nonce = append(t.putOff, nonceHash(sha256.Sum256(t.nonce))), e.header.SenderNonce
	e.ca.counters.polls.Add(1)
	return cmp.PKIBody{Type: cmp.BodyPollRep, Content: cmp.PollRepContent{{
		CertReqID: content[0], CheckAfter: max(e.faults.CheckAfter, 1), Reason: e.whyWaiting(),
	}}}, t, nil
}

// sameCertReqID says whether a later message's certReqId is the answer's. After p10cr some clients
// send the answer's -1 and some 0, since they made only one request.
func sameCertReqID(got, want int64) bool { return got == want || want == p10crID && got == 0 }

// confirm answers certConf (RFC 9810, 5.3.18). Whatever is not an acceptance that fits ends in the
// certificate's revocation.
func (e *exchange) confirm(t transaction, content cmp.CertConfirmContent) (cmp.PKIBody, state, error) {
	done := cmp.PKIBody{Type: cmp.BodyPKIConf, Content: cmp.PKIConfirmContent{}}
	if len(content) == 0 {
		e.giveUp(t, "rejected by the client")
		return done, stateEnded, nil
	}
	status := content[0]
	if info := status.StatusInfo; info != nil && info.Status == cmp.StatusAccepted && len(info.FailInfo.Names()) > 0 {
		e.giveUp(t, "the confirmation contradicts itself")
		return cmp.PKIBody{}, stateEnded, refuse(cmp.FailBadRequest,
			"certConf accepts the certificate and has failInfo %q", info.FailInfo.Names())
	}
	if err := e.checkConfirmation(t, status, len(content)); err != nil {
		e.giveUp(t, "the confirmation does not fit")
		return cmp.PKIBody{}, stateEnded, err
	}
	if info := status.StatusInfo; info != nil && info.Status != cmp.StatusAccepted &&
		info.Status != cmp.StatusGrantedWithMods {
		e.giveUp(t, "rejected by the client: "+info.StatusString.String())
		return done, stateEnded, nil
	}
	e.ca.counters.confirmed.Add(1)
	return done, stateConfirmed, nil
}

func (e *exchange) checkConfirmation(t transaction, status cmp.CertStatus, count int) error {
	if count != 1 || !sameCertReqID(status.CertReqID, t.certReqID) {
		return refuse(cmp.FailBadCertID, "certConf has %d CertStatus, the first for certReqId %d, want one for %d",
			count, status.CertReqID, t.certReqID)
	}
	hash, _ := cmp.CertHash(&x509.Certificate{Raw: t.certificate, SignatureAlgorithm: issuingAlgorithm})
	if status.HashAlg != nil {
		if e.request.Header.PVNO < cmp.PVNO3 {
			return refuse(cmp.FailUnsupportedVersion, "certConf has hashAlg, which needs pvno %d, and pvno %d",
				cmp.PVNO3, e.request.Header.PVNO)
		}
		var err error
		if hash, err = cmp.CertHashWith(&x509.Certificate{Raw: t.certificate}, *status.HashAlg); err != nil {
			return refuse(cmp.FailBadAlg, "%v", err)
		}
	}
	if string(hash) != string(status.CertHash) {
		return refuse(cmp.FailBadCertID, "certHash is not the hash of the certificate that was issued")
	}
	return nil
}

// authorityValidity is how long the root and the issuing CA
// are valid: longer than any run that should be.
const authorityValidity = 366 * 24 * time.Hour

// MaxValidity is the longest validity of leaves that may be configured.
const MaxValidity = 365 * 24 * time.Hour

// label is in the name of every authority, so that anyone
// who sees a certificate knows what it is worth.
const label = "DEVELOPMENT ONLY"

// issuingAlgorithm is what leaves are signed with.
const issuingAlgorithm = x509.ECDSAWithSHA256

// newAuthorities makes the root and the issuing CA. The names stay the
// same from one start to the next, because peers have the issuer's
// name in their configuration; the keys and key identifiers do not.
func newAuthorities(now time.Time) (root, issuing *x509.Certificate, key *ecdsa.PrivateKey, err error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making the root's key: %w", err)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, fmt.Errorf("making the issuing CA's key: %w", err)
	}
	template := authorityTemplate("Root CA", now)
	if root, err = sign(template, template, rootKey.Public(), rootKey); err != nil {
		return nil, nil, nil, fmt.Errorf("signing the root: %w", err)
	}
	template = authorityTemplate("Issuing CA", now)
	template.MaxPathLenZero = true
	// Answers are signed with this key, and verifiers want to see that it may be used for that.
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if issuing, err = sign(template, root, key.Public(), rootKey); err != nil {
		return nil, nil, nil, fmt.Errorf("signing the issuing CA: %w", err)
	}
	return root, issuing, key, nil
}

func authorityTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: label + " " + name, Organization: []string{label}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// sign signs a certificate with a random serial number.
func sign(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return pki.ParseAnyPrintable(der)
}

// issue signs a leaf. Its subject and its extensions are the bytes that were asked for.
func (e *exchange) issue(w wanted) (*x509.Certificate, error) {
	notAfter := e.now.Add(e.ca.config.Validity)
	if notAfter.After(e.ca.issuing.NotAfter) {
		notAfter = e.ca.issuing.NotAfter
	}
	keyID, err := keyIdentifier(w.key)
	if err != nil {
		return nil, err
	}
	for i, extension := range w.extensions {
		if extension.Id.Equal(oidSubjectAltName) && emptyName(w.subject) {
			w.extensions[i].Critical = true // RFC 5280, 4.2.1.6
		}
	}
	l := leaf{&x509.Certificate{
		RawSubject: w.subject, NotBefore: e.now, NotAfter: notAfter, SubjectKeyId: keyID,
		KeyUsage: w.usage, ExtraExtensions: slices.Clone(w.extensions), SignatureAlgorithm: issuingAlgorithm,
		// As the ONAP server asks, unless the extensions have others.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, w.key, e.ca.issuing, e.ca.key, e.ca}
	e.faults.spoiled(func(s spoil) {
		if s.leaf != nil {
			s.leaf(&l)
		}
	})
	certificate, err := sign(l.certificate, l.issuer, l.key, l.signer)
	if err != nil { // the names and extensions are the requester's
		return nil, refuse(cmp.FailBadCertTemplate, "the certificate asked for would not be readable: %v", err)
	}
	return certificate, nil
}

// keyIdentifier returns the key identifier of a public key after RFC 7093, 2, method 1: 20 bytes.
func keyIdentifier(public any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}
