package certservice

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// maxMessageBytes bounds a CMP message of a client. Real ones have a few thousand bytes.
const maxMessageBytes = 128 << 10

// Relayer is an Authority that passes CMP messages of clients on, so that their private keys stay
// with them. The service is a registration authority then (RFC 9483, 5.2).
type Relayer interface {
	// Relay gives the message the service's protection, or forwards it as it is.
	Relay(ctx context.Context, m *cmp.PKIMessage, replace bool) (cmp.Relayed, error)
	// Issued says why a certificate is not one of this CA that is valid now; nil when it is: it chains
	// to the trust anchors. Its issuer need not have the name that requests are sent to. others may be
	// its issuers.
	Issued(certificate *x509.Certificate, others [][]byte) error
	// CACertificates are what a client may ask for, DER.
	CACertificates() [][]byte
}

// refusal is what the service itself has against a message; the client gets it as an error message.
type refusal struct {
	failInfo []cmp.FailureBit // at most one
	text     string
}

func (r *refusal) Error() string {
	for _, failure := range r.failInfo {
		return failure.String() + ": " + r.text
	}
	return r.text
}

func refuse(failure cmp.FailureBit, format string, args ...any) *refusal {
	return &refusal{[]cmp.FailureBit{failure}, fmt.Sprintf(format, args...)}
}

// relay answers POST /.well-known/cmp/p/{caName}.
func (h *Handler) relay(r *http.Request, caName string, e *event) answer {
	if !cmp.IsMediaType(r.Header.Get("Content-Type")) {
		e.outcome, e.reason = outcomeBadRequest, "the body is not a CMP message"
		return errorAnswer(http.StatusUnsupportedMediaType, "The Content-Type is not "+cmp.MediaType)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxMessageBytes+1))
	switch {
	case err != nil:
		e.outcome, e.reason = outcomeBadRequest, "reading the body: "+err.Error()
		return errorAnswer(http.StatusBadRequest, "The body could not be read")
	case len(body) > maxMessageBytes:
		e.outcome = outcomeBodyTooLarge
		return errorAnswer(http.StatusRequestEntityTooLarge,
			fmt.Sprintf("The CMP message has more than %d bytes", maxMessageBytes))
	}
	message, err := cmp.ParsePKIMessage(body)
	authority, queued, failed := h.admit(r, caName, err != nil || !asksForCertificate(message), e)
	if failed != nil {
		return *failed
	}
	x := &relaying{h: h, e: e, queued: queued, request: message}
	defer func() { queued.leave(x.answered) }()
	relayer, ok := authority.(Relayer)
	if !ok {
		e.outcome = outcomeNotFound
		return errorAnswer(http.StatusNotFound, "This CA takes no CMP messages")
	}
	ctx, cancel := h.withTimeout(r.Context())
	defer cancel()
	x.ca, x.mine = relayer, turns{ctx, h.cfg.CPU, e.from}
	if err != nil {
		x.request = &cmp.PKIMessage{}
		return x.refused(refuse(cmp.FailBadDataFormat, "%v", err))
	}
	e.message, e.transaction = x.request.Body.Type.String(), fmt.Sprintf("%x", x.request.Header.TransactionID)
	return x.answer()
}

// relaying is one message of a client and its answer.
type relaying struct {
	h       *Handler
	e       *event
	ca      Relayer
	mine    turns
	queued  *place
	request *cmp.PKIMessage

	answered bool // by the CA
}

// asksForCertificate tells the first message of an enrolment. The others go on with a transaction
// that the CA has begun, and would be in vain where they come too late.
func asksForCertificate(m *cmp.PKIMessage) bool {
	switch m.Body.Type {
	case cmp.BodyIR, cmp.BodyCR, cmp.BodyP10CR, cmp.BodyKUR:
		return true
	}
	return false
}

