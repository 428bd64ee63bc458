package notify

import (
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
		return fmt.Errorf("the LDAP server does not begin TLS: result code %d, %s", code, said(text))
	}
	return nil
}

// readExtendedResponse reads the answer to our only message. Its lengths are BER, as Active Directory writes them in
// five bytes.
func readExtendedResponse(conn io.Reader) (code int, text string, err error) {
	tag, message, err := readElement(conn)
	if err != nil {
		return 0, "", err
	}
	notLDAP := errors.New("this is no LDAP server, or it answers something else than an ExtendedResponse")
	id, rest, ok := element(message, tagInteger)
	if tag != tagSequence || !ok || len(id) == 0 {
		return 0, "", notLDAP
	}
	response, _, ok := element(rest, tagExtended)
	if !ok {
		return 0, "", notLDAP
	}
	result, rest, ok := element(response, tagEnumerated)
	if !ok || len(result) != 1 {
		return 0, "", notLDAP
	}
	if _, rest, ok = element(rest, tagOctets); ok { // matchedDN
		if diagnostic, _, ok := element(rest, tagOctets); ok {
			text = string(diagnostic)
		}
	}
	return int(result[0]), text, nil
}

// readElement reads one element from the connection and not a byte more.
func readElement(conn io.Reader) (tag byte, content []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return 0, nil, err
	}
	length := int(head[1])
	if length >= 0x80 {
		long := make([]byte, length&0x7f)
		if len(long) == 0 || len(long) > 4 {
			return 0, nil, errors.New("this is no LDAP server: the length of its answer is not readable")
		}
		if _, err := io.ReadFull(conn, long); err != nil {
			return 0, nil, err
		}
		length = number(long)
	}
	if length > maxLine {
		return 0, nil, fmt.Errorf("this is no LDAP server: its answer has %d bytes, want at most %d", length, maxLine)
	}
	content = make([]byte, length)
	_, err = io.ReadFull(conn, content)
	return head[0], content, err
}

// element splits the first element, which has to have the tag, from what follows it.
func element(data []byte, tag byte) (content, rest []byte, ok bool) {
	if len(data) < 2 || data[0] != tag {
		return nil, nil, false
	}
	length, head := int(data[1]), 2
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 || n > 4 || len(data) < 2+n {
			return nil, nil, false
		}
		length, head = number(data[2:2+n]), 2+n
	}
	if length > len(data)-head {
		return nil, nil, false
	}
	return data[head : head+length], data[head+length:], true
}

// number reads up to four bytes. int has more than 32 bits wherever certfetcher runs; where it has not, what is
// negative is refused as too long.
func number(big []byte) int {
	n := 0
	for _, b := range big {
		n = n<<8 | int(b)
	}
	if n < 0 {
		return maxLine + 1
	}
	return n
}
