package cmp

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/requestid"
)

// transaction is one exchange of messages with a CA from the first
// request to the last answer (RFC 9810, 5.1.1). What was verified
// in it binds what follows: the kind of protection, and the signer.
type transaction struct {
	c       *Client
	log     *slog.Logger
	sender  []byte  // DER Name for MAC-protected requests; nil: not known
	signer  *Signer // nil: requests are protected as configured, by MAC
	mac     MAC     // of requests, the same throughout (RFC 9810, 5.1.3.1); zero: not chosen yet
	id      []byte
	ownKeys []crypto.PublicKey // that no answer can be signed with

	awaitedNonce []byte // senderNonce of the request whose answer is late and polled for
	lastNonce    []byte // senderNonce of the latest request
	peerNonce    []byte // senderNonce of the latest answer

	pending *Pending // where it stands
	journal Journal  // keeps that

	answers     answers           // their memory, which end gives back
	macWork     int               // what may still be computed for the keys of answers' MACs
	macVerified bool              // an answer was verified by MAC
	peer        *x509.Certificate // the signer that an answer was verified by
	peerDoubt   error             // why peer is trusted only by ResponseTrustONAP; nil: it is trusted anyway

	saidTime     time.Time // messageTime of the latest answer
	refusalDoubt error     // why a refusal is not authenticated
}

// begin starts a transaction. With a signer, its requests are signed by it, whatever is configured.
func (c *Client) begin(subject []byte, signer *Signer, ownKeys ...crypto.PublicKey) *transaction {
	if signer == nil && c.cfg.Protection == ProtectionSignature {
		signer = c.cfg.Signer
	}
	if signer != nil {
		ownKeys = append(ownKeys, signer.Key.Public())
	}
	if c.sender != nil {
		subject = c.sender
	}
	return &transaction{c: c, log: c.cfg.Log, sender: subject, signer: signer, id: NewNonce(), ownKeys: ownKeys,
		macWork: maxMACWork, answers: answers{of: c.cfg.Answers},
		pending: &Pending{Since: c.cfg.Now()}, journal: noJournal{}}
}

// about adds the ids of the request that the transaction is for to its log lines.
func (t *transaction) about(ctx context.Context) *transaction {
	t.log = requestid.Bind(ctx, t.log)
	return t
}

// end is called when the answers are not needed any more.
func (t *transaction) end() { t.answers.giveBack() }

// warn logs what only ResponseTrustONAP accepts, at once:
// what follows may fail and leave no result.
func (t *transaction) warn(format string, args ...any) {
	t.log.Warn("CMP answer accepted as the ONAP server did", "error", show(fmt.Sprintf(format, args...)))
}

// exchange sends a body and returns the answer after every check on header, protection and kind. A
// refusal by the CA is a *StatusError.
func (t *transaction) exchange(ctx context.Context, body PKIBody) (*PKIMessage, error) {
	request, der, err := t.message(body)
	if err != nil {
		return nil, err
	}
	t.lastNonce = request.Header.SenderNonce
	if err := t.noteRequest(body.Type, t.lastNonce); err != nil {
		return nil, err
	}
	answerDER, httpStatus, err := t.c.transport.post(ctx, der, &t.answers)
	if err != nil {
		return nil, t.inTransaction(err)
	}
	answer, refusal, err := t.parseAnswer(body.Type, answerDER, httpStatus)
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		if refusal.Status == StatusWaiting {
			return t.awaitAnswer(ctx, answer, body.Type)
		}
		return nil, t.authenticateRefusal(answer, refusal)
	}
	if err := t.check(answer, body.Type); err != nil {
		return nil, err
	}
	t.peerNonce = answer.Header.SenderNonce
	return answer, nil
}

