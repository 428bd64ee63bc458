package verify

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// checkDates looks at every certificate of the chain; the anchors' dates count only where the path uses them.
func checkDates(chain []*x509.Certificate, now time.Time) (warnings []string, err error) {
	for i, cert := range chain {
		name := "the certificate"
		if i > 0 {
			name = fmt.Sprintf("certificate %d of the chain", i+1)
		}
		switch {
		case cert.NotAfter.Before(cert.NotBefore):
			return nil, &Error{name + " ends before it begins", "dates in order", validity(cert)}
		case now.After(cert.NotAfter):
			return nil, &Error{name + " has expired", "an end after " + pki.Stamp(now), validity(cert)}
		case cert.NotBefore.After(now.Add(Skew)):
			return nil, &Error{name + " is not valid yet",
				fmt.Sprintf("a beginning not more than %s after %s", Skew, pki.Stamp(now)), validity(cert)}
		case cert.NotBefore.After(now):
			warnings = append(warnings,
				fmt.Sprintf(
					"%s becomes valid only at %s, %s from now: this machine's clock is behind "+
						"the CA's, which is tolerated up to %s",
					name, pki.Stamp(cert.NotBefore), cert.NotBefore.Sub(now).Round(time.Second), Skew))
		}
		if i > 0 && cert.NotAfter.Before(chain[0].NotAfter) {
			warnings = append(warnings, fmt.Sprintf("%s, %s, ends at %s, before the certificate does at %s", name,
				dn(cert.RawSubject), pki.Stamp(cert.NotAfter), pki.Stamp(chain[0].NotAfter)))
		}
	}
	return warnings, nil
}

// moments are the times at which a path may be valid with the tolerated skew: now, or the beginning of
// one of its certificates soon after. Where all of them are valid at once within the tolerance, they
// are so at one of these moments.
func moments(certs []*x509.Certificate, now time.Time) []time.Time {
	times := []time.Time{now}
	for _, cert := range certs {
		if cert.NotBefore.After(now) && !cert.NotBefore.After(now.Add(Skew)) {
			times = append(times, cert.NotBefore)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

func anyStartsAfter(certs []*x509.Certificate, now time.Time) bool {
	return slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return c.NotBefore.After(now) })
}

func warnExpired(trusted []*x509.Certificate, now time.Time) (warnings []string) {
	for _, cert := range trusted {
		if now.After(cert.NotAfter) && !cert.NotAfter.IsZero() {
			warnings = append(warnings, fmt.Sprintf("the trusted certificate %s expired at %s",
				dn(cert.RawSubject), pki.Stamp(cert.NotAfter)))
		}
	}
	return warnings
}

func validity(cert *x509.Certificate) string {
	return fmt.Sprintf("%s to %s for %s", pki.Stamp(cert.NotBefore), pki.Stamp(cert.NotAfter), dn(cert.RawSubject))
}

// dn is a distinguished name in quotes as RFC 4514 writes it, which is the DER order reversed.
func dn(raw []byte) string {
	return fmt.Sprintf("%q", pki.DN(raw))
}

// dnList names the first few.
func dnList(certs []*x509.Certificate) string {
	var names []string
	for _, cert := range certs {
		names = append(names, dn(cert.RawSubject))
	}
	return strings.Join(pki.FirstOf(names, 8), ", ")
}

// keyText is a public key's algorithm and the SHA-256 of its SubjectPublicKeyInfo, as openssl and key
// pinning have it.
func keyText(key crypto.PublicKey) string {
	algorithm, _ := pki.KeyName(key)
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return algorithm
	}
	return fmt.Sprintf("%s with SHA-256 %x", algorithm, sha256.Sum256(der))
}
