package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
)

// remark warns of what is no reason to refuse a certificate, and will be missed later.
func (t *transaction) remark(certificate *x509.Certificate, csr *x509.CertificateRequest) {
	log := t.c.cfg.Log
	if !SameName(certificate.RawIssuer, t.c.issuer) {
		log.Warn("the certificate's issuer is not the configured one, by which some CAs find the holder at an update",
			"issuer", shown(nameString(certificate.RawIssuer)), "configured", nameString(t.c.issuer))
	}
	if missing := missingExtKeyUsages(certificate, csr); len(missing) > 0 {
		log.Warn("the certificate lacks extended key usages that were asked for: peers may refuse it; "+
			"see the certificate profile at the CA", "missing", strings.Join(missing, ", "), "subject", shown(nameString(certificate.RawSubject)))
	}
}

var (
	oidAnyExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	// extKeyUsageNames are the usages that people ask for (RFC 5280, 4.2.1.12).
	extKeyUsageNames = map[string]string{
		"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth", "1.3.6.1.5.5.7.3.3": "codeSigning",
		"1.3.6.1.5.5.7.3.4": "emailProtection", "1.3.6.1.5.5.7.3.8": "timeStamping", "1.3.6.1.5.5.7.3.9": "OCSPSigning",
	}
)

// missingExtKeyUsages names the extended key usages that the template asks for and the certificate does not allow. One
// without the extension, or with anyExtendedKeyUsage, allows them all (RFC 5280, 4.2.1.12).
func missingExtKeyUsages(certificate *x509.Certificate, csr *x509.CertificateRequest) (missing []string) {
	granted, restricted := extKeyUsages(certificate.Extensions)
	if !restricted || slices.ContainsFunc(granted, oidAnyExtKeyUsage.Equal) {
		return nil
	}
	wanted, _ := extKeyUsages(templateExtensions(csr))
	for _, usage := range wanted {
		if slices.ContainsFunc(granted, usage.Equal) {
			continue
		}
		name, known := extKeyUsageNames[usage.String()]
		if !known {
			name = usage.String()
		}
		missing = append(missing, name)
	}
	return missing
}

// extKeyUsages reads extKeyUsage, and says whether there is one that can be read.
func extKeyUsages(extensions []pkix.Extension) (usages []asn1.ObjectIdentifier, present bool) {
	i := slices.IndexFunc(extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidExtKeyUsage) })
	if i < 0 {
		return nil, false
	}
	rest, err := asn1.Unmarshal(extensions[i].Value, &usages)
	return usages, err == nil && len(rest) == 0
}