// parseAnswer reads the answer to a message of a kind, and the refusal that it may be. Only a refusal
// may come with another HTTP status than 200.
func (t *transaction) parseAnswer(kind BodyType, der []byte, httpStatus int) (*PKIMessage, *StatusError, error) {
	answer, err := ParsePKIMessage(der)
	if err != nil {
		return nil, nil, checkStructure(err, httpStatus)
	}
	t.log.Debug("CMP exchange", "request", kind.String(), "answer", answer.Body.Type.String(),
		"transaction_id", fmt.Sprintf("%x", t.id), "http_status", httpStatus)
	t.saidTime = answer.Header.MessageTime
	refusal := t.c.cfg.refusalOf(answer)
	if refusal == nil && httpStatus != http.StatusOK {
		return nil, nil, &TransportError{StatusCode: httpStatus,
			Err: fmt.Errorf("with a CMP message (%s) that is not a refusal", answer.Body.Type)}
	}
	return answer, refusal, nil
}

// message makes a request with its header (RFC 9483, 3.1) and protects it. It also returns its DER.
func (t *transaction) message(body PKIBody) (m *PKIMessage, der []byte, err error) {
	m = &PKIMessage{Body: body, Header: PKIHeader{
		PVNO:          PVNO2,
		Sender:        DirectoryName(t.sender),
		Recipient:     t.c.addressee,
		MessageTime:   t.c.cfg.Now().UTC().Truncate(time.Second),
		TransactionID: t.id,
		SenderNonce:   NewNonce(),
		RecipNonce:    t.peerNonce,
	}}
	if needsPVNO3(body) {
		m.Header.PVNO = PVNO3
	}
	if answersWithCertificate(body.Type) {
		if t.c.cfg.ImplicitConfirm {
			m.Header.AddImplicitConfirm()
		}
		if t.c.cfg.CertProfile != "" {
			m.Header.AddCertProfile(t.c.cfg.CertProfile)
		}
	}
	if t.signer == nil && t.c.cfg.Protection == ProtectionNone {
		der, err = m.Marshal()
		return m, der, err
	}
	part, err := t.protect(m)
	if err == nil {
		der, err = m.marshalAround(part)
	}
	return m, der, err
}

// protect protects a request, and returns its protected part.
func (t *transaction) protect(m *PKIMessage) (part []byte, err error) {
	if t.signer != nil {
		m.SetSigner(t.signer.Certificate, t.signer.Chain)
		return protectSignature(m, t.signer.Key)
	}
	if t.c.cfg.Reference != "" {
		m.Header.SenderKID = []byte(t.c.cfg.Reference)
	}
	if t.mac.Protection == "" {
		if t.mac, err = t.c.current.mac(t.c.cfg.Protection, t.c.cfg.Now()); err != nil {
			return nil, err
		}
	}
	return t.c.keys.protect(m, t.mac)
}

// needsPVNO3 says whether the body has syntax of version 3: hashAlg in certConf (RFC 9810, 7).
func needsPVNO3(body PKIBody) bool {
	statuses, _ := body.Content.(CertConfirmContent)
	return slices.ContainsFunc(statuses, func(s CertStatus) bool { return s.HashAlg != nil })
}

func answersWithCertificate(request BodyType) bool {
	return request == BodyIR || request == BodyCR || request == BodyKUR
}

// check runs the checks that every answer must pass that is not a refusal.
func (t *transaction) check(m *PKIMessage, request BodyType) error {
	if err := checkBodyType(m, request); err != nil {
		return err
	}
	return t.checkOrigin(m, request)
}

// checkOrigin runs the checks on header and protection,
// which say whose message it is and whether it answers ours.
func (t *transaction) checkOrigin(m *PKIMessage, request BodyType) error {
	for _, err := range []error{
		checkPVNO(m),
		checkTransactionID(m, t.id),
		checkRecipNonce(m, t.expectedNonces(m, request)),
		checkSenderNonce(m, t.lastNonce),
		checkMessageTime(m, t.c.cfg.Now(), timeWindow),
	} {
		if err != nil {
			return err
		}
	}
	if err := t.checkProtection(m); err != nil {
		return err
	}
	if t.peerDoubt != nil {
		t.warn("%s is signed by %q, which is trusted only because response trust is %q: %v",
			m.Body.Type, pki.DN(t.peer.RawSubject), ResponseTrustONAP, t.peerDoubt)
	}
	return nil
}

