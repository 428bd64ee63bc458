// Package output publishes a private key, its certificate chain and the trusted certificates on a
// volume that an application reads: as PKCS#12 and JKS stores with their password files, as PEM
// files, or as several of these at once. A set of files is published as a whole or not at all,
// also when the disk is full or the process is killed at any moment.
//
// There are two layouts. In "symlink" the files stand in a directory of
// their own and one rename of the link "..data" replaces the whole set, as
// in the volumes that a kubelet writes. In "inplace" they are regular files,
// each replaced by a rename, with one commit point before the first of them.
//
// The package does not judge certificates: whether a chain verifies, or is still valid, is decided
// before Publish and after Current.
package output

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// The layouts of a volume.
const (
	LayoutSymlink = "symlink"
	LayoutInplace = "inplace"
)

// DefaultFileMode is the mode of files that hold secrets.
const DefaultFileMode fs.FileMode = 0o640

// Bundle is what one publication publishes.
type Bundle struct {
	Key     crypto.Signer
	Chain   []*x509.Certificate // the leaf, which holds Key's public key, first
	Trusted []*x509.Certificate // at least one

	// Note is what the caller wants to find again with this set: it is published and replaced
	// together with it, in a hidden file that no reader of the volume needs and that is as public
	// as the certificates. At most NoteLimit bytes; empty: none. Its content is not checked here,
	// and one that cannot be read counts as none.
	Note []byte
}

// NoteLimit bounds Bundle.Note, in bytes.
const NoteLimit = 64 << 10

// Config says where files are published and in which form. It is expected to be checked already;
// Open refuses only what it could not work with.
type Config struct {
	Dir    string   // absolute; made with its parents when missing
	Types  []string // of FormatNames, at least one
	Layout string   // LayoutSymlink (also when empty) or LayoutInplace

	KeystoreAlias         string // of the key entry; empty: "certificate"
	TruststoreAliasPrefix string // followed by 1, 2, …; empty: "trusted-certificate-"
	P12Profile            string // "modern" (also when empty) or "legacy"

	FileMode fs.FileMode // permission bits of files that hold secrets; 0: DefaultFileMode
	Group    string      // group of the files, a name or a number; empty: what the directory gives

	// KeystorePassword and TruststorePassword of the stores; empty: the one on the volume, or a
	// new one when there is none.
	KeystorePassword, TruststorePassword string

	// NotePending records each publication on the volume, in ..untold, until MarkNotified says
	// that the application was notified of it.
	NotePending bool

	// Done, when closed, ends the wait for another process that works on the volume; nil: never.
	Done <-chan struct{}

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: no log
}

// Publication is what Publish and Restore did.
type Publication struct {
	// Changed is false when every file was there already and was left
	// alone. What an earlier call changed before it failed counts as
	// well: readers have seen it, and the application was not notified.
	Changed bool
	Files   []string // paths of the whole set, in the order in which readers should see them
	// Differences say what was not as it should be, each in the form of "keystore.p12 is missing".
	Differences []string
	Number      int // for MarkNotified
}

// ErrEmpty is the error of Current on a volume without files of this package.
var ErrEmpty = errors.New("the volume holds no keystore yet")

// MismatchError says how the files on a volume differ from what the configuration asks for, or from
// one another. The next publication repairs it.
type MismatchError struct {
	Path   string
	Reason string // what it has, and what it should have
}

func (e *MismatchError) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Reason) }

// EncodeError is a store that could not be built.
type EncodeError struct {
	Store string // name of the file
	Key   bool   // whether it was the private key that could not be encoded
	Err   error
}

func (e *EncodeError) Error() string { return fmt.Sprintf("encoding %s: %v", e.Store, e.Err) }

// Unwrap gives the reason.
func (e *EncodeError) Unwrap() error { return e.Err }

// FileError is a step on the volume that failed.
type FileError = files.Error

// IncompleteError is a publication that failed after its set was committed. The set is published;
// the next Restore, Publish or Open puts the rest of it in place.
type IncompleteError struct{ Err error }

func (e *IncompleteError) Error() string {
	return "the new files are committed, but not all of them are in place: " + e.Err.Error()
}

// Unwrap gives the reason.
func (e *IncompleteError) Unwrap() error { return e.Err }

func (c Config) withDefaults() Config {
	c.Layout = cmp.Or(c.Layout, LayoutSymlink)
	c.KeystoreAlias = cmp.Or(c.KeystoreAlias, "certificate")
	c.TruststoreAliasPrefix = cmp.Or(c.TruststoreAliasPrefix, "trusted-certificate-")
	c.P12Profile = cmp.Or(c.P12Profile, "modern")
	c.FileMode = cmp.Or(c.FileMode, DefaultFileMode)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) check() error {
	if !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("output directory is %q, want an absolute path", c.Dir)
	}
	if len(c.Types) == 0 {
		return fmt.Errorf("no output type is given, want at least one of %s", strings.Join(FormatNames(), ", "))
	}
	for _, t := range c.Types {
		if !slices.Contains(FormatNames(), t) {
			return fmt.Errorf("output type is %q, want one of %s", t, strings.Join(FormatNames(), ", "))
		}
	}
	if c.Layout != LayoutSymlink && c.Layout != LayoutInplace {
		return fmt.Errorf("output layout is %q, want symlink or inplace", c.Layout)
	}
	if c.P12Profile != "modern" && c.P12Profile != "legacy" {
		return fmt.Errorf("PKCS#12 profile is %q, want modern or legacy", c.P12Profile)
	}
	if c.FileMode&^fs.ModePerm != 0 || c.FileMode&0o400 == 0 {
		return fmt.Errorf("file mode is %#o, want permission bits with the owner's right to read", uint32(c.FileMode))
	}
	return nil
}

// check refuses bundles that no reader could use.
func (b Bundle) check() error {
	if b.Key == nil || len(b.Chain) == 0 {
		return errors.New("has no private key or no certificate, want both")
	}
	if !pki.SameKey(b.Key.Public(), b.Chain[0].PublicKey) {
		return errors.New("the certificate holds another public key than the private key's")
	}
	if len(b.Trusted) == 0 {
		return errors.New("has no trusted certificate, want at least one")
	}
	if len(b.Note) > NoteLimit {
		return fmt.Errorf("has a note of %d bytes, want at most %d", len(b.Note), NoteLimit)
	}
	return nil
}

func (b Bundle) equal(other Bundle) bool {
	return samePrivateKey(b.Key, other.Key) && sameCertificates(b.Chain, other.Chain) &&
		sameCertificates(b.Trusted, other.Trusted) && bytes.Equal(b.Note, other.Note)
}

func samePrivateKey(a, b crypto.Signer) bool {
	key, ok := a.(interface{ Equal(crypto.PrivateKey) bool })
	return ok && key.Equal(b)
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}
