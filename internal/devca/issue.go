package devca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// issuingAlgorithm is what leaves are signed with.
const issuingAlgorithm = x509.ECDSAWithSHA256

var oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}

// issue signs a certificate.
//
// It encodes the certificate here, since x509.CreateCertificate verifies every signature it makes, which would
// be the most expensive step of an enrolment; and so subject and key stay the bytes that were asked for.
func (e *exchange) issue(w wanted) (*x509.Certificate, error) {
	notBefore, notAfter := e.now, e.now.Add(e.ca.config.Validity)
	if e.faults.Expired {
		notBefore, notAfter = e.now.Add(-2*time.Hour), e.now.Add(-time.Hour)
	}
	if notAfter.After(e.ca.issuing.NotAfter) {
		notAfter = e.ca.issuing.NotAfter
	}
	extensions, err := e.ca.extensions(w)
	if err != nil {
		return nil, err
	}
	// RFC 5280, 4.1.
	tbs, err := sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // v3
		b.AddASN1BigInt(newSerial())
		addSignatureAlgorithm(b)
		b.AddBytes(e.ca.issuing.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, notBefore)
			addTime(b, notAfter)
		})
		b.AddBytes(w.subject)
		b.AddBytes(w.key)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, extension := range extensions {
					addExtension(b, extension)
				}
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("encoding certificate: %w", err)
	}
	digest := sha256.Sum256(tbs)
	signature, err := e.ca.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	der, err := sequence(func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addSignatureAlgorithm(b)
		b.AddASN1BitString(signature)
	})
	if err != nil {
		return nil, fmt.Errorf("encoding certificate: %w", err)
	}
	// Names and extensions are the requester's bytes. What does not make a readable certificate is its fault.
	certificate, err := pki.ParseAnyPrintable(der)
	if err != nil {
		return nil, refuse(cmp.FailBadCertTemplate, "the certificate asked for would not be readable: %v", err)
	}
	return certificate, nil
}

// extensions returns all extensions of a leaf: those granted, and the key identifiers.
func (c *CA) extensions(w wanted) ([]pkix.Extension, error) {
	subjectKeyID, err := keyID(w.key)
	if err != nil {
		return nil, err
	}
	// The identifiers are 20 bytes each, so that all lengths are known.
	extensions := []pkix.Extension{
		{Id: oidAuthorityKeyID, Value: append([]byte{0x30, 22, 0x80, 20}, c.issuing.SubjectKeyId...)},
		{Id: oidSubjectKeyID, Value: append([]byte{4, 20}, subjectKeyID...)},
	}
	for _, extension := range w.extensions {
		if extension.Id.Equal(oidSubjectAltName) && emptyName(w.subject) {
			extension.Critical = true // RFC 5280, 4.2.1.6
		}
		extensions = append(extensions, extension)
	}
	return extensions, nil
}

// keyID returns the key identifier of a SubjectPublicKeyInfo after RFC 7093, 2, method 1: 20 bytes.
func keyID(spki []byte) ([]byte, error) {
	s := cryptobyte.String(spki)
	var inner cryptobyte.String
	var key []byte
	if !s.ReadASN1(&inner, cbasn1.SEQUENCE) || !inner.SkipASN1(cbasn1.SEQUENCE) || !inner.ReadASN1BitStringAsBytes(&key) {
		return nil, errors.New("public key is not a SubjectPublicKeyInfo")
	}
	sum := sha256.Sum256(key)
	return sum[:20], nil
}

func sequence(contents func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, contents)
	return b.Bytes()
}

func addSignatureAlgorithm(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSAWithSHA256) })
}

func addExtension(b *cryptobyte.Builder, extension pkix.Extension) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(extension.Id)
		if extension.Critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(extension.Value)
	})
}

// addTime adds a Time: UTCTime before the year 2050, GeneralizedTime from then on (RFC 5280, 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}
