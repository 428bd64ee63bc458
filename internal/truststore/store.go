package truststore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/program"
)

// store is a truststore as it was read.
type store struct {
	keystore.Store
	path     string
	file     file
	password string
	trusted  []keystore.Entry // in the order of the store
}

// usualPassword is that of the cacerts of every JDK. It is not a secret: the certificates are public, and any process
// that may write the file may replace it. No file holds it.
const usualPassword = "changeit"

// load reads a truststore with at least one trusted certificate. One that needs a password, of which no file was
// named, may have the usual one.
func (r *run) load(s Store) (*store, error) {
	f, err := r.read(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && namedFormat(s.Path) == "":
		// The ONAP post-processor went by the name, and so do people who look for the cause.
		return nil, fail(codePaths, "truststore %q of %s does not exist, and its name does not end in "+
			".jks, .p12, .pfx, .pem or .crt", s.Path, truststoresVariable)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fail(codePair, "truststore %q of %s does not exist", s.Path, truststoresVariable)
	case err != nil:
		return nil, fail(codeUnreadable, "reading truststore: %w", err)
	}
	format, err := keystore.Detect(f.data)
	if err != nil {
		return nil, fail(formatCode(s.Path), "reading truststore %q: %w", s.Path, err)
	}
	opened, noPassword := &store{path: s.Path, file: f}, s.PasswordPath == "" && format != keystore.PEM
	if format != keystore.PEM && s.PasswordPath != "" {
		if opened.password, err = r.password(s); err != nil {
			return nil, err
		}
	}
	opened.Store, err = keystore.OpenClosed(f.data, opened.password)
	if noPassword && errors.Is(err, keystore.ErrPassword) {
		opened.password = usualPassword
		if opened.Store, err = keystore.OpenClosed(f.data, opened.password); err == nil {
			r.usual = append(r.usual, s.Path)
		}
	}
	switch {
	case noPassword && errors.Is(err, keystore.ErrPassword):
		return nil, fail(codePassword,
			"truststore %q is a %s store with a password other than that of a JDK's cacerts, "+
				"want the file that holds it in %s", s.Path, format, passwordsVariable)
	case errors.Is(err, keystore.ErrEmpty) && format != keystore.PEM:
		return nil, fail(codeNoCertificates, "truststore %q is empty, want at least one certificate", s.Path)
	case err != nil:
		return nil, fail(codeUnreadable, "reading truststore %q%s: %w", s.Path, nameHint(s.Path, format), err)
	}
	for _, u := range opened.Unreadable {
		if !u.Key {
			r.warnings = append(r.warnings, fmt.Sprintf("truststore %q: %v; it is skipped", s.Path, u))
		}
	}
	if opened.trusted = opened.TrustedEntries(); len(opened.trusted) == 0 {
		// The ONAP post-processor took a keystore for a truststore, and so do deployments.
		r.warnings = append(r.warnings,
			fmt.Sprintf("truststore %q has no trusted certificate, only private keys: is it a keystore?", s.Path))
	}
	return opened, nil
}

// password reads a store's password file.
func (r *run) password(s Store) (string, error) {
	f, err := r.read(s.PasswordPath)
	if err != nil {
		return "", fail(codePassword, "reading the password of truststore %q: %w", s.Path, err)
	}
	return program.TrimSecret(f.data), nil
}

// formatCode is the exit code for content of an unknown format. The ONAP post-processor went by the name: a
// .pem without a certificate in it had no certificates, and a .jks or .p12 could not be loaded.
func formatCode(path string) int {
	switch named := namedFormat(path); {
	case named == keystore.PEM:
		return codeNoCertificates
	case named != "":
		return codeUnreadable
	}
	return codeFormat
}

// namedFormat is the format that a file's name promises, empty when it promises none.
func namedFormat(path string) keystore.Format {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".jks":
		return keystore.JKS
	case ".p12", ".pfx":
		return keystore.PKCS12
	case ".pem", ".crt":
		return keystore.PEM
	}
	return ""
}

// nameHint says that name and content disagree. It is for errors only: the content decides, but people
// who look for the cause may go by the name.
func nameHint(path string, format keystore.Format) string {
	if named := namedFormat(path); named != "" && named != format {
		return fmt.Sprintf(" (named as if it were %s, but its content is %s)", named, format)
	}
	return ""
}
