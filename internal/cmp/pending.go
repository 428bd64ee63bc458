package cmp

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Pending is a transaction that is not over: what is needed to go on with it, in this process or in
// another one. It holds no secret, and is kept as JSON.
type Pending struct {
	Request       string    `json:"request"` // ir, cr or kur
	TransactionID []byte    `json:"transactionId"`
	Since         time.Time `json:"since"`
	// Sent says that the request may have reached the CA, and Repeated that it was sent again.
	Sent     bool `json:"sent,omitempty"`
	Repeated bool `json:"repeated,omitempty"`
	// RequestNonce is the senderNonce of the request, which the answer that is polled for may name,
	// and PeerNonce the one of the last answer.
	RequestNonce []byte `json:"requestNonce,omitempty"`
	PeerNonce    []byte `json:"peerNonce,omitempty"`
	// Waiting says that the CA puts the answer off; PollID is what it is polled for by.
	Waiting bool  `json:"waiting,omitempty"`
	PollID  int64 `json:"pollId,omitempty"`
	// MACVerified and Signer, a certificate, are what protects the answers of this transaction.
	MACVerified bool   `json:"macVerified,omitempty"`
	Signer      []byte `json:"signer,omitempty"`
	// Chain and Trusted are what was issued and checked; Unconfirmed, that certConf is not answered.
	Chain       [][]byte `json:"chain,omitempty"`
	Trusted     [][]byte `json:"trusted,omitempty"`
	Unconfirmed bool     `json:"unconfirmed,omitempty"`
}

// Issued returns the certificate that was issued; nil when there is none yet.
func (p *Pending) Issued() *x509.Certificate {
	if p == nil || len(p.Chain) == 0 {
		return nil
	}
	leaf, err := pki.Parse(p.Chain[0])
	if err != nil {
		return nil
	}
	return leaf
}

// Lost says that the answer to the request did not come: whether the CA issued a certificate is
// not known, and it will not tell (RFC 9810 has no way to ask again).
func (p *Pending) Lost() bool { return p.Sent && !p.Waiting && len(p.Chain) == 0 }

// Journal keeps a Pending, so that a restart does not lose it. Save is called with each change,
// before what depends on it leaves; its error ends the transaction.
type Journal interface {
	Save(*Pending) error
}

// noJournal is for those who ask again from the start.
type noJournal struct{}

func (noJournal) Save(*Pending) error { return nil }

// Enrol requests a certificate by a message of a kind, ir, cr or kur, or goes on with the one that
// is pending. The holder of old signs a kur (RFC 9483, 4.1.3), whatever protection the client is
// configured with. It changes pending, and gives it to the journal.
func (c *Client) Enrol(ctx context.Context, r Request, old *Signer, pending *Pending,
	journal Journal) (Result, error) {
	kind, ok := map[string]BodyType{"ir": BodyIR, "cr": BodyCR, "kur": BodyKUR}[pending.Request]
	if !ok || (kind == BodyKUR) != (old != nil) {
		return Result{}, fmt.Errorf("request is %q, want ir, cr, or with an old certificate kur", pending.Request)
	}
	var replaced *x509.Certificate
	if old != nil {
		if err := old.check(); err != nil {
			return Result{}, err
		}
		replaced = old.Certificate
	}
	message, err := c.certReqMsg(r, replaced)
	if err != nil {
		return Result{}, err
	}
	t := c.begin(r.CSR.RawSubject, old, r.CSR.PublicKey).about(ctx)
	if err := t.resume(pending, journal); err != nil {
		return Result{}, err
	}
	return t.enrol(ctx, PKIBody{kind, CertReqMessages{message}}, r.CSR)
}

