package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
)

// startTLSRequest is an LDAPMessage with the ExtendedRequest of StartTLS (RFC 4511, sections 4.12 and 4.14).
const startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + "1.3.6.1.4.1.1466.20037"

// Tags of LDAP (RFC 4511).
const (
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagEnumerated = 0x0a
	tagSequence   = 0x30
	tagExtended   = 0x78 // ExtendedResponse
)

// startLDAP asks for StartTLS.
func startLDAP(conn net.Conn) error {
	if _, err := io.WriteString(conn, startTLSRequest); err != nil {
		return err
	}
	code, text, err := readExtendedResponse(conn)
	switch {
	case err != nil:
		return err
	case code != 0:
		return refusalError(fmt.Sprintf("the LDAP server does not begin TLS: result code %d, %s", code, quote(text)))
	}
	return nil
}

// errNotLDAP is the error of an answer that is not an ExtendedResponse.
var errNotLDAP = errors.New("not an LDAP server, or it answers with something else than an ExtendedResponse")

// readExtendedResponse reads the answer to our only message.
func readExtendedResponse(conn io.Reader) (code byte, text string, err error) {
	message, err := readElement(conn, tagSequence)
	if err != nil {
		return 0, "", err
	}
	id, err := readElement(message, tagInteger)
	if err != nil || id.Len() == 0 {
		return 0, "", errNotLDAP
	}
	response, err := readElement(message, tagExtended)
	if err != nil {
		return 0, "", errNotLDAP
	}
	result, err := readElement(response, tagEnumerated)
	if err != nil || result.Len() != 1 {
		return 0, "", errNotLDAP
	}
	code, _ = result.ReadByte()
	if _, err := readElement(response, tagOctets); err == nil { // matchedDN
		if diagnostic, err := readElement(response, tagOctets); err == nil {
			text = diagnostic.String()
		}
	}
	return code, text, nil
}

// readElement reads the content of one element, which has to have the tag, and not a byte more. Lengths are BER, as
// Active Directory writes them in five bytes.
func readElement(from io.Reader, tag byte) (*bytes.Buffer, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	length := uint32(head[1])
	if length >= 0x80 {
		more := make([]byte, length&0x7f)
		if len(more) == 0 || len(more) > 4 {
			return nil, errors.New("not an LDAP server: the length of its answer is not readable")
		}
		if _, err := io.ReadFull(from, more); err != nil {
			return nil, err
		}
		length = 0
		for _, b := range more {
			length = length<<8 | uint32(b)
		}
	}
	if length > maxLine {
		return nil, fmt.Errorf("not an LDAP server: its answer has %d bytes, want at most %d", length, maxLine)
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(from, content); err != nil {
		return nil, err
	}
	if head[0] != tag {
		return nil, errNotLDAP
	}
	return bytes.NewBuffer(content), nil
}
