// Package pkcs12 reads and writes PKCS#12 files (RFC 7292) as Java
// key stores use them: several private keys with their certificates,
// and trusted certificates with the attribute that a JVM asks for.
//
// It reads files encrypted with PBES2 (RFC 8018: AES-CBC or three-key 3DES,
// PBKDF2) or with the old SHA-1 schemes of RFC 7292 appendix C (3DES, RC2),
// with the MAC of RFC 7292 or PBMAC1 (RFC 9579), and files with neither
// encryption nor MAC. It writes two profiles, ProfileModern and ProfileLegacy.
//
// It reads BER as well as DER. It does not read DES, RC4, MD5, files protected with public keys,
// or secret and CRL bags (which are skipped), and it does not decide whom to trust.
package pkcs12

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// ErrPassword says that a file or a key in it cannot be opened with the given password.
var ErrPassword = errors.New("wrong password")

// Contents is what a PKCS#12 file holds, in the order of the file.
type Contents struct {
	Keys         []Key
	Certificates []Certificate
	Unreadable   []Unreadable // of Decode; Encode does not look at them
	// Others are the friendlyNames of entries of kinds that
	// are not read, such as secret keys; of Decode only.
	Others []string
}

// Unreadable is an entry that could not be read. It does not affect the others.
type Unreadable struct {
	FriendlyName string // empty: the file gives none
	Key          bool   // whether it is a private key, not a certificate
	Err          error  // ErrPassword among others
}

// Key is a private key and its attributes.
type Key struct {
	Key          crypto.Signer // nil: not decrypted, of DecodeClosed only
	FriendlyName string        // empty: the file gives none
	LocalKeyID   []byte        // the key's own certificate has the same value; nil: the file gives none
}

// Certificate is a certificate and its attributes.
type Certificate struct {
	Certificate  *x509.Certificate
	FriendlyName string
	LocalKeyID   []byte
	// Trusted is Java's mark of a trusted certificate entry, whatever usages it lists. A JVM
	// ignores a certificate that neither has it nor belongs to a key.
	Trusted bool
}

// maxIterations bounds the work that one file may ask for, added up over all its parts. A JVM
// refuses more than 5,000,000 iterations in any one part and writes 10,000, so no file made for
// Java comes near it, and a hostile one costs seconds, not hours.
const maxIterations = 5_000_000

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}

	oidKeyBag          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedKeyBag  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidSafeContentsBag = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 6}

	oidX509Certificate = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidLocalKeyID      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 21}

	// Oracle's attribute for trusted certificate entries; its values are extended key usages.
	oidTrustedKeyUsage     = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1}
	oidAnyExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}

	oidPBEWithSHA1And3DES   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}
	oidPBEWithSHA1And2DES   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 4}
	oidPBEWithSHA1AndRC2128 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 5}
	oidPBEWithSHA1AndRC240  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 6}

	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBMAC1 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidScrypt = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}

	oidDESEDE3CBC = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}

	oidSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA224 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 4}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}

	oidSHA512_224 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 5}
	oidSHA512_256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 6}

	oidHMACWithSHA512_224 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 12}
	oidHMACWithSHA512_256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 13}

	oidHMACWithSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACWithSHA224 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 8}
	oidHMACWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACWithSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACWithSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
)

// hashes are the digests that this package knows, with the identifiers under which files name them.
var hashes = []struct {
	hash         crypto.Hash
	digest, hmac asn1.ObjectIdentifier
}{
	{crypto.SHA1, oidSHA1, oidHMACWithSHA1},
	{crypto.SHA224, oidSHA224, oidHMACWithSHA224},
	{crypto.SHA256, oidSHA256, oidHMACWithSHA256},
	{crypto.SHA384, oidSHA384, oidHMACWithSHA384},
	{crypto.SHA512, oidSHA512, oidHMACWithSHA512},
	{crypto.SHA512_224, oidSHA512_224, oidHMACWithSHA512_224},
	{crypto.SHA512_256, oidSHA512_256, oidHMACWithSHA512_256},
}

// Profile names how a file is encrypted and authenticated.
type Profile string

const (
	// ProfileModern is PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC, and HMAC-SHA256: what JDKs
	// write since 8u301, 11.0.12 and 16, and OpenSSL since 3.0.
	ProfileModern Profile = "modern"
	// ProfileLegacy is pbeWithSHAAnd3-KeyTripleDES-CBC and HMAC-SHA1, for readers older than those.
	ProfileLegacy Profile = "legacy"
)

// ProfileOf says which profile a PKCS#12 file was written with. It needs no password, derives no
// key and verifies nothing. An error means that the file cannot be read, or that a part of it is
// protected in a way that belongs to neither profile or to another one than the rest.
func ProfileOf(data []byte) (Profile, error) {
	p, err := parsePFX(data)
	if err != nil {
		return "", err
	}
	if p.mac == nil {
		return "", errors.New("has no MAC, which every profile has")
	}
	var profile Profile
	switch {
	case p.mac.pbmac1 != nil:
		return "", errors.New("has a PBMAC1 MAC, which no profile has")
	case p.mac.hash == crypto.SHA256:
		profile = ProfileModern
	case p.mac.hash == crypto.SHA1:
		profile = ProfileLegacy
	default:
		return "", fmt.Errorf("has a MAC with %v, which no profile has", p.mac.hash)
	}
	for _, part := range p.parts {
		if part.encryption != nil {
			if part.encryption.profile() != profile {
				return "", fmt.Errorf("has the MAC of profile %q and contents encrypted in another way", profile)
			}
			continue
		}
		bags, err := parseBags(part.content, 1)
		if err != nil {
			return "", err
		}
		for _, b := range bags {
			if b.err != nil {
				return "", b.err
			}
			if !b.id.Equal(oidShroudedKeyBag) {
				return "", errors.New("has contents in the clear, which no profile has")
			}
			encryption, _, err := parseEncryptedKey(b.value)
			if err != nil {
				return "", err
			}
			if encryption.profile() != profile {
				return "", fmt.Errorf("has the MAC of profile %q and a key encrypted in another way", profile)
			}
		}
	}
	return profile, nil
}

// profile is empty when the encryption belongs to none.
func (p pbe) profile() Profile {
	switch {
	case p.scheme.Equal(oidPBEWithSHA1And3DES):
		return ProfileLegacy
	case p.scheme.Equal(oidPBES2) && p.cipher.Equal(oidAES256CBC) && p.hash == crypto.SHA256:
		return ProfileModern
	}
	return ""
}

// likeProfile is the profile for readers of the file as it is. A store of JDK 8 mixes RC2 with
// 3DES and so has no profile, but its readers read the legacy one.
func (p pfx) likeProfile() Profile {
	modern := func(e *pbe) bool { return e != nil && e.scheme.Equal(oidPBES2) }
	if slices.ContainsFunc(p.parts, func(part part) bool { return modern(part.encryption) }) {
		return ProfileModern
	}
	for _, part := range p.parts {
		bags, err := parseBags(part.content, 1)
		if part.encryption != nil || err != nil {
			continue
		}
		for _, b := range bags {
			encryption, _, err := parseEncryptedKey(b.value)
			if b.id.Equal(oidShroudedKeyBag) && err == nil && modern(&encryption) {
				return ProfileModern
			}
		}
	}
	return ProfileLegacy
}
