package truststore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/program"
)

// store is a truststore as it was read.
type store struct {
	path     string
	file     file
	format   keystore.Format
	password string
	aliases  []string // of all that it has; none in PEM
	reserved []string // of those aliases, the ones of anything but loose certificates
	anchors  []anchor // in the order of the store
	marked   bool     // whether it says of some certificates that they are trusted, as Java does
}

// anchor is a trusted certificate.
type anchor struct {
	alias string // empty in PEM
	cert  *x509.Certificate
}

// fingerprint is what makes two certificates the same.
type fingerprint [sha256.Size]byte

func fingerprintOf(cert *x509.Certificate) fingerprint { return sha256.Sum256(cert.Raw) }

func (f fingerprint) String() string { return hex.EncodeToString(f[:]) }

// usualPassword is that of the cacerts of every JDK, and no secret: its certificates are public, and whoever may
// write the file may replace it. There is no file that holds it.
const usualPassword = "changeit"

// load reads a truststore with at least one trusted certificate. One that needs a password, of which no file was
// named, may have the usual one.
func (r *run) load(s Store) (*store, error) {
	f, err := r.read(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && namedFormat(s.Path) == "":
		// The ONAP post-processor went by the name, and so does who looks for the cause.
		return nil, failed(codePaths, "truststore %q of %s does not exist, and its name ends in none of .jks, .p12, .pfx, .pem and .crt",
			s.Path, truststoresVariable)
	case errors.Is(err, fs.ErrNotExist):
		return nil, failed(codePair, "truststore %q of %s does not exist", s.Path, truststoresVariable)
	case err != nil:
		return nil, failed(codeUnreadable, "reading truststore: %w", err)
	}
	format, err := keystore.Detect(f.data)
	if err != nil {
		return nil, failed(formatCode(s.Path), "reading truststore %q: %w", s.Path, err)
	}
	opened, noPassword := &store{path: s.Path, file: f, format: format}, s.PasswordPath == "" && format != keystore.PEM
	if format != keystore.PEM && s.PasswordPath != "" {
		if opened.password, err = r.password(s); err != nil {
			return nil, err
		}
	}
	read, err := keystore.OpenClosed(f.data, opened.password)
	if noPassword && errors.Is(err, keystore.ErrPassword) {
		opened.password = usualPassword
		if read, err = keystore.OpenClosed(f.data, opened.password); err == nil {
			r.usual = append(r.usual, s.Path)
		}
	}
	switch {
	case noPassword && errors.Is(err, keystore.ErrPassword):
		return nil, failed(codePassword, "truststore %q is a %s store with a password other than that of a JDK's cacerts, want the file that holds it in %s",
			s.Path, format, passwordsVariable)
	case err != nil && holdsNothing(f.data, format, opened.password):
		return nil, failed(codeNoCertificates, "truststore %q is empty, want at least one certificate", s.Path)
	case err != nil:
		return nil, failed(codeUnreadable, "reading truststore %q%s: %w", s.Path, misnamed(s.Path, format), err)
	}
	opened.aliases, opened.marked = read.Names, anyMarked(read.Entries)
	opened.reserved = slices.Clone(read.Names)
	for _, e := range read.Entries {
		if i := slices.Index(opened.reserved, e.Alias); i >= 0 && e.Key == nil && !e.Closed {
			opened.reserved = slices.Delete(opened.reserved, i, i+1)
		}
	}
	for _, u := range read.Unreadable {
		if !u.Key {
			r.warnings = append(r.warnings, fmt.Sprintf("truststore %q: %v; it is skipped", s.Path, u))
		}
	}
	if opened.anchors = anchors(read.Entries, format); len(opened.anchors) == 0 {
		// The ONAP post-processor took a keystore for a truststore, and so do deployments.
		r.warnings = append(r.warnings, fmt.Sprintf("truststore %q holds no trusted certificate, only private keys: is it a keystore?", s.Path))
	}
	return opened, nil
}

// password reads a store's password file.
func (r *run) password(s Store) (string, error) {
	f, err := r.read(s.PasswordPath)
	if err != nil {
		return "", failed(codePassword, "reading the password of truststore %q: %w", s.Path, err)
	}
	return program.TrimSecret(f.data), nil
}

// anchors are the certificates to trust: in JKS and PKCS#12 the entries marked as trusted, as a JVM
// reads them. A PKCS#12 without any such mark was made by openssl, so there it is every certificate
// that belongs to no key. In PEM, which cannot mark anything, it is every certificate.
func anchors(entries []keystore.Entry, format keystore.Format) []anchor {
	marked := anyMarked(entries)
	var list []anchor
	for _, e := range entries {
		if format != keystore.PEM && (e.Key != nil || e.Closed || marked && !e.Trusted) {
			continue
		}
		for _, cert := range e.Chain {
			list = append(list, anchor{e.Alias, cert})
		}
	}
	return list
}

func anyMarked(entries []keystore.Entry) bool {
	return slices.ContainsFunc(entries, func(e keystore.Entry) bool { return e.Key == nil && e.Trusted })
}

// formatCode is the exit code for content of no known format. The ONAP post-processor went by the
// name: what was called .pem and had no certificate in it was one without certificates, and a .jks or
// .p12 could not be loaded.
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

// misnamed says that name and content disagree. It stands in errors only: the content decides, but
// who looks for the cause may have gone by the name.
func misnamed(path string, format keystore.Format) string {
	if named := namedFormat(path); named != "" && named != format {
		return fmt.Sprintf(" (named as if it were %s, but its content is %s)", named, format)
	}
	return ""
}

// holdsNothing tells a well-formed store without entries, which package keystore refuses like a
// damaged one, from a damaged one.
func holdsNothing(data []byte, format keystore.Format, password string) bool {
	switch format {
	case keystore.JKS:
		return jksIsEmpty(data)
	case keystore.PKCS12:
		contents, err := pkcs12.Decode(data, password)
		return err == nil && len(contents.Keys) == 0 && len(contents.Certificates) == 0
	}
	return false
}
