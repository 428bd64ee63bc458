package cmp

import (
	"encoding/asn1"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PKIStatus is the outcome of a request (RFC 9810, 5.2.3).
type PKIStatus int

// The values of PKIStatus.
const (
	StatusAccepted               PKIStatus = 0
	StatusGrantedWithMods        PKIStatus = 1
	StatusRejection              PKIStatus = 2
	StatusWaiting                PKIStatus = 3
	StatusRevocationWarning      PKIStatus = 4
	StatusRevocationNotification PKIStatus = 5
	StatusKeyUpdateWarning       PKIStatus = 6
)

func (s PKIStatus) String() string {
	names := [...]string{"accepted", "grantedWithMods", "rejection", "waiting", "revocationWarning",
		"revocationNotification", "keyUpdateWarning"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("status %d", int(s))
	}
	return names[s]
}

// FailureBit is one bit of PKIFailureInfo (RFC 9810, 5.2.3).
type FailureBit int

// The bits of PKIFailureInfo.
const (
	FailBadAlg FailureBit = iota
	FailBadMessageCheck
	FailBadRequest
	FailBadTime
	FailBadCertID
	FailBadDataFormat
	FailWrongAuthority
	FailIncorrectData
	FailMissingTimeStamp
	FailBadPOP
	FailCertRevoked
	FailCertConfirmed
	FailWrongIntegrity
	FailBadRecipientNonce
	FailTimeNotAvailable
	FailUnacceptedPolicy
	FailUnacceptedExtension
	FailAddInfoNotAvailable
	FailBadSenderNonce
	FailBadCertTemplate
	FailSignerNotTrusted
	FailTransactionIDInUse
	FailUnsupportedVersion
	FailNotAuthorized
	FailSystemUnavail
	FailSystemFailure
	FailDuplicateCertReq
)

var failureNames = [...]string{"badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId", "badDataFormat",
	"wrongAuthority", "incorrectData", "missingTimeStamp", "badPOP", "certRevoked", "certConfirmed",
	"wrongIntegrity", "badRecipientNonce", "timeNotAvailable", "unacceptedPolicy", "unacceptedExtension",
	"addInfoNotAvailable", "badSenderNonce", "badCertTemplate", "signerNotTrusted", "transactionIdInUse",
	"unsupportedVersion", "notAuthorized", "systemUnavail", "systemFailure", "duplicateCertReq"}

func (f FailureBit) String() string {
	if f < 0 || int(f) >= len(failureNames) {
		return fmt.Sprintf("failure bit %d", int(f))
	}
	return failureNames[f]
}

// PKIFailureInfo says what is wrong with a request (RFC 9810, 5.2.3). The zero value is absent.
type PKIFailureInfo struct {
	bits asn1.BitString
}

// maxFailureInfoSize bounds the BIT STRING, of which 27 bits are defined.
const maxFailureInfoSize = 16

// NewFailureInfo returns a PKIFailureInfo with the bits set.
func NewFailureInfo(bits ...FailureBit) PKIFailureInfo {
	highest := FailureBit(-1)
	for _, bit := range bits {
		highest = max(highest, bit)
	}
	if highest < 0 {
		return PKIFailureInfo{}
	}
	set := make([]byte, highest/8+1)
	for _, bit := range bits {
		set[bit/8] |= 0x80 >> (bit % 8)
	}
	return PKIFailureInfo{asn1.BitString{Bytes: set, BitLength: int(highest) + 1}}
}

// Has says whether the bit is set.
func (f PKIFailureInfo) Has(bit FailureBit) bool { return f.bits.At(int(bit)) == 1 }

// Names returns the names of the bits that are set, in their order.
func (f PKIFailureInfo) Names() []string {
	var names []string
	for bit := range f.bits.BitLength {
		if f.bits.At(bit) == 1 {
			names = append(names, FailureBit(bit).String())
		}
	}
	return names
}

// PKIFreeText is text for people, in one or more parts (RFC 9810, 5.1.1). It is whatever bytes the
// peer sent; String makes it fit for a log line.
type PKIFreeText []string

// String returns the parts joined by "; ", as valid UTF-8, on one line, without control characters, cut at
// 1,000 characters.
func (t PKIFreeText) String() string { return show(strings.Join(t, "; ")) }

func (t *PKIFreeText) code(c codec, what string) {
	list(c, what, 1, (*[]string)(t), func(part *string, c codec) { c.text("text", part) })
}

// PKIStatusInfo is the outcome of a request with its reasons (RFC 9810, 5.2.3):
//
//	PKIStatusInfo ::= SEQUENCE {
//	    status        PKIStatus,
//	    statusString  PKIFreeText     OPTIONAL,
//	    failInfo      PKIFailureInfo  OPTIONAL }
type PKIStatusInfo struct {
	Status       PKIStatus
	StatusString PKIFreeText
	FailInfo     PKIFailureInfo
}

// Rejection returns the status info of a refusal.
func Rejection(text string, bits ...FailureBit) PKIStatusInfo {
	return PKIStatusInfo{Status: StatusRejection, StatusString: PKIFreeText{text}, FailInfo: NewFailureInfo(bits...)}
}

func (info *PKIStatusInfo) code(c codec) {
	c.sequence("PKIStatusInfo", func(c codec) {
		integer(c, "status", &info.Status)
		if c.has(cbasn1.SEQUENCE, len(info.StatusString) > 0) {
			info.StatusString.code(c, "statusString")
		}
		if c.has(cbasn1.BIT_STRING, info.FailInfo.bits.Bytes != nil) {
			info.FailInfo.code(c)
		}
	})
}

func (f *PKIFailureInfo) code(c codec) {
	if c.in != nil {
		if !c.in.s.ReadASN1BitString(&f.bits) || len(f.bits.Bytes) > maxFailureInfoSize {
			c.in.fail("failInfo is not a BIT STRING of at most %d bytes", maxFailureInfoSize)
		}
		return
	}
	c.out.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
		b.AddUint8(uint8(len(f.bits.Bytes)*8 - f.bits.BitLength))
		b.AddBytes(f.bits.Bytes)
	})
}
