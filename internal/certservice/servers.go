package certservice

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// maxConfigBytes bounds cmpServers.json and each file of trust anchors.
const maxConfigBytes = 1 << 20

// Values of Server.Protection.
const (
	ProtectionPBMSHA256 = string(cmp.ProtectionPBMSHA256)
	ProtectionPBMSHA1   = string(cmp.ProtectionPBMSHA1)
	ProtectionPBMAC1    = string(cmp.ProtectionPBMAC1)
)

// Values of Server.ResponseTrust.
const (
	// TrustAnchored takes a signed answer whose signer chains to the trust anchors.
	TrustAnchored = "anchored"
	// TrustONAP takes what the ONAP server took, and has a warning logged for each answer so taken.
	TrustONAP = "onap"
)

// Server is one entry of cmpServers.json.
type Server struct {
	CAName   string
	URL      string
	IssuerDN string // RFC 4514, with the RDNs in either order
	IAK, RV  Secret

	TrustAnchors  []*x509.Certificate // for signed answers
	Protection    string              // of our requests
	Timeout       time.Duration       // for one CMP transaction; 0: the client's default
	ResponseTrust string              // "": not said, and there are no anchors
}

// Secret is a text that no log and no formatting shows.
type Secret string

const masked = "*****"

// String hides the secret.
func (Secret) String() string { return masked }

// Format hides the secret from fmt, whatever the verb.
func (Secret) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, masked) }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalJSON hides the secret from encoding/json.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + masked + `"`), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() []byte { return []byte(s) }

// Faults are everything that is wrong with a configuration, each with its place in the file.
type Faults []string

func (f Faults) Error() string { return strings.Join(f, "; ") }

func (f *Faults) add(place, format string, args ...any) {
	*f = append(*f, place+": "+fmt.Sprintf(format, args...))
}

// LoadServers reads and validates cmpServers.json. Paths of trust anchors in it are relative to its
// directory. The error is Faults when the file could be read.
func LoadServers(path string) ([]Server, error) {
	return loadServers(path, readBounded)
}

func loadServers(path string, readFile func(string) ([]byte, error)) ([]Server, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseServers(data, func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		return readFile(name)
	})
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxConfigBytes)
	}
	return data, nil
}

// parseServers validates the text of a cmpServers.json; readFile gets the files it names. It walks the
// JSON itself, not into a struct, to tell all faults and not only the first, and never a secret's value.
func parseServers(data []byte, readFile func(string) ([]byte, error)) ([]Server, error) {
	var root any
	if err := json.Unmarshal(data, &root); err != nil {
		return nil, Faults{jsonFault(data, err)}
	}
	object, ok := root.(map[string]any)
	if !ok {
		return nil, Faults{fmt.Sprintf("the file holds %s, want an object with the key \"cmpv2Servers\"", kind(root))}
	}
	var faults Faults
	list, ok := object["cmpv2Servers"].([]any)
	switch value, present := object["cmpv2Servers"]; {
	case !present:
		faults.add("cmpv2Servers", "is missing, want a list of at least one server")
	case !ok:
		faults.add("cmpv2Servers", "is %s, want a list of at least one server", kind(value))
	case len(list) == 0:
		faults.add("cmpv2Servers", "is empty, want at least one server")
	}
	servers := make([]Server, 0, len(list))
	placeOf := map[string]string{}
	for i, entry := range list {
		place := fmt.Sprintf("cmpv2Servers[%d]", i)
		fields, ok := entry.(map[string]any)
		if !ok {
			faults.add(place, "is %s, want an object", kind(entry))
			continue
		}
		e := entryParser{place: place, fields: fields, faults: &faults, readFile: readFile}
		server := e.parse()
		if first, taken := placeOf[server.CAName]; taken {
			faults.add(place+".caName", "has %q, which is the name of %s already", server.CAName, first)
		} else if server.CAName != "" {
			placeOf[server.CAName] = place
		}
		servers = append(servers, server)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return servers, nil
}

// jsonFault gives a syntax error its line and column. encoding/json quotes one character of the text at most.
func jsonFault(data []byte, err error) string {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return "the file is not JSON: " + err.Error()
	}
	before := data[:min(int(syntax.Offset), len(data))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	return fmt.Sprintf("line %d, column %d: the file is not JSON: %s", line, column, syntax)
}

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}

