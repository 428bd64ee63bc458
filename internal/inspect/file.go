package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/program"
)

// OneFile reads one store or PEM file, of whatever program. passwordFile has the password that opens it; when empty,
// it is the file of the same name that ends in .pass, as certfetcher writes it, if there is one.
func OneFile(path, passwordFile string) (*Report, error) {
	data, info, err := files.Read(path, keystore.MaxSize) // one byte more is what is refused
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, files.Explain(path, files.Reason(err)))
	}
	r := &Report{Dir: filepath.Dir(path)}
	file := File{Name: filepath.Base(path), Mode: info.Mode().String(), Size: info.Size()}
	password, err := passwordOf(path, passwordFile)
	if err != nil {
		return nil, err
	}
	entries, err := file.decode(data, password)
	if err != nil {
		file.Problem = err.Error()
	}
	r.Files = []File{file}
	r.describe(false, entries)
	if r.Certificate == nil {
		r.describePair(entries)
	}
	if r.Certificate == nil {
		r.describeCertificates(entries)
	}
	return r, nil
}

// describeCertificates takes the certificate from entries without a key, and the anchors when there are only such.
func (r *Report) describeCertificates(entries []keystore.Entry) {
	var all keystore.Entry
	for _, e := range entries {
		all.Chain = append(all.Chain, e.Chain...)
	}
	if len(all.Chain) == 0 {
		return
	}
	if all.Chain[0].IsCA {
		r.describe(true, entries)
		return
	}
	r.Certificate = describeCertificate(all)
}

// passwordOf reads the password of a file.
func passwordOf(path, passwordFile string) (string, error) {
	isGiven := passwordFile != ""
	if !isGiven {
		passwordFile = strings.TrimSuffix(path, filepath.Ext(path)) + ".pass"
	}
	password, err := program.ReadSecret(passwordFile)
	switch {
	case err == nil:
		return password, nil
	case !isGiven && errors.Is(err, fs.ErrNotExist):
		return "", nil
	}
	return "", fmt.Errorf("the password in %s %w", passwordFile, files.Explain(passwordFile, files.Reason(err)))
}
