package certservice

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// anchors are certificates that verify answers of the CA, or its server. One that can verify nothing here is passed over with a warning; it is a fault
// when no other is left.
func (e entryParser) anchors(field string) (anchors []*x509.Certificate) {
	found, file := e.certificates(field)
	var reasons []string
	for i, cert := range found {
		if err := usableKey(cert); err != nil {
			reasons = append(reasons, fmt.Sprintf("certificate %d, %q, can verify nothing here: %v", i+1, pki.DN(cert.RawSubject), err))
			continue
		}
		anchors = append(anchors, cert)
	}
	if len(found) > 0 && len(anchors) == 0 {
		e.fault(field, "has no certificate in %q that can be used: %s", file, strings.Join(reasons[:min(len(reasons), 5)], "; "))
		return nil
	}
	for _, reason := range reasons {
		e.warn(field, "in %q, %s; it is skipped", file, reason)
	}
	return anchors
}

func usableKey(cert *x509.Certificate) error {
	if err := pki.Unusable(cert); err != nil {
		return err
	}
	return cmp.CheckKey(cert.PublicKey)
}

// additionalRoots are for clients to trust, who can do nothing with what is no root. They are only handed on, so one that
// can verify nothing here is taken by its names.
func (e entryParser) additionalRoots() []*x509.Certificate {
	const field = "additionalRoots"
	roots, file := e.certificates(field)
	for i, root := range roots {
		unusable := pki.Unusable(root)
		switch {
		case unusable == nil && selfSignedAuthority(root):
		case unusable != nil && selfIssuedAuthority(root):
			e.warn(field, "in %q, certificate %d, %q, can verify nothing here, and is handed to clients as it is: %v",
				file, i+1, pki.DN(root.RawSubject), unusable)
		default:
			e.fault(field, "has certificate %d, %q, which is not a self-signed CA certificate", i+1, pki.DN(root.RawSubject))
		}
	}
	return roots
}

// warnOfMissingRoots warns of anchors that are no roots and whose issuer is nowhere: clients get them as what to trust, and
// programs that want a root at the end of a chain, openssl among them, refuse every certificate then.
func (e entryParser) warnOfMissingRoots(anchors, roots []*x509.Certificate) {
	given := slices.Concat(anchors, roots)
	for _, anchor := range anchors {
		issued := func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, anchor.RawIssuer) }
		if anchor.IsCA && !slices.ContainsFunc(given, issued) {
			e.warn("trustAnchors", "has %q, but not the root above it, %q: clients get a truststore without a root, "+
				"which openssl and others refuse; put the root into trustAnchors", pki.DN(anchor.RawSubject), pki.DN(anchor.RawIssuer))
		}
	}
}

// selfSignedAuthority also takes old roots: of a version that has no extension to say what they are, or signed with
// SHA-1, which is no harm where nobody relies on the signature.
func selfSignedAuthority(c *x509.Certificate) bool {
	return selfIssuedAuthority(c) && pki.SelfSigned(c)
}

// selfIssuedAuthority is all that can be said of a root whose key or extensions are not understood.
func selfIssuedAuthority(c *x509.Certificate) bool {
	return (c.IsCA || c.Version < 3) && bytes.Equal(c.RawSubject, c.RawIssuer)
}

// certificates reads the PEM file that a field names; it returns none when the field is absent, or after a fault.
func (e entryParser) certificates(field string) (found []*x509.Certificate, file string) {
	name, ok := e.text(field)
	if !ok {
		return nil, ""
	}
	if name == "" {
		e.fault(field, "is empty, want the path of a PEM file, or no such field")
		return nil, ""
	}
	data, err := e.readFile(name)
	if err != nil {
		e.fault(field, "%v", err)
		return nil, ""
	}
	found, faults, err := pki.PEMCertificates(data)
	switch {
	case err != nil:
		e.fault(field, "has %q, which %v", name, err)
		return nil, ""
	case len(found) == 0 && len(faults) > 0:
		e.fault(field, "has %q, which holds no certificate that can be read: %v", name, faults[0])
	case len(found) == 0:
		e.fault(field, "has %q, which holds no PEM certificate", name)
	default:
		for _, fault := range faults {
			e.warn(field, "in %q, %v; it is skipped", name, fault)
		}
	}
	return found, name
}
