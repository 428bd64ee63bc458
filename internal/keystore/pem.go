package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// decodePEM reads private keys and certificates in any order. Each key gets its chain; certificates
// that are in no chain become entries of their own. Blocks of other kinds, such as DH parameters
// and CRLs, are skipped.
func (s *Store) decodePEM(data []byte, password string, keys bool) error {
	blocks, err := pki.PEMBlocks(data)
	if err != nil {
		return err
	}
	var found []pkcs12.Key
	var certs []pkcs12.Certificate
	var others []string
	decrypter := pkcs12.NewKeyDecrypter(password)
	for _, b := range blocks {
		switch {
		case b.IsCertificate(), b.Label == "":
			cert, err := b.Certificate()
			if err != nil {
				s.unreadable(b.String(), false, err)
				continue
			}
			certs = append(certs, pkcs12.Certificate{Certificate: cert})
		case strings.HasSuffix(b.Label, "PRIVATE KEY"):
			if !keys {
				continue
			}
			key, err := parsePEMKey(b, decrypter)
			if err != nil {
				s.unreadable(b.String(), true, err)
				continue
			}
			found = append(found, pkcs12.Key{Key: key})
		default:
			others = append(others, b.Label)
		}
	}
	s.Entries = assemble(found, certs, func(...string) string { return "" })
	if len(s.Entries) == 0 && len(s.Unreadable) == 0 && len(others) > 0 {
		return fmt.Errorf("%w, only PEM blocks %q%s", ErrEmpty, few(others), convert(others))
	}
	return nil
}

// few names each once, and not all of many.
func few(labels []string) []string {
	slices.Sort(labels)
	labels = slices.Compact(labels)
	for i := range labels {
		labels[i] = pki.OneLine(labels[i], 40)
	}
	return labels[:min(len(labels), 5)]
}

// convert says how certificates come out of blocks that wrap them.
func convert(labels []string) string {
	if slices.Contains(labels, "PKCS7") || slices.Contains(labels, "CMS") {
		return " (take the certificates out with openssl pkcs7 -print_certs)"
	}
	return ""
}

func parsePEMKey(b pki.PEMBlock, decrypter pkcs12.KeyDecrypter) (crypto.Signer, error) {
	if b.Err != nil {
		return nil, b.Err
	}
	if strings.Contains(b.Headers, "Proc-Type") {
		return nil, errors.New("is encrypted in OpenSSL's old way, want PKCS#8 (rewrite it with openssl pkcs8 -topk8)")
	}
	switch b.Label {
	case "PRIVATE KEY":
		return pkcs12.ParseKey(b.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return decrypter.Decrypt(b.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		// The ONAP client labelled its PKCS#8 keys this way.
		if key, err := pkcs12.ParseKey(b.Bytes); err == nil {
			return key, nil
		}
		return x509.ParsePKCS1PrivateKey(b.Bytes)
	default:
		return nil, errors.New("want PRIVATE KEY, ENCRYPTED PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY " +
			"(convert it to PKCS#8 with openssl pkcs8 -topk8 or ssh-keygen -p -m PKCS8)")
	}
}

// appendPEM leaves what is there as it is and adds a block for each certificate. Only a file of
// which other programs do not read every block is written again: they would see the added
// certificates alone, where before they saw that something is wrong.
func appendPEM(data []byte, added []Entry) []byte {
	out := bytes.Clone(data)
	if !pki.IsCleanPEM(data) {
		out = pki.RewritePEM(data)
	}
	if out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	for _, e := range added {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Chain[0].Raw})...)
	}
	return out
}
