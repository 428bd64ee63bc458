package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CRL is a complete certificate revocation list (RFC 5280, section 5). It keeps the DER that it
// was read from and four bytes for each entry; what crypto/x509 makes of an entry takes 400.
type CRL struct {
	RawIssuer              []byte
	ThisUpdate, NextUpdate time.Time
	Number                 *big.Int // nil: it has none
	AuthorityKeyID         []byte   // nil: it has none
	scope                  crlScope
	list                   *x509.RevocationList // without name and entries, but for the signature's bytes
	entries                cryptobyte.String
	index                  []uint32 // where the entries begin, sorted by serial number
}

// Revocation is an entry of a CRL.
type Revocation struct {
	At     time.Time
	Reason string // as RFC 5280, 5.3.1 calls it; unspecified where the entry says none
}

// UnusedCRLError says why a CRL that can be read is of a kind that is not used here.
type UnusedCRLError string

func (e UnusedCRLError) Error() string { return string(e) }

// crlScope says which certificates of its issuer a CRL is for (RFC 5280, 5.2.5).
type crlScope struct {
	users, authorities bool     // only these
	points             []string // URIs, of which a certificate must name one; nil: all certificates
	raw                string   // the extension; empty: none
}

var (
	oidDeltaCRL          = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	// Those that x509.ParseRevocationList reads, which some authorities mark critical.
	oidCRLNumber      = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}
	// Of entries, as DER.
	derReasonCode        = []byte{0x55, 0x1d, 0x15}
	derInvalidityDate    = []byte{0x55, 0x1d, 0x18}
	derCertificateIssuer = []byte{0x55, 0x1d, 0x1d}
)

var errCRL = errors.New("it is not the DER of a CRL, or was cut short")

// ParseCRL reads the DER of a CRL, which must not be changed afterwards. The error is an
// UnusedCRLError for what would be half of the truth: delta and indirect CRLs, those for some
// reasons or for attribute certificates, those with a critical extension that is not known, and
// those that do not say when they end. CRLs of version 1 have no extensions and are read, too.
func ParseCRL(der []byte) (*CRL, error) {
	s := cryptobyte.String(der)
	var body, raw, tbs, version, algorithm, issuer, revoked, extensions cryptobyte.String
	tag := cbasn1.Tag(0).ContextSpecific().Constructed()
	if len(der) > math.MaxInt32 || !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() ||
		!body.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return nil, errCRL
	}
	c := &CRL{}
	element := raw
	if !element.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		(tbs.PeekASN1Tag(cbasn1.INTEGER) && !tbs.ReadASN1Element(&version, cbasn1.INTEGER)) ||
		!tbs.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) {
		return nil, errCRL
	}
	times := tbs
	if !skipTime(&tbs) {
		return nil, errCRL
	}
	skipTime(&tbs) // nextUpdate, which is optional
	times = times[:len(times)-len(tbs)]
	if (tbs.PeekASN1Tag(cbasn1.SEQUENCE) && !tbs.ReadASN1(&revoked, cbasn1.SEQUENCE)) ||
		(tbs.PeekASN1Tag(tag) && !tbs.ReadASN1Element(&extensions, tag)) || !tbs.Empty() ||
		(version == nil && extensions != nil) {
		return nil, errCRL
	}
	if version == nil {
		version = cryptobyte.String{byte(cbasn1.INTEGER), 1, 1} // version 2, as no other is parsed
	}
	// What is left without the entries, which crypto/x509 would copy, and without the name, which
	// it may refuse for an underscore, it reads.
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, part := range [][]byte{version, algorithm, {byte(cbasn1.SEQUENCE), 0}, times, extensions} {
				b.AddBytes(part)
			}
		})
		b.AddBytes(body)
	})
	outline, err := b.Bytes()
	if err != nil {
		return nil, errCRL
	}
	if c.list, err = x509.ParseRevocationList(outline); err != nil {
		return nil, fmt.Errorf("it is a CRL that cannot be read: %w", err)
	}
	c.list.RawTBSRevocationList = raw
	c.RawIssuer, c.ThisUpdate, c.NextUpdate = issuer, c.list.ThisUpdate, c.list.NextUpdate
	c.Number, c.AuthorityKeyID = c.list.Number, c.list.AuthorityKeyId
	err = c.readExtensions()
	if err == nil && c.NextUpdate.IsZero() {
		err = UnusedCRLError("it has no nextUpdate, so that nobody can tell when it is out of date")
	}
	if err == nil {
		err = c.readEntries(revoked)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func skipTime(s *cryptobyte.String) bool {
	return s.PeekASN1Tag(cbasn1.UTCTime) && s.SkipASN1(cbasn1.UTCTime) ||
		s.PeekASN1Tag(cbasn1.GeneralizedTime) && s.SkipASN1(cbasn1.GeneralizedTime)
}

func (c *CRL) readExtensions() error {
	seen := map[string]bool{}
	for _, e := range c.list.Extensions {
		id := e.Id.String()
		if seen[id] {
			return fmt.Errorf("it is a CRL with the extension %s twice", id)
		}
		seen[id] = true
		switch {
		case e.Id.Equal(oidDeltaCRL):
			return UnusedCRLError("it is a delta CRL, which has changes only: want the complete CRL")
		case e.Id.Equal(oidDistributionPoint):
			if err := c.scope.read(e.Value); err != nil {
				return err
			}
		case e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKeyID):
			return UnusedCRLError("it has a critical extension that is not supported: OID " + id)
		}
	}
	return nil
}

