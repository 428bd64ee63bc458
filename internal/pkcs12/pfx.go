package pkcs12

import (
	"encoding/asn1"
	"fmt"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// pfx is PFX, RFC 7292 section 4, as far as it can be read without a password.
type pfx struct {
	safe  []byte // AuthenticatedSafe as the file has it, which the MAC covers
	mac   *mac   // nil: the file has none
	parts []part
}

// part is one ContentInfo of the authenticated safe: SafeContents in the clear or encrypted.
type part struct {
	encryption *pbe // nil: in the clear
	content    []byte
	raw        []byte // the whole ContentInfo
}

// bag is SafeBag, RFC 7292 section 4.2, with the attributes that matter here.
type bag struct {
	id           asn1.ObjectIdentifier
	value        cryptobyte.String
	friendlyName string
	localKeyID   []byte
	trusted      bool
	raw          []byte // the whole SafeBag
	err          error  // why it cannot be read; what was read before that is set
}

func parsePFX(data []byte) (pfx, error) {
	data, err := toDER(data)
	if err != nil {
		return pfx{}, fmt.Errorf("the file %w", err)
	}
	s := cryptobyte.String(data)
	body, err := read(&s, cbasn1.SEQUENCE, "the file")
	if err != nil {
		return pfx{}, err
	}
	if version, err := readCount(&body, "version"); err != nil {
		return pfx{}, err
	} else if version != 3 {
		return pfx{}, fmt.Errorf("version is %d, want 3", version)
	}
	info, err := read(&body, cbasn1.SEQUENCE, "authenticated safe")
	if err != nil {
		return pfx{}, err
	}
	kind, err := readOID(&info, "authenticated safe type")
	if err != nil {
		return pfx{}, err
	}
	if !kind.Equal(oidData) {
		return pfx{}, fmt.Errorf("authenticated safe has type %v, want data protected by a password", kind)
	}
	var p pfx
	if p.safe, err = readData(&info, "authenticated safe"); err != nil {
		return pfx{}, err
	}
	if !body.Empty() {
		if p.mac, err = parseMAC(&body); err != nil {
			return pfx{}, err
		}
	}
	safe, err := toDER(p.safe)
	if err != nil {
		return pfx{}, fmt.Errorf("authenticated safe %w", err)
	}
	s = safe
	list, err := read(&s, cbasn1.SEQUENCE, "list of contents")
	if err != nil {
		return pfx{}, err
	}
	for !list.Empty() {
		before := list
		part, err := parsePart(&list)
		if err != nil {
			return pfx{}, err
		}
		part.raw = before[:len(before)-len(list)]
		p.parts = append(p.parts, part)
	}
	return p, nil
}

// readData reads the [0] EXPLICIT OCTET STRING of a ContentInfo of type data.
func readData(s *cryptobyte.String, what string) ([]byte, error) {
	explicit, err := read(s, tagExplicit0, what)
	if err != nil {
		return nil, err
	}
	return read(&explicit, cbasn1.OCTET_STRING, what)
}

func parsePart(list *cryptobyte.String) (part, error) {
	info, err := read(list, cbasn1.SEQUENCE, "content")
	if err != nil {
		return part{}, err
	}
	kind, err := readOID(&info, "content type")
	if err != nil {
		return part{}, err
	}
	switch {
	case kind.Equal(oidData):
		content, err := readData(&info, "content")
		return part{content: content}, err
	case kind.Equal(oidEncryptedData):
		return parseEncryptedData(&info)
	default:
		return part{}, fmt.Errorf("content has type %v, want data or data encrypted with a password", kind)
	}
}

// parseEncryptedData reads EncryptedData, RFC 2315 section 13.
func parseEncryptedData(info *cryptobyte.String) (part, error) {
	explicit, err := read(info, tagExplicit0, "encrypted content")
	if err != nil {
		return part{}, err
	}
	data, err := read(&explicit, cbasn1.SEQUENCE, "encrypted content")
	if err != nil {
		return part{}, err
	}
	var version int
	if !data.ReadASN1Integer(&version) || version != 0 {
		return part{}, fmt.Errorf("encrypted content has a version other than 0")
	}
	content, err := read(&data, cbasn1.SEQUENCE, "encrypted content")
	if err != nil {
		return part{}, err
	}
	if kind, err := readOID(&content, "encrypted content type"); err != nil {
		return part{}, err
	} else if !kind.Equal(oidData) {
		return part{}, fmt.Errorf("encrypted content has type %v, want data", kind)
	}
	alg, err := readAlgorithm(&content, "encryption algorithm")
	if err != nil {
		return part{}, err
	}
	encryption, err := alg.parsePBE()
	if err != nil {
		return part{}, err
	}
	ciphertext, err := readCiphertext(&content)
	return part{encryption: &encryption, content: ciphertext}, err
}

// readCiphertext reads a [0] IMPLICIT OCTET STRING, which BER may have in segments.
func readCiphertext(s *cryptobyte.String) ([]byte, error) {
	if !s.PeekASN1Tag(tagExplicit0) {
		return read(s, tagImplicit0, "encrypted content")
	}
	segments, err := read(s, tagExplicit0, "encrypted content")
	if err != nil {
		return nil, err
	}
	var ciphertext []byte
	for !segments.Empty() {
		segment, err := read(&segments, cbasn1.OCTET_STRING, "segment of the encrypted content")
		if err != nil {
			return nil, err
		}
		ciphertext = append(ciphertext, segment...)
	}
	return ciphertext, nil
}

// parseEncryptedKey reads EncryptedPrivateKeyInfo, RFC 5208 section 6.
func parseEncryptedKey(der []byte) (encryption pbe, ciphertext []byte, err error) {
	s := cryptobyte.String(der)
	info, err := read(&s, cbasn1.SEQUENCE, "encrypted key")
	if err != nil {
		return pbe{}, nil, err
	}
	alg, err := readAlgorithm(&info, "key encryption algorithm")
	if err != nil {
		return pbe{}, nil, err
	}
	if encryption, err = alg.parsePBE(); err != nil {
		return pbe{}, nil, err
	}
	ciphertext, err = read(&info, cbasn1.OCTET_STRING, "encrypted key")
	return encryption, ciphertext, err
}

// maxBagDepth bounds SafeContents within SafeContents. No known writer nests at all.
const maxBagDepth = 4

// parseBags reads SafeContents into a flat list.
func parseBags(content []byte, depth int) ([]bag, error) {
	if depth > maxBagDepth {
		return nil, fmt.Errorf("bags are nested more than %d deep", maxBagDepth)
	}
	content, err := toDER(content)
	if err != nil {
		return nil, fmt.Errorf("list of bags %w", err)
	}
	list, err := splitBags(content)
	if err != nil {
		return nil, err
	}
	var bags []bag
	for _, b := range list {
		if b.err != nil || !b.id.Equal(oidSafeContentsBag) {
			bags = append(bags, b)
			continue
		}
		inner, err := parseBags(b.value, depth+1)
		if err != nil {
			return nil, err
		}
		bags = append(bags, inner...)
	}
	return bags, nil
}

// splitBags reads the bags of SafeContents, which is DER, without those within them.
func splitBags(content []byte) ([]bag, error) {
	s := cryptobyte.String(content)
	list, err := read(&s, cbasn1.SEQUENCE, "list of bags")
	if err != nil {
		return nil, err
	}
	var bags []bag
	for !list.Empty() {
		before := list
		body, err := read(&list, cbasn1.SEQUENCE, "bag")
		if err != nil {
			return nil, err
		}
		b := parseBag(body)
		b.raw = before[:len(before)-len(list)]
		bags = append(bags, b)
	}
	return bags, nil
}

func parseBag(s cryptobyte.String) (b bag) {
	if b.id, b.err = readOID(&s, "bag type"); b.err != nil {
		return b
	}
	if b.value, b.err = read(&s, tagExplicit0, "bag value"); b.err != nil || s.Empty() {
		return b
	}
	var attributes cryptobyte.String
	if attributes, b.err = read(&s, cbasn1.SET, "bag attributes"); b.err != nil {
		return b
	}
	for !attributes.Empty() && b.err == nil {
		b.err = b.parseAttribute(&attributes)
	}
	return b
}

func (b *bag) parseAttribute(attributes *cryptobyte.String) error {
	s, err := read(attributes, cbasn1.SEQUENCE, "bag attribute")
	if err != nil {
		return err
	}
	id, err := readOID(&s, "bag attribute type")
	if err != nil {
		return err
	}
	values, err := read(&s, cbasn1.SET, "bag attribute values")
	if err != nil {
		return err
	}
	switch {
	case id.Equal(oidFriendlyName):
		name, err := read(&values, tagBMPString, "friendlyName")
		if err != nil {
			return err
		}
		if len(name)%2 != 0 {
			return fmt.Errorf("friendlyName has %d bytes, want an even number", len(name))
		}
		units := make([]uint16, 0, len(name)/2)
		for i := 0; i < len(name); i += 2 {
			units = append(units, uint16(name[i])<<8|uint16(name[i+1]))
		}
		b.friendlyName = string(utf16.Decode(units))
	case id.Equal(oidLocalKeyID):
		if b.localKeyID, err = read(&values, cbasn1.OCTET_STRING, "localKeyID"); err != nil {
			return err
		}
	case id.Equal(oidTrustedKeyUsage):
		b.trusted = true
	}
	return nil
}
