package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

// Password opens the stores that WriteIdentity writes.
const Password = "changeit"

// CAName is the name under which every CertService of the tests knows its CA.
const CAName = "RA"

// WriteIdentity writes one identity and one trust anchor in every form that mutual TLS material may take:
// client.{p12,jks,pem}, client-certificate.pem with client-key.pem, and truststore.{p12,jks,pem}. Other people's libraries
// encode the stores.
func WriteIdentity(dir string, key crypto.Signer, chain []*x509.Certificate, root *x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	client, err := pkcs12.Modern.Encode(key, chain[0], chain[1:], Password)
	if err != nil {
		return fmt.Errorf("encoding the client's PKCS#12 store: %w", err)
	}
	trust, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{root}, Password)
	if err != nil {
		return fmt.Errorf("encoding the PKCS#12 truststore: %w", err)
	}
	clientJKS, trustJKS := jks.New(), jks.New()
	entry := jks.PrivateKeyEntry{CreationTime: time.Now(), PrivateKey: der}
	for _, cert := range chain {
		entry.CertificateChain = append(entry.CertificateChain, jks.Certificate{Type: "X509", Content: cert.Raw})
	}
	if err := clientJKS.SetPrivateKeyEntry("client", entry, []byte(Password)); err != nil {
		return err
	}
	anchor := jks.TrustedCertificateEntry{CreationTime: time.Now(), Certificate: jks.Certificate{Type: "X509", Content: root.Raw}}
	if err := trustJKS.SetTrustedCertificateEntry("root", anchor); err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	files := map[string][]byte{
		"client.p12": client, "truststore.p12": trust, "client-key.pem": keyPEM, "client-certificate.pem": CertificatesPEM(chain...),
		"client.pem": append(bytes.Clone(keyPEM), CertificatesPEM(chain...)...), "truststore.pem": CertificatesPEM(root),
	}
	for name, store := range map[string]jks.KeyStore{"client.jks": clientJKS, "truststore.jks": trustJKS} {
		var content bytes.Buffer
		if err := store.Store(&content, []byte(Password)); err != nil {
			return fmt.Errorf("encoding %s: %w", name, err)
		}
		files[name] = content.Bytes()
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// CertificatesPEM encodes certificates one after the other.
func CertificatesPEM(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return text
}
