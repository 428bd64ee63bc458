package cmp

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits on what is decoded, so that memory stays a small multiple of the input. Real messages stay
// far below each of them.
const (
	// MaxMessageSize is the largest PKIMessage in bytes that is parsed.
	MaxMessageSize = 1 << 20
	// maxDepth is how deep constructed values may nest; a certificate in an answer needs about 12.
	maxDepth = 32
	// maxElements bounds every SEQUENCE OF, extraCerts among them.
	maxElements = 128
	// maxIntegerSize is the largest INTEGER in bytes; RFC 5280 allows serial numbers of 20.
	maxIntegerSize = 64
	// maxOIDSize is the largest OBJECT IDENTIFIER in bytes.
	maxOIDSize = 64
)

// checkDER walks the whole input before any of it is interpreted, so that the parts kept as opaque
// bytes are held to the same rules: definite minimal lengths, low tag numbers, strings not
// cut into segments, bounded depth (ITU-T X.690, 10).
func checkDER(der []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	s := cryptobyte.String(der)
	for !s.Empty() {
		var contents cryptobyte.String
		var tag cbasn1.Tag
		if !s.ReadAnyASN1(&contents, &tag) {
			return errors.New("not DER")
		}
		constructed := tag&0x20 != 0
		isSet := tag|0x20 == cbasn1.SEQUENCE || tag|0x20 == cbasn1.SET
		if universal := tag&0xc0 == 0; universal && constructed != isSet {
			return fmt.Errorf("not DER: tag 0x%02x", uint8(tag))
		}
		if constructed {
			if err := checkDER(contents, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// decoder reads the contents of one DER value. The first fault is
// kept, shared with the decoders opened from it, and everything read
// after it is empty, so that a fault is asked for once, at the end.
type decoder struct {
	s     cryptobyte.String
	what  string // the structure being read, for errors
	fault *error
	spare *[]decoder // for those opened from it: a message has many
}

func newDecoder(der []byte, what string) *decoder {
	shared := &struct {
		fault error
		spare []decoder
	}{}
	return (&decoder{fault: &shared.fault, spare: &shared.spare}).inner(der, what)
}

// inner returns a decoder of a part of what is read.
func (d *decoder) inner(der []byte, what string) *decoder {
	if len(*d.spare) == 0 {
		*d.spare = make([]decoder, 8)
	}
	inner := &(*d.spare)[0]
	*d.spare = (*d.spare)[1:]
	*inner = decoder{s: der, what: what, fault: d.fault, spare: d.spare}
	return inner
}

func (d *decoder) fail(format string, args ...any) {
	if *d.fault == nil {
		*d.fault = fmt.Errorf(d.what+": "+format, args...)
	}
	d.s = nil
}

// more says whether there is something left to read.
func (d *decoder) more() bool { return *d.fault == nil && !d.s.Empty() }

// next says whether the next element has the tag.
func (d *decoder) next(tag cbasn1.Tag) bool { return *d.fault == nil && d.s.PeekASN1Tag(tag) }

// end refuses what is left over and returns the first fault of all.
func (d *decoder) end() error {
	if d.more() {
		d.fail("has %d bytes after its last field", len(d.s))
	}
	return *d.fault
}

// open returns a decoder of the contents of the next element.
func (d *decoder) open(tag cbasn1.Tag, what string) *decoder {
	inner := d.inner(nil, what)
	if *d.fault == nil && !d.s.ReadASN1(&inner.s, tag) {
		d.fail("%s is missing or malformed", what)
	}
	return inner
}

// contents returns the bytes inside the next element.
func (d *decoder) contents(tag cbasn1.Tag, what string) []byte {
	var out cryptobyte.String
	if *d.fault == nil && !d.s.ReadASN1(&out, tag) {
		d.fail("%s is missing or malformed", what)
	}
	return out
}

// element returns the next element with its tag and length.
func (d *decoder) element(tag cbasn1.Tag, what string) []byte {
	var out cryptobyte.String
	if *d.fault == nil && !d.s.ReadASN1Element(&out, tag) {
		d.fail("%s is missing or malformed", what)
	}
	return out
}

// any returns the next element, whatever its tag.
func (d *decoder) any(what string) []byte {
	var out cryptobyte.String
	var tag cbasn1.Tag
	if *d.fault == nil && !d.s.ReadAnyASN1Element(&out, &tag) {
		d.fail("%s is missing or malformed", what)
	}
	return out
}

func (d *decoder) int64(what string) int64 {
	var n int64
	if *d.fault == nil && !d.s.ReadASN1Integer(&n) {
		d.fail("%s is not an INTEGER of 64 bits", what)
	}
	return n
}

// bigInt reads an INTEGER that may be implicitly tagged.
func (d *decoder) bigInt(tag cbasn1.Tag, what string) *big.Int {
	contents := d.contents(tag, what)
	if *d.fault != nil {
		return nil
	}
	n := new(big.Int)
	retagged := cryptobyte.String(wrap(cbasn1.INTEGER, contents))
	if len(contents) > maxIntegerSize || !retagged.ReadASN1Integer(n) {
		d.fail("%s is not an INTEGER of at most %d bytes", what, maxIntegerSize)
		return nil
	}
	return n
}

// bits reads a BIT STRING that must be whole octets, as signatures and MACs are.
func (d *decoder) bits(what string) []byte {
	var out []byte
	if *d.fault == nil && !d.s.ReadASN1BitStringAsBytes(&out) {
		d.fail("%s is not a BIT STRING of whole octets", what)
	}
	return out
}

func (d *decoder) oid(what string) asn1.ObjectIdentifier {
	var out asn1.ObjectIdentifier
	raw := cryptobyte.String(d.element(cbasn1.OBJECT_IDENTIFIER, what))
	if *d.fault == nil && (len(raw) > maxOIDSize || !raw.ReadASN1ObjectIdentifier(&out)) {
		d.fail("%s is not an OBJECT IDENTIFIER", what)
	}
	return out
}

// Layouts of GeneralizedTime. RFC 9810, 5.2.9 forbids fractions of a second, but DER allows them
// without trailing zeros, and some peers send them. DER allows no time but UTC; some peers send
// local time with its offset, which is no less clear.
const (
	generalizedTimeLayout = "20060102150405.999999999Z"
	offsetTimeLayout      = "20060102150405.999999999-0700"
)

// generalizedTime returns a time, and the text when it has an offset, which must be kept to
// marshal the same bytes.
func (d *decoder) generalizedTime(what string) (t time.Time, text string) {
	text = string(d.contents(cbasn1.GeneralizedTime, what))
	if *d.fault != nil {
		return time.Time{}, ""
	}
	for _, layout := range []string{generalizedTimeLayout, offsetTimeLayout} {
		t, err := time.Parse(layout, text)
		if err != nil || t.IsZero() || t.Format(layout) != text {
			continue
		}
		if layout == generalizedTimeLayout {
			return t, ""
		}
		return t.UTC(), text
	}
	d.fail("%s is not a GeneralizedTime in UTC or with an offset", what)
	return time.Time{}, ""
}

// explicit is the tag [n] of a constructed value, which every explicit tag is.
func explicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// implicit is the tag [n] of an implicitly tagged primitive value.
func implicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }

// wrap returns contents, one after the other, as one DER element with the tag.
func wrap(tag cbasn1.Tag, contents ...[]byte) []byte {
	size := 6
	for _, part := range contents {
		size += len(part)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		for _, part := range contents {
			b.AddBytes(part)
		}
	})
	return b.BytesOrPanic() // only a tag above 30 or 4 GiB of contents could fail
}
