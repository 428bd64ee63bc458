package pkcs12

import (
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"fmt"
)

// mac is MacData, RFC 7292 section 4, over the authenticated safe.
type mac struct {
	hash       crypto.Hash
	salt       []byte
	iterations int
	digest     []byte
	pbmac1     *pbkdf2Params // RFC 9579: the key comes from PBKDF2, and salt is unused; nil: the MAC of RFC 7292
}

func (r *reader) mac() *mac {
	data := r.sequence("MAC")
	info := data.sequence("MAC digest")
	alg := info.algorithm("MAC algorithm")
	m := &mac{iterations: 1, digest: info.octets("MAC value")}
	if alg.oid.Equal(oidPBMAC1) {
		m.readPBMAC1(alg) // what follows is unused and may be anything
		return m
	}
	m.salt = data.octets("MAC salt")
	if data.more() {
		m.iterations = data.count("MAC iteration count")
	}
	for _, h := range hashes {
		if h.digest.Equal(alg.oid) {
			m.hash = h.hash
			return m
		}
	}
	data.fail(unsupportedError("MAC algorithm", alg.oid, "SHA-1, SHA-2 or PBMAC1"))
	return m
}

// maxPBMAC1Key bounds the HMAC keys of PBMAC1, in bytes; those in use have 20 to 64.
const maxPBMAC1Key = 64

// readPBMAC1 reads PBMAC1-params, RFC 8018 appendix A.5 with the rules of RFC 9579 section 4.
func (m *mac) readPBMAC1(alg algorithm) {
	params := alg.params.sequence("PBMAC1 parameters")
	kdf := params.algorithm("PBMAC1 key derivation")
	scheme := params.algorithm("PBMAC1 scheme")
	k := kdf.pbkdf2()
	// RFC 9579 wants the length there; 20 bytes are the least it allows. More than HMAC's block is of no use, and
	// each further hash length costs all iterations once more.
	if k.keySize < 20 || k.keySize > maxPBMAC1Key {
		params.fail(fmt.Errorf("PBMAC1 key has %d bytes, want 20 to %d", k.keySize, maxPBMAC1Key))
	}
	m.hash = params.hmacHash(scheme.oid)
	m.iterations = k.iterations
	m.pbmac1 = &k
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
