package verify

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCommonName     = asn1.ObjectIdentifier{2, 5, 4, 3}
)

// Tags of GeneralName: RFC 5280, section 4.2.1.6.
const (
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// checkNames wants the requested common name and every requested alternative name in the
// certificate. What the CA changed or added beyond that is a warning: its policy, but the
// requester should know.
func checkNames(csr *x509.CertificateRequest, leaf *x509.Certificate) (warnings []string, err error) {
	wantCN, gotCN := commonNames(csr.RawSubject), commonNames(leaf.RawSubject)
	for _, cn := range wantCN {
		if !slices.Contains(gotCN, cn) {
			return nil, &NamesError{&Error{
				"the certificate lacks the requested common name", fmt.Sprintf("%q", cn),
				"the subject " + dn(leaf.RawSubject),
			}}
		}
	}
	want, err := altNames(csr.Extensions)
	if err != nil {
		return nil, &Error{"the request's alternative names cannot be read", "a well-formed extension", err.Error()}
	}
	got, err := altNames(leaf.Extensions)
	if err != nil {
		return nil, &Error{"the certificate's alternative names cannot be read", "a well-formed extension", err.Error()}
	}
	if missing := without(want, got); len(missing) > 0 {
		return nil, &NamesError{&Error{
			"the certificate lacks requested alternative names", strings.Join(missing, ", "), list(got),
		}}
	}
	if extra := without(got, want); len(extra) > 0 {
		warnings = append(warnings, "the certificate has alternative names that were not requested: "+
			strings.Join(extra, ", "))
	}
	// Many CAs write the RDNs in an order of their own, which makes no other name of it.
	if !pki.SameName(csr.RawSubject, leaf.RawSubject) {
		warnings = append(warnings, fmt.Sprintf("the certificate's subject is %s, requested was %s",
			dn(leaf.RawSubject), dn(csr.RawSubject)))
	}
	return warnings, nil
}

// altNames reads the GeneralNames of a subject alternative name extension, each as text with its
// kind, in the form in which two of them compare (RFC 5280, section 7). Kinds that crypto/x509
// passes over are compared by their bytes.
func altNames(extensions []pkix.Extension) ([]string, error) {
	i := slices.IndexFunc(extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
	if i < 0 {
		return nil, nil
	}
	var sequence []asn1.RawValue
	if rest, err := asn1.Unmarshal(extensions[i].Value, &sequence); err != nil {
		return nil, fmt.Errorf("reading GeneralNames: %w", err)
	} else if len(rest) > 0 {
		return nil, fmt.Errorf("reading GeneralNames: has %d bytes behind them", len(rest))
	}
	var names []string
	for _, v := range sequence {
		if name := generalName(v); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func generalName(v asn1.RawValue) string {
	if v.Class == asn1.ClassContextSpecific {
		switch v.Tag {
		case tagDNS:
			return "DNS:" + printable(strings.ToLower(string(v.Bytes)))
		case tagEmail:
			// Only the part behind the @ compares without regard to case.
			local, domain, _ := strings.Cut(string(v.Bytes), "@")
			return "email:" + printable(local) + "@" + printable(strings.ToLower(domain))
		case tagURI:
			return "URI:" + printable(string(v.Bytes))
		case tagIP:
			if len(v.Bytes) == net.IPv4len || len(v.Bytes) == net.IPv6len {
				return "IP Address:" + net.IP(v.Bytes).String()
			}
		}
	}
	return fmt.Sprintf("kind %d:%s", v.Tag, hex.EncodeToString(v.FullBytes))
}

// printable keeps a name from breaking the line it is shown on, and two names from looking alike.
func printable(s string) string {
	quoted := fmt.Sprintf("%+q", s)
	return quoted[1 : len(quoted)-1]
}

func without(names, other []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(other, n) })
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func commonNames(rawSubject []byte) (names []string) {
	var subject pkix.RDNSequence
	if _, err := asn1.Unmarshal(rawSubject, &subject); err != nil {
		return nil // crypto/x509 has parsed it before
	}
	for _, rdn := range subject {
		for _, attribute := range rdn {
			if text, ok := attribute.Value.(string); ok && attribute.Type.Equal(oidCommonName) {
				names = append(names, text)
			}
		}
	}
	return names
}

// checkDates looks at every certificate of the chain; the
// anchors' dates count only where the path uses them.
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

// moments are the times at which a path may be valid with the tolerated skew: now, or the
// beginning of one of its certificates soon after. Where all of them are valid at once within the
// tolerance, they are so at one of these moments.
func moments(certs []*x509.Certificate, now time.Time) []time.Time {
	times := []time.Time{now}
	for _, cert := range certs {
		if cert.NotBefore.After(now) && !cert.NotBefore.After(now.Add(Skew)) {
			times = append(times, cert.NotBefore)
		}
	}
	sort.Slice(times, func(i, j int) bool { return times[i].Before(times[j]) })
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

// keyText is a public key's algorithm and the SHA-256 of its SubjectPublicKeyInfo, as openssl and
// key pinning have it.
func keyText(key crypto.PublicKey) string {
	algorithm, _ := pki.KeyName(key)
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return algorithm
	}
	return fmt.Sprintf("%s with SHA-256 %x", algorithm, sha256.Sum256(der))
}
