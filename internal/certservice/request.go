package certservice

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"
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

// maxRSABits bounds the modulus before anything is computed with it: the cost of a verification grows
// with its square, and a header has room for a modulus of 300,000 bits.
const maxRSABits = 8192

// maxKeyPEM bounds a private key for the same reason; RSA with 8192 bits needs 6.5 KB.
const maxKeyPEM = 8 << 10

// requestError is a fault in the client's headers. Neither text holds any part of a header's value.
type requestError struct {
	message string // for the client
	reason  string // for the audit line: which header, and what is wrong with it
}

func (e *requestError) Error() string { return e.message + ": " + e.reason }

// parseRequest reads the headers of an enrolment, and with update those of an update.
func parseRequest(header http.Header, update bool) (Request, *requestError) {
	var r Request
	var reason string
	if r.CSR, reason = parseCSR(header); reason != "" {
		return Request{}, &requestError{messageCSR, headerCSR + " " + reason}
	}
	if r.Key, reason = parseKey(header, headerKey); reason != "" {
		return Request{}, &requestError{messageKey, headerKey + " " + reason}
	}
	if !samePublicKey(r.Key.Public(), r.CSR.PublicKey) {
		return Request{}, &requestError{messageKey, headerKey + " is not the key of the CSR"}
	}
	if !update {
		return r, nil
	}
	if r.OldCert, r.OldChain, reason = parseOldCert(header); reason != "" {
		return Request{}, &requestError{messageCert, headerOldCert + " " + reason}
	}
	// The ONAP server calls a wrong old key a wrong certificate, too.
	if r.OldKey, reason = parseKey(header, headerOldKey); reason != "" {
		return Request{}, &requestError{messageCert, headerOldKey + " " + reason}
	}
	if !samePublicKey(r.OldKey.Public(), r.OldCert.PublicKey) {
		return Request{}, &requestError{messageCert, headerOldKey + " is not the key of OLD_CERT"}
	}
	return r, nil
}

// parseCSR returns a request whose signature is verified, or what is wrong with the header.
func parseCSR(header http.Header) (*x509.CertificateRequest, string) {
	text, reason := decodeHeader(header, headerCSR)
	if reason != "" {
		return nil, reason
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, "is not PEM"
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, "is not a PKCS#10 request"
	}
	if !supported(csr.PublicKey) {
		return nil, "has a public key of a kind or size that is not supported"
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, "has a signature that does not verify"
	}
	return csr, ""
}

// parseKey takes PKCS#8, PKCS#1 and SEC 1 whatever the PEM label says: clients in the field put PKCS#8
// under "RSA PRIVATE KEY" and the reverse.
func parseKey(header http.Header, name string) (crypto.Signer, string) {
	text, reason := decodeHeader(header, name)
	if reason != "" {
		return nil, reason
	}
	if len(text) > maxKeyPEM {
		return nil, "is too large"
	}
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes them ahead of the key
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, "is not PEM"
	}
	key, ok := parsePrivateKey(block.Bytes)
	if !ok {
		return nil, "is neither PKCS#8 nor PKCS#1 nor SEC 1"
	}
	signer, ok := key.(crypto.Signer)
	if !ok || !supported(signer.Public()) {
		return nil, "is a key of a kind or size that is not supported"
	}
	return signer, ""
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

// parseOldCert returns the first certificate of the header, and those that follow it.
func parseOldCert(header http.Header) (*x509.Certificate, []*x509.Certificate, string) {
	text, reason := decodeHeader(header, headerOldCert)
	if reason != "" {
		return nil, nil, reason
	}
	var chain []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, "is not an X.509 certificate"
		}
		chain = append(chain, cert)
		text = rest
	}
	if len(chain) == 0 {
		return nil, nil, "is not PEM"
	}
	if !supported(chain[0].PublicKey) {
		return nil, nil, "has a public key of a kind or size that is not supported"
	}
	return chain[0], chain[1:], ""
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

func supported(pub crypto.PublicKey) bool {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return pub.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	default:
		return false
	}
}

func samePublicKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}
