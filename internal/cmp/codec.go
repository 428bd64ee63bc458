package cmp

import (
	"encoding/asn1"
	"errors"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// codec reads or writes DER. The code method of a structure lists its fields once, in the order of
// its ASN.1, and the codec goes through that list in either direction. The first fault ends it,
// see decoder and cryptobyte.Builder.
type codec struct {
	in  *decoder            // set when reading
	out *cryptobyte.Builder // set when writing
}

// encode returns the DER of a structure.
func encode(code func(codec)) ([]byte, error) { return encodeWithin(128, code) }

// encodeWithin is encode for a structure that seldom takes more than so many bytes.
func encodeWithin(size int, code func(codec)) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	code(codec{out: b})
	return b.Bytes()
}

// decode reads one DER value with nothing after it. what is the structure, for errors.
func decode(der []byte, what string, code func(codec)) error {
	d := newDecoder(der, what)
	code(codec{in: d})
	return d.end()
}

// codeTag goes through the fields inside the next element, which has the tag.
func (c codec) codeTag(tag cbasn1.Tag, what string, fields func(codec)) {
	if c.in != nil {
		inner := c.in.open(tag, what)
		fields(codec{in: inner})
		inner.end()
		return
	}
	c.out.AddASN1(tag, func(b *cryptobyte.Builder) { fields(codec{out: b}) })
}

func (c codec) sequence(what string, fields func(codec)) { c.codeTag(cbasn1.SEQUENCE, what, fields) }

// has says whether an optional element comes next: one with
// the tag when reading, and present when writing.
func (c codec) has(tag cbasn1.Tag, present bool) bool {
	if c.in != nil {
		return c.in.next(tag)
	}
	return present
}

// explicit goes through the content of an optional element with the explicit tag [n].
func (c codec) explicit(n uint8, what string, present bool, content func(codec)) {
	if c.has(explicit(n), present) {
		c.codeTag(explicit(n), what, content)
	}
}

// optional goes through a structure that is absent when its pointer is nil.
func optional[T any](c codec, tag cbasn1.Tag, value **T, code func(*T, codec)) {
	if !c.has(tag, *value != nil) {
		return
	}
	if c.in != nil {
		*value = new(T)
	}
	code(*value, c)
}

// list goes through a SEQUENCE OF with at least least elements.
func list[T any](c codec, what string, least int, items *[]T, code func(*T, codec)) {
	listTagged(c, cbasn1.SEQUENCE, what, least, items, code)
}

func listTagged[T any](c codec, tag cbasn1.Tag, what string, least int, items *[]T, code func(*T, codec)) {
	c.codeTag(tag, what, func(c codec) {
		if c.out != nil {
			for i := range *items {
				code(&(*items)[i], c)
			}
			return
		}
		for c.in.more() {
			if len(*items) == maxElements {
				c.in.fail("has more than %d elements", maxElements)
				return
			}
			var item T
			code(&item, c)
			*items = append(*items, item)
		}
		if *c.in.fault == nil && len(*items) < least {
			c.in.fail("has no elements")
		}
	})
}

// certificates goes through a SEQUENCE SIZE (1..MAX) OF CMPCertificate. Only X.509 certificates
// are known (RFC 9810, 5.1); they stay DER, since those that nothing needs need not be parsed.
func certificates(c codec, what string, ders *[][]byte) {
	list(c, what, 1, ders, func(der *[]byte, c codec) { c.element(cbasn1.SEQUENCE, "certificate", der) })
}

// element goes through an element with the tag that is kept as DER.
func (c codec) element(tag cbasn1.Tag, what string, der *[]byte) {
	if c.in != nil {
		*der = c.in.element(tag, what)
		return
	}
	c.out.AddBytes(*der)
}

// any goes through an element of any tag that is kept as DER.
func (c codec) any(what string, der *[]byte) {
	if c.in != nil {
		*der = c.in.any(what)
		return
	}
	c.out.AddBytes(*der)
}

