package cmp

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CertReqMessages is the content of ir, cr and kur (RFC 4211, 3).
type CertReqMessages []CertReqMsg

func (content *CertReqMessages) code(c codec) {
	list(c, "CertReqMessages", 1, (*[]CertReqMsg)(content), (*CertReqMsg).code)
}

// CertReqMsg is one certificate request (RFC 4211, 3):
//
//	CertReqMsg ::= SEQUENCE {
//	    certReq   CertRequest,
//	    popo      ProofOfPossession  OPTIONAL,
//	    regInfo   SEQUENCE SIZE (1..MAX) OF AttributeTypeAndValue OPTIONAL }
type CertReqMsg struct {
	CertReq CertRequest
	POPO    *ProofOfPossession
	RegInfo []AttributeTypeAndValue

	// RawCertReq is the DER of certReq, which the proof of possession is over; set by parsing.
	RawCertReq []byte

	signed []byte // the DER of certReq that SignPOPO has signed, which is written; nil: by the fields
}

func (m *CertReqMsg) code(c codec) {
	c.sequence("CertReqMsg", func(c codec) {
		request := c
		if c.in != nil {
			m.RawCertReq = c.in.element(cbasn1.SEQUENCE, "certReq")
			request.in = c.in.inner(m.RawCertReq, "certReq")
		}
		if c.out != nil && m.signed != nil {
			c.out.AddBytes(m.signed)
		} else {
			m.CertReq.code(request)
		}
		if c.out != nil && m.POPO != nil || c.in != nil && c.in.more() && !c.in.next(cbasn1.SEQUENCE) {
			if c.in != nil {
				m.POPO = &ProofOfPossession{}
			}
			m.POPO.code(c)
		}
		if c.has(cbasn1.SEQUENCE, len(m.RegInfo) > 0) {
			list(c, "regInfo", 1, &m.RegInfo, (*AttributeTypeAndValue).code)
		}
	})
}

// CertRequest is what is asked for (RFC 4211, 5):
//
//	CertRequest ::= SEQUENCE {
//	    certReqId     INTEGER,
//	    certTemplate  CertTemplate,
//	    controls      Controls OPTIONAL }
type CertRequest struct {
	CertReqID    int64
	CertTemplate CertTemplate
	Controls     []AttributeTypeAndValue
}

func (r *CertRequest) code(c codec) {
	c.sequence("CertRequest", func(c codec) {
		integer(c, "certReqId", &r.CertReqID)
		r.CertTemplate.code(c)
		if c.has(cbasn1.SEQUENCE, len(r.Controls) > 0) {
			list(c, "controls", 1, &r.Controls, (*AttributeTypeAndValue).code)
		}
	})
}

// CertTemplate is a certificate with all fields optional (RFC 4211, 5), implicitly tagged but for
// the names, which are CHOICEs.
type CertTemplate struct {
	Version      *big.Int
	SerialNumber *big.Int
	SigningAlg   *AlgorithmIdentifier
	Issuer       []byte // DER Name
	Validity     *OptionalValidity
	Subject      []byte // DER Name
	PublicKey    []byte // DER SubjectPublicKeyInfo
	IssuerUID    []byte // contents of the BIT STRING
	SubjectUID   []byte // contents of the BIT STRING
	Extensions   []pkix.Extension
}

// OptionalValidity holds the DER of two optional Time values (RFC 4211, 5).
type OptionalValidity struct {
	NotBefore, NotAfter []byte
}

func (t *CertTemplate) code(c codec) {
	c.sequence("CertTemplate", func(c codec) {
		if c.has(implicit(0), t.Version != nil) {
			c.bigInt(implicit(0), "version", &t.Version)
		}
		if c.has(implicit(1), t.SerialNumber != nil) {
			c.bigInt(implicit(1), "serialNumber", &t.SerialNumber)
		}
		optional(c, explicit(2), &t.SigningAlg, func(a *AlgorithmIdentifier, c codec) {
			a.codeTagged(c, explicit(2), "signingAlg")
		})
		c.explicitSequence(3, "issuer", &t.Issuer)
		optional(c, explicit(4), &t.Validity, (*OptionalValidity).code)
		c.explicitSequence(5, "subject", &t.Subject)
		c.codeRetagged(explicit(6), "public key in CertTemplate", &t.PublicKey)
		c.contents(implicit(7), "issuerUID", &t.IssuerUID)
		c.contents(implicit(8), "subjectUID", &t.SubjectUID)
		if c.has(explicit(9), len(t.Extensions) > 0) {
			codeExtensions(c, explicit(9), &t.Extensions)
		}
	})
}

