package cmp

import (
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// BodyType is the kind of a PKIBody, which is also its context tag (RFC 9810, 5.1.2).
type BodyType uint8

// The kinds of PKIBody that are interpreted here.
const (
	BodyIR       BodyType = 0  // initialization request
	BodyIP       BodyType = 1  // initialization response
	BodyCR       BodyType = 2  // certification request
	BodyCP       BodyType = 3  // certification response
	BodyP10CR    BodyType = 4  // PKCS#10 certification request
	BodyKUR      BodyType = 7  // key update request
	BodyKUP      BodyType = 8  // key update response
	BodyRR       BodyType = 11 // revocation request
	BodyRP       BodyType = 12 // revocation response
	BodyPKIConf  BodyType = 19 // confirmation
	BodyGenM     BodyType = 21 // general message
	BodyGenP     BodyType = 22 // general response
	BodyError    BodyType = 23 // error message
	BodyCertConf BodyType = 24 // certificate confirm
	BodyPollReq  BodyType = 25 // polling request
	BodyPollRep  BodyType = 26 // polling response
)

// maxBodyType is the last of the CHOICE.
const maxBodyType = BodyPollRep

var bodyNames = strings.Fields("ir ip cr cp p10cr popdecc popdecr kur kup krr krp rr rp ccr ccp ckuann cann rann " +
	"crlann pkiconf nested genm genp error certConf pollReq pollRep")

func (t BodyType) String() string {
	if t > maxBodyType {
		return fmt.Sprintf("body %d", uint8(t))
	}
	return bodyNames[t]
}

// PKIBody is the CHOICE of what a message says (RFC 9810, 5.1.2). The dynamic type of Content follows
// from Type:
//
//	ir, cr, kur  CertReqMessages       ip, cp, kup  *CertRepMessage
//	p10cr        CertificationRequest  pkiconf      PKIConfirmContent
//	rr           RevReqContent         rp           *RevRepContent
//	genm, genp   GeneralContent        error        *ErrorMsgContent
//	certConf     CertConfirmContent    pollReq      PollReqContent
//	pollRep      PollRepContent        all others   RawContent
type PKIBody struct {
	Type    BodyType
	Content BodyContent
}

// BodyContent is one of the content types named at PKIBody.
type BodyContent interface {
	marshal(b *cryptobyte.Builder)
	fits(t BodyType) bool
}

func (body *PKIBody) parse(der []byte) error {
	s := cryptobyte.String(der)
	var contents cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadAnyASN1(&contents, &tag) || !s.Empty() || tag < explicit(0) || tag > explicit(uint8(maxBodyType)) {
		return fmt.Errorf("body is of no known kind")
	}
	body.Type = BodyType(tag - explicit(0))
	d := newDecoder(contents, body.Type.String()+" body")
	switch body.Type {
	case BodyIR, BodyCR, BodyKUR:
		body.Content = parseCertReqMessages(d)
	case BodyIP, BodyCP, BodyKUP:
		body.Content = parseCertRepMessage(d)
	case BodyP10CR:
		body.Content = CertificationRequest(d.element(cbasn1.SEQUENCE, "CertificationRequest"))
	case BodyRR:
		body.Content = parseRevReqContent(d)
	case BodyRP:
		body.Content = parseRevRepContent(d)
	case BodyPKIConf:
		body.Content = PKIConfirmContent{}
		d.open(cbasn1.NULL, "PKIConfirmContent").end()
	case BodyGenM, BodyGenP:
		body.Content = GeneralContent(list(d.sequence("GenMsgContent"), 0, parseInfoTypeAndValue))
	case BodyError:
		body.Content = parseErrorMsgContent(d)
	case BodyCertConf:
		body.Content = CertConfirmContent(list(d.sequence("CertConfirmContent"), 0, parseCertStatus))
	case BodyPollReq:
		body.Content = parsePollReqContent(d)
	case BodyPollRep:
		body.Content = PollRepContent(list(d.sequence("PollRepContent"), 1, parsePollRep))
	default:
		body.Content = RawContent(d.any("content"))
	}
	return d.end()
}

func (body *PKIBody) marshal(b *cryptobyte.Builder) {
	if body.Content == nil || body.Type > maxBodyType || !body.Content.fits(body.Type) {
		b.SetError(fmt.Errorf("%s body cannot hold %T", body.Type, body.Content))
		return
	}
	b.AddASN1(explicit(uint8(body.Type)), body.Content.marshal)
}

// CertificationRequest is the content of p10cr: a DER PKCS#10 request (RFC 2986).
type CertificationRequest []byte

func (c CertificationRequest) fits(t BodyType) bool          { return t == BodyP10CR }
func (c CertificationRequest) marshal(b *cryptobyte.Builder) { b.AddBytes(c) }

// PKIConfirmContent is the content of pkiconf, which is NULL (RFC 9810, 5.3.17).
type PKIConfirmContent struct{}

func (PKIConfirmContent) fits(t BodyType) bool          { return t == BodyPKIConf }
func (PKIConfirmContent) marshal(b *cryptobyte.Builder) { b.AddBytes(derNull) }

// RawContent is the DER content of a body kind that is not interpreted.
type RawContent []byte

func (c RawContent) fits(t BodyType) bool {
	switch t {
	case BodyIR, BodyIP, BodyCR, BodyCP, BodyP10CR, BodyKUR, BodyKUP, BodyRR, BodyRP, BodyPKIConf, BodyGenM,
		BodyGenP, BodyError, BodyCertConf, BodyPollReq, BodyPollRep:
		return false
	}
	return true
}
func (c RawContent) marshal(b *cryptobyte.Builder) { b.AddBytes(c) }
