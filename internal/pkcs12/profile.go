package pkcs12

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
)

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

// likeProfile is the profile for readers of the file as it is. A store of JDK 8 mixes RC2 with 3DES and so has no
// profile, but its readers read the legacy one.
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
