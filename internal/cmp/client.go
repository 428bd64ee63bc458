package cmp

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// ResponseTrust says whose signatures under answers are trusted.
type ResponseTrust string

// The kinds of response trust. It does not apply to answers protected by the shared secret.
const (
	// ResponseTrustAnchored trusts a signer that chains to
	// the trust anchors and has the expected name.
	ResponseTrustAnchored ResponseTrust = "anchored"
	// ResponseTrustONAP also trusts what the ONAP CertService trusted: any signer whose certificate
	// is in the answer, and any root. An attacker on the path to the CA can then issue
	// certificates. Each answer that is accepted for that reason leaves a warning in the log.
	ResponseTrustONAP ResponseTrust = "onap"
)

// Defaults of Config.
const (
	DefaultMessageTimeout = 30 * time.Second
	defaultMaxPollWait    = time.Hour

	// timeWindow is how far messageTime may be off, either way.
	timeWindow = 15 * time.Minute
)

// Signer is a key with its certificate, for protection by signature.
type Signer struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
	Chain       []*x509.Certificate // the certificate's issuers, sent along; may be empty
}

// Config says how to talk to one CMP server. URL and Recipient are required, and Secret or Signer
// by Protection; the zero value of every other field is its default.
type Config struct {
	URL       string // http:// or https://
	Recipient string // the CA's distinguished name after RFC 4514, RDNs sent in the order written
	// RecipientName is the DER Name to use where Recipient is empty.
	RecipientName []byte

	// IssuerDN is the distinguished name of the CA that issues, when requests go to another
	// recipient, such as an RA. Default: Recipient.
	IssuerDN string
	// SignerDN is the distinguished name of who signs answers when that is not the CA, such as an
	// RA. Its certificate must chain to an anchor, and when it is restricted to extended key
	// usages, id-kp-cmcRA or id-kp-cmcCA must be among them.
	SignerDN string
	// SenderReference has requests under a MAC name as their sender the CN Reference (RFC 9483,
	// 3.1), not the CSR's subject.
	SenderReference bool

	Protection Protection // of what is sent; default ProtectionPBMSHA256
	Secret     []byte     // shared with the CA (ONAP: IAK), for the kinds of MAC; also verifies answers
	Reference  string     // names the secret (ONAP: RV), sent as senderKID
	Signer     *Signer    // for ProtectionSignature

	TrustAnchors  []*x509.Certificate // for the signers of answers and for issued certificates
	ResponseTrust ResponseTrust       // default ResponseTrustAnchored
	// ServerAnchors are those of TLS, and ServerName is the host in URL. Where they are set, the
	// server may sign answers with its TLS certificate: a registration authority, which replaces
	// the protection between it and the CA (RFC 9483, 5.2.3.1).
	ServerAnchors []*x509.Certificate
	ServerName    string

	CertProfile     string // to ask for, by id-it-certProfile; empty: none
	ImplicitConfirm bool   // ask the CA to do without certConf and pkiConf
	AllowModified   bool   // take certificates with other names than asked for

	MessageTimeout time.Duration // for one message and its answer; default DefaultMessageTimeout
	MaxPollWait    time.Duration // from when a transaction begins to the last poll; default defaultMaxPollWait
	Answers        *Answers      // bound on large answers; default one of the client's own, of DefaultAnswerBytes

	// Accept is asked about each certificate that has passed all checks, before it is confirmed;
	// its error rejects the certificate. Nil: all are accepted.
	Accept func(Result) error

	// Derive is called with what derives the key of an answer's MAC where the peer makes that take
	// more than a few milliseconds, and has to call it once, when there is a processor for it. An
	// error of its own fails the transaction. Default: at once.
	Derive func(derive func()) error

	HTTPClient *http.Client // default http.DefaultClient's transport; redirects are never followed
	Now        func() time.Time
	// Log gets a debug line for each exchange, and a warning for what is accepted and should be
	// looked at, such as each answer that only ResponseTrustONAP accepts; default none.
	Log *slog.Logger
}

