package certservice

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// entryParser reads the fields of one object in the file. Unknown fields are ignored, with a
// warning where one looks like a known one.
type entryParser struct {
	place    string
	fields   map[string]any
	misspelt misspellings
	faults   *Faults
	warnings *[]string
	readFile func(string) ([]byte, error)
}

// entryFields are the fields of a server. The old caMode, which is ignored, is there so that it is
// not taken for another.
var entryFields = []string{"caName", "url", "issuerDN", "caMode", "authentication", "trustAnchors", "protection",
	"additionalRoots", "timeout", "responseTrust", "allowModified", "signerDN", "recipientDN", "sender", "confirmation",
	"tlsTrust", "tlsIdentity", "maxInFlight"}

func (e *entryParser) parse() Server {
	e.misspelt = findMisspelt(e.place+": ", e.fields, entryFields, e.warnings)
	s := Server{
		CAName:   e.caName(),
		URL:      e.requireText("url", 1, 2048),
		IssuerDN: e.requireText("issuerDN", 4, 256),
	}
	if s.URL != "" {
		e.checkURL(s.URL)
	}
	e.checkDN("issuerDN", s.IssuerDN)
	s.SignerDN = e.optionalDN("signerDN")
	s.RecipientDN = e.optionalDN("recipientDN")
	s.IAK, s.RV, s.Signer = e.authentication()
	s.SenderReference = e.oneOf("sender", "subject", "subject", "reference") == "reference"
	s.ExplicitConfirm = e.oneOf("confirmation", "implicit", "implicit", "explicit") == "explicit"
	s.TLS = e.tls(s.URL)
	s.Protection = e.protection(s.Signer)
	s.Timeout = e.timeout()
	s.MaxInFlight = e.maxInFlight()
	anchored := e.fields["trustAnchors"] != nil
	s.TrustAnchors = e.anchors("trustAnchors")
	s.AdditionalRoots = e.additionalRoots()
	e.warnOfMissingRoots(s.TrustAnchors, s.AdditionalRoots)
	trust := ""
	if anchored {
		trust = TrustAnchored
	}
	s.ResponseTrust = e.oneOf("responseTrust", trust, TrustAnchored, TrustONAP)
	if s.ResponseTrust == TrustAnchored && !anchored {
		e.fault("responseTrust", "is %q, which needs trustAnchors", TrustAnchored)
	}
	s.AllowModified = e.boolean("allowModified")
	return s
}

func (e entryParser) fault(field, format string, args ...any) {
	e.faults.add(e.place+"."+field, format, args...)
}

func (e entryParser) warn(field, format string, args ...any) {
	*e.warnings = append(*e.warnings, e.place+"."+field+": "+fmt.Sprintf(format, args...))
}

// text returns a string field; present is false also for a
// null and for a field of another kind, which is a fault.
func (e entryParser) text(field string) (value string, present bool) {
	raw := e.fields[field]
	if raw == nil {
		return "", false
	}
	value, ok := raw.(string)
	if !ok {
		e.fault(field, "is %s, want a string", kind(raw))
	}
	return value, ok
}

// boolean returns a field that is true or false, and false when it is absent.
func (e entryParser) boolean(field string) bool {
	raw := e.fields[field]
	value, ok := raw.(bool)
	if raw != nil && !ok {
		e.fault(field, "is %s, want true or false", kind(raw))
	}
	return value
}

// requireText returns a string field of a bounded number of characters, and "" after a fault.
func (e entryParser) requireText(field string, shortest, longest int) string {
	if e.fields[field] == nil {
		e.fault(field, "is missing%s", e.misspelt.hint(field))
		return ""
	}
	value, ok := e.text(field)
	if !ok {
		return ""
	}
	return e.ofLength(field, value, shortest, longest)
}

// ofLength returns the value, or "" after a fault.
func (e entryParser) ofLength(field, value string, shortest, longest int) string {
	if n := utf8.RuneCountInString(value); n < shortest || n > longest {
		e.fault(field, "has %d characters, want %d to %d", n, shortest, longest)
		return ""
	}
	return value
}

func (e entryParser) oneOf(field, absent string, allowed ...string) string {
	value, ok := e.text(field)
	if !ok {
		return absent
	}
	if slices.Contains(allowed, value) {
		return value
	}
	e.fault(field, "has %q, want one of %s", value, strings.Join(allowed, ", "))
	return absent
}

func (e entryParser) checkURL(text string) {
	u, err := url.Parse(text)
	if err != nil {
		e.fault("url", "is not a URL") // url.Error would quote it, and a password in it
		return
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		e.fault("url", "has the scheme %q, want http or https", u.Scheme)
	case u.User != nil:
		e.fault("url", "has a user name, want none")
	case u.Hostname() == "":
		e.fault("url", "has no host")
	case u.Fragment != "":
		e.fault("url", "has a fragment, want none")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			e.fault("url", "has the port %s, want 1 to 65535", port)
		}
	}
}

