package output

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// adopt takes a set that is found on the volume for the published one, if it is in every respect what
// would be published from the bundle in it, but for modes. The errors are those of Current.
func (v *Volume) adopt(s snapshot) error {
	if len(s.files) == 0 && !s.generated && !s.unsettled {
		return ErrEmpty
	}
	if err := v.layoutFault(s); err != nil {
		return err
	}
	if v.published != nil && v.published.within(s) {
		return nil // the same bytes as then: opening the stores would tell nothing new
	}
	found, passwords, err := v.open(s)
	if err != nil {
		return err
	}
	v.published, v.passwords = found, passwords
	return nil
}

// within tells whether a snapshot has the content of the set.
func (s *set) within(now snapshot) bool {
	return !slices.ContainsFunc(s.files, func(f content) bool { return !now.files[f.name].holds(f.data) })
}

// open reads the set in a snapshot whose layout has no fault.
func (v *Volume) open(s snapshot) (*set, passwords, error) {
	r := reader{cfg: v.cfg, files: s.files}
	bundle, err := r.bundle()
	if err != nil {
		return nil, passwords{}, err
	}
	bundle.Note = s.note()
	found := &set{bundle: bundle}
	for _, f := range wanted(v.cfg.Types) {
		found.files = append(found.files, newContent(f, s.files[f.name].data, v.cfg.FileMode))
	}
	return found, r.passwords(), nil
}

// Adopt takes another set that it finds in the place of the published one for that, if it is whole, as Current
// demands it, and prefer wants it; else it returns nil. The next Restore reports it and leaves it where it is.
func (v *Volume) Adopt(prefer func(Bundle) bool) *Bundle {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, closeDisk, err := v.disk()
	if err != nil {
		return nil // Restore meets it as well, and says so
	}
	defer closeDisk()
	now := d.look()
	if v.published == nil || v.layoutFault(now) != nil || v.published.within(now) {
		return nil
	}
	found, passwords, err := v.open(now)
	if err != nil || !prefer(found.bundle) || v.owe(d) != nil {
		return nil
	}
	v.published, v.passwords = found, passwords
	v.differs("a newer set was there")
	return &found.bundle
}

// layoutFault compares the kinds of files there are, before anything is opened.
func (v *Volume) layoutFault(s snapshot) error {
	if s.unsettled {
		return &MismatchError{v.path(commitDir), "holds a publication that was interrupted, the next start completes it"}
	}
	if s.dangling != "" {
		return &MismatchError{v.path(dataLink), fmt.Sprintf("points to %q, which does not exist", s.dangling)}
	}
	if len(s.files) > 0 && s.layout != v.cfg.Layout {
		return &MismatchError{v.cfg.Dir, fmt.Sprintf("has the layout %q, want %q", s.layout, v.cfg.Layout)}
	}
	for _, f := range catalogue {
		found, exists := s.files[f.name]
		switch {
		case f.wantedBy(v.cfg.Types) && !exists:
			return &MismatchError{v.path(f.name), "is missing"}
		case f.wantedBy(v.cfg.Types) && found.err != nil:
			return &MismatchError{v.path(f.name), found.err.Error()}
		case !f.wantedBy(v.cfg.Types) && exists && found.err == nil:
			return &MismatchError{v.path(f.name), fmt.Sprintf("belongs to output type %s, want only files of %s",
				strings.Join(f.types, " or "), strings.Join(v.cfg.Types, ", "))}
		}
	}
	return nil
}

// reader opens the stores of a snapshot whose layout has no fault.
type reader struct {
	cfg   Config
	files map[string]found
}

func (r reader) fault(name, format string, args ...any) error {
	return &MismatchError{filepath.Join(r.cfg.Dir, name), fmt.Sprintf(format, args...)}
}

func (r reader) passwords() passwords {
	return passwords{string(r.files["keystore.pass"].data), string(r.files["truststore.pass"].data)}
}

// bundle reads each type and compares it with the first.
func (r reader) bundle() (Bundle, error) {
	if err := r.checkPasswords(); err != nil {
		return Bundle{}, err
	}
	var first Bundle
	var firstName string
	for i, t := range r.cfg.Types {
		b, name, err := r.ofType(t)
		if err != nil {
			return Bundle{}, err
		}
		switch {
		case i == 0:
			first, firstName = b, name
		case !samePrivateKey(first.Key, b.Key):
			return Bundle{}, r.fault(name, "has another private key than %s", firstName)
		case !sameCertificates(first.Chain, b.Chain):
			return Bundle{}, r.fault(name, "has another certificate chain than %s", firstName)
		case !sameCertificates(first.Trusted, b.Trusted):
			return Bundle{}, r.fault(strings.Replace(name, "key", "trust", 1), "has other certificates than the trusted ones of type %s", r.cfg.Types[0])
		}
	}
	if !pki.SameKey(first.Key.Public(), first.Chain[0].PublicKey) {
		return Bundle{}, r.fault(firstName, "has a private key that its certificate is not for")
	}
	return first, nil
}

