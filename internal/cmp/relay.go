package cmp

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Relayed is the CA's answer to a message of another requester.
type Relayed struct {
	Answer *PKIMessage
	// MACVerified: the shared secret vouches for it, which the requester cannot verify.
	MACVerified bool
	Refusal     *StatusError      // nil: the CA does not refuse
	Certificate *x509.Certificate // issued in it; nil: none
}

// Relay passes a message of another requester on to the CA, as a registration authority does (RFC
// 9483, 5.2), and checks the answer like one to the client's own. With replace the message gets the
// client's protection (5.2.3.1): the body, the transactionID and the nonces stay, and so the proof
// of possession. Otherwise it is forwarded as it is (5.2.1).
//
// It keeps nothing between messages. So what polling brings at last is only checked as far as the
// message itself allows: the request that it answers is not known here.
func (c *Client) Relay(ctx context.Context, m *PKIMessage, replace bool) (Relayed, error) {
	t := c.begin(nil, nil).about(ctx)
	defer t.end()
	t.id, t.lastNonce = m.Header.TransactionID, m.Header.SenderNonce
	csr, err := requestedIn(m)
	if err != nil {
		return Relayed{}, err
	}
	if csr != nil {
		t.ownKeys = append(t.ownKeys, csr.PublicKey)
	}
	if replace {
		if m, err = t.reprotect(m, csr); err != nil {
			return Relayed{}, err
		}
	}
	der, err := m.Marshal()
	if err != nil {
		return Relayed{}, err
	}
	answerDER, httpStatus, err := c.transport.post(ctx, der, &t.answers)
	if err != nil {
		return Relayed{}, err
	}
	// The answer outlives the memory that is counted for it.
	answer, refusal, err := t.parseAnswer(m.Body.Type, bytes.Clone(answerDER), httpStatus)
	switch {
	case err != nil:
	case refusal == nil:
		err = checkBodyType(answer, m.Body.Type)
	case refusal.Status != StatusWaiting:
		return t.relayRefusal(answer, refusal)
	}
	if err != nil {
		return Relayed{}, err
	}
	if m.Body.Type == BodyPollReq && answer.Body.Type != BodyPollRep {
		t.awaitedNonce = answer.Header.RecipNonce // that of the request, which is not known here
	}
	if err := t.checkOrigin(answer, m.Body.Type); err != nil && !signerLeftOut(answer, err) {
		return Relayed{}, err
	}
	r := Relayed{Answer: answer, MACVerified: t.macVerified}
	if r.Certificate, err = t.checkIssued(m, answer, csr); err != nil && replace {
		t.disown(ctx, r.Certificate, answer, csr, m.Header.ImplicitConfirm(), err)
	}
	return r, err
}

// disown tells the CA that a certificate is not passed on: the requester will never confirm it. Where
// the requester's own protection counts, nobody else can say so.
func (t *transaction) disown(ctx context.Context, certificate *x509.Certificate, answer *PKIMessage,
	csr *x509.CertificateRequest, implicit bool, reason error) {
	switch {
	case certificate == nil:
	case implicit && answer.Header.ImplicitConfirm():
		t.giveBack(ctx, certificate, csr)
	default:
		t.reject(ctx, certificate, answer.Body.Content.(*CertRepMessage).Response[0].CertReqID, reason)
	}
}

// signerLeftOut tells of a pkiConf or pollRep that its signer was in an earlier answer only, as
// EJBCA does it (RFC 9483, 3.3). The requester has that one and verifies the signature; all that
// such a message says is that it goes on.
func signerLeftOut(answer *PKIMessage, err error) bool {
	check, ok := errors.AsType[*CheckError](err)
	return ok && check.Check == "signature" && len(answer.ExtraCerts) == 0 &&
		(answer.Body.Type == BodyPKIConf || answer.Body.Type == BodyPollRep)
}

// relayRefusal takes a refusal by the CA. An unprotected one is shown as such; one whose protection
// does not verify is not taken for one.
func (t *transaction) relayRefusal(answer *PKIMessage, refusal *StatusError) (Relayed, error) {
	err := t.authenticateRefusal(answer, refusal)
	if err != error(refusal) {
		return Relayed{}, err
	}
	if !refusal.Authenticated && answer.Protection != nil {
		return Relayed{}, &CheckError{Check: "protection", Got: "a refusal whose protection does not verify",
			Want: "one that does, or none"}
	}
	return Relayed{Answer: answer, Refusal: refusal, MACVerified: t.macVerified}, nil
}

