package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
)

// Version1 returns a certificate as one of X.509 version 1, as old roots are: without its extensions. It was signed
// with SHA-256 and an RSA or ECDSA key, with which it is signed anew.
func Version1(certificate *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	var v3 struct {
		Version                                                 int `asn1:"explicit,tag:0"`
		Serial, Signature, Issuer, Validity, Subject, PublicKey asn1.RawValue
		Extensions                                              asn1.RawValue `asn1:"optional,tag:3"`
	}
	if _, err := asn1.Unmarshal(certificate.RawTBSCertificate, &v3); err != nil {
		return nil, err
	}
	tbs, err := asn1.Marshal([]asn1.RawValue{v3.Serial, v3.Signature, v3.Issuer, v3.Validity, v3.Subject, v3.PublicKey})
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	der, err := asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, v3.Signature, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
