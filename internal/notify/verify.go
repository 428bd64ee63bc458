package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// The waits between two looks at the application, and the bound on each.
const (
	verifyInitialInterval = 200 * time.Millisecond
	verifyMaxInterval     = 5 * time.Second
	verifyDialTimeout     = 5 * time.Second
)

// VerifyConfig says where the application serves its certificate.
type VerifyConfig struct {
	// Address is a host and a port, where TLS is spoken from the first byte; or a scheme of protocols, ://, a host and,
	// unless it is the protocol's own, a port.
	Address string
	// ServerName is the name to ask for (SNI). Empty: the address's host when the new certificate
	// vouches for it, otherwise the first name that it does vouch for.
	ServerName string
	// Patience is for how long the application is looked at until it serves the new certificate; more
	// than 0.
	Patience time.Duration
	Log      *slog.Logger
	// Dial connects; nil: net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Verify dials the application with TLS and compares the serial number of the certificate it serves
// with the one that was published. It tries again after 200 ms, then longer, up to 5 s, as long as
// Patience lasts: an application may take its time to reload.
//
// An application that wants a client certificate gets none; its refusal comes after it has shown its
// own, which is all that is looked at. Nothing is sent after the handshake, and nothing before it but what a protocol
// needs to begin TLS.
type Verify struct {
	config   VerifyConfig
	address  string // host:port
	host     string
	protocol protocol
	asked    bool  // in which protocol the server speaks
	found    error // what it answered
}

// NewVerify makes a Verify. It fails when Address is none, or has an unknown scheme.
func NewVerify(config VerifyConfig) (*Verify, error) {
	address, protocol, err := parseAddress(config.Address)
	if err != nil {
		return nil, err
	}
	if config.Dial == nil {
		config.Dial = (&net.Dialer{}).DialContext
	}
	host, _, _ := net.SplitHostPort(address) // parseAddress has made or read it
	return &Verify{config: config, address: address, host: host, protocol: protocol}, nil
}

// Served returns the certificate that the application shows now, trusted or not. names are what to ask for; see
// Event.Names.
func (v *Verify) Served(ctx context.Context, names []string) (*x509.Certificate, error) {
	leaf, _, err := v.served(ctx, Event{Names: names})
	return leaf, err
}

// Address is the host and the port that are dialled.
func (v *Verify) Address() string { return v.address }

// Kind is KindVerify.
func (v *Verify) Kind() string { return KindVerify }

// Notify looks until the application serves the certificate of event; the error is that of the last
// look.
func (v *Verify) Notify(ctx context.Context, event Event) error {
	patient, cancel := context.WithTimeout(ctx, v.config.Patience)
	defer cancel()
	waits := backoff.NewExponentialBackOff(backoff.WithInitialInterval(verifyInitialInterval),
		backoff.WithMaxInterval(verifyMaxInterval), backoff.WithMaxElapsedTime(0))
	v.asked, v.found = false, nil
	var last error
	err := backoff.Retry(func() error {
		err := v.look(patient, event)
		// A look cut off by the end of the patience tells less than the one before.
		if last == nil || patient.Err() == nil {
			last = err
		}
		return err
	}, backoff.WithContext(waits, patient))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("%w (looked for %v)", last, v.config.Patience)
	}
}

// look compares once.
func (v *Verify) look(ctx context.Context, event Event) error {
	served, distrust, err := v.served(ctx, event)
	if err != nil {
		return absentIfRefused(fmt.Errorf("reading the certificate that %s serves: %w", v.config.Address, err))
	}
	if serial := pki.Serial(served); serial != event.Serial {
		return fmt.Errorf("%s serves a certificate with serial number %s, valid until %s, want %s",
			v.config.Address, serial, served.NotAfter.UTC().Format(time.RFC3339), event.Serial)
	}
	if distrust != nil && len(event.Trusted) > 0 {
		v.config.Log.Warn("the application serves the new certificate, but with a chain that peers holding the published truststore refuse",
			"address", v.config.Address, "error", distrust)
	}
	return nil
}

// served returns the leaf that the application shows, trusted or not: of an expired certificate, or
// one of another CA, the serial number is what the operator needs to know. The handshake verifies
// as usual, against the published anchors. Thereby it comes to a clean end with an application that
// does as it should; and when verification fails, the error brings the leaf along, and says in
// distrust why. A leaf that does not have the name asked for is no reason for distrust: loopback and
// pod addresses are not in certificates.
func (v *Verify) served(ctx context.Context, event Event) (leaf *x509.Certificate, distrust, err error) {
	ctx, cancel := context.WithTimeout(ctx, verifyDialTimeout)
	defer cancel()
	raw, err := v.config.Dial(ctx, "tcp", v.address)
	if err != nil {
		return nil, nil, err
	}
	defer raw.Close()
	if err := v.protocol.begin(ctx, raw); err != nil {
		return nil, nil, err
	}
	first := &beginning{Conn: raw}
	anchors := x509.NewCertPool()
	for _, cert := range pki.Usable(event.Trusted) {
		anchors.AddCert(cert)
	}
	conn := tls.Client(first, &tls.Config{
		RootCAs:    anchors,
		ServerName: v.serverName(event.Names),
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf = state.PeerCertificates[0]
			return nil
		},
	})
	err = conn.HandshakeContext(ctx)
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		var name x509.HostnameError
		if !errors.As(err, &name) {
			distrust = unverified.Err
		}
		return unverified.UnverifiedCertificates[0], distrust, nil
	}
	if leaf == nil {
		return nil, nil, v.explainNoTLS(ctx, first.seen, err)
	}
	if err == nil {
		_ = conn.CloseWrite() // close_notify, so that the application logs no broken connection
	}
	return leaf, nil, nil
}

// serverName returns the name to ask for.
func (v *Verify) serverName(names []string) string {
	if v.config.ServerName != "" {
		return v.config.ServerName
	}
	for _, name := range names {
		if strings.EqualFold(name, v.host) {
			return v.host
		}
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "*.") {
			return name
		}
	}
	return v.host
}
