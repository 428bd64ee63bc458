package pkcs12

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Append adds certificates to a file, and Java's mark of a trusted certificate to those of the file's own that mark
// lists, with the names there. All other entries keep their bytes: keys stay encrypted, also with a password of their own, and so do entries
// of kinds that are not read, such as secret keys. A file without password, as the cacerts of JDK 18 and later, stays
// one. The added ones are in the part that has certificates already, because some readers expect one such part.
func Append(data []byte, password string, added, mark []Certificate) ([]byte, error) {
	p, err := parsePFX(data)
	if err != nil {
		return nil, err
	}
	a := appender{decoder: newDecoder(password), added: added, mark: mark, encrypted: p.mac != nil}
	if p.mac != nil {
		if err := a.verify(p.mac, p.safe); err != nil {
			return nil, err
		}
	}
	a.encoder = encoder{a.forms[0], p.likeProfile()}
	safe, err := a.safe(p.parts)
	if err != nil {
		return nil, err
	}
	var file cryptobyte.Builder
	file.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		addDataInfo(b, safe)
		if p.mac != nil {
			a.addMAC(b, safe)
		}
	})
	return file.Bytes()
}

// likeProfile is the profile for readers of the file as it is. A store of JDK 8 mixes RC2 with 3DES and so has no
// profile, but whoever reads it reads the legacy one.
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

type appender struct {
	*decoder
	encoder
	added     []Certificate
	mark      []Certificate
	encrypted bool // whether a new part is to be
}

// safe writes the authenticated safe again.
func (a *appender) safe(parts []part) ([]byte, error) {
	contents := make([][]byte, len(parts))
	target := -1
	for i, part := range parts {
		var err error
		if contents[i], err = a.content(part); err != nil {
			return nil, err
		}
		has, err := hasCertificate(contents[i])
		if err != nil {
			return nil, err
		}
		if has || target < 0 && part.encryption != nil {
			target = i
		}
		a.encrypted = a.encrypted || part.encryption != nil
	}
	var safe cryptobyte.Builder
	safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for i, part := range parts {
			bags, changed, err := a.rewrite(contents[i], i == target)
			switch {
			case err != nil:
				b.SetError(err)
				return
			case changed:
				a.addPart(b, bags, part.encryption != nil)
			default:
				b.AddBytes(part.raw)
			}
		}
		if target < 0 && len(a.added) > 0 {
			bags, _, err := a.rewrite([]byte{byte(cbasn1.SEQUENCE), 0}, true)
			if err != nil {
				b.SetError(err)
				return
			}
			a.addPart(b, bags, a.encrypted)
		}
	})
	return safe.Bytes()
}

// content is the SafeContents of a part, in DER.
func (a *appender) content(p part) ([]byte, error) {
	content := p.content
	if p.encryption != nil {
		var err error
		if content, err = a.decrypt(*p.encryption, p.content); errors.Is(err, errDecrypt) {
			return nil, fmt.Errorf("%w for the certificates", ErrPassword)
		} else if err != nil {
			return nil, fmt.Errorf("decrypting contents: %w", err)
		}
	}
	return toDER(content)
}

func hasCertificate(content []byte) (bool, error) {
	bags, err := parseBags(content, 1)
	return slices.ContainsFunc(bags, func(b bag) bool { return b.id.Equal(oidCertBag) }), err
}

// rewrite gives the content with the marks, and with the added certificates where those belong.
func (a *appender) rewrite(content []byte, target bool) (bags []byte, changed bool, err error) {
	s := cryptobyte.String(content)
	list, err := read(&s, cbasn1.SEQUENCE, "list of bags")
	if err != nil {
		return nil, false, err
	}
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !list.Empty() {
			before := list
			var body cryptobyte.String
			if body, err = read(&list, cbasn1.SEQUENCE, "bag"); err != nil {
				return
			}
			if c, ok := a.marked(body); ok {
				addCertificateBag(b, c)
				changed = true
				continue
			}
			b.AddBytes(before[:len(before)-len(list)])
		}
		if target {
			for _, c := range a.added {
				addCertificateBag(b, c)
			}
			changed = changed || len(a.added) > 0
		}
	})
	if err != nil {
		return nil, false, err
	}
	bags, err = out.Bytes()
	return bags, changed, err
}

// marked is the certificate of a bag that is to be marked, with the mark.
func (a *appender) marked(body cryptobyte.String) (Certificate, bool) {
	b := parseBag(body)
	if b.err != nil || b.trusted || !b.id.Equal(oidCertBag) {
		return Certificate{}, false
	}
	cert, err := parseCertBag(b.value)
	if err != nil {
		return Certificate{}, false
	}
	i := slices.IndexFunc(a.mark, func(c Certificate) bool { return c.Certificate.Equal(cert) })
	if i < 0 {
		return Certificate{}, false
	}
	return Certificate{cert, a.mark[i].FriendlyName, b.localKeyID, true}, true
}

// addPart writes a part with new content.
func (a *appender) addPart(b *cryptobyte.Builder, bags []byte, encrypted bool) {
	if encrypted {
		a.addEncryptedData(b, bags)
		return
	}
	addDataInfo(b, bags)
}
