package certservice

import (
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

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

	SignerDN        string // of whoever signs the answers; "": the CA
	RecipientDN     string // whom requests are addressed to; "": the CA
	SenderReference bool   // requests are sent by the name of the secret, not by the subject
	ExplicitConfirm bool   // certificates are confirmed by a message of their own
	TLS             TLS

	TrustAnchors    []*x509.Certificate // for signed answers
	AdditionalRoots []*x509.Certificate // handed to clients beside the signing root
	Protection      string              // of our requests
	Timeout         time.Duration       // for one CMP transaction and each message in it; 0: the client's default
	MaxInFlight     int                 // requests under way at the same time; 0: not said
	ResponseTrust   string              // "": not said, and there are no anchors
	AllowModified   bool                // certificates may have another subject or other names than asked for

	place string // in the file
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
