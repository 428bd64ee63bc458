package keystore

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// decodePEM reads private keys and certificates in any order. Each key gets its chain; certificates
// that are in no chain become entries of their own. Blocks of other kinds, such as DH parameters and CRLs, are passed
// over.
func (s *Store) decodePEM(data []byte, password string, keys bool) error {
	blocks, err := pki.PEMBlocks(data)
	if err != nil {
		return err
	}
	var signers []crypto.Signer
	var certs []*x509.Certificate
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
			certs = append(certs, cert)
		case strings.HasSuffix(b.Label, "PRIVATE KEY"):
			if !keys {
				continue
			}
			key, err := parsePEMKey(b, decrypter)
			if err != nil {
				s.unreadable(b.String(), true, err)
				continue
			}
			signers = append(signers, key)
		default:
			others = append(others, b.Label)
		}
	}
	s.Entries = entriesOf(signers, certs)
	if len(s.Entries) == 0 && len(s.Unreadable) == 0 && len(others) > 0 {
		return fmt.Errorf("%w, only PEM blocks %q%s", errNoEntries, few(others), convert(others))
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

func entriesOf(keys []crypto.Signer, certs []*x509.Certificate) []Entry {
	var entries []Entry
	inChain := map[string]bool{} // by DER, so that a certificate listed twice counts once
	for _, key := range keys {
		chain := Chain(key.Public(), certs)
		for _, cert := range chain {
			inChain[string(cert.Raw)] = true
		}
		entries = append(entries, Entry{Key: key, Chain: chain})
	}
	for _, cert := range certs {
		if !inChain[string(cert.Raw)] {
			entries = append(entries, Entry{Chain: []*x509.Certificate{cert}})
		}
	}
	return entries
}