// resume takes up a transaction, or begins it.
func (t *transaction) resume(p *Pending, journal Journal) error {
	if p.TransactionID == nil {
		p.TransactionID, p.Since = t.id, t.pending.Since
	}
	t.pending, t.journal = p, journal
	t.id, t.lastNonce, t.peerNonce, t.macVerified = p.TransactionID, p.RequestNonce, p.PeerNonce, p.MACVerified
	if p.Signer == nil {
		return nil
	}
	var err error
	t.peer, err = parseCertificate(p.Signer)
	return err
}

// save notes where the transaction stands.
func (t *transaction) save() error {
	p := t.pending
	p.PeerNonce, p.MACVerified = t.peerNonce, t.macVerified
	if t.peer != nil {
		p.Signer = t.peer.Raw
	}
	return t.journal.Save(p)
}

// decide brings the response that decides, by the request or by polling on.
func (t *transaction) decide(ctx context.Context, body PKIBody) (CertResponse, *PKIMessage, error) {
	p := t.pending
	if p.Waiting {
		return t.pollForDecision(ctx, answerTypes[body.Type], p.PollID, nil)
	}
	answer, err := t.exchange(ctx, body)
	if err != nil {
		return CertResponse{}, nil, err
	}
	return t.awaitDecision(ctx, answer)
}

// noteRequest notes a request before it leaves.
func (t *transaction) noteRequest(kind BodyType, nonce []byte) error {
	if !answersWithCertificate(kind) {
		return nil
	}
	t.pending.RequestNonce = nonce
	t.pending.Sent = true
	return t.save()
}

// noteWaiting notes that the answer is put off.
func (t *transaction) noteWaiting(id int64) error {
	t.pending.Waiting, t.pending.PollID = true, id
	return t.save()
}

// noteIssued notes a certificate that was checked.
func (t *transaction) noteIssued(result Result, implicit bool) error {
	p := t.pending
	p.Chain, p.Trusted, p.Unconfirmed = encoded(result.Chain), encoded(result.Trusted), !implicit
	return t.save()
}

func encoded(certificates []*x509.Certificate) [][]byte {
	ders := make([][]byte, 0, len(certificates))
	for _, c := range certificates {
		ders = append(ders, c.Raw)
	}
	return ders
}

// complete ends a transaction of which the certificate is there. It is checked once more: time has
// passed, and what is confirmed must have been checked.
func (t *transaction) complete(ctx context.Context, csr *x509.CertificateRequest) (Result, error) {
	var result Result
	var err error
	if result.Chain, err = decoded(t.pending.Chain); err != nil {
		return Result{}, err
	}
	if result.Trusted, err = decoded(t.pending.Trusted); err != nil {
		return Result{}, err
	}
	if err := t.c.checkCertificate(result.Chain[0], csr); err != nil {
		return Result{}, err
	}
	if err := t.accept(result); err != nil {
		return Result{}, err
	}
	return t.finish(ctx, result, 0)
}

func decoded(ders [][]byte) (certificates []*x509.Certificate, err error) {
	for _, der := range ders {
		certificate, err := pki.Parse(der)
		if err != nil {
			return nil, fmt.Errorf("certificate of a pending transaction: %w", err)
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

// accept asks the caller.
func (t *transaction) accept(result Result) error {
	if t.c.cfg.Accept == nil {
		return nil
	}
	return t.c.cfg.Accept(result)
}

// finish confirms the certificate of a result, unless that is done. A CA that says that it is
// confirmed already has lost nothing but its answer.
func (t *transaction) finish(ctx context.Context, result Result, id int64) (Result, error) {
	if !t.pending.Unconfirmed {
		return result, nil
	}
	err := t.confirm(ctx, CertConfirmContent{certStatus(result.Chain[0], id)})
	status, ok := errors.AsType[*StatusError](err)
	if err != nil && !(ok && status.Authenticated && status.FailInfo.Has(FailCertConfirmed)) {
		return Result{}, fmt.Errorf("confirming certificate: %w", err)
	}
	t.pending.Unconfirmed = false
	if err := t.save(); err != nil {
		return Result{}, err
	}
	return result, nil
}