// checkPasswords checks the password files of the types that have them. That they open the stores is seen
// later.
func (r reader) checkPasswords() error {
	for _, f := range wanted(r.cfg.Types) {
		if f.holds != password {
			continue
		}
		given := r.cfg.KeystorePassword
		if f.name == "truststore.pass" {
			given = r.cfg.TruststorePassword
		}
		data := r.files[f.name].data
		if given == "" {
			if err := checkPassword(data); err != nil {
				return r.fault(f.name, "%v", err)
			}
		} else if given != string(data) {
			return r.fault(f.name, "has another password than the configured one")
		}
	}
	return nil
}

// ofType reads the files of one type. The name is that of the file with the key, in a form from which
// the truststore's follows.
func (r reader) ofType(t string) (b Bundle, name string, err error) {
	switch t {
	case TypeP12:
		return r.stores("keystore.p12", "truststore.p12", keystore.PKCS12)
	case TypeJKS:
		return r.stores("keystore.jks", "truststore.jks", keystore.JKS)
	default:
		return r.pemFiles()
	}
}

func (r reader) stores(keyName, trustName string, format keystore.Format) (b Bundle, name string, err error) {
	p := r.passwords()
	keyEntries, err := r.open(keyName, p.keystore, format)
	if err != nil {
		return Bundle{}, "", err
	}
	if len(keyEntries) != 1 || keyEntries[0].Key == nil || len(keyEntries[0].Chain) == 0 {
		return Bundle{}, "", r.fault(keyName, "has %s, want one private key with its certificates", describe(keyEntries))
	}
	key := keyEntries[0]
	if !sameAlias(key.Alias, r.cfg.KeystoreAlias) {
		return Bundle{}, "", r.fault(keyName, "has the alias %q, want %q", key.Alias, r.cfg.KeystoreAlias)
	}
	trustedEntries, err := r.open(trustName, p.truststore, format)
	if err != nil {
		return Bundle{}, "", err
	}
	b = Bundle{Key: key.Key, Chain: key.Chain}
	// A Java store has no order: the aliases give it.
	for i := range trustedEntries {
		want := trustedAlias(r.cfg, i)
		at := slices.IndexFunc(trustedEntries, func(e keystore.Entry) bool { return e.Trusted && sameAlias(e.Alias, want) })
		if at < 0 {
			return Bundle{}, "", r.fault(trustName, "has %s and no trusted certificate with the alias %q", describe(trustedEntries), want)
		}
		b.Trusted = append(b.Trusted, trustedEntries[at].Chain[0])
	}
	return b, keyName, nil
}

func (r reader) open(name, password string, format keystore.Format) ([]keystore.Entry, error) {
	data := r.files[name].data
	if format == keystore.PKCS12 {
		// Asked first: it needs no password.
		profile, err := keystore.ProfileOf(data)
		if err != nil {
			return nil, r.fault(name, "is unusable: %v", err)
		}
		if string(profile) != r.cfg.P12Profile {
			return nil, r.fault(name, "has the PKCS#12 profile %q, want %q", profile, r.cfg.P12Profile)
		}
	}
	entries, has, err := keystore.Decode(data, password)
	switch {
	case errors.Is(err, keystore.ErrPassword):
		return nil, r.fault(name, "does not open with the password beside it")
	case err != nil:
		return nil, r.fault(name, "is unusable: %v", err)
	case has != format:
		return nil, r.fault(name, "is a store of format %s, want %s", has, format)
	}
	return entries, nil
}

func (r reader) pemFiles() (b Bundle, name string, err error) {
	entries, err := r.open("key.pem", "", keystore.PEM)
	if err != nil {
		return Bundle{}, "", err
	}
	if len(entries) != 1 || entries[0].Key == nil || len(entries[0].Chain) != 0 {
		return Bundle{}, "", r.fault("key.pem", "has %s, want one private key", describe(entries))
	}
	b.Key = entries[0].Key
	if b.Chain, err = r.certificates("keystore.pem"); err != nil {
		return Bundle{}, "", err
	}
	if b.Trusted, err = r.certificates("truststore.pem"); err != nil {
		return Bundle{}, "", err
	}
	if !bytes.Equal(r.files["keystore-combined.pem"].data, slices.Concat(r.files["key.pem"].data, r.files["keystore.pem"].data)) {
		return Bundle{}, "", r.fault("keystore-combined.pem", "has something else than key.pem and keystore.pem")
	}
	return b, "keystore.pem", nil
}

func (r reader) certificates(name string) ([]*x509.Certificate, error) {
	entries, err := r.open(name, "", keystore.PEM)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, e := range entries {
		if e.Key != nil {
			return nil, r.fault(name, "has a private key, want certificates only")
		}
		certs = append(certs, e.Chain[0])
	}
	return certs, nil
}

func describe(entries []keystore.Entry) string {
	keys := 0
	for _, e := range entries {
		if e.Key != nil {
			keys++
		}
	}
	return fmt.Sprintf("%d private keys and %d other certificates", keys, len(entries)-keys)
}

// sameAlias compares as a JVM does.
func sameAlias(a, b string) bool { return strings.EqualFold(a, b) }
