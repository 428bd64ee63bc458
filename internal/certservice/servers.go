package certservice

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/fileaccess"
)

// maxConfigBytes bounds cmpServers.json and each file of certificates that it names.
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

	TrustAnchors    []*x509.Certificate // for signed answers
	AdditionalRoots []*x509.Certificate // handed to clients beside the signing root
	Protection      string              // of our requests
	Timeout         time.Duration       // for one CMP transaction and each message in it; 0: the client's default
	ResponseTrust   string              // "": not said, and there are no anchors
	AllowModified   bool                // certificates may have another subject or other names than asked for
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

// LoadServers reads and validates cmpServers.json. Paths of certificates in it are relative to its directory. The
// error is Faults when the file could be read.
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
	data, _, err := fileaccess.Read(path, maxConfigBytes)
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
