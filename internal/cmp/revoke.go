package cmp

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// RevocationReason is a CRLReason (RFC 5280, 5.3.1).
type RevocationReason int

// The reasons that a certificate's holder gives.
const (
	ReasonUnspecified          RevocationReason = 0
	ReasonKeyCompromise        RevocationReason = 1
	ReasonAffiliationChanged   RevocationReason = 3
	ReasonSuperseded           RevocationReason = 4
	ReasonCessationOfOperation RevocationReason = 5
)

// maxReason is the last CRLReason.
const maxReason = 10

// Revoke sends a revocation request, rr (RFC 9483, 4.2). With a signer the request is signed by it, which
// for a CA that knows its holders by certificate must be the certificate to be revoked; nil means the
// client's configured protection.
func (c *Client) Revoke(ctx context.Context, certificate *x509.Certificate, reason RevocationReason, signer *Signer) error {
	if reason < 0 || reason > maxReason {
		return fmt.Errorf("revocation reason is %d, want 0 to %d", reason, maxReason)
	}
	if signer != nil {
		if err := signer.check(); err != nil {
			return err
		}
	}
	details := RevDetails{
		CertDetails:     CertTemplate{SerialNumber: certificate.SerialNumber, Issuer: certificate.RawIssuer},
		CRLEntryDetails: []pkix.Extension{{Id: oidReasonCode, Value: []byte{10, 1, byte(reason)}}},
	}
	t := c.begin(certificate.RawSubject, signer, certificate.PublicKey)
	defer t.end()
	answer, err := t.exchange(ctx, PKIBody{BodyRR, RevReqContent{details}})
	if err != nil {
		return err
	}
	return checkRevoked(answer.Body.Content.(*RevRepContent))
}

// oidReasonCode is id-ce-cRLReasons (RFC 5280, 5.3.1).
var oidReasonCode = asn1.ObjectIdentifier{2, 5, 29, 21}

// checkRevoked: one request, one status, and it says that the certificate is revoked (RFC 9483, 4.2).
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
