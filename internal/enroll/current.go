package enroll

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/verify"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// keep returns what the volume holds when that may stay, else why it may not; both are zero for an empty volume. A
// sidecar keeps all that is valid, with the reason why it has to be renewed at once: an application that has a valid
// certificate must not wait for a CertService.
func (e *Enroller) keep() (*output.Bundle, string) {
	current, err := e.volume.Current()
	switch {
	case errors.Is(err, output.ErrEmpty):
		return nil, ""
	case err != nil:
		return nil, err.Error()
	}
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

// whyOutdated says why a certificate should not stay, or "" when it should: it was requested as the configuration
// requests one now, it verifies and, without a sidecar, it has more than a third of its life ahead. When a sidecar
// renews is not decided here.
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

// changed says in what the configuration requests another certificate than this one, or "" when it does not. Requests
// are compared, because a CA may add, remove or change names. Only where there is no record of the request, as of an
// earlier release, what is in the certificate is compared.
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

// attributes lists a name's attributes, sorted: some CAs, EJBCA among them, return the RDNs in another
// order or string type than they were asked for.
func attributes(name pkix.Name) []string {
	list := make([]string, len(name.Names))
	for i, a := range name.Names {
		list[i] = fmt.Sprintf("%v=%v", a.Type, a.Value)
	}
	slices.Sort(list)
	return list
}

// sameNames compares two lists of names. A CA that adds the common name as a DNS name, as many do, has
// changed nothing: taking that for a difference would mean another enrolment at every start.
func sameNames(has, asked []string, commonName string) bool {
	added := "DNS:" + strings.ToLower(commonName)
	if !slices.Contains(asked, added) {
		has = slices.DeleteFunc(has, func(name string) bool { return name == added })
	}
	return slices.Equal(has, asked)
}
