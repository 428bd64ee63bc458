package keystore

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
)

// Profile names how a PKCS#12 store is encrypted and authenticated.
type Profile = pkcs12.Profile

const (
	// ProfileModern is what current JDKs and OpenSSL write: PBES2 with AES-256, HMAC-SHA256.
	ProfileModern = pkcs12.ProfileModern
	// ProfileLegacy is for JDK 8 before 8u301 and JDK 11 before 11.0.12: 3DES, HMAC-SHA1.
	ProfileLegacy = pkcs12.ProfileLegacy
)

// ProfileOf says which profile a PKCS#12 store was written with, without password and in
// microseconds; the error says why it is neither.
func ProfileOf(data []byte) (Profile, error) {
	profile, err := pkcs12.ProfileOf(data)
	if err != nil {
		return "", fmt.Errorf("reading PKCS12 store: %w", err)
	}
	return profile, nil
}

func (s *Store) decodePKCS12(data []byte, password string, keys bool) error {
	decode := pkcs12.DecodeClosed
	if keys {
		decode = pkcs12.Decode
	}
	contents, err := decode(data, password)
	if err != nil {
		return err
	}
	for _, u := range contents.Unreadable {
		where := fmt.Sprintf("entry %q", u.FriendlyName)
		if u.FriendlyName == "" {
			where = "an entry without a name"
		}
		s.unreadable(where, u.Key, u.Err)
	}
	unnamed := 0
	s.Entries = assemble(contents.Keys, contents.Certificates, func(names ...string) string {
		for _, name := range names {
			if name != "" {
				return name
			}
		}
		unnamed++
		return strconv.Itoa(unnamed)
	})
	s.Names = contents.Others
	for _, u := range contents.Unreadable {
		s.Names = append(s.Names, u.FriendlyName)
	}
	for _, e := range s.Entries {
		s.Names = append(s.Names, e.Alias) // the numbers of those without a name
	}
	return nil
}

// assemble makes entries of keys and certificates that a store keeps side by side: each key with
// its chain, then the certificates that are in no chain or marked as trusted. The alias is chosen
// from the names of an entry's parts.
func assemble(keys []pkcs12.Key, certs []pkcs12.Certificate, alias func(names ...string) string) []Entry {
	var entries []Entry
	inChain := map[string]bool{} // by DER, so that a certificate listed twice counts once
	for _, key := range keys {
		chain, leafName := chainFor(key, certs)
		for _, cert := range chain {
			inChain[string(cert.Raw)] = true
		}
		entries = append(entries, Entry{
			Alias: alias(key.FriendlyName, leafName), Key: key.Key, Chain: chain, Closed: key.Key == nil,
		})
	}
	for _, c := range certs {
		// A certificate can be a CA in a key's chain and a trusted entry as well.
		if c.Trusted || !inChain[string(c.Certificate.Raw)] {
			entries = append(entries, Entry{
				Alias: alias(c.FriendlyName), Chain: []*x509.Certificate{c.Certificate}, Trusted: c.Trusted,
			})
		}
	}
	return entries
}

// chainFor finds the key's certificates, and the friendlyName of its own
// one. Where several hold the key, as after a renewal, the localKeyID
// decides; of a key that is closed there is nothing else to go by.
func chainFor(key pkcs12.Key, certs []pkcs12.Certificate) (chain []*x509.Certificate, leafName string) {
	var named, pool []*x509.Certificate
	for _, c := range certs {
		if key.LocalKeyID != nil && bytes.Equal(c.LocalKeyID, key.LocalKeyID) {
			named = append(named, c.Certificate)
		} else {
			pool = append(pool, c.Certificate)
		}
	}
	pool = slices.Concat(named, pool)
	switch {
	case key.Key != nil:
		chain = Chain(key.Key.Public(), pool)
	case len(named) > 0:
		chain = follow(named[0], pool)
	}
	for _, c := range certs {
		if len(chain) > 0 && c.Certificate == chain[0] {
			leafName = c.FriendlyName
		}
	}
	return chain, leafName
}

// EncodePKCS12 writes a PKCS#12 store that Java, OpenSSL and Go read. A key and its own certificate
// carry the alias as friendlyName and the same localKeyID, without which a JVM calls the entry "1";
// trusted certificates carry Java's trusted-key-usage attribute, without which a JVM ignores them.
// Aliases are kept as given; a JVM compares them without regard to case.
func EncodePKCS12(entries []Entry, password string, profile Profile) (data []byte, err error) {
	defer forbidden(&err)
	if err := checkEntries(entries, password); err != nil {
		return nil, err
	}
	var contents pkcs12.Contents
	var issuers []*x509.Certificate
	for _, e := range entries {
		if e.Key == nil {
			contents.Certificates = append(contents.Certificates,
				pkcs12.Certificate{Certificate: e.Chain[0], FriendlyName: e.Alias, Trusted: true})
			continue
		}
		// The value is arbitrary. OpenSSL uses the certificate's
		// SHA-1, which panics in Go's FIPS 140-only mode.
		id := sha256.Sum256(e.Chain[0].Raw)
		contents.Keys = append(contents.Keys, pkcs12.Key{Key: e.Key, FriendlyName: e.Alias, LocalKeyID: id[:]})
		contents.Certificates = append(contents.Certificates,
			pkcs12.Certificate{Certificate: e.Chain[0], FriendlyName: e.Alias, LocalKeyID: id[:]})
		for _, issuer := range e.Chain[1:] {
			if !slices.ContainsFunc(issuers, issuer.Equal) {
				issuers = append(issuers, issuer)
				contents.Certificates = append(contents.Certificates, pkcs12.Certificate{Certificate: issuer})
			}
		}
	}
	data, err = pkcs12.Encode(contents, password, profile)
	if err != nil {
		return nil, fmt.Errorf("writing PKCS12 store: %w", err)
	}
	return data, nil
}

// appendPKCS12 keeps all entries as they are, but for the marks.
func appendPKCS12(data []byte, password string, added, marked []Entry) ([]byte, error) {
	trusted := func(entries []Entry) (certs []pkcs12.Certificate) {
		for _, e := range entries {
			certs = append(certs, pkcs12.Certificate{Certificate: e.Chain[0], FriendlyName: e.Alias, Trusted: true})
		}
		return certs
	}
	return pkcs12.Append(data, password, trusted(added), trusted(marked))
}