// explicitAny goes through an optional element of any tag under the explicit tag [n].
func (c codec) explicitAny(n uint8, what string, der *[]byte) {
	c.explicit(n, what, *der != nil, func(c codec) { c.any(what, der) })
}

// explicitSequence is explicitAny for a SEQUENCE.
func (c codec) explicitSequence(n uint8, what string, der *[]byte) {
	c.explicit(n, what, *der != nil, func(c codec) { c.element(cbasn1.SEQUENCE, what, der) })
}

// contents goes through an optional element of which the contents are kept.
func (c codec) contents(tag cbasn1.Tag, what string, contents *[]byte) {
	if !c.has(tag, *contents != nil) {
		return
	}
	if c.in != nil {
		*contents = c.in.contents(tag, what)
		return
	}
	c.out.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(*contents) })
}

// codeRetagged goes through an optional SEQUENCE under an
// implicit tag, which is kept as DER with its own tag.
func (c codec) codeRetagged(tag cbasn1.Tag, what string, der *[]byte) {
	if !c.has(tag, *der != nil) {
		return
	}
	if c.in != nil {
		*der = wrap(cbasn1.SEQUENCE, c.in.contents(tag, what))
		return
	}
	s := cryptobyte.String(*der)
	var contents cryptobyte.String
	if !s.ReadASN1(&contents, cbasn1.SEQUENCE) || !s.Empty() {
		c.out.SetError(errors.New(what + " is not a SEQUENCE"))
	}
	c.out.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(contents) })
}

func (c codec) octets(what string, octets *[]byte) {
	if c.in != nil {
		*octets = c.in.contents(cbasn1.OCTET_STRING, what)
		return
	}
	c.out.AddASN1OctetString(*octets)
}

// explicitOctets goes through an optional OCTET STRING under the explicit tag [n].
func (c codec) explicitOctets(n uint8, what string, octets *[]byte) {
	if c.has(explicit(n), *octets != nil) {
		c.codeTag(explicit(n), what, func(c codec) { c.octets(what, octets) })
	}
}

// bits goes through a BIT STRING of whole octets.
func (c codec) bits(what string, octets *[]byte) {
	if c.in != nil {
		*octets = c.in.bits(what)
		return
	}
	c.out.AddASN1BitString(*octets)
}

func (c codec) oid(what string, oid *asn1.ObjectIdentifier) {
	if c.in != nil {
		*oid = c.in.oid(what)
		return
	}
	c.out.AddASN1ObjectIdentifier(*oid)
}

// integer goes through an INTEGER of at most 64 bits.
func integer[T ~int | ~int64](c codec, what string, n *T) {
	if c.in != nil {
		*n = T(c.in.int64(what))
		return
	}
	c.out.AddASN1Int64(int64(*n))
}

// bigInt goes through an INTEGER that may be implicitly tagged.
func (c codec) bigInt(tag cbasn1.Tag, what string, n **big.Int) {
	if c.in != nil {
		*n = c.in.bigInt(tag, what)
		return
	}
	var inner cryptobyte.Builder
	inner.AddASN1BigInt(*n)
	s := cryptobyte.String(inner.BytesOrPanic())
	var contents cryptobyte.String
	s.ReadASN1(&contents, cbasn1.INTEGER)
	c.out.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(contents) })
}

// text goes through a UTF8String.
func (c codec) text(what string, text *string) {
	if c.in != nil {
		*text = string(c.in.contents(cbasn1.UTF8String, what))
		return
	}
	c.out.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(*text)) })
}

// generalizedTime goes through a time. asRead is the text
// that it was read from, where that has an offset.
func (c codec) generalizedTime(what string, t *time.Time, asRead *string) {
	if c.in != nil {
		*t, *asRead = c.in.generalizedTime(what)
		return
	}
	text := *asRead
	if parsed, err := time.Parse(offsetTimeLayout, text); err != nil || !parsed.Equal(*t) {
		text = t.UTC().Format(generalizedTimeLayout) // it was not read, or changed afterwards
	}
	c.out.AddASN1(cbasn1.GeneralizedTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}
