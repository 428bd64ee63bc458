package enroll

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/verify"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// found is what is on a volume before a run.
type found struct {
	bundle *output.Bundle // what may stay; nil: nothing
	// reason is why nothing may stay, or why what stays has to be renewed at once; empty for an empty volume.
	reason string
	form   string // how the files differ from what is configured, although the set may stay; empty: not
}

// keep decides whether what the volume holds may stay. A sidecar keeps all that is valid, with the
// reason why it has to be renewed at once: an application that has a valid certificate must not
// wait for a CertService. A set in another form than configured, as of an earlier configuration or
// of the ONAP client, is judged as any other.
func (e *Enroller) keep() (f found) {
	current, err := e.volume.Current()
	if _, differs := errors.AsType[*output.MismatchError](err); differs {
		if current = e.volume.OtherForm(); current != nil {
			f.form, err = err.Error(), nil
		}
	}
	switch {
	case errors.Is(err, output.ErrEmpty):
		return f
	case err != nil:
		f.reason = err.Error()
		return f
	}
	f.bundle, f.reason = e.judge(current)
	if f.bundle == nil && f.form != "" {
		f.reason = f.form + ", and " + f.reason
	}
	return f
}

// judge returns the bundle if it may stay, and the reason as found has it.
func (e *Enroller) judge(current *output.Bundle) (*output.Bundle, string) {
	e.current.Store(current)
	changed := e.changed(current)
	if e.Config.ForceEnroll {
		e.forced, changed = true, "FORCE_ENROLL is set"
	}
	if record := recordOf(current); record != nil && changed == "" {
		e.enrolDirectly = record.EnrolDirectly
	}
	if changed != "" && e.Config.Renewal != nil && valid(current, e.Now()) == nil {
		return current, changed
	}
	if changed == "" {
		changed = e.whyOutdated(current)
	}
	if changed != "" {
		return nil, changed
	}
	return current, ""
}

func (e *Enroller) reportKept(leaf *x509.Certificate, changed string) {
	attributes := []any{"path", e.Config.Output.Dir, "not_after", leaf.NotAfter, "serial", pki.Serial(leaf)}
	if changed != "" {
		e.Log.Warn("the configuration requests another certificate than the one on the volume, "+
			"which stays until the new one is there", append(attributes, "trigger", changed)...)
		return
	}
	e.Log.Info("the volume already holds a matching, valid certificate: nothing to do", attributes...)
}

// whyOutdated says why a certificate should not stay, or "" when it should: it was requested as
// the configuration requests one now, it verifies and, without a sidecar, it has more than a third
// of its life ahead. When a sidecar renews is not decided here.
func (e *Enroller) whyOutdated(current *output.Bundle) string {
	if reason := e.changed(current); reason != "" {
		return reason
	}
	if reason := e.due(current.Chain[0]); reason != "" {
		return reason
	}
	if err := valid(current, e.Now()); err != nil {
		return "the certificate on the volume does not verify: " + err.Error()
	}
	return ""
}

// changed says in what the configuration requests another certificate than this one, or "" when it
// does not. Requests are compared, because a CA may add, remove or change names. Only where there
// is no record of the request, as of an earlier release, what is in the certificate is compared.
func (e *Enroller) changed(current *output.Bundle) string {
	if record := recordOf(current); record != nil {
		return record.Request.changed(requestedBy(e.Config))
	}
	return e.unlike(current.Chain[0])
}

// unlike compares what is in a certificate with what is requested.
func (e *Enroller) unlike(leaf *x509.Certificate) string {
	want := e.Config.Certificate
	if algorithm, err := keygen.AlgorithmOf(leaf.PublicKey); err != nil || algorithm != want.KeyAlgorithm {
		return fmt.Sprintf("the key on the volume is %s, KEY_ALGORITHM asks for %s", algorithm, want.KeyAlgorithm)
	}
	if !slices.Equal(attributes(leaf.Subject), attributes(want.Template.Subject)) {
		return fmt.Sprintf("the certificate on the volume has the subject %q, the configuration asks for %q",
			pki.DN(leaf.RawSubject), pki.DN(want.Template.RawSubject))
	}
	if has, asked := pki.Names(leaf), pki.RequestNames(want.Template); !sameNames(has, asked, leaf.Subject.CommonName) {
		return fmt.Sprintf("the certificate on the volume has the names %q, SANS asks for %q", has, asked)
	}
	return ""
}

