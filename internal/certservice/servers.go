package certservice

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// Values of Server.Protection.
const (
	ProtectionPBMSHA256 = string(cmp.ProtectionPBMSHA256)
	ProtectionPBMSHA1   = string(cmp.ProtectionPBMSHA1)
	ProtectionPBMAC1    = string(cmp.ProtectionPBMAC1)
	ProtectionSignature = string(cmp.ProtectionSignature)
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
	Signer   Signer // signs requests in place of IAK, as a registration authority's certificate may

	SignerDN        string // of the signer of the answers; "": the CA
	RecipientDN     string // to which requests are addressed; "": the CA
	SenderReference bool   // the sender of requests is the name of the secret, not the subject
	ExplicitConfirm bool   // certificates are confirmed by a message of their own
	TLS             TLS

	TrustAnchors    []*x509.Certificate // for signed answers
	AdditionalRoots []*x509.Certificate // handed to clients beside the signing root
	Protection      string              // of our requests
	Timeout         time.Duration       // for one CMP transaction and each message in it; 0: the client's default
	MaxInFlight     int                 // requests in progress at the same time; 0: not set
	ResponseTrust   string              // "": not set, and there are no anchors
	AllowModified   bool                // certificates may have another subject or other names than requested

	place string // in the file
}

// Signer is a key with its certificate and chain. It is not exported, so that nothing encodes the key.
type Signer struct{ identity *tls.Certificate }

// cmp returns it for the CMP client; nil where there is none.
func (s Signer) cmp() *cmp.Signer {
	if s.identity == nil {
		return nil
	}
	signer := &cmp.Signer{Key: s.identity.PrivateKey.(crypto.Signer), Certificate: s.identity.Leaf}
	for _, der := range s.identity.Certificate[1:] {
		if c, err := pki.Parse(der); err == nil {
			signer.Chain = append(signer.Chain, c)
		}
	}
	return signer
}

// Secret is a text that no log and no formatting shows.
type Secret string

const masked = "*****"

// Format hides the secret from fmt, whatever the verb.
func (Secret) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, masked) }

// MarshalText hides the secret from slog and encoding/json.
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() []byte { return []byte(s) }

// Faults are all faults of a configuration, each with its place in the file.
type Faults []string

func (f Faults) Error() string { return strings.Join(f, "; ") }

func (f *Faults) add(place, format string, args ...any) {
	*f = append(*f, place+": "+fmt.Sprintf(format, args...))
}

// MaxConfigBytes bounds cmpServers.json, each file of certificates that it names, and a policy: one of 10,000 rules has
// 3 MiB.
const MaxConfigBytes = 8 << 20

// serversFile is the content of a cmpServers.json. An entry
// with a fault does not make the others useless.
type serversFile struct {
	Servers  []Server // the entries without a fault
	Faults   Faults   // of the entries left out
	Warnings []string // about what was read although it is not as it should be, each with its place
	leftOut  []string // names of the entries left out; "" where an entry has none that can be read
}

// loadServers reads and validates cmpServers.json. Paths in it are relative to its directory. The
// error is about the file as a whole, and is Faults when the file could be read.
func loadServers(path string, readFile func(string) ([]byte, error)) (serversFile, error) {
	data, err := readFile(path)
	if err != nil {
		return serversFile{}, err
	}
	return parseServers(data, func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		return readFile(name)
	})
}

func readBounded(path string) ([]byte, error) {
	data, _, err := files.Read(path, MaxConfigBytes)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxConfigBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, MaxConfigBytes)
	}
	return data, nil
}

// parseServers validates the text of a cmpServers.json; readFile reads
// the files it names. It walks the JSON itself, not into a struct, to
// report all faults and not only the first, and never a secret's value.
func parseServers(data []byte, readFile func(string) ([]byte, error)) (serversFile, error) {
	var file serversFile
	data, marked := files.Text(data) // the ONAP server read marked files as well
	if marked {
		file.Warnings = append(file.Warnings, "the file begins with a byte order mark, which is ignored")
	}
	root, fault := parseJSON(data)
	if fault != "" {
		return file, Faults{fault}
	}
	object, ok := root.(map[string]any)
	if !ok {
		return file, Faults{fmt.Sprintf("the file holds %s, want an object with the key \"cmpv2Servers\"", kind(root))}
	}
	misspelt := findMisspelt("", object, []string{"cmpv2Servers"}, &file.Warnings)
	var faults Faults
	list, ok := object["cmpv2Servers"].([]any)
	switch value, present := object["cmpv2Servers"]; {
	case !present:
		faults.add("cmpv2Servers", "is missing%s, want a list of at least one server", misspelt.hint("cmpv2Servers"))
	case !ok:
		faults.add("cmpv2Servers", "is %s, want a list of at least one server", kind(value))
	case len(list) == 0:
		faults.add("cmpv2Servers", "is empty, want at least one server")
	}
	if len(faults) > 0 {
		return file, faults
	}
	placeOf := map[string]string{}
	for i, entry := range list {
		file.addEntry(fmt.Sprintf("cmpv2Servers[%d]", i), entry, placeOf, readFile)
	}
	if len(file.Servers) == 0 {
		return file, file.Faults
	}
	return file, nil
}

