package certservice

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// anchors are certificates that verify answers of the CA, or its server. One that can verify
// nothing here is skipped with a warning; it is a fault when no other is left.
func (e entryParser) anchors(field string) (anchors []*x509.Certificate) {
	found, file := e.certificates(field)
	var reasons []string
	for i, cert := range found {
		if err := usableKey(cert); err != nil {
			reasons = append(reasons, fmt.Sprintf("certificate %d, %q, can verify nothing here: %v",
				i+1, pki.DN(cert.RawSubject), err))
			continue
		}
		anchors = append(anchors, cert)
	}
	if len(found) > 0 && len(anchors) == 0 {
		e.fault(field, "has no certificate in %q that can be used: %s", file,
			strings.Join(reasons[:min(len(reasons), 5)], "; "))
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

// additionalRoots are for clients to trust, which need roots. They are only passed on, so one that
// can verify nothing here is accepted by its names.
func (e entryParser) additionalRoots() []*x509.Certificate {
	const field = "additionalRoots"
	roots, file := e.certificates(field)
	for i, root := range roots {
		unusable := pki.Unusable(root)
		switch {
		case unusable == nil && selfSignedAuthority(root):
		case unusable != nil && selfIssuedAuthority(root):
			e.warn(field, "in %q, certificate %d, %q, can verify nothing here, and is passed to clients as it is: %v",
				file, i+1, pki.DN(root.RawSubject), unusable)
		default:
			e.fault(field, "has certificate %d, %q, which is not a self-signed CA certificate", i+1,
				pki.DN(root.RawSubject))
		}
	}
	return roots
}

// warnOfMissingRoots warns of anchors that are not roots and whose issuer is missing: clients get
// them to trust, and programs that want a root at the end of a chain, openssl among them, then
// refuse every certificate.
func (e entryParser) warnOfMissingRoots(anchors, roots []*x509.Certificate) {
	given := slices.Concat(anchors, roots)
	for _, anchor := range anchors {
		issued := func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, anchor.RawIssuer) }
		if anchor.IsCA && !slices.ContainsFunc(given, issued) {
			e.warn("trustAnchors", "has %q, but not the root above it, %q: clients get a truststore without a root, "+
				"which openssl and others refuse; put the root into trustAnchors",
				pki.DN(anchor.RawSubject), pki.DN(anchor.RawIssuer))
		}
	}
}

// selfSignedAuthority also accepts old roots: of a version without extensions, or signed with
// SHA-1, which does no harm where nothing relies on the signature.
func selfSignedAuthority(c *x509.Certificate) bool {
	return selfIssuedAuthority(c) && pki.SelfSigned(c)
}

// selfIssuedAuthority is all that can be checked of a root
// whose key or extensions are not understood.
func selfIssuedAuthority(c *x509.Certificate) bool {
	return (c.IsCA || c.Version < 3) && bytes.Equal(c.RawSubject, c.RawIssuer)
}

// certificates reads the PEM file that a field names; it
// returns none when the field is absent, or after a fault.
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

// hasSystemRoots is false in an image without roots, such as ours.
var hasSystemRoots = sync.OnceValue(func() bool {
	pool, err := x509.SystemCertPool()
	return err == nil && !pool.Equal(x509.NewCertPool())
})

// tls reads the fields for https:// URLs.
func (e entryParser) tls(url string) TLS {
	given := e.fields["tlsTrust"] != nil
	t := TLS{Trust: e.anchors("tlsTrust"), identity: e.identity("tlsIdentity")}
	if strings.HasPrefix(strings.ToLower(url), "https://") {
		if !given && !hasSystemRoots() {
			e.fault("tlsTrust",
				"is missing%s, and this system has no roots to verify the CMP server's certificate with, "+
					"want the path of a PEM file with its CA", e.misspelt.hint("tlsTrust"))
		}
		return t
	}
	for _, field := range []string{"tlsTrust", "tlsIdentity"} {
		if e.fields[field] != nil && url != "" {
			e.warn(field, "has no effect, as url does not begin with https://")
		}
	}
	return t
}

// identity reads a certificate, followed by its chain, and its key, from an object in a field.
func (e entryParser) identity(field string) *tls.Certificate {
	raw := e.fields[field]
	if raw == nil {
		return nil
	}
	fields, ok := raw.(map[string]any)
	if !ok {
		e.fault(field, `is %s, want an object with "certificate" and "key"`, kind(raw))
		return nil
	}
	inner := e.inner(field, fields, "certificate", "key")
	certificate, key := inner.file("certificate"), inner.file("key")
	if certificate == nil || key == nil {
		return nil
	}
	identity, err := tls.X509KeyPair(pki.RewritePEM(certificate), pki.RewritePEM(key))
	if err != nil {
		e.fault(field, "cannot be used: %s, want a PEM certificate and its unencrypted PEM key",
			strings.TrimPrefix(err.Error(), "tls: "))
		return nil
	}
	e.checkDates(field, identity.Leaf)
	return &identity
}

func (e entryParser) checkDates(field string, leaf *x509.Certificate) {
	now, text := time.Now(), ""
	switch {
	case now.After(leaf.NotAfter):
		text = "expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(leaf.NotBefore):
		text = "is not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)
	default:
		return
	}
	e.warn(field, "has the certificate %q, which %s", pki.DN(leaf.RawSubject), text)
}

// file returns the content of the file that a required field names; nil after a fault.
func (e entryParser) file(field string) []byte {
	name := e.requireText(field, 1, 4096)
	if name == "" {
		return nil
	}
	data, err := e.readFile(name)
	if err != nil {
		e.fault(field, "%v", err)
		return nil
	}
	return data
}
