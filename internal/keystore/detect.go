package keystore

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
)

var (
	magicJKS   = []byte{0xfe, 0xed, 0xfe, 0xed}
	magicJCEKS = []byte{0xce, 0xce, 0xce, 0xce}

	pemBegin = []byte("-----BEGIN ")
)

const (
	accepted  = "want JKS, PKCS#12 or PEM"
	byKeytool = accepted + " (convert it with keytool -importkeystore -deststoretype PKCS12)"
)

// Detect finds a store's format by its first bytes, without reading the rest. The error says what
// the data looks like instead; it never quotes the data, which may be a password put in the wrong
// place.
func Detect(data []byte) (Format, error) {
	if len(data) == 0 {
		return "", errors.New("store is empty, " + accepted)
	}
	switch {
	case bytes.HasPrefix(data, magicJKS):
		return JKS, nil
	case bytes.HasPrefix(data, magicJCEKS):
		return "", errors.New("store is a JCEKS key store, " + byKeytool)
	case data[0] == 0x30:
		return detectDER(data)
	case bytes.HasPrefix(data, []byte{0, 0, 0, 1, 0, 0, 0}), bytes.HasPrefix(data, []byte{0, 0, 0, 2, 0, 0, 0}):
		// BouncyCastle's BKS: a version, then the length of a salt of 20 bytes.
		return "", errors.New("store looks like a BouncyCastle BKS key store, " + byKeytool)
	}
	if pki.HasPEM(data) {
		return PEM, nil
	}
	return "", fmt.Errorf("store %s, %s", describeText(data), accepted)
}

func describeText(data []byte) string {
	text, _ := files.Text(data)
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return "is blank"
	case text[0] == '<':
		return "looks like HTML or XML"
	case isBase64Store(text):
		return "looks like the Base64 of a store, which must be decoded first"
	}
	return "is in no known format"
}

// isBase64Store says whether text is Base64 of one of the formats: a Secret copied out of Kubernetes
// with its encoding.
func isBase64Store(text []byte) bool {
	head := text[:min(len(text), 16)]
	head = head[:len(head)/4*4]
	raw, err := base64.StdEncoding.DecodeString(string(head))
	if err != nil || len(raw) < 9 {
		return false
	}
	return bytes.HasPrefix(raw, magicJKS) || bytes.HasPrefix(raw, pemBegin[:9]) ||
		raw[0] == 0x30 && raw[1] >= 0x80
}

// detectDER tells DER structures apart by their first elements. Lengths are not compared with the
// size of the data, so that a PKCS#12 file cut short is still called one.
func detectDER(data []byte) (Format, error) {
	body := skipHeader(data)
	switch {
	case len(body) >= 3 && body[0] == byte(cbasn1.INTEGER) && body[1] == 1:
		version, next := body[2], byte(0)
		if len(body) > 3 {
			next = body[3]
		}
		switch {
		case version == 3:
			return PKCS12, nil
		case version == 0 && next == byte(cbasn1.INTEGER):
			return "", derKey("a PKCS#1 RSA private key", "rsa")
		case version == 0 && next == byte(cbasn1.SEQUENCE):
			return "", derKey("a PKCS#8 private key", "pkey")
		case version == 1 && next == byte(cbasn1.OCTET_STRING):
			return "", derKey("a SEC 1 private key", "ec")
		}
	case len(body) > 0 && body[0] == byte(cbasn1.OBJECT_IDENTIFIER):
		return "", errors.New("store looks like a PKCS#7 structure (.p7b), which holds no keys and is not read, " +
			accepted + " (convert it with openssl pkcs7 -inform DER -print_certs)")
	case len(body) > 0 && body[0] == byte(cbasn1.SEQUENCE):
		return "", describeSigned(body)
	}
	return "", errors.New("store is DER or BER of no known format, " + accepted)
}

// skipHeader returns what follows the tag and length of data's first element.
func skipHeader(data []byte) []byte {
	if len(data) < 2 {
		return nil
	}
	n := 2
	if data[1] > 0x80 {
		n += int(data[1] & 0x7f)
	}
	return data[min(n, len(data)):]
}

func derKey(what, command string) error {
	return fmt.Errorf("store looks like %s in DER, %s (convert it with openssl %s -inform DER)",
		what, accepted, command)
}

// describeSigned tells what starts with two SEQUENCEs: a certificate, whose inner one starts with its
// version or serial number, or something encrypted, whose inner one starts with an algorithm.
func describeSigned(body []byte) error {
	inner := skipHeader(body)
	if len(inner) == 0 || inner[0] != byte(cbasn1.OBJECT_IDENTIFIER) {
		if len(inner) > 0 && inner[0] == byte(cbasn1.SEQUENCE) {
			return errors.New("store looks like a BouncyCastle BCFKS key store, " + byKeytool)
		}
		return errors.New("store looks like a certificate in DER, " + accepted +
			" (convert it with openssl x509 -inform DER)")
	}
	s := cryptobyte.String(body)
	var algorithm cryptobyte.String
	if s.ReadASN1(&algorithm, cbasn1.SEQUENCE) && s.PeekASN1Tag(cbasn1.OCTET_STRING) {
		return errors.New("store looks like an encrypted PKCS#8 private key in DER, " + accepted +
			" (convert it with openssl pkcs8 -inform DER)")
	}
	return errors.New("store is DER or BER of no known format, " + accepted)
}
