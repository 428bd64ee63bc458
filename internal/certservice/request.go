package certservice

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
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

// maxKeyPEM bounds a private key before anything is computed with it; RSA with 8192 bits needs 6.5 KB.
const maxKeyPEM = 8 << 10

// requestError is a fault in the client's headers. Neither text holds a header's value; a name that the CSR asks for
// may be in both.
type requestError struct {
	message string // for the client
	reason  string // for the audit line: which header, and what is wrong with it
}

func (e *requestError) Error() string { return e.message + ": " + e.reason }

// bad is answered in the ONAP server's words alone, and told is what else the client is told as well.
func bad(message, header, reason string) *requestError {
	return &requestError{message, header + " " + reason}
}

func told(message, header, reason string) *requestError {
	return &requestError{message + ": " + header + " " + reason, header + " " + reason}
}

// parseRequest reads the headers of an enrolment, and with update those of an update. Beside a fault it returns
// what was read before it, for the audit line. Nothing is computed with an RSA key of more than maxRSABits.
func parseRequest(header http.Header, update bool, maxRSABits int) (Request, *requestError) {
	var r Request
	csr, fault := parseCSR(header, maxRSABits)
	if fault != nil {
		return r, fault
	}
	r.CSR = csr
	if r.Key, fault = parseKey(header, headerKey, messageKey, maxRSABits); fault != nil {
		return r, fault
	}
	if !pki.SameKey(r.Key.Public(), r.CSR.PublicKey) {
		return r, &requestError{messageKey, headerKey + " is not the key of the CSR"}
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
		return r, &requestError{messageOldKeyMismatch, headerOldKey + " is not the key of OLD_CERT"}
	}
	return r, nil
}

// parseCSR returns a request whose signature is verified, or what is wrong with the header.
func parseCSR(header http.Header, maxRSABits int) (*x509.CertificateRequest, *requestError) {
	text, reason := decodeHeader(header, headerCSR)
	if reason != "" {
		return nil, badCSR(reason)
	}
	block, reason := firstBlock(text)
	if reason != "" {
		return nil, badCSR(reason)
	}
	csr, err := readCSR(block.Bytes)
	if err == nil {
		err = checkRSABits(csr.PublicKey, maxRSABits)
	}
	if fault, ok := errors.AsType[csrFault](err); ok {
		return nil, &requestError{messageCSR + ": the CSR " + fault.Error(), headerCSR + " " + fault.Error()}
	}
	if err != nil {
		return nil, badCSR(err.Error())
	}
	if cmp.CheckKey(csr.PublicKey) != nil {
		return nil, badCSR("has a public key of a kind or size that is not supported")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, badCSR("has a signature that does not verify")
	}
	return csr, nil
}

func badCSR(reason string) *requestError { return bad(messageCSR, headerCSR, reason) }

// parseKey takes PKCS#8, PKCS#1 and SEC 1 whatever the PEM label says: clients in the field put PKCS#8
// under "RSA PRIVATE KEY" and the reverse.
func parseKey(header http.Header, name, message string, maxRSABits int) (crypto.Signer, *requestError) {
	text, reason := decodeHeader(header, name)
	if reason != "" {
		return nil, bad(message, name, reason)
	}
	if len(text) > maxKeyPEM {
		return nil, bad(message, name, "is too large")
	}
	block, reason := firstBlock(text)
	if reason != "" {
		return nil, bad(message, name, reason)
	}
	if reason := faultInRSAKey(block.Bytes, maxRSABits); reason != "" {
		return nil, told(message, name, reason)
	}
	key, ok := parsePrivateKey(block.Bytes)
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

// firstBlock is the first PEM block that means anything: openssl ecparam -genkey writes parameters ahead of the key.
func firstBlock(text []byte) (pki.PEMBlock, string) {
	blocks, err := pki.PEMBlocks(text)
	if err != nil {
		return pki.PEMBlock{}, err.Error()
	}
	for _, block := range blocks {
		switch {
		case block.Label == "EC PARAMETERS":
		case block.Err != nil:
			return pki.PEMBlock{}, "has a PEM block that cannot be read: " + block.Err.Error()
		default:
			return block, ""
		}
	}
	return pki.PEMBlock{}, "is not PEM"
}

// parseOldCert returns the first certificate of the header, and those that follow it, which are only passed on.
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
		return nil, nil, told(messageCert, headerOldCert, err.Error())
	}
	if pki.Unusable(chain[0]) != nil || cmp.CheckKey(chain[0].PublicKey) != nil {
		return fault("has a public key of a kind or size that is not supported")
	}
	return chain[0], chain[1:], nil
}

// decodeHeader undoes the Base64, with or without its padding. A header given twice is refused, because
// a proxy ahead of us may have looked at the other one.
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