// reprotect gives a message the client's protection. The sender is the client's own, or as with its
// own requests the subject.
func (t *transaction) reprotect(m *PKIMessage, csr *x509.CertificateRequest) (*PKIMessage, error) {
	c := t.c
	out := &PKIMessage{Header: m.Header, Body: m.Body}
	h := &out.Header
	h.Recipient, h.MessageTime = DirectoryName(c.recipient), c.cfg.Now().UTC().Truncate(time.Second)
	h.ProtectionAlg, h.SenderKID, h.RecipKID = nil, nil, nil
	if t.signer != nil {
		out.SetSigner(t.signer.Certificate, t.signer.Chain)
		return out, ProtectSignature(out, t.signer.Key)
	}
	sender := c.sender
	if sender == nil && csr != nil {
		sender = csr.RawSubject
	}
	if sender == nil {
		sender, _ = commonName(c.cfg.Reference) // the subject is in an earlier message
	}
	h.Sender = DirectoryName(sender)
	if c.cfg.Reference != "" {
		h.SenderKID = []byte(c.cfg.Reference)
	}
	mac, err := c.current.mac(c.cfg.Protection, c.cfg.Now())
	if err != nil {
		return nil, err
	}
	return out, c.keys.Protect(out, mac)
}

// requestedIn returns what a message asks for, as a CSR would; nil where it asks for no certificate.
func requestedIn(m *PKIMessage) (*x509.CertificateRequest, error) {
	switch content := m.Body.Content.(type) {
	case CertificationRequest:
		return x509.ParseCertificateRequest(content)
	case CertReqMessages:
		if len(content) != 1 {
			return nil, fmt.Errorf("%s has %d requests, want one", m.Body.Type, len(content))
		}
		return content[0].CertReq.CertTemplate.request()
	}
	return nil, nil
}

// Requested returns what a message asks for, as a CSR would; nil where it asks for no certificate.
func (m *PKIMessage) Requested() (*x509.CertificateRequest, error) { return requestedIn(m) }

// oidExtensionRequest is pkcs-9-at-extensionRequest (RFC 2985, 5.4.2).
var oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}

// request is a CSR for what a template asks for. Its signature is empty: the proof of possession is
// the CertReqMsg's.
func (t *CertTemplate) request() (*x509.CertificateRequest, error) {
	if t.PublicKey == nil {
		return nil, errors.New("template has no public key")
	}
	subject := t.Subject
	if subject == nil {
		subject = []byte{0x30, 0}
	}
	extensions, err := asn1.Marshal(t.Extensions)
	if err != nil {
		return nil, fmt.Errorf("encoding extensions: %w", err)
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(0)
			b.AddBytes(subject)
			b.AddBytes(t.PublicKey)
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidExtensionRequest)
					b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(extensions) })
				})
			})
		})
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // ecdsa-with-SHA256, which nothing verifies
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})
		})
		b.AddASN1BitString(nil)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding template: %w", err)
	}
	return x509.ParseCertificateRequest(der)
}

// checkRequestID: the response is to the request that a message has, or is polled for by. Of a
// PKCS#10 request some answer -1 and some 0; what is polled for as a whole, by -1, may be either.
func checkRequestID(m *PKIMessage, id int64) error {
	var want []int64
	switch content := m.Body.Content.(type) {
	case CertReqMessages:
		want = []int64{content[0].CertReq.CertReqID}
	case CertificationRequest:
		want = []int64{wholeAnswer, 0}
	case PollReqContent:
		want = content
	}
	if slices.Contains(want, id) || m.Body.Type == BodyPollReq && slices.Contains(want, wholeAnswer) {
		return nil
	}
	return &CheckError{Check: "certReqId", Got: fmt.Sprint(id), Want: fmt.Sprint(want)}
}

// checkIssued checks the certificate in an answer, if there is one, against what was asked for, as
// far as that is known.
func (t *transaction) checkIssued(m, answer *PKIMessage, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	content, ok := answer.Body.Content.(*CertRepMessage)
	if !ok {
		return nil, nil
	}
	response, err := checkSingleResponse(answer)
	if err == nil {
		err = checkRequestID(m, response.CertReqID)
	}
	if err != nil || response.Status.Status == StatusWaiting {
		return nil, err
	}
	if err := checkGranted(response); err != nil {
		return nil, err
	}
	certificate, err := readCertificate(content.Response[0].CertifiedKeyPair)
	if err != nil {
		return nil, err
	}
	if csr != nil {
		err = t.c.checkCertificate(certificate, csr)
	} else {
		err = errors.Join(checkNotCA(certificate), checkValidity(certificate, t.c.cfg.Now()))
	}
	if err != nil {
		return certificate, err
	}
	_, _, err = t.chain(certificate, answer)
	return certificate, err
}
