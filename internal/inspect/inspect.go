// Package inspect reads what is on a volume, as an application would, and says what it finds:
// files and their modes, store entries and their aliases, the certificate, its chain and its
// anchors. It changes nothing, and shows no secret.
package inspect

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// Report is what a directory holds. Times are UTC.
type Report struct {
	Dir        string `json:"dir"`
	Layout     string `json:"layout,omitempty"`     // symlink or inplace; empty in the report of one file
	Generation string `json:"generation,omitempty"` // the directory that ..data points to
	Files      []File `json:"files"`
	// the first key entry's leaf, or that of two files with key and chain; of one file, also its
	// first certificate that is not a CA's
	Certificate *Certificate `json:"certificate,omitempty"`
	Trusted     []string     `json:"trusted,omitempty"` // subjects of the trusted certificates
	// Requested is what was requested for the certificate, where the volume has a record of that.
	// Dir does not set it.
	Requested *Requested `json:"requested,omitempty"`
}

// Requested is what was requested for a certificate.
type Requested struct {
	Subject      string   `json:"subject"`
	SANs         []string `json:"sans,omitempty"` // with their kinds
	KeyAlgorithm string   `json:"key_algorithm"`
	CA           string   `json:"ca"`
}

// File is one file; Problem says why its content, or some of it, could not be read, if so.
type File struct {
	Name    string  `json:"name"`
	Mode    string  `json:"mode"` // as ls shows it
	Size    int64   `json:"size"` // bytes
	Format  string  `json:"format"`
	Entries []Entry `json:"entries,omitempty"`
	Problem string  `json:"problem,omitempty"`
}

// Entry is one entry of a store.
type Entry struct {
	Alias   string `json:"alias,omitempty"`
	Kind    string `json:"kind"` // PrivateKeyEntry, trustedCertEntry, certificate or key, the first two as keytool says
	Subject string `json:"subject,omitempty"`
	Chain   int    `json:"chain_length,omitempty"`
	SHA256  string `json:"sha256,omitempty"` // of its first certificate, hexadecimal
}

// Certificate describes a leaf.
type Certificate struct {
	Subject   string    `json:"subject"`
	SANs      []string  `json:"sans"`
	Serial    string    `json:"serial"` // hexadecimal
	SHA256    string    `json:"sha256"` // hexadecimal
	Issuer    string    `json:"issuer"`
	Key       string    `json:"key"`
	KeyFits   *bool     `json:"key_fits,omitempty"` // the private key beside it is its key; nil: there is none
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Chain     []string  `json:"chain"` // subjects, leaf first

	leaf *x509.Certificate

	// What Plan sets.
	DaysLeft    *int       `json:"days_left,omitempty"` // whole ones; negative after the end
	NextRenewal *time.Time `json:"next_renewal,omitempty"`
}

// Leaf is the certificate that is described.
func (c *Certificate) Leaf() *x509.Certificate { return c.leaf }

// Plan adds to a report with a certificate how much of its life is left, and when a sidecar would
// renew it. A zero due is not known.
func (r *Report) Plan(now, due time.Time) {
	days := pki.Days(now, r.Certificate.NotAfter)
	r.Certificate.DaysLeft = &days
	if !due.IsZero() {
		due = due.UTC().Truncate(time.Second)
		r.Certificate.NextRenewal = &due
	}
}

// Unreadable tells whether a file, or something in one, could not be read.
func (r *Report) Unreadable() bool {
	return slices.ContainsFunc(r.Files, func(f File) bool { return f.Problem != "" })
}

// ErrNothing says that a directory has no file that certfetcher writes, nor one of a TLS Secret.
var ErrNothing = errors.New("no keystore or truststore is here")

// storeFiles are the files that certfetcher writes, and those of a TLS Secret of Kubernetes, truststores last.
var storeFiles = func() []output.File {
	var keystores, truststores []output.File
	secret := []output.File{{Name: "tls.crt"}, {Name: "tls.key"}, {Name: "ca.crt", Trusted: true}}
	for _, f := range append(output.Files(), secret...) {
		if f.Trusted {
			truststores = append(truststores, f)
		} else {
			keystores = append(keystores, f)
		}
	}
	return append(keystores, truststores...)
}()

// Dir reads a directory. Files of other names are left out, and no link is followed but those that
// certfetcher and kubelets make. It reads again what was replaced meanwhile.
func Dir(dir string) (*Report, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is a file, want a directory", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	d := directory{root, dir}
	for try := 1; ; try++ {
		before := d.state()
		r, err := d.report()
		if try == readMost || d.state() == before {
			return r, err
		}
	}
}

// readMost is how often a directory is read in which all changes all the time.
const readMost = 5

