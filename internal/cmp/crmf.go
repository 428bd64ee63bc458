package cmp

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CertReqMessages is the content of ir, cr and kur (RFC 4211, 3).
type CertReqMessages []CertReqMsg

func (c CertReqMessages) fits(t BodyType) bool { return t == BodyIR || t == BodyCR || t == BodyKUR }
func (c CertReqMessages) marshal(b *cryptobyte.Builder) {
	addList(b, c, func(b *cryptobyte.Builder, m CertReqMsg) { m.marshal(b) })
}

func parseCertReqMessages(d *decoder) CertReqMessages {
	return list(d.sequence("CertReqMessages"), 1, parseCertReqMsg)
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
}

func parseCertReqMsg(d *decoder) CertReqMsg {
	d = d.sequence("CertReqMsg")
	m := CertReqMsg{RawCertReq: d.element(cbasn1.SEQUENCE, "certReq")}
	inner := &decoder{s: m.RawCertReq, what: "certReq", fault: d.fault}
	m.CertReq = parseCertRequest(inner)
	if d.more() && !d.next(cbasn1.SEQUENCE) {
		m.POPO = parsePOPO(d)
	}
	if d.next(cbasn1.SEQUENCE) {
		m.RegInfo = list(d.sequence("regInfo"), 1, parseAttribute)
	}
	d.end()
	return m
}

func (m *CertReqMsg) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		m.CertReq.marshal(b)
		if m.POPO != nil {
			m.POPO.marshal(b)
		}
		if len(m.RegInfo) > 0 {
			addList(b, m.RegInfo, marshalAttribute)
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

func parseCertRequest(d *decoder) CertRequest {
	d = d.sequence("CertRequest")
	r := CertRequest{CertReqID: d.int64("certReqId"), CertTemplate: parseCertTemplate(d)}
	if d.next(cbasn1.SEQUENCE) {
		r.Controls = list(d.sequence("controls"), 1, parseAttribute)
	}
	d.end()
	return r
}

func (r *CertRequest) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(r.CertReqID)
		r.CertTemplate.marshal(b)
		if len(r.Controls) > 0 {
			addList(b, r.Controls, marshalAttribute)
		}
	})
}

// CertTemplate is a certificate with all fields optional (RFC 4211, 5), implicitly tagged but for the
// names, which are CHOICEs.
type CertTemplate struct {
	Version      *int64
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

func parseCertTemplate(d *decoder) CertTemplate {
	d = d.sequence("CertTemplate")
	t := CertTemplate{}
	if d.next(implicit(0)) {
		version := d.bigInt(implicit(0), "version")
		if version != nil && version.IsInt64() {
			n := version.Int64()
			t.Version = &n
		} else {
			d.fail("version is not an INTEGER of 64 bits")
		}
	}
	if d.next(implicit(1)) {
		t.SerialNumber = d.bigInt(implicit(1), "serialNumber")
	}
	if d.next(explicit(2)) {
		algorithm := parseAlgorithmTagged(d, explicit(2), "signingAlg")
		t.SigningAlg = &algorithm
	}
	if d.next(explicit(3)) {
		t.Issuer = parseTemplateName(d, 3, "issuer")
	}
	if d.next(explicit(4)) {
		inner := d.open(explicit(4), "validity")
		t.Validity = &OptionalValidity{}
		if inner.next(explicit(0)) {
			t.Validity.NotBefore = parseExplicitAny(inner, 0, "notBefore")
		}
		if inner.next(explicit(1)) {
			t.Validity.NotAfter = parseExplicitAny(inner, 1, "notAfter")
		}
		inner.end()
	}
	if d.next(explicit(5)) {
		t.Subject = parseTemplateName(d, 5, "subject")
	}
	if d.next(explicit(6)) {
		t.PublicKey = wrap(cbasn1.SEQUENCE, d.contents(explicit(6), "publicKey"))
	}
	if d.next(implicit(7)) {
		t.IssuerUID = d.contents(implicit(7), "issuerUID")
	}
	if d.next(implicit(8)) {
		t.SubjectUID = d.contents(implicit(8), "subjectUID")
	}
	if d.next(explicit(9)) {
		t.Extensions = parseExtensions(d, explicit(9))
	}
	d.end()
	return t
}

func parseTemplateName(d *decoder, n uint8, what string) []byte {
	inner := d.open(explicit(n), what)
	name := inner.element(cbasn1.SEQUENCE, what)
	inner.end()
	return name
}

func (t *CertTemplate) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if t.Version != nil {
			b.AddASN1Int64WithTag(*t.Version, implicit(0))
		}
		if t.SerialNumber != nil {
			addBigInt(b, implicit(1), t.SerialNumber)
		}
		if t.SigningAlg != nil {
			t.SigningAlg.marshalTagged(b, explicit(2))
		}
		addOptional(b, explicit(3), t.Issuer)
		if t.Validity != nil {
			b.AddASN1(explicit(4), func(b *cryptobyte.Builder) {
				addOptional(b, explicit(0), t.Validity.NotBefore)
				addOptional(b, explicit(1), t.Validity.NotAfter)
			})
		}
		addOptional(b, explicit(5), t.Subject)
		if t.PublicKey != nil {
			spki := cryptobyte.String(t.PublicKey)
			var contents cryptobyte.String
			if !spki.ReadASN1(&contents, cbasn1.SEQUENCE) || !spki.Empty() {
				b.SetError(errors.New("public key in CertTemplate is not a SubjectPublicKeyInfo"))
			}
			addOptional(b, explicit(6), contents)
		}
		addOptional(b, implicit(7), t.IssuerUID)
		addOptional(b, implicit(8), t.SubjectUID)
		if len(t.Extensions) > 0 {
			marshalExtensions(b, explicit(9), t.Extensions)
		}
	})
}

