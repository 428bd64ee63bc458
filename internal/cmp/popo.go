package cmp

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// ProofOfPossession proves that the requester has the private key (RFC 4211, 4):
//
//	ProofOfPossession ::= CHOICE {
//	    raVerified      [0] NULL,
//	    signature       [1] POPOSigningKey,
//	    keyEncipherment [2] POPOPrivKey,
//	    keyAgreement    [3] POPOPrivKey }
//
// Exactly one field is set.
type ProofOfPossession struct {
	RAVerified bool
	Signature  *POPOSigningKey
	Other      []byte // DER element of the other choices, not interpreted
}

// POPOSigningKey is a proof by signature (RFC 4211, 4.1):
//
//	POPOSigningKey ::= SEQUENCE {
//	    poposkInput     [0] POPOSigningKeyInput OPTIONAL,
//	    algorithmIdentifier AlgorithmIdentifier,
//	    signature           BIT STRING }
type POPOSigningKey struct {
	POPOSKInput []byte // contents of the implicitly tagged SEQUENCE
	Algorithm   AlgorithmIdentifier
	Signature   []byte
}

func parsePOPO(d *decoder) *ProofOfPossession {
	switch {
	case d.next(implicit(0)):
		d.open(implicit(0), "raVerified").end()
		return &ProofOfPossession{RAVerified: true}
	case d.next(explicit(1)):
		d = d.open(explicit(1), "POPOSigningKey")
		p := &POPOSigningKey{}
		if d.next(explicit(0)) {
			p.POPOSKInput = d.contents(explicit(0), "poposkInput")
		}
		p.Algorithm = parseAlgorithm(d, "algorithmIdentifier")
		p.Signature = d.bits("signature")
		d.end()
		return &ProofOfPossession{Signature: p}
	case d.next(explicit(2)):
		return &ProofOfPossession{Other: d.element(explicit(2), "keyEncipherment")}
	default:
		return &ProofOfPossession{Other: d.element(explicit(3), "popo")}
	}
}

func (p *ProofOfPossession) marshal(b *cryptobyte.Builder) {
	switch {
	case p.RAVerified:
		b.AddASN1(implicit(0), func(*cryptobyte.Builder) {})
	case p.Signature != nil:
		b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
			addOptional(b, explicit(0), p.Signature.POPOSKInput)
			p.Signature.Algorithm.marshal(b)
			b.AddASN1BitString(p.Signature.Signature)
		})
	default:
		b.AddBytes(p.Other)
	}
}

// SignPOPO proves possession of the key by signing the CertRequest (RFC 4211, 4.1). The template must
// already name subject and public key.
func (m *CertReqMsg) SignPOPO(key crypto.Signer) error {
	der, err := encode(m.CertReq.marshal)
	if err != nil {
		return fmt.Errorf("encoding CertRequest: %w", err)
	}
	algorithm, signature, err := sign(key, der)
	if err != nil {
		return fmt.Errorf("signing proof of possession: %w", err)
	}
	m.RawCertReq = der
	m.POPO = &ProofOfPossession{Signature: &POPOSigningKey{Algorithm: algorithm, Signature: signature}}
	return nil
}

// VerifyPOPO checks the proof of possession of a parsed request: a signature over the CertRequest with
// the key in its template. It refuses every other kind of proof; whether raVerified is believed is for
// the caller to decide beforehand.
func (m *CertReqMsg) VerifyPOPO() error {
	if m.POPO == nil || m.POPO.Signature == nil {
		return errors.New("proof of possession is not a signature")
	}
	if m.POPO.Signature.POPOSKInput != nil {
		return errors.New("proof of possession has a poposkInput, want a signature over the request")
	}
	public, err := m.CertReq.CertTemplate.Key()
	if err != nil {
		return err
	}
	if err := verifySignature(public, m.POPO.Signature.Algorithm, m.RawCertReq, m.POPO.Signature.Signature); err != nil {
		return fmt.Errorf("verifying proof of possession: %w", err)
	}
	return nil
}

// Key returns the public key in the template.
func (t *CertTemplate) Key() (crypto.PublicKey, error) {
	if t.PublicKey == nil {
		return nil, errors.New("template has no public key")
	}
	public, err := x509.ParsePKIXPublicKey(t.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("reading public key of the template: %w", err)
	}
	return public, nil
}

// SetKey puts a public key into the template.
func (t *CertTemplate) SetKey(public crypto.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encoding public key: %w", err)
	}
	t.PublicKey = der
	return nil
}