func (x *relaying) answer() answer {
	leave, err := x.mine.cpu.enter(x.mine.ctx, x.mine.client, false)
	if err != nil {
		return x.h.overloadAnswer(x.e, limitCPU, "waiting for a processor: "+err.Error())
	}
	replace, denied := x.check()
	leave()
	switch {
	case denied != nil:
		return x.deny(denied)
	case x.request.Body.Type == cmp.BodyGenM:
		return x.inform()
	}
	x.e.leaveLane()
	if err := x.queued.await(x.mine.ctx); err != nil {
		return x.queued.tooLate(x.e, err)
	}
	start := x.h.now()
	relayed, err := x.ca.Relay(x.mine.ctx, x.request, replace)
	if relayed.Refusal != nil {
		err = refusedError(relayed.Refusal)
	}
	x.answered = hasAnswered(err)
	x.h.cfg.Metrics.observeAuthority(x.e, x.h.now().Sub(start), err)
	if err == nil && x.request.Body.Type == cmp.BodyPollReq && relayed.Certificate != nil {
		if denied := x.mayReceive(relayed.Certificate); denied != nil {
			return x.deny(denied)
		}
	}
	switch {
	case err != nil && relayed.Refusal == nil:
		x.e.outcome = outcomeFailed
		a := x.refused(failed(err))
		x.e.told, x.e.reason = x.e.reason, err.Error()
		return a
	case err != nil:
		x.e.outcome, x.e.reason, x.e.told = outcomeRefused, err.Error(), err.Error()
	case relayed.Certificate != nil:
		x.e.outcome, x.e.issued = outcomeIssued, relayed.Certificate
	}
	return x.send(relayed.Answer, relayed.MACVerified)
}

// failed is what a client is told of a failure: whether another try may help, and no addresses in
// the operator's network. An answer that did not pass our checks would not pass them another time,
// and each try may cost a certificate: that is a refusal for which RFC 9810 has no failInfo.
func failed(err error) *refusal {
	if _, ok := errors.AsType[*cmp.TransportError](err); ok {
		return refuse(cmp.FailSystemUnavail, "the CA could not be reached; the log of the CertService has more")
	}
	if _, ok := errors.AsType[*cmp.CheckError](err); ok {
		return &refusal{nil, "the CertService does not pass the CA's answer on: " + err.Error()}
	}
	return refuse(cmp.FailSystemUnavail, "%v", err)
}

// denial says why a message is not passed on.
type denial struct {
	refusal *refusal // for the client, in a CMP message; nil: of HTTP
	answer  answer   // of HTTP, which tells the client when to try again
}

func (x *relaying) deny(d *denial) answer {
	if d.refusal != nil {
		return x.refused(d.refusal)
	}
	return d.answer
}

// check decides whether the message is passed on, and whether with the service's protection. The
// policy comes before what costs processor time.
func (x *relaying) check() (replace bool, denied *denial) {
	asked, refused := x.readRequest()
	if refused == nil {
		if denied := x.authorize(asked); denied != nil {
			return false, denied
		}
		refused = x.checkRequest()
	}
	if refused == nil {
		replace, refused = x.checkProtection()
	}
	if refused != nil {
		return false, &denial{refusal: refused}
	}
	return replace, nil
}

// authorize asks the policy about the message: about what it asks for, if that is a certificate.
func (x *relaying) authorize(asked *policy.Asked) *denial {
	operation := policy.CMP
	if x.request.Body.Type == cmp.BodyRR {
		operation = policy.Revoke
	}
	d, err := x.h.authorize(x.e, operation, asked)
	switch {
	case err != nil:
		x.e.reason = err.Error()
		return &denial{answer: unavailableAnswer(x.e, outcomeNotReady, messageNoPolicy)}
	case d.Allowed:
		return nil
	case d.Wait > 0:
		return &denial{answer: limitedAnswer(x.e, d)}
	}
	x.e.outcome = outcomeForbidden
	return &denial{refusal: refuse(cmp.FailNotAuthorized, "%s", x.h.forbiddenText(d))}
}

// mayReceive judges a certificate that was polled for: whose request that was is not known here.
// One that is kept back stays for the client that may have it.
func (x *relaying) mayReceive(certificate *x509.Certificate) *denial {
	if x.h.cfg.Policy == nil {
		return nil
	}
	d, err := x.h.judge(x.e, policy.CMP, policy.ReadCertificate(certificate), nil)
	if err == nil && d.Allowed {
		return nil
	}
	x.e.outcome, x.e.decision = outcomeForbidden, &d
	return &denial{refusal: refuse(cmp.FailNotAuthorized, "%s", x.h.forbiddenText(d))}
}

