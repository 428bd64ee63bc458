package keygen_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"log"

	"github.com/certfetcher/certfetcher/keygen"
)

func ExampleCreateCSR() {
	key, err := keygen.GenerateKey("ECDSA-P256")
	if err != nil {
		log.Fatal(err)
	}
	subject, err := asn1.Marshal(pkix.Name{CommonName: "app.example.org"}.ToRDNSequence())
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.CertificateRequest{RawSubject: subject, DNSNames: []string{"app.example.org"}}
	csr, err := keygen.CreateCSR(template, key)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(csr.Subject, csr.DNSNames, csr.SignatureAlgorithm)
	// Output: CN=app.example.org [app.example.org] ECDSA-SHA256
}

func ExampleAlgorithms() {
	fmt.Println(keygen.Algorithms())
	// Output: [RSA-2048 RSA-3072 RSA-4096 ECDSA-P256 ECDSA-P384 ECDSA-P521 Ed25519]
}
