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
	"syscall"
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

// verifier dials the application with TLS and compares the serial number of the certificate it
// serves with the one that was published. It tries again after 200 ms, then longer, up to 5 s,
// until the time of Settings.VerifyFor is over: an application may take its time to reload.
//
// An application that wants a client certificate gets none; its refusal comes after it has shown
// its own, which is all that is looked at. Nothing is sent after the handshake, and nothing before
// it but what a protocol needs to begin TLS.
type verifier struct {
	target        string // as configured
	address, host string // host:port
	name          string // to ask for; empty: see Settings.VerifyServerName
	protocol      protocol
	patience      time.Duration
	log           *slog.Logger
	asked         bool  // in which protocol the server speaks
	found         error // what it answered
}

func newVerifier(s Settings, o Options) (Notifier, error) {
	if s.Verify == "" {
		return nil, nil
	}
	address, protocol, err := parseAddress(s.Verify)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(address) // parseAddress has made or read it
	return &verifier{
		target: s.Verify, address: address, host: host, name: s.VerifyServerName, protocol: protocol,
		patience: s.VerifyFor, log: o.Log,
	}, nil
}

// Kind is KindVerify.
func (v *verifier) Kind() string { return KindVerify }

// Check reads which certificate the application serves.
func (v *verifier) Check(ctx context.Context, names []string) Finding {
	leaf, _, err := v.readServed(ctx, Event{Names: names})
	if err != nil {
		return Finding{
			Found: v.target + " shows no certificate", Err: err,
			Advice: "is the application up, with TLS, and is NOTIFY_VERIFY its address and protocol?",
		}
	}
	return Finding{Found: fmt.Sprintf("%s serves the certificate of %q with serial number %s, valid until %s",
		v.target, pki.DN(leaf.RawSubject), pki.Serial(leaf), leaf.NotAfter.UTC().Format(time.RFC3339))}
}

// Notify looks until the application serves the certificate
// of event; the error is that of the last look.
func (v *verifier) Notify(ctx context.Context, event Event) error {
	patient, cancel := context.WithTimeout(ctx, v.patience)
	defer cancel()
	waits := backoff.NewExponentialBackOff(backoff.WithInitialInterval(verifyInitialInterval),
		backoff.WithMaxInterval(verifyMaxInterval), backoff.WithMaxElapsedTime(0))
	v.asked, v.found = false, nil
	var last error
	err := backoff.Retry(func() error {
		err := v.look(patient, event)
		// A look that the end of the time cut off says less than the one before.
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
		return fmt.Errorf("%w (looked for %v)", last, v.patience)
	}
}

// look compares once.
func (v *verifier) look(ctx context.Context, event Event) error {
	served, distrust, err := v.readServed(ctx, event)
	if err != nil {
		return absentIf(syscall.ECONNREFUSED, fmt.Errorf("reading the certificate that %s serves: %w", v.target, err))
	}
	if serial := pki.Serial(served); serial != event.Serial {
		return fmt.Errorf("%s serves a certificate with serial number %s, valid until %s, want %s",
			v.target, serial, served.NotAfter.UTC().Format(time.RFC3339), event.Serial)
	}
	if distrust != nil && len(event.Trusted) > 0 {
		v.log.Warn("the application serves the new certificate, but with a chain that peers "+
			"with the published truststore refuse",
			"address", v.target, "error", distrust)
	}
	return nil
}

// readServed returns the leaf that the application shows, trusted or not: of an expired
// certificate, or one of another CA, the serial number is what the operator needs to know. The
// handshake verifies as usual, against the published anchors. This is how it comes to a clean end
// with an application that does as it should; and when verification fails, the error brings the
// leaf along, and says in distrust why. A leaf that does not have the name asked for is not a
// reason for distrust: loopback and pod addresses are not in certificates.
func (v *verifier) readServed(ctx context.Context, event Event) (leaf *x509.Certificate, distrust, err error) {
	ctx, cancel := context.WithTimeout(ctx, verifyDialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.address)
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
	if unverified, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
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
func (v *verifier) serverName(names []string) string {
	if v.name != "" {
		return v.name
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
