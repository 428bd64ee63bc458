package pkcs12

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Append adds certificates to a file, and Java's mark of a trusted certificate to
// those of the file's own that mark lists, with the names there. All other entries
// keep their bytes: keys stay encrypted, also with a password of their own, and so
// do entries of kinds that are not read, such as secret keys. A file without
// password, as the cacerts of JDK 18 and later, stays one. The added ones go to the
// part that has certificates already, because some readers expect one such part.
func Append(data []byte, password string, added, mark []Certificate) ([]byte, error) {
	p, err := parsePFX(data)
	if err != nil {
		return nil, err
	}
	a := appender{decoder: newDecoder(password), added: added, mark: mark}
	if p.mac != nil {
		if err := a.verify(p.mac, p.safe); err != nil {
			return nil, err
		}
	}
	a.encoder = encoder{a.forms[0], p.likeProfile()}
	if err := a.rewriteParts(&p); err != nil {
		return nil, err
	}
	var safe cryptobyte.Builder
	safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, part := range p.parts {
			b.AddBytes(part.raw)
		}
	})
	content, err := safe.Bytes()
	if err != nil {
		return nil, err
	}
	return a.encodePFX(content, p.mac != nil)
}

type appender struct {
	*decoder
	encoder
	added []Certificate
	mark  []Certificate
}

// rewriteParts replaces the bytes of the parts that change. The new certificates go to the last
// part that has some, else to the first encrypted one, else to a new part, which is encrypted in a
// file that has a password.
func (a *appender) rewriteParts(p *pfx) error {
	var bags [][]bag // of each part, without those within others
	target, encrypted := -1, p.mac != nil
	for i, part := range p.parts {
		content, err := a.contentOf(part, p.mac != nil)
		if err != nil {
			return err
		}
		all, err := parseBags(content, 1)
		if err != nil {
			return err
		}
		top, err := splitBags(content)
		if err != nil {
			return err
		}
		bags = append(bags, top)
		has := slices.ContainsFunc(all, func(b bag) bool { return b.id.Equal(oidCertBag) })
		if has || target < 0 && part.encryption != nil {
			target = i
		}
		encrypted = encrypted || part.encryption != nil
	}
	if target < 0 && len(a.added) > 0 {
		target = len(p.parts)
		p.parts, bags = append(p.parts, part{}), append(bags, nil)
		if encrypted {
			p.parts[target].encryption = &pbe{}
		}
	}
	for i := range p.parts {
		if err := a.rewrite(&p.parts[i], bags[i], i == target); err != nil {
			return err
		}
	}
	return nil
}

// rewrite gives a part its marks, and the new certificates where those belong.
func (a *appender) rewrite(p *part, bags []bag, target bool) error {
	changed := target && len(a.added) > 0
	var content cryptobyte.Builder
	content.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, bag := range bags {
			if c, ok := a.readMarked(bag); ok {
				addCertificateBag(b, c)
				changed = true
			} else {
				b.AddBytes(bag.raw)
			}
		}
		if target {
			for _, c := range a.added {
				addCertificateBag(b, c)
			}
		}
	})
	plain, err := content.Bytes()
	if err != nil || !changed {
		return err
	}
	var b cryptobyte.Builder
	if p.encryption != nil {
		a.addEncryptedData(&b, plain)
	} else {
		addDataInfo(&b, plain)
	}
	p.raw, err = b.Bytes()
	return err
}

// readMarked is the certificate of a bag that is to be readMarked, with the mark.
func (a *appender) readMarked(b bag) (Certificate, bool) {
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
