package pkcs12

import (
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/files"
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
	value        []byte
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
	body := newReader(data).sequence("the file")
	if version := body.count("version"); version != 3 {
		body.fail(fmt.Errorf("version is %d, want 3", version))
	}
	info := body.sequence("authenticated safe")
	if kind := info.oid("authenticated safe type"); !kind.Equal(oidData) {
		info.fail(fmt.Errorf("authenticated safe has type %v, want data protected by a password", kind))
	}
	p := pfx{safe: info.data("authenticated safe")}
	if body.more() {
		p.mac = body.mac()
	}
	if err := body.err(); err != nil {
		return pfx{}, err
	}
	safe, err := toDER(p.safe)
	if err != nil {
		return pfx{}, fmt.Errorf("authenticated safe %w", err)
	}
	list := newReader(safe).sequence("list of contents")
	for list.more() {
		before := list.s
		part := list.part()
		part.raw = before[:len(before)-len(list.s)]
		p.parts = append(p.parts, part)
	}
	return p, list.err()
}

// data reads the [0] EXPLICIT OCTET STRING of a ContentInfo of type data.
func (r *reader) data(what string) []byte { return r.read(tagExplicit0, what).octets(what) }

func (r *reader) part() part {
	info := r.sequence("content")
	switch kind := info.oid("content type"); {
	case kind.Equal(oidData):
		return part{content: info.data("content")}
	case kind.Equal(oidEncryptedData):
		return info.encryptedData()
	default:
		info.fail(fmt.Errorf("content has type %v, want data or data encrypted with a password", kind))
		return part{}
	}
}

// encryptedData reads EncryptedData, RFC 2315 section 13.
func (r *reader) encryptedData() part {
	const what = "encrypted content"
	data := r.read(tagExplicit0, what).sequence(what)
	var version int
	if !data.s.ReadASN1Integer(&version) || version != 0 {
		data.fail(errors.New("encrypted content has a version other than 0"))
	}
	content := data.sequence(what)
	if kind := content.oid("encrypted content type"); !kind.Equal(oidData) {
		content.fail(fmt.Errorf("encrypted content has type %v, want data", kind))
	}
	encryption := content.algorithm("encryption algorithm").pbe()
	return part{encryption: &encryption, content: content.ciphertext(what)}
}

// ciphertext reads a [0] IMPLICIT OCTET STRING, which BER may have in segments.
func (r *reader) ciphertext(what string) (ciphertext []byte) {
	if !r.s.PeekASN1Tag(tagExplicit0) {
		return r.read(tagImplicit0, what).s
	}
	segments := r.read(tagExplicit0, what)
	for segments.more() {
		ciphertext = append(ciphertext, segments.octets("segment of the encrypted content")...)
	}
	return ciphertext
}

// parseEncryptedKey reads EncryptedPrivateKeyInfo, RFC 5208 section 6.
func parseEncryptedKey(der []byte) (encryption pbe, ciphertext []byte, err error) {
	info := newReader(der).sequence("encrypted key")
	encryption = info.algorithm("key encryption algorithm").pbe()
	ciphertext = info.octets("encrypted key")
	return encryption, ciphertext, info.err()
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
	list := newReader(content).sequence("list of bags")
	var bags []bag
	for list.more() {
		before := list.s
		b := parseBag(list.sequence("bag").s)
		b.raw = before[:len(before)-len(list.s)]
		bags = append(bags, b)
	}
	return bags, list.err()
}

func parseBag(body []byte) (b bag) {
	r := newReader(body)
	b.id = r.oid("bag type")
	b.value = r.read(tagExplicit0, "bag value").s
	if r.more() {
		attributes := r.read(cbasn1.SET, "bag attributes")
		for attributes.more() {
			b.readAttribute(attributes)
		}
	}
	b.err = r.err()
	return b
}

func (b *bag) readAttribute(attributes *reader) {
	s := attributes.sequence("bag attribute")
	id := s.oid("bag attribute type")
	values := s.read(cbasn1.SET, "bag attribute values")
	switch {
	case id.Equal(oidFriendlyName):
		name := values.read(tagBMPString, "friendlyName").s
		if len(name)%2 != 0 {
			values.fail(fmt.Errorf("friendlyName has %d bytes, want an even number", len(name)))
		}
		b.friendlyName = string(files.FromUTF16(name, binary.BigEndian))
	case id.Equal(oidLocalKeyID):
		b.localKeyID = values.octets("localKeyID")
	case id.Equal(oidTrustedKeyUsage):
		b.trusted = true
	}
}