// expectedNonces returns what recipNonce may be: the nonce of the
// message answered, and where polling brings the delayed answer at
// last, also that of the request that it answers (RFC 9483, 4.4).
func (t *transaction) expectedNonces(m *PKIMessage, request BodyType) [][]byte {
	if request == BodyPollReq && m.Body.Type != BodyPollRep {
		return [][]byte{t.lastNonce, t.awaitedNonce}
	}
	return [][]byte{t.lastNonce}
}

// refusalOf returns what an answer refuses with, or nil when it does not: an error message, or a
// status of rejection in place of a certificate or a revocation (RFC 9810, 5.2.3 and 5.3.21). An
// error message whose status is waiting refuses nothing: the answer is late (RFC 9483, 4.4).
func (cfg *Config) refusalOf(m *PKIMessage) *StatusError {
	switch content := m.Body.Content.(type) {
	case *ErrorMsgContent:
		return cfg.statusError(content.StatusInfo, content.ErrorDetails)
	case *CertRepMessage:
		for _, response := range content.Response {
			if response.Status.Status == StatusRejection {
				refusal := cfg.statusError(response.Status, nil)
				refusal.Decided = true
				return refusal
			}
		}
	case *RevRepContent:
		for _, status := range content.Status {
			if status.Status == StatusRejection {
				return cfg.statusError(status, nil)
			}
		}
	}
	return nil
}

// leastConcealed is the length, in bytes, from which a secret is taken out of a CA's words. A shorter
// one would be found in any text.
const leastConcealed = 4

// conceal is what a CA says, without the secret and its name: some repeat what they do not accept,
// and that text goes into logs and to clients.
func (cfg *Config) conceal(text PKIFreeText) string {
	text = slices.Clone(text)
	for i := range text {
		for _, secret := range []string{string(cfg.Secret), cfg.Reference} {
			if len(secret) >= leastConcealed {
				text[i] = strings.ReplaceAll(text[i], secret, "*****")
			}
		}
	}
	return text.String()
}

func (cfg *Config) statusError(info PKIStatusInfo, details PKIFreeText) *StatusError {
	text := slices.Concat(info.StatusString, details)
	return &StatusError{Status: info.Status, FailInfo: info.FailInfo, Text: cfg.conceal(text)}
}

// authenticateRefusal finds out whether a refusal is authenticated and returns it so marked.
// Servers often leave refusals unprotected, and without transactionID or nonce when they could not
// read the request (RFC 9483, 3.6.4), so it is shown in any case. One that belongs to another
// transaction is not ours.
func (t *transaction) authenticateRefusal(m *PKIMessage, refusal *StatusError) error {
	if len(m.Header.TransactionID) > 0 {
		if err := checkTransactionID(m, t.id); err != nil {
			return err
		}
	}
	if len(m.Header.RecipNonce) > 0 {
		if err := checkRecipNonce(m, [][]byte{t.lastNonce, t.awaitedNonce}); err != nil {
			return err
		}
	}
	if err := checkNoCertificateWithRejection(m); err != nil {
		return err
	}
	err := t.checkProtection(m)
	t.refusalDoubt = err
	if err != nil {
		t.log.Debug("refusal by the CMP server is not authenticated", "error", err)
	}
	refusal.Authenticated = checkTransactionID(m, t.id) == nil && err == nil && t.peerDoubt == nil
	return refusal
}

// inTransaction marks the failure of an exchange that was not the first of its transaction: the CA
// may have issued a certificate by then, so that sending the request again is not the same as
// sending it for the first time.
func (t *transaction) inTransaction(err error) error {
	transport, ok := errors.AsType[*TransportError](err)
	switch {
	case ok && t.peerNonce != nil:
		transport.Answered = true
	case ok && transport.Unsent && !t.pending.Repeated:
		t.pending.Sent = false
	}
	return err
}
