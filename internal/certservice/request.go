package certservice

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// The headers that carry a request: each the Base64 of a PEM text.
const (
	headerCSR     = "CSR"
	headerKey     = "PK"
	headerOldCert = "OLD_CERT"
	headerOldKey  = "OLD_PK"
)

// The error texts that clients of the ONAP server know.
const (
	messageCSR  = "Wrong certificate signing request (CSR) format"
	messageKey  = "Wrong key (PK) format"
	messageCert = "Wrong certificate format"
)

// Texts of our own, for what the ONAP server calls a wrong certificate as well.
const (
	messageOldKey         = "Wrong old key (OLD_PK) format"
	messageOldKeyMismatch = "The key in OLD_PK is not the key of the certificate in OLD_CERT"
)

// maxKeyPEM bounds a private key before anything is computed
// with it; RSA with 8192 bits needs 6.5 KB.
const maxKeyPEM = 8 << 10

// requestError is a fault in the client's headers. Neither text holds a header's value, except for
// a name that the CSR asks for.
type requestError struct {
	message string // for the client
	reason  string // for the audit line: which header, and what is wrong with it
}

func (e *requestError) Error() string { return e.message + ": " + e.reason }

// bad is a fault that the client gets in the ONAP server's words alone.
func bad(message, header, reason string) *requestError {
	return &requestError{message, header + " " + reason}
}

// explain is a fault that the client gets with its reason.
func explain(message, header, reason string) *requestError {
	return &requestError{message + ": " + header + " " + reason, header + " " + reason}
}

// parseRequest reads the headers of an enrolment, or of an update.
// With a fault it also returns what was read before it, for the audit
// line. Nothing is computed with an RSA key of more than maxRSABits.
func parseRequest(header http.Header, update bool, maxRSABits int) (Request, *requestError) {
	var r Request
	csr, asked, fault := parseCSR(header, maxRSABits)
	if fault != nil {
		return r, fault
	}
	r.CSR, r.asked = csr, asked
	if r.Key, fault = parseKey(header, headerKey, messageKey, maxRSABits); fault != nil {
		return r, fault
	}
	if !pki.SameKey(r.Key.Public(), r.CSR.PublicKey) {
		return r, bad(messageKey, headerKey, "is not the key of the CSR")
	}
	if !update {
		return r, nil
	}
	if r.OldCert, r.OldChain, fault = parseOldCert(header, maxRSABits); fault != nil {
		return r, fault
	}
	if r.OldKey, fault = parseKey(header, headerOldKey, messageOldKey, maxRSABits); fault != nil {
		return r, fault
	}
	if !pki.SameKey(r.OldKey.Public(), r.OldCert.PublicKey) {
		return r, bad(messageOldKeyMismatch, headerOldKey, "is not the key of OLD_CERT")
	}
	return r, nil
}

// parseCSR returns a request whose signature is verified, with what it asks for, or what is wrong
// with the header.
func parseCSR(header http.Header, maxRSABits int) (*x509.CertificateRequest, *policy.Asked, *requestError) {
	der, reason := decodeBlock(header, headerCSR, MaxHeaderBytes)
	if reason != "" {
		return nil, nil, bad(messageCSR, headerCSR, reason)
	}
	csr, err := readCSR(der)
	var asked *policy.Asked
	if err == nil {
		asked, err = policy.ReadCSR(csr)
	}
	if err == nil {
		err = checkRSABits(csr.PublicKey, maxRSABits)
	}
	fault, isFault := errors.AsType[csrFault](err)
	always, isRefused := errors.AsType[policy.AlwaysRefusedError](err)
	switch {
	case isFault || isRefused:
		return nil, nil, &requestError{messageCSR + ": the CSR " + string(fault) + string(always),
			headerCSR + " " + string(fault) + string(always)}
	case err != nil:
		return nil, nil, bad(messageCSR, headerCSR, err.Error())
	case cmp.CheckKey(csr.PublicKey) != nil:
		return nil, nil, bad(messageCSR, headerCSR, unsupportedKey)
	case csr.CheckSignature() != nil:
		return nil, nil, bad(messageCSR, headerCSR, "has a signature that does not verify")
	}
	return csr, asked, nil
}

const unsupportedKey = "has a public key of a kind or size that is not supported"

// parseKey takes PKCS#8, PKCS#1 and SEC 1 whatever the PEM label says: existing clients put PKCS#8
// under "RSA PRIVATE KEY" and the reverse.
func parseKey(header http.Header, name, message string, maxRSABits int) (crypto.Signer, *requestError) {
	der, reason := decodeBlock(header, name, maxKeyPEM)
	if reason != "" {
		return nil, bad(message, name, reason)
	}
	if reason := faultInRSAKey(der, maxRSABits); reason != "" {
		return nil, explain(message, name, reason)
	}
	key, ok := parsePrivateKey(der)
	if !ok {
		return nil, bad(message, name, "is neither PKCS#8 nor PKCS#1 nor SEC 1")
	}
	signer, ok := key.(crypto.Signer)
	if !ok || cmp.CheckKey(signer.Public()) != nil {
		return nil, bad(message, name, "is a key of a kind or size that is not supported")
	}
	return signer, nil
}

