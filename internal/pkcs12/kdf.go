package pkcs12

import (
	"crypto"
	"unicode/utf16"
)

// The purposes of a derived key, RFC 7292 appendix B.3.
const (
	purposeKey byte = 1
	purposeIV  byte = 2
	purposeMAC byte = 3
)

// bmpString is s in big-endian UTF-16. RFC 7292 allows the Basic Multilingual Plane only; Java and
// OpenSSL write surrogate pairs for the rest, and so do we.
func bmpString(s string) []byte {
	units := utf16.Encode([]rune(s))
	out := make([]byte, 0, 2*len(units)+2)
	for _, u := range units {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}

// passphrase is a password as the derivations take it.
type passphrase struct {
	text string
	// null is .NET's form of the empty password: no bytes at all, where RFC 7292 has the two zero bytes of an empty
	// BMPString. Only the derivation of RFC 7292 tells the two apart.
	null bool
}

// passphrases are the forms that a password may have in a file: OpenSSL and JDKs try both of an empty one.
func passphrases(password string) []passphrase {
	if password == "" {
		return []passphrase{{}, {null: true}}
	}
	return []passphrase{{text: password}}
}

// bmp is the form that the derivation of RFC 7292 takes: a BMPString with its two zero bytes at the end (appendix B.1).
func (p passphrase) bmp() []byte {
	if p.null {
		return nil
	}
	return append(bmpString(p.text), 0, 0)
}

// deriveKey is the key derivation of RFC 7292 appendix B.2; the names in the body are those of its
// steps. The password is in the form of passphrase.bmp.
func deriveKey(hash crypto.Hash, purpose byte, password, salt []byte, iterations, size int) []byte {
	h := hash.New()
	v := h.BlockSize()

	d := make([]byte, v)
	for i := range d {
		d[i] = purpose
	}
	i := append(repeatTo(salt, v), repeatTo(password, v)...)

	var out []byte
	for {
		h.Reset()
		h.Write(d)
		h.Write(i)
		a := h.Sum(nil)
		for range iterations - 1 {
			h.Reset()
			h.Write(a)
			a = h.Sum(a[:0])
		}
		out = append(out, a...)
		if len(out) >= size {
			return out[:size]
		}
		b := repeatTo(a, v)[:v]
		for block := i; len(block) > 0; block = block[v:] {
			addWithCarry(block[:v], b)
		}
	}
}

// repeatTo repeats data until its length is the next multiple of v.
func repeatTo(data []byte, v int) []byte {
	out := make([]byte, (len(data)+v-1)/v*v)
	for n := 0; n < len(out); {
		n += copy(out[n:], data)
	}
	return out
}

// addWithCarry sets block to block + b + 1, both big-endian numbers of the same length, dropping
// what runs over.
func addWithCarry(block, b []byte) {
	carry := 1
	for i := len(block) - 1; i >= 0; i-- {
		carry += int(block[i]) + int(b[i])
		block[i] = byte(carry)
		carry >>= 8
	}
}