// addEntry parses one entry. placeOf has the places of the
// names so far; of two with the same name the first counts.
func (f *serversFile) addEntry(place string, entry any, placeOf map[string]string,
	readFile func(string) ([]byte, error)) {
	var faults Faults
	var server Server
	if fields, ok := entry.(map[string]any); ok {
		e := entryParser{place: place, fields: fields, faults: &faults, warnings: &f.Warnings, readFile: readFile}
		server = e.parse()
	} else {
		faults.add(place, "is %s, want an object", kind(entry))
	}
	if first, taken := placeOf[server.CAName]; taken {
		faults.add(place+".caName", "has %q, which is already the name of %s", server.CAName, first)
	} else if server.CAName != "" {
		placeOf[server.CAName] = place
	}
	if len(faults) > 0 {
		f.leaveOut(server.CAName, faults)
		return
	}
	server.place = place
	f.Servers = append(f.Servers, server)
}

func (f *serversFile) leaveOut(caName string, faults Faults) {
	f.Faults = append(f.Faults, faults...)
	f.leftOut = append(f.leftOut, caName)
}

// shorten makes a foreign name fit for a message.
func shorten(name string) string { return pki.OneLine(name, 100) }

// jsonWants says what encoding/json expected, by the end of its own text.
var jsonWants = []struct{ context, want string }{
	{"looking for beginning of value", "a value"},
	{"looking for beginning of object key string", "a field's name in double quotes"},
	{"after object key:value pair", "a comma or }"},
	{"after object key", "a colon"},
	{"after array element", "a comma or ]"},
	{"after top-level value", "the end of the file"},
	{"in string literal", "a string without control characters: a line break in it is written as \\n"},
	{"in string escape code", "one of \" \\ / b f n r t u after a backslash"},
	{"hexadecimal character escape", "four hexadecimal digits after \\u"},
	{"numeric literal", "a digit"},
}

// jsonFault describes a syntax error with its line and column. It shows one character of the text
// at most: the text has secrets.
func jsonFault(data []byte, err error) string {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return "the file is not JSON: it cannot be read"
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return "the file is empty, want an object with the key \"cmpv2Servers\""
	}
	read := data[:min(max(int(syntax.Offset), 1), len(data))]
	before, found := read[:len(read)-1], read[len(read)-1]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	reason := jsonReason(before, found, syntax.Error())
	return fmt.Sprintf("line %d, column %d: the file is not JSON: %s", line, column, reason)
}

func jsonReason(before []byte, found byte, text string) string {
	switch {
	case strings.HasPrefix(text, "unexpected end"):
		return "it ends too early, want all braces and brackets closed"
	case !strings.HasPrefix(text, "invalid character"):
		return "it cannot be read"
	}
	want := "a value such as true, false or null"
	for _, w := range jsonWants {
		if strings.HasSuffix(text, w.context) {
			want = w.want
			break
		}
	}
	return fmt.Sprintf("has %s, want %s%s", quotedByte(found), want, jsonAdvice(before, found))
}

// jsonAdvice says how to fix common mistakes.
func jsonAdvice(before []byte, found byte) string {
	rest := bytes.TrimRight(before, " \t\r\n")
	switch {
	case (found == '}' || found == ']') && bytes.HasSuffix(rest, []byte(",")):
		return " (remove the comma before it)"
	case found == '/' || found == '#':
		return " (JSON has no comments)"
	case found == '\'':
		return " (strings are in double quotes)"
	}
	return ""
}

func quotedByte(b byte) string {
	if b > '~' || b < ' ' {
		return fmt.Sprintf("the byte 0x%02x", b)
	}
	return fmt.Sprintf("%q", rune(b))
}

// misspellings are the fields that have no effect, by the known one that each looks like.
type misspellings map[string]string

// hint names the misspelt field after the words that a field is missing.
func (m misspellings) hint(field string) string {
	if written, ok := m[field]; ok {
		return fmt.Sprintf(" (there is %q)", written)
	}
	return ""
}

// findMisspelt finds the fields that look like a known one, and warns
// of each. Others are ignored: files for other programs and other
// versions have them. place is where the object is, with a colon.
func findMisspelt(place string, object map[string]any, known []string, warnings *[]string) misspellings {
	found := misspellings{}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if meant, ok := program.Closest(name, known); ok && !slices.Contains(known, name) {
			found[meant] = shorten(name)
			*warnings = append(*warnings, fmt.Sprintf("%sthe field %q is not known and has no effect: did you mean %q?",
				place, shorten(name), meant))
		}
	}
	return found
}

// parseJSON reads a file that is JSON as a whole; numbers
// keep their text. A fault has its line and column.
func parseJSON(data []byte) (root any, fault string) {
	var all json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil { // reads to the end before it says so
		return nil, jsonFault(data, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&root); err != nil {
		return nil, jsonFault(data, err)
	}
	return root, ""
}

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}
