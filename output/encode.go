package output

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// content is one file with what is in it.
type content struct {
	name string
	data []byte
	mode fs.FileMode // asked for
	kept fs.FileMode // what the file system made of it
}

func newContent(f File, data []byte, secretMode fs.FileMode) *content {
	mode := f.mode(secretMode)
	return &content{name: f.Name, data: data, mode: mode, kept: mode}
}

// set is everything that one publication writes.
type set struct {
	bundle Bundle
	files  []*content // in the catalogue's order
}

// staged is what a publication of the set writes: its files, and the note where there is one.
func (s *set) staged() []*content {
	staged := slices.Clone(s.files)
	if len(s.bundle.Note) > 0 {
		staged = append(staged, noteContent(s.bundle.Note))
	}
	return staged
}

func (s *set) names() []string {
	var names []string
	for _, f := range s.staged() {
		names = append(names, f.name)
	}
	return names
}

// data is the content of the named file, nil where the set has none.
func (s *set) data(name string) []byte {
	for _, f := range s.files {
		if f.name == name {
			return f.data
		}
	}
	return nil
}

// encode makes the files of a set. It keeps the truststores of the set
// before when the trusted certificates are the same: they are salted,
// so that making them again would change every byte for nothing.
func (v *Volume) encode(b Bundle) (*set, error) {
	files := filesOf(v.cfg.Types)
	first := formatOf(v.cfg.Types[0]).mainFile()
	if err := b.check(); err != nil {
		return nil, &EncodeError{Store: first, Err: err}
	}
	key, err := x509.MarshalPKCS8PrivateKey(b.Key)
	if err != nil {
		return nil, &EncodeError{Store: first, Key: true, Err: err}
	}
	e := &encoder{cfg: v.cfg, now: v.cfg.Now(), passwords: v.passwords, bundle: b,
		keyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
	if v.published != nil && sameCertificates(v.published.bundle.Trusted, b.Trusted) {
		e.truststores = v.published
	}

	s := &set{bundle: b, files: make([]*content, len(files))}
	errs := make([]error, len(files))
	var stores sync.WaitGroup
	for i, f := range files {
		encode := func() {
			data, err := e.file(f)
			if err == nil && len(data) > readLimit {
				err = fmt.Errorf("has %d bytes, want at most %d", len(data), readLimit)
			}
			if err != nil {
				var keyError *keystore.KeyError
				errs[i] = &EncodeError{Store: f.Name, Key: errors.As(err, &keyError), Err: err}
			}
			s.files[i] = newContent(f, data, v.cfg.FileMode)
		}
		if f.PasswordFile == "" {
			encode()
		} else { // which takes time on purpose: passwords are hashed thousands of times
			stores.Go(encode)
		}
	}
	stores.Wait()
	return s, cmp.Or(errs...)
}

type encoder struct {
	cfg         Config
	now         time.Time // the entries' date in a JKS
	passwords   passwords
	bundle      Bundle
	keyPEM      []byte
	truststores *set // nil, or a set with the same trusted certificates
}

func (e *encoder) file(f File) ([]byte, error) {
	if f.Trusted && e.truststores != nil {
		return e.truststores.data(f.Name), nil
	}
	return f.encode(e)
}
