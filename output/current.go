package output

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// adopt takes a set that is found on the volume for the published one, if it is what would be
// published from the bundle in it, apart from modes. The errors are those of Current.
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
	return !slices.ContainsFunc(s.files, func(f *content) bool { return !now.files[f.name].holds(f.data) })
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
	for _, f := range filesOf(v.cfg.Types) {
		found.files = append(found.files, newContent(f, s.files[f.Name].data, v.cfg.FileMode))
	}
	return found, r.passwords(), nil
}

// Adopt takes another set that it finds in the place of the published one for the published one,
// if it is whole, as Current demands, and prefer accepts it; otherwise it returns nil. The next
// Restore reports it and leaves it in place.
func (v *Volume) Adopt(prefer func(Bundle) bool) (adopted *Bundle) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.doLocked(func(d disk) error { // Restore meets and reports an error as well
		now := d.look()
		if v.published == nil || v.layoutFault(now) != nil || v.published.within(now) {
			return nil
		}
		found, passwords, err := v.open(now)
		if err != nil || !prefer(found.bundle) || v.markPending(d) != nil {
			return nil
		}
		v.published, v.passwords = found, passwords
		v.differs("a newer set was there")
		adopted = &found.bundle
		return nil
	})
	return adopted
}

// layoutFault compares the kinds of files there are, before anything is opened.
func (v *Volume) layoutFault(s snapshot) error {
	if s.unsettled {
		return &MismatchError{v.path(commitDir),
			"holds a publication that was interrupted, the next start completes it"}
	}
	if s.dangling != "" {
		return &MismatchError{v.path(dataLink), fmt.Sprintf("points to %q, which does not exist", s.dangling)}
	}
	if len(s.files) > 0 && s.layout != v.cfg.Layout {
		return &MismatchError{v.cfg.Dir, fmt.Sprintf("has the layout %q, want %q", s.layout, v.cfg.Layout)}
	}
	for _, f := range catalogue {
		found, exists := s.files[f.Name]
		switch {
		case f.wantedBy(v.cfg.Types) && !exists:
			return &MismatchError{v.path(f.Name), "is missing"}
		case f.wantedBy(v.cfg.Types) && found.err != nil:
			return &MismatchError{v.path(f.Name), found.err.Error()}
		case !f.wantedBy(v.cfg.Types) && exists && found.err == nil:
			return &MismatchError{v.path(f.Name), fmt.Sprintf("belongs to output type %s, want only files of %s",
				strings.Join(f.Formats, " or "), strings.Join(v.cfg.Types, ", "))}
		}
	}
	return nil
}

// reader opens the stores of a snapshot whose layout has no fault.
type reader struct {
	cfg     Config
	files   map[string]found
	anyForm bool // aliases, profile and passwords need not be the configured ones, and no file has to be there
}

func (r reader) fault(name, format string, args ...any) error {
	return &MismatchError{filepath.Join(r.cfg.Dir, name), fmt.Sprintf(format, args...)}
}

func (r reader) passwords() passwords {
	return passwords{string(r.files[keystorePass].data), string(r.files[truststorePass].data)}
}

// bundle reads each type and compares it with the first.
func (r reader) bundle() (Bundle, error) {
	if err := r.checkPasswords(); err != nil {
		return Bundle{}, err
	}
	var first Bundle
	var firstName string
	for i, t := range r.cfg.Types {
		format := formatOf(t)
		name := format.mainFile()
		b, err := format.read(r)
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
			return Bundle{}, r.fault(format.truststore.Name,
				"has other certificates than the trusted ones of type %s", r.cfg.Types[0])
		}
	}
	if !pki.SameKey(first.Key.Public(), first.Chain[0].PublicKey) {
		return Bundle{}, r.fault(firstName, "has a private key that its certificate is not for")
	}
	return first, nil
}

// checkPasswords checks the password files of the types that
// have them. That they open the stores is seen later.
func (r reader) checkPasswords() error {
	for _, f := range filesOf(r.cfg.Types) {
		if f.holds != password {
			continue
		}
		given := r.cfg.KeystorePassword
		if f.Name == truststorePass {
			given = r.cfg.TruststorePassword
		}
		data := r.files[f.Name].data
		if given == "" || r.anyForm {
			if err := checkPassword(data); err != nil {
				return r.fault(f.Name, "%v", err)
			}
		} else if given != string(data) {
			return r.fault(f.Name, "has another password than the configured one")
		}
	}
	return nil
}
