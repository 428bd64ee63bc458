package enroll

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/output"
)

// recordVersion counts the forms of a Record. One of another version is none.
const recordVersion = 1

// Record is what was requested for the certificate on a volume. It is published together with the certificate, so that
// a later start can compare requests: what a CA made of one says nothing about whether the next one is the same.
//
// It replaces no check. It says nothing about the key, the chain and the dates, and it counts only for the certificate
// whose hash it has.
type Record struct {
	Version     int       `json:"version"`
	Certificate string    `json:"certificate"` // SHA-256 of the leaf's DER, in hexadecimal
	Request     Requested `json:"request"`
	// AcceptedFrom is the REQUEST_URL whose answer was accepted. It is not compared: an address may change.
	AcceptedFrom string `json:"acceptedFrom"`
	// EnrolDirectly: the CA answers updates of this certificate with other names than the requested ones.
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
		KeyAlgorithm: cfg.Certificate.KeyAlgorithm, CA: cfg.Request.CAName,
	}
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
		return fmt.Sprintf(was+"from the CA %q, CA_NAME asks for %q", r.CA, now.CA)
	}
	return ""
}

// note is the record for a certificate that was just accepted, as it is published.
func (e *Enroller) note(leaf *x509.Certificate) []byte {
	encoded, err := json.MarshalIndent(Record{
		Version: recordVersion, Certificate: fingerprint(leaf), Request: requestedBy(e.Config),
		AcceptedFrom: e.Config.Request.URL, EnrolDirectly: e.enrolDirectly,
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

// ReadRecord reads the record for a certificate from the directory where it is published; nil when there is none.
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

// ParseRecord reads a record strictly: what another release, or another program, has written is none.
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
