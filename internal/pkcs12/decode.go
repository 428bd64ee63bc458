package pkcs12

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Decode reads a PKCS#12 file, in DER or BER. A wrong password gives an error that is ErrPassword;
// a file that was altered looks the same, because its MAC no longer fits. A file without a MAC is
// read too, as OpenSSL and a JVM do.
func Decode(data []byte, password string) (*Contents, error) { return decode(data, password, true) }

// DecodeClosed is Decode for readers that need no keys: they stay encrypted, so that one with a
// password of its own does no harm. Only a key without the localKeyID of a certificate is tried,
// to find the certificate that it is for.
func DecodeClosed(data []byte, password string) (*Contents, error) {
	return decode(data, password, false)
}

func decode(data []byte, password string, keys bool) (*Contents, error) {
	d := newDecoder(password)
	d.keys = keys
	if err := d.decode(data); err != nil {
		return nil, err
	}
	return &d.contents, nil
}

// KeyDecrypter reads the keys of one file, which share the bound on what key derivation may cost.
type KeyDecrypter struct{ decoder *decoder }

// NewKeyDecrypter is for the keys of one file and their password.
func NewKeyDecrypter(password string) KeyDecrypter { return KeyDecrypter{newDecoder(password)} }

// Decrypt reads an EncryptedPrivateKeyInfo (RFC 5208), such as the inside of a PEM block
// "ENCRYPTED PRIVATE KEY".
func (d KeyDecrypter) Decrypt(der []byte) (crypto.Signer, error) {
	key, err := d.decoder.decryptKey(der)
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
	forms      []passphrase // what the password may be; one, once a form has opened something
	keys       bool         // whether private keys are wanted
	iterations int          // left to spend
	contents   Contents
	closed     []bag // those of contents.Keys, where keys are not wanted
}

func newDecoder(password string) *decoder {
	return &decoder{forms: passphrases(password), iterations: maxIterations}
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
		content, err := d.contentOf(part, p.mac != nil)
		if err != nil {
			return err
		}
		bags, err := parseBags(content, 1)
		if err != nil {
			return err
		}
		for _, b := range bags {
			d.decodeBag(b)
		}
	}
	d.openUnnamed()
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
	for _, form := range d.forms {
		if err := d.spend(m.iterations); err != nil {
			return err
		}
		sum, err := m.compute(form, message)
		if err != nil {
			return fmt.Errorf("computing the MAC: %w", err)
		}
		if hmac.Equal(sum, m.digest) {
			d.forms = []passphrase{form}
			return nil
		}
	}
	return fmt.Errorf("%w, or the file was altered: its MAC does not fit", ErrPassword)
}

func (d *decoder) decrypt(p pbe, ciphertext []byte) (plain []byte, err error) {
	for _, form := range d.forms {
		if err := d.spend(p.iterations); err != nil {
			return nil, err
		}
		if plain, err = p.decrypt(form, ciphertext); err == nil {
			d.forms = []passphrase{form}
			return plain, nil
		}
	}
	return nil, err
}

// contentOf is the SafeContents of a part, in DER. Verified
// says that the file's MAC fits the password.
func (d *decoder) contentOf(p part, verified bool) ([]byte, error) {
	content := p.content
	if p.encryption != nil {
		var err error
		content, err = d.decrypt(*p.encryption, p.content)
		switch {
		case errors.Is(err, errDecrypt) && verified:
			return nil, fmt.Errorf("%w for the certificates: they have another one than the file", ErrPassword)
		case errors.Is(err, errDecrypt):
			return nil, fmt.Errorf("%w, or the file is damaged: it has no MAC that could tell", ErrPassword)
		case err != nil:
			return nil, fmt.Errorf("decrypting contents: %w", err)
		}
	}
	content, err := toDER(content)
	if err != nil {
		return nil, fmt.Errorf("list of bags %w", err)
	}
	return content, nil
}

// decodeBag reads one entry. One that cannot be read does not affect the others.
func (d *decoder) decodeBag(b bag) {
	err := b.err
	switch {
	case err != nil:
	case b.id.Equal(oidKeyBag), b.id.Equal(oidShroudedKeyBag):
		key := Key{FriendlyName: b.friendlyName, LocalKeyID: b.localKeyID}
		if !d.keys {
			d.closed = append(d.closed, b)
		} else if key.Key, err = d.open(b); err != nil {
			break
		}
		d.contents.Keys = append(d.contents.Keys, key)
	case b.id.Equal(oidCertBag):
		var cert *x509.Certificate
		if cert, err = parseCertBag(b.value); err != nil {
			break
		}
		d.contents.Certificates = append(d.contents.Certificates,
			Certificate{cert, b.friendlyName, b.localKeyID, b.trusted})
	case b.friendlyName != "":
		d.contents.Others = append(d.contents.Others, b.friendlyName)
	}
	if err != nil {
		d.contents.Unreadable = append(d.contents.Unreadable, Unreadable{b.friendlyName, !b.id.Equal(oidCertBag), err})
	}
}

// open reads the key in a bag.
func (d *decoder) open(b bag) (crypto.Signer, error) {
	if b.id.Equal(oidKeyBag) {
		return ParseKey(b.value)
	}
	key, err := d.decryptKey(b.value)
	if errors.Is(err, errDecrypt) {
		return nil, fmt.Errorf("%w for this key: it has another one than the file, or is damaged", ErrPassword)
	}
	return key, err
}

// openUnnamed decrypts, where keys are not wanted, those that name no certificate: nothing else
// shows which certificates belong to them. One that cannot be decrypted stays closed.
func (d *decoder) openUnnamed() {
	for i, b := range d.closed {
		named := b.localKeyID != nil && slices.ContainsFunc(d.contents.Certificates, func(c Certificate) bool {
			return bytes.Equal(c.LocalKeyID, b.localKeyID)
		})
		if !named {
			if key, err := d.open(b); err == nil {
				d.contents.Keys[i].Key = key
			}
		}
	}
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
func parseCertBag(der []byte) (*x509.Certificate, error) {
	body := newReader(der).sequence("certificate bag")
	if kind := body.oid("certificate type"); !kind.Equal(oidX509Certificate) {
		body.fail(fmt.Errorf("certificate has type %v, want X.509", kind))
	}
	der = body.data("certificate")
	if err := body.err(); err != nil {
		return nil, err
	}
	return pki.Parse(der)
}
