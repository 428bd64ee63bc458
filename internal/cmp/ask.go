package cmp

import (
	"context"
	"crypto/x509"
	"time"
)

// Information is what a CA says when it is asked for its certificates, and what vouches for it.
type Information struct {
	CACerts []*x509.Certificate // nil: it named none
	Time    time.Time           // messageTime of the answer; zero: there is none

	MAC    bool              // the shared secret vouches for the answer
	Signer *x509.Certificate // whose signature vouches for it; nil: none does
	Doubt  error             // why nothing vouches for a refusal; nil: something does, or it is none
	// OnlyONAP is why Signer is trusted by ResponseTrustONAP only; nil: it is trusted anyway.
	OnlyONAP error
}

// Ask asks for the CA's certificates (genm with id-it-caCerts, RFC 9483, 4.3.1), which costs none.
// An answer without them is a good one: the CA speaks CMP and accepts our protection. Where the
// error is a *StatusError or a *CheckError, there is an answer, of which Information has the rest.
func (c *Client) Ask(ctx context.Context) (Information, error) {
	t := c.begin(nil, nil).about(ctx)
	defer t.end()
	answer, err := t.exchange(ctx, PKIBody{BodyGenM, GeneralContent{{Type: OIDCACerts}}})
	info := Information{Time: t.saidTime, MAC: t.macVerified, Signer: t.peer, Doubt: t.refusalDoubt,
		OnlyONAP: t.peerDoubt}
	if err != nil {
		return info, err
	}
	value, ok := answer.Body.Content.(GeneralContent).Value(OIDCACerts)
	if !ok || len(value) == 0 {
		return info, nil
	}
	var ders [][]byte
	if err := decode(value, "CaCertsValue", func(c codec) { certificates(c, "CaCertsValue", &ders) }); err != nil {
		return info, &CheckError{Check: "caCerts", Got: err.Error(), Want: "a list of certificates"}
	}
	if available := c.known.available(ders); len(available) > 0 {
		info.CACerts = available
	}
	return info, nil
}