// readRequest reads what the message asks for; nil: no certificate.
func (x *relaying) readRequest() (*policy.Asked, *refusal) {
	m := x.request
	switch {
	case len(m.Header.TransactionID) == 0 || len(m.Header.SenderNonce) == 0:
		return nil, refuse(cmp.FailBadDataFormat, "transactionID or senderNonce is missing")
	case m.MACProtected():
		return nil, refuse(cmp.FailBadMessageCheck,
			"the message is protected by a MAC, which the CertService cannot check: sign it, or leave it unprotected")
	}
	csr, err := m.Requested()
	if err != nil {
		return nil, refuse(cmp.FailBadCertTemplate, "%v", err)
	}
	if csr == nil {
		return nil, nil
	}
	x.e.csr = csr
	if content, ok := m.Body.Content.(cmp.CertReqMessages); ok && len(content[0].RegInfo) > 0 {
		return nil, refuse(cmp.FailBadRequest, "the request has regInfo, in which a CA may find other names")
	}
	asked, err := policy.ReadCSR(csr)
	if err != nil {
		return nil, refuse(cmp.FailBadCertTemplate, "the request %v", err)
	}
	if m.Body.Type == cmp.BodyP10CR {
		asked = asked.Whole()
	}
	return asked, nil
}

// checkProtection decides by whom the message is protected.
func (x *relaying) checkProtection() (replace bool, refused *refusal) {
	m := x.request
	var signer *x509.Certificate
	if m.Header.ProtectionAlg != nil || m.Protection != nil {
		if signer, refused = x.signer(); refused != nil {
			return false, refused
		}
	}
	byClient := signer == nil || x.e.client != nil && signer.Equal(x.e.client)
	switch m.Body.Type {
	case cmp.BodyKUR:
		return false, x.checkUpdate(signer)
	case cmp.BodyIR, cmp.BodyCR, cmp.BodyP10CR:
		if byClient {
			return true, nil
		}
	case cmp.BodyCertConf, cmp.BodyPollReq:
		if byClient {
			return true, nil
		}
		if err := x.ca.Issued(signer, m.ExtraCerts); err == nil {
			return false, nil
		}
	case cmp.BodyGenM:
		return false, nil
	case cmp.BodyRR:
		return false, x.checkRevocation(signer)
	default:
		return false, refuse(cmp.FailBadRequest, "the CertService does not pass on messages of kind %s", m.Body.Type)
	}
	return false, refuse(cmp.FailSignerNotTrusted, "%s is signed by %q, want the certificate of the TLS connection",
		m.Body.Type, truncate(pki.DN(signer.RawSubject)))
}

// checkRequest checks the key that is asked for, the proof of possession included: the CA believes
// the service.
func (x *relaying) checkRequest() *refusal {
	csr := x.e.csr
	if csr == nil {
		return nil
	}
	var err error
	if err := checkRSABits(csr.PublicKey, x.h.cfg.MaxRSABits); err != nil {
		return refuse(cmp.FailBadAlg, "the request %v", err)
	}
	if err := cmp.CheckKey(csr.PublicKey); err != nil {
		return refuse(cmp.FailBadAlg, "%v", err)
	}
	switch content := x.request.Body.Content.(type) {
	case cmp.CertReqMessages:
		err = content[0].VerifyPOPO()
	case cmp.CertificationRequest:
		err = csr.CheckSignature()
	}
	if err != nil {
		return refuse(cmp.FailBadPOP, "%v", err)
	}
	return nil
}

