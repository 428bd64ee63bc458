package pkcs12

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	tagExplicit0 = cbasn1.Tag(0xa0) // [0], constructed
	tagImplicit0 = cbasn1.Tag(0x80) // [0], primitive
	tagBMPString = cbasn1.Tag(30)
)

// reader takes DER apart, element after element. Its first error stays,
// and nothing is read after it, so that it has to be looked at only
// once, at the end. Readers of an element's contents share the error.
type reader struct {
	s     cryptobyte.String
	first *error
}

func newReader(der []byte) *reader { return &reader{der, new(error)} }

// err is the first error.
func (r *reader) err() error { return *r.first }

// fail sets the error, when there is none yet.
func (r *reader) fail(err error) {
	if *r.first == nil {
		*r.first = err
	}
}

// more says whether there is another element.
func (r *reader) more() bool { return r.err() == nil && !r.s.Empty() }

// read takes the next element, which must have the tag. The reader is of its contents.
func (r *reader) read(tag cbasn1.Tag, what string) *reader {
	contents := &reader{first: r.first}
	rest := r.s
	switch {
	case r.err() != nil || r.s.ReadASN1(&contents.s, tag):
	case len(rest) == 0:
		r.fail(fmt.Errorf("%s is missing", what))
	case rest[0] != byte(tag):
		r.fail(fmt.Errorf("%s has ASN.1 tag %#02x, want %#02x", what, rest[0], byte(tag)))
	default:
		r.fail(fmt.Errorf("%s is cut short or has a damaged length", what))
	}
	return contents
}

func (r *reader) sequence(what string) *reader { return r.read(cbasn1.SEQUENCE, what) }

func (r *reader) octets(what string) []byte { return r.read(cbasn1.OCTET_STRING, what).s }

func (r *reader) oid(what string) (oid asn1.ObjectIdentifier) {
	if r.err() == nil && !r.s.ReadASN1ObjectIdentifier(&oid) {
		r.fail(fmt.Errorf("%s is not an object identifier", what))
	}
	return oid
}

// count reads an iteration count or a length: an INTEGER from 1 up.
func (r *reader) count(what string) (n int) {
	if r.err() == nil && (!r.s.ReadASN1Integer(&n) || n < 1) {
		r.fail(fmt.Errorf("%s is not a positive integer", what))
	}
	return n
}

// algorithm is an AlgorithmIdentifier: params holds the parameters' whole element, or nothing.
type algorithm struct {
	oid    asn1.ObjectIdentifier
	params *reader
}

func (r *reader) algorithm(what string) algorithm {
	id := r.sequence(what)
	return algorithm{id.oid(what), id}
}

// isSequence says whether data is one SEQUENCE and nothing after it.
func isSequence(data []byte) bool {
	s := cryptobyte.String(data)
	var contents cryptobyte.String
	return s.ReadASN1(&contents, cbasn1.SEQUENCE) && s.Empty()
}

// BER is read in PKCS#12 files only, because Bouncy Castle, EJBCA and NSS write it there:
// indefinite lengths (X.690, 8.1.3.6), lengths with more octets than needed, and OCTET STRINGs in
// segments (8.7.3). All of it becomes DER before anything else looks at it, so that the rest of
// the package knows DER alone.

// maxBERDepth bounds elements within elements. A PKCS#12 file has some ten levels.
const maxBERDepth = 64

var errBERShort = errors.New("is cut short or has a damaged length")

const (
	tagEndOfContents = 0x00
	tagOctetString   = 0x04
	bitConstructed   = 0x20
)

// toDER rewrites one BER element, after which nothing may follow. DER
// comes back with the same bytes. The contents of OCTET STRINGs stay
// as they are. It takes time and memory in proportion to the data.
func toDER(data []byte) ([]byte, error) {
	r := berReader{data: data, out: make([]byte, 0, len(data))}
	if err := r.element(0); err != nil {
		return nil, err
	}
	if rest := len(r.data) - r.at; rest > 0 {
		return nil, fmt.Errorf("has %d bytes after its end", rest)
	}
	return r.out, nil
}

type berReader struct {
	data []byte
	at   int
	out  []byte
}

