package cmp

import (
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CertRepMessage is the content of ip, cp and kup (RFC 9810, 5.3.4):
//
//	CertRepMessage ::= SEQUENCE {
//	    caPubs       [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL,
//	    response         SEQUENCE OF CertResponse }
type CertRepMessage struct {
	CAPubs   [][]byte // DER certificates
	Response []CertResponse
}

func (c *CertRepMessage) fits(t BodyType) bool { return t == BodyIP || t == BodyCP || t == BodyKUP }

func parseCertRepMessage(d *decoder) *CertRepMessage {
	d = d.sequence("CertRepMessage")
	c := &CertRepMessage{}
	if d.next(explicit(1)) {
		inner := d.open(explicit(1), "caPubs")
		c.CAPubs = parseCertificates(inner, "caPubs")
		inner.end()
	}
	c.Response = list(d.sequence("response"), 0, parseCertResponse)
	d.end()
	return c
}

func (c *CertRepMessage) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if len(c.CAPubs) > 0 {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { addSequenceOf(b, c.CAPubs) })
		}
		addList(b, c.Response, marshalCertResponse)
	})
}

// CertResponse answers one request (RFC 9810, 5.3.4):
//
//	CertResponse ::= SEQUENCE {
//	    certReqId           INTEGER,
//	    status              PKIStatusInfo,
//	    certifiedKeyPair    CertifiedKeyPair    OPTIONAL,
//	    rspInfo             OCTET STRING        OPTIONAL }
type CertResponse struct {
	CertReqID        int64
	Status           PKIStatusInfo
	CertifiedKeyPair *CertifiedKeyPair
	RspInfo          []byte
}

func parseCertResponse(d *decoder) CertResponse {
	d = d.sequence("CertResponse")
	r := CertResponse{CertReqID: d.int64("certReqId"), Status: parseStatusInfo(d)}
	if d.next(cbasn1.SEQUENCE) {
		r.CertifiedKeyPair = parseCertifiedKeyPair(d)
	}
	if d.next(cbasn1.OCTET_STRING) {
		r.RspInfo = d.octets("rspInfo")
	}
	d.end()
	return r
}

func marshalCertResponse(b *cryptobyte.Builder, r CertResponse) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(r.CertReqID)
		r.Status.marshal(b)
		if r.CertifiedKeyPair != nil {
			r.CertifiedKeyPair.marshal(b)
		}
		if r.RspInfo != nil {
			b.AddASN1OctetString(r.RspInfo)
		}
	})
}

// CertifiedKeyPair holds the certificate (RFC 9810, 5.3.4):
//
//	CertifiedKeyPair ::= SEQUENCE {
//	    certOrEncCert       CertOrEncCert,
//	    privateKey      [0] EncryptedKey        OPTIONAL,
//	    publicationInfo [1] PKIPublicationInfo  OPTIONAL }
//	CertOrEncCert ::= CHOICE {
//	    certificate     [0] CMPCertificate,
//	    encryptedCert   [1] EncryptedKey }
//
// Exactly one of Certificate and EncryptedCert is set. Encrypted values are kept as DER and never opened.
type CertifiedKeyPair struct {
	Certificate     []byte
	EncryptedCert   []byte
	PrivateKey      []byte
	PublicationInfo []byte
}

func parseCertifiedKeyPair(d *decoder) *CertifiedKeyPair {
	d = d.sequence("CertifiedKeyPair")
	p := &CertifiedKeyPair{}
	if d.next(explicit(1)) {
		p.EncryptedCert = parseExplicitAny(d, 1, "encryptedCert")
	} else {
		inner := d.open(explicit(0), "certificate")
		p.Certificate = inner.element(cbasn1.SEQUENCE, "certificate")
		inner.end()
	}
	if d.next(explicit(0)) {
		p.PrivateKey = parseExplicitAny(d, 0, "privateKey")
	}
	if d.next(explicit(1)) {
		p.PublicationInfo = parseExplicitAny(d, 1, "publicationInfo")
	}
	d.end()
	return p
}

// parseExplicitAny reads one element of any kind under the explicit tag [n].
func parseExplicitAny(d *decoder, n uint8, what string) []byte {
	inner := d.open(explicit(n), what)
	der := inner.any(what)
	inner.end()
	return der
}

func (p *CertifiedKeyPair) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOptional(b, explicit(0), p.Certificate)
		addOptional(b, explicit(1), p.EncryptedCert)
		addOptional(b, explicit(0), p.PrivateKey)
		addOptional(b, explicit(1), p.PublicationInfo)
	})
}

// CertConfirmContent is the content of certConf (RFC 9810, 5.3.18). Empty means that all certificates
// are rejected.
type CertConfirmContent []CertStatus

func (c CertConfirmContent) fits(t BodyType) bool          { return t == BodyCertConf }
func (c CertConfirmContent) marshal(b *cryptobyte.Builder) { addList(b, c, marshalCertStatus) }

// CertStatus accepts or rejects one certificate (RFC 9810, 5.3.18):
//
//	CertStatus ::= SEQUENCE {
//	    certHash    OCTET STRING,
//	    certReqId   INTEGER,
//	    statusInfo  PKIStatusInfo OPTIONAL,
//	    hashAlg [0] AlgorithmIdentifier OPTIONAL }
type CertStatus struct {
	CertHash   []byte
	CertReqID  int64
	StatusInfo *PKIStatusInfo       // nil: accepted
	HashAlg    *AlgorithmIdentifier // nil: the hash of the certificate's signature; needs PVNO3
}

func parseCertStatus(d *decoder) CertStatus {
	d = d.sequence("CertStatus")
	c := CertStatus{CertHash: d.octets("certHash"), CertReqID: d.int64("certReqId")}
	if d.next(cbasn1.SEQUENCE) {
		info := parseStatusInfo(d)
		c.StatusInfo = &info
	}
	if d.next(explicit(0)) {
		inner := d.open(explicit(0), "hashAlg")
		algorithm := parseAlgorithm(inner, "hashAlg")
		c.HashAlg = &algorithm
		inner.end()
	}
	d.end()
	return c
}

func marshalCertStatus(b *cryptobyte.Builder, c CertStatus) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(c.CertHash)
		b.AddASN1Int64(c.CertReqID)
		if c.StatusInfo != nil {
			c.StatusInfo.marshal(b)
		}
		if c.HashAlg != nil {
			b.AddASN1(explicit(0), c.HashAlg.marshal)
		}
	})
}
