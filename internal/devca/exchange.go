package devca

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// clockSkew is how far messageTime may lie from now.
const clockSkew = 5 * time.Minute

// minNonceSize is the least length in bytes of a senderNonce (RFC 9483, 3.1).
const minNonceSize = 16

// refusal is a negative answer. It becomes an error message or the status of a CertResponse.
type refusal struct{ info cmp.PKIStatusInfo }

func (r *refusal) Error() string { return r.info.StatusString.String() }

func refuse(bit cmp.FailureBit, format string, args ...any) error {
	return &refusal{cmp.Rejection(fmt.Sprintf(format, args...), bit)}
}

// errNonceUsed refuses a message that is perhaps an old one with another transactionID.
var errNonceUsed = refuse(cmp.FailBadSenderNonce, "senderNonce was used in a message before, want a fresh one")

// exchange is one message on its way to its answer.
type exchange struct {
	ca      *CA
	request *cmp.PKIMessage
	header  cmp.PKIHeader // of the answer
	by      requester     // zero until the protection is verified
	faults  Faults
	now     time.Time

	grantImplicit bool     // grant implicit confirmation in the answer
	chain         [][]byte // DER certificates that go into extraCerts
}

// answer answers one message, always with a message.
func (c *CA) answer(request *cmp.PKIMessage, faults Faults) (*cmp.PKIMessage, error) {
	c.counters.requests.Add(1)
	now := c.config.Now()
	e := &exchange{ca: c, request: request, faults: faults, now: now,
		header: request.Header.Answer(cmp.DirectoryName(c.issuing.RawSubject), now)}
	body, err := e.body()
	if err != nil {
		no, isRefusal := errors.AsType[*refusal](err)
		if !isRefusal {
			return nil, err
		}
		c.counters.errors.Add(1)
		c.config.Log.Info("message answered with an error", "body", request.Body.Type.String(), "error", no.Error())
		body = cmp.PKIBody{Type: cmp.BodyError, Content: &cmp.ErrorMsgContent{StatusInfo: no.info}}
	}
	if _, isCertificate := body.Content.(*cmp.CertRepMessage); isCertificate {
		e.faults.spoiled(func(s spoil) {
			if s.answer != nil {
				s.answer(&body)
			}
		})
	}
	m, err := e.protect(body)
	if err == nil {
		e.faults.spoiled(func(s spoil) {
			if s.message != nil && m.Protection != nil {
				s.message(m)
			}
		})
	}
	return m, err
}

// body checks the message (RFC 9483, 3.5), does what it asks
// for and returns the body of the answer.
func (e *exchange) body() (cmp.PKIBody, error) {
	if err := e.checkHeader(); err != nil {
		return cmp.PKIBody{}, err
	}
	id := e.request.Header.TransactionID
	open, isOpen := e.ca.transactions.lookup(id, e.now)
	var err error
	if e.by, err = e.authenticate(open.by); err != nil {
		return cmp.PKIBody{}, err
	}
	switch e.request.Body.Content.(type) {
	case cmp.CertReqMessages, cmp.CertificationRequest, cmp.RevReqContent, cmp.GeneralContent:
		return e.begin()
	case cmp.CertConfirmContent, cmp.PollReqContent, *cmp.ErrorMsgContent:
		return e.proceed(open, isOpen)
	}
	return cmp.PKIBody{}, refuse(cmp.FailBadRequest, "a message of kind %s cannot be answered here",
		e.request.Body.Type)
}

func (e *exchange) checkHeader() error {
	h := &e.request.Header
	switch {
	case h.PVNO != cmp.PVNO2 && h.PVNO != cmp.PVNO3:
		e.header.PVNO = cmp.PVNO2
		return refuse(cmp.FailUnsupportedVersion, "pvno is %d, want %d or %d", h.PVNO, cmp.PVNO2, cmp.PVNO3)
	case len(h.TransactionID) == 0:
		e.header.TransactionID = cmp.NewNonce()
		return refuse(cmp.FailBadDataFormat, "transactionID is missing")
	case len(h.SenderNonce) < minNonceSize:
		return refuse(cmp.FailBadSenderNonce, "senderNonce has %d bytes, want %d or more",
			len(h.SenderNonce), minNonceSize)
	}
	if skew := h.MessageTime.Sub(e.now).Abs(); !h.MessageTime.IsZero() && skew > clockSkew {
		return refuse(cmp.FailBadTime, "messageTime is %s from the time here, want at most %s",
			skew.Round(time.Second), clockSkew)
	}
	return nil
}