// element copies the element that begins here.
func (r *berReader) element(depth int) error {
	tag, length, indefinite, err := r.header(depth)
	if err != nil {
		return err
	}
	if tag&bitConstructed == 0 {
		r.out = appendHeader(r.out, tag, length)
		r.out = append(r.out, r.data[r.at:r.at+length]...)
		r.at += length
		return nil
	}
	start := len(r.out)
	if tag == tagOctetString|bitConstructed {
		tag = tagOctetString
		err = r.inside(length, indefinite, func() error { return r.segment(depth + 1) })
	} else {
		err = r.inside(length, indefinite, func() error { return r.element(depth + 1) })
	}
	if err != nil {
		return err
	}
	r.insertHeader(start, tag)
	return nil
}

// segment copies what one segment of an OCTET STRING holds.
func (r *berReader) segment(depth int) error {
	tag, length, indefinite, err := r.header(depth)
	switch {
	case err != nil:
		return err
	case tag == tagOctetString:
		r.out = append(r.out, r.data[r.at:r.at+length]...)
		r.at += length
		return nil
	case tag == tagOctetString|bitConstructed:
		return r.inside(length, indefinite, func() error { return r.segment(depth + 1) })
	}
	return fmt.Errorf("has a segment with ASN.1 tag %#02x in an OCTET STRING, want 0x04", tag)
}

// inside calls each for the elements within a constructed one, up to its end.
func (r *berReader) inside(length int, indefinite bool, each func() error) error {
	if indefinite {
		for {
			if len(r.data)-r.at < 2 {
				return errBERShort
			}
			if r.data[r.at] == tagEndOfContents && r.data[r.at+1] == 0 {
				r.at += 2
				return nil
			}
			if err := each(); err != nil {
				return err
			}
		}
	}
	whole := r.data
	end := r.at + length
	r.data = whole[:end]
	for r.at < end {
		if err := each(); err != nil {
			return err
		}
	}
	r.data = whole
	return nil
}

// header reads a tag and a length. A length is never more than what is left.
func (r *berReader) header(depth int) (tag byte, length int, indefinite bool, err error) {
	if depth > maxBERDepth {
		return 0, 0, false, fmt.Errorf("has elements nested more than %d deep", maxBERDepth)
	}
	rest := r.data[r.at:]
	if len(rest) < 2 {
		return 0, 0, false, errBERShort
	}
	if tag = rest[0]; tag&0x1f == 0x1f {
		return 0, 0, false, fmt.Errorf("has ASN.1 tag %#02x, which PKCS#12 does not use", tag)
	}
	first := rest[1]
	r.at += 2
	switch {
	case first < 0x80:
		length = int(first)
	case first == 0x80:
		if tag&bitConstructed == 0 {
			return 0, 0, false, fmt.Errorf("has a primitive element (ASN.1 tag %#02x) without a length", tag)
		}
		return tag, 0, true, nil
	default:
		octets := int(first & 0x7f)
		if octets > len(rest)-2 {
			return 0, 0, false, errBERShort
		}
		for _, c := range rest[2 : 2+octets] {
			if length > len(r.data) {
				return 0, 0, false, errBERShort
			}
			length = length<<8 | int(c)
		}
		r.at += octets
	}
	if length > len(r.data)-r.at {
		return 0, 0, false, errBERShort
	}
	return tag, length, false, nil
}

// insertHeader puts the header of a constructed element before what was written since start.
func (r *berReader) insertHeader(start int, tag byte) {
	header := appendHeader(make([]byte, 0, 6), tag, len(r.out)-start)
	r.out = append(r.out, header...)
	copy(r.out[start+len(header):], r.out[start:])
	copy(r.out[start:], header)
}

// appendHeader writes a tag and a length as DER does.
func appendHeader(out []byte, tag byte, length int) []byte {
	out = append(out, tag)
	if length < 0x80 {
		return append(out, byte(length))
	}
	n := 1
	for v := length >> 8; v > 0; v >>= 8 {
		n++
	}
	out = append(out, 0x80|byte(n))
	for i := n - 1; i >= 0; i-- {
		out = append(out, byte(length>>(8*i)))
	}
	return out
}
