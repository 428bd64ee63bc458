package output

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Format is one value of OUTPUT_TYPE. To add one, write its value in a file of its own, as
// format_pem.go does, and list it in formats. Everything else asks this table.
type Format struct {
	Name       string   // as in OUTPUT_TYPE, upper case
	OtherNames []string // what other programs call it, upper case and without punctuation

	// hasPasswords: its stores and the key are encrypted, with what
	// keystore.pass and truststore.pass hold. Without it the files are
	// not encrypted, and a configured password has no effect on them.
	hasPasswords bool
	truststore   File
	keystores    []File // private key and chain, in the order of their replacement; errors name the last
	// read opens the files of a set and checks them against the configuration.
	read func(r reader) (Bundle, error)
}

var formats = []Format{p12Format, jksFormat, pemFormat}

// Formats lists all output formats, in the order of their introduction.
func Formats() []Format { return slices.Clone(formats) }

// FormatNames lists their names.
func FormatNames() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.Name
	}
	return names
}

func formatOf(name string) Format { return formats[slices.Index(FormatNames(), name)] }

// mainFile is the file with the certificate.
func (f Format) mainFile() string { return f.keystores[len(f.keystores)-1].Name }

// File is a file that this package writes.
type File struct {
	Name    string
	Formats []string // the names of those that have it
	Content string   // what is in it, in Markdown
	Trusted bool     // a truststore
	// PasswordFile is the name of the file with the password
	// that opens this one; empty: it is not encrypted.
	PasswordFile string

	holds  secrecy
	encode func(e *encoder) ([]byte, error)
}

// Secret tells whether the file has Config.FileMode. All others have mode 0644.
func (f File) Secret() bool { return f.holds != certificates }

// secrecy is what a file's mode depends on.
type secrecy int

const (
	certificates secrecy = iota // public
	password
	privateKey
)

const (
	keystorePass   = "keystore.pass"
	truststorePass = "truststore.pass"
)

// catalogue lists every file there is, in the order in which the inplace layout replaces them. It
// is the order that harms a reader least that opens them meanwhile: first the passwords (which
// stay the same, unless others are configured), then whom to trust, so that no application
// presents a new certificate that it does not trust itself yet, then the stores that hold key and
// chain together. keystore.pem is last and right after its key, because it is the file that
// watchers wait for. A PEM reader that cannot bear the moment between these two opens
// keystore-combined.pem.
var catalogue = listFiles(formats)

func listFiles(formats []Format) []File {
	var truststores, keystores []File
	var withPasswords []string
	for _, format := range formats {
		trust := format.truststore
		trust.Trusted, trust.Formats = true, []string{format.Name}
		if format.hasPasswords {
			withPasswords = append(withPasswords, format.Name)
			trust.PasswordFile = truststorePass
		}
		truststores = append(truststores, trust)
		for _, f := range format.keystores {
			f.Formats = trust.Formats
			if format.hasPasswords {
				f.PasswordFile = keystorePass
			}
			keystores = append(keystores, f)
		}
	}
	passwords := []File{
		{Name: keystorePass, Formats: withPasswords, holds: password,
			Content: "the password of the keystore and of its key, without a line end",
			encode:  func(e *encoder) ([]byte, error) { return []byte(e.passwords.keystore), nil }},
		{Name: truststorePass, Formats: withPasswords, holds: password,
			Content: "the password of the truststore, without a line end",
			encode:  func(e *encoder) ([]byte, error) { return []byte(e.passwords.truststore), nil }},
	}
	return slices.Concat(passwords, truststores, keystores)
}

// Files lists the files of all formats, in the order of their replacement.
func Files() []File { return slices.Clone(catalogue) }

// publicMode is the mode of files that hold nothing but certificates.
const publicMode fs.FileMode = 0o644

// wantedBy tells whether one of the formats has this file.
func (f File) wantedBy(types []string) bool {
	return slices.ContainsFunc(f.Formats, func(t string) bool { return slices.Contains(types, t) })
}

func (f File) mode(secretMode fs.FileMode) fs.FileMode {
	if f.Secret() {
		return secretMode
	}
	return publicMode
}

// filesOf lists the files of the formats in the catalogue's order.
func filesOf(types []string) []File {
	return slices.DeleteFunc(Files(), func(f File) bool { return !f.wantedBy(types) })
}

// isPublished tells whether the name is one that this package gives to files.
func isPublished(name string) bool {
	return slices.ContainsFunc(catalogue, func(f File) bool { return f.Name == name })
}

// Reserved tells whether the name is one that this package
// gives to files, or hides as one of its own.
func Reserved(name string) bool { return isPublished(name) || strings.HasPrefix(name, "..") }

// Replaces tells whether publications in the directory replace or remove the file at path: it lies
// there, by whatever way, under one of their names.
func Replaces(dir, path string) bool {
	places := []string{path}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		places = append(places, resolved)
	}
	published, err := os.Stat(dir)
	if err != nil {
		return false // nothing lies in a directory that is still to be made
	}
	return slices.ContainsFunc(places, func(place string) bool {
		holder, err := os.Stat(filepath.Dir(place))
		return err == nil && os.SameFile(published, holder) && isPublished(filepath.Base(place))
	})
}