// begin answers a message that begins a transaction.
func (e *exchange) begin() (cmp.PKIBody, error) {
	id := e.request.Header.TransactionID
	if !e.ca.transactions.begin(id, e.now) {
		return cmp.PKIBody{}, refuse(cmp.FailTransactionIDInUse, "this transactionID is in use already")
	}
	if !e.ca.transactions.use(id, e.request.Header.SenderNonce) {
		e.ca.transactions.end(id)
		return cmp.PKIBody{}, errNonceUsed
	}
	switch content := e.request.Body.Content.(type) {
	case cmp.RevReqContent:
		defer e.ca.transactions.end(id)
		return e.revoke(content)
	case cmp.GeneralContent:
		defer e.ca.transactions.end(id)
		return e.inform(content)
	}
	next := transaction{state: stateEnded}
	defer func() { e.ca.transactions.put(id, next) }()
	if e.faults.Unprotected {
		return cmp.PKIBody{}, refuse(cmp.FailSystemFailure, "this error was ordered as a fault")
	}
	body, next, err := e.enroll()
	return body, err
}

// proceed answers a message that belongs to a transaction begun before.
func (e *exchange) proceed(open transaction, isOpen bool) (cmp.PKIBody, error) {
	id := e.request.Header.TransactionID
	kind := e.request.Body.Type
	want := stateUnconfirmed
	if kind == cmp.BodyPollReq || kind == cmp.BodyError && open.state == stateWaiting {
		want = stateWaiting
	}
	if !isOpen {
		return cmp.PKIBody{}, refuse(cmp.FailBadRequest, "%s is for a transaction that is not known", kind)
	}
	if open.state == stateConfirmed && kind == cmp.BodyCertConf {
		return cmp.PKIBody{}, refuse(cmp.FailCertConfirmed, "the certificate is confirmed already")
	}
	if open.state == want && !open.by.same(e.by) {
		return cmp.PKIBody{}, refuse(cmp.FailWrongIntegrity,
			"%s is protected by other credentials than the request was", kind)
	}
	taken, ok := e.ca.transactions.take(id, want)
	if !ok {
		return cmp.PKIBody{}, refuse(cmp.FailBadRequest, "%s is not what the transaction waits for", kind)
	}
	next := transaction{state: stateEnded}
	defer func() { e.ca.transactions.put(id, next) }()
	if nonce := e.request.Header.RecipNonce; !bytes.Equal(nonce, taken.nonce) && !taken.putOffWith(nonce) {
		e.giveUp(taken, "confirmed with a wrong nonce")
		return cmp.PKIBody{}, refuse(cmp.FailBadRecipientNonce, "recipNonce is not the senderNonce of the last answer")
	}
	if !e.ca.transactions.use(id, e.request.Header.SenderNonce) {
		e.giveUp(taken, "confirmed with a nonce that was used before")
		return cmp.PKIBody{}, errNonceUsed
	}
	var body cmp.PKIBody
	var err error
	switch content := e.request.Body.Content.(type) {
	case cmp.CertConfirmContent:
		body, next.state, err = e.confirm(taken, content)
	case cmp.PollReqContent:
		body, next, err = e.poll(taken, content)
	default: // an error message ends the transaction, and is answered like a confirmation (RFC 9483, 3.6.4)
		e.giveUp(taken, "the client reported an error")
		body = cmp.PKIBody{Type: cmp.BodyPKIConf, Content: cmp.PKIConfirmContent{}}
	}
	return body, err
}

// giveUp revokes the certificate of a transaction that ends without a confirmation.
func (e *exchange) giveUp(t transaction, reason string) {
	if t.serial != nil {
		e.ca.revoke(t.serial, t.notAfter, reason)
	}
}

