package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"strings"
	"time"
)

// PathOptions say what a path may consist of.
type PathOptions struct {
	// Anchors are trusted; those that can verify nothing (Unusable) are passed over, and so are such Others.
	Anchors []*x509.Certificate
	Others  []*x509.Certificate // may stand between
	Pool    *x509.CertPool      // of anchors, in place of Anchors; those in it are not listed in errors
	At      time.Time           // zero: now
	Usages  []x509.ExtKeyUsage  // of which one must be allowed; empty: any
}

// PathError is a path that does not verify, with the reason that crypto/x509 does not tell.
type PathError struct {
	Reason string
	Err    error // of crypto/x509
}

func (e *PathError) Error() string { return e.Reason }
func (e *PathError) Unwrap() error { return e.Err }

// VerifyPath returns the certification paths (RFC 5280, section 6) from a certificate to an anchor, both ends
// included. They consist of the certificates given. Beyond crypto/x509, which it calls, it applies name constraints on
// directory names, and lets constraints on kinds of names that are not understood refuse only paths with a name of
// that kind (sections 4.2.1.10 and 6.1).
func VerifyPath(leaf *x509.Certificate, o PathOptions) ([][]*x509.Certificate, error) {
	if err := Unusable(leaf); err != nil {
		return nil, err
	}
	usages := o.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	c := newChecker()
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		CurrentTime: o.At, KeyUsages: usages}
	given := map[string]*x509.Certificate{string(leaf.Raw): leaf}
	add := func(pool *x509.CertPool, certs []*x509.Certificate) {
		for _, cert := range certs {
			if Unusable(cert) == nil {
				given[string(cert.Raw)] = cert
				pool.AddCert(c.relaxed(cert))
			}
		}
	}
	add(options.Intermediates, o.Others)
	if add(options.Roots, o.Anchors); o.Pool != nil {
		options.Roots = o.Pool
	}
	chains, err := c.relaxed(leaf).Verify(options)
	if err != nil {
		return nil, explained(leaf, o, err)
	}
	var refusal error
	chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		for i, cert := range chain {
			if known, ok := given[string(cert.Raw)]; ok {
				chain[i] = known
			}
		}
		fault := c.check(chain)
		if fault != "" && refusal == nil {
			refusal = &PathError{Reason: fault,
				Err: x509.CertificateInvalidError{Cert: leaf, Reason: x509.CANotAuthorizedForThisName, Detail: fault}}
		}
		return fault != ""
	})
	if len(chains) == 0 {
		return nil, refusal
	}
	return chains, nil
}

// explained adds the reason to an error that does not tell it. Dates and usages are told.
func explained(leaf *x509.Certificate, o PathOptions, err error) error {
	if tellsReason(err) {
		return err
	}
	if reason := PathReason(leaf, o.Others, o.Anchors); reason != "" {
		return &PathError{Reason: reason, Err: err}
	}
	return err
}

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// relaxed is a certificate for crypto/x509, whose name constraints are checked here where it does not understand them.
// What it does understand among them, it applies all the same.
func (c *checker) relaxed(cert *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(cert.UnhandledCriticalExtensions, oidNameConstraints.Equal) ||
		c.constraintsOf(cert).unreadable {
		return cert
	}
	another := *cert
	another.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions),
		oidNameConstraints.Equal)
	return &another
}

// ShortError is the text of an error of a verification, without the prefix that names a library.
func ShortError(err error) string { return strings.TrimPrefix(err.Error(), "x509: ") }

// shownName is a distinguished name of a certificate that somebody sent, for messages.
func shownName(raw []byte) string { return OneLine(DN(raw), 256) }