// authentication reads the shared secret with its name, or a certificate with its key.
func (e entryParser) authentication() (iak, rv Secret, signer Signer) {
	raw := e.fields["authentication"]
	if raw == nil {
		e.fault("authentication", "is missing")
		return "", "", signer
	}
	fields, ok := raw.(map[string]any)
	if !ok {
		e.fault("authentication", "is %s, want an object", kind(raw))
		return "", "", signer
	}
	if fields["certificate"] == nil && fields["key"] == nil {
		inner := e.inner("authentication", fields, "iak", "rv", "certificate", "key")
		return Secret(inner.requiredScalar("iak", 1, 256)), Secret(inner.requiredScalar("rv", 1, 256)), signer
	}
	if fields["iak"] != nil || fields["rv"] != nil {
		e.fault("authentication", `has "iak" or "rv" and "certificate" or "key", want one pair`)
		return "", "", signer
	}
	signer.identity = e.identity("authentication")
	if e.fields["trustAnchors"] == nil && e.fields["responseTrust"] == nil {
		e.fault("trustAnchors", "is missing, and no secret vouches for the answers to signed requests")
	}
	return "", "", signer
}

// protection is that of requests, which follows from how they are authenticated.
func (e entryParser) protection(signer Signer) string {
	if e.fields["protection"] == nil && signer.identity != nil {
		return ProtectionSignature
	}
	chosen := e.oneOf("protection", ProtectionPBMSHA256, ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1,
		ProtectionSignature)
	if signed := chosen == ProtectionSignature; signed != (signer.identity != nil) && e.fields["protection"] != nil {
		e.fault("protection", `is %q, which needs %s in authentication`, chosen,
			map[bool]string{true: `"certificate" and "key"`, false: `"iak" and "rv"`}[signed])
	}
	return chosen
}

func (e entryParser) timeout() time.Duration {
	value, ok := e.text("timeout")
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		e.fault("timeout", "has %q, want a duration such as \"30s\"", value)
		return 0
	}
	return d
}

// maxInFlight returns a number of requests, 0 when it is absent or after a fault.
func (e entryParser) maxInFlight() int {
	const field = "maxInFlight"
	raw := e.fields[field]
	if raw == nil {
		return 0
	}
	number, ok := raw.(json.Number)
	if !ok {
		e.fault(field, "is %s, want a number from 1", kind(raw))
		return 0
	}
	n, err := strconv.Atoi(number.String())
	if err != nil || n < 1 || n > 1<<30 {
		e.fault(field, "has %s, want a number from 1 to %d", shorten(number.String()), 1<<30)
		return 0
	}
	return n
}

// inner is the parser of an object in a field.
func (e entryParser) inner(field string, fields map[string]any, known ...string) entryParser {
	e.place, e.fields = e.place+"."+field, fields
	e.misspelt = findMisspelt(e.place+": ", fields, known, e.warnings)
	return e
}

// requiredScalar is required for texts that people and templates write
// without quotes: a number and a boolean are read as their text, as
// the ONAP server did. The text is not shown: it may be a secret.
func (e entryParser) requiredScalar(field string, shortest, longest int) string {
	var text string
	switch value := e.fields[field].(type) {
	case json.Number:
		text = value.String()
	case bool:
		text = strconv.FormatBool(value)
	default:
		return e.requireText(field, shortest, longest)
	}
	e.warn(field, "is %s, which is read as its text: write it in double quotes", kind(e.fields[field]))
	return e.ofLength(field, text, shortest, longest)
}

// unescaped are the characters besides letters and digits that stand for themselves in a path
// segment (RFC 3986, 3.3).
const unescaped = "._~!$&'()*+,;=:@-"

// caName returns the name that clients use. Characters that must be escaped in a URL work if
// clients escape them.
func (e entryParser) caName() string {
	name := e.requiredScalar("caName", 1, 128)
	switch {
	case name == "":
		return ""
	case name == "." || name == "..":
		e.fault("caName", "has %q, which clients remove from a path, want another name", name)
		return ""
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		e.fault("caName", "has %q, want printable characters only", name)
		return ""
	case strings.ContainsFunc(name, func(r rune) bool {
		return !alphanumeric(r) &&
			!strings.ContainsRune(unescaped, r)
	}):
		e.warn("caName", "has %q, which clients must write as %q in the path", name, url.PathEscape(name))
	}
	return name
}

func alphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
}

func (e entryParser) checkDN(field, text string) {
	if text == "" {
		return
	}
	if _, err := cmp.ParseDN(text); err != nil {
		e.fault(field, "%v", err)
	}
}

// optionalDN returns a distinguished name, "" when it is absent or after a fault.
func (e entryParser) optionalDN(field string) string {
	if e.fields[field] == nil {
		return ""
	}
	text := e.requireText(field, 4, 256)
	e.checkDN(field, text)
	return text
}
