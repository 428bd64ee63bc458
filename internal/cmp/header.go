package cmp

import (
	"crypto/rand"
	"encoding/asn1"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Protocol versions (RFC 9810, 5.1.1). Version 3 is sent only where its syntax is needed.
const (
	PVNO2 = 2
	PVNO3 = 3
)

// NonceSize is the length in bytes of the transactionIDs and nonces that are made here (RFC 9810, 5.1.1).
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

func (h *PKIHeader) parse(der []byte) error {
	outer := newDecoder(der, "header")
	d := outer.sequence("header")
	h.PVNO = int(d.int64("pvno"))
	h.Sender = parseGeneralName(d, "sender")
	h.Recipient = parseGeneralName(d, "recipient")
	if d.next(explicit(0)) {
		inner := d.open(explicit(0), "messageTime")
		h.MessageTime, h.messageTimeText = inner.generalizedTime("messageTime")
		inner.end()
	}
	if d.next(explicit(1)) {
		inner := d.open(explicit(1), "protectionAlg")
		algorithm := parseAlgorithm(inner, "protectionAlg")
		h.ProtectionAlg = &algorithm
		inner.end()
	}
	for _, field := range h.octetStrings() {
		if d.next(explicit(field.tag)) {
			inner := d.open(explicit(field.tag), field.name)
			*field.value = inner.octets(field.name)
			inner.end()
		}
	}
	if d.next(explicit(7)) {
		inner := d.open(explicit(7), "freeText")
		h.FreeText = parseFreeText(inner, "freeText")
		inner.end()
	}
	if d.next(explicit(8)) {
		inner := d.open(explicit(8), "generalInfo")
		h.GeneralInfo = list(inner.sequence("generalInfo"), 1, parseInfoTypeAndValue)
		inner.end()
	}
	d.end()
	return outer.end()
}

func (h *PKIHeader) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(int64(h.PVNO))
		h.Sender.marshal(b)
		h.Recipient.marshal(b)
		if !h.MessageTime.IsZero() {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { addGeneralizedTime(b, h.MessageTime, h.messageTimeText) })
		}
		if h.ProtectionAlg != nil {
			b.AddASN1(explicit(1), h.ProtectionAlg.marshal)
		}
		for _, field := range h.octetStrings() {
			if *field.value != nil {
				b.AddASN1(explicit(field.tag), func(b *cryptobyte.Builder) { b.AddASN1OctetString(*field.value) })
			}
		}
		if len(h.FreeText) > 0 {
			b.AddASN1(explicit(7), h.FreeText.marshal)
		}
		if len(h.GeneralInfo) > 0 {
			b.AddASN1(explicit(8), func(b *cryptobyte.Builder) { addList(b, h.GeneralInfo, marshalInfoTypeAndValue) })
		}
	})
}

type octetStringField struct {
	tag   uint8
	name  string
	value *[]byte
}

// octetStrings lists the fields [2] to [6], which are alike.
func (h *PKIHeader) octetStrings() []octetStringField {
	return []octetStringField{
		{2, "senderKID", &h.SenderKID},
		{3, "recipKID", &h.RecipKID},
		{4, "transactionID", &h.TransactionID},
		{5, "senderNonce", &h.SenderNonce},
		{6, "recipNonce", &h.RecipNonce},
	}
}

// InfoTypeAndValue is an item of generalInfo, genm or genp (RFC 9810, 5.3.19).
type InfoTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value []byte // one DER element; nil: absent
}

func parseInfoTypeAndValue(d *decoder) InfoTypeAndValue {
	d = d.sequence("InfoTypeAndValue")
	info := InfoTypeAndValue{Type: d.oid("infoType")}
	if d.more() {
		info.Value = d.any("infoValue")
	}
	d.end()
	return info
}

func marshalInfoTypeAndValue(b *cryptobyte.Builder, info InfoTypeAndValue) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(info.Type)
		b.AddBytes(info.Value)
	})
}

// oidImplicitConfirm is id-it-implicitConfirm (RFC 9810, 5.1.1.1).
var oidImplicitConfirm = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 13}

// ImplicitConfirm says whether the header asks for implicit confirmation, or in an answer grants it.
// The value should be NULL; the ONAP server leaves it out, so it is not looked at.
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

// NewNonce returns NonceSize random bytes, for a transactionID or a senderNonce.
func NewNonce() []byte {
	nonce := make([]byte, NonceSize)
	rand.Read(nonce) // never fails
	return nonce
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
