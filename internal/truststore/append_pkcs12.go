package truststore

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"slices"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidCertBag       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidTrustedUsage  = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1} // Oracle's, see internal/pkcs12
	oidAnyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	derSecretBag     = mustMarshal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 5})
	derPBES2         = mustMarshal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13})
	derEncryptedData = mustMarshal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6})
	tagExplicit0     = cbasn1.Tag(0).ContextSpecific().Constructed()
	tagBMPString     = cbasn1.Tag(30)
	errStructure     = errors.New("its PKCS#12 structure is not understood")
	errSecretKeys    = errors.New("it holds secret keys (keytool -genseckey), which would be lost: take them to a store of their own")
)

func mustMarshal(oid asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return der
}

// appendPKCS12 adds certificates that a JVM trusts. In a store made by openssl, which marks none as
// trusted, it marks all that are loose: else a JVM would see the new ones only, where before the merge
// every reader but a JVM saw the others.
func appendPKCS12(data []byte, password string, added []anchor) ([]byte, error) {
	contents, err := pkcs12.Decode(data, password)
	if err != nil {
		return nil, err
	}
	entries, _, err := keystore.Decode(data, password)
	if err != nil {
		return nil, err
	}
	var loose []anchor
	if !anyMarked(entries) {
		loose = anchors(entries, keystore.PKCS12)
	}
	if inTheClear(data) {
		return appendClear(data, slices.Concat(loose, added))
	}
	if bytes.Contains(data, derSecretBag) {
		return nil, errSecretKeys
	}
	for i, c := range contents.Certificates {
		if slices.ContainsFunc(loose, func(a anchor) bool { return a.cert.Equal(c.Certificate) }) {
			contents.Certificates[i].Trusted = true
		}
	}
	for _, a := range added {
		contents.Certificates = append(contents.Certificates,
			pkcs12.Certificate{Certificate: a.cert, FriendlyName: a.alias, Trusted: true})
	}
	return pkcs12.Encode(*contents, password, profileOf(data))
}

// profileOf finds the profile for readers of the store as it is. A store of JDK 8 mixes RC2 with 3DES
// and so has no profile, but whoever reads it reads the legacy one.
func profileOf(data []byte) pkcs12.Profile {
	if profile, err := pkcs12.ProfileOf(data); err == nil {
		return profile
	}
	if bytes.Contains(data, derPBES2) {
		return pkcs12.ProfileModern
	}
	return pkcs12.ProfileLegacy
}

// inTheClear tells a store without password, such as the cacerts of JDK 18 and later: no MAC, and
// certificates that are not encrypted. It has to stay one, because its readers have no password.
func inTheClear(data []byte) bool {
	s := cryptobyte.String(data)
	var body cryptobyte.String
	return s.ReadASN1(&body, cbasn1.SEQUENCE) && body.SkipASN1(cbasn1.INTEGER) &&
		body.SkipASN1(cbasn1.SEQUENCE) && body.Empty() && !bytes.Contains(data, derEncryptedData)
}

// appendClear adds certificates to the last part of a store without password; all that is there keeps
// its bytes.
func appendClear(data []byte, added []anchor) ([]byte, error) {
	s := cryptobyte.String(data)
	var body, info, parts, last, bags cryptobyte.String
	var version int
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1Integer(&version) ||
		!body.ReadASN1(&info, cbasn1.SEQUENCE) || !readContent(info, &parts) {
		return nil, errStructure
	}
	var before []byte
	for rest := parts; !rest.Empty(); {
		before = parts[:len(parts)-len(rest)]
		if !rest.ReadASN1(&last, cbasn1.SEQUENCE) {
			return nil, errStructure
		}
	}
	if len(last) > 0 && !readContent(last, &bags) {
		return nil, errStructure
	}
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(int64(version))
		addContent(b, func(b *cryptobyte.Builder) {
			b.AddBytes(before)
			addContent(b, func(b *cryptobyte.Builder) {
				b.AddBytes(bags)
				for _, a := range added {
					addCertBag(b, a)
				}
			})
		})
	})
	return out.Bytes()
}

// readContent reads a ContentInfo of type data (RFC 2315 section 7) that holds a SEQUENCE, as far as
// to the inside of that.
func readContent(info cryptobyte.String, inside *cryptobyte.String) bool {
	var oid asn1.ObjectIdentifier
	var explicit, octets cryptobyte.String
	return info.ReadASN1ObjectIdentifier(&oid) && oid.Equal(oidData) && info.ReadASN1(&explicit, tagExplicit0) &&
		explicit.ReadASN1(&octets, cbasn1.OCTET_STRING) && octets.ReadASN1(inside, cbasn1.SEQUENCE)
}

// addContent writes what readContent reads.
func addContent(b *cryptobyte.Builder, inside cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidData)
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, inside) })
		})
	})
}

// addCertBag writes SafeBag and CertBag, RFC 7292 section 4.2, of a certificate that a JVM trusts.
func addCertBag(b *cryptobyte.Builder, a anchor) {
	attributes := [][]byte{
		attribute(oidTrustedUsage, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidAnyUsage) }),
		attribute(oidFriendlyName, func(b *cryptobyte.Builder) {
			b.AddASN1(tagBMPString, func(b *cryptobyte.Builder) {
				for _, unit := range utf16.Encode([]rune(a.alias)) {
					b.AddUint16(unit)
				}
			})
		}),
	}
	// DER wants the elements of a SET in the order of their encodings.
	slices.SortFunc(attributes, bytes.Compare)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidCertBag)
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidX509)
				b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(a.cert.Raw) })
			})
		})
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(attributes, nil)) })
	})
}

func attribute(id asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddASN1(cbasn1.SET, value)
	})
	return b.BytesOrPanic() // names have at most maxAlias characters, so no length overflows
}