// Client requests certificates from one CMP server. It may be used from several goroutines; each
// call is a transaction of its own. Errors are *StatusError, *CheckError or *TransportError where
// the CA's side is at fault. The deadline of ctx bounds each call as a whole, with its polling.
type Client struct {
	cfg       Config
	recipient []byte      // DER Name
	addressee GeneralName // the recipient, as messages have it
	issuer    []byte      // DER Name of the CA that issues
	signer    []byte      // DER Name of who signs answers, nil when that is the CA
	sender    []byte      // DER Name of the sender of requests under a MAC, nil when that is the CSR's subject
	transport *transport
	keys      *MACKeys
	current   currentMAC
	known     *known
}

// New checks the configuration and returns a client.
func New(cfg Config) (*Client, error) {
	c := &Client{}
	if err := c.parseNames(cfg); err != nil {
		return nil, err
	}
	if cfg.Protection == "" {
		cfg.Protection = ProtectionPBMSHA256
	}
	if err := checkCredentials(cfg); err != nil {
		return nil, err
	}
	switch cfg.ResponseTrust {
	case "":
		cfg.ResponseTrust = ResponseTrustAnchored
	case ResponseTrustAnchored, ResponseTrustONAP:
	default:
		return nil, fmt.Errorf("response trust is %q, want %q or %q", cfg.ResponseTrust,
			ResponseTrustAnchored, ResponseTrustONAP)
	}
	cfg.MessageTimeout = positiveOr(cfg.MessageTimeout, DefaultMessageTimeout)
	cfg.MaxPollWait = positiveOr(cfg.MaxPollWait, defaultMaxPollWait)
	if cfg.Answers == nil {
		cfg.Answers = NewAnswers(DefaultAnswerBytes)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	transport, err := newTransport(cfg)
	if err != nil {
		return nil, err
	}
	c.cfg, c.transport, c.keys, c.known = cfg, transport, NewMACKeys(cfg.Secret), newKnown()
	c.keys.derive = cfg.Derive
	return c, nil
}

func (c *Client) parseNames(cfg Config) (err error) {
	c.recipient = cfg.RecipientName
	if cfg.Recipient != "" || c.recipient == nil {
		if c.recipient, err = ParseDN(cfg.Recipient); err != nil {
			return fmt.Errorf("recipient: %w", err)
		}
	}
	c.addressee = DirectoryName(c.recipient)
	c.issuer = c.recipient
	if cfg.IssuerDN != "" {
		if c.issuer, err = ParseDN(cfg.IssuerDN); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
	}
	if cfg.SignerDN != "" {
		if c.signer, err = ParseDN(cfg.SignerDN); err != nil {
			return fmt.Errorf("signer: %w", err)
		}
	}
	if !cfg.SenderReference {
		return nil
	}
	if c.sender, err = commonName(cfg.Reference); err != nil {
		return errors.New("sender is to be the reference of the secret, and the reference is empty or not UTF-8")
	}
	return nil
}

func positiveOr(value, otherwise time.Duration) time.Duration {
	if value > 0 {
		return value
	}
	return otherwise
}

func checkCredentials(cfg Config) error {
	switch cfg.Protection {
	case ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1:
		if len(cfg.Secret) == 0 {
			return fmt.Errorf("protection %q needs a secret", cfg.Protection)
		}
	case ProtectionSignature:
		if cfg.Signer == nil {
			return errors.New(`protection "signature" needs a key and its certificate`)
		}
		return cfg.Signer.check()
	case ProtectionNone:
	default:
		return fmt.Errorf("protection is %q, want %q, %q, %q, %q or %q", cfg.Protection,
			ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1, ProtectionSignature, ProtectionNone)
	}
	return nil
}

func (s *Signer) check() error {
	if s.Key == nil || s.Certificate == nil {
		return errors.New("signer lacks its key or its certificate")
	}
	if !pki.SameKey(s.Key.Public(), s.Certificate.PublicKey) {
		return fmt.Errorf("key of the signer does not belong to its certificate %q", pki.DN(s.Certificate.RawSubject))
	}
	return nil
}