func parsePrivateKey(der []byte) (any, bool) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, true
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, true
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, true
	}
	return nil, false
}

// decodeBlock returns the DER in the first PEM block of a header of at most so many bytes, or what
// is wrong with it. Parameters are skipped: openssl ecparam -genkey writes them before the key.
func decodeBlock(header http.Header, name string, most int) (der []byte, reason string) {
	text, reason := decodeHeader(header, name)
	switch {
	case reason != "":
		return nil, reason
	case len(text) > most:
		return nil, "is too large"
	}
	blocks, err := pki.PEMBlocks(text)
	if err != nil {
		return nil, err.Error()
	}
	for _, block := range blocks {
		switch {
		case block.Label == "EC PARAMETERS":
		case block.Err != nil:
			return nil, "has a PEM block that cannot be read: " + block.Err.Error()
		default:
			return block.Bytes, ""
		}
	}
	return nil, "is not PEM"
}

// parseOldCert returns the first certificate of the header,
// and those that follow it, which are only passed on.
func parseOldCert(header http.Header, maxRSABits int) (*x509.Certificate, []*x509.Certificate, *requestError) {
	fault := func(reason string) (*x509.Certificate, []*x509.Certificate, *requestError) {
		return nil, nil, bad(messageCert, headerOldCert, reason)
	}
	text, reason := decodeHeader(header, headerOldCert)
	if reason != "" {
		return fault(reason)
	}
	chain, faults, err := pki.PEMCertificates(text)
	switch {
	case err != nil, len(faults) > 0:
		return fault("is not an X.509 certificate")
	case len(chain) == 0:
		return fault("is not PEM")
	}
	if err := checkRSABits(chain[0].PublicKey, maxRSABits); err != nil {
		return nil, nil, explain(messageCert, headerOldCert, err.Error())
	}
	if pki.Unusable(chain[0]) != nil || cmp.CheckKey(chain[0].PublicKey) != nil {
		return fault(unsupportedKey)
	}
	return chain[0], chain[1:], nil
}

// decodeHeader decodes the Base64, with or without its padding. A header given twice is refused,
// because a proxy in front of the service may have checked the other one.
func decodeHeader(header http.Header, name string) ([]byte, string) {
	values := header.Values(name)
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return nil, "is missing"
	case len(values) > 1:
		return nil, "is given more than once"
	}
	text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(values[0], "="))
	if err != nil {
		return nil, "is not Base64"
	}
	return text, ""
}

// The bounds of HandlerConfig.MaxRSABits. Neither the CMP
// client nor crypto/tls computes with larger keys.
const (
	LeastMaxRSABits = 2048
	MostMaxRSABits  = pki.MaxRSABits
)

// checkRSABits refuses an RSA key above the bound. The error is a csrFault, which also fits other
// subjects than a CSR.
func checkRSABits(public crypto.PublicKey, most int) error {
	if key, ok := public.(*rsa.PublicKey); ok && key.N.BitLen() > most {
		return tooManyBits(key.N.BitLen(), most)
	}
	return nil
}

func tooManyBits(bits, most int) error {
	const text = "has an RSA key of %d bits, want at most %d (MAX_RSA_BITS of the CertService)"
	return csrFault(fmt.Sprintf(text, bits, most))
}

// faultInRSAKey looks into the DER of a private key before anything is computed with it, and says
// why an RSA key is refused. Signing with more than two primes, or with primes of very different
// size, takes many times longer than with two of half the size. It is empty for a good RSA key,
// and for anything that is not one: parsing finds out.
func faultInRSAKey(der []byte, maxBits int) string {
	numbers, ok := rsaNumbers(der)
	if !ok {
		return ""
	}
	version, modulus := numbers[0], numbers[1].BitLen()
	if version.Sign() != 0 { // RFC 8017, A.1.2
		return "is an RSA key with more than two primes, want two"
	}
	if modulus > maxBits {
		return tooManyBits(modulus, maxBits).Error()
	}
	const prime1 = 4
	for i, number := range numbers {
		most := modulus
		if i >= prime1 { // the primes, and what is below one of them
			most = modulus * 5 / 8
		}
		if number.BitLen() > most {
			return "is an RSA key with a number that is too large for its size"
		}
	}
	return ""
}

// rsaNumbers returns the integers that an RSAPrivateKey (RFC 8017, A.1.2) begins with, itself or
// in PKCS#8, from the version to the coefficient.
func rsaNumbers(der []byte) ([]*big.Int, bool) {
	var body, key cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) {
		return nil, false
	}
	rest := body
	if rest.SkipASN1(cbasn1.INTEGER) && rest.SkipASN1(cbasn1.SEQUENCE) && rest.ReadASN1(&key, cbasn1.OCTET_STRING) {
		if !key.ReadASN1(&body, cbasn1.SEQUENCE) {
			return nil, false
		}
	}
	var numbers []*big.Int
	for len(numbers) < 9 && body.PeekASN1Tag(cbasn1.INTEGER) {
		number := new(big.Int)
		if !body.ReadASN1Integer(number) {
			return nil, false
		}
		numbers = append(numbers, number)
	}
	return numbers, len(numbers) >= 3 // SEC 1 has one, and an OCTET STRING
}
