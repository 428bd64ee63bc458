package truststore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// Added is a certificate that was added to the first truststore.
type Added struct {
	Alias   string // in the first truststore; empty in PEM
	Subject string // RFC 4514
	SHA256  string // of the DER, in hexadecimal
	From    string // the truststore that it came from
}

// merge plans the first truststore, with what the others have and it does not.
func (r *run) merge(stores []Store) ([]Added, error) {
	loaded := make([]*store, len(stores))
	for i, s := range stores {
		var err error
		if loaded[i], err = r.load(s); err != nil {
			return nil, err
		}
	}
	return r.mergeLoaded(loaded)
}

func (r *run) mergeLoaded(loaded []*store) ([]Added, error) {
	base := loaded[0]
	real, err := r.claim(base.path, codeSave)
	if err != nil {
		return nil, err
	}
	missing, added := base.missing(loaded[1:])
	if len(missing) == 0 {
		return nil, nil
	}
	data, err := base.with(missing, r.now())
	if err == nil {
		err = base.verify(data, missing)
	}
	if err != nil {
		return nil, fail(codeOperation, "merging into truststore %q: %w", base.path, err)
	}
	next := base.file
	next.data = data
	r.changes = append(r.changes, &change{path: base.path, real: real, current: &base.file,
		next: next, exitCode: codeSave})
	return added, nil
}

// missing are the others' certificates that the store has not, under aliases that are free in it.
// What makes two certificates the same is their DER.
func (s *store) missing(others []*store) (list []keystore.Entry, added []Added) {
	present := map[string]bool{}
	for _, e := range s.trusted {
		present[string(e.Chain[0].Raw)] = true
	}
	names := newAliases(s.Format, s.Names)
	for _, other := range others {
		for _, e := range other.trusted {
			cert := e.Chain[0]
			if present[string(cert.Raw)] {
				continue
			}
			present[string(cert.Raw)] = true
			alias := names.free(e.Alias)
			list = append(list, keystore.Entry{Alias: alias, Chain: e.Chain, Trusted: true})
			added = append(added, Added{Alias: alias, Subject: pki.DN(cert.RawSubject),
				SHA256: digestOf(cert.Raw), From: other.path})
		}
	}
	return list, added
}

// with is the store's data with the certificates added.
func (s *store) with(added []keystore.Entry, now time.Time) ([]byte, error) {
	return keystore.Append(s.file.data, s.password, added, s.loose(added), now)
}

// loose are the certificates of a PKCS#12 that marks none as trusted in Java's way, as openssl
// makes it. They have to be marked with the added ones: else a JVM would see the new ones only,
// where before the merge every reader but a JVM saw the others. Each gets a name of its own:
// openssl gives several entries one name, of which a JVM would see the last only, and the key
// under that name would go first.
func (s *store) loose(added []keystore.Entry) []keystore.Entry {
	if s.Format != keystore.PKCS12 || len(s.trusted) == 0 || s.trusted[0].Trusted {
		return nil
	}
	names := newAliases(s.Format, s.Names)
	for _, e := range added {
		names.taken[strings.ToLower(e.Alias)] = true
	}
	reserved := slices.Clone(s.Names) // for anything but loose certificates
	for _, e := range s.trusted {
		if i := slices.Index(reserved, e.Alias); i >= 0 {
			reserved = slices.Delete(reserved, i, i+1)
		}
	}
	taken := newAliases(s.Format, reserved).taken
	loose := slices.Clone(s.trusted)
	for i, e := range loose {
		if taken[strings.ToLower(e.Alias)] {
			loose[i].Alias = names.free(e.Alias)
		}
		taken[strings.ToLower(loose[i].Alias)] = true
	}
	return loose
}

// verify reads the merged store before it takes the old one's place: all that was trusted and all
// that was added must be trusted, and each key and alias still be there.
func (s *store) verify(data []byte, added []keystore.Entry) error {
	read, err := keystore.OpenClosed(data, s.password)
	if err != nil {
		return fmt.Errorf("reading it back: %w", err)
	}
	if read.Format != s.Format {
		return fmt.Errorf("reading it back: format is %s, want %s", read.Format, s.Format)
	}
	trusted := map[string]bool{}
	for _, e := range read.TrustedEntries() {
		trusted[string(e.Chain[0].Raw)] = true
	}
	for _, e := range slices.Concat(s.trusted, added) {
		if der := e.Chain[0].Raw; !trusted[string(der)] {
			return fmt.Errorf("reading it back: certificate %s is not trusted", digestOf(der))
		}
	}
	for _, alias := range s.Names {
		if !slices.Contains(read.Names, alias) {
			return fmt.Errorf("reading it back: entry %q is gone", alias)
		}
	}
	return nil
}

// aliases hands out names that are free.
type aliases struct {
	format keystore.Format
	taken  map[string]bool // in lower case: a JVM makes no difference
}

func newAliases(format keystore.Format, taken []string) aliases {
	a := aliases{format, map[string]bool{}}
	for _, alias := range taken {
		a.taken[strings.ToLower(alias)] = true
	}
	return a
}

// maxAlias bounds the names that are copied, in characters. JKS has 16 bits for their length.
const maxAlias = 200

// free returns the wanted alias, with a number after it when it is
// taken, and takes it. A certificate from a PEM file, which has no
// aliases, gets the name that the ONAP post-processor gave.
func (a aliases) free(wanted string) string {
	if a.format == keystore.PEM {
		return ""
	}
	name := func(n int) string { return "pem-trusted-certificate-" + strconv.Itoa(n) }
	if wanted != "" {
		wanted = readable(wanted)
		name = func(n int) string {
			if n == 0 {
				return wanted
			}
			return wanted + "-" + strconv.Itoa(n+1)
		}
	}
	for n := 0; ; n++ {
		alias := name(n)
		lower := strings.ToLower(alias)
		if a.taken[lower] {
			continue
		}
		a.taken[lower] = true
		if a.format == keystore.JKS {
			// Java looks up in lower case what it loads as it stands.
			return lower
		}
		return alias
	}
}

// readable replaces characters that one of the formats or a terminal cannot show: JKS writes those
// beyond 16 bits in a way of its own, and a wrong one makes the whole store unreadable.
func readable(alias string) string {
	runes := []rune(alias)
	for i, c := range runes {
		if c > 0xffff || c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			runes[i] = '_'
		}
	}
	return string(runes[:min(len(runes), maxAlias)])
}

// store is a truststore as it was read.
type store struct {
	keystore.Store
	path     string
	file     file
	password string
	trusted  []keystore.Entry // in the order of the store
}

// usualPassword is that of the cacerts of every JDK. It is not a secret: the certificates are
// public, and any process that may write the file may replace it. No file holds it.
const usualPassword = "changeit"

// load reads a truststore with at least one trusted certificate. One that needs a password, of
// which no file was named, may have the usual one.
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

// formatCode is the exit code for content of an unknown format. The
// ONAP post-processor went by the name: a .pem without a certificate
// in it had no certificates, and a .jks or .p12 could not be loaded.
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

// nameHint says that name and content disagree. It is for errors only: the content decides, but
// people who look for the cause may go by the name.
func nameHint(path string, format keystore.Format) string {
	if named := namedFormat(path); named != "" && named != format {
		return fmt.Sprintf(" (named as if it were %s, but its content is %s)", named, format)
	}
	return ""
}
