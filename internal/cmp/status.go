package cmp

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
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

// String returns the parts joined by "; ", as valid UTF-8, on one line, without control
// characters, cut at 1,000 characters.
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

// StatusError is the CA's refusal, or a decision that it did
// not make in time (Status is then StatusWaiting).
type StatusError struct {
	Status   PKIStatus
	FailInfo PKIFailureInfo
	Text     string // the server's own words, fit for a log line; empty when it gave none
	// Authenticated says that the answer's protection was verified. Any attacker on the path can
	// make one that is not, so the only consequence of it may be to fail.
	Authenticated bool
	// Decided says that it came in place of a certificate, and not as an error message.
	Decided bool
}

// RefusesSender tells a refusal that is about who asks from one of what is asked.
func (e *StatusError) RefusesSender() bool {
	return slices.ContainsFunc([]FailureBit{FailBadMessageCheck, FailWrongIntegrity, FailSignerNotTrusted,
		FailNotAuthorized, FailCertRevoked, FailBadTime}, e.FailInfo.Has)
}

func (e *StatusError) Error() string {
	var s strings.Builder
	if e.Status == StatusWaiting {
		s.WriteString("CA has not decided in time")
	} else {
		s.WriteString("CA refused")
	}
	if !e.Authenticated {
		s.WriteString(" (in an answer that is not authenticated)")
	}
	fmt.Fprintf(&s, ": %s", e.Status)
	if names := e.FailInfo.Names(); len(names) > 0 {
		fmt.Fprintf(&s, ", %s", strings.Join(names, ", "))
	}
	if e.Text != "" {
		fmt.Fprintf(&s, ": %q", e.Text)
	}
	return s.String()
}

// ErrNoAnchors is wrapped by the error for an answer that is signed although nothing was
// configured that could verify a signature.
var ErrNoAnchors = errors.New("no trust anchors are configured for signed answers")

// CheckError is an answer that must not be trusted, or a certificate that must not be used.
type CheckError struct {
	Check string // which check failed, such as "transactionID"
	Got   string
	Want  string
	Err   error // for errors.Is; may be nil
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("checking %s of the CMP answer: has %s, want %s", e.Check, show(e.Got), show(e.Want))
}

func (e *CheckError) Unwrap() error { return e.Err }

// maxShownText is how many characters of a peer's text are
// shown: in one field of an error, or in one warning.
const maxShownText = 1000

// show makes text that may hold a peer's words or names safe for an error or a log: a peer can
// send a megabyte of them.
func show(text string) string { return pki.OneLine(text, maxShownText) }

// TransportError is an HTTP exchange that brought no CMP message.
type TransportError struct {
	StatusCode int           // HTTP status; 0: there was no answer
	URL        string        // of the server that answered, as pki.ShowURL has it, for logs; else it is in Err
	RetryAfter time.Duration // what the server asked for; 0: nothing
	Timeout    bool          // a deadline passed, the message's, the caller's or the network's
	Limit      time.Duration // MessageTimeout when it passed; 0: it did not
	Unsent     bool          // the server got nothing of the message, or passed nothing on
	Answered   bool          // an earlier message of the transaction was answered
	Err        error         // may name the server by its URL and addresses
}

func (e *TransportError) Error() string {
	if e.StatusCode != 0 {
		return fmt.Sprintf("sending CMP request: HTTP status %d: %v", e.StatusCode, e.Err)
	}
	return fmt.Sprintf("sending CMP request: %v", e.Err)
}

func (e *TransportError) Unwrap() error { return e.Err }