func (v *OptionalValidity) code(c codec) {
	c.codeTag(explicit(4), "validity", func(c codec) {
		c.explicitAny(0, "notBefore", &v.NotBefore)
		c.explicitAny(1, "notAfter", &v.NotAfter)
	})
}

// codeExtensions goes through Extensions (RFC 5280, 4.1) under a tag of its own.
func codeExtensions(c codec, tag cbasn1.Tag, extensions *[]pkix.Extension) {
	listTagged(c, tag, "extensions", 1, extensions, func(e *pkix.Extension, c codec) {
		c.sequence("Extension", func(c codec) {
			c.oid("extnID", &e.Id)
			if c.has(cbasn1.BOOLEAN, e.Critical) {
				if c.out != nil {
					c.out.AddASN1Boolean(true)
				} else if !c.in.s.ReadASN1Boolean(&e.Critical) || !e.Critical {
					c.in.fail("critical is not TRUE, and FALSE is the default that DER leaves out")
				}
			}
			c.octets("extnValue", &e.Value)
		})
	})
}

// AttributeTypeAndValue is a control or registration info (RFC 4211, 3).
type AttributeTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value []byte // one DER element
}

func (a *AttributeTypeAndValue) code(c codec) {
	c.sequence("AttributeTypeAndValue", func(c codec) {
		c.oid("type", &a.Type)
		c.any("value", &a.Value)
	})
}

// CertID names a certificate by issuer and serial number (RFC 4211, 6.5):
//
//	CertId ::= SEQUENCE { issuer GeneralName, serialNumber INTEGER }
type CertID struct {
	Issuer       GeneralName
	SerialNumber *big.Int
}

func (id *CertID) code(c codec) {
	c.sequence("CertId", func(c codec) {
		id.Issuer.code(c, "issuer")
		c.bigInt(cbasn1.INTEGER, "serialNumber", &id.SerialNumber)
	})
}

// oidOldCertID is id-regCtrl-oldCertID (RFC 4211, 6.5).
var oidOldCertID = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 5}

// OldCertID returns the certificate that a key update is for
// (RFC 4211, 6.5), or nil when the control is absent.
func (r *CertRequest) OldCertID() (*CertID, error) {
	for _, control := range r.Controls {
		if control.Type.Equal(oidOldCertID) {
			id := &CertID{}
			if err := decode(control.Value, "decoding oldCertID", id.code); err != nil {
				return nil, err
			}
			return id, nil
		}
	}
	return nil, nil
}

// AddOldCertID adds the control that names the certificate a key update is for.
func (r *CertRequest) AddOldCertID(id CertID) error {
	value, err := encode(id.code)
	if err != nil {
		return fmt.Errorf("encoding oldCertID: %w", err)
	}
	r.Controls = append(r.Controls, AttributeTypeAndValue{Type: oidOldCertID, Value: value})
	return nil
}

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

func (p *ProofOfPossession) code(c codec) {
	switch {
	case c.has(implicit(0), p.RAVerified):
		c.codeTag(implicit(0), "raVerified", func(codec) {})
		p.RAVerified = true
	case c.has(explicit(1), p.Signature != nil):
		optional(c, explicit(1), &p.Signature, (*POPOSigningKey).code)
	case c.in != nil && c.in.next(explicit(2)):
		c.element(explicit(2), "keyEncipherment", &p.Other)
	default:
		c.element(explicit(3), "popo", &p.Other)
	}
}

func (p *POPOSigningKey) code(c codec) {
	c.codeTag(explicit(1), "POPOSigningKey", func(c codec) {
		c.contents(explicit(0), "poposkInput", &p.POPOSKInput)
		p.Algorithm.code(c, "algorithmIdentifier")
		c.bits("signature", &p.Signature)
	})
}

// SignPOPO proves possession of the key by signing the CertRequest (RFC 4211, 4.1). The template
// must already name subject and public key, and CertReq must not change afterwards.
func (m *CertReqMsg) SignPOPO(key crypto.Signer) error {
	der, err := encodeWithin(messageSize, m.CertReq.code)
	if err != nil {
		return fmt.Errorf("encoding CertRequest: %w", err)
	}
	algorithm, signature, err := sign(key, der)
	if err != nil {
		return fmt.Errorf("signing proof of possession: %w", err)
	}
	m.RawCertReq, m.signed = der, der
	m.POPO = &ProofOfPossession{Signature: &POPOSigningKey{Algorithm: algorithm, Signature: signature}}
	return nil
}

// VerifyPOPO checks the proof of possession of a parsed request: a signature over the CertRequest
// with the key in its template. It refuses every other kind of proof; whether raVerified is
// believed is for the caller to decide beforehand.
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
	if err := verifySignature(public, m.POPO.Signature.Algorithm, m.RawCertReq,
		m.POPO.Signature.Signature); err != nil {
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
