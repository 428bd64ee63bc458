package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/certinfo"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
)

// decodePEM reads private keys and certificates in any order. Each key gets its chain; certificates
// that are in no chain become entries of their own.
func decodePEM(data []byte, password string) ([]Entry, error) {
	var keys []crypto.Signer
	var certs []*x509.Certificate
	// encoding/pem passes over a block that it cannot read, which would silently drop a certificate.
	begun := bytes.Count(data, pemBegin)
	read := 0
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		read++
		switch block.Type {
		case "CERTIFICATE":
			cert, err := certinfo.Parse(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading PEM block %d (%s): %w", read, block.Type, err)
			}
			certs = append(certs, cert)
		case "EC PARAMETERS":
			// openssl ecparam writes the curve before the key, which names it again.
		default:
			key, err := parsePEMKey(block, password)
			if err != nil {
				return nil, fmt.Errorf("reading PEM block %d (%s): %w", read, block.Type, err)
			}
			keys = append(keys, key)
		}
	}
	if read != begun {
		return nil, fmt.Errorf("%d of %d PEM blocks are damaged or cut short", begun-read, begun)
	}
	return entriesOf(keys, certs), nil
}

func parsePEMKey(block *pem.Block, password string) (crypto.Signer, error) {
	if block.Headers["Proc-Type"] != "" {
		return nil, errors.New("is encrypted in OpenSSL's old way, want PKCS#8 (rewrite it with openssl pkcs8 -topk8)")
	}
	switch block.Type {
	case "PRIVATE KEY":
		return pkcs12.ParseKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return pkcs12.DecryptKey(block.Bytes, password)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		// The ONAP client labelled its PKCS#8 keys this way.
		if key, err := pkcs12.ParseKey(block.Bytes); err == nil {
			return key, nil
		}
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, errors.New("want CERTIFICATE, PRIVATE KEY, ENCRYPTED PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY")
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
