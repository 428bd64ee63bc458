package pkcs12

import (
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// mac is MacData, RFC 7292 section 4, over the authenticated safe.
type mac struct {
	hash       crypto.Hash
	salt       []byte
	iterations int
	digest     []byte
	pbmac1     *pbkdf2Params // RFC 9579: the key comes from PBKDF2, and salt is unused; nil: the MAC of RFC 7292
}

func parseMAC(s *cryptobyte.String) (*mac, error) {
	data, err := read(s, cbasn1.SEQUENCE, "MAC")
	if err != nil {
		return nil, err
	}
	info, err := read(&data, cbasn1.SEQUENCE, "MAC digest")
	if err != nil {
		return nil, err
	}
	alg, err := readAlgorithm(&info, "MAC algorithm")
	if err != nil {
		return nil, err
	}
	digest, err := read(&info, cbasn1.OCTET_STRING, "MAC value")
	if err != nil {
		return nil, err
	}
	m := &mac{iterations: 1, digest: digest}
	if alg.oid.Equal(oidPBMAC1) {
		// What follows is unused and may be anything.
		return m, m.parsePBMAC1(alg)
	}
	salt, err := read(&data, cbasn1.OCTET_STRING, "MAC salt")
	if err != nil {
		return nil, err
	}
	m.salt = salt
	if !data.Empty() {
		if m.iterations, err = readCount(&data, "MAC iteration count"); err != nil {
			return nil, err
		}
	}
	for _, h := range hashes {
		if h.digest.Equal(alg.oid) {
			m.hash = h.hash
			return m, nil
		}
	}
	return nil, unsupported("MAC algorithm", alg.oid, "SHA-1, SHA-2 or PBMAC1")
}

// maxPBMAC1Key bounds the HMAC keys of PBMAC1, in bytes; those in use have 20 to 64.
const maxPBMAC1Key = 64

// parsePBMAC1 reads PBMAC1-params, RFC 8018 appendix A.5 with the rules of RFC 9579 section 4.
func (m *mac) parsePBMAC1(alg algorithm) error {
	params, err := read(&alg.params, cbasn1.SEQUENCE, "PBMAC1 parameters")
	if err != nil {
		return err
	}
	kdf, err := readAlgorithm(&params, "PBMAC1 key derivation")
	if err != nil {
		return err
	}
	scheme, err := readAlgorithm(&params, "PBMAC1 scheme")
	if err != nil {
		return err
	}
	k, err := kdf.parsePBKDF2()
	if err != nil {
		return err
	}
	// RFC 9579 wants the length there; 20 bytes are the least it lets pass. More than HMAC's block is of no use, and
	// each further hash length costs all iterations once more.
	if k.keySize < 20 || k.keySize > maxPBMAC1Key {
		return fmt.Errorf("PBMAC1 key has %d bytes, want 20 to %d", k.keySize, maxPBMAC1Key)
	}
	if m.hash, err = hmacHash(scheme.oid); err != nil {
		return err
	}
	m.iterations = k.iterations
	m.pbmac1 = &k
	return nil
}

// compute returns the MAC of the message.
func (m *mac) compute(password passphrase, message []byte) ([]byte, error) {
	var key []byte
	if m.pbmac1 == nil {
		key = deriveKey(m.hash, purposeMAC, password.bmp(), m.salt, m.iterations, m.hash.Size())
	} else {
		k := m.pbmac1
		var err error
		if key, err = pbkdf2.Key(k.hash.New, password.text, k.salt, k.iterations, k.keySize); err != nil {
			return nil, err
		}
	}
	h := hmac.New(m.hash.New, key)
	h.Write(message)
	return h.Sum(nil), nil
}
