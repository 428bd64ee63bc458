// Package pkcs12 reads and writes PKCS#12 files (RFC 7292) as Java key stores use them: several
// private keys with their certificates, and trusted certificates with the attribute that a JVM asks
// for.
//
// It reads files encrypted with PBES2 (RFC 8018: AES-CBC or three-key 3DES, PBKDF2) or with the old
// SHA-1 schemes of RFC 7292 appendix C (3DES, RC2), with the MAC of RFC 7292 or PBMAC1 (RFC 9579),
// and files with neither encryption nor MAC. It writes two profiles, ProfileModern and ProfileLegacy.
//
// It reads BER as well as DER. It does not read DES, RC4, MD5, files protected with public keys, or secret and CRL
// bags (which are skipped), and it does not decide whom to trust.
package pkcs12

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
)

// ErrPassword says that a file or a key in it cannot be opened with the given password.
var ErrPassword = errors.New("wrong password")

// Contents is what a PKCS#12 file holds, in the order of the file.
type Contents struct {
	Keys         []Key
	Certificates []Certificate
	Unreadable   []Unreadable // of Decode; Encode does not look at them
	// Others are the friendlyNames of entries of kinds that are not read, such as secret keys; of Decode only.
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
	// Trusted is Java's mark of a trusted certificate entry, whatever usages it lists. A JVM ignores a
	// certificate that neither has it nor belongs to a key.
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
