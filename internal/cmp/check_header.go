package cmp

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// checkStructure explains a body that is not a PKIMessage: with an HTTP error status, that status matters more.
func checkStructure(err error, httpStatus int) error {
	if httpStatus != http.StatusOK {
		return &TransportError{StatusCode: httpStatus, Err: err}
	}
	return &CheckError{Check: "structure", Got: "a body that does not parse (" + err.Error() + ")",
		Want: "one DER PKIMessage"}
}

// answerTypes are the bodies that answer each request (RFC 9810, 5.3; RFC 9483, 4).
var answerTypes = map[BodyType][]BodyType{
	BodyIR:       {BodyIP},
	BodyCR:       {BodyCP},
	BodyKUR:      {BodyKUP},
	BodyRR:       {BodyRP},
	BodyGenM:     {BodyGenP},
	BodyCertConf: {BodyPKIConf},
	// What is polled for answers the request that came before, which checkPolledType looks at.
	BodyPollReq: {BodyPollRep, BodyIP, BodyCP, BodyKUP, BodyPKIConf, BodyRP, BodyGenP},
}

// checkBodyType: the answer is of the kind that answers the request (RFC 9810, 5.3).
func checkBodyType(m *PKIMessage, request BodyType) error {
	if slices.Contains(answerTypes[request], m.Body.Type) {
		return nil
	}
	return &CheckError{Check: "body type", Got: m.Body.Type.String(), Want: fmt.Sprintf("an answer to %s", request)}
}

// checkPVNO: version 2, or 3, which has the same syntax for what we read. RFC 9810, 7 would have it be that of
// the request, but nothing depends on it.
func checkPVNO(m *PKIMessage) error {
	if m.Header.PVNO == PVNO2 || m.Header.PVNO == PVNO3 {
		return nil
	}
	return &CheckError{Check: "pvno", Got: fmt.Sprint(m.Header.PVNO), Want: "2 or 3"}
}

// checkTransactionID: the answer is in our transaction (RFC 9810, 5.1.1; RFC 9483, 3.5).
func checkTransactionID(m *PKIMessage, id []byte) error {
	return checkBytes("transactionID", m.Header.TransactionID, id)
}

// checkRecipNonce: the answer is to this request and not an old one replayed (RFC 9810, 5.1.1; RFC 9483, 3.5).
func checkRecipNonce(m *PKIMessage, allowed [][]byte) error {
	for _, nonce := range allowed[1:] {
		if nonce != nil && bytes.Equal(m.Header.RecipNonce, nonce) {
			return nil
		}
	}
	return checkBytes("recipNonce", m.Header.RecipNonce, allowed[0])
}

func checkBytes(check string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	e := &CheckError{Check: check, Got: fmt.Sprintf("%.32x", got), Want: fmt.Sprintf("%x", want)}
	if len(got) == 0 {
		e.Got = "none"
	}
	return e
}

// checkSenderNonce: the server has a nonce of its own and does not reflect ours (RFC 9810, 5.1.1; RFC 9483, 3.1).
func checkSenderNonce(m *PKIMessage, ours []byte) error {
	switch {
	case len(m.Header.SenderNonce) == 0:
		return &CheckError{Check: "senderNonce", Got: "none", Want: "one of the server's own"}
	case bytes.Equal(m.Header.SenderNonce, ours):
		return &CheckError{Check: "senderNonce", Got: "ours", Want: "one of the server's own"}
	}
	return nil
}

// checkMessageTime: the answer was made now, as far as the clocks agree (RFC 9483, 3.5). The field is
// optional.
func checkMessageTime(m *PKIMessage, now time.Time, window time.Duration) error {
	at := m.Header.MessageTime
	if at.IsZero() || (at.After(now.Add(-window)) && at.Before(now.Add(window))) {
		return nil
	}
	return &CheckError{Check: "messageTime", Got: at.Format(time.RFC3339),
		Want: fmt.Sprintf("within %s of %s; do the clocks agree?", window, now.UTC().Format(time.RFC3339))}
}