// entryParser reads the fields of one server. Unknown fields, the old caMode among them, are left alone.
type entryParser struct {
	place    string
	fields   map[string]any
	faults   *Faults
	readFile func(string) ([]byte, error)
}

// urlSafe are the characters that stand for themselves in a path segment (RFC 3986 section 3.3).
var urlSafe = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,;=:@-]+$`)

func (e entryParser) parse() Server {
	s := Server{
		CAName:   e.required("caName", 1, 128),
		URL:      e.required("url", 1, 2048),
		IssuerDN: e.required("issuerDN", 4, 256),
	}
	if s.CAName != "" && (!urlSafe.MatchString(s.CAName) || s.CAName == "." || s.CAName == "..") {
		e.fault("caName", "has %q, want only characters that need no escape in a URL", s.CAName)
	}
	if s.URL != "" {
		e.checkURL(s.URL)
	}
	if s.IssuerDN != "" {
		if _, err := cmp.ParseDN(s.IssuerDN); err != nil {
			e.fault("issuerDN", "%v", err)
		}
	}
	s.IAK, s.RV = e.authentication()
	s.Protection = e.oneOf("protection", ProtectionPBMSHA256, ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1)
	s.Timeout = e.timeout()
	s.TrustAnchors = e.trustAnchors()
	_, anchored := e.fields["trustAnchors"]
	trust := ""
	if anchored {
		trust = TrustAnchored
	}
	s.ResponseTrust = e.oneOf("responseTrust", trust, TrustAnchored, TrustONAP)
	if s.ResponseTrust == TrustAnchored && !anchored {
		e.fault("responseTrust", "is %q, which needs trustAnchors", TrustAnchored)
	}
	return s
}

func (e entryParser) fault(field, format string, args ...any) {
	e.faults.add(e.place+"."+field, format, args...)
}

// text returns a string field; present is false, too, for a null and for a field of another kind, which
// is a fault.
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

// required returns a string field of a bounded number of characters, and "" after a fault.
func (e entryParser) required(field string, shortest, longest int) string {
	if e.fields[field] == nil {
		e.fault(field, "is missing")
		return ""
	}
	value, ok := e.text(field)
	if !ok {
		return ""
	}
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
	for _, a := range allowed {
		if value == a {
			return value
		}
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

func (e entryParser) authentication() (iak, rv Secret) {
	raw := e.fields["authentication"]
	if raw == nil {
		e.fault("authentication", "is missing")
		return "", ""
	}
	fields, ok := raw.(map[string]any)
	if !ok {
		e.fault("authentication", "is %s, want an object", kind(raw))
		return "", ""
	}
	inner := entryParser{place: e.place + ".authentication", fields: fields, faults: e.faults, readFile: e.readFile}
	return Secret(inner.required("iak", 1, 256)), Secret(inner.required("rv", 1, 256))
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

func (e entryParser) trustAnchors() []*x509.Certificate {
	name, ok := e.text("trustAnchors")
	if !ok {
		return nil
	}
	data, err := e.readFile(name)
	if err != nil {
		e.fault("trustAnchors", "%v", err)
		return nil
	}
	var anchors []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				e.fault("trustAnchors", "has certificate %d in %q, which cannot be read: %v", len(anchors)+1, name, err)
				return nil
			}
			anchors = append(anchors, cert)
		}
		data = rest
	}
	if len(anchors) == 0 {
		e.fault("trustAnchors", "has %q, which holds no PEM certificate", name)
	}
	return anchors
}