// signer returns the certificate that the message is signed by. Later messages of a transaction may
// leave it out (RFC 9483, 3.3): then it is that of the TLS connection.
func (x *relaying) signer() (*x509.Certificate, *refusal) {
	m, signer := x.request, x.e.client
	if len(m.ExtraCerts) > 0 {
		var err error
		if signer, err = pki.Parse(m.ExtraCerts[0]); err != nil {
			return nil, refuse(cmp.FailBadMessageCheck, "reading the signer's certificate: %v", err)
		}
	}
	if signer == nil {
		return nil, refuse(cmp.FailBadMessageCheck, "the message is signed, and has no certificate of the signer")
	}
	if checkRSABits(signer.PublicKey, x.h.cfg.MaxRSABits) != nil || cmp.CheckKey(signer.PublicKey) != nil {
		return nil, refuse(cmp.FailBadAlg, "the signer's key is of a kind or size that is not supported")
	}
	if sender, ok := m.Header.Sender.Name(); !ok || !pki.SameName(sender, signer.RawSubject) {
		return nil, refuse(cmp.FailBadMessageCheck, "sender is %q, want the signer's subject %q", m.Header.Sender,
			truncate(pki.DN(signer.RawSubject)))
	}
	if err := cmp.VerifySignature(m, signer.PublicKey); err != nil {
		return nil, refuse(cmp.FailBadMessageCheck, "the protection is wrong: %v", err)
	}
	return signer, nil
}

// checkUpdate: a key update is signed by the certificate that it replaces, which is one of the CA,
// and asks for the same names. No other protection is ever given to it: that would let everybody
// with a TLS certificate take over the names of others.
func (x *relaying) checkUpdate(signer *x509.Certificate) *refusal {
	if signer == nil {
		return refuse(cmp.FailBadMessageCheck,
			"kur is not protected, want a signature by the certificate that it replaces")
	}
	request := x.request.Body.Content.(cmp.CertReqMessages)[0].CertReq
	old, err := request.OldCertID()
	if err != nil || old == nil {
		return refuse(cmp.FailBadCertID, "oldCertId is missing or cannot be read")
	}
	issuer, _ := old.Issuer.Name()
	if old.SerialNumber.Cmp(signer.SerialNumber) != 0 || !pki.SameName(issuer, signer.RawIssuer) {
		return refuse(cmp.FailBadCertID, "kur is signed by another certificate than oldCertId names")
	}
	if err := x.ca.Issued(signer, x.request.ExtraCerts); err != nil {
		return refuse(cmp.FailSignerNotTrusted, "the certificate to be replaced is not one of this CA: %v", err)
	}
	if !sameSubjectAndNames(x.e.csr, signer) {
		return refuse(cmp.FailBadCertTemplate, "kur asks for another subject or other names than the certificate has "+
			"that it replaces")
	}
	return nil
}

// checkRevocation: a revocation is signed by the certificate that it revokes, which is one of the CA.
// No other protection is ever given to it.
func (x *relaying) checkRevocation(signer *x509.Certificate) *refusal {
	if signer == nil {
		return refuse(cmp.FailBadMessageCheck,
			"rr is not protected, want a signature by the certificate that it revokes")
	}
	revoked := x.request.Body.Content.(cmp.RevReqContent)
	if len(revoked) != 1 {
		return refuse(cmp.FailBadRequest, "rr is about %d certificates, want one", len(revoked))
	}
	of := revoked[0].CertDetails
	if of.SerialNumber == nil || of.SerialNumber.Cmp(signer.SerialNumber) != 0 ||
		!pki.SameName(of.Issuer, signer.RawIssuer) {
		return refuse(cmp.FailBadCertID, "rr is signed by another certificate than it is about")
	}
	if err := x.ca.Issued(signer, x.request.ExtraCerts); err != nil {
		return refuse(cmp.FailSignerNotTrusted, "the certificate to be revoked is not one of this CA: %v", err)
	}
	return nil
}

// inform answers a general message from what is known here: the CA's certificates (RFC 9483, 4.3.1).
func (x *relaying) inform() answer {
	asked := x.request.Body.Content.(cmp.GeneralContent)
	if _, ok := asked.Value(cmp.OIDCACerts); !ok {
		return x.refused(refuse(cmp.FailBadRequest, "the CertService answers genm for the CA's certificates only"))
	}
	content := cmp.GeneralContent{{Type: cmp.OIDCACerts}}
	if certificates := x.ca.CACertificates(); len(certificates) > 0 {
		value, err := cmp.MarshalCACerts(certificates)
		if err != nil {
			return x.refused(refuse(cmp.FailSystemFailure, "%v", err))
		}
		content[0].Value = value
	}
	return x.send(x.own(cmp.PKIBody{Type: cmp.BodyGenP, Content: content}), true)
}

