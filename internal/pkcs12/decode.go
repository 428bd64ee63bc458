package pkcs12

import (
	"crypto"
	"crypto/hmac"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/certinfo"
)

// Decode reads a PKCS#12 file in DER. A wrong password gives an error that is ErrPassword; a file
// that was altered looks the same, because its MAC no longer fits. A file without a MAC is read too,
// as OpenSSL and a JVM do.
func Decode(data []byte, password string) (*Contents, error) {
	d := decoder{password: password, iterations: maxIterations}
	if err := d.decode(data); err != nil {
		return nil, err
	}
	return &d.contents, nil
}

// DecryptKey reads an EncryptedPrivateKeyInfo (RFC 5208), such as the inside of a PEM block
// "ENCRYPTED PRIVATE KEY".
func DecryptKey(der []byte, password string) (crypto.Signer, error) {
	d := decoder{password: password, iterations: maxIterations}
	key, err := d.decryptKey(der)
	if errors.Is(err, errDecrypt) {
		return nil, fmt.Errorf("%w for the key, or it is damaged", ErrPassword)
	}
	return key, err
}

// ParseKey reads a PrivateKeyInfo (RFC 5208), which is PKCS#8 without encryption.
func ParseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("has a key of type %T, want one that can sign", key)
	}
	return signer, nil
}

type decoder struct {
	password   string
	iterations int // left to spend
	contents   Contents
}

func (d *decoder) decode(data []byte) error {
	p, err := parsePFX(data)
	if err != nil {
		return err
	}
	if p.mac != nil {
		if err := d.verify(p.mac, p.safe); err != nil {
			return err
		}
	}
	for _, part := range p.parts {
		if err := d.decodePart(part, p.mac != nil); err != nil {
			return err
		}
	}
	return nil
}

// spend counts iterations before they are done.
func (d *decoder) spend(iterations int) error {
	if iterations > d.iterations {
		return fmt.Errorf("asks for more than %d iterations of key derivation in all", maxIterations)
	}
	d.iterations -= iterations
	return nil
}

func (d *decoder) verify(m *mac, message []byte) error {
	if err := d.spend(m.iterations); err != nil {
		return err
	}
	sum, err := m.compute(d.password, message)
	if err != nil {
		return fmt.Errorf("computing the MAC: %w", err)
	}
	if !hmac.Equal(sum, m.digest) {
		return fmt.Errorf("%w, or the file was altered: its MAC does not fit", ErrPassword)
	}
	return nil
}

func (d *decoder) decrypt(p pbe, ciphertext []byte) ([]byte, error) {
	if err := d.spend(p.iterations); err != nil {
		return nil, err
	}
	return p.decrypt(d.password, ciphertext)
}

func (d *decoder) decodePart(p part, verified bool) error {
	content := p.content
	if p.encryption != nil {
		var err error
		content, err = d.decrypt(*p.encryption, p.content)
		if errors.Is(err, errDecrypt) {
			if verified {
				return fmt.Errorf("%w for the certificates: they have another one than the file", ErrPassword)
			}
			return fmt.Errorf("%w, or the file is damaged: it has no MAC that could tell", ErrPassword)
		}
		if err != nil {
			return fmt.Errorf("decrypting contents: %w", err)
		}
	}
	bags, err := parseBags(content, 1)
	if err != nil {
		return err
	}
	for _, b := range bags {
		if err := d.decodeBag(b); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) decodeBag(b bag) error {
	switch {
	case b.id.Equal(oidKeyBag):
		key, err := ParseKey(b.value)
		if err != nil {
			return fmt.Errorf("reading key %q: %w", b.friendlyName, err)
		}
		d.addKey(key, b)
	case b.id.Equal(oidShroudedKeyBag):
		key, err := d.decryptKey(b.value)
		if errors.Is(err, errDecrypt) {
			return fmt.Errorf("%w for key %q: it has another one than the file, or is damaged",
				ErrPassword, b.friendlyName)
		}
		if err != nil {
			return fmt.Errorf("reading key %q: %w", b.friendlyName, err)
		}
		d.addKey(key, b)
	case b.id.Equal(oidCertBag):
		cert, err := parseCertBag(b.value)
		if err != nil {
			return fmt.Errorf("reading certificate %q: %w", b.friendlyName, err)
		}
		d.contents.Certificates = append(d.contents.Certificates,
			Certificate{cert, b.friendlyName, b.localKeyID, b.trusted})
	}
	return nil
}

func (d *decoder) addKey(key crypto.Signer, b bag) {
	d.contents.Keys = append(d.contents.Keys, Key{key, b.friendlyName, b.localKeyID})
}

func (d *decoder) decryptKey(der []byte) (crypto.Signer, error) {
	encryption, ciphertext, err := parseEncryptedKey(der)
	if err != nil {
		return nil, err
	}
	plain, err := d.decrypt(encryption, ciphertext)
	if err != nil {
		return nil, err
	}
	return ParseKey(plain)
}

// parseCertBag reads CertBag, RFC 7292 section 4.2.3.
func parseCertBag(s cryptobyte.String) (*x509.Certificate, error) {
	body, err := read(&s, cbasn1.SEQUENCE, "certificate bag")
	if err != nil {
		return nil, err
	}
	kind, err := readOID(&body, "certificate type")
	if err != nil {
		return nil, err
	}
	if !kind.Equal(oidX509Certificate) {
		return nil, fmt.Errorf("certificate has type %v, want X.509", kind)
	}
	der, err := readData(&body, "certificate")
	if err != nil {
		return nil, err
	}
	return certinfo.Parse(der)
}
