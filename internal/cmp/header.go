package cmp

import (
	"crypto/rand"
	"encoding/asn1"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Protocol versions (RFC 9810, 5.1.1). Version 3 is sent only where its syntax is needed.
const (
	PVNO2 = 2
	PVNO3 = 3
)

// NonceSize is the length in bytes of the transactionIDs and
// nonces that are made here (RFC 9810, 5.1.1).
const NonceSize = 16

// PKIHeader is the header of a PKIMessage (RFC 9810, 5.1.1):
//
//	PKIHeader ::= SEQUENCE {
//	    pvno                INTEGER { cmp1999(1), cmp2000(2), cmp2021(3) },
//	    sender              GeneralName,
//	    recipient           GeneralName,
//	    messageTime     [0] GeneralizedTime          OPTIONAL,
//	    protectionAlg   [1] AlgorithmIdentifier      OPTIONAL,
//	    senderKID       [2] KeyIdentifier            OPTIONAL,
//	    recipKID        [3] KeyIdentifier            OPTIONAL,
//	    transactionID   [4] OCTET STRING             OPTIONAL,
//	    senderNonce     [5] OCTET STRING             OPTIONAL,
//	    recipNonce      [6] OCTET STRING             OPTIONAL,
//	    freeText        [7] PKIFreeText              OPTIONAL,
//	    generalInfo     [8] SEQUENCE SIZE (1..MAX) OF InfoTypeAndValue OPTIONAL }
//
// Optional byte strings are absent when nil and present when empty.
type PKIHeader struct {
	PVNO          int
	Sender        GeneralName
	Recipient     GeneralName
	MessageTime   time.Time // zero: absent
	ProtectionAlg *AlgorithmIdentifier
	SenderKID     []byte
	RecipKID      []byte
	TransactionID []byte
	SenderNonce   []byte
	RecipNonce    []byte
	FreeText      PKIFreeText
	GeneralInfo   []InfoTypeAndValue

	messageTimeText string // MessageTime as it came, when that was not in UTC
}

func (h *PKIHeader) code(c codec) {
	c.sequence("header", func(c codec) {
		integer(c, "pvno", &h.PVNO)
		h.Sender.code(c, "sender")
		h.Recipient.code(c, "recipient")
		c.explicit(0, "messageTime", !h.MessageTime.IsZero(), func(c codec) {
			c.generalizedTime("messageTime", &h.MessageTime, &h.messageTimeText)
		})
		c.explicit(1, "protectionAlg", h.ProtectionAlg != nil, func(c codec) {
			if c.in != nil {
				h.ProtectionAlg = &AlgorithmIdentifier{}
			}
			h.ProtectionAlg.code(c, "protectionAlg")
		})
		for i, field := range []struct {
			name   string
			octets *[]byte
		}{
			{"senderKID", &h.SenderKID}, {"recipKID", &h.RecipKID}, {"transactionID", &h.TransactionID},
			{"senderNonce", &h.SenderNonce}, {"recipNonce", &h.RecipNonce},
		} {
			c.explicitOctets(uint8(2+i), field.name, field.octets)
		}
		c.explicit(7, "freeText", len(h.FreeText) > 0, func(c codec) { h.FreeText.code(c, "freeText") })
		c.explicit(8, "generalInfo", len(h.GeneralInfo) > 0, func(c codec) {
			list(c, "generalInfo", 1, &h.GeneralInfo, (*InfoTypeAndValue).code)
		})
	})
}

// InfoTypeAndValue is an item of generalInfo, genm or genp (RFC 9810, 5.3.19).
type InfoTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value []byte // one DER element; nil: absent
}

func (info *InfoTypeAndValue) code(c codec) {
	c.sequence("InfoTypeAndValue", func(c codec) {
		c.oid("infoType", &info.Type)
		if c.out != nil || c.in.more() {
			c.any("infoValue", &info.Value)
		}
	})
}

// oidImplicitConfirm is id-it-implicitConfirm (RFC 9810, 5.1.1.1).
var oidImplicitConfirm = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 13}

// ImplicitConfirm says whether the header asks for implicit confirmation, or in an answer grants
// it. The value should be NULL; the ONAP server leaves it out, so it is not looked at.
func (h *PKIHeader) ImplicitConfirm() bool {
	for _, info := range h.GeneralInfo {
		if info.Type.Equal(oidImplicitConfirm) {
			return true
		}
	}
	return false
}

// AddImplicitConfirm asks for implicit confirmation, or in an answer grants it (RFC 9810, 5.1.1.1).
func (h *PKIHeader) AddImplicitConfirm() {
	h.GeneralInfo = append(h.GeneralInfo, InfoTypeAndValue{Type: oidImplicitConfirm, Value: derNull})
}

// oidCertProfile is id-it-certProfile (RFC 9810, 5.1.1.4).
var oidCertProfile = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 21}

// AddCertProfile asks for a certificate profile: SEQUENCE SIZE (1..MAX) OF UTF8String, of which
// there is one.
func (h *PKIHeader) AddCertProfile(name string) {
	h.GeneralInfo = append(h.GeneralInfo, InfoTypeAndValue{Type: oidCertProfile,
		Value: wrap(cbasn1.SEQUENCE, wrap(cbasn1.UTF8String, []byte(name)))})
}

// CertProfile returns the first certificate profile that the header asks for; empty for none.
func (h *PKIHeader) CertProfile() string {
	value, _ := GeneralContent(h.GeneralInfo).Value(oidCertProfile)
	var names []string
	if _, err := asn1.Unmarshal(value, &names); err != nil || len(names) == 0 {
		return ""
	}
	return names[0]
}

// NewNonce returns NonceSize random bytes, for a transactionID or a senderNonce.
func NewNonce() []byte { return randomBytes(NonceSize) }

func randomBytes(size int) []byte {
	b := make([]byte, size)
	rand.Read(b) // never fails
	return b
}

// Answer returns the header of an answer to a message with this header: back to its sender, in its
// transaction and version, with its senderNonce as recipNonce and a fresh one (RFC 9483, 3.1).
func (h *PKIHeader) Answer(sender GeneralName, now time.Time) PKIHeader {
	return PKIHeader{
		PVNO:          h.PVNO,
		Sender:        sender,
		Recipient:     h.Sender,
		MessageTime:   now.Truncate(time.Second),
		TransactionID: h.TransactionID,
		SenderNonce:   NewNonce(),
		RecipNonce:    h.SenderNonce,
	}
}