// signs says whether the answer is signed, rather than protected by the shared secret.
func (e *exchange) signs() bool {
	return e.by.mac == nil || e.ca.config.ResponseProtection == RespondSignature
}

// protect makes the answer from its body. An answer to an unknown requester is signed or, where
// the message does not ask for a signature in kind, not protected: a MAC would only help an
// attacker who guesses secrets.
func (e *exchange) protect(body cmp.PKIBody) (*cmp.PKIMessage, error) {
	if e.grantImplicit {
		e.header.AddImplicitConfirm()
	}
	e.faults.spoiled(func(s spoil) {
		if s.header != nil {
			s.header(&e.header)
		}
	})
	m := &cmp.PKIMessage{Header: e.header, Body: body}
	isSigned := e.request.Header.ProtectionAlg != nil && !e.request.MACProtected()
	unprotected := e.by.mac == nil && !isSigned && e.ca.config.ResponseProtection == RespondMAC
	switch {
	case unprotected, e.faults.Unprotected && body.Type == cmp.BodyError:
		return m, nil
	case e.signs():
		m.SetSigner(e.ca.issuing, nil)
		m.ExtraCerts = [][]byte{e.ca.issuing.Raw, e.ca.root.Raw}
		return m, cmp.ProtectSignature(m, e.ca.key)
	}
	m.ExtraCerts = e.chain
	m.Header.SenderKID = e.request.Header.SenderKID
	return m, e.ca.macKeys.Protect(m, *e.by.mac)
}

// requester is who protected a message: exactly one field is set, or none while that is not known.
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

// authenticate verifies the protection of the message (RFC 9810, 5.1.3; RFC 9483, 3.5). The opener
// of the transaction, if there is one, matters because the later messages of a transaction may
// leave the signer's certificate out (RFC 9483, 3.3).
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
	return requester{}, refuse(cmp.FailBadMessageCheck,
		"the message is signed, but the signer's certificate is not the first of extraCerts")
}

func (e *exchange) authenticateMAC() (requester, error) {
	if reference := string(e.request.Header.SenderKID); reference != e.ca.config.Reference {
		return requester{}, refuse(cmp.FailBadMessageCheck,
			"no shared secret is known by the reference %.64q in senderKID", reference)
	}
	mac, err := e.ca.macKeys.Verify(e.request)
	if err != nil {
		return requester{}, refuse(cmp.FailBadMessageCheck, "the protection is wrong: %v", err)
	}
	return requester{mac: &mac}, nil
}

func (e *exchange) authenticateSignature(signer *x509.Certificate) (requester, error) {
	sender, isName := e.request.Header.Sender.Name()
	if !isName || !pki.SameName(sender, signer.RawSubject) {
		return requester{}, refuse(cmp.FailBadMessageCheck, "the sender is %.200q, but the message is signed by %.200q",
			e.request.Header.Sender, cmp.DirectoryName(signer.RawSubject))
	}
	if err := cmp.VerifySignature(e.request, signer.PublicKey); err != nil {
		return requester{}, refuse(cmp.FailBadMessageCheck, "the protection is wrong: %v", err)
	}
	return requester{signer: signer}, nil
}

// knownSigner returns the signer's certificate if it was issued here and is good. The issuing key
// is as old as the process, so that its signature proves what other CAs look up.
func (e *exchange) knownSigner(der []byte) (*x509.Certificate, error) {
	signer, err := pki.ParseAnyPrintable(der)
	if err != nil {
		return nil, refuse(cmp.FailBadMessageCheck, "reading the signer's certificate: %v", err)
	}
	switch err := signer.CheckSignatureFrom(e.ca.issuing); {
	case err != nil:
		return nil, refuse(cmp.FailSignerNotTrusted,
			"the signer's certificate was not issued by this CA since it was started")
	case e.now.Before(signer.NotBefore), e.now.After(signer.NotAfter):
		return nil, refuse(cmp.FailSignerNotTrusted,
			"the signer's certificate is valid from %s to %s, which is not now",
			signer.NotBefore.UTC(), signer.NotAfter.UTC())
	case e.ca.revocations.has(signer.SerialNumber):
		return nil, refuse(cmp.FailCertRevoked, "the signer's certificate is revoked")
	}
	return signer, nil
}
