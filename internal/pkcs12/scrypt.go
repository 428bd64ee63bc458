package pkcs12

import (
	"fmt"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/scrypt"
)

// scryptParams is scrypt-params, RFC 7914 section 7; keySize is 0 when the file leaves it out.
type scryptParams struct {
	salt    []byte
	n, r, p int
	keySize int
}

const (
	// maxScryptMemory bounds what scrypt may take, in bytes: twice what openssl pkcs8 -scrypt asks for.
	maxScryptMemory = 32 << 20
	// maxScryptWork bounds memory times parallelization, with which the time grows: less than a second.
	maxScryptWork = 32 << 20
)

func (a algorithm) parseScrypt() (*scryptParams, error) {
	params, err := read(&a.params, cbasn1.SEQUENCE, "scrypt parameters")
	if err != nil {
		return nil, err
	}
	k := &scryptParams{}
	if k.salt, err = read(&params, cbasn1.OCTET_STRING, "scrypt salt"); err != nil {
		return nil, err
	}
	if k.n, err = readCount(&params, "scrypt cost"); err != nil {
		return nil, err
	}
	if k.r, err = readCount(&params, "scrypt block size"); err != nil {
		return nil, err
	}
	if k.p, err = readCount(&params, "scrypt parallelization"); err != nil {
		return nil, err
	}
	if !params.Empty() {
		if k.keySize, err = readCount(&params, "scrypt key length"); err != nil {
			return nil, err
		}
	}
	return k, k.check()
}

// check bounds the work before any is done. The divisions keep products from overflowing.
func (k *scryptParams) check() error {
	if k.r > maxScryptMemory/128 || k.n > maxScryptMemory/128/k.r {
		return fmt.Errorf("scrypt asks for more than %d MiB of memory (N is %d, r is %d): encrypt the key again with "+
			"openssl pkcs8 -topk8 -scrypt", maxScryptMemory>>20, k.n, k.r)
	}
	if k.p > maxScryptWork/(128*k.r*k.n) {
		return fmt.Errorf("scrypt asks for too much work (N is %d, r is %d, p is %d): encrypt the key again with "+
			"openssl pkcs8 -topk8 -scrypt", k.n, k.r, k.p)
	}
	return nil
}

// iterations is what scrypt counts for in maxIterations, a little more than what PBKDF2 does in the same time.
func (k *scryptParams) iterations() int { return 2 * k.n * k.r * k.p }

func (k *scryptParams) key(password string, size int) ([]byte, error) {
	key, err := scrypt.Key([]byte(password), k.salt, k.n, k.r, k.p, size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key: %w", err)
	}
	return key, nil
}
