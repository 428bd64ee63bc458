package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PathOptions say what a path may consist of.
type PathOptions struct {
	// Anchors are trusted; those that can verify nothing
	// (Unusable) are passed over, and so are such Others.
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

// VerifyPath returns the certification paths (RFC 5280, section 6) from a certificate to an
// anchor, both ends included. They consist of the certificates given. Beyond crypto/x509, which it
// calls, it applies name constraints on directory names, and lets constraints on kinds of names
// that are not understood refuse only paths with a name of that kind (sections 4.2.1.10 and 6.1).
func VerifyPath(leaf *x509.Certificate, o PathOptions) ([][]*x509.Certificate, error) {
	if err := Unusable(leaf); err != nil {
		return nil, err
	}
	usages := o.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	c := newChecker()
	options := x509.VerifyOptions{Roots: o.Pool, CurrentTime: o.At, KeyUsages: usages}
	given := map[string]*x509.Certificate{string(leaf.Raw): leaf}
	add := func(certs []*x509.Certificate) *x509.CertPool {
		pool := x509.NewCertPool()
		for _, cert := range certs {
			if Unusable(cert) == nil {
				given[string(cert.Raw)] = cert
				pool.AddCert(c.relax(cert))
			}
		}
		return pool
	}
	if len(o.Others) > 0 {
		options.Intermediates = add(o.Others)
	}
	if o.Pool == nil {
		options.Roots = add(o.Anchors)
	}
	chains, err := c.relax(leaf).Verify(options)
	if err != nil {
		return nil, explain(leaf, o, err)
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

// explain adds the reason to an error that does not say it. Dates and usages are said.
func explain(leaf *x509.Certificate, o PathOptions, err error) error {
	if tellsReason(err) {
		return err
	}
	if reason := PathReason(leaf, o.Others, o.Anchors); reason != "" {
		return &PathError{Reason: reason, Err: err}
	}
	return err
}

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// relax is a certificate for crypto/x509, whose name constraints are checked here where it does
// not understand them. What it does understand among them, it applies all the same.
func (c *checker) relax(cert *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(cert.UnhandledCriticalExtensions, oidNameConstraints.Equal) ||
		c.constraintsOf(cert).unreadable {
		return cert
	}
	another := *cert
	another.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions),
		oidNameConstraints.Equal)
	return &another
}

// shownName is a distinguished name of a certificate that another program sent, for messages.
func shownName(raw []byte) string { return OneLine(DN(raw), 256) }

// maxDepth and maxNamesakes bound the search for a reason:
// each namesake costs the verification of a signature.
const (
	maxDepth     = 16
	maxNamesakes = 16
)

// PathReason says what is wrong with the path from a certificate to an anchor where crypto/x509
// only says that no authority is known: an algorithm or an extension that is not supported, an
// issuer's certificate that can verify nothing, or one of that name with another key. It is empty
// when an issuer's certificate is simply not there, or when none of these is wrong.
func PathReason(leaf *x509.Certificate, others, anchors []*x509.Certificate) string {
	return pathReason(leaf, others, anchors, false)
}

// HandshakeReason is Reason for the certificates that the other side
// of TLS showed, and the error that crypto/tls had. It knows no name
// constraints but its own, and reports dates and usages itself.
func HandshakeReason(err error, shown, anchors []*x509.Certificate) string {
	if tellsReason(err) {
		return ""
	}
	return pathReason(shown[0], shown[1:], anchors, true)
}

func tellsReason(err error) bool {
	_, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok
}

func pathReason(leaf *x509.Certificate, others, anchors []*x509.Certificate, handshake bool) string {
	for cert, depth := leaf, 0; depth < maxDepth; depth++ {
		if depth > 0 && slices.ContainsFunc(anchors, cert.Equal) {
			return extensionFault(cert, handshake)
		}
		if algorithm := UnsupportedSignature(cert); algorithm != "" && !slices.ContainsFunc(anchors, cert.Equal) {
			return fmt.Sprintf("%q is signed with %s, which is not accepted: have it issued with SHA-256 or stronger",
				shownName(cert.RawSubject), algorithm)
		}
		if fault := extensionFault(cert, handshake); fault != "" {
			return fault
		}
		issuer, fault := issuerOf(cert, anchors, "among the trusted certificates")
		if issuer == nil && !bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			var sent string
			if issuer, sent = issuerOf(cert, others, "in the chain"); fault == "" {
				fault = sent
			}
		}
		if issuer == nil {
			return fault
		}
		cert = issuer
	}
	return ""
}

// issuerOf finds the certificate that signed another, or says why none of its issuer's name did.
func issuerOf(cert *x509.Certificate, among []*x509.Certificate,
	place string) (issuer *x509.Certificate, fault string) {
	tried := 0
	for _, candidate := range among {
		if !bytes.Equal(candidate.RawSubject, cert.RawIssuer) || cert.Equal(candidate) {
			continue
		}
		if tried++; tried > maxNamesakes {
			break
		}
		name := shownName(candidate.RawSubject)
		if err := Unusable(candidate); err != nil {
			fault = fmt.Sprintf("the CA certificate %q is %s, but can verify nothing: %v", name, place, err)
			continue
		}
		err := cert.CheckSignatureFrom(candidate)
		switch {
		case err == nil:
			return candidate, ""
		case candidate.KeyUsage != 0 && candidate.KeyUsage&x509.KeyUsageCertSign == 0:
			fault = fmt.Sprintf("the certificate %q is %s, but its key usage does not allow it to sign certificates",
				name, place)
		case !mayIssue(candidate):
			fault = fmt.Sprintf("the certificate %q is %s, but it is not one of a CA (basicConstraints)", name, place)
		case fault == "":
			fault = fmt.Sprintf("a CA certificate %q is %s, but with another key than the one that signed %q: "+
				"get the CA's current certificate", name, place, shownName(cert.RawSubject))
		}
	}
	return nil, fault
}

// mayIssue is how crypto/x509 decides it: certificates
// before version 3 have no extension that could say it.
func mayIssue(cert *x509.Certificate) bool {
	return cert.BasicConstraintsValid && cert.IsCA || !cert.BasicConstraintsValid && cert.Version < 3
}

// extensionFault names critical extensions that are not
// understood; name constraints are, but for handshakes.
func extensionFault(cert *x509.Certificate, handshake bool) string {
	for _, oid := range cert.UnhandledCriticalExtensions {
		switch {
		case oid.Equal(oidNameConstraints) && handshake:
			return fmt.Sprintf(
				"the CA certificate %q has name constraints of a kind that is not supported for "+
					"TLS: use a CA without them, or with "+
					"those on DNS names and addresses only", shownName(cert.RawSubject))
		case oid.Equal(oidNameConstraints):
		default:
			return fmt.Sprintf("the certificate %q has a critical extension that is not supported: OID %s",
				shownName(cert.RawSubject), oid)
		}
	}
	return ""
}

// OnlyCommonName tells whether a certificate has a host name as
// common name and no alternative name that could match: common names
// are not looked at (RFC 9525, section 6.2), by crypto/x509 neither.
func OnlyCommonName(cert *x509.Certificate, host string) bool {
	return len(cert.DNSNames)+len(cert.IPAddresses) == 0 &&
		strings.EqualFold(cert.Subject.CommonName, strings.TrimSuffix(host, "."))
}
