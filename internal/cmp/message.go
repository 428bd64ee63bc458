// Package cmp speaks the Certificate Management Protocol version 2: RFC 9810 (which replaces
// RFC 4210 and 9480) with CRMF requests after RFC 4211, algorithms after RFC 9481, in the manner of
// the lightweight profile RFC 9483, carried over HTTP after RFC 9811.
//
// It has two halves. The wire half serves clients and servers alike:
// [ParsePKIMessage] and [PKIMessage.Marshal], [MACKeys], [ProtectSignature],
// [VerifySignature], the proof of possession in a [CertReqMsg], and [CertHash].
// Decoding is strict DER over bounded input, and what parses marshals back to the
// same bytes. The client half is [Client]: ir, cr, kur and rr, with confirmation and
// polling, and with every check that an answer must pass before any of it is trusted.
//
// It does not speak cross certification, key recovery, central key generation, encrypted
// certificates, announcements, nested messages or challenge-response proofs of possession. Bodies
// of those kinds parse as [RawContent] and are never acted on. It polls for whatever a CA delays
// (RFC 9483, 4.4): for a certificate, where the status is waiting in ip, cp or kup, and for any
// answer, where an error message has that status.
package cmp

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PKIMessage is one CMP message (RFC 9810, 5.1):
//
//	PKIMessage ::= SEQUENCE {
//	    header           PKIHeader,
//	    body             PKIBody,
//	    protection   [0] PKIProtection OPTIONAL,
//	    extraCerts   [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL }
type PKIMessage struct {
	Header     PKIHeader
	Body       PKIBody
	Protection []byte   // MAC or signature; nil: not protected
	ExtraCerts [][]byte // DER certificates, not covered by the protection

	// RawHeader and RawBody are the DER that the protection covers, set by ParsePKIMessage and
	// removed by protecting the message again. Marshal goes by the fields.
	RawHeader, RawBody []byte
}

// ParsePKIMessage decodes one DER PKIMessage of at most MaxMessageSize bytes with nothing after
// it. The message keeps parts of der, which must not be changed afterwards.
func ParsePKIMessage(der []byte) (*PKIMessage, error) {
	if len(der) > MaxMessageSize {
		return nil, fmt.Errorf("decoding PKIMessage: has %d bytes, want at most %d", len(der), MaxMessageSize)
	}
	if err := checkDER(der, 0); err != nil {
		return nil, fmt.Errorf("decoding PKIMessage: %w", err)
	}
	m := &PKIMessage{}
	if err := decode(der, "decoding PKIMessage", m.code); err != nil {
		return nil, err
	}
	if err := decode(m.RawHeader, "header", m.Header.code); err != nil {
		return nil, fmt.Errorf("decoding PKIMessage: %w", err)
	}
	if err := m.Body.parse(m.RawBody); err != nil {
		return nil, fmt.Errorf("decoding PKIMessage: %w", err)
	}
	return m, nil
}

// code reads header and body as raw DER only, and writes them from their fields.
func (m *PKIMessage) code(c codec) {
	c.sequence("PKIMessage", func(c codec) {
		if c.in != nil {
			m.RawHeader, m.RawBody = c.in.element(cbasn1.SEQUENCE, "header"), c.in.any("body")
		} else {
			m.Header.code(c)
			m.Body.code(c)
		}
		m.codeUnprotected(c)
	})
}

// codeUnprotected goes through what the protection does not cover.
func (m *PKIMessage) codeUnprotected(c codec) {
	c.explicit(0, "protection", m.Protection != nil, func(c codec) { c.bits("protection", &m.Protection) })
	c.explicit(1, "extraCerts", len(m.ExtraCerts) > 0,
		func(c codec) { certificates(c, "extraCerts", &m.ExtraCerts) })
}

// marshalAround is Marshal for a message with its protectedPart, which need not be encoded again.
func (m *PKIMessage) marshalAround(part cryptobyte.String) ([]byte, error) {
	var contents cryptobyte.String
	if !part.ReadASN1(&contents, cbasn1.SEQUENCE) {
		return nil, errors.New("encoding PKIMessage: protected part is not a SEQUENCE")
	}
	return encodeWithin(len(contents)+messageSize, func(c codec) {
		c.sequence("PKIMessage", func(c codec) {
			c.out.AddBytes(contents)
			m.codeUnprotected(c)
		})
	})
}

// messageSize is what a message of ours takes in bytes, or more.
const messageSize = 1 << 10