// read reads an issuingDistributionPoint.
func (scope *crlScope) read(der []byte) error {
	malformed := errors.New("it is a CRL with an issuingDistributionPoint that cannot be read")
	s := cryptobyte.String(der)
	var fields, point cryptobyte.String
	var hasPoint bool
	if !s.ReadASN1(&fields, cbasn1.SEQUENCE) || !s.Empty() ||
		!fields.ReadOptionalASN1(&point, &hasPoint, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return malformed
	}
	var flags [6]bool
	for n := 1; n <= 5; n++ {
		var value cryptobyte.String
		var present bool
		if !fields.ReadOptionalASN1(&value, &present, cbasn1.Tag(n).ContextSpecific()) {
			return malformed
		}
		if n == 3 {
			flags[n] = present // onlySomeReasons is a BIT STRING
		} else if present {
			if len(value) != 1 {
				return malformed
			}
			flags[n] = value[0] != 0
		}
	}
	if !fields.Empty() {
		return malformed
	}
	switch {
	case flags[4]:
		return UnusedCRLError("it is an indirect CRL, which lists certificates of others than its " +
			"issuer: want a CRL of each issuer")
	case flags[3]:
		return UnusedCRLError("it is for some reasons of revocation only: want a CRL for all reasons")
	case flags[5]:
		return UnusedCRLError("it is for attribute certificates only")
	case flags[1] && flags[2]:
		return UnusedCRLError("it is for no certificates: only for users' and only for authorities'")
	}
	scope.users, scope.authorities, scope.raw = flags[1], flags[2], string(der)
	if !hasPoint {
		return nil
	}
	return scope.readPoint(point)
}

// readPoint reads a DistributionPointName.
func (scope *crlScope) readPoint(point cryptobyte.String) error {
	var names cryptobyte.String
	if point.ReadASN1(&names, cbasn1.Tag(0).ContextSpecific().Constructed()) && point.Empty() {
		for !names.Empty() {
			var name cryptobyte.String
			var tag cbasn1.Tag
			if !names.ReadAnyASN1(&name, &tag) {
				return errors.New("it is a CRL with a distribution point that cannot be read")
			}
			if tag == cbasn1.Tag(6).ContextSpecific() {
				scope.points = append(scope.points, string(name))
			}
		}
	}
	if scope.points == nil {
		return UnusedCRLError("it is for a distribution point that is not given by a URI")
	}
	return nil
}

// readEntries checks all entries and makes the index.
func (c *CRL) readEntries(revoked cryptobyte.String) error {
	c.entries = revoked
	for rest := revoked; !rest.Empty(); {
		at := len(revoked) - len(rest)
		if at < 0 || at > math.MaxUint32 {
			return errors.New("it has 4 GiB or more")
		}
		c.index = append(c.index, uint32(at))
		if _, err := readCRLEntry(&rest); err != nil {
			if _, unused := errors.AsType[UnusedCRLError](err); unused {
				return err
			}
			return fmt.Errorf("it is a CRL whose entry number %d cannot be read", len(c.index))
		}
	}
	c.index = slices.Clip(c.index)
	slices.SortFunc(c.index, func(a, b uint32) int { return bytes.Compare(c.serialAt(a), c.serialAt(b)) })
	return nil
}

// serialAt is the serial number of an entry that was checked, as DER.
func (c *CRL) serialAt(at uint32) (serial []byte) {
	s, entry := c.entries[at:], cryptobyte.String(nil)
	s.ReadASN1(&entry, cbasn1.SEQUENCE)
	entry.ReadASN1Element((*cryptobyte.String)(&serial), cbasn1.INTEGER)
	return serial
}

