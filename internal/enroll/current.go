package enroll

import (
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certinfo"
	"github.com/certfetcher/certfetcher/internal/verify"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// outdated says why a certificate that is on the volume should not stay, or "" when it should: it is
// what the configuration asks for, verifies, and has more than a third of its life ahead. When a sidecar
// renews is not decided here: for one, the certificate stays as long as it is valid.
func (e *Enroller) outdated(current *output.Bundle) string {
	if reason := e.unlike(current); reason != "" {
		return reason
	}
	asked := *e.Config.Certificate.Template
	asked.PublicKey = current.Chain[0].PublicKey
	if _, err := verify.Answer(&asked, current.Chain, current.Trusted, e.Now()); err != nil {
		return "the certificate on the volume does not verify: " + err.Error()
	}
	return ""
}

// unlike is outdated without the verification, which is the dear part.
func (e *Enroller) unlike(current *output.Bundle) string {
	leaf, want, now := current.Chain[0], e.Config.Certificate, e.Now()
	if algorithm, err := keygen.AlgorithmOf(leaf.PublicKey); err != nil || algorithm != want.KeyAlgorithm {
		return fmt.Sprintf("the key on the volume is %s, KEY_ALGORITHM asks for %s", algorithm, want.KeyAlgorithm)
	}
	if !slices.Equal(attributes(leaf.Subject), attributes(want.Template.Subject)) {
		return fmt.Sprintf("the certificate on the volume has the subject %q, the configuration asks for %q", certinfo.DN(leaf.RawSubject), certinfo.DN(want.Template.RawSubject))
	}
	if has, asked := certinfo.Names(leaf), certinfo.RequestNames(want.Template); !sameNames(has, asked, leaf.Subject.CommonName) {
		return fmt.Sprintf("the certificate on the volume has the names %q, SANS asks for %q", has, asked)
	}
	if due := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3); !now.Before(due) && !e.Config.Sidecar.Enabled {
		return fmt.Sprintf("two thirds of the certificate's life have gone by (since %s, valid until %s)",
			due.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return ""
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