// own is a message of the service itself.
func (x *relaying) own(body cmp.PKIBody) *cmp.PKIMessage {
	return &cmp.PKIMessage{Header: x.request.Header.Answer(cmp.GeneralName{}, x.h.now()), Body: body}
}

// refused answers with an error message, signed by the service.
func (x *relaying) refused(r *refusal) answer {
	if x.e.outcome == outcomeOK {
		x.e.outcome = outcomeBadRequest
	}
	x.e.reason = r.Error()
	return x.send(x.own(cmp.PKIBody{Type: cmp.BodyError, Content: &cmp.ErrorMsgContent{
		StatusInfo: cmp.Rejection(r.text, r.failInfo...)}}), true)
}

// send answers with a message. Where nobody but the service can vouch for it to the client, the
// service signs it with its TLS identity; anything else stays as the CA sent it.
func (x *relaying) send(m *cmp.PKIMessage, sign bool) answer {
	if sign {
		identity := x.h.cfg.Identity()
		key, ok := identity.PrivateKey.(crypto.Signer)
		if !ok {
			return errorAnswer(http.StatusInternalServerError, "The CertService cannot sign")
		}
		certificates := m.ExtraCerts
		m = &cmp.PKIMessage{Header: m.Header, Body: m.Body}
		m.Header.ProtectionAlg = nil
		m.SetSigner(identity.Leaf, nil)
		m.ExtraCerts = append(bytesOf(identity.Certificate), certificates...)
		if err := cmp.ProtectSignature(m, x.mine.signer(key)); err != nil {
			return x.h.overloadAnswer(x.e, limitCPU, "signing the answer: "+err.Error())
		}
	}
	der, err := m.Marshal()
	if err != nil {
		x.e.outcome, x.e.reason = outcomeFailed, err.Error()
		return errorAnswer(http.StatusInternalServerError, "Internal server error")
	}
	return answer{status: http.StatusOK, header: map[string]string{"Content-Type": cmp.MediaType}, body: der}
}

func bytesOf(ders [][]byte) (copied [][]byte) {
	for _, der := range ders {
		copied = append(copied, bytes.Clone(der))
	}
	return copied
}

// refusedError is a refusal by the CA.
func refusedError(status *cmp.StatusError) *RefusedError {
	return &RefusedError{FailInfo: status.FailInfo.Names(), Text: status.Text, Err: status,
		Unauthenticated: !status.Authenticated}
}

// Relay passes a message on, see Relayer.
func (a *cmpAuthority) Relay(ctx context.Context, m *cmp.PKIMessage, replace bool) (cmp.Relayed, error) {
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	return a.client.Relay(ctx, m, replace)
}

// Issued checks a certificate against the trust anchors, see Relayer.
func (a *cmpAuthority) Issued(certificate *x509.Certificate, others [][]byte) error {
	if len(a.cfg.TrustAnchors) == 0 {
		return errors.New("the CertService has no trustAnchors for this CA")
	}
	var between []*x509.Certificate
	for _, der := range others[:min(len(others), maxClientChain)] {
		if c, err := pki.Parse(der); err == nil {
			between = append(between, c)
		}
	}
	_, err := pki.VerifyPath(certificate, pki.PathOptions{Anchors: a.cfg.TrustAnchors, Others: between, At: a.now()})
	return err
}

// CACertificates are the trust anchors, see Relayer.
func (a *cmpAuthority) CACertificates() (ders [][]byte) {
	for _, anchor := range a.cfg.TrustAnchors {
		ders = append(ders, anchor.Raw)
	}
	return ders
}

// withTimeout is the context of one enrolment.
func (h *Handler) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if h.cfg.Timeout > 0 {
		return context.WithTimeout(ctx, h.cfg.Timeout)
	}
	return context.WithCancel(ctx)
}
