package output

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// encode makes the files of a set. Of the set before it takes over the truststores when nobody else is
// trusted now: they are salted, so that making them anew would change every byte for nothing.
func (v *Volume) encode(b Bundle) (*set, error) {
	files := wanted(v.cfg.Types)
	if err := b.check(); err != nil {
		return nil, &EncodeError{Store: firstKeystore(files), Err: err}
	}
	key, err := x509.MarshalPKCS8PrivateKey(b.Key)
	if err != nil {
		return nil, &EncodeError{Store: firstKeystore(files), Key: true, Err: err}
	}
	e := encoder{cfg: v.cfg, now: v.cfg.Now(), passwords: v.passwords, bundle: b, keyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
	if v.published != nil && sameCertificates(v.published.bundle.Trusted, b.Trusted) {
		e.truststores = v.published
	}

	s := &set{bundle: b, files: make([]content, len(files))}
	errs := make([]error, len(files))
	var stores sync.WaitGroup
	for i, f := range files {
		// Stores take time on purpose: their passwords are hashed thousands of times.
		stores.Go(func() {
			data, err := e.file(f.name)
			if err != nil {
				var keyError *keystore.KeyError
				errs[i] = &EncodeError{Store: f.name, Key: errors.As(err, &keyError), Err: err}
			} else if len(data) > readLimit {
				errs[i] = &EncodeError{Store: f.name, Err: fmt.Errorf("has %d bytes, want at most %d", len(data), readLimit)}
			}
			s.files[i] = newContent(f, data, v.cfg.FileMode)
		})
	}
	stores.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// firstKeystore names a store to blame for a bundle that fits in none.
func firstKeystore(files []file) string {
	for _, f := range files {
		if f.holds == privateKey {
			return f.name
		}
	}
	return ""
}

type encoder struct {
	cfg         Config
	now         time.Time // the entries' date in a JKS
	passwords   passwords
	bundle      Bundle
	keyPEM      []byte
	truststores *set // nil, or a set with the same trusted certificates
}

func (e encoder) file(name string) ([]byte, error) {
	switch name {
	case "keystore.pass":
		return []byte(e.passwords.keystore), nil
	case "truststore.pass":
		return []byte(e.passwords.truststore), nil
	case "keystore.p12":
		return keystore.EncodePKCS12(e.keyEntry(), e.passwords.keystore, keystore.Profile(e.cfg.P12Profile))
	case "keystore.jks":
		return keystore.EncodeJKS(e.keyEntry(), e.passwords.keystore, e.now)
	case "key.pem":
		return e.keyPEM, nil
	case "keystore.pem":
		return certificatesPEM(e.bundle.Chain), nil
	case "keystore-combined.pem":
		return append(bytes.Clone(e.keyPEM), certificatesPEM(e.bundle.Chain)...), nil
	}
	return e.truststore(name)
}

func (e encoder) truststore(name string) ([]byte, error) {
	if e.truststores != nil {
		return e.truststores.data(name), nil
	}
	switch name {
	case "truststore.p12":
		return keystore.EncodePKCS12(e.trustedEntries(), e.passwords.truststore, keystore.Profile(e.cfg.P12Profile))
	case "truststore.jks":
		return keystore.EncodeJKS(e.trustedEntries(), e.passwords.truststore, e.now)
	case "truststore.pem":
		return certificatesPEM(e.bundle.Trusted), nil
	}
	return nil, fmt.Errorf("no file of an output type has the name %q", name)
}

func (e encoder) keyEntry() []keystore.Entry {
	return []keystore.Entry{{Alias: e.cfg.KeystoreAlias, Key: e.bundle.Key, Chain: e.bundle.Chain}}
}

func (e encoder) trustedEntries() []keystore.Entry {
	entries := make([]keystore.Entry, len(e.bundle.Trusted))
	for i, cert := range e.bundle.Trusted {
		entries[i] = keystore.Entry{Alias: trustedAlias(e.cfg, i), Chain: []*x509.Certificate{cert}, Trusted: true}
	}
	return entries
}

// trustedAlias is the alias of a trusted certificate, which are counted from 1.
func trustedAlias(cfg Config, i int) string { return cfg.TruststoreAliasPrefix + strconv.Itoa(i+1) }

func certificatesPEM(certs []*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return text
}