// due says, for a run that renews nothing later, that it is time for another certificate.
func (e *Enroller) due(leaf *x509.Certificate) string {
	if e.Config.Renewal != nil {
		return ""
	}
	due := pki.Moment(leaf.NotBefore, leaf.NotAfter, 2./3)
	if e.Now().Before(due) {
		return ""
	}
	return fmt.Sprintf("two thirds of the certificate's life have gone by (since %s, valid until %s)",
		due.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
}

// valid checks a set for itself: key, order, dates and anchors, whatever names the certificate has.
func valid(b *output.Bundle, now time.Time) error {
	leaf := b.Chain[0]
	_, err := verify.Answer(&x509.CertificateRequest{
		PublicKey: leaf.PublicKey, RawSubject: leaf.RawSubject, Subject: leaf.Subject,
	}, b.Chain, b.Trusted, now)
	return err
}

// attributes lists a name's attributes, sorted: some CAs, EJBCA among them, return the RDNs in
// another order or string type than they were asked for.
func attributes(name pkix.Name) []string {
	list := make([]string, len(name.Names))
	for i, a := range name.Names {
		list[i] = fmt.Sprintf("%v=%v", a.Type, a.Value)
	}
	slices.Sort(list)
	return list
}

// sameNames compares two lists of names. A CA that adds the common name as a DNS name, as many do,
// has changed nothing: taking that for a difference would mean another enrolment at every start.
func sameNames(has, asked []string, commonName string) bool {
	added := "DNS:" + strings.ToLower(commonName)
	if !slices.Contains(asked, added) {
		has = slices.DeleteFunc(has, func(name string) bool { return name == added })
	}
	return slices.Equal(has, asked)
}

// recordVersion counts the forms of a Record. One of another version is ignored.
const recordVersion = 1

// Record is what was requested for the certificate on a volume. It is published together with the
// certificate, so that a later start can compare requests: what a CA made of one says nothing
// about whether the next one is the same.
//
// It replaces no check. It says nothing about the key, the chain and the dates, and it counts only
// for the certificate whose hash it has.
type Record struct {
	Version     int       `json:"version"`
	Certificate string    `json:"certificate"` // SHA-256 of the leaf's DER, in hexadecimal
	Request     Requested `json:"request"`
	// AcceptedFrom is the REQUEST_URL whose answer was
	// accepted. It is not compared: an address may change.
	AcceptedFrom string `json:"acceptedFrom"`
	// EnrolDirectly: the CA answers updates of this
	// certificate with other names than the requested ones.
	EnrolDirectly bool `json:"enrolDirectly,omitempty"`
}

// Requested is what makes two requests the same: subject, names, key algorithm and CA.
type Requested struct {
	Subject      string   `json:"subject"`        // as RFC 4514 writes it
	SANs         []string `json:"sans,omitempty"` // with their kinds, as pki.RequestNames lists them
	KeyAlgorithm string   `json:"keyAlgorithm"`
	CA           string   `json:"ca"`
}

// requestedBy is what a configuration requests.
func requestedBy(cfg Settings) Requested {
	template := cfg.Certificate.Template
	return Requested{
		Subject: pki.DN(template.RawSubject), SANs: slices.Compact(pki.RequestNames(template)),
		KeyAlgorithm: cfg.Certificate.KeyAlgorithm, CA: cfg.caName(),
	}
}

// caName is what the CA is called; with CMP it may be known by its DN alone.
func (s Settings) caName() string {
	if s.CMP != nil {
		return cmp.Or(s.Request.CAName, s.CMP.Recipient)
	}
	return s.Request.CAName
}

// url is where certificates are requested.
func (s Settings) url() string {
	if s.CMP != nil {
		return s.CMP.URL
	}
	return s.Request.URL
}

// changed says what a configuration requests differently now; empty when it is the same.
func (r Requested) changed(now Requested) string {
	const was = "the certificate on the volume was requested "
	switch {
	case r.KeyAlgorithm != now.KeyAlgorithm:
		return fmt.Sprintf(was+"with a key of %q, KEY_ALGORITHM asks for %q", r.KeyAlgorithm, now.KeyAlgorithm)
	case r.Subject != now.Subject:
		return fmt.Sprintf(was+"with the subject %q, the configuration asks for %q", r.Subject, now.Subject)
	case !slices.Equal(r.SANs, now.SANs):
		return fmt.Sprintf(was+"with the names %q, SANS asks for %q", r.SANs, now.SANs)
	case r.CA != now.CA:
		return fmt.Sprintf(was+"from the CA %q, CA_NAME or CMP_RECIPIENT asks for %q", r.CA, now.CA)
	}
	return ""
}

// note is the record for a certificate that was just accepted, as it is published.
func (e *Enroller) note(leaf *x509.Certificate) []byte {
	encoded, err := json.MarshalIndent(Record{
		Version: recordVersion, Certificate: fingerprint(leaf), Request: requestedBy(e.Config),
		AcceptedFrom: e.Config.url(), EnrolDirectly: e.enrolDirectly,
	}, "", "  ")
	if err != nil { // strings and a number cannot fail to be encoded
		panic(err)
	}
	if encoded = append(encoded, '\n'); len(encoded) > output.NoteLimit {
		return nil // names are compared then
	}
	return encoded
}

// recordOf reads the record of what is on a volume; nil when there is none for this certificate.
func recordOf(b *output.Bundle) *Record { return boundRecord(b.Note, b.Chain[0]) }

// ReadRecord reads the record for a certificate from the
// directory where it is published; nil when there is none.
func ReadRecord(dir string, leaf *x509.Certificate) *Record {
	return boundRecord(output.ReadNote(dir), leaf)
}

func boundRecord(note []byte, leaf *x509.Certificate) *Record {
	r, err := ParseRecord(note)
	if err != nil || r.Certificate != fingerprint(leaf) {
		return nil
	}
	return r
}

// ParseRecord reads a record strictly: what another release,
// or another program, has written is ignored.
func ParseRecord(note []byte) (*Record, error) {
	decoder := json.NewDecoder(bytes.NewReader(note))
	decoder.DisallowUnknownFields()
	var r Record
	if err := decoder.Decode(&r); err != nil {
		return nil, fmt.Errorf("reading the record of a request: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the record of a request has more than one JSON value")
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("the record of a request has version %d, want %d", r.Version, recordVersion)
	}
	return &r, nil
}

func fingerprint(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.Raw)
	return hex.EncodeToString(sum[:])
}
