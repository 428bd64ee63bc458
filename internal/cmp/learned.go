package cmp

import (
	"crypto/x509"
	"errors"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// ErrNoAnchors is wrapped by the error for an answer that is signed although nothing was configured that could
// verify a signature.
var ErrNoAnchors = errors.New("no trust anchors are configured for signed answers")

// vouchedRoots returns the self-signed CA certificates in caPubs of an answer whose MAC was verified: the CA, and not
// whoever is on the way to it, says that they are roots (RFC 9810, 5.3.2 and 8.9). It is nil for any other answer.
// extraCerts never count: no one vouches for them (RFC 9810, 5.1).
func (t *transaction) vouchedRoots(answer *PKIMessage) []*x509.Certificate {
	if !t.macVerified {
		return nil
	}
	caPubs := authorities(parseAvailable(answer.Body.Content.(*CertRepMessage).CAPubs))
	return slices.DeleteFunc(caPubs, func(c *x509.Certificate) bool { return !pki.SelfSigned(c) })
}

// inTransaction marks the failure of an exchange that was not the first of its transaction: the CA may have issued
// a certificate by then, so that sending the request again is not the same as sending it for the first time.
func (t *transaction) inTransaction(err error) error {
	var transport *TransportError
	if t.peerNonce != nil && errors.As(err, &transport) {
		transport.Answered = true
	}
	return err
}