func (d directory) report() (*Report, error) {
	dir := d.path
	r := &Report{Dir: dir, Layout: output.LayoutInplace}
	if target, err := d.root.Readlink(output.DataLink); err == nil {
		r.Layout, r.Generation = output.LayoutSymlink, target
	}
	var plain, secret []keystore.Entry // of keystores without a password, which may have key and chain in two files
	for _, stored := range storeFiles {
		file, path := File{Name: stored.Name}, filepath.Join(dir, stored.Name)
		place, err := output.Place(d.root, stored.Name)
		var info fs.FileInfo
		if err == nil {
			info, err = d.root.Lstat(place)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			// It may be there or not, and so may the others.
			return nil, fmt.Errorf("%s %w", path, files.Explain(path, files.Reason(err)))
		case err == nil:
			file.Mode, file.Size = info.Mode().String(), info.Size()
		}
		entries, err := file.read(d, stored.PasswordFile)
		if err != nil {
			file.Problem = err.Error()
		}
		r.Files = append(r.Files, file)
		r.describe(stored.Trusted, entries)
		switch {
		case stored.PasswordFile != "" || stored.Trusted:
		case strings.HasPrefix(stored.Name, "tls."):
			secret = append(secret, entries...)
		default:
			plain = append(plain, entries...)
		}
	}
	if _, err := d.root.Stat(output.DataLink); len(r.Files) == 0 && r.Generation != "" &&
		errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: ..data points to %q, which does not exist", dir, ErrNothing, r.Generation)
	}
	if len(r.Files) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNothing)
	}
	for _, pair := range [][]keystore.Entry{plain, secret} {
		if r.Certificate == nil {
			r.describePair(pair)
		}
	}
	return r, nil
}

// read reads the file, with the password in the other one, if there is one.
func (f *File) read(d directory, passwordFile string) ([]keystore.Entry, error) {
	data, err := d.read(f.Name)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(f.Name, ".pass") {
		f.Format = "password"
		return nil, nil
	}
	var password []byte
	if passwordFile != "" {
		if password, err = d.read(passwordFile); err != nil {
			return nil, fmt.Errorf("reading its password: %w", err)
		}
	}
	return f.decode(data, string(password))
}

// decode reads a store. The error says what could not be read of it.
func (f *File) decode(data []byte, password string) ([]keystore.Entry, error) {
	store, err := keystore.Open(data, password)
	f.Format = string(store.Format)
	if err != nil {
		return nil, err
	}
	for _, e := range store.Entries {
		f.Entries = append(f.Entries, describeEntry(store.Format, e))
	}
	return store.Entries, store.Damage()
}

func describeEntry(format keystore.Format, e keystore.Entry) Entry {
	entry := Entry{Alias: e.Alias, Kind: "certificate"}
	switch {
	case e.Key != nil && len(e.Chain) == 0:
		entry.Kind = "key"
	case e.Key != nil:
		entry.Kind = "PrivateKeyEntry"
	case format != keystore.PEM && e.Trusted:
		entry.Kind = "trustedCertEntry"
	}
	if len(e.Chain) > 0 {
		entry.Subject, entry.Chain = pki.DN(e.Chain[0].RawSubject), len(e.Chain)
		entry.SHA256 = fingerprint(e.Chain[0])
	}
	return entry
}

func fingerprint(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }

// describe takes the certificate from the first keystore
// that has it, the anchors from the first truststore.
func (r *Report) describe(trusted bool, entries []keystore.Entry) {
	for _, e := range entries {
		if e.Key != nil && len(e.Chain) > 0 && r.Certificate == nil {
			r.Certificate = describeCertificate(e)
		}
	}
	if !trusted || len(r.Trusted) > 0 {
		return
	}
	for _, e := range entries {
		for _, anchor := range e.Chain {
			r.Trusted = append(r.Trusted, pki.DN(anchor.RawSubject))
		}
	}
}

// describePair takes the certificate from entries of which one has the key and others the chain.
func (r *Report) describePair(entries []keystore.Entry) {
	pair := keystore.Entry{}
	for _, e := range entries {
		if pair.Key == nil {
			pair.Key = e.Key
		}
		pair.Chain = append(pair.Chain, e.Chain...)
	}
	if pair.Key != nil && len(pair.Chain) > 0 {
		r.Certificate = describeCertificate(pair)
	}
}

func describeCertificate(e keystore.Entry) *Certificate {
	leaf := e.Chain[0]
	c := &Certificate{
		Subject: pki.DN(leaf.RawSubject), SANs: pki.Names(leaf), Serial: pki.Serial(leaf),
		SHA256: fingerprint(leaf), Issuer: pki.DN(leaf.RawIssuer),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), leaf: leaf,
	}
	for _, cert := range e.Chain {
		c.Chain = append(c.Chain, pki.DN(cert.RawSubject))
	}
	if algorithm, err := keygen.AlgorithmOf(leaf.PublicKey); err == nil {
		c.Key = algorithm
	}
	if e.Key != nil {
		fits := pki.SameKey(leaf.PublicKey, e.Key.Public())
		c.KeyFits = &fits
	}
	return c
}