// readCRLEntry reads one of revokedCertificates.
func readCRLEntry(s *cryptobyte.String) (r Revocation, err error) {
	var entry, serial, extensions cryptobyte.String
	if !s.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1(&serial, cbasn1.INTEGER) || !isMinimal(serial) {
		return r, errCRL
	}
	if r.At = readTime(&entry); r.At.IsZero() {
		return r, errCRL
	}
	r.Reason = crlReasons[0]
	if entry.Empty() {
		return r, nil
	}
	if !entry.ReadASN1(&extensions, cbasn1.SEQUENCE) || !entry.Empty() {
		return r, errCRL
	}
	for !extensions.Empty() {
		var extension, id, value cryptobyte.String
		var critical bool
		if !extensions.ReadASN1(&extension, cbasn1.SEQUENCE) ||
			!extension.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
			(extension.PeekASN1Tag(cbasn1.BOOLEAN) && !extension.ReadASN1Boolean(&critical)) ||
			!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
			return r, errCRL
		}
		switch {
		case bytes.Equal(id, derReasonCode):
			var code int
			if !value.ReadASN1Enum(&code) || !value.Empty() {
				return r, errCRL
			}
			if r.Reason = crlReasons[code]; r.Reason == "" {
				r.Reason = fmt.Sprintf("number %d", code)
			}
		case bytes.Equal(id, derCertificateIssuer):
			return r, UnusedCRLError("it has entries for certificates of other issuers: want a CRL of each issuer")
		case critical && !bytes.Equal(id, derInvalidityDate):
			return r, UnusedCRLError("it has an entry with a critical extension that is not supported")
		}
	}
	return r, nil
}

// isMinimal tells whether an INTEGER has no octet too many, so that equal numbers have equal octets.
func isMinimal(octets []byte) bool {
	return len(octets) == 1 || len(octets) > 1 &&
		(octets[0] != 0 || octets[1]&0x80 != 0) && (octets[0] != 0xff || octets[1]&0x80 == 0)
}

// crlReasons has no removeFromCRL as a special case: that belongs into
// delta CRLs, and a complete CRL that lists a certificate revokes it.
var crlReasons = map[int]string{0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged",
	4: "superseded", 5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn",
	10: "aACompromise"}

// Len is how many certificates it lists.
func (c *CRL) Len() int { return len(c.index) }

// Find looks a serial number up.
func (c *CRL) Find(serial *big.Int) (Revocation, bool) {
	want, err := asn1.Marshal(serial)
	if err != nil {
		return Revocation{}, false
	}
	at, found := sort.Find(len(c.index), func(i int) int { return bytes.Compare(want, c.serialAt(c.index[i])) })
	if !found {
		return Revocation{}, false
	}
	s := c.entries[c.index[at]:]
	r, _ := readCRLEntry(&s) // as it did before
	return r, true
}

// Uncovered says why a certificate of the issuer is not among those that the CRL is for, or "".
func (c *CRL) Uncovered(cert *x509.Certificate) string {
	authority := cert.BasicConstraintsValid && cert.IsCA
	switch {
	case c.scope.users && authority:
		return "is not for certificates of authorities"
	case c.scope.authorities && !authority:
		return "is for certificates of authorities only"
	case c.scope.points != nil && !slices.ContainsFunc(cert.CRLDistributionPoints, func(point string) bool {
		return slices.Contains(c.scope.points, point)
	}):
		return "is only for certificates with the CRL distribution point " +
			OneLine(strings.Join(c.scope.points, " or "), 256)
	}
	return ""
}

// SameSeries tells whether two CRLs of one name are for the same certificates, as far as they say,
// so that the newer one replaces the other.
func (c *CRL) SameSeries(other *CRL) bool {
	return c.scope.raw == other.scope.raw && bytes.Equal(c.AuthorityKeyID, other.AuthorityKeyID)
}

// Newer tells whether the CRL was issued after another.
func (c *CRL) Newer(other *CRL) bool {
	if !c.ThisUpdate.Equal(other.ThisUpdate) {
		return c.ThisUpdate.After(other.ThisUpdate)
	}
	return c.Number != nil && (other.Number == nil || c.Number.Cmp(other.Number) > 0)
}

// CheckSignatureFrom verifies the signature with the issuer's key, and
// that the issuer's certificate allows it to sign CRLs.
func (c *CRL) CheckSignatureFrom(issuer *x509.Certificate) error {
	return c.list.CheckSignatureFrom(issuer)
}