// Marshal returns the message as DER. For a message that was parsed and not changed, these are the
// bytes it was parsed from.
func (m *PKIMessage) Marshal() ([]byte, error) {
	der, err := encode(m.code)
	if err != nil {
		return nil, fmt.Errorf("encoding PKIMessage: %w", err)
	}
	return der, nil
}

// protectedPart is what a MAC or signature is made over (RFC 9810, 5.1.3):
//
//	ProtectedPart ::= SEQUENCE { header PKIHeader, body PKIBody }
func (m *PKIMessage) protectedPart() ([]byte, error) {
	if m.RawHeader != nil && m.RawBody != nil {
		return wrap(cbasn1.SEQUENCE, m.RawHeader, m.RawBody), nil
	}
	return encodeWithin(messageSize, func(c codec) {
		c.sequence("ProtectedPart", func(c codec) {
			m.Header.code(c)
			m.Body.code(c)
		})
	})
}

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

// PKIBody is the CHOICE of what a message says (RFC 9810,
// 5.1.2). The dynamic type of Content follows from Type:
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
type BodyContent any

// parse reads a body of any kind.
func (body *PKIBody) parse(der []byte) error {
	s := cryptobyte.String(der)
	var contents cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadAnyASN1(&contents, &tag) || !s.Empty() || tag < explicit(0) || tag > explicit(uint8(maxBodyType)) {
		return errors.New("body is of no known kind")
	}
	body.Type = BodyType(tag - explicit(0))
	return decode(contents, body.Type.String()+" body", body.codeContent)
}

// code writes a body.
func (body *PKIBody) code(c codec) {
	if body.Type > maxBodyType {
		c.out.SetError(fmt.Errorf("%s is of no known kind", body.Type))
		return
	}
	c.codeTag(explicit(uint8(body.Type)), body.Type.String(), body.codeContent)
}

func (body *PKIBody) codeContent(c codec) {
	switch body.Type {
	case BodyIR, BodyCR, BodyKUR:
		codeAs(c, body, (*CertReqMessages).code)
	case BodyIP, BodyCP, BodyKUP:
		codeAt(c, body, (*CertRepMessage).code)
	case BodyP10CR:
		codeAs(c, body, func(content *CertificationRequest, c codec) {
			c.element(cbasn1.SEQUENCE, "CertificationRequest", (*[]byte)(content))
		})
	case BodyRR:
		codeAs(c, body, (*RevReqContent).code)
	case BodyRP:
		codeAt(c, body, (*RevRepContent).code)
	case BodyPKIConf:
		codeAs(c, body, func(_ *PKIConfirmContent, c codec) {
			c.codeTag(cbasn1.NULL,
				"PKIConfirmContent", func(codec) {})
		})
	case BodyGenM, BodyGenP:
		codeAs(c, body, (*GeneralContent).code)
	case BodyError:
		codeAt(c, body, (*ErrorMsgContent).code)
	case BodyCertConf:
		codeAs(c, body, (*CertConfirmContent).code)
	case BodyPollReq:
		codeAs(c, body, (*PollReqContent).code)
	case BodyPollRep:
		codeAs(c, body, (*PollRepContent).code)
	default:
		codeAs(c, body, func(content *RawContent, c codec) { c.any("content", (*[]byte)(content)) })
	}
}

// codeAs goes through a content that is of type T, and codeAt through one of type *T.
func codeAs[T any](c codec, body *PKIBody, code func(*T, codec)) {
	content, fits := body.Content.(T)
	codeFitting(c, body, fits, func(c codec) { code(&content, c) })
	if c.in != nil {
		body.Content = content
	}
}

func codeAt[T any](c codec, body *PKIBody, code func(*T, codec)) {
	if c.in != nil {
		body.Content = new(T)
	}
	content, fits := body.Content.(*T)
	codeFitting(c, body, fits && content != nil, func(c codec) { code(content, c) })
}

func codeFitting(c codec, body *PKIBody, fits bool, code func(codec)) {
	if c.out != nil && !fits {
		c.out.SetError(fmt.Errorf("%s body cannot hold %T", body.Type, body.Content))
		return
	}
	code(c)
}

// CertificationRequest is the content of p10cr: a DER PKCS#10 request (RFC 2986).
type CertificationRequest []byte

// PKIConfirmContent is the content of pkiconf, which is NULL (RFC 9810, 5.3.17).
type PKIConfirmContent struct{}

// RawContent is the DER content of a body kind that is not interpreted.
type RawContent []byte