// directory is a volume to which others may write: nothing
// outside of it is read, and nothing waited for.
type directory struct {
	root *os.Root
	path string
}

func (d directory) read(name string) ([]byte, error) {
	place, err := output.Place(d.root, name)
	if err != nil {
		return nil, err
	}
	data, _, err := files.ReadIn(d.root, place, keystore.MaxSize) // one byte more is what Decode refuses
	return data, err
}

// state is another one when a file of ours was replaced.
func (d directory) state() string {
	var text strings.Builder
	for _, f := range storeFiles {
		place, err := output.Place(d.root, f.Name)
		fmt.Fprint(&text, place, err)
		if info, err := d.root.Lstat(place); err == nil {
			fmt.Fprint(&text, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return text.String()
}

// WriteText prints the report for people: a table of files, then the certificate.
func (r *Report) WriteText(w io.Writer, now time.Time) error {
	var text strings.Builder
	layout := ""
	if r.Layout != "" {
		layout = fmt.Sprintf(" (%s layout%s)", r.Layout, orNothing(", generation ", r.Generation))
	}
	fmt.Fprintf(&text, "%s%s\n\n", r.Dir, layout)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FILE\tMODE\tBYTES\tCONTENT")
	for _, f := range r.Files {
		for i, line := range f.content() {
			if i == 0 {
				fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", f.Name, f.Mode, f.Size, line)
			} else {
				fmt.Fprintf(table, "\t\t\t%s\n", line)
			}
		}
	}
	table.Flush()
	if c := r.Certificate; c != nil {
		c.write(&text, now)
	}
	if q := r.Requested; q != nil {
		fmt.Fprintf(&text, "Requested: %s\n", q.text())
	}
	if len(r.Trusted) > 0 {
		fmt.Fprintf(&text, "Trusts:   %s\n", strings.Join(r.Trusted, "\n          "))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func orNothing(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// content words a file's entries, a line each.
func (f File) content() []string {
	if f.Format == "password" {
		return []string{"password of " + strings.TrimSuffix(f.Name, ".pass")}
	}
	var lines []string
	for _, e := range f.Entries {
		line := e.Kind
		if e.Alias != "" {
			line = e.Alias + ": " + line
		}
		switch {
		case e.Kind == "PrivateKeyEntry":
			line += fmt.Sprintf(", chain of %d", e.Chain)
		case e.Subject != "":
			line += ", " + e.Subject
		}
		lines = append(lines, line)
	}
	if f.Problem != "" {
		lines = append(lines, "UNREADABLE: "+f.Problem)
	}
	if len(lines) == 0 {
		return []string{"no entries"}
	}
	return lines
}

// text words a request on one line.
func (q *Requested) text() string {
	parts := append([]string{q.Subject + " of " + q.CA, q.KeyAlgorithm}, q.SANs...)
	return pki.OneLine(strings.Join(parts, ", "), maxRequested)
}

// maxRequested bounds, in characters, what is shown of a record: any process that may write to the
// volume may have written it.
const maxRequested = 4000

func (c *Certificate) write(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "\nSubject:  %s\n", c.Subject)
	fmt.Fprintf(w, "SANs:     %s\n", strings.Join(c.SANs, ", "))
	private := "without a private key here"
	switch {
	case c.KeyFits == nil:
	case *c.KeyFits:
		private = "fits the certificate"
	default:
		private = "DOES NOT FIT the certificate"
	}
	fmt.Fprintf(w, "Key:      %s, %s\n", c.Key, private)
	fmt.Fprintf(w, "Serial:   %s\n", c.Serial)
	fmt.Fprintf(w, "SHA-256:  %s\n", pairs(c.SHA256))
	fmt.Fprintf(w, "Chain:    %s\n", strings.Join(c.Chain, "\n          signed by "))
	fmt.Fprintf(w, "Valid:    %s to %s (%s)\n",
		c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), left(now, c.NotAfter))
	if c.NextRenewal != nil {
		overdue := ""
		if c.NextRenewal.Before(now) {
			overdue = " (overdue)"
		}
		fmt.Fprintf(w, "Renewal:  %s, by a sidecar%s\n", c.NextRenewal.Format(time.RFC3339), overdue)
	}
}

// pairs writes hexadecimal digits as openssl and keytool write fingerprints.
func pairs(digits string) string {
	var text strings.Builder
	for i := 0; i+1 < len(digits); i += 2 {
		text.WriteString(":" + strings.ToUpper(digits[i:i+2]))
	}
	return strings.TrimPrefix(text.String(), ":")
}

// left words how much of a certificate's life is left.
func left(now, end time.Time) string {
	switch d := end.Sub(now); {
	case d <= 0:
		return "EXPIRED"
	case d < 48*time.Hour:
		return d.Round(time.Minute).String() + " left"
	}
	return fmt.Sprintf("%d days left", pki.Days(now, end))
}