// parseExtensions reads Extensions (RFC 5280, 4.1) under a tag of its own.
func parseExtensions(d *decoder, tag cbasn1.Tag) []pkix.Extension {
	return list(d.open(tag, "extensions"), 1, func(d *decoder) pkix.Extension {
		d = d.sequence("Extension")
		e := pkix.Extension{Id: d.oid("extnID")}
		if d.next(cbasn1.BOOLEAN) {
			if !d.s.ReadASN1Boolean(&e.Critical) || !e.Critical {
				d.fail("critical is not TRUE, and FALSE is the default that DER leaves out")
			}
		}
		e.Value = d.octets("extnValue")
		d.end()
		return e
	})
}

func marshalExtensions(b *cryptobyte.Builder, tag cbasn1.Tag, extensions []pkix.Extension) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		for _, e := range extensions {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(e.Id)
				if e.Critical {
					b.AddASN1Boolean(true)
				}
				b.AddASN1OctetString(e.Value)
			})
		}
	})
}

// AttributeTypeAndValue is a control or registration info (RFC 4211, 3).
type AttributeTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value []byte // one DER element
}

func parseAttribute(d *decoder) AttributeTypeAndValue {
	d = d.sequence("AttributeTypeAndValue")
	a := AttributeTypeAndValue{Type: d.oid("type"), Value: d.any("value")}
	d.end()
	return a
}

func marshalAttribute(b *cryptobyte.Builder, a AttributeTypeAndValue) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.Type)
		b.AddBytes(a.Value)
	})
}

// CertID names a certificate by issuer and serial number (RFC 4211, 6.5):
//
//	CertId ::= SEQUENCE { issuer GeneralName, serialNumber INTEGER }
type CertID struct {
	Issuer       GeneralName
	SerialNumber *big.Int
}

func parseCertID(d *decoder) CertID {
	d = d.sequence("CertId")
	id := CertID{Issuer: parseGeneralName(d, "issuer"), SerialNumber: d.bigInt(cbasn1.INTEGER, "serialNumber")}
	d.end()
	return id
}

func marshalCertID(b *cryptobyte.Builder, id CertID) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		id.Issuer.marshal(b)
		b.AddASN1BigInt(id.SerialNumber)
	})
}

// oidOldCertID is id-regCtrl-oldCertID (RFC 4211, 6.5).
var oidOldCertID = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 5}

// OldCertID returns the certificate that a key update is for (RFC 4211, 6.5), or nil when the control is
// absent.
func (r *CertRequest) OldCertID() (*CertID, error) {
	for _, control := range r.Controls {
		if control.Type.Equal(oidOldCertID) {
			d := newDecoder(control.Value, "decoding oldCertID")
			id := parseCertID(d)
			if err := d.end(); err != nil {
				return nil, err
			}
			return &id, nil
		}
	}
	return nil, nil
}

// AddOldCertID adds the control that names the certificate a key update is for.
func (r *CertRequest) AddOldCertID(id CertID) error {
	value, err := encode(func(b *cryptobyte.Builder) { marshalCertID(b, id) })
	if err != nil {
		return fmt.Errorf("encoding oldCertID: %w", err)
	}
	r.Controls = append(r.Controls, AttributeTypeAndValue{Type: oidOldCertID, Value: value})
	return nil
}
