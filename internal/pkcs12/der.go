package pkcs12

import (
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	tagExplicit0 = cbasn1.Tag(0xa0) // [0], constructed
	tagImplicit0 = cbasn1.Tag(0x80) // [0], primitive
	tagBMPString = cbasn1.Tag(30)
)

// algorithm is an AlgorithmIdentifier: params holds the parameters' whole element, or nothing.
type algorithm struct {
	oid    asn1.ObjectIdentifier
	params cryptobyte.String
}

// read takes the next element, which must have the tag, off s and returns its contents.
func read(s *cryptobyte.String, tag cbasn1.Tag, what string) (cryptobyte.String, error) {
	rest := *s
	var contents cryptobyte.String
	if s.ReadASN1(&contents, tag) {
		return contents, nil
	}
	switch {
	case len(rest) == 0:
		return nil, fmt.Errorf("%s is missing", what)
	case rest[0] != byte(tag):
		return nil, fmt.Errorf("%s has ASN.1 tag %#02x, want %#02x", what, rest[0], byte(tag))
	default:
		return nil, fmt.Errorf("%s is cut short or has a damaged length", what)
	}
}

func readOID(s *cryptobyte.String, what string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return nil, fmt.Errorf("%s is not an object identifier", what)
	}
	return oid, nil
}

// readCount reads an iteration count or a length: an INTEGER from 1 up.
func readCount(s *cryptobyte.String, what string) (int, error) {
	var n int
	if !s.ReadASN1Integer(&n) || n < 1 {
		return 0, fmt.Errorf("%s is not a positive integer", what)
	}
	return n, nil
}

func readAlgorithm(s *cryptobyte.String, what string) (algorithm, error) {
	id, err := read(s, cbasn1.SEQUENCE, what)
	if err != nil {
		return algorithm{}, err
	}
	oid, err := readOID(&id, what)
	if err != nil {
		return algorithm{}, err
	}
	return algorithm{oid, id}, nil
}

// isSequence says whether data is one SEQUENCE and nothing after it.
func isSequence(data []byte) bool {
	s := cryptobyte.String(data)
	var contents cryptobyte.String
	return s.ReadASN1(&contents, cbasn1.SEQUENCE) && s.Empty()
}
