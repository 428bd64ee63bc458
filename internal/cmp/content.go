package cmp

import (
	"crypto/x509/pkix"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrorMsgContent is the content of error (RFC 9810, 5.3.21):
//
//	ErrorMsgContent ::= SEQUENCE {
//	    pKIStatusInfo          PKIStatusInfo,
//	    errorCode              INTEGER           OPTIONAL,
//	    errorDetails           PKIFreeText       OPTIONAL }
type ErrorMsgContent struct {
	StatusInfo   PKIStatusInfo
	ErrorCode    *big.Int
	ErrorDetails PKIFreeText
}

func (c *ErrorMsgContent) fits(t BodyType) bool { return t == BodyError }

func parseErrorMsgContent(d *decoder) *ErrorMsgContent {
	d = d.sequence("ErrorMsgContent")
	c := &ErrorMsgContent{StatusInfo: parseStatusInfo(d)}
	if d.next(cbasn1.INTEGER) {
		c.ErrorCode = d.bigInt(cbasn1.INTEGER, "errorCode")
	}
	if d.next(cbasn1.SEQUENCE) {
		c.ErrorDetails = parseFreeText(d, "errorDetails")
	}
	d.end()
	return c
}

func (c *ErrorMsgContent) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		c.StatusInfo.marshal(b)
		if c.ErrorCode != nil {
			b.AddASN1BigInt(c.ErrorCode)
		}
		if len(c.ErrorDetails) > 0 {
			c.ErrorDetails.marshal(b)
		}
	})
}

// PollReqContent is the content of pollReq: the certReqIds asked about, -1 for a message that is no
// certificate response (RFC 9810, 5.3.22).
type PollReqContent []int64

func (c PollReqContent) fits(t BodyType) bool { return t == BodyPollReq }

func parsePollReqContent(d *decoder) PollReqContent {
	return list(d.sequence("PollReqContent"), 1, func(d *decoder) int64 {
		d = d.sequence("certReqId")
		id := d.int64("certReqId")
		d.end()
		return id
	})
}

func (c PollReqContent) marshal(b *cryptobyte.Builder) {
	addList(b, c, func(b *cryptobyte.Builder, id int64) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(id) })
	})
}

// PollRepContent is the content of pollRep (RFC 9810, 5.3.22).
type PollRepContent []PollRep

func (c PollRepContent) fits(t BodyType) bool          { return t == BodyPollRep }
func (c PollRepContent) marshal(b *cryptobyte.Builder) { addList(b, c, marshalPollRep) }

// PollRep says when to ask again:
//
//	SEQUENCE { certReqId INTEGER, checkAfter INTEGER, reason PKIFreeText OPTIONAL }
type PollRep struct {
	CertReqID  int64
	CheckAfter int64 // seconds
	Reason     PKIFreeText
}

func parsePollRep(d *decoder) PollRep {
	d = d.sequence("PollRep")
	p := PollRep{CertReqID: d.int64("certReqId"), CheckAfter: d.int64("checkAfter")}
	if d.next(cbasn1.SEQUENCE) {
		p.Reason = parseFreeText(d, "reason")
	}
	d.end()
	return p
}

func marshalPollRep(b *cryptobyte.Builder, p PollRep) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(p.CertReqID)
		b.AddASN1Int64(p.CheckAfter)
		if len(p.Reason) > 0 {
			p.Reason.marshal(b)
		}
	})
}

// RevReqContent is the content of rr (RFC 9810, 5.3.9).
type RevReqContent []RevDetails

func (c RevReqContent) fits(t BodyType) bool          { return t == BodyRR }
func (c RevReqContent) marshal(b *cryptobyte.Builder) { addList(b, c, marshalRevDetails) }

// RevDetails names a certificate to revoke:
//
//	RevDetails ::= SEQUENCE { certDetails CertTemplate, crlEntryDetails Extensions OPTIONAL }
type RevDetails struct {
	CertDetails     CertTemplate // issuer and serialNumber
	CRLEntryDetails []pkix.Extension
}

func parseRevReqContent(d *decoder) RevReqContent {
	return list(d.sequence("RevReqContent"), 1, func(d *decoder) RevDetails {
		d = d.sequence("RevDetails")
		details := RevDetails{CertDetails: parseCertTemplate(d)}
		if d.next(cbasn1.SEQUENCE) {
			details.CRLEntryDetails = parseExtensions(d, cbasn1.SEQUENCE)
		}
		d.end()
		return details
	})
}

func marshalRevDetails(b *cryptobyte.Builder, details RevDetails) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		details.CertDetails.marshal(b)
		if len(details.CRLEntryDetails) > 0 {
			marshalExtensions(b, cbasn1.SEQUENCE, details.CRLEntryDetails)
		}
	})
}

// RevRepContent is the content of rp (RFC 9810, 5.3.10):
//
//	RevRepContent ::= SEQUENCE {
//	    status       SEQUENCE SIZE (1..MAX) OF PKIStatusInfo,
//	    revCerts [0] SEQUENCE SIZE (1..MAX) OF CertId OPTIONAL,
//	    crls     [1] SEQUENCE SIZE (1..MAX) OF CertificateList OPTIONAL }
type RevRepContent struct {
	Status   []PKIStatusInfo
	RevCerts []CertID
	CRLs     [][]byte // DER
}

func (c *RevRepContent) fits(t BodyType) bool { return t == BodyRP }

func parseRevRepContent(d *decoder) *RevRepContent {
	d = d.sequence("RevRepContent")
	c := &RevRepContent{Status: list(d.sequence("status"), 1, parseStatusInfo)}
	if d.next(explicit(0)) {
		inner := d.open(explicit(0), "revCerts")
		c.RevCerts = list(inner.sequence("revCerts"), 1, parseCertID)
		inner.end()
	}
	if d.next(explicit(1)) {
		inner := d.open(explicit(1), "crls")
		c.CRLs = parseCertificates(inner, "crls")
		inner.end()
	}
	d.end()
	return c
}

func (c *RevRepContent) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addList(b, c.Status, func(b *cryptobyte.Builder, info PKIStatusInfo) { info.marshal(b) })
		if len(c.RevCerts) > 0 {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { addList(b, c.RevCerts, marshalCertID) })
		}
		if len(c.CRLs) > 0 {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { addSequenceOf(b, c.CRLs) })
		}
	})
}
