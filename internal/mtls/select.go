package mtls

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// chosen is the key to use and its chain.
type chosen struct {
	certificate tls.Certificate
	format      keystore.Format
	skipped     []string // one sentence for each entry of KEYSTORE_PATH that cannot be read
}

// certificate finds the key to use and its chain.
func (c contents) certificate(f Files) (chosen, error) {
	variable := passwordVariable("KEYSTORE_PASSWORD", f.KeystorePasswordFile)
	store, err := open("KEYSTORE_PATH", f.KeystorePath, variable, c.keystorePassword, c.keystore,
		f.KeystoreKeyPath == "")
	if err != nil {
		return chosen{}, err
	}
	entries, format := store.Entries, store.Format
	if f.KeystoreKeyPath != "" {
		if format != keystore.PEM {
			return chosen{},
				fmt.Errorf("KEYSTORE_KEY_PATH is set to %q, but KEYSTORE_PATH %q is a %s store, which has its key "+
					"inside: unset the former", f.KeystoreKeyPath, f.KeystorePath, format)
		}
		if entries, err = c.withKeyFile(f, entries); err != nil {
			return chosen{}, err
		}
	}
	entry, err := choose(entries, f.Server, time.Now())
	if err != nil {
		if unreadable := store.unreadableKey(); unreadable != nil {
			return chosen{}, unreadable // no other key will do, so this is the one that was meant
		}
		return chosen{}, fmt.Errorf("KEYSTORE_PATH %q %w", f.KeystorePath, err)
	}
	cert := tls.Certificate{PrivateKey: entry.Key, Leaf: entry.Chain[0]}
	for _, link := range entry.Chain {
		if pki.Unusable(link) != nil && bytes.Equal(link.RawSubject, link.RawIssuer) {
			// a root, which the other side has no need of; it
			// might end the handshake for want of understanding
			continue
		}
		cert.Certificate = append(cert.Certificate, link.Raw)
	}
	return chosen{cert, format, store.skippedEntries()}, nil
}

// withKeyFile gives each key of the key file its chain among the certificates of the keystore.
// Keys that the keystore has itself are passed over: the key file was named explicitly.
func (c contents) withKeyFile(f Files, stored []keystore.Entry) ([]keystore.Entry, error) {
	variable := passwordVariable("KEYSTORE_PASSWORD", f.KeystorePasswordFile)
	store, err := open("KEYSTORE_KEY_PATH", f.KeystoreKeyPath, variable, c.keystorePassword, c.key, true)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, entry := range stored {
		certs = append(certs, entry.Chain...)
	}
	keys := slices.DeleteFunc(store.Entries, func(e keystore.Entry) bool { return e.Key == nil })
	if len(keys) == 0 {
		if unreadable := store.unreadableKey(); unreadable != nil {
			return nil, unreadable
		}
		return nil, fmt.Errorf("KEYSTORE_KEY_PATH %q holds no private key, only certificates: want a PEM private key",
			f.KeystoreKeyPath)
	}
	for i := range keys {
		keys[i].Chain = keystore.Chain(keys[i].Key.Public(), certs)
	}
	if !slices.ContainsFunc(keys, func(e keystore.Entry) bool { return len(e.Chain) > 0 }) {
		return nil, fmt.Errorf(
			"KEYSTORE_KEY_PATH %q has a key that none of the %d certificates in KEYSTORE_PATH %q is for: check "+
				"that the two belong together", f.KeystoreKeyPath, len(certs), f.KeystorePath)
	}
	return keys, nil
}

// choose takes, of several keys, one whose certificate is good for the purpose, then one that is
// valid now, then the first alias; in PEM, which has none, the first in the file.
func choose(entries []keystore.Entry, server bool, now time.Time) (keystore.Entry, error) {
	var keys []keystore.Entry
	loose, certs := false, 0
	var unusable error
	for _, e := range entries {
		switch {
		case e.Key == nil:
			certs++
		case len(e.Chain) > 0 && pki.Unusable(e.Chain[0]) != nil:
			unusable = fmt.Errorf("has a certificate %q that cannot be used: %w",
				pki.DN(e.Chain[0].RawSubject), pki.Unusable(e.Chain[0]))
		case len(e.Chain) == 0 || !pki.SameKey(e.Key.Public(), e.Chain[0].PublicKey):
			loose = true
		default:
			keys = append(keys, e)
		}
	}
	switch {
	case len(keys) == 0 && unusable != nil:
		return keystore.Entry{}, unusable
	case len(keys) == 0 && loose:
		return keystore.Entry{},
			errors.New("has a private key without the certificate for it: want both from the " +
				"same request; where the key is a PEM file of its own, its certificate goes to " +
				"KEYSTORE_PATH and the key to KEYSTORE_KEY_PATH")
	case len(keys) == 0:
		return keystore.Entry{},
			fmt.Errorf("has no private key, only certificates (%d): want a store with a key and "+
				"its certificate (is it the truststore?), or a PEM key in KEYSTORE_KEY_PATH", certs)
	}
	return slices.MinFunc(keys, func(a, b keystore.Entry) int {
		return cmp.Or(
			first(goodFor(a.Chain[0], server), goodFor(b.Chain[0], server)),
			first(validAt(a.Chain[0], now), validAt(b.Chain[0], now)),
			cmp.Compare(a.Alias, b.Alias),
		)
	}), nil
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func validAt(cert *x509.Certificate, now time.Time) bool {
	return !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
}

// goodFor says whether a certificate may be shown by a client or by a server: RFC 5280, sections
// 4.2.1.3 and 4.2.1.12; where an extension is missing, everything is allowed.
func goodFor(cert *x509.Certificate, server bool) bool {
	usage := x509.ExtKeyUsageClientAuth
	if server {
		usage = x509.ExtKeyUsageServerAuth
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return false
	}
	unrestricted := len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0
	return unrestricted || slices.Contains(cert.ExtKeyUsage, usage) ||
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}
