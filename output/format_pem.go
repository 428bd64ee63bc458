package output

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// TypePEM is the format of PEM files (RFC 7468), which have no passwords.
const TypePEM = "PEM"

var pemFormat = Format{
	Name: TypePEM, OtherNames: []string{"CRT", "CER", "KEY", "PKCS8", "BASE64", "X509", "TLS"},
	truststore: File{Name: "truststore.pem", Content: "the trusted certificates, one after the other",
		encode: func(e *encoder) ([]byte, error) { return certificatesPEM(e.bundle.Trusted), nil }},
	keystores: []File{
		{Name: "keystore-combined.pem", holds: privateKey,
			Content: "`key.pem` and `keystore.pem` in one file, for readers that open only one",
			encode: func(e *encoder) ([]byte, error) {
				return append(bytes.Clone(e.keyPEM), certificatesPEM(e.bundle.Chain)...), nil
			}},
		{Name: "key.pem", holds: privateKey, Content: "the private key, PKCS#8 without a password",
			encode: func(e *encoder) ([]byte, error) { return e.keyPEM, nil }},
		{Name: "keystore.pem", Content: "the chain, the certificate first, without the root",
			encode: func(e *encoder) ([]byte, error) { return certificatesPEM(e.bundle.Chain), nil }},
	},
	read: reader.pemFiles,
}

func certificatesPEM(certs []*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return text
}

func (r reader) pemFiles() (b Bundle, err error) {
	entries, err := r.open("key.pem", "", keystore.PEM)
	if err != nil {
		return Bundle{}, err
	}
	if len(entries) != 1 || entries[0].Key == nil || len(entries[0].Chain) != 0 {
		return Bundle{}, r.fault("key.pem", "has %s, want one private key", describe(entries))
	}
	b.Key = entries[0].Key
	if b.Chain, err = r.certificates("keystore.pem"); err != nil {
		return Bundle{}, err
	}
	if b.Trusted, err = r.certificates("truststore.pem"); err != nil {
		return Bundle{}, err
	}
	both := slices.Concat(r.files["key.pem"].data, r.files["keystore.pem"].data)
	if !r.anyForm && !bytes.Equal(r.files["keystore-combined.pem"].data, both) {
		return Bundle{}, r.fault("keystore-combined.pem", "has something else than key.pem and keystore.pem")
	}
	return b, nil
}

func (r reader) certificates(name string) ([]*x509.Certificate, error) {
	entries, err := r.open(name, "", keystore.PEM)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, e := range entries {
		if e.Key != nil {
			return nil, r.fault(name, "has a private key, want certificates only")
		}
		certs = append(certs, e.Chain[0])
	}
	return certs, nil
}
