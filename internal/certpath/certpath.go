// Package certpath verifies certification paths (RFC 5280, section 6) by way of crypto/x509, and says why one does not
// verify. Beyond crypto/x509 it applies name constraints on directory names, and lets constraints on kinds of names that
// are not understood refuse only paths with a name of that kind (RFC 5280, sections 4.2.1.10 and 6.1).
package certpath

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/certinfo"
	"github.com/certfetcher/certfetcher/internal/oneline"
)

// Options say what a path may consist of.
type Options struct {
	// Anchors are trusted; those that can verify nothing (certinfo.Unusable) are passed over, and so are such Others.
	Anchors []*x509.Certificate
	Others  []*x509.Certificate // may stand between
	Pool    *x509.CertPool      // of anchors, in place of Anchors; those in it are not listed in errors
	At      time.Time           // zero: now
	Usages  []x509.ExtKeyUsage  // of which one must be allowed; empty: any
}

// Error is a path that does not verify, with the reason that crypto/x509 does not tell.
type Error struct {
	Reason string
	Err    error // of crypto/x509
}

func (e *Error) Error() string { return e.Reason }
func (e *Error) Unwrap() error { return e.Err }

// Verify returns the paths from a certificate to an anchor, both ends included. They consist of the certificates given.
func Verify(leaf *x509.Certificate, o Options) ([][]*x509.Certificate, error) {
	if err := certinfo.Unusable(leaf); err != nil {
		return nil, err
	}
	usages := o.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	c := newChecker()
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: o.At, KeyUsages: usages}
	given := map[string]*x509.Certificate{string(leaf.Raw): leaf}
	add := func(pool *x509.CertPool, certs []*x509.Certificate) {
		for _, cert := range certs {
			if certinfo.Unusable(cert) == nil {
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
			refusal = &Error{Reason: fault, Err: x509.CertificateInvalidError{Cert: leaf, Reason: x509.CANotAuthorizedForThisName, Detail: fault}}
		}
		return fault != ""
	})
	if len(chains) == 0 {
		return nil, refusal
	}
	return chains, nil
}

// explained adds the reason to an error that does not tell it. Dates and usages are told.
func explained(leaf *x509.Certificate, o Options, err error) error {
	if tellsReason(err) {
		return err
	}
	if reason := Reason(leaf, o.Others, o.Anchors); reason != "" {
		return &Error{Reason: reason, Err: err}
	}
	return err
}

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// relaxed is a certificate for crypto/x509, whose name constraints are checked here where it does not understand them.
// What it does understand among them, it applies all the same.
func (c *checker) relaxed(cert *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(cert.UnhandledCriticalExtensions, oidNameConstraints.Equal) || c.constraintsOf(cert).unreadable {
		return cert
	}
	another := *cert
	another.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), oidNameConstraints.Equal)
	return &another
}

// Short is the text of an error of a verification, without the prefix that names a library.
func Short(err error) string { return strings.TrimPrefix(err.Error(), "x509: ") }

// named is a distinguished name of a certificate that somebody sent, for messages.
func named(raw []byte) string { return oneline.Of(certinfo.DN(raw), 256) }
